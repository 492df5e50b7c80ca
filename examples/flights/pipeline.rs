//! The queue's part: one topic, two publishers, four subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ringmq::{Backoff, Broker, Delivery, Result, SubscribeOptions, Subscription};

use crate::figures::{self, ATTEMPTS, Counts, Delays, Origins};
use crate::reading::Flight;

const PUBLISHERS: usize = 2;
const COUNTERS: usize = 4;

/// What came out.
pub struct Found {
    pub counts: Counts,
    pub origins: Origins,
    /// From the first publish until the archive had everything.
    pub took: Duration,
}

pub fn run(flights: &[Flight]) -> Result<Found> {
    let broker = Broker::open("mem:")?;
    let topic = broker.topic::<Flight>("flights")?;

    // They exist before the first publish, so each sees every flight.
    let archive = topic.subscribe("archive")?;
    let stats = topic.subscribe("stats")?;
    let alerts = topic.subscribe_with(SubscribeOptions::new("alerts").filter(figures::is_late))?;
    let flaky = topic.subscribe_with(
        SubscribeOptions::new("flaky")
            .max_failures(ATTEMPTS)
            .backoff(Backoff::fixed(Duration::from_millis(1))),
    )?;

    let tries = Arc::new(Tries::default());
    let handlers = flaky.run(2, {
        let tries = tries.clone();
        move |flight| tries.handle(flight)
    });

    let started = Instant::now();
    let mut found = thread::scope(|scope| -> Result<Found> {
        let archiving = scope.spawn(|| archive_all(&archive, flights.len(), started));
        let counting: Vec<_> = (0..COUNTERS).map(|_| scope.spawn(|| count(&stats))).collect();
        let alerting = scope.spawn(|| alerts.iter().try_fold(0, |n, late| late?.ack().map(|()| n + 1)));
        let publishing: Vec<_> = (0..PUBLISHERS)
            .map(|n| {
                let mine = flights.iter().skip(n).step_by(PUBLISHERS).cloned();
                scope.spawn(|| topic.publisher().publish_batch(mine))
            })
            .collect();

        for publisher in publishing {
            join(publisher)?;
        }
        // Subscribers get what was accepted, retries included, and end.
        topic.close();
        let mut found = join(archiving)?;
        for counter in counting {
            for (airport, delays) in join(counter)? {
                found.counts.counted += delays.flights;
                figures::add(&mut found.origins, airport, delays);
            }
        }
        found.counts.alerts = join(alerting)?;
        Ok(found)
    })?;
    handlers.join();

    found.counts.origins = found.origins.len() as u64;
    found.counts.settled_first = tries.settled_first.load(Relaxed);
    found.counts.settled_second = tries.settled_second.load(Relaxed);
    found.counts.deliveries = tries.deliveries.load(Relaxed);
    found.counts.dead_letters = flaky.dead_letters().len() as u64;
    Ok(found)
}

/// One subscriber, which takes plain flights; progress once a second, on the standard error.
fn archive_all(archive: &Subscription<Flight>, all: usize, started: Instant) -> Result<Found> {
    let mut counts = Counts::default();
    let mut last_rows = [0; PUBLISHERS];
    let mut said = started;
    for flight in archive.auto_ack().subscriber() {
        let flight = flight?;
        // Publisher 0 has the odd rows, publisher 1 the even ones.
        let last_row = &mut last_rows[(flight.row as usize - 1) % PUBLISHERS];
        counts.out_of_order += u64::from(flight.row <= *last_row);
        *last_row = flight.row;
        counts.archived += 1;
        if counts.archived.is_multiple_of(1 << 16) && said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            eprintln!("  {} of {all} archived", counts.archived);
        }
    }
    Ok(Found {
        counts,
        origins: Origins::new(),
        took: started.elapsed(),
    })
}

/// One of the competing subscribers: the delays of the flights that it got.
fn count(stats: &Subscription<Flight>) -> Result<Origins> {
    let mut origins = Origins::new();
    for flight in stats.subscriber() {
        let flight = flight?;
        figures::add(&mut origins, flight.origin, Delays::of(&flight));
        flight.ack()?;
    }
    Ok(origins)
}

/// What `flaky` went through.
#[derive(Default)]
struct Tries {
    deliveries: AtomicU64,
    settled_first: AtomicU64,
    settled_second: AtomicU64,
}

impl Tries {
    /// The handler: an error is a failure, and the flight comes again until it has failed too often.
    fn handle(&self, flight: &Delivery<Flight>) -> Result<(), String> {
        self.deliveries.fetch_add(1, Relaxed);
        if figures::fails(flight.row, flight.attempt()) {
            return Err(format!("row {} failed at attempt {}", flight.row, flight.attempt()));
        }
        match flight.attempt() {
            1 => self.settled_first.fetch_add(1, Relaxed),
            _ => self.settled_second.fetch_add(1, Relaxed),
        };
        Ok(())
    }
}

fn join<V, E: Into<ringmq::Error>>(thread: ScopedJoinHandle<'_, Result<V, E>>) -> Result<V> {
    thread.join().expect("no thread panics").map_err(Into::into)
}
