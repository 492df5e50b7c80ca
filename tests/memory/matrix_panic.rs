//! The panic matrix: code of the user that panics in its k-th call, for every k up to 64, in every place where the crate calls it (failure
//! catalogue A2, A14 to A16; G2, G3, G11).
//!
//! After each panic the topic is usable, the numbers add up, every payload is dropped once, and of the messages at most the one is lost whose
//! clone panicked, which is then reported. `RINGMQ_PANIC_K` (default 64) is the largest k.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use crate::matrix_support::*;
use ringmq::{Backoff, Delivery, Outcome, Overflow, RecvError, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError};

const CAPACITY: usize = 8;
const MESSAGES: u64 = 24;

fn k_max() -> u64 {
    size("RINGMQ_PANIC_K", 64) as u64
}

/// How a cell receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    One,
    OneAuto,
    OwnOne,
    Batch,
    BatchAuto,
}

const RECEIVES: [Receive; 5] = [Receive::One, Receive::OneAuto, Receive::OwnOne, Receive::Batch, Receive::BatchAuto];

/// What one subscription has seen.
#[derive(Default)]
struct Seen {
    offsets: Vec<u64>,
    lost: Vec<u64>,
    panics: u64,
}

/// Receives until there is nothing, whatever panics; at most `limit` calls.
fn receive_all(sub: &Subscription<Counted>, how: Receive, seen: &mut Seen) {
    let auto = sub.auto_ack();
    let mut own = sub.subscriber();
    let mut deliveries: Vec<Delivery<Counted>> = Vec::new();
    let mut payloads = Vec::new();
    for _ in 0..10 * MESSAGES {
        let result = survive(|| match how {
            Receive::One => sub.try_recv().map(|d| deliveries.push(d)),
            Receive::OwnOne => own.try_recv().map(|d| deliveries.push(d)),
            Receive::OneAuto => auto.try_recv().map(|p| payloads.push(p)),
            Receive::Batch => sub.try_recv_batch(&mut deliveries, 5).map(drop),
            Receive::BatchAuto => auto.try_recv_batch(&mut payloads, 5).map(drop),
        });
        // What came out before a panic in the middle of a batch counts.
        for delivery in deliveries.drain(..) {
            assert_eq!(delivery.offset().get(), delivery.id);
            seen.offsets.push(delivery.id);
            if survive(|| delivery.ack().unwrap()).is_none() {
                seen.panics += 1;
            }
        }
        while let Some(payload) = payloads.pop() {
            seen.offsets.push(payload.id);
            if survive(|| drop(payload)).is_none() {
                seen.panics += 1;
            }
        }
        match result {
            None => seen.panics += 1,
            Some(Ok(())) => {}
            Some(Err(TryRecvError::Lagged(lagged))) => {
                assert_eq!(lagged.lost, lagged.to.get() - lagged.from.get());
                seen.lost.extend(lagged.from.get()..lagged.to.get());
            }
            Some(Err(TryRecvError::Empty | TryRecvError::Closed)) => return,
            Some(Err(other)) => panic!("{other}"),
        }
    }
    panic!("it never comes to an end");
}

/// Every offset was either seen or reported as lost, once.
fn assert_accounted(seen: &Seen, published: u64, lost_most: usize, cell: &str) {
    let all: BTreeSet<u64> = seen.offsets.iter().chain(&seen.lost).copied().collect();
    assert_eq!(all.len(), seen.offsets.len() + seen.lost.len(), "{cell}: something came twice");
    assert_eq!(all, (0..published).collect(), "{cell}: something is lost in silence");
    assert!(seen.lost.len() <= lost_most, "{cell}: {:?} lost", seen.lost);
}

/// The topic is as good as new.
fn assert_usable(topic: &Topic<Counted>, sub: &Subscription<Counted>, census: &Arc<Census>, cell: &str) {
    census.calm();
    for _ in 0..3 {
        for id in 0..CAPACITY as u64 {
            topic.try_publish(census.payload(id)).unwrap_or_else(|e| panic!("{cell}: {e}"));
        }
        assert!(
            topic.try_publish(census.payload(0)).is_err(),
            "{cell}: it holds more than it should"
        );
        for id in 0..CAPACITY as u64 {
            let delivery = sub.try_recv().unwrap_or_else(|e| panic!("{cell}: {e}"));
            assert_eq!(delivery.id, id, "{cell}");
            delivery.ack().unwrap();
        }
    }
    let stats = sub.stats();
    assert_eq!((stats.pending, stats.in_flight, stats.parked), (0, 0, 0), "{cell}");
}

