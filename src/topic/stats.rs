//! Statistics: what goes on, as numbers and as text. Collected when asked for; free otherwise.

use std::fmt::Write as _;
use std::time::Duration;

use crate::sync::{Arc, Ordering::*};
use crate::topic::core::TopicCore;
use crate::topic::shared::Ring;
use crate::topic::state::SubscriptionState;

/// A topic's numbers at one moment. They are read one after the other, so under load they need not add up exactly.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let sub = topic.subscribe("s")?;
/// topic.publish(1)?;
/// topic.publish(2)?;
/// let held = sub.recv()?;
/// let stats = topic.stats();
/// assert_eq!(stats.published, 2);
/// assert_eq!((stats.subscriptions[0].pending, stats.subscriptions[0].in_flight), (1, 1));
/// # held.ack()
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStats {
    /// The topic.
    pub topic: String,
    /// How many messages it holds at most.
    pub capacity: usize,
    /// How many messages were published.
    pub published: u64,
    /// How many messages it holds.
    pub held: u64,
    /// How many messages were dropped while it had no subscription.
    pub unrouted: u64,
    /// The subscriptions that hold publishers up, and for how long: only while one waits.
    pub blocked_by: Vec<(String, Duration)>,
    /// The subscriptions that have no room for another message and do not drop any: a publish would wait for them, or fail.
    pub full: Vec<String>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionStats>,
}

/// A subscription's numbers at one moment.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// topic.publish_batch(1..=3)?;
/// sub.recv()?.nack()?;
/// let held = sub.recv()?;
/// let stats = sub.stats();
/// assert_eq!((stats.pending, stats.in_flight, stats.parked, stats.lag), (1, 1, 1, 3));
/// assert_eq!(stats.failures, 1);
/// held.ack()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// The subscription.
    pub subscription: String,
    /// Messages not delivered yet.
    pub pending: u64,
    /// Deliveries without a verdict.
    pub in_flight: u64,
    /// Messages that wait for a retry.
    pub parked: u64,
    /// How far it is behind: messages pending, in flight or parked.
    pub lag: u64,
    /// Deliveries that failed.
    pub failures: u64,
    /// Deliveries with an attempt above 1: not the first of a message that was redriven from the dead letters.
    pub redelivered: u64,
    /// Messages that its overflow rule dropped, told to it or not yet.
    pub dropped: u64,
    /// Messages that its filter did not want.
    pub filtered: u64,
    /// Messages that went to the dead letters, ever.
    pub dead_lettered: u64,
    /// Dead letters stored now.
    pub dead_letters: u64,
    /// Handles that could receive.
    pub handles: usize,
    /// For how long publishers have been waiting for it, if they are.
    pub blocks: Option<Duration>,
}

impl<T: Send + 'static> TopicCore<T> {
    pub(crate) fn stats(&self) -> TopicStats {
        let shared = &self.shared;
        let states = self.subscriptions();
        let subscriptions: Vec<_> = states.iter().map(|state| self.subscription_stats(state)).collect();
        let end = shared.ring.end();
        let full = states.iter().filter(|state| state.gates() && state.blocks(end));
        // What all have passed counts as gone, though its slots may be freed only when they are needed.
        let passed = states.iter().map(|state| state.position()).min().unwrap_or(0);
        let start = shared.ring.start().max(passed);
        let unrouted = match &shared.ring {
            Ring::Queue(_) => shared.unrouted.load(Relaxed) as u64,
            Ring::Window(window, _) => window.unrouted(),
        };
        TopicStats {
            topic: shared.name.to_string(),
            capacity: self.settings.capacity,
            published: end - self.first_offset,
            held: end.saturating_sub(start),
            unrouted,
            blocked_by: subscriptions
                .iter()
                .filter_map(|s| Some((s.subscription.clone(), s.blocks?)))
                .collect(),
            full: full.map(|state| state.name.to_string()).collect(),
            subscriptions,
        }
    }

    pub(crate) fn subscription_stats(&self, state: &Arc<SubscriptionState<T>>) -> SubscriptionStats {
        let end = self.shared.ring.end();
        // In this order, and the credit under the lock, so that a message on its way from one of these to the next is seen at least once.
        let fresh = end.saturating_sub(state.position());
        let (kept, unkept, unwanted) = state.side_store.as_ref().map_or((0, 0, 0), |store| {
            // What was overtaken under the same lock, under which it is told.
            let kept = store.kept.lock();
            (kept.len(), kept.lost() + state.overtaken(), kept.filtered)
        });
        let beside = state.beside.lock();
        let in_flight = state.credit.out();
        let untold = beside.lag.total() + unkept;
        let pending = fresh + beside.ready.len() as u64 + kept;
        let parked = beside.parked_count() as u64;
        let blocks = beside
            .blocks_since
            .filter(|_| self.shared.space.has_sleepers() && state.blocks(end))
            .map(|since| self.shared.environment.now().since(since));
        SubscriptionStats {
            subscription: state.name.to_string(),
            pending,
            in_flight,
            parked,
            lag: pending + in_flight + parked,
            failures: state.counters.failures.load(Relaxed),
            redelivered: state.counters.redelivered.load(Relaxed),
            dropped: state.counters.lost.load(Relaxed) + untold,
            filtered: state.counters.filtered.load(Relaxed) + unwanted,
            dead_lettered: state.counters.dead_lettered.load(Relaxed),
            dead_letters: beside.letters.len() as u64,
            handles: state.handles.load(Relaxed),
            blocks,
        }
    }
}

