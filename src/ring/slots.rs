//! The slots of a ring: values, their stamps, and a side array for attachments.
//!
//! Attachments are rare, so a plain value pays nothing for them: a bit of the stamp says whether there is one, and the side
//! array is allocated when the first one is published.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::sync::{AtomicU64, Ordering::*, UnsafeCell};

/// What the stamp of a slot says, relative to a position.
const FULL: u64 = 1;
const WITH: u64 = 2;

struct Slot<T> {
    stamp: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

type Attachments<A> = Box<[UnsafeCell<MaybeUninit<A>>]>;

/// A power of two of slots.
pub(super) struct Slots<T, A> {
    slots: Box<[Slot<T>]>,
    attachments: OnceLock<Attachments<A>>,
}

// SAFETY: a slot is reached by one thread at a time for writing (I1, I5) and the rings that own it hand out `&T` to several
// threads only where they were built for `T: Sync`.
unsafe impl<T: Send, A: Send> Send for Slots<T, A> {}
// SAFETY: as above; every access goes through a claim or an announced line.
unsafe impl<T: Send, A: Send> Sync for Slots<T, A> {}

impl<T, A> Slots<T, A> {
    /// Slots for positions from `start` on, each free for its first position.
    pub(super) fn new(capacity: usize, start: u64) -> Self {
        debug_assert!(capacity.is_power_of_two());
        let mask = capacity as u64 - 1;
        let slots = (0..capacity as u64)
            .map(|index| {
                let first = start + (index.wrapping_sub(start) & mask);
                Slot {
                    stamp: AtomicU64::new(first << 2),
                    value: UnsafeCell::new(MaybeUninit::uninit()),
                }
            })
            .collect();
        Self {
            slots,
            attachments: OnceLock::new(),
        }
    }

    #[inline(always)]
    pub(super) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    #[inline(always)]
    fn index(&self, p: u64) -> usize {
        // The length is a power of two, so this is a mask; written so, the bounds check goes away.
        (p as usize) & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn slot(&self, p: u64) -> &Slot<T> {
        &self.slots[self.index(p)]
    }

    #[inline(always)]
    pub(super) fn is_free(&self, p: u64) -> bool {
        self.slot(p).stamp.load(Acquire) == p << 2
    }

    /// The stamp of `p`, if `p` is published; Acquire, so the value may be read (I2).
    #[inline(always)]
    pub(super) fn full(&self, p: u64) -> Option<u64> {
        let stamp = self.slot(p).stamp.load(Acquire);
        (stamp | WITH == p << 2 | FULL | WITH).then_some(stamp)
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
        let slot = self.slot(p);
        // SAFETY: I1: the claim makes this thread the slot's only one; I3: nobody still reads it.
        slot.value.with_mut(|cell| unsafe { cell.cast::<T>().write(value) });
        let mut stamp = p << 2 | FULL;
        if let Some(attachment) = attachment {
            let side = self.attachments.get().expect("attachments were prepared before the claim");
            // SAFETY: I1, I3, as for the value.
            side[self.index(p)].with_mut(|cell| unsafe { cell.cast::<A>().write(attachment) });
            stamp |= WITH;
        }
        slot.stamp.store(stamp, Release);
    }

    /// Lends the value of `p`.
    ///
    /// # Safety
    ///
    /// `stamp` came from `full(p)`, and the slot is kept meanwhile: by a line (I4), or because the caller is the scan (I5).
    #[inline(always)]
    pub(super) unsafe fn read<R>(&self, p: u64, stamp: u64, read: impl FnOnce(&T, Option<&A>) -> R) -> R {
        self.slot(p).value.with(|cell| {
            // SAFETY: I2: the stamp says full; I4 or I5 keeps it so.
            let value = unsafe { &*cell.cast::<T>() };
            if stamp & WITH == 0 {
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
        })
    }

    /// Moves the value of `p` out. The slot counts as vacant afterwards.
    ///
    /// # Safety
    ///
    /// `stamp` came from `full(p)`, the caller alone may take `p` (a queue's claim, or I5), and it does so once.
    #[inline(always)]
    pub(super) unsafe fn take(&self, p: u64, stamp: u64) -> (T, Option<A>) {
        // SAFETY: I2: the value is there; taken once by contract.
        let value = self.slot(p).value.with_mut(|cell| unsafe { cell.cast::<T>().read() });
        if stamp & WITH == 0 {
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

    /// Frees the slot of `p` for the next lap (queues only; a window's slots are freed by `freed`).
    #[inline(always)]
    pub(super) fn vacate(&self, p: u64) {
        self.slot(p).stamp.store((p + self.capacity()) << 2, Release);
    }

    /// Whether taking values out is worth it: a plain value without attachments has nothing to drop.
    #[inline(always)]
    pub(super) fn needs_drop(&self) -> bool {
        std::mem::needs_drop::<T>() || self.attachments.get().is_some()
    }
}
