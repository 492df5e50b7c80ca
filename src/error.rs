//! Errors of the cold paths. Errors of the hot paths stand beside their verb and hand the value back.
#![forbid(unsafe_code)]

/// What went wrong, and what to do about it.
///
/// # Examples
///
/// ```
/// use ringmq::{Broker, Error};
///
/// # fn main() -> ringmq::Result<()> {
/// let broker = Broker::open("mem:")?;
/// assert!(matches!(broker.topic::<u32>("no spaces please"), Err(Error::BadName { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is not allowed.
    #[error("bad {what} name {name:?}: {why}")]
    BadName {
        /// What was to be named.
        what: &'static str,
        /// The name, cut to 200 characters.
        name: String,
        /// What a name must be.
        why: &'static str,
    },
    /// A URL that names no kind of broker.
    #[error("cannot open {url:?}: use \"mem:\" for a broker in memory")]
    BadUrl {
        /// The URL, cut to 200 characters.
        url: String,
    },
    /// An option out of its range.
    #[error("{option} is {value}, but must be {range}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// There is no memory for a topic of this capacity.
    #[error("no memory for {capacity} messages of {message_bytes} bytes in topic {topic:?}: choose a smaller capacity, or box the payload")]
    OutOfMemory {
        /// The topic.
        topic: String,
        /// The capacity asked for, rounded up.
        capacity: usize,
        /// How many bytes one message takes in the ring.
        message_bytes: usize,
    },
    /// The topic exists with another payload type.
    #[error("topic {topic:?} carries {found}, not {expected}: open it with the type it was created with")]
    WrongType {
        /// The topic.
        topic: String,
        /// The type asked for.
        expected: &'static str,
        /// The type it was created with.
        found: &'static str,
    },
    /// The topic or subscription exists with other options.
    #[error("{what} {name:?} exists with another {option} ({found}, not {expected}): use the same options, or none")]
    OptionsDiffer {
        /// `topic` or `subscription`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The option that differs.
        option: &'static str,
        /// What was asked for.
        expected: String,
        /// What it was created with.
        found: String,
    },
    /// A work queue has one subscription, and this would be the second.
    #[error(
        "work queue {topic:?} already has the subscription {existing:?}: subscribe under that name to compete, or use a topic to fan out"
    )]
    SingleSubscription {
        /// The work queue.
        topic: String,
        /// Its subscription.
        existing: String,
    },
    /// Something that needs clones was asked of a topic whose values move.
    #[error("{what} needs a payload that can be cloned, but {topic:?} is a work queue: use TopicOptions::in_memory()")]
    NotCloneable {
        /// What was asked for.
        what: &'static str,
        /// The topic.
        topic: String,
    },
    /// Something that needs the time of each message was asked of a topic that does not note it.
    #[error("{what} needs the time of each message: create topic {topic:?} with TopicOptions::timestamps()")]
    NoTimestamps {
        /// What was asked for.
        what: &'static str,
        /// The topic.
        topic: String,
    },
    /// The broker, topic or subscription is closed.
    #[error("{what} is closed: nothing can be added to it any more")]
    Closed {
        /// What is closed.
        what: &'static str,
    },
    /// A publish was refused. The value was given back by the verb's own error.
    #[error("publish failed: {0}")]
    Publish(crate::topic::PublishFailure),
    /// A receive ended without a message.
    #[error(transparent)]
    Recv(#[from] crate::topic::RecvError),
    /// A receive that does not wait found no message.
    #[error(transparent)]
    TryRecv(#[from] crate::topic::TryRecvError),
    /// The delivery was taken back before this verdict: its ack timeout ran out, and it is or will be delivered again.
    #[error("the ack timeout ran out before the verdict: the message is delivered again (use extend() while working)")]
    LeaseLost,
    /// The dead-letter store is full.
    #[error("{stored} dead letters are stored already: redrive or purge them")]
    DeadLettersFull {
        /// How many there are.
        stored: usize,
    },
}

/// The result of a cold path.
pub type Result<T, E = Error> = std::result::Result<T, E>;
