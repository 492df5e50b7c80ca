//! The cancellation matrix: every future x every moment at which it may be left x both kinds of ring (G8; failure catalogue A17 to A21, A28, A29).
//!
//! In each cell a *victim* stands first in line and a *heir* behind it. The victim is left at the cell's moment; then nothing may be lost, come
//! twice or be stuck: in particular a wake-up that the victim had got goes to the heir. `RINGMQ_CANCEL_REPEATS` (default 300) is how often each
//! cell is gone through, `RINGMQ_CANCEL_POLLS` (default 100,000) how often a waiter comes and goes, `RINGMQ_CANCEL_RACE` (default 3,000) how
//! many messages each race with real threads has.

mod matrix_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use futures_core::Stream;
use futures_sink::Sink;
use matrix_support::*;
use ringmq::{Auto, PublishError, Publisher, RecvError, SubscribeOptions, Subscriber, Subscription, Topic};

/// Counts the bytes that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// When the victim is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    NeverPolled,
    Pending,
    /// Woken, but what it was woken for has gone to somebody else.
    WokenInVain,
    /// Woken, and what it waits for is there.
    HandOff,
    /// Pending, and leaked instead of dropped.
    Forgotten,
}

const MOMENTS: [Moment; 5] = [
    Moment::NeverPolled,
    Moment::Pending,
    Moment::WokenInVain,
    Moment::HandOff,
    Moment::Forgotten,
];

/// The futures that receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Recv,
    RecvAuto,
    RecvBatch,
    RecvBatchAuto,
    SubscriberRecv,
    SubscriberRecvAuto,
    SubscriberRecvBatch,
    StreamNext,
    RunAsync,
}

const RECEIVES: [Receive; 9] = [
    Receive::Recv,
    Receive::RecvAuto,
    Receive::RecvBatch,
    Receive::RecvBatchAuto,
    Receive::SubscriberRecv,
    Receive::SubscriberRecvAuto,
    Receive::SubscriberRecvBatch,
    Receive::StreamNext,
    Receive::RunAsync,
];

type Boxed<'a> = Pin<Box<dyn Future<Output = Vec<u64>> + 'a>>;

/// Everything that outlives a victim, so that it is the victim's own leaving that is tested, not that of its handle.
struct Handles {
    sub: Subscription<u64>,
    auto: Subscription<u64, Auto>,
    subscriber: Subscriber<u64>,
    auto_subscriber: Subscriber<u64, Auto>,
    deliveries: Vec<ringmq::Delivery<u64>>,
    payloads: Vec<u64>,
    /// What `run_async` has handled.
    handled: Arc<Mutex<Vec<u64>>>,
}

impl Handles {
    fn new(sub: &Subscription<u64>) -> Self {
        Self {
            sub: sub.clone(),
            auto: sub.auto_ack(),
            subscriber: sub.subscriber(),
            auto_subscriber: sub.auto_ack().subscriber(),
            deliveries: Vec::new(),
            payloads: Vec::new(),
            handled: Arc::default(),
        }
    }

    fn victim(&mut self, what: Receive) -> Boxed<'_> {
        fn acked(d: ringmq::Delivery<u64>) -> Vec<u64> {
            vec![d.into_inner().unwrap()]
        }
        match what {
            Receive::Recv => {
                let future = self.sub.recv_async();
                Box::pin(async { acked(future.await.unwrap()) })
            }
            Receive::RecvAuto => {
                let future = self.auto.recv_async();
                Box::pin(async { vec![future.await.unwrap()] })
            }
            Receive::RecvBatch => Box::pin(async {
                self.sub.recv_batch_async(&mut self.deliveries, 4).await.unwrap();
                self.deliveries.drain(..).flat_map(acked).collect()
            }),
            Receive::RecvBatchAuto => Box::pin(async {
                self.auto.recv_batch_async(&mut self.payloads, 4).await.unwrap();
                std::mem::take(&mut self.payloads)
            }),
            Receive::SubscriberRecv => {
                let future = self.subscriber.recv_async();
                Box::pin(async { acked(future.await.unwrap()) })
            }
            Receive::SubscriberRecvAuto => {
                let future = self.auto_subscriber.recv_async();
                Box::pin(async { vec![future.await.unwrap()] })
            }
            Receive::SubscriberRecvBatch => Box::pin(async {
                self.subscriber.recv_batch_async(&mut self.deliveries, 4).await.unwrap();
                self.deliveries.drain(..).flat_map(acked).collect()
            }),
            Receive::StreamNext => {
                // A stream waits as long as its subscriber lives, so here the victim is the subscriber.
                let mut stream = self.sub.subscriber();
                Box::pin(poll_fn(move |context| {
                    Pin::new(&mut stream).poll_next(context).map(|next| acked(next.unwrap().unwrap()))
                }))
            }
            Receive::RunAsync => {
                let handled = self.handled.clone();
                let work = self.sub.run_async(1, move |d| {
                    handled.lock().unwrap().push(**d);
                    async {}
                });
                let handled = self.handled.clone();
                Box::pin(async move {
                    work.await.unwrap();
                    std::mem::take(&mut *handled.lock().unwrap())
                })
            }
        }
    }
}

