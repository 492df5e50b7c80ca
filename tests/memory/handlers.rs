//! Goal: `run` and `run_async` call the handler for each message, settle as it says, survive its panics, and end when asked.
//! Method: handlers that succeed, fail, panic, hold on and publish; drained, joined, dropped.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::support::{A_MOMENT, PATIENCE, broker, on_each_executor, topic, until};
use ringmq::{Backoff, Broker, Outcome, PublishError, PublishFailure, SubscribeOptions, TopicOptions};

fn at_once(name: &str) -> SubscribeOptions<u64> {
    SubscribeOptions::new(name).backoff(Backoff::none()).max_failures(3)
}

#[test]
fn run_handles_each_message_once_on_as_many_threads_as_asked() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let (sum, threads) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(std::collections::HashSet::new())),
    );
    let barrier = Arc::new(std::sync::Barrier::new(3));
    let running = {
        let (sum, threads) = (sum.clone(), threads.clone());
        sub.run(3, move |n| {
            if **n < 3 {
                barrier.wait();
            }
            threads.lock().unwrap().insert(thread::current().id());
            sum.fetch_add(**n as usize, Ordering::SeqCst);
        })
    };
    topic.publish_batch(0..1000).unwrap();
    topic.close();
    running.join();
    assert_eq!((sum.load(Ordering::SeqCst), threads.lock().unwrap().len()), (499_500, 3));
    assert_eq!(sub.stats().lag, 0);
}

#[test]
fn what_a_handler_returns_is_the_verdict() {
    let topic = topic(16);
    let sub = topic.subscribe_with(at_once("s")).unwrap();
    topic.publish_batch(0..5).unwrap();
    topic.close();
    let running = sub.run(1, |n| match (**n, n.attempt()) {
        (0, _) => Outcome::Ack,
        (1, 1) => Outcome::Nack,
        (2, 1) => Outcome::Failed("two".into()),
        (3, _) => Outcome::reject("three"),
        (4, 1) => Outcome::NackAfter(Duration::ZERO),
        _ => Outcome::Ack,
    });
    running.join();
    let stats = sub.stats();
    assert_eq!((stats.failures, stats.redelivered, stats.dead_letters, stats.lag), (3, 3, 1, 0));
}

#[test]
fn a_panic_of_one_handler_ends_no_thread() {
    let topic = topic(16);
    let sub = topic.subscribe_with(at_once("s")).unwrap();
    let running = sub.run(1, |n| assert!(n.attempt() == 3, "not yet"));
    topic.publish_batch(0..5).unwrap();
    topic.close();
    running.join();
    assert_eq!((sub.stats().failures, sub.stats().dead_letters), (10, 0));
}

