//! The shared handle on a topic, and what is said about one message before it is published.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::message::{Meta, MetaRef};
use crate::sync::Arc;
use crate::topic::core::TopicCore;
use crate::topic::entrance::Entrance;
use crate::topic::publish::PublishError;
use crate::topic::publish_batch::PublishBatch;
use crate::topic::publish_future::{LaneRef, PublishFuture};
use crate::topic::publisher::Publisher;
use crate::topic::receipt::Receipt;
use crate::topic::rules::SubscribeOptions;
use crate::topic::state::SubscriptionState;
use crate::topic::stats::TopicStats;
use crate::topic::subscription::{Seats, Subscription};

/// A handle on a topic: cheap to clone, shared by threads and tasks.
///
/// For a thread's hot loop take a [`Publisher`]. Each `publish` verb *enters* the message or gives the value back: it waits while a
/// subscription that chose [`Overflow::Block`](crate::Overflow::Block) has no room, `try_publish` does not wait.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// let broker = ringmq::Broker::open("mem:")?;
/// let orders = broker.topic::<u64>("orders")?;
/// let billing = orders.subscribe("billing")?;
/// let archive = orders.subscribe("archive")?;
/// orders.publish(42)?;
/// // Every subscription sees every message.
/// assert_eq!(*billing.recv()?, 42);
/// assert_eq!(*archive.recv()?, 42);
/// # Ok(())
/// # }
/// ```
pub struct Topic<T: Send + 'static> {
    pub(crate) core: Arc<TopicCore<T>>,
    entrance: Arc<Entrance<T>>,
}

impl<T: Send + 'static> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            entrance: self.entrance.clone(),
        }
    }
}