/// Publishes all messages, one by one or in batches, receiving whenever it is full.
fn go_through(
    kind: Kind,
    how: Receive,
    publish_batches: bool,
    options: impl Fn() -> SubscribeOptions<Counted>,
    arm: impl Fn(&Census),
    lost_most: usize,
) {
    go_through_beside(false, kind, how, publish_batches, options(), &arm, lost_most);
    if kind == Kind::Window {
        go_through_beside(true, kind, how, publish_batches, options(), arm, lost_most);
    }
}

/// The same; with an onlooker the subscription clones its messages, and alone it has them for itself.
fn go_through_beside(
    beside: bool,
    kind: Kind,
    how: Receive,
    publish_batches: bool,
    options: SubscribeOptions<Counted>,
    arm: impl Fn(&Census),
    lost_most: usize,
) {
    let census = Census::new();
    let (topic, sub) = kind.pair_with::<Counted>(CAPACITY, options);
    let onlooker = beside.then(|| onlooker(&topic));
    arm(&census);
    let mut seen = Seen::default();
    let mut publisher = topic.publisher();
    for first in (0..MESSAGES).step_by(CAPACITY) {
        let ids = first..first + CAPACITY as u64;
        if publish_batches {
            let values: Vec<_> = ids.map(|id| census.payload(id)).collect();
            assert_eq!(survive(|| publisher.publish_batch(values).unwrap()), Some(CAPACITY as u64));
        } else {
            for id in ids {
                assert!(survive(|| publisher.publish(census.payload(id)).unwrap()).is_some());
            }
        }
        receive_all(&sub, how, &mut seen);
    }
    let cell = format!("{kind:?} {how:?} batches: {publish_batches} beside another: {beside}");
    assert_accounted(&seen, MESSAGES, lost_most, &cell);
    assert_eq!(sub.stats().dropped, seen.lost.len() as u64, "{cell}");
    assert_usable(&topic, &sub, &census, &cell);
    drop((topic, sub, publisher, onlooker));
    assert_eq!(census.alive(), 0, "{cell}: leaked");
}

fn plain() -> SubscribeOptions<Counted> {
    SubscribeOptions::new("s").backoff(Backoff::none())
}

#[test]
fn a_clone_that_panics_loses_its_message_only_and_says_so() {
    for k in 1..=k_max() {
        for kind in KINDS {
            for how in RECEIVES {
                for batches in [false, true] {
                    // A queue moves its payloads: nothing is cloned, nothing can be lost.
                    let lost = usize::from(kind == Kind::Window && k <= MESSAGES);
                    go_through(kind, how, batches, plain, |c| c.clone_panics_at.store(k, SeqCst), lost);
                }
            }
        }
    }
}

#[test]
fn a_clone_that_panics_under_an_ack_timeout_or_a_filter_loses_its_message_only() {
    for k in 1..=k_max() {
        for how in RECEIVES {
            let options = || plain().ack_timeout(Duration::from_secs(3600));
            go_through(Kind::Window, how, true, options, |c| c.clone_panics_at.store(k, SeqCst), 1);
            let options = || plain().filter(|_| true);
            go_through(Kind::Window, how, true, options, |c| c.clone_panics_at.store(k, SeqCst), 1);
        }
    }
}

#[test]
fn a_payload_that_panics_when_dropped_takes_nothing_along() {
    for k in 1..=k_max() {
        for kind in KINDS {
            for how in RECEIVES {
                for batches in [false, true] {
                    go_through(kind, how, batches, plain, |c| c.drop_panics_at.store(k, SeqCst), 0);
                }
            }
        }
    }
}

/// With an overflow rule the publisher drops messages, or clones them: neither stops it.
#[test]
fn overflow_survives_clones_and_drops_that_panic() {
    for k in 1..=k_max() {
        for (kind, overflow) in [
            (Kind::Queue, Overflow::DropOldest),
            (Kind::Window, Overflow::DropOldest),
            (Kind::Window, Overflow::Conflate { keys: 3 }),
        ] {
            for in_clone in [false, true] {
                overflow_cell(kind, overflow, k, in_clone);
            }
        }
    }
}

