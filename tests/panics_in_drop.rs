//! Goal: code of the user that panics where it is dropped costs nobody a message, and never ends the process (G2, G3, G9).
//! Method: panics that carry something which panics when it is dropped.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::thread;

use ringmq::{Overflow, SubscribeOptions, TryRecvError};
use support::{topic, work_queue};

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
