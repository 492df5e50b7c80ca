//! The size matrix: capacities x payload types x kinds of ring x overflow rules, several laps each, also where positions outgrow 8, 16 and 32
//! bits and near their documented end; and sizes that make no sense (failure catalogue A5, A8, A22, A25, A26).
//!
//! `RINGMQ_SIZE_LAPS` (default 4) is how many laps each cell goes, `RINGMQ_SIZE_NARROW_LAPS` (default 1,000,000) how many a ring of one goes.

use std::fmt::Debug;
use std::num::{NonZeroU8, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::matrix_support::*;
use ringmq::{
    Backoff, Broker, Error, Overflow, PublishError, RecvError, Start, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError,
};

const CAPACITIES: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65];

/// A payload that carries its number, as far as it can.
trait Sized_: Clone + Send + Sync + 'static {
    /// How many numbers it can tell apart.
    const RANGE: u64;
    fn of(n: u64) -> Self;
    fn number(&self) -> u64;
    /// Whether it lies where it has to.
    fn is_aligned(&self) -> bool {
        std::ptr::from_ref(self).is_aligned()
    }
}

macro_rules! payloads {
    ($($type:ty: $range:expr, $of:expr, $number:expr;)*) => {
        $(impl Sized_ for $type {
            const RANGE: u64 = $range;
            fn of(n: u64) -> Self {
                let of: fn(u64) -> Self = $of;
                of(n)
            }
            fn number(&self) -> u64 {
                let number: fn(&Self) -> u64 = $number;
                number(self)
            }
        })*
    };
}

#[derive(Clone, Debug, PartialEq)]
#[repr(align(4096))]
struct Page(u64);

#[derive(Clone, Debug, PartialEq)]
#[repr(align(64))]
struct NoSizeButAligned;

/// An enum whose tag hides in a niche.
#[derive(Clone, Debug, PartialEq)]
enum Niche {
    Even(Box<u64>),
    Odd,
}

const TEXTS: [&str; 4] = ["zero", "one", "two", "three"];

payloads! {
    (): 1, |_| (), |()| 0;
    u8: 256, |n| n as u8, |p| u64::from(*p);
    [u8; 3]: 1 << 24, |n| [n as u8, (n >> 8) as u8, (n >> 16) as u8], |p| u64::from(p[0]) | u64::from(p[1]) << 8 | u64::from(p[2]) << 16;
    u64: u64::MAX, |n| n, |p| *p;
    Box<u64>: u64::MAX, Box::new, |p| **p;
    &'static str: 4, |n| TEXTS[n as usize], |p| TEXTS.iter().position(|t| t == p).unwrap() as u64;
    NonZeroU64: u64::MAX - 1, |n| NonZeroU64::new(n + 1).unwrap(), |p| p.get() - 1;
    Option<NonZeroU8>: 256, |n| NonZeroU8::new(n as u8), |p| p.map_or(0, |p| u64::from(p.get()));
    String: u64::MAX, |n| n.to_string(), |p| p.parse().unwrap();
    Page: u64::MAX, Page, |p| p.0;
    NoSizeButAligned: 1, |_| Self, |_| 0;
    Niche: 2, |n| if n == 0 { Self::Even(Box::new(0)) } else { Self::Odd }, |p| match p { Self::Even(zero) => **zero, Self::Odd => 1 };
    Arc<[u64; 5]>: u64::MAX, |n| Arc::new([n; 5]), |p| { assert!(p.iter().all(|n| *n == p[0])); p[0] };
    [u8; 1 << 20]: 256, |n| [n as u8; 1 << 20], |p| { assert_eq!(p[0], p[(1 << 20) - 1]); u64::from(p[0]) };
}

fn laps() -> u64 {
    size("RINGMQ_SIZE_LAPS", 4) as u64
}

