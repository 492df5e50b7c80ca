//! Rings that never wait: the harness spins for them.

use std::sync::Arc;

use concurrent_queue::{ConcurrentQueue, PopError, PushError};
use crossbeam_queue::ArrayQueue;
use ringbuf::{
    HeapCons, HeapProd, HeapRb,
    traits::{Consumer as _, Observer as _, Producer as _, Split as _},
};

use crate::{
    payload::Payload,
    queue::{Ends, Idle, Publish, Queue, Receive, Shape, clones},
    spin::{Ender, Endless, Patience},
};

/// One side of a ring and how to wait for it.
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

/// `crossbeam_queue::ArrayQueue`.
pub struct Array;

impl<T: Payload> Queue<T> for Array {
    const NAME: &'static str = "ArrayQueue";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<Arc<Ender<ArrayQueue<T>>>>;
    type Subscriber = Side<Arc<Endless<ArrayQueue<T>>>>;

    fn serves(shape: &Shape) -> bool {
        shape.subscriptions == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (queue, ender) = Endless::new(ArrayQueue::new(shape.capacity));
        Ends {
            publishers: clones(Side::new(ender, shape), shape.publishers),
            subscriptions: vec![clones(Side::new(queue, shape), shape.subscribers)],
        }
    }
}

impl<T: Payload> Publish<T> for Side<Arc<Ender<ArrayQueue<T>>>> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut refused = Some(value);
        self.patience.until(|| {
            refused = self.handle.push(refused.take()?).err();
            refused.is_none().then_some(())
        });
    }
}

impl<T: Payload> Receive<T> for Side<Arc<Endless<ArrayQueue<T>>>> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let queue = &self.handle;
        let message = self.patience.until(|| match queue.pop() {
            Some(value) => Some(Some(value)),
            None if queue.ended() => Some(queue.pop()),
            None => None,
        });
        message.map(|value| each(&value)).is_some()
    }
}

/// `concurrent_queue::ConcurrentQueue`.
pub struct Concurrent;

/// Closes the queue with the last publisher.
pub struct ConcurrentCloser<T>(Arc<ConcurrentQueue<T>>);

impl<T> Drop for ConcurrentCloser<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T: Payload> Queue<T> for Concurrent {
    const NAME: &'static str = "concurrent-queue";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<Arc<ConcurrentCloser<T>>>;
    type Subscriber = Side<Arc<ConcurrentQueue<T>>>;

    fn serves(shape: &Shape) -> bool {
        shape.subscriptions == 1
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let queue = Arc::new(ConcurrentQueue::bounded(shape.capacity));
        let closer = Arc::new(ConcurrentCloser(queue.clone()));
        Ends {
            publishers: clones(Side::new(closer, shape), shape.publishers),
            subscriptions: vec![clones(Side::new(queue, shape), shape.subscribers)],
        }
    }
}

impl<T: Payload> Publish<T> for Side<Arc<ConcurrentCloser<T>>> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut refused = Some(value);
        self.patience.until(|| match self.handle.0.push(refused.take()?) {
            Ok(()) => Some(()),
            Err(PushError::Full(value) | PushError::Closed(value)) => {
                refused = Some(value);
                None
            }
        });
    }
}

impl<T: Payload> Receive<T> for Side<Arc<ConcurrentQueue<T>>> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let message = self.patience.until(|| match self.handle.pop() {
            Ok(value) => Some(Some(value)),
            Err(PopError::Closed) => Some(None),
            Err(PopError::Empty) => None,
        });
        message.map(|value| each(&value)).is_some()
    }
}

/// `rtrb`; batches are its chunks.
pub struct Rtrb;

impl<T: Payload> Queue<T> for Rtrb {
    const NAME: &'static str = "rtrb";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<rtrb::Producer<T>>;
    type Subscriber = Side<rtrb::Consumer<T>>;

    fn serves(shape: &Shape) -> bool {
        shape.is_pair()
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (producer, consumer) = rtrb::RingBuffer::new(shape.capacity);
        Ends {
            publishers: vec![Side::new(producer, shape)],
            subscriptions: vec![vec![Side::new(consumer, shape)]],
        }
    }
}

impl<T: Payload> Publish<T> for Side<rtrb::Producer<T>> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut refused = Some(value);
        self.patience.until(|| match self.handle.push(refused.take()?) {
            Ok(()) => Some(()),
            Err(rtrb::PushError::Full(value)) => {
                refused = Some(value);
                None
            }
        });
    }

    #[inline(always)]
    fn publish_batch(&mut self, count: usize, make: impl FnMut() -> T) {
        self.patience
            .until(|| (self.handle.cached_slots() >= count || self.handle.slots() >= count).then_some(()));
        let chunk = self
            .handle
            .write_chunk_uninit(count)
            .expect("the slots are free and nobody else takes them");
        chunk.fill_from_iter(std::iter::repeat_with(make).take(count));
    }
}

impl<T: Payload> Receive<T> for Side<rtrb::Consumer<T>> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let consumer = &mut self.handle;
        let message = self.patience.until(|| match consumer.pop() {
            Ok(value) => Some(Some(value)),
            Err(_) if consumer.is_abandoned() => Some(consumer.pop().ok()),
            Err(_) => None,
        });
        message.map(|value| each(&value)).is_some()
    }

    #[inline(always)]
    fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
        let consumer = &mut self.handle;
        let available = self.patience.until(|| match consumer.slots() {
            0 if consumer.is_abandoned() => Some(consumer.slots()),
            0 => None,
            available => Some(available),
        });
        let chunk = consumer
            .read_chunk(available.min(max))
            .expect("the slots are filled and nobody else takes them");
        chunk.into_iter().for_each(|value| each(&value));
        available > 0
    }
}

/// `ringbuf`; batches are its iterators.
pub struct Ringbuf;

impl<T: Payload> Queue<T> for Ringbuf {
    const NAME: &'static str = "ringbuf";
    const IDLE: Idle = Idle::Spins;
    type Publisher = Side<HeapProd<T>>;
    type Subscriber = Side<HeapCons<T>>;

    fn serves(shape: &Shape) -> bool {
        shape.is_pair()
    }

    fn open(shape: &Shape) -> Ends<Self::Publisher, Self::Subscriber> {
        let (producer, consumer) = HeapRb::new(shape.capacity).split();
        Ends {
            publishers: vec![Side::new(producer, shape)],
            subscriptions: vec![vec![Side::new(consumer, shape)]],
        }
    }
}

impl<T: Payload> Publish<T> for Side<HeapProd<T>> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        let mut refused = Some(value);
        self.patience.until(|| {
            refused = self.handle.try_push(refused.take()?).err();
            refused.is_none().then_some(())
        });
    }

    #[inline(always)]
    fn publish_batch(&mut self, count: usize, mut make: impl FnMut() -> T) {
        let mut left = count;
        self.patience.until(|| {
            left -= self.handle.push_iter(std::iter::repeat_with(&mut make).take(left));
            (left == 0).then_some(())
        });
    }
}

impl<T: Payload> Receive<T> for Side<HeapCons<T>> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let consumer = &mut self.handle;
        let message = self.patience.until(|| match consumer.try_pop() {
            Some(value) => Some(Some(value)),
            None if !consumer.write_is_held() => Some(consumer.try_pop()),
            None => None,
        });
        message.map(|value| each(&value)).is_some()
    }

    #[inline(always)]
    fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
        let open = self.receive(&mut each);
        self.handle.pop_iter().take(max - 1).for_each(|value| each(&value));
        open
    }
}
