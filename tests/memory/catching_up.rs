//! Goal: while a subscription that was overtaken catches up, code of the user runs under no lock of it, and what is being copied and set aside is counted
//! and forgotten like everything else (G1, G2, G3, G8).
//! Method: payloads and filters that call back into the library in the middle of a receive.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::support::{PATIENCE, broker, topic, until};
use ringmq::{Overflow, RecvError, Start, SubscribeOptions, Subscription, Topic, TopicOptions, TryRecvError};

const PUBLISHED: u64 = 20;

/// What is to be done when a payload is cloned next.
type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A payload whose clone calls back.
#[derive(Debug)]
struct CallsBack(u64, HookOf);

#[derive(Clone, Default)]
struct HookOf(Hook);

impl std::fmt::Debug for HookOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookOf")
    }
}

impl HookOf {
    fn set(&self, hook: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }
}

impl Clone for CallsBack {
    fn clone(&self) -> Self {
        let hook = self.1.0.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        Self(self.0, self.1.clone())
    }
}

/// A subscription that was overtaken, of a topic that lives as long as its handle; and the hook of its payloads.
fn overtaken() -> (Topic<CallsBack>, Subscription<CallsBack>, HookOf) {
    let options = TopicOptions::in_memory().capacity(8);
    let topic = broker().topic_with("t", options).unwrap();
    let rules = SubscribeOptions::new("s").overflow(Overflow::DropOldest);
    let (sub, hook) = (topic.subscribe_with(rules).unwrap(), HookOf::default());
    for n in 0..PUBLISHED {
        topic.publish(CallsBack(n, hook.clone())).unwrap();
    }
    (topic, sub, hook)
}

/// Ends with what `work` returns, or with a panic when patience is used up.
fn ends<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let at_work = thread::spawn(work);
    until("it comes to an end", || at_work.is_finished());
    at_work.join().unwrap()
}

/// How the tests receive: one, or a batch.
fn try_some(sub: &Subscription<CallsBack>, max: usize) -> Result<Vec<u64>, TryRecvError> {
    let mut batch = Vec::new();
    match max {
        1 => batch.push(sub.try_recv()?),
        _ => drop(sub.try_recv_batch(&mut batch, max)?),
    }
    let offsets = batch.iter().map(|delivery| delivery.offset().get()).collect();
    sub.ack_batch(batch).unwrap();
    Ok(offsets)
}

/// Everything there is: the offsets, and how many were told lost.
fn drain(sub: &Subscription<CallsBack>) -> (Vec<u64>, u64) {
    let (mut got, mut lost) = (Vec::new(), 0);
    loop {
        match try_some(sub, 3) {
            Ok(offsets) => got.extend(offsets),
            Err(TryRecvError::Lagged(lagged)) => lost += lagged.lost,
            Err(_) => return (got, lost),
        }
    }
}

/// Symptom: a payload whose clone, or a filter that, asked for the statistics of its own subscription waited for itself for ever. Cause: what comes next
/// was copied under the lock that the statistics take.
#[test]
fn a_clone_may_ask_for_statistics_and_what_is_being_copied_is_pending() {
    for max in [1, 5] {
        ends(move || {
            let (topic, sub, hook) = overtaken();
            let seen = Arc::new(OnceLock::new());
            hook.set({
                let (topic, sub, seen) = (topic.clone(), sub.clone(), seen.clone());
                move || {
                    assert!(!topic.stats().subscriptions.is_empty());
                    seen.set(sub.stats()).unwrap();
                }
            });
            let Err(TryRecvError::Lagged(lagged)) = try_some(&sub, max) else {
                panic!("it was overtaken")
            };
            let stats = seen.get().expect("a clone has asked");
            assert_eq!((stats.pending + stats.dropped, stats.in_flight), (PUBLISHED, 0), "{stats:?}");
            assert_eq!(stats.dropped, lagged.lost);
            let (got, lost) = drain(&sub);
            assert_eq!((got, lost), ((lagged.to.get()..PUBLISHED).collect(), 0));
        });
    }
}

