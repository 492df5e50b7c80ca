//! The only door to atomics, cells, threads and locks.
//!
//! Everything above takes its synchronisation from here, so that a build with `--cfg ringmq_loom` runs the same code
//! under the loom model checker, which explores interleavings and weak-memory outcomes one by one.
#![forbid(unsafe_code)]

pub(crate) use self::imp::*;
pub(crate) use std::sync::{Arc, Weak};

#[cfg(ringmq_loom)]
mod weakened;

/// Locks that are the same in models: for parts that no model runs. And counters: for what one thread uses at a time, or a static, which a model's
/// cannot be.
pub(crate) mod plain {
    pub(crate) use parking_lot::{Condvar, Mutex};
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
}

#[cfg(not(ringmq_loom))]
mod imp {
    pub(crate) use crossbeam_utils::CachePadded;
    pub(crate) use parking_lot::Mutex;
    #[cfg(feature = "disk")]
    pub(crate) use parking_lot::MutexGuard;
    pub(crate) use std::hint::spin_loop;
    #[cfg(feature = "disk")]
    pub(crate) use std::sync::atomic::AtomicBool;
    #[cfg(not(miri))]
    pub(crate) use std::sync::atomic::compiler_fence;
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread;
    pub(crate) use std::thread::{park_timeout, yield_now};
    pub(crate) use std::thread_local;

    /// After how many changes in a row a counter leans towards a thread, at first; see `ring/counter.rs`. Fewer under Miri, where messages are few.
    pub(crate) const fn first_streak() -> u64 {
        if cfg!(miri) { 4 } else { 64 }
    }

    /// Waits for that many pauses: 25 to 50 ns each. Under Miri each gives way to other threads, so one is as good as many.
    pub(crate) fn pause(pauses: u32) {
        for _ in 0..if cfg!(miri) { 1 } else { pauses } {
            spin_loop();
        }
    }

    /// Whether a thread looks again before it sleeps: only a model may not.
    #[inline(always)]
    pub(crate) const fn looks_first() -> bool {
        true
    }

    /// A condition to wait for under a lock, with the shape of the one in `std`: the guard goes in and comes out.
    #[cfg(feature = "disk")]
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    #[cfg(feature = "disk")]
    impl Condvar {
        pub(crate) const fn new() -> Self {
            Self(parking_lot::Condvar::new())
        }

        pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(&mut guard);
            guard
        }