/// Goes through one cell of the receiving half.
fn leave_receiver(kind: Kind, what: Receive, moment: Moment) {
    let (topic, sub) = kind.pair::<u64>(8);
    let heir_handle = sub.auto_ack();
    let mut handles = Handles::new(&sub);
    let (spy, heir_spy) = (Spy::new(), Spy::new());
    let (waker, heir_waker) = (spy.waker(), heir_spy.waker());
    let mut heir = heir_handle.recv_async();
    let cell = || format!("{kind:?} {what:?} {moment:?}");
    // A stream may be left by whoever polled it, so it uses up no wake-up.
    let besides = u64::from(what == Receive::StreamNext);
    let mut got = Vec::new();
    let mut published = 0;
    let mut publish = || {
        topic.publish(published).unwrap();
        published += 1;
    };
    let mut victim = handles.victim(what);
    if moment != Moment::NeverPolled {
        assert!(poll(&mut victim, &waker).is_pending(), "{}", cell());
    }
    assert!(poll(&mut heir, &heir_waker).is_pending());
    match moment {
        Moment::NeverPolled | Moment::Pending => {
            drop(victim);
            publish();
        }
        Moment::WokenInVain => {
            publish();
            assert_eq!((spy.wakes(), heir_spy.wakes()), (1, besides), "{}", cell());
            got.push(sub.try_recv().unwrap().into_inner().unwrap());
            drop(victim);
            publish();
        }
        Moment::HandOff => {
            publish();
            assert_eq!((spy.wakes(), heir_spy.wakes()), (1, besides), "{}", cell());
            drop(victim);
        }
        Moment::Forgotten => {
            std::mem::forget(victim);
            // One wake-up goes to whoever never comes; the next one must not.
            publish();
            publish();
        }
    }
    assert!(heir_spy.wakes() >= 1, "{}: the heir sleeps beside a message", cell());
    match poll(&mut heir, &heir_waker) {
        Poll::Ready(Ok(value)) => got.push(value),
        other => panic!("{}: {other:?}", cell()),
    }
    drop(heir);
    while let Ok(value) = heir_handle.try_recv() {
        got.push(value);
    }
    assert_eq!(got, (0..published).collect::<Vec<_>>(), "{}", cell());
    assert!(handles.deliveries.is_empty() && handles.payloads.is_empty() && handles.handled.lock().unwrap().is_empty());
    let stats = sub.stats();
    assert_eq!((stats.in_flight, stats.failures, stats.lag), (0, 0, 0), "{}", cell());
    drop(waker);
    if moment != Moment::Forgotten {
        assert_eq!(spy.alive(), 0, "{}: a waker outlives its future (A29)", cell());
    }
}

#[test]
fn a_receive_that_is_left_at_any_moment_loses_no_message_and_no_wake_up() {
    let repeats = size("RINGMQ_CANCEL_REPEATS", 300);
    for kind in KINDS {
        for what in RECEIVES {
            for moment in MOMENTS {
                for _ in 0..repeats {
                    leave_receiver(kind, what, moment);
                }
            }
        }
    }
}

/// The futures that publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    Topic,
    TopicBatch,
    Publisher,
    PublisherBatch,
    Sink,
}

const PUBLISHES: [Publish; 5] = [
    Publish::Topic,
    Publish::TopicBatch,
    Publish::Publisher,
    Publish::PublisherBatch,
    Publish::Sink,
];

type BoxedPublish<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

