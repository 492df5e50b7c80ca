//! A delivery: one hand-over of one message, owned until a verdict.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::delivery::dead_letter::DeadReason;
use crate::delivery::outcome::{Outcome, cut};
use crate::error::{Error, Result};
use crate::message::Headers;
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::seat::{Credit, Seat};
use crate::topic::settle::Failure;
use crate::topic::shared::Taken;
use crate::topic::state::Held;

/// How a handle receives: as deliveries that want a verdict ([`Explicit`]), or as plain payloads ([`Auto`]).
///
/// The mode is a type, because it changes what `recv` returns. Sealed.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let explicit = topic.subscribe("numbers")?;
/// let auto = explicit.auto_ack();
/// topic.publish(1)?;
/// topic.publish(2)?;
/// explicit.recv()?.ack()?;
/// assert_eq!(auto.recv()?, 2);
/// # Ok(())
/// # }
/// ```
pub trait Mode: sealed::Sealed + Send + Sync + 'static {
    /// What receiving gives.
    type Item<T: Send + 'static>: Send;

    #[doc(hidden)]
    const EXPLICIT: bool;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, credit: Option<Credit<T>>) -> Self::Item<T>;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<Self::Item<T>>) -> Option<usize>;

    /// As `fresh`, for a message that was delivered before, or where the ack timeout is to start.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(held: Held<T>, credit: Option<Credit<T>>) -> Self::Item<T>;
}

/// Receives [`Delivery`]s: each is to be acked, nacked or rejected.
#[derive(Clone, Copy, Debug)]
pub enum Explicit {}

/// Receives plain payloads: each counts as done when it is received.
#[derive(Clone, Copy, Debug)]
pub enum Auto {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Explicit {}
    impl Sealed for super::Auto {}
}

impl Mode for Explicit {
    type Item<T: Send + 'static> = Delivery<T>;
    const EXPLICIT: bool = true;

    #[allow(private_interfaces)]
    #[inline(always)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, credit: Option<Credit<T>>) -> Delivery<T> {
        let credit = credit.expect("an explicit seat takes credit before it takes a message");
        Delivery::new(Held::fresh(taken), credit)
    }

    #[allow(private_interfaces)]
    #[inline]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<Delivery<T>>) -> Option<usize> {
        seat.pop_deliveries(max, out)
    }

    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(mut held: Held<T>, credit: Option<Credit<T>>) -> Delivery<T> {
        let credit = credit.expect("an explicit seat takes credit before it takes a message");
        credit.account().grant(&mut held);
        Delivery {
            open: Some(Open { held, credit }),
        }
    }
}

impl Mode for Auto {
    type Item<T: Send + 'static> = T;
    const EXPLICIT: bool = false;

    #[allow(private_interfaces)]
    #[inline(always)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, _credit: Option<Credit<T>>) -> T {
        taken.value
    }

    #[allow(private_interfaces)]
    #[inline]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<T>) -> Option<usize> {
        seat.pop_run(max, out).map(|(_, taken)| taken)
    }

    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(held: Held<T>, _credit: Option<Credit<T>>) -> T {
        held.value
    }
}

/// One hand-over of one message. It is owned, and owning it is the lease: each verdict consumes it, so there is exactly one.
///
/// Dropping it without a verdict (an early `?`, a panic, a cancelled future) is a nack, unless the subscription is draining or closing:
/// then the message simply goes back. Leaking it (`mem::forget`) keeps the message in flight for ever, unless there is an ack timeout.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # use ringmq::{Backoff, SubscribeOptions};
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none()))?;
/// topic.publish(7)?;
/// let delivery = sub.recv()?;
/// assert_eq!((*delivery, delivery.attempt()), (7, 1));
/// delivery.nack()?;
///
/// let again = sub.recv()?;
/// assert_eq!((again.attempt(), again.failures()), (2, 1));
/// again.ack()
/// # }
/// ```
#[must_use = "dropping a delivery without a verdict is a nack"]
pub struct Delivery<T: Send + 'static> {
    /// `None` once there was a verdict.
    open: Option<Open<T>>,
}

struct Open<T> {
    held: Held<T>,
    credit: Credit<T>,
}

impl<T: Send + 'static> Open<T> {
    /// Ends the ack timeout, if there is one; `false` if it had run out.
    #[inline(always)]
    fn end_lease(&self) -> bool {
        match &self.held.history {
            None => true,
            Some(history) => history.lease.is_none_or(|lease| self.credit.account().end_lease(lease)),
        }
    }
}

