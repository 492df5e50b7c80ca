//! The table: what is measured, beside whom, and what ours must reach.

use crate::{peers::tasks::Executor, queue::Shape};

/// One workload, the peers that have a chance in it, and what is claimed of ours.
pub struct Row {
    /// As printed and as filtered by `--rows`.
    pub name: &'static str,
    /// What runs.
    pub workload: Workload,
    /// The peers that run without `--all`.
    pub peers: &'static [&'static str],
    /// Our variants and their bars.
    pub claims: &'static [Claim],
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Threads that publish and receive as fast as they can.
    Stream(Shape, Body),
    /// Two tasks on an executor, through a queue of this capacity.
    Tasks(Executor, usize),
    /// One message to another thread and back.
    RoundTrip,
    /// A message every 50 us to a subscriber that is otherwise idle: how long until it has it.
    IdleWakeDelay,
    /// The same: what the subscriber's thread spends on it.
    IdleWakeCpu,
}

impl Workload {
    /// What the figures mean.
    pub fn unit(&self) -> Unit {
        match self {
            Workload::Stream(..) | Workload::Tasks(..) => Unit::MillionPerSecond,
            Workload::RoundTrip => Unit::Nanoseconds,
            Workload::IdleWakeDelay | Workload::IdleWakeCpu => Unit::Microseconds,
        }
    }
}

/// The unit of a row, and with it which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Messages per second, in millions; more is better.
    MillionPerSecond,
    /// Less is better.
    Nanoseconds,
    /// Less is better.
    Microseconds,
}

/// The payload of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A `u64`.
    Word,
    /// A struct of 64 bytes.
    Line,
    /// An `Arc` of a kilobyte.
    Shared,
}

/// One of our variants and its bars.
pub struct Claim {
    /// A name of [`crate::ours`].
    pub ours: &'static str,
    /// All of these must hold.
    pub bars: &'static [Bar],
}

/// A ratio of ours to something, and its limit.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// At least this for rates, at most this for times.
    pub limit: f64,
    /// The other side of the ratio.
    pub of: Of,
}

/// Whom a bar compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The best peer that gives the processor back when idle, as ours does.
    Parking,
    /// The best peer of all.
    Any,
    /// This one, which may be another variant of ours.
    Named(&'static str),
}

/// Our four variants.
pub const QUEUE: &str = "queue";
/// A topic.
pub const TOPIC: &str = "topic";
/// A work queue whose messages are acked one by one or batch by batch.
pub const QUEUE_ACK: &str = "queue, ack";
/// The same of a topic.
pub const TOPIC_ACK: &str = "topic, ack";
/// Ours between tasks.
pub const QUEUE_TASKS: &str = "queue, tasks";
/// Ours between tasks.
pub const TOPIC_TASKS: &str = "topic, tasks";

const fn bar(limit: f64, of: Of) -> Bar {
    Bar { limit, of }
}

const fn claim(ours: &'static str, bars: &'static [Bar]) -> Claim {
    Claim { ours, bars }
}

