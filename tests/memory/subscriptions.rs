//! Goal: subscriptions come, go, start, move and pause as asked, and each sees every message that it should, once.
//! Method: several subscriptions of one topic, joined and left at known offsets; a clock that is moved by hand for times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{A_MOMENT, PATIENCE, broker, topic, work_queue};
use ringmq::testing::ManualClock;
use ringmq::{
    Backoff, Broker, Clock, Error, Offset, Overflow, RecvError, Start, SubscribeOptions, Subscription, Timestamp, Topic, TopicOptions,
    TryRecvError,
};

fn all(sub: &Subscription<u64>) -> Vec<u64> {
    std::iter::from_fn(|| sub.auto_ack().try_recv().ok()).collect()
}

fn starting(topic: &Topic<u64>, name: &str, start: Start) -> Subscription<u64> {
    topic.subscribe_with(SubscribeOptions::new(name).start(start)).unwrap()
}

/// A payload that counts its clones.
struct Cloned(u64, Arc<AtomicU64>);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.1.fetch_add(1, Ordering::Relaxed);
        Self(self.0, self.1.clone())
    }
}

/// With a filter, and in batches too: nobody else would need what is left behind.
#[test]
fn what_only_one_subscription_is_to_get_is_moved_and_not_cloned() {
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::in_memory().capacity(64)).unwrap();
    let clones = Arc::new(AtomicU64::new(0));
    let publish = |ids: std::ops::Range<u64>| topic.publish_batch(ids.map(|id| Cloned(id, clones.clone()))).unwrap();
    let so_far = || clones.load(Ordering::Relaxed);
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").filter(|payload: &Cloned| payload.0 != 3))
        .unwrap();
    publish(0..20);
    sub.recv().unwrap().ack().unwrap();
    assert_eq!(sub.auto_ack().recv().unwrap().0, 1);
    let mut batch = Vec::new();
    while batch.len() < 17 {
        sub.recv_batch(&mut batch, 5).unwrap();
    }
    assert!(batch.iter().map(|delivery| delivery.0).eq((2..20).filter(|&id| id != 3)));
    sub.ack_batch(batch).unwrap();
    assert_eq!(so_far(), 0, "alone");

    let plain = topic
        .subscribe_with(SubscribeOptions::new("plain").start(Start::Latest))
        .unwrap()
        .auto_ack();
    publish(20..30);
    for id in 20..30 {
        assert_eq!((plain.recv().unwrap().0, sub.auto_ack().recv().unwrap().0), (id, id));
    }
    assert_eq!(so_far(), 20, "each of two has its own");

    sub.unsubscribe();
    publish(30..40);
    let mut batch = Vec::new();
    plain.recv_batch(&mut batch, 4).unwrap();
    batch.extend(std::iter::from_fn(|| plain.try_recv().ok()));
    assert!(batch.iter().map(|payload| payload.0).eq(30..40));
    assert_eq!(so_far(), 20, "alone again");
}

#[test]
fn every_subscription_sees_every_message() {
    let topic = topic(64);
    let subs: Vec<_> = (0..5).map(|n| topic.subscribe(&format!("s{n}")).unwrap()).collect();
    topic.publish_batch(0..50).unwrap();
    for sub in subs {
        assert!(all(&sub).into_iter().eq(0..50));
    }
}

#[test]
fn subscribers_of_one_subscription_compete_and_each_message_goes_to_one() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic = make(16);
        let [a, b, c] = [0; 3].map(|_| topic.subscribe("s").unwrap());
        let mut got = thread::scope(|scope| {
            let handles: Vec<_> = [&a, &b, &c]
                .map(|sub| scope.spawn(|| sub.auto_ack().iter().map(Result::unwrap).collect::<Vec<_>>()))
                .into();
            topic.publish_batch(0..5000).unwrap();
            topic.close();
            handles.into_iter().flat_map(|h| h.join().unwrap()).collect::<Vec<_>>()
        });
        got.sort_unstable();
        assert!(got.into_iter().eq(0..5000));
    }
}

