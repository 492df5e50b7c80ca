//! A publish as a future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::message::MetaRef;
use crate::topic::core::TopicCore;
use crate::topic::publish::{Entry, Lane, PublishError, PublishFailure};
use crate::topic::receipt::Receipt;
use crate::topic::shared::Claim;
use crate::wait::{Key, Wake};

/// Whose memory of the ring a future uses.
pub(crate) enum LaneRef<'a> {
    /// The topic's own.
    Shared,
    Own(&'a mut Lane),
}

/// A task's place among those that wait for room. Kept between polls; cancelled when dropped.
#[derive(Default)]
pub(crate) struct Entering {
    key: Option<Key>,
    /// Whether it has been in line since it last left. What it was woken for may be more than it takes, so whoever leaves passes on what there is.
    has_waited: bool,
    /// Whether it outlives the future that polls, as that of a sink does.
    stands: bool,
}

/// How often a poll looks again for something that clears by itself before it lets other tasks run.
const LOOKS: u32 = if cfg!(ringmq_loom) { 2 } else { 32 };

impl Entering {
    /// The place of a sink.
    pub(crate) fn of_sink() -> Self {
        Self {
            stands: true,
            ..Self::default()
        }
    }

    /// One poll. The value is taken out of `value` when the message enters, or when it comes back in the error.
    #[inline(always)]
    pub(crate) fn poll<T: Send + 'static>(
        &mut self,
        core: &TopicCore<T>,
        lane: &mut Lane,
        value: &mut Option<T>,
        meta: &mut MetaRef,
        context: &mut Context<'_>,
    ) -> Poll<Result<Receipt, PublishError<T>>> {
        // The fast path, for a plain message that does not wait yet.
        if !self.has_waited
            && meta.is_none()
            && let Some(plain) = value.take()
        {
            match core.push(lane.limit, plain) {
                Ok(receipt) => return Poll::Ready(Ok(receipt)),
                Err(plain) => *value = Some(plain),
            }
        }
        self.poll_slowly(core, lane, value, meta, context)
    }

    #[cold]
    fn poll_slowly<T: Send + 'static>(
        &mut self,
        core: &TopicCore<T>,
        lane: &mut Lane,
        value: &mut Option<T>,
        meta: &mut MetaRef,
        context: &mut Context<'_>,
    ) -> Poll<Result<Receipt, PublishError<T>>> {
        if self.has_waited {
            core.renew_time(meta);
        }
        let mut take = || value.take().expect("a publish future is not polled after it was ready");
        match self.poll_run(core, lane, 1, |claim| core.complete(claim, take(), meta.take()), context) {
            Poll::Ready(entered) => Poll::Ready(entered.map_err(|failure| failure.with(take()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// One poll for up to `max` positions; `complete` fills them.
    pub(crate) fn poll_run<T: Send + 'static, R>(
        &mut self,
        core: &TopicCore<T>,
        lane: &mut Lane,
        max: usize,
        complete: impl FnOnce(Claim<'_, T>) -> R,
        context: &mut Context<'_>,
    ) -> Poll<Result<R, PublishFailure>> {
        if self.key.is_none() {
            core.await_burst_as_task(lane);
        }
        for _ in 0..LOOKS {
            match core.enter(lane, max) {
                Entry::Claimed(claim) => {
                    // Nothing between claim and fill: leaving the line drops a waker, which is code of the user.
                    let completed = complete(claim);
                    if self.finish(core) {
                        core.wake_next_publisher();
                    }
                    return Poll::Ready(Ok(completed));
                }
                Entry::Refused(failure) => {
                    self.cancel(core);
                    return Poll::Ready(Err(failure));
                }
                Entry::Spin => crate::sync::spin_loop(),
                Entry::Wait => {
                    let is_first = self.key.is_none() && !core.space().has_sleepers();
                    if self.is_registered(core, context) && !core.recheck_room() {
                        core.note_blocking(is_first);
                        return Poll::Pending;
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Registers the task, or renews it; `false` if it had been woken, and must look again.
    fn is_registered<T: Send + 'static>(&mut self, core: &TopicCore<T>, context: &mut Context<'_>) -> bool {
        match self.key {
            Some(key) if core.space().poll(key, context.waker()) => {
                core.space().finish(key);
                self.key = None;
                false
            }
            Some(_) => true,
            None => {
                self.key = Some(core.space().listen(Wake::task(context.waker(), self.stands)));
                self.has_waited = true;
                true
            }
        }
    }

    /// Leaves the line with a place; whether it had been in line.
    fn finish<T: Send + 'static>(&mut self, core: &TopicCore<T>) -> bool {
        if let Some(key) = self.key.take() {
            core.space().finish(key);
        }
        let has_waited = std::mem::take(&mut self.has_waited);
        if has_waited {
            core.forget_blocking();
        }
        has_waited
    }

    /// The task goes away without a place: a wake-up that it has got, or was to get, goes to somebody else.
    #[inline]
    pub(crate) fn cancel<T: Send + 'static>(&mut self, core: &TopicCore<T>) {
        if self.has_waited {
            self.leave(core);
        }
    }

    #[cold]
    fn leave<T: Send + 'static>(&mut self, core: &TopicCore<T>) {
        self.has_waited = false;
        if let Some(key) = self.key.take() {
            core.space().cancel(key);
        }
        core.forget_blocking();
        core.wake_next_publisher();
    }
}

/// A publish as a future: see [`Topic::publish_async`](crate::Topic::publish_async).
///
/// # Panics
///
/// When it is polled after it was ready, or after [`take`](Self::take).
///
/// # Examples
///
/// ```
/// use std::{future::Future, pin::pin, task::{Context, Waker}};
///
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// # let topic = broker.topic_with::<String>("small", ringmq::TopicOptions::new().capacity(1))?;
/// # let sub = topic.subscribe("s")?;
/// topic.publish("first".into())?;
/// let mut second = topic.publish_async("second".into());
/// let mut context = Context::from_waker(Waker::noop());
/// assert!(pin!(&mut second).poll(&mut context).is_pending());
/// assert_eq!(second.take().as_deref(), Some("second"), "it had not entered");
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct PublishFuture<'a, T: Send + 'static> {
    core: &'a TopicCore<T>,
    lane: LaneRef<'a>,
    value: Option<T>,
    meta: MetaRef,
    entering: Entering,
}

// Nothing in here is pinned, whatever `T` is.
impl<T: Send + 'static> Unpin for PublishFuture<'_, T> {}

impl<'a, T: Send + 'static> PublishFuture<'a, T> {
    pub(crate) fn new(core: &'a TopicCore<T>, lane: LaneRef<'a>, value: T, meta: MetaRef) -> Self {
        Self {
            core,
            lane,
            value: Some(value),
            meta,
            entering: Entering::default(),
        }
    }

    /// Gives up: hands the value back if the message has not entered. The future must not be polled afterwards.
    pub fn take(&mut self) -> Option<T> {
        self.entering.cancel(self.core);
        self.value.take()
    }
}

impl<T: Send + 'static> Future for PublishFuture<'_, T> {
    type Output = Result<Receipt, PublishError<T>>;

    // Always inlined: see `Recv`.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            core,
            lane,
            value,
            meta,
            entering,
        } = self.get_mut();
        assert!(value.is_some(), "a publish future was polled after it was ready, or after take()");
        match lane {
            LaneRef::Own(lane) => entering.poll(core, lane, value, meta, context),
            LaneRef::Shared => core.with_lane(|lane| entering.poll(core, lane, value, meta, context)),
        }
    }
}

impl<T: Send + 'static> Drop for PublishFuture<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.entering.cancel(self.core);
    }
}

impl<T: Send + 'static> fmt::Debug for PublishFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishFuture")
            .field("entered", &self.value.is_none())
            .finish_non_exhaustive()
    }
}
