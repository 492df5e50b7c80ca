//! A seat: what one receiver needs to take messages from a subscription. One thread uses it at a time.
//!
//! # The order of things
//!
//! 1. What the subscription lost is told first, and followed by a message if there is one.
//! 2. Redeliveries and fresh messages alternate, so that neither starves the other.
//! 3. Of fresh messages, those that are kept beside the ring are older than those in the ring, and come first.
//!
//! A receiver that leaves with or without a message while work is left wakes one more, so one wake-up per publish is enough.

use crate::delivery::lag::Lagged;
use crate::delivery::parked::KEPT;
use crate::message::Meta;
use crate::ring::{Cursor, Lender, Line, Loan, Loans, Nothing, Queue, Window};
use crate::sync::{Arc, Ordering::*};
use crate::topic::conflation::Next;
use crate::topic::mode::Mode;
use crate::topic::rules::Overflow;
use crate::topic::shared::{Cloner, Fresh, Ring, Taken};
use crate::topic::state::{Beside, Held, Place, SubscriptionState};
use crate::wait::{Patience, Wakefulness};

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    Empty,
    /// The next message is being written: it comes by itself.
    Busy,
    /// So many were there that the filter does not want that a receiver looks at its deadline, or lets other tasks run; there may be more.
    Unwanted,
    /// Nothing will come any more.
    Closed,
    /// Closed, and deliveries that others still hold may come back, or what is parked will.
    Settling,
    /// As many deliveries as allowed are without a verdict.
    InFlightFull,
    /// Paused, or too much is parked.
    HeldBack,
    /// Not a message: news.
    Lagged(Lagged),
}

/// The credit of one delivery.
pub(crate) type Credit<T> = Loan<Arc<SubscriptionState<T>>>;
/// The credit of several.
pub(crate) type Credits<T> = Loans<Arc<SubscriptionState<T>>>;

type Way<T> = (Arc<Cursor<T, Arc<Meta>>>, Arc<Line>);

pub(crate) struct Seat<T> {
    pub(crate) state: Arc<SubscriptionState<T>>,
    /// In a window: the cursor, and this seat's own line.
    way: Option<Way<T>>,
    /// 1 if there is something to do between the ring and the receiver: a filter, an ack timeout, an order to keep with publishers that drop. Else
    /// 0; a number, to be tested together with another.
    special: u64,
    pub(super) lender: Lender<Arc<SubscriptionState<T>>>,
    /// Whether the last look on own credit found a message.
    found: bool,
    /// Of tasks that find nothing.
    pub(super) patience: Patience,
    /// Of threads.
    pub(super) wakefulness: Wakefulness,
    /// Empty between calls; kept so that runs of deliveries do not allocate.
    pub(super) values: Vec<T>,
}

/// The ring and what a seat needs to take from it.
pub(super) enum Fast<'s, T> {
    Queue(&'s Queue<T, Arc<Meta>>),
    Window(&'s Window<T, Arc<Meta>>, &'s Cloner<T>, &'s Cursor<T, Arc<Meta>>, &'s Line),
}

impl<T> Fast<'_, T> {
    /// Whether a pop is likely to find something.
    #[inline(always)]
    fn looks_plain(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.looks_plain(),
            Self::Window(window, _, cursor, _) => window.looks_plain(cursor),
        }
    }
}

/// How many messages that the filter does not want a receiver skips before it looks at its deadline, or lets other tasks run.
pub(super) const LOOKS: u32 = 256;

/// What a look beside the ring found.
pub(super) enum Look<I> {
    Item(I),
    Blocked(Blocked),
    /// Nothing that goes before the ring.
    Ring,
}

