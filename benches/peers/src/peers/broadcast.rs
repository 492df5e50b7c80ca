//! Queues whose every subscription sees every message.

use std::sync::Arc;

use photon_ring::{EventPublisher, EventSubscriber, Pod};
use tokio::sync::broadcast;

use crate::{
    payload::Payload,
    queue::{Ends, Idle, Publish, Queue, Receive, Shape, clones, sent},
    spin::{Ender, Endless, Patience},
};

/// One publisher, any number of subscriptions of one subscriber each.
fn one_to_all(shape: &Shape) -> bool {
    shape.publishers == 1 && shape.subscribers == 1
}

/// The list of subscriptions of one subscriber each.
fn alone<S>(count: usize, subscribe: impl FnMut() -> S) -> Vec<Vec<S>> {
    std::iter::repeat_with(subscribe)
        .take(count)
        .map(|subscriber| vec![subscriber])
        .collect()
}

/// `photon-ring`, its ring for any payload, filled and read in place.
pub struct PhotonEvents;

/// The publisher of an event ring.
pub struct PhotonPublisher<T> {
    publisher: EventPublisher<T>,
    patience: Patience,
    _ender: Arc<Ender<()>>,
}

/// A subscriber of an event ring.
pub struct PhotonSubscriber<T> {
    subscriber: EventSubscriber<T>,
    patience: Patience,
    end: Arc<Endless<()>>,
}

impl<T: Payload> Queue<T> for PhotonEvents {
    const NAME: &'static str = "photon-ring events";
    const IDLE: Idle = Idle::Spins;
    type Publisher = PhotonPublisher<T>;
    type Subscriber = PhotonSubscriber<T>;

    fn serves(shape: &Shape) -> bool {
        one_to_all(shape)
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (publisher, ring) = photon_ring::event_channel(shape.capacity, T::blank);
        let (end, _ender) = Endless::new(());
        let patience = Patience::for_shape(shape);
        let subscriptions = alone(shape.subscriptions, || PhotonSubscriber {
            subscriber: ring.subscribe(),
            patience,
            end: end.clone(),
        });
        Ends {
            publishers: vec![PhotonPublisher {
                publisher,
                patience,
                _ender,
            }],
            subscriptions,
        }
    }
}

impl<T: Payload> Publish<T> for PhotonPublisher<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut value = Some(value);
        self.patience.until(|| {
            let fill = |slot: &mut T| *slot = value.take().expect("a slot is filled once");
            self.publisher.try_publish(fill).then_some(())
        });
    }
}

impl<T: Payload> Receive<T> for PhotonSubscriber<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let subscriber = &mut self.subscriber;
        self.patience.until(|| match subscriber.process(&mut each) {
            Some(()) => Some(true),
            None if self.end.ended() => Some(subscriber.process(&mut each).is_some()),
            None => None,
        })
    }
}

/// `photon-ring`, its main ring: plain data only, copied in and out.
pub struct PhotonPlain;

/// The publisher of a plain ring.
pub struct PhotonPlainPublisher<T: Pod> {
    publisher: photon_ring::Publisher<T>,
    patience: Patience,
    _ender: Arc<Ender<()>>,
}

/// A subscriber of a plain ring.
pub struct PhotonPlainSubscriber<T: Pod> {
    subscriber: photon_ring::Subscriber<T>,
    patience: Patience,
    end: Arc<Endless<()>>,
}

impl<T: Payload + Pod> Queue<T> for PhotonPlain {
    const NAME: &'static str = "photon-ring plain";
    const IDLE: Idle = Idle::Spins;
    type Publisher = PhotonPlainPublisher<T>;
    type Subscriber = PhotonPlainSubscriber<T>;

    fn serves(shape: &Shape) -> bool {
        one_to_all(shape)
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (publisher, ring) = photon_ring::channel_bounded(shape.capacity, 0);
        let (end, _ender) = Endless::new(());
        let patience = Patience::for_shape(shape);
        let subscriptions = alone(shape.subscriptions, || PhotonPlainSubscriber {
            subscriber: ring.subscribe(),
            patience,
            end: end.clone(),
        });
        Ends {
            publishers: vec![PhotonPlainPublisher {
                publisher,
                patience,
                _ender,
            }],
            subscriptions,
        }
    }
}

impl<T: Payload + Pod> Publish<T> for PhotonPlainPublisher<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        self.patience.until(|| self.publisher.try_publish(value).ok());
    }
}

impl<T: Payload + Pod> Receive<T> for PhotonPlainSubscriber<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let subscriber = &mut self.subscriber;
        let message = self.patience.until(|| match subscriber.try_recv() {
            Ok(value) => Some(Some(value)),
            Err(_) if self.end.ended() => Some(subscriber.try_recv().ok()),
            Err(_) => None,
        });
        message.map(|value| each(&value)).is_some()
    }
}

/// `multiqueue2` with one subscriber per subscription, which it reads in place.
pub struct Multiqueue;

/// `multiqueue2` with competing subscribers.
pub struct MultiqueueCompeting;

/// multiqueue2's sender can only try.
#[derive(Clone)]
pub struct MultiqueuePublisher<T: Clone> {
    sender: multiqueue2::BroadcastSender<T>,
    patience: Patience,
}

impl<T: Payload> Publish<T> for MultiqueuePublisher<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut refused = Some(value);
        self.patience.until(|| match self.sender.try_send(refused.take()?) {
            Ok(()) => Some(()),
            Err(std::sync::mpsc::TrySendError::Full(value)) => {
                refused = Some(value);
                None
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {
                panic!("the subscribers are gone")
            }
        });
    }
}

