//! Goal: bad input is a typed error whose text says what to do; nothing overflows, hangs, or ends the process.
//! Method: each option and name beyond its range; the largest and smallest times; handles whose topic is gone.

use std::time::{Duration, Instant};

use crate::support::{A_MOMENT, broker, topic};
use ringmq::{
    Backoff, Broker, Error, Lagged, Offset, Overflow, PublishError, PublishFailure, RecvError, Start, SubscribeOptions, TopicOptions,
    TryRecvError,
};

#[test]
fn a_url_that_names_no_broker_says_which_does() {
    for url in ["", "mem", "memory:", "http://x", "mem:x", &"x".repeat(10_000)] {
        let refused = Broker::open(url).unwrap_err();
        assert!(matches!(refused, Error::BadUrl { .. }));
        let text = refused.to_string();
        assert!(text.contains("mem:") && text.len() < 400, "{text}");
    }
}

#[test]
fn a_bad_name_says_what_a_name_must_be() {
    let broker = broker();
    let long = "x".repeat(10_000);
    for name in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a/b",
        "caf\u{e9}",
        "$a",
        "$dead.a",
        "a*",
        ">",
        "\0",
        &long,
    ] {
        let refused = broker.topic::<u64>(name).unwrap_err();
        assert!(matches!(refused, Error::BadName { what: "topic", .. }), "{name}");
        let text = refused.to_string();
        assert!(text.contains("1 to 180 bytes") && text.len() < 600, "{text}");
    }
    let topic = broker.topic::<u64>("a.b-c_D.9").unwrap();
    for name in ["", "a.b", "$a", "a b", &"x".repeat(61), &long] {
        let refused = topic.subscribe(name).unwrap_err();
        assert!(matches!(refused, Error::BadName { what: "subscription", .. }), "{name}");
        assert!(refused.to_string().contains("1 to 60 bytes"));
    }
    topic.subscribe(&"x".repeat(60)).unwrap();
}

#[test]
fn the_longest_names_have_their_dead_letter_topic() {
    let broker = broker();
    let (t, s) = ("t".repeat(180), "s".repeat(60));
    let topic = broker.topic::<u64>(&t).unwrap();
    let _sub = topic.subscribe(&s).unwrap();
    broker.topic::<u64>(&format!("$dead.{t}.{s}")).unwrap();
}

#[test]
fn absurd_capacities_are_refused_and_small_ones_work() {
    let broker = broker();
    let most = usize::try_from(1_u64 << 32).unwrap_or(1 << (usize::BITS - 1));
    for capacity in [0, usize::MAX, usize::MAX / 2 + 2, most + 1] {
        for options in [TopicOptions::<u64>::new, TopicOptions::work_queue] {
            let refused = broker.topic_with("t", options().capacity(capacity)).unwrap_err();
            assert!(matches!(refused, Error::BadOption { option: "capacity", .. }));
            assert!(refused.to_string().contains("4,294,967,296"), "{refused}");
        }
    }
    // More than any machine has, without being out of range: an error, not the end of the process.
    let refused = broker
        .topic_with::<[u64; 1 << 20]>("t", TopicOptions::work_queue().capacity(most))
        .unwrap_err();
    assert!(matches!(refused, Error::OutOfMemory { .. }), "{refused}");
    assert!(refused.to_string().contains("choose a smaller capacity"), "{refused}");
    for (capacity, rounded) in [(1, 1), (2, 2), (3, 4), (7, 8), (8, 8), (9, 16), (1000, 1024)] {
        let topic = broker
            .topic_with(&format!("t{capacity}"), TopicOptions::<u64>::new().capacity(capacity))
            .unwrap();
        let _sub = topic.subscribe("s").unwrap();
        assert_eq!(topic.capacity(), rounded);
        let entered = (0..).take_while(|&n| topic.try_publish(n).is_ok()).count();
        assert_eq!(entered, rounded);
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let topic = topic(8);
    let new = || SubscribeOptions::<u64>::new("s");
    for (option, options) in [
        ("max_in_flight", new().max_in_flight(0)),
        ("max_in_flight", new().max_in_flight(u32::MAX)),
        ("max_parked", new().max_parked(0)),
        ("max_failures", new().max_failures(0)),
        ("dead_letters_max", new().dead_letters_max(0)),
        ("ack_timeout", new().ack_timeout(Duration::ZERO)),
        ("keys", new().overflow(Overflow::Conflate { keys: 0 })),
    ] {
        let refused = topic.subscribe_with(options).unwrap_err();
        assert!(matches!(refused, Error::BadOption { .. }), "{option}");
        let text = refused.to_string();
        assert!(text.contains(option) && text.contains("must be"), "{text}");
    }
    assert!(topic.stats().subscriptions.is_empty());
    let extreme = new()
        .max_in_flight(1_073_741_823)
        .max_parked(usize::MAX)
        .max_failures(u32::MAX)
        .dead_letters_max(usize::MAX)
        .ack_timeout(Duration::MAX)
        .backoff(Backoff::exponential(Duration::MAX, Duration::MAX));
    let sub = topic.subscribe_with(extreme).unwrap();
    topic.publish(1).unwrap();
    let delivery = sub.recv().unwrap();
    delivery.extend().unwrap();
    delivery.nack().unwrap();
    assert_eq!(sub.stats().parked, 1);
    let widest = new().overflow(Overflow::Conflate { keys: usize::MAX });
    assert!(matches!(
        topic.subscribe_with(widest),
        Err(Error::BadOption { .. } | Error::OptionsDiffer { .. })
    ));
}

#[test]
fn the_longest_time_is_for_ever_and_the_shortest_is_now() {
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(1)).unwrap();
    let sub = topic.subscribe("s").unwrap().auto_ack();
    topic.publish_timeout(1, Duration::MAX).unwrap();
    assert_eq!(sub.recv_timeout(Duration::MAX), Ok(1));
    assert_eq!(sub.recv_timeout(Duration::ZERO), Err(RecvError::Timeout));
    let past = Instant::now().checked_sub(A_MOMENT).unwrap_or_else(Instant::now);
    topic.publish_deadline(2, past).unwrap();
    assert!(matches!(topic.publish_deadline(3, past), Err(PublishError::Timeout(3))));
    assert_eq!(sub.recv_deadline(past), Ok(2));
    assert_eq!(sub.recv_deadline(past), Err(RecvError::Timeout));
    let mut out = Vec::new();
    assert_eq!(
        sub.recv_batch_timeout(&mut out, usize::MAX, Duration::ZERO),
        Err(RecvError::Timeout)
    );
    let mut events = broker.events();
    assert_eq!(events.next_timeout(Duration::ZERO), None);
    topic.close();
    let report = broker.close(Duration::MAX);
    assert_eq!(report.unsettled, 0);
}

