//! Goal: what fails for good ends in the dead letters with its history, and nothing there is lost or hidden (G2, G3, G11).
//! Method: handlers that fail, reject or panic; a clock that is moved by hand; stores and topics that fill up.

use std::time::Duration;

use crate::support::{PATIENCE, broker};
use ringmq::testing::ManualClock;
use ringmq::{
    Backoff, Broker, Clock, DeadReason, Error, Event, Outcome, RecvError, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError,
};

const MINUTE: Duration = Duration::from_secs(60);

fn at_once(name: &str) -> SubscribeOptions<u64> {
    SubscribeOptions::new(name).backoff(Backoff::none()).max_failures(2)
}

fn numbers(broker: &Broker) -> (Topic<u64>, Subscription<u64>) {
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s")).unwrap();
    (topic, sub)
}

fn reject_all(sub: &Subscription<u64>) {
    while let Ok(delivery) = sub.try_recv() {
        delivery.reject("no good").unwrap();
    }
}

#[test]
fn a_letter_tells_the_whole_story() {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(SubscribeOptions::new("s").max_failures(3)).unwrap();
    topic.publish(0).unwrap();
    topic.message(7).key("k").publish().unwrap();
    sub.recv().unwrap().ack().unwrap();
    let first = clock.now();
    sub.recv().unwrap().settle(Outcome::Failed("one".into())).unwrap();
    clock.advance(MINUTE);
    sub.recv().unwrap().settle(Outcome::Failed("two".into())).unwrap();
    clock.advance(MINUTE);
    sub.recv().unwrap().nack().unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    let letter = sub.dead_letters().list().unwrap().remove(0);
    assert_eq!(
        (letter.payload, letter.key.as_deref(), letter.offset.get()),
        (7, Some(&b"k"[..]), 1)
    );
    assert_eq!((letter.topic.as_str(), letter.subscription.as_str()), ("numbers", "s"));
    assert_eq!((&letter.reason, letter.error.as_deref()), (&DeadReason::Failures, Some("two")));
    assert_eq!((letter.attempts, letter.failures), (3, 3));
    assert_eq!((letter.first_failed, letter.last_failed), (first, first.after(2 * MINUTE)));
    assert_eq!(letter.reason.to_string(), "failed too often");
}

#[test]
fn a_rejected_message_keeps_its_reason_and_the_history_before() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish(1).unwrap();
    sub.recv().unwrap().settle(Outcome::Failed("first".into())).unwrap();
    sub.recv().unwrap().reject("no good").unwrap();
    let letter = sub.dead_letters().list().unwrap().remove(0);
    assert_eq!(letter.reason, DeadReason::Rejected("no good".into()));
    assert_eq!((letter.error.as_deref(), letter.attempts, letter.failures), (Some("first"), 2, 1));
}

#[test]
fn an_error_keeps_its_causes_and_is_cut_to_a_bound() {
    #[derive(Debug)]
    struct Because(std::num::ParseIntError);
    impl std::fmt::Display for Because {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(
                f,
                "bad row {}",
                "x".repeat(if self.0.kind() == &std::num::IntErrorKind::Empty { 5000 } else { 0 })
            )
        }
    }
    impl std::error::Error for Because {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..2).unwrap();
    topic.close();
    let running = sub.run(1, |n| if **n == 0 { "x" } else { "" }.parse::<i32>().map(drop).map_err(Because));
    running.join();
    let letters = sub.dead_letters().list().unwrap();
    let error = |at: usize| letters[at].error.as_deref().unwrap();
    assert_eq!(error(0), "bad row : invalid digit found in string");
    assert!(error(1).starts_with("bad row xxx") && error(1).len() <= 1000);
}

#[test]
fn a_poison_message_ends_in_the_dead_letters_and_the_others_are_handled() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..10).unwrap();
    topic.close();
    let running = sub.run(2, |n| assert_ne!(**n, 5, "five is poison"));
    running.join();
    let letters = sub.dead_letters().list().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].payload, letters[0].failures), (5, 2));
    let error = letters[0].error.as_deref().unwrap();
    assert!(
        error.starts_with("the handler panicked") && error.contains("five is poison"),
        "{error}"
    );
    assert_eq!(sub.stats().lag, 0);
}

