//! Goal: subscribers are streams and publishers sinks as the ecosystem expects: the laws of both hold, closing a sink leaves the topic open.
//! Method: the adapters of `futures-util`, and single polls by hand.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::support::{CountWakes, broker, on_each_executor, topic, work_queue};
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream};
use ringmq::{Overflow, PublishError, SubscribeOptions, Topic, TopicOptions};

#[test]
fn a_subscriber_is_a_stream_that_ends_when_closed() {
    for make in [topic as fn(usize) -> _, work_queue] {
        on_each_executor(move || async move {
            let topic = make(4);
            let sub = topic.subscribe("s").unwrap();
            let mut publisher = topic.publisher();
            let send = async {
                publisher.send_all(&mut stream::iter((0..100).map(Ok))).await.unwrap();
                topic.close();
            };
            let receive = sub.subscriber().map(|d| d.unwrap().into_inner().unwrap()).collect::<Vec<_>>();
            let ((), got) = tokio::join!(send, receive);
            assert!(got.into_iter().eq(0..100));
        });
    }
}

#[test]
fn a_stream_that_has_ended_stays_ended() {
    let topic = topic(4);
    let mut stream = topic.subscribe("s").unwrap().subscriber();
    topic.publish(1).unwrap();
    topic.close();
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(delivery))) = Pin::new(&mut stream).poll_next(&mut context) else {
        panic!("one message is there")
    };
    delivery.ack().unwrap();
    for _ in 0..3 {
        assert!(matches!(Pin::new(&mut stream).poll_next(&mut context), Poll::Ready(None)));
    }
}

#[test]
fn a_stream_tells_what_was_lost_in_band() {
    let topic = topic(4);
    let options = SubscribeOptions::new("s").overflow(Overflow::DropOldest);
    let sub = topic.subscribe_with(options).unwrap();
    topic.publish_batch(0..10).unwrap();
    topic.close();
    let all = crate::support::block_on(sub.auto_ack().subscriber().collect::<Vec<_>>());
    let lost: u64 = all.iter().filter_map(|item| item.as_ref().err()).map(|lagged| lagged.lost).sum();
    let got = all.iter().filter(|item| item.is_ok()).count() as u64;
    assert!(all[0].is_err() && lost > 0);
    assert_eq!(lost + got, 10);
}

#[test]
fn a_stream_can_be_cancelled_between_any_two_items() {
    on_each_executor(|| async {
        let topic = topic(16);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        topic.publish_batch(0..10).unwrap();
        let mut got = Vec::new();
        while got.len() < 10 {
            let mut stream = sub.subscriber();
            got.push(stream.next().await.unwrap().unwrap());
        }
        assert!(got.into_iter().eq(0..10));
    });
}

/// Symptom: a stream whose `next()` had been polled once and dropped (`select!`, a timeout) took the wake-up of the next message, and a receiver
/// slept beside it. Cause: the stream stays in line when its future goes. Fix: it uses up no wake-up (G8).
#[test]
fn a_stream_that_nobody_polls_any_more_takes_no_wake_up_from_others() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic: Topic<u64> = make(16);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let mut left: Vec<_> = (0..3).map(|_| sub.subscriber()).collect();
        for stream in &mut left {
            let mut context = Context::from_waker(Waker::noop());
            assert!(pin!(stream.next()).poll(&mut context).is_pending());
        }
        let wakes = Arc::new(CountWakes::default());
        let waker = Waker::from(wakes.clone());
        let mut receiving = pin!(sub.recv_async());
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        topic.publish(1).unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(receiving.poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(1)));
    }
}

