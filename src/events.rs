//! Events: what a broker does besides moving messages, for whoever wants to watch.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delivery::dead_letter::DeadReason;
use crate::delivery::lag::Lagged;
use crate::offset::Offset;
use crate::sync::{Arc, AtomicUsize, Ordering::*, plain};

/// Something that happened in a broker.
///
/// # Examples
///
/// ```
/// use ringmq::Event;
///
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// let mut events = broker.events();
/// let orders = broker.topic::<u32>("orders")?;
/// let billing = orders.subscribe("billing")?;
/// orders.publish(1)?;
/// billing.recv()?.reject("unpaid")?;
/// assert!(events.any(|event| matches!(event, Event::DeadLettered { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A topic was created.
    TopicCreated {
        /// The topic.
        topic: String,
    },
    /// A topic was removed: its name is free.
    TopicRemoved {
        /// The topic.
        topic: String,
    },
    /// A topic was closed.
    TopicClosed {
        /// The topic.
        topic: String,
    },
    /// A subscription was created.
    Subscribed {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
    },
    /// A subscription ended.
    Unsubscribed {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
    },
    /// A subscription lost messages, as its overflow rule says.
    Lagged {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
        /// What it lost.
        lagged: Lagged,
    },
    /// A delivery failed, and the message will be delivered again.
    Failed {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
        /// The message.
        offset: Offset,
        /// How often it has failed.
        failures: u32,
        /// The error's text, if a handler gave one.
        error: Option<String>,
    },
    /// A message went to the dead letters.
    DeadLettered {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
        /// The message.
        offset: Offset,
        /// Why.
        reason: DeadReason,
        /// The text of the last failure, if there was one.
        error: Option<String>,
    },
    /// A dead letter found the store full: the message stays parked until letters are redriven or purged.
    DeadLettersFull {
        /// The topic.
        topic: String,
        /// The subscription.
        subscription: String,
        /// The message.
        offset: Offset,
    },
}

/// How many events an unread [`Events`] keeps.
const KEPT: usize = 1024;

/// Where events are told. One load when nobody watches.
pub(crate) struct Feed {
    watchers: AtomicUsize,
    inboxes: plain::Mutex<Vec<Arc<Inbox>>>,
}

#[derive(Default)]
struct Inbox {
    state: plain::Mutex<(VecDeque<Event>, u64)>,
    came: plain::Condvar,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            watchers: AtomicUsize::new(0),
            inboxes: plain::Mutex::default(),
        }
    }

    /// Tells an event, which is built only if somebody wants it.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        // Relaxed: whoever begins to watch now may miss what happens now.
        let watched = self.watchers.load(Relaxed) != 0;
        #[cfg(feature = "tracing")]
        let traced = tracing::enabled!(target: "ringmq", tracing::Level::INFO);
        #[cfg(not(feature = "tracing"))]
        let traced = false;
        if !watched && !traced {
            return;
        }
        let event = event();
        #[cfg(feature = "tracing")]
        if traced {
            tracing::info!(target: "ringmq", ?event);
        }
        if watched {
            self.deliver(&event);
        }
    }

    fn deliver(&self, event: &Event) {
        for inbox in self.inboxes.lock().iter() {
            let mut state = inbox.state.lock();
            if state.0.len() >= KEPT {
                state.0.pop_front();
                state.1 += 1;
            }
            state.0.push_back(event.clone());
            inbox.came.notify_one();
        }
    }

    pub(crate) fn watch(feed: &Arc<Self>) -> Events {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = feed.inboxes.lock();
        inboxes.push(inbox.clone());
        feed.watchers.store(inboxes.len(), Relaxed);
        Events { feed: feed.clone(), inbox }
    }

    fn forget(&self, inbox: &Arc<Inbox>) {
        let mut inboxes = self.inboxes.lock();
        inboxes.retain(|known| !Arc::ptr_eq(known, inbox));
        self.watchers.store(inboxes.len(), Relaxed);
    }
}

/// A broker's events from the moment it was made. As an iterator it gives what has happened so far and does not wait.
///
/// It keeps the newest 1,024 events; older ones that were not read are counted in [`missed`](Self::missed).
///
/// # Examples
///
/// See [`Event`].
pub struct Events {
    feed: Arc<Feed>,
    inbox: Arc<Inbox>,
}

impl Events {
    /// Waits for the next event, at most this long.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.inbox.state.lock();
        loop {
            if let Some(event) = state.0.pop_front() {
                return Some(event);
            }
            match deadline {
                Some(deadline) if self.inbox.came.wait_until(&mut state, deadline).timed_out() => return state.0.pop_front(),
                Some(_) => {}
                None => self.inbox.came.wait(&mut state),
            }
        }
    }

    /// How many events were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.inbox.state.lock().1
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.inbox.state.lock().0.pop_front()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.feed.forget(&self.inbox);
    }
}

impl std::panic::UnwindSafe for Events {}
impl std::panic::RefUnwindSafe for Events {}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;

    /// Symptom: a program that looked at events now and then kept an inbox for each look until the next event came. Cause: only telling an event
    /// cleared them away.
    #[test]
    fn who_stops_watching_is_forgotten_at_once() {
        let feed = Arc::new(Feed::new());
        let (first, second) = (Feed::watch(&feed), Feed::watch(&feed));
        drop(first);
        assert_eq!((feed.inboxes.lock().len(), feed.watchers.load(Relaxed)), (1, 1));
        drop(second);
        feed.tell(|| unreachable!("nobody watches"));
        assert!(feed.inboxes.lock().is_empty());
    }
}