#[test]
fn offsets_beyond_what_there_is_are_brought_into_range() {
    let topic = topic(8);
    let (sub, _keeps) = (topic.subscribe("s").unwrap(), topic.subscribe("keeps").unwrap());
    topic.publish_batch(0..3).unwrap();
    assert_eq!(sub.seek(Start::At(Offset::new(u64::MAX))).unwrap().get(), 3);
    assert_eq!(sub.seek(Start::At(Offset::new(0))).unwrap().get(), 0);
}

#[test]
fn every_text_says_what_to_do() {
    let lagged = lagged();
    for (text, advice) in [
        (PublishFailure::Full.to_string(), "publish()"),
        (PublishFailure::Closed.to_string(), "accepts nothing"),
        (PublishFailure::Timeout.to_string(), "blocked_by"),
        (PublishFailure::WouldDeadlock.to_string(), "try_publish"),
        (PublishFailure::Abandoned("s".into()).to_string(), "unsubscribe"),
        (RecvError::Closed.to_string(), "nothing will come"),
        (RecvError::Lagged(lagged).to_string(), "fell behind"),
        (TryRecvError::InFlightFull.to_string(), "max_in_flight"),
        (Error::LeaseLost.to_string(), "extend()"),
        (Error::Publish(PublishFailure::Full).to_string(), "publish()"),
        (Error::from(TryRecvError::InFlightFull).to_string(), "max_in_flight"),
        (Error::from(TryRecvError::Empty).to_string(), "no message"),
        (Error::from(RecvError::Closed).to_string(), "nothing will come"),
        (Error::from(lagged).to_string(), "fell behind"),
    ] {
        assert!(text.contains(advice), "{text:?} lacks {advice:?}");
        assert!(!text.ends_with('.') && text.starts_with(|c: char| c.is_lowercase()), "{text:?}");
    }
}

/// A loss, made the only way there is.
fn lagged() -> Lagged {
    let topic = topic(1);
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").overflow(Overflow::DropOldest))
        .unwrap();
    topic.publish_batch(0..3).unwrap();
    match sub.recv() {
        Err(RecvError::Lagged(lagged)) => lagged,
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_convert_for_the_question_mark_and_need_nothing_of_the_payload() {
    struct NoDebug;
    fn publish_all(topic: &ringmq::Topic<NoDebug>) -> ringmq::Result<()> {
        topic.publish(NoDebug)?;
        topic.publish_batch([NoDebug])?;
        let sub = topic.subscribe("s")?;
        sub.try_recv()?.ack()?;
        sub.recv()?.ack()?;
        topic.close();
        Ok(topic.publish(NoDebug).map(drop)?)
    }
    let topic = broker().topic_with("t", TopicOptions::work_queue()).unwrap();
    let refused = publish_all(&topic).unwrap_err();
    assert!(matches!(refused, Error::Publish(PublishFailure::Closed)), "{refused:?}");
    let error = topic.publish(NoDebug).unwrap_err();
    assert_eq!(format!("{error:?}"), "Closed");
    assert!(std::error::Error::source(&error).is_none());
}

#[test]
fn handles_show_themselves_without_showing_payloads() {
    struct NoDebug;
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::<NoDebug>::work_queue()).unwrap();
    let sub = topic.subscribe("s").unwrap();
    for text in [
        format!("{broker:?}"),
        format!("{topic:?}"),
        format!("{:?}", topic.publisher()),
        format!("{sub:?}"),
        format!("{:?}", sub.subscriber()),
        format!("{:?}", sub.dead_letters()),
        format!("{:?}", sub.recv_async()),
        format!("{:?}", topic.publish_async(NoDebug)),
        format!("{:?}", topic.message(NoDebug).key("k")),
    ] {
        assert!(!text.is_empty());
    }
}
