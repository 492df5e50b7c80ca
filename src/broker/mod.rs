//! The broker: owner of topics by name.
#![forbid(unsafe_code)]

use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::events::{Event as Happened, Events, Feed};
use crate::names;
use crate::sync::{Arc, plain};
use crate::time::{Clock, SystemClock};
use crate::topic::{Payload, SubscriptionState, Topic, TopicCore, TopicOptions, TopicStats};

/// An in-process owner of topics: cheap to clone, shared by threads and tasks.
///
/// Topics live until the broker is closed, until they are [removed](Self::remove_topic), or until the last handle on it and on them is dropped. Where
/// only subscriptions are left, nobody can publish any more: they get what there is, retries in their time, then [`RecvError::Closed`](crate::RecvError::Closed).
///
/// # Examples
///
/// ```
/// use ringmq::{Broker, Result};
///
/// fn main() -> Result<()> {
///     let broker = Broker::open("mem:")?;
///     let orders = broker.topic::<u64>("orders")?;
///     let billing = orders.subscribe("billing")?;
///     orders.publish(42)?;
///     let order = billing.recv()?;
///     println!("{} (attempt {})", *order, order.attempt());
///     order.ack()
/// }
/// ```
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    environment: Arc<Environment>,
    topics: plain::Mutex<Topics>,
}

#[derive(Default)]
struct Topics {
    by_name: BTreeMap<String, Arc<dyn AnyTopic>>,
    closed: bool,
}

/// A topic, whatever its payload.
trait AnyTopic: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn payload(&self) -> &'static str;
    fn stats(&self) -> TopicStats;
    fn close(&self);
    /// Whether somebody can still settle what there is.
    fn is_unsettled(&self) -> bool;
    /// Ends what is left; returns how many messages that were.
    fn end(&self) -> u64;
}

impl<T: Send + 'static> AnyTopic for Topic<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn payload(&self) -> &'static str {
        type_name::<T>()
    }

    fn stats(&self) -> TopicStats {
        Self::stats(self)
    }

    fn close(&self) {
        for state in self.core.subscriptions().iter() {
            // What comes back without a verdict from now on did not fail: its receiver is ending, as the broker is.
            state.change(|beside| beside.ending += 1);
        }
        Self::close(self);
    }

    fn is_unsettled(&self) -> bool {
        self.core.subscriptions().iter().any(|state| {
            let s = self.core.subscription_stats(state);
            // Letters that find no room wait for whoever looks after them, not for a receiver.
            s.lag > state.undeliverable() && s.handles > 0
        })
    }

    fn end(&self) -> u64 {
        let subscriptions = self.core.subscriptions();
        let left: u64 = subscriptions.iter().map(|state| self.core.unsubscribe(state)).sum();
        // What a queue holds while it has no subscription is nobody's.
        let rest = self.core.drop_rest();
        if subscriptions.is_empty() { 0 } else { left + rest }
    }
}

/// What a broker left behind when it was closed, or a topic when it was removed.
///
/// # Examples
///
/// See [`Broker::close`] and [`Broker::remove_topic`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Messages that were not settled, over all subscriptions.
    pub unsettled: u64,
    /// Dead letters that were stored.
    pub dead_letters: u64,
}

/// How a broker is made: see [`Broker::builder`].
///
/// # Examples
///
/// See [`Broker::builder`] and [`clock`](BrokerBuilder::clock).
#[derive(Clone)]
#[must_use]
pub struct BrokerBuilder {
    clock: Arc<dyn Clock>,
    seed: u64,
}

impl BrokerBuilder {
    /// The clock that retries and statistics follow. Default: [`SystemClock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Broker, Clock, Timestamp};
    ///
    /// /// A clock that has stopped; `testing::ManualClock` is one that can be moved on.
    /// struct Stopped;
    ///
    /// impl Clock for Stopped {
    ///     fn now(&self) -> Timestamp {
    ///         Timestamp::from_nanos(946_684_800_000_000_000)
    ///     }
    /// }
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// let broker = Broker::builder().clock(Stopped).open("mem:")?;
    /// # let _ = broker;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The seed of everything random, for runs that repeat. Default: from the time.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Opens the broker at this URL.
    ///
    /// # Errors
    ///
    /// As [`Broker::open`].
    pub fn open(self, url: &str) -> Result<Broker> {
        if url != "mem:" {
            return Err(Error::BadUrl {
                url: url.chars().take(200).collect(),
            });
        }
        let environment = Environment::new(self.clock, self.seed);
        Ok(Broker {
            inner: Arc::new(Inner {
                environment,
                topics: plain::Mutex::default(),
            }),
        })
    }
}

