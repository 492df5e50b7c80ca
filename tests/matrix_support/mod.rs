//! What the matrices share: seeds and sizes from the environment, wakers that spy and misbehave, payloads that count and panic.
#![allow(dead_code, reason = "each matrix uses its part")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use ringmq::{Backoff, Broker, Overflow, SubscribeOptions, Subscription, Topic, TopicOptions};

/// A size from the environment, or what CI has time for.
pub fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seed of a run: `RINGMQ_SEED`, or a new one. Printed, so that a failure can be repeated.
pub fn seed(what: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.map_or(7, |now| now.as_nanos() as u64);
    let seed = std::env::var("RINGMQ_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(fresh);
    println!("{what}: RINGMQ_SEED={seed}");
    seed
}

/// Random numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The two kinds of ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Queue,
    Window,
}

pub const KINDS: [Kind; 2] = [Kind::Queue, Kind::Window];

impl Kind {
    pub fn options<T: Clone + Send + Sync + 'static>(self) -> TopicOptions<T> {
        match self {
            Self::Queue => TopicOptions::work_queue(),
            Self::Window => TopicOptions::in_memory(),
        }
    }

    /// A topic of its own with this capacity, and one subscription that delivers failures again at once.
    pub fn pair<T: Clone + Send + Sync + 'static>(self, capacity: usize) -> (Topic<T>, Subscription<T>) {
        self.pair_with(capacity, SubscribeOptions::new("s").backoff(Backoff::none()))
    }

    pub fn pair_with<T: Clone + Send + Sync + 'static>(self, capacity: usize, options: SubscribeOptions<T>) -> (Topic<T>, Subscription<T>) {
        let broker = Broker::open("mem:").unwrap();
        let topic = broker.topic_with("t", self.options().capacity(capacity)).unwrap();
        let subscription = topic.subscribe_with(options).unwrap();
        (topic, subscription)
    }
}

type Hook = Arc<dyn Fn(u64) + Send + Sync>;

/// What happened to a waker, and what it does when something happens to it: its hooks get the number of the call, from 1.
#[derive(Default)]
pub struct Spy {
    pub clones: AtomicU64,
    pub wakes: AtomicU64,
    pub drops: AtomicU64,
    on_clone: Mutex<Option<Hook>>,
    on_wake: Mutex<Option<Hook>>,
    on_drop: Mutex<Option<Hook>>,
}

impl Spy {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn on_clone(self: &Arc<Self>, hook: impl Fn(u64) + Send + Sync + 'static) {
        *self.on_clone.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn on_wake(self: &Arc<Self>, hook: impl Fn(u64) + Send + Sync + 'static) {
        *self.on_wake.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn on_drop(self: &Arc<Self>, hook: impl Fn(u64) + Send + Sync + 'static) {
        *self.on_drop.lock().unwrap() = Some(Arc::new(hook));
    }

    /// No hooks from here on: hooks may hold what holds the waker.
    pub fn calm(&self) {
        for hook in [&self.on_clone, &self.on_wake, &self.on_drop] {
            let hook = hook.lock().unwrap().take();
            drop(hook);
        }
    }

    pub fn wakes(&self) -> u64 {
        self.wakes.load(SeqCst)
    }

    /// How many wakers of this spy exist: itself not counted.
    pub fn alive(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        let data = Arc::into_raw(self.clone()).cast();
        // SAFETY: the table's functions keep the contract of a waker; the data is a counted reference that the waker owns.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }

    fn call(&self, hook: &Mutex<Option<Hook>>, count: &AtomicU64) {
        let n = count.fetch_add(1, SeqCst) + 1;
        let hook = hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(n);
        }
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone_waker, wake_waker, wake_by_ref, drop_waker);

fn borrowed(data: *const ()) -> std::mem::ManuallyDrop<Arc<Spy>> {
    // SAFETY: every waker owns one count of the spy that its data points to.
    std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<Spy>()) })
}

fn clone_waker(data: *const ()) -> RawWaker {
    let spy = borrowed(data);
    spy.call(&spy.on_clone, &spy.clones);
    RawWaker::new(Arc::into_raw(Arc::clone(&spy)).cast(), &TABLE)
}

