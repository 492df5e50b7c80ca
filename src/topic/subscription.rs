//! The shared handle on a subscription.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::offset::Offset;
use crate::sync::{Arc, Mutex};
use crate::topic::core::TopicCore;
use crate::topic::delivery::Delivery;
use crate::topic::mode::{Auto, Explicit, Mode};
use crate::topic::receive::{Recv, RecvBatch, RecvError, SeatRef, TryRecvError, Until};
use crate::topic::rules::Start;
use crate::topic::seat::Seat;
use crate::topic::settle::DeadLetters;
use crate::topic::state::SubscriptionState;
use crate::topic::stats::SubscriptionStats;
use crate::topic::subscriber::Subscriber;

/// What the clones of one handle share: the subscription and some seats to receive with.
pub(crate) struct Seats<T: Send + 'static> {
    pub(crate) core: Arc<TopicCore<T>>,
    state: Arc<SubscriptionState<T>>,
    spare: Mutex<Vec<Seat<T>>>,
}

impl<T: Send + 'static> Seats<T> {
    /// Takes over one handle of `state`.
    pub(crate) fn new(core: Arc<TopicCore<T>>, state: Arc<SubscriptionState<T>>) -> Self {
        Self {
            core,
            state,
            spare: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn state(&self) -> &Arc<SubscriptionState<T>> {
        &self.state
    }

    /// Lends a seat for one call.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut Seat<T>) -> R) -> R {
        // The lock is gone before a seat is made: that frees slots, and payloads that are dropped may want a seat themselves.
        let spare = self.spare.lock().pop();
        // If the call unwinds the seat is dropped, which is as good.
        let mut seat = spare.unwrap_or_else(|| Seat::new(&self.state));
        let result = use_it(&mut seat);
        self.spare.lock().push(seat);
        result
    }
}

impl<T: Send + 'static> Drop for Seats<T> {
    fn drop(&mut self) {
        self.core.drop_handle(&self.state);
    }
}

/// A handle on a subscription: cheap to clone, shared by threads and tasks, whose receives compete.
///
/// For a thread's hot loop take a [`Subscriber`], which skips the bookkeeping that sharing needs.
///
/// # Waiting
///
/// `recv` and its kin look for a message for a microsecond or two, then sleep; an idle subscription costs nothing. Messages come in the order
/// of their offsets, redeliveries apart; among competing receivers each message goes to one.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// # fn main() -> ringmq::Result<()> {
/// let broker = ringmq::Broker::open("mem:")?;
/// let jobs = broker.topic::<u64>("jobs")?;
/// let workers = jobs.subscribe("workers")?;
/// let sum: u64 = thread::scope(|scope| {
///     let workers: Vec<_> = (0..2)
///         .map(|_| scope.spawn(|| workers.auto_ack().iter().map(|job| job.expect("nothing is lost")).sum::<u64>()))
///         .collect();
///     for job in 1..=100 {
///         jobs.publish(job).expect("the topic is open");
///     }
///     jobs.close();
///     workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
/// });
/// assert_eq!(sum, 5050);
/// # Ok(())
/// # }
/// ```
pub struct Subscription<T: Send + 'static, M: Mode = Explicit> {
    pub(crate) seats: Arc<Seats<T>>,
    mode: PhantomData<fn() -> M>,
}

impl<T: Send + 'static, M: Mode> Clone for Subscription<T, M> {
    fn clone(&self) -> Self {
        Self {
            seats: self.seats.clone(),
            mode: PhantomData,
        }
    }
}

