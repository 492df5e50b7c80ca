//! The table of automatic traits: every public type x Send, Sync, Unpin, UnwindSafe, RefUnwindSafe, with payloads that are `Send + Sync`, that are
//! `Send` alone, and that are neither (failure catalogue A11, A12). A wrong sign does not compile.
//!
//! What must not compile at all stands in `tests/compile_fail.md`, which runs with the documentation's examples.

use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;

use ringmq::{
    Auto, Backoff, Broker, BrokerBuilder, Clock, CloseReport, DeadLetter, DeadLetters, DeadReason, Delivery, DrainReport, Durability,
    Error, Event, Events, Explicit, Headers, IntoIter, Iter, Lagged, Message, Offset, Outcome, Overflow, PublishBatch, PublishError,
    PublishFailure, PublishFuture, Publisher, Ready, Receipt, Recv, RecvBatch, RecvError, Running, Start, SubscribeOptions, Subscriber,
    Subscription, SubscriptionStats, SystemClock, Timestamp, Topic, TopicOptions, TopicStats, TryRecvError,
};

/// `+`: the type has the trait. `-`: it has not, or naming the impl would be unambiguous.
macro_rules! check {
    (+ $type:ty, $trait:path) => {
        const _: fn() = || {
            fn has<T: ?Sized + $trait>() {}
            has::<$type>();
        };
    };
    (- $type:ty, $trait:path) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn which() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Has;
            impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
            let _ = <$type as Ambiguous<_>>::which;
        };
    };
}

macro_rules! table {
    ($($type:ty: $send:tt $sync:tt $unpin:tt $unwind:tt $ref_unwind:tt;)*) => {
        $(
            check!($send $type, Send);
            check!($sync $type, Sync);
            check!($unpin $type, Unpin);
            check!($unwind $type, UnwindSafe);
            check!($ref_unwind $type, RefUnwindSafe);
        )*
        const ROWS: usize = [$(stringify!($type)),*].len();
    };
}

/// `Send`, not `Sync`.
type Lone = Cell<u64>;
/// Neither.
type Local = Rc<u64>;
/// Not `Unpin`.
type Pinned = std::marker::PhantomPinned;
/// What a batch of each comes from.
type Numbers = std::vec::IntoIter<u64>;
type Lones = std::vec::IntoIter<Lone>;
type Pins = std::vec::IntoIter<Pinned>;

