//! How a topic is made.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::ring::MAX_CAPACITY;
use crate::topic::shared::Cloner;

/// What a payload must be for [`Broker::topic`](crate::Broker::topic), which works with any kind of broker: it can be cloned for several
/// subscriptions, and become bytes. Implemented for every type that is all of this.
///
/// # Examples
///
/// ```
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
///
/// fn works_with_any_broker<T: ringmq::Payload>() {}
/// works_with_any_broker::<Order>();
/// ```
pub trait Payload: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Payload for T {}

/// How a topic is made. Whatever is not set keeps its default, or, if the topic exists already, whatever it has.
///
/// What the topic needs of `T` is decided by the constructor: [`new`](Self::new) for any broker, [`in_memory`](Self::in_memory) for payloads
/// that stay in memory, [`work_queue`](Self::work_queue) for payloads that move.
///
/// # Examples
///
/// ```
/// use ringmq::TopicOptions;
///
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// type Job = Box<dyn FnOnce() -> u32 + Send>; // neither Clone nor serde
///
/// let jobs = broker.topic_with::<Job>("jobs", TopicOptions::work_queue().capacity(16))?;
/// let workers = jobs.subscribe("workers")?;
/// jobs.publish(Box::new(|| 6 * 7))?;
/// let job = workers.recv()?.into_inner()?;
/// assert_eq!(job(), 42);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct TopicOptions<T> {
    pub(crate) cloner: Option<Cloner<T>>,
    capacity: Option<usize>,
    timestamps: bool,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) first_offset: u64,
}

impl<T: Payload> TopicOptions<T> {
    /// A topic whose payloads can go anywhere.
    pub fn new() -> Self {
        Self::with(Some(Cloner::new()))
    }
}

impl<T: Payload> Default for TopicOptions<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Send + Sync + 'static> TopicOptions<T> {
    /// A topic whose payloads stay in memory, and need no serde.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::TopicOptions;
    /// use std::sync::Arc;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// struct Image(Vec<u8>); // no serde, and expensive to clone: so in an `Arc`
    ///
    /// let images = broker.topic_with("images", TopicOptions::in_memory())?;
    /// let show = images.subscribe("show")?;
    /// images.publish(Arc::new(Image(vec![0; 1 << 20])))?;
    /// assert_eq!(show.recv()?.0.len(), 1 << 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_memory() -> Self {
        Self::with(Some(Cloner::new()))
    }
}

impl<T: Send + 'static> TopicOptions<T> {
    /// A work queue: a topic with one subscription, whose payloads move and need to be neither `Clone` nor `Sync`. A second subscription is
    /// [`Error::SingleSubscription`].
    pub fn work_queue() -> Self {
        Self::with(None)
    }

    fn with(cloner: Option<Cloner<T>>) -> Self {
        Self {
            cloner,
            capacity: None,
            timestamps: false,
            #[cfg(any(test, feature = "testing"))]
            first_offset: 0,
        }
    }

    /// How many messages the topic holds, from 1 to 4,294,967,296, rounded up to a power of two. Default: 1,024.
    ///
    /// The memory for them is allocated when the topic is made, 8 bytes and the size of a payload for each (what a payload owns elsewhere
    /// apart); if there is none, that is [`Error::OutOfMemory`]. A system that promises more memory than it has may still end the process later.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = Some(messages);
        self
    }

    /// Notes when each message was published, at the price of one allocation a message. Default: no.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Start, SubscribeOptions, TopicOptions};
    /// use std::time::{Duration, SystemTime};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let topic = broker.topic_with::<u32>("numbers", TopicOptions::new().timestamps())?;
    /// topic.publish(7)?;
    /// let a_minute_ago = SystemTime::now() - Duration::from_secs(60);
    /// let since = topic.subscribe_with(SubscribeOptions::new("s").start(Start::Since(a_minute_ago.into())))?;
    /// assert!(since.recv()?.published().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn timestamps(mut self) -> Self {
        self.timestamps = true;
        self
    }

    /// The offset of the first message, up to 2^60; for tests of what happens at large offsets. Default: 0.
    #[cfg(any(test, feature = "testing"))]
    pub fn first_offset(mut self, offset: u64) -> Self {
        self.first_offset = offset;
        self
    }

    pub(crate) fn is_queue(&self) -> bool {
        self.cloner.is_none()
    }

    /// The settings in force for a new topic.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let asked = self.capacity.unwrap_or(1024);
        let bad = || Error::BadOption {
            option: "capacity",
            value: asked.to_string(),
            range: "from 1 to 4,294,967,296 messages",
        };
        let capacity = asked
            .checked_next_power_of_two()
            .filter(|&c| c as u64 <= MAX_CAPACITY && asked > 0)
            .ok_or_else(bad)?;
        #[cfg(any(test, feature = "testing"))]
        if self.first_offset > FIRST_OFFSET_MAX {
            return Err(Error::BadOption {
                option: "first_offset",
                value: self.first_offset.to_string(),
                range: "up to 2^60: positions end at 2^61",
            });
        }
        Ok(Settings {
            capacity,
            timestamps: self.timestamps,
            queue: self.is_queue(),
        })
    }

    /// Whether an existing topic with these settings serves someone who asks for these options.
    pub(crate) fn check_same(&self, name: &str, have: &Settings) -> Result<()> {
        let differ = |option, expected: &dyn fmt::Debug, found: &dyn fmt::Debug| Error::OptionsDiffer {
            what: "topic",
            name: name.to_owned(),
            option,
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
        };
        let asked = self.settings()?;
        if self.capacity.is_some() && asked.capacity != have.capacity {
            return Err(differ("capacity", &asked.capacity, &have.capacity));
        }
        if asked.timestamps && !have.timestamps {
            return Err(differ("timestamps", &true, &false));
        }
        if asked.queue != have.queue {
            let kind = |queue| if queue { "work queue" } else { "topic" };
            return Err(differ("kind", &kind(asked.queue), &kind(have.queue)));
        }
        Ok(())
    }
}

impl<T> fmt::Debug for TopicOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicOptions")
            .field("capacity", &self.capacity)
            .field("timestamps", &self.timestamps)
            .finish_non_exhaustive()
    }
}

/// Positions end at 2^61: this leaves as many again as a topic can ever use.
#[cfg(any(test, feature = "testing"))]
const FIRST_OFFSET_MAX: u64 = 1 << 60;

/// What a topic was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) capacity: usize,
    pub(crate) timestamps: bool,
    pub(crate) queue: bool,
}