fn overflow_cell(kind: Kind, overflow: Overflow, k: u64, in_clone: bool) {
    let cell = format!("{kind:?} {overflow:?} k: {k} clone: {in_clone}");
    let census = Census::new();
    let (topic, sub) = kind.pair_with::<Counted>(CAPACITY, plain().overflow(overflow));
    if in_clone {
        census.clone_panics_at.store(k, SeqCst);
    } else {
        census.drop_panics_at.store(k, SeqCst);
    }
    for id in 0..MESSAGES {
        let key = vec![(id % 5) as u8];
        let entered = survive(|| topic.message(census.payload(id)).key(key).publish().unwrap());
        assert!(entered.is_some(), "{cell}: a publisher was stopped at {id}");
    }
    let mut seen = Seen::default();
    receive_all(&sub, Receive::OneAuto, &mut seen);
    assert_accounted(&seen, MESSAGES, MESSAGES as usize, &cell);
    assert_eq!(sub.stats().dropped, seen.lost.len() as u64, "{cell}");
    assert!(seen.offsets.contains(&(MESSAGES - 1)) || in_clone, "{cell}: the newest is there");
    census.calm();
    drop((topic, sub));
    assert_eq!(census.alive(), 0, "{cell}: leaked");
}

/// A topic that is dropped, full, drops all of its payloads, whichever of them panics.
#[test]
fn dropping_a_topic_drops_every_payload_whichever_panics() {
    for k in 1..=CAPACITY as u64 {
        for kind in KINDS {
            let census = Census::new();
            let (topic, sub) = kind.pair::<Counted>(CAPACITY);
            for id in 0..CAPACITY as u64 {
                topic.publish(census.payload(id)).unwrap();
            }
            census.drop_panics_at.store(k, SeqCst);
            assert!(survive(|| drop((topic, sub))).is_some());
            assert_eq!((census.alive(), census.panics.load(SeqCst)), (0, 1), "{kind:?} {k}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Worker {
    Run,
    RunAsync,
    RunAsyncBeforeTheFuture,
}

/// A handler that panics has failed: its message comes again, the others are not held up (G11).
#[test]
fn a_handler_that_panics_has_failed_and_nothing_more() {
    for k in 1..=k_max().min(64) {
        for kind in KINDS {
            for worker in [Worker::Run, Worker::RunAsync, Worker::RunAsyncBeforeTheFuture] {
                within(PATIENCE, move || handler_cell(kind, worker, k));
            }
        }
    }
}

fn handler_cell(kind: Kind, worker: Worker, k: u64) {
    let cell = format!("{kind:?} {worker:?} {k}");
    let census = Census::new();
    let (topic, sub) = kind.pair_with::<Counted>(64, plain());
    for id in 0..MESSAGES {
        topic.publish(census.payload(id)).unwrap();
    }
    topic.close();
    let calls = Arc::new(AtomicU64::new(0));
    let done = Arc::new(Mutex::new(Vec::new()));
    let handle = {
        let (calls, done) = (calls.clone(), done.clone());
        move |d: &Delivery<Counted>| {
            if calls.fetch_add(1, SeqCst) + 1 == k {
                panic_on_purpose();
            }
            done.lock().unwrap().push((d.id, d.attempt()));
        }
    };
    hush();
    match worker {
        Worker::Run => sub.run(1, handle).join(),
        Worker::RunAsync => {
            let handle = Arc::new(handle);
            block_on(sub.run_async(2, move |d| {
                let handle = handle.clone();
                async move { handle(&d) }
            }))
            .unwrap();
        }
        Worker::RunAsyncBeforeTheFuture => block_on(sub.run_async(2, move |d| {
            handle(&d);
            async {}
        }))
        .unwrap(),
    }
    let mut done = done.lock().unwrap().clone();
    done.sort_unstable();
    let failed = (k <= MESSAGES).then(|| k - 1);
    let expected: Vec<_> = (0..MESSAGES).map(|id| (id, if Some(id) == failed { 2 } else { 1 })).collect();
    assert_eq!(done, expected, "{cell}");
    let stats = sub.stats();
    assert_eq!(
        (stats.failures, stats.in_flight, stats.lag, stats.dead_lettered),
        (u64::from(failed.is_some()), 0, 0, 0),
        "{cell}"
    );
    drop((topic, sub));
    assert_eq!(census.alive(), 0, "{cell}: leaked");
}

/// An error whose `Display` panics, and one whose source's does.
struct Unspeakable {
    calls: Arc<AtomicU64>,
    at: u64,
}

impl fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.calls.fetch_add(1, SeqCst) + 1 == self.at {
            panic_on_purpose();
        }
        f.write_str("unpaid")
    }
}

impl fmt::Debug for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unspeakable")
    }
}

impl std::error::Error for Unspeakable {}

