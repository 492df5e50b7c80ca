//! Settling what was not acked: retries, dead letters, and deliveries whose time ran out.

use std::collections::VecDeque;
use std::time::Duration;

use crate::delivery::dead_letter::{DeadLetter, DeadReason};
use crate::delivery::lease::LeaseId;
use crate::delivery::retry::{AfterFailure, after_failure};
use crate::events::Event as Happened;
use crate::offset::Offset;
use crate::sync::{Arc, Ordering::*, Weak};
use crate::time::Timestamp;
use crate::topic::shared::LostOnUnwind;
use crate::topic::state::{Beside, Forward, Held, StoredLetter, SubscriptionState};
use crate::user_code::{clear_contained, drop_contained};
use crate::wait::Fire;

/// How a delivery failed.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    pub(crate) error: Option<String>,
    /// How long to wait before it is delivered again, if the handler said so.
    pub(crate) wait: Option<Duration>,
    /// To the dead letters at once, for this reason.
    pub(crate) dead: Option<DeadReason>,
}

impl<T: Send + 'static> SubscriptionState<T> {
    /// One delivery failed: the message is parked, or goes to the dead letters.
    #[cold]
    pub(crate) fn failed(&self, mut held: Held<T>, failure: Failure) {
        if self.beside.lock().ended {
            // Nobody will see it again.
            return drop_contained(held);
        }
        let now = self.shared.environment.now();
        let history = held.history();
        history.lease = None;
        if history.failures == 0 {
            history.first_failed = now;
        }
        history.last_failed = now;
        if failure.error.is_some() {
            history.error = failure.error;
        }
        if failure.dead.is_none() {
            history.failures = history.failures.saturating_add(1);
            self.counters.failures.fetch_add(1, Relaxed);
        }
        let failures = history.failures;
        if let Some(reason) = failure.dead {
            return self.dead_letter(held, reason);
        }
        let random = self.beside.lock().random.next();
        match after_failure(&self.rules.backoff, self.rules.max_failures, failures, failure.wait, random) {
            AfterFailure::DeadLetter => self.dead_letter(held, DeadReason::Failures),
            AfterFailure::Retry(wait) => {
                self.tell_failed(&held);
                self.park(held, now, wait);
            }
        }
    }

    fn park(&self, held: Held<T>, now: Timestamp, wait: Duration) {
        let due = now.after(wait);
        let schedule = self.change(|beside| {
            if wait.is_zero() || beside.hurries {
                beside.ready.push_back(held);
                return false;
            }
            beside.parked.push(due, held);
            beside.is_first(due)
        });
        if schedule {
            self.schedule(due);
        }
    }

    fn schedule(&self, due: Timestamp) {
        self.shared.environment.timer.schedule(due, self.as_fire());
    }

    /// Tells the timer anew what the subscription waits for, after something else than time has put an end to much of it: often to all.
    pub(crate) fn reschedule(&self) {
        self.shared.environment.timer.forget(&self.as_fire());
        let due = {
            let mut beside = self.beside.lock();
            beside.scheduled = beside.next_due().unwrap_or(Timestamp::MAX);
            beside.scheduled
        };
        self.schedule(due);
    }

    fn as_fire(&self) -> Weak<dyn Fire> {
        let me: Weak<Self> = self.me();
        me
    }

    fn dead_letter(&self, held: Held<T>, reason: DeadReason) {
        self.send_letter(self.letter(held, reason));
    }

    /// Sends a letter to the dead-letter topic or, if nobody subscribes there or there is no room, to the store.
    fn send_letter(&self, letter: StoredLetter<T>) {
        let DeadLetter { offset, reason, error, .. } = &letter.letter;
        let (offset, reason, error) = (*offset, reason.clone(), error.clone());
        let forward = self.beside.lock().forward.clone();
        let left = match forward {
            Some(forward) if self.forward_stored(&*forward) => forward.forward(letter),
            _ => Some(letter),
        };
        let is_full = left.is_some_and(|letter| {
            self.change(|beside| {
                let is_full = beside.letters.is_full();
                if is_full {
                    beside.undeliverable.push_back(letter);
                } else {
                    beside.letters.push(letter);
                }
                is_full
            })
        });
        let (topic, subscription) = (self.shared.name.to_string(), self.name.to_string());
        if is_full {
            self.shared.environment.feed.tell(|| Happened::DeadLettersFull {
                topic,
                subscription,
                offset,
            });
            return;
        }
        self.counters.dead_lettered.fetch_add(1, Relaxed);
        self.shared.environment.feed.tell(|| Happened::DeadLettered {
            topic,
            subscription,
            offset,
            reason,
            error,
        });
    }

    fn letter(&self, held: Held<T>, reason: DeadReason) -> StoredLetter<T> {
        let Held {
            value,
            meta,
            offset,
            history,
        } = held;
        let history = history.unwrap_or_default();
        let letter = DeadLetter {
            payload: value,
            key: meta.as_ref().and_then(|meta| meta.key.as_deref()).map(<[u8]>::to_vec),
            topic: self.shared.name.to_string(),
            subscription: self.name.to_string(),
            offset: Offset::new(offset),
            reason,
            error: history.error,
            attempts: history.attempts,
            failures: history.failures,
            first_failed: history.first_failed,
            last_failed: history.last_failed,
        };
        StoredLetter { letter, meta }
    }

    /// Sends on what the dead-letter topic had no room for before, oldest first, and what the store had none for; whether nothing is left of it.
    pub(crate) fn forward_stored(&self, forward: &dyn Forward<T>) -> bool {
        while let Some(stored) = self.change(|beside| beside.letters.pop().or_else(|| beside.undeliverable.pop_front())) {
            if let Some(stored) = forward.forward(stored) {
                self.change(|beside| beside.letters.unpop(stored));
                return false;
            }
        }
        true
    }

    /// Moves what found the dead-letter store full into it, now that there is room.
    pub(crate) fn retry_undeliverable(&self) {
        loop {
            let next = self.change(|beside| {
                if beside.letters.is_full() {
                    None
                } else {
                    beside.undeliverable.pop_front()
                }
            });
            let Some(letter) = next else { return };
            self.send_letter(letter);
        }
    }

    fn tell_failed(&self, held: &Held<T>) {
        self.shared.environment.feed.tell(|| Happened::Failed {
            topic: self.shared.name.to_string(),
            subscription: self.name.to_string(),
            offset: Offset::new(held.offset),
            failures: held.failures(),
            error: held.history.as_ref().and_then(|history| history.error.clone()),
        });
    }

    /// Starts the ack timeout of a delivery, if there is one: keeps a clone, to have something to deliver again.
    pub(crate) fn grant(&self, held: &mut Held<T>) {
        let (Some(timeout), Some(clone)) = (self.rules.ack_timeout, self.shared.ring.cloner()) else {
            return;
        };
        let unwinding = LostOnUnwind {
            state: self,
            position: held.offset,
        };
        let copy = Held {
            value: clone(&held.value),
            meta: held.meta.clone(),
            offset: held.offset,
            history: held.history.clone(),
        };
        std::mem::forget(unwinding);
        let due = self.shared.environment.now().after(timeout);
        let (lease, first) = {
            let mut beside = self.beside.lock();
            (beside.leases.grant(due, copy), beside.is_first(due))
        };
        held.history().lease = Some(lease);
        if first {
            self.schedule(due);
        }
    }

    /// Ends a lease by a verdict; `false` if it had run out.
    pub(crate) fn end_lease(&self, lease: LeaseId) -> bool {
        let copy = self.beside.lock().leases.end(lease);
        copy.map(drop_contained).is_some()
    }

    pub(crate) fn extend_lease(&self, lease: LeaseId) -> bool {
        let Some(timeout) = self.rules.ack_timeout else { return true };
        let due = self.shared.environment.now().after(timeout);
        self.beside.lock().leases.extend(lease, due)
    }

    /// Whether a delivery without a verdict goes back without counting as a failure.
    pub(crate) fn is_ending(&self) -> bool {
        let beside = self.beside.lock();
        beside.ending > 0 || beside.ended
    }
}

