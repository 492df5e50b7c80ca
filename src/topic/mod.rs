//! Topics, and everything that holds on to one: publishers, subscriptions, subscribers, deliveries.
//!
//! This layer is policy: the ring says `Full`, and here it is decided whether to wait, to fail, or to drop; the ring says `Empty`, and
//! here somebody waits. The rules of delivery themselves are pure functions and state machines in `delivery`.
//!
//! ```text
//!   Topic -----+                                                        +-- Subscription -- Subscriber
//!              +-- TopicCore ------- Shared(ring) -- SubscriptionState --+
//!   Publisher -+   (who subscribes)                  (place, rules, what +-- Delivery
//!                                                     stands beside the ring)
//! ```
//!
//! No cycle of references: a state knows what its topic shares, not the topic.
#![forbid(unsafe_code)]

mod batch;
mod conflation;
mod core;
mod delivery;
mod entrance;
mod handle;
mod hands;
mod mode;
#[cfg(all(test, ringmq_loom))]
mod models;
mod options;
mod publish;
mod publish_batch;
mod publish_future;
mod publisher;
mod receipt;
mod receive;
mod rules;
mod run;
mod seat;
mod select;
mod settle;
mod shared;
mod state;
mod stats;
mod subscriber;
mod subscription;
mod unwind;

pub(crate) use self::core::TopicCore;
pub use self::delivery::Delivery;
pub use self::handle::{Message, Topic};
pub use self::mode::{Auto, Explicit, Mode};
pub use self::options::{Payload, TopicOptions};
pub use self::publish::{PublishError, PublishFailure};
pub use self::publish_batch::PublishBatch;
pub use self::publish_future::PublishFuture;
pub use self::publisher::Publisher;
pub use self::receipt::{Durability, Receipt};
pub use self::receive::{Recv, RecvBatch, RecvError, TryRecvError};
pub use self::rules::{Overflow, Start, SubscribeOptions};
pub use self::run::{DrainReport, Running};
pub use self::select::{Ready, select};
pub use self::settle::DeadLetters;
pub(crate) use self::state::SubscriptionState;
pub use self::stats::{SubscriptionStats, TopicStats, render_prometheus};
pub use self::subscriber::{IntoIter, Subscriber};
pub use self::subscription::{Iter, Subscription};
