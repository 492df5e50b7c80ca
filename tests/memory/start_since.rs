//! Starting at a time: the first message published then or later, and nothing before it is lost to others.
//!
//! Goal: `Start::Since` finds its place among the messages held. Method: a clock that stands still, so each message has a known time.

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

/// Symptom: whoever started at the time when a publisher was already waiting for room did not get its message, which came later. Cause: the time
/// was taken before the wait. Fix: it is taken again after it.
#[test]
fn a_message_has_the_time_at_which_it_entered_not_that_at_which_it_began_to_wait() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker
        .topic_with::<u32>("full", TopicOptions::new().timestamps().capacity(1))
        .unwrap();
    let slow = topic.subscribe("slow").unwrap();
    type Publish = fn(&Topic<u32>);
    let publishes: [Publish; 4] = [
        |topic| {
            topic.publish(1).unwrap();
        },
        |topic| {
            topic.publisher().publish_batch([1]).unwrap();
        },
        |topic| {
            crate::support::block_on(topic.publish_async(1)).unwrap();
        },
        |topic| {
            crate::support::block_on(topic.publish_batch_async([1])).unwrap();
        },
    ];
    for publish in publishes {
        topic.publish(0).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| publish(&topic));
            crate::support::until("it waits for room", || !topic.stats().blocked_by.is_empty());
            clock.advance(Duration::from_secs(3_600));
            let now = clock.now();
            slow.recv().unwrap().ack().unwrap();
            waiting.join().unwrap();
            let late = slow.recv().unwrap();
            assert_eq!((*late, late.published()), (1, Some(now)));
            late.ack().unwrap();
        });
    }
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