#[test]
fn subscriptions_join_and_leave_while_messages_flow_and_miss_nothing_between() {
    let topic = topic(16);
    let steady = topic.subscribe("steady").unwrap().auto_ack();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for n in 0..20_000 {
                topic.publish(n).unwrap();
            }
            topic.close();
        });
        let steady = scope.spawn(|| steady.iter().map(Result::unwrap).eq(0..20_000));
        let comers: Vec<_> = (0..2)
            .map(|t| {
                let topic = &topic;
                scope.spawn(move || {
                    let mut visits = 0;
                    for n in 0.. {
                        let options = SubscribeOptions::new(&format!("visitor-{t}-{n}")).ephemeral();
                        let Ok(sub) = topic.subscribe_with(options) else { break };
                        let seen: Vec<_> = sub.auto_ack().iter().map(Result::unwrap).take(50).collect();
                        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap: {seen:?}");
                        visits += 1;
                    }
                    visits
                })
            })
            .collect();
        publisher.join().unwrap();
        assert!(steady.join().unwrap());
        assert!(comers.into_iter().all(|c| c.join().unwrap() > 0));
    });
}

#[test]
fn a_subscription_lives_on_without_handles_until_unsubscribed() {
    let topic = topic(16);
    drop(topic.subscribe("s").unwrap());
    topic.publish_batch(0..3).unwrap();
    let sub = topic.subscribe("s").unwrap();
    assert_eq!((sub.stats().pending, sub.stats().handles), (3, 1));
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 0);
    drop(sub);
    let sub = topic.subscribe("s").unwrap();
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 1);
    let other = topic.subscribe("s").unwrap();
    assert_eq!(other.stats().handles, 2);
    sub.unsubscribe();
    assert_eq!(other.recv().unwrap_err(), RecvError::Closed);
    let fresh = topic.subscribe("s").unwrap();
    topic.publish(9).unwrap();
    assert_eq!(all(&fresh).last(), Some(&9));
    assert_eq!(topic.stats().subscriptions.len(), 1);
}

#[test]
fn an_ephemeral_subscription_ends_with_its_last_handle() {
    let topic = topic(1);
    let options = || SubscribeOptions::new("s").ephemeral();
    let sub = topic.subscribe_with(options()).unwrap();
    let (clone, subscriber) = (sub.clone(), sub.subscriber());
    let another = topic.subscribe_with(options()).unwrap();
    topic.publish(1).unwrap();
    drop((sub, clone, another));
    assert_eq!(topic.stats().subscriptions.len(), 1);
    assert!(topic.try_publish(2).is_err(), "it still holds its place");
    drop(subscriber);
    assert!(topic.stats().subscriptions.is_empty());
    topic.publish(2).unwrap();
}

#[test]
fn ephemeral_subscriptions_that_come_and_go_under_one_name_are_always_alive_in_hand() {
    let topic = topic(16);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let sub = topic.subscribe_with(SubscribeOptions::new("s").ephemeral()).unwrap();
                    assert_ne!(sub.try_recv().unwrap_err(), TryRecvError::Closed);
                }
            });
        }
    });
    assert!(topic.stats().subscriptions.is_empty());
}

/// Goal: a name stands for one subscription, and a work queue has one, however many subscribe at the same time. Method: three threads that meet before
/// each attempt; the messages that were there before all of them arrive once.
#[test]
fn of_those_who_subscribe_at_the_same_time_all_get_the_same_subscription() {
    for make in [topic as fn(usize) -> _, work_queue] {
        for round in 0..200 {
            let topic: Topic<u64> = make(8);
            topic.publish_batch(0..3).unwrap();
            let together = std::sync::Barrier::new(3);
            let (handles, refused): (Vec<_>, Vec<_>) = thread::scope(|scope| {
                let subscribe = |name| {
                    let (topic, together) = (&topic, &together);
                    scope.spawn(move || {
                        together.wait();
                        topic.subscribe(name)
                    })
                };
                let threads = ["same", "same", "other"].map(subscribe);
                threads.into_iter().map(|t| t.join().unwrap()).partition(|result| result.is_ok())
            });
            let handles: Vec<_> = handles.into_iter().map(Result::unwrap).collect();
            let stats = topic.stats().subscriptions;
            assert_eq!(
                stats.iter().map(|s| s.handles).sum::<usize>(),
                handles.len(),
                "round {round}: {stats:?}"
            );
            for sub in &stats {
                let same = handles.iter().filter(|handle| handle.name() == sub.subscription);
                let got: Vec<u64> = same.flat_map(all).collect();
                assert_eq!(got, [0, 1, 2], "round {round}: {sub:?}");
            }
            assert!(refused.iter().all(|r| matches!(r, Err(Error::SingleSubscription { .. }))));
            let is_queue = stats.len() == 1;
            assert_eq!(is_queue, !refused.is_empty(), "round {round}: {stats:?}");
        }
    }
}

