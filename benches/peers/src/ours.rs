//! ringmq behind the same seam as its peers: the public API, nothing else.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq::{Auto, Broker, Explicit, Publisher, Subscriber, Subscription, Topic, TopicOptions};

use crate::{
    alloc, machine,
    payload::Payload,
    peers::{
        Visitor,
        tasks::{TaskQueue, TaskVisitor},
    },
    queue::{Ends, Idle, Publish, Queue, Receive, Shape, sent},
    rows::{QUEUE, QUEUE_ACK, QUEUE_TASKS, TOPIC, TOPIC_ACK, TOPIC_TASKS},
};

/// Shows our variants.
pub fn visit<T: Payload>(visitor: &mut impl Visitor<T>) {
    visitor.queue::<AutoAck<WorkQueue>>();
    visitor.queue::<AutoAck<PlainTopic>>();
    visitor.queue::<ExplicitAck<WorkQueue>>();
    visitor.queue::<ExplicitAck<PlainTopic>>();
}

/// Shows our variants between tasks.
pub fn visit_tasks(visitor: &mut impl TaskVisitor) {
    visitor.tasks::<AutoAck<WorkQueue>>();
    visitor.tasks::<AutoAck<PlainTopic>>();
}

/// The two kinds of topic.
pub trait Kind: 'static {
    /// The names of its variants in the table.
    const NAMES: Names;
    /// Whether several subscriptions can read it.
    const FANS_OUT: bool;

    /// What it is opened with.
    fn options<T: Payload>() -> TopicOptions<T>;
}

/// Auto-ack, explicit ack, between tasks.
pub struct Names {
    auto: &'static str,
    ack: &'static str,
    tasks: &'static str,
}

/// One subscription, values move.
pub struct WorkQueue;

impl Kind for WorkQueue {
    const NAMES: Names = Names {
        auto: QUEUE,
        ack: QUEUE_ACK,
        tasks: QUEUE_TASKS,
    };
    const FANS_OUT: bool = false;

    fn options<T: Payload>() -> TopicOptions<T> {
        TopicOptions::work_queue()
    }
}

/// Any number of subscriptions, values are cloned.
pub struct PlainTopic;

impl Kind for PlainTopic {
    const NAMES: Names = Names {
        auto: TOPIC,
        ack: TOPIC_ACK,
        tasks: TOPIC_TASKS,
    };
    const FANS_OUT: bool = true;

    fn options<T: Payload>() -> TopicOptions<T> {
        TopicOptions::in_memory()
    }
}

fn open_topic<T: Payload, K: Kind>(capacity: usize) -> Topic<T> {
    let broker = Broker::open("mem:").expect("a broker in memory opens");
    broker
        .topic_with("messages", K::options().capacity(capacity))
        .expect("the first topic of its name opens")
}

fn open<T: Payload, K: Kind, S>(shape: &Shape, subscriber: impl Fn(&Subscription<T>) -> S) -> Ends<Publishing<T>, S> {
    let topic = open_topic::<T, K>(shape.capacity);
    let subscriptions = (0..shape.subscriptions)
        .map(|index| topic.subscribe(&format!("subscription-{index}")).expect("a new subscription"))
        .map(|subscription| (0..shape.subscribers).map(|_| subscriber(&subscription)).collect())
        .collect();
    let closer = Arc::new(Closer(topic));
    let publishers = (0..shape.publishers).map(|_| Publishing::new(&closer)).collect();
    Ends { publishers, subscriptions }
}

/// Closes the topic with its last publisher.
struct Closer<T: Payload>(Topic<T>);

impl<T: Payload> Drop for Closer<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One of the publishers of a topic that ends with the last of them.
pub struct Publishing<T: Payload> {
    publisher: Publisher<T>,
    _closer: Arc<Closer<T>>,
}

impl<T: Payload> Publishing<T> {
    fn new(closer: &Arc<Closer<T>>) -> Self {
        Publishing {
            publisher: closer.0.publisher(),
            _closer: closer.clone(),
        }
    }
}

impl<T: Payload> Publish<T> for Publishing<T> {
    #[inline(always)]
    fn publish(&mut self, value: T) {
        sent(self.publisher.publish(value));
    }

    #[inline(always)]
    fn publish_batch(&mut self, count: usize, make: impl FnMut() -> T) {
        sent(self.publisher.publish_batch(std::iter::repeat_with(make).take(count)));
    }
}

/// Messages that count as done when received.
pub struct AutoAck<K>(PhantomData<K>);

/// A subscriber and its buffer for batches.
pub struct Automatic<T: Payload> {
    subscriber: Subscriber<T, Auto>,
    batch: Vec<T>,
}

impl<T: Payload, K: Kind> Queue<T> for AutoAck<K> {
    const NAME: &'static str = K::NAMES.auto;
    const IDLE: Idle = Idle::Parks;
    type Publisher = Publishing<T>;
    type Subscriber = Automatic<T>;

    fn serves(shape: &Shape) -> bool {
        K::FANS_OUT || shape.subscriptions == 1
    }

