//! Publishing: entering the ring, waiting for room, and who is to blame when there is none.
//!
//! A publish first *enters*: it claims a position, or fails and gives the value back. In memory it has then settled too.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use crate::delivery::lag::Lagged;
use crate::message::MetaRef;
use crate::ring::Refusal;
use crate::sync::{Arc, Ordering::*};
use crate::topic::core::TopicCore;
use crate::topic::receipt::Receipt;
use crate::topic::rules::Overflow;
use crate::topic::shared::{Claim, Ring};
use crate::topic::state::{Place, SubscriptionState};
use crate::user_code::drop_contained;
use crate::wait::{Event, Patience, Spin, Wake, Wakefulness};

/// Why a publish did not enter; the value comes back in it.
///
/// # Examples
///
/// ```
/// use ringmq::{PublishError, TopicOptions};
///
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// let topic = broker.topic_with::<u32>("small", TopicOptions::new().capacity(1))?;
/// let sub = topic.subscribe("s")?;
/// topic.publish(1)?;
/// let refused = topic.try_publish(2).unwrap_err();
/// assert!(matches!(refused, PublishError::Full(2)));
/// assert_eq!(refused.into_inner(), 2);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub enum PublishError<T> {
    /// A subscription has no room: of `try_publish`, or because a subscription chose `Fail`. [`TopicStats::full`](crate::TopicStats::full) names it.
    Full(T),
    /// The topic is closed.
    Closed(T),
    /// There was no room until the deadline. [`TopicStats::full`](crate::TopicStats::full) names the subscription.
    Timeout(T),
    /// It might wait for ever: the subscription without room is that of the handler which is publishing, on its own call stack. Other handlers of it
    /// may be at work, but if each of them published, none would receive. Use `try_publish`, another topic, or a larger capacity.
    WouldDeadlock(T),
    /// It would wait for ever: the subscription without room has no handle left that could receive. Keep a handle, unsubscribe it, or give
    /// it another overflow rule.
    Abandoned(T, Arc<str>),
}

/// Why a publish did not enter, without the value.
///
/// # Examples
///
/// ```
/// use ringmq::{Error, PublishFailure};
///
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// topic.close();
/// let refused = topic.publish(7).unwrap_err();
/// assert_eq!(refused.failure(), PublishFailure::Closed);
/// // With `?` the value is given up, and the failure stays.
/// assert!(matches!(Error::from(refused), Error::Publish(PublishFailure::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishFailure {
    /// See [`PublishError::Full`].
    Full,
    /// See [`PublishError::Closed`].
    Closed,
    /// See [`PublishError::Timeout`].
    Timeout,
    /// See [`PublishError::WouldDeadlock`].
    WouldDeadlock,
    /// See [`PublishError::Abandoned`].
    Abandoned(Arc<str>),
}

impl<T> PublishError<T> {
    /// The value that was not published.
    pub fn into_inner(self) -> T {
        self.split().1
    }

    /// Why, without the value.
    pub fn failure(&self) -> PublishFailure {
        match self {
            Self::Full(_) => PublishFailure::Full,
            Self::Closed(_) => PublishFailure::Closed,
            Self::Timeout(_) => PublishFailure::Timeout,
            Self::WouldDeadlock(_) => PublishFailure::WouldDeadlock,
            Self::Abandoned(_, name) => PublishFailure::Abandoned(name.clone()),
        }
    }

    pub(crate) fn split(self) -> (PublishFailure, T) {
        match self {
            Self::Full(value) => (PublishFailure::Full, value),
            Self::Closed(value) => (PublishFailure::Closed, value),
            Self::Timeout(value) => (PublishFailure::Timeout, value),
            Self::WouldDeadlock(value) => (PublishFailure::WouldDeadlock, value),
            Self::Abandoned(value, name) => (PublishFailure::Abandoned(name), value),
        }
    }
}

impl PublishFailure {
    pub(crate) fn with<T>(self, value: T) -> PublishError<T> {
        match self {
            Self::Full => PublishError::Full(value),
            Self::Closed => PublishError::Closed(value),
            Self::Timeout => PublishError::Timeout(value),
            Self::WouldDeadlock => PublishError::WouldDeadlock(value),
            Self::Abandoned(name) => PublishError::Abandoned(value, name),
        }
    }
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str(
                "a subscription has no room, and Topic::stats().full names it: receive from it, wait with publish() unless its rule is Fail, or give it another overflow rule",
            ),
            Self::Closed => f.write_str("the topic is closed: it accepts nothing any more"),
            Self::Timeout => {
                f.write_str("a subscription had no room until the deadline: Topic::stats().full names it, and blocked_by while somebody waits")
            }
            Self::WouldDeadlock => f.write_str(
                "a handler publishes to the full topic that it is to empty: use try_publish, another topic, or a larger capacity",
            ),
            Self::Abandoned(name) => write!(
                f,
                "subscription {name:?} has no room and no handle left to receive: keep a handle, unsubscribe it, or choose another overflow rule"
            ),
        }
    }
}

