//! Channels between two tasks on an async runtime.

use std::{
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use crate::queue::sent;

/// A channel whose two ends are awaited.
pub trait TaskQueue: 'static {
    /// Its name in the table.
    const NAME: &'static str;
    /// The end that publishes; dropping it ends the stream.
    type Sender: Send + 'static;
    /// The end that receives.
    type Receiver: Send + 'static;

    /// Opens it for so many messages.
    fn open(capacity: usize) -> (Self::Sender, Self::Receiver);

    /// Sends one message, waiting for space.
    fn send(sender: &mut Self::Sender, value: u64) -> impl Future<Output = ()> + Send;

    /// Receives one message; `None` when the stream has ended.
    fn recv(receiver: &mut Self::Receiver) -> impl Future<Output = Option<u64>> + Send;
}

/// Is shown every queue between tasks.
pub trait TaskVisitor {
    /// Called once per queue.
    fn tasks<Q: TaskQueue>(&mut self);
}

/// Shows all peers.
pub fn visit(visitor: &mut impl TaskVisitor) {
    visitor.tasks::<CrossfireSpsc>();
    visitor.tasks::<CrossfireMpmc>();
    visitor.tasks::<Kanal>();
    visitor.tasks::<Loole>();
    visitor.tasks::<Flume>();
    visitor.tasks::<AsyncChannel>();
    visitor.tasks::<TokioMpsc>();
}

/// The runtime that both tasks run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// tokio, current-thread.
    CurrentThread,
    /// tokio, two worker threads.
    TwoThreads,
}

impl Executor {
    fn runtime(self) -> &'static Runtime {
        static CURRENT: OnceLock<Runtime> = OnceLock::new();
        static TWO: OnceLock<Runtime> = OnceLock::new();
        let built = "a runtime without drivers can be built";
        match self {
            Executor::CurrentThread => CURRENT.get_or_init(|| Builder::new_current_thread().build().expect(built)),
            Executor::TwoThreads => TWO.get_or_init(|| Builder::new_multi_thread().worker_threads(2).build().expect(built)),
        }
    }
}

/// Sends `messages` words from one task to another and checks what arrives.
pub fn run<Q: TaskQueue>(executor: Executor, capacity: usize, messages: u64) -> Result<Duration, String> {
    let (mut sender, mut receiver) = Q::open(capacity);
    let runtime = executor.runtime();
    let started = Instant::now();
    runtime.spawn(async move {
        for id in 0..messages {
            Q::send(&mut sender, id).await;
        }
    });
    let receiving = runtime.spawn(async move {
        let (mut count, mut sum) = (0, 0u64);
        while let Some(value) = Q::recv(&mut receiver).await {
            count += 1;
            sum = sum.wrapping_add(value);
        }
        (count, sum)
    });
    let received = runtime.block_on(receiving).map_err(|error| error.to_string())?;
    let elapsed = started.elapsed();
    let expected = (messages, (0..messages).fold(0, u64::wrapping_add));
    if received == expected {
        Ok(elapsed)
    } else {
        Err(format!("received {received:?}, expected {expected:?}"))
    }
}

macro_rules! task_queue {
    ($queue:ident, $name:literal, $open:expr, $sender:ty, $receiver:ty, $send:ident, $recv:ident) => {
        #[doc = concat!("`", $name, "`.")]
        pub struct $queue;

        impl TaskQueue for $queue {
            const NAME: &'static str = $name;
            type Sender = $sender;
            type Receiver = $receiver;

            fn open(capacity: usize) -> ($sender, $receiver) {
                $open(capacity)
            }

            #[inline(always)]
            async fn send(sender: &mut $sender, value: u64) {
                sent(sender.$send(value).await);
            }

            #[inline(always)]
            async fn recv(receiver: &mut $receiver) -> Option<u64> {
                receiver.$recv().await.ok()
            }
        }
    };
}

task_queue!(
    CrossfireSpsc,
    "crossfire spsc",
    crossfire::spsc::bounded_async,
    crossfire::AsyncTx<crossfire::spsc::Array<u64>>,
    crossfire::AsyncRx<crossfire::spsc::Array<u64>>,
    send,
    recv
);
task_queue!(
    CrossfireMpmc,
    "crossfire mpmc",
    crossfire::mpmc::bounded_async,
    crossfire::MAsyncTx<crossfire::mpmc::Array<u64>>,
    crossfire::MAsyncRx<crossfire::mpmc::Array<u64>>,
    send,
    recv
);
task_queue!(
    Kanal,
    "kanal",
    kanal::bounded_async,
    kanal::AsyncSender<u64>,
    kanal::AsyncReceiver<u64>,
    send,
    recv
);
task_queue!(
    Loole,
    "loole",
    loole::bounded,
    loole::Sender<u64>,
    loole::Receiver<u64>,
    send_async,
    recv_async
);
task_queue!(
    Flume,
    "flume",
    flume::bounded,
    flume::Sender<u64>,
    flume::Receiver<u64>,
    send_async,
    recv_async
);
task_queue!(
    AsyncChannel,
    "async-channel",
    async_channel::bounded,
    async_channel::Sender<u64>,
    async_channel::Receiver<u64>,
    send,
    recv
);

/// `tokio mpsc`.
pub struct TokioMpsc;

impl TaskQueue for TokioMpsc {
    const NAME: &'static str = "tokio mpsc";
    type Sender = tokio::sync::mpsc::Sender<u64>;
    type Receiver = tokio::sync::mpsc::Receiver<u64>;

    fn open(capacity: usize) -> (Self::Sender, Self::Receiver) {
        tokio::sync::mpsc::channel(capacity)
    }

    #[inline(always)]
    async fn send(sender: &mut Self::Sender, value: u64) {
        sent(sender.send(value).await);
    }

    #[inline(always)]
    async fn recv(receiver: &mut Self::Receiver) -> Option<u64> {
        receiver.recv().await
    }
}
