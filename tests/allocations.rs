//! Goal: a plain message costs no allocation, from publish to ack, once the buffers are there.
//! Method: an allocator that counts for the thread under test; a warm-up, then a thousand messages by each verb.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringmq::{Broker, SubscribeOptions, TopicOptions};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// What is allocated and not freed yet.
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// Another allocation, or the end of one, that changed what is allocated by so many bytes.
fn count(allocations: u64, bytes: isize) {
    // While a thread ends its counters may be gone already; nobody asks then.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + allocations));
    let _ = BYTES.try_with(|n| n.set(n.get() + bytes));
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes, once it has been done a few times.
fn allocations(mut work: impl FnMut()) -> u64 {
    for _ in 0..2000 {
        work();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..1000 {
        work();
    }
    ALLOCATIONS.get() - before
}

fn both_kinds(test: impl Fn(ringmq::Topic<u64>)) {
    for options in [TopicOptions::new, TopicOptions::work_queue as fn() -> _] {
        let broker = Broker::open("mem:").unwrap();
        test(broker.topic_with("t", options().capacity(64)).unwrap());
    }
}

#[test]
fn publish_receive_and_ack_allocate_nothing() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap();
        let used = allocations(|| {
            topic.publish(1).unwrap();
            sub.recv().unwrap().ack().unwrap();
        });
        assert_eq!(used, 0, "by the shared handles");
        let (mut publisher, mut own) = (topic.publisher(), sub.subscriber());
        let used = allocations(|| {
            publisher.publish(1).unwrap();
            own.recv().unwrap().ack().unwrap();
        });
        assert_eq!(used, 0, "by handles of one's own");
        let auto = sub.auto_ack();
        let used = allocations(|| {
            topic.try_publish(1).unwrap();
            assert_eq!(auto.try_recv(), Ok(1));
        });
        assert_eq!(used, 0, "without verdicts");
    });
}

#[test]
fn batches_allocate_nothing_per_message() {
    both_kinds(|topic| {
        let (mut publisher, mut own) = (topic.publisher(), topic.subscribe("s").unwrap().auto_ack().subscriber());
        let mut out = Vec::with_capacity(64);
        let used = allocations(|| {
            publisher.publish_batch(0..32).unwrap();
            own.recv_batch(&mut out, 32).unwrap();
            out.clear();
        });
        assert_eq!(used, 0);
    });
}

#[test]
fn a_batch_of_deliveries_allocates_nothing_per_message() {
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap();
        let (mut publisher, mut own) = (topic.publisher(), sub.subscriber());
        let mut out = Vec::with_capacity(64);
        let used = allocations(|| {
            publisher.publish_batch(0..32).unwrap();
            while out.len() < 32 {
                own.recv_batch(&mut out, 32).unwrap();
            }
            sub.ack_batch(out.drain(..)).unwrap();
        });
        assert!(used <= 1000, "at most one a batch: {used} for a thousand batches of 32");
    });
}

#[test]
fn futures_that_need_not_wait_allocate_nothing() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    both_kinds(|topic| {
        let sub = topic.subscribe("s").unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let used = allocations(|| {
            assert!(pin!(topic.publish_async(1)).poll(&mut context).is_ready());
            assert!(pin!(sub.auto_ack().recv_async()).poll(&mut context).is_ready());
        });
        assert_eq!(used, 0);
        let used = allocations(|| assert!(pin!(sub.recv_async()).poll(&mut context).is_pending()));
        assert_eq!(used, 0, "waiting allocates nothing either, once there was room for as many waiters");
    });
}

#[test]
fn fan_out_and_overtaking_allocate_nothing_for_plain_payloads() {
    let topic = Broker::open("mem:")
        .unwrap()
        .topic_with("t", TopicOptions::<u64>::new().capacity(64))
        .unwrap();
    let subs: Vec<_> = (0..4).map(|n| topic.subscribe(&format!("s{n}")).unwrap().auto_ack()).collect();
    let rules = ringmq::SubscribeOptions::new("drops").overflow(ringmq::Overflow::DropOldest);
    let _drops = topic.subscribe_with(rules).unwrap();
    let used = allocations(|| {
        topic.publish(1).unwrap();
        assert!(subs.iter().all(|sub| sub.try_recv() == Ok(1)));
    });
    assert_eq!(used, 0);
}

/// Symptom: with an ack timeout every delivery left an entry in the timer until its time had come, acked or not. Cause: each first lease scheduled
/// anew. Fix: a subscription is in the timer once. Here: what is allocated and not freed.
#[test]
fn acked_deliveries_leave_nothing_behind_in_the_timer() {
    let topic = Broker::open("mem:").unwrap().topic::<u64>("t").unwrap();
    let sub = topic
        .subscribe_with(SubscribeOptions::new("s").ack_timeout(Duration::from_secs(60)))
        .unwrap();
    let work = || {
        topic.publish(1).unwrap();
        sub.recv().unwrap().ack().unwrap();
    };
    allocations(work);
    let before = BYTES.get();
    allocations(work);
    assert_eq!(BYTES.get(), before);
}
