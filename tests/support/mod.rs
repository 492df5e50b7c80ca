//! What the behaviour tests share: patience, executors of our own, payloads that count their drops, this process's threads.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ringmq::{Broker, Topic, TopicOptions};

/// How long a test waits for what must come. Long, because it is only waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test looks for what must not come.
pub const A_MOMENT: Duration = Duration::from_millis(20);

/// A broker of one's own.
pub fn broker() -> Broker {
    Broker::open("mem:").expect("a broker in memory opens")
}

/// A topic of numbers with this capacity, in a broker of its own.
pub fn topic(capacity: usize) -> Topic<u64> {
    broker()
        .topic_with("numbers", TopicOptions::new().capacity(capacity))
        .expect("a new topic")
}

/// A work queue of numbers with this capacity, in a broker of its own.
pub fn work_queue(capacity: usize) -> Topic<u64> {
    broker()
        .topic_with("numbers", TopicOptions::work_queue().capacity(capacity))
        .expect("a new work queue")
}

/// Lets other threads run until `holds`; panics when patience is used up.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited too long for this: {what}");
        thread::yield_now();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least executor there is: polls on this thread, sleeps until woken, panics when patience is used up.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let end = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        assert!(Instant::now() < end, "a future was not woken");
        thread::park_timeout(PATIENCE);
    }
}

/// A waker that counts how often it was woken.
#[derive(Default)]
pub struct CountWakes(AtomicUsize);

impl CountWakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once, with a waker that counts.
pub fn poll_once<F: Future + Unpin>(future: &mut F, wakes: &Arc<CountWakes>) -> Poll<F::Output> {
    let waker = Waker::from(wakes.clone());
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// Runs `future` on each kind of executor: a current-thread and a multi-thread runtime, and the least one there is.
pub fn on_each_executor<F: Future<Output = ()> + Send + 'static>(future: impl Fn() -> F) {
    block_on(future());
    let current = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts");
    current.block_on(async { tokio::time::timeout(PATIENCE, future()).await.expect("it ends") });
    let multi = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime starts");
    multi.block_on(async {
        let task = tokio::spawn(future());
        tokio::time::timeout(PATIENCE, task).await.expect("it ends").expect("no panic");
    });
}

/// A payload that counts those alive.
#[derive(Debug)]
pub struct Counted {
    pub number: u64,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    pub fn new(number: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self {
            number,
            alive: alive.clone(),
        }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.number, &self.alive)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The names of this process's threads.
#[cfg(target_os = "linux")]
pub fn thread_names() -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .expect("this is Linux")
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// How many timer threads there are.
#[cfg(target_os = "linux")]
pub fn timer_threads() -> usize {
    thread_names().iter().filter(|name| *name == "ringmq-timer").count()
}

/// The CPU time of each thread of this process, in nanoseconds, and how often it ran.
#[cfg(target_os = "linux")]
fn cpu() -> std::collections::HashMap<String, (u64, u64)> {
    std::fs::read_dir("/proc/self/task")
        .expect("this is Linux")
        .filter_map(|task| {
            let path = task.ok()?.path();
            let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let mut numbers = stat.split_whitespace().map(|n| n.parse().expect("schedstat holds numbers"));
            let (ran, _, times) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some((path.to_string_lossy().into_owned(), (ran, times)))
        })
        .collect()
}

/// How long all other threads of this process ran, and how often, while nothing happened. Whoever is on its way to sleep gets there first.
#[cfg(target_os = "linux")]
pub fn ran_while_idle(broker: &Broker) -> (u64, u64) {
    // Nothing comes to whoever watches the events; that is the idle time.
    let mut events = broker.events();
    let mut quiet = || {
        let before = cpu();
        assert_eq!(events.next_timeout(Duration::from_millis(400)), None);
        let after = cpu();
        let me = format!(
            "/proc/self/task/{}",
            std::fs::read_link("/proc/thread-self")
                .unwrap()
                .file_name()
                .unwrap()
                .to_string_lossy()
        );
        let ran = |(path, (ns, times)): (&String, &(u64, u64))| {
            let (ns_before, times_before) = before.get(path).copied().unwrap_or_default();
            (*path != me).then(|| (ns - ns_before, times - times_before))
        };
        after.iter().filter_map(ran).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let end = Instant::now() + PATIENCE;
    let (mut ns, mut times) = quiet();
    while times > 0 && Instant::now() < end {
        (ns, times) = quiet();
    }
    (ns, times)
}
