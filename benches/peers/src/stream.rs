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

/// From the first thread's start to the last thread's end.
#[derive(Clone, Copy)]
struct Span(Instant, Instant);

/// Publishes about `messages` messages through `Q`.
///
/// # Errors
///
/// Says which subscription missed, doubled or garbled messages.
pub fn run<T: Payload, Q: Queue<T>>(shape: &Shape, messages: u64) -> Result<(u64, Duration), String> {
    let publishers = shape.publishers as u64;
    let share = messages.div_ceil(publishers).next_multiple_of(shape.batch as u64);
    let messages = share * publishers;
    let ends = Q::open(shape);
    let gate = Gate::new(shape.threads());
    let place = |side| shape.is_pair().then(|| machine::pin(side));

    let (spans, subscriptions): (Vec<Span>, Vec<Seen>) = thread::scope(|scope| {
        let gate = &gate;
        let publishing: Vec<_> = (0..)
            .zip(ends.publishers)
            .map(|(index, publisher)| {
                scope.spawn(move || {
                    place(0);
                    let maker = T::maker();
                    gate.pass();
                    let started = Instant::now();
                    publish::<T, _>(publisher, shape.batch, index * share..(index + 1) * share, &maker);
                    Span(started, Instant::now())
                })
            })
            .collect();
        let receiving: Vec<Vec<_>> = ends
            .subscriptions
            .into_iter()
            .map(|subscribers| {
                let start = |subscriber| {
                    scope.spawn(move || {
                        place(1);
                        gate.pass();
                        let started = Instant::now();
                        let seen = receive::<T, _>(subscriber, shape.batch);
                        (Span(started, Instant::now()), seen)
                    })
                };
                subscribers.into_iter().map(start).collect()
            })
            .collect();

        let mut spans: Vec<Span> = publishing
            .into_iter()
            .map(|thread| thread.join().expect("a publisher runs to its end"))
            .collect();
        let mut subscriptions = Vec::new();
        for subscription in receiving {
            let mut total = Seen::default();
            for thread in subscription {
                let (span, seen) = thread.join().expect("a subscriber runs to its end");
                spans.push(span);
                total = total.plus(seen);
            }
            subscriptions.push(total);
        }
        (spans, subscriptions)
    });

    let expected = Seen {
        messages,
        checksum: T::checksum(messages),
    };
    if let Some(index) = subscriptions.iter().position(|seen| *seen != expected) {
        return Err(format!(
            "subscription {index} saw {:?}, expected {expected:?}",
            subscriptions[index]
        ));
    }
    let first = spans.iter().map(|span| span.0).min().expect("a run has threads");
    let last = spans.iter().map(|span| span.1).max().expect("a run has threads");
    Ok((messages, last - first))
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
