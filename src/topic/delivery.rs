//! A delivery: one hand-over of one message, owned until a verdict.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::time::Duration;

use crate::delivery::dead_letter::DeadReason;
use crate::delivery::outcome::{Outcome, cut};
use crate::error::{Error, Result};
use crate::message::Headers;
use crate::offset::Offset;
use crate::sync::Arc;
use crate::time::Timestamp;
use crate::topic::seat::{Credit, Credits};
use crate::topic::settle::Failure;
use crate::topic::shared::Taken;
use crate::topic::state::{Held, SubscriptionState};
use crate::user_code::contained;

/// One hand-over of one message. It is owned, and owning it is the lease: each verdict consumes it, so there is exactly one.
///
/// Dropping it without a verdict (an early `?`, a panic, a cancelled future) is a nack, unless the subscription's handlers are being drained or
/// its broker is closing: then the message simply goes back. Leaking it (`mem::forget`) keeps the message in flight for ever, unless there is an ack timeout.
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
    out: Option<Out<T>>,
}

/// A message that is out, and the credit that it takes.
struct Out<T> {
    credit: Credit<T>,
    held: Held<T>,
}

impl<T: Send + 'static> Out<T> {
    fn account(&self) -> &Arc<SubscriptionState<T>> {
        self.credit.account()
    }

    /// Ends the ack timeout, if there is one; `false` if it had run out.
    #[inline(always)]
    fn end_lease(&self) -> bool {
        match &self.held.history {
            None => true,
            Some(history) => history.lease.is_none_or(|lease| self.account().end_lease(lease)),
        }
    }

    /// Acks, and gives the message out.
    #[inline(always)]
    fn into_held(self) -> Result<Held<T>> {
        let in_time = self.end_lease();
        end_credit(self.credit, in_time);
        if in_time { Ok(self.held) } else { Err(Error::LeaseLost) }
    }
}

#[cold]
fn ack_slowly<T: Send + 'static>(out: Out<T>) -> Result<()> {
    out.into_held().map(drop)
}

/// Gives a credit back. If the lease had run out, that was done then.
#[inline(always)]
fn end_credit<T: Send + 'static>(credit: Credit<T>, in_time: bool) {
    if in_time {
        drop(credit);
    } else {
        credit.write_off();
    }
}

const UNSETTLED: &str = "a delivery has its message until its verdict consumes it";