#[test]
fn a_topic_without_subscriptions_keeps_its_newest_messages_for_the_first_one() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic = make(8);
        topic.publish_batch(0..5).unwrap();
        assert_eq!((topic.stats().held, topic.stats().unrouted), (5, 0));
        for n in 5..100 {
            assert_eq!(topic.publish(n).unwrap().subscriptions(), 0);
        }
        let stats = topic.stats();
        assert!((7..=8).contains(&stats.held), "{stats:?}");
        assert_eq!(stats.held + stats.unrouted, 100, "what is overwritten is counted (G3)");
        let got = all(&topic.subscribe("first").unwrap());
        assert!(got.iter().copied().eq(stats.unrouted..100), "{got:?}");
    }
}

#[test]
fn earliest_is_the_oldest_that_the_topic_still_holds() {
    let topic = topic(8);
    let slow = topic.subscribe("slow").unwrap();
    topic.publish_batch(0..8).unwrap();
    for _ in 0..3 {
        slow.recv().unwrap().ack().unwrap();
    }
    topic.publish_batch(8..11).unwrap();
    let late = topic.subscribe("late").unwrap();
    let got = all(&late);
    assert!(got[0] <= 3 && got.iter().copied().eq(got[0]..11), "{got:?}");
}

#[test]
fn latest_at_and_since_start_where_they_say() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker
        .topic_with("t", TopicOptions::<u64>::new().capacity(16).timestamps())
        .unwrap();
    let _keeps = topic.subscribe("keeps").unwrap();
    for n in 0..10 {
        topic.publish(n).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(all(&starting(&topic, "latest", Start::Latest)), []);
    assert_eq!(all(&starting(&topic, "at", Start::At(Offset::new(7)))), [7, 8, 9]);
    assert!(all(&starting(&topic, "at-once", Start::At(Offset::new(0)))).into_iter().eq(0..10));
    assert_eq!(all(&starting(&topic, "beyond", Start::At(Offset::new(1000)))), []);
    let then = Timestamp::from_nanos(clock.now().as_nanos() - 3_000_000_000);
    assert_eq!(all(&starting(&topic, "since", Start::Since(then))), [7, 8, 9]);
    assert!(
        all(&starting(&topic, "since-ever", Start::Since(Timestamp::default())))
            .into_iter()
            .eq(0..10)
    );
    assert_eq!(all(&starting(&topic, "since-later", Start::Since(Timestamp::MAX))), []);
}

#[test]
fn a_start_after_the_first_subscription_of_that_name_is_ignored() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    topic.publish_batch(0..3).unwrap();
    let same = starting(&topic, "s", Start::Latest);
    assert_eq!(all(&same), [0, 1, 2], "it is where it was: use seek");
    assert_eq!(all(&sub), []);
}

#[test]
fn since_needs_timestamps_and_says_so() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    for refused in [
        topic
            .subscribe_with(SubscribeOptions::new("new").start(Start::Since(Timestamp::MAX)))
            .map(drop)
            .unwrap_err(),
        sub.seek(Start::Since(Timestamp::MAX)).map(drop).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::NoTimestamps { .. }));
        assert!(refused.to_string().contains("timestamps()"), "{refused}");
    }
}

#[test]
fn seek_moves_the_next_fresh_message() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let _keeps = topic.subscribe("keeps").unwrap();
    topic.publish_batch(0..10).unwrap();
    assert_eq!(all(&sub).len(), 10);
    assert_eq!(sub.seek(Start::At(Offset::new(8))).unwrap().get(), 8);
    assert_eq!(all(&sub), [8, 9]);
    assert_eq!(sub.seek(Start::Earliest).unwrap().get(), 0);
    assert_eq!(all(&sub).len(), 10);
    assert_eq!(sub.seek(Start::At(Offset::new(u64::MAX))).unwrap().get(), 10);
    sub.seek(Start::At(Offset::new(5))).unwrap();
    assert_eq!(sub.seek(Start::Latest).unwrap().get(), 10);
    assert_eq!(all(&sub), []);
}

