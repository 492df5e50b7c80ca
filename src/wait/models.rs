//! Models of waiting: a variable that a waker raises by a read-modify-write, and an event for those who wait for it. See `crate::models`.

use std::time::Instant;

use crate::models::check;
use crate::sync::{Arc, AtomicUsize, CachePadded, Ordering::*, thread};
use crate::wait::{Event, Wake};

struct Counter {
    count: AtomicUsize,
    event: Event,
}

impl Counter {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            event: Event::new(&Arc::new(CachePadded::new(AtomicUsize::new(0)))),
        })
    }

    /// Raises the count; wakes one waiter if there is one.
    fn raise(&self) {
        self.count.fetch_add(1, AcqRel);
        if self.event.has_sleepers() {
            self.event.notify();
        }
    }

    /// Takes one, if there is one; wakes the next waiter if more is left.
    fn try_take(&self) -> bool {
        let taken = self.count.fetch_update(AcqRel, Acquire, |n| n.checked_sub(1));
        if taken.is_ok_and(|n| n > 1) && self.event.has_sleepers() {
            self.event.notify();
        }
        taken.is_ok()
    }

    /// Takes one, sleeping until there is one or `deadline` has come.
    fn take(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.try_take() {
                return true;
            }
            let key = self.event.listen(Wake::this_thread());
            if self.count.fetch_add(0, AcqRel) > 0 {
                self.event.cancel(key);
            } else if !self.event.park(key, deadline) {
                return self.try_take();
            }
        }
    }
}

/// A waker that unparks a thread.
struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> std::task::Waker {
    std::sync::Arc::new(Unpark(thread::current())).into()
}

#[test]
fn a_sleeper_is_woken_by_what_it_waits_for() {
    check(|| {
        let counter = Counter::new();
        let sleeper = {
            let counter = counter.clone();
            thread::spawn(move || assert!(counter.take(None)))
        };
        counter.raise();
        sleeper.join().unwrap();
        assert!(!counter.event.has_sleepers());
    });
}

#[test]
fn what_is_raised_twice_feeds_two() {
    check(|| {
        let counter = Counter::new();
        let sleeper = {
            let counter = counter.clone();
            thread::spawn(move || assert!(counter.take(None)))
        };
        counter.raise();
        counter.raise();
        assert!(counter.take(None));
        sleeper.join().unwrap();
    });
}

#[test]
fn whoever_times_out_passes_its_wake_up_on() {
    check(|| {
        let counter = Counter::new();
        let past = Instant::now();
        let sleeper = {
            let counter = counter.clone();
            thread::spawn(move || assert!(counter.take(None)))
        };
        let impatient = {
            let counter = counter.clone();
            thread::spawn(move || {
                if counter.take(Some(past)) {
                    // It was faster than the sleeper, for whom there is another one.
                    counter.raise();
                }
            })
        };
        counter.raise();
        sleeper.join().unwrap();
        impatient.join().unwrap();
    });
}

#[test]
fn a_waiter_that_is_cancelled_passes_its_wake_up_on() {
    check(|| {
        let counter = Counter::new();
        let cancelled = counter.event.listen(Wake::Task(waker()));
        let sleeper = {
            let counter = counter.clone();
            thread::spawn(move || assert!(counter.take(None)))
        };
        counter.raise();
        counter.event.cancel(cancelled);
        sleeper.join().unwrap();
    });
}

#[test]
fn everybody_is_woken_who_registered_before() {
    check(|| {
        let counter = Counter::new();
        let sleeper = {
            let counter = counter.clone();
            thread::spawn(move || {
                let key = counter.event.listen(Wake::this_thread());
                if counter.count.fetch_add(0, AcqRel) > 0 {
                    counter.event.cancel(key);
                } else {
                    counter.event.park(key, None);
                }
            })
        };
        let task = counter.event.listen(Wake::Task(waker()));
        counter.count.fetch_add(1, AcqRel);
        counter.event.notify_all();
        assert!(counter.event.is_woken(task));
        counter.event.finish(task);
        sleeper.join().unwrap();
        assert!(!counter.event.has_sleepers());
    });
}

#[test]
fn a_task_that_is_polled_with_another_waker_is_woken_by_the_latest() {
    check(|| {
        let counter = Counter::new();
        let key = counter.event.listen(Wake::Task(std::task::Waker::noop().clone()));
        let raising = {
            let counter = counter.clone();
            thread::spawn(move || counter.raise())
        };
        let waker = waker();
        while !counter.event.poll(key, &waker) {
            if counter.count.fetch_add(0, AcqRel) == 0 {
                thread::park();
            } else {
                crate::sync::yield_now();
            }
        }
        counter.event.finish(key);
        raising.join().unwrap();
        assert!(counter.try_take());
    });
}
