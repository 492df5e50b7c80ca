//! A ring with many cursors: every cursor reads every value, and a slot is freed once all have passed it.
//!
//! A publisher may write position `p` once `p < freed + capacity`. `freed` only grows and is raised by the *scan* (`scan.rs`),
//! which one thread at a time runs: it looks at every cursor's head first, then at every announced line, then at the stamps.
//!
//! Cursors come in two kinds. One that *gates* is never overtaken: the ring is full until it moves. One that does not is moved on
//! by a publisher that needs its slots (never past the slowest gating cursor, and never past a position that is still being
//! written); the *behind* bit in its head says so, and keeps its subscribers from the ring until they have caught up.
//!
//! While a gating cursor is the only one, its head says `MOVES`: whoever claims a position then moves the value out instead of cloning it, and the
//! scan has nothing to drop there. As it is the head that says so, each claim knows, and what another cursor must not read is known to the position:
//! the registry keeps the range (I7). One subscription that receives `Arc`s became 2.5 times as fast by it, four competing subscribers and four
//! publishers 4 times (the rows of `benches/peers` with `Arc` payloads, one run before and after; rustc 1.95, two virtual x86-64 cores).
//!
//! A publish touches `tail`, the slot and, once per lap at most, `freed`; a read touches the cursor's head, the subscriber's own
//! line and the slot. Only a reader that finds nothing looks at `tail`.

mod cursor;
mod scan;

use std::collections::TryReserveError;
use std::ops::Range;

pub(crate) use self::cursor::{Cursor, Line, Overtaken, ReadAt, SideStore, Value};
pub(crate) use self::scan::Start;

use self::cursor::{Announced, BEHIND, IDLE, MOVES};
use self::scan::{Gone, Registry};
use super::{CLOSED, Claim, Counter, Nothing, Refusal, Slots, burst, open_position, position, run_of};
use crate::sync::{AtomicU64, CachePadded, Mutex, Ordering::*};
use crate::user_code::{clear_contained, drop_contained};

/// A bounded ring read by any number of cursors.
pub(crate) struct Window<T, A> {
    /// The next position to claim, shifted by the close bit.
    tail: Counter,
    /// Positions below are vacant; written by the scan alone.
    freed: CachePadded<AtomicU64>,
    /// How many scans were asked for and not yet run: whoever raises it from 0 scans, for the others too.
    work: CachePadded<AtomicU64>,
    /// The cursor that held the last scan up, and so is the one to ask for the next; 0 if it was something else. Written by the scan alone.
    holder: AtomicU64,
    /// Positions freed while no cursor existed; written under the registry lock.
    unrouted: AtomicU64,
    registry: Mutex<Registry<T, A>>,
    /// A buffer for the next scan.
    spare: Mutex<Gone<T, A>>,
    slots: Slots<T, A>,
}

/// What a subscriber's attempt to take found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take<R> {
    /// It took this.
    Got(R),
    /// The cursor was overtaken: what comes next is in its side store, or found by [`Window::catch_up`].
    Behind,
    /// Nothing to take.
    Nothing(Nothing),
}

impl<T: Send + Sync, A: Send + Sync> Window<T, A> {
    /// A window of `capacity` (a power of two) whose first position is `start`; an error if there is no memory for it. It lends `&T` to several
    /// threads at once, hence `Sync`.
    pub(crate) fn try_new(capacity: usize, start: u64) -> Result<Self, TryReserveError> {
        Ok(Self {
            tail: Counter::new(start << 1, true),
            freed: CachePadded::new(AtomicU64::new(start)),
            work: CachePadded::new(AtomicU64::new(0)),
            holder: AtomicU64::new(0),
            unrouted: AtomicU64::new(0),
            registry: Mutex::new(Registry::new()),
            spare: Mutex::new(Gone::new()),
            slots: Slots::try_new(capacity, start)?,
        })
    }

    /// As `try_new`, for tests, which have memory.
    #[cfg(any(test, ringmq_loom))]
    #[allow(dead_code, reason = "not every build has tests that make a ring by hand")]
    pub(crate) fn new(capacity: usize, start: u64) -> Self {
        Self::try_new(capacity, start).expect("a test's ring is small")
    }
}