fn make<P: Sized_>(kind: Kind, capacity: usize, first: u64, overflow: Overflow) -> (Topic<P>, Subscription<P>) {
    let broker = Broker::open("mem:").unwrap();
    let options = kind.options::<P>().capacity(capacity).first_offset(first);
    let topic = broker.topic_with("t", options).unwrap();
    let options = SubscribeOptions::new("s").overflow(overflow).backoff(Backoff::none());
    let subscription = topic.subscribe_with(options).unwrap();
    assert_eq!(topic.capacity(), capacity.next_power_of_two());
    (topic, subscription)
}

/// Several laps with every fill level; nothing more than the capacity fits, and nothing is lost, changed or misplaced.
fn lossless<P: Sized_>(kind: Kind, capacity: usize, first: u64, overflow: Overflow) {
    let cell = || format!("{} {kind:?} {capacity} {first} {overflow:?}", std::any::type_name::<P>());
    let (topic, sub) = make::<P>(kind, capacity, first, overflow);
    let auto = sub.auto_ack();
    let mut publisher = topic.publisher();
    let mut subscriber = sub.subscriber();
    let held = topic.capacity() as u64;
    let (mut tail, mut head) = (first, first);
    let payload = |n: u64| P::of(n % P::RANGE);
    let check = |p: &P, n: u64| {
        assert!(p.is_aligned(), "{}", cell());
        assert_eq!(p.number(), n % P::RANGE, "{}", cell());
    };
    let mut lap = 0;
    while tail < first + laps() * held {
        // Fill it, in a way that changes from lap to lap.
        let fill = if lap % 3 == 0 { held } else { 1 + (lap * 7) % held };
        let room = fill - (tail - head);
        if lap % 2 == 0 {
            assert_eq!(
                publisher.publish_batch((tail..tail + room).map(payload)).unwrap(),
                room,
                "{}",
                cell()
            );
        } else {
            for n in tail..tail + room {
                assert_eq!(topic.publish(payload(n)).unwrap().offset().get(), n, "{}", cell());
            }
        }
        tail += room;
        let stats = topic.stats();
        assert_eq!(
            (stats.published, stats.subscriptions[0].pending),
            (tail - first, tail - head),
            "{}",
            cell()
        );
        if tail - head == held {
            let refused = publisher.try_publish(payload(tail)).unwrap_err();
            assert!(matches!(refused, PublishError::Full(_)), "{}", cell());
            check(&refused.into_inner(), tail);
        }
        // Empty it, likewise.
        match lap % 4 {
            0 => {
                for n in head..tail {
                    check(&auto.try_recv().unwrap(), n);
                }
            }
            1 => {
                let mut out = Vec::new();
                while auto.try_recv_batch(&mut out, 5).is_ok() {}
                assert_eq!(out.len() as u64, tail - head, "{}", cell());
                for (n, p) in (head..).zip(&out) {
                    check(p, n);
                }
            }
            2 => {
                for n in head..tail {
                    let delivery = subscriber.try_recv().unwrap();
                    assert_eq!(delivery.offset().get(), n, "{}", cell());
                    check(&delivery, n);
                    delivery.ack().unwrap();
                }
            }
            _ => {
                let mut out = Vec::new();
                while subscriber.try_recv_batch(&mut out, 1000).is_ok() {}
                for (n, delivery) in (head..).zip(out) {
                    assert_eq!(delivery.offset().get(), n, "{}", cell());
                    check(&delivery.into_inner().unwrap(), n);
                }
            }
        }
        head = tail;
        assert_eq!(subscriber.try_recv().map(drop), Err(TryRecvError::Empty), "{}", cell());
        assert_eq!(sub.stats().lag, 0, "{}", cell());
        lap += 1;
    }
}