#[test]
fn seek_leaves_what_is_in_flight_or_parked_alone() {
    let topic = topic(16);
    let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
    topic.publish_batch(0..4).unwrap();
    let held = sub.recv().unwrap();
    sub.recv().unwrap().nack().unwrap();
    sub.seek(Start::Latest).unwrap();
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 1);
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    held.nack().unwrap();
    assert_eq!(*sub.recv().unwrap(), 0);
}

#[test]
fn seeking_forward_makes_room_for_publishers_and_back_wakes_receivers() {
    let topic = topic(2);
    let sub = topic.subscribe("s").unwrap();
    topic.publish_batch(0..2).unwrap();
    thread::scope(|scope| {
        let publishing = scope.spawn(|| topic.publish_timeout(2, PATIENCE).map(drop));
        crate::support::until("it waits", || !topic.stats().blocked_by.is_empty());
        sub.seek(Start::Latest).unwrap();
        publishing.join().unwrap().unwrap();
    });
    assert_eq!(all(&sub), [2]);
    let topic = crate::support::topic(16);
    let (sub, _keeps) = (topic.subscribe("s").unwrap(), topic.subscribe("keeps").unwrap());
    topic.publish(7).unwrap();
    assert_eq!(all(&sub), [7]);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| sub.auto_ack().recv_timeout(PATIENCE));
        sub.seek(Start::Earliest).unwrap();
        assert_eq!(receiving.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_paused_subscription_delivers_nothing_until_resumed_and_settles_meanwhile() {
    let topic = topic(16);
    let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
    topic.publish_batch(0..3).unwrap();
    let (first, second) = (sub.recv().unwrap(), sub.recv().unwrap());
    sub.pause();
    first.ack().unwrap();
    second.nack().unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(sub.recv_timeout(A_MOMENT).unwrap_err(), RecvError::Timeout);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| sub.recv_timeout(PATIENCE).unwrap().into_inner().unwrap());
        sub.resume();
        assert_eq!(waiting.join().unwrap(), 1);
    });
    assert_eq!(all(&sub), [2]);
}

#[test]
fn a_filter_passes_what_it_wants_and_the_rest_is_no_backlog() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic = make(8);
        let odd = topic.subscribe_with(SubscribeOptions::new("s").filter(|n| n % 2 == 1)).unwrap();
        topic.publish_batch(0..8).unwrap();
        assert_eq!(all(&odd), [1, 3, 5, 7]);
        assert_eq!((odd.stats().lag, odd.stats().filtered), (0, 4));
        topic.publish_batch(8..16).unwrap();
        let mut out = Vec::new();
        while odd.auto_ack().try_recv_batch(&mut out, 3).is_ok() {}
        assert_eq!(out, [9, 11, 13, 15]);
    }
}

#[test]
fn messages_that_a_filter_does_not_want_make_room_for_publishers() {
    let topic = topic(4);
    let none = topic.subscribe_with(SubscribeOptions::new("s").filter(|n| *n == 999)).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| none.recv_timeout(PATIENCE).unwrap().into_inner().unwrap());
        for n in 0..1000 {
            topic.publish_timeout(n, PATIENCE).unwrap();
        }
        assert_eq!(waiting.join().unwrap(), 999);
    });
}

#[test]
fn a_filter_that_panics_counts_as_a_match() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic = make(8);
        let wanted = |n: &u64| if *n == 3 { panic!("at three") } else { n % 2 != 1 };
        let sub = topic.subscribe_with(SubscribeOptions::new("s").filter(wanted)).unwrap();
        topic.publish_batch(0..6).unwrap();
        assert_eq!(all(&sub), [0, 2, 3, 4]);
    }
}

#[test]
fn a_filter_runs_on_the_receivers_side_never_on_the_publishers() {
    let topic = topic(8);
    let calls = std::sync::Arc::new(AtomicU64::new(0));
    let count = calls.clone();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").filter(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            true
        }))
        .unwrap();
    topic.publish_batch(0..5).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(all(&sub).len(), 5);
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