impl<T: Send + 'static> Seat<T> {
    pub(crate) fn new(state: &Arc<SubscriptionState<T>>) -> Self {
        let way = match (&state.shared.ring, &state.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => Some((cursor.clone(), window.line())),
            _ => None,
        };
        let is_special = state.rules.filter.is_some() || state.rules.ack_timeout.is_some() || state.drops_from_queue();
        Self {
            state: state.clone(),
            way,
            special: is_special.into(),
            lender: Lender::new(state.clone()),
            found: false,
            patience: Patience::default(),
            wakefulness: Wakefulness::default(),
            values: Vec::new(),
        }
    }

    pub(super) fn line(&self) -> Option<&Line> {
        self.way.as_ref().map(|(_, line)| &**line)
    }

    /// The ring, if its next plain message may be taken from it as it is: nothing stands beside it, and nothing is to be done on the way.
    #[inline(always)]
    pub(super) fn fast(&self) -> Option<Fast<'_, T>> {
        let state = &*self.state;
        if state.attention.load(Relaxed) | self.special != 0 {
            return None;
        }
        match (&state.shared.ring, &self.way) {
            (Ring::Queue(queue), _) => Some(Fast::Queue(queue)),
            (Ring::Window(window, cloner), Some((cursor, line))) => Some(Fast::Window(window, cloner, cursor, line)),
            _ => None,
        }
    }

    /// The next message by the fast path, if there is one.
    #[inline(always)]
    pub(crate) fn pop<M: Mode>(&mut self) -> Option<M::Item<T>> {
        M::pop_or(self, |_| Err(())).ok()
    }

    /// The next plain message of the ring, if nothing stands before it.
    #[inline(always)]
    pub(super) fn pop_plain(&self) -> Option<(u64, T)> {
        self.pop_from(self.fast()?)
    }

    #[inline(always)]
    fn pop_from(&self, fast: Fast<'_, T>) -> Option<(u64, T)> {
        let popped = match fast {
            Fast::Queue(queue) => queue.pop()?,
            Fast::Window(window, cloner, cursor, line) => {
                let popped = (cloner.pop)(window, &self.state, cursor, line)?;
                window.tidy(cursor, popped.0);
                popped
            }
        };
        self.taken_one();
        Some(popped)
    }

    /// As `pop_plain`, on the seat's own credit. The credit comes first: who has taken a message can keep it, so none is handed on to a receiver
    /// that has gone further meanwhile (G1).
    ///
    /// Who found something the last time does not look before: the look would cost competing receivers a transfer of the head's line for every
    /// message. Who found nothing does, so that an idle receiver's credit is not out for a moment at each look.
    #[inline(always)]
    pub(super) fn pop_on_own_credit(&mut self) -> Option<(u64, T, Credit<T>)> {
        let fast = self.fast()?;
        if !self.found && !fast.looks_plain() {
            return None;
        }
        let credit = self.lender.lend_own()?;
        let popped = self.pop_from(fast);
        self.found = popped.is_some();
        let (offset, value) = popped?;
        Some((offset, value, credit))
    }

    /// The next message, if there is one.
    #[inline]
    pub(crate) fn next<M: Mode>(&mut self) -> Result<M::Item<T>, Blocked> {
        M::pop_or(self, Self::try_next::<M>)
    }

    /// Takes the next message, if there is one, by the long way.
    #[cold]
    pub(crate) fn try_next<M: Mode>(&mut self) -> Result<M::Item<T>, Blocked> {
        for _ in 0..LOOKS {
            if self.state.attention.load(Relaxed) != 0 {
                match self.look_beside::<M>() {
                    Look::Item(item) => return Ok(item),
                    Look::Blocked(blocked) => return Err(blocked),
                    Look::Ring => {}
                }
            }
            if !self.state.has_fresh() {
                return Err(self.nothing());
            }
            let credit = if M::EXPLICIT {
                Some(self.lender.lend().ok_or(Blocked::InFlightFull)?)
            } else {
                None
            };
            match self.state.take_fresh(self.line()) {
                Fresh::Got(taken) => {
                    self.taken_one();
                    return Ok(self.hand_over::<M>(taken, credit));
                }
                Fresh::Behind => {
                    drop(credit);
                    if let Some(item) = self.take_kept::<M>(1)? {
                        return Ok(item);
                    }
                }
                other => self.not_got(other)?,
            }
        }
        Err(Blocked::Unwanted)
    }

    /// Makes of a message what the receiver gets.
    #[inline(always)]
    pub(super) fn hand_over<M: Mode>(&self, taken: Taken<T>, credit: Option<Credit<T>>) -> M::Item<T> {
        if self.special == 0 {
            M::fresh(taken, credit)
        } else {
            M::limited(Held::fresh(taken), credit)
        }
    }

    /// After something was taken: publishers may go on, and so may other receivers if there is more.
    #[inline(always)]
    pub(super) fn taken_one(&self) {
        // Both are read before either is looked at, which takes one branch.
        if self.state.shared.space.has_sleepers() | self.state.event.has_sleepers() {
            self.wake_others();
        }
    }

    #[cold]
    fn wake_others(&self) {
        if self.state.shared.space.has_sleepers() {
            self.state.shared.space.notify();
        }
        if self.state.event.has_sleepers() && self.state.has_something() {
            self.state.event.notify();
        }
    }

    /// What to do about something that is not a wanted message: go on looking, or say why not.
    #[cold]
    pub(super) fn not_got(&mut self, fresh: Fresh<T>) -> Result<(), Blocked> {
        match fresh {
            Fresh::Got(_) | Fresh::Behind => Ok(()),
            Fresh::Filtered(n) => {
                self.state.counters.filtered.fetch_add(n, Relaxed);
                self.taken_one();
                Ok(())
            }
            // Somebody else was faster, or it is not written yet.
            Fresh::Nothing(Nothing::Busy) => Err(Blocked::Busy),
            Fresh::Nothing(_) => Ok(()),
        }
    }

    /// The cursor was overtaken: what is kept comes before the messages in the ring. The *behind* bit keeps everybody from the ring until the last of
    /// that is taken, so that nobody sees an older message after a newer one.
    pub(super) fn take_kept<M: Mode>(&mut self, max: usize) -> Result<Option<M::Item<T>>, Blocked> {
        let state = self.state.clone();
        let (Some(store), Ring::Window(window, _), Place::Cursor(cursor)) = (&state.side_store, &state.shared.ring, &state.place) else {
            return Ok(None);
        };
        let next = match (state.rules.overflow, self.line()) {
            (Overflow::DropOldest, Some(line)) => store.next_behind(window, (cursor, line), max),
            _ => store.next_kept(cursor),
        };
        match next {
            Next::Message => {
                // First the credit: who has taken a message can keep it.
                let credit = if M::EXPLICIT {
                    Some(self.lender.lend().ok_or(Blocked::InFlightFull)?)
                } else {
                    None
                };
                let Some(taken) = store.take(cursor) else { return Ok(None) };
                self.taken_one();
                Ok(Some(self.hand_over::<M>(taken, credit)))
            }
            Next::Lagged(lagged) => {
                let lagged = state.count_lost(lagged);
                self.taken_one();
                Err(Blocked::Lagged(lagged))
            }
            Next::Busy => Err(Blocked::Busy),
            Next::Unwanted => Err(Blocked::Unwanted),
            Next::Nothing => Ok(None),
        }
    }

    /// After that: up to `most` of what was set aside with it.
    pub(super) fn take_more_kept<M: Mode>(&mut self, most: usize, out: &mut Vec<M::Item<T>>) {
        let state = self.state.clone();
        let (Some(store), Place::Cursor(cursor)) = (&state.side_store, &state.place) else {
            return;
        };
        for _ in 0..most {
            let credit = if M::EXPLICIT { self.lender.lend() } else { None };
            if M::EXPLICIT && credit.is_none() {
                return;
            }
            let Some(taken) = store.take(cursor) else { return };
            self.taken_one();
            out.push(self.hand_over::<M>(taken, credit));
        }
    }

    /// For a receiver that found nothing and leaves or sleeps: what it has consumed is dropped, so that nothing lingers while the ring is idle.
    #[cold]
    pub(crate) fn tidy_idle(&self) {
        if let (Ring::Window(window, _), Some((cursor, _))) = (&self.state.shared.ring, &self.way) {
            window.tidy_idle(cursor);
        }
    }

    /// Why the ring gives nothing.
    #[cold]
    pub(super) fn nothing(&mut self) -> Blocked {
        let state = &*self.state;
        let changes = state.changes.load(Acquire);
        let nothing_beside = changes.is_multiple_of(2) && state.attention.load(Acquire) == 0;
        match state.ring_nothing() {
            // Empty only if there was a moment when both were: what was taken from the ring may have come back beside it meanwhile.
            Nothing::Empty if nothing_beside && state.changes.load(Acquire) == changes => Blocked::Empty,
            Nothing::Empty => Blocked::Busy,
            Nothing::Busy => Blocked::Busy,
            Nothing::Closed => {
                // First the credit: a delivery that comes back is put beside the ring before its credit returns.
                if state.credit.watch() > 0 {
                    return Blocked::Settling;
                }
                let beside = state.beside.lock();
                if beside.has_more_now() {
                    Blocked::Busy
                } else if beside.has_more() {
                    Blocked::Settling
                } else {
                    drop(beside);
                    // Others may sleep until the end.
                    state.wake_all();
                    Blocked::Closed
                }
            }
        }
    }

    #[cold]
    pub(super) fn look_beside<M: Mode>(&mut self) -> Look<M::Item<T>> {
        let state = self.state.clone();
        let mut beside = state.beside.lock();
        if beside.ended {
            return Look::Blocked(Blocked::Closed);
        }
        if let Some(lagged) = beside.lag.pop() {
            state.raise_attention(&beside);
            drop(beside);
            let lagged = state.count_lost(lagged);
            self.taken_one();
            return Look::Blocked(Blocked::Lagged(lagged));
        }
        if beside.paused {
            let nothing_left =
                state.shared.ring.is_closed() && state.position() >= state.shared.ring.end() && !state.has_fresh() && !beside.has_more();
            return if nothing_left {
                Look::Ring
            } else {
                Look::Blocked(Blocked::HeldBack)
            };
        }
        let full = beside.is_parked_full(&state.rules);
        let again = !beside.ready.is_empty() && (full || !(beside.fresh_first && state.has_fresh()));
        if again {
            return self.redeliver::<M>(&state, beside);
        }
        beside.fresh_first = false;
        // Of a topic that is closed and empty nothing fresh can come: then this is the end, or what is parked comes before it.
        let at_end = full && state.shared.ring.is_closed() && state.position() >= state.shared.ring.end() && !state.has_fresh();
        if full && !at_end {
            return Look::Blocked(Blocked::HeldBack);
        }
        Look::Ring
    }

    fn redeliver<M: Mode>(
        &mut self,
        state: &Arc<SubscriptionState<T>>,
        mut beside: impl std::ops::DerefMut<Target = Beside<T>>,
    ) -> Look<M::Item<T>> {
        let credit = if M::EXPLICIT {
            match self.lender.lend() {
                Some(credit) => Some(credit),
                None => return Look::Blocked(Blocked::InFlightFull),
            }
        } else {
            None
        };
        let Some(mut held) = beside.ready.pop_front() else {
            return Look::Ring;
        };
        if beside.ready.is_empty() && beside.ready.capacity() > KEPT {
            beside.ready.shrink_to(KEPT);
        }
        beside.fresh_first = true;
        state.raise_attention(&beside);
        drop(beside);
        if let Some(history) = &mut held.history {
            history.attempts = history.attempts.saturating_add(1);
            state.counters.redelivered.fetch_add(1, Relaxed);
        }
        self.taken_one();
        Look::Item(M::limited(held, credit))
    }

    /// For a receiver that has registered: whether it should look again instead of sleeping.
    pub(crate) fn recheck(&mut self, blocked: Blocked) -> bool {
        let state = &self.state;
        match blocked {
            Blocked::Empty => state.recheck_fresh() || state.recheck_beside(true),
            Blocked::InFlightFull => self.lender.draw() || state.recheck_beside(false),
            Blocked::HeldBack => state.recheck_beside(true) || !state.holds_back(),
            // A seek may have brought something back.
            Blocked::Settling => state.recheck_beside(true) || state.has_fresh() || state.is_settled(),
            Blocked::Busy | Blocked::Unwanted | Blocked::Closed | Blocked::Lagged(_) => true,
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        if let (Ring::Window(window, _), Some((_, line))) = (&self.state.shared.ring, &self.way) {
            window.drop_line(line);
        }
        // A wake-up that found this receiver leaving must not be lost, and its unused credit is free for others.
        if self.state.event.has_sleepers() {
            self.state.event.notify();
        }
        self.state.pass_credit_on();
    }
}

impl<T> SubscriptionState<T> {
    fn ring_nothing(&self) -> Nothing {
        match (&self.shared.ring, &self.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => window.why_nothing(cursor),
            (Ring::Queue(queue), _) => queue.why_nothing(),
            _ => unreachable!("a window's subscription has a cursor"),
        }
    }
}
