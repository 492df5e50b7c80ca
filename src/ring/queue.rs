//! A ring with one cursor: values move out, and each slot is freed by its own stamp.
//!
//! Because nothing is cloned and nothing scanned, it takes any `T: Send`, drops promptly and is the fastest shape. A push
//! and a pop touch three shared lines: `tail` (publishers), `head` (readers) and the slot.

use std::collections::TryReserveError;

use super::slots::{OWNED_BY_PUBLISHER, OWNED_BY_READER};
use super::{CLOSED, Claim, Counter, Nothing, Refusal, Slots, burst, position, run_of};
use crate::sync::Ordering::*;
use crate::user_code::drop_contained;

/// A bounded MPMC queue.
pub(crate) struct Queue<T, A> {
    /// The next position to claim, shifted by the close bit.
    tail: Counter,
    /// The next position to take, shifted by a bit that stays 0.
    head: Counter,
    slots: Slots<T, A>,
}

impl<T: Send, A: Send> Queue<T, A> {
    /// A queue of `capacity` (a power of two) whose first position is `start`; an error if there is no memory for it.
    pub(crate) fn try_new(capacity: usize, start: u64) -> Result<Self, TryReserveError> {
        Ok(Self {
            tail: Counter::new(start << 1, true),
            head: Counter::new(start << 1, true),
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

impl<T, A> Queue<T, A> {
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.capacity()
    }

    fn burst(&self) -> u64 {
        burst(self.capacity(), 8, 64)
    }

    /// See [`Slots::prepare_attachments`].
    pub(crate) fn prepare_attachments(&self) {
        self.slots.prepare_attachments();
    }

    /// Publishes a plain value, if nothing stands in the way: neither a full ring nor a closed one.
    #[inline(always)]
    pub(crate) fn push(&self, value: T) -> Result<u64, T> {
        let free = |word| {
            let slot = self.slots.at(position(word));
            slot.is_free_for(word).then_some((1, slot))
        };
        let Ok((t, slot)) = self.tail.advance(free) else {
            return Err(value);
        };
        slot.own_ahead::<OWNED_BY_PUBLISHER>();
        // SAFETY: I1: `t` is this thread's claim; its stamp said free (I3).
        unsafe { slot.publish_plain(t, value) };
        Ok(t)
    }

    /// Takes the next value, if it is there and plain.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<(u64, T)> {
        let plain = |word| {
            let slot = self.slots.at(position(word));
            slot.plain_for(word).map(|stamp| (1, (slot, stamp)))
        };
        let (h, (slot, stamp)) = self.head.advance(plain).ok()?;
        slot.own_ahead::<OWNED_BY_READER>();
        // SAFETY: `h` is this thread's claim, once; the stamp was loaded full.
        let value = unsafe { slot.take_plain() };
        slot.vacate(stamp, self.slots.lap());
        Some((h, value))
    }

    /// Takes up to `max` plain values that are there in a row; `out` gets what `make`, which must not unwind, makes of each and its position.
    #[inline(always)]
    pub(crate) fn pop_run<R>(&self, max: usize, out: &mut Vec<R>, mut make: impl FnMut(u64, T) -> R) -> Option<usize> {
        let most = (max as u64).min(self.capacity());
        if ((out.capacity() - out.len()) as u64) < most {
            // Before the claim, because it may allocate.
            out.reserve(self.slots.plain_run(self.head.load(Relaxed), most) as usize);
        }
        let room = (out.capacity() - out.len()) as u64;
        let (mut p, n) = self.head.advance(|word| run_of(self.slots.plain_run(word, most.min(room)))).ok()?;
        out.extend(self.slots.run(p, n).map(|slot| {
            // SAFETY: the run is this thread's claim, once each; the stamps were loaded full.
            let value = unsafe { slot.take_plain() };
            slot.vacate_for(p + self.capacity());
            let made = make(p, value);
            p += 1;
            made
        }));
        Some(n as usize)
    }

    /// Whether there is room for a burst, or waiting for it is pointless. Looks at a slot that no reader is near.
    pub(crate) fn has_burst(&self) -> bool {
        let word = self.tail.load(Relaxed);
        word & CLOSED != 0 || self.slots.looks_free(position(word) + self.burst() - 1)
    }

    /// Claims up to `max` positions that are free in a row, at least one. A caller that is `patient` would rather wait for a burst than get less
    /// than that, or than `max`.
    #[inline]
    pub(crate) fn claim_run(&self, max: usize, patient: bool) -> Result<Claim<'_, T, A>, Refusal> {
        let most = (max as u64).min(self.capacity());
        let least = if patient { most.min(self.burst()) } else { 1 };
        loop {
            let enough = |word| run_of(self.slots.free_run(word, most)).filter(|&(n, _)| n >= least);
            let word = match self.tail.advance(enough) {
                // SAFETY: I1: the run is this thread's claim; each stamp said free (I3).
                Ok((t, n)) => return Ok(unsafe { Claim::new(&self.slots, t, n) }),
                Err(word) => word,
            };
            if word & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            if self.tail.load(Relaxed) == word {
                return Err(self.refusal(position(word)));
            }
        }
    }

    #[cold]
    fn refusal(&self, t: u64) -> Refusal {
        // A head that has passed the slot's last position means that its reader is leaving it right now.
        if self.start() + self.capacity() > t {
            Refusal::Busy
        } else {
            Refusal::Full(t)
        }
    }

    /// Takes the next value.
    #[inline(always)]
    pub(crate) fn take(&self) -> Result<(u64, T, Option<A>), Nothing> {
        let mut taken = None;
        self.take_run(1, |p, value, attachment| taken = Some((p, value, attachment)))?;
        Ok(taken.expect("a run has at least one value"))
    }

    /// Takes up to `max` values that are published in a row, at least one, handing each to `each`, which must not unwind.
    #[inline]
    pub(crate) fn take_run(&self, max: usize, mut each: impl FnMut(u64, T, Option<A>)) -> Result<usize, Nothing> {
        let most = (max as u64).min(self.capacity());
        loop {
            match self.head.advance(|word| run_of(self.slots.full_run(position(word), most))) {
                Ok((h, n)) => {
                    for p in h..h + n {
                        let stamp = self.slots.full(p).expect("full until its claimant takes it");
                        // SAFETY: `h..h + n` is this thread's claim, once each; the stamp was loaded full.
                        let (value, attachment) = unsafe { self.slots.take(p, stamp) };
                        self.slots.at(p).vacate_for(p + self.capacity());
                        each(p, value, attachment);
                    }
                    return Ok(n as usize);
                }
                Err(word) if self.head.load(Relaxed) == word => return Err(self.nothing(position(word))),
                Err(_) => {}
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
    pub(crate) fn why_nothing(&self) -> Nothing {
        self.nothing(self.start())
    }

    /// Whether the next position is published: a load or two that touch no line of the publishers but the slot.
    #[inline(always)]
    pub(crate) fn has_next(&self) -> bool {
        self.slots.full(position(self.head.load(Relaxed))).is_some()
    }

    /// Whether `pop` is likely to find something. Relaxed: the claim looks again.
    #[inline(always)]
    pub(crate) fn looks_plain(&self) -> bool {
        let word = self.head.load(Relaxed);
        self.slots.at(position(word)).is_plain_for(word)
    }

    /// For a reader about to sleep, after it has registered: whether there is something after all. See the table of orderings.
    pub(crate) fn recheck_items(&self) -> bool {
        let word = self.tail.settled();
        word & CLOSED != 0 || position(word) > self.start()
    }

    /// For a publisher about to sleep, after it has registered: whether there is room after all.
    pub(crate) fn recheck_space(&self) -> bool {
        let head = position(self.head.settled());
        let word = self.tail.load(Acquire);
        word & CLOSED != 0 || head + self.capacity() > position(word)
    }

    /// Accepts nothing from here on; what was accepted can still be taken.
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

    /// The position that is taken next.
    pub(crate) fn start(&self) -> u64 {
        position(self.head.load(Acquire))
    }
}

impl<T, A> Drop for Queue<T, A> {
    fn drop(&mut self) {
        // One by one, so that a payload that panics does not keep the others.
        while let Ok(taken) = self.take() {
            drop_contained(taken);
        }
    }
}