impl<T: Send + 'static> Delivery<T> {
    #[inline(always)]
    pub(crate) fn new(held: Held<T>, credit: Credit<T>) -> Self {
        Self {
            out: Some(Out { credit, held }),
        }
    }

    /// A plain message, delivered for the first time.
    #[inline(always)]
    pub(crate) fn plain(offset: u64, value: T, credit: Credit<T>) -> Self {
        Self::new(Held::fresh(Taken { offset, value, meta: None }), credit)
    }

    #[inline(always)]
    fn out(&self) -> &Out<T> {
        self.out.as_ref().expect(UNSETTLED)
    }

    /// Takes the message and its credit out for a verdict: from here on, dropping the delivery says nothing more.
    #[inline(always)]
    fn conclude(self) -> Out<T> {
        // What is left has nothing to drop; the compiler, told so, need not keep it in memory.
        ManuallyDrop::new(self).out.take().expect(UNSETTLED)
    }

    /// What a delivery is made of.
    pub(crate) fn into_parts(self) -> (Credit<T>, Held<T>) {
        let Out { credit, held } = self.conclude();
        (credit, held)
    }

    /// Done: the subscription will not see the message again.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if an ack timeout ran out before: the message is or will be delivered again.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// sub.recv()?.ack()?;
    /// assert_eq!(sub.stats().lag, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[inline(always)]
    pub fn ack(self) -> Result<()> {
        let out = self.conclude();
        if out.held.history.is_some() {
            return ack_slowly(out);
        }
        // Part by part, and none by a call that may unwind while others are alive: so the delivery never has to be in memory.
        let Out { credit, held } = out;
        drop(held);
        drop(credit);
        Ok(())
    }

    /// Acks all of these; credits of one lender are returned together.
    pub(crate) fn ack_all(deliveries: impl Iterator<Item = Self>) -> Result<()> {
        let mut in_time = true;
        let mut credits: Option<Credits<T>> = None;
        deliveries.for_each(|delivery| {
            let out = delivery.conclude();
            if out.held.history.is_some() {
                in_time &= ack_slowly(out).is_ok();
                return;
            }
            // Part by part, as in `ack`.
            let Out { credit, held } = out;
            let other = match &mut credits {
                Some(credits) => credits.add(credit).err(),
                None => Some(credit),
            };
            if let Some(credit) = other {
                credits = Some(Credits::from(credit));
            }
            drop(held);
        });
        drop(credits);
        if in_time { Ok(()) } else { Err(Error::LeaseLost) }
    }

    /// Acks, and gives the payload out.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack); the payload is dropped then.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<String>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish("seven".to_owned())?;
    /// let word: String = sub.recv()?.into_inner()?;
    /// assert_eq!(word, "seven");
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn into_inner(self) -> Result<T> {
        self.conclude().into_held().map(|held| held.value)
    }

    /// Failed: it is delivered again after the subscription's back-off, or goes to the dead letters if it failed too often.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let options = ringmq::SubscribeOptions::new("s").backoff(ringmq::Backoff::none());
    /// # let sub = topic.subscribe_with(options)?;
    /// topic.publish(7)?;
    /// sub.recv()?.nack()?;
    /// assert_eq!(sub.recv()?.attempt(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn nack(self) -> Result<()> {
        self.fail(Failure::default())
    }

    /// Failed: it is delivered again after `wait`. Counts as one failure.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// sub.recv()?.nack_after(Duration::from_secs(60))?;
    /// assert_eq!(sub.stats().parked, 1);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// sub.recv()?.reject("seven is not wanted")?;
    /// assert_eq!(sub.dead_letters().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::Outcome;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// topic.publish(7)?;
    /// let delivery = sub.recv()?;
    /// let outcome = if *delivery < 10 { Outcome::Ack } else { Outcome::reject("too large") };
    /// delivery.settle(outcome)?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Settles as a handler said. A verdict that came too late needs nothing: the message is on its way again. Nor does a payload that panics when it
    /// is dropped.
    pub(crate) fn settle_as_handled(self, outcome: Outcome) {
        contained(|| {
            let _ = self.settle(outcome);
        });
    }

    fn fail(self, failure: Failure) -> Result<()> {
        let out = self.conclude();
        let in_time = out.end_lease();
        let state = out.account().clone();
        let Out { credit, held } = out;
        // First the message, then the credit: it is never neither in flight nor waiting.
        if in_time {
            state.failed(held, failure);
        }
        end_credit(credit, in_time);
        if in_time { Ok(()) } else { Err(Error::LeaseLost) }
    }

    /// Puts the message back as if it had not been delivered: no failure is counted.
    pub(crate) fn put_back(self) {
        let out = self.conclude();
        let in_time = out.end_lease();
        let state = out.account().clone();
        let Out { credit, mut held } = out;
        let mut unwanted = None;
        if in_time {
            let history = held.history();
            history.lease = None;
            // It was not to be delivered any more. The next time counts in its place.
            history.attempts = history.attempts.saturating_sub(1);
            unwanted = state.change(|beside| {
                if beside.ended {
                    return Some(held);
                }
                beside.ready.push_front(held);
                None
            });
        }
        end_credit(credit, in_time);
        drop(unwanted);
    }

    /// Asks for more time: the ack timeout starts anew. Without an ack timeout there is nothing to extend.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] if it has run out already.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let options = ringmq::SubscribeOptions::new("s").ack_timeout(std::time::Duration::from_secs(30));
    /// # let sub = topic.subscribe_with(options)?;
    /// topic.publish(7)?;
    /// let delivery = sub.recv()?;
    /// for _step in 0..3 {
    ///     delivery.extend()?; // still at it
    /// }
    /// delivery.ack()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn extend(&self) -> Result<()> {
        let out = self.out();
        match out.held.history.as_ref().and_then(|history| history.lease) {
            Some(lease) if !out.account().extend_lease(lease) => Err(Error::LeaseLost),
            _ => Ok(()),
        }
    }

    /// The message's place in its topic.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset::new(self.out().held.offset)
    }

    /// How often the message was delivered, this time included. Deliveries that a drain took back do not count; only
    /// [`failures`](Self::failures) lead to the dead letters.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.out().held.history.as_ref().map_or(1, |history| history.attempts)
    }

    /// How often the message has failed before.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.out().held.failures()
    }

    /// The message's key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.out().held.meta.as_ref()?.key.as_deref()
    }

    /// The message's headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        self.out().held.meta.as_ref().map_or(Headers::EMPTY, |meta| &meta.headers)
    }

    /// When it was published, if the topic notes that.
    #[must_use]
    pub fn published(&self) -> Option<Timestamp> {
        self.out().held.meta.as_ref()?.published
    }
}

impl<T: Send + 'static> Deref for Delivery<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.out().held.value
    }
}

impl<T: Send + 'static> Drop for Delivery<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            drop_without_verdict(out);
        }
    }
}

#[cold]
fn drop_without_verdict<T: Send + 'static>(out: Out<T>) {
    let is_ending = out.account().is_ending();
    let delivery = Delivery { out: Some(out) };
    if is_ending {
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
