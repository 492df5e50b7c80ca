//! Goal: with the feature `tracing`, what `Broker::events` tells is sent to the `tracing` crate too, target `ringmq`, and changes nothing else.
//! Method: a collector of our own on the thread that acts; the same events as an `Events` reads.
#![cfg(feature = "tracing")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq::{Backoff, Broker, Overflow, SubscribeOptions, TopicOptions};
use support::broker;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps target, level and text of each event; wants them up to a level.
#[derive(Clone)]
struct Collector {
    most: Level,
    kept: Arc<Mutex<Vec<(String, Level, String)>>>,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let metadata = event.metadata();
        let one = (metadata.target().to_owned(), *metadata.level(), text.0);
        self.kept.lock().unwrap().push(one);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Runs `work` with a collector of what is as important as `most`; what it kept.
fn collect(most: Level, work: impl FnOnce()) -> Vec<(String, Level, String)> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let collector = Collector { most, kept: kept.clone() };
    tracing::subscriber::with_default(collector, work);
    let all = kept.lock().unwrap();
    all.clone()
}

/// One of each thing that a thread can make happen.
fn much_happens(broker: &Broker) {
    let topic = broker.topic_with::<u64>("t", TopicOptions::new().capacity(2)).unwrap();
    let poor = SubscribeOptions::new("poor")
        .backoff(Backoff::none())
        .max_failures(2)
        .dead_letters_max(1);
    let poor = topic.subscribe_with(poor).unwrap();
    let lossy = topic
        .subscribe_with(SubscribeOptions::new("lossy").overflow(Overflow::DropOldest))
        .unwrap();
    topic.publish(1).unwrap();
    poor.recv().unwrap().nack().unwrap();
    poor.recv().unwrap().nack().unwrap();
    topic.publish(2).unwrap();
    poor.recv().unwrap().reject("no").unwrap();
    topic.publish(3).unwrap();
    assert!(lossy.try_recv().is_err(), "it has lost a message");
    lossy.unsubscribe();
    topic.close();
    broker.close(Duration::ZERO);
}

#[test]
fn what_events_tell_is_traced_one_for_one() {
    let broker = broker();
    let mut events = broker.events();
    let traced = collect(Level::INFO, || much_happens(&broker));
    let told: Vec<_> = std::iter::from_fn(|| events.next_timeout(Duration::ZERO))
        .map(|event| ("ringmq".to_owned(), Level::INFO, format!("event={event:?} ")))
        .collect();
    assert_eq!(traced, told);
    for kind in [
        "Subscribed",
        "Failed",
        "DeadLettered",
        "DeadLettersFull",
        "Lagged",
        "Unsubscribed",
        "TopicClosed",
    ] {
        assert!(traced.iter().any(|(_, _, text)| text.contains(kind)), "no {kind} in {traced:?}");
    }
}

#[test]
fn tracing_needs_nobody_who_watches_events() {
    let traced = collect(Level::INFO, || much_happens(&broker()));
    assert!(traced.len() >= 7, "{traced:?}");
}

#[test]
fn who_wants_only_warnings_gets_nothing_and_events_are_told_all_the_same() {
    let broker = broker();
    let mut events = broker.events();
    assert_eq!(collect(Level::WARN, || much_happens(&broker)), []);
    assert!(events.next_timeout(Duration::ZERO).is_some());
}