#[test]
fn an_error_whose_text_panics_is_a_failure_all_the_same() {
    for k in 1..=k_max() {
        for kind in KINDS {
            within(PATIENCE, move || {
                hush();
                let (topic, sub) = kind.pair_with::<u64>(64, SubscribeOptions::new("s").max_failures(2).backoff(Backoff::none()));
                for n in 0..MESSAGES {
                    topic.publish(n).unwrap();
                }
                topic.close();
                let calls = Arc::new(AtomicU64::new(0));
                let shown = calls.clone();
                let running = sub.run(1, move |_| {
                    Err::<(), _>(Unspeakable {
                        calls: shown.clone(),
                        at: k,
                    })
                });
                running.join();
                let stats = sub.stats();
                assert_eq!(
                    (stats.failures, stats.dead_letters, stats.lag),
                    (2 * MESSAGES, MESSAGES, 0),
                    "{kind:?} {k}"
                );
            });
        }
    }
}

/// The reason of a rejection is text of the user: if making it panics, the delivery was not rejected but dropped, which is a nack.
#[test]
fn a_reason_that_panics_is_a_nack() {
    for kind in KINDS {
        let (topic, sub) = kind.pair::<u64>(4);
        topic.publish(7).unwrap();
        let reason = Unspeakable {
            calls: Arc::default(),
            at: 1,
        };
        let delivery = sub.recv().unwrap();
        assert!(survive(|| delivery.reject(&reason)).is_none());
        let again = sub.try_recv().unwrap();
        assert_eq!((*again, again.attempt(), again.failures()), (7, 2, 1));
        again.settle(Outcome::reject(&reason)).unwrap();
        assert_eq!((sub.stats().dead_letters, sub.stats().in_flight), (1, 0));
    }
}

/// A filter that panics lets its message pass: nothing is lost.
#[test]
fn a_filter_that_panics_lets_the_message_pass() {
    hush();
    for k in 1..=k_max() {
        for kind in KINDS {
            for how in RECEIVES {
                let census = Census::new();
                let calls = AtomicU64::new(0);
                let options = plain().filter(move |payload: &Counted| {
                    if calls.fetch_add(1, SeqCst) + 1 == k {
                        panic_on_purpose();
                    }
                    payload.id.is_multiple_of(3)
                });
                let (topic, sub) = kind.pair_with::<Counted>(64, options);
                for id in 0..MESSAGES {
                    topic.publish(census.payload(id)).unwrap();
                }
                let mut seen = Seen::default();
                receive_all(&sub, how, &mut seen);
                let expected: BTreeSet<_> = (0..MESSAGES).filter(|&id| id % 3 == 0 || id + 1 == k).collect();
                let cell = format!("{kind:?} {how:?} {k}");
                assert_eq!(seen.offsets.iter().copied().collect::<BTreeSet<_>>(), expected, "{cell}");
                assert_eq!(seen.offsets.len(), expected.len(), "{cell}");
                assert_eq!(sub.stats().filtered, MESSAGES - expected.len() as u64, "{cell}");
                assert_eq!((sub.stats().in_flight, sub.stats().lag), (0, 0), "{cell}");
                drop((topic, sub));
                assert_eq!(census.alive(), 0, "{cell}: leaked");
            }
        }
    }
}

/// A batch whose iterator panics: whole hands of 256 before it may have entered, nothing twice, and the publisher goes on.
#[test]
fn an_iterator_that_panics_publishes_nothing_twice_and_leaks_nothing() {
    for k in (1..=k_max()).chain([255, 256, 257, 300, 512, 513]) {
        for kind in KINDS {
            for stamps in [false, true] {
                let census = Census::new();
                let broker = ringmq::Broker::open("mem:").unwrap();
                let options: TopicOptions<Counted> = kind.options().capacity(1024);
                let options = if stamps { options.timestamps() } else { options };
                let topic = broker.topic_with("t", options).unwrap();
                let sub = topic.subscribe_with(plain()).unwrap();
                let mut publisher = topic.publisher();
                let made = census.clone();
                let values = (1..=600).map(move |n| if n == k { panic_on_purpose() } else { made.payload(n - 1) });
                let cell = format!("{kind:?} {k} timestamps: {stamps}");
                assert!(survive(|| publisher.publish_batch(values).unwrap()).is_none(), "{cell}");
                let entered = topic.stats().published;
                let expected = if stamps { k - 1 } else { (k - 1) / 256 * 256 };
                assert_eq!(entered, expected, "{cell}");
                assert_eq!(census.alive(), entered as i64, "{cell}: what did not enter was dropped");
                assert_eq!(publisher.publish_batch([census.payload(entered)]).unwrap(), 1);
                let mut seen = Seen::default();
                for _ in 0..entered / CAPACITY as u64 + 2 {
                    receive_some(&sub, &mut seen);
                }
                assert_accounted(&seen, entered + 1, 0, &cell);
                drop((topic, sub, publisher, broker));
                assert_eq!(census.alive(), 0, "{cell}: leaked");
            }
        }
    }
}

