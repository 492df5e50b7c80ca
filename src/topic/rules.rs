//! The rules of a subscription: what it was created with.

use std::time::Duration;

use crate::delivery::retry::Backoff;
use crate::error::{Error, Result};
use crate::names;
use crate::offset::Offset;
use crate::ring::MAX_CREDITS;
use crate::sync::Arc;
use crate::time::Timestamp;

/// What happens when a subscription has no room for what is published.
///
/// It is the subscription's own choice, and touches no other subscription: only `Block` and `Fail` hold up or fail publishers.
///
/// # Examples
///
/// See [`Lagged`](crate::Lagged) for `DropOldest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Publishers wait until the subscription has caught up. The default: nothing is dropped.
    #[default]
    Block,
    /// Publishing fails with `Full`, without waiting.
    Fail,
    /// The oldest messages are dropped, up to an eighth of the capacity at a time; the subscription is told how many by one receive, and the next gives
    /// the message behind them (of a batch, as many as were asked for): it is set aside when the loss is told, so it is not lost however much is published
    /// meanwhile.
    ///
    /// While a receiver does that, others wait for it: so the filter and the payload's `Clone` must not receive from the subscription themselves.
    DropOldest,
    /// Of the messages that the subscription falls behind, the last of each key is kept, for up to `keys` keys; the rest is dropped and
    /// the subscription told. Messages without a key count as one key. What is lost by the time a loss is told is followed by a message: the
    /// oldest that is kept, which nothing replaces from then on.
    ///
    /// Publishers do this for the subscription, under a lock of the topic: its filter and the payload's `Clone` are run there, and must not use
    /// the topic themselves.
    Conflate {
        /// How many keys are kept.
        keys: usize,
    },
}

/// Where a new subscription starts, or an existing one is moved to.
///
/// # Examples
///
/// ```
/// use ringmq::{Start, SubscribeOptions};
///
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// topic.publish(1)?;
/// let late = topic.subscribe_with(SubscribeOptions::new("late").start(Start::Latest))?;
/// topic.publish(2)?;
/// assert_eq!(*late.recv()?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// The oldest message that the topic still holds. The default.
    #[default]
    Earliest,
    /// Only what is published from now on.
    Latest,
    /// The message with this offset, or the nearest that the topic still holds.
    At(Offset),
    /// The first message published at this time or later. Needs [`TopicOptions::timestamps`](crate::TopicOptions::timestamps).
    Since(Timestamp),
}

/// Whether a message is wanted.
pub(crate) type Filter<T> = dyn Fn(&T) -> bool + Send + Sync;

/// How a subscription is made: its name and its rules. Whatever is not set keeps its default, or, if the subscription exists already,
/// whatever it has.
///
/// # Examples
///
/// ```
/// use ringmq::{Backoff, Overflow, SubscribeOptions};
/// use std::time::Duration;
///
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<i32>("delays")?;
/// let late = topic.subscribe_with(
///     SubscribeOptions::new("late")
///         .filter(|minutes| *minutes > 60)
///         .max_failures(3)
///         .backoff(Backoff::fixed(Duration::from_millis(1))),
/// )?;
/// topic.publish(5)?;
/// topic.publish(75)?;
/// assert_eq!(*late.recv()?, 75);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct SubscribeOptions<T> {
    pub(crate) name: String,
    pub(crate) start: Start,
    pub(crate) filter: Option<Arc<Filter<T>>>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) max_parked: Option<usize>,
    pub(crate) max_failures: Option<u32>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) ack_timeout: Option<Duration>,
    pub(crate) dead_letters_max: Option<usize>,
    pub(crate) ephemeral: bool,
}