impl<T, A> Window<T, A> {
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.capacity()
    }

    /// More than in a queue: a publisher that looks for room looks at the subscribers' own lines, which they use for every message. For
    /// payloads that take lines of their own, bursts of 256 were no gain, and in some runs a loss.
    fn burst(&self) -> u64 {
        if Slots::<T, A>::bytes() <= 16 {
            burst(self.capacity(), 4, 256)
        } else {
            burst(self.capacity(), 8, 64)
        }
    }

    /// See [`Slots::prepare_attachments`].
    pub(crate) fn prepare_attachments(&self) {
        self.slots.prepare_attachments();
    }

    /// Publishes a plain value, if nothing stands in the way that a caller with this `limit` knows of (see [`Window::claim`]).
    #[inline(always)]
    pub(crate) fn push(&self, limit: u64, value: T) -> Result<u64, T> {
        let free = |word| {
            let t = open_position(word);
            (t < limit).then_some((1, t))
        };
        let Ok((_, t)) = self.tail.advance(free) else { return Err(value) };
        // SAFETY: I1: `t` is this thread's claim; it is below `freed + capacity` (I3).
        unsafe { self.slots.at(t).publish_plain(t, value) };
        Ok(t)
    }

    /// Takes the next position for `cursor` if it is there and plain, announced on `line`. See [`Window::take`].
    #[inline(always)]
    pub(crate) fn pop<R>(&self, cursor: &Cursor<T, A>, line: &Line, read: impl FnOnce(u64, Value<'_, T>) -> R) -> Option<R> {
        // A look before the announcement, so that an idle subscriber is in no scan's way.
        let plain = |word| {
            let slot = self.slots.at(position(word));
            slot.is_plain_for(word).then_some((1, (slot, moves::<T>(word))))
        };
        if std::mem::needs_drop::<T>() && plain(cursor.head.load(Acquire)).is_none() {
            return None;
        }
        let Ok((h, (slot, moves), _announced)) = cursor.advance(line, plain) else {
            self.left_empty_handed(cursor);
            return None;
        };
        slot.fetch_ahead();
        if moves {
            // SAFETY: I2; I7: the claim on `h` moves its value out, once.
            return Some(read(h, Value::Moved(unsafe { slot.take_plain() })));
        }
        // SAFETY: I4: `h` was announced before its stamp was checked, and claimed while announced.
        Some(unsafe { slot.read_plain(|value| read(h, Value::Lent(value))) })
    }

    /// Takes up to `max` plain values in a row into `out`; returns how many. On unwinding as [`Window::take_run`]; then too, the values that stand
    /// in `out` by that time are those of `first` and the positions behind it.
    #[inline(always)]
    pub(crate) fn pop_run(
        &self,
        cursor: &Cursor<T, A>,
        line: &Line,
        max: usize,
        (out, first): (&mut Vec<T>, &mut u64),
        mut read: impl FnMut(u64, &T) -> T,
        lost: impl Fn(u64, u64),
    ) -> Option<usize> {
        let most = (max as u64).min(self.capacity());
        if ((out.capacity() - out.len()) as u64) < most {
            // Before the claim, because it may allocate.
            out.reserve(self.slots.plain_run(cursor.head.load(Acquire), most) as usize);
        }
        let room = (out.capacity() - out.len()) as u64;
        let run = |word| run_on::<T>(word, self.slots.plain_run(word, most.min(room)));
        let Ok((from, (n, moves), _announced)) = cursor.advance(line, run) else {
            self.left_empty_handed(cursor);
            return None;
        };
        *first = from;
        if moves {
            out.extend(self.slots.run(from, n).map(|slot| {
                slot.fetch_ahead();
                // SAFETY: I2; I7: the claim on the run moves its values out, once.
                unsafe { slot.take_plain() }
            }));
            return Some(n as usize);
        }
        let mut run = Run::new(self, cursor, from..from + n, false, &lost);
        out.extend(self.slots.run(from, n).map(|slot| {
            let p = run.step();
            slot.fetch_ahead();
            // SAFETY: I4: the run was announced before the stamps were checked, and claimed while announced.
            unsafe { slot.read_plain(|value| read(p, value)) }
        }));
        Some(n as usize)
    }

    /// Whether there is room for a burst, or waiting for it is pointless.
    pub(crate) fn has_burst(&self) -> bool {
        let word = self.tail.load(Relaxed);
        let wanted = position(word) + self.burst();
        // Relaxed: the claim looks again.
        let has = || self.freed.load(Relaxed) + self.capacity() >= wanted;
        word & CLOSED != 0 || has() || {
            self.reclaim((position(word) + 1).saturating_sub(self.capacity()));
            has()
        }
    }

    /// Claims up to `max` positions in a row, at least one. `limit` is the caller's memory of `freed + capacity`, so that the shared variable is
    /// read once a lap. A caller that is `patient` would rather wait for a burst than get less than that, or than `max`.
    #[inline(always)]
    pub(crate) fn claim_run(&self, limit: &mut u64, max: u64, patient: bool) -> Result<Claim<'_, T, A>, Refusal> {
        let least = if patient { max.min(self.burst()) } else { 1 };
        let mut asked_for = None;
        loop {
            let mut wants_more = false;
            let claimed = self.tail.advance(|word| {
                let t = position(word);
                wants_more = t + max > *limit && asked_for != Some(t);
                let is_refused = wants_more || t + least > *limit || word & CLOSED != 0;
                if is_refused { None } else { run_of(max.min(*limit - t)) }
            });
            let word = match claimed {
                // SAFETY: I1: the run is this thread's claim; all of it is below `freed + capacity` (I3).
                Ok((t, n)) => return Ok(unsafe { Claim::new(&self.slots, t, n) }),
                Err(word) => word,
            };
            let t = position(word);
            if word & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            if !wants_more {
                return Err(Refusal::Full(t));
            }
            self.raise_limit(t, least, limit);
            asked_for = Some(t);
        }
    }

    #[cold]
    fn raise_limit(&self, t: u64, least: u64, limit: &mut u64) {
        *limit = self.freed.load(Acquire) + self.capacity();
        if t + least > *limit {
            self.reclaim((t + 1).saturating_sub(self.capacity()));
            *limit = self.freed.load(Acquire) + self.capacity();
        }
    }

    /// Takes the next position for `cursor`, announced on `line`: `read` sees the value in place.
    ///
    /// If `read` unwinds, the position is lost to this cursor; the caller notices by a guard of its own.
    #[inline(always)]
    pub(crate) fn take<R>(
        &self,
        cursor: &Cursor<T, A>,
        line: &Line,
        read: impl FnOnce(u64, Value<'_, T>, Option<Value<'_, A>>) -> R,
    ) -> Take<R> {
        let (h, (_, moves), _announced) = match self.claim_next(cursor, line, 1) {
            Ok(claimed) => claimed,
            Err(refused) => return refused.into(),
        };
        if moves {
            // SAFETY: I7: the claim on `h` moves its value out, once.
            let (value, with) = unsafe { self.take_out_one(h) };
            return Take::Got(read(h, Value::Moved(value), with.map(Value::Moved)));
        }
        let stamp = self.slots.full(h).expect("full while announced");
        // SAFETY: I4: `h` was announced before its stamp was checked, and claimed while announced.
        Take::Got(unsafe {
            self.slots
                .read(h, stamp, |value, with| read(h, Value::Lent(value), with.map(Value::Lent)))
        })
    }

    /// Takes up to `max` positions in a row, at least one. If `read` unwinds at one of them, those behind it are given back if nobody
    /// has claimed beyond; what cannot be given back is told to `lost`, as a range.
    #[inline(always)]
    pub(crate) fn take_run(
        &self,
        cursor: &Cursor<T, A>,
        line: &Line,
        max: usize,
        mut read: impl FnMut(u64, Value<'_, T>, Option<Value<'_, A>>),
        lost: impl Fn(u64, u64),
    ) -> Take<usize> {
        let (h, (n, moves), _announced) = match self.claim_next(cursor, line, max as u64) {
            Ok(claimed) => claimed,
            Err(refused) => return refused.into(),
        };
        let mut run = Run::new(self, cursor, h..h + n, moves, &lost);
        while run.next < run.end {
            let p = run.step();
            if moves {
                // SAFETY: I7: the claim on the run moves its values out, once.
                let (value, with) = unsafe { self.take_out_one(p) };
                read(p, Value::Moved(value), with.map(Value::Moved));
                continue;
            }
            let stamp = self.slots.full(p).expect("full while announced");
            // SAFETY: I4: `h <= p` was announced before the stamps were checked, and `p` claimed while announced.
            unsafe {
                self.slots
                    .read(p, stamp, |value, with| read(p, Value::Lent(value), with.map(Value::Lent)))
            };
        }
        Take::Got(n as usize)
    }

    /// Moves out the value of `p`, which the caller has claimed.
    ///
    /// # Safety
    ///
    /// The claim moves what it claims (I7), and the caller does so once.
    #[inline(always)]
    pub(super) unsafe fn take_out_one(&self, p: u64) -> (T, Option<A>) {
        let stamp = self.slots.full(p).expect("full until its claimant takes it");
        // SAFETY: this function's contract; I2.
        unsafe { self.slots.take(p, stamp) }
    }

    /// Claims up to `max` positions for `cursor`, announced on `line`: from where, and how many; or why not.
    #[inline(always)]
    fn claim_next<'l>(&self, cursor: &Cursor<T, A>, line: &'l Line, max: u64) -> Result<(u64, (u64, bool), Announced<'l>), Refused> {
        let most = max.min(self.capacity());
        loop {
            let claimed = cursor.advance(line, |word| match word & BEHIND {
                0 => run_on::<T>(word, self.slots.full_run(position(word), most)),
                _ => None,
            });
            let word = match claimed {
                Ok(claimed) => return Ok(claimed),
                Err(word) => word,
            };
            let refused = if word & BEHIND != 0 {
                Refused::Behind
            } else if cursor.head.load(Acquire) == word {
                Refused::Nothing(self.nothing(position(word)))
            } else {
                continue;
            };
            self.left_empty_handed(cursor);
            return Err(refused);
        }
    }

    /// For a cursor without a side store that was overtaken: says what was lost, and claims up to `max` positions in a row, at least one, in the same step.
    /// So there is something to go on with, however far the cursor is moved on before anybody asks. Everybody is kept from the ring meanwhile, until
    /// [`Cursor::clear_behind`].
    ///
    /// Called under a lock of the caller's, the same for all of the cursor's subscribers. Without the lock, what was claimed is to be read, and
    /// [`Window::left_empty_handed`] to follow.
    #[cold]
    pub(crate) fn catch_up<'w>(
        &'w self,
        cursor: &Cursor<T, A>,
        line: &'w Line,
        max: u64,
    ) -> (Option<Overtaken>, Result<CaughtUp<'w, T, A>, Nothing>) {
        let most = max.min(self.capacity());
        loop {
            // Acquire: `lag_from` comes with it.
            let word = cursor.head.load(Acquire);
            if word & BEHIND == 0 {
                // Somebody else has caught up, or it was moved elsewhere: what comes next, if anything, is in the ring.
                return (None, Err(Nothing::Empty));
            }
            let run = |now| {
                if now == word {
                    run_of(self.slots.full_run(position(word), most))
                } else {
                    None
                }
            };
            if let Ok((h, n, announced)) = cursor.advance(line, run) {
                let caught_up = CaughtUp {
                    window: self,
                    positions: h..h + n,
                    _announced: announced,
                };
                return (cursor.tell(word, h + n), Ok(caught_up));
            }
            let nothing = self.nothing(position(word));
            if nothing == Nothing::Busy && cursor.head.load(Acquire) == word {
                return (None, Err(nothing));
            }
            if nothing != Nothing::Busy {
                // The end: there is nothing to go on with.
                return (cursor.tell(word, position(word)), Err(nothing));
            }
        }
    }

    #[cold]
    fn nothing(&self, h: u64) -> Nothing {
        let word = self.tail.load(Acquire);
        if position(word) > h {
            Nothing::Busy
        } else if word & CLOSED != 0 {
            Nothing::Closed
        } else {
            Nothing::Empty
        }
    }

    /// Why there is nothing to take, right now.
    pub(crate) fn why_nothing(&self, cursor: &Cursor<T, A>) -> Nothing {
        let word = cursor.head.load(Acquire);
        if word & BEHIND != 0 {
            Nothing::Busy
        } else {
            self.nothing(position(word))
        }
    }

    /// Whether the cursor's next position is published, or it was overtaken.
    #[inline(always)]
    pub(crate) fn has_next(&self, cursor: &Cursor<T, A>) -> bool {
        let word = cursor.head.load(Relaxed);
        word & BEHIND != 0 || self.slots.full(position(word)).is_some()
    }

    /// Whether `pop` is likely to find something. Relaxed: the claim looks again.
    #[inline(always)]
    pub(crate) fn looks_plain(&self, cursor: &Cursor<T, A>) -> bool {
        let word = cursor.head.load(Relaxed);
        self.slots.at(position(word)).is_plain_for(word)
    }

    /// For a subscriber about to sleep, after it has registered: whether there is something after all. See the table of orderings.
    pub(crate) fn recheck_items(&self, cursor: &Cursor<T, A>) -> bool {
        let word = self.tail.settled();
        let head = cursor.head.load(Acquire);
        word & CLOSED != 0 || head & BEHIND != 0 || position(word) > position(head)
    }

    /// For a publisher about to sleep on account of `cursor`, after it has registered: whether that cursor still blocks position `t`.
    pub(crate) fn recheck_blocked(&self, cursor: &Cursor<T, A>, t: u64) -> bool {
        position(cursor.head.settled()) + self.capacity() <= t
    }

    /// Whether `cursor` stands in the way of position `t`.
    pub(crate) fn blocks(&self, cursor: &Cursor<T, A>, t: u64) -> bool {
        cursor.position() + self.capacity() <= t
    }

    /// Accepts nothing from here on; what was accepted can still be read.
    pub(crate) fn close(&self) {
        let _ = self.tail.update(|word| Some(word | CLOSED));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.tail.load(Acquire) & CLOSED != 0
    }

    /// The position after the last one claimed.
    pub(crate) fn end(&self) -> u64 {
        position(self.tail.load(Acquire))
    }

    /// The oldest position that the ring still holds.
    pub(crate) fn start(&self) -> u64 {
        self.freed.load(Acquire)
    }

    /// How many positions were freed while nobody subscribed.
    pub(crate) fn unrouted(&self) -> u64 {
        self.unrouted.load(Relaxed)
    }
}

