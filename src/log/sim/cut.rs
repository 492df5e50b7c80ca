//! What a power cut does to whatever was never synced.
#![forbid(unsafe_code)]

use super::rng::Rng;

/// One power cut: a manner, drawn once, so that the simple disasters (nothing arrived, all of it did, the first half)
/// turn up as often as the wild ones.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    manner: Manner,
    /// A moment that some manners split at.
    moment: u64,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Nothing unsynced arrived.
    Lost,
    /// Everything arrived: the promise alone is missing.
    Kept,
    /// What was written up to a moment arrived, nothing later did.
    Before,
    /// Reordered: what was last written after a moment arrived, nothing older did.
    After,
    /// Each sector and each name for itself: lost, or any content it had.
    Scattered,
    /// As scattered, and some were being written when the power went.
    Garbled,
}

pub(super) enum Fate {
    Lost,
    Version(usize),
    Garbled,
}

impl Cut {
    /// Draws a cut of a disk whose writes carry times below `now`.
    pub(super) fn draw(rng: &mut Rng, now: u64) -> Self {
        let manner = match rng.below(10) {
            0 => Manner::Lost,
            1 => Manner::Kept,
            2 | 3 => Manner::Before,
            4 => Manner::After,
            5 | 6 => Manner::Scattered,
            _ => Manner::Garbled,
        };
        // Recent moments are the interesting ones: older writes were mostly synced.
        let back = 1 << rng.below(7);
        let moment = now.saturating_sub(rng.below(back));
        Self { manner, moment }
    }

    /// What becomes of a thing that was changed at these times and never synced.
    pub(super) fn fate(&self, times: impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + Clone, rng: &mut Rng) -> Fate {
        let n = times.len();
        if n == 0 {
            return Fate::Lost;
        }
        match self.manner {
            Manner::Lost => Fate::Lost,
            Manner::Kept => Fate::Version(n - 1),
            Manner::Before => match times.clone().filter(|at| *at <= self.moment).count() {
                0 => Fate::Lost,
                arrived => Fate::Version(arrived - 1),
            },
            Manner::After => match times.clone().next_back() {
                Some(last) if last > self.moment => Fate::Version(n - 1),
                _ => Fate::Lost,
            },
            Manner::Scattered => scattered(n, rng),
            Manner::Garbled if rng.one_in(3) => Fate::Garbled,
            Manner::Garbled => scattered(n, rng),
        }
    }
}

fn scattered(n: usize, rng: &mut Rng) -> Fate {
    match rng.below(3) {
        0 => Fate::Lost,
        1 => Fate::Version(n - 1),
        _ => Fate::Version(rng.below(n as u64) as usize),
    }
}