impl<T> SubscribeOptions<T> {
    /// The subscription of this name: 1 to 60 bytes of `A-Z a-z 0-9 _ -`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            start: Start::Earliest,
            filter: None,
            overflow: None,
            max_in_flight: None,
            max_parked: None,
            max_failures: None,
            backoff: None,
            ack_timeout: None,
            dead_letters_max: None,
            ephemeral: false,
        }
    }

    /// Where it starts, if it is new. Default: [`Start::Earliest`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Only messages for which this says yes. The subscriber runs it while receiving, so not while as many deliveries as allowed are in flight: until
    /// then a message counts as pending and takes its place, whether it will be wanted or not; afterwards, what is not wanted is neither backlog nor
    /// in flight. If it panics, the message counts as wanted. Whoever opens an existing subscription with another filter gets that subscription's own: filters cannot be compared. It must not publish to
    /// its own topic: on a full one it would wait for the place of the message that it looks at. Default: all.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::SubscribeOptions;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// // Where the compiler asks for the type of the argument: `|number: &u32|`.
    /// let even = topic.subscribe_with(SubscribeOptions::new("even").filter(|number| number % 2 == 0))?;
    /// topic.publish_batch(1..=4)?;
    /// topic.close();
    /// let seen: Vec<u32> = even.auto_ack().iter().flatten().collect();
    /// assert_eq!(seen, [2, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn filter(mut self, wanted: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self
    where
        T: Sync,
    {
        self.filter = Some(Arc::new(wanted));
        self
    }

    /// What happens when it falls behind by the topic's capacity. Default: [`Overflow::Block`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Overflow, SubscribeOptions, TopicOptions};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let prices = broker.topic_with::<u32>("prices", TopicOptions::new().capacity(2))?;
    /// let options = SubscribeOptions::new("display").overflow(Overflow::Conflate { keys: 100 });
    /// let display = prices.subscribe_with(options)?;
    /// for price in 1..=100 {
    ///     prices.message(price).key("EUR").publish()?; // never waits for the display
    /// }
    /// let last = display.auto_ack().iter().flatten().find(|&price| price == 100);
    /// assert_eq!(last, Some(100));
    /// # Ok(())
    /// # }
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// How many deliveries may be without a verdict at a time, from 1 to 1,073,741,823. Default: 1,024.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{SubscribeOptions, TryRecvError};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let sub = topic.subscribe_with(SubscribeOptions::new("s").max_in_flight(1))?;
    /// topic.publish_batch([1, 2])?;
    /// let first = sub.try_recv()?;
    /// assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    /// first.ack()?;
    /// assert_eq!(*sub.try_recv()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_in_flight(mut self, deliveries: u32) -> Self {
        self.max_in_flight = Some(deliveries);
        self
    }

    /// How many messages may be left to be delivered again, now or later, before the subscription takes no new ones, at least 1. Default: 16,384.
    pub fn max_parked(mut self, messages: usize) -> Self {
        self.max_parked = Some(messages);
        self
    }

    /// After how many failures a message goes to the dead letters, at least 1. Default: 16.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Backoff, SubscribeOptions};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let options = SubscribeOptions::new("s").max_failures(2).backoff(Backoff::none());
    /// let sub = topic.subscribe_with(options)?;
    /// topic.publish(7)?;
    /// sub.recv()?.nack()?;
    /// sub.recv()?.nack()?;
    /// assert_eq!(sub.dead_letters().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_failures(mut self, failures: u32) -> Self {
        self.max_failures = Some(failures);
        self
    }

    /// How long a message waits after a failure. Default: see [`Backoff`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// How long a delivery may be without a verdict before it counts as failed and is delivered again; a later verdict is then
    /// [`Error::LeaseLost`]. It keeps a second clone of each payload in flight, so it needs a topic that clones. Default: for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Error, SubscribeOptions};
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let options = SubscribeOptions::new("s").ack_timeout(Duration::from_millis(1));
    /// let sub = topic.subscribe_with(options)?;
    /// topic.publish(7)?;
    /// let forgotten = sub.recv()?;
    /// let again = sub.recv()?; // after a millisecond and the back-off
    /// assert_eq!((again.attempt(), *again), (2, *forgotten));
    /// assert!(matches!(forgotten.ack(), Err(Error::LeaseLost)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = Some(timeout);
        self
    }

    /// How many dead letters are stored, at least 1. Default: 10,000.
    pub fn dead_letters_max(mut self, letters: usize) -> Self {
        self.dead_letters_max = Some(letters);
        self
    }

    /// Ends the subscription when its last handle is dropped. Default: it lives until `unsubscribe`.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::SubscribeOptions;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let sub = topic.subscribe_with(SubscribeOptions::new("s").ephemeral())?;
    /// drop(sub);
    /// assert_eq!(topic.publish(7)?.subscriptions(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }
}

