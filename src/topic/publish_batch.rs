//! A batch that is published as a future.

use std::fmt;
use std::future::Future;
use std::iter::Fuse;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::message::MetaRef;
use crate::topic::core::TopicCore;
use crate::topic::handle::complete_meta;
use crate::topic::publish::{Lane, PublishError, PublishFailure};
use crate::topic::publish_future::{Entering, LaneRef};
use crate::topic::shared::Claim;

/// How many values of a batch are taken in hand at a time: enough to make the claim cheap, few enough to stay in the cache.
pub(crate) const HAND: usize = 256;

/// How many claims a poll fills before it lets other tasks run.
const CLAIMS: usize = 16;

/// A batch on its way into a topic: see [`Topic::publish_batch_async`](crate::Topic::publish_batch_async).
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
/// # let topic = broker.topic_with::<u32>("small", ringmq::TopicOptions::new().capacity(2))?;
/// # let sub = topic.subscribe("s")?;
/// let mut batch = topic.publish_batch_async(1..=5);
/// let mut context = Context::from_waker(Waker::noop());
/// assert!(pin!(&mut batch).poll(&mut context).is_pending());
/// assert_eq!((batch.published(), batch.take()), (2, vec![3, 4, 5]));
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct PublishBatch<'a, T: Send + 'static, I> {
    core: &'a TopicCore<T>,
    lane: LaneRef<'a>,
    /// `None` once the future was ready. Not asked again once it has said that there is no more.
    values: Option<Fuse<I>>,
    /// Taken from the iterator and not published yet, in order.
    hand: Vec<T>,
    /// What goes with the one value in hand, on topics whose messages carry the time.
    meta: MetaRef,
    published: u64,
    entering: Entering,
}

// Nothing in here is pinned, whatever `T` and `I` are.
impl<T: Send + 'static, I> Unpin for PublishBatch<'_, T, I> {}

impl<'a, T: Send + 'static, I: Iterator<Item = T>> PublishBatch<'a, T, I> {
    pub(crate) fn new(core: &'a TopicCore<T>, lane: LaneRef<'a>, values: I) -> Self {
        Self {
            core,
            lane,
            values: Some(values.fuse()),
            hand: Vec::new(),
            meta: None,
            published: 0,
            entering: Entering::default(),
        }
    }

    /// Gives up: hands back what has not entered, in order, with all that the iterator still had. The future must not be polled afterwards.
    pub fn take(&mut self) -> Vec<T> {
        self.entering.cancel(self.core);
        let mut rest = std::mem::take(&mut self.hand);
        rest.extend(self.values.take().into_iter().flatten());
        rest
    }

    /// Takes the next values in hand; `false` if there are none. The iterator is code of the user: it runs before the claim.
    fn take_in_hand(&mut self) -> bool {
        let values = self.values.as_mut();
        let values = values.expect("a publish future was polled after it was ready, or after take()");
        let carries_time = self.core.shared.timestamps;
        if self.hand.is_empty() {
            self.hand.extend(values.take(if carries_time { 1 } else { HAND }));
        }
        if carries_time && self.meta.is_none() && !self.hand.is_empty() {
            self.meta = Some(complete_meta(self.core, None));
        }
        !self.hand.is_empty()
    }

    /// Publishes some of what is in hand.
    fn poll_hand(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PublishFailure>> {
        let Self {
            core,
            lane,
            hand,
            meta,
            published,
            entering,
            ..
        } = self;
        core.renew_time(meta);
        let len = hand.len();
        let complete = |claim: Claim<'_, T>| {
            let n = claim.len();
            match meta.take() {
                // The time was taken for the only value in hand.
                Some(meta) => drop(hand.pop().map(|value| core.complete(claim, value, Some(meta)))),
                None => core.complete_run(claim, hand.drain(..n)),
            }
            n as u64
        };
        let poll = |lane: &mut Lane| entering.poll_run(core, lane, len, complete, context);
        let entered = match lane {
            LaneRef::Own(lane) => poll(lane),
            LaneRef::Shared => core.with_lane(poll),
        };
        entered.map_ok(|n| *published += n)
    }
}

impl<T: Send + 'static, I> PublishBatch<'_, T, I> {
    /// How many messages have entered so far.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published
    }
}

impl<T: Send + 'static, I: Iterator<Item = T>> Future for PublishBatch<'_, T, I> {
    type Output = Result<u64, PublishError<Vec<T>>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        for _ in 0..CLAIMS {
            if !this.take_in_hand() {
                this.values = None;
                return Poll::Ready(Ok(this.published));
            }
            if let Err(failure) = ready!(this.poll_hand(context)) {
                return Poll::Ready(Err(failure.with(this.take())));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T: Send + 'static, I> Drop for PublishBatch<'_, T, I> {
    fn drop(&mut self) {
        self.entering.cancel(self.core);
    }
}

impl<T: Send + 'static, I> fmt::Debug for PublishBatch<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishBatch")
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}
