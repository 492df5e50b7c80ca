//! Fan-out by hand: one point-to-point queue per subscription, and a clone of every message into each.

use std::marker::PhantomData;

use crate::{
    payload::Payload,
    queue::{Ends, Idle, Publish, Queue, Shape},
};

/// `Q` once per subscription, under the name of `N`.
pub struct Copies<Q, N>(PhantomData<(Q, N)>);

/// The name of such a set.
pub trait Name: 'static {
    /// As in the table.
    const NAME: &'static str;
}

/// One publisher of each copy.
pub struct ToAll<P>(Vec<P>);

impl<T: Payload, Q: Queue<T>, N: Name> Queue<T> for Copies<Q, N> {
    const NAME: &'static str = N::NAME;
    const IDLE: Idle = Q::IDLE;
    type Publisher = ToAll<Q::Publisher>;
    type Subscriber = Q::Subscriber;

    fn serves(shape: &Shape) -> bool {
        shape.subscriptions > 1 && Q::serves(&one_of(shape))
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let mut publishers: Vec<_> = (0..shape.publishers).map(|_| ToAll(Vec::new())).collect();
        let mut subscriptions = Vec::new();
        for _ in 0..shape.subscriptions {
            let ends = Q::open(&one_of(shape));
            for (to_all, publisher) in publishers.iter_mut().zip(ends.publishers) {
                to_all.0.push(publisher);
            }
            subscriptions.extend(ends.subscriptions);
        }
        Ends { publishers, subscriptions }
    }
}

/// The shape of one copy.
fn one_of(shape: &Shape) -> Shape {
    Shape {
        subscriptions: 1,
        others: (shape.subscriptions - 1) * shape.subscribers,
        ..*shape
    }
}

impl<T: Payload, P: Publish<T>> Publish<T> for ToAll<P> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let (last, others) = self.0.split_last_mut().expect("a topic has subscriptions");
        for publisher in others {
            publisher.publish(value.clone());
        }
        last.publish(value);
    }

    #[inline(always)]
    fn publish_batch(&mut self, count: usize, make: impl FnMut() -> T) {
        let values: Vec<T> = std::iter::repeat_with(make).take(count).collect();
        for publisher in &mut self.0 {
            let mut values = values.iter().cloned();
            publisher.publish_batch(count, || values.next().expect("as many as were made"));
        }
    }
}

macro_rules! names {
    ($($name:ident = $text:literal),+ $(,)?) => {$(
        #[doc = concat!("`", $text, "`.")]
        pub struct $name;

        impl Name for $name {
            const NAME: &'static str = $text;
        }
    )+};
}

names! {
    CrossbeamCopies = "crossbeam-channel xN",
    KanalCopies = "kanal xN",
    CrossfireSpscCopies = "crossfire spsc xN",
    CrossfireMpmcCopies = "crossfire mpmc xN",
    OmangoSpscCopies = "omango spsc xN",
    OmangoMpmcCopies = "omango mpmc xN",
    RtrbCopies = "rtrb xN",
    ArrayCopies = "ArrayQueue xN",
}
