//! Channels that block: one macro, since they agree on `send` and `recv`.

use std::sync::{Arc, mpsc};

use crate::{
    payload::Payload,
    queue::{Ends, Idle, Publish, Queue, Receive, Shape, clones, sent},
};

/// Many publishers, one subscription, any number of subscribers.
fn many_to_many(shape: &Shape) -> bool {
    shape.subscriptions == 1
}

/// Many publishers, one subscriber.
fn many_to_one(shape: &Shape) -> bool {
    shape.subscriptions == 1 && shape.subscribers == 1
}

/// One publisher, one subscriber.
fn one_to_one(shape: &Shape) -> bool {
    shape.is_pair()
}

macro_rules! channel {
    ($queue:ident, $name:literal, $serves:ident, $open:expr, $sender:ty, $receiver:ty,
     $publishers:expr, $subscribers:expr) => {
        #[doc = concat!("`", $name, "`.")]
        pub struct $queue;

        impl<T: Payload> Queue<T> for $queue {
            const NAME: &'static str = $name;
            const IDLE: Idle = Idle::Parks;
            type Publisher = $sender;
            type Subscriber = $receiver;

            fn serves(shape: &Shape) -> bool {
                $serves(shape)
            }

            fn open(shape: &Shape) -> Ends<$sender, $receiver> {
                let (sender, receiver) = $open(shape.capacity);
                Ends {
                    publishers: $publishers(sender, shape.publishers),
                    subscriptions: vec![$subscribers(receiver, shape.subscribers)],
                }
            }
        }
    };
}

macro_rules! send_and_recv {
    ($sender:ty, $receiver:ty, $send:ident, $recv:ident) => {
        impl<T: Payload> Publish<T> for $sender {
            #[inline(always)]
            fn publish(&mut self, value: T) {
                sent(self.$send(value));
            }
        }

        impl<T: Payload> Receive<T> for $receiver {
            #[inline(always)]
            fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
                self.$recv().map(|value| each(&value)).is_ok()
            }
        }
    };
}

/// Hands on the only handle there is.
fn only<H>(handle: H, _count: usize) -> Vec<H> {
    vec![handle]
}

channel!(
    StdSyncChannel,
    "std sync_channel",
    many_to_one,
    mpsc::sync_channel,
    mpsc::SyncSender<T>,
    mpsc::Receiver<T>,
    clones,
    only
);
send_and_recv!(mpsc::SyncSender<T>, mpsc::Receiver<T>, send, recv);

channel!(
    CrossbeamChannel,
    "crossbeam-channel",
    many_to_many,
    crossbeam_channel::bounded,
    crossbeam_channel::Sender<T>,
    crossbeam_channel::Receiver<T>,
    clones,
    clones
);
send_and_recv!(crossbeam_channel::Sender<T>, crossbeam_channel::Receiver<T>, send, recv);

channel!(
    AsyncChannel,
    "async-channel",
    many_to_many,
    async_channel::bounded,
    async_channel::Sender<T>,
    async_channel::Receiver<T>,
    clones,
    clones
);
send_and_recv!(async_channel::Sender<T>, async_channel::Receiver<T>, send_blocking, recv_blocking);

channel!(
    Loole,
    "loole",
    many_to_many,
    loole::bounded,
    loole::Sender<T>,
    loole::Receiver<T>,
    clones,
    clones
);
send_and_recv!(loole::Sender<T>, loole::Receiver<T>, send, recv);

channel!(
    Flume,
    "flume",
    many_to_many,
    flume::bounded,
    flume::Sender<T>,
    flume::Receiver<T>,
    clones,
    clones
);

impl<T: Payload> Publish<T> for flume::Sender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.send(value));
    }
}

impl<T: Payload> Receive<T> for flume::Receiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv().map(|value| each(&value)).is_ok()
    }

    fn receive_batch(&mut self, _max: usize, mut each: impl FnMut(&T)) -> bool {
        let open = self.receive(&mut each);
        self.drain().for_each(|value| each(&value));
        open
    }
}

