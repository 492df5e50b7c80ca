//! Models of a topic by its public interface, with a capacity of one or two: see `crate::models`.

mod ending;
mod joining;
mod receiving;
mod selecting;
mod tasks;
mod waiting;

use crate::topic::{Publisher, SubscribeOptions, Subscription, Topic, TopicOptions};
use crate::{Broker, Overflow, RecvError};

/// A topic in a broker of its own.
struct Model {
    _broker: Broker,
    topic: Topic<u64>,
}

impl Model {
    fn new(options: TopicOptions<u64>, capacity: usize) -> Self {
        let broker = Broker::builder().seed(1).open("mem:").unwrap();
        let topic = broker.topic_with("t", options.capacity(capacity)).unwrap();
        Self { _broker: broker, topic }
    }

    fn topic(capacity: usize) -> Self {
        Self::new(TopicOptions::in_memory(), capacity)
    }

    fn queue(capacity: usize) -> Self {
        Self::new(TopicOptions::work_queue(), capacity)
    }

    fn subscribe(&self) -> Subscription<u64> {
        self.topic.subscribe("s").unwrap()
    }

    fn subscribe_with(&self, rule: impl FnOnce(SubscribeOptions<u64>) -> SubscribeOptions<u64>) -> Subscription<u64> {
        self.topic.subscribe_with(rule(SubscribeOptions::new("s"))).unwrap()
    }

    fn overflowing(&self, overflow: Overflow) -> Subscription<u64> {
        self.subscribe_with(|options| options.overflow(overflow))
    }

    fn publisher(&self) -> Publisher<u64> {
        self.topic.publisher()
    }
}

/// Both kinds of ring run the same model.
fn both_kinds(capacity: usize, model: impl Fn(Model) + Copy + Send + Sync + 'static) {
    crate::models::check(move || model(Model::topic(capacity)));
    crate::models::check(move || model(Model::queue(capacity)));
}

/// Offsets received or told lost, until there are so many or the topic is closed.
fn received(subscription: &Subscription<u64>, most: usize) -> Vec<u64> {
    let mut subscriber = subscription.auto_ack().subscriber();
    let mut seen = Vec::new();
    while seen.len() < most {
        match subscriber.recv() {
            Ok(value) => seen.push(value),
            Err(RecvError::Lagged(lagged)) => seen.extend(lagged.from.get()..lagged.to.get()),
            Err(RecvError::Closed) => break,
            Err(RecvError::Timeout) => panic!("no deadline was given"),
        }
    }
    seen
}

/// As `received`, until the topic is closed.
fn to_the_end(subscription: &Subscription<u64>) -> Vec<u64> {
    received(subscription, usize::MAX)
}

fn assert_each_once(mut seen: Vec<u64>, published: u64) {
    seen.sort_unstable();
    assert_eq!(
        seen,
        (0..published).collect::<Vec<_>>(),
        "each message is received or told lost, once"
    );
}
