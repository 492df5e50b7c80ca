//! Tasks: polled, pending, woken, dropped, on an executor that only parks.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::RecvError;
use crate::models::{check, check_up_to};
use crate::sync::{Arc, thread};
use crate::topic::models::{Model, both_kinds};

struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// Polls once, with a waker that wakes nobody.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_pending_receive_is_woken_by_a_publish() {
    both_kinds(1, |model| {
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        let receiving = thread::spawn(move || block_on(subscriber.recv_async()));
        model.publisher().publish(7).unwrap();
        assert_eq!(receiving.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_pending_publish_is_woken_by_a_receive() {
    both_kinds(1, |model| {
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || block_on(publisher.publish_async(1)).unwrap().offset().get());
        assert_eq!(subscriber.recv(), Ok(0));
        assert_eq!(publishing.join().unwrap(), 1);
        assert_eq!(subscriber.recv(), Ok(1));
    });
}

#[test]
fn a_receive_that_is_dropped_passes_its_wake_up_on() {
    both_kinds(1, |model| {
        let subscription = model.subscribe().auto_ack();
        let (mut dropped, mut stays) = (subscription.subscriber(), subscription.subscriber());
        let mut future = dropped.recv_async();
        assert!(poll_once(&mut future).is_pending());
        let receiving = thread::spawn(move || stays.recv());
        model.publisher().publish(7).unwrap();
        drop(future);
        assert_eq!(receiving.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_receive_that_is_polled_in_vain_and_dropped_passes_its_wake_up_on() {
    check_up_to(1, || {
        let model = Model::queue(1);
        let subscription = model.subscribe().auto_ack();
        let (mut dropped, mut stays) = (subscription.subscriber(), subscription.subscriber());
        let mut future = dropped.recv_async();
        assert!(poll_once(&mut future).is_pending());
        let receiving = thread::spawn(move || stays.recv());
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(7).map(drop));
        let polled = poll_once(&mut future);
        drop(future);
        if polled.is_ready() {
            model.topic.publish(7).unwrap();
        }
        publishing.join().unwrap().unwrap();
        assert_eq!(receiving.join().unwrap(), Ok(7));
    });
}

#[test]
fn a_publish_that_is_dropped_passes_its_wake_up_on() {
    check(|| {
        let model = Model::queue(1);
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut dropped = model.topic.publish_async(1);
        assert!(poll_once(&mut dropped).is_pending());
        let mut publisher = model.publisher();
        let publishing = thread::spawn(move || publisher.publish(2).unwrap());
        let receiving = thread::spawn(move || [subscriber.recv(), subscriber.recv()]);
        drop(dropped);
        publishing.join().unwrap();
        assert_eq!(receiving.join().unwrap(), [Ok(0), Ok(2)]);
    });
}

#[test]
fn a_publish_that_was_taken_back_has_not_entered() {
    check(|| {
        let model = Model::topic(1);
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        model.topic.publish(0).unwrap();
        let mut future = model.topic.publish_async(1);
        assert!(poll_once(&mut future).is_pending());
        let receiving = thread::spawn(move || {
            assert_eq!(subscriber.recv(), Ok(0));
            subscriber
        });
        let entered = match poll_once(&mut future) {
            Poll::Ready(receipt) => receipt.unwrap().offset().get() == 1,
            Poll::Pending => future.take() != Some(1),
        };
        let mut subscriber = receiving.join().unwrap();
        assert_eq!(subscriber.try_recv().is_ok(), entered);
    });
}

#[test]
fn a_task_and_a_thread_compete_for_two_messages() {
    both_kinds(2, |model| {
        let subscription = model.subscribe().auto_ack();
        let (mut task, mut mine) = (subscription.subscriber(), subscription.subscriber());
        let receiving = thread::spawn(move || block_on(task.recv_async()).unwrap());
        model.publisher().publish_batch([1, 2]).unwrap();
        assert_eq!(mine.recv().unwrap() + receiving.join().unwrap(), 3);
    });
}

#[test]
fn a_pending_receive_learns_of_the_close() {
    both_kinds(1, |model| {
        let mut subscriber = model.subscribe().auto_ack().subscriber();
        let receiving = thread::spawn(move || block_on(subscriber.recv_async()));
        model.topic.close();
        assert_eq!(receiving.join().unwrap(), Err(RecvError::Closed));
    });
}