impl<T: Payload> Queue<T> for Multiqueue {
    const NAME: &'static str = "multiqueue2";
    const IDLE: Idle = Idle::Parks;
    type Publisher = MultiqueuePublisher<T>;
    type Subscriber = multiqueue2::BroadcastUniReceiver<T>;

    fn serves(shape: &Shape) -> bool {
        shape.subscribers == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (sender, receiver) = multiqueue2::broadcast_queue(shape.capacity as u64);
        let sender = MultiqueuePublisher {
            sender,
            patience: Patience::for_shape(shape),
        };
        let subscriptions = alone(shape.subscriptions, || {
            receiver.add_stream().into_single().ok().expect("a new stream has one receiver")
        });
        receiver.unsubscribe();
        Ends {
            publishers: clones(sender, shape.publishers),
            subscriptions,
        }
    }
}

impl<T: Payload> Receive<T> for multiqueue2::BroadcastUniReceiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv_view(&mut each).is_ok()
    }
}

impl<T: Payload> Queue<T> for MultiqueueCompeting {
    const NAME: &'static str = "multiqueue2";
    const IDLE: Idle = Idle::Parks;
    type Publisher = MultiqueuePublisher<T>;
    type Subscriber = multiqueue2::BroadcastReceiver<T>;

    fn serves(shape: &Shape) -> bool {
        shape.subscribers > 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (sender, receiver) = multiqueue2::broadcast_queue(shape.capacity as u64);
        let sender = MultiqueuePublisher {
            sender,
            patience: Patience::for_shape(shape),
        };
        let subscriptions = (0..shape.subscriptions)
            .map(|_| clones(receiver.add_stream(), shape.subscribers))
            .collect();
        receiver.unsubscribe();
        Ends {
            publishers: clones(sender, shape.publishers),
            subscriptions,
        }
    }
}

impl<T: Payload> Receive<T> for multiqueue2::BroadcastReceiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv().map(|value| each(&value)).is_ok()
    }
}

/// `bus`.
pub struct Bus;

impl<T: Payload> Queue<T> for Bus {
    const NAME: &'static str = "bus";
    const IDLE: Idle = Idle::Parks;
    type Publisher = bus::Bus<T>;
    type Subscriber = bus::BusReader<T>;

    fn serves(shape: &Shape) -> bool {
        one_to_all(shape)
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let mut bus = bus::Bus::new(shape.capacity);
        let subscriptions = alone(shape.subscriptions, || bus.add_rx());
        Ends {
            publishers: vec![bus],
            subscriptions,
        }
    }
}

impl<T: Payload> Publish<T> for bus::Bus<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        self.broadcast(value);
    }
}

impl<T: Payload> Receive<T> for bus::BusReader<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv().map(|value| each(&value)).is_ok()
    }
}

/// `async-broadcast`, its blocking calls.
pub struct AsyncBroadcast;

impl<T: Payload> Queue<T> for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";
    const IDLE: Idle = Idle::Parks;
    type Publisher = async_broadcast::Sender<T>;
    type Subscriber = async_broadcast::Receiver<T>;

    fn serves(shape: &Shape) -> bool {
        shape.subscribers == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (sender, receiver) = async_broadcast::broadcast(shape.capacity);
        let subscriptions = alone(shape.subscriptions, || receiver.new_receiver());
        Ends {
            publishers: clones(sender, shape.publishers),
            subscriptions,
        }
    }
}

impl<T: Payload> Publish<T> for async_broadcast::Sender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.broadcast_blocking(value));
    }
}

impl<T: Payload> Receive<T> for async_broadcast::Receiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv_blocking().map(|value| each(&value)).is_ok()
    }
}

/// `tokio::sync::broadcast`, made lossless: the sender waits while more than half of the ring is unread.
pub struct TokioBroadcast;

/// A sender that looks at the backlog every quarter of the capacity.
pub struct WindowedSender<T> {
    sender: broadcast::Sender<T>,
    patience: Patience,
    window: usize,
    unchecked: usize,
}

impl<T: Payload> Queue<T> for TokioBroadcast {
    const NAME: &'static str = "tokio broadcast";
    const IDLE: Idle = Idle::Parks;
    type Publisher = WindowedSender<T>;
    type Subscriber = broadcast::Receiver<T>;

    fn serves(shape: &Shape) -> bool {
        one_to_all(shape)
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let sender = broadcast::Sender::new(shape.capacity);
        let subscriptions = alone(shape.subscriptions, || sender.subscribe());
        let publisher = WindowedSender {
            sender,
            patience: Patience::for_shape(shape),
            window: shape.capacity / 4,
            unchecked: 0,
        };
        Ends {
            publishers: vec![publisher],
            subscriptions,
        }
    }
}

impl<T: Payload> Publish<T> for WindowedSender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        if self.unchecked == self.window {
            self.patience.until(|| (self.sender.len() <= 2 * self.window).then_some(()));
            self.unchecked = 0;
        }
        self.unchecked += 1;
        sent(self.sender.send(value));
    }
}

impl<T: Payload> Receive<T> for broadcast::Receiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        match self.blocking_recv() {
            Ok(value) => each(&value),
            Err(broadcast::error::RecvError::Closed) => return false,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                panic!("the window keeps every subscriber in reach")
            }
        }
        true
    }
}
