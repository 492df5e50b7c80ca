//! A queue bound to a workload: its types are gone, what is left is a name and something to run.

use std::time::{Duration, Instant};

use crate::{
    latency, ours,
    payload::{Line, Payload, Shared},
    peers::{
        self, Visitor,
        tasks::{self, Executor, TaskQueue, TaskVisitor},
    },
    queue::{Idle, Queue, Shape},
    rows::{Body, Row, Workload},
    stream,
};

/// One column of a row.
pub struct Contender {
    /// As in the table.
    pub name: &'static str,
    /// A variant of ours.
    pub ours: bool,
    /// How it waits.
    pub idle: Idle,
    run: Run,
}

/// Runs a job of about this size; gives the figure in the row's unit.
type Run = Box<dyn Fn(u64) -> Result<f64, String>>;

/// What a run brought.
pub struct Outcome {
    /// In the row's unit.
    pub figure: f64,
    /// How long the run took, setting up included.
    pub took: Duration,
}

impl Contender {
    /// Runs once.
    ///
    /// # Errors
    ///
    /// Says what was lost, doubled or garbled.
    pub fn run(&self, size: u64) -> Result<Outcome, String> {
        let started = Instant::now();
        let figure = (self.run)(size)?;
        Ok(Outcome {
            figure,
            took: started.elapsed(),
        })
    }
}

/// Which peers take part in a row.
pub enum Choice {
    /// Those that the row names.
    Listed,
    /// All that can.
    All,
    /// Those whose name contains one of these words.
    Matching(Vec<String>),
}

impl Choice {
    fn takes(&self, row: &Row, name: &str) -> bool {
        match self {
            Choice::Listed => row.peers.contains(&name),
            Choice::All => true,
            Choice::Matching(words) => words.iter().any(|word| name.contains(word.as_str())),
        }
    }
}

/// Our variants of a row and the chosen peers.
pub fn contenders(row: &Row, choice: &Choice) -> Vec<Contender> {
    let mut all = Vec::new();
    match row.workload {
        Workload::Stream(shape, Body::Word) => {
            ours::visit::<u64>(&mut Streams::new(shape, true, &mut all));
            peers::visit::<u64>(&mut Streams::new(shape, false, &mut all));
            peers::visit_plain::<u64>(&mut Streams::new(shape, false, &mut all));
        }
        Workload::Stream(shape, Body::Line) => gather::<Line>(&mut all, shape),
        Workload::Stream(shape, Body::Shared) => gather::<Shared>(&mut all, shape),
        Workload::Tasks(executor, capacity) => {
            ours::visit_tasks(&mut Tasks {
                executor,
                capacity,
                ours: true,
                found: &mut all,
            });
            tasks::visit(&mut Tasks {
                executor,
                capacity,
                ours: false,
                found: &mut all,
            });
        }
        workload @ (Workload::RoundTrip | Workload::IdleWakeDelay | Workload::IdleWakeCpu) => {
            ours::visit::<u64>(&mut Latencies {
                workload,
                ours: true,
                found: &mut all,
            });
            peers::visit_leaders::<u64>(&mut Latencies {
                workload,
                ours: false,
                found: &mut all,
            });
        }
    }
    let claimed = |name| row.claims.iter().any(|claim| claim.ours == name);
    all.retain(|it| if it.ours { claimed(it.name) } else { choice.takes(row, it.name) });
    all
}

/// Ours and the leaders among the peers.
fn gather<T: Payload>(all: &mut Vec<Contender>, shape: Shape) {
    ours::visit::<T>(&mut Streams::new(shape, true, all));
    peers::visit_leaders::<T>(&mut Streams::new(shape, false, all));
}

struct Streams<'a> {
    shape: Shape,
    ours: bool,
    found: &'a mut Vec<Contender>,
}

impl<'a> Streams<'a> {
    fn new(shape: Shape, ours: bool, found: &'a mut Vec<Contender>) -> Self {
        Streams { shape, ours, found }
    }
}

impl<T: Payload> Visitor<T> for Streams<'_> {
    fn queue<Q: Queue<T>>(&mut self) {
        let shape = self.shape;
        if Q::serves(&shape) {
            let run = Box::new(move |messages| stream::run::<T, Q>(&shape, messages).map(|(messages, took)| rate(messages, took)));
            self.found.push(Contender {
                name: Q::NAME,
                ours: self.ours,
                idle: Q::IDLE,
                run,
            });
        }
    }
}

struct Latencies<'a> {
    workload: Workload,
    ours: bool,
    found: &'a mut Vec<Contender>,
}

impl Visitor<u64> for Latencies<'_> {
    fn queue<Q: Queue<u64>>(&mut self) {
        let run: Run = match self.workload {
            Workload::RoundTrip => Box::new(latency::round_trip::<Q>),
            Workload::IdleWakeDelay => Box::new(|size| latency::idle_wake::<Q>(size).map(|wake| wake.delay_ns / 1000.0)),
            _ => Box::new(|size| latency::idle_wake::<Q>(size).map(|wake| wake.cpu_ns / 1000.0)),
        };
        // Omango now and then sleeps through the end of a stream that was idle.
        if Q::serves(&Shape::new(1, 1, 1)) && !Q::NAME.starts_with("omango") {
            self.found.push(Contender {
                name: Q::NAME,
                ours: self.ours,
                idle: Q::IDLE,
                run,
            });
        }
    }
}

struct Tasks<'a> {
    executor: Executor,
    capacity: usize,
    ours: bool,
    found: &'a mut Vec<Contender>,
}

impl TaskVisitor for Tasks<'_> {
    fn tasks<Q: TaskQueue>(&mut self) {
        let (executor, capacity) = (self.executor, self.capacity);
        let run = Box::new(move |messages| tasks::run::<Q>(executor, capacity, messages).map(|took| rate(messages, took)));
        self.found.push(Contender {
            name: Q::NAME,
            ours: self.ours,
            idle: Idle::Parks,
            run,
        });
    }
}

/// Millions per second.
fn rate(messages: u64, took: Duration) -> f64 {
    messages as f64 / took.as_secs_f64() / 1e6
}
