//! The seam between the harness and the queues: what a queue must offer to be measured.
//!
//! A queue opens for a [`Shape`] and hands out its publishers and, per subscription, its subscribers. Dropping
//! every publisher ends the stream: `receive` then answers `false` once nothing is left. Queues that have no
//! such end get one from their adapter.

use crate::payload::Payload;

/// Who talks to whom, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Threads that publish.
    pub publishers: usize,
    /// Subscriptions; each of them sees every message.
    pub subscriptions: usize,
    /// Threads that compete for the messages of one subscription.
    pub subscribers: usize,
    /// Messages per call, on both sides; 1 means one at a time.
    pub batch: usize,
    /// Messages the queue holds.
    pub capacity: usize,
    /// Threads of the run that belong to other queues, when several make up one.
    pub others: usize,
}

impl Shape {
    /// One message at a time through a queue of 1024.
    pub const fn new(publishers: usize, subscriptions: usize, subscribers: usize) -> Self {
        Shape {
            publishers,
            subscriptions,
            subscribers,
            batch: 1,
            capacity: 1024,
            others: 0,
        }
    }

    /// Publishes and receives so many per call.
    pub const fn batch(self, batch: usize) -> Self {
        Shape { batch, ..self }
    }

    /// Lets the queue hold so many messages.
    pub const fn capacity(self, capacity: usize) -> Self {
        Shape { capacity, ..self }
    }

    /// All threads of a run.
    pub const fn threads(&self) -> usize {
        self.publishers + self.subscriptions * self.subscribers + self.others
    }

    /// One publisher, one subscriber.
    pub const fn is_pair(&self) -> bool {
        self.publishers == 1 && self.subscriptions == 1 && self.subscribers == 1
    }
}

/// What a queue does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Blocks, and in the end gives the processor back.
    Parks,
    /// Only tries; the caller spins.
    Spins,
}

/// The two sides of an open queue.
pub struct Ends<P, S> {
    /// One per publishing thread.
    pub publishers: Vec<P>,
    /// One list per subscription, one subscriber per receiving thread in it.
    pub subscriptions: Vec<Vec<S>>,
}

/// A queue that can be measured.
pub trait Queue<T: Payload>: 'static {
    /// Its name in the table.
    const NAME: &'static str;
    /// How it waits.
    const IDLE: Idle;
    /// A publishing thread's side.
    type Publisher: Publish<T>;
    /// A receiving thread's side.
    type Subscriber: Receive<T>;

    /// Whether it can do this shape at all, and does more than fall back in it.
    fn serves(shape: &Shape) -> bool;

    /// Opens it; `shape` is one that it serves.
    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber>;
}

/// A publisher. Dropping the last one ends the stream.
pub trait Publish<T>: Send {
    /// Publishes one message, waiting for space.
    fn publish(&mut self, value: T);

    /// Publishes `count` messages in as few steps as the queue knows.
    #[inline(always)]
    fn publish_batch(&mut self, count: usize, mut make: impl FnMut() -> T) {
        for _ in 0..count {
            self.publish(make());
        }
    }
}

/// A subscriber.
pub trait Receive<T>: Send {
    /// Waits for one message and shows it to `each`; `false` when the stream has ended. A queue whose readers take
    /// runs of their own accord may show more.
    fn receive(&mut self, each: impl FnMut(&T)) -> bool;

    /// Waits for at least one message and shows as many as one step of the queue brings, about `max`.
    #[inline(always)]
    fn receive_batch(&mut self, max: usize, each: impl FnMut(&T)) -> bool {
        let _ = max;
        self.receive(each)
    }
}

/// Makes `count` equal handles out of one.
pub fn clones<H: Clone>(handle: H, count: usize) -> Vec<H> {
    let mut handles = vec![handle; 1];
    while handles.len() < count {
        handles.push(handles[0].clone());
    }
    handles
}

/// Unwraps the outcome of a publish; no subscriber leaves during a run.
#[inline(always)]
#[track_caller]
pub fn sent<V, E>(outcome: Result<V, E>) {
    if outcome.is_err() {
        panic!("the queue closed while it was being published to");
    }
}