impl<T: Send + 'static, M: Mode> Subscription<T, M> {
    pub(crate) fn new(seats: Arc<Seats<T>>) -> Self {
        Self { seats, mode: PhantomData }
    }

    pub(crate) fn state(&self) -> &Arc<SubscriptionState<T>> {
        self.seats.state()
    }

    /// Waits for the next message; while as many are in flight as [`max_in_flight`](crate::SubscribeOptions::max_in_flight) allows, for one of them to
    /// be settled.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`], or [`RecvError::Lagged`] once after messages were lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// let delivery = sub.recv()?;
    /// assert_eq!(*delivery, 7);
    /// delivery.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self) -> Result<M::Item<T>, RecvError> {
        self.seats.with(|seat| seat.recv(Until::FOREVER, Seat::next::<M>))
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    ///
    /// As [`TryRecvError`] says.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish_batch([1, 2])?;
    /// while let Ok(delivery) = sub.try_recv() {
    ///     delivery.ack()?;
    /// }
    /// assert_eq!(sub.stats().lag, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_recv(&self) -> Result<M::Item<T>, TryRecvError> {
        self.seats.with(|seat| seat.try_recv(Seat::next::<M>))
    }

    /// Waits for the next message, at most this long; `Duration::MAX` is for ever.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`RecvError::Timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::RecvError;
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// let nothing = sub.recv_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(nothing, RecvError::Timeout);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<M::Item<T>, RecvError> {
        self.seats.with(|seat| seat.recv(Until::after(timeout), Seat::next::<M>))
    }

    /// Waits for the next message until this moment. One that is there already is taken even if the deadline is past.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`RecvError::Timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// let past = Instant::now();
    /// assert_eq!(sub.recv_deadline(past)?.into_inner()?, 7);
    /// assert!(sub.recv_deadline(past).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_deadline(&self, deadline: Instant) -> Result<M::Item<T>, RecvError> {
        self.seats.with(|seat| seat.recv(Until::moment(deadline), Seat::next::<M>))
    }

    /// Waits for the next message, as a future. It works on any executor.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message and no wake-up: a message is taken only in the poll that returns it.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// topic.publish(7)?;
    /// let delivery = sub.recv_async().await?;
    /// delivery.ack()?;
    /// # Ok::<_, ringmq::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_async(&self) -> Recv<'_, T, M> {
        Recv::new(SeatRef::Shared(&self.seats))
    }

    /// Waits for at least one message and takes up to `max` into `out`; returns how many. One claim for all: several times as fast as one
    /// by one, but they all go to this caller.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish_batch(1..=5)?;
    /// let mut deliveries = Vec::new();
    /// assert_eq!(sub.recv_batch(&mut deliveries, 3)?, 3);
    /// sub.ack_batch(deliveries.drain(..))?;
    /// assert_eq!(sub.stats().pending, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_batch(&self, out: &mut Vec<M::Item<T>>, max: usize) -> Result<usize, RecvError> {
        self.seats
            .with(|seat| seat.recv(Until::FOREVER, |seat| seat.try_run::<M>(max, out)))
    }

    /// As [`recv_batch`](Self::recv_batch), without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_batch(&self, out: &mut Vec<M::Item<T>>, max: usize) -> Result<usize, TryRecvError> {
        self.seats.with(|seat| seat.try_recv(|seat| seat.try_run::<M>(max, out)))
    }

    /// As [`recv_batch`](Self::recv_batch), waiting at most this long.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_batch_timeout(&self, out: &mut Vec<M::Item<T>>, max: usize, timeout: Duration) -> Result<usize, RecvError> {
        self.seats
            .with(|seat| seat.recv(Until::after(timeout), |seat| seat.try_run::<M>(max, out)))
    }

    /// As [`recv_batch`](Self::recv_batch), waiting until this moment at most.
    ///
    /// # Errors
    ///
    /// As [`recv_deadline`](Self::recv_deadline).
    pub fn recv_batch_deadline(&self, out: &mut Vec<M::Item<T>>, max: usize, deadline: Instant) -> Result<usize, RecvError> {
        self.seats
            .with(|seat| seat.recv(Until::moment(deadline), |seat| seat.try_run::<M>(max, out)))
    }

    /// As [`recv_batch`](Self::recv_batch), as a future; cancel safe.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn recv_batch_async<'a>(&'a self, out: &'a mut Vec<M::Item<T>>, max: usize) -> RecvBatch<'a, T, M> {
        RecvBatch {
            recv: self.recv_async(),
            out,
            max,
        }
    }

    /// A handle for one thread or task, with state of its own: the fast path.
    #[must_use]
    pub fn subscriber(&self) -> Subscriber<T, M> {
        Subscriber::new(&self.seats)
    }

    /// Receives until the subscription is closed, telling what was lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish_batch([1, 2, 3])?;
    /// topic.close();
    /// let mut sum = 0;
    /// for delivery in &sub {
    ///     let delivery = delivery?; // an error says what was lost
    ///     sum += *delivery;
    ///     delivery.ack()?;
    /// }
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Iter<'_, T, M> {
        Iter { subscription: self }
    }

    /// Moves the subscription: its next fresh message is the one at `to`, or the nearest that the topic still holds. Returns where it stands.
    /// What is in flight or waits for a retry is not touched; kept messages of a conflating subscription are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotCloneable`](crate::Error::NotCloneable) on a work queue, [`Error::NoTimestamps`](crate::Error::NoTimestamps) for
    /// [`Start::Since`] on a topic that does not note times.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Offset, Start};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let slow = topic.subscribe("slow")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish_batch(0..10)?;
    /// sub.seek(Start::Latest)?;
    /// assert!(sub.try_recv().is_err());
    /// // Another subscription has not read them yet, so the topic still holds them.
    /// sub.seek(Start::At(Offset::new(8)))?;
    /// assert_eq!(*sub.try_recv()?, 8);
    /// # Ok(())
    /// # }
    /// ```
    pub fn seek(&self, to: Start) -> Result<Offset> {
        self.seats.core.seek(self.state(), to).map(Offset::new)
    }

    /// Delivers nothing more until [`resume`](Self::resume). What is in flight can be settled.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// sub.pause();
    /// assert!(sub.try_recv().is_err());
    /// sub.resume();
    /// assert_eq!(sub.try_recv()?.into_inner()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self) {
        self.state().change(|beside| beside.paused = true);
    }

    /// Delivers again.
    pub fn resume(&self) {
        self.state().change(|beside| beside.paused = false);
    }

    /// Ends the subscription: its receivers find it closed, and it gets none of what it had not settled, its dead letters included. Verdicts on
    /// deliveries that are still out change nothing. If it was the topic's only one, the topic keeps its newest messages for the next.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// let other_handle = sub.clone();
    /// sub.unsubscribe();
    /// assert_eq!(other_handle.recv().unwrap_err(), ringmq::RecvError::Closed);
    /// assert_eq!(topic.publish(8)?.subscriptions(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn unsubscribe(self) {
        let _ = self.seats.core.unsubscribe(self.state());
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state().name
    }

    /// The topic's name.
    #[must_use]
    pub fn topic_name(&self) -> &str {
        &self.state().shared.name
    }

    /// The subscription's numbers at this moment.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.seats.core.subscription_stats(self.state())
    }

    /// A handle on its dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters<T> {
        DeadLetters {
            state: self.state().clone(),
        }
    }

    /// The same subscription, received as plain payloads that count as done when received.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// assert_eq!(sub.auto_ack().recv()?, 7);
    /// assert_eq!(sub.stats().lag, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn auto_ack(&self) -> Subscription<T, Auto> {
        Subscription {
            seats: self.seats.clone(),
            mode: PhantomData,
        }
    }
}