        pub(crate) fn wait_until<'a, T>(&self, mut guard: MutexGuard<'a, T>, deadline: std::time::Instant) -> MutexGuard<'a, T> {
            self.0.wait_until(&mut guard, deadline);
            guard
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// A lock and a condition for a crowd: all who wait are woken by one call of the system. Those of `parking_lot` hand on the lock from
    /// one to the next, which is one call and one switch each.
    #[cfg(feature = "disk")]
    pub(crate) mod crowd {
        use std::sync::{MutexGuard, PoisonError};

        #[derive(Debug, Default)]
        pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

        impl<T> Mutex<T> {
            pub(crate) const fn new(value: T) -> Self {
                Self(std::sync::Mutex::new(value))
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Condvar(std::sync::Condvar);

        impl Condvar {
            pub(crate) const fn new() -> Self {
                Self(std::sync::Condvar::new())
            }

            pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
                self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
            }

            pub(crate) fn notify_one(&self) {
                self.0.notify_one();
            }

            pub(crate) fn notify_all(&self) {
                self.0.notify_all();
            }
        }
    }

    /// A cell that is reached through closures, the shape that the model checker needs to see each access.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(ringmq_loom)]
mod imp {
    pub(crate) use super::weakened::{AtomicU64, AtomicUsize};
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::atomic::fence;
    pub(crate) use loom::thread::yield_now;

    pub(crate) fn pause(_pauses: u32) {
        yield_now();
    }

    /// That of the standard library, as far as it is used: the model checker's knows no constants.
    macro_rules! thread_local_of_a_model {
        ($(#[$attribute:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
            loom::thread_local! { $(#[$attribute])* static $name: $type = $value; }
        };
        ($($any:tt)*) => { loom::thread_local! { $($any)* } };
    }
    pub(crate) use thread_local_of_a_model as thread_local;

    /// Threads whose `park` keeps the token that `unpark` leaves. That of the model checker forgets it if the thread is just yielding, and
    /// unblocks a thread that waits for a lock.
    pub(crate) mod thread {
        use loom::sync::{Condvar, Mutex};

        #[cfg(test)]
        pub(crate) use loom::thread::spawn;

        #[derive(Clone)]
        pub(crate) struct Thread(super::super::Arc<Parker>);

        #[derive(Default)]
        struct Parker {
            token: Mutex<bool>,
            came: Condvar,
        }

        loom::thread_local! {
            static CURRENT: Thread = Thread(super::super::Arc::default());
        }

        pub(crate) fn current() -> Thread {
            CURRENT.with(Thread::clone)
        }

        pub(crate) fn park() {
            let Thread(parker) = current();
            let mut token = parker.token.lock().expect("a model does not go on after a panic");
            while !*token {
                token = parker.came.wait(token).expect("a model does not go on after a panic");
            }
            *token = false;
        }

        impl Thread {
            pub(crate) fn unpark(&self) {
                *self.0.token.lock().expect("a model does not go on after a panic") = true;
                self.0.came.notify_one();
            }
        }
    }

    /// Whether a thread looks again before it sleeps. To the model checker that is a yield: the others then run as far as they can, so hardly
    /// anybody sleeps while another goes on. With at most one preemption there are few enough executions to do without.
    pub(crate) fn looks_first() -> bool {
        static LOOKS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let bound = || std::env::var("LOOM_MAX_PREEMPTIONS").ok()?.parse().ok();
        *LOOKS.get_or_init(|| bound().unwrap_or(2) > 1)
    }

    std::thread_local! {
        /// Whether counters lean in the model that runs on this thread, whatever the bound.
        pub(crate) static LEANS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    /// In models a counter leans at once, or never: with more than one preemption there are too many executions, but for the models that are about it.
    /// `RINGMQ_LEAN` says always.
    pub(crate) fn first_streak() -> u64 {
        static ALWAYS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let always = *ALWAYS.get_or_init(|| std::env::var_os("RINGMQ_LEAN").is_some());
        if always || LEANS.get() || !looks_first() { 1 } else { u64::MAX }
    }

    /// Models know no time: a wait with a deadline may end at any moment.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        yield_now();
    }

    /// No padding: a model has no cache, and small states are explored faster.
    #[derive(Debug, Default)]
    pub(crate) struct CachePadded<T>(T);

    impl<T> CachePadded<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(value)
        }
    }

    impl<T> std::ops::Deref for CachePadded<T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }

    /// A lock with the non-poisoning face of the one used outside models. Not the model checker's own: that one poisons, and takes the
    /// unwinding of one modelled thread for that of all.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        taken: AtomicUsize,
        value: parking_lot::Mutex<T>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                taken: AtomicUsize::new(0),
                value: parking_lot::Mutex::new(value),
            }
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            loop {
                match self.try_lock() {
                    Some(guard) => return guard,
                    None => yield_now(),
                }
            }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
            Some(MutexGuard {
                value: Some(self.value.lock()),
                taken: &self.taken,
            })
        }
    }

    pub(crate) struct MutexGuard<'m, T> {
        value: Option<parking_lot::MutexGuard<'m, T>>,
        taken: &'m AtomicUsize,
    }

    impl<T> std::ops::Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.value.as_ref().expect("held until dropped")
        }
    }

    impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().expect("held until dropped")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            self.taken.store(0, Ordering::Release);
        }
    }
}
