//! One small test for each bug that the matrices found: symptom, cause, fix.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::matrix_support::*;
use ringmq::{Backoff, Broker, Lagged, Offset, Overflow, RecvError, Start, SubscribeOptions, Subscription, TopicOptions, TryRecvError};

const fn lagged(from: u64, to: u64) -> Lagged {
    Lagged {
        from: Offset::new(from),
        to: Offset::new(to),
        lost: to - from,
    }
}

/// Symptom: a waker that panicked made `publish` unwind after the message had entered, and subscriptions further down the list slept on.
/// Cause: wakers were called without a guard. Fix: a panic of a waker ends there; its task counts as woken.
#[test]
fn a_waker_that_panics_neither_fails_the_publish_nor_keeps_others_asleep() {
    hush();
    let topic = Broker::open("mem:").unwrap().topic::<u32>("t").unwrap();
    let (first, second) = (topic.subscribe("first").unwrap(), topic.subscribe("second").unwrap());
    let (bad, good) = (Spy::new(), Spy::new());
    bad.on_wake(|_| panic_on_purpose());
    let (mut a, mut b) = (first.recv_async(), second.recv_async());
    assert!(poll(&mut a, &bad.waker()).is_pending());
    assert!(poll(&mut b, &good.waker()).is_pending());
    assert_eq!(topic.publish(7).unwrap().offset().get(), 0);
    assert_eq!((bad.wakes(), good.wakes()), (1, 1));
    assert!(matches!(poll(&mut a, &good.waker()), Poll::Ready(Ok(d)) if *d == 7));
}

/// Symptom: a message was taken and then lost, because dropping the task's old waker panicked in the same poll. Cause: the waiter was removed
/// after the message was in hand, and its waker dropped without a guard (G3, G8). Fix: wakers are dropped under a guard.
#[test]
fn a_waker_that_panics_when_dropped_loses_no_message() {
    hush();
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u32>(8);
        let auto = sub.auto_ack();
        let (bad, other) = (Spy::new(), Spy::new());
        // The other waits first and takes the wake-up, so that the bad waker is still registered when its poll finds the message.
        let (mut first, mut second) = (auto.recv_async(), auto.recv_async());
        assert!(poll(&mut first, &other.waker()).is_pending());
        assert!(poll(&mut second, &bad.waker()).is_pending());
        topic.publish(7).unwrap();
        let waker = bad.waker();
        bad.on_drop(|_| panic_on_purpose());
        assert_eq!(survive(|| poll(&mut second, &waker)), Some(Poll::Ready(Ok(7))), "{kind:?}");
        bad.calm();
    }
}

/// Symptom: `recv` lost the message that it had taken, because an older payload panicked when the ring dropped it. Cause: consumed payloads
/// were dropped in the receiver's call, before it returned (G3). Fix: a panic of such a drop ends there.
#[test]
fn a_payload_that_panics_when_the_ring_drops_it_takes_no_other_message_along() {
    hush();
    let census = Census::new();
    let (topic, sub) = Kind::Window.pair::<Counted>(8);
    for id in 0..3 {
        topic.publish(census.payload(id)).unwrap();
    }
    // What only one subscription is to get is moved out, and nothing is left to be dropped.
    let other = topic.subscribe_with(SubscribeOptions::new("other").start(Start::Earliest)).unwrap();
    assert_eq!(other.auto_ack().try_recv_batch(&mut Vec::new(), 3).unwrap(), 3);
    census.drop_panics_at.store(4, SeqCst); // after the other's three
    let auto = sub.auto_ack();
    let got: Vec<_> = (0..3).map(|_| survive(|| auto.try_recv().unwrap())).collect();
    let ids: Vec<_> = got.iter().flatten().map(|payload| payload.id).collect();
    assert_eq!(ids, [0, 1, 2]);
    // The ring drops what was consumed when a receiver finds nothing more.
    assert!(auto.try_recv().is_err());
    assert_eq!(census.panics.load(SeqCst), 1);
    drop((topic, sub, auto, got, other));
    assert_eq!(census.alive(), 0);
}