impl<T: Send + 'static> Fire for SubscriptionState<T> {
    fn fire(&self, now: Timestamp) -> Option<Timestamp> {
        let expired: Vec<_> = {
            let mut beside = self.beside.lock();
            std::iter::from_fn(|| beside.leases.expire(now)).collect()
        };
        for held in expired {
            let error = Some("the ack timeout ran out".to_owned());
            self.failed(
                held,
                Failure {
                    error,
                    ..Failure::default()
                },
            );
            // Whoever holds the delivery may never give it back. If it does, its credit is written off (see `Delivery`).
            self.credit_returned(1);
        }
        self.change(|beside| {
            while let Some(held) = beside.parked.pop(now) {
                beside.ready.push_back(held);
            }
            if beside.scheduled > now {
                // This call was scheduled before an earlier one was; the right one is still to come.
                return None;
            }
            beside.scheduled = beside.next_due().unwrap_or(Timestamp::MAX);
            Some(beside.scheduled)
        })
    }
}

impl<T> Beside<T> {
    /// Whether the timer has to be told of `due`, because it would call only later.
    fn is_first(&mut self, due: Timestamp) -> bool {
        let first = due < self.scheduled;
        if first {
            self.scheduled = due;
        }
        first
    }

    fn next_due(&self) -> Option<Timestamp> {
        [self.parked.next_due(), self.leases.next_due()].into_iter().flatten().min()
    }
}