    fn open(shape: &Shape) -> Ends<Publishing<T>, Automatic<T>> {
        open::<T, K, _>(shape, |subscription| Automatic {
            subscriber: subscription.auto_ack().subscriber(),
            batch: Vec::new(),
        })
    }
}

impl<T: Payload> Receive<T> for Automatic<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        self.subscriber.recv().map(|value| each(&value)).is_ok()
    }

    #[inline(always)]
    fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
        let received = self.subscriber.recv_batch(&mut self.batch, max);
        self.batch.drain(..).for_each(|value| each(&value));
        received.is_ok()
    }
}

/// Messages that are acked, one by one or batch by batch.
pub struct ExplicitAck<K>(PhantomData<K>);

/// A subscriber, the subscription that acks its batches, and its buffer.
pub struct Acking<T: Payload> {
    subscriber: Subscriber<T, Explicit>,
    subscription: Subscription<T>,
    batch: Vec<ringmq::Delivery<T>>,
}

impl<T: Payload, K: Kind> Queue<T> for ExplicitAck<K> {
    const NAME: &'static str = K::NAMES.ack;
    const IDLE: Idle = Idle::Parks;
    type Publisher = Publishing<T>;
    type Subscriber = Acking<T>;

    fn serves(shape: &Shape) -> bool {
        K::FANS_OUT || shape.subscriptions == 1
    }

    fn open(shape: &Shape) -> Ends<Publishing<T>, Acking<T>> {
        open::<T, K, _>(shape, |subscription| Acking {
            subscriber: subscription.subscriber(),
            subscription: subscription.clone(),
            batch: Vec::new(),
        })
    }
}

impl<T: Payload> Receive<T> for Acking<T> {
    #[inline(always)]
    fn receive(&mut self, mut each: impl FnMut(&T)) -> bool {
        let Ok(delivery) = self.subscriber.recv() else { return false };
        each(&delivery);
        sent(delivery.ack());
        true
    }

    #[inline(always)]
    fn receive_batch(&mut self, max: usize, mut each: impl FnMut(&T)) -> bool {
        let received = self.subscriber.recv_batch(&mut self.batch, max);
        self.batch.iter().for_each(|delivery| each(delivery));
        sent(self.subscription.ack_batch(self.batch.drain(..)));
        received.is_ok()
    }
}

impl<K: Kind> TaskQueue for AutoAck<K> {
    const NAME: &'static str = K::NAMES.tasks;
    type Sender = Publishing<u64>;
    type Receiver = Subscriber<u64, Auto>;

    fn open(capacity: usize) -> (Self::Sender, Self::Receiver) {
        let topic = open_topic::<u64, K>(capacity);
        let receiver = topic.subscribe("tasks").expect("a new subscription").auto_ack().subscriber();
        (Publishing::new(&Arc::new(Closer(topic))), receiver)
    }

    #[inline(always)]
    async fn send(sender: &mut Self::Sender, value: u64) {
        sent(sender.publisher.publish_async(value).await);
    }

    #[inline(always)]
    async fn recv(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.recv_async().await.ok()
    }
}

/// Allocations of 100,000 plain messages through a topic with two subscriptions, one of them acked by hand, and
/// through a work queue, after as many to warm up.
pub fn allocations() -> u64 {
    const MESSAGES: u64 = 100_000;
    let shape = Shape::new(1, 2, 1);
    let mut topic = <ExplicitAck<PlainTopic> as Queue<u64>>::open(&shape);
    let mut queue = <AutoAck<WorkQueue> as Queue<u64>>::open(&Shape::new(1, 1, 1));
    let mut work = || {
        for id in 0..MESSAGES {
            topic.publishers[0].publish(id);
            queue.publishers[0].publish(id);
            topic.subscriptions.iter_mut().for_each(|subscribers| {
                subscribers[0].receive(|_| ());
            });
            queue.subscriptions[0][0].receive(|_: &u64| ());
        }
    };
    work();
    alloc::count(work)
}

/// Processor time that a broker takes in this time: 100 topics with a subscription each, on four of which a thread
/// waits.
pub fn idle_cpu(time: Duration) -> Duration {
    let broker = Broker::open("mem:").expect("a broker in memory opens");
    let topics: Vec<Topic<u64>> = (0..100)
        .map(|index| {
            broker
                .topic_with(&format!("topic-{index}"), TopicOptions::in_memory())
                .expect("a new topic")
        })
        .collect();
    let subscriptions: Vec<_> = topics
        .iter()
        .map(|topic| topic.subscribe("idle").expect("a new subscription"))
        .collect();
    std::thread::scope(|scope| {
        for subscription in &subscriptions[..4] {
            scope.spawn(move || subscription.recv().is_err());
        }
        std::thread::sleep(Duration::from_millis(50));
        let (before, started) = (machine::process_cpu(), Instant::now());
        std::thread::sleep(time.saturating_sub(started.elapsed()));
        let spent = machine::process_cpu() - before;
        topics.iter().for_each(Topic::close);
        spent
    })
}
