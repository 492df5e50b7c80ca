//! A subscription's state: its place in the ring, and beside the ring what was delivered before or lost.
//!
//! The hot path looks at one word, `attention`: 0 means that there is nothing beside the ring, and the lock is not touched. Whatever
//! changes the state beside the ring does so under the lock, raises `attention` by a read-modify-write, and then wakes sleepers; a
//! sleeper registers, then reads `attention` by a read-modify-write (see `wait`).
//!
//! # Every atomic and its ordering
//!
//! What stands beside the ring is read and written under its lock, which orders it. So the atomics carry little, and of most halves no model shows
//! that they are needed (`tests/weaken_orderings.sh`):
//!
//! | variable | orderings and why | shown by models |
//! |---|---|---|
//! | `attention` | swap and re-check AcqRel: of a change and a sleeper, one sees the other. Loads on the hot path Relaxed: a look that comes too early is made up for by the re-check. Acquire in `holds_back` and `nothing`: the lock is taken next only if it is not 0 | Release of the swap, Acquire of the re-check. The other halves are there because either side may come first |
//! | `changes` | odd while `attention` is being changed, or what a publisher drops is on its way from the ring to the losses. Raised AcqRel, read Acquire before and after, so that both looks between the two belong to one moment | none: a third thread would have to take a message, give it back and take it again between two loads of the first |
//! | `handles` | dropped AcqRel: the last one to go acts after all that the others did. A waiting publisher adds 0, AcqRel: it sees that the last one went, or that one sees it in the list of sleepers | none: both go through the lock of the list, and through that of the subscriptions |

use std::collections::VecDeque;

use crate::delivery::dead_letter::{DeadLetter, Letters};
use crate::delivery::lag::{LagLog, Lagged};
use crate::delivery::lease::{LeaseId, Leases};
use crate::delivery::parked::Parked;
use crate::delivery::retry::Random;
use crate::events::Event as Happened;
use crate::message::{Meta, MetaRef};
use crate::ring::{Account, CreditPool, Cursor, Nothing, Queue};
use crate::sync::{Arc, AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering::*, Weak, plain};
use crate::time::Timestamp;
use crate::topic::conflation::SideStoreOf;
use crate::topic::rules::{Overflow, Rules};
use crate::topic::shared::{Fresh, Ring, Shared, Taken};
use crate::user_code::{attempted, drop_contained, drop_each};
use crate::wait::{Event, Sleepers};

/// A message between its hand-overs.
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) meta: MetaRef,
    pub(crate) offset: u64,
    /// Null for a message that is delivered for the first time, without a time limit: the usual case.
    pub(crate) history: Option<Box<History>>,
}

/// What happened to a message so far.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// How often it was delivered.
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
    pub(crate) first_failed: Timestamp,
    pub(crate) last_failed: Timestamp,
    pub(crate) error: Option<String>,
    /// The time limit of the delivery that is out now.
    pub(crate) lease: Option<LeaseId>,
}

impl Default for History {
    fn default() -> Self {
        let never = Timestamp::default();
        Self {
            attempts: 1,
            failures: 0,
            first_failed: never,
            last_failed: never,
            error: None,
            lease: None,
        }
    }
}

impl<T> Held<T> {
    /// A message that has not been delivered before.
    #[inline(always)]
    pub(crate) fn fresh(taken: Taken<T>) -> Self {
        let Taken { offset, value, meta } = taken;
        Self {
            value,
            meta,
            offset,
            history: None,
        }
    }

    /// How often it failed.
    pub(crate) fn failures(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.failures)
    }

    /// The history, to write to it.
    pub(crate) fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }
}

/// A dead letter as it is stored: what users see, and what a redrive needs beside.
pub(crate) struct StoredLetter<T> {
    pub(crate) letter: DeadLetter<T>,
    pub(crate) meta: MetaRef,
}

/// One subscription's place in the ring.
pub(crate) enum Place<T> {
    /// A queue's only subscription: the queue knows the place.
    Queue,
    Cursor(Arc<Cursor<T, Arc<crate::message::Meta>>>),
}

/// Where dead letters go once somebody has subscribed to their topic.
pub(crate) trait Forward<T>: Send + Sync {
    /// Publishes the letter; it comes back if there is no subscription or no room.
    fn forward(&self, letter: StoredLetter<T>) -> Option<StoredLetter<T>>;
}