/// Whether a claim that read this head moves out what it claims.
#[inline(always)]
const fn moves<T>(head: u64) -> bool {
    std::mem::needs_drop::<T>() && head & MOVES != 0
}

/// What a look for a run found on this head: how many to claim, if any, and whether the claim moves them out.
#[inline(always)]
fn run_on<T>(head: u64, n: u64) -> Option<(u64, (u64, bool))> {
    (n > 0).then_some((n, (n, moves::<T>(head))))
}

/// Positions that a subscriber has claimed which caught up. They are announced as long as this is there.
pub(crate) struct CaughtUp<'w, T, A> {
    window: &'w Window<T, A>,
    positions: Range<u64>,
    _announced: Announced<'w>,
}

impl<T, A> CaughtUp<'_, T, A> {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.positions.end - self.positions.start
    }

    /// Shows each value to `read`, which does not unwind: what it has not seen by then would be lost in silence.
    pub(crate) fn read(self, mut read: impl FnMut(u64, &T, Option<&A>)) {
        for p in self.positions.clone() {
            let stamp = self.window.slots.full(p).expect("full while announced");
            // SAFETY: I4: the first of the positions was announced before the stamps were checked, and all were claimed while it was announced.
            unsafe { self.window.slots.read(p, stamp, |value, with| read(p, value, with)) };
        }
    }
}

