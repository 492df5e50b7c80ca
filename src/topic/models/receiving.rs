//! Who receives what: competing, falling behind, several at a time.

use crate::models::check;
use crate::sync::{Arc, thread};
use crate::topic::models::{Model, assert_each_once, both_kinds, received, to_the_end};
use crate::{Overflow, RecvError, SubscribeOptions, Subscriber, TopicOptions, TryRecvError};

#[test]
fn competing_receivers_share_the_messages() {
    both_kinds(2, |model| {
        let subscription = model.subscribe();
        model.topic.publish_batch([0, 1]).unwrap();
        model.topic.close();
        let other = {
            let subscription = subscription.clone();
            thread::spawn(move || to_the_end(&subscription))
        };
        let seen = [to_the_end(&subscription), other.join().unwrap()].concat();
        assert_each_once(seen, 2);
    });
}

/// With one credit for both, each takes it from the other between looking for a message and taking it (G1).
#[test]
fn each_of_those_that_are_short_of_credit_sees_offsets_ascend() {
    fn receive(subscriber: &mut Subscriber<u64>, seen: &mut Vec<u64>, attempts: u32) {
        for _ in 0..attempts {
            if let Ok(delivery) = subscriber.try_recv() {
                seen.push(delivery.offset().get());
                delivery.ack().unwrap();
            }
        }
    }
    both_kinds(4, |model| {
        let subscription = model.subscribe_with(|options| options.max_in_flight(1));
        model.topic.publish_batch([0, 1, 2]).unwrap();
        let (mut mine, mut other) = (subscription.subscriber(), subscription.subscriber());
        let mut seen = Vec::new();
        receive(&mut mine, &mut seen, 1);
        let receiving = thread::spawn(move || {
            let mut seen = Vec::new();
            receive(&mut other, &mut seen, 2);
            seen
        });
        receive(&mut mine, &mut seen, 1);
        let others = receiving.join().unwrap();
        receive(&mut mine, &mut seen, 3);
        assert!(seen.is_sorted() && others.is_sorted(), "{seen:?} {others:?}");
        assert_each_once([seen, others].concat(), 3);
    });
}

#[test]
fn publishers_that_share_a_handle_enter_each_message_once() {
    both_kinds(2, |model| {
        let subscription = model.subscribe().auto_ack();
        let other = model.topic.clone();
        let publishing = thread::spawn(move || other.publish(10).unwrap().offset().get());
        let mine = model.topic.publish(20).unwrap().offset().get();
        let others = publishing.join().unwrap();
        let (first, second) = (subscription.recv().unwrap(), subscription.recv().unwrap());
        assert_eq!((mine + others, first + second), (1, 30));
        assert_eq!(first, if mine == 0 { 20 } else { 10 });
    });
}

#[test]
fn what_drops_the_oldest_is_told_exactly_what_it_lost() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.overflowing(Overflow::DropOldest);
        let mut publisher = model.publisher();
        publisher.publish(0).unwrap();
        let publishing = thread::spawn(move || publisher.publish(1).map(drop).unwrap());
        assert_each_once(received(&subscription, 2), 2);
        publishing.join().unwrap();
    });
}

#[test]
fn what_was_lost_is_told_before_the_end() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.overflowing(Overflow::DropOldest);
        model.topic.publish_batch([0, 1]).unwrap();
        let topic = model.topic.clone();
        let closing = thread::spawn(move || topic.close());
        assert_eq!(to_the_end(&subscription), [0, 1]);
        closing.join().unwrap();
    });
}

/// One of them tells the loss, and copies what comes next meanwhile: the other one waits for that.
#[test]
fn of_two_that_find_a_loss_and_a_message_neither_says_that_there_is_nothing() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.overflowing(Overflow::DropOldest).auto_ack();
        model.topic.publish_batch([0, 1]).unwrap();
        let (mut mine, mut others) = (subscription.subscriber(), subscription.subscriber());
        let other = thread::spawn(move || others.try_recv());
        let received = [mine.try_recv(), other.join().unwrap()];
        let lost = received
            .iter()
            .filter(|got| matches!(got, Err(TryRecvError::Lagged(lagged)) if lagged.lost == 1));
        assert_eq!(lost.count(), 1, "{received:?}");
        assert!(received.contains(&Ok(1)), "{received:?}");
    });
}

#[test]
fn what_drops_the_oldest_holds_up_nobody_and_loses_nothing_of_the_others() {
    check(|| {
        let model = Model::topic(1);
        let gates = model.topic.subscribe("gates").unwrap();
        let drops = model.overflowing(Overflow::DropOldest);
        let receiving = thread::spawn(move || received(&gates, 2));
        let mut publisher = model.publisher();
        publisher.publish(0).unwrap();
        publisher.publish(1).unwrap();
        assert_eq!(receiving.join().unwrap(), [0, 1]);
        assert_each_once(received(&drops, 2), 2);
    });
}

#[test]
fn a_queue_that_drops_the_oldest_is_told_what_it_lost_before_the_next_message() {
    check(|| {
        let model = Model::queue(1);
        let subscription = model.overflowing(Overflow::DropOldest);
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || {
            publisher.publish(0).unwrap();
            publisher.publish(1).unwrap();
            publisher.topic().close();
        });
        assert_eq!(to_the_end(&subscription), [0, 1], "a loss is told before what comes behind it");
        publishing.join().unwrap();
    });
}

