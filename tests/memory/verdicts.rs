//! Goal: each verdict on a delivery has its effect, once; attempts and failures are counted apart (G2, G11).
//! Method: one message at a time, a clock that is moved by hand, and the numbers of the subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::Counted;
use ringmq::testing::ManualClock;
use ringmq::{Backoff, Broker, Outcome, RecvError, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError};

const MINUTE: Duration = Duration::from_secs(60);

fn clocked() -> (ManualClock, Broker) {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).seed(1).open("mem:").unwrap();
    (clock, broker)
}

/// The two kinds of topic behave alike.
fn both_kinds(rules: impl Fn(SubscribeOptions<u64>) -> SubscribeOptions<u64>, test: impl Fn(ManualClock, Topic<u64>, Subscription<u64>)) {
    for options in [TopicOptions::new, TopicOptions::work_queue as fn() -> _] {
        let (clock, broker) = clocked();
        let topic = broker.topic_with("t", options().capacity(8)).unwrap();
        let sub = topic.subscribe_with(rules(SubscribeOptions::new("s"))).unwrap();
        test(clock, topic, sub);
    }
}

#[test]
fn ack_is_the_end_of_a_message() {
    both_kinds(
        |rules| rules,
        |clock, topic, sub| {
            topic.publish(1).unwrap();
            let delivery = sub.recv().unwrap();
            assert_eq!((*delivery, delivery.attempt(), delivery.failures()), (1, 1, 0));
            assert_eq!((sub.stats().pending, sub.stats().in_flight), (0, 1));
            delivery.ack().unwrap();
            clock.advance(MINUTE * 1000);
            assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
            assert_eq!((sub.stats().lag, sub.stats().failures), (0, 0));
        },
    );
}

#[test]
fn nack_parks_the_message_until_the_back_off_is_over() {
    both_kinds(
        |rules| rules.backoff(Backoff::fixed(MINUTE)),
        |clock, topic, sub| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().nack().unwrap();
            let stats = sub.stats();
            assert_eq!(
                (stats.parked, stats.in_flight, stats.pending, stats.lag, stats.failures),
                (1, 0, 0, 1, 1)
            );
            clock.advance(MINUTE - Duration::from_nanos(1));
            assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
            clock.advance(Duration::from_nanos(1));
            let again = sub.try_recv().unwrap();
            assert_eq!((*again, again.attempt(), again.failures(), again.offset().get()), (1, 2, 1, 0));
            again.ack().unwrap();
            assert_eq!((sub.stats().lag, sub.stats().redelivered), (0, 1));
        },
    );
}

#[test]
fn nack_after_delays_redelivery_by_what_was_asked_whatever_the_back_off() {
    both_kinds(
        |rules| rules.backoff(Backoff::none()),
        |clock, topic, sub| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().nack_after(MINUTE).unwrap();
            clock.advance(MINUTE / 2);
            assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
            clock.advance(MINUTE / 2);
            let again = sub.try_recv().unwrap();
            assert_eq!((again.attempt(), again.failures()), (2, 1));
            again.nack_after(Duration::ZERO).unwrap();
            assert_eq!(sub.try_recv().unwrap().failures(), 2);
        },
    );
}

#[test]
fn what_is_parked_for_ever_comes_back_when_the_topic_is_closed() {
    both_kinds(
        |rules| rules,
        |clock, topic, sub| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().nack_after(Duration::MAX).unwrap();
            clock.advance(MINUTE * 1_000_000);
            assert_eq!((sub.try_recv().unwrap_err(), sub.stats().parked), (TryRecvError::Empty, 1));
            topic.close();
            sub.recv().unwrap().ack().unwrap();
            assert_eq!(sub.recv().unwrap_err(), RecvError::Closed);
        },
    );
}

#[test]
fn reject_goes_to_the_dead_letters_at_once() {
    both_kinds(
        |rules| rules,
        |_, topic, sub| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().reject("no good").unwrap();
            assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
            let stats = sub.stats();
            assert_eq!((stats.dead_letters, stats.dead_lettered, stats.failures, stats.lag), (1, 1, 0, 0));
        },
    );
}