/// Symptom: with an ack timeout, a message whose second clone panicked was gone without a word. Cause: only the ring's own clone was guarded,
/// not that of the lease (G3). Fix: a panic in either is reported as `Lagged`.
#[test]
fn a_clone_that_panics_for_the_lease_is_reported_as_lagged() {
    hush();
    for batch in [false, true] {
        let census = Census::new();
        let options = SubscribeOptions::new("s")
            .ack_timeout(Duration::from_secs(3600))
            .backoff(Backoff::none());
        let (topic, sub) = Kind::Window.pair_with::<Counted>(8, options);
        let _beside = onlooker(&topic);
        for id in 0..3 {
            topic.publish(census.payload(id)).unwrap();
        }
        census.clone_panics_at.store(2, SeqCst);
        let mut out = Vec::new();
        let first = survive(|| match batch {
            true => sub.try_recv_batch(&mut out, 1).map(drop),
            false => sub.try_recv().map(|d| out.push(d)),
        });
        assert!(first.is_none() && out.is_empty());
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Lagged(lagged(0, 1)), "batch: {batch}");
        assert_eq!(sub.try_recv().unwrap().id, 1);
        assert_eq!(sub.stats().in_flight, 0);
    }
}

/// Symptom: a batch of deliveries in which one clone panicked lost the messages before it. Cause: they waited in a buffer of the seat, which the
/// panic dropped (G3). Fix: what was cloned by then is handed over on unwinding too.
#[test]
fn a_clone_that_panics_in_a_batch_loses_one_message_only() {
    hush();
    let census = Census::new();
    let (topic, sub) = Kind::Window.pair::<Counted>(8);
    let _beside = onlooker(&topic);
    for id in 0..6 {
        topic.publish(census.payload(id)).unwrap();
    }
    census.clone_panics_at.store(4, SeqCst);
    let mut out = Vec::new();
    assert!(survive(|| sub.try_recv_batch(&mut out, 6).map(drop)).is_none());
    let seen: Vec<_> = out.iter().map(|d| (d.id, d.offset().get())).collect();
    assert_eq!(seen, [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(sub.try_recv_batch(&mut out, 6).unwrap_err(), TryRecvError::Lagged(lagged(3, 4)));
    assert_eq!(sub.try_recv_batch(&mut out, 6).unwrap(), 2);
    assert_eq!(sub.stats().in_flight, 5);
}

/// Symptom: on a closed topic two receivers kept waking each other for as long as somebody held a delivery: a busy idle (G10). Cause: every look
/// at a closed topic made what is parked due and woke everybody, whether anything was parked or not. Fix: closing itself makes it due.
#[test]
fn receivers_of_a_closed_topic_wait_quietly_for_what_is_in_flight() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u32>(8);
        topic.publish(1).unwrap();
        let held = sub.recv().unwrap();
        topic.close();
        let (mut a, mut b) = (sub.recv_async(), sub.recv_async());
        let (spy_a, spy_b) = (Spy::new(), Spy::new());
        for _ in 0..10 {
            assert!(poll(&mut a, &spy_a.waker()).is_pending());
            assert!(poll(&mut b, &spy_b.waker()).is_pending());
        }
        assert_eq!((spy_a.wakes(), spy_b.wakes()), (0, 0), "{kind:?}");
        held.ack().unwrap();
        assert_eq!((spy_a.wakes(), spy_b.wakes()), (1, 1), "{kind:?}");
        assert_eq!(
            poll(&mut a, &spy_a.waker()).map(|r| r.map(drop)),
            Poll::Ready(Err(RecvError::Closed))
        );
        assert_eq!(
            poll(&mut b, &spy_b.waker()).map(|r| r.map(drop)),
            Poll::Ready(Err(RecvError::Closed))
        );
    }
}

