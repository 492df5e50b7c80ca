//! How long to look again before sleeping.
//!
//! Being woken costs some 25 us on the way and the waker 8 to 10 us, two hundred times a hand-over that is looked for; but a
//! thread that looks burns a core. So: look for 1 to 2 us, let other threads run a few times in case the one that is
//! awaited shares this core, then sleep. Never sleep for a time.

use std::time::{Duration, Instant};

use crate::sync::{looks_first, pause, yield_now};

/// One wait's patience.
pub(crate) struct Spin {
    step: u32,
    yields: u32,
}

/// Looks at 1, 2, 4, 8, 16 and 16 pauses' distance: about 1.2 us where a pause is 25 ns. Under Miri a look takes a thousand
/// times as long, and what comes after it is to be tried.
const LOOKS: u32 = if cfg!(miri) { 1 } else { 7 };
/// How long a rest is. Receivers take some 10 ns for a message, so it is worth a burst.
const REST: Duration = Duration::from_micros(2);
/// How often other threads are let run.
const YIELDS: u32 = if cfg!(miri) { 1 } else { 4 };

impl Spin {
    pub(crate) const fn new() -> Self {
        Self { step: 0, yields: YIELDS }
    }

    /// Waits a little; `false` when patience is used up and the caller should sleep.
    pub(crate) fn spin(&mut self) -> bool {
        let step = self.step;
        self.step += 1;
        if cfg!(ringmq_loom) {
            if looks_first() {
                yield_now();
            }
            return looks_first() && step < 1;
        }
        if step < LOOKS {
            pause(1 << step.min(4));
            return true;
        }
        yield_now();
        step < LOOKS + self.yields
    }

    /// Waits a little for something that clears by itself: pauses at first, then lets other threads run, for as long as it takes.
    pub(crate) fn snooze(&mut self) {
        if cfg!(ringmq_loom) {
            return yield_now();
        }
        if !self.spin() {
            self.step = LOOKS;
        }
    }
}

/// How long a thread looks before it sleeps, as it has learnt.
///
/// Lying down costs as much as sleep: for the last look before it, the other cores are interrupted where a counter leans towards a thread (see
/// `ring::counter`), and publishers see somebody asleep. So after each time that this last look found something, the next wait lets other threads run
/// twice as often, and half as often after each sleep. Two subscriptions of one publisher on two cores got 1.67 times as many messages a second by
/// it, in batches of 32 1.87 times, and lay down a hundredth as often; four and eight of them 0.97 to 1.04 times (40 runs of 8 ms in turn; rustc 1.95, two
/// virtual cores of an AMD EPYC, 2026-11-23).
#[derive(Debug, Default)]
pub(crate) struct Wakefulness {
    doubled: u32,
}

/// How often the yields are doubled at most: some 30 us, what a sleep costs.
const DOUBLED_MAX: u32 = 4;

impl Wakefulness {
    pub(crate) const fn spin(&self) -> Spin {
        Spin {
            step: 0,
            yields: YIELDS << self.doubled,
        }
    }

    /// The same where several others have to run before there is something: it lets them run at once.
    pub(crate) const fn spin_in_a_crowd(&self) -> Spin {
        Spin {
            step: LOOKS,
            ..self.spin()
        }
    }

    /// The last look found something.
    pub(crate) fn lay_down_in_vain(&mut self) {
        self.doubled = (self.doubled + 1).min(DOUBLED_MAX);
    }

    pub(crate) const fn slept(&mut self) {
        self.doubled = self.doubled.saturating_sub(1);
    }
}

/// Whether it pays for a task to look again before it gives its thread to other tasks.
///
/// Where the other end runs on another thread, a few looks far apart find a whole burst, and a wake-up costs more. Where both ends share a thread
/// they find nothing, ever: so each time in a row that they do not, they are left out twice as often.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    missed: u32,
    left_out: u32,
}

/// How often a task looks, and at how many pauses' distance: closer, and it finds one message at a time.
const FAR_LOOKS: u32 = 3;
const FAR: u32 = 32;
/// At most every 64th time is tried where it has never paid.
const MISSED_MAX: u32 = 6;

impl Patience {
    /// That of whoever cannot remember whether it paid.
    pub(crate) const NONE: Self = Self {
        missed: 0,
        left_out: u32::MAX,
    };

    /// Looks for a few microseconds at most; whether it is there.
    #[cold]
    pub(crate) fn look(&mut self, mut is_there: impl FnMut() -> bool) -> bool {
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        // In a model, whoever looks again looks at the same.
        for _ in 0..if cfg!(ringmq_loom) { 0 } else { FAR_LOOKS } {
            pause(FAR);
            if is_there() {
                self.missed = 0;
                return true;
            }
        }
        self.missed = (self.missed + 1).min(MISSED_MAX);
        self.left_out = (1 << self.missed) - 1;
        false
    }
}

/// Lets other threads run, for two microseconds at least: where threads are more than cores, the one that is awaited may be waiting for this core;
/// where they are not, looking less often leaves it the cache lines that it works on.
pub(crate) fn rest() {
    if cfg!(ringmq_loom) {
        return yield_now();
    }
    let since = Instant::now();
    loop {
        yield_now();
        if since.elapsed() >= REST {
            return;
        }
    }
}

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;

    #[test]
    fn looking_that_never_pays_is_left_out_more_and_more() {
        let mut patience = Patience::default();
        let mut looks = 0;
        for _ in 0..1000 {
            let came = patience.look(|| {
                looks += 1;
                false
            });
            assert!(!came);
        }
        let times = looks / FAR_LOOKS;
        assert!((1000 / 64..=1000 / 64 + MISSED_MAX + 1).contains(&times), "{times} of 1000 times");
    }

    #[test]
    fn looking_that_paid_is_done_again_at_once() {
        let mut patience = Patience::default();
        assert!(!patience.look(|| false));
        assert!(!patience.look(|| true), "one is left out after one in vain");
        for _ in 0..100 {
            assert!(patience.look(|| true));
        }
    }

    fn waits(wakefulness: &Wakefulness) -> u32 {
        let mut spin = wakefulness.spin();
        (0..).take_while(|_| spin.spin()).count() as u32
    }

    #[test]
    fn who_lies_down_in_vain_stays_awake_for_longer_and_who_sleeps_does_not() {
        let mut wakefulness = Wakefulness::default();
        for doubled in [1, 2, 3, 4, 4, 4] {
            wakefulness.lay_down_in_vain();
            assert_eq!(waits(&wakefulness), LOOKS + (YIELDS << doubled));
        }
        for doubled in [3, 2, 1, 0, 0] {
            wakefulness.slept();
            assert_eq!(waits(&wakefulness), LOOKS + (YIELDS << doubled));
        }
    }

    #[test]
    fn who_cannot_remember_does_not_look() {
        let mut patience = Patience::NONE;
        assert!(!patience.look(|| unreachable!("it looked")));
    }
}