fn publish_victim<'a>(topic: &'a Topic<u64>, publisher: &'a mut Publisher<u64>, what: Publish, value: u64) -> BoxedPublish<'a> {
    match what {
        Publish::Topic => {
            let future = topic.publish_async(value);
            Box::pin(async { future.await.is_ok() })
        }
        Publish::TopicBatch => {
            let future = topic.publish_batch_async([value, value + 1]);
            Box::pin(async { future.await.is_ok() })
        }
        Publish::Publisher => {
            let future = publisher.publish_async(value);
            Box::pin(async { future.await.is_ok() })
        }
        Publish::PublisherBatch => {
            let future = publisher.publish_batch_async([value, value + 1]);
            Box::pin(async { future.await.is_ok() })
        }
        Publish::Sink => {
            // A sink waits as long as its publisher lives, so here the victim is the publisher.
            let mut sink = topic.publisher();
            let mut value = Some(value);
            Box::pin(poll_fn(move |context| {
                if let Some(value) = value.take() {
                    let Poll::Ready(Ok(())) = Pin::new(&mut sink).poll_ready(context) else {
                        panic!("an empty sink is ready")
                    };
                    Pin::new(&mut sink).start_send(value).unwrap();
                }
                Pin::new(&mut sink).poll_flush(context).map(|flushed| flushed.is_ok())
            }))
        }
    }
}

fn leave_publisher(kind: Kind, what: Publish, moment: Moment) {
    const VICTIM: u64 = 100;
    const HEIR: u64 = 200;
    let (topic, sub) = kind.pair::<u64>(1);
    let sub = sub.auto_ack();
    let mut publisher = topic.publisher();
    let cell = || format!("{kind:?} {what:?} {moment:?}");
    topic.publish(0).unwrap();
    let (spy, heir_spy) = (Spy::new(), Spy::new());
    let (waker, heir_waker) = (spy.waker(), heir_spy.waker());
    let mut victim = publish_victim(&topic, &mut publisher, what, VICTIM);
    let mut heir = topic.publish_async(HEIR);
    if moment != Moment::NeverPolled {
        assert!(poll(&mut victim, &waker).is_pending(), "{}", cell());
    }
    assert!(poll(&mut heir, &heir_waker).is_pending());
    // So may a sink.
    let besides = u64::from(what == Publish::Sink);
    let mut got = vec![];
    let mut expected = vec![0];
    match moment {
        Moment::NeverPolled | Moment::Pending => {
            drop(victim);
            got.push(sub.try_recv().unwrap());
        }
        Moment::WokenInVain => {
            got.push(sub.try_recv().unwrap());
            assert_eq!((spy.wakes(), heir_spy.wakes()), (1, besides), "{}", cell());
            topic.try_publish(1).unwrap();
            expected.push(1);
            drop(victim);
            got.push(sub.try_recv().unwrap());
        }
        Moment::HandOff => {
            got.push(sub.try_recv().unwrap());
            assert_eq!((spy.wakes(), heir_spy.wakes()), (1, besides), "{}", cell());
            drop(victim);
        }
        Moment::Forgotten => {
            std::mem::forget(victim);
            got.push(sub.try_recv().unwrap());
            topic.try_publish(1).unwrap();
            expected.push(1);
            got.push(sub.try_recv().unwrap());
        }
    }
    assert!(heir_spy.wakes() >= 1, "{}: the heir sleeps beside a free place", cell());
    assert!(matches!(poll(&mut heir, &heir_waker), Poll::Ready(Ok(_))), "{}", cell());
    expected.push(HEIR);
    while let Ok(value) = sub.try_recv() {
        got.push(value);
    }
    assert_eq!(got, expected, "{}: what never entered never comes", cell());
    drop((waker, heir));
    if moment != Moment::Forgotten {
        assert_eq!(spy.alive(), 0, "{}", cell());
    }
}

#[test]
fn a_publish_that_is_left_at_any_moment_publishes_nothing_and_loses_no_wake_up() {
    let repeats = size("RINGMQ_CANCEL_REPEATS", 300);
    for kind in KINDS {
        for what in PUBLISHES {
            for moment in MOMENTS {
                for _ in 0..repeats {
                    leave_publisher(kind, what, moment);
                }
            }
        }
    }
}