#[test]
fn into_inner_acks_and_gives_the_payload_out() {
    let (_, broker) = clocked();
    let jobs = broker
        .topic_with::<Box<dyn FnOnce() -> u32 + Send>>("jobs", TopicOptions::work_queue())
        .unwrap();
    let workers = jobs.subscribe("workers").unwrap();
    jobs.publish(Box::new(|| 42)).unwrap();
    let job = workers.recv().unwrap().into_inner().unwrap();
    assert_eq!((job(), workers.stats().lag), (42, 0));
}

#[test]
fn dropping_a_delivery_without_a_verdict_is_a_nack() {
    both_kinds(
        |rules| rules.backoff(Backoff::none()),
        |_, topic, sub| {
            topic.publish(1).unwrap();
            drop(sub.recv().unwrap());
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _delivery = sub.recv().unwrap();
                panic!("while a delivery is held");
            }));
            assert!(panicked.is_err());
            let third = sub.try_recv().unwrap();
            assert_eq!((third.attempt(), third.failures()), (3, 2));
        },
    );
}

#[test]
fn each_outcome_is_the_verdict_of_its_name() {
    both_kinds(
        |rules| rules.backoff(Backoff::none()).max_failures(9),
        |clock, topic, sub| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().settle(Outcome::Nack).unwrap();
            sub.recv().unwrap().settle(Outcome::Failed("why".into())).unwrap();
            sub.recv().unwrap().settle(Outcome::NackAfter(MINUTE)).unwrap();
            assert!(sub.try_recv().is_err());
            clock.advance(MINUTE);
            let fourth = sub.recv().unwrap();
            assert_eq!((fourth.attempt(), fourth.failures()), (4, 3));
            fourth.settle(Outcome::Ack).unwrap();
            topic.publish(2).unwrap();
            sub.recv().unwrap().settle(Outcome::reject("no good")).unwrap();
            assert_eq!((sub.stats().dead_letters, sub.stats().lag), (1, 0));
        },
    );
}

#[test]
fn a_redelivery_keeps_offset_key_headers_and_time() {
    let (clock, broker) = clocked();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().timestamps()).unwrap();
    let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
    topic.publish(0).unwrap();
    topic.message(1).key("k").header("h", "v").publish().unwrap();
    sub.recv().unwrap().ack().unwrap();
    let published = ringmq::Clock::now(&clock);
    clock.advance(MINUTE);
    for attempt in 1..=3 {
        let delivery = sub.recv().unwrap();
        assert_eq!((delivery.attempt(), delivery.offset().get()), (attempt, 1));
        assert_eq!((delivery.key(), delivery.headers().find("h")), (Some(&b"k"[..]), Some("v")));
        assert_eq!(delivery.published(), Some(published));
        delivery.nack().unwrap();
    }
}

#[test]
fn a_verdict_may_come_in_any_order_and_from_any_thread_after_all_handles_are_gone() {
    let alive = Arc::new(AtomicUsize::new(0));
    let (_, broker) = clocked();
    let topic = broker.topic_with("t", TopicOptions::in_memory().capacity(8)).unwrap();
    let sub = topic.subscribe("s").unwrap();
    for n in 0..4 {
        topic.publish(Counted::new(n, &alive)).unwrap();
    }
    let mut held: Vec<_> = (0..4).map(|_| sub.recv().unwrap()).collect();
    drop((broker, topic, sub));
    let last = held.pop().unwrap();
    std::thread::spawn(move || last.ack().unwrap()).join().unwrap();
    held.remove(0).nack().unwrap();
    held.remove(1).reject("late").unwrap();
    assert_eq!(held[0].number, 1);
    drop(held);
    assert_eq!(alive.load(Ordering::SeqCst), 0, "nothing is kept for nobody (G9)");
}

