//! Goal: every way to publish does what its name says, from every handle: it enters the message, or gives the value back.
//! Method: a small topic that is full, has room, or is closed; another thread makes room where a verb waits for it.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{A_MOMENT, PATIENCE, block_on, broker, topic, until, work_queue};
use ringmq::{Durability, Overflow, PublishError, PublishFailure, SubscribeOptions, TopicOptions};

/// The two kinds of topic behave alike.
fn both_kinds(test: impl Fn(ringmq::Topic<u64>)) {
    test(topic(2));
    test(work_queue(2));
}

#[test]
fn each_verb_of_a_topic_enters_its_message() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let taken = || sub.try_recv().unwrap();
        topic.publish(1).unwrap();
        assert_eq!(taken(), 1);
        topic.try_publish(2).unwrap();
        assert_eq!(taken(), 2);
        topic.publish_timeout(3, Duration::ZERO).unwrap();
        assert_eq!(taken(), 3);
        topic.publish_deadline(4, Instant::now()).unwrap();
        assert_eq!(taken(), 4);
        block_on(topic.publish_async(5)).unwrap();
        assert_eq!(taken(), 5);
        assert_eq!(topic.publish_batch([6, 7]).unwrap(), 2);
        assert_eq!((taken(), taken()), (6, 7));
        assert_eq!(topic.try_publish_batch([8, 9]).unwrap(), 2);
        assert_eq!((taken(), taken()), (8, 9));
        assert_eq!(topic.publish_batch_timeout([10], Duration::ZERO).unwrap(), 1);
        assert_eq!(topic.publish_batch_deadline([11], Instant::now()).unwrap(), 1);
        assert_eq!((taken(), taken()), (10, 11));
        assert_eq!(block_on(topic.publish_batch_async([12, 13])).unwrap(), 2);
        assert_eq!((taken(), taken()), (12, 13));
    });
}

#[test]
fn each_verb_of_a_publisher_enters_its_message() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let mut publisher = topic.publisher();
        let taken = || sub.try_recv().unwrap();
        publisher.publish(1).unwrap();
        assert_eq!(taken(), 1);
        publisher.try_publish(2).unwrap();
        assert_eq!(taken(), 2);
        publisher.publish_timeout(3, Duration::ZERO).unwrap();
        assert_eq!(taken(), 3);
        publisher.publish_deadline(4, Instant::now()).unwrap();
        assert_eq!(taken(), 4);
        block_on(publisher.publish_async(5)).unwrap();
        assert_eq!(taken(), 5);
        assert_eq!(publisher.publish_batch(vec![6, 7]).unwrap(), 2);
        assert_eq!((taken(), taken()), (6, 7));
        assert_eq!(publisher.publish_batch_deadline([8], Instant::now()).unwrap(), 1);
        assert_eq!(publisher.publish_batch_timeout([9], Duration::ZERO).unwrap(), 1);
        assert_eq!((taken(), taken()), (8, 9));
        assert_eq!(publisher.try_publish_batch([10, 11]).unwrap(), 2);
        assert_eq!((taken(), taken()), (10, 11));
        assert_eq!(block_on(publisher.publish_batch_async([12, 13])).unwrap(), 2);
        assert_eq!((taken(), taken()), (12, 13));
        assert_eq!(publisher.topic().name(), "numbers");
    });
}

#[test]
fn each_verb_of_a_message_enters_it_with_key_and_headers() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap();
        let message = |n: u64| topic.message(n).key(format!("k{n}")).header("of", "test");
        let check = |n: u64| {
            let delivery = sub.try_recv().unwrap();
            assert_eq!((*delivery, delivery.key()), (n, Some(format!("k{n}").as_bytes())));
            assert_eq!(delivery.headers().find("of"), Some("test"));
            delivery.ack().unwrap();
        };
        message(1).publish().unwrap();
        check(1);
        message(2).try_publish().unwrap();
        check(2);
        message(3).publish_timeout(Duration::ZERO).unwrap();
        check(3);
        message(4).publish_deadline(Instant::now()).unwrap();
        check(4);
        block_on(message(5).publish_async()).unwrap();
        check(5);
    });
}

