//! Goal: the asynchronous verbs work on any executor, also mixed with blocking ones, and cancelling them loses nothing (G8).
//! Method: the same futures on a current-thread runtime, a multi-thread runtime and a bare `block_on`; single polls by hand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::support::{CountWakes, on_each_executor, poll_once, topic, until, work_queue};
use ringmq::{PublishError, RecvError};

#[test]
fn tasks_publish_and_receive_on_any_executor() {
    for make in [topic as fn(usize) -> _, work_queue] {
        on_each_executor(move || async move {
            let topic = make(2);
            let sub = topic.subscribe("s").unwrap();
            let send = async {
                for n in 0..500 {
                    topic.publish_async(n).await.unwrap();
                }
                topic.close();
            };
            let receive = async {
                for n in 0..500 {
                    assert_eq!(sub.recv_async().await.unwrap().into_inner().unwrap(), n);
                }
                assert_eq!(sub.recv_async().await.unwrap_err(), RecvError::Closed);
            };
            tokio::join!(send, receive);
        });
    }
}

#[test]
fn publishers_and_subscribers_of_ones_own_work_on_any_executor() {
    for make in [topic as fn(usize) -> _, work_queue] {
        on_each_executor(move || async move {
            let topic = make(2);
            let mut publisher = topic.publisher();
            let mut sub = topic.subscribe("s").unwrap().auto_ack().subscriber();
            let send = async {
                for n in 0..500 {
                    publisher.publish_async(n).await.unwrap();
                }
                topic.close();
            };
            let receive = async {
                let mut out = Vec::new();
                while sub.recv_batch_async(&mut out, 7).await.is_ok() {}
                assert!(out.into_iter().eq(0..500));
            };
            tokio::join!(send, receive);
        });
    }
}

#[test]
fn tasks_on_several_threads_compete_and_each_message_goes_to_one() {
    on_each_executor(|| async {
        let topic = topic(4);
        let sub = topic.subscribe("s").unwrap();
        let receive = || async {
            let mut got = Vec::new();
            while let Ok(delivery) = sub.recv_async().await {
                got.push(delivery.into_inner().unwrap());
            }
            got
        };
        let send = async {
            for n in 0..300 {
                topic.publish_async(n).await.unwrap();
            }
            topic.close();
        };
        let (mut a, b, c, ()) = tokio::join!(receive(), receive(), receive(), send);
        for got in [&a, &b, &c] {
            assert!(got.is_sorted(), "one subscriber sees offsets ascend (G1)");
        }
        a.extend(b);
        a.extend(c);
        a.sort_unstable();
        assert!(a.into_iter().eq(0..300));
    });
}

#[test]
fn threads_and_tasks_share_a_topic() {
    let topic = topic(2);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    thread::scope(|scope| {
        let task = scope.spawn(|| {
            crate::support::block_on(async {
                let mut got = Vec::new();
                while let Ok(n) = sub.recv_async().await {
                    got.push(n);
                }
                got
            })
        });
        let blocking = scope.spawn(|| sub.iter().map(Result::unwrap).collect::<Vec<_>>());
        let publishing = scope.spawn(|| {
            crate::support::block_on(async {
                for n in 0..500 {
                    topic.publish_async(n).await.unwrap();
                }
            });
        });
        for n in 500..1000 {
            topic.publish(n).unwrap();
        }
        publishing.join().unwrap();
        topic.close();
        let mut all = task.join().unwrap();
        all.extend(blocking.join().unwrap());
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
    });
}

#[test]
fn a_publish_cancelled_before_it_entered_gives_its_value_back_and_publishes_nothing() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic = make(1);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        drop(topic.publish_async(0));
        topic.publish(1).unwrap();
        let wakes = Arc::new(CountWakes::default());
        let mut taken_back = topic.publish_async(2);
        assert!(poll_once(&mut taken_back, &wakes).is_pending());
        assert_eq!(taken_back.take(), Some(2));
        let mut dropped = topic.publish_async(3);
        assert!(poll_once(&mut dropped, &wakes).is_pending());
        drop(dropped);
        assert_eq!(sub.recv().unwrap(), 1);
        assert!(sub.try_recv().is_err());
        assert_eq!(topic.stats().published, 1);
    }
}

#[test]
fn a_cancelled_receive_passes_its_wake_up_on() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    let (first, second) = (Arc::new(CountWakes::default()), Arc::new(CountWakes::default()));
    let mut a = sub.recv_async();
    let mut b = sub.recv_async();
    assert!(poll_once(&mut a, &first).is_pending());
    assert!(poll_once(&mut b, &second).is_pending());
    topic.publish(1).unwrap();
    assert_eq!((first.count(), second.count()), (1, 0), "one message wakes one");
    drop(a);
    assert_eq!(second.count(), 1, "whoever goes without looking wakes the next (G8)");
    let Poll::Ready(Ok(delivery)) = poll_once(&mut b, &second) else {
        panic!("the message is there")
    };
    delivery.ack().unwrap();
}

#[test]
fn a_cancelled_publish_passes_its_wake_up_on() {
    let topic = topic(1);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    topic.publish(0).unwrap();
    let (first, second) = (Arc::new(CountWakes::default()), Arc::new(CountWakes::default()));
    let mut a = topic.publish_async(1);
    let mut b = topic.publish_async(2);
    assert!(poll_once(&mut a, &first).is_pending());
    assert!(poll_once(&mut b, &second).is_pending());
    assert_eq!(sub.recv().unwrap(), 0);
    assert_eq!(first.count() + second.count(), 1);
    drop(a);
    assert_eq!(second.count(), 1);
    assert!(poll_once(&mut b, &second).is_ready());
    assert_eq!(sub.recv().unwrap(), 2);
}

