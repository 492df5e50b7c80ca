//! Goal: what failed comes back when its back-off is over, no sooner, no later than its step, and holds nobody up meanwhile (G10, G12).
//! Method: a clock that is moved by hand; for the timer's thread, the threads of this process.

use std::time::Duration;

use crate::support::broker;
use ringmq::testing::ManualClock;
use ringmq::{Backoff, Broker, SubscribeOptions, Subscription, Topic, TryRecvError};

const SECOND: Duration = Duration::from_secs(1);

fn clocked(seed: u64, rules: impl Fn(SubscribeOptions<u64>) -> SubscribeOptions<u64>) -> (ManualClock, Topic<u64>, Subscription<u64>) {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).seed(seed).open("mem:").unwrap();
    let topic = broker.topic("t").unwrap();
    let sub = topic.subscribe_with(rules(SubscribeOptions::new("s"))).unwrap();
    (clock, topic, sub)
}

/// How long a nacked message stays away, to the millisecond above.
fn away(clock: &ManualClock, sub: &Subscription<u64>) -> Duration {
    let mut waited = Duration::ZERO;
    loop {
        match sub.try_recv() {
            Ok(delivery) => {
                delivery.nack().unwrap();
                return waited;
            }
            Err(TryRecvError::Empty) => {
                clock.advance(Duration::from_millis(1));
                waited += Duration::from_millis(1);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn back_off_doubles_with_each_failure_up_to_its_bound() {
    let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(65)).without_jitter();
    let (clock, topic, sub) = clocked(1, |rules| rules.backoff(backoff.clone()));
    topic.publish(1).unwrap();
    let waits: Vec<_> = (0..6).map(|_| away(&clock, &sub).as_millis()).collect();
    assert_eq!(waits, [0, 10, 20, 40, 65, 65]);
}

#[test]
fn jitter_draws_evenly_between_zero_and_the_step_and_follows_the_seed() {
    let waits = |seed| -> Vec<u128> {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_millis(100));
        let (clock, topic, sub) = clocked(seed, |rules| rules.backoff(backoff.clone()).max_failures(1000));
        topic.publish(1).unwrap();
        (0..200).map(|_| away(&clock, &sub).as_millis()).skip(1).collect()
    };
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let drawn = waits(seed);
        assert!(drawn.iter().all(|&w| w <= 100), "{drawn:?}");
        assert!(drawn.iter().any(|&w| w < 15) && drawn.iter().any(|&w| w > 85));
        let mean = drawn.iter().sum::<u128>() / drawn.len() as u128;
        assert!((35..65).contains(&mean), "{mean}");
        assert_eq!(drawn, waits(seed), "the same seed draws the same (G12)");
    }
    assert_ne!(waits(1), waits(2));
}

#[test]
fn the_default_back_off_is_a_tenth_of_a_second_doubling_up_to_five_minutes() {
    let backoff = Backoff::default();
    assert_eq!(backoff.step(1), Duration::from_millis(100));
    assert_eq!(backoff.step(2), Duration::from_millis(200));
    assert_eq!(backoff.step(40), Duration::from_secs(300));
    let (clock, topic, sub) = clocked(1, |rules| rules);
    topic.publish(1).unwrap();
    sub.recv().unwrap().nack().unwrap();
    clock.advance(Duration::from_millis(100));
    assert_eq!(sub.try_recv().unwrap().attempt(), 2);
}

#[test]
fn messages_come_back_in_the_order_in_which_they_are_due() {
    let (clock, topic, sub) = clocked(1, |rules| rules);
    topic.publish_batch(0..4).unwrap();
    for seconds in [4, 2, 3, 2] {
        sub.recv().unwrap().nack_after(SECOND * seconds).unwrap();
    }
    clock.advance(SECOND * 2);
    assert_eq!(sub.auto_ack().try_recv(), Ok(1));
    assert_eq!(sub.auto_ack().try_recv(), Ok(3));
    assert_eq!(sub.auto_ack().try_recv(), Err(TryRecvError::Empty));
    clock.advance(SECOND * 2);
    assert_eq!(sub.auto_ack().try_recv(), Ok(2));
    assert_eq!(sub.auto_ack().try_recv(), Ok(0));
}

#[test]
fn a_later_message_that_is_due_earlier_does_not_wait_for_the_earlier_one() {
    let (clock, topic, sub) = clocked(1, |rules| rules);
    topic.publish_batch(0..3).unwrap();
    for seconds in [100, 10, 1] {
        sub.recv().unwrap().nack_after(SECOND * seconds).unwrap();
    }
    for (seconds, which) in [(1, 2), (9, 1), (90, 0)] {
        clock.advance(SECOND * seconds);
        assert_eq!(sub.auto_ack().try_recv(), Ok(which));
    }
}

#[test]
fn what_is_parked_uses_no_credit() {
    let (clock, topic, sub) = clocked(1, |rules| rules.max_in_flight(2).backoff(Backoff::fixed(SECOND)));
    topic.publish_batch(0..10).unwrap();
    for _ in 0..10 {
        sub.try_recv().unwrap().nack().unwrap();
    }
    assert_eq!((sub.stats().parked, sub.stats().in_flight), (10, 0));
    clock.advance(SECOND);
    let held = [sub.try_recv().unwrap(), sub.try_recv().unwrap()];
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    sub.ack_batch(held).unwrap();
}

#[test]
fn max_parked_stops_new_messages_but_not_redeliveries() {
    let (clock, topic, sub) = clocked(1, |rules| rules.max_parked(2).backoff(Backoff::fixed(SECOND)));
    topic.publish_batch(0..5).unwrap();
    sub.try_recv().unwrap().nack().unwrap();
    sub.try_recv().unwrap().nack_after(SECOND * 2).unwrap();
    assert_eq!(
        sub.try_recv().unwrap_err(),
        TryRecvError::Empty,
        "two are parked, so nothing new is taken"
    );
    assert_eq!(sub.stats().pending, 3);
    clock.advance(SECOND);
    let first = sub.try_recv().unwrap();
    assert_eq!((*first, first.attempt()), (0, 2));
    let fresh = sub.try_recv().unwrap();
    assert_eq!((*fresh, fresh.attempt()), (2, 1));
    first.nack_after(SECOND).unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    fresh.nack_after(Duration::ZERO).unwrap();
    assert_eq!(*sub.try_recv().unwrap(), 2, "what is ready again is not new");
}

/// Symptom: `try_recv` said `Empty` beside a message that was ready again. Cause: it was a new message's turn, and none may be taken while
/// too much is parked. Fix: then it is no new message's turn.
#[test]
fn while_too_much_is_parked_redeliveries_do_not_take_turns_with_new_messages() {
    let (_, topic, sub) = clocked(1, |rules| rules.max_parked(1).max_failures(100).backoff(Backoff::none()));
    topic.publish_batch(0..3).unwrap();
    let (first, second) = (sub.recv().unwrap(), sub.recv().unwrap());
    first.nack_after(SECOND).unwrap();
    second.nack().unwrap();
    for attempt in 2..6 {
        let again = sub.try_recv().unwrap();
        assert_eq!((*again, again.attempt()), (1, attempt));
        again.nack().unwrap();
    }
}

#[test]
fn a_handlers_panic_error_and_nack_each_count_as_one_failure() {
    let (_, topic, sub) = clocked(1, |rules| rules.backoff(Backoff::none()).max_failures(4));
    topic.publish(1).unwrap();
    topic.close();
    sub.run(1, |delivery| match delivery.attempt() {
        1 => panic!("first"),
        2 => Err("second"),
        3 => Err("third"),
        _ => Ok(()),
    })
    .join();
    assert_eq!((sub.stats().failures, sub.stats().lag, sub.stats().dead_letters), (3, 0, 0));
}

#[test]
fn a_retry_happens_by_the_real_clock_too() {
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").backoff(Backoff::fixed(Duration::from_millis(3))))
        .unwrap();
    topic.publish(1).unwrap();
    let before = std::time::Instant::now();
    sub.recv().unwrap().nack().unwrap();
    assert_eq!(sub.recv().unwrap().attempt(), 2);
    assert!(before.elapsed() >= Duration::from_millis(3));
}

/// Symptom: with a handler that always failed at once, messages to be delivered again piled up without a bound. Cause: only those that waited for
/// their time counted for `max_parked`. Fix: those whose time has come do too.
#[test]
fn what_is_to_be_delivered_again_at_once_counts_for_max_parked() {
    let (_, topic, sub) = clocked(1, |rules| rules.max_parked(10).max_failures(u32::MAX).backoff(Backoff::none()));
    let mut published = 0;
    for _ in 0..10_000 {
        while topic.try_publish(published).is_ok() {
            published += 1;
        }
        sub.recv().unwrap().nack().unwrap();
    }
    let most = topic.capacity() as u64 + 11;
    assert!(sub.stats().lag <= most, "{} of at most {most}", sub.stats().lag);
}
