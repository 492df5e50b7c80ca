//! Threads that sleep: who has to wake them.

use crate::models::check;
use crate::sync::{Arc, AtomicUsize, thread};
use crate::topic::models::{Model, both_kinds};
use crate::topic::receive::Until;
use crate::topic::run::Drain;
use crate::{PublishError, RecvError};

#[test]
fn a_sleeping_receiver_is_woken_by_a_publish() {
    both_kinds(1, |model| {
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        let receiver = thread::spawn(move || subscriber.recv());
        model.publisher().publish(7).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_handler_that_goes_to_sleep_is_told_to_stop() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        let mut subscriber = subscription.subscriber();
        let stop = Arc::new(AtomicUsize::new(0));
        let ordered = stop.clone();
        let handling = thread::spawn(move || {
            let until = Until {
                deadline: None,
                stop: Some(&ordered),
            };
            subscriber.recv_until(until).map(drop)
        });
        subscription.state().begin(&stop);
        assert_eq!(handling.join().unwrap(), Err(RecvError::Timeout));
    });
}

#[test]
fn a_sleeping_publisher_is_woken_by_a_receive() {
    both_kinds(1, |model| {
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).unwrap().offset().get());
        assert_eq!(subscriber.recv(), Ok(0));
        assert_eq!(publishing.join().unwrap(), 1);
        assert_eq!(subscriber.recv(), Ok(1));
    });
}

#[test]
fn a_batch_wakes_as_many_receivers_as_it_feeds() {
    both_kinds(2, |model| {
        let subscription = model.subscribe().auto_ack();
        let (mut mine, mut others) = (subscription.subscriber(), subscription.subscriber());
        let other = thread::spawn(move || others.recv().unwrap());
        model.publisher().publish_batch([1, 2]).unwrap();
        assert_eq!(mine.recv().unwrap() + other.join().unwrap(), 3);
    });
}

#[test]
fn a_batch_taken_wakes_as_many_publishers_as_it_makes_room_for() {
    check(|| {
        let model = Model::queue(1);
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish_batch([1, 2]).unwrap());
        let mut got = Vec::new();
        while got.len() < 3 {
            subscriber.recv_batch(&mut got, 2).unwrap();
        }
        publishing.join().unwrap();
        assert_eq!(got, [0, 1, 2]);
    });
}

#[test]
fn whoever_waits_for_credit_is_woken_by_an_ack() {
    both_kinds(2, |model| {
        let subscription = model.subscribe_with(|options| options.max_in_flight(1));
        model.topic.publish_batch([1, 2]).unwrap();
        let mut mine = subscription.subscriber();
        let first = mine.recv().unwrap();
        let mut others = subscription.subscriber();
        let other = thread::spawn(move || others.recv().unwrap().into_inner().unwrap());
        first.ack().unwrap();
        assert_eq!(other.join().unwrap(), 2);
    });
}

#[test]
fn whoever_waits_for_a_message_is_woken_by_a_nack() {
    both_kinds(1, |model| {
        let subscription = model.subscribe_with(|options| options.backoff(crate::Backoff::none()));
        model.topic.publish(1).unwrap();
        let held = subscription.recv().unwrap();
        let mut others = subscription.subscriber();
        let other = thread::spawn(move || {
            let again = others.recv().unwrap();
            let attempt = again.attempt();
            again.ack().unwrap();
            attempt
        });
        held.nack().unwrap();
        assert_eq!(other.join().unwrap(), 2);
    });
}

#[test]
fn whoever_waits_while_paused_is_woken_by_resume() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe();
        model.topic.publish(1).unwrap();
        subscription.pause();
        let mut subscriber = subscription.auto_ack().subscriber();
        let receiver = thread::spawn(move || subscriber.recv());
        subscription.resume();
        assert_eq!(receiver.join().unwrap(), Ok(1));
    });
}

#[test]
fn a_publisher_that_waits_for_an_unsubscribed_subscription_goes_on() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).unwrap().offset().get());
        subscription.unsubscribe();
        assert_eq!(publishing.join().unwrap(), 1);
    });
}

#[test]
fn a_publisher_goes_on_whenever_an_ephemeral_subscription_ends() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe_with(|options| options.ephemeral());
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).unwrap().offset().get());
        drop(subscription);
        assert_eq!(publishing.join().unwrap(), 1);
    });
}

#[test]
fn a_publisher_that_waits_for_a_subscription_without_handles_is_told() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).unwrap_err());
        drop(subscription);
        assert!(matches!(publishing.join().unwrap(), PublishError::Abandoned(1, name) if &*name == "s"));
    });
}

#[test]
fn a_publisher_that_waits_goes_on_after_a_seek() {
    check(|| {
        let model = Model::topic(1);
        let subscription = model.subscribe();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(1).unwrap());
        subscription.seek(crate::Start::Latest).unwrap();
        publishing.join().unwrap();
        assert_eq!(subscription.auto_ack().recv(), Ok(1));
    });
}

#[test]
fn a_receiver_that_sleeps_is_told_that_its_subscription_ended() {
    both_kinds(1, |model| {
        let subscription = model.subscribe();
        let mut subscriber = subscription.auto_ack().subscriber();
        let receiver = thread::spawn(move || subscriber.recv());
        subscription.unsubscribe();
        assert_eq!(receiver.join().unwrap(), Err(RecvError::Closed));
    });
}
