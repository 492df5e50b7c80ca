//! An embeddable message queue: publish and subscribe in-process, with the delivery rules of a broker.

mod broker;
mod delivery;
mod environment;
mod error;
mod events;
mod message;
mod names;
mod offset;
mod ring;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod topic;
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
    Auto, DeadLetters, Delivery, DrainReport, Durability, Explicit, Iter, Message, Mode, Overflow, Payload, PublishError, PublishFailure,
    PublishFuture, Publisher, Ready, Receipt, Recv, RecvBatch, RecvError, Running, Start, SubscribeOptions, Subscriber, Subscription,
    SubscriptionStats, Topic, TopicOptions, TopicStats, TryRecvError, render_prometheus, select,
};
