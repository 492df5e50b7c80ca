//! Goal: idle is free (G10), whoever waits and for whatever: no thread runs, no task is polled, and there is no thread of the broker's own.
//! Method: as in `idle.rs`, with one waiter in every verb. A process of its own, because all of its threads are looked at.
#![cfg(target_os = "linux")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, SinkExt, StreamExt};
use ringmq::{Publisher, SubscribeOptions, TopicOptions, select};
use support::{CountWakes, broker, poll_once, ran_while_idle, thread_names, until};

/// Everything that can wait, does: threads that publish to a full topic, have no credit, are paused, select, iterate, watch, or wait for the verdict of
/// somebody else after a close; tasks in every future, stream and sink. No thread runs, no task is woken, and nothing is parked, so there is no timer.
#[test]
fn whatever_waits_costs_nothing() {
    let threads = thread_names().len();
    let broker = broker();
    let new = |name: &str| broker.topic_with::<u64>(name, TopicOptions::new().capacity(2)).unwrap();
    let (full, empty, other, busy, paused, closed) = (new("full"), new("empty"), new("other"), new("busy"), new("paused"), new("closed"));
    let slow = full.subscribe("slow").unwrap();
    full.publish_batch([1, 2]).unwrap();
    let (one, two) = (empty.subscribe("one").unwrap(), other.subscribe("two").unwrap());
    let limited = busy.subscribe_with(SubscribeOptions::new("limited").max_in_flight(1)).unwrap();
    busy.publish_batch([1, 2]).unwrap();
    let in_hand = limited.recv().unwrap();
    let still = paused.subscribe("still").unwrap();
    paused.publish(1).unwrap();
    still.pause();
    let last = closed.subscribe("last").unwrap();
    closed.publish(1).unwrap();
    let undecided = last.recv().unwrap();
    closed.close();
    let timed = empty
        .subscribe_with(SubscribeOptions::new("timed").ack_timeout(Duration::from_secs(1)))
        .unwrap();
    let dead = broker.topic::<u64>("$dead.empty.one").unwrap().subscribe("dead").unwrap();
    let running = one.run(2, |_| ());

    assert_eq!(thread_names().len(), threads + 2, "there is no thread but those of the handlers");

    // Tasks: each future is polled until it waits.
    let wakes = Arc::new(CountWakes::default());
    let (mut batch, mut values) = (Vec::new(), Vec::new());
    let (mut publisher, mut sink, mut stream, mut own) = (full.publisher(), full.publisher(), one.subscriber(), two.subscriber());
    publisher_takes(&mut sink, &wakes);
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = vec![
        Box::pin(full.publish_async(3).map(drop)),
        Box::pin(full.message(3).key("k").publish_async().map(drop)),
        Box::pin(full.publish_batch_async([3, 4]).map(drop)),
        Box::pin(publisher.publish_async(3).map(drop)),
        Box::pin(sink.flush().map(drop)),
        Box::pin(one.recv_async().map(drop)),
        Box::pin(one.recv_batch_async(&mut batch, 3).map(drop)),
        Box::pin(stream.next().map(drop)),
        Box::pin(own.recv_batch_async(&mut values, 3).map(drop)),
        Box::pin(limited.recv_async().map(drop)),
        Box::pin(still.recv_async().map(drop)),
        Box::pin(last.recv_async().map(drop)),
        Box::pin(timed.recv_async().map(drop)),
        Box::pin(dead.recv_async().map(drop)),
        Box::pin(two.run_async(2, async |_| ()).map(drop)),
    ];
    for task in &mut tasks {
        // It may ask to be polled again while it looks for what comes by itself.
        let settled = (0..100).any(|_| {
            let before = wakes.count();
            assert!(poll_once(task, &wakes).is_pending());
            before == wakes.count()
        });
        assert!(settled, "a task that waits asks to be polled again and again");
    }
    let woken = wakes.count();

    let here = AtomicUsize::new(0);
    let waits: [&(dyn Fn() + Sync); 12] = [
        &|| assert!(full.publish(5).is_err()),
        &|| assert!(full.publish_timeout(5, NEVER).is_err()),
        &|| assert!(full.publisher().publish_batch([5, 6]).is_err()),
        &|| assert!(full.message(5).key("k").publish().is_err()),
        &|| assert!(one.recv().is_err()),
        &|| assert!(two.recv_timeout(NEVER).is_err()),
        &|| assert_eq!(two.auto_ack().iter().count(), 0),
        &|| assert!(limited.recv().is_ok(), "once there is credit"),
        &|| assert!(still.recv().is_ok(), "once it is resumed"),
        &|| assert!(last.recv().is_err()),
        &|| assert!(select(&[&one, &two], None).is_some()),
        &|| assert!(select(&[&still, &limited, &dead], Some(Instant::now() + NEVER)).is_some()),
    ];
    let threads_before = thread_names().len();
    thread::scope(|scope| {
        for wait in waits {
            let here = &here;
            scope.spawn(move || {
                here.fetch_add(1, SeqCst);
                wait();
            });
        }
        until("all threads are there", || here.load(SeqCst) == waits.len());
        until("all publishers wait", || full.stats().blocked_by.len() == 1);
        // Looked at now, judged when they are released: threads that wait would keep a failure from being told.
        let (ran, asked, threads) = (ran_while_idle(&broker), wakes.count(), thread_names().len());
        drop(tasks);
        full.close();
        in_hand.ack().unwrap();
        undecided.ack().unwrap();
        still.resume();
        for topic in [&empty, &other] {
            topic.close();
        }
        assert_eq!(ran, (0, 0), "CPU nanoseconds and wake-ups of all other threads in 400 ms");
        assert_eq!(asked, woken, "a task was woken for nothing");
        assert_eq!(threads, threads_before + waits.len(), "the broker itself has no thread");
    });
    drop((running, slow));
}

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// Gives a sink its item, which finds no room.
fn publisher_takes(sink: &mut Publisher<u64>, wakes: &Arc<CountWakes>) {
    let mut fed = sink.feed(3);
    assert!(poll_once(&mut fed, wakes).is_ready());
}