impl<T: Send + 'static> Topic<T> {
    /// The first handle on a topic; the others are clones of it.
    pub(crate) fn new(core: TopicCore<T>) -> Self {
        let core = Arc::new(core);
        let entrance = Entrance::new(&core);
        Self { core, entrance }
    }

    /// From here on this topic gets the dead letters of `origin`, which keeps the way in to it.
    pub(crate) fn collect_dead_letters_of(&self, origin: &Arc<SubscriptionState<T>>) {
        self.core.collect_dead_letters_of(origin, &self.entrance);
    }

    /// Publishes a message, waiting for room.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; the value is in it.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let receipt = topic.publish(7)?;
    /// assert_eq!(receipt.offset().get(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn publish(&self, value: T) -> Result<Receipt, PublishError<T>> {
        match self.core.push(self.core.limit(), value) {
            Ok(receipt) => Ok(receipt),
            Err(value) => self.message(value).publish(),
        }
    }

    /// Publishes a message if there is room now.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; the value is in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{PublishError, TopicOptions};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", TopicOptions::new().capacity(1))?;
    /// # let sub = topic.subscribe("s")?;
    /// assert!(topic.try_publish(1).is_ok());
    /// match topic.try_publish(2) {
    ///     Err(PublishError::Full(value)) => assert_eq!(value, 2),
    ///     other => panic!("one message fills it: {other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn try_publish(&self, value: T) -> Result<Receipt, PublishError<T>> {
        match self.core.push(self.core.limit(), value) {
            Ok(receipt) => Ok(receipt),
            Err(value) => self.message(value).try_publish(),
        }
    }

    /// Publishes a message, waiting for room at most this long; `Duration::MAX` is for ever.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; the value is in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{PublishError, TopicOptions};
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", TopicOptions::new().capacity(1))?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(1)?;
    /// let refused = topic.publish_timeout(2, Duration::from_millis(1)).unwrap_err();
    /// assert!(matches!(refused, PublishError::Timeout(2)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_timeout(&self, value: T, timeout: Duration) -> Result<Receipt, PublishError<T>> {
        self.message(value).publish_timeout(timeout)
    }

    /// Publishes a message, waiting for room until this moment. If there is room, a deadline in the past does not matter.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; the value is in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// for number in 0..10 {
    ///     topic.publish_deadline(number, deadline)?; // one deadline for all of them
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_deadline(&self, value: T, deadline: Instant) -> Result<Receipt, PublishError<T>> {
        self.message(value).publish_deadline(deadline)
    }

    /// Publishes a message, waiting for room as a future. It works on any executor.
    ///
    /// # Cancel safety
    ///
    /// Until the future is ready the message has not entered: dropping it publishes nothing, and
    /// [`take`](PublishFuture::take) hands the value back.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; the value is in it.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let receipt = topic.publish_async(7).await?;
    /// assert_eq!(receipt.offset().get(), 0);
    /// # Ok::<_, ringmq::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_async(&self, value: T) -> PublishFuture<'_, T> {
        self.message(value).publish_async()
    }

    /// Publishes several messages in order, waiting for room; returns how many. One claim for many: several times as fast as one by one.
    /// It is not atomic: other publishers' messages may come in between.
    ///
    /// # Errors
    ///
    /// As [`PublishError`] says; what was not published is in it, in order, with all that the iterator still had: it must come to an end.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// assert_eq!(topic.publish_batch(1..=100)?, 100);
    /// assert_eq!(sub.stats().pending, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_batch(&self, values: impl IntoIterator<Item = T>) -> Result<u64, PublishError<Vec<T>>> {
        self.publisher().publish_batch(values)
    }

    /// As [`publish_batch`](Self::publish_batch), without waiting: as many as there is room for now.
    ///
    /// # Errors
    ///
    /// As there, with [`PublishError::Full`] if there was not room for all.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", ringmq::TopicOptions::new().capacity(4))?;
    /// # let sub = topic.subscribe("s")?;
    /// let refused = topic.try_publish_batch(0..6).unwrap_err();
    /// assert_eq!(refused.into_inner(), [4, 5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_publish_batch(&self, values: impl IntoIterator<Item = T>) -> Result<u64, PublishError<Vec<T>>> {
        self.publisher().try_publish_batch(values)
    }

    /// As [`publish_batch`](Self::publish_batch), waiting at most this long for room for all of it. What enters before stays published.
    ///
    /// # Errors
    ///
    /// As there, and [`PublishError::Timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// assert_eq!(topic.publish_batch_timeout(0..6, Duration::from_millis(1))?, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_batch_timeout(&self, values: impl IntoIterator<Item = T>, timeout: Duration) -> Result<u64, PublishError<Vec<T>>> {
        self.publisher().publish_batch_timeout(values, timeout)
    }

    /// As [`publish_batch`](Self::publish_batch), waiting until this moment at most. What enters before stays published.
    ///
    /// # Errors
    ///
    /// As there, and [`PublishError::Timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", ringmq::TopicOptions::new().capacity(4))?;
    /// # let sub = topic.subscribe("s")?;
    /// let soon = Instant::now() + Duration::from_millis(1);
    /// let refused = topic.publish_batch_deadline(0..6, soon).unwrap_err();
    /// assert_eq!(refused.into_inner(), [4, 5]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_batch_deadline(&self, values: impl IntoIterator<Item = T>, deadline: Instant) -> Result<u64, PublishError<Vec<T>>> {
        self.publisher().publish_batch_deadline(values, deadline)
    }

    /// As [`publish_batch`](Self::publish_batch), as a future: while there is no room, other tasks run.
    ///
    /// # Cancel safety
    ///
    /// What has entered stays published when the future is dropped; [`published`](PublishBatch::published) tells how many that are. What it had
    /// taken from the iterator by then, up to 256 values beyond those, goes away with it: [`take`](PublishBatch::take) hands that back, with all that
    /// the iterator still had.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", ringmq::TopicOptions::new().capacity(4))?;
    /// # let sub = topic.subscribe("s")?.auto_ack();
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let receiving = async {
    ///     for expected in 0..100 {
    ///         assert_eq!(sub.recv_async().await, Ok(expected));
    ///     }
    /// };
    /// let (published, ()) = tokio::join!(topic.publish_batch_async(0..100), receiving);
    /// assert_eq!(published?, 100);
    /// # Ok::<_, ringmq::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_batch_async<I: IntoIterator<Item = T>>(&self, values: I) -> PublishBatch<'_, T, I::IntoIter> {
        PublishBatch::new(&self.core, LaneRef::Shared, values.into_iter())
    }

    /// Starts a message that has more to it than a payload: a key, headers.
    pub fn message(&self, value: T) -> Message<'_, T> {
        Message {
            topic: self,
            value,
            meta: None,
        }
    }

    /// A handle for one thread or task, with state of its own: the fast path.
    #[must_use]
    pub fn publisher(&self) -> Publisher<T> {
        Publisher::new(self.clone())
    }

    /// Opens the subscription of this name, with default rules if it is new.
    ///
    /// # Errors
    ///
    /// A bad name, a closed topic, or a work queue's second subscription: see [`Error`](crate::Error).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// let archive = topic.subscribe("archive")?;
    /// let billing = topic.subscribe("billing")?;
    /// let same = topic.subscribe("billing")?; // competes with `billing`
    /// topic.publish(7)?;
    /// assert_eq!(*archive.recv()?, 7);
    /// let in_hand = same.recv()?;
    /// assert!(billing.try_recv().is_err(), "its message is in other hands");
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, name: &str) -> Result<Subscription<T>> {
        self.subscribe_with(SubscribeOptions::new(name))
    }

    /// Opens a subscription with these rules; if it exists, its rules must not contradict.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), an option out of range, or [`OptionsDiffer`](crate::Error::OptionsDiffer).
    pub fn subscribe_with(&self, options: SubscribeOptions<T>) -> Result<Subscription<T>> {
        let state = self.core.subscribe(&options)?;
        Ok(Subscription::new(Arc::new(Seats::new(self.core.clone(), state))))
    }

    /// Accepts nothing from here on. Subscribers get what was accepted; once nothing is pending, in flight or parked (retries become due at
    /// once) they find the topic closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(1)?;
    /// topic.close();
    /// assert!(topic.publish(2).is_err());
    /// let accepted: Vec<u32> = sub.auto_ack().iter().flatten().collect();
    /// assert_eq!(accepted, [1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.core.close();
    }

    /// Whether it is closed. If it says yes, no publish enters from now on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.shared.ring.is_closed()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.shared.name
    }

    /// How many messages it holds at most.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let topic = broker.topic_with::<u32>("numbers", ringmq::TopicOptions::new().capacity(100))?;
    /// assert_eq!(topic.capacity(), 128);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.core.settings.capacity
    }

    /// The topic's numbers at this moment, and those of its subscriptions.
    #[must_use]
    pub fn stats(&self) -> TopicStats {
        self.core.stats()
    }
}

