//! Starting at a time: the first message published then or later, and nothing before it is lost to others.
//!
//! Goal: `Start::Since` finds its place among the messages held. Method: a clock that stands still, so each message has a known time.
#![cfg(feature = "testing")]

use std::time::Duration;

use ringmq::testing::ManualClock;
use ringmq::{Broker, Clock, Start, SubscribeOptions, Timestamp, Topic, TopicOptions};

/// A topic with the messages 0 to 9, one a second, and when the first was published.
fn ten_seconds() -> (Topic<u32>, Timestamp) {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic_with("seconds", TopicOptions::new().timestamps()).unwrap();
    let started = clock.now();
    for second in 0..10 {
        topic.publish(second).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    (topic, started)
}

fn since(seconds: u64, started: Timestamp) -> SubscribeOptions<u32> {
    SubscribeOptions::new("since").start(Start::Since(started.after(Duration::from_secs(seconds))))
}

/// Symptom: nothing was delivered to the first subscription of a topic if it started at a time. Cause: the place was found by a cursor
/// of its own, which, as the topic's first, took the messages along when it left. Fix: another cursor keeps them until the
/// subscription's own stands at the place.
#[test]
fn the_first_subscription_of_a_topic_may_start_at_a_time() {
    let (topic, started) = ten_seconds();
    let seconds = topic.subscribe_with(since(7, started)).unwrap();
    topic.close();
    let seen: Vec<u32> = seconds.auto_ack().iter().flatten().collect();
    assert_eq!(seen, [7, 8, 9]);
}

#[test]
fn a_start_in_the_future_waits_for_what_comes() {
    let (topic, started) = ten_seconds();
    let seconds = topic.subscribe_with(since(1_000, started)).unwrap();
    assert!(seconds.try_recv().is_err());
    topic.publish(10).unwrap();
    assert_eq!(*seconds.try_recv().unwrap(), 10);
}

#[test]
fn seeking_a_time_goes_back_as_far_as_others_hold() {
    let (topic, started) = ten_seconds();
    let slow = topic.subscribe("slow").unwrap();
    let seconds = topic.subscribe("seconds").unwrap();
    while seconds.auto_ack().try_recv().is_ok() {}
    let at = seconds.seek(Start::Since(started.after(Duration::from_millis(3_500)))).unwrap();
    assert_eq!(at.get(), 4);
    assert_eq!(*seconds.try_recv().unwrap(), 4);
    assert_eq!(slow.stats().pending, 10);
}