const fn stream(name: &'static str, shape: Shape, body: Body, peers: &'static [&'static str], claims: &'static [Claim]) -> Row {
    Row {
        name,
        workload: Workload::Stream(shape, body),
        peers,
        claims,
    }
}

const QUEUE_ACK_OF_AUTO: Claim = claim(QUEUE_ACK, &[bar(0.6, Of::Named(QUEUE))]);
const TOPIC_ACK_OF_AUTO: Claim = claim(TOPIC_ACK, &[bar(0.6, Of::Named(TOPIC))]);

/// Claims of a shape that one subscription can have: a work queue, a topic, both with explicit acks.
macro_rules! point_to_point {
    (queue: [$($queue:expr),+], topic: [$($topic:expr),+]) => {
        &[claim(QUEUE, &[$($queue),+]), claim(TOPIC, &[$($topic),+]), QUEUE_ACK_OF_AUTO, TOPIC_ACK_OF_AUTO]
    };
}

const PAIR: &[&str] = &["omango spsc", "kanal", "crossfire mpmc", "rtrb", "disruptor"];
const PAIR_BATCHED: &[&str] = &["kanal", "rtrb", "ringbuf", "disruptor"];
const FAN_IN: &[&str] = &["crossfire mpmc", "crossfire mpsc", "omango mpmc", "thingbuf", "disruptor"];
const COMPETING: &[&str] = &["omango mpmc", "crossfire mpmc", "kanal", "crossbeam-channel", "concurrent-queue"];
const MANY_TO_MANY: &[&str] = &["omango mpmc", "crossfire mpmc", "kanal", "ArrayQueue", "concurrent-queue"];
const FAN_OUT: &[&str] = &[
    "disruptor",
    "photon-ring events",
    "multiqueue2",
    "crossfire spsc xN",
    "rtrb xN",
    "tokio broadcast",
];
const FAN_OUT_BATCHED: &[&str] = &["disruptor", "photon-ring events", "multiqueue2", "rtrb xN", "tokio broadcast"];
const SHARED_FAN_OUT: &[&str] = &["kanal xN", "crossfire mpmc xN", "omango mpmc xN", "multiqueue2", "ArrayQueue xN"];
const PARKING_PAIR: &[&str] = &["omango spsc", "std sync_channel", "kanal", "crossfire mpmc"];
const PARKING_FAN_IN: &[&str] = &["crossfire mpmc", "crossfire mpsc", "omango mpmc", "thingbuf"];
const PARKING_MANY: &[&str] = &["omango mpmc", "crossfire mpmc", "kanal"];
const PARKING_FAN_OUT: &[&str] = &["multiqueue2", "crossfire spsc xN", "crossfire mpmc xN", "omango spsc xN"];

const ONE_TO_ONE_BARS: &[Claim] = point_to_point!(
    queue: [bar(1.0, Of::Parking), bar(0.5, Of::Any)],
    topic: [bar(1.0, Of::Parking), bar(0.5, Of::Any)]
);
const ONE_TO_ONE_BATCHED_BARS: &[Claim] = point_to_point!(queue: [bar(0.5, Of::Any)], topic: [bar(0.5, Of::Any)]);
const FAN_IN_BARS: &[Claim] = point_to_point!(queue: [bar(1.3, Of::Parking)], topic: [bar(0.8, Of::Parking)]);
const COMPETING_BARS: &[Claim] = point_to_point!(queue: [bar(1.2, Of::Parking)], topic: [bar(0.8, Of::Parking)]);
const MANY_BATCHED_BARS: &[Claim] = point_to_point!(queue: [bar(2.0, Of::Any)], topic: [bar(2.0, Of::Any)]);
const FAN_OUT_BARS: &[Claim] = &[
    claim(TOPIC, &[bar(0.7, Of::Named("disruptor")), bar(10.0, Of::Named("tokio broadcast"))]),
    TOPIC_ACK_OF_AUTO,
];
const FAN_OUT_BATCHED_BARS: &[Claim] = &[
    claim(TOPIC, &[bar(0.8, Of::Named("disruptor")), bar(10.0, Of::Named("tokio broadcast"))]),
    TOPIC_ACK_OF_AUTO,
];
const SHARED_FAN_OUT_BARS: &[Claim] = &[claim(TOPIC, &[bar(1.3, Of::Any)]), TOPIC_ACK_OF_AUTO];
const SHARED_FAN_OUT_BATCHED_BARS: &[Claim] = &[claim(TOPIC, &[bar(2.0, Of::Any)]), TOPIC_ACK_OF_AUTO];
const KEEP_UP: &[Claim] = &[claim(QUEUE, &[bar(0.8, Of::Parking)]), claim(TOPIC, &[bar(0.8, Of::Parking)])];
const TOPIC_KEEPS_UP: &[Claim] = &[claim(TOPIC, &[bar(0.8, Of::Parking)])];
const TASK_BARS: &[Claim] = &[
    claim(
        QUEUE_TASKS,
        &[bar(0.7, Of::Named("crossfire spsc")), bar(3.0, Of::Named("tokio mpsc"))],
    ),
    claim(
        TOPIC_TASKS,
        &[bar(0.7, Of::Named("crossfire spsc")), bar(3.0, Of::Named("tokio mpsc"))],
    ),
];
const ROUND_TRIP_BARS: &[Claim] = &[
    claim(QUEUE, &[bar(1.3, Of::Named("crossbeam-channel"))]),
    claim(TOPIC, &[bar(1.3, Of::Named("crossbeam-channel"))]),
];
const IDLE_WAKE_BARS: &[Claim] = &[
    claim(QUEUE, &[bar(1.2, Of::Named("crossbeam-channel"))]),
    claim(TOPIC, &[bar(1.2, Of::Named("crossbeam-channel"))]),
];

const TASK_PEERS: &[&str] = &["crossfire spsc", "kanal", "loole", "tokio mpsc"];
const WAKE_PEERS: &[&str] = &["crossbeam-channel", "kanal", "crossfire spsc"];
const BUSY_PEERS: &[&str] = &["crossbeam-channel", "crossfire spsc", "rtrb", "disruptor"];

/// Publishers, subscriptions, subscribers of each.
const fn shape(publishers: usize, subscriptions: usize, subscribers: usize) -> Shape {
    Shape::new(publishers, subscriptions, subscribers)
}

/// Every row. `2 to 1` is two publishers and one subscriber, `fan-out 4 x 2` four subscriptions of two competing subscribers.
pub const ROWS: &[Row] = &[
    stream("1 to 1", shape(1, 1, 1), Body::Word, PAIR, ONE_TO_ONE_BARS),
    stream(
        "1 to 1 by 32",
        shape(1, 1, 1).batch(32),
        Body::Word,
        PAIR_BATCHED,
        ONE_TO_ONE_BATCHED_BARS,
    ),
    stream("2 to 1", shape(2, 1, 1), Body::Word, FAN_IN, FAN_IN_BARS),
    stream("4 to 1", shape(4, 1, 1), Body::Word, FAN_IN, FAN_IN_BARS),
    stream("1 to 2", shape(1, 1, 2), Body::Word, COMPETING, COMPETING_BARS),
    stream("1 to 4", shape(1, 1, 4), Body::Word, COMPETING, COMPETING_BARS),
    stream("2 x 2", shape(2, 1, 2), Body::Word, MANY_TO_MANY, COMPETING_BARS),
    stream("4 x 4", shape(4, 1, 4), Body::Word, MANY_TO_MANY, COMPETING_BARS),
    stream("4 x 4 by 32", shape(4, 1, 4).batch(32), Body::Word, MANY_TO_MANY, MANY_BATCHED_BARS),
    stream("fan-out 2", shape(1, 2, 1), Body::Word, FAN_OUT, FAN_OUT_BARS),
    stream("fan-out 4", shape(1, 4, 1), Body::Word, FAN_OUT, FAN_OUT_BARS),
    stream("fan-out 8", shape(1, 8, 1), Body::Word, FAN_OUT, FAN_OUT_BARS),
    stream(
        "fan-out 2 by 32",
        shape(1, 2, 1).batch(32),
        Body::Word,
        FAN_OUT_BATCHED,
        FAN_OUT_BATCHED_BARS,
    ),
    stream(
        "fan-out 4 by 32",
        shape(1, 4, 1).batch(32),
        Body::Word,
        FAN_OUT_BATCHED,
        FAN_OUT_BATCHED_BARS,
    ),
    stream(
        "fan-out 8 by 32",
        shape(1, 8, 1).batch(32),
        Body::Word,
        FAN_OUT_BATCHED,
        FAN_OUT_BATCHED_BARS,
    ),
    stream("fan-out 2 x 2", shape(1, 2, 2), Body::Word, SHARED_FAN_OUT, SHARED_FAN_OUT_BARS),
    stream("fan-out 4 x 2", shape(1, 4, 2), Body::Word, SHARED_FAN_OUT, SHARED_FAN_OUT_BARS),
    stream(
        "fan-out 2 x 2 by 32",
        shape(1, 2, 2).batch(32),
        Body::Word,
        SHARED_FAN_OUT,
        SHARED_FAN_OUT_BATCHED_BARS,
    ),
    stream(
        "fan-out 4 x 2 by 32",
        shape(1, 4, 2).batch(32),
        Body::Word,
        SHARED_FAN_OUT,
        SHARED_FAN_OUT_BATCHED_BARS,
    ),
    stream("64 B: 1 to 1", shape(1, 1, 1), Body::Line, PARKING_PAIR, KEEP_UP),
    stream("64 B: 4 to 1", shape(4, 1, 1), Body::Line, PARKING_FAN_IN, KEEP_UP),
    stream("64 B: 4 x 4", shape(4, 1, 4), Body::Line, PARKING_MANY, KEEP_UP),
    stream("64 B: fan-out 4", shape(1, 4, 1), Body::Line, PARKING_FAN_OUT, TOPIC_KEEPS_UP),
    stream("Arc: 1 to 1", shape(1, 1, 1), Body::Shared, PARKING_PAIR, KEEP_UP),
    stream("Arc: 4 to 1", shape(4, 1, 1), Body::Shared, PARKING_FAN_IN, KEEP_UP),
    stream("Arc: 4 x 4", shape(4, 1, 4), Body::Shared, PARKING_MANY, KEEP_UP),
    stream("Arc: fan-out 4", shape(1, 4, 1), Body::Shared, PARKING_FAN_OUT, TOPIC_KEEPS_UP),
    stream(
        "capacity 128: 1 to 1",
        shape(1, 1, 1).capacity(128),
        Body::Word,
        PARKING_PAIR,
        KEEP_UP,
    ),
    stream(
        "capacity 128: 4 to 1",
        shape(4, 1, 1).capacity(128),
        Body::Word,
        PARKING_FAN_IN,
        KEEP_UP,
    ),
    stream(
        "capacity 128: 4 x 4",
        shape(4, 1, 4).capacity(128),
        Body::Word,
        PARKING_MANY,
        KEEP_UP,
    ),
    stream(
        "capacity 128: fan-out 4",
        shape(1, 4, 1).capacity(128),
        Body::Word,
        PARKING_FAN_OUT,
        TOPIC_KEEPS_UP,
    ),
    stream(
        "capacity 65536: 1 to 1",
        shape(1, 1, 1).capacity(65536),
        Body::Word,
        PARKING_PAIR,
        KEEP_UP,
    ),
    stream(
        "capacity 65536: 4 to 1",
        shape(4, 1, 1).capacity(65536),
        Body::Word,
        PARKING_FAN_IN,
        KEEP_UP,
    ),
    stream(
        "capacity 65536: 4 x 4",
        shape(4, 1, 4).capacity(65536),
        Body::Word,
        PARKING_MANY,
        KEEP_UP,
    ),
    stream(
        "capacity 65536: fan-out 4",
        shape(1, 4, 1).capacity(65536),
        Body::Word,
        PARKING_FAN_OUT,
        TOPIC_KEEPS_UP,
    ),
    Row {
        name: "tasks on one thread",
        workload: Workload::Tasks(Executor::CurrentThread, 1024),
        peers: TASK_PEERS,
        claims: TASK_BARS,
    },
    Row {
        name: "tasks on two threads",
        workload: Workload::Tasks(Executor::TwoThreads, 1024),
        peers: TASK_PEERS,
        claims: TASK_BARS,
    },
    Row {
        name: "round trip p50",
        workload: Workload::RoundTrip,
        peers: BUSY_PEERS,
        claims: ROUND_TRIP_BARS,
    },
    Row {
        name: "idle wake p50",
        workload: Workload::IdleWakeDelay,
        peers: WAKE_PEERS,
        claims: IDLE_WAKE_BARS,
    },
    Row {
        name: "idle wake CPU",
        workload: Workload::IdleWakeCpu,
        peers: WAKE_PEERS,
        claims: IDLE_WAKE_BARS,
    },
];
