//! Code of the user that runs inside a call which it must not end: wakers, and payloads that the ring drops on its own account.
//!
//! Whoever happens to be in that call has nothing to do with it: a panic there would take a message along that was just taken, or keep
//! others asleep. So it ends here; the panic hook has reported it by then.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` to its end or to its panic; whether it ended well.
#[inline]
pub(crate) fn contained(f: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => true,
        Err(panic) => {
            // What a panic carries is code of the user too: dropping it might panic again.
            std::mem::forget(panic);
            false
        }
    }
}

/// Runs `f`; what it returned, or `None` if it panicked.
#[inline]
pub(crate) fn attempted<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop_contained).ok()
}

/// Drops a value.
#[inline]
pub(crate) fn drop_contained<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        contained(|| drop(value));
    }
}

/// Drops all of these, each whatever the others do: of several in one collection, a second that panics would end the process.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) {
    let mut values = values.into_iter();
    while !contained(|| values.by_ref().for_each(drop)) {}
}

/// Drops all values, each whatever the others do, and leaves the vector's room.
#[inline]
pub(crate) fn clear_contained<T>(values: &mut Vec<T>) {
    if values.is_empty() {
        return;
    }
    values.reverse();
    while !contained(|| while values.pop().is_some() {}) {}
}