impl<T: Send + 'static> Subscription<T> {
    /// Acks several deliveries: of one subscriber's, all in one step.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`](crate::Error::LeaseLost) if the ack timeout of one of them ran out before; the others are acked.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish_batch(1..=3)?;
    /// let mut deliveries = Vec::new();
    /// sub.recv_batch(&mut deliveries, 10)?;
    /// sub.ack_batch(deliveries)?;
    /// assert_eq!(sub.stats().in_flight, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ack_batch(&self, deliveries: impl IntoIterator<Item = Delivery<T>>) -> Result<()> {
        Delivery::ack_all(deliveries.into_iter())
    }
}

impl<'a, T: Send + 'static, M: Mode> IntoIterator for &'a Subscription<T, M> {
    type Item = Result<M::Item<T>, crate::Lagged>;
    type IntoIter = Iter<'a, T, M>;

    fn into_iter(self) -> Iter<'a, T, M> {
        self.iter()
    }
}

impl<T: Send + 'static, M: Mode> fmt::Debug for Subscription<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic_name())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Receives until the subscription is closed: see [`Subscription::iter`].
///
/// # Examples
///
/// See there.
#[derive(Debug)]
pub struct Iter<'a, T: Send + 'static, M: Mode> {
    subscription: &'a Subscription<T, M>,
}

impl<T: Send + 'static, M: Mode> Iterator for Iter<'_, T, M> {
    type Item = Result<M::Item<T>, crate::Lagged>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.subscription.recv() {
                Ok(item) => return Some(Ok(item)),
                Err(RecvError::Lagged(lagged)) => return Some(Err(lagged)),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Timeout) => {}
            }
        }
    }
}
