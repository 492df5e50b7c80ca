//! Rounds of short runs: every contender of a row in turn, again and again, and what may be compared with what.

use std::time::Duration;

use crate::{
    contender::Contender,
    machine::{Placement, Probe},
    queue::Idle,
    rows::{Bar, Claim, Of, Row, Unit},
    stats::Quartiles,
};

/// A run should last about so long: shorter than the host leaves the processors in one place.
const RUN: Duration = Duration::from_millis(8);

/// How long to wait for the placement that gates, before each run.
const PATIENCE: Duration = Duration::from_millis(20);

/// A ratio is settled with so many pairs and this much uncertainty of its median, or with many pairs.
const ENOUGH_PAIRS: usize = 25;
const ENOUGH_CERTAINTY: f64 = 0.025;
const MANY_PAIRS: usize = 150;

/// A row and everything measured for it.
pub struct Bench {
    /// The row.
    pub row: &'static Row,
    /// One lane per contender.
    pub lanes: Vec<Lane>,
    rounds: usize,
}

/// A contender and its trials.
pub struct Lane {
    /// Who runs here.
    pub contender: Contender,
    /// Every run that stayed in one placement.
    pub trials: Vec<Trial>,
    /// Runs dropped because the placement changed meanwhile.
    pub dropped: usize,
    size: u64,
}

/// One run.
#[derive(Clone, Copy)]
pub struct Trial {
    round: usize,
    placement: Placement,
    figure: f64,
}

impl Bench {
    /// Nothing measured yet.
    pub fn new(row: &'static Row, contenders: Vec<Contender>) -> Self {
        let lane = |contender| Lane {
            contender,
            trials: Vec::new(),
            dropped: 0,
            size: 1000,
        };
        Bench {
            row,
            lanes: contenders.into_iter().map(lane).collect(),
            rounds: 0,
        }
    }

    /// Runs every contender once, beginning with another one each time.
    ///
    /// # Errors
    ///
    /// A run that lost or garbled messages, with the contender's name.
    pub fn round(&mut self, probe: &Probe, mut announce: impl FnMut(&Row, &Contender)) -> Result<(), String> {
        let count = self.lanes.len();
        for turn in 0..count {
            let lane = &mut self.lanes[(self.rounds + turn) % count];
            announce(self.row, &lane.contender);
            let before = probe.near_or_after(PATIENCE);
            let outcome = lane
                .contender
                .run(lane.size)
                .map_err(|error| format!("{}: {}: {error}", self.row.name, lane.contender.name))?;
            let after = probe.placement();
            let stretch = RUN.as_secs_f64() / outcome.took.as_secs_f64();
            let warm = stretch < 4.0;
            lane.size = ((lane.size as f64 * stretch.clamp(0.3, 4.0)) as u64).clamp(64, 1 << 24);
            if before != after {
                lane.dropped += 1;
            } else if warm {
                lane.trials.push(Trial {
                    round: self.rounds,
                    placement: before,
                    figure: outcome.figure,
                });
            }
        }
        self.rounds += 1;
        Ok(())
    }

    /// The figures of a contender in one placement.
    pub fn figures(&self, lane: &Lane, placement: Placement) -> Option<Quartiles> {
        let here = lane.trials.iter().filter(|trial| trial.placement == placement);
        Quartiles::of(here.map(|trial| trial.figure).collect())
    }

    /// Ours through theirs, over the rounds in which both ran in this placement.
    pub fn ratio(&self, ours: &Lane, theirs: &Lane, placement: Placement) -> Option<Quartiles> {
        let mut other = theirs.trials.iter().filter(|trial| trial.placement == placement).peekable();
        let mut ratios = Vec::new();
        for trial in ours.trials.iter().filter(|trial| trial.placement == placement) {
            while other.next_if(|it| it.round < trial.round).is_some() {}
            if let Some(pair) = other.next_if(|it| it.round == trial.round) {
                ratios.push(trial.figure / pair.figure);
            }
        }
        Quartiles::of(ratios)
    }

    /// The lane of that name.
    pub fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.contender.name == name)
    }

    /// The lane that a bar compares with, going by the medians of the placement that gates.
    pub fn rival(&self, of: Of) -> Option<&Lane> {
        let better = |figure: f64| match self.row.workload.unit() {
            Unit::MillionPerSecond => figure,
            Unit::Nanoseconds | Unit::Microseconds => -figure,
        };
        let best = |parking_only: bool| {
            self.lanes
                .iter()
                .filter(|lane| !lane.contender.ours && (!parking_only || lane.contender.idle == Idle::Parks))
                .filter_map(|lane| Some((lane, better(self.figures(lane, Placement::Near)?.median))))
                .max_by(|(_, one), (_, other)| one.total_cmp(other))
                .map(|(lane, _)| lane)
        };
        match of {
            Of::Parking => best(true),
            Of::Any => best(false),
            Of::Named(name) => self.lane(name),
        }
    }

    /// The ratio that a bar is about, in the placement that gates.
    pub fn against(&self, claim: &Claim, of: Of) -> Option<Quartiles> {
        self.ratio(self.lane(claim.ours)?, self.rival(of)?, Placement::Near)
    }

    /// Whether the bar holds for this ratio.
    pub fn holds(&self, bar: &Bar, ratio: &Quartiles) -> bool {
        match self.row.workload.unit() {
            Unit::MillionPerSecond => ratio.median >= bar.limit,
            Unit::Nanoseconds | Unit::Microseconds => ratio.median <= bar.limit,
        }
    }

    /// Whether more rounds would not move what the row says.
    pub fn settled(&self) -> bool {
        let sure = |claim: &Claim, of: Of| match self.against(claim, of) {
            Some(ratio) if ratio.count >= MANY_PAIRS => true,
            Some(ratio) => ratio.count >= ENOUGH_PAIRS && ratio.uncertainty() < ENOUGH_CERTAINTY,
            None => self.lane(claim.ours).is_none() && self.rounds >= MANY_PAIRS,
        };
        self.row.claims.iter().all(|claim| claim.bars.iter().all(|bar| sure(claim, bar.of)))
    }
}