#[test]
#[cfg(target_os = "linux")]
fn drain_takes_nothing_new_and_waits_for_what_is_in_hand() {
    let topic = topic(16);
    let sub = topic.subscribe("drained").unwrap();
    let (started, release) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = Mutex::new(release.1);
    let running = sub.run(2, move |_| {
        started.0.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    topic.publish(0).unwrap();
    started.1.recv().unwrap();
    let threads = || {
        crate::support::thread_names()
            .iter()
            .filter(|name| name.starts_with("drained-"))
            .count()
    };
    until("both threads have their names", || threads() == 2);
    thread::scope(|scope| {
        let draining = scope.spawn(|| running.drain(PATIENCE));
        until("the thread with nothing in hand has ended", || threads() == 1);
        topic.publish_batch(1..3).unwrap();
        assert!(!draining.is_finished());
        release.0.send(()).unwrap();
        let report = draining.join().unwrap();
        assert_eq!((report.ended, report.in_flight), (true, 0));
    });
    assert_eq!((sub.stats().pending, sub.stats().failures), (2, 0));
    assert_eq!(*sub.recv().unwrap(), 1, "the subscription goes on");
}

#[test]
fn drain_gives_up_at_its_deadline_and_says_what_is_still_in_hand() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let (started, release) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = Mutex::new(release.1);
    let running = sub.run(1, move |_| {
        started.0.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    topic.publish(1).unwrap();
    started.1.recv().unwrap();
    let report = running.drain(A_MOMENT);
    assert_eq!((report.ended, report.in_flight), (false, 1));
    release.0.send(()).unwrap();
    until("the handler ends after its message", || sub.stats().lag == 0);
}

#[test]
fn a_delivery_dropped_while_draining_goes_back_uncounted() {
    let topic = topic(16);
    let sub = topic.subscribe_with(at_once("s").max_failures(u32::MAX)).unwrap();
    let (started, release) = (mpsc::channel(), mpsc::channel::<()>());
    let wait = Mutex::new(release.1);
    let running = sub.run(1, move |_| {
        started.0.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    topic.publish_batch(0..2).unwrap();
    started.1.recv().unwrap();
    let beside = sub.recv().unwrap();
    thread::scope(|scope| {
        let draining = scope.spawn(|| running.drain(PATIENCE));
        // Until draining has begun a drop counts as a failure; from then on it does not.
        let mut held = Some(beside);
        until("a drop goes uncounted", || {
            let before = held.take().map(|delivery| delivery.failures());
            held = Some(sub.recv().unwrap());
            held.as_ref().map(|delivery| delivery.failures()) == before
        });
        let held = held.unwrap();
        assert_eq!(held.attempt(), held.failures() + 1, "nor does the hand-over count as an attempt");
        held.ack().unwrap();
        release.0.send(()).unwrap();
        assert!(draining.join().unwrap().ended);
    });
}

#[test]
fn dropping_running_lets_the_handlers_go_on() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    drop(sub.run(2, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    topic.publish_batch(0..10).unwrap();
    until("all are handled", || handled.load(Ordering::SeqCst) == 10);
    topic.close();
}

#[test]
fn a_drain_wakes_handlers_that_sleep() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let running = sub.run(4, |_| ());
    let report = running.drain(PATIENCE);
    assert!(report.ended);
}

#[test]
fn a_handler_that_publishes_to_its_own_full_topic_is_told_so() {
    let topic = topic(2);
    let sub = topic.subscribe("s").unwrap();
    let results = Arc::new(Mutex::new(Vec::new()));
    let running = {
        let (topic, results) = (topic.clone(), results.clone());
        sub.run(1, move |n| {
            if **n == 0 {
                let mut results = results.lock().unwrap();
                loop {
                    let published = topic.publish(7).map(drop).map_err(|e| e.failure());
                    results.push(published.clone());
                    if published.is_err() {
                        break;
                    }
                }
                results.push(topic.try_publish(9).map(drop).map_err(|e| e.failure()));
                results.push(topic.publish_batch([10]).map(drop).map_err(|e| e.failure()));
            }
        })
    };
    topic.publish(0).unwrap();
    until("it has tried", || results.lock().unwrap().len() >= 3 && sub.stats().lag == 0);
    let results = results.lock().unwrap();
    let last = &results[results.len() - 3..];
    assert_eq!(last[0], Err(PublishFailure::WouldDeadlock));
    assert_eq!(last[1], Err(PublishFailure::Full), "whoever does not wait is not told of waiting");
    assert_eq!(last[2], Err(PublishFailure::WouldDeadlock));
    topic.close();
    running.join();
}

#[test]
fn an_async_handler_that_publishes_to_its_own_full_topic_is_told_so() {
    let topic = topic(2);
    let sub = topic.subscribe("s").unwrap();
    topic.publish(0).unwrap();
    let results = Arc::new(Mutex::new(Vec::new()));
    let handling = {
        let (topic, results) = (topic.clone(), results.clone());
        sub.run_async(1, move |_| {
            let (topic, results) = (topic.clone(), results.clone());
            async move {
                if topic.is_closed() {
                    return;
                }
                while topic.try_publish(7).is_ok() {}
                let mut publisher = topic.publisher();
                let said = [
                    topic.publish_async(7).await.map(drop).map_err(|e| e.failure()),
                    publisher.publish_async(7).await.map(drop).map_err(|e| e.failure()),
                    topic.message(7).publish_async().await.map(drop).map_err(|e| e.failure()),
                    topic.publish_batch_async([7]).await.map(drop).map_err(|e| e.failure()),
                    topic.publish_timeout(7, PATIENCE).map(drop).map_err(|e| e.failure()),
                ];
                *results.lock().unwrap() = said.to_vec();
                topic.close();
            }
        })
    };
    crate::support::block_on(handling).unwrap();
    assert_eq!(*results.lock().unwrap(), [const { Err(PublishFailure::WouldDeadlock) }; 5]);
}

/// Symptom: a handler was told `WouldDeadlock` though it published to another broker. Cause: subscriptions were told apart by numbers that two
/// brokers with the same seed both give. Fix: by their place in memory.
#[test]
fn a_handler_may_wait_for_a_subscription_of_another_broker_with_the_same_seed() {
    let [one, other] = [0; 2].map(|_| {
        let broker = Broker::builder().seed(7).open("mem:").unwrap();
        let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(1)).unwrap();
        let sub = topic.subscribe("s").unwrap();
        (topic, sub)
    });
    other.0.publish(1).unwrap();
    let published = Arc::new(Mutex::new(None));
    let running = {
        let (other, published) = (other.0.clone(), published.clone());
        one.1.run(1, move |_| {
            *published.lock().unwrap() = Some(other.publish_timeout(2, A_MOMENT).map(drop).map_err(|e| e.failure()));
        })
    };
    one.0.publish(1).unwrap();
    one.0.close();
    running.join();
    assert_eq!(*published.lock().unwrap(), Some(Err(PublishFailure::Timeout)));
}

#[test]
fn run_async_handles_each_message_on_any_executor() {
    on_each_executor(|| async {
        let topic = topic(8);
        let sub = topic.subscribe_with(at_once("s")).unwrap();
        let handled = Arc::new(AtomicUsize::new(0));
        let count = handled.clone();
        let run = sub.run_async(4, move |n| {
            let count = count.clone();
            async move {
                if **n % 10 == 3 && n.attempt() == 1 {
                    return Err("again");
                }
                if **n == 50 {
                    panic!("fifty is poison");
                }
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        let publish = async {
            for n in 0..100 {
                topic.publish_async(n).await.unwrap();
            }
            topic.close();
        };
        let (ran, ()) = tokio::join!(run, publish);
        ran.unwrap();
        assert_eq!(handled.load(Ordering::SeqCst), 99);
        assert_eq!((sub.stats().dead_letters, sub.stats().failures, sub.stats().lag), (1, 13, 0));
    });
}

#[test]
fn run_async_has_as_many_messages_in_hand_as_asked() {
    on_each_executor(|| async {
        let topic = topic(64);
        let sub = topic.subscribe("s").unwrap();
        topic.publish_batch(0..50).unwrap();
        topic.close();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (n, m) = (now.clone(), most.clone());
        sub.run_async(3, move |delivery| {
            let (now, most) = (n.clone(), m.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut polls = 5 + **delivery % 3;
                poll_fn(|context| {
                    context.waker().wake_by_ref();
                    polls -= 1;
                    if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                now.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .await
        .unwrap();
        assert_eq!((most.load(Ordering::SeqCst), now.load(Ordering::SeqCst)), (3, 0));
    });
}

/// Symptom: a handler that returned `()` saw its message again. Cause: its future held a clone of the delivery and was dropped only after the
/// verdict, which then found the delivery shared. Fix: the future goes first.
#[test]
fn a_future_that_holds_its_delivery_to_the_end_does_not_void_the_verdict() {
    on_each_executor(|| async {
        let topic = topic(8);
        let sub = topic.subscribe_with(at_once("s")).unwrap();
        topic.publish_batch(0..3).unwrap();
        topic.close();
        sub.run_async(2, |delivery| {
            poll_fn(move |_| {
                assert!(**delivery < 3);
                Poll::Ready(())
            })
        })
        .await
        .unwrap();
        assert_eq!((sub.stats().failures, sub.stats().redelivered, sub.stats().lag), (0, 0, 0));
    });
}

/// Symptom: a handler that panicked before it returned its future ended all of `run_async`. Cause: only polling was guarded.
#[test]
fn a_handler_that_panics_before_its_future_exists_fails_that_message_alone() {
    on_each_executor(|| async {
        let topic = topic(8);
        let sub = topic.subscribe_with(at_once("s")).unwrap();
        topic.publish_batch(0..3).unwrap();
        topic.close();
        sub.run_async(2, |delivery| {
            assert_ne!(**delivery, 1, "one is poison");
            std::future::ready(())
        })
        .await
        .unwrap();
        assert_eq!((sub.stats().failures, sub.stats().dead_letters, sub.stats().lag), (3, 1, 0));
    });
}

#[test]
fn dropping_run_async_gives_its_messages_back() {
    let topic = topic(8);
    let sub = topic.subscribe_with(at_once("s")).unwrap();
    topic.publish_batch(0..3).unwrap();
    let wakes = Arc::new(crate::support::CountWakes::default());
    let mut run = Box::pin(sub.run_async(2, |delivery| async move {
        std::future::pending::<()>().await;
        drop(delivery);
    }));
    assert!(crate::support::poll_once(&mut run, &wakes).is_pending());
    assert_eq!(sub.stats().in_flight, 2);
    drop(run);
    assert_eq!((sub.stats().in_flight, sub.stats().lag), (0, 3));
    let mut again: Vec<_> = sub.auto_ack().subscriber().into_iter().take(3).map(Result::unwrap).collect();
    again.sort_unstable();
    assert_eq!(again, [0, 1, 2]);
}

#[test]
fn run_async_spawned_twice_uses_two_tasks_that_compete() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let topic = topic(8);
    let sub = topic.subscribe("s").unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let count = handled.clone();
            runtime.spawn(sub.run_async(4, move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::ready(())
            }))
        })
        .collect();
    topic.publish_batch(0..500).unwrap();
    topic.close();
    for task in tasks {
        runtime.block_on(task).unwrap().unwrap();
    }
    assert_eq!(handled.load(Ordering::SeqCst), 500);
}

#[test]
fn a_handler_may_use_its_broker_while_it_is_closed() {
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let sub = topic.subscribe("s").unwrap();
    let refused = Arc::new(AtomicBool::new(false));
    let running = {
        let (topic, refused) = (topic.clone(), refused.clone());
        sub.run(1, move |_| {
            while !topic.is_closed() {
                thread::yield_now();
            }
            refused.store(matches!(topic.publish(2), Err(PublishError::Closed(2))), Ordering::SeqCst);
        })
    };
    topic.publish(1).unwrap();
    assert_eq!(broker.close(PATIENCE).unsettled, 0);
    running.join();
    assert!(refused.load(Ordering::SeqCst));
}

#[test]
fn a_wake_up_of_one_handler_polls_that_one_alone() {
    let topic = topic(128);
    let sub = topic.subscribe("s").unwrap();
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let polls = Arc::new(AtomicUsize::new(0));
    let mut running = Box::pin(sub.run_async(100, {
        let (wakers, polls) = (wakers.clone(), polls.clone());
        move |_| {
            let (wakers, polls) = (wakers.clone(), polls.clone());
            let mut was_polled = false;
            poll_fn(move |context| {
                polls.fetch_add(1, Ordering::SeqCst);
                if std::mem::replace(&mut was_polled, true) {
                    return Poll::Ready(());
                }
                wakers.lock().unwrap().push(context.waker().clone());
                Poll::Pending
            })
        }
    }));
    topic.publish_batch(0..100).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut context).is_pending());
    assert_eq!((polls.load(Ordering::SeqCst), sub.stats().in_flight), (100, 100));
    for (woken, waker) in (1..).zip(wakers.lock().unwrap().drain(..)) {
        waker.wake();
        assert!(running.as_mut().poll(&mut context).is_pending());
        assert_eq!(
            (polls.load(Ordering::SeqCst), sub.stats().in_flight),
            (100 + woken, 100 - woken as u64)
        );
    }
    topic.close();
    assert!(running.as_mut().poll(&mut context).is_ready());
}

/// Symptom: an executor's other tasks never ran while a handler found one message after the other. Cause: the future did not return as long as
/// there was something. Fix: it does now and then.
#[test]
fn run_async_lets_other_tasks_run_while_there_are_messages() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let handling = sub.run_async(1, {
        let (topic, handled) = (topic.clone(), handled.clone());
        move |_| {
            handled.fetch_add(1, Ordering::SeqCst);
            let _ = topic.try_publish(1);
            async {}
        }
    });
    topic.publish(0).unwrap();
    let mut handling = Box::pin(handling);
    assert!(handling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(handled.load(Ordering::SeqCst) > 10);
    topic.close();
}

/// Symptom: handlers were cut off at their next await when the subscription ended. Cause: the future returned with messages in hand. Fix: it lets
/// them finish.
#[test]
fn run_async_lets_handlers_finish_when_the_subscription_ends() {
    let topic = topic(16);
    let sub = topic.subscribe("s").unwrap();
    let (finished, waker) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None::<Waker>)));
    let go_on = Arc::new(AtomicBool::new(false));
    let mut handling = Box::pin(sub.run_async(2, {
        let (finished, waker, go_on) = (finished.clone(), waker.clone(), go_on.clone());
        move |_| {
            let (finished, waker, go_on) = (finished.clone(), waker.clone(), go_on.clone());
            async move {
                poll_fn(|context| {
                    *waker.lock().unwrap() = Some(context.waker().clone());
                    if go_on.load(Ordering::SeqCst) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
                finished.store(true, Ordering::SeqCst);
            }
        }
    }));
    topic.publish(0).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(handling.as_mut().poll(&mut context).is_pending());
    topic.subscribe("s").unwrap().unsubscribe();
    assert!(handling.as_mut().poll(&mut context).is_pending(), "one handler is still at work");
    go_on.store(true, Ordering::SeqCst);
    waker.lock().unwrap().take().unwrap().wake();
    assert!(matches!(handling.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    assert!(finished.load(Ordering::SeqCst));
}

#[test]
fn a_handler_is_not_told_of_losses_but_events_and_statistics_are() {
    let broker = broker();
    let topic = broker.topic_with("t", TopicOptions::<u64>::new().capacity(8)).unwrap();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").overflow(ringmq::Overflow::DropOldest))
        .unwrap();
    let events = broker.events();
    topic.publish_batch(0..20).unwrap();
    topic.close();
    let handled = Arc::new(AtomicU64::new(0));
    let count = handled.clone();
    sub.run(1, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    })
    .join();
    let told: u64 = events
        .filter_map(|event| match event {
            ringmq::Event::Lagged { lagged, .. } => Some(lagged.lost),
            _ => None,
        })
        .sum();
    let handled = handled.load(Ordering::SeqCst);
    assert_eq!((told, sub.stats().dropped), (20 - handled, 20 - handled));
    assert!((1..=8).contains(&handled), "{handled}");
}
