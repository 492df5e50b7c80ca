//! Goal: code of the user that panics where it is dropped costs nobody a message, and never ends the process (G2, G3, G9).
//! Method: panics that carry something which panics when it is dropped, and payloads that do so themselves, several at a time.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::{PATIENCE, broker, topic, work_queue};
use ringmq::{Backoff, Overflow, Start, SubscribeOptions, TopicOptions, TryRecvError};

const PUBLISHED: u64 = 20;

/// A panic whose payload panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "what a panic carried was dropped");
    }
}

/// Symptom: a filter that panics counts as a match, but if what the panic carried panicked when it was dropped, the message was lost: told as lost, or in
/// silence where the subscription had been overtaken. Cause: it was dropped where nobody contained that.
#[test]
fn what_the_panic_of_a_filter_carries_may_panic_as_well() {
    for make in [topic as fn(usize) -> _, work_queue] {
        for overflow in [Overflow::Block, Overflow::DropOldest, Overflow::Conflate { keys: 100 }] {
            let topic = make(8);
            let rules = SubscribeOptions::new("s").overflow(overflow).filter(|_| panic_any(Bomb));
            let Ok(sub) = topic.subscribe_with(rules) else { continue };
            let published = if overflow == Overflow::Block { 8 } else { PUBLISHED };
            for n in 0..published {
                topic.message(n).key([n as u8]).publish().unwrap();
            }
            let (mut got, mut lost, mut batch) = (Vec::new(), 0, Vec::new());
            loop {
                let received = catch_unwind(AssertUnwindSafe(|| {
                    if got.len() % 2 == 0 {
                        sub.try_recv().map(|delivery| batch.push(delivery))
                    } else {
                        sub.try_recv_batch(&mut batch, 3).map(drop)
                    }
                }));
                got.extend(batch.iter().map(|delivery| **delivery));
                sub.ack_batch(batch.drain(..)).unwrap();
                match received {
                    Ok(Ok(())) => {}
                    Ok(Err(TryRecvError::Lagged(lagged))) => lost += lagged.lost,
                    Ok(Err(_)) => break,
                    Err(panic) => {
                        std::mem::forget(panic);
                        panic!("{overflow:?}: a receive panicked");
                    }
                }
            }
            assert!(got.iter().copied().eq(lost..published), "{overflow:?}: {got:?} and {lost} lost");
            assert_eq!(lost > 0, overflow == Overflow::DropOldest, "{overflow:?}");
        }
    }
}

/// A payload that panics when it is dropped, once it is armed.
#[derive(Clone)]
struct Explodes(Arc<AtomicBool>, Arc<AtomicUsize>);

impl Drop for Explodes {
    fn drop(&mut self) {
        if self.0.load(SeqCst) {
            self.1.fetch_add(1, SeqCst);
            panic!("dropped");
        }
    }
}

/// Symptom: the process was aborted when a subscription ended that kept several payloads which panic when they are dropped. Cause: they were dropped as
/// one, so the second panicked while the first one's panic unwound.
#[test]
fn payloads_that_are_set_aside_and_panic_when_dropped_end_nothing_but_themselves() {
    for end in ["unsubscribe", "seek", "drop"] {
        for overflow in [Overflow::DropOldest, Overflow::Conflate { keys: 3 }] {
            let (armed, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let topic = broker().topic_with("t", TopicOptions::in_memory().capacity(8)).unwrap();
            let sub = topic.subscribe_with(SubscribeOptions::new("s").overflow(overflow)).unwrap();
            for n in 0..30_u8 {
                let payload = Explodes(armed.clone(), dropped.clone());
                topic.message(payload).key([n]).publish().unwrap();
            }
            assert!(matches!(
                sub.try_recv_batch(&mut Vec::new(), 5).unwrap_err(),
                TryRecvError::Lagged(_)
            ));
            armed.store(true, SeqCst);
            let ended = catch_unwind(AssertUnwindSafe(|| match end {
                "unsubscribe" => sub.unsubscribe(),
                "seek" => _ = sub.seek(Start::Latest).unwrap(),
                _ => drop((sub, topic)),
            }));
            assert!(ended.is_ok(), "{end} {overflow:?}");
            assert!(dropped.load(SeqCst) >= 3, "{end} {overflow:?}");
            armed.store(false, SeqCst);
        }
    }
}

/// The same of what is to be delivered again, now or later, and of dead letters.
#[test]
fn payloads_that_failed_and_panic_when_dropped_end_nothing_but_themselves() {
    for make in [TopicOptions::in_memory as fn() -> _, TopicOptions::work_queue] {
        for unsubscribes in [true, false] {
            let (armed, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let topic = broker().topic_with("t", make().capacity(16)).unwrap();
            let sub = topic.subscribe_with(SubscribeOptions::new("s").backoff(Backoff::none())).unwrap();
            for n in 0..9 {
                topic.publish(Explodes(armed.clone(), dropped.clone())).unwrap();
                let delivery = sub.recv().unwrap();
                if n % 2 == 0 {
                    delivery.reject("no").unwrap();
                } else {
                    delivery.nack_after(PATIENCE).unwrap();
                }
            }
            for _ in 0..3 {
                topic.publish(Explodes(armed.clone(), dropped.clone())).unwrap();
            }
            let mut batch = Vec::new();
            assert_eq!(sub.recv_batch(&mut batch, 3), Ok(3));
            batch.into_iter().for_each(|delivery| delivery.nack().unwrap());
            armed.store(true, SeqCst);
            let ended = catch_unwind(AssertUnwindSafe(|| {
                if unsubscribes {
                    sub.clone().unsubscribe();
                }
                drop((sub, topic));
            }));
            assert!(ended.is_ok());
            assert!(dropped.load(SeqCst) >= 12);
            armed.store(false, SeqCst);
        }
    }
}
