//! A ring with one cursor: values move out, and each slot is freed by its own stamp.
//!
//! Because nothing is cloned and nothing scanned, it takes any `T: Send`, drops promptly and is the fastest shape. A push
//! and a pop touch three shared lines: `tail` (publishers), `head` (readers) and the slot.

use std::collections::TryReserveError;

use super::{CLOSED, Claim, Nothing, Refusal, Rivalry, Slots, burst, position};
use crate::sync::{AtomicU64, CachePadded, Ordering::*};
use crate::user_code::drop_contained;

/// A bounded MPMC queue.
pub(crate) struct Queue<T, A> {
    /// The next position to claim, shifted by the close bit.
    tail: CachePadded<AtomicU64>,
    /// The next position to take.
    head: CachePadded<AtomicU64>,
    slots: Slots<T, A>,
}

impl<T: Send, A: Send> Queue<T, A> {
    /// A queue of `capacity` (a power of two) whose first position is `start`; an error if there is no memory for it.
    pub(crate) fn try_new(capacity: usize, start: u64) -> Result<Self, TryReserveError> {
        Ok(Self {
            tail: CachePadded::new(AtomicU64::new(start << 1)),
            head: CachePadded::new(AtomicU64::new(start)),
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

    /// See [`Slots::prepare_attachments`].
    pub(crate) fn prepare_attachments(&self) {
        self.slots.prepare_attachments();
    }

    /// Publishes a plain value, if nothing stands in the way: neither a full ring nor a closed one.
    #[inline(always)]
    pub(crate) fn push(&self, value: T) -> Result<u64, T> {
        let mut word = self.tail.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            let t = position(word);
            let slot = self.slots.at(t);
            if !slot.is_free_for(word) {
                return Err(value);
            }
            match self.tail.compare_exchange(word, word + 2, AcqRel, Relaxed) {
                Ok(_) => {
                    // SAFETY: I1: the CAS made `t` this thread's; its stamp said free (I3).
                    unsafe { slot.publish_plain(t, value) };
                    return Ok(t);
                }
                Err(_) => {
                    rivalry.step_back();
                    word = self.tail.load(Relaxed);
                }
            }
        }
    }

    /// Takes the next value, if it is there and plain.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<(u64, T)> {
        let mut h = self.head.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            let slot = self.slots.at(h);
            if !slot.is_plain_for(h << 1) {
                return None;
            }
            match self.head.compare_exchange(h, h + 1, AcqRel, Relaxed) {
                Ok(_) => {
                    // SAFETY: the CAS made `h` this thread's, once; the stamp was loaded full.
                    let value = unsafe { slot.take_plain() };
                    slot.vacate_for(h + self.capacity());
                    return Some((h, value));
                }
                Err(_) => {
                    rivalry.step_back();
                    h = self.head.load(Relaxed);
                }
            }
        }
    }

