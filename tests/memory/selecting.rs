//! Goal: `select` waits for whichever subscription has something first, never says yes where a receive would wait, and starves none.
//! Method: subscriptions of different payloads that are empty, full, paused, closed, or out of credit.

use std::thread;
use std::time::Instant;

use crate::support::{A_MOMENT, PATIENCE, broker};
use ringmq::{Backoff, Broker, Overflow, Ready, SubscribeOptions, Topic, TopicOptions, TryRecvError, select};

fn two(broker: &Broker) -> (Topic<String>, Topic<u64>) {
    (
        broker.topic_with("words", TopicOptions::new().capacity(8)).unwrap(),
        broker.topic_with("numbers", TopicOptions::work_queue().capacity(8)).unwrap(),
    )
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + A_MOMENT)
}

#[test]
fn select_says_which_one_has_something() {
    let broker = broker();
    let (words, numbers) = two(&broker);
    let (w, n) = (words.subscribe("s").unwrap(), numbers.subscribe("s").unwrap().auto_ack());
    assert_eq!(select(&[&w, &n], soon()), None);
    assert_eq!(select(&[&w, &n], Some(Instant::now() - A_MOMENT)), None);
    numbers.publish(1).unwrap();
    assert!(n.is_ready() && !w.is_ready());
    assert_eq!(select(&[&w, &n], None), Some(1));
    assert_eq!(n.try_recv().unwrap(), 1);
    words.publish("one".into()).unwrap();
    assert_eq!(select(&[&w, &n], Some(Instant::now())), Some(0));
}

#[test]
fn a_publish_wakes_a_thread_that_selects() {
    let broker = broker();
    let (words, numbers) = two(&broker);
    let (w, n) = (words.subscribe("s").unwrap(), numbers.subscribe("s").unwrap());
    for _ in 0..100 {
        thread::scope(|scope| {
            let selecting = scope.spawn(|| select(&[&w, &n], Some(Instant::now() + PATIENCE)));
            numbers.publish(1).unwrap();
            assert_eq!(selecting.join().unwrap(), Some(1));
        });
        n.try_recv().unwrap().ack().unwrap();
    }
}

#[test]
fn each_of_several_that_are_ready_gets_its_turn() {
    let broker = broker();
    let (words, numbers) = two(&broker);
    let (w, n) = (words.subscribe("s").unwrap(), numbers.subscribe("s").unwrap());
    words.publish("x".into()).unwrap();
    numbers.publish(1).unwrap();
    let chosen: Vec<_> = (0..100).map(|_| select(&[&w, &n], None).unwrap()).collect();
    assert!(chosen.contains(&0) && chosen.contains(&1));
}

#[test]
fn of_nothing_nothing_is_ready() {
    assert_eq!(select(&[], None), None);
}

#[test]
fn a_wake_up_that_select_does_not_use_goes_to_another_receiver() {
    let broker = broker();
    let (words, numbers) = two(&broker);
    let (w, n) = (words.subscribe("s").unwrap(), numbers.subscribe("s").unwrap());
    thread::scope(|scope| {
        let selecting = scope.spawn(|| select(&[&w, &n], Some(Instant::now() + PATIENCE)));
        let receiving = scope.spawn(|| n.recv_timeout(PATIENCE).unwrap().into_inner().unwrap());
        words.publish("x".into()).unwrap();
        assert_eq!(selecting.join().unwrap(), Some(0));
        numbers.publish(1).unwrap();
        assert_eq!(receiving.join().unwrap(), 1);
    });
}

#[test]
fn redeliveries_and_losses_make_ready() {
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(4)).unwrap();
    let options = SubscribeOptions::new("s").backoff(Backoff::none()).overflow(Overflow::DropOldest);
    let sub = topic.subscribe_with(options).unwrap();
    topic.publish(1).unwrap();
    let held = sub.recv().unwrap();
    assert!(!sub.is_ready());
    held.nack().unwrap();
    assert!(sub.is_ready());
    sub.recv().unwrap().ack().unwrap();
    topic.publish_batch(0..9).unwrap();
    assert!(sub.is_ready());
    assert!(matches!(sub.try_recv(), Err(TryRecvError::Lagged(_))));
}

#[test]
fn a_paused_subscription_is_not_ready_until_it_is_resumed() {
    let broker = broker();
    let (words, _) = two(&broker);
    let w = words.subscribe("s").unwrap();
    words.publish("x".into()).unwrap();
    w.pause();
    assert_eq!(select(&[&w], soon()), None);
    thread::scope(|scope| {
        let selecting = scope.spawn(|| select(&[&w], Some(Instant::now() + PATIENCE)));
        w.resume();
        assert_eq!(selecting.join().unwrap(), Some(0));
    });
}

