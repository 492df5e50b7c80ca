//! The slots of a ring: values, their stamps, and a side array for attachments.
//!
//! Attachments are rare, so a plain value pays nothing for them: a bit of the stamp says whether there is one, and the side
//! array is allocated when the first one is published.

use std::collections::TryReserveError;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::position;
use crate::sync::{AtomicU64, Ordering::*, UnsafeCell};

/// What the low three bits of a stamp say about its position. Other values never occur, which lets a comparison of the whole stamp with a
/// shifted tail or head word check the word's flag at the same time (see [`plain_stamp`] and [`free_stamp`]).
const FREE: u64 = 0;
const PLAIN: u64 = 1;
const WITH: u64 = 3;
const STATE: u64 = 7;

/// The stamp that a slot must have to be claimed by a publisher that read `tail`. If the word's flag is set, no slot has it.
#[inline(always)]
const fn free_stamp(tail: u64) -> u64 {
    tail << 2 | FREE
}

/// The stamp that a slot must have to be taken, without an attachment, by a reader that read `head` (a position shifted by a flag). If the
/// flag is set, no slot has it.
#[inline(always)]
const fn plain_stamp(head: u64) -> u64 {
    head << 2 | PLAIN
}

/// One cache line.
const LINE: usize = 64;

/// How many bytes ahead of a topic's reader.
#[cfg(all(target_arch = "x86_64", not(any(ringmq_loom, miri))))]
const FETCHED_AHEAD: usize = 2 * LINE;

/// How many bytes ahead of a queue's publisher, and of its reader.
pub(super) const OWNED_BY_PUBLISHER: usize = 2 * LINE;
pub(super) const OWNED_BY_READER: usize = LINE;

pub(super) struct Slot<T> {
    stamp: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// Whether a publisher that read `tail` may claim this slot; `false` if the ring is closed.
    #[inline(always)]
    pub(super) fn is_free_for(&self, tail: u64) -> bool {
        self.stamp.load(Acquire) == free_stamp(tail)
    }

    /// Whether a reader that read `head` finds a plain value here; `false` if the cursor is behind.
    #[inline(always)]
    pub(super) fn is_plain_for(&self, head: u64) -> bool {
        self.stamp.load(Acquire) == plain_stamp(head)
    }

    /// The same; if so, the stamp.
    #[inline(always)]
    pub(super) fn plain_for(&self, head: u64) -> Option<u64> {
        self.is_plain_for(head).then_some(plain_stamp(head))
    }

    /// Asks for the line that a reader comes to after the next, which a publisher on another core has written: it arrives while the reader works on
    /// the values before it. Nothing is read, so it does not matter whose that line is, or whether it belongs to the ring.
    ///
    /// A topic's single receives became 1.05 to 1.11 times as fast by it in three comparisons, batches of 32 1.09 to 1.15 times; four lines ahead
    /// gave less. A topic's publisher gained nothing from the like (100 to 250 runs of 8 ms in turn, one publisher and one subscriber; rustc 1.95, two
    /// virtual cores of an AMD EPYC, 2026-11-23). For queues see [`own_ahead`](Self::own_ahead).
    #[inline(always)]
    pub(super) fn fetch_ahead(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(ringmq_loom, miri))))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let ahead = std::ptr::from_ref(self).cast::<i8>().wrapping_add(FETCHED_AHEAD);
            // SAFETY: a hint, which touches no memory and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
        }
    }

    /// The same where both sides write to every slot, in a queue: asks for the line so that it can be written to.
    ///
    /// Two lines ahead of the publisher and one ahead of the reader, single messages became 1.06 to 1.20 times as fast, with acknowledgements 1.11 to
    /// 1.25 times (1 to 1, 1 to 4, 2 to 2, 4 to 1, 4 to 4; 80 runs of 8 ms in turn, on the machine above). To read only: 0.94 times. Two lines ahead of
    /// the reader as well: 0.93 times. Batches of 32: 0.79 to 0.89 times.
    /// All x86-64 processors since 2006 know the instruction or pass over it.
    #[inline(always)]
    pub(super) fn own_ahead<const BYTES: usize>(&self) {
        #[cfg(all(target_arch = "x86_64", not(any(ringmq_loom, miri))))]
        {
            let ahead = std::ptr::from_ref(self).cast::<u8>().wrapping_add(BYTES);
            // SAFETY: a hint, which changes no memory and faults at no address.
            unsafe { std::arch::asm!("prefetchw [{}]", in(reg) ahead, options(nostack, preserves_flags, readonly)) };
        }
    }

    /// Frees a slot whose stamp said that a plain value is there (queues only).
    #[inline(always)]
    pub(super) fn vacate(&self, plain: u64, lap: u64) {
        self.stamp.store(plain.wrapping_add(lap), Release);
    }

    /// Writes a plain value and publishes it as that of `p`.
    ///
    /// # Safety
    ///
    /// The caller holds the claim on `p`, this is its slot, and it is vacant (I1, I3).
    #[inline(always)]
    pub(super) unsafe fn publish_plain(&self, p: u64, value: T) {
        // SAFETY: I1: the claim makes this thread the slot's only one; I3: nobody still reads it.
        self.value.with_mut(|cell| unsafe { cell.cast::<T>().write(value) });
        self.stamp.store(p << 3 | PLAIN, Release);
    }

    /// Lends the value.
    ///
    /// # Safety
    ///
    /// The stamp was loaded full for a position of the caller, and the slot is kept meanwhile: by a line (I4), or by the scan (I5).
    #[inline(always)]
    pub(super) unsafe fn read_plain<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        self.value.with(|cell| {
            // SAFETY: I2: the stamp said full; I4 or I5 keeps it so.
            let value = unsafe { &*cell.cast::<T>() };
            read(value)
        })
    }

    /// Moves the value out.
    ///
    /// # Safety
    ///
    /// The stamp was loaded full for a position that the caller alone may take, and it does so once.
    #[inline(always)]
    pub(super) unsafe fn take_plain(&self) -> T {
        // SAFETY: I2: the value is there; taken once by contract.
        self.value.with_mut(|cell| unsafe { cell.cast::<T>().read() })
    }

    /// Frees the slot for position `next` (queues only; a window's slots are freed by `freed`).
    #[inline(always)]
    pub(super) fn vacate_for(&self, next: u64) {
        self.stamp.store(next << 3 | FREE, Release);
    }
}

