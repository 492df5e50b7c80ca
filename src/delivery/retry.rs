//! Retry: how long a failed message waits, and when it has failed often enough.

use std::time::Duration;

/// How long a message waits after each failure.
///
/// The default is exponential from 100 ms, doubling up to 5 minutes, with full jitter: each wait is drawn evenly between zero and
/// the step, so that messages that failed together do not come back together.
///
/// # Examples
///
/// ```
/// use ringmq::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_secs(1)).without_jitter();
/// assert_eq!(backoff.step(1), Duration::from_millis(10));
/// assert_eq!(backoff.step(4), Duration::from_millis(80));
/// assert_eq!(backoff.step(60), Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: bool,
}

impl Backoff {
    /// Doubles from `first` with each failure, up to `max`.
    pub const fn exponential(first: Duration, max: Duration) -> Self {
        Self { first, max, jitter: true }
    }

    /// The same wait each time, without jitter.
    pub const fn fixed(wait: Duration) -> Self {
        Self {
            first: wait,
            max: wait,
            jitter: false,
        }
    }

    /// No wait: a failed message is delivered again at once.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// Waits for exactly the step.
    pub const fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The longest wait after this many failures.
    #[must_use]
    pub fn step(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.checked_mul(1 << doublings).unwrap_or(Duration::MAX).min(self.max)
    }

    /// The wait after this many failures; `random` is any number, evenly distributed.
    pub(crate) fn wait(&self, failures: u32, random: u64) -> Duration {
        let step = self.step(failures);
        if !self.jitter {
            return step;
        }
        let nanos = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(nanos) * u128::from(random)) >> 64) as u64)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(300))
    }
}

/// What becomes of a failed message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    Retry(Duration),
    DeadLetter,
}

/// Decides after the `failures`th failure.
pub(crate) fn after_failure(backoff: &Backoff, max_failures: u32, failures: u32, asked: Option<Duration>, random: u64) -> AfterFailure {
    if failures >= max_failures {
        AfterFailure::DeadLetter
    } else {
        AfterFailure::Retry(asked.unwrap_or_else(|| backoff.wait(failures, random)))
    }
}

/// Random numbers from a seed (SplitMix64, after Steele, Lea and Flood, 2014): for jitter, where speed and repeatability count.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_the_step_and_uses_all_of_it() {
        let backoff = Backoff::default();
        let mut random = Random::new(7);
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(3, random.next())).collect();
        let step = backoff.step(3);
        assert_eq!(step, Duration::from_millis(400));
        assert!(waits.iter().all(|w| *w <= step));
        assert!(waits.iter().any(|w| *w < step / 10) && waits.iter().any(|w| *w > step * 9 / 10));
    }

    #[test]
    fn the_step_never_overflows() {
        let backoff = Backoff::exponential(Duration::MAX, Duration::MAX);
        assert_eq!(backoff.step(u32::MAX), Duration::MAX);
        assert!(backoff.wait(u32::MAX, u64::MAX) <= Duration::MAX);
    }

    #[test]
    fn the_last_failure_goes_to_the_dead_letters_whatever_was_asked() {
        let backoff = Backoff::none();
        assert_eq!(after_failure(&backoff, 3, 2, None, 0), AfterFailure::Retry(Duration::ZERO));
        assert_eq!(
            after_failure(&backoff, 3, 2, Some(Duration::MAX), 0),
            AfterFailure::Retry(Duration::MAX)
        );
        assert_eq!(after_failure(&backoff, 3, 3, Some(Duration::ZERO), 0), AfterFailure::DeadLetter);
    }
}
