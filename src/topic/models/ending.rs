//! Closing: what was accepted is received, everybody learns the end, nobody sleeps through it.

use crate::models::check;
use crate::sync::thread;
use crate::topic::models::{Model, assert_each_once, both_kinds, to_the_end};
use crate::{Backoff, PublishError, RecvError};

#[test]
fn what_a_publisher_entered_before_the_close_is_received() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || match publisher.publish(0) {
            Ok(_) => 1,
            Err(PublishError::Closed(0)) => 0,
            Err(other) => panic!("{other}"),
        });
        let receiving = thread::spawn(move || to_the_end(&subscription));
        model.topic.close();
        let published = publishing.join().unwrap();
        assert_each_once(receiving.join().unwrap(), published);
    });
}

#[test]
fn a_publisher_that_waits_for_room_learns_of_the_close() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1));
        model.topic.close();
        assert!(matches!(publishing.join().unwrap(), Err(PublishError::Closed(1))));
        assert_eq!(to_the_end(&subscription), [0]);
    });
}

#[test]
fn a_sleeping_receiver_learns_of_the_close() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        let mut subscriber = subscription.subscriber();
        let sleeping = thread::spawn(move || subscriber.recv().map(drop));
        model.topic.close();
        assert_eq!(sleeping.join().unwrap(), Err(RecvError::Closed));
        assert_eq!(subscription.recv().map(drop), Err(RecvError::Closed));
    });
}

#[test]
fn a_receiver_learns_that_nobody_can_publish_any_more() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(0).map(drop));
        drop(model);
        assert_eq!(to_the_end(&subscription), [0]);
        publishing.join().unwrap().unwrap();
    });
}

#[test]
fn what_is_nacked_while_the_last_publisher_goes_is_delivered_again_before_the_end() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe_with(|options| options.backoff(Backoff::none()));
        model.topic.publish(0).unwrap();
        let held = subscription.recv().unwrap();
        let going = thread::spawn(move || drop(model));
        held.nack().unwrap();
        assert_eq!(to_the_end(&subscription), [0]);
        going.join().unwrap();
    });
}

#[test]
fn the_end_comes_when_the_last_delivery_is_settled() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let held = subscription.recv().unwrap();
        model.topic.close();
        let mut subscriber = subscription.subscriber();
        let waiting = thread::spawn(move || subscriber.recv().map(drop));
        held.ack().unwrap();
        assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed));
    });
}

#[test]
fn receivers_that_wait_for_the_end_let_each_other_sleep() {
    // A receiver that wakes the others whenever it looks keeps all of them awake: then this model does not end.
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let held = subscription.recv().unwrap();
        model.topic.close();
        let waiting = [(); 2].map(|()| {
            let mut subscriber = subscription.subscriber();
            thread::spawn(move || subscriber.recv().map(drop))
        });
        held.ack().unwrap();
        for receiver in waiting {
            assert_eq!(receiver.join().unwrap(), Err(RecvError::Closed));
        }
    });
}

#[test]
fn what_is_nacked_while_the_topic_closes_is_delivered_again_at_once() {
    both_kinds(1, |model| {
        let subscription = model.subscribe_with(|options| options.backoff(Backoff::none()));
        model.topic.publish(0).unwrap();
        let held = subscription.recv().unwrap();
        let mut subscriber = subscription.subscriber();
        let waiting = thread::spawn(move || {
            let again = subscriber.recv().unwrap();
            assert_eq!(again.attempt(), 2);
            again.ack().unwrap();
            subscriber.recv().map(drop)
        });
        held.nack().unwrap();
        model.topic.close();
        assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed));
    });
}

#[test]
fn what_is_parked_while_the_topic_closes_does_not_wait_for_its_time() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let held = subscription.recv().unwrap();
        let closing = {
            let topic = model.topic.clone();
            thread::spawn(move || topic.close())
        };
        // No timer runs in a model: only the close can make it due.
        held.nack_after(std::time::Duration::from_secs(3600)).unwrap();
        closing.join().unwrap();
        assert_eq!(to_the_end(&subscription), [0]);
    });
}