#[test]
fn every_subscription_sees_the_same_headers_and_a_plain_message_has_none() {
    let topic = topic(8);
    let subs = [topic.subscribe("a").unwrap(), topic.subscribe("b").unwrap()];
    topic.message(1).header("n", "1").header("n", "2").publish().unwrap();
    topic.publish(2).unwrap();
    for sub in subs {
        let first = sub.try_recv().unwrap();
        assert_eq!(first.headers().iter().collect::<Vec<_>>(), [("n", "1"), ("n", "2")]);
        assert_eq!((first.headers().find("n"), first.headers().len()), (Some("1"), 2));
        let second = sub.try_recv().unwrap();
        assert!(second.headers().is_empty() && second.key().is_none() && second.published().is_none());
        sub.ack_batch([first, second]).unwrap();
    }
}

#[test]
fn a_full_topic_gives_the_value_back_to_whoever_does_not_wait() {
    both_kinds(|topic| {
        let _sub = topic.subscribe("s").unwrap();
        topic.publish_batch([1, 2]).unwrap();
        let full = topic.try_publish(3).unwrap_err();
        assert_eq!((full.failure(), full.into_inner()), (PublishFailure::Full, 3));
        assert!(matches!(topic.publisher().try_publish(4), Err(PublishError::Full(4))));
        assert!(matches!(topic.message(5).try_publish(), Err(PublishError::Full(5))));
    });
}

#[test]
fn a_timeout_or_deadline_gives_the_value_back_when_it_has_passed() {
    both_kinds(|topic| {
        let _sub = topic.subscribe("s").unwrap();
        topic.publish_batch([1, 2]).unwrap();
        let before = Instant::now();
        assert!(matches!(topic.publish_timeout(3, A_MOMENT), Err(PublishError::Timeout(3))));
        assert!(before.elapsed() >= A_MOMENT);
        assert!(matches!(topic.publish_deadline(4, before), Err(PublishError::Timeout(4))));
        assert!(matches!(
            topic.publisher().publish_timeout(5, Duration::ZERO),
            Err(PublishError::Timeout(5))
        ));
        assert!(matches!(
            topic.publisher().publish_deadline(6, before),
            Err(PublishError::Timeout(6))
        ));
        assert!(matches!(topic.message(7).publish_timeout(A_MOMENT), Err(PublishError::Timeout(7))));
    });
}

#[test]
fn a_publish_that_waits_enters_when_room_comes() {
    type Verb = fn(&ringmq::Topic<u64>);
    let verbs: [Verb; 9] = [
        |topic| assert!(topic.publish(3).unwrap().subscriptions() == 1),
        |topic| assert!(topic.publish_timeout(3, Duration::MAX).unwrap().subscriptions() == 1),
        |topic| assert!(topic.publish_deadline(3, Instant::now() + PATIENCE).unwrap().subscriptions() == 1),
        |topic| assert!(block_on(topic.publish_async(3)).unwrap().subscriptions() == 1),
        |topic| assert!(topic.publisher().publish(3).unwrap().subscriptions() == 1),
        |topic| assert_eq!(topic.publish_batch([3]).unwrap(), 1),
        |topic| assert_eq!(topic.publish_batch_timeout([3], Duration::MAX).unwrap(), 1),
        |topic| assert_eq!(block_on(topic.publish_batch_async([3])).unwrap(), 1),
        |topic| assert_eq!(block_on(topic.publisher().publish_batch_async([3])).unwrap(), 1),
    ];
    for verb in verbs {
        both_kinds(|topic| {
            let sub = topic.subscribe("s").unwrap().auto_ack();
            topic.publish_batch([1, 2]).unwrap();
            thread::scope(|scope| {
                let waiting = scope.spawn(|| verb(&topic));
                until("the publisher waits", || {
                    !topic.stats().blocked_by.is_empty() || waiting.is_finished()
                });
                assert!(!waiting.is_finished());
                assert_eq!(sub.recv().unwrap(), 1);
            });
            assert_eq!((sub.recv().unwrap(), sub.recv().unwrap()), (2, 3));
        });
    }
}

#[test]
fn a_batch_larger_than_the_topic_enters_in_order_as_room_comes() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(topic.publish_batch(0..1000).unwrap(), 1000);
                topic.close();
            });
            let got: Vec<_> = sub.iter().map(|n| n.unwrap()).collect();
            assert_eq!(got, (0..1000).collect::<Vec<_>>());
        });
    });
}

