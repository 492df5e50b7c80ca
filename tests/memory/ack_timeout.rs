//! Goal: with an ack timeout, a delivery without a verdict in time is delivered again, once, and the late verdict says so.
//! Method: a clock that is moved by hand.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{PATIENCE, until};
use ringmq::testing::ManualClock;
use ringmq::{Backoff, Broker, Error, RecvError, SubscribeOptions, Subscription, Topic, TryRecvError};

const MINUTE: Duration = Duration::from_secs(60);

fn with_timeout(rules: impl Fn(SubscribeOptions<u64>) -> SubscribeOptions<u64>) -> (ManualClock, Topic<u64>, Subscription<u64>) {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic("t").unwrap();
    let options = SubscribeOptions::new("s").ack_timeout(MINUTE).backoff(Backoff::none());
    let sub = topic.subscribe_with(rules(options)).unwrap();
    (clock, topic, sub)
}

#[test]
fn a_verdict_in_time_counts() {
    let (clock, topic, sub) = with_timeout(|rules| rules);
    topic.publish(1).unwrap();
    let delivery = sub.recv().unwrap();
    clock.advance(MINUTE - Duration::from_nanos(1));
    delivery.ack().unwrap();
    clock.advance(MINUTE * 10);
    assert_eq!((sub.try_recv().unwrap_err(), sub.stats().lag), (TryRecvError::Empty, 0));
}

#[test]
fn a_message_whose_time_ran_out_is_delivered_again_as_one_failure() {
    let (clock, topic, sub) = with_timeout(|rules| rules);
    topic.publish(1).unwrap();
    let late = sub.recv().unwrap();
    clock.advance(MINUTE);
    let again = sub.try_recv().unwrap();
    assert_eq!((*again, again.attempt(), again.failures()), (1, 2, 1));
    assert!(matches!(late.ack(), Err(Error::LeaseLost)));
    again.ack().unwrap();
    assert_eq!((sub.stats().lag, sub.stats().failures), (0, 1));
}

#[test]
fn every_late_verdict_says_lease_lost_and_changes_nothing() {
    let (clock, topic, sub) = with_timeout(|rules| rules);
    let verdicts: [fn(ringmq::Delivery<u64>) -> ringmq::Result<()>; 6] = [
        |d| d.ack(),
        |d| d.nack(),
        |d| d.nack_after(MINUTE),
        |d| d.reject("late"),
        |d| d.into_inner().map(drop),
        |d| d.extend(),
    ];
    for verdict in verdicts {
        topic.publish(1).unwrap();
        let late = sub.recv().unwrap();
        clock.advance(MINUTE);
        assert!(matches!(verdict(late), Err(Error::LeaseLost)));
        let again = sub.try_recv().unwrap();
        assert_eq!((again.attempt(), again.failures()), (2, 1));
        again.ack().unwrap();
        assert_eq!((sub.stats().lag, sub.stats().dead_letters), (0, 0));
    }
}

#[test]
fn extend_starts_the_time_anew() {
    let (clock, topic, sub) = with_timeout(|rules| rules);
    topic.publish(1).unwrap();
    let delivery = sub.recv().unwrap();
    for _ in 0..5 {
        clock.advance(MINUTE * 2 / 3);
        delivery.extend().unwrap();
        assert!(sub.try_recv().is_err());
    }
    clock.advance(MINUTE);
    assert!(matches!(delivery.extend(), Err(Error::LeaseLost)));
    assert_eq!(sub.try_recv().unwrap().attempt(), 2);
}

#[test]
fn without_an_ack_timeout_extend_has_nothing_to_do() {
    let topic = crate::support::topic(8);
    let sub = topic.subscribe("s").unwrap();
    topic.publish(1).unwrap();
    let delivery = sub.recv().unwrap();
    delivery.extend().unwrap();
    delivery.ack().unwrap();
}

