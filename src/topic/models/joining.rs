//! Subscribing at the same time as others do, and as the topic ends: a name stands for one subscription, and what nobody gets is counted.

use crate::models::{check, check_up_to};
use crate::sync::thread;
use crate::topic::Subscription;
use crate::topic::models::Model;

fn receive_all(subscription: &Subscription<u64>) -> u64 {
    std::iter::from_fn(|| subscription.auto_ack().try_recv().ok()).count() as u64
}

#[test]
fn who_subscribes_at_the_same_time_shares_one_subscription() {
    check_up_to(1, || {
        let model = Model::topic(1);
        model.topic.publish(0).unwrap();
        let topic = model.topic.clone();
        let other = thread::spawn(move || {
            let subscription = topic.subscribe("s").unwrap();
            (receive_all(&subscription), subscription)
        });
        let subscription = model.subscribe();
        let mine = receive_all(&subscription);
        let (others, also) = other.join().unwrap();
        assert_eq!(mine + others, 1, "one message, once");
        model.topic.publish(1).unwrap();
        assert_eq!(
            receive_all(&also) + receive_all(&subscription),
            1,
            "both handles are of the subscription in the list"
        );
    });
}

#[test]
fn a_subscription_that_comes_while_another_of_its_name_goes_is_alive() {
    check(|| {
        let model = Model::topic(1);
        let first = model.subscribe();
        let topic = model.topic.clone();
        let joining = thread::spawn(move || topic.subscribe("s").unwrap());
        first.unsubscribe();
        let second = joining.join().unwrap();
        // Either it was still the first, which ends for all of its handles, or it is a new one.
        let is_listed = model.topic.stats().subscriptions.len() == 1;
        model.topic.try_publish(0).unwrap();
        assert_eq!(receive_all(&second), u64::from(is_listed));
    });
}

#[test]
fn what_no_receiver_gets_of_a_topic_that_ends_is_counted_once() {
    for make in [Model::topic, Model::queue] {
        check_up_to(1, move || {
            let model = make(1);
            let mut subscriber = model.subscribe().auto_ack().subscriber();
            model.topic.publish(0).unwrap();
            let receiving = thread::spawn(move || u64::from(subscriber.try_recv().is_ok()));
            model.topic.close();
            let core = &model.topic.core;
            let left = core.unsubscribe(&core.subscriptions()[0]) + core.drop_rest();
            assert_eq!(receiving.join().unwrap() + left, 1);
        });
    }
}

#[test]
fn a_subscription_that_comes_while_its_topic_ends_is_refused_or_counted() {
    check_up_to(1, || {
        let model = Model::topic(1);
        model.topic.publish(0).unwrap();
        let topic = model.topic.clone();
        let ending = thread::spawn(move || {
            topic.close();
            let subscriptions = topic.core.subscriptions();
            subscriptions.iter().map(|state| topic.core.unsubscribe(state)).sum::<u64>()
        });
        let (expected, received) = match model.topic.subscribe("s") {
            Ok(subscription) => (1, u64::from(subscription.auto_ack().try_recv().is_ok())),
            Err(_) => (0, 0),
        };
        assert_eq!(received + ending.join().unwrap(), expected);
        assert!(model.topic.stats().subscriptions.is_empty(), "none is left behind");
    });
}