/// Renders statistics in the Prometheus text format.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// let topic = broker.topic::<u32>("numbers")?;
/// topic.publish(1)?;
/// let text = ringmq::render_prometheus(&broker.stats());
/// assert!(text.contains("ringmq_published_total{topic=\"numbers\"} 1"));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn render_prometheus(topics: &[TopicStats]) -> String {
    let mut text = String::new();
    type OfTopic = fn(&TopicStats) -> u64;
    let of_topic: [(&str, &str, &str, OfTopic); 4] = [
        ("published_total", "counter", "Messages published.", |t| t.published),
        ("held", "gauge", "Messages held in the ring.", |t| t.held),
        ("capacity", "gauge", "Messages the ring can hold.", |t| t.capacity as u64),
        ("unrouted_total", "counter", "Messages dropped while nobody subscribed.", |t| {
            t.unrouted
        }),
    ];
    for (name, kind, help, value) in of_topic {
        head(&mut text, name, kind, help);
        for topic in topics {
            let _ = writeln!(text, "ringmq_{name}{{topic=\"{}\"}} {}", topic.topic, value(topic));
        }
    }
    type OfSubscription = fn(&SubscriptionStats) -> u64;
    let of_subscription: [(&str, &str, &str, OfSubscription); 12] = [
        ("pending", "gauge", "Messages not delivered yet.", |s| s.pending),
        ("in_flight", "gauge", "Deliveries without a verdict.", |s| s.in_flight),
        ("parked", "gauge", "Messages waiting for a retry.", |s| s.parked),
        ("lag", "gauge", "Messages pending, in flight or parked.", |s| s.lag),
        ("failures_total", "counter", "Deliveries that failed.", |s| s.failures),
        ("redelivered_total", "counter", "Deliveries of a message delivered before.", |s| {
            s.redelivered
        }),
        ("dropped_total", "counter", "Messages dropped by the overflow rule.", |s| s.dropped),
        ("filtered_total", "counter", "Messages that its filter did not want.", |s| {
            s.filtered
        }),
        ("dead_lettered_total", "counter", "Messages sent to the dead letters.", |s| {
            s.dead_lettered
        }),
        ("dead_letters", "gauge", "Dead letters stored.", |s| s.dead_letters),
        ("handles", "gauge", "Handles that could receive.", |s| s.handles as u64),
        (
            "blocks_milliseconds",
            "gauge",
            "For how long publishers have been waiting for it.",
            |s| s.blocks.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        ),
    ];
    for (name, kind, help, value) in of_subscription {
        head(&mut text, name, kind, help);
        for topic in topics {
            for s in &topic.subscriptions {
                let (topic, subscription) = (&topic.topic, &s.subscription);
                let _ = writeln!(
                    text,
                    "ringmq_{name}{{topic=\"{topic}\",subscription=\"{subscription}\"}} {}",
                    value(s)
                );
            }
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP ringmq_{name} {help}\n# TYPE ringmq_{name} {kind}");
}