/// Without room the oldest go: what is left and what is told of make the whole, in order.
fn lossy<P: Sized_>(kind: Kind, capacity: usize, first: u64, overflow: Overflow) {
    let cell = || format!("{} {kind:?} {capacity} {first} {overflow:?}", std::any::type_name::<P>());
    let (topic, sub) = make::<P>(kind, capacity, first, overflow);
    let auto = sub.auto_ack();
    let held = topic.capacity() as u64;
    let mut next = first;
    let mut expected = first;
    let mut dropped = 0;
    for extra in 0..laps() + 2 {
        let burst = extra * held / 2 + 1;
        for n in next..next + burst {
            topic.message(P::of(n % P::RANGE)).key(vec![(n % 3) as u8]).try_publish().unwrap();
        }
        next += burst;
        let mut lost: Vec<u64> = Vec::new();
        let mut seen: Vec<u64> = Vec::new();
        let mut last = None;
        loop {
            match sub.try_recv() {
                Ok(delivery) => {
                    let n = delivery.offset().get();
                    assert!(last < Some(n), "{}: out of order", cell());
                    last = Some(n);
                    assert_eq!(delivery.number(), n % P::RANGE, "{}", cell());
                    seen.push(n);
                    delivery.ack().unwrap();
                }
                Err(TryRecvError::Lagged(lagged)) => {
                    assert!(lagged.lost > 0 && lagged.lost <= lagged.to.get() - lagged.from.get(), "{}", cell());
                    dropped += lagged.lost;
                    lost.extend(lagged.from.get()..lagged.to.get());
                }
                Err(TryRecvError::Empty) => break,
                Err(other) => panic!("{}: {other}", cell()),
            }
        }
        assert_eq!(seen.last(), Some(&(next - 1)), "{}: the newest is there", cell());
        let mut all: Vec<u64> = seen.iter().chain(&lost).copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (expected..next).collect::<Vec<_>>(), "{}", cell());
        if overflow == Overflow::DropOldest {
            assert_eq!(seen.len() + lost.len(), all.len(), "{}: lost and seen", cell());
            assert!(burst > held || lost.is_empty(), "{}: lost without need", cell());
        }
        expected = next;
    }
    assert_eq!(sub.stats().dropped, dropped, "{}", cell());
    assert!(auto.try_recv().is_err());
}

fn cells<P: Sized_>(capacities: &[usize]) {
    for &capacity in capacities {
        for kind in KINDS {
            for overflow in [Overflow::Block, Overflow::Fail] {
                lossless::<P>(kind, capacity, 0, overflow);
            }
            lossy::<P>(kind, capacity, 0, Overflow::DropOldest);
        }
        lossy::<P>(Kind::Window, capacity, 0, Overflow::Conflate { keys: 2 });
    }
}

#[test]
fn every_payload_goes_through_every_capacity_under_every_rule() {
    cells::<()>(&CAPACITIES);
    cells::<u8>(&CAPACITIES);
    cells::<[u8; 3]>(&CAPACITIES);
    cells::<u64>(&CAPACITIES);
    cells::<Box<u64>>(&CAPACITIES);
    cells::<&'static str>(&CAPACITIES);
    cells::<NonZeroU64>(&CAPACITIES);
    cells::<Option<NonZeroU8>>(&CAPACITIES);
    cells::<String>(&CAPACITIES);
    cells::<NoSizeButAligned>(&CAPACITIES);
    cells::<Niche>(&CAPACITIES);
    cells::<Arc<[u64; 5]>>(&CAPACITIES);
}

/// Payloads move by value, so large ones need room on the stack, above all in unoptimised builds: box them where that is scarce.
#[test]
fn pages_and_megabytes_go_through_small_capacities() {
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    let work = || {
        cells::<Page>(&[1, 2, 3, 8]);
        cells::<[u8; 1 << 20]>(&[1, 2, 3]);
    };
    thread.spawn(work).unwrap().join().unwrap();
}

/// Where a position would outgrow a narrow type, and near the last one that a topic may start at.
#[test]
fn positions_pass_every_width() {
    for edge in [1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 53, 1 << 59, 1 << 60] {
        for capacity in [1, 2, 3, 8, 65] {
            for kind in KINDS {
                for before in [0, 1, 2, 5, 64, 100] {
                    let first = edge - before;
                    lossless::<u64>(kind, capacity, first, Overflow::Block);
                    lossless::<String>(kind, capacity, first, Overflow::Block);
                    lossy::<u64>(kind, capacity, first, Overflow::DropOldest);
                }
            }
            lossy::<String>(Kind::Window, capacity, edge - 3, Overflow::Conflate { keys: 2 });
        }
    }
}

