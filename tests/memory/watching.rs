//! Goal: statistics, events and the testing kit say what is so: each number at each stage, each event once, in time.
//! Method: one message moved through every state; publishers that wait; a clock that is moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{A_MOMENT, CountWakes, PATIENCE, broker, poll_once, topic, until};
use ringmq::testing::ManualClock;
use ringmq::{
    Backoff, Broker, Clock, DeadReason, Event, Overflow, RecvError, SubscribeOptions, SystemClock, Timestamp, TopicOptions,
    render_prometheus,
};

#[test]
fn each_state_of_a_message_shows_in_the_numbers() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(8)).unwrap();
    let sub = topic.subscribe("s").unwrap();
    let now = || {
        let s = sub.stats();
        (s.pending, s.in_flight, s.parked, s.lag, s.dead_letters)
    };
    assert_eq!(now(), (0, 0, 0, 0, 0));
    topic.publish_batch(0..3).unwrap();
    assert_eq!(now(), (3, 0, 0, 3, 0));
    let delivery = sub.recv().unwrap();
    assert_eq!(now(), (2, 1, 0, 3, 0));
    delivery.nack_after(A_MOMENT).unwrap();
    assert_eq!(now(), (2, 0, 1, 3, 0));
    clock.advance(A_MOMENT);
    assert_eq!(now(), (3, 0, 0, 3, 0));
    sub.recv().unwrap().reject("no").unwrap();
    assert_eq!(now(), (2, 0, 0, 2, 1));
    while let Ok(delivery) = sub.try_recv() {
        delivery.ack().unwrap();
    }
    assert_eq!(now(), (0, 0, 0, 0, 1));
    let stats = topic.stats();
    assert_eq!(
        (stats.topic.as_str(), stats.capacity, stats.published, stats.held, stats.unrouted),
        ("t", 8, 3, 0, 0)
    );
    assert_eq!(stats.subscriptions, [sub.stats()]);
    assert_eq!(broker.stats(), [stats]);
    let s = sub.stats();
    assert_eq!((s.failures, s.redelivered, s.dead_lettered, s.handles), (1, 1, 1, 1));
}

#[test]
fn every_handle_leads_to_the_numbers() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    assert_eq!(topic.publisher().topic().stats(), topic.stats());
    assert_eq!(sub.subscriber().subscription().stats().subscription, "s");
}

#[test]
fn blocked_by_names_who_holds_publishers_up_and_for_how_long() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(2)).unwrap();
    let (slow, fast) = (topic.subscribe("slow").unwrap(), topic.subscribe("fast").unwrap());
    topic.publish_batch(0..2).unwrap();
    fast.recv().unwrap().ack().unwrap();
    assert!(topic.stats().blocked_by.is_empty(), "full, but nobody waits");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| topic.publish(2).map(drop));
        until("it waits", || !topic.stats().blocked_by.is_empty());
        clock.advance(Duration::from_secs(7));
        assert_eq!(topic.stats().blocked_by, [("slow".to_owned(), Duration::from_secs(7))]);
        assert_eq!(slow.stats().blocks, Some(Duration::from_secs(7)));
        assert_eq!(fast.stats().blocks, None);
        let text = render_prometheus(&broker.stats());
        assert!(text.contains("ringmq_blocks_milliseconds{topic=\"t\",subscription=\"slow\"} 7000"));
        slow.recv().unwrap().ack().unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(topic.stats().blocked_by.is_empty());
    assert!(topic.publish_timeout(3, A_MOMENT).is_err());
    clock.advance(Duration::from_secs(7));
    assert!(topic.stats().blocked_by.is_empty(), "it gave up: nobody waits");
}

#[test]
fn the_text_form_is_prometheus_with_each_family_described_once() {
    let broker = broker();
    for name in ["a", "b.c"] {
        let topic = broker.topic::<u64>(name).unwrap();
        let sub = topic.subscribe("s").unwrap();
        topic.publish_batch(0..3).unwrap();
        sub.recv().unwrap().ack().unwrap();
    }
    let text = render_prometheus(&broker.stats());
    assert!(text.contains("ringmq_published_total{topic=\"b.c\"} 3\n"));
    assert!(text.contains("ringmq_pending{topic=\"a\",subscription=\"s\"} 2\n"));
    let mut described = std::collections::HashSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(described.insert(family.clone()), "{family} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let counts = family.ends_with("_total");
            assert_eq!(kind, format!("{family} {}", if counts { "counter" } else { "gauge" }));
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&format!("{family}{{")) && value.parse::<u64>().is_ok(), "{line}");
        }
    }
    assert_eq!(render_prometheus(&[]).lines().filter(|line| !line.starts_with('#')).count(), 0);
}

