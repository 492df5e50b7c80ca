//! The side store of a subscription that conflates: what a publisher moved it past, reduced to the last message of each key.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::delivery::conflate::Conflated;
use crate::delivery::lag::LagLog;
use crate::message::{Meta, MetaRef};
use crate::ring::{Overtaken, ReadAt, SideStore};
use crate::sync::{Arc, Mutex};

/// The side store of one subscription. Its lock is held while its cursor is moved on, so whoever finds the cursor behind finds the
/// messages here.
pub(crate) struct SideStoreOf<T> {
    clone: fn(&T) -> T,
    wanted: Box<dyn Fn(&T) -> bool + Send + Sync>,
    pub(crate) kept: Mutex<Kept<T>>,
}

pub(crate) struct Kept<T> {
    pub(crate) messages: Conflated<(T, MetaRef)>,
    pub(crate) lost: LagLog,
    /// How many the filter did not want.
    pub(crate) filtered: u64,
}

impl<T> Kept<T> {
    /// Empties the store: messages for the caller to drop, outside of the lock, and losses to tell.
    pub(crate) fn forget(&mut self) -> (Vec<(T, MetaRef)>, LagLog) {
        (self.messages.clear(), std::mem::take(&mut self.lost))
    }
}

impl<T> SideStoreOf<T> {
    pub(crate) fn new(keys: usize, clone: fn(&T) -> T, wanted: Box<dyn Fn(&T) -> bool + Send + Sync>) -> Self {
        Self {
            clone,
            wanted,
            kept: Mutex::new(Kept {
                messages: Conflated::new(keys),
                lost: LagLog::default(),
                filtered: 0,
            }),
        }
    }
}

impl<T: Send> SideStore<T, Arc<Meta>> for Arc<SideStoreOf<T>> {
    fn overtake(
        &self,
        advance: &mut dyn FnMut() -> Option<Overtaken>,
        read: &mut ReadAt<'_, T, Arc<Meta>>,
        gone: &mut Vec<(T, Option<Arc<Meta>>)>,
    ) {
        let mut kept = self.kept.lock();
        let Some(range) = advance() else { return };
        for p in range.from..range.to {
            read(p, &mut |value, meta| match self.reduce(&mut kept, p, value, meta) {
                Reduced::Nothing => {}
                Reduced::Unwanted => kept.filtered += 1,
                Reduced::Lost(at) => kept.lost.add(at, at + 1),
                Reduced::Replaced(at, old) => {
                    kept.lost.add(at, at + 1);
                    gone.push(old);
                }
            });
        }
    }
}

enum Reduced<T> {
    Nothing,
    Unwanted,
    Lost(u64),
    Replaced(u64, (T, MetaRef)),
}

impl<T> SideStoreOf<T> {
    fn reduce(&self, kept: &mut Kept<T>, p: u64, value: &T, meta: Option<&Arc<Meta>>) -> Reduced<T> {
        // No panic of the user's code may stop the scan: in the filter it counts as a match, in the clone the message is lost.
        if !catch_unwind(AssertUnwindSafe(|| (self.wanted)(value))).unwrap_or(true) {
            return Reduced::Unwanted;
        }
        let Ok(value) = catch_unwind(AssertUnwindSafe(|| (self.clone)(value))) else {
            return Reduced::Lost(p);
        };
        let key = meta.and_then(|m| m.key.as_deref()).unwrap_or_default();
        match kept.messages.keep(p, key, (value, meta.cloned())) {
            Some((at, old)) => Reduced::Replaced(at, old),
            None => Reduced::Nothing,
        }
    }
}