channel!(
    Kanal,
    "kanal",
    many_to_many,
    kanal::bounded,
    kanal::Sender<T>,
    KanalReceiver<T>,
    clones,
    KanalReceiver::many
);

impl<T: Payload> Publish<T> for kanal::Sender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.send(value));
    }
}

/// kanal's receiver and the buffer it drains into.
pub struct KanalReceiver<T> {
    receiver: kanal::Receiver<T>,
    drained: Vec<T>,
}

impl<T> KanalReceiver<T> {
    fn many(receiver: kanal::Receiver<T>, count: usize) -> Vec<Self> {
        clones(receiver, count)
            .into_iter()
            .map(|receiver| KanalReceiver {
                receiver,
                drained: Vec::new(),
            })
            .collect()
    }
}

impl<T: Payload> Receive<T> for KanalReceiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.receiver.recv().map(|value| each(&value)).is_ok()
    }

    fn receive_batch(&mut self, _max: usize, mut each: impl FnMut(&T)) -> bool {
        let open = self.receive(&mut each);
        let _ = self.receiver.drain_into(&mut self.drained);
        self.drained.drain(..).for_each(|value| each(&value));
        open
    }
}

channel!(
    TokioMpsc,
    "tokio mpsc",
    many_to_one,
    tokio::sync::mpsc::channel,
    tokio::sync::mpsc::Sender<T>,
    TokioReceiver<T>,
    clones,
    TokioReceiver::only
);

impl<T: Payload> Publish<T> for tokio::sync::mpsc::Sender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.blocking_send(value));
    }
}

/// tokio's receiver and the buffer of `recv_many`.
pub struct TokioReceiver<T> {
    receiver: tokio::sync::mpsc::Receiver<T>,
    many: Vec<T>,
}

impl<T> TokioReceiver<T> {
    fn only(receiver: tokio::sync::mpsc::Receiver<T>, _count: usize) -> Vec<Self> {
        vec![TokioReceiver {
            receiver,
            many: Vec::new(),
        }]
    }
}

impl<T: Payload> Receive<T> for TokioReceiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.receiver.blocking_recv().map(|value| each(&value)).is_some()
    }

    fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
        let received = self.receiver.blocking_recv_many(&mut self.many, max);
        self.many.drain(..).for_each(|value| each(&value));
        received > 0
    }
}

channel!(
    CrossfireSpsc,
    "crossfire spsc",
    one_to_one,
    crossfire::spsc::bounded_blocking,
    crossfire::Tx<crossfire::spsc::Array<T>>,
    crossfire::Rx<crossfire::spsc::Array<T>>,
    only,
    only
);
send_and_recv!(
    crossfire::Tx<crossfire::spsc::Array<T>>,
    crossfire::Rx<crossfire::spsc::Array<T>>,
    send,
    recv
);

channel!(
    CrossfireMpsc,
    "crossfire mpsc",
    many_to_one,
    crossfire::mpsc::bounded_blocking,
    crossfire::MTx<crossfire::mpsc::Array<T>>,
    crossfire::Rx<crossfire::mpsc::Array<T>>,
    clones,
    only
);
send_and_recv!(
    crossfire::MTx<crossfire::mpsc::Array<T>>,
    crossfire::Rx<crossfire::mpsc::Array<T>>,
    send,
    recv
);

channel!(
    CrossfireMpmc,
    "crossfire mpmc",
    many_to_many,
    crossfire::mpmc::bounded_blocking,
    crossfire::MTx<crossfire::mpmc::Array<T>>,
    crossfire::MRx<crossfire::mpmc::Array<T>>,
    clones,
    clones
);
send_and_recv!(
    crossfire::MTx<crossfire::mpmc::Array<T>>,
    crossfire::MRx<crossfire::mpmc::Array<T>>,
    send,
    recv
);

