//! Waiting for space. What this log frees is told at once; what others free shows only by trying again, and that is not done too often.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// What is known about space that is short.
#[derive(Debug)]
pub(crate) struct Space {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    /// How often the log has freed some.
    freed: u64,
    /// When it was last tried to make a spare.
    tried: Option<Instant>,
}

impl Space {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State { freed: 0, tried: None }),
            freed: Condvar::new(),
        }
    }

    /// How often the log has freed some: to be asked before one tries, and handed to [`wait`](Self::wait).
    pub(crate) fn freed(&self) -> u64 {
        self.state.lock().freed
    }

    /// A file went away.
    pub(crate) fn free(&self) {
        let mut state = self.state.lock();
        state.freed += 1;
        state.tried = None;
        drop(state);
        self.freed.notify_all();
    }

    /// Tells whether trying to make a spare is worth it again, and takes it as tried.
    pub(crate) fn may_try(&self) -> bool {
        let mut state = self.state.lock();
        let is_early = state.tried.is_some_and(|at| at.elapsed() < RETRY);
        if !is_early {
            state.tried = Some(Instant::now());
        }
        !is_early
    }

    /// Waits until the log has freed some since `seen`, or others may have.
    pub(crate) fn wait(&self, seen: u64) {
        self.wait_until(seen, Instant::now() + RETRY);
    }

    fn wait_until(&self, seen: u64, deadline: Instant) {
        let mut state = self.state.lock();
        while state.freed == seen && Instant::now() < deadline {
            state = self.freed.wait_until(state, deadline);
        }
    }
}

/// How long to wait before looking for space again that others may have freed.
const RETRY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour: who is not woken does not come back.
    #[test]
    fn who_waits_is_woken_by_what_is_freed_also_before_the_waiting_began() {
        let (space, deadline) = (Space::new(), Instant::now() + Duration::from_secs(3600));
        let seen = space.freed();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| space.wait_until(seen, deadline));
            }
            space.free();
        });
        space.wait_until(0, deadline);
        assert_eq!(space.freed(), 1);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn what_retiring_and_rewriting_free_is_looked_for_at_once() {
        use crate::log::sim::SimDisk;
        use crate::log::{Level, Log, LogOptions, Prewrite, Record};
        use crate::sync::Arc;

        for rewrites in [false, true] {
            let disk = SimDisk::new(1);
            let options = LogOptions::new().segment_bytes(8192, 8192).prewrite(Prewrite::Never).seed(1);
            let (log, _) = Log::open(Arc::new(disk.clone()), "/log", options).expect("the disk is fine");
            let append = |offset| log.append(&[Record::new(1, offset, &[1; 300])], Level::Os);
            for offset in 0..60 {
                append(offset).expect("there is space");
            }
            disk.set_capacity(Some(0));
            while append(60).is_ok() {}
            let first = log.segments()[0].first;
            assert!(!log.shared.retry_spare(), "there is no space");
            let seen = log.shared.space.freed();
            disk.set_capacity(None); // so that only the time since the last trial is in the way
            if rewrites {
                log.rewrite(first..first + 1, |tag, _| tag.offset == 0, |_, _, _| {})
                    .expect("rewritten");
            } else {
                log.retire(first).expect("it is sealed");
            }
            assert!(log.shared.retry_spare(), "there is space, and that is known");
            assert!(log.shared.space.freed() > seen, "and told to those who wait");
        }
    }
}
