//! An event: who waits, and waking them.

use std::task::Waker;
use std::time::Instant;

pub(crate) use super::list::Key;
use super::list::List;
use crate::sync::{Arc, AtomicUsize, CachePadded, Mutex, Ordering::*, park_timeout, thread};
use crate::user_code::{contained, drop_contained};

/// How to wake one waiter.
#[derive(Clone)]
pub(crate) enum Wake {
    Thread(thread::Thread),
    Task(Waker),
    /// A task whose place belongs to a stream or a sink, not to a future: it may have gone on to something else and never come back. So it uses up
    /// no wake-up that is meant for one.
    Standing(Waker),
}

impl Wake {
    /// Wakes the calling thread.
    pub(crate) fn this_thread() -> Self {
        Self::Thread(thread::current())
    }

    /// Wakes. A waker that panics counts as called: whoever wakes has others to wake, and its own call to finish.
    fn wake(self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) | Self::Standing(waker) => {
                contained(|| waker.wake());
            }
        }
    }

    /// Wakes a task; `stands` as in [`Wake::Standing`].
    pub(crate) fn task(waker: &Waker, stands: bool) -> Self {
        if stands {
            Self::Standing(waker.clone())
        } else {
            Self::Task(waker.clone())
        }
    }
}

/// How many sleep on any of several events: one load tells a waker that it has nothing to do.
pub(crate) type Sleepers = Arc<CachePadded<AtomicUsize>>;

/// Something that threads and tasks wait for.
pub(crate) struct Event {
    /// Registered and not yet woken.
    asleep: AtomicUsize,
    /// The same, summed up over the events that share it.
    sleepers: Sleepers,
    list: Mutex<List>,
}

impl Event {
    pub(crate) fn new(sleepers: &Sleepers) -> Self {
        Self {
            asleep: AtomicUsize::new(0),
            sleepers: sleepers.clone(),
            list: Mutex::new(List::new()),
        }
    }

    /// Whether somebody waits here. Relaxed: see the protocol in the module's header.
    #[inline(always)]
    pub(crate) fn has_sleepers(&self) -> bool {
        self.asleep.load(Relaxed) != 0
    }

    /// Registers a waiter. It must re-check what it waits for before it sleeps.
    pub(crate) fn listen(&self, wake: Wake) -> Key {
        let mut list = self.list.lock();
        self.asleep.fetch_add(1, Relaxed);
        self.sleepers.fetch_add(1, Relaxed);
        list.push(wake)
    }

    /// Whether the waiter was woken.
    pub(crate) fn is_woken(&self, key: Key) -> bool {
        self.list.lock().is_woken(key)
    }

    /// For a task that is polled again: keeps it registered, with its latest waker. `true` if it was woken meanwhile.
    pub(crate) fn poll(&self, key: Key, waker: &Waker) -> bool {
        let stands = {
            let list = self.list.lock();
            match list.wake(key) {
                None => return true,
                Some(Wake::Task(old) | Wake::Standing(old)) if old.will_wake(waker) => return false,
                Some(wake) => matches!(wake, Wake::Standing(_)),
            }
        };
        let new = Wake::task(waker, stands);
        let mut list = self.list.lock();
        let woken = list.is_woken(key);
        let old = list.replace(key, new);
        drop(list);
        drop_contained(old);
        woken
    }

    /// Sleeps, as the thread that registered `key`, until it is woken or `deadline` has come; `false` then. The waiter is removed.
    pub(crate) fn park(&self, key: Key, deadline: Option<Instant>) -> bool {
        loop {
            if self.is_woken(key) {
                self.finish(key);
                return true;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => {
                    self.cancel(key);
                    return false;
                }
                Some(left) => park_timeout(left),
                None => thread::park(),
            }
        }
    }

    /// Removes a waiter that goes on to look for itself.
    pub(crate) fn finish(&self, key: Key) {
        let _ = self.remove(key);
    }

    /// Removes a waiter that leaves without looking: if it was woken, somebody else is woken instead.
    pub(crate) fn cancel(&self, key: Key) {
        if self.remove(key) {
            self.notify();
        }
    }

    /// Removes a waiter; whether it had been woken.
    fn remove(&self, key: Key) -> bool {
        let mut list = self.list.lock();
        let wake = list.remove(key);
        if wake.is_some() {
            self.asleep.fetch_sub(1, Relaxed);
            self.sleepers.fetch_sub(1, Relaxed);
        }
        drop(list);
        let woken = wake.is_none();
        drop_contained(wake);
        woken
    }

    /// Wakes one waiter that was not woken yet, and those before it that may not listen any more (see [`Wake::Standing`]).
    #[cold]
    pub(crate) fn notify(&self) {
        // Not those who come meanwhile: one that is woken may be back at once.
        for _ in 0..self.registered() {
            let wake = {
                let mut list = self.list.lock();
                let wake = list.wake_first();
                if wake.is_some() {
                    self.asleep.fetch_sub(1, Relaxed);
                    self.sleepers.fetch_sub(1, Relaxed);
                }
                wake
            };
            let Some(wake) = wake else { return };
            let stands = matches!(wake, Wake::Standing(_));
            wake.wake();
            if !stands {
                return;
            }
        }
    }

    /// Wakes everybody who is registered now. Who registers meanwhile is not waited for: a waiter that looks in vain and sleeps again would
    /// keep this call from ending.
    #[cold]
    pub(crate) fn notify_all(&self) {
        for _ in 0..self.registered() {
            self.notify();
        }
    }

    /// How many wait, ordered with every registration by the list's lock.
    fn registered(&self) -> usize {
        let _list = self.list.lock();
        self.asleep.load(Relaxed)
    }
}