/// `thingbuf`, by reference into its reused slots.
pub struct Thingbuf;

/// Fills thingbuf's slots once; values are overwritten, not recycled.
#[derive(Clone, Copy)]
pub struct Overwrite;

impl<T: Payload> thingbuf::Recycle<T> for Overwrite {
    fn new_element(&self) -> T {
        T::blank()
    }

    fn recycle(&self, _element: &mut T) {}
}

type ThingSender<T> = thingbuf::mpsc::blocking::Sender<T, Overwrite>;
type ThingReceiver<T> = thingbuf::mpsc::blocking::Receiver<T, Overwrite>;

impl<T: Payload> Queue<T> for Thingbuf {
    const NAME: &'static str = "thingbuf";
    const IDLE: Idle = Idle::Parks;
    type Publisher = ThingSender<T>;
    type Subscriber = ThingReceiver<T>;

    fn serves(shape: &Shape) -> bool {
        many_to_one(shape)
    }

    fn open(shape: &Shape) -> Ends<ThingSender<T>, ThingReceiver<T>> {
        let (sender, receiver) = thingbuf::mpsc::blocking::with_recycle(shape.capacity, Overwrite);
        Ends {
            publishers: clones(sender, shape.publishers),
            subscriptions: vec![vec![receiver]],
        }
    }
}

impl<T: Payload> Publish<T> for ThingSender<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.send_ref().map(|mut slot| *slot = value));
    }
}

impl<T: Payload> Receive<T> for ThingReceiver<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.recv_ref().map(|slot| each(&slot)).is_some()
    }
}

/// `omango`, its one-to-one queue.
pub struct OmangoSpsc;

/// `omango`, its many-to-many queue.
pub struct OmangoMpmc;

macro_rules! omango {
    ($queue:ident, $name:literal, $serves:ident, $module:ident, $publisher:ident, $closer:ident, $subscribers:expr) => {
        impl<T: Payload> Queue<T> for $queue {
            const NAME: &'static str = $name;
            const IDLE: Idle = Idle::Parks;
            type Publisher = $publisher<T>;
            type Subscriber = omango::queue::$module::BReceiver<T>;

            // Its slots drop what they never held, so it cannot carry payloads that own something.
            fn serves(shape: &Shape) -> bool {
                $serves(shape) && !std::mem::needs_drop::<T>()
            }

            fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
                let (sender, receiver) = omango::queue::$module::bounded(shape.capacity as u32);
                Ends {
                    publishers: clones($publisher(Arc::new($closer(sender))), shape.publishers),
                    subscriptions: vec![$subscribers(receiver, shape.subscribers)],
                }
            }
        }

        /// Publishers of one queue; the last to leave closes it, which omango does not do by itself.
        pub struct $publisher<T: Send>(Arc<$closer<T>>);

        impl<T: Send> Clone for $publisher<T> {
            fn clone(&self) -> Self {
                $publisher(self.0.clone())
            }
        }

        struct $closer<T: Send>(omango::queue::$module::BSender<T>);

        impl<T: Send> Drop for $closer<T> {
            fn drop(&mut self) {
                self.0.close();
            }
        }

        impl<T: Payload> Publish<T> for $publisher<T> {
            #[inline(always)]
            fn publish(&mut self, value: T) {
                sent(self.0.0.send(value));
            }
        }

        impl<T: Payload> Receive<T> for omango::queue::$module::BReceiver<T> {
            #[inline(always)]
            fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
                self.recv().map(|value| each(&value)).is_ok()
            }
        }
    };
}

omango!(
    OmangoSpsc,
    "omango spsc",
    one_to_one,
    spsc,
    OmangoSpscPublisher,
    OmangoSpscCloser,
    only
);
omango!(
    OmangoMpmc,
    "omango mpmc",
    many_to_many,
    mpmc,
    OmangoMpmcPublisher,
    OmangoMpmcCloser,
    clones
);