impl std::error::Error for PublishFailure {}

impl<T> fmt::Debug for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure().fmt(f)
    }
}

impl<T> fmt::Display for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure().fmt(f)
    }
}

impl<T> std::error::Error for PublishError<T> {}

impl<T> From<PublishError<T>> for crate::Error {
    fn from(error: PublishError<T>) -> Self {
        Self::Publish(error.failure())
    }
}

/// What a publisher remembers between calls: how far it may write without asking.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) limit: u64,
    /// Of tasks that find no room.
    pub(crate) patience: Patience,
    /// Of threads.
    pub(crate) wakefulness: Wakefulness,
}

/// How often a publisher that ran out of room looks for room for a burst before it takes whatever there is: for some microseconds.
const BURST_LOOKS: u32 = 4;

/// What stands in the way of a full topic's next message.
enum Obstacle {
    /// It clears by itself, soon.
    Clears,
    /// Only receiving helps.
    Receivers,
    Refuse(PublishFailure),
}

thread_local! {
    /// The subscription whose handler runs on this thread.
    static HANDLING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes which subscription's handler runs on this thread, until dropped.
pub(crate) struct Handling(Option<u64>);

impl Handling {
    pub(crate) fn enter(subscription: u64) -> Self {
        Self(HANDLING.replace(Some(subscription)))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.set(self.0);
    }
}

/// By when there must be room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    Now,
    /// `None`: ever.
    By(Option<Instant>),
}

impl Room {
    /// Whether that moment has come.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::By(Some(deadline)) if deadline <= Instant::now())
    }
}

/// What an attempt to enter found, for verbs that wait in their own way.
pub(crate) enum Entry<'c, T> {
    Claimed(Claim<'c, T>),
    Spin,
    Wait,
    Refused(PublishFailure),
}