impl<T> std::fmt::Debug for SubscribeOptions<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscribeOptions")
            .field("name", &self.name)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// The rules in force.
pub(crate) struct Rules<T> {
    pub(crate) filter: Option<Arc<Filter<T>>>,
    pub(crate) overflow: Overflow,
    pub(crate) max_in_flight: u32,
    pub(crate) max_parked: usize,
    pub(crate) max_failures: u32,
    pub(crate) backoff: Backoff,
    pub(crate) ack_timeout: Option<Duration>,
    pub(crate) dead_letters_max: usize,
    pub(crate) ephemeral: bool,
}

fn in_range<N: Copy + PartialOrd + std::fmt::Display>(option: &'static str, n: N, least: N, most: N, range: &'static str) -> Result<N> {
    if n >= least && n <= most {
        Ok(n)
    } else {
        Err(Error::BadOption {
            option,
            value: n.to_string(),
            range,
        })
    }
}

impl<T> Rules<T> {
    /// The rules that these options ask for.
    pub(crate) fn new(o: &SubscribeOptions<T>) -> Result<Self> {
        names::check_subscription(&o.name)?;
        let overflow = o.overflow.unwrap_or_default();
        if let Overflow::Conflate { keys } = overflow {
            in_range("conflated keys", keys, 1, u32::MAX as usize, "from 1 to 4,294,967,295")?;
        }
        Ok(Self {
            filter: o.filter.clone(),
            overflow,
            max_in_flight: in_range(
                "max_in_flight",
                o.max_in_flight.unwrap_or(1024),
                1,
                MAX_CREDITS,
                "from 1 to 1,073,741,823",
            )?,
            max_parked: in_range("max_parked", o.max_parked.unwrap_or(16_384), 1, usize::MAX, "at least 1")?,
            max_failures: in_range("max_failures", o.max_failures.unwrap_or(16), 1, u32::MAX, "at least 1")?,
            backoff: o.backoff.clone().unwrap_or_default(),
            ack_timeout: o
                .ack_timeout
                .map(|timeout| {
                    in_range("ack_timeout in nanoseconds", timeout.as_nanos(), 1, u128::MAX, "more than zero")?;
                    Ok::<_, Error>(timeout)
                })
                .transpose()?,
            dead_letters_max: in_range(
                "dead_letters_max",
                o.dead_letters_max.unwrap_or(10_000),
                1,
                usize::MAX,
                "at least 1",
            )?,
            ephemeral: o.ephemeral,
        })
    }

    /// Whether an existing subscription with these rules serves someone who asks for `o`.
    pub(crate) fn check_same(&self, o: &SubscribeOptions<T>) -> Result<()> {
        fn same<V: PartialEq + std::fmt::Debug>(name: &str, option: &'static str, asked: Option<V>, have: V) -> Result<()> {
            match asked {
                Some(asked) if asked != have => Err(Error::OptionsDiffer {
                    what: "subscription",
                    name: name.to_owned(),
                    option,
                    expected: format!("{asked:?}"),
                    found: format!("{have:?}"),
                }),
                _ => Ok(()),
            }
        }
        let name = &o.name;
        same(
            name,
            "filter",
            o.filter.as_ref().map(|_| "a filter"),
            if self.filter.is_some() { "a filter" } else { "none" },
        )?;
        same(name, "overflow", o.overflow, self.overflow)?;
        same(name, "max_in_flight", o.max_in_flight, self.max_in_flight)?;
        same(name, "max_parked", o.max_parked, self.max_parked)?;
        same(name, "max_failures", o.max_failures, self.max_failures)?;
        same(name, "backoff", o.backoff.as_ref(), &self.backoff)?;
        same(name, "ack_timeout", o.ack_timeout.map(Some), self.ack_timeout)?;
        same(name, "dead_letters_max", o.dead_letters_max, self.dead_letters_max)?;
        same(name, "ephemeral", o.ephemeral.then_some(true), self.ephemeral)
    }
}