#[test]
fn what_conflates_receives_the_last_of_its_key_and_never_goes_back() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.overflowing(Overflow::Conflate { keys: 1 });
        let mut publisher = model.publisher();
        publisher.publish(0).unwrap();
        let publishing = thread::spawn(move || {
            publisher.publish(1).unwrap();
        });
        let (auto, mut seen, mut last) = (subscription.auto_ack(), Vec::new(), None);
        while last < Some(1) {
            match auto.recv() {
                Ok(value) => {
                    assert!(last < Some(value), "{value} after {last:?}");
                    last = Some(value);
                    seen.push(value);
                }
                Err(RecvError::Lagged(lagged)) => seen.extend(lagged.from.get()..lagged.to.get()),
                Err(other) => panic!("{other}"),
            }
        }
        assert_each_once(seen, 2);
        publishing.join().unwrap();
    });
}

#[test]
fn credit_is_never_exceeded_by_receivers_that_compete() {
    both_kinds(2, |model| {
        let subscription = model.subscribe_with(|options| options.max_in_flight(1));
        model.topic.publish_batch([0, 1]).unwrap();
        let (mut mine, mut others) = (subscription.subscriber(), subscription.subscriber());
        let other = thread::spawn(move || others.try_recv().ok());
        let first = mine.try_recv().ok();
        let second = other.join().unwrap();
        assert!(first.is_none() || second.is_none(), "one at a time");
        assert!(first.is_some() || second.is_some() || mine.try_recv().is_ok());
    });
}

#[test]
fn a_queue_that_drops_its_oldest_drops_what_it_must_and_hides_nothing() {
    check(|| {
        let model = Model::queue(1);
        let subscription = model.overflowing(Overflow::DropOldest);
        let mut subscriber = subscription.auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).map(drop).unwrap());
        let first = subscriber.try_recv();
        publishing.join().unwrap();
        let lost = subscription.stats().dropped;
        match first {
            Ok(0) => assert_eq!(lost, 0, "there was room"),
            Err(TryRecvError::Lagged(lagged)) => assert_eq!((lagged.from.get(), lagged.to.get(), lost), (0, 1, 1)),
            other => panic!("one message or the other is there: {other:?}"),
        }
        assert_eq!(subscriber.try_recv(), Ok(1));
    });
}

#[test]
fn a_subscription_that_joins_late_misses_nothing_from_then_on() {
    check(|| {
        let model = Model::topic(1);
        let topic = model.topic.clone();
        let joining = thread::spawn(move || {
            let subscription = topic.subscribe("late").unwrap();
            let first = subscription.recv().unwrap();
            let (offset, value) = (first.offset().get(), *first);
            first.ack().unwrap();
            assert_eq!(offset, value);
            subscription
        });
        model.topic.publish(0).unwrap();
        // Nobody subscribes yet, or the first message is received: there is room, sooner or later.
        model.topic.publish(1).unwrap();
        drop(joining.join().unwrap());
    });
}

#[test]
fn an_ephemeral_subscription_ends_with_its_last_handle_or_lives_on_with_a_new_one() {
    check(|| {
        let model = Model::topic(1);
        let options = || SubscribeOptions::new("s").ephemeral();
        let first = model.topic.subscribe_with(options()).unwrap();
        let topic = model.topic.clone();
        let second = thread::spawn(move || topic.subscribe_with(options()).unwrap());
        drop(first);
        let second = second.join().unwrap();
        assert_eq!(
            second.try_recv().unwrap_err(),
            TryRecvError::Empty,
            "it was opened after the other handle went"
        );
        model.topic.publish(1).unwrap();
        assert_eq!(second.auto_ack().recv(), Ok(1));
    });
}

#[test]
fn a_run_of_deliveries_takes_no_more_than_there_is_credit_for() {
    both_kinds(2, |model| {
        let subscription = model.subscribe_with(|options| options.max_in_flight(1));
        let mut subscriber = subscription.subscriber();
        let receiving = thread::spawn(move || {
            let (mut seen, mut out) = (Vec::new(), Vec::new());
            while seen.len() < 2 {
                assert_eq!(subscriber.recv_batch(&mut out, 2), Ok(1));
                seen.extend(out.drain(..).map(|delivery| delivery.into_inner().unwrap()));
            }
            seen
        });
        model.topic.publish_batch([0, 1]).unwrap();
        assert_eq!(receiving.join().unwrap(), [0, 1]);
    });
}

#[test]
fn payloads_are_dropped_when_the_last_subscription_has_read_them() {
    check(|| {
        let broker = crate::Broker::builder().seed(1).open("mem:").unwrap();
        let topic = broker.topic_with::<Arc<u64>>("t", TopicOptions::in_memory().capacity(2)).unwrap();
        let [first, second] = ["a", "b"].map(|name| topic.subscribe(name).unwrap().auto_ack());
        let payload = Arc::new(1);
        topic.publish(payload.clone()).unwrap();
        let other = thread::spawn(move || drop(first.recv().unwrap()));
        drop(second.recv().unwrap());
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&payload), 1, "nothing lingers in the ring");
    });
}