pub(crate) struct SubscriptionState<T> {
    /// Whether something stands beside the ring that receivers must look at. Written under the lock.
    pub(crate) attention: CachePadded<AtomicU64>,
    /// Odd while what stands beside the ring is changed, or a message goes there from the ring, and another even number afterwards. Written under the
    /// lock; AcqRel, so that a reader that finds the same even number before and after knows that `attention` was the same in between.
    pub(crate) changes: AtomicU64,
    /// Receivers that wait for a message.
    pub(crate) event: Event,
    /// Receivers that wait for credit: apart from the others, because a new message is of no use to them.
    pub(crate) credit_event: Event,
    pub(crate) place: Place<T>,
    pub(crate) rules: Rules<T>,
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) credit: CreditPool<Arc<Self>>,
    pub(crate) name: Arc<str>,
    /// Unlike that of any other subscription in this process, whatever its broker.
    pub(crate) id: u64,
    /// How many handles there are. AcqRel: the last one to go acts for all.
    pub(crate) handles: AtomicUsize,
    pub(crate) side_store: Option<Arc<SideStoreOf<T>>>,
    pub(crate) beside: Mutex<Beside<T>>,
    pub(crate) counters: Counters,
    me: Weak<Self>,
}

/// What stands beside the ring.
pub(crate) struct Beside<T> {
    /// To be delivered again now.
    pub(crate) ready: VecDeque<Held<T>>,
    /// To be delivered again later.
    pub(crate) parked: Parked<Held<T>>,
    /// Dead, but the store is full.
    pub(crate) undeliverable: VecDeque<StoredLetter<T>>,
    /// What failed was delivered last, so something fresh comes next: they take turns, whoever receives.
    pub(crate) fresh_first: bool,
    pub(crate) lag: LagLog,
    pub(crate) paused: bool,
    /// Unsubscribed, or the broker is closed.
    pub(crate) ended: bool,
    /// Nothing is parked any more: it is delivered again at once.
    pub(crate) hurries: bool,
    /// Draining or closing: a delivery without a verdict goes back without counting as a failure.
    pub(crate) ending: usize,
    pub(crate) letters: Letters<StoredLetter<T>>,
    pub(crate) forward: Option<Arc<dyn Forward<T>>>,
    pub(crate) leases: Leases<Held<T>>,
    /// When the timer calls next: the earliest of what is parked or out on a lease, or earlier. `MAX`: not at all.
    pub(crate) scheduled: Timestamp,
    pub(crate) random: Random,
    /// Publishers wait on account of this subscription since then.
    pub(crate) blocks_since: Option<Timestamp>,
}

/// Counts for the statistics, all off the hot path. Relaxed: numbers to report.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) failures: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) filtered: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
}

/// The next subscription's number in this process. Relaxed: only distinctness counts.
static NEXT_ID: plain::AtomicUsize = plain::AtomicUsize::new(0);

impl<T> Account for Arc<SubscriptionState<T>> {
    fn pool(&self) -> &CreditPool<Self> {
        &self.credit
    }

    fn returned(&self, credits: u64) {
        self.credit_returned(credits);
    }
}

impl<T> SubscriptionState<T> {
    pub(crate) fn new(
        shared: &Arc<Shared<T>>,
        name: &str,
        place: Place<T>,
        side_store: Option<Arc<SideStoreOf<T>>>,
        rules: Rules<T>,
    ) -> Arc<Self> {
        let seed = shared.environment.next_seed();
        Arc::new_cyclic(|me| Self {
            attention: CachePadded::new(AtomicU64::new(0)),
            changes: AtomicU64::new(0),
            event: Event::new(&shared.sleepers),
            credit_event: Event::new(&Sleepers::default()),
            place,
            credit: CreditPool::new(rules.max_in_flight),
            name: name.into(),
            id: NEXT_ID.fetch_add(1, Relaxed) as u64,
            handles: AtomicUsize::new(0),
            side_store,
            beside: Mutex::new(Beside {
                ready: VecDeque::new(),
                parked: Parked::new(),
                undeliverable: VecDeque::new(),
                fresh_first: false,
                lag: LagLog::default(),
                paused: false,
                ended: false,
                hurries: false,
                ending: 0,
                letters: Letters::new(rules.dead_letters_max),
                forward: None,
                leases: Leases::new(),
                scheduled: Timestamp::MAX,
                random: Random::new(seed),
                blocks_since: None,
            }),
            rules,
            shared: shared.clone(),
            counters: Counters::default(),
            me: me.clone(),
        })
    }