#[test]
fn a_batch_of_a_task_larger_than_the_topic_enters_in_order_as_room_comes() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(block_on(topic.publish_batch_async(0..1000)).unwrap(), 1000);
                assert_eq!(block_on(topic.publisher().publish_batch_async(1000..2000)).unwrap(), 1000);
                topic.close();
            });
            let got: Vec<_> = sub.iter().map(|n| n.unwrap()).collect();
            assert_eq!(got, (0..2000).collect::<Vec<_>>());
        });
    });
}

#[test]
fn a_task_that_publishes_a_batch_with_room_for_all_lets_others_run_in_between() {
    let topic = topic(1 << 16);
    let _sub = topic.subscribe("s").unwrap();
    let mut batch = topic.publish_batch_async(0..1 << 16);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut polls = 1;
    while std::pin::Pin::new(&mut batch).poll(&mut context).is_pending() {
        assert!(batch.published() > 0);
        polls += 1;
    }
    assert!(polls > 4, "{polls} polls for 65,536 messages");
}

#[test]
fn what_did_not_enter_of_a_batch_comes_back_in_order() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        type Verb = fn(&ringmq::Topic<u64>) -> Result<u64, PublishError<Vec<u64>>>;
        let verbs: [(Verb, PublishFailure); 5] = [
            (
                |topic| topic.publish_batch_deadline(0..1000, Instant::now()),
                PublishFailure::Timeout,
            ),
            (
                |topic| topic.publisher().publish_batch_deadline(0..1000, Instant::now()),
                PublishFailure::Timeout,
            ),
            (|topic| topic.publish_batch_timeout(0..1000, A_MOMENT), PublishFailure::Timeout),
            (|topic| topic.try_publish_batch(0..1000), PublishFailure::Full),
            (|topic| topic.publisher().try_publish_batch(0..1000), PublishFailure::Full),
        ];
        for (verb, failure) in verbs {
            let refused = verb(&topic).unwrap_err();
            assert_eq!(refused.failure(), failure);
            assert_eq!(refused.into_inner(), (2..1000).collect::<Vec<_>>());
            assert_eq!((sub.try_recv().unwrap(), sub.try_recv().unwrap()), (0, 1));
        }
        topic.close();
        let refused = block_on(topic.publish_batch_async([1, 2, 3])).unwrap_err();
        assert_eq!((refused.failure(), refused.into_inner()), (PublishFailure::Closed, vec![1, 2, 3]));
        let refused = topic.publish_batch([1, 2, 3]).unwrap_err();
        assert_eq!((refused.failure(), refused.into_inner()), (PublishFailure::Closed, vec![1, 2, 3]));
        assert_eq!(topic.publish_batch([]).unwrap(), 0);
    });
}

#[test]
fn a_batch_into_a_topic_that_notes_times_behaves_the_same() {
    let topic = broker()
        .topic_with("t", TopicOptions::<u64>::new().capacity(2).timestamps())
        .unwrap();
    let sub = topic.subscribe_with(SubscribeOptions::new("s").overflow(Overflow::Fail)).unwrap();
    let refused = topic.publish_batch(0..5).unwrap_err();
    assert_eq!((refused.failure(), refused.into_inner()), (PublishFailure::Full, vec![2, 3, 4]));
    assert!(sub.try_recv().unwrap().published().is_some());
    let refused = block_on(topic.publish_batch_async(5..8)).unwrap_err();
    assert_eq!((refused.failure(), refused.into_inner()), (PublishFailure::Full, vec![6, 7]));
    let left: Vec<_> = std::iter::from_fn(|| sub.try_recv().ok())
        .map(|d| (*d, d.published().is_some(), d.ack().unwrap()))
        .collect();
    assert_eq!(left, [(1, true, ()), (5, true, ())]);
}