/// What has entered of a batch stays; what has not comes back from `take`, or goes away with the future.
#[test]
fn a_batch_that_is_left_half_way_has_published_exactly_what_it_says() {
    for kind in KINDS {
        for takes in [false, true] {
            let (topic, sub) = kind.pair::<u64>(4);
            let sub = sub.auto_ack();
            let mut batch = topic.publish_batch_async(0..10);
            assert!(poll(&mut batch, Waker::noop()).is_pending());
            assert_eq!((sub.try_recv(), sub.try_recv()), (Ok(0), Ok(1)));
            assert!(poll(&mut batch, Waker::noop()).is_pending());
            assert_eq!(batch.published(), 6, "{kind:?}");
            if takes {
                assert_eq!(batch.take(), [6, 7, 8, 9], "{kind:?}");
            }
            drop(batch);
            assert!(topic.stats().blocked_by.is_empty(), "{kind:?}: nobody waits any more");
            let left: Vec<_> = std::iter::from_fn(|| sub.try_recv().ok()).collect();
            assert_eq!(left, [2, 3, 4, 5], "{kind:?}");
        }
    }
}

/// Two places come free by one wake-up, while its task is being polled: it takes one, and passes the other on. Then nobody is held up any more.
#[test]
fn a_publish_that_is_woken_while_it_is_polled_leaves_no_place_and_no_blame_behind() {
    for kind in KINDS {
        for what in [Publish::Topic, Publish::TopicBatch] {
            let (topic, sub) = kind.pair::<u64>(2);
            let sub = sub.auto_ack();
            topic.publish_batch([0, 1]).unwrap();
            let (evil, spy) = (Spy::new(), Spy::new());
            let mut unused = topic.publisher();
            let mut first = match what {
                Publish::Topic => publish_victim(&topic, &mut unused, what, 10),
                _ => Box::pin(async { topic.publish_batch_async([10]).await.is_ok() }),
            };
            let mut second = topic.publish_async(20);
            assert!(poll(&mut first, Waker::noop()).is_pending());
            assert!(poll(&mut second, &spy.waker()).is_pending());
            let waker = evil.waker();
            let receiver = sub.clone();
            evil.on_clone(move |_| assert_eq!(receiver.recv_batch(&mut Vec::new(), 2), Ok(2)));
            let polled = poll(&mut first, &waker);
            evil.calm();
            assert_eq!((polled, spy.wakes()), (Poll::Ready(true), 1), "{kind:?} {what:?}");
            assert!(matches!(poll(&mut second, &spy.waker()), Poll::Ready(Ok(_))));
            assert!(topic.stats().blocked_by.is_empty(), "{kind:?} {what:?}");
        }
    }
}

/// A delivery that a handler of `run_async` works at when everything is dropped is delivered again, and fails nobody else.
#[test]
fn run_async_that_is_dropped_at_work_gives_its_messages_back() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(8);
        for value in 0..4 {
            topic.publish(value).unwrap();
        }
        let mut work = Box::pin(sub.run_async(2, |d| async move {
            let _d = d;
            std::future::pending::<()>().await;
        }));
        assert!(poll(&mut work, Waker::noop()).is_pending());
        assert_eq!(sub.stats().in_flight, 2);
        drop(work);
        let mut again: Vec<_> = std::iter::from_fn(|| sub.try_recv().ok())
            .map(|d| (*d, d.attempt(), d.ack().unwrap()))
            .collect();
        again.sort_unstable();
        assert_eq!(again, [(0, 2, ()), (1, 2, ()), (2, 1, ()), (3, 1, ())], "{kind:?}");
    }
}

