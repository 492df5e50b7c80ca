//! What should come out: the figures of a plain pass over the same flights, one after the other, without any queue.

use std::collections::BTreeMap;

use crate::reading::{Airport, Flight};

/// How often `flaky` tries a flight.
pub const ATTEMPTS: u32 = 3;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub archived: u64,
    /// Flights that the archive got before an earlier one of the same publisher.
    pub out_of_order: u64,
    pub counted: u64,
    pub origins: u64,
    pub alerts: u64,
    pub settled_first: u64,
    pub settled_second: u64,
    pub dead_letters: u64,
    pub deliveries: u64,
}

/// The figures of `examples/data/flights.csv`.
pub const BUNDLED: Counts = Counts {
    archived: 20_000,
    out_of_order: 0,
    counted: 20_000,
    origins: 59,
    alerts: 845,
    settled_first: 19_800,
    settled_second: 196,
    dead_letters: 4,
    deliveries: 20_204,
};

/// The delays of one airport's departures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    pub flights: u64,
    pub sum_minutes: i64,
    pub worst_minutes: i32,
}

impl Delays {
    pub fn of(flight: &Flight) -> Self {
        Self {
            flights: 1,
            sum_minutes: flight.delay_minutes.into(),
            worst_minutes: flight.delay_minutes,
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            flights: self.flights + other.flights,
            sum_minutes: self.sum_minutes + other.sum_minutes,
            worst_minutes: self.worst_minutes.max(other.worst_minutes),
        }
    }

    pub fn mean_minutes(&self) -> f64 {
        self.sum_minutes as f64 / self.flights as f64
    }
}

pub type Origins = BTreeMap<Airport, Delays>;

/// Adds the delays of one airport.
pub fn add(origins: &mut Origins, airport: Airport, delays: Delays) {
    origins.entry(airport).and_modify(|sum| *sum = sum.and(delays)).or_insert(delays);
}

/// Whether a flight is worth an alert.
pub fn is_late(flight: &Flight) -> bool {
    flight.delay_minutes > 60
}

/// Whether `flaky` fails at this attempt (from 1) of this row (from 1).
pub fn fails(row: u64, attempt: u32) -> bool {
    row.is_multiple_of(5_000) || (row.is_multiple_of(100) && attempt == 1)
}

/// What should come out.
pub struct Expected {
    pub counts: Counts,
    pub origins: Origins,
}

impl Expected {
    pub fn of(flights: &[Flight]) -> Self {
        let mut counts = Counts::default();
        let mut origins = Origins::new();
        for flight in flights {
            counts.archived += 1;
            counts.counted += 1;
            counts.alerts += u64::from(is_late(flight));
            add(&mut origins, flight.origin, Delays::of(flight));
            let settled = (1..=ATTEMPTS).find(|&attempt| !fails(flight.row, attempt));
            counts.deliveries += u64::from(settled.unwrap_or(ATTEMPTS));
            match settled {
                Some(1) => counts.settled_first += 1,
                Some(_) => counts.settled_second += 1,
                None => counts.dead_letters += 1,
            }
        }
        counts.origins = origins.len() as u64;
        Self { counts, origins }
    }
}
