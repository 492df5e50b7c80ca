//! Goal: idle is free (G10): a hundred topics with sleeping subscribers use no CPU and no thread that wakes.
//! Method: real idle time, waited for by an event that does not come; the CPU time of each thread before and after.
#![cfg(target_os = "linux")]

mod support;

use std::thread;

use ringmq::RecvError;
use support::{block_on, broker, ran_while_idle, thread_names, until};

#[test]
fn a_hundred_topics_with_sleeping_subscribers_use_no_cpu() {
    let broker = broker();
    let topics: Vec<_> = (0..100).map(|n| broker.topic::<u64>(&format!("t{n}")).unwrap()).collect();
    let subs: Vec<_> = topics.iter().map(|topic| topic.subscribe("s").unwrap()).collect();
    let threads_before = thread_names().len();
    thread::scope(|scope| {
        for (n, sub) in subs.iter().enumerate() {
            scope.spawn(move || {
                let ended = if n % 2 == 0 { sub.recv() } else { block_on(sub.recv_async()) };
                assert_eq!(ended.map(drop), Err(RecvError::Closed));
            });
        }
        until("all threads are there", || thread_names().len() == threads_before + 100);
        // Looked at now, judged when they are released: threads that wait would keep a failure from being told.
        let (ran, threads) = (ran_while_idle(&broker), thread_names().len());
        topics.iter().for_each(ringmq::Topic::close);
        assert_eq!(ran, (0, 0), "CPU nanoseconds and wake-ups of all other threads in 400 ms");
        assert_eq!(threads, threads_before + 100, "the broker itself has no thread");
    });
}