impl fmt::Debug for BrokerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerBuilder").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens a broker: `mem:` for one in memory, of its own.
    ///
    /// # Errors
    ///
    /// [`Error::BadUrl`] for any other URL.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().open(url)
    }

    /// Starts a broker with a clock or seed of one's own.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// let broker = ringmq::Broker::builder().seed(7).open("mem:")?;
    /// # let _ = broker;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> BrokerBuilder {
        let clock = SystemClock::new();
        let seed = clock.now().as_nanos();
        BrokerBuilder {
            clock: Arc::new(clock),
            seed,
        }
    }

    /// Opens a topic by name, made with default options if it is new: tokens of `A-Z a-z 0-9 _ -` joined by dots, at most 180 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::WrongType`] if it carries another payload, [`Error::Closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::Error;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let orders = broker.topic::<u64>("orders.eu")?;
    /// let same = broker.topic::<u64>("orders.eu")?;
    /// assert!(matches!(broker.topic::<String>("orders.eu"), Err(Error::WrongType { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic<T: Payload>(&self, name: &str) -> Result<Topic<T>> {
        match self.opened(name)? {
            Some(topic) => Ok(topic),
            None => self.topic_with(name, TopicOptions::new()),
        }
    }

    /// Opens a topic with these options; if it exists, what was set in them must not contradict.
    ///
    /// # Errors
    ///
    /// As [`topic`](Self::topic), [`Error::BadOption`], [`Error::OptionsDiffer`], [`Error::OutOfMemory`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Error, TopicOptions};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let small = broker.topic_with::<u64>("small", TopicOptions::new().capacity(16))?;
    /// assert_eq!(broker.topic::<u64>("small")?.capacity(), 16);
    /// let other = broker.topic_with::<u64>("small", TopicOptions::new().capacity(32));
    /// assert!(matches!(other, Err(Error::OptionsDiffer { option: "capacity", .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic_with<T: Send + 'static>(&self, name: &str, options: TopicOptions<T>) -> Result<Topic<T>> {
        options.settings()?;
        if let Some(topic) = self.existing::<T>(name)? {
            options.check_same(name, &topic.core.settings)?;
            self.collect_dead_letters(&topic)?;
            return Ok(topic);
        }
        if self.dead_letter_origin::<T>(name)?.is_none() && names::origin_of(name).is_some() {
            return Err(names::no_origin(name));
        }
        let made = Topic::new(TopicCore::new(name, &options, &self.inner.environment)?);
        let topic = {
            let mut topics = self.inner.topics.lock();
            if topics.closed {
                return Err(Error::Closed { what: "the broker" });
            }
            let entry = topics.by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(made.clone()));
            entry.clone()
        };
        let topic = downcast::<T>(name, &*topic)?;
        if Arc::ptr_eq(&topic.core, &made.core) {
            self.inner
                .environment
                .feed
                .tell(|| Happened::TopicCreated { topic: name.to_owned() });
            self.collect_dead_letters(&topic)?;
        } else {
            options.check_same(name, &topic.core.settings)?;
        }
        Ok(topic)
    }

    /// The topic of this name as it is, if there is one.
    pub(crate) fn opened<T: Send + 'static>(&self, name: &str) -> Result<Option<Topic<T>>> {
        let topic = self.existing(name)?;
        topic.as_ref().map_or(Ok(()), |topic| self.collect_dead_letters(topic))?;
        Ok(topic)
    }

    fn existing<T: Send + 'static>(&self, name: &str) -> Result<Option<Topic<T>>> {
        names::check_topic(name)?;
        let found = {
            let topics = self.inner.topics.lock();
            if topics.closed {
                return Err(Error::Closed { what: "the broker" });
            }
            topics.by_name.get(name).cloned()
        };
        found.map(|topic| downcast::<T>(name, &*topic)).transpose()
    }

    /// The subscription whose dead letters belong to the topic of this name, if it is such a topic and the subscription exists.
    fn dead_letter_origin<T: Send + 'static>(&self, name: &str) -> Result<Option<Arc<SubscriptionState<T>>>> {
        let Some((topic, subscription)) = names::origin_of(name) else {
            return Ok(None);
        };
        Ok(self.existing::<T>(topic)?.and_then(|topic| topic.core.origin(subscription)))
    }

    /// Ties a dead-letter topic to its subscription, each time it is opened: the subscription may be a new one of the same name.
    fn collect_dead_letters<T: Send + 'static>(&self, topic: &Topic<T>) -> Result<()> {
        if let Some(origin) = self.dead_letter_origin::<T>(topic.name())? {
            topic.collect_dead_letters_of(&origin);
        }
        Ok(())
    }

    /// The numbers of all topics, by name.
    #[must_use]
    pub fn stats(&self) -> Vec<TopicStats> {
        let topics: Vec<_> = self.inner.topics.lock().by_name.values().cloned().collect();
        topics.iter().map(|topic| topic.stats()).collect()
    }

    /// What happens in this broker from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Feed::watch(&self.inner.environment.feed)
    }

    /// Closes everything: publishes fail from here on, subscribers get at most this long to settle what there is, then everything ends and what
    /// is left is counted. Dead-letter topics end after those whose letters they get. Closing twice does no harm.
    ///
    /// It waits on the calling thread: from a task, call it where blocking is allowed, or the subscribers that it waits for may be tasks that
    /// cannot run meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// let report = broker.close(Duration::from_millis(1)); // nobody receives
    /// assert_eq!(report.unsettled, 1);
    /// assert!(topic.publish(8).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self, deadline: Duration) -> CloseReport {
        let until = Instant::now().checked_add(deadline);
        // What dies while a topic ends is for its dead-letter topic, so that ends after it.
        let mut rounds: BTreeMap<usize, Vec<Arc<dyn AnyTopic>>> = BTreeMap::new();
        {
            let mut topics = self.inner.topics.lock();
            topics.closed = true;
            for (name, topic) in &topics.by_name {
                rounds.entry(name.matches("$dead.").count()).or_default().push(topic.clone());
            }
        }
        rounds.values().for_each(|topics| settle(topics, until));
        let topics: Vec<_> = rounds.into_values().flatten().collect();
        let report = end(&topics);
        self.inner.topics.lock().by_name.clear();
        report
    }

    /// Closes one topic as [`close`](Self::close) does all, and forgets it: whoever opens the name from then on makes a new topic, with offsets from 0
    /// on. Handles on the old one stay closed. Its stored dead letters go with it; its dead-letter topics do not, they have names of their own.
    ///
    /// `None`: there is no topic of this name.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let session = broker.topic::<u32>("session.17")?;
    /// session.publish(1)?;
    /// let report = broker.remove_topic("session.17", Duration::from_secs(1)).expect("it exists");
    /// assert_eq!(report.unsettled, 0, "there was no subscription");
    /// assert!(session.publish(2).is_err());
    ///
    /// let new = broker.topic::<String>("session.17")?; // of another type, even
    /// assert_eq!(new.stats().published, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_topic(&self, name: &str, deadline: Duration) -> Option<CloseReport> {
        let until = Instant::now().checked_add(deadline);
        let topic = self.inner.topics.lock().by_name.get(name)?.clone();
        let topics = [topic];
        settle(&topics, until);
        let report = end(&topics);
        let mut open = self.inner.topics.lock();
        // Somebody else may have removed it meanwhile, and made a new one.
        let removed = match open.by_name.get(name) {
            Some(topic) if Arc::ptr_eq(topic, &topics[0]) => open.by_name.remove(name),
            _ => None,
        };
        drop(open);
        if removed.is_some() {
            self.inner
                .environment
                .feed
                .tell(|| Happened::TopicRemoved { topic: name.to_owned() });
        }
        Some(report)
    }
}