/// Symptom: after `close`, a subscription with as much parked as allowed stayed silent until the first retry came due. Cause: what is parked was
/// made due by the receiver that found the ring at its end, and with parking full nobody looks at the ring. Fix: closing makes it due.
#[test]
fn closing_makes_parked_messages_due_even_if_parking_is_full() {
    for kind in KINDS {
        let options = SubscribeOptions::new("s")
            .max_parked(1)
            .backoff(Backoff::fixed(Duration::from_secs(3600)));
        let (topic, sub) = kind.pair_with::<u32>(8, options);
        topic.publish(1).unwrap();
        sub.recv().unwrap().nack().unwrap();
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
        topic.close();
        assert_eq!(sub.try_recv().unwrap().into_inner().unwrap(), 1, "{kind:?}");
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Closed);
    }
}

/// Symptom: a worker of `run` died of a payload that panicked when cloned, or when dropped after its ack; with one worker the subscription
/// stood still. Cause: only the handler was guarded. Fix: so are the receive and the verdict.
#[test]
fn a_worker_outlives_payloads_that_panic() {
    hush();
    for kind in KINDS {
        let census = Census::new();
        let (topic, sub) = kind.pair::<Counted>(64);
        let beside = (kind == Kind::Window).then(|| onlooker(&topic));
        let handled = Arc::new(Mutex::new(Vec::new()));
        for id in 0..8 {
            topic.publish(census.payload(id)).unwrap();
        }
        topic.close();
        census.clone_panics_at.store(3, SeqCst);
        census.drop_panics_at.store(2, SeqCst);
        let seen = handled.clone();
        let running = sub.run(1, move |d| seen.lock().unwrap().push(d.id));
        within(PATIENCE, move || running.join());
        let expected: Vec<u64> = match kind {
            Kind::Queue => (0..8).collect(),
            Kind::Window => (0..8).filter(|&id| id != 2).collect(),
        };
        assert_eq!(*handled.lock().unwrap(), expected, "{kind:?}");
        drop((topic, sub, beside));
        assert_eq!(census.alive(), 0);
    }
}

/// Symptom: `run_async` unwound altogether when a payload's clone or drop panicked, or the handler before it returned a future. Cause and fix as
/// for `run`.
#[test]
fn run_async_outlives_what_panics() {
    hush();
    for kind in KINDS {
        let census = Census::new();
        let (topic, sub) = kind.pair::<Counted>(64);
        let beside = (kind == Kind::Window).then(|| onlooker(&topic));
        for id in 0..8 {
            topic.publish(census.payload(id)).unwrap();
        }
        topic.close();
        census.clone_panics_at.store(3, SeqCst);
        census.drop_panics_at.store(2, SeqCst);
        let handled = Arc::new(Mutex::new(Vec::new()));
        let seen = handled.clone();
        let work = sub.run_async(1, move |d| {
            if d.id == 5 && d.attempt() == 1 {
                panic_on_purpose();
            }
            seen.lock().unwrap().push(d.id);
            async move { drop(d) }
        });
        within(PATIENCE, move || block_on(work)).unwrap();
        let mut handled = handled.lock().unwrap().clone();
        handled.sort_unstable();
        let expected: Vec<u64> = match kind {
            Kind::Queue => (0..8).collect(),
            Kind::Window => (0..8).filter(|&id| id != 2).collect(),
        };
        assert_eq!(handled, expected, "{kind:?}");
        assert_eq!(sub.stats().failures, 1);
        drop(beside);
    }
}

