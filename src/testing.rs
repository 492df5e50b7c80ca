//! What the tests of a program that uses ringmq need: a clock to drive, waiting until nothing is left to do, and what was published.
//!
//! Behind the feature `testing`: enable it under `[dev-dependencies]`.
//!
//! # Examples
//!
//! ```
//! use ringmq::testing::ManualClock;
//! use std::time::Duration;
//!
//! # fn main() -> ringmq::Result<()> {
//! let clock = ManualClock::new();
//! let broker = ringmq::Broker::builder().clock(clock.clone()).open("mem:")?;
//! let topic = broker.topic::<u32>("numbers")?;
//! let sub = topic.subscribe("s")?;
//! topic.publish(1)?;
//! sub.recv()?.nack_after(Duration::from_secs(3600))?;
//! assert!(sub.try_recv().is_err());
//!
//! clock.advance(Duration::from_secs(3600));
//! assert_eq!(sub.try_recv()?.attempt(), 2);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::error::Result;
use crate::sync::{Arc, Ordering::Relaxed, plain};
use crate::time::{Clock, Timestamp};
use crate::topic::{RecvError, Start, SubscribeOptions, Subscription, TopicOptions};

/// A clock that stands still until it is told. Clones are the same clock.
///
/// # Examples
///
/// See the [module](self).
#[derive(Clone, Default)]
pub struct ManualClock {
    state: Arc<plain::Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: Timestamp,
    watchers: Vec<Arc<dyn Fn() + Send + Sync>>,
}

impl ManualClock {
    /// A clock that shows 1 January 2000.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            now: Timestamp::from_nanos(946_684_800_000_000_000),
            watchers: Vec::new(),
        };
        Self {
            state: Arc::new(plain::Mutex::new(state)),
        }
    }

    /// Moves the time on. When it returns, everything that has become due has happened: retries are ready to be received.
    pub fn advance(&self, by: Duration) {
        let watchers = {
            let mut state = self.state.lock();
            state.now = state.now.after(by);
            state.watchers.clone()
        };
        for watcher in watchers {
            watcher();
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().now
    }

    fn sleep_until(&self, _due: Timestamp) -> Option<Duration> {
        None
    }

    fn watch(&self, watcher: Arc<dyn Fn() + Send + Sync>) {
        self.state.lock().watchers.push(watcher);
    }
}

impl std::fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// How the subscriptions of [`Broker::published`] are called.
const WATCHER: &str = "published-";

impl Broker {
    /// Waits until no subscription that has a handle has anything pending or in flight, at most this long; whether that came. What waits for
    /// a retry does not count: it needs time, and tests give that. What [`published`](Self::published) watches does not count either.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic::<u32>("numbers")?;
    /// let published = broker.published::<u32>("numbers")?;
    /// let running = topic.subscribe("s")?.run(1, |_| ());
    /// topic.publish(1)?;
    /// assert!(broker.wait_idle(Duration::from_secs(10)));
    /// assert_eq!(published.take(), [1]);
    /// # running.drain(Duration::from_secs(10));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let until = Instant::now().checked_add(timeout);
        let mut before = None;
        loop {
            // The topics are read one after the other, and a handler may publish to one that was read already: only if a second look
            // finds everything idle and nothing moved since the first, all of it was idle at the moment in between.
            let now = self.progress_if_idle();
            if now.is_some() && now == before {
                return true;
            }
            if now.is_none() {
                if until.is_some_and(|until| Instant::now() >= until) {
                    return false;
                }
                std::thread::park_timeout(Duration::from_micros(100));
            }
            before = now;
        }
    }

    /// How much was published and delivered again so far, if nothing is pending or in flight.
    fn progress_if_idle(&self) -> Option<u64> {
        let mut progress = 0;
        for topic in self.stats() {
            progress += topic.published;
            for s in topic.subscriptions {
                let watched = s.handles > 0 && !s.subscription.starts_with(WATCHER);
                if watched && s.pending + s.in_flight > 0 {
                    return None;
                }
                progress += s.redelivered;
            }
        }
        Some(progress)
    }

    /// Watches what is published to a topic from now on, without holding anybody up. A topic that does not exist is made, with default options: where
    /// the program opens it with others, watch it after that.
    ///
    /// # Errors
    ///
    /// As [`Broker::topic`]; on a work queue, [`Error::SingleSubscription`](crate::Error::SingleSubscription) or
    /// [`Error::NotCloneable`](crate::Error::NotCloneable): its messages go to one subscription.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// let published = broker.published::<u32>("numbers")?;
    /// broker.topic::<u32>("numbers")?.publish(7)?;
    /// assert_eq!(published.take(), [7]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn published<T: Clone + Send + Sync + 'static>(&self, topic: &str) -> Result<Published<T>> {
        static NEXT: plain::AtomicUsize = plain::AtomicUsize::new(0);
        let name = format!("{WATCHER}{}", NEXT.fetch_add(1, Relaxed));
        let options = SubscribeOptions::new(&name)
            .start(Start::Latest)
            .overflow(crate::Overflow::DropOldest)
            .ephemeral();
        let topic = match self.opened(topic)? {
            Some(topic) => topic,
            None => self.topic_with(topic, TopicOptions::in_memory())?,
        };
        Ok(Published {
            subscription: topic.subscribe_with(options)?,
        })
    }
}

/// What was published to a topic: see [`Broker::published`].
///
/// # Examples
///
/// See there.
#[derive(Debug)]
pub struct Published<T: Send + 'static> {
    subscription: Subscription<T>,
}

impl<T: Send + 'static> Published<T> {
    /// What was published since the last call, or since it was made: at most the topic's capacity. [`lost`](Self::lost) says how many more there were.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        let messages = self.subscription.auto_ack();
        let mut all = Vec::new();
        loop {
            match messages.try_recv() {
                Ok(message) => all.push(message),
                Err(crate::TryRecvError::Lagged(_)) => {}
                Err(_) => return all,
            }
        }
    }

    /// How many messages were published and not seen here, since it was made: it was looked at too rarely for the topic's capacity.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let broker = ringmq::Broker::open("mem:")?;
    /// # let topic = broker.topic_with::<u32>("small", ringmq::TopicOptions::new().capacity(4))?;
    /// let published = broker.published::<u32>("small")?;
    /// topic.publish_batch(0..100)?;
    /// let seen = published.take();
    /// assert_eq!(seen.len() as u64 + published.lost(), 100);
    /// assert_eq!(seen.last(), Some(&99));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.subscription.stats().dropped
    }

    /// Waits for the next message published, at most this long.
    ///
    /// # Errors
    ///
    /// As [`Subscription::recv_timeout`].
    pub fn next(&self, timeout: Duration) -> Result<T, RecvError> {
        self.subscription.auto_ack().recv_timeout(timeout)
    }
}