    pub(crate) fn me(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// Whether the filter wants this value. A panic in it counts as yes, so that nothing is lost.
    #[inline(always)]
    pub(crate) fn passes(&self, value: &T) -> bool {
        match &self.rules.filter {
            None => true,
            Some(wanted) => attempted(|| wanted(value)).unwrap_or(true),
        }
    }

    /// Takes the next fresh message.
    #[inline(always)]
    pub(crate) fn take_fresh(&self, line: Option<&crate::ring::Line>) -> Fresh<T> {
        use crate::ring::Take;
        match (&self.shared.ring, &self.place, line) {
            (Ring::Window(window, cloner), Place::Cursor(cursor), Some(line)) => match (cloner.one)(window, self, cursor, line) {
                Take::Got(Some(taken)) => {
                    window.tidy(cursor, taken.offset);
                    Fresh::Got(taken)
                }
                Take::Got(None) => {
                    let position = cursor.position();
                    window.tidy(cursor, position.saturating_sub(1));
                    Fresh::Filtered(1)
                }
                Take::Behind => Fresh::Behind,
                Take::Nothing(nothing) => Fresh::Nothing(nothing),
            },
            (Ring::Queue(queue), _, _) => match self.take_in_order(queue) {
                Ok((offset, value, meta)) if self.passes(&value) => Fresh::Got(Taken { offset, value, meta }),
                Ok((_, value, _)) => {
                    drop_contained(value);
                    Fresh::Filtered(1)
                }
                Err(nothing) => Fresh::Nothing(nothing),
            },
            _ => unreachable!("a window's subscription has a cursor, and its subscribers lines"),
        }
    }

    /// Whether publishers drop the oldest messages of a queue: then whoever takes one does it under the same lock as they.
    pub(crate) fn drops_from_queue(&self) -> bool {
        matches!((&self.shared.ring, self.rules.overflow), (Ring::Queue(_), Overflow::DropOldest))
    }

    /// Takes from the queue, but nothing behind a loss that has not been told: that is told first, when the receiver looks again.
    #[inline(always)]
    fn take_in_order(&self, queue: &Queue<T, Arc<Meta>>) -> Result<(u64, T, MetaRef), Nothing> {
        if !self.drops_from_queue() {
            return queue.take();
        }
        let beside = self.beside.lock();
        if beside.lag.total() > 0 { Err(Nothing::Busy) } else { queue.take() }
    }

    /// Drops the oldest message of the queue if there is no room for position `t` yet, for its subscription to be told. The message is returned, to
    /// be dropped outside of the lock.
    pub(crate) fn drop_oldest(&self, queue: &Queue<T, Arc<Meta>>, t: u64) -> Option<T> {
        let mut beside = self.beside.lock();
        if !self.blocks(t) {
            // Receivers take under this lock, too: one of them, or another publisher, was faster.
            return None;
        }
        // Odd from before it is taken: until the loss is noted, the empty ring is no proof that there is nothing.
        self.changes.fetch_add(1, AcqRel);
        let dropped = queue.take().ok().map(|(offset, value, _)| {
            beside.lag.add(offset, offset + 1);
            value
        });
        self.end_change(&beside);
        drop(beside);
        self.wake_all();
        dropped
    }

    /// Whether there is a fresh message, or the cursor was overtaken.
    #[inline(always)]
    pub(crate) fn has_fresh(&self) -> bool {
        match (&self.shared.ring, &self.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => window.has_next(cursor),
            (Ring::Queue(queue), _) => queue.has_next(),
            _ => unreachable!("a window's subscription has a cursor"),
        }
    }

    /// Whether a receiver would find something, in the ring or beside it.
    pub(crate) fn has_something(&self) -> bool {
        self.has_fresh() || self.attention.load(Relaxed) != 0
    }

    /// For a receiver that has registered: whether something fresh came meanwhile.
    pub(crate) fn recheck_fresh(&self) -> bool {
        match (&self.shared.ring, &self.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => window.recheck_items(cursor),
            (Ring::Queue(queue), _) => queue.recheck_items(),
            _ => unreachable!("a window's subscription has a cursor"),
        }
    }

    /// Whether publishers wait for this subscription when it is full.
    pub(crate) fn gates(&self) -> bool {
        matches!(self.rules.overflow, crate::topic::Overflow::Block | crate::topic::Overflow::Fail)
    }

    /// How many messages the cursor was moved past that its subscription has not been told of.
    pub(crate) fn overtaken(&self) -> u64 {
        match &self.place {
            Place::Cursor(cursor) => cursor.overtaken().map_or(0, |range| range.to - range.from),
            Place::Queue => 0,
        }
    }

    /// The offset of the next fresh message.
    pub(crate) fn position(&self) -> u64 {
        match &self.place {
            Place::Cursor(cursor) => cursor.position(),
            Place::Queue => self.shared.ring.start(),
        }
    }

    /// Notes that this range is lost to the subscription; it is told before the next message.
    pub(crate) fn lost(&self, from: u64, to: u64) {
        self.change(|beside| beside.lag.add(from, to));
    }

    /// Counts a loss that is being told right now.
    pub(crate) fn count_lost(&self, lagged: Lagged) -> Lagged {
        self.counters.lost.fetch_add(lagged.lost, Relaxed);
        self.shared.environment.feed.tell(|| Happened::Lagged {
            topic: self.shared.name.to_string(),
            subscription: self.name.to_string(),
            lagged,
        });
        lagged
    }

    /// Changes what stands beside the ring, and wakes whoever waits for that.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Beside<T>) -> R) -> R {
        let result = {
            let mut beside = self.beside.lock();
            let result = change(&mut beside);
            self.raise_attention(&beside);
            result
        };
        self.wake_all();
        result
    }