#[test]
fn a_filter_may_ask_for_statistics() {
    ends(|| {
        let topic = topic(8);
        let itself = Arc::new(OnceLock::<Subscription<u64>>::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let rules = SubscribeOptions::new("s").overflow(Overflow::DropOldest).filter({
            let (itself, asked) = (itself.clone(), asked.clone());
            move |n| {
                let stats = itself.get().unwrap().stats();
                assert!(stats.pending + stats.dropped + stats.filtered == PUBLISHED);
                asked.fetch_add(1, SeqCst);
                n % 2 == 1
            }
        });
        let sub = topic.subscribe_with(rules).unwrap();
        itself.set(sub.clone()).unwrap();
        topic.publish_batch(0..PUBLISHED).unwrap();
        let (mut got, mut lost) = (0, 0);
        loop {
            match sub.auto_ack().try_recv() {
                Ok(_) => got += 1,
                Err(TryRecvError::Lagged(lagged)) => lost += lagged.lost,
                Err(_) => break,
            }
            if got == 1 {
                break; // from here on, what was received is not counted any more
            }
        }
        assert!(asked.load(SeqCst) > 0 && got == 1 && lost > 0);
    });
}

/// What is being copied while the subscription is moved elsewhere is forgotten, as what was set aside is.
#[test]
fn a_clone_may_move_its_own_subscription() {
    for (max, to) in [(1, Start::Latest), (5, Start::Latest), (1, Start::Earliest), (5, Start::Earliest)] {
        ends(move || {
            let (topic, sub, hook) = overtaken();
            let dropped = sub.stats().dropped;
            let moved = Arc::new(OnceLock::new());
            hook.set({
                let (sub, moved) = (sub.clone(), moved.clone());
                move || moved.set(sub.seek(to).unwrap().get()).unwrap()
            });
            let first = try_some(&sub, max);
            let at = *moved.get().expect("a clone has moved it");
            let (mut got, mut lost) = drain(&sub);
            match first {
                Ok(offsets) => got = [offsets, got].concat(),
                Err(TryRecvError::Lagged(lagged)) => lost += lagged.lost,
                Err(_) => {}
            }
            assert_eq!((got, lost), ((at..PUBLISHED).collect(), dropped), "{max} {to:?}");
            let stats = sub.stats();
            assert_eq!((stats.pending, stats.in_flight, stats.dropped), (0, 0, dropped));
            topic.publish(CallsBack(PUBLISHED, hook)).unwrap();
            assert_eq!(try_some(&sub, max), Ok(vec![PUBLISHED]), "it goes on");
        });
    }
}

/// Moved while a message is being copied, it is overtaken again, and another receive sets something aside before the copy is done: that stays.
#[test]
fn what_is_forgotten_while_it_is_copied_takes_nothing_along_that_is_set_aside_later() {
    ends(|| {
        let (topic, sub, hook) = overtaken();
        let dropped = sub.stats().dropped;
        let (publishing, nested) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        hook.set({
            let (topic, sub, hook) = (topic.clone(), sub.clone(), hook.clone());
            let (publishing, nested) = (publishing.clone(), nested.clone());
            move || {
                let at = sub.seek(Start::Earliest).unwrap().get();
                let publish = move || (PUBLISHED..2 * PUBLISHED).for_each(|n| _ = topic.publish(CallsBack(n, hook.clone())).unwrap());
                publishing.set(thread::spawn(publish)).unwrap();
                until("it is overtaken again", || sub.stats().dropped > dropped);
                let (mut told, mut to) = (0, 0);
                while told <= dropped {
                    match try_some(&sub, 1) {
                        Err(TryRecvError::Lagged(lagged)) => (told, to) = (told + lagged.lost, lagged.to.get()),
                        other => panic!("two losses come first: {other:?}"),
                    }
                }
                nested.set((at, told, to)).unwrap();
            }
        });
        let first = try_some(&sub, 1);
        let &(at, told, to) = nested.get().expect("a clone has moved it");
        let publishing = Arc::into_inner(publishing).and_then(OnceLock::into_inner);
        publishing.expect("a clone has started it").join().unwrap();
        let (mut got, mut lost) = drain(&sub);
        match first {
            Ok(offsets) => got = [offsets, got].concat(),
            Err(TryRecvError::Lagged(lagged)) => lost += lagged.lost,
            Err(other) => panic!("{other}"),
        }
        assert!(got.is_sorted());
        assert_eq!(got.first(), Some(&to), "what was set aside");
        assert_eq!(got.len() as u64 + lost + told, 2 * PUBLISHED - at + dropped);
        assert_eq!((sub.stats().dropped, sub.stats().lag), (lost + told, 0));
    });
}

#[test]
fn a_clone_may_end_its_own_subscription() {
    for max in [1, 5] {
        ends(move || {
            let (topic, sub, hook) = overtaken();
            hook.set({
                let sub = sub.clone();
                move || sub.unsubscribe()
            });
            assert_eq!(try_some(&sub, max), Err(TryRecvError::Closed));
            assert!(topic.stats().subscriptions.is_empty());
        });
    }
}

/// Nobody is told that there is nothing while somebody else is about to set something aside.
#[test]
fn a_receiver_waits_for_what_another_one_is_copying() {
    for max in [1, 5] {
        ends(move || {
            let (_topic, sub, hook) = overtaken();
            let is_looking = Arc::new(AtomicBool::new(false));
            let other = Arc::new(Mutex::new(None));
            hook.set({
                let (sub, is_looking, other) = (sub.clone(), is_looking.clone(), other.clone());
                move || {
                    let looking = is_looking.clone();
                    *other.lock().unwrap() = Some(thread::spawn(move || {
                        looking.store(true, SeqCst);
                        try_some(&sub, 1)
                    }));
                    until("the other one looks", || is_looking.load(SeqCst));
                }
            });
            let first = try_some(&sub, max);
            let second = other.lock().unwrap().take().unwrap().join().unwrap();
            let (rest, more) = drain(&sub);
            let (mut got, mut lost) = (rest, more);
            for result in [second, first] {
                match result {
                    Ok(offsets) => got.extend(offsets),
                    Err(TryRecvError::Lagged(lagged)) => lost += lagged.lost,
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(got.len() as u64 + lost, PUBLISHED);
        });
    }
}

#[test]
fn what_is_set_aside_goes_when_its_receiver_is_cancelled_to_the_next_one() {
    let topic = topic(8);
    let rules = SubscribeOptions::new("s").overflow(Overflow::DropOldest).max_in_flight(1);
    let sub = topic.subscribe_with(rules).unwrap();
    topic.publish_batch(0..PUBLISHED).unwrap();
    let wakes = Arc::new(crate::support::CountWakes::default());
    let (mut first, mut second) = (sub.recv_async(), sub.recv_async());
    let std::task::Poll::Ready(Err(RecvError::Lagged(lagged))) = crate::support::poll_once(&mut first, &wakes) else {
        panic!("it was overtaken")
    };
    drop(first);
    sub.pause();
    assert!(
        crate::support::poll_once(&mut second, &wakes).is_pending(),
        "what is set aside is held back, too"
    );
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(sub.stats().pending + lagged.lost, PUBLISHED);
    sub.resume();
    assert_eq!(wakes.count(), 1);
    topic.close();
    let std::task::Poll::Ready(Ok(delivery)) = crate::support::poll_once(&mut second, &wakes) else {
        panic!("the next message")
    };
    assert_eq!(delivery.offset(), lagged.to);
    assert_eq!(sub.try_recv().unwrap_err(), TryRecvError::InFlightFull);
    delivery.ack().unwrap();
    for n in lagged.to.get() + 1..PUBLISHED {
        let delivery = sub.recv_timeout(PATIENCE).unwrap();
        assert_eq!(*delivery, n);
        delivery.ack().unwrap();
    }
    assert_eq!(sub.recv_timeout(Duration::ZERO).unwrap_err(), RecvError::Closed);
}