#[test]
fn a_payload_is_dropped_as_soon_as_all_are_done_with_it() {
    let alive = Arc::new(AtomicUsize::new(0));
    for options in [TopicOptions::in_memory as fn() -> _, TopicOptions::work_queue] {
        let (_, broker) = clocked();
        let topic = broker.topic_with("t", options().capacity(8)).unwrap();
        let sub = topic.subscribe("s").unwrap();
        topic.publish(Counted::new(1, &alive)).unwrap();
        sub.recv().unwrap().ack().unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0, "not only when its slot is written again (G9)");
        topic.publish(Counted::new(2, &alive)).unwrap();
        assert_eq!(sub.auto_ack().recv().unwrap().number, 2);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_forgotten_delivery_stays_in_flight_and_harms_nobody_else() {
    both_kinds(
        |rules| rules.max_in_flight(2),
        |_, topic, sub| {
            topic.publish_batch(0..3).unwrap();
            std::mem::forget(sub.recv().unwrap());
            for n in 1..3 {
                assert_eq!(sub.recv().unwrap().into_inner().unwrap(), n);
            }
            assert_eq!((sub.stats().in_flight, sub.stats().lag), (1, 1));
        },
    );
}

/// Runs taken apart, left half-way and leaked, with payloads that count (A16): each message is settled or delivered again, each payload dropped once.
#[test]
fn a_run_of_deliveries_may_be_taken_apart_in_any_way() {
    let alive = Arc::new(AtomicUsize::new(0));
    for options in [TopicOptions::in_memory as fn() -> _, TopicOptions::work_queue] {
        let (_, broker) = clocked();
        let topic = broker.topic_with("t", options().capacity(16)).unwrap();
        let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
        let run = |numbers: std::ops::Range<u64>| {
            topic.publish_batch(numbers.map(|n| Counted::new(n, &alive))).unwrap();
            let mut out = Vec::new();
            sub.recv_batch(&mut out, 4).unwrap();
            assert_eq!(out.len(), 4);
            out
        };
        let back = || -> Vec<u64> {
            let deliveries = std::iter::from_fn(|| sub.try_recv().ok());
            deliveries.map(|delivery| delivery.into_inner().unwrap().number).collect()
        };
        // A drain that is left half-way.
        let mut out = run(0..4);
        out.drain(..).next().unwrap().ack().unwrap();
        assert_eq!((out.len(), back()), (0, vec![1, 2, 3]));
        // An iterator that is left half-way, from the other end.
        run(4..8).into_iter().next_back().unwrap().ack().unwrap();
        assert_eq!(back(), [4, 5, 6]);
        // A batch of verdicts over a part, and the rest one by one.
        let mut out = run(8..12);
        sub.ack_batch(out.drain(1..3)).unwrap();
        out.pop().unwrap().reject("no").unwrap();
        drop(out);
        assert_eq!((back(), sub.dead_letters().purge()), (vec![8], 1));
        assert_eq!(alive.load(Ordering::SeqCst), 0, "each payload is dropped once");
        // What did not enter comes back, and may be taken apart as well.
        let refused = topic.try_publish_batch((12..32).map(|n| Counted::new(n, &alive))).unwrap_err();
        let mut left = refused.into_inner().into_iter();
        assert_eq!(left.next().map(|first| first.number), Some(28));
        drop(left);
        assert_eq!(alive.load(Ordering::SeqCst), 16);
        sub.auto_ack().iter().take(3).for_each(drop);
        assert_eq!(back(), (15..28).collect::<Vec<_>>());
        assert_eq!(alive.load(Ordering::SeqCst), 0, "each payload is dropped once");
        // One is leaked: it stays in flight, alone.
        let mut out = run(32..36);
        std::mem::forget(out.remove(2));
        drop(out);
        assert_eq!(back(), [32, 33, 35]);
        assert_eq!((alive.load(Ordering::SeqCst), sub.stats().in_flight), (1, 1));
        alive.store(0, Ordering::SeqCst);
    }
}