#[test]
fn the_text_form_gives_each_number_of_the_stats_under_its_own_name() {
    let mut stats = {
        let topic = topic(8);
        let _sub = topic.subscribe("s").unwrap();
        topic.stats()
    };
    (stats.published, stats.held, stats.unrouted) = (101, 102, 103);
    let s = &mut stats.subscriptions[0];
    (s.pending, s.in_flight, s.parked, s.lag, s.failures, s.redelivered) = (1, 2, 3, 4, 5, 6);
    (s.dropped, s.filtered, s.dead_lettered, s.dead_letters, s.handles) = (7, 8, 9, 10, 11);
    s.blocks = Some(Duration::from_millis(12));
    let text = render_prometheus(&[stats]);
    let of_subscription = [
        "pending",
        "in_flight",
        "parked",
        "lag",
        "failures_total",
        "redelivered_total",
        "dropped_total",
        "filtered_total",
        "dead_lettered_total",
        "dead_letters",
        "handles",
        "blocks_milliseconds",
    ];
    for (name, value) in of_subscription.iter().zip(1..) {
        let line = format!("ringmq_{name}{{topic=\"numbers\",subscription=\"s\"}} {value}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    for (name, value) in ["published_total", "held", "unrouted_total"].iter().zip(101..) {
        let line = format!("ringmq_{name}{{topic=\"numbers\"}} {value}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_is_published_can_be_watched_whatever_the_payload_and_what_was_missed_is_counted() {
    #[derive(Clone, Debug, PartialEq)]
    struct Plain(u64); // no serde
    let broker = broker();
    let topic = broker.topic_with("plain", ringmq::TopicOptions::in_memory().capacity(8)).unwrap();
    let published = broker.published::<Plain>("plain").unwrap();
    topic.publish_batch((0..3).map(Plain)).unwrap();
    assert_eq!((published.take(), published.lost()), ([0, 1, 2].map(Plain).to_vec(), 0));
    topic.publish_batch((3..100).map(Plain)).unwrap();
    let seen = published.take();
    assert_eq!(seen.len() as u64 + published.lost(), 97);
    assert!(
        seen.iter().eq((100 - seen.len() as u64..100).map(Plain).collect::<Vec<_>>().iter()),
        "the newest"
    );

    // Whoever comes first may be the watcher.
    let early = broker.published::<u64>("early").unwrap();
    broker.topic::<u64>("early").unwrap().publish(7).unwrap();
    assert_eq!(early.next(Duration::MAX).unwrap(), 7);

    broker.topic_with("queue", ringmq::TopicOptions::<u64>::work_queue()).unwrap();
    let refused = broker.published::<u64>("queue").unwrap_err();
    assert!(matches!(refused, ringmq::Error::NotCloneable { .. }), "{refused}");
}

#[test]
fn each_thing_that_happens_is_one_event() {
    let broker = broker();
    let mut events = broker.events();
    let topic = broker.topic::<u64>("t").unwrap();
    broker.topic::<u64>("t").unwrap();
    let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
    topic.subscribe("s").unwrap();
    topic.publish_batch(0..2).unwrap();
    sub.recv().unwrap().settle(ringmq::Outcome::Failed("why".into())).unwrap();
    sub.recv().unwrap().reject("no").unwrap();
    sub.recv().unwrap().ack().unwrap();
    topic.close();
    topic.close();
    sub.unsubscribe();
    let (t, s) = (|| "t".to_owned(), || "s".to_owned());
    let offset = ringmq::Offset::new(0);
    let expected = [
        Event::TopicCreated { topic: t() },
        Event::Subscribed {
            topic: t(),
            subscription: s(),
        },
        Event::Failed {
            topic: t(),
            subscription: s(),
            offset,
            failures: 1,
            error: Some("why".into()),
        },
        Event::DeadLettered {
            topic: t(),
            subscription: s(),
            offset,
            reason: DeadReason::Rejected("no".into()),
            error: Some("why".into()),
        },
        Event::TopicClosed { topic: t() },
        Event::Unsubscribed {
            topic: t(),
            subscription: s(),
        },
    ];
    assert_eq!(events.by_ref().collect::<Vec<_>>(), expected);
    assert_eq!((events.next(), events.missed()), (None, 0));
}

#[test]
fn events_can_be_waited_for_and_those_not_read_are_bounded_and_counted() {
    let broker = broker();
    let mut events = broker.events();
    assert_eq!(events.next_timeout(A_MOMENT), None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| events.next_timeout(Duration::MAX));
        broker.topic::<u64>("t").unwrap();
        assert!(matches!(waiting.join().unwrap(), Some(Event::TopicCreated { .. })));
    });
    let mut unread = broker.events();
    for n in 0..1500 {
        broker.topic::<u64>(&format!("t{n}")).unwrap();
    }
    assert_eq!(unread.missed(), 1500 - 1024);
    assert_eq!(unread.next(), Some(Event::TopicCreated { topic: "t476".into() }));
    assert_eq!(unread.count(), 1023);
}

#[test]
fn advancing_the_clock_returns_when_all_that_was_due_has_happened() {
    for round in 0..300 {
        let clock = ManualClock::new();
        let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
        let topic = broker.topic::<u64>("t").unwrap();
        let sub = topic.subscribe("s").unwrap();
        topic.publish(round).unwrap();
        sub.recv().unwrap().nack_after(Duration::from_nanos(1)).unwrap();
        clock.advance(Duration::from_nanos(1));
        assert_eq!(*sub.try_recv().unwrap(), round);
    }
}

#[test]
fn clocks_tell_the_time_and_timestamps_saturate() {
    let clock = ManualClock::new();
    let same = clock.clone();
    let before = clock.now();
    same.advance(PATIENCE);
    assert_eq!(clock.now().since(before), PATIENCE);
    assert_eq!(before.since(clock.now()), Duration::ZERO);
    assert_eq!(before.after(Duration::MAX), Timestamp::MAX);
    let system = SystemClock::new();
    assert!(system.now() <= system.now() && system.now().as_nanos() > 1_600_000_000_000_000_000);
}

#[test]
fn a_clock_of_ones_own_that_says_how_long_to_sleep_drives_retries() {
    /// Runs a thousand times as fast as the system's.
    struct Fast(SystemClock, Timestamp);
    impl Clock for Fast {
        fn now(&self) -> Timestamp {
            self.1.after(self.0.now().since(self.1) * 1000)
        }
        fn sleep_until(&self, due: Timestamp) -> Option<Duration> {
            Some(due.since(self.now()) / 1000)
        }
    }
    let system = SystemClock::new();
    let start = system.now();
    let broker = Broker::builder().clock(Fast(system, start)).open("mem:").unwrap();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic.subscribe("s").unwrap();
    topic.publish(1).unwrap();
    sub.recv().unwrap().nack_after(Duration::from_secs(5)).unwrap();
    assert_eq!(sub.recv_timeout(Duration::from_secs(4)).unwrap().attempt(), 2);
}

#[test]
fn wait_idle_waits_for_handlers_and_says_when_they_do_not_finish() {
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none()).max_failures(50))
        .unwrap();
    assert!(broker.wait_idle(Duration::ZERO));
    let running = sub.run(2, |n| if n.attempt() < 40 { Err("again") } else { Ok(()) });
    for round in 0..50 {
        topic.publish(round).unwrap();
        assert!(broker.wait_idle(PATIENCE));
        assert_eq!(sub.stats().lag, 0, "nothing is missed on its way from one state to the next");
    }
    running.drain(PATIENCE);
    topic.publish(0).unwrap();
    assert!(!broker.wait_idle(A_MOMENT), "nobody receives it");
    drop(sub);
    assert!(broker.wait_idle(Duration::ZERO), "nobody could");
}