impl<T: Send + 'static> Delivery<T> {
    #[inline(always)]
    pub(crate) fn new(held: Held<T>, credit: Credit<T>) -> Self {
        Self {
            open: Some(Open { held, credit }),
        }
    }

    fn open(&self) -> &Open<T> {
        self.open.as_ref().expect("a delivery is open until its verdict consumes it")
    }

    fn end(mut self) -> Open<T> {
        self.open.take().expect("a delivery is open until its verdict consumes it")
    }

    /// Done: the subscription will not see the message again.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if an ack timeout ran out before: the message is or will be delivered again.
    #[inline]
    pub fn ack(self) -> Result<()> {
        self.into_inner().map(drop)
    }

    /// Acks, and gives the payload out.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack); the payload is dropped then.
    #[inline]
    pub fn into_inner(self) -> Result<T> {
        let open = self.end();
        let in_time = open.end_lease();
        let Open { held, credit } = open;
        pay_back(credit);
        if in_time { Ok(held.value) } else { Err(Error::LeaseLost) }
    }

    /// Failed: it is delivered again after the subscription's back-off, or goes to the dead letters if it failed too often.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack(self) -> Result<()> {
        self.fail(Failure::default())
    }

    /// Failed: it is delivered again after `wait`. Counts as one failure.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack_after(self, wait: Duration) -> Result<()> {
        self.fail(Failure {
            wait: Some(wait),
            ..Failure::default()
        })
    }

    /// To the dead letters at once, for this reason.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn reject(self, reason: impl ToString) -> Result<()> {
        self.fail(Failure {
            dead: Some(DeadReason::Rejected(cut(reason.to_string()))),
            ..Failure::default()
        })
    }

    /// Gives the verdict that a handler returned.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn settle(self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Ack => self.ack(),
            Outcome::Nack => self.nack(),
            Outcome::NackAfter(wait) => self.nack_after(wait),
            Outcome::Failed(error) => self.fail(Failure {
                error: Some(cut(error)),
                ..Failure::default()
            }),
            Outcome::Reject(reason) => self.reject(reason),
        }
    }

    fn fail(self, failure: Failure) -> Result<()> {
        let open = self.end();
        let in_time = open.end_lease();
        let Open { held, credit } = open;
        if !in_time {
            pay_back(credit);
            return Err(Error::LeaseLost);
        }
        let state = credit.account().clone();
        // First the message, then the credit: it is never neither in flight nor waiting.
        state.failed(held, failure);
        pay_back(credit);
        Ok(())
    }

    /// Puts the message back as if it had not been delivered: no failure is counted.
    pub(crate) fn put_back(self) {
        let open = self.end();
        let in_time = open.end_lease();
        let Open { mut held, credit } = open;
        if in_time {
            let state = credit.account().clone();
            held.history().lease = None;
            state.change(|beside| beside.ready.push_front(held));
        }
        pay_back(credit);
    }

    /// Asks for more time: the ack timeout starts anew. Without an ack timeout there is nothing to extend.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if it has run out already.
    pub fn extend(&self) -> Result<()> {
        let open = self.open();
        match open.held.history.as_ref().and_then(|history| history.lease) {
            Some(lease) if !open.credit.account().extend_lease(lease) => Err(Error::LeaseLost),
            _ => Ok(()),
        }
    }

    /// The message's place in its topic.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset::new(self.open().held.offset)
    }

    /// How often the message was delivered, this time included. Deliveries that a drain or close took back count too; only
    /// [`failures`](Self::failures) lead to the dead letters.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.open().held.attempts()
    }

    /// How often the message has failed before.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.open().held.failures()
    }

    /// The message's key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.open().held.meta.as_ref()?.key.as_deref()
    }

    /// The message's headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        self.open().held.meta.as_ref().map_or(Headers::EMPTY, |meta| &meta.headers)
    }

    /// When it was published, if the topic notes that.
    #[must_use]
    pub fn published(&self) -> Option<Timestamp> {
        self.open().held.meta.as_ref()?.published
    }
}

#[inline(always)]
fn pay_back<T>(credit: Credit<T>) {
    if let Some(state) = credit.pay_back() {
        state.credit_returned();
    }
}

impl<T: Send + 'static> Deref for Delivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.open().held.value
    }
}

impl<T: Send + 'static> Drop for Delivery<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            drop_open(open);
        }
    }
}

#[cold]
fn drop_open<T: Send + 'static>(open: Open<T>) {
    let delivery = Delivery { open: Some(open) };
    if delivery.open().credit.account().is_ending() {
        delivery.put_back();
    } else {
        // A lease that ran out needs nothing: the message is on its way already.
        let _ = delivery.nack();
    }
}

impl<T: Send + fmt::Debug + 'static> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("payload", &**self)
            .field("offset", &self.offset())
            .field("attempt", &self.attempt())
            .finish()
    }
}