/// Symptom: a handler of `run_async` whose future kept its delivery in a field was counted as failed although it had finished well. Cause: the
/// verdict was given while the future, and with it its share of the delivery, still existed. Fix: the future goes first.
#[test]
fn a_finished_handler_that_kept_its_delivery_is_acked() {
    struct Kept(#[expect(dead_code, reason = "kept to the end")] Arc<ringmq::Delivery<u32>>);
    impl std::future::Future for Kept {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    let (topic, sub) = Kind::Window.pair::<u32>(8);
    topic.publish(1).unwrap();
    topic.close();
    block_on(sub.run_async(2, Kept)).unwrap();
    assert_eq!(sub.stats().failures, 0);
}

/// Symptom: messages that a filter did not want were not counted when they were met in a batch. Cause: only the receive of one counted them.
/// Fix: a run counts them too.
#[test]
fn what_a_filter_does_not_want_is_counted_in_batches_too() {
    for kind in KINDS {
        let (topic, sub) = kind.pair_with::<u32>(16, SubscribeOptions::new("s").filter(|n| n % 2 == 0));
        topic.publish_batch(0..10).unwrap();
        let mut out = Vec::new();
        sub.try_recv_batch(&mut out, 100).unwrap();
        assert_eq!(out.iter().map(|d| **d).collect::<Vec<_>>(), [0, 2, 4, 6, 8], "{kind:?}");
        assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!(sub.stats().filtered, 5, "{kind:?}");
    }
}

/// A payload that receives when it is dropped.
#[derive(Clone)]
struct Nosy {
    target: Arc<OnceLock<Subscription<Nosy>>>,
    looks: Arc<AtomicU64>,
}

impl Drop for Nosy {
    fn drop(&mut self) {
        if self.looks.fetch_sub(1, SeqCst) == 1
            && let Some(target) = self.target.get()
        {
            let _ = target.stats();
            let _ = target.try_recv().map(std::mem::forget);
        }
    }
}

/// Symptom: a deadlock when a payload received in its `drop`, called while a handle made itself a seat. Cause: the list of spare seats was locked
/// while the new seat was made, which frees slots and drops payloads. Fix: the lock is gone by then.
#[test]
fn a_payload_may_receive_when_it_is_dropped() {
    within(PATIENCE, || {
        let options = SubscribeOptions::new("s").filter(|nosy: &Nosy| {
            // Used again by its own filter, a handle needs a second seat.
            if nosy.looks.load(SeqCst) == 99
                && let Some(target) = nosy.target.get()
            {
                nosy.looks.store(1, SeqCst);
                let _ = target.try_recv().map(std::mem::forget);
            }
            true
        });
        let (topic, sub) = Kind::Window.pair_with::<Nosy>(64, options);
        let target = Arc::new(OnceLock::new());
        let looks = Arc::new(AtomicU64::new(u64::MAX / 2));
        for _ in 0..20 {
            let (target, looks) = (target.clone(), looks.clone());
            topic.publish(Nosy { target, looks }).unwrap();
        }
        for _ in 0..5 {
            std::mem::forget(sub.try_recv().unwrap());
        }
        let _ = target.set(sub.clone());
        looks.store(99, SeqCst);
        std::mem::forget(sub.try_recv().unwrap());
        // A cycle of handles and payloads: left to the end of the process.
        std::mem::forget((topic, sub, target));
    });
}

/// Symptom: a receiver that wants plain payloads slept beside a message, because the wake-up went to one that wants deliveries and had no credit.
/// Cause: both waited in one line. Fix: those without credit wait in a line of their own, and pass the wake-up on when they join it.
#[test]
fn a_receiver_without_credit_passes_its_wake_up_to_one_that_needs_none() {
    for kind in KINDS {
        let (topic, sub) = kind.pair_with::<u32>(8, SubscribeOptions::new("s").max_in_flight(1));
        let auto = sub.auto_ack();
        topic.publish(0).unwrap();
        let held = sub.recv().unwrap();
        let (mut a, mut b) = (sub.recv_async(), auto.recv_async());
        let (spy_a, spy_b) = (Spy::new(), Spy::new());
        assert!(poll(&mut a, &spy_a.waker()).is_pending());
        assert!(poll(&mut b, &spy_b.waker()).is_pending());
        topic.publish(1).unwrap();
        assert_eq!(spy_a.wakes(), 1);
        assert!(poll(&mut a, &spy_a.waker()).is_pending());
        assert_eq!(spy_b.wakes(), 1, "{kind:?}");
        assert_eq!(poll(&mut b, &spy_b.waker()), Poll::Ready(Ok(1)));
        // From now on the first waits for credit, not for messages.
        topic.publish(2).unwrap();
        topic.publish(3).unwrap();
        held.ack().unwrap();
        assert_eq!(spy_a.wakes(), 2);
        assert!(matches!(poll(&mut a, &spy_a.waker()), Poll::Ready(Ok(d)) if *d == 2));
    }
}

/// Symptom: after a panic in `pick`, the letters left came back in another order. Cause: letters that were not picked had been moved behind
/// those not yet seen. Fix: both parts go back in their order.
#[test]
fn a_panic_while_redriving_keeps_the_order_of_the_letters() {
    let (topic, sub) = Kind::Window.pair::<u32>(8);
    for n in 0..5 {
        topic.publish(n).unwrap();
        sub.recv().unwrap().reject("no").unwrap();
    }
    let redriven = survive(|| {
        sub.dead_letters().redrive(|letter| {
            if letter.payload == 3 {
                panic_on_purpose();
            }
            letter.payload == 1
        })
    });
    assert_eq!(redriven, None);
    let left: Vec<_> = sub.dead_letters().list().unwrap().iter().map(|letter| letter.payload).collect();
    assert_eq!(left, [0, 2, 3, 4]);
    assert_eq!(*sub.recv().unwrap(), 1);
}

/// Symptom: a publisher lost its value without publishing it, because the message that it drove out of a full queue panicked when dropped.
/// Cause and fix as above: what the ring drops does not unwind into whoever made it.
#[test]
fn a_payload_that_panics_when_overflow_drops_it_does_not_stop_the_publisher() {
    hush();
    let census = Census::new();
    let options = SubscribeOptions::new("s").overflow(Overflow::DropOldest);
    let (topic, sub) = Kind::Queue.pair_with::<Counted>(1, options);
    topic.publish(census.payload(0)).unwrap();
    census.drop_panics_at.store(1, SeqCst);
    assert!(survive(|| topic.publish(census.payload(1)).unwrap()).is_some());
    census.calm();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Lagged(lagged(0, 1)));
    assert_eq!(sub.try_recv().unwrap().id, 1);
}

/// Symptom: a process that asked for a topic of four billion messages died of the allocation. Cause: the slots were collected without asking
/// whether there is memory. Fix: they are reserved first, and a topic that cannot be made is an error.
#[test]
fn a_topic_too_large_for_memory_is_an_error() {
    let broker = Broker::open("mem:").unwrap();
    let most = usize::try_from(1_u64 << 32).unwrap_or(1 << (usize::BITS - 1));
    let made = broker.topic_with::<[u64; 1 << 10]>("t", TopicOptions::work_queue().capacity(most));
    assert!(matches!(made, Err(ringmq::Error::OutOfMemory { .. })), "{made:?}");
    let made = broker.topic_with::<u64>("t", TopicOptions::work_queue().capacity(2));
    assert!(made.is_ok(), "the name is free");
}

/// Symptom: once a topic was closed, a delivery that somebody had forgotten never came back, whatever the ack timeout, and the subscription never
/// ended. Cause: closing took the subscription out of the timer, with the ack timeouts that still ran. Fix: it tells the timer what is left.
#[test]
fn an_ack_timeout_runs_out_on_a_closed_topic_too() {
    let clock = ringmq::testing::ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).open("mem:").unwrap();
    let topic = broker.topic_with::<u32>("t", TopicOptions::in_memory()).unwrap();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").ack_timeout(Duration::from_secs(30)))
        .unwrap();
    topic.publish(7).unwrap();
    std::mem::forget(sub.recv().unwrap());
    topic.close();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    clock.advance(Duration::from_secs(30));
    let again = sub.try_recv().unwrap();
    assert_eq!((*again, again.attempt()), (7, 2));
    again.ack().unwrap();
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Closed);
}