/// Symptom: a loop of `select` and `try_recv` span while a subscription was out of credit, or closed with a delivery still out. Cause: both
/// counted as ready although a receive would have waited.
#[test]
fn a_subscription_out_of_credit_is_not_ready_until_a_verdict() {
    let broker = broker();
    let (words, _) = two(&broker);
    let w = words.subscribe_with(SubscribeOptions::new("s").max_in_flight(1)).unwrap();
    words.publish_batch(["a".to_owned(), "b".to_owned()]).unwrap();
    let held = w.recv().unwrap();
    assert_eq!(select(&[&w], soon()), None);
    assert_eq!(select(&[&w.auto_ack()], soon()), Some(0), "auto-ack needs no credit");
    thread::scope(|scope| {
        let selecting = scope.spawn(|| select(&[&w], Some(Instant::now() + PATIENCE)));
        held.ack().unwrap();
        assert_eq!(selecting.join().unwrap(), Some(0));
    });
    assert_eq!(*w.try_recv().unwrap(), "b");
}

#[test]
fn a_closed_subscription_is_ready_once_nothing_can_come_back() {
    let broker = broker();
    let (words, _) = two(&broker);
    let w = words.subscribe("s").unwrap();
    words.publish("x".into()).unwrap();
    let held = w.recv().unwrap();
    words.close();
    assert_eq!(select(&[&w], soon()), None, "the delivery may come back");
    thread::scope(|scope| {
        let selecting = scope.spawn(|| select(&[&w], Some(Instant::now() + PATIENCE)));
        held.ack().unwrap();
        assert_eq!(selecting.join().unwrap(), Some(0));
    });
    assert_eq!(w.try_recv().unwrap_err(), TryRecvError::Closed);
    let gone = broker.topic::<u64>("other").unwrap().subscribe("s").unwrap();
    gone.clone().unsubscribe();
    assert!(gone.is_ready());
}

#[test]
fn two_threads_that_select_share_the_work() {
    let broker = broker();
    let (words, numbers) = two(&broker);
    let (w, n) = (words.subscribe("s").unwrap().auto_ack(), numbers.subscribe("s").unwrap().auto_ack());
    let work = || {
        let (mut got, mut open) = (0, [true, true]);
        while open[0] || open[1] {
            let mut any: Vec<(usize, &dyn Ready)> = vec![(0, &w), (1, &n)];
            any.retain(|(i, _)| open[*i]);
            let ready: Vec<_> = any.iter().map(|(_, r)| *r).collect();
            let which = any[select(&ready, None).unwrap()].0;
            let end = if which == 0 {
                w.try_recv().map(drop)
            } else {
                n.try_recv().map(drop)
            };
            match end {
                Ok(()) => got += 1,
                Err(TryRecvError::Empty) => {}
                Err(_) => open[which] = false,
            }
        }
        got
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        scope.spawn(|| {
            words.publish_batch((0..500).map(|n| n.to_string())).unwrap();
            words.close();
        });
        numbers.publish_batch(0..500).unwrap();
        numbers.close();
        assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>(), 1000);
    });
}

/// Symptom: of a closed topic, a paused subscription with something kept beside the ring was ready, again and again, though a receive gave nothing. Cause:
/// only what stood in the ring was looked at.
#[test]
fn a_paused_subscription_of_a_closed_topic_is_not_ready_while_something_is_kept_for_it() {
    for overflow in [Overflow::DropOldest, Overflow::Conflate { keys: 2 }] {
        let broker = broker();
        let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(1)).unwrap();
        let sub = topic.subscribe_with(SubscribeOptions::new("s").overflow(overflow)).unwrap();
        for n in 0..4 {
            topic.message(n).key([n as u8]).publish().unwrap();
        }
        assert!(matches!(sub.try_recv(), Err(TryRecvError::Lagged(_))));
        while sub.stats().pending > 1 {
            sub.try_recv().unwrap().ack().unwrap();
        }
        sub.pause();
        topic.close();
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!((sub.is_ready(), select(&[&sub], soon())), (false, None), "{overflow:?}");
        sub.resume();
        assert!(sub.is_ready());
        assert_eq!(sub.try_recv().unwrap().into_inner().unwrap(), 3);
        assert!(sub.is_ready());
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Closed);
    }
}
