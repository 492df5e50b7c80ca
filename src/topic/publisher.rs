//! One thread's or task's handle for publishing.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_sink::Sink;

use crate::error::Result;
use crate::message::MetaRef;
use crate::topic::handle::{Message, Topic, complete_meta};
use crate::topic::publish::{Lane, PublishError, PublishFailure, Room};
use crate::topic::publish_batch::{HAND, PublishBatch};
use crate::topic::publish_future::{Entering, LaneRef, PublishFuture};
use crate::topic::receipt::Receipt;

/// One thread's or task's handle for publishing: the fast path. It remembers how far it may write without asking, so that it looks at
/// shared state once a lap.
///
/// It is a [`Sink`]; closing the sink flushes it and leaves the topic open. What the sink has taken and not flushed comes after what another verb
/// of the handle publishes meanwhile.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let mut publisher = topic.publisher();
/// publisher.publish(1)?;
/// assert_eq!(publisher.publish_batch(2..=10)?, 9);
/// # Ok(())
/// # }
/// ```
pub struct Publisher<T: Send + 'static> {
    topic: Topic<T>,
    lane: Lane,
    /// A batch's values in hand. Empty between calls; kept so that batches do not allocate.
    hand: Vec<T>,
    /// What the sink has taken and not published yet.
    sink: Option<T>,
    entering: Entering,
}

// Nothing in here is pinned, whatever `T` is.
impl<T: Send + 'static> Unpin for Publisher<T> {}