table! {
    // Type                              Send Sync Unpin UnwindSafe RefUnwindSafe
    Broker:                                + + + + +;
    BrokerBuilder:                         + + + + +;
    CloseReport:                           + + + + +;
    DeadReason:                            + + + + +;
    DrainReport:                           + + + + +;
    Durability:                            + + + + +;
    Error:                                 + + + + +;
    Event:                                 + + + + +;
    Events:                                + + + + +;
    Headers:                               + + + + +;
    Lagged:                                + + + + +;
    Offset:                                + + + + +;
    Outcome:                               + + + + +;
    Backoff:                               + + + + +;
    Overflow:                              + + + + +;
    Start:                                 + + + + +;
    Timestamp:                             + + + + +;
    SystemClock:                           + + + + +;
    PublishFailure:                        + + + + +;
    Receipt:                               + + + + +;
    RecvError:                             + + + + +;
    TryRecvError:                          + + + + +;
    Running:                               + + + + +;
    SubscriptionStats:                     + + + + +;
    TopicStats:                            + + + + +;
    Auto:                                  + + + + +;
    Explicit:                              + + + + +;
    dyn Clock:                             + + - - -;
    dyn Ready:                             - - - - -;

    // A payload that is Send + Sync.
    Topic<u64>:                            + + + + +;
    Publisher<u64>:                        + + + + +;
    Subscription<u64>:                     + + + + +;
    Subscription<u64, Auto>:               + + + + +;
    Subscriber<u64>:                       + + + + +;
    Subscriber<u64, Auto>:                 + + + + +;
    IntoIter<u64, Explicit>:               + + + + +;
    Delivery<u64>:                         + + + + +;
    DeadLetters<u64>:                      + + + + +;
    DeadLetter<u64>:                       + + + + +;
    PublishError<u64>:                     + + + + +;
    TopicOptions<u64>:                     + + + + +;
    SubscribeOptions<u64>:                 + + + + +;
    Message<'static, u64>:                 + + + + +;
    Iter<'static, u64, Explicit>:          + + + + +;
    PublishFuture<'static, u64>:           + + + - -;
    PublishBatch<'static, u64, Numbers>:   + + + - -;
    Recv<'static, u64, Explicit>:          + + + - -;
    Recv<'static, u64, Auto>:              + + + - -;
    RecvBatch<'static, u64, Explicit>:     + + + - -;
    RecvBatch<'static, u64, Auto>:         + + + - -;

    // A payload that is Send alone: whatever holds one cannot be shared; what only leads to some can.
    Topic<Lone>:                           + + + + +;
    Publisher<Lone>:                       + - + + +;
    Subscription<Lone>:                    + + + + +;
    Subscription<Lone, Auto>:              + + + + +;
    Subscriber<Lone>:                      + - + + +;
    Delivery<Lone>:                        + - + + -;
    DeadLetters<Lone>:                     + + + + +;
    DeadLetter<Lone>:                      + - + + -;
    PublishError<Lone>:                    + - + + -;
    TopicOptions<Lone>:                    + + + + +;
    SubscribeOptions<Lone>:                + + + + +;
    Message<'static, Lone>:                + - + + -;
    Iter<'static, Lone, Explicit>:         + + + + +;
    PublishFuture<'static, Lone>:          + - + - -;
    PublishBatch<'static, Lone, Lones>:    + - + - -;
    Recv<'static, Lone, Explicit>:         + - + - -;
    RecvBatch<'static, Lone, Explicit>:    + - + - -;

    // A payload that is neither has no handles; what can be named all the same holds it back.
    DeadLetter<Local>:                     - - + + +;
    PublishError<Local>:                   - - + + +;
    TopicOptions<Local>:                   + + + + +;

    // A payload that must not move once pinned may move through a topic: nothing here is ever pinned.
    Topic<Pinned>:                         + + + + +;
    Publisher<Pinned>:                     + + + + +;
    Subscriber<Pinned>:                    + + + + +;
    PublishFuture<'static, Pinned>:        + + + - -;
    PublishBatch<'static, Pinned, Pins>:   + + + - -;
    Recv<'static, Pinned, Explicit>:       + + + - -;
}

#[test]
fn every_public_type_has_exactly_the_automatic_traits_of_the_table() {
    const { assert!(ROWS > 60) };
}

/// A type that appears in the crate's list of exports must appear here.
#[test]
fn no_public_type_is_missing_from_the_table() {
    let exports = include_str!("../../src/lib.rs");
    let table = include_str!("auto_traits.rs");
    // Traits and functions have no row of their own.
    let others = ["IntoOutcome", "Mode", "Payload", "Result", "Self"];
    let names = exports
        .lines()
        .skip_while(|line| !line.starts_with("pub use"))
        .take_while(|line| !line.starts_with("//"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
    for name in names {
        assert!(
            others.contains(&name) || table.contains(&format!("{name}:")) || table.contains(&format!("{name}<")),
            "{name}"
        );
    }
}

/// Handles of a payload that is not `Sync` are used from several threads; each payload is with one of them at a time.
#[test]
fn a_work_queue_of_payloads_that_are_not_sync_is_shared_by_threads() {
    let topic = Broker::open("mem:")
        .unwrap()
        .topic_with("t", TopicOptions::<Lone>::work_queue())
        .unwrap();
    let sub = topic.subscribe("s").unwrap();
    let sum: u64 = std::thread::scope(|scope| {
        let receivers: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| sub.auto_ack().iter().map(|cell| cell.unwrap().replace(0)).sum::<u64>()))
            .collect();
        for n in 0..100 {
            topic.publish(Cell::new(n)).unwrap();
        }
        topic.close();
        receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum()
    });
    assert_eq!(sum, 4950);
    let _: PhantomData<Pinned> = PhantomData;
}

#[test]
fn there_are_at_least_thirty_cases_that_must_not_compile() {
    let cases = include_str!("../compile_fail.md");
    assert!(cases.matches("```compile_fail,E0").count() >= 30);
}
