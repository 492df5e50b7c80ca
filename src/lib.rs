//! An embeddable message queue: publish and subscribe in-process, with the delivery rules of a broker.
//!
//! ```
//! use ringmq::{Broker, Result};
//!
//! fn main() -> Result<()> {
//!     let broker = Broker::open("mem:")?;
//!     let orders = broker.topic::<u64>("orders")?;
//!     let billing = orders.subscribe("billing")?;
//!     orders.publish(42)?;
//!     let order = billing.recv()?;
//!     println!("{} (attempt {})", *order, order.attempt());
//!     order.ack()
//! }
//! ```
//!
//! # The idea
//!
//! **A topic is a log; the ring is its window in memory; a subscription is a cursor on it.**
//!
//! ```text
//!  offset    39 | 40    41    42    43    44    45    46    47 | 48
//!          -----+-----+-----+-----+-----+-----+-----+-----+-----+-----
//!          gone |            the ring: capacity messages        | next publish
//!          -----+-----+-----+-----+-----+-----+-----+-----+-----+-----
//!                  ^                       ^                 ^
//!               archive                 billing           alerts
//!            one subscriber        three subscribers     a filter
//! ```
//!
//! - A [`Topic`] is a named stream of one payload type with one total order. A message's [`Offset`] is its place in it: it only grows and is
//!   never used twice. The topic holds at most its capacity ([`TopicOptions::capacity`], 1,024 messages), in a lock-free ring.
//! - A [`Subscription`] is a name, a cursor and rules ([`SubscribeOptions`]). Each sees every message that its filter lets pass. It lives until
//!   [`unsubscribe`](Subscription::unsubscribe), with or without handles, unless it is [`ephemeral`](SubscribeOptions::ephemeral). A new one
//!   starts at the oldest message that the topic still holds, or where [`Start`] says.
//! - Whoever receives from the same subscription competes: each message goes to one. That may be clones of the [`Subscription`], or a
//!   [`Subscriber`] per thread or task, which is faster. Likewise a [`Topic`] is shared by publishers, and a [`Publisher`] belongs to one.
//! - A [`Delivery`] is one hand-over of one message. It is owned until a verdict consumes it: [`ack`](Delivery::ack), [`nack`](Delivery::nack),
//!   [`nack_after`](Delivery::nack_after) or [`reject`](Delivery::reject). Dropping it without one (an early `?`, a panic, a cancelled future)
//!   is a nack. With [`auto_ack`](Subscription::auto_ack), receiving gives plain payloads that count as done.
//!
//! ```text
//!              deliver              ack
//!  pending ---------------> in flight ---------------------------> done
//!     ^                        | nack, error, panic, drop
//!     | back-off               v
//!     +--- parked <---------- retry --- max_failures, reject ----> dead letters
//! ```
//!
//! # Three kinds of topic
//!
//! | made by | payload | for |
//! |---|---|---|
//! | [`Broker::topic`], [`TopicOptions::new`] | [`Payload`]: `Clone + Send + Sync` and serde | any kind of broker |
//! | [`TopicOptions::in_memory`] | `Clone + Send + Sync` | what never leaves memory |
//! | [`TopicOptions::work_queue`] | `Send` | one subscription; values move instead of being cloned |
//!
//! A topic of the first two kinds clones a payload for each subscription, unless there is only one: then it moves here too. Wrap payloads that are
//! expensive to clone in an `Arc`.
//!
//! # Overflow: when a subscription falls behind
//!
//! It is the choice of each subscription ([`SubscribeOptions::overflow`]), and touches no other:
//!
//! | [`Overflow`] | publishers | the subscription |
//! |---|---|---|
//! | `Block` (default) | wait for it | loses nothing |
//! | `Fail` | get the value back in [`PublishError::Full`] | loses nothing |
//! | `DropOldest` | do not notice | loses the oldest |
//! | `Conflate` | do not notice | keeps the last message of each key |
//!
//! Nothing is lost in silence: before its next message a receiver gets [`RecvError::Lagged`], once, and [`SubscriptionStats::dropped`] counts.
//! A topic that never had a subscription keeps its newest messages for the first one to come; [`Receipt::subscriptions`] says how many a
//! publish met.
//!
//! # Failures
//!
//! A failed message is parked for its [`Backoff`] and then delivered again; meanwhile nobody is held up by it. [`Delivery::attempt`] counts
//! deliveries, [`Delivery::failures`] failures. After [`max_failures`](SubscribeOptions::max_failures), or a `reject`, it goes to the
//! [`DeadLetters`] with its history: to be listed, redriven or purged there, or received from the topic `$dead.<topic>.<subscription>`.
//!
//! A delivery stays with its receiver for as long as it takes; an [`ack_timeout`](SubscribeOptions::ack_timeout) is opt-in, and a verdict that
//! comes too late is [`Error::LeaseLost`].
//!
//! [`Subscription::run`] does all of this around a handler on threads, [`Subscription::run_async`] inside one future:
//!
//! ```
//! use std::time::Duration;
//!
//! # fn main() -> ringmq::Result<()> {
//! # let words = ringmq::Broker::open("mem:")?.topic::<String>("words")?;
//! let numbers = words.subscribe("numbers")?;
//! let running = numbers.run(2, |word| word.parse::<u32>().map(|n| println!("{n}")));
//! words.publish("17".to_owned())?;
//! let report = running.drain(Duration::from_secs(5)); // takes nothing new, finishes what it is at
//! assert!(report.ended);
//! # Ok(())
//! # }
//! ```
//!
//! # Waiting
//!
//! Every verb comes as a family: `publish` waits for room and `recv` for a message; `try_` does not wait; `_timeout` and `_deadline` wait so
//! long; `_async` is a future; `_batch` moves several at a time, several times as fast. Waiting costs nothing: a receiver looks for a
//! microsecond or two, then sleeps until it is woken. [`select`] waits for several subscriptions at once.
//!
//! A publish that could only wait for ever fails instead: [`PublishError::Abandoned`] when nobody is left who could make room,
//! [`PublishError::WouldDeadlock`] inside the handler that would have to. Longer cycles of handlers that wait for each other's topics are not
//! detected: give them room, or use `try_publish`.
//!
//! Closing lets receivers finish: after [`Topic::close`] publishes fail, and `recv` says [`RecvError::Closed`] once nothing is pending, in
//! flight or parked. [`Broker::close`] does so for every topic, until a deadline. A topic also ends when no handle is left that could publish to it:
//! neither the broker, nor the topic, nor a publisher.
//!
//! # Async
//!
//! No executor is needed or assumed: the futures wait through their wakers, and threads and tasks may share a subscription. They are cancel safe:
//! dropping one at any point loses no message and no wake-up. A [`Subscriber`] is a [`Stream`](futures_core::Stream), a [`Publisher`] a
//! [`Sink`](futures_sink::Sink).
//!
//! # Errors
//!
//! Hot verbs have errors of their own that hand the value back ([`PublishError`], [`RecvError`], [`TryRecvError`]); all of them become an
//! [`Error`] with `?`. Each text says what to do.
//!
//! # Seeing what goes on
//!
//! [`Topic::stats`], [`Subscription::stats`] and [`Broker::stats`] give numbers, [`render_prometheus`] text; [`Broker::events`] tells what
//! happens. All of it is free while nobody asks.
//!
//! # Testing
//!
//! The module `testing` (feature `testing`) has a clock that a test drives, `wait_idle` and `published`. Retries and ack timeouts follow the
//! broker's [`Clock`]; how long a blocking call waits is real time.
//!
//! # Features
//!
//! None is on by default, and none changes what the rest does.
//!
//! | feature | adds |
//! |---|---|
//! | `testing` | the module `testing`: what the tests of your own program need |
//! | `tracing` | sends what [`Broker::events`] tells to the `tracing` crate, target `ringmq` |
//! | `disk` | the module `log`: the crash-safe append-only log that durable topics and overflow to disk are going to stand on |
//!
//! # Limits
//!
//! One process. In memory: what is not settled when the process ends is gone. At least once: a message may be delivered again. Order among
//! competing subscribers, or across redeliveries, is not kept. A publisher that is stopped between claiming its slot and filling it holds up
//! the readers of that slot.