impl<T: Send + 'static> Publisher<T> {
    pub(crate) fn new(topic: Topic<T>) -> Self {
        Self {
            topic,
            lane: Lane::default(),
            hand: Vec::new(),
            sink: None,
            entering: Entering::of_sink(),
        }
    }

    /// The topic that it publishes to.
    #[must_use]
    pub fn topic(&self) -> &Topic<T> {
        &self.topic
    }

    fn meta(&self) -> MetaRef {
        if self.topic.core.shared.timestamps {
            Some(complete_meta(&self.topic.core, None))
        } else {
            None
        }
    }

    /// As [`Topic::publish`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn publish(&mut self, value: T) -> Result<Receipt, PublishError<T>> {
        match self.topic.core.push(self.lane.limit, value) {
            Ok(receipt) => Ok(receipt),
            Err(value) => self.publish_until(value, None),
        }
    }

    #[cold]
    fn publish_until(&mut self, value: T, deadline: Option<Instant>) -> Result<Receipt, PublishError<T>> {
        let meta = self.meta();
        self.topic.core.publish(&mut self.lane, value, meta, deadline)
    }

    /// As [`Topic::try_publish`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_publish(&mut self, value: T) -> Result<Receipt, PublishError<T>> {
        match self.topic.core.push(self.lane.limit, value) {
            Ok(receipt) => Ok(receipt),
            Err(value) => self.try_publish_slowly(value),
        }
    }

    #[cold]
    fn try_publish_slowly(&mut self, value: T) -> Result<Receipt, PublishError<T>> {
        let meta = self.meta();
        self.topic.core.try_publish(&mut self.lane, value, meta)
    }

    /// As [`Topic::publish_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_timeout(&mut self, value: T, timeout: Duration) -> Result<Receipt, PublishError<T>> {
        let meta = self.meta();
        self.topic
            .core
            .publish(&mut self.lane, value, meta, Instant::now().checked_add(timeout))
    }

    /// As [`Topic::publish_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_deadline(&mut self, value: T, deadline: Instant) -> Result<Receipt, PublishError<T>> {
        self.publish_until(value, Some(deadline))
    }

    /// As [`Topic::publish_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_async(&mut self, value: T) -> PublishFuture<'_, T> {
        let meta = self.meta();
        PublishFuture::new(&self.topic.core, LaneRef::Own(&mut self.lane), value, meta)
    }

    /// As [`Topic::message`]: with a key or headers.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publisher().message(7).key("seven").publish()?;
    /// assert_eq!(sub.recv()?.key(), Some(&b"seven"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&mut self, value: T) -> Message<'_, T> {
        self.topic.message(value)
    }

    /// As [`Topic::publish_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn publish_batch(&mut self, values: impl IntoIterator<Item = T>) -> Result<u64, PublishError<Vec<T>>> {
        self.publish_run(values.into_iter(), Room::By(None))
    }

    /// As [`Topic::try_publish_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_publish_batch(&mut self, values: impl IntoIterator<Item = T>) -> Result<u64, PublishError<Vec<T>>> {
        self.publish_run(values.into_iter(), Room::Now)
    }

    /// As [`Topic::publish_batch_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_batch_timeout(&mut self, values: impl IntoIterator<Item = T>, timeout: Duration) -> Result<u64, PublishError<Vec<T>>> {
        self.publish_run(values.into_iter(), Room::By(Instant::now().checked_add(timeout)))
    }

    /// As [`Topic::publish_batch_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_batch_deadline(&mut self, values: impl IntoIterator<Item = T>, deadline: Instant) -> Result<u64, PublishError<Vec<T>>> {
        self.publish_run(values.into_iter(), Room::By(Some(deadline)))
    }

    /// As [`Topic::publish_batch_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn publish_batch_async<I: IntoIterator<Item = T>>(&mut self, values: I) -> PublishBatch<'_, T, I::IntoIter> {
        PublishBatch::new(&self.topic.core, LaneRef::Own(&mut self.lane), values.into_iter())
    }

    #[inline]
    fn publish_run(&mut self, values: impl Iterator<Item = T>, room: Room) -> Result<u64, PublishError<Vec<T>>> {
        // Not asked again once it has said that there is no more.
        let mut values = values.fuse();
        if self.topic.core.shared.timestamps {
            return self.publish_one_by_one(values, room);
        }
        let mut published = 0;
        loop {
            // The iterator is code of the user: it runs before the claim, and if it unwinds, what is in hand was not published.
            let mut hand = std::mem::take(&mut self.hand);
            hand.extend(values.by_ref().take(HAND));
            if hand.is_empty() {
                self.hand = hand;
                return Ok(published);
            }
            // A batch that always finds some room would look at the clock never.
            let entered = if published > 0 && room.is_over() {
                Err(PublishFailure::Timeout)
            } else {
                self.publish_hand(&mut hand, room)
            };
            match entered {
                Ok(n) => published += n,
                Err(failure) => {
                    hand.extend(values);
                    return Err(failure.with(hand));
                }
            }
            self.hand = hand;
        }
    }

    #[inline]
    fn publish_hand(&mut self, hand: &mut Vec<T>, room: Room) -> Result<u64, PublishFailure> {
        let core = &*self.topic.core;
        let all = hand.len() as u64;
        while !hand.is_empty() {
            let claim = match core.shared.ring.claim_run(&mut self.lane.limit, hand.len(), true) {
                Ok(claim) => claim,
                Err(_) => core.enter_run(&mut self.lane, hand.len(), room)?,
            };
            let n = claim.len();
            core.complete_run(claim, hand.drain(..n));
        }
        Ok(all)
    }

    #[cold]
    fn publish_one_by_one(&mut self, mut values: impl Iterator<Item = T>, room: Room) -> Result<u64, PublishError<Vec<T>>> {
        let mut published = 0;
        while let Some(value) = values.next() {
            let meta = self.meta();
            let core = &*self.topic.core;
            let is_late = published > 0 && published % HAND as u64 == 0 && room.is_over();
            let entered = match room {
                _ if is_late => Err(PublishError::Timeout(value)),
                Room::Now => core.try_publish(&mut self.lane, value, meta),
                Room::By(deadline) => core.publish(&mut self.lane, value, meta, deadline),
            };
            if let Err(refused) = entered {
                let (failure, value) = refused.split();
                return Err(failure.with(std::iter::once(value).chain(values).collect()));
            }
            published += 1;
        }
        Ok(published)
    }

    fn poll_flush_sink(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PublishError<T>>> {
        if self.sink.is_none() {
            return Poll::Ready(Ok(()));
        }
        let mut meta = self.meta();
        let polled = self
            .entering
            .poll(&self.topic.core, &mut self.lane, &mut self.sink, &mut meta, context);
        polled.map(|result| result.map(drop))
    }
}

impl<T: Send + 'static> Sink<T> for Publisher<T> {
    type Error = PublishError<T>;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), PublishError<T>>> {
        self.get_mut().poll_flush_sink(context)
    }

    fn start_send(self: Pin<&mut Self>, value: T) -> Result<(), PublishError<T>> {
        let this = self.get_mut();
        debug_assert!(this.sink.is_none(), "start_send comes after poll_ready");
        match this.try_publish(value) {
            Ok(_) => Ok(()),
            Err(PublishError::Full(value)) => {
                this.sink = Some(value);
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), PublishError<T>>> {
        self.get_mut().poll_flush_sink(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), PublishError<T>>> {
        self.get_mut().poll_flush_sink(context)
    }
}

impl<T: Send + 'static> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.entering.cancel(&self.topic.core);
    }
}

impl<T: Send + 'static> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.topic.name())
            .finish_non_exhaustive()
    }
}