#[test]
fn opening_again_with_the_same_options_or_none_gives_the_same_subscription() {
    let topic = topic(8);
    let options = || SubscribeOptions::new("s").max_in_flight(5).max_failures(3).overflow(Overflow::Fail);
    let sub = topic.subscribe_with(options()).unwrap();
    let same = topic.subscribe_with(options()).unwrap();
    let plain = topic.subscribe("s").unwrap();
    topic.publish(1).unwrap();
    assert_eq!(sub.stats().handles, 3);
    assert_eq!((all(&same), all(&plain)), (vec![1], vec![]));
    assert_eq!((sub.name(), sub.topic_name()), ("s", "numbers"));
}

#[test]
fn other_options_on_an_existing_subscription_are_refused_by_name() {
    let topic = topic(8);
    let _sub = topic.subscribe("s").unwrap();
    let new = || SubscribeOptions::new("s");
    for (option, other) in [
        ("max_in_flight", new().max_in_flight(5)),
        ("max_parked", new().max_parked(5)),
        ("max_failures", new().max_failures(5)),
        ("overflow", new().overflow(Overflow::Fail)),
        ("backoff", new().backoff(Backoff::none())),
        ("ack_timeout", new().ack_timeout(PATIENCE)),
        ("dead_letters_max", new().dead_letters_max(5)),
        ("ephemeral", new().ephemeral()),
        ("filter", new().filter(|_| true)),
    ] {
        let refused = topic.subscribe_with(other).unwrap_err();
        assert!(
            matches!(&refused, Error::OptionsDiffer { option: o, .. } if *o == option),
            "{refused}"
        );
        assert!(
            refused.to_string().contains("\"s\"") && refused.to_string().contains(option),
            "{refused}"
        );
    }
}

#[test]
fn other_options_or_another_type_on_an_existing_topic_are_refused() {
    let broker = broker();
    let options = || TopicOptions::<u64>::new();
    let topic = broker.topic_with("t", options().capacity(100)).unwrap();
    assert_eq!(topic.capacity(), 128, "rounded up to a power of two");
    broker.topic_with("t", options().capacity(128)).unwrap();
    broker.topic_with("t", options().capacity(65)).unwrap();
    broker.topic_with("t", options()).unwrap();
    assert_eq!(broker.topic::<u64>("t").unwrap().capacity(), 128);
    for other in [options().capacity(64), options().timestamps(), TopicOptions::work_queue()] {
        let refused = broker.topic_with("t", other).unwrap_err();
        assert!(matches!(refused, Error::OptionsDiffer { .. }), "{refused}");
    }
    let refused = broker.topic::<String>("t").unwrap_err();
    assert!(matches!(refused, Error::WrongType { .. }));
    assert!(
        refused.to_string().contains("u64") && refused.to_string().contains("String"),
        "{refused}"
    );
}

#[test]
fn a_work_queue_has_one_subscription_at_a_time() {
    let queue = work_queue(8);
    let sub = queue.subscribe("one").unwrap();
    let refused = queue.subscribe("two").unwrap_err();
    assert!(matches!(&refused, Error::SingleSubscription { existing, .. } if existing == "one"));
    queue.subscribe("one").unwrap();
    sub.unsubscribe();
    queue.publish(1).unwrap();
    assert_eq!(all(&queue.subscribe("two").unwrap()), [1]);
}

#[test]
fn a_work_queue_refuses_what_needs_clones() {
    let queue = work_queue(8);
    for options in [
        SubscribeOptions::new("s").overflow(Overflow::Conflate { keys: 3 }),
        SubscribeOptions::new("s").ack_timeout(PATIENCE),
        SubscribeOptions::new("s").start(Start::Latest),
    ] {
        let refused = queue.subscribe_with(options).unwrap_err();
        assert!(matches!(refused, Error::NotCloneable { .. }), "{refused}");
    }
    let sub = queue.subscribe("s").unwrap();
    assert!(matches!(sub.seek(Start::Latest), Err(Error::NotCloneable { .. })));
}

