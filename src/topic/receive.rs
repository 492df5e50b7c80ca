//! Receiving: waiting for the next message, as a thread or as a task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::delivery::lag::Lagged;
use crate::sync::{Arc, AtomicUsize, Ordering::*};
use crate::topic::mode::Mode;
use crate::topic::seat::{Blocked, Seat};
use crate::topic::state::SubscriptionState;
use crate::topic::subscription::Seats;
use crate::wait::{Event, Key, Spin, Wake};

/// Why `recv` gave no message.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let sub = topic.subscribe("s")?;
/// topic.publish(1)?;
/// topic.close();
/// assert_eq!(sub.recv()?.into_inner()?, 1);
/// assert_eq!(sub.recv().unwrap_err(), ringmq::RecvError::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing will come any more: the topic is closed, or no handle is left that could publish to it, and everything is settled; or the subscription
    /// ended.
    Closed,
    /// The subscription lost messages, as its overflow rule says. The next receive goes on behind them.
    Lagged(Lagged),
    /// Nothing came until the deadline (verbs with a timeout or deadline only).
    Timeout,
}

/// Why `try_recv` gave no message.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let sub = topic.subscribe("s")?;
/// assert_eq!(sub.try_recv().unwrap_err(), ringmq::TryRecvError::Empty);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// As [`RecvError::Closed`].
    Closed,
    /// As [`RecvError::Lagged`].
    Lagged(Lagged),
    /// There may be messages, but as many as allowed are in flight: settle some, or allow more with `max_in_flight`.
    InFlightFull,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the subscription is closed: nothing will come any more"),
            Self::Lagged(lagged) => lagged.fmt(f),
            Self::Timeout => {
                f.write_str("no message could be taken until the deadline: none came, or as many are in flight as the subscription allows")
            }
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no message now"),
            Self::Closed => RecvError::Closed.fmt(f),
            Self::Lagged(lagged) => lagged.fmt(f),
            Self::InFlightFull => f.write_str("as many deliveries as allowed are without a verdict: settle some, or raise max_in_flight"),
        }
    }
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the subscription fell behind and lost {} messages with offsets {} to {}",
            self.lost, self.from, self.to
        )
    }
}

impl std::error::Error for RecvError {}
impl std::error::Error for TryRecvError {}
impl std::error::Error for Lagged {}

/// When a wait ends without a message.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    pub(crate) deadline: Option<Instant>,
    /// Set to non-zero by whoever wants the waiting receiver back, who then wakes all.
    pub(crate) stop: Option<&'a AtomicUsize>,
}

impl Until<'_> {
    pub(crate) const FOREVER: Self = Until {
        deadline: None,
        stop: None,
    };

    pub(crate) fn moment(deadline: Instant) -> Self {
        Until {
            deadline: Some(deadline),
            stop: None,
        }
    }

    /// That long from now; for ever, if no clock goes that far.
    pub(crate) fn after(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::FOREVER, Self::moment)
    }

    fn is_past(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Acquire) != 0)
    }
}