/// A handle on a subscription's dead letters.
///
/// Letters are kept until they are redriven or purged. While the topic `$dead.<topic>.<subscription>` is open and has a subscription, they go there
/// instead, with their history in headers: `dead-topic`, `dead-subscription`, `dead-offset`, `dead-reason`, `dead-attempts`, `dead-failures`,
/// `dead-first-failed` and `dead-last-failed` (nanoseconds since 1970), and `dead-error` if there was one. Those that found it full follow with the
/// next letter. A subscription that is made anew under the same name sends its letters there once that topic is opened again.
///
/// What one call lists or redrives is out of reach of other calls until it is done; it counts all the while.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let sub = topic.subscribe("odd")?;
/// topic.publish(2)?;
/// sub.recv()?.reject("not odd")?;
/// assert_eq!(sub.dead_letters().len(), 1);
///
/// // The handler was mended: try it again.
/// assert_eq!(sub.dead_letters().redrive(|letter| letter.payload == 2), 1);
/// assert_eq!(sub.recv()?.into_inner()?, 2);
/// # Ok(())
/// # }
/// ```
pub struct DeadLetters<T> {
    pub(crate) state: Arc<SubscriptionState<T>>,
}

impl<T: Send + 'static> DeadLetters<T> {
    /// How many are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.beside.lock().letters.len()
    }

    /// Whether none is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clones of all letters, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::NotCloneable`](crate::Error::NotCloneable) on a work queue, whose payloads move.
    pub fn list(&self) -> crate::Result<Vec<DeadLetter<T>>> {
        let not_cloneable = || crate::Error::NotCloneable {
            what: "listing dead letters",
            topic: self.state.shared.name.to_string(),
        };
        let clone = self.state.shared.ring.cloner().ok_or_else(not_cloneable)?;
        // Cloning is code of the user, so it runs outside of the lock: on letters that are taken out for that long.
        let borrowed = PutBack::take(&self.state);
        Ok(borrowed.letters.iter().map(|stored| copy(&stored.letter, clone)).collect())
    }

    /// Delivers the letters that `pick` chooses again, to this subscription alone, as if for the first time. Returns how many.
    pub fn redrive(&self, mut pick: impl FnMut(&DeadLetter<T>) -> bool) -> u64 {
        let mut rest = PutBack::take(&self.state);
        let mut redriven = 0;
        while let Some(stored) = rest.letters.front() {
            let again = pick(&stored.letter);
            let Some(stored) = rest.letters.pop_front() else { break };
            if again {
                let StoredLetter { letter, meta } = stored;
                let held = Held {
                    value: letter.payload,
                    meta,
                    offset: letter.offset.get(),
                    history: None,
                };
                self.state.change(|beside| beside.ready.push_back(held));
                redriven += 1;
            } else {
                rest.left.push_back(stored);
            }
        }
        drop(rest);
        self.state.retry_undeliverable();
        redriven
    }

    /// Drops all letters. Returns how many.
    pub fn purge(&self) -> u64 {
        let mut letters = Vec::from(self.state.beside.lock().letters.take_all());
        let purged = letters.len() as u64;
        clear_contained(&mut letters);
        self.state.retry_undeliverable();
        purged
    }
}

impl<T> std::fmt::Debug for DeadLetters<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters")
            .field("len", &self.state.beside.lock().letters.len())
            .finish()
    }
}

/// Letters taken out for a moment; they go back, on unwinding too.
struct PutBack<'s, T> {
    state: &'s SubscriptionState<T>,
    /// Looked at, and to stay; in front of the others.
    left: VecDeque<StoredLetter<T>>,
    letters: VecDeque<StoredLetter<T>>,
    /// How many there were.
    lent: usize,
}

impl<'s, T> PutBack<'s, T> {
    fn take(state: &'s SubscriptionState<T>) -> Self {
        let letters = state.beside.lock().letters.lend_all();
        Self {
            state,
            left: VecDeque::new(),
            lent: letters.len(),
            letters,
        }
    }
}

impl<T> Drop for PutBack<'_, T> {
    fn drop(&mut self) {
        let mut letters = std::mem::take(&mut self.left);
        letters.append(&mut self.letters);
        self.state.beside.lock().letters.put_back(letters, self.lent);
    }
}

fn copy<T>(letter: &DeadLetter<T>, clone: fn(&T) -> T) -> DeadLetter<T> {
    DeadLetter {
        payload: clone(&letter.payload),
        key: letter.key.clone(),
        topic: letter.topic.clone(),
        subscription: letter.subscription.clone(),
        reason: letter.reason.clone(),
        error: letter.error.clone(),
        ..*letter
    }
}