fn receive_some(sub: &Subscription<Counted>, seen: &mut Seen) {
    let mut out = Vec::new();
    while sub.auto_ack().try_recv_batch(&mut out, 64).is_ok() {
        seen.offsets.extend(out.drain(..).map(|payload| payload.id));
    }
}

/// The closure that picks dead letters: what was picked is delivered again, the rest stays in order.
#[test]
fn a_pick_that_panics_leaves_every_letter_in_one_place() {
    for k in 1..=12 {
        for kind in KINDS {
            let census = Census::new();
            let (topic, sub) = kind.pair_with::<Counted>(16, plain());
            for id in 0..10 {
                topic.publish(census.payload(id)).unwrap();
                sub.recv().unwrap().reject("no").unwrap();
            }
            let mut calls = 0;
            let picked = survive(|| {
                sub.dead_letters().redrive(|letter| {
                    calls += 1;
                    if calls == k {
                        panic_on_purpose();
                    }
                    letter.payload.id % 2 == 0
                })
            });
            assert_eq!(picked.is_none(), k <= 10, "{kind:?} {k}");
            let mut again = Vec::new();
            while let Ok(delivery) = sub.try_recv() {
                again.push(delivery.id);
                delivery.ack().unwrap();
            }
            let expected: Vec<u64> = (0..10).filter(|id| id % 2 == 0 && id + 1 < k).collect();
            assert_eq!(again, expected, "{kind:?} {k}");
            let mut left = Vec::new();
            sub.dead_letters().redrive(|letter| {
                left.push(letter.payload.id);
                false
            });
            let expected: Vec<u64> = (0..10).filter(|id| !expected.contains(id)).collect();
            assert_eq!(left, expected, "{kind:?} {k}: in order");
            assert_eq!(sub.dead_letters().purge(), left.len() as u64);
            drop((topic, sub));
            assert_eq!(census.alive(), 0);
        }
    }
}

/// Listing clones the letters: a clone that panics leaves them where they are.
#[test]
fn a_clone_that_panics_while_letters_are_listed_leaves_them() {
    for k in 1..=11 {
        let census = Census::new();
        let (topic, sub) = Kind::Window.pair_with::<Counted>(16, plain());
        for id in 0..10 {
            topic.publish(census.payload(id)).unwrap();
            sub.recv().unwrap().reject("no").unwrap();
        }
        census.clone_panics_at.store(k, SeqCst);
        assert_eq!(survive(|| sub.dead_letters().list().unwrap()).is_none(), k <= 10);
        census.calm();
        let ids: Vec<_> = sub.dead_letters().list().unwrap().iter().map(|letter| letter.payload.id).collect();
        assert_eq!(ids, (0..10).collect::<Vec<_>>());
        drop((topic, sub));
        assert_eq!(census.alive(), 0);
    }
}

/// A publisher on a full topic, asleep, wakes up although the receiver that makes room unwinds.
#[test]
fn a_publisher_that_sleeps_is_woken_by_a_receive_that_unwinds() {
    for how in [Receive::One, Receive::Batch] {
        within(PATIENCE, move || {
            hush();
            let census = Census::new();
            let (topic, sub) = Kind::Window.pair_with::<Counted>(1, plain());
            let _beside = onlooker(&topic);
            topic.publish(census.payload(0)).unwrap();
            census.clone_panics_at.store(1, SeqCst);
            let spy = Spy::new();
            let mut publish = topic.publish_async(census.payload(1));
            assert!(poll(&mut publish, &spy.waker()).is_pending());
            let mut out = Vec::new();
            let received = survive(|| match how {
                Receive::One => sub.try_recv().map(|d| out.push(d)),
                _ => sub.try_recv_batch(&mut out, 1).map(drop),
            });
            assert!(received.is_none());
            assert_eq!(spy.wakes(), 1, "{how:?}: the place is free, and nobody says so");
            assert!(poll(&mut publish, &spy.waker()).is_ready());
            assert!(matches!(sub.recv(), Err(RecvError::Lagged(_))));
            assert_eq!(sub.recv().unwrap().id, 1);
        });
    }
}