#[test]
fn a_message_that_always_runs_out_of_time_ends_in_the_dead_letters() {
    let (clock, topic, sub) = with_timeout(|rules| rules.max_failures(3));
    topic.publish(1).unwrap();
    let mut late = Vec::new();
    for attempt in 1..=3 {
        let delivery = sub.try_recv().unwrap();
        assert_eq!(delivery.attempt(), attempt);
        late.push(delivery);
        clock.advance(MINUTE);
    }
    let letter = sub.dead_letters().list().unwrap().remove(0);
    assert_eq!((letter.payload, letter.attempts, letter.failures), (1, 3, 3));
    assert_eq!(letter.error.as_deref(), Some("the ack timeout ran out"));
}

#[test]
fn a_run_of_deliveries_has_a_timeout_each() {
    let (clock, topic, sub) = with_timeout(|rules| rules);
    topic.publish_batch(0..4).unwrap();
    let mut out = Vec::new();
    assert_eq!(sub.recv_batch(&mut out, 4).unwrap(), 4);
    clock.advance(MINUTE / 2);
    out.pop().unwrap().ack().unwrap();
    out[0].extend().unwrap();
    clock.advance(MINUTE / 2);
    assert_eq!(*sub.try_recv().unwrap(), 1);
    assert_eq!(*sub.try_recv().unwrap(), 2);
    out.remove(0).ack().unwrap();
    assert!(matches!(sub.ack_batch(out), Err(Error::LeaseLost)));
}

/// A handler that hangs, or leaks its delivery, must not use the subscription up.
/// Symptom: after its ack timeout a leaked delivery still counted as in flight: `max_in_flight` shrank for good and a closed topic never
/// said `Closed`. Cause: only the delivery itself gave its credit back. Fix: the credit comes back when the time runs out.
#[test]
fn a_delivery_whose_time_ran_out_is_in_flight_no_more() {
    let (clock, topic, sub) = with_timeout(|rules| rules.max_in_flight(1));
    topic.publish_batch(1..=2).unwrap();
    std::mem::forget(sub.recv().unwrap());
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    clock.advance(MINUTE);
    assert_eq!((sub.stats().in_flight, sub.stats().lag), (0, 2));
    let late = sub.try_recv().unwrap();
    clock.advance(MINUTE);
    assert_eq!(sub.stats().in_flight, 0);
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 2);
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 1);
    assert!(late.ack().is_err());
    assert_eq!((sub.stats().in_flight, sub.stats().lag), (0, 0));
    // The bound is still exact: what came back twice would show here.
    topic.publish_batch(3..=4).unwrap();
    let held = sub.recv().unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    held.ack().unwrap();
    sub.recv().unwrap().ack().unwrap();
    topic.close();
    assert_eq!(sub.recv_timeout(PATIENCE).unwrap_err(), RecvError::Closed);
}

#[test]
fn a_timeout_that_runs_out_during_a_drain_counts_as_ever() {
    let (clock, topic, sub) = with_timeout(|rules| rules.max_failures(u32::MAX));
    let (started, release) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = Mutex::new(release.1);
    let running = sub.run(1, move |delivery| {
        started.0.send(**delivery).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    topic.publish_batch(0..2).unwrap();
    let hangs = started.1.recv().unwrap();
    let beside = sub.recv().unwrap();
    thread::scope(|scope| {
        let draining = scope.spawn(|| running.drain(PATIENCE));
        let mut held = Some(beside);
        until("draining has begun: a drop goes uncounted", || {
            let before = held.take().map(|delivery| delivery.failures());
            held = Some(sub.recv().unwrap());
            held.as_ref().map(|delivery| delivery.failures()) == before
        });
        held.unwrap().ack().unwrap();
        clock.advance(MINUTE);
        let again = sub.recv().unwrap();
        assert_eq!((*again, again.attempt(), again.failures()), (hangs, 2, 1));
        again.ack().unwrap();
        release.0.send(()).unwrap();
        assert!(draining.join().unwrap().ended);
    });
    assert_eq!(sub.stats().lag, 0, "the late verdict changes nothing");
}