/// Closes topics, and gives their subscribers until then to settle what there is.
fn settle(topics: &[Arc<dyn AnyTopic>], until: Option<Instant>) {
    topics.iter().for_each(|topic| topic.close());
    while topics.iter().any(|topic| topic.is_unsettled()) && until.is_none_or(|until| Instant::now() < until) {
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// Ends what is left of topics that are closed.
fn end(topics: &[Arc<dyn AnyTopic>]) -> CloseReport {
    let dead_letters = topics.iter().flat_map(|t| t.stats().subscriptions).map(|s| s.dead_letters).sum();
    let unsettled = topics.iter().map(|topic| topic.end()).sum();
    CloseReport { unsettled, dead_letters }
}

fn downcast<T: Send + 'static>(name: &str, topic: &dyn AnyTopic) -> Result<Topic<T>> {
    topic.as_any().downcast_ref::<Topic<T>>().cloned().ok_or_else(|| Error::WrongType {
        topic: name.to_owned(),
        expected: type_name::<T>(),
        found: topic.payload(),
    })
}

// As for the handles of topics: see `topic::unwind`.
impl UnwindSafe for Broker {}
impl RefUnwindSafe for Broker {}
impl UnwindSafe for BrokerBuilder {}
impl RefUnwindSafe for BrokerBuilder {}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.inner.topics.lock();
        f.debug_struct("Broker")
            .field("topics", &topics.by_name.keys())
            .field("closed", &topics.closed)
            .finish()
    }
}