/// A19: whoever polls with another waker each time, or comes and goes, leaves nothing behind.
#[test]
fn waiters_that_come_and_go_leave_no_memory_behind() {
    let polls = size("RINGMQ_CANCEL_POLLS", 100_000);
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(1);
        let spies = [Spy::new(), Spy::new()];
        let mut subscriber = sub.subscriber();
        let mut publisher = topic.publisher();
        let go = |n: usize, subscriber: &mut Subscriber<u64>, publisher: &mut Publisher<u64>| {
            let mut kept = sub.recv_async();
            for i in 0..n {
                let waker = spies[i % 2].waker();
                assert!(poll(&mut kept, &waker).is_pending());
                assert!(poll(&mut sub.recv_async(), &waker).is_pending());
                assert!(poll(&mut subscriber.recv_async(), &waker).is_pending());
                assert!(Pin::new(&mut *subscriber).poll_next(&mut Context::from_waker(&waker)).is_pending());
            }
            drop(kept);
            topic.publish(1).unwrap();
            let mut kept = topic.publish_async(2);
            for i in 0..n {
                let waker = spies[i % 2].waker();
                assert!(poll(&mut kept, &waker).is_pending());
                assert!(poll(&mut topic.publish_async(3), &waker).is_pending());
                assert!(poll(&mut publisher.publish_async(4), &waker).is_pending());
            }
            drop(kept);
            sub.try_recv().unwrap().ack().unwrap();
        };
        go(10, &mut subscriber, &mut publisher);
        let before = HELD.get();
        go(polls, &mut subscriber, &mut publisher);
        let grown = HELD.get() - before;
        assert!(grown < 1024, "{kind:?}: {grown} bytes more after {polls} rounds");
        drop(subscriber);
        assert_eq!(spies[0].alive() + spies[1].alive(), 0, "{kind:?}: wakers are left");
    }
}

/// One that waits for credit, not for a message, and is woken and dropped passes the credit on.
#[test]
fn a_receive_that_waits_for_credit_and_is_dropped_passes_it_on() {
    for kind in KINDS {
        for woken in [false, true] {
            let (topic, other) = kind.pair::<u64>(4);
            other.unsubscribe();
            let sub = topic.subscribe_with(SubscribeOptions::new("short").max_in_flight(1)).unwrap();
            topic.publish_batch([1, 2]).unwrap();
            let held = sub.recv().unwrap();
            let (spy, heir_spy) = (Spy::new(), Spy::new());
            let (mut victim, mut heir) = (sub.recv_async(), sub.recv_async());
            assert!(poll(&mut victim, &spy.waker()).is_pending());
            assert!(poll(&mut heir, &heir_spy.waker()).is_pending());
            if woken {
                held.ack().unwrap();
                assert_eq!((spy.wakes(), heir_spy.wakes()), (1, 0), "{kind:?}");
                drop(victim);
            } else {
                drop(victim);
                held.ack().unwrap();
            }
            assert_eq!(heir_spy.wakes(), 1, "{kind:?}: it sleeps beside a credit");
            assert!(matches!(poll(&mut heir, &heir_spy.waker()), Poll::Ready(Ok(d)) if *d == 2));
        }
    }
}

/// Polled with another waker, a future is woken through the latest one.
#[test]
fn the_latest_waker_is_the_one_that_is_called() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(1);
        let spies: Vec<_> = (0..4).map(|_| Spy::new()).collect();
        let mut recv = sub.recv_async();
        for spy in &spies {
            assert!(poll(&mut recv, &spy.waker()).is_pending());
        }
        topic.publish(1).unwrap();
        let mut publish = topic.publish_async(2);
        let publish_spies: Vec<_> = (0..4).map(|_| Spy::new()).collect();
        for spy in &publish_spies {
            assert!(poll(&mut publish, &spy.waker()).is_pending());
        }
        let Poll::Ready(Ok(delivery)) = poll(&mut recv, Waker::noop()) else {
            panic!("it was woken")
        };
        delivery.ack().unwrap();
        for spies in [spies, publish_spies] {
            let wakes: Vec<_> = spies.iter().map(|spy| spy.wakes()).collect();
            assert_eq!(wakes, [0, 0, 0, 1], "{kind:?}");
        }
    }
}

/// A28: a receive polled again after it was ready receives the next message; a publish panics with a text that says why.
#[test]
fn polling_again_after_ready_does_what_is_documented() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(4);
        let sub = sub.auto_ack();
        topic.publish_batch([1, 2]).unwrap();
        let mut recv = sub.recv_async();
        for expected in [1, 2] {
            assert_eq!(poll(&mut recv, Waker::noop()), Poll::Ready(Ok(expected)));
        }
        assert!(poll(&mut recv, Waker::noop()).is_pending());
        let mut publish = topic.publish_async(3);
        assert!(poll(&mut publish, Waker::noop()).is_ready());
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut publish, Waker::noop()).is_ready()));
        let text = *again.unwrap_err().downcast::<&str>().unwrap();
        assert!(text.contains("polled after it was ready"), "{text}");
        drop(publish);
        assert_eq!(poll(&mut recv, Waker::noop()), Poll::Ready(Ok(3)));
        topic.close();
        for _ in 0..3 {
            assert_eq!(poll(&mut recv, Waker::noop()), Poll::Ready(Err(RecvError::Closed)));
        }
    }
}