fn wake_waker(data: *const ()) {
    let spy = std::mem::ManuallyDrop::into_inner(borrowed(data));
    spy.call(&spy.on_wake, &spy.wakes);
}

fn wake_by_ref(data: *const ()) {
    let spy = borrowed(data);
    spy.call(&spy.on_wake, &spy.wakes);
}

fn drop_waker(data: *const ()) {
    let spy = std::mem::ManuallyDrop::into_inner(borrowed(data));
    spy.call(&spy.on_drop, &spy.drops);
}

/// Polls once.
pub fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

/// Polls on this thread until it is ready.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(20)),
        }
    }
}

/// The text of every panic that a test causes on purpose. Such panics are not printed.
pub const ON_PURPOSE: &str = "on purpose";

/// Panics on purpose.
pub fn panic_on_purpose() -> ! {
    panic!("{ON_PURPOSE}")
}

/// Keeps panics that are on purpose out of the output.
pub fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| info.payload().downcast_ref::<&str>().copied());
            if !text.is_some_and(|text| text.contains(ON_PURPOSE)) {
                print(info);
            }
        }));
    });
}

/// Runs `f`; `None` if it panicked on purpose.
pub fn survive<R>(f: impl FnOnce() -> R) -> Option<R> {
    hush();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => Some(result),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            assert!(text.is_some_and(|text| text.contains(ON_PURPOSE)), "an unwanted panic: {text:?}");
            None
        }
    }
}

/// Runs `f` on a thread of its own; fails if it takes longer than `patience`, which means that it hangs.
pub fn within<R: Send + 'static>(patience: Duration, f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(f());
    });
    match result.recv_timeout(patience) {
        Ok(result) => {
            let _ = thread.join();
            result
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the thread sends before it ends"),
        },
    }
}

/// How patient a test is before it says that something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Counts payloads, and panics in the k-th clone or drop.
#[derive(Debug, Default)]
pub struct Census {
    pub alive: AtomicI64,
    pub clones: AtomicU64,
    pub drops: AtomicU64,
    /// Which clone panics; 0: none.
    pub clone_panics_at: AtomicU64,
    /// Which drop panics, once the count is back; 0: none.
    pub drop_panics_at: AtomicU64,
    /// How many panics there were.
    pub panics: AtomicUsize,
}

impl Census {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn payload(self: &Arc<Self>, id: u64) -> Counted {
        self.alive.fetch_add(1, SeqCst);
        Counted {
            id,
            heap: Some(Box::new(id)),
            census: self.clone(),
        }
    }

    pub fn alive(&self) -> i64 {
        self.alive.load(SeqCst)
    }

    /// No panics from here on.
    pub fn calm(&self) {
        self.clone_panics_at.store(0, SeqCst);
        self.drop_panics_at.store(0, SeqCst);
    }
}

/// A payload on the heap that is counted, and notices when it is dropped twice.
#[derive(Debug)]
pub struct Counted {
    pub id: u64,
    heap: Option<Box<u64>>,
    census: Arc<Census>,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        let n = self.census.clones.fetch_add(1, SeqCst) + 1;
        if n == self.census.clone_panics_at.load(SeqCst) {
            self.census.panics.fetch_add(1, SeqCst);
            panic_on_purpose();
        }
        self.census.payload(self.id)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.heap.take().map(|heap| *heap), Some(self.id), "dropped twice, or overwritten");
        self.census.alive.fetch_sub(1, SeqCst);
        let n = self.census.drops.fetch_add(1, SeqCst) + 1;
        if n == self.census.drop_panics_at.load(SeqCst) && !std::thread::panicking() {
            self.census.panics.fetch_add(1, SeqCst);
            panic_on_purpose();
        }
    }
}

/// A subscription that holds up nobody and reads nothing: because of it, the other one cannot have its messages for itself, and clones them.
pub fn onlooker<T: Clone + Send + Sync + 'static>(topic: &Topic<T>) -> Subscription<T> {
    let options = SubscribeOptions::new("onlooker").overflow(Overflow::DropOldest);
    topic.subscribe_with(options).unwrap()
}