    /// Wakes every receiver, whatever it waits for.
    pub(crate) fn wake_all(&self) {
        for event in [&self.event, &self.credit_event] {
            if event.has_sleepers() {
                event.notify_all();
            }
        }
    }

    /// A receiver leaves with news instead of a message: if there is credit, the next one may have it.
    pub(crate) fn pass_credit_on(&self) {
        if self.credit_event.has_sleepers() {
            self.credit_event.notify();
        }
    }

    /// Publishes whether there is something beside the ring. A read-modify-write, also when nothing changes: sleepers rely on it.
    pub(crate) fn raise_attention(&self, beside: &Beside<T>) {
        self.changes.fetch_add(1, AcqRel);
        self.end_change(beside);
    }

    /// The same, once `changes` is odd.
    fn end_change(&self, beside: &Beside<T>) {
        self.attention.swap(u64::from(beside.wants_attention(&self.rules)), AcqRel);
        self.changes.fetch_add(1, AcqRel);
    }

    /// Whether a receiver has something to do beside the ring, for one that is about to sleep and has registered.
    pub(crate) fn recheck_beside(&self, credit: bool) -> bool {
        self.attention.fetch_add(0, AcqRel) != 0 && {
            let beside = self.beside.lock();
            beside.ended || !beside.lag.is_empty() || (credit && !beside.paused && !beside.ready.is_empty())
        }
    }

    /// How many dead letters have found no room.
    pub(crate) fn undeliverable(&self) -> u64 {
        self.beside.lock().undeliverable.len() as u64
    }

    /// Whether no delivery is out that may come back, and nothing is parked.
    pub(crate) fn is_settled(&self) -> bool {
        self.credit.watch() == 0 && self.beside.lock().parked.is_empty()
    }

    /// Whether no fresh message is taken at the moment.
    pub(crate) fn holds_back(&self) -> bool {
        self.attention.load(Acquire) != 0 && {
            let beside = self.beside.lock();
            beside.paused || beside.is_parked_full(&self.rules)
        }
    }

    /// Credits came back that somebody may wait for.
    #[cold]
    pub(crate) fn credit_returned(&self, credits: u64) {
        self.credit.put(credits);
        if self.shared.ring.is_closed() {
            self.wake_all();
        } else if credits > 1 {
            self.credit_event.notify_all();
        } else if self.credit_event.has_sleepers() {
            self.credit_event.notify();
        }
    }

    /// Notes that a handle was made.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Relaxed);
    }
}

impl<T> Beside<T> {
    fn wants_attention(&self, rules: &Rules<T>) -> bool {
        !self.ready.is_empty() || !self.lag.is_empty() || self.paused || self.ended || self.is_parked_full(rules)
    }

    pub(crate) fn parked_count(&self) -> usize {
        self.parked.len() + self.undeliverable.len()
    }

    /// Whether as much as is allowed has been delivered and is to be delivered again, now or later.
    pub(crate) fn is_parked_full(&self, rules: &Rules<T>) -> bool {
        self.parked_count() + self.ready.len() >= rules.max_parked
    }

    /// The topic is closed, or the subscription over: nothing waits any more, what is parked becomes due.
    pub(crate) fn hurry(&mut self) {
        self.hurries = true;
        while let Some(held) = self.parked.pop(Timestamp::MAX) {
            self.ready.push_back(held);
        }
    }

    /// Whether there is something to deliver, or to tell, now or later.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more_now() || !self.parked.is_empty()
    }

    /// Whether there is something to deliver, or to tell, now.
    pub(crate) fn has_more_now(&self) -> bool {
        !self.ready.is_empty() || !self.lag.is_empty()
    }

    /// The subscription is over: returns what nobody will see any more.
    pub(crate) fn end(&mut self) -> (VecDeque<Held<T>>, VecDeque<StoredLetter<T>>) {
        self.ended = true;
        self.hurry();
        (std::mem::take(&mut self.ready), std::mem::take(&mut self.undeliverable))
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        let (ready, undeliverable) = self.end();
        drop_each(ready);
        drop_each(undeliverable);
        drop_each(self.letters.take_all());
        drop_each(std::iter::from_fn(|| self.leases.expire(Timestamp::MAX)));
    }
}