impl<T: Send + 'static> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// A message before it is published: see [`Topic::message`].
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let prices = ringmq::Broker::open("mem:")?.topic::<f64>("prices")?;
/// # let sub = prices.subscribe("s")?;
/// prices.message(1.08).key("EUR/USD").header("venue", "X").publish()?;
/// let price = sub.recv()?;
/// assert_eq!(price.key(), Some(&b"EUR/USD"[..]));
/// # price.ack()
/// # }
/// ```
#[must_use = "a message is published by one of its publish verbs"]
pub struct Message<'t, T: Send + 'static> {
    topic: &'t Topic<T>,
    value: T,
    meta: Option<Box<Meta>>,
}

impl<'t, T: Send + 'static> Message<'t, T> {
    /// What the message is about: conflation keeps the last of each key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.meta.get_or_insert_default().key = Some(key.into().into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.meta.get_or_insert_default().headers.add(name, value);
        self
    }

    #[inline]
    fn split(self) -> (&'t TopicCore<T>, T, MetaRef) {
        let core = &*self.topic.core;
        if self.meta.is_none() && !core.shared.timestamps {
            return (core, self.value, None);
        }
        (core, self.value, Some(complete_meta(core, self.meta)))
    }

    /// As [`Topic::publish`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish(self) -> Result<Receipt, PublishError<T>> {
        self.publish_until(None)
    }

    fn publish_until(self, deadline: Option<Instant>) -> Result<Receipt, PublishError<T>> {
        let (core, value, meta) = self.split();
        core.with_lane(|lane| core.publish(lane, value, meta, deadline))
    }

    /// As [`Topic::try_publish`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_publish(self) -> Result<Receipt, PublishError<T>> {
        let (core, value, meta) = self.split();
        core.with_lane(|lane| core.try_publish(lane, value, meta))
    }

    /// As [`Topic::publish_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_timeout(self, timeout: Duration) -> Result<Receipt, PublishError<T>> {
        // A deadline that no clock can show is none.
        self.publish_until(Instant::now().checked_add(timeout))
    }

    /// As [`Topic::publish_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_deadline(self, deadline: Instant) -> Result<Receipt, PublishError<T>> {
        self.publish_until(Some(deadline))
    }

    /// As [`Topic::publish_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_async(self) -> PublishFuture<'t, T> {
        let (core, value, meta) = self.split();
        PublishFuture::new(core, LaneRef::Shared, value, meta)
    }
}

impl<T: Send + 'static> fmt::Debug for Message<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic.name())
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> TopicCore<T> {
    /// A message has the time at which it enters: whoever has waited for room looks at the clock again. Not within a claim, as clocks are code of
    /// the user.
    #[cold]
    pub(crate) fn renew_time(&self, meta: &mut MetaRef) {
        if self.shared.timestamps
            && let Some(meta) = meta.as_mut().and_then(Arc::get_mut)
        {
            meta.published = Some(self.shared.environment.now());
        }
    }
}

/// Completes what travels beside a payload. Called before the claim, because it allocates.
#[cold]
pub(crate) fn complete_meta<T: Send + 'static>(core: &TopicCore<T>, meta: Option<Box<Meta>>) -> Arc<Meta> {
    let mut meta = meta.map(|meta| *meta).unwrap_or_default();
    if core.shared.timestamps {
        meta.published = Some(core.shared.environment.now());
    }
    core.shared.ring.prepare_attachments();
    Arc::new(meta)
}