#[test]
fn redrive_delivers_the_chosen_ones_again_as_if_for_the_first_time() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    for n in 0..4 {
        topic.message(n).key("k").header("h", "v").publish().unwrap();
    }
    let other = topic.subscribe("other").unwrap();
    assert_eq!(other.stats().pending, 4);
    reject_all(&sub);
    let letters = sub.dead_letters();
    assert_eq!(letters.redrive(|letter| letter.payload % 2 == 1), 2);
    assert_eq!(letters.len(), 2);
    for n in [1, 3] {
        let again = sub.recv().unwrap();
        assert_eq!((*again, again.attempt(), again.failures(), again.offset().get()), (n, 1, 0, n));
        assert_eq!((again.key(), again.headers().find("h")), (Some(&b"k"[..]), Some("v")));
        again.ack().unwrap();
    }
    assert_eq!(letters.list().unwrap().iter().map(|l| l.payload).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((letters.redrive(|_| true), letters.len(), letters.is_empty()), (2, 0, true));
    assert_eq!(other.stats().pending, 4, "a redrive concerns this subscription alone");
    assert_eq!(sub.stats().redelivered, 0, "nor does it count as a redelivery");
}

#[test]
fn redriving_wakes_a_sleeping_receiver() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish(1).unwrap();
    reject_all(&sub);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sub.recv_timeout(PATIENCE).unwrap().into_inner().unwrap());
        assert_eq!(sub.dead_letters().redrive(|_| true), 1);
        assert_eq!(waiting.join().unwrap(), 1);
    });
}

#[test]
fn a_choice_that_panics_loses_no_letter() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..4).unwrap();
    reject_all(&sub);
    let letters = sub.dead_letters();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        letters.redrive(|letter| {
            if letter.payload == 2 {
                panic!("at two")
            } else {
                letter.payload == 1
            }
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 1);
    let mut left: Vec<_> = letters.list().unwrap().iter().map(|l| l.payload).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 2, 3]);
}

#[test]
fn purge_drops_all_letters() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..4).unwrap();
    reject_all(&sub);
    assert_eq!((sub.dead_letters().purge(), sub.dead_letters().len()), (4, 0));
    assert_eq!((sub.stats().dead_letters, sub.stats().dead_lettered), (0, 4));
}

#[test]
fn letters_of_a_work_queue_can_be_redriven_but_not_listed() {
    let topic = broker().topic_with::<u64>("numbers", TopicOptions::work_queue()).unwrap();
    let sub = topic.subscribe("s").unwrap();
    topic.publish(1).unwrap();
    sub.recv().unwrap().reject("no").unwrap();
    let refused = sub.dead_letters().list().unwrap_err();
    assert!(matches!(refused, Error::NotCloneable { .. }), "{refused}");
    assert_eq!(sub.dead_letters().redrive(|letter| letter.payload == 1), 1);
    assert_eq!(*sub.recv().unwrap(), 1);
}

#[test]
fn a_full_store_keeps_the_message_parked_and_an_event_fires() {
    let broker = broker();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s").dead_letters_max(2)).unwrap();
    let events = broker.events();
    topic.publish_batch(0..4).unwrap();
    reject_all(&sub);
    let stats = sub.stats();
    assert_eq!((stats.dead_letters, stats.dead_lettered, stats.parked, stats.lag), (2, 2, 2, 2));
    let full: Vec<_> = events
        .filter_map(|event| match event {
            Event::DeadLettersFull { offset, .. } => Some(offset.get()),
            _ => None,
        })
        .collect();
    assert_eq!(full, [2, 3]);
    assert_eq!(sub.dead_letters().redrive(|letter| letter.payload == 0), 1);
    assert_eq!((sub.dead_letters().len(), sub.stats().parked), (2, 1));
    assert_eq!(sub.dead_letters().purge(), 2);
    assert_eq!((sub.dead_letters().len(), sub.stats().parked), (1, 0));
    let letter = sub.dead_letters().list().unwrap().remove(0);
    assert_eq!((letter.payload, letter.reason), (3, DeadReason::Rejected("no good".into())));
}

#[test]
fn what_finds_no_room_in_the_store_counts_for_max_parked() {
    let broker = broker();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s").dead_letters_max(1).max_parked(2)).unwrap();
    topic.publish_batch(0..10).unwrap();
    reject_all(&sub);
    assert_eq!((sub.stats().pending, sub.stats().parked), (7, 2), "a stop, not a loss (G3)");
    sub.dead_letters().purge();
    assert_eq!(*sub.try_recv().unwrap(), 3);
}