#[test]
fn a_forgotten_receive_holds_nobody_else_up() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    let wakes = Arc::new(CountWakes::default());
    let mut forgotten = sub.recv_async();
    assert!(poll_once(&mut forgotten, &wakes).is_pending());
    std::mem::forget(forgotten);
    let mut b = sub.recv_async();
    assert!(poll_once(&mut b, &wakes).is_pending());
    topic.publish(1).unwrap();
    topic.publish(2).unwrap();
    assert_eq!(wakes.count(), 2, "two messages wake two, though one of them never runs");
    assert!(poll_once(&mut b, &wakes).is_ready());
}

#[test]
fn a_future_that_moved_to_another_task_wakes_that_task() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    let (before, after) = (Arc::new(CountWakes::default()), Arc::new(CountWakes::default()));
    let mut recv = sub.recv_async();
    assert!(poll_once(&mut recv, &before).is_pending());
    assert!(poll_once(&mut recv, &after).is_pending());
    topic.publish(1).unwrap();
    assert_eq!((before.count(), after.count()), (0, 1));
    assert!(poll_once(&mut recv, &after).is_ready());
}

#[test]
fn no_waker_is_kept_after_its_future_is_gone() {
    let topic = topic(1);
    let sub = topic.subscribe("s").unwrap();
    let wakes = Arc::new(CountWakes::default());
    let mut recv = sub.recv_async();
    assert!(poll_once(&mut recv, &wakes).is_pending());
    drop(recv);
    topic.publish(1).unwrap();
    let mut publish = topic.publish_async(2);
    assert!(poll_once(&mut publish, &wakes).is_pending());
    drop(publish);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn polling_a_receive_again_after_it_was_ready_takes_the_next_message() {
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    topic.publish_batch([1, 2]).unwrap();
    let mut recv = pin!(sub.recv_async());
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(recv.as_mut().poll(&mut context), Poll::Ready(Ok(1)));
    assert_eq!(recv.as_mut().poll(&mut context), Poll::Ready(Ok(2)));
    assert!(recv.as_mut().poll(&mut context).is_pending());
}

#[test]
fn closing_and_unsubscribing_wake_tasks() {
    on_each_executor(|| async {
        let topic = topic(1);
        let sub = topic.subscribe("s").unwrap();
        let waits = sub.recv_async();
        let closes = async { topic.close() };
        let (received, ()) = tokio::join!(waits, closes);
        assert_eq!(received.unwrap_err(), RecvError::Closed);
    });
    on_each_executor(|| async {
        let topic = topic(1);
        let sub = topic.subscribe("s").unwrap();
        topic.publish(1).unwrap();
        let other = topic.subscribe("s").unwrap();
        let waits = topic.publish_async(2);
        let leaves = async { sub.unsubscribe() };
        let (published, ()) = tokio::join!(waits, leaves);
        assert!(published.is_ok(), "nobody holds the publisher up any more");
        assert_eq!(other.recv_async().await.unwrap_err(), RecvError::Closed);
    });
}

#[test]
fn a_timeout_around_a_future_is_a_cancel_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let topic = topic(1);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let timeout = Duration::from_millis(5);
        assert!(tokio::time::timeout(timeout, sub.recv_async()).await.is_err());
        topic.publish(1).unwrap();
        assert!(tokio::time::timeout(timeout, topic.publish_async(2)).await.is_err());
        assert_eq!(sub.recv_async().await, Ok(1));
        assert!(sub.try_recv().is_err());
        topic.close();
        assert!(matches!(topic.publish_async(3).await, Err(PublishError::Closed(3))));
    });
}

#[test]
fn many_polls_of_a_waiting_future_register_it_once() {
    let topic = topic(1);
    let sub = topic.subscribe("s").unwrap();
    let wakes = Arc::new(CountWakes::default());
    let mut recv = sub.recv_async();
    for _ in 0..100_000 {
        assert!(poll_once(&mut recv, &wakes).is_pending());
    }
    topic.publish(1).unwrap();
    assert_eq!(wakes.count(), 1);
    until("it is there", || poll_once(&mut recv, &wakes).is_ready());
}

/// The work of waking grows with the number of those who wait, not with its square, and nobody is woken for nothing (A27).
#[test]
fn ten_thousand_waiters_are_woken_once_each_and_leave_in_any_order() {
    const WAITERS: usize = 10_000;
    let topic = topic(4);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    let wakes = Arc::new(CountWakes::default());
    let mut waiting: Vec<_> = (0..WAITERS).map(|_| sub.recv_async()).collect();
    for future in &mut waiting {
        assert!(poll_once(future, &wakes).is_pending());
    }
    for n in 1..=4 {
        topic.publish(n).unwrap();
        assert_eq!(wakes.count(), n as usize, "one is woken for one message");
    }
    // Those who leave without having been woken wake nobody; each of the four woken ones that leaves wakes one other.
    let mut n = 0;
    waiting.retain(|_| {
        n += 1;
        n <= 4 || n % 2 == 0
    });
    assert_eq!(wakes.count(), 4);
    for n in 1..=4 {
        let mut first = waiting.remove(0);
        match poll_once(&mut first, &wakes) {
            Poll::Ready(got) => assert_eq!(got, Ok(n)),
            Poll::Pending => panic!("it was woken for message {n}"),
        }
    }
    // Some were woken for what the four left for a moment; whoever was not, is now.
    let left = waiting.len();
    topic.close();
    assert_eq!(wakes.count(), 4 + left, "each is woken once");
    for future in &mut waiting {
        assert!(matches!(poll_once(future, &wakes), Poll::Ready(Err(RecvError::Closed))));
    }
    assert_eq!(wakes.count(), 4 + left, "and what they find wakes nobody");
}
