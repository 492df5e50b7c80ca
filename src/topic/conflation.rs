//! What is kept for a subscription that was moved past messages: of one that conflates, the last message of each key; of one that drops, only what
//! comes next.
//!
//! What comes next is set aside when a loss is told, so that it cannot be lost in its turn before it is received: a loss is followed by a message,
//! however much is published between two receives.
//!
//! Of one that drops, the receiver that sets something aside runs the filter and the clone without the lock, as everywhere: it claims the positions under
//! the lock, and says there how many it copies. Whoever else finds the subscription behind waits until that is done, because what is copied comes before
//! all that it could take.

use std::collections::VecDeque;

use crate::delivery::conflate::Conflated;
use crate::delivery::lag::{LagLog, Lagged};
use crate::delivery::parked::KEPT;
use crate::message::{Meta, MetaRef};
use crate::ring::{CaughtUp, Cursor, Line, Nothing, Overtaken, ReadAt, SideStore, Window};
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
    /// How many a receiver has claimed and copies now, to set them aside, while it does not hold the lock.
    copying: u64,
    /// How often this was emptied: what is being copied then is forgotten, too.
    emptied: u64,
    /// How many the filter did not want.
    pub(crate) filtered: u64,
}

/// What a receiver finds that finds its subscription behind.
pub(crate) enum Next {
    Lagged(Lagged),
    /// There is a message to [take](SideStoreOf::take).
    Message,
    /// It comes by itself.
    Busy,
    /// So far nothing but what the filter does not want.
    Unwanted,
    /// Nothing: the ring is next.
    Nothing,
}

/// What is being copied, without the lock.
struct Copying<'w, T> {
    caught_up: CaughtUp<'w, T, Arc<Meta>>,
    /// How often the store had been emptied when that began.
    emptied: u64,
    messages: VecDeque<(u64, (T, MetaRef))>,
}

/// What was kept for a subscription that is over, or goes on elsewhere.
pub(crate) struct Forgotten<T> {
    /// To be dropped, outside of the lock.
    pub(crate) messages: Vec<(T, MetaRef)>,
    /// How many were being copied; whoever copies them drops them.
    pub(crate) copying: u64,
    /// Not told yet.
    pub(crate) lost: [LagLog; 2],
}

impl<T> Kept<T> {
    /// Empties the store.
    pub(crate) fn forget(&mut self) -> Forgotten<T> {
        self.emptied += 1;
        let mut messages = self.messages.clear();
        messages.extend(std::mem::take(&mut self.next).into_iter().map(|(_, message)| message));
        Forgotten {
            messages,
            copying: std::mem::take(&mut self.copying),
            lost: [std::mem::take(&mut self.telling), std::mem::take(&mut self.lost)],
        }
    }

    pub(crate) fn len(&self) -> u64 {
        (self.messages.len() + self.next.len()) as u64 + self.copying
    }

    /// How many are lost, of those not told yet.
    pub(crate) fn lost(&self) -> u64 {
        self.telling.total() + self.lost.total()
    }

    fn has_next(&self) -> bool {
        !self.next.is_empty() || !self.telling.is_empty()
    }

    /// What the receiver gets of what is set aside.
    fn next(&mut self, cursor: &Cursor<T, Arc<Meta>>) -> Next {
        let next = match self.telling.pop() {
            Some(lagged) => Next::Lagged(lagged),
            None if self.next.is_empty() => Next::Nothing,
            None => return Next::Message,
        };
        self.leave(cursor);
        next
    }