#[test]
fn a_dead_letter_topic_gets_what_was_stored_and_what_comes() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.message(1).key("k").header("h", "v").publish().unwrap();
    sub.recv().unwrap().settle(Outcome::Failed("why".into())).unwrap();
    sub.recv().unwrap().settle(Outcome::Failed("why".into())).unwrap();
    let dead = broker.topic::<u64>("$dead.numbers.s").unwrap();
    assert_eq!(sub.dead_letters().len(), 1, "nobody subscribes to it yet");
    let undertaker = dead.subscribe("undertaker").unwrap();
    assert_eq!(sub.dead_letters().len(), 0);
    topic.publish(2).unwrap();
    reject_all(&sub);
    let first = undertaker.recv().unwrap();
    assert_eq!((*first, first.key(), first.headers().find("h")), (1, Some(&b"k"[..]), Some("v")));
    let said = |name| first.headers().find(name);
    assert_eq!((said("dead-topic"), said("dead-subscription")), (Some("numbers"), Some("s")));
    assert_eq!((said("dead-offset"), said("dead-error")), (Some("0"), Some("why")));
    assert_eq!((said("dead-attempts"), said("dead-failures")), (Some("2"), Some("2")));
    assert_eq!(said("dead-reason"), Some("failed too often"));
    let at = |name| said(name).unwrap().parse::<u64>().unwrap();
    assert!(0 < at("dead-first-failed") && at("dead-first-failed") <= at("dead-last-failed"));
    let second = undertaker.recv().unwrap();
    assert_eq!((*second, second.headers().find("dead-reason")), (2, Some("rejected: no good")));
    assert_eq!(sub.stats().dead_lettered, 2);
    undertaker.ack_batch([first, second]).unwrap();
}

#[test]
fn letters_that_find_no_room_in_their_topic_are_stored() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..6).unwrap();
    let dead = broker
        .topic_with("$dead.numbers.s", TopicOptions::<u64>::new().capacity(2))
        .unwrap();
    let undertaker = dead.subscribe("undertaker").unwrap();
    for _ in 0..4 {
        sub.recv().unwrap().reject("no").unwrap();
    }
    assert_eq!((undertaker.stats().pending, sub.dead_letters().len()), (2, 2));
    undertaker.recv().unwrap().ack().unwrap();
    sub.recv().unwrap().reject("no").unwrap();
    assert_eq!((undertaker.stats().pending, sub.dead_letters().len()), (2, 2));
    dead.close();
    sub.recv().unwrap().reject("no").unwrap();
    assert_eq!((undertaker.stats().pending, sub.dead_letters().len()), (2, 3));
}

/// Symptom: with its store full, a subscription parked its dead letters although their topic had room. Cause: the store was asked first.
#[test]
fn a_full_store_does_not_keep_letters_from_their_topic() {
    let broker = broker();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s").dead_letters_max(1)).unwrap();
    let dead = broker
        .topic_with("$dead.numbers.s", TopicOptions::<u64>::new().capacity(1))
        .unwrap();
    let undertaker = dead.subscribe("undertaker").unwrap();
    topic.publish_batch(0..3).unwrap();
    sub.recv().unwrap().reject("to the topic").unwrap();
    sub.recv().unwrap().reject("to the store").unwrap();
    undertaker.recv().unwrap().ack().unwrap();
    sub.recv()
        .unwrap()
        .reject("to the store, which the one before leaves for the topic")
        .unwrap();
    assert_eq!(
        (*undertaker.recv().unwrap(), sub.dead_letters().len(), sub.stats().parked),
        (1, 1, 0)
    );
}

#[test]
fn a_dead_letter_topic_never_dead_letters_into_a_further_topic() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    let dead = broker.topic::<u64>("$dead.numbers.s").unwrap();
    let undertaker = dead.subscribe_with(at_once("undertaker")).unwrap();
    topic.publish(1).unwrap();
    reject_all(&sub);
    for _ in 0..2 {
        undertaker.recv().unwrap().nack().unwrap();
    }
    assert_eq!(undertaker.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(
        undertaker.dead_letters().len(),
        1,
        "it is kept with the subscription that gave it up"
    );
    let refused = broker.topic::<u64>("$dead.$dead.numbers.s.undertaker").unwrap_err();
    assert!(matches!(refused, Error::BadName { .. }), "{refused}");
}

#[test]
fn a_dead_letter_topic_needs_its_origin_and_its_type() {
    let broker = broker();
    let refused = broker.topic::<u64>("$dead.numbers.s").unwrap_err();
    assert!(matches!(refused, Error::BadName { .. }), "{refused}");
    let (_topic, _sub) = numbers(&broker);
    let refused = broker.topic::<String>("$dead.numbers.s").unwrap_err();
    assert!(matches!(refused, Error::WrongType { .. }), "{refused}");
    broker.topic::<u64>("$dead.numbers.s").unwrap();
}

/// Symptom: after `unsubscribe` and a new `subscribe` under the same name, dead letters did not reach their topic any more. Cause: the topic
/// was tied to the subscription once, when it was created. Fix: each time it is opened.
#[test]
fn a_subscription_made_anew_sends_its_letters_to_the_same_topic() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    let undertaker = broker.topic::<u64>("$dead.numbers.s").unwrap().subscribe("undertaker").unwrap();
    sub.unsubscribe();
    let (_, sub) = numbers(&broker);
    topic.publish(1).unwrap();
    reject_all(&sub);
    assert_eq!(sub.dead_letters().len(), 1);
    broker.topic::<u64>("$dead.numbers.s").unwrap();
    assert_eq!(*undertaker.try_recv().unwrap(), 1);
    assert_eq!(sub.dead_letters().len(), 0);
}