/// A8: as many laps as a narrow index would have wrapped ten times over.
#[test]
fn a_ring_of_one_goes_a_million_laps() {
    let laps = size("RINGMQ_SIZE_NARROW_LAPS", 1_000_000) as u64;
    for kind in KINDS {
        let (topic, sub) = make::<u64>(kind, 1, (1 << 32) - laps / 2, Overflow::Block);
        let (mut publisher, mut subscriber) = (topic.publisher(), sub.auto_ack().subscriber());
        for n in 0..laps {
            publisher.try_publish(n).unwrap();
            assert_eq!(subscriber.try_recv(), Ok(n));
        }
    }
}

/// Redelivery, dead letters, seek and lag at the far end of positions.
#[test]
fn delivery_rules_work_at_the_far_end_of_positions() {
    let first = (1 << 60) - 2;
    for kind in KINDS {
        let (topic, sub) = make::<u64>(kind, 4, first, Overflow::Block);
        for n in 0..4 {
            topic.publish(n).unwrap();
        }
        let held: Vec<_> = (0..4).map(|_| sub.try_recv().unwrap()).collect();
        let mut held = held.into_iter();
        held.next().unwrap().nack().unwrap();
        held.next().unwrap().reject("no").unwrap();
        drop(held);
        let mut again: Vec<_> = std::iter::from_fn(|| sub.try_recv().ok())
            .map(|d| (d.offset().get() - first, d.attempt(), d.ack().unwrap()))
            .collect();
        again.sort_unstable();
        assert_eq!(again, [(0, 2, ()), (2, 2, ()), (3, 2, ())], "{kind:?}");
        assert_eq!(sub.dead_letters().redrive(|letter| letter.offset.get() == first + 1), 1);
        assert_eq!(sub.try_recv().unwrap().offset().get(), first + 1);
        if kind == Kind::Window {
            topic.publish(4).unwrap();
            let at = sub.seek(Start::Latest).unwrap();
            assert_eq!(at.get(), first + 5);
            let at = sub.seek(Start::At(ringmq::Offset::new(u64::MAX))).unwrap();
            assert_eq!(at.get(), first + 5);
            let at = sub.seek(Start::At(ringmq::Offset::new(0))).unwrap();
            assert!(at.get() >= first && at.get() <= first + 5);
        }
    }
}

/// A25: capacities that make no sense are typed errors, and name the option and its range.
#[test]
fn absurd_capacities_are_typed_errors() {
    fn refused<T: Debug>(made: Result<T, Error>, capacity: usize) {
        match made {
            Err(Error::BadOption { option, value, .. }) => assert_eq!((option, value), ("capacity", capacity.to_string())),
            other => panic!("{capacity}: {other:?}"),
        }
    }
    let broker = Broker::open("mem:").unwrap();
    for capacity in [
        0,
        usize::try_from((1_u64 << 32) + 1).unwrap_or(usize::MAX),
        usize::try_from(1_u64 << 33).unwrap_or(usize::MAX),
        usize::try_from(u64::MAX / 2).unwrap_or(usize::MAX),
        usize::MAX / 2 + 2,
        usize::MAX - 1,
        usize::MAX,
    ] {
        refused(
            broker.topic_with::<u8>("queue", TopicOptions::work_queue().capacity(capacity)),
            capacity,
        );
        refused(
            broker.topic_with::<u8>("window", TopicOptions::in_memory().capacity(capacity)),
            capacity,
        );
        refused(broker.topic_with::<u8>("any", TopicOptions::new().capacity(capacity)), capacity);
    }
    assert!(matches!(
        broker.topic_with::<u8>("t", TopicOptions::in_memory().first_offset((1 << 60) + 1)),
        Err(Error::BadOption {
            option: "first_offset",
            ..
        })
    ));
    // Allowed, but there is no memory for it: an error too, and the name stays free.
    for capacity in [(1 << 31) + 1, 1 << 32] {
        let made = broker.topic_with::<[u64; 1 << 12]>("t", TopicOptions::in_memory().capacity(capacity));
        let Err(Error::OutOfMemory {
            capacity: asked,
            message_bytes,
            ..
        }) = made
        else {
            panic!("{made:?}")
        };
        assert_eq!((asked, message_bytes), (1 << 32, (8 << 12) + 8));
    }
    assert!(broker.topic_with::<u8>("t", TopicOptions::in_memory().capacity(1)).is_ok());
}