#[test]
fn receipts_say_offset_level_and_how_many_subscriptions_there_were() {
    let topic = topic(8);
    let first = topic.publish(1).unwrap();
    assert_eq!((first.offset().get(), first.subscriptions()), (0, 0));
    let a = topic.subscribe("a").unwrap();
    let b = topic.subscribe("b").unwrap();
    let second = topic.publish(2).unwrap();
    assert_eq!((second.offset().get(), second.subscriptions()), (1, 2));
    assert_eq!(second.level(), Durability::Memory);
    b.unsubscribe();
    assert_eq!(topic.publisher().publish(3).unwrap().subscriptions(), 1);
    assert_eq!(block_on(topic.publish_async(4)).unwrap().offset().get(), 3);
    assert_eq!(a.recv().unwrap().offset(), first.offset());
}

#[test]
fn a_closed_topic_gives_every_verb_its_value_back() {
    both_kinds(|topic| {
        let _sub = topic.subscribe("s").unwrap();
        topic.close();
        assert!(matches!(topic.publish(1), Err(PublishError::Closed(1))));
        assert!(matches!(topic.try_publish(2), Err(PublishError::Closed(2))));
        assert!(matches!(topic.publish_timeout(3, PATIENCE), Err(PublishError::Closed(3))));
        assert!(matches!(topic.publish_deadline(4, Instant::now()), Err(PublishError::Closed(4))));
        assert!(matches!(block_on(topic.publish_async(5)), Err(PublishError::Closed(5))));
        assert!(matches!(topic.publisher().publish(6), Err(PublishError::Closed(6))));
        assert!(matches!(topic.message(7).publish(), Err(PublishError::Closed(7))));
    });
}

#[test]
fn closing_wakes_publishers_that_wait_and_they_get_their_values_back() {
    both_kinds(|topic| {
        let _sub = topic.subscribe("s").unwrap();
        topic.publish_batch([1, 2]).unwrap();
        thread::scope(|scope| {
            let blocking = scope.spawn(|| topic.publish(3));
            let task = scope.spawn(|| block_on(topic.publish_async(4)));
            let batch = scope.spawn(|| block_on(topic.publish_batch_async([5, 6])));
            until("a publisher waits", || !topic.stats().blocked_by.is_empty());
            topic.close();
            assert_eq!(batch.join().unwrap().unwrap_err().into_inner(), [5, 6]);
            assert!(matches!(blocking.join().unwrap(), Err(PublishError::Closed(3))));
            assert!(matches!(task.join().unwrap(), Err(PublishError::Closed(4))));
        });
    });
}

#[test]
fn an_iterator_that_panics_publishes_what_came_before_or_nothing_and_the_topic_goes_on() {
    let topic = topic(64);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    let mut publisher = topic.publisher();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        publisher.publish_batch((0..10).map(|n| if n == 5 { panic!("at five") } else { n }))
    }));
    assert!(panicked.is_err());
    publisher.publish(99).unwrap();
    let mut got = Vec::new();
    while let Ok(n) = sub.try_recv() {
        got.push(n);
    }
    assert_eq!(got.pop(), Some(99));
    assert!(got.iter().copied().eq(0..got.len() as u64), "{got:?}");
}

#[test]
fn a_batch_whose_receivers_keep_up_ends_at_its_deadline_all_the_same() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        thread::scope(|scope| {
            scope.spawn(|| sub.iter().for_each(drop));
            // Without an end of its own it goes on until the iterator closes the topic.
            let values = (0..1 << 22).inspect(|n| {
                if *n == (1 << 22) - 1 {
                    topic.close();
                }
            });
            let refused = topic.publish_batch_timeout(values, A_MOMENT);
            let failure = refused.unwrap_err().failure();
            topic.close();
            assert_eq!(failure, PublishFailure::Timeout);
        });
    });
}

#[test]
fn an_iterator_that_has_said_that_there_is_no_more_is_not_asked_again() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let pausing = || {
            let mut n = 0;
            std::iter::from_fn(move || {
                n += 1;
                (n != 2).then_some(n)
            })
        };
        assert_eq!(topic.publish_batch(pausing()).unwrap(), 1);
        assert_eq!(block_on(topic.publish_batch_async(pausing())).unwrap(), 1);
        assert_eq!((sub.try_recv(), sub.try_recv()), (Ok(1), Ok(1)));
        topic.close();
        assert_eq!(topic.publish_batch(pausing()).unwrap_err().into_inner(), [1]);
        assert_eq!(topic.publish_batch_async(pausing()).take(), [1]);
    });
}