/// A payload that knows whether it was dropped.
struct Marked(Arc<std::sync::atomic::AtomicBool>);

impl Clone for Marked {
    fn clone(&self) -> Self {
        assert!(!self.0.load(SeqCst), "a payload is cloned after it was dropped");
        Self(Arc::default())
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Symptom: a receiver that was about to take a message while its subscription was ended read a payload that the ring had dropped. Cause: a cursor
/// that has left is not looked at by the scan, but could still be moved on by a receiver, or sought. Fix: leaving makes it point nowhere, for good.
#[test]
fn a_receiver_never_reads_what_was_dropped_while_its_subscription_ended() {
    let rounds = size("RINGMQ_LEAVE_ROUNDS", 3_000) as u64;
    let mut random = Random(seed("leave"));
    for round in 0..rounds {
        let broker = Broker::open("mem:").unwrap();
        let topic = broker.topic_with::<Marked>("t", TopicOptions::in_memory().capacity(64)).unwrap();
        let sub = topic.subscribe("s").unwrap();
        // Somebody who has seen everything, so that all is dropped as soon as the other one has left.
        let done = topic.subscribe("done").unwrap().auto_ack();
        let marks: Vec<_> = (0..64).map(|_| Arc::default()).collect();
        for mark in &marks {
            topic.publish(Marked(Arc::clone(mark))).unwrap();
            done.recv().unwrap();
        }
        let mut receiver = sub.auto_ack().subscriber();
        let wait = random.below(2_000);
        let started = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let started = &started;
            let other = sub.clone();
            scope.spawn(move || {
                started.wait();
                while receiver.try_recv().is_ok() {}
                if round % 2 == 0 {
                    let _ = other.seek(ringmq::Start::Earliest);
                    while receiver.try_recv().is_ok() {}
                }
            });
            started.wait();
            for _ in 0..wait {
                std::hint::spin_loop();
            }
            sub.unsubscribe();
        });
        drop((topic, done, marks));
    }
}

