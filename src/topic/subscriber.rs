//! One thread's or task's handle on a subscription.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::error::Result;
use crate::sync::Arc;
use crate::topic::mode::{Explicit, Mode};
use crate::topic::receive::{Recv, RecvBatch, RecvError, SeatRef, TryRecvError, Until, Waiting};
use crate::topic::seat::Seat;
use crate::topic::subscription::{Seats, Subscription};

/// One thread's or task's handle on a subscription: the fast path. It competes with the subscription's other receivers.
///
/// It is a [`Stream`], and by [`iter`](Self::iter) or in a `for` loop it blocks as an iterator; both tell what was lost and end when the
/// subscription is closed. A stream may be left by whoever polled it, so a new message wakes all streams that wait for one, and one of them gets it;
/// of tasks that wait in [`recv_async`](Self::recv_async) it wakes one.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let subscription = topic.subscribe("s")?;
/// let mut subscriber = subscription.subscriber();
/// topic.publish(7)?;
/// let delivery = subscriber.recv()?;
/// assert_eq!(*delivery, 7);
/// delivery.ack()
/// # }
/// ```
pub struct Subscriber<T: Send + 'static, M: Mode = Explicit> {
    seat: Seat<T>,
    waiting: Waiting,
    seats: Arc<Seats<T>>,
    mode: PhantomData<fn() -> M>,
}

// Nothing in here is pinned, whatever `T` is.
impl<T: Send + 'static, M: Mode> Unpin for Subscriber<T, M> {}

impl<T: Send + 'static, M: Mode> Subscriber<T, M> {
    pub(crate) fn new(seats: &Arc<Seats<T>>) -> Self {
        Self {
            seat: Seat::new(seats.state()),
            waiting: Waiting::of_stream(),
            seats: seats.clone(),
            mode: PhantomData,
        }
    }

    /// The subscription that it receives from.
    #[must_use]
    pub fn subscription(&self) -> Subscription<T, M> {
        Subscription::new(self.seats.clone())
    }

    #[cold]
    pub(crate) fn recv_until(&mut self, until: Until<'_>) -> Result<M::Item<T>, RecvError> {
        self.seat.recv(until, Seat::next::<M>)
    }

    /// As [`Subscription::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> Result<M::Item<T>, RecvError> {
        M::pop_or(&mut self.seat, Seat::recv_slowly::<M>)
    }

    /// As [`Subscription::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_recv(&mut self) -> Result<M::Item<T>, TryRecvError> {
        M::pop_or(&mut self.seat, Seat::try_recv_slowly::<M>)
    }

    /// As [`Subscription::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<M::Item<T>, RecvError> {
        self.recv_until(Until::after(timeout))
    }

    /// As [`Subscription::recv_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<M::Item<T>, RecvError> {
        self.recv_until(Until::moment(deadline))
    }

    /// As [`Subscription::recv_async`]; cancel safe.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_async(&mut self) -> Recv<'_, T, M> {
        Recv::new(SeatRef::Own(&mut self.seat))
    }

    /// Receives until the subscription is closed, waiting for each message and telling what was lost.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<M::Item<T>, crate::Lagged>> + use<'_, T, M> {
        std::iter::from_fn(|| self.next_message())
    }

    fn next_message(&mut self) -> Option<Result<M::Item<T>, crate::Lagged>> {
        loop {
            match self.recv() {
                Ok(item) => return Some(Ok(item)),
                Err(RecvError::Lagged(lagged)) => return Some(Err(lagged)),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Timeout) => {}
            }
        }
    }

    /// As [`Subscription::recv_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn recv_batch(&mut self, out: &mut Vec<M::Item<T>>, max: usize) -> Result<usize, RecvError> {
        self.seat.recv(Until::FOREVER, |seat| seat.try_run::<M>(max, out))
    }

    /// As [`Subscription::try_recv_batch`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_recv_batch(&mut self, out: &mut Vec<M::Item<T>>, max: usize) -> Result<usize, TryRecvError> {
        self.seat.try_recv(|seat| seat.try_run::<M>(max, out))
    }

    /// As [`Subscription::recv_batch_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_batch_timeout(&mut self, out: &mut Vec<M::Item<T>>, max: usize, timeout: Duration) -> Result<usize, RecvError> {
        self.seat.recv(Until::after(timeout), |seat| seat.try_run::<M>(max, out))
    }

    /// As [`Subscription::recv_batch_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_batch_deadline(&mut self, out: &mut Vec<M::Item<T>>, max: usize, deadline: Instant) -> Result<usize, RecvError> {
        self.seat.recv(Until::moment(deadline), |seat| seat.try_run::<M>(max, out))
    }

    /// As [`Subscription::recv_batch_async`]; cancel safe.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_batch_async<'a>(&'a mut self, out: &'a mut Vec<M::Item<T>>, max: usize) -> RecvBatch<'a, T, M> {
        RecvBatch {
            recv: self.recv_async(),
            out,
            max,
        }
    }
}

impl<T: Send + 'static, M: Mode> IntoIterator for Subscriber<T, M> {
    type Item = Result<M::Item<T>, crate::Lagged>;
    type IntoIter = IntoIter<T, M>;

    fn into_iter(self) -> IntoIter<T, M> {
        IntoIter { subscriber: self }
    }
}

/// Receives until the subscription is closed: a [`Subscriber`] as an iterator.
#[derive(Debug)]
pub struct IntoIter<T: Send + 'static, M: Mode> {
    subscriber: Subscriber<T, M>,
}

impl<T: Send + 'static, M: Mode> Iterator for IntoIter<T, M> {
    type Item = Result<M::Item<T>, crate::Lagged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.subscriber.next_message()
    }
}

impl<T: Send + 'static, M: Mode> Stream for Subscriber<T, M> {
    type Item = Result<M::Item<T>, crate::Lagged>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.waiting.poll(&mut this.seat, context, Seat::next::<M>);
        polled.map(|received| match received {
            Ok(item) => Some(Ok(item)),
            Err(RecvError::Lagged(lagged)) => Some(Err(lagged)),
            Err(_) => None,
        })
    }
}

impl<T: Send + 'static, M: Mode> Drop for Subscriber<T, M> {
    fn drop(&mut self) {
        self.waiting.cancel(&self.seat.state);
    }
}

impl<T: Send + 'static, M: Mode> fmt::Debug for Subscriber<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.seat.state;
        f.debug_struct("Subscriber")
            .field("topic", &state.shared.name)
            .field("subscription", &state.name)
            .finish_non_exhaustive()
    }
}
