//! A claim: positions that a publisher owns from the moment it has claimed them until it has filled them.

use super::Slots;

/// Positions that a publisher owns and must fill.
#[must_use = "a claimed position that is never filled holds up every reader"]
pub(crate) struct Claim<'s, T, A> {
    slots: &'s Slots<T, A>,
    from: u64,
    len: u64,
}

impl<'s, T, A> Claim<'s, T, A> {
    /// The claim on `len` positions from `from` on.
    ///
    /// # Safety
    ///
    /// The caller has claimed them, once (I1), and they are vacant (I3).
    #[inline(always)]
    pub(super) unsafe fn new(slots: &'s Slots<T, A>, from: u64, len: u64) -> Self {
        Self { slots, from, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Publishes one value into a claim of one; returns its position.
    #[inline(always)]
    pub(crate) fn fill(self, value: T, attachment: Option<A>) -> u64 {
        debug_assert_eq!(self.len, 1);
        // SAFETY: I1, I3, by the contract of `new`; `self` is used up.
        unsafe { self.slots.publish(self.from, value, attachment) };
        self.from
    }

    /// Publishes these values, as many as were claimed, into the claim; returns the first position. A `Drain` runs no code of the user.
    ///
    /// First to last, so that a reader works on the first while the others are written: the other way round was measured at less than half
    /// the speed.
    #[inline(always)]
    pub(crate) fn fill_run(self, mut values: std::vec::Drain<'_, T>) -> u64 {
        assert_eq!(values.len() as u64, self.len, "a claim is as large as what it is filled with");
        let mut p = self.from;
        self.slots.run(self.from, self.len).for_each(|slot| {
            let Some(value) = values.next() else { return };
            // SAFETY: I1, I3, by the contract of `new`; `self` is used up, and each slot is filled once.
            unsafe { slot.publish_plain(p, value) };
            p += 1;
        });
        self.from
    }
}