#[test]
fn wait_idle_does_not_wait_for_what_is_parked() {
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic.subscribe("s").unwrap();
    topic.publish(1).unwrap();
    sub.recv().unwrap().nack_after(PATIENCE * 100).unwrap();
    assert!(broker.wait_idle(Duration::ZERO));
}

#[test]
fn published_watches_a_topic_without_holding_it_up() {
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(8)).unwrap();
    topic.publish(0).unwrap();
    let (first, second) = (broker.published::<u64>("t").unwrap(), broker.published::<u64>("t").unwrap());
    assert!(first.take().is_empty(), "from now on");
    topic.publish_batch(1..4).unwrap();
    assert_eq!((first.take(), first.take()), (vec![1, 2, 3], vec![]));
    assert_eq!(second.next(PATIENCE), Ok(1));
    assert_eq!(second.take(), [2, 3]);
    assert_eq!(second.next(A_MOMENT), Err(RecvError::Timeout));
    topic.publish_batch(0..1000).unwrap();
    assert_eq!(first.take().last(), Some(&999));
    drop((first, second));
    assert!(topic.stats().subscriptions.is_empty());
}

#[test]
fn the_numbers_never_run_ahead_of_what_can_be() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000 {
                topic.publish(n).unwrap();
            }
            topic.close();
        });
        scope.spawn(|| {
            for delivery in sub.subscriber() {
                delivery.unwrap().ack().unwrap();
            }
            stop.store(true, Ordering::SeqCst);
        });
        while !stop.load(Ordering::SeqCst) {
            let stats = topic.stats();
            let s = &stats.subscriptions[0];
            assert!(
                stats.published <= 20_000 && s.in_flight <= 1 && s.parked == 0 && s.dropped == 0,
                "{stats:?}"
            );
            assert!(s.pending <= 2 * 8 + 1, "{stats:?}");
        }
    });
    assert_eq!((sub.stats().lag, topic.stats().published), (0, 20_000));
}