mod broker;
mod delivery;
mod environment;
mod error;
mod events;
#[cfg(all(feature = "disk", not(ringmq_loom)))]
pub mod log;
mod message;
#[cfg(all(test, ringmq_loom))]
mod models;
mod names;
mod offset;
mod ring;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod topic;
mod user_code;
mod wait;

pub use broker::{Broker, BrokerBuilder, CloseReport};
pub use delivery::dead_letter::{DeadLetter, DeadReason};
pub use delivery::lag::Lagged;
pub use delivery::outcome::{IntoOutcome, Outcome};
pub use delivery::retry::Backoff;
pub use error::{Error, Result};
pub use events::{Event, Events};
pub use message::Headers;
pub use offset::Offset;
pub use time::{Clock, SystemClock, Timestamp};
pub use topic::{
    Auto, DeadLetters, Delivery, DrainReport, Durability, Explicit, IntoIter, Iter, Message, Mode, Overflow, Payload, PublishBatch,
    PublishError, PublishFailure, PublishFuture, Publisher, Ready, Receipt, Recv, RecvBatch, RecvError, Running, Start, SubscribeOptions,
    Subscriber, Subscription, SubscriptionStats, Topic, TopicOptions, TopicStats, TryRecvError, render_prometheus, select,
};

/// The README's program is a test, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What must not compile.
#[cfg(doctest)]
#[doc = include_str!("../tests/compile_fail.md")]
struct MustNotCompile;
