//! `disruptor`: a ring of events, read in place by pollers. Its producers differ by topology.

use disruptor::{
    BusySpin, EventPoller, MultiConsumerBarrier, MultiProducer, MultiProducerBarrier, Polling, Producer, SingleConsumerBarrier,
    SingleProducer, SingleProducerBarrier, build_multi_producer, build_single_producer,
};

use crate::{
    payload::Payload,
    queue::{Ends, Idle, Publish, Queue, Receive, Shape, clones},
    spin::Patience,
};

/// One publisher, one subscriber.
pub struct Pair;

/// One publisher, several subscriptions.
pub struct FanOut;

/// Several publishers, one subscriber.
pub struct FanIn;

/// A producer or a poller, and how to wait for it.
#[derive(Clone)]
pub struct Side<H> {
    handle: H,
    patience: Patience,
}

impl<H> Side<H> {
    fn new(handle: H, shape: &Shape) -> Self {
        Side {
            handle,
            patience: Patience::for_shape(shape),
        }
    }
}

type OnePoller<T> = Side<EventPoller<T, SingleProducerBarrier>>;
type ManyPoller<T> = Side<EventPoller<T, MultiProducerBarrier>>;

impl<T: Payload> Queue<T> for Pair {
    const NAME: &'static str = "disruptor";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<SingleProducer<T, SingleConsumerBarrier>>;
    type Subscriber = OnePoller<T>;

    fn serves(shape: &Shape) -> bool {
        shape.is_pair()
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (poller, builder) = build_single_producer(shape.capacity, T::blank, BusySpin).new_event_poller();
        Ends {
            publishers: vec![Side::new(builder.build(), shape)],
            subscriptions: vec![vec![Side::new(poller, shape)]],
        }
    }
}

impl<T: Payload> Queue<T> for FanOut {
    const NAME: &'static str = "disruptor";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<SingleProducer<T, MultiConsumerBarrier>>;
    type Subscriber = OnePoller<T>;

    fn serves(shape: &Shape) -> bool {
        shape.publishers == 1 && shape.subscriptions > 1 && shape.subscribers == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let mut builder = build_single_producer(shape.capacity, T::blank, BusySpin).with_multi_consumer();
        let mut subscriptions = Vec::new();
        for _ in 0..shape.subscriptions {
            let (poller, next) = builder.new_event_poller();
            subscriptions.push(vec![Side::new(poller, shape)]);
            builder = next;
        }
        Ends {
            publishers: vec![Side::new(builder.build(), shape)],
            subscriptions,
        }
    }
}

impl<T: Payload> Queue<T> for FanIn {
    const NAME: &'static str = "disruptor";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<MultiProducer<T, SingleConsumerBarrier>>;
    type Subscriber = ManyPoller<T>;

    fn serves(shape: &Shape) -> bool {
        shape.publishers > 1 && shape.subscriptions == 1 && shape.subscribers == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (poller, builder) = build_multi_producer(shape.capacity, T::blank, BusySpin).new_event_poller();
        Ends {
            publishers: clones(Side::new(builder.build(), shape), shape.publishers),
            subscriptions: vec![vec![Side::new(poller, shape)]],
        }
    }
}

impl<T: Payload, P: Producer<T> + Send> Publish<T> for Side<P> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut value = Some(value);
        let producer = &mut self.handle;
        self.patience.until(|| {
            let fill = |slot: &mut T| *slot = value.take().expect("a slot is filled once");
            producer.try_publish(fill).ok()
        });
    }

    #[inline(always)]
    fn publish_batch(&mut self, count: usize, mut make: impl FnMut() -> T) {
        let producer = &mut self.handle;
        self.patience.until(|| {
            producer
                .try_batch_publish(count, |slots| slots.for_each(|slot| *slot = make()))
                .ok()
        });
    }
}

macro_rules! poll {
    ($poller:ident) => {
        impl<T: Payload> Receive<T> for $poller<T> {
            /// Takes all there is: a poller that limits itself to one event scans for the end of the run each time.
            #[inline(always)]
            fn receive(&mut self, each: impl FnMut(&T)) -> bool {
                self.receive_batch(usize::MAX, each)
            }

            #[inline(always)]
            fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
                let poller = &mut self.handle;
                self.patience.until(|| match poller.take(max as u64) {
                    Ok(mut events) => {
                        (&mut events).for_each(&mut each);
                        Some(true)
                    }
                    Err(Polling::Shutdown) => Some(false),
                    Err(Polling::NoEvents) => None,
                })
            }
        }
    };
}

poll!(OnePoller);
poll!(ManyPoller);