impl<T: Send + 'static> TopicCore<T> {
    /// The fast path: publishes a plain message if nothing stands in the way.
    #[inline(always)]
    pub(crate) fn push(&self, limit: u64, value: T) -> Result<Receipt, T> {
        let shared = &*self.shared;
        if shared.timestamps {
            return Err(value);
        }
        let offset = match &shared.ring {
            Ring::Queue(queue) => queue.push(value)?,
            Ring::Window(window, _) => window.push(limit, value)?,
        };
        if shared.has_sleepers() {
            self.wake_subscribers();
        }
        Ok(Receipt::new(offset, shared.subscriptions.load(Relaxed)))
    }

    /// Publishes one message, waiting for room until `deadline` (`None`: for ever).
    #[cold]
    pub(crate) fn publish(
        &self,
        lane: &mut Lane,
        value: T,
        mut meta: MetaRef,
        deadline: Option<Instant>,
    ) -> Result<Receipt, PublishError<T>> {
        match self.enter_run_waiting(lane, 1, deadline, || self.renew_time(&mut meta)) {
            Ok(claim) => Ok(self.complete(claim, value, meta)),
            Err(failure) => Err(failure.with(value)),
        }
    }

    /// Publishes one message if there is room now.
    #[cold]
    pub(crate) fn try_publish(&self, lane: &mut Lane, value: T, meta: MetaRef) -> Result<Receipt, PublishError<T>> {
        match self.enter_run_now(lane, 1) {
            Ok(claim) => Ok(self.complete(claim, value, meta)),
            Err(failure) => Err(failure.with(value)),
        }
    }

    /// Fills a claim and wakes whoever sleeps.
    #[inline(always)]
    pub(crate) fn complete(&self, claim: Claim<'_, T>, value: T, meta: MetaRef) -> Receipt {
        let offset = claim.fill(value, meta);
        if self.shared.has_sleepers() {
            self.wake_subscribers();
        }
        Receipt::new(offset, self.shared.subscriptions.load(Relaxed))
    }

    /// Publishes the first values of `values`, as many as the claim is for.
    pub(crate) fn complete_run(&self, claim: Claim<'_, T>, values: std::vec::Drain<'_, T>) {
        claim.fill_run(values);
        if self.shared.has_sleepers() {
            self.wake_subscribers();
        }
    }

    #[cold]
    fn wake_subscribers(&self) {
        for state in self.subscriptions().iter() {
            if state.event.has_sleepers() {
                state.event.notify();
            }
        }
    }

    /// Claims up to `max` positions, the first of them by then.
    pub(crate) fn enter_run(&self, lane: &mut Lane, max: usize, room: Room) -> Result<Claim<'_, T>, PublishFailure> {
        match room {
            Room::Now => self.enter_run_now(lane, max),
            Room::By(deadline) => self.enter_run_waiting(lane, max, deadline, || ()),
        }
    }

    #[cold]
    fn enter_run_now(&self, lane: &mut Lane, max: usize) -> Result<Claim<'_, T>, PublishFailure> {
        let mut spin = Spin::new();
        loop {
            match self.enter(lane, max) {
                Entry::Claimed(claim) => return Ok(claim),
                Entry::Spin => spin.snooze(),
                // Whoever does not wait cannot wait for ever.
                Entry::Wait | Entry::Refused(PublishFailure::WouldDeadlock) => return Err(PublishFailure::Full),
                Entry::Refused(failure) => return Err(failure),
            }
        }
    }

    /// Waits a little for room for a burst: a few looks with growing pauses, since each look costs the receivers a line.
    fn await_burst(&self) {
        for step in 0..BURST_LOOKS {
            if self.shared.ring.has_burst() || !crate::sync::looks_first() {
                return;
            }
            // Several subscriptions have more to do, often more than there are cores.
            if step < 2 && self.shared.subscriptions.load(Relaxed) <= 1 {
                crate::sync::pause(16 << step);
            } else {
                crate::wait::rest();
            }
        }
    }

    /// The same for a task.
    pub(crate) fn await_burst_as_task(&self, lane: &mut Lane) {
        if !self.shared.ring.has_burst() {
            lane.patience.look(|| self.shared.ring.has_burst());
        }
    }

    /// Claims up to `max` positions, waiting for the first of them until `deadline`. What is to be done before each new look runs outside of claims.
    fn enter_run_waiting(
        &self,
        lane: &mut Lane,
        max: usize,
        deadline: Option<Instant>,
        mut has_slept: impl FnMut(),
    ) -> Result<Claim<'_, T>, PublishFailure> {
        self.await_burst();
        let mut spin = lane.wakefulness.spin();
        loop {
            match self.enter(lane, max) {
                Entry::Claimed(claim) => return Ok(claim),
                Entry::Refused(failure) => return Err(failure),
                Entry::Spin => spin.snooze(),
                Entry::Wait => {
                    if spin.spin() {
                        continue;
                    }
                    let slept = self.sleep_for_room(lane, deadline);
                    has_slept();
                    spin = lane.wakefulness.spin();
                    if !slept {
                        return match self.enter(lane, max) {
                            Entry::Claimed(claim) => Ok(claim),
                            Entry::Refused(failure) => Err(failure),
                            Entry::Spin | Entry::Wait => Err(PublishFailure::Timeout),
                        };
                    }
                }
            }
        }
    }

    /// Sleeps until there may be room; `false` if the deadline came first.
    fn sleep_for_room(&self, lane: &mut Lane, deadline: Option<Instant>) -> bool {
        let space = &self.shared.space;
        let is_first = !space.has_sleepers();
        let key = space.listen(Wake::this_thread());
        if self.recheck_room() {
            space.cancel(key);
            lane.wakefulness.lay_down_in_vain();
            crate::sync::pause(1); // it may be in the making by another thread
            return true;
        }
        self.note_blocking(is_first);
        let woken = space.park(key, deadline);
        self.forget_blocking();
        if woken {
            // Whoever was woken for one place passes on what else there is.
            self.wake_next_publisher();
        }
        woken
    }

    /// After room was found: if there is more, the next publisher in line gets a chance too.
    pub(crate) fn wake_next_publisher(&self) {
        if self.shared.space.has_sleepers() && self.recheck_room() {
            self.shared.space.notify();
        }
    }

    /// One attempt to claim up to `max` positions.
    #[inline]
    pub(crate) fn enter(&self, lane: &mut Lane, max: usize) -> Entry<'_, T> {
        match self.shared.ring.claim_run(&mut lane.limit, max, false) {
            Ok(claim) => Entry::Claimed(claim),
            Err(Refusal::Closed) => Entry::Refused(PublishFailure::Closed),
            Err(Refusal::Busy) => Entry::Spin,
            Err(Refusal::Full(t)) => match self.obstacle(t) {
                Obstacle::Clears => Entry::Spin,
                Obstacle::Receivers => Entry::Wait,
                Obstacle::Refuse(failure) => Entry::Refused(failure),
            },
        }
    }

    /// What stands in the way of position `t`.
    #[cold]
    fn obstacle(&self, t: u64) -> Obstacle {
        let subscriptions = self.subscriptions();
        let handling = HANDLING.get();
        let mut obstacle = Obstacle::Clears;
        if let (Ring::Queue(_), None) = (&self.shared.ring, subscriptions.first()) {
            self.drop_oldest(None, t);
            return Obstacle::Clears;
        }
        for state in subscriptions.iter().filter(|state| state.blocks(t)) {
            match state.rules.overflow {
                Overflow::Fail => return Obstacle::Refuse(PublishFailure::Full),
                Overflow::Block if handling == Some(state.id) => return Obstacle::Refuse(PublishFailure::WouldDeadlock),
                Overflow::Block if state.handles.load(Acquire) == 0 => {
                    // Its last handle may have unsubscribed it after the list was read: then it holds nothing up any more. An ephemeral one is
                    // about to be ended by whoever dropped that handle.
                    if state.rules.ephemeral || state.beside.lock().ended {
                        continue;
                    }
                    return Obstacle::Refuse(PublishFailure::Abandoned(state.name.clone()));
                }
                Overflow::Block => obstacle = Obstacle::Receivers,
                Overflow::DropOldest | Overflow::Conflate { .. } => {
                    self.drop_oldest(Some(state), t);
                }
            }
        }
        obstacle
    }

    /// Makes room for position `t` in a queue whose subscription, if any, drops its oldest messages.
    fn drop_oldest(&self, state: Option<&Arc<SubscriptionState<T>>>, t: u64) {
        let Ring::Queue(queue) = &self.shared.ring else { return };
        let dropped = match state {
            Some(state) => state.drop_oldest(queue, t),
            None => queue.take().ok().map(|(_, value, _)| {
                self.shared.unrouted.fetch_add(1, Relaxed);
                value
            }),
        };
        drop_contained(dropped);
    }

    /// For a publisher that has registered: whether there is room after all, or waiting has become pointless.
    pub(crate) fn recheck_room(&self) -> bool {
        match &self.shared.ring {
            Ring::Queue(queue) => queue.recheck_space() || !self.subscriptions().iter().any(|state| state.is_worth_waiting()),
            Ring::Window(window, _) => {
                if window.is_closed() {
                    return true;
                }
                let t = window.end();
                let subscriptions = self.subscriptions();
                let mut blocking = subscriptions
                    .iter()
                    .filter(|state| state.gates() && state.still_blocks(t))
                    .peekable();
                blocking.peek().is_none() || blocking.any(|state| !state.is_worth_waiting())
            }
        }
    }

    /// Notes since when which subscription holds publishers up. Called by one that is about to sleep. If it is the first, what was noted before is from one
    /// that never came back.
    pub(crate) fn note_blocking(&self, is_first: bool) {
        let now = self.shared.environment.now();
        let end = self.shared.ring.end();
        for state in self.subscriptions().iter().filter(|state| state.gates() && state.blocks(end)) {
            let since = &mut state.beside.lock().blocks_since;
            *since = since.filter(|_| !is_first).or(Some(now));
        }
    }

    /// The other way round: called by a publisher that waits no more.
    pub(crate) fn forget_blocking(&self) {
        let end = self.shared.ring.end();
        let others_wait = self.shared.space.has_sleepers();
        let is_over = |state: &&Arc<SubscriptionState<T>>| state.gates() && !(others_wait && state.blocks(end));
        for state in self.subscriptions().iter().filter(is_over) {
            state.beside.lock().blocks_since = None;
        }
    }

    /// Where publishers of this topic wait.
    pub(crate) fn space(&self) -> &Event {
        &self.shared.space
    }
}

impl<T> SubscriptionState<T> {
    /// Whether this subscription stands in the way of position `t`.
    pub(crate) fn blocks(&self, t: u64) -> bool {
        match (&self.shared.ring, &self.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => cursor.gates() && window.blocks(cursor, t),
            (Ring::Queue(queue), _) => queue.start() + queue.capacity() <= t,
            _ => false,
        }
    }

    /// The same, by a read-modify-write: for a publisher that has registered.
    fn still_blocks(&self, t: u64) -> bool {
        match (&self.shared.ring, &self.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => window.recheck_blocked(cursor, t),
            _ => self.blocks(t),
        }
    }

    fn is_worth_waiting(&self) -> bool {
        self.rules.overflow == Overflow::Block && self.handles.fetch_add(0, AcqRel) > 0
    }
}

impl From<Lagged> for crate::Error {
    fn from(lagged: Lagged) -> Self {
        Self::Recv(crate::topic::RecvError::Lagged(lagged))
    }
}
