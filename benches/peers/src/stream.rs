//! One timed run of one queue in one shape: all publishers and subscribers at once, everything checked.

use std::{
    hint,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    machine,
    payload::Payload,
    queue::{Publish, Queue, Receive, Shape},
};

/// What one subscriber saw.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Seen {
    messages: u64,
    checksum: u64,
}

impl Seen {
    #[inline(always)]
    fn note<T: Payload>(&mut self, value: &T) {
        self.messages += 1;
        self.checksum = self.checksum.wrapping_add(value.value());
    }

    fn plus(self, other: Seen) -> Seen {
        Seen {
            messages: self.messages + other.messages,
            checksum: self.checksum.wrapping_add(other.checksum),
        }
    }
}

/// What one thread does: publishes its share and sees nothing, or receives until the end.
type Job = Box<dyn FnOnce() -> Seen + Send>;

/// All threads of a run, not yet started. Boxed, so that starting and timing them is compiled once, not once per queue.
struct Crew {
    publishers: Vec<Job>,
    subscriptions: Vec<Vec<Job>>,
}

/// Publishes about `messages` messages through `Q`; returns how many they were, and how long the threads took from the first start to
/// the last end.
///
/// # Errors
///
/// Says which subscription missed, doubled or garbled messages.
pub fn run<T: Payload, Q: Queue<T>>(shape: &Shape, messages: u64) -> Result<(u64, Duration), String> {
    let publishers = shape.publishers as u64;
    let share = messages.div_ceil(publishers).next_multiple_of(shape.batch as u64);
    let messages = share * publishers;
    let expected = Seen {
        messages,
        checksum: T::checksum(messages),
    };
    let took = time(shape, crew::<T, Q>(shape, share), expected)?;
    Ok((messages, took))
}

fn crew<T: Payload, Q: Queue<T>>(shape: &Shape, share: u64) -> Crew {
    let batch = shape.batch;
    let ends = Q::open(shape);
    let publishing = |(index, publisher): (u64, Q::Publisher)| -> Job {
        let maker = T::maker();
        Box::new(move || {
            publish::<T, _>(publisher, batch, index * share..(index + 1) * share, &maker);
            Seen::default()
        })
    };
    let receiving = |subscriber: Q::Subscriber| -> Job { Box::new(move || receive::<T, _>(subscriber, batch)) };
    Crew {
        publishers: (0..).zip(ends.publishers).map(publishing).collect(),
        subscriptions: ends
            .subscriptions
            .into_iter()
            .map(|subscribers| subscribers.into_iter().map(receiving).collect())
            .collect(),
    }
}

/// Starts all jobs at once, and compares what each subscription saw.
fn time(shape: &Shape, crew: Crew, expected: Seen) -> Result<Duration, String> {
    let gate = Gate::new(shape.threads());
    let (mut spans, mut groups) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let start = |side: usize, job: Job| {
            let (gate, pinned) = (&gate, shape.is_pair());
            scope.spawn(move || {
                if pinned {
                    machine::pin(side);
                }
                gate.pass();
                let started = Instant::now();
                let seen = job();
                (seen, started, Instant::now())
            })
        };
        let publishing: Vec<_> = crew.publishers.into_iter().map(|job| start(0, job)).collect();
        let receiving: Vec<Vec<_>> = crew
            .subscriptions
            .into_iter()
            .map(|jobs| jobs.into_iter().map(|job| start(1, job)).collect())
            .collect();
        for group in std::iter::once(publishing).chain(receiving) {
            let mut total = Seen::default();
            for thread in group {
                let (seen, started, ended) = thread.join().expect("a run's threads reach their end");
                spans.push((started, ended));
                total = total.plus(seen);
            }
            groups.push(total);
        }
    });

    // The first group are the publishers, who see nothing.
    if let Some((index, seen)) = (0..).zip(&groups[1..]).find(|(_, seen)| **seen != expected) {
        return Err(format!("subscription {index} saw {seen:?}, expected {expected:?}"));
    }
    let first = spans.iter().map(|span| span.0).min().expect("a run has threads");
    let last = spans.iter().map(|span| span.1).max().expect("a run has threads");
    Ok(last - first)
}

fn publish<T: Payload, P: Publish<T>>(mut publisher: P, batch: usize, ids: std::ops::Range<u64>, maker: &T::Maker) {
    if batch == 1 {
        for id in ids {
            publisher.publish(T::make(maker, id));
        }
    } else {
        let mut next = ids.start;
        while next < ids.end {
            publisher.publish_batch(batch, || {
                next += 1;
                T::make(maker, next - 1)
            });
        }
    }
}

fn receive<T: Payload, S: Receive<T>>(mut subscriber: S, batch: usize) -> Seen {
    let mut seen = Seen::default();
    if batch == 1 {
        while subscriber.receive(|value| seen.note(value)) {}
    } else {
        while subscriber.receive_batch(batch, |value| seen.note(value)) {}
    }
    seen
}

/// Holds threads until all have come, without putting any to sleep for long.
pub struct Gate(AtomicUsize);

impl Gate {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Gate(AtomicUsize::new(threads))
    }

    /// Returns when the last thread has called it.
    pub fn pass(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        for turn in 0u32.. {
            if self.0.load(Ordering::Acquire) == 0 {
                return;
            }
            if turn % 64 == 63 { thread::yield_now() } else { hint::spin_loop() }
        }
    }
}
