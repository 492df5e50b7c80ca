//! What a broker's topics have in common and depend on: clock, timer, events, randomness.
#![forbid(unsafe_code)]

use crate::events::Feed;
use crate::sync::{Arc, AtomicU64, Ordering::*};
use crate::time::{Clock, Timestamp};
use crate::wait::Timer;

/// What a broker's topics have in common.
pub(crate) struct Environment {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timer: Arc<Timer>,
    pub(crate) feed: Arc<Feed>,
    seed: AtomicU64,
}

impl Environment {
    pub(crate) fn new(clock: Arc<dyn Clock>, seed: u64) -> Arc<Self> {
        let timer = Timer::new(clock.clone());
        Arc::new(Self {
            clock,
            timer,
            feed: Arc::new(Feed::new()),
            seed: AtomicU64::new(seed),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A seed of one's own, which follows from the broker's. Relaxed: only distinctness counts.
    pub(crate) fn next_seed(&self) -> u64 {
        self.seed.fetch_add(1, Relaxed)
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.timer.stop();
    }
}