#[test]
fn payloads_need_no_more_than_the_kind_of_topic_asks_for() {
    struct Plain(std::cell::Cell<u64>);
    let queue = broker().topic_with::<Plain>("t", TopicOptions::work_queue()).unwrap();
    let sub = queue.subscribe("s").unwrap();
    queue.publish(Plain(std::cell::Cell::new(7))).unwrap();
    assert_eq!(sub.recv().unwrap().into_inner().unwrap().0.get(), 7);

    #[derive(Clone)]
    struct NoSerde(&'static str);
    let topic = broker().topic_with::<NoSerde>("t", TopicOptions::in_memory()).unwrap();
    let sub = topic.subscribe("s").unwrap();
    topic.publish(NoSerde("x")).unwrap();
    assert_eq!(sub.recv().unwrap().0, "x");
}

/// The defaults that the documentation names, each by what it does.
#[test]
fn the_defaults_are_those_that_are_documented() {
    const HOUR: Duration = Duration::from_secs(3600);
    let topic = broker().topic::<u64>("t").unwrap();
    let sub = topic.subscribe("s").unwrap();
    assert_eq!(topic.capacity(), 1024);
    topic.publish_batch(0..1024).unwrap();
    let mut held: Vec<_> = std::iter::from_fn(|| sub.try_recv().ok()).collect();
    assert_eq!(held.len(), 1024);
    topic.publish(1024).unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    held.clear();

    let sub = topic.subscribe_with(SubscribeOptions::new("fails").start(Start::Latest)).unwrap();
    topic.subscribe("s").unwrap().unsubscribe();
    topic.publish(0).unwrap();
    for failures in 1..=16 {
        assert_eq!(sub.stats().dead_letters, 0, "after {failures} failures");
        sub.recv().unwrap().nack_after(Duration::ZERO).unwrap();
    }
    assert_eq!(sub.stats().dead_letters, 1);

    for n in 1..10_001 {
        topic.publish(n).unwrap();
        sub.recv().unwrap().reject("no").unwrap();
    }
    assert_eq!((sub.stats().dead_letters, sub.stats().parked), (10_000, 1));
    assert_eq!(sub.dead_letters().purge(), 10_000);

    for n in 0..16_384 {
        topic.publish(n).unwrap();
        sub.recv().unwrap().nack_after(HOUR).unwrap();
    }
    topic.publish(0).unwrap();
    assert_eq!((sub.stats().parked, sub.try_recv().unwrap_err()), (16_384, TryRecvError::Empty));
}

#[test]
fn whoever_opens_a_subscription_with_another_filter_gets_its_own() {
    let topic = topic(8);
    let even = topic.subscribe_with(SubscribeOptions::new("s").filter(|n| n % 2 == 0)).unwrap();
    let odd = topic.subscribe_with(SubscribeOptions::new("s").filter(|n| n % 2 == 1)).unwrap();
    topic.publish_batch(1..=4).unwrap();
    assert_eq!(*odd.try_recv().unwrap(), 2, "filters cannot be compared: the first one stays");
    assert_eq!(*even.try_recv().unwrap(), 4);
}

#[test]
fn a_seek_drops_what_a_conflating_subscription_has_kept_and_tells_what_it_had_lost() {
    let topic = topic(2);
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").overflow(Overflow::Conflate { keys: 1 }))
        .unwrap();
    topic.publish_batch(0..6).unwrap();
    let (lost, pending) = (sub.stats().dropped, sub.stats().pending);
    assert_eq!((lost, pending), (3, 3), "one is kept of the four that it was moved past");
    sub.seek(Start::Latest).unwrap();
    assert_eq!(sub.stats().pending, 0, "nothing is kept");
    topic.publish(6).unwrap();
    assert!(matches!(sub.try_recv(), Err(TryRecvError::Lagged(lagged)) if lagged.lost == 3));
    assert_eq!(*sub.try_recv().unwrap(), 6);
    assert_eq!(sub.stats().dropped, 3);
}

#[test]
fn unsubscribing_takes_the_dead_letters_along_and_leaves_the_newest_messages_for_the_next() {
    let topic = topic(2);
    let sub = topic.subscribe("s").unwrap();
    topic.publish(0).unwrap();
    sub.try_recv().unwrap().reject("no").unwrap();
    assert_eq!(sub.dead_letters().len(), 1);
    sub.unsubscribe();
    topic.publish_batch(1..=5).unwrap();
    let next = topic.subscribe("s").unwrap();
    assert_eq!(next.dead_letters().len(), 0);
    topic.close();
    assert_eq!(all(&next), [4, 5]);
}