#[test]
fn each_watcher_is_told_everything_from_the_moment_it_began() {
    let broker = broker();
    let mut first = broker.events();
    broker.topic::<u64>("a").unwrap();
    let mut second = broker.events();
    broker.topic::<u64>("b").unwrap();
    assert_eq!((first.by_ref().count(), second.by_ref().count()), (2, 1));
    drop(first);
    broker.topic::<u64>("c").unwrap();
    assert_eq!(
        (second.by_ref().count(), second.missed()),
        (1, 0),
        "another that went takes nothing along"
    );
}

/// Symptom: a subscription was said to hold publishers up although nobody waited, for as long as it was full again. Cause: who has waited once and never
/// comes back, a leaked future, takes no note back.
#[test]
fn only_who_waits_now_is_held_up_and_only_since_then() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    for (name, options) in [("t", TopicOptions::in_memory()), ("q", TopicOptions::work_queue())] {
        let topic = broker.topic_with::<u64>(name, options.capacity(1)).unwrap();
        let sub = topic.subscribe("s").unwrap();
        let wakes: Arc<CountWakes> = Arc::default();
        topic.publish(0).unwrap();
        let mut leaked = topic.publish_async(1);
        assert!(poll_once(&mut leaked, &wakes).is_pending());
        assert_eq!(topic.stats().blocked_by, [("s".to_owned(), Duration::ZERO)]);
        std::mem::forget(leaked);
        clock.advance(A_MOMENT);
        assert_eq!(topic.stats().blocked_by, [("s".to_owned(), A_MOMENT)]);
        sub.recv().unwrap().ack().unwrap();
        topic.try_publish(2).unwrap();
        assert_eq!(
            (wakes.count(), topic.stats().blocked_by),
            (1, vec![]),
            "full again, but nobody waits"
        );
        clock.advance(A_MOMENT);
        let mut waits = topic.publish_async(3);
        assert!(poll_once(&mut waits, &wakes).is_pending());
        assert_eq!(topic.stats().blocked_by, [("s".to_owned(), Duration::ZERO)], "since now");
        clock.advance(A_MOMENT);
        assert!(poll_once(&mut waits, &wakes).is_pending());
        assert_eq!(
            topic.stats().blocked_by,
            [("s".to_owned(), A_MOMENT)],
            "another poll changes nothing"
        );
        drop(waits);
        assert_eq!(topic.stats().blocked_by, []);
    }
}

/// Symptom: after a publish was refused, or its time was over, nothing said which subscription was to blame: `blocked_by` names it only while somebody
/// waits.
#[test]
fn after_a_refused_publish_it_can_be_seen_which_subscription_has_no_room() {
    let broker = broker();
    for (name, options) in [("t", TopicOptions::in_memory()), ("q", TopicOptions::work_queue())] {
        let topic = broker.topic_with::<u64>(name, options.capacity(2)).unwrap();
        let full = topic.subscribe("full").unwrap();
        let others = if name == "t" {
            vec![
                topic.subscribe("empty").unwrap(),
                topic
                    .subscribe_with(SubscribeOptions::new("drops").overflow(Overflow::DropOldest))
                    .unwrap(),
            ]
        } else {
            vec![]
        };
        assert!(topic.stats().full.is_empty());
        topic.publish_batch(0..2).unwrap();
        others
            .iter()
            .take(1)
            .for_each(|sub| while sub.try_recv().is_ok_and(|d| d.ack().is_ok()) {});
        for refused in [topic.try_publish(2), topic.publish_timeout(2, A_MOMENT)] {
            let why = refused.unwrap_err().to_string();
            assert!(why.contains("Topic::stats().full"), "it says where to look: {why}");
            assert_eq!((topic.stats().full, topic.stats().blocked_by), (vec!["full".to_owned()], vec![]));
        }
        full.recv().unwrap().ack().unwrap();
        assert!(topic.stats().full.is_empty());
    }
}
