//! Goal: idle is free (G10): the timer has a thread only while something waits for its time.
//! Method: the threads of this process, counted; so there is one test here.
#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use support::{broker, timer_threads, until};

#[test]
fn the_timers_thread_exists_only_while_something_is_parked() {
    let hour = Duration::from_secs(3600);
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic.subscribe("s").unwrap();
    assert_eq!(timer_threads(), 0);
    topic.publish_batch(0..4).unwrap();

    sub.recv().unwrap().nack_after(Duration::from_millis(1)).unwrap();
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 1);
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 2);
    assert_eq!(sub.recv().unwrap().into_inner().unwrap(), 3);
    sub.recv().unwrap().nack_after(hour).unwrap();
    until("it waits with its thread", || timer_threads() >= 1);
    topic.close();
    until("nothing is parked any more", || timer_threads() == 0);

    drop((sub, topic));
    let topic = broker.topic::<u64>("t2").unwrap();
    let sub = topic.subscribe("s").unwrap();
    topic.publish_batch(0..2).unwrap();
    sub.recv().unwrap().nack_after(hour).unwrap();
    until("it waits with its thread", || timer_threads() >= 1);
    sub.unsubscribe();
    until("nobody is left to deliver to", || timer_threads() == 0);

    let sub = topic.subscribe("s").unwrap();
    topic.publish(9).unwrap();
    sub.recv().unwrap().nack_after(hour).unwrap();
    until("it waits with its thread", || timer_threads() >= 1);
    drop((sub, topic, broker));
    until("everything is gone", || timer_threads() == 0);
}