    /// Takes up to `max` plain values that are there in a row; `out` gets what `make`, which must not unwind, makes of each and its position.
    #[inline(always)]
    pub(crate) fn pop_run<R>(&self, max: usize, out: &mut Vec<R>, mut make: impl FnMut(u64, T) -> R) -> Option<usize> {
        let most = (max as u64).min(self.capacity());
        let mut h = self.head.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            let len = self.slots.plain_run(h << 1, most);
            if len == 0 {
                return None;
            }
            // Before the claim, because it may allocate.
            out.reserve(len as usize);
            match self.head.compare_exchange(h, h + len, AcqRel, Relaxed) {
                Ok(_) => {
                    let mut p = h;
                    out.extend(self.slots.run(h, len).map(|slot| {
                        // SAFETY: the CAS made `h..h + len` this thread's, once each; the stamps were loaded full.
                        let value = unsafe { slot.take_plain() };
                        slot.vacate_for(p + self.capacity());
                        let made = make(p, value);
                        p += 1;
                        made
                    }));
                    return Some(len as usize);
                }
                Err(_) => {
                    rivalry.step_back();
                    h = self.head.load(Relaxed);
                }
            }
        }
    }

    /// Whether there is room for a burst, or waiting for it is pointless. Looks at a slot that no reader is near.
    pub(crate) fn has_burst(&self) -> bool {
        let word = self.tail.load(Relaxed);
        word & CLOSED != 0 || self.slots.is_free(position(word) + burst(self.capacity()) - 1)
    }

    /// Claims up to `max` positions that are free in a row, at least one. A caller that is `patient` would rather wait for a burst than get less
    /// than that, or than `max`.
    #[inline]
    pub(crate) fn claim_run(&self, max: usize, patient: bool) -> Result<Claim<'_, T, A>, Refusal> {
        let mut word = self.tail.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            if word & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            let t = position(word);
            let most = (max as u64).min(self.capacity());
            let len = self.slots.free_run(word, most);
            let least = if patient { most.min(burst(self.capacity())) } else { 1 };
            if len >= least {
                match self.tail.compare_exchange(word, word + 2 * len, AcqRel, Relaxed) {
                    // SAFETY: I1: the CAS made `t..t + len` this thread's; each stamp said free (I3).
                    Ok(_) => return Ok(unsafe { Claim::new(&self.slots, t, len) }),
                    Err(_) => {
                        rivalry.step_back();
                        word = self.tail.load(Relaxed);
                    }
                }
                continue;
            }
            let now = self.tail.load(Relaxed);
            if now == word {
                return Err(self.refusal(t));
            }
            word = now;
        }
    }

    #[cold]
    fn refusal(&self, t: u64) -> Refusal {
        // A head that has passed the slot's last position means that its reader is leaving it right now.
        if self.head.load(Acquire) + self.capacity() > t {
            Refusal::Busy
        } else {
            Refusal::Full(t)
        }
    }

    /// Takes the next value.
    #[inline(always)]
    pub(crate) fn take(&self) -> Result<(u64, T, Option<A>), Nothing> {
        let mut h = self.head.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            if let Some(stamp) = self.slots.full(h) {
                match self.head.compare_exchange(h, h + 1, AcqRel, Relaxed) {
                    Ok(_) => {
                        // SAFETY: the CAS made `h` this thread's, once; the stamp was loaded full.
                        let (value, attachment) = unsafe { self.slots.take(h, stamp) };
                        self.slots.vacate(h);
                        return Ok((h, value, attachment));
                    }
                    Err(_) => {
                        rivalry.step_back();
                        h = self.head.load(Relaxed);
                    }
                }
                continue;
            }
            let now = self.head.load(Relaxed);
            if now == h {
                return Err(self.nothing(h));
            }
            h = now;
        }
    }

    /// Takes up to `max` values that are published in a row, at least one, handing each to `each`, which must not unwind.
    #[inline]
    pub(crate) fn take_run(&self, max: usize, mut each: impl FnMut(u64, T, Option<A>)) -> Result<usize, Nothing> {
        let mut h = self.head.load(Relaxed);
        let mut rivalry = Rivalry::new();
        loop {
            let most = (max as u64).min(self.capacity());
            let len = (h..h + most).take_while(|&p| self.slots.full(p).is_some()).count() as u64;
            if len > 0 {
                match self.head.compare_exchange(h, h + len, AcqRel, Relaxed) {
                    Ok(_) => {
                        for p in h..h + len {
                            let stamp = self.slots.full(p).expect("full until its claimant takes it");
                            // SAFETY: the CAS made `h..h + len` this thread's, once each; the stamp was loaded full.
                            let (value, attachment) = unsafe { self.slots.take(p, stamp) };
                            self.slots.vacate(p);
                            each(p, value, attachment);
                        }
                        return Ok(len as usize);
                    }
                    Err(_) => {
                        rivalry.step_back();
                        h = self.head.load(Relaxed);
                    }
                }
                continue;
            }
            let now = self.head.load(Relaxed);
            if now == h {
                return Err(self.nothing(h));
            }
            h = now;
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
        self.nothing(self.head.load(Acquire))
    }

    /// Whether the next position is published: a load or two that touch no line of the publishers but the slot.
    #[inline(always)]
    pub(crate) fn has_next(&self) -> bool {
        self.slots.full(self.head.load(Relaxed)).is_some()
    }

    /// For a reader about to sleep, after it has registered: whether there is something after all. See the table of orderings.
    pub(crate) fn recheck_items(&self) -> bool {
        let word = self.tail.fetch_add(0, AcqRel);
        word & CLOSED != 0 || position(word) > self.head.load(Acquire)
    }

    /// For a publisher about to sleep, after it has registered: whether there is room after all.
    pub(crate) fn recheck_space(&self) -> bool {
        let head = self.head.fetch_add(0, AcqRel);
        let word = self.tail.load(Acquire);
        word & CLOSED != 0 || head + self.capacity() > position(word)
    }

    /// Accepts nothing from here on; what was accepted can still be taken.
    pub(crate) fn close(&self) {
        self.tail.fetch_or(CLOSED, AcqRel);
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
        self.head.load(Acquire)
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