/// Symptom: after a payload had panicked as it was dropped, no retry and no ack timeout of any topic came any more. Cause: the panic ended the
/// timer's thread. Fix: it ends where the payload is dropped.
#[test]
fn a_payload_that_panics_when_a_timeout_drops_it_stops_no_timer() {
    #[derive(Clone)]
    struct Grenade(Arc<AtomicBool>);

    impl Drop for Grenade {
        fn drop(&mut self) {
            if self.0.load(SeqCst) {
                panic_on_purpose();
            }
        }
    }

    hush();
    let broker = Broker::open("mem:").unwrap();
    let moment = Duration::from_millis(5);
    let grenades = broker.topic_with::<Grenade>("grenades", TopicOptions::in_memory()).unwrap();
    let sub = grenades.subscribe_with(SubscribeOptions::new("s").ack_timeout(moment)).unwrap();
    let live = Arc::new(AtomicBool::new(false));
    grenades.publish(Grenade(live.clone())).unwrap();
    let held = sub.recv().unwrap();
    sub.unsubscribe();
    live.store(true, SeqCst);
    // The timer drops its copy, then goes on with this:
    let numbers = broker.topic_with::<u64>("numbers", TopicOptions::in_memory()).unwrap();
    let again = numbers.subscribe_with(SubscribeOptions::new("s").ack_timeout(4 * moment)).unwrap();
    numbers.publish(1).unwrap();
    let forgotten = again.recv().unwrap();
    assert_eq!(*again.recv_timeout(Duration::from_secs(20)).unwrap(), 1, "its timeout came");
    live.store(false, SeqCst);
    drop((held, forgotten));
}

/// Subscribes once, when it is dropped.
struct Joiner {
    topic: Arc<OnceLock<ringmq::Topic<Joiner>>>,
    name: &'static str,
}

impl Clone for Joiner {
    fn clone(&self) -> Self {
        let topic = self.topic.clone();
        Self { topic, name: "" }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        if let (false, Some(topic)) = (self.name.is_empty(), self.topic.get()) {
            let options = SubscribeOptions::new(self.name).start(Start::Latest);
            std::mem::forget(topic.subscribe_with(options).unwrap());
        }
    }
}

