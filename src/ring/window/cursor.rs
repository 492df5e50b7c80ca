//! A cursor's head, the line on which a subscriber announces what it reads, and what happens when a cursor is overtaken.

use super::{Counter, position};
use crate::sync::{AtomicU64, CachePadded, Ordering::*};

/// The bit of a head that says: a publisher moved this cursor on.
pub(super) const BEHIND: u64 = 1;

/// The bit of a head that says: what is claimed from here on is moved out, since no other cursor is there to read it.
pub(super) const MOVES: u64 = 1 << 62;

/// The head of a cursor that has left its window: the last position there is, which no topic reaches, so nothing is found there.
pub(super) const LEFT: u64 = ((1 << 61) - 1) << 1;

/// What a line says when its subscriber reads nothing: its position is beyond all.
pub(super) const IDLE: u64 = u64::MAX;

/// One subscription's place in a window.
pub(crate) struct Cursor<T, A> {
    /// The next position to take, shifted by the *behind* bit.
    pub(super) head: Counter,
    /// Its number in the window, from 1 on.
    pub(super) id: u64,
    /// Where the cursor stood when it was overtaken first; valid while the *behind* bit is set.
    pub(super) lag_from: AtomicU64,
    /// Below, what it was moved past has been told. Written under the lock under which its subscribers catch up; Relaxed.
    pub(super) told: AtomicU64,
    /// From here on, whatever the head has passed was released when it was claimed: where the cursor joined, or was moved to by a seek.
    /// Written and read under the registry lock; Relaxed.
    pub(super) since: AtomicU64,
    pub(super) overtaking: Overtaking<T, A>,
    /// Whether it may have what it reads for itself: not if it merely looks.
    pub(super) takes: bool,
}

/// What a full window does about a cursor.
pub(super) enum Overtaking<T, A> {
    /// It is never overtaken.
    Never,
    /// It is moved on; the subscription is told what it lost.
    Drop,
    /// It is moved on; what it has not read goes to a side store first.
    Keep(Box<dyn SideStore<T, A>>),
}

/// A value as a claim gets it.
pub(crate) enum Value<'v, T> {
    /// To look at: others have it too.
    Lent(&'v T),
    /// Moved out: its claimant was the only one to have it.
    Moved(T),
}

impl<T: Clone> Value<'_, T> {
    #[inline(always)]
    pub(crate) fn into_owned(self) -> T {
        match self {
            Self::Lent(value) => value.clone(),
            Self::Moved(value) => value,
        }
    }
}

impl<T> std::ops::Deref for Value<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        match self {
            Self::Lent(value) => value,
            Self::Moved(value) => value,
        }
    }
}

/// Lends the value at a position to a function.
pub(crate) type ReadAt<'r, T, A> = dyn FnMut(u64, &mut dyn FnMut(&T, Option<&A>)) + 'r;

/// Where the values go that a cursor was moved past.
pub(crate) trait SideStore<T, A>: Send + Sync {
    /// Calls `advance`, which moves the cursor and returns the positions that it skips, and keeps their values, which `read` lends. Both
    /// happen under the store's lock, so that a subscriber that finds itself behind finds the values too. What has to go for them is added
    /// to `gone`, and dropped once nothing is locked any more.
    fn overtake(&self, advance: &mut dyn FnMut() -> Option<Overtaken>, read: &mut ReadAt<'_, T, A>, gone: &mut Vec<(T, Option<A>)>);
}

/// Positions that a cursor was moved past: from `from`, up to but not including `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overtaken {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl<T, A> Cursor<T, A> {
    pub(super) fn new(id: u64, at: u64, overtaking: Overtaking<T, A>, takes: bool) -> Self {
        // A publisher that overtakes comes between the subscriber's claims again and again.
        let leans = matches!(overtaking, Overtaking::Never);
        Self {
            head: Counter::new(at << 1, leans),
            id,
            lag_from: AtomicU64::new(0),
            told: AtomicU64::new(at),
            since: AtomicU64::new(at),
            overtaking,
            takes,
        }
    }