impl<T: Send + 'static> Seat<T> {
    #[cold]
    pub(crate) fn recv_slowly<M: Mode>(&mut self) -> Result<M::Item<T>, RecvError> {
        self.recv(Until::FOREVER, Self::next::<M>)
    }

    #[cold]
    pub(crate) fn try_recv_slowly<M: Mode>(&mut self) -> Result<M::Item<T>, TryRecvError> {
        self.try_recv(Self::next::<M>)
    }

    /// One look, waiting only for what comes by itself.
    #[inline]
    pub(crate) fn try_recv<R>(&mut self, mut look: impl FnMut(&mut Self) -> Result<R, Blocked>) -> Result<R, TryRecvError> {
        match look(self) {
            Ok(got) => Ok(got),
            Err(blocked) => self.try_again(blocked, &mut look),
        }
    }

    /// Looks past what the filter does not want of all that is there by now, and no further.
    #[cold]
    fn try_again<R>(&mut self, mut blocked: Blocked, look: &mut dyn FnMut(&mut Self) -> Result<R, Blocked>) -> Result<R, TryRecvError> {
        let mut spin = Spin::new();
        let mut end = None;
        loop {
            match blocked {
                Blocked::Busy => spin.snooze(),
                // At the end, too: it may be closed there.
                Blocked::Unwanted if self.state.position() <= *end.get_or_insert_with(|| self.state.shared.ring.end()) => {}
                Blocked::Unwanted | Blocked::Empty | Blocked::HeldBack | Blocked::Settling => {
                    self.tidy_idle();
                    return Err(TryRecvError::Empty);
                }
                Blocked::InFlightFull => return Err(TryRecvError::InFlightFull),
                Blocked::Closed => return Err(TryRecvError::Closed),
                Blocked::Lagged(lagged) => return Err(TryRecvError::Lagged(lagged)),
            }
            match look(self) {
                Ok(got) => return Ok(got),
                Err(other) => blocked = other,
            }
        }
    }

    /// Looks until there is something, then sleeps.
    #[inline]
    pub(crate) fn recv<R>(&mut self, until: Until<'_>, mut look: impl FnMut(&mut Self) -> Result<R, Blocked>) -> Result<R, RecvError> {
        match look(self) {
            Ok(got) => Ok(got),
            Err(blocked) => self.recv_waiting(until, blocked, &mut look),
        }
    }

    /// The patience of one wait. Beside other subscriptions it yields first: publisher and subscribers are often more than there are cores, and the
    /// publisher waits for all. In batches of 32, fan-outs to 2, 4 and 8 became 1.14, 1.23 and 1.27 times as fast by it, one at a time 1.01 to 1.05 times;
    /// a single subscription with several subscribers lost by it (30 runs of 8 ms in turn; rustc 1.95, two virtual cores of an AMD EPYC, 2026-11-23).
    fn spin(&self) -> Spin {
        if self.state.shared.subscriptions.load(Relaxed) > 1 {
            self.wakefulness.spin_in_a_crowd()
        } else {
            self.wakefulness.spin()
        }
    }

    #[cold]
    fn recv_waiting<R>(
        &mut self,
        until: Until<'_>,
        mut blocked: Blocked,
        look: &mut dyn FnMut(&mut Self) -> Result<R, Blocked>,
    ) -> Result<R, RecvError> {
        let mut spin = self.spin();
        loop {
            match blocked {
                Blocked::Closed => return Err(RecvError::Closed),
                Blocked::Lagged(lagged) => {
                    self.state.pass_credit_on();
                    return Err(RecvError::Lagged(lagged));
                }
                _ if until.is_stopped() => return Err(RecvError::Timeout),
                Blocked::Busy | Blocked::Unwanted if until.is_past() => return self.look_to_the_end(look),
                Blocked::Busy => spin.snooze(),
                Blocked::Unwanted => {}
                Blocked::Empty if self.spin_for_fresh(&mut spin) => {}
                Blocked::Empty | Blocked::InFlightFull | Blocked::HeldBack | Blocked::Settling => {
                    let in_time = self.sleep(blocked, until);
                    spin = self.spin();
                    if !in_time {
                        return self.look_to_the_end(look);
                    }
                }
            }
            match look(self) {
                Ok(got) => return Ok(got),
                Err(other) => blocked = other,
            }
        }
    }

    /// The last look, when the deadline has come: past what the filter does not want of all that is there by now, and no further.
    fn look_to_the_end<R>(&mut self, look: &mut dyn FnMut(&mut Self) -> Result<R, Blocked>) -> Result<R, RecvError> {
        let end = self.state.shared.ring.end();
        let mut before = None;
        loop {
            match look(self) {
                Ok(got) => return Ok(got),
                Err(Blocked::Closed) => return Err(RecvError::Closed),
                Err(Blocked::Lagged(lagged)) => return Err(RecvError::Lagged(lagged)),
                Err(Blocked::Busy | Blocked::Unwanted) => {
                    // At the end, too: it may be closed there.
                    let at = Some(self.state.position()).filter(|at| *at <= end);
                    // Where it goes no further, somebody is still writing, or others take it all.
                    if at.is_none() || at == before {
                        return Err(RecvError::Timeout);
                    }
                    before = at;
                }
                Err(_) => return Err(RecvError::Timeout),
            }
        }
    }

    /// Looks at the next slot's stamp for a while: it is the only line that a publisher touches anyway.
    fn spin_for_fresh(&self, spin: &mut Spin) -> bool {
        while spin.spin() {
            if self.state.has_something() {
                return true;
            }
        }
        false
    }

    /// The same for a task.
    fn look_as_task(&mut self) -> bool {
        self.patience.look(|| self.state.has_something())
    }

    /// Sleeps until there may be something; `false` if the deadline came first.
    fn sleep(&mut self, blocked: Blocked, until: Until<'_>) -> bool {
        self.tidy_idle();
        let state = self.state.clone();
        let event = state.event_for(blocked);
        let key = event.listen(Wake::this_thread());
        state.pass_on(blocked);
        if self.recheck(blocked) || until.is_stopped() {
            event.cancel(key);
            self.wakefulness.lay_down_in_vain();
            crate::sync::pause(1); // it may be in the making by another thread
            return true;
        }
        self.wakefulness.slept();
        event.park(key, until.deadline)
    }
}