/// Symptom: a deadlock when a payload subscribed in its `drop`, called while somebody else subscribed. Cause: one lock was held while a subscription
/// joined the ring, which drops what all have read. Fix: it joins first, and enters the list afterwards; who finds the name taken leaves again.
#[test]
fn a_payload_may_subscribe_when_it_is_dropped() {
    for name in ["late", "other"] {
        within(PATIENCE, move || {
            let broker = Broker::open("mem:").unwrap();
            let topic = broker.topic_with::<Joiner>("t", TopicOptions::in_memory().capacity(64)).unwrap();
            let (first, second) = (topic.subscribe("first").unwrap(), topic.subscribe("second").unwrap());
            let (mut first, mut second) = (first.subscriber(), second.subscriber());
            let target = Arc::new(OnceLock::new());
            topic
                .publish(Joiner {
                    topic: target.clone(),
                    name,
                })
                .unwrap();
            topic
                .publish(Joiner {
                    topic: target.clone(),
                    name: "",
                })
                .unwrap();
            for sub in [&mut first, &mut second] {
                std::mem::forget(sub.try_recv().unwrap()); // a clone: the ring drops its own later
            }
            assert!(target.set(topic.clone()).is_ok());
            let late = topic.subscribe_with(SubscribeOptions::new("late").start(Start::Latest)).unwrap();
            let mut names: Vec<_> = topic.stats().subscriptions.into_iter().map(|s| s.subscription).collect();
            names.sort();
            let expected: &[&str] = if name == "late" {
                &["first", "late", "second"]
            } else {
                &["first", "late", "other", "second"]
            };
            assert_eq!(names, expected, "the name is in use once");
            topic
                .publish(Joiner {
                    topic: target.clone(),
                    name: "",
                })
                .unwrap();
            assert!(late.try_recv().is_ok(), "the handle is alive");
            std::mem::forget((topic, first, second, late, target));
        });
    }
}

/// Symptom: while a publisher dropped the oldest message of a work queue, a receiver was told `Empty`, though a message was published and its loss not
/// told; or it took that message, made room by that, and the publisher dropped one more. Cause: the message left the ring before its loss was noted, and
/// whether the queue was full was not looked at again under the lock under which receivers take. Fix: both are, in one change.
#[test]
fn a_publisher_that_drops_the_oldest_of_a_queue_drops_what_it_must_and_hides_nothing() {
    let rounds = size("RINGMQ_DROP_ROUNDS", 20_000) as u64;
    let mut random = Random(seed("drop"));
    for capacity in [1, 2] {
        let options = SubscribeOptions::new("s").overflow(Overflow::DropOldest);
        let (topic, sub) = Kind::Queue.pair_with(capacity as usize, options);
        topic.publish_batch(0..capacity).unwrap();
        let (started, published) = (AtomicU64::new(0), AtomicU64::new(0));
        let wait_for = |counter: &AtomicU64, n| {
            let mut looks = 0;
            while counter.load(SeqCst) < n {
                looks += 1;
                if looks % 1_000 == 0 {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    wait_for(&started, round);
                    topic.publish(capacity + round - 1).unwrap();
                    published.store(round, SeqCst);
                }
            });
            let receiver = sub.auto_ack();
            let mut dropped = 0;
            // The scope would wait for ever for a publisher that is not asked any more.
            let mut unexpected = None;
            for round in 1..=rounds {
                started.store(round, SeqCst);
                for _ in 0..random.below(64) {
                    std::hint::spin_loop();
                }
                let got = receiver.try_recv();
                wait_for(&published, round);
                let lost = sub.stats().dropped - dropped;
                dropped += lost;
                let right = match &got {
                    Ok(oldest) => *oldest == round - 1 && lost == 0,
                    Err(TryRecvError::Lagged(told)) => *told == lagged(round - 1, round) && lost == 1,
                    Err(_) => false,
                };
                if !right {
                    unexpected.get_or_insert((round, got, lost));
                    started.store(rounds, SeqCst);
                    break;
                }
            }
            assert_eq!(
                unexpected, None,
                "capacity {capacity}: round, what was received, how many were dropped"
            );
        });
    }
}