    /// Leaves the ring to everybody once there is nothing more here.
    fn leave(&self, cursor: &Cursor<T, Arc<Meta>>) {
        debug_assert_eq!(self.copying, 0, "whoever copies comes first");
        if !self.has_next() && self.messages.len() == 0 && self.lost.is_empty() {
            cursor.clear_behind();
        }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        drop_each(self.forget().messages);
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
                copying: 0,
                emptied: 0,
                filtered: 0,
            }),
        }
    }

    /// What comes next of what conflation has kept.
    pub(crate) fn next_kept(&self, cursor: &Cursor<T, Arc<Meta>>) -> Next {
        let mut kept = self.kept.lock();
        if !kept.has_next() {
            kept.telling = std::mem::take(&mut kept.lost);
            let next = kept.messages.pop();
            kept.next.extend(next);
        }
        kept.next(cursor)
    }

    /// What comes next where what the cursor was moved past is lost; up to `max` messages are set aside.
    pub(crate) fn next_behind(&self, window: &Window<T, Arc<Meta>>, (cursor, line): (&Cursor<T, Arc<Meta>>, &Line), max: usize) -> Next {
        let mut looks = 0;
        let next = loop {
            if looks == LOOKS {
                break Next::Unwanted;
            }
            match self.claim(window, (cursor, line), max) {
                Ok(copying) => looks += u32::from(!self.set_aside(copying)),
                Err(next) => break next,
            }
        };
        window.left_empty_handed(cursor);
        next
    }

    /// The next of what is set aside, if no loss is to be told before it.
    pub(crate) fn take(&self, cursor: &Cursor<T, Arc<Meta>>) -> Option<Taken<T>> {
        let mut kept = self.kept.lock();
        if !kept.telling.is_empty() {
            return None;
        }
        let (offset, (value, meta)) = kept.next.pop_front()?;
        if kept.next.is_empty() && kept.next.capacity() > KEPT {
            kept.next.shrink_to(KEPT);
        }
        kept.leave(cursor);
        Some(Taken { offset, value, meta })
    }

    /// Claims what is to be set aside, if nothing is, and notes the loss before it; or says what the receiver gets instead.
    fn claim<'w>(
        &self,
        window: &'w Window<T, Arc<Meta>>,
        (cursor, line): (&Cursor<T, Arc<Meta>>, &'w Line),
        max: usize,
    ) -> Result<Copying<'w, T>, Next> {
        let mut kept = self.kept.lock();
        if kept.copying > 0 {
            return Err(Next::Busy);
        }
        if !kept.next.is_empty() {
            return Err(kept.next(cursor));
        }
        let (lost, claimed) = window.catch_up(cursor, line, max as u64);
        if let Some(range) = lost {
            kept.telling.add(range.from, range.to);
        }
        match claimed {
            Ok(caught_up) => {
                kept.copying = caught_up.count();
                Ok(Copying {
                    caught_up,
                    emptied: kept.emptied,
                    // Nothing is set aside while somebody copies: the room for it is used again.
                    messages: std::mem::take(&mut kept.next),
                })
            }
            Err(Nothing::Busy) => Err(Next::Busy),
            Err(_) => Err(kept.next(cursor)),
        }
    }

    /// Sets aside what the filter wants of what was claimed, unless the store was emptied meanwhile; whether that was anything.
    fn set_aside(&self, copying: Copying<'_, T>) -> bool {
        let Copying {
            caught_up,
            emptied,
            mut messages,
        } = copying;
        let (mut uncopied, mut unwanted) = (LagLog::default(), 0);
        caught_up.read(|p, value, meta| match self.copy(value, meta) {
            Copied::Wanted(message) => messages.push_back((p, message)),
            Copied::Unwanted => unwanted += 1,
            Copied::Lost => uncopied.add(p, p + 1),
        });
        let mut kept = self.kept.lock();
        if kept.emptied != emptied {
            drop(kept);
            drop_each(messages);
            return false;
        }
        kept.copying = 0;
        kept.filtered += unwanted;
        kept.telling.append(uncopied);
        kept.next = messages;
        !kept.next.is_empty()
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

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;
    use crate::ring::Start;

    #[test]
    fn a_large_batch_that_was_set_aside_gives_its_memory_back() {
        const CAPACITY: usize = 4 * KEPT;
        let window = Window::<u64, Arc<Meta>>::new(CAPACITY, 0);
        let (cursor, line) = (window.join_overtakable(Start::Oldest, None), window.line());
        let store = SideStoreOf::new(1, u64::clone, Box::new(|_| true));
        let mut limit = 0;
        for n in 0..2 * CAPACITY as u64 {
            let claim = window.claim_run(&mut limit, 1, false);
            claim.expect("nobody is waited for").fill(n, None);
        }
        assert!(matches!(store.next_behind(&window, (&cursor, &line), CAPACITY), Next::Lagged(_)));
        assert!(store.kept.lock().next.len() > KEPT);
        while store.take(&cursor).is_some() {}
        assert!(store.kept.lock().next.capacity() <= KEPT);
    }
}