/// Whether the slot has this stamp; the next position's is expected then.
#[inline(always)]
fn step_if<T>(expected: &mut u64, slot: &Slot<T>) -> bool {
    let same = slot.stamp.load(Acquire) == *expected;
    *expected += 1 << 3;
    same
}

type Attachments<A> = Box<[UnsafeCell<MaybeUninit<A>>]>;

/// A power of two of slots.
pub(super) struct Slots<T, A> {
    slots: Box<[Slot<T>]>,
    /// One less than there are slots.
    mask: usize,
    /// From the stamp of a plain value to that of its slot when it is free for the next lap.
    lap: u64,
    attachments: OnceLock<Attachments<A>>,
}

// SAFETY: a slot is reached by one thread at a time for writing (I1, I5) and the rings that own it hand out `&T` to several
// threads only where they were built for `T: Sync`.
unsafe impl<T: Send, A: Send> Send for Slots<T, A> {}
// SAFETY: as above; every access goes through a claim or an announced line.
unsafe impl<T: Send, A: Send> Sync for Slots<T, A> {}

impl<T, A> Slots<T, A> {
    /// Slots for positions from `start` on, each free for its first position; an error if there is no memory for them.
    pub(super) fn try_new(capacity: usize, start: u64) -> Result<Self, TryReserveError> {
        assert!(
            capacity.is_power_of_two(),
            "capacities are rounded up to a power of two by the layer above"
        );
        let mask = capacity as u64 - 1;
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity)?;
        let vacant: &mut [MaybeUninit<Slot<T>>] = slots.spare_capacity_mut();
        for (index, slot) in (0..).zip(&mut vacant[..capacity]) {
            let first: u64 = start + (u64::wrapping_sub(index, start) & mask);
            let slot = slot.as_mut_ptr();
            // In place: a slot may be larger than the stack.
            // SAFETY: the slot is inside the vector's room.
            let stamp = unsafe { &raw mut (*slot).stamp };
            // SAFETY: aligned as part of a slot, and nobody else's yet.
            unsafe { stamp.write(AtomicU64::new(first << 3 | FREE)) };
            // Outside of models the cell is as uninitialised as what it holds.
            if cfg!(ringmq_loom) {
                // SAFETY: as for the stamp.
                let value = unsafe { &raw mut (*slot).value };
                // SAFETY: as for the stamp.
                unsafe { value.write(UnsafeCell::new(MaybeUninit::uninit())) };
            }
        }
        // SAFETY: that many were reserved, and their stamps written; their values need no initialisation.
        unsafe { slots.set_len(capacity) };
        Ok(Self {
            slots: slots.into_boxed_slice(),
            mask: capacity - 1,
            lap: ((capacity as u64) << 3) + FREE - PLAIN,
            attachments: OnceLock::new(),
        })
    }

    /// How many bytes one slot takes.
    pub(super) const fn bytes() -> usize {
        size_of::<Slot<T>>()
    }

    #[inline(always)]
    pub(super) fn capacity(&self) -> u64 {
        self.mask as u64 + 1
    }

    #[inline(always)]
    fn index(&self, p: u64) -> usize {
        (p as usize) & self.mask
    }

    /// See [`Slot::vacate`].
    #[inline(always)]
    pub(super) fn lap(&self) -> u64 {
        self.lap
    }

    /// The slot of position `p`.
    #[inline(always)]
    pub(super) fn at(&self, p: u64) -> &Slot<T> {
        // SAFETY: the mask keeps the index below the length.
        unsafe { self.slots.get_unchecked(self.index(p)) }
    }

    /// The slots of `len` positions from `from` on, at most one lap.
    #[inline(always)]
    pub(super) fn run(&self, from: u64, len: u64) -> impl Iterator<Item = &Slot<T>> {
        let first = self.index(from);
        let (before, tail) = self.slots.split_at(first);
        let len = len as usize;
        let (head, wrapped) = (len.min(tail.len()), len.saturating_sub(tail.len()).min(first));
        tail[..head].iter().chain(&before[..wrapped])
    }

    /// How many positions from `from` on are free in a row, at most `most`. `tail` is the word that was read.
    #[inline(always)]
    pub(super) fn free_run(&self, tail: u64, most: u64) -> u64 {
        let mut stamp = free_stamp(tail);
        self.run(position(tail), most).take_while(|slot| step_if(&mut stamp, slot)).count() as u64
    }

    /// How many positions hold plain values in a row, at most `most`. `head` is the word that was read.
    #[inline(always)]
    pub(super) fn plain_run(&self, head: u64, most: u64) -> u64 {
        let mut stamp = plain_stamp(head);
        self.run(position(head), most).take_while(|slot| step_if(&mut stamp, slot)).count() as u64
    }

    /// How many positions from `from` on are published in a row, at most `most`.
    #[inline(always)]
    pub(super) fn full_run(&self, from: u64, most: u64) -> u64 {
        (from..from + most).take_while(|&p| self.full(p).is_some()).count() as u64
    }

    /// Whether the slot of `p` looks free for it. Relaxed: the claim looks again.
    #[inline(always)]
    pub(super) fn looks_free(&self, p: u64) -> bool {
        self.at(p).stamp.load(Relaxed) == p << 3 | FREE
    }

    /// The stamp of `p`, if `p` is published; Acquire, so the value may be read (I2).
    #[inline(always)]
    pub(super) fn full(&self, p: u64) -> Option<u64> {
        let stamp = self.at(p).stamp.load(Acquire);
        (stamp & !(WITH - PLAIN) == p << 3 | PLAIN).then_some(stamp)
    }

    /// Makes room for attachments. Called before a claim, because it allocates.
    pub(super) fn prepare_attachments(&self) {
        self.attachments
            .get_or_init(|| self.slots.iter().map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect());
    }

    /// Writes the value of `p` and publishes it.
    ///
    /// # Safety
    ///
    /// The caller holds the claim on `p`, and slot `p` is vacant (I1, I3). With an attachment, `prepare_attachments` was called.
    #[inline(always)]
    pub(super) unsafe fn publish(&self, p: u64, value: T, attachment: Option<A>) {
        let slot = self.at(p);
        let Some(attachment) = attachment else {
            // SAFETY: this function's contract.
            return unsafe { slot.publish_plain(p, value) };
        };
        // SAFETY: I1: the claim makes this thread the slot's only one; I3: nobody still reads it.
        slot.value.with_mut(|cell| unsafe { cell.cast::<T>().write(value) });
        let side = self.attachments.get().expect("attachments were prepared before the claim");
        // SAFETY: I1, I3, as for the value.
        side[self.index(p)].with_mut(|cell| unsafe { cell.cast::<A>().write(attachment) });
        slot.stamp.store(p << 3 | WITH, Release);
    }

    /// Lends the value of `p`.
    ///
    /// # Safety
    ///
    /// `stamp` came from `full(p)`, and the slot is kept meanwhile: by a line (I4), or because the caller is the scan (I5).
    #[inline(always)]
    pub(super) unsafe fn read<R>(&self, p: u64, stamp: u64, read: impl FnOnce(&T, Option<&A>) -> R) -> R {
        let look = |value: &T| {
            if stamp & STATE == PLAIN {
                return read(value, None);
            }
            let side = self
                .attachments
                .get()
                .expect("a stamp with an attachment comes after the side array");
            side[self.index(p)].with(|cell| {
                // SAFETY: I2, I4: published and kept together with the value.
                let attachment = unsafe { &*cell.cast::<A>() };
                read(value, Some(attachment))
            })
        };
        // SAFETY: this function's contract.
        unsafe { self.at(p).read_plain(look) }
    }

    /// Moves the value of `p` out. The slot counts as vacant afterwards.
    ///
    /// # Safety
    ///
    /// `stamp` came from `full(p)`, the caller alone may take `p` (a queue's claim, or I5), and it does so once.
    #[inline(always)]
    pub(super) unsafe fn take(&self, p: u64, stamp: u64) -> (T, Option<A>) {
        // SAFETY: this function's contract.
        let value = unsafe { self.at(p).take_plain() };
        if stamp & STATE == PLAIN {
            return (value, None);
        }
        let side = self
            .attachments
            .get()
            .expect("a stamp with an attachment comes after the side array");
        // SAFETY: I2: published together with the value; taken once by contract.
        let attachment = side[self.index(p)].with_mut(|cell| unsafe { cell.cast::<A>().read() });
        (value, Some(attachment))
    }

    /// Whether taking values out is worth it: a plain value without attachments has nothing to drop.
    #[inline(always)]
    pub(super) fn needs_drop(&self) -> bool {
        std::mem::needs_drop::<T>() || self.attachments.get().is_some()
    }
}
