//! What is kept for a subscription that was moved past messages: of one that conflates, the last message of each key; of one that drops, only what
//! comes next.
//!
//! What comes next is set aside when a loss is told, so that it cannot be lost in its turn before it is received: a loss is followed by a message,
//! however much is published between two receives.

use std::collections::VecDeque;

use crate::delivery::conflate::Conflated;
use crate::delivery::lag::{LagLog, Lagged};
use crate::message::{Meta, MetaRef};
use crate::ring::{Cursor, Line, Nothing, Overtaken, ReadAt, SideStore, Window};
use crate::sync::{Arc, Mutex};
use crate::topic::seat::LOOKS;
use crate::topic::shared::Taken;
use crate::user_code::{attempted, drop_each};

/// The side store of one subscription. If it conflates, the lock is held while its cursor is moved on, so whoever finds the cursor behind finds
/// the messages here.
pub(crate) struct SideStoreOf<T> {
    clone: fn(&T) -> T,
    wanted: Box<dyn Fn(&T) -> bool + Send + Sync>,
    pub(crate) kept: Mutex<Kept<T>>,
}

pub(crate) struct Kept<T> {
    messages: Conflated<(T, MetaRef)>,
    lost: LagLog,
    /// Losses that are told before `next`.
    telling: LagLog,
    /// What comes next: no loss noted since is told before it. Of one that drops, as many as were asked for when a loss was found.
    next: VecDeque<(u64, (T, MetaRef))>,
    /// How many the filter did not want.
    pub(crate) filtered: u64,
}

/// What a receiver gets that finds its subscription behind.
pub(crate) enum Next<T> {
    Lagged(Lagged),
    Message(Taken<T>),
    /// It comes by itself.
    Busy,
    /// Nothing: the ring is next.
    Nothing,
}

impl<T> Kept<T> {
    /// Empties the store: messages for the caller to drop, outside of the lock, and losses to tell.
    pub(crate) fn forget(&mut self) -> (Vec<(T, MetaRef)>, [LagLog; 2]) {
        let mut messages = self.messages.clear();
        messages.extend(self.next.drain(..).map(|(_, message)| message));
        (messages, [std::mem::take(&mut self.telling), std::mem::take(&mut self.lost)])
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.next.len()
    }

    /// How many are lost, of those not told yet.
    pub(crate) fn lost(&self) -> u64 {
        self.telling.total() + self.lost.total()
    }

    fn has_next(&self) -> bool {
        !self.next.is_empty() || !self.telling.is_empty()
    }

    /// What the receiver gets; it leaves the ring to others once there is nothing more here.
    fn pop(&mut self, cursor: &Cursor<T, Arc<Meta>>) -> Next<T> {
        let next = match self.telling.pop() {
            Some(lagged) => Next::Lagged(lagged),
            None => self.next.pop_front().map_or(Next::Nothing, |(offset, (value, meta))| {
                Next::Message(Taken { offset, value, meta })
            }),
        };
        if !self.has_next() && self.messages.len() == 0 && self.lost.is_empty() {
            cursor.clear_behind();
        }
        next
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        drop_each(self.forget().0);
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
                telling: LagLog::default(),
                next: VecDeque::new(),
                filtered: 0,
            }),
        }
    }

    /// What comes next of what conflation has kept.
    pub(crate) fn next_kept(&self, cursor: &Cursor<T, Arc<Meta>>) -> Next<T> {
        let mut kept = self.kept.lock();
        if !kept.has_next() {
            kept.telling = std::mem::take(&mut kept.lost);
            let next = kept.messages.pop();
            kept.next.extend(next);
        }
        kept.pop(cursor)
    }

    /// The next of what was set aside, if that goes on without a loss.
    pub(crate) fn one_more(&self, cursor: &Cursor<T, Arc<Meta>>) -> Option<Taken<T>> {
        let mut kept = self.kept.lock();
        if kept.next.is_empty() || !kept.telling.is_empty() {
            return None;
        }
        match kept.pop(cursor) {
            Next::Message(taken) => Some(taken),
            _ => None,
        }
    }

    /// What comes next where what the cursor was moved past is lost; up to `max` messages are set aside.
    pub(crate) fn next_behind(&self, window: &Window<T, Arc<Meta>>, (cursor, line): (&Cursor<T, Arc<Meta>>, &Line), max: usize) -> Next<T> {
        let mut kept = self.kept.lock();
        let next = match self.set_aside(&mut kept, window, (cursor, line), max) {
            Some(Nothing::Busy) => Next::Busy,
            _ => kept.pop(cursor),
        };
        drop(kept);
        window.left_empty_handed(cursor);
        next
    }

    /// Takes what comes next and the filter wants, if nothing is set aside, and notes the losses before it; or says why there is nothing.
    fn set_aside(
        &self,
        kept: &mut Kept<T>,
        window: &Window<T, Arc<Meta>>,
        (cursor, line): (&Cursor<T, Arc<Meta>>, &Line),
        max: usize,
    ) -> Option<Nothing> {
        for _ in 0..LOOKS {
            if !kept.next.is_empty() {
                return None;
            }
            let mut uncopied = LagLog::default();
            let (lost, taken) = window.catch_up(cursor, line, max as u64, |p, value, meta| match self.copy(value, meta) {
                Copied::Wanted(message) => kept.next.push_back((p, message)),
                Copied::Unwanted => kept.filtered += 1,
                Copied::Lost => uncopied.add(p, p + 1),
            });
            if let Some(range) = lost {
                kept.telling.add(range.from, range.to);
            }
            std::iter::from_fn(|| uncopied.pop()).for_each(|lagged| kept.telling.add_all(lagged));
            if let Err(nothing) = taken {
                return Some(nothing);
            }
        }
        Some(Nothing::Busy)
    }

    /// No panic of the user's code comes out of this: in the filter it counts as a match, in the clone the message is lost.
    fn copy(&self, value: &T, meta: Option<&Arc<Meta>>) -> Copied<T> {
        if !attempted(|| (self.wanted)(value)).unwrap_or(true) {
            return Copied::Unwanted;
        }
        match attempted(|| (self.clone)(value)) {
            Some(value) => Copied::Wanted((value, meta.cloned())),
            None => Copied::Lost,
        }
    }
}

/// What became of a message that was to be kept.
enum Copied<T> {
    Wanted((T, MetaRef)),
    Unwanted,
    Lost,
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
        let message = match self.copy(value, meta) {
            Copied::Wanted(message) => message,
            Copied::Unwanted => return Reduced::Unwanted,
            Copied::Lost => return Reduced::Lost(p),
        };
        let key = meta.and_then(|m| m.key.as_deref()).unwrap_or_default();
        match kept.messages.keep(p, key, message) {
            Some((at, old)) => Reduced::Replaced(at, old),
            None => Reduced::Nothing,
        }
    }
}