    /// Whether it moves values out.
    #[inline(always)]
    pub(super) fn moves(&self) -> bool {
        self.head.load(Relaxed) & MOVES != 0
    }

    /// Whether publishers wait for this cursor.
    pub(crate) fn gates(&self) -> bool {
        matches!(self.overtaking, Overtaking::Never)
    }

    /// The next position to take.
    pub(crate) fn position(&self) -> u64 {
        position(self.head.load(Acquire))
    }

    /// What it was moved past without knowing so far; nothing where a side store keeps that. A number to report.
    pub(crate) fn overtaken(&self) -> Option<Overtaken> {
        let word = self.head.load(Acquire);
        self.overtaken_by(word)
    }

    pub(super) fn overtaken_by(&self, word: u64) -> Option<Overtaken> {
        let (from, to) = (self.lag_from.load(Relaxed).max(self.told.load(Relaxed)), position(word));
        (word & BEHIND != 0 && matches!(self.overtaking, Overtaking::Drop) && from < to).then_some(Overtaken { from, to })
    }

    /// Takes as many positions as `look` finds from the head on, each announced on `line` before it looks: from where, what it found, and the
    /// announcement. See [`Counter::advance`].
    #[inline(always)]
    pub(super) fn advance<'l, R>(
        &self,
        line: &'l Line,
        mut look: impl FnMut(u64) -> Option<(u64, R)>,
    ) -> Result<(u64, R, Announced<'l>), u64> {
        let announced = Announced(line);
        let (from, found) = self.head.advance(|word| {
            line.announce(word);
            look(word)
        })?;
        Ok((from, found, announced))
    }

    /// What it was moved past, told from here on; nothing where a side store keeps that. `word` is its head while it was behind.
    pub(super) fn tell(&self, word: u64, next: u64) -> Option<Overtaken> {
        let overtaken = self.overtaken_by(word);
        self.told.store(next, Relaxed);
        overtaken
    }

    /// Clears the *behind* bit, unless there is a loss to tell; under the lock under which its subscribers catch up, once nothing is kept for them: the
    /// bit keeps everybody from the ring until then. Of a side store, it is the lock that keeps further overtaking out meanwhile.
    pub(crate) fn clear_behind(&self) {
        let _ = self.head.update(|word| self.overtaken_by(word).is_none().then_some(word & !BEHIND));
    }

    /// Moves the head to `to` and sets the *behind* bit. Called by the scan alone.
    pub(super) fn overtake(&self, to: u64) -> Option<Overtaken> {
        let advance = |word| {
            if position(word) >= to {
                return None;
            }
            if word & BEHIND == 0 {
                // Relaxed: the change below publishes it; nobody reads it while the bit is clear.
                self.lag_from.store(position(word), Relaxed);
            }
            Some(to << 1 | BEHIND)
        };
        let before = self.head.update(advance).ok()?;
        Some(Overtaken {
            from: position(before),
            to,
        })
    }
}

/// A head as one subscriber read it, at whose position it may still read, and beyond; or idle. Written by that subscriber alone, and never left
/// announced when a call returns.
pub(crate) struct Line(CachePadded<AtomicU64>);

impl Line {
    pub(super) fn new() -> Self {
        Self(CachePadded::new(AtomicU64::new(IDLE)))
    }

    #[inline(always)]
    fn announce(&self, head: u64) {
        // Release: not for data, but so that the scan, which reads heads before lines, finds the line of whoever moved the head.
        self.0.store(head, Release);
    }

    pub(super) fn announced(&self) -> u64 {
        position(self.0.load(Acquire))
    }
}

/// Clears the line, on unwinding too.
pub(super) struct Announced<'l>(&'l Line);

impl Drop for Announced<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: the reads of the slot happen before the scan sees the line idle.
        self.0.0.store(IDLE, Release);
    }
}