/// A publish that has not entered hands its value back, at any time.
#[test]
fn a_pending_publish_gives_its_value_back() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(1);
        topic.publish(0).unwrap();
        let mut publish = topic.publish_async(1);
        assert_eq!(publish.take(), Some(1));
        assert_eq!(publish.take(), None);
        let mut publish = topic.publish_async(2);
        let spy = Spy::new();
        assert!(poll(&mut publish, &spy.waker()).is_pending());
        assert_eq!(publish.take(), Some(2));
        assert_eq!(spy.alive(), 0);
        drop(publish);
        assert_eq!(*sub.try_recv().unwrap(), 0);
    }
}

/// A21: `n` messages wake at least `n` of those that wait, whatever became of some of them.
#[test]
fn every_message_wakes_somebody_who_was_not_woken_yet() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(16);
        let spies: Vec<_> = (0..8).map(|_| Spy::new()).collect();
        let mut futures: Vec<_> = spies.iter().map(|_| Some(Box::pin(sub.recv_async()))).collect();
        for (future, spy) in futures.iter_mut().zip(&spies) {
            assert!(poll(future.as_mut().unwrap(), &spy.waker()).is_pending());
        }
        std::mem::forget(futures[0].take());
        std::mem::forget(futures[3].take());
        for n in 1..=8 {
            topic.publish(n).unwrap();
            let woken = spies.iter().filter(|spy| spy.wakes() > 0).count() as u64;
            assert_eq!(woken, n, "{kind:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Trick {
    Panic,
    Publish,
    Receive,
    Poll,
}

/// A15: wakers are code of the user. Whatever they do when cloned, called or dropped, no lock is held and no count is off.
#[test]
fn wakers_may_panic_publish_and_receive_whenever_they_are_touched() {
    for kind in KINDS {
        for trick in [Trick::Panic, Trick::Publish, Trick::Receive, Trick::Poll] {
            for when in 0..3 {
                within(PATIENCE, move || play_trick(kind, trick, when));
            }
        }
    }
}

/// The waker's own end may panic too, and must not take the result along.
fn poll_and_survive<F: Future + Unpin>(future: &mut F, spy: &Arc<Spy>) -> Option<Poll<F::Output>> {
    let waker = spy.waker();
    let polled = survive(|| poll(future, &waker));
    survive(|| drop(waker));
    polled
}

fn play_trick(kind: Kind, trick: Trick, when: usize) {
    hush();
    for at in 1..=16 {
        let (topic, sub) = kind.pair_with::<u64>(4, SubscribeOptions::new("s").max_in_flight(2));
        let entered = Arc::new(AtomicU64::new(0));
        let received = Arc::new(AtomicU64::new(0));
        let spy = Spy::new();
        let hook = {
            let (topic, auto) = (topic.clone(), sub.auto_ack());
            let (entered, received) = (entered.clone(), received.clone());
            let inside = AtomicBool::new(false);
            move |n: u64| {
                if n != at || inside.swap(true, SeqCst) {
                    return;
                }
                match trick {
                    Trick::Panic => panic_on_purpose(),
                    Trick::Publish => {
                        entered.fetch_add(u64::from(topic.try_publish(1000).is_ok()), SeqCst);
                    }
                    Trick::Receive => {
                        received.fetch_add(u64::from(auto.try_recv().is_ok()), SeqCst);
                    }
                    Trick::Poll => {
                        let mut other = auto.recv_async();
                        if poll(&mut other, Waker::noop()).is_ready() {
                            received.fetch_add(1, SeqCst);
                        }
                        let mut other = topic.publish_async(2000);
                        if poll(&mut other, Waker::noop()).is_ready() {
                            entered.fetch_add(1, SeqCst);
                        }
                    }
                }
            }
        };
        match when {
            0 => spy.on_clone(hook),
            1 => spy.on_wake(hook),
            _ => spy.on_drop(hook),
        }
        let mut recvs: Vec<_> = (0..3).map(|_| sub.recv_async()).collect();
        let count = |polled: Option<Poll<Result<ringmq::Delivery<u64>, RecvError>>>| {
            if let Some(Poll::Ready(Ok(delivery))) = polled {
                delivery.ack().unwrap();
                received.fetch_add(1, SeqCst);
            }
        };
        for round in 0..6 {
            for recv in &mut recvs {
                count(poll_and_survive(recv, &spy));
            }
            let mut publishes: Vec<_> = (0..3).map(|i| topic.publish_async(round * 10 + i)).collect();
            for publish in &mut publishes {
                if let Some(Poll::Ready(Ok(_))) = poll_and_survive(publish, &spy) {
                    entered.fetch_add(1, SeqCst);
                }
            }
            survive(|| drop(publishes));
            for recv in &mut recvs {
                count(poll_and_survive(recv, &spy));
            }
        }
        spy.calm();
        drop(recvs);
        // The topic is as good as new: it takes a lap, and counts add up.
        let auto = sub.auto_ack();
        while auto.try_recv().is_ok() {
            received.fetch_add(1, SeqCst);
        }
        let cell = format!("{kind:?} {trick:?} {when} at {at}");
        assert_eq!(entered.load(SeqCst), received.load(SeqCst), "{cell}");
        assert_eq!(topic.stats().published, entered.load(SeqCst), "{cell}");
        assert_eq!((sub.stats().in_flight, sub.stats().lag), (0, 0), "{cell}");
        for n in 0..4 {
            topic.try_publish(n).unwrap();
        }
        assert!(matches!(topic.try_publish(4), Err(PublishError::Full(4))), "{cell}");
        for n in 0..4 {
            assert_eq!(auto.try_recv(), Ok(n), "{cell}");
        }
        assert_eq!(spy.alive(), 0, "{cell}");
    }
}

/// Real threads: publishers whose futures are dropped at random, receivers whose futures are dropped at random, and one steady receiver.
#[test]
fn futures_dropped_at_random_under_load_lose_and_duplicate_nothing() {
    let seed = seed("cancel race");
    let messages = size("RINGMQ_CANCEL_RACE", 3_000) as u64;
    for kind in KINDS {
        for capacity in [1, 4] {
            within(PATIENCE, move || race(kind, capacity, messages, seed));
        }
    }
}

fn race(kind: Kind, capacity: usize, messages: u64, seed: u64) {
    let (topic, sub) = kind.pair::<u64>(capacity);
    let got = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..2)
            .map(|p| {
                let (topic, mut random) = (topic.clone(), Random(seed ^ p));
                scope.spawn(move || {
                    let mut own = topic.publisher();
                    for n in 0..messages {
                        let mut value = n * 2 + p;
                        loop {
                            let mut future = if random.below(2) == 0 {
                                topic.publish_async(value)
                            } else {
                                own.publish_async(value)
                            };
                            let polls = random.below(3);
                            if (0..polls).any(|_| matches!(poll(&mut future, Waker::noop()), Poll::Ready(Ok(_)))) {
                                break;
                            }
                            if random.below(8) == 0 {
                                block_on(&mut future).unwrap();
                                break;
                            }
                            value = future.take().unwrap();
                        }
                    }
                })
            })
            .collect();
        for r in 0..2 {
            let (sub, got, mut random) = (sub.auto_ack(), &got, Random(seed ^ (r + 100)));
            scope.spawn(move || {
                let mut own = sub.subscriber();
                loop {
                    let mut future = if random.below(2) == 0 { sub.recv_async() } else { own.recv_async() };
                    let mut ready = None;
                    for _ in 0..random.below(3) {
                        if let Poll::Ready(result) = poll(&mut future, Waker::noop()) {
                            ready = Some(result);
                            break;
                        }
                    }
                    if ready.is_none() && random.below(8) == 0 {
                        ready = Some(block_on(future));
                    }
                    match ready {
                        Some(Ok(value)) => got.lock().unwrap().push(value),
                        Some(Err(RecvError::Closed)) => return,
                        Some(Err(other)) => panic!("{other}"),
                        None => {}
                    }
                }
            });
        }
        let (steady, got) = (sub.clone(), &got);
        scope.spawn(move || {
            for delivery in steady.iter() {
                got.lock().unwrap().push(delivery.unwrap().into_inner().unwrap());
            }
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        topic.close();
    });
    let got = got.into_inner().unwrap();
    let distinct: HashSet<_> = got.iter().copied().collect();
    assert_eq!(
        (got.len() as u64, distinct.len() as u64),
        (2 * messages, 2 * messages),
        "{kind:?} {capacity}"
    );
}