/// Where a future's seat comes from.
pub(crate) enum SeatRef<'a, T: Send + 'static> {
    /// A subscription's handle is shared: a seat for each poll.
    Shared(&'a Seats<T>),
    /// A subscriber has its own.
    Own(&'a mut Seat<T>),
}

impl<T: Send + 'static> SeatRef<'_, T> {
    #[inline]
    fn with<R>(&mut self, use_it: impl FnOnce(&mut Seat<T>) -> R) -> R {
        match self {
            Self::Shared(seats) => seats.with(use_it),
            Self::Own(seat) => use_it(seat),
        }
    }

    #[inline]
    fn state(&self) -> &Arc<SubscriptionState<T>> {
        match self {
            Self::Shared(seats) => seats.state(),
            Self::Own(seat) => &seat.state,
        }
    }
}

/// A task's place among the waiters. Kept between polls; cancelled when dropped.
#[derive(Default)]
pub(crate) struct Waiting {
    /// The place, and whether it is among those that wait for credit.
    key: Option<(Key, bool)>,
    /// Whether it outlives the future that polls, as that of a stream does.
    stands: bool,
    /// Whether it was woken since it last took something: what for may be left to others if it goes away.
    was_woken: bool,
}

/// How often a poll looks again for something that comes by itself before it lets other tasks run.
const BUSY_LOOKS: u32 = if cfg!(ringmq_loom) { 2 } else { 32 };

impl Waiting {
    /// The place of a stream.
    pub(crate) fn of_stream() -> Self {
        Self {
            stands: true,
            ..Self::default()
        }
    }

    /// One poll for one message.
    #[cold]
    fn poll_slowly<T: Send + 'static, M: Mode>(
        &mut self,
        seat: &mut SeatRef<'_, T>,
        context: &mut Context<'_>,
    ) -> Poll<Result<M::Item<T>, RecvError>> {
        seat.with(|seat| self.poll(seat, context, Seat::next::<M>))
    }

    /// One poll of a receive.
    pub(crate) fn poll<T: Send + 'static, R>(
        &mut self,
        seat: &mut Seat<T>,
        context: &mut Context<'_>,
        mut look: impl FnMut(&mut Seat<T>) -> Result<R, Blocked>,
    ) -> Poll<Result<R, RecvError>> {
        let mut looks = 0;
        loop {
            let blocked = match look(seat) {
                Ok(got) => {
                    self.finish(&seat.state);
                    return Poll::Ready(Ok(got));
                }
                Err(blocked) => blocked,
            };
            match blocked {
                Blocked::Closed => {
                    self.finish(&seat.state);
                    return Poll::Ready(Err(RecvError::Closed));
                }
                Blocked::Lagged(lagged) => {
                    self.cancel(&seat.state);
                    seat.state.pass_credit_on();
                    return Poll::Ready(Err(RecvError::Lagged(lagged)));
                }
                Blocked::Busy | Blocked::Unwanted if looks < BUSY_LOOKS => crate::sync::spin_loop(),
                Blocked::Busy | Blocked::Unwanted => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Blocked::Empty if self.key.is_none() && seat.look_as_task() => {}
                _ => {
                    if self.is_registered(&seat.state, blocked, context) && !seat.recheck(blocked) {
                        seat.tidy_idle();
                        return Poll::Pending;
                    }
                }
            }
            looks += 1;
            if looks > BUSY_LOOKS {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Registers the task, or renews it; `false` if it had been woken, and must look again.
    fn is_registered<T>(&mut self, state: &SubscriptionState<T>, blocked: Blocked, context: &mut Context<'_>) -> bool {
        let for_credit = blocked == Blocked::InFlightFull;
        if self.key.is_some_and(|(_, before)| before != for_credit) {
            self.cancel(state);
        }
        let event = state.event_for(blocked);
        match self.key {
            Some((key, _)) if event.poll(key, context.waker()) => {
                event.finish(key);
                self.key = None;
                self.was_woken = true;
                false
            }
            Some(_) => true,
            None => {
                self.key = Some((event.listen(Wake::task(context.waker(), self.stands)), for_credit));
                state.pass_on(blocked);
                true
            }
        }
    }

    fn finish<T>(&mut self, state: &SubscriptionState<T>) {
        if let Some((key, for_credit)) = self.key.take() {
            state.event_of(for_credit).finish(key);
        }
        self.was_woken = false;
    }

    /// The task goes away: a wake-up meant for it goes to somebody else.
    #[inline]
    pub(crate) fn cancel<T>(&mut self, state: &SubscriptionState<T>) {
        if let Some((key, for_credit)) = self.key.take() {
            state.event_of(for_credit).cancel(key);
        }
        if self.was_woken {
            self.was_woken = false;
            state.pass_message_on();
            state.pass_credit_on();
        }
    }
}

impl<T> SubscriptionState<T> {
    /// A receiver goes away that has been woken, perhaps for what is there.
    #[cold]
    fn pass_message_on(&self) {
        if self.event.has_sleepers() && self.has_something() {
            self.event.notify();
        }
    }

    /// Where a receiver waits that found this.
    fn event_for(&self, blocked: Blocked) -> &Event {
        self.event_of(blocked == Blocked::InFlightFull)
    }

    /// A receiver that waits for credit may have been woken for a message: one that needs no credit gets its chance.
    fn pass_on(&self, blocked: Blocked) {
        if blocked == Blocked::InFlightFull && self.event.has_sleepers() {
            self.event.notify();
        }
    }

    fn event_of(&self, for_credit: bool) -> &Event {
        if for_credit { &self.credit_event } else { &self.event }
    }
}

/// A receive as a future: see `recv_async`. Dropping it at any point loses no message and no wake-up. Polled again after it was ready, it receives
/// the next message. Leaking it (`mem::forget`) while it waits costs one wake-up, which goes to the leaked task.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// topic.publish(7)?;
/// let mut subscriber = sub.subscriber();
/// let (shared, own) = (sub.recv_async(), subscriber.recv_async());
/// drop(shared); // it had taken nothing
/// own.await?.ack()?;
/// # Ok::<_, ringmq::Error>(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Recv<'a, T: Send + 'static, M: Mode> {
    pub(crate) seat: SeatRef<'a, T>,
    pub(crate) waiting: Waiting,
    pub(crate) mode: std::marker::PhantomData<fn() -> M>,
}

impl<'a, T: Send + 'static, M: Mode> Recv<'a, T, M> {
    pub(crate) fn new(seat: SeatRef<'a, T>) -> Self {
        Self {
            seat,
            waiting: Waiting::default(),
            mode: std::marker::PhantomData,
        }
    }
}

impl<T: Send + 'static, M: Mode> Future for Recv<'_, T, M> {
    type Output = Result<M::Item<T>, RecvError>;