/// A25: so are the numbers of a subscription.
#[test]
fn absurd_rules_are_typed_errors() {
    let topic = Broker::open("mem:").unwrap().topic::<u8>("t").unwrap();
    let options = || SubscribeOptions::new("s");
    let bad = [
        ("max_in_flight", options().max_in_flight(0)),
        ("max_in_flight", options().max_in_flight(u32::MAX)),
        ("max_parked", options().max_parked(0)),
        ("max_failures", options().max_failures(0)),
        ("dead_letters_max", options().dead_letters_max(0)),
        ("conflated keys", options().overflow(Overflow::Conflate { keys: 0 })),
        ("conflated keys", options().overflow(Overflow::Conflate { keys: usize::MAX })),
    ];
    for (name, options) in bad {
        match topic.subscribe_with(options) {
            Err(Error::BadOption { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let sub = topic
        .subscribe_with(
            options()
                .max_in_flight(1_073_741_823)
                .max_parked(usize::MAX)
                .max_failures(u32::MAX)
                .dead_letters_max(usize::MAX),
        )
        .unwrap();
    topic.publish(1).unwrap();
    sub.recv().unwrap().ack().unwrap();
}

/// A25: durations and moments at the ends of their range neither panic nor overflow.
#[test]
fn absurd_times_are_for_ever_or_now() {
    for kind in KINDS {
        let options = SubscribeOptions::new("s").backoff(Backoff::fixed(Duration::MAX));
        let (topic, sub) = kind.pair_with::<u64>(1, options);
        topic.publish_timeout(1, Duration::MAX).unwrap();
        assert!(matches!(topic.publish_timeout(2, Duration::ZERO), Err(PublishError::Timeout(2))));
        let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
        assert!(matches!(topic.publish_deadline(2, past), Err(PublishError::Timeout(2))));
        let delivery = sub.recv_timeout(Duration::MAX).unwrap();
        assert_eq!(sub.recv_timeout(Duration::ZERO).unwrap_err(), RecvError::Timeout);
        assert_eq!(sub.recv_deadline(past).unwrap_err(), RecvError::Timeout);
        delivery.nack().unwrap();
        assert_eq!((sub.stats().parked, sub.try_recv().unwrap_err()), (1, TryRecvError::Empty));
        topic.publish_deadline(3, past).unwrap();
        sub.recv_deadline(past).unwrap().nack_after(Duration::MAX).unwrap();
        assert_eq!(sub.stats().parked, 2);
        let mut out = Vec::new();
        assert_eq!(
            sub.recv_batch_timeout(&mut out, usize::MAX, Duration::ZERO).unwrap_err(),
            RecvError::Timeout
        );
        topic.publish(4).unwrap();
        assert_eq!(sub.recv_batch_timeout(&mut out, usize::MAX, Duration::MAX).unwrap(), 1);
        assert_eq!(sub.recv_batch(&mut out, 0).unwrap(), 0);
    }
    let (topic, sub) = Kind::Window.pair_with::<u64>(1, SubscribeOptions::new("s").ack_timeout(Duration::MAX));
    topic.publish(1).unwrap();
    let delivery = sub.recv().unwrap();
    delivery.extend().unwrap();
    delivery.ack().unwrap();
}