#[test]
fn dead_letters_outlive_the_close_of_their_topic_and_can_be_redriven_until_then() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish(1).unwrap();
    topic.close();
    reject_all(&sub);
    assert_eq!(sub.recv().unwrap_err(), RecvError::Closed);
    assert_eq!(sub.dead_letters().redrive(|_| true), 1);
    sub.recv().unwrap().ack().unwrap();
    assert_eq!(sub.recv().unwrap_err(), RecvError::Closed);
}

#[test]
fn letters_that_found_their_topic_full_follow_with_the_next_one_oldest_first() {
    let broker = broker();
    let (topic, sub) = numbers(&broker);
    topic.publish_batch(0..6).unwrap();
    let options = TopicOptions::<u64>::new().capacity(2);
    let undertaker = broker
        .topic_with("$dead.numbers.s", options)
        .unwrap()
        .subscribe("undertaker")
        .unwrap();
    for _ in 0..5 {
        sub.recv().unwrap().reject("no").unwrap();
    }
    let take = || undertaker.recv().unwrap().into_inner().unwrap();
    assert_eq!((take(), take()), (0, 1));
    assert_eq!(sub.dead_letters().len(), 3);
    sub.recv().unwrap().reject("no").unwrap();
    assert_eq!((take(), take()), (2, 3));
    let left: Vec<_> = sub.dead_letters().list().unwrap().iter().map(|letter| letter.payload).collect();
    assert_eq!(left, [4, 5]);
}

#[test]
fn letters_count_as_stored_while_somebody_looks_through_them() {
    let broker = broker();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s").dead_letters_max(2)).unwrap();
    topic.publish_batch(0..3).unwrap();
    for _ in 0..2 {
        sub.recv().unwrap().reject("no").unwrap();
    }
    let mut counts = Vec::new();
    sub.dead_letters().redrive(|_| {
        counts.push(sub.dead_letters().len());
        // No room is made by looking: this one stays parked.
        if let Ok(third) = sub.try_recv() {
            third.reject("no").unwrap();
        }
        false
    });
    assert_eq!((counts, sub.dead_letters().len(), sub.stats().parked), (vec![2, 2], 2, 1));
    assert_eq!(sub.dead_letters().purge(), 2);
    assert_eq!((sub.dead_letters().len(), sub.stats().parked), (1, 0));
}

/// Symptom: a letter that had found store and topic full stayed parked for ever while later ones went by it. Cause: only a redrive, a purge or a
/// new subscriber looked after it. Fix: it follows with the next letter, before that one.
#[test]
fn a_letter_that_found_store_and_topic_full_follows_with_the_next_one() {
    let broker = broker();
    let topic = broker.topic::<u64>("numbers").unwrap();
    let sub = topic.subscribe_with(at_once("s").dead_letters_max(1)).unwrap();
    let dead = broker
        .topic_with::<u64>("$dead.numbers.s", TopicOptions::new().capacity(1))
        .unwrap();
    let undertaker = dead.subscribe("undertaker").unwrap().auto_ack();
    topic.publish_batch(0..8).unwrap();
    let mut buried = Vec::new();
    for _ in 0..3 {
        sub.recv().unwrap().reject("no").unwrap();
    }
    while let Ok(letter) = undertaker.try_recv() {
        buried.push(letter);
        if let Ok(delivery) = sub.try_recv() {
            delivery.reject("no").unwrap();
        }
    }
    assert!(buried.len() >= 5 && buried.iter().copied().eq(0..buried.len() as u64), "{buried:?}");
}

/// Symptom: a closed topic whose store of letters was full never ended for its receivers. Cause: with so much parked, they waited for fresh
/// messages to be allowed again. Fix: where none can come, that is the end.
#[test]
fn a_closed_topic_ends_although_letters_have_found_no_room() {
    for max_parked in [1, 2] {
        let broker = broker();
        let topic = broker.topic::<u64>("numbers").unwrap();
        let rules = at_once("s").max_parked(max_parked).dead_letters_max(1);
        let sub = topic.subscribe_with(rules).unwrap();
        topic.publish_batch([1, 2]).unwrap();
        for _ in 0..2 {
            sub.recv().unwrap().reject("no").unwrap();
        }
        assert_eq!(sub.stats().parked, 1);
        topic.close();
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Closed);
        assert_eq!(sub.recv().unwrap_err(), RecvError::Closed);
        let report = broker.close(PATIENCE);
        assert_eq!((report.unsettled, report.dead_letters), (1, 1));
    }
}