/// What is left of a claimed run while it is read.
struct Run<'a, T, A, L: Fn(u64, u64)> {
    window: &'a Window<T, A>,
    cursor: &'a Cursor<T, A>,
    next: u64,
    end: u64,
    /// Whether its values are moved out.
    moves: bool,
    lost: &'a L,
}

impl<'a, T, A, L: Fn(u64, u64)> Run<'a, T, A, L> {
    #[inline(always)]
    fn new(window: &'a Window<T, A>, cursor: &'a Cursor<T, A>, positions: Range<u64>, moves: bool, lost: &'a L) -> Self {
        Self {
            window,
            cursor,
            next: positions.start,
            end: positions.end,
            moves,
            lost,
        }
    }

    /// The position to read now: if that unwinds, it is those behind it that are left.
    #[inline(always)]
    fn step(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl<T, A, L: Fn(u64, u64)> Drop for Run<'_, T, A, L> {
    fn drop(&mut self) {
        let left = self.next..self.end;
        if left.is_empty() || self.window.give_back(self.cursor, left.clone()) {
            return;
        }
        (self.lost)(left.start, left.end);
        if self.moves {
            // SAFETY: I7: nobody has moved these out, and nobody else will.
            unsafe { self.window.leave_over(left) };
        }
    }
}

impl<T, A> Drop for Window<T, A> {
    fn drop(&mut self) {
        let mut registry = self.registry.lock();
        registry.stop_moving();
        clear_contained(&mut registry.left_over);
        for p in self.freed.load(Acquire)..position(self.tail.load(Acquire)) {
            if registry.has_moved(p) {
                continue;
            }
            if let Some(stamp) = self.slots.full(p) {
                // SAFETY: I5: nobody else is left; positions below `freed` were taken, this one was not, nor moved out by its claimant (I7).
                drop_contained(unsafe { self.slots.take(p, stamp) });
            }
        }
    }
}

/// Why a subscriber claimed nothing.
enum Refused {
    Behind,
    Nothing(Nothing),
}

impl<R> From<Refused> for Take<R> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Behind => Self::Behind,
            Refused::Nothing(nothing) => Self::Nothing(nothing),
        }
    }
}

const _: () = assert!(position(IDLE) == u64::MAX >> 3, "an idle line must not hold anything back");