/// The same for a sink and a free place.
#[test]
fn a_sink_that_nobody_polls_any_more_takes_no_wake_up_from_others() {
    for make in [topic as fn(usize) -> _, work_queue] {
        let topic: Topic<u64> = make(1);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let mut context = Context::from_waker(Waker::noop());
        topic.publish(0).unwrap();
        let mut left = topic.publisher();
        assert!(Pin::new(&mut left).start_send(1).is_ok());
        assert!(pin!(left.flush()).poll(&mut context).is_pending());
        let wakes = Arc::new(CountWakes::default());
        let waker = Waker::from(wakes.clone());
        let mut publishing = pin!(topic.publish_async(2));
        assert!(publishing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(sub.recv(), Ok(0));
        assert_eq!(wakes.count(), 1);
        assert!(publishing.poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(sub.recv(), Ok(2));
    }
}

#[test]
fn forward_moves_every_item_in_order() {
    on_each_executor(|| async {
        let (from, to) = (topic(4), topic(4));
        let source = from.subscribe("s").unwrap().auto_ack();
        let sink = to.publisher();
        let target = to.subscribe("s").unwrap().auto_ack();
        let pump = source.subscriber().map(|item| Ok(item.unwrap())).forward(sink);
        let feed = async {
            for n in 0..200 {
                from.publish_async(n).await.unwrap();
            }
            from.close();
        };
        let check = async {
            for n in 0..200 {
                assert_eq!(target.recv_async().await, Ok(n), "not only the last one");
            }
        };
        let (pumped, (), ()) = tokio::join!(pump, feed, check);
        pumped.unwrap();
        assert!(
            !to.is_closed(),
            "forward closes the sink, which flushes it and leaves the topic open"
        );
    });
}

#[test]
fn closing_a_sink_flushes_it_and_leaves_the_topic_open() {
    on_each_executor(|| async {
        let topic = topic(1);
        let sub = topic.subscribe("s").unwrap().auto_ack();
        let mut sink = topic.publisher();
        sink.feed(1).await.unwrap();
        sink.feed(2).await.unwrap();
        let close = sink.close();
        let receive = async { (sub.recv_async().await.unwrap(), sub.recv_async().await.unwrap()) };
        let (closed, got) = tokio::join!(close, receive);
        closed.unwrap();
        assert_eq!(got, (1, 2));
        assert!(!topic.is_closed());
        sink.send(3).await.unwrap();
        assert_eq!(sub.recv_async().await, Ok(3));
    });
}

#[test]
fn a_sink_is_ready_only_when_what_it_took_has_entered() {
    let topic = topic(1);
    let sub = topic.subscribe("s").unwrap().auto_ack();
    let mut sink = topic.publisher();
    let mut context = Context::from_waker(Waker::noop());
    for n in 1..=2 {
        assert!(matches!(Pin::new(&mut sink).poll_ready(&mut context), Poll::Ready(Ok(()))));
        Pin::new(&mut sink).start_send(n).unwrap();
    }
    assert!(Pin::new(&mut sink).poll_ready(&mut context).is_pending());
    assert!(Pin::new(&mut sink).poll_flush(&mut context).is_pending());
    assert!(Pin::new(&mut sink).poll_close(&mut context).is_pending());
    assert_eq!(sub.try_recv(), Ok(1));
    assert!(matches!(Pin::new(&mut sink).poll_flush(&mut context), Poll::Ready(Ok(()))));
    assert_eq!(sub.try_recv(), Ok(2));
}

#[test]
fn a_sink_gives_back_what_it_took_when_the_topic_closes() {
    on_each_executor(|| async {
        let topic = topic(1);
        let _sub = topic.subscribe("s").unwrap();
        let mut sink = topic.publisher();
        sink.feed(1).await.unwrap();
        sink.feed(2).await.unwrap();
        topic.close();
        assert!(matches!(sink.flush().await, Err(PublishError::Closed(2))));
        assert!(matches!(sink.send(3).await, Err(PublishError::Closed(3))));
        sink.close().await.unwrap();
    });
}

#[test]
fn a_sink_of_a_topic_that_notes_times_notes_them() {
    on_each_executor(|| async {
        let topic = broker().topic_with("t", TopicOptions::<u64>::new().timestamps()).unwrap();
        let sub = topic.subscribe("s").unwrap();
        topic.publisher().send(1).await.unwrap();
        assert!(sub.recv_async().await.unwrap().published().is_some());
    });
}