    // Always inlined, or what it returns goes through memory in pieces that do not fit those in which it is read again, which processors wait for.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { seat, waiting, .. } = self.get_mut();
        // The fast path, for a task that does not wait yet.
        if waiting.key.is_none()
            && let SeatRef::Own(seat) = seat
            && let Some(item) = seat.pop::<M>()
        {
            return Poll::Ready(Ok(item));
        }
        waiting.poll_slowly::<T, M>(seat, context)
    }
}

impl<T: Send + 'static, M: Mode> Drop for Recv<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.waiting.cancel(self.seat.state());
    }
}

impl<T: Send + 'static, M: Mode> fmt::Debug for Recv<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recv").finish_non_exhaustive()
    }
}

/// A receive of several messages as a future: see `recv_batch_async`. Dropping it at any point loses no message and no wake-up.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// topic.publish_batch(1..=5)?;
/// let mut deliveries = Vec::new();
/// assert_eq!(sub.recv_batch_async(&mut deliveries, 10).await?, 5);
/// sub.ack_batch(deliveries)?;
/// # Ok::<_, ringmq::Error>(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct RecvBatch<'a, T: Send + 'static, M: Mode> {
    pub(crate) recv: Recv<'a, T, M>,
    pub(crate) out: &'a mut Vec<M::Item<T>>,
    pub(crate) max: usize,
}

impl<T: Send + 'static, M: Mode> Future for RecvBatch<'_, T, M> {
    type Output = Result<usize, RecvError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { recv, out, max } = self.get_mut();
        let Recv { seat, waiting, .. } = recv;
        seat.with(|seat| waiting.poll(seat, context, |seat| seat.try_run::<M>(*max, out)))
    }
}

impl<T: Send + 'static, M: Mode> fmt::Debug for RecvBatch<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch").field("max", &self.max).finish_non_exhaustive()
    }
}
