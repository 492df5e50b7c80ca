//! A timer: calls things when their time has come. Its thread exists only while something is scheduled, and not at all for a clock that
//! is moved by hand and says so itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sync::{Arc, Weak, plain};
use crate::time::{Clock, Timestamp};
use crate::user_code::contained;

/// Something that has things to do at certain times.
pub(crate) trait Fire: Send + Sync {
    /// Does what is due at `now`; returns when there is more to do.
    fn fire(&self, now: Timestamp) -> Option<Timestamp>;
}

/// Calls [`Fire::fire`] at the scheduled times, by a clock.
pub(crate) struct Timer {
    clock: Arc<dyn Clock>,
    state: plain::Mutex<State>,
    changed: plain::Condvar,
}

#[derive(Default)]
struct State {
    heap: BinaryHeap<Reverse<Entry>>,
    running: bool,
    watching: bool,
    stopped: bool,
}

struct Entry {
    due: Timestamp,
    target: Weak<dyn Fire>,
}

impl Timer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: plain::Mutex::default(),
            changed: plain::Condvar::new(),
        })
    }

    /// Calls `target` at `due`, if it still exists then.
    pub(crate) fn schedule(self: &Arc<Self>, due: Timestamp, target: Weak<dyn Fire>) {
        if cfg!(ringmq_loom) || due == Timestamp::MAX {
            return;
        }
        let by_hand = self.clock.sleep_until(due).is_none();
        let mut state = self.state.lock();
        if state.stopped {
            return;
        }
        let first = state.heap.peek().is_none_or(|Reverse(entry)| due < entry.due);
        state.heap.push(Reverse(Entry { due, target }));
        let watch = !std::mem::replace(&mut state.watching, true);
        let start = !by_hand && !std::mem::replace(&mut state.running, true);
        drop(state);
        if watch {
            let timer = Arc::downgrade(self);
            self.clock.watch(Arc::new(move || {
                if let Some(timer) = timer.upgrade() {
                    timer.fire_due();
                }
            }));
        }
        if by_hand {
            // It may have been moved before it was told to call.
            if due <= self.clock.now() {
                self.fire_due();
            }
        } else if start {
            self.start();
        } else if first {
            self.changed.notify_one();
        }
    }

    /// Forgets what was scheduled for `target`, which has nothing to do any more.
    pub(crate) fn forget(&self, target: &Weak<dyn Fire>) {
        self.state
            .lock()
            .heap
            .retain(|Reverse(entry)| !std::ptr::addr_eq(entry.target.as_ptr(), target.as_ptr()));
        self.changed.notify_one();
    }

    /// Forgets everything: nobody is left who could want it.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        let heap = std::mem::take(&mut state.heap);
        drop(state);
        drop(heap);
        self.changed.notify_one();
    }

    fn start(self: &Arc<Self>) {
        let timer = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("ringmq-timer".into()).spawn(move || {
            while let Some(timer) = timer.upgrade() {
                timer.fire_due();
                if !timer.sleep() {
                    return;
                }
            }
        });
        if thread.is_err() {
            // No thread to be had now: the next thing scheduled tries again.
            self.state.lock().running = false;
        }
    }

    /// Sleeps until something may be due; `false` if nothing is scheduled any more, and the thread is to end.
    fn sleep(&self) -> bool {
        let mut state = self.state.lock();
        let Some(Reverse(next)) = state.heap.peek() else {
            state.running = false;
            return false;
        };
        let wait = self.clock.sleep_until(next.due).unwrap_or_default();
        let _ = self.changed.wait_for(&mut state, wait);
        true
    }

    /// Calls everything that is due. Nothing is locked meanwhile.
    pub(crate) fn fire_due(self: &Arc<Self>) {
        loop {
            let now = self.clock.now();
            let target = {
                let mut state = self.state.lock();
                match state.heap.peek() {
                    Some(Reverse(entry)) if entry.due <= now => state.heap.pop().map(|Reverse(entry)| entry.target),
                    _ => None,
                }
            };
            let Some(target) = target else { break };
            let Some(target) = target.upgrade() else { continue };
            let mut next = None;
            // What it calls may drop payloads and call wakers, which are code of the user; others wait for this thread.
            contained(|| next = target.fire(now));
            if let Some(next) = next {
                self.schedule(next, Arc::downgrade(&target));
            }
        }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}
