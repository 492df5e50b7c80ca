//! Stress: many threads on small rings, for as long as asked, with exact accounts at the end.
//!
//! Goal: what models are too small for. Method: every message carries who published it and its number there; receivers note what they
//! got and what they were told lost. Nothing is timed: a test ends because everything has arrived.
//!
//! `RINGMQ_STRESS_MESSAGES` (per publisher; default 2,000, under Miri 12) sets the size, `RINGMQ_STRESS_SEED` what is random. Both are printed.
//! `tests/miri.sh` and `tests/tsan.sh` run these tests under their tools.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use ringmq::{
    Backoff, Broker, Overflow, PublishError, RecvError, Start, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError,
};

const PUBLISHERS: u64 = 2;

/// The largest is filled more than once also under Miri.
const CAPACITIES: [usize; 3] = [1, 2, if cfg!(miri) { 8 } else { 16 }];

/// Under Miri each costs some ten seconds.
const SUBSCRIPTIONS: &[&str] = if cfg!(miri) { &["a", "b"] } else { &["a", "b", "c"] };

fn messages() -> u64 {
    let default = if cfg!(miri) { 8 } else { 2_000 };
    setting("RINGMQ_STRESS_MESSAGES").unwrap_or(default)
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

/// Random numbers that repeat: splitmix64.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = setting("RINGMQ_STRESS_SEED").unwrap_or(7);
        println!("{test}: {} messages per publisher, seed {seed}", messages());
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// A payload on the heap, so that a double drop or a leak shows under Miri.
type Payload = Arc<(u64, u64)>;

fn topic(options: TopicOptions<Payload>, capacity: usize) -> Topic<Payload> {
    Broker::open("mem:").unwrap().topic_with("t", options.capacity(capacity)).unwrap()
}

/// Publishes its messages one by one and in batches, then says how many entered.
fn publish(topic: &Topic<Payload>, me: u64, random: &mut Random) -> u64 {
    let mut publisher = topic.publisher();
    let mut n = 0;
    while n < messages() {
        if random.below(4) > 0 {
            match publisher.publish(Arc::new((me, n))) {
                Ok(_) => n += 1,
                Err(PublishError::Closed(_)) => return n,
                Err(other) => panic!("{other}"),
            }
        } else {
            let run = (1 + random.below(5)).min(messages() - n);
            match publisher.publish_batch((n..n + run).map(|n| Arc::new((me, n)))) {
                Ok(_) => n += run,
                Err(PublishError::Closed(rest)) => return n + run - rest.len() as u64,
                Err(other) => panic!("{other}"),
            }
        }
    }
    n
}

/// What one receiver saw.
#[derive(Default)]
struct Seen {
    payloads: Vec<(u64, u64)>,
    lost: u64,
}

/// Receives in every way there is until the subscription is closed.
fn receive(subscription: &Subscription<Payload>, random: &mut Random) -> Seen {
    let mut seen = Seen::default();
    let mut subscriber = subscription.subscriber();
    let mut deliveries = Vec::new();
    loop {
        let received = match random.below(3) {
            0 => subscriber.recv().map(|delivery| deliveries.push(delivery)),
            1 => block_on(subscriber.recv_async()).map(|delivery| deliveries.push(delivery)),
            _ => subscriber.recv_batch(&mut deliveries, 4).map(drop),
        };
        for delivery in deliveries.drain(..) {
            seen.payloads.push(**delivery);
            delivery.ack().unwrap();
        }
        match received {
            Ok(()) => {}
            Err(RecvError::Lagged(lagged)) => seen.lost += lagged.lost,
            Err(RecvError::Closed) => return seen,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Runs publishers and, per subscription, two receivers; returns what entered per publisher and what the receivers saw.
fn run(topic: &Topic<Payload>, subscriptions: &[Subscription<Payload>], random: &mut Random) -> (Vec<u64>, Vec<Vec<Seen>>) {
    thread::scope(|scope| {
        let receivers: Vec<Vec<_>> = subscriptions
            .iter()
            .map(|subscription| {
                let start = |mut random: Random| scope.spawn(move || receive(subscription, &mut random));
                vec![start(random.fork()), start(random.fork())]
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|me| {
                let mut random = random.fork();
                scope.spawn(move || publish(topic, me, &mut random))
            })
            .collect();
        let entered = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        topic.close();
        let seen = receivers
            .into_iter()
            .map(|receivers| receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect())
            .collect();
        (entered, seen)
    })
}

/// Each of a receiver's messages comes after those of the same publisher that it saw before.
fn assert_in_order(seen: &[(u64, u64)]) {
    let mut last = BTreeMap::new();
    for &(publisher, n) in seen {
        let before = last.insert(publisher, n);
        assert!(before < Some(n), "publisher {publisher}: {n} after {before:?}");
    }
}

/// All of them together saw each message exactly once.
fn assert_each_once(entered: &[u64], seen: &[Seen]) {
    let mut all: Vec<_> = seen.iter().flat_map(|seen| seen.payloads.iter().copied()).collect();
    all.sort_unstable();
    let expected: Vec<_> = (0..).zip(entered).flat_map(|(me, &n)| (0..n).map(move |n| (me, n))).collect();
    assert_eq!(all, expected);
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
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

#[test]
fn a_work_queue_hands_each_message_to_one_receiver_in_order() {
    let mut random = Random::new("work queue");
    for capacity in CAPACITIES {
        let topic = topic(TopicOptions::work_queue(), capacity);
        let subscription = topic.subscribe("s").unwrap();
        let (entered, seen) = run(&topic, &[subscription], &mut random);
        seen[0].iter().for_each(|seen| assert_in_order(&seen.payloads));
        assert_each_once(&entered, &seen[0]);
    }
}

#[test]
fn every_subscription_of_a_topic_sees_each_message_once_and_in_order() {
    let mut random = Random::new("topic");
    for capacity in CAPACITIES {
        let topic = topic(TopicOptions::in_memory(), capacity);
        let subscriptions: Vec<_> = SUBSCRIPTIONS.iter().map(|name| topic.subscribe(name).unwrap()).collect();
        let (entered, seen) = run(&topic, &subscriptions, &mut random);
        for seen in seen {
            seen.iter().for_each(|seen| assert_in_order(&seen.payloads));
            assert_each_once(&entered, &seen);
        }
    }
}

#[test]
fn what_drops_the_oldest_accounts_for_every_message() {
    let mut random = Random::new("drop oldest");
    for options in [TopicOptions::in_memory, TopicOptions::work_queue] {
        let topic = topic(options(), 4);
        let subscription = topic
            .subscribe_with(SubscribeOptions::new("s").overflow(Overflow::DropOldest))
            .unwrap();
        let (entered, seen) = run(&topic, std::slice::from_ref(&subscription), &mut random);
        let published: u64 = entered.iter().sum();
        let received: u64 = seen[0].iter().map(|seen| seen.payloads.len() as u64).sum();
        let lost: u64 = seen[0].iter().map(|seen| seen.lost).sum();
        assert_eq!(received + lost, published);
        assert_eq!(subscription.stats().dropped, lost);
        seen[0].iter().for_each(|seen| assert_in_order(&seen.payloads));
    }
}

#[test]
fn what_conflates_accounts_for_every_message_and_never_goes_back() {
    let mut random = Random::new("conflate");
    let topic = topic(TopicOptions::in_memory(), 4);
    let subscription = topic
        .subscribe_with(SubscribeOptions::new("s").overflow(Overflow::Conflate { keys: 1 }))
        .unwrap();
    let gates = topic.subscribe("gates").unwrap();
    let (entered, seen) = run(&topic, &[subscription, gates], &mut random);
    let received: u64 = seen[0].iter().map(|seen| seen.payloads.len() as u64).sum();
    let lost: u64 = seen[0].iter().map(|seen| seen.lost).sum();
    assert_eq!(received + lost, entered.iter().sum::<u64>());
    seen[0].iter().for_each(|seen| assert_in_order(&seen.payloads));
    assert_each_once(&entered, &seen[1]);
}

#[test]
fn subscriptions_that_come_go_and_seek_disturb_no_other() {
    let mut random = Random::new("joins, leaves and seeks");
    let topic = topic(TopicOptions::in_memory(), 8);
    let steady = topic.subscribe("steady").unwrap();
    let stop = AtomicU64::new(0);
    let mut restless = random.fork();
    let (entered, seen) = thread::scope(|scope| {
        let coming_and_going = scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                let overflow = [Overflow::Block, Overflow::DropOldest, Overflow::Conflate { keys: 2 }][restless.below(3) as usize];
                let start = [Start::Earliest, Start::Latest][restless.below(2) as usize];
                let guest = topic.subscribe_with(SubscribeOptions::new("guest").overflow(overflow).start(start));
                let Ok(guest) = guest else { return };
                let other = guest.clone();
                // One thread receives while another one seeks and then ends the subscription.
                thread::scope(|scope| {
                    scope.spawn(move || {
                        loop {
                            match other.auto_ack().try_recv() {
                                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                                Err(TryRecvError::Closed) => return,
                                Err(_) => thread::yield_now(),
                            }
                        }
                    });
                    for _ in 0..restless.below(4) {
                        guest.seek(start).unwrap();
                        thread::yield_now();
                    }
                    guest.unsubscribe();
                });
            }
        });
        let result = run(&topic, std::slice::from_ref(&steady), &mut random);
        stop.store(1, Ordering::Relaxed);
        coming_and_going.join().unwrap();
        result
    });
    seen[0].iter().for_each(|seen| assert_in_order(&seen.payloads));
    assert_each_once(&entered, &seen[0]);
}

#[test]
fn a_few_credits_shared_by_many_are_never_exceeded_and_never_lost() {
    const CREDITS: u64 = 2;
    let mut random = Random::new("credit");
    let topic = topic(TopicOptions::in_memory(), 16);
    let options = SubscribeOptions::new("s")
        .max_in_flight(CREDITS as u32)
        .backoff(Backoff::none())
        .max_failures(u32::MAX);
    let subscription = topic.subscribe_with(options).unwrap();
    let out = AtomicU64::new(0);
    let (entered, seen) = thread::scope(|scope| {
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (subscription, out, mut random) = (&subscription, &out, random.fork());
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    let mut subscriber = subscription.subscriber();
                    while let Ok(delivery) = subscriber.recv() {
                        assert!(out.fetch_add(1, Ordering::SeqCst) < CREDITS);
                        let payload = **delivery;
                        let nack = random.below(8) == 0;
                        out.fetch_sub(1, Ordering::SeqCst);
                        if nack {
                            delivery.nack().unwrap();
                        } else {
                            delivery.ack().unwrap();
                            seen.payloads.push(payload);
                        }
                    }
                    seen
                })
            })
            .collect();
        let entered = vec![publish(&topic, 0, &mut random)];
        topic.close();
        let seen: Vec<_> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        (entered, seen)
    });
    assert_each_once(&entered, &seen);
}

#[test]
fn what_entered_before_a_close_is_received_and_the_rest_comes_back() {
    let mut random = Random::new("close");
    for round in 0..if cfg!(miri) { 2 } else { 50 } {
        let options = if round % 2 == 0 {
            TopicOptions::in_memory()
        } else {
            TopicOptions::work_queue()
        };
        let topic = topic(options, 2);
        let subscription = topic.subscribe("s").unwrap();
        let closes_after = random.below(20);
        let (entered, seen) = thread::scope(|scope| {
            let closing = scope.spawn(|| {
                for _ in 0..closes_after {
                    thread::yield_now();
                }
                topic.close();
            });
            let result = run(&topic, std::slice::from_ref(&subscription), &mut random);
            closing.join().unwrap();
            result
        });
        assert_each_once(&entered, &seen[0]);
    }
}
