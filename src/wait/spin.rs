//! How long to look again before sleeping.
//!
//! Being woken costs some 25 us on the way and the waker 8 to 10 us, two hundred times a hand-over that is looked for; but a
//! thread that looks burns a core. So: look for 1 to 2 us, let other threads run a few times in case the one that is
//! awaited shares this core, then sleep. Never sleep for a time.

use std::time::{Duration, Instant};

use crate::sync::{looks_first, spin_loop, yield_now};

/// One wait's patience.
pub(crate) struct Spin {
    step: u32,
}

/// Looks at 1, 2, 4, 8, 16 and 16 pauses' distance: about 1.2 us where a pause is 25 ns.
const LOOKS: u32 = 7;
/// How long a rest is. Receivers take some 10 ns for a message, so it is worth a burst.
const REST: Duration = Duration::from_micros(2);
/// How often other threads are let run.
const YIELDS: u32 = 4;

impl Spin {
    pub(crate) const fn new() -> Self {
        Self { step: 0 }
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
            for _ in 0..1 << step.min(4) {
                spin_loop();
            }
            return true;
        }
        yield_now();
        step < LOOKS + YIELDS
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

/// Waits for that many pauses: 25 to 50 ns each.
pub(crate) fn pause(pauses: u32) {
    if cfg!(ringmq_loom) {
        return yield_now();
    }
    for _ in 0..pauses {
        spin_loop();
    }
}
