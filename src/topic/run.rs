//! Handlers: threads or tasks that receive, call a function of the user, and settle as it says.
//!
//! | access | ordering | why |
//! |---|---|---|
//! | `Running::stop`, set | Release | before a change of the subscription, which is a read-modify-write: a handler that sleeps has registered before that and is woken by it, or looks again after it and finds the order |
//! | `Running::stop`, read | Acquire | the other half |
//! | `AtWork::threads` | AcqRel, each a read-modify-write | of the last handler to end and whoever waits for it, one sees the other: see `wait` |

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::delivery::outcome::{IntoOutcome, Outcome};
use crate::error::Result;
use crate::sync::{Arc, AtomicUsize, Ordering::*};
use crate::topic::delivery::Delivery;
use crate::topic::hands::Hands;
use crate::topic::mode::Explicit;
use crate::topic::publish::Handling;
use crate::topic::receive::{RecvError, Until};
use crate::topic::state::SubscriptionState;
use crate::topic::subscription::Subscription;
use crate::user_code::drop_contained;
use crate::wait::{Event, Sleepers, Wake};

/// Handlers at work: see [`Subscription::run`]. Dropping it lets them go on until the subscription is closed; [`drain`](Self::drain) ends them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// let running = sub.run(2, |number| println!("{}", **number));
/// topic.publish_batch(1..=10)?;
/// let report = running.drain(Duration::from_secs(10)); // the handlers end; the subscription goes on
/// assert!(report.ended);
/// assert_eq!(report.in_flight, 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it lets the handlers go on; drain() ends them"]
pub struct Running {
    stop: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
    at_work: Arc<AtWork>,
    subscription: Arc<dyn Drain>,
}

/// How many of the threads are at work, and who waits until none is.
struct AtWork {
    threads: AtomicUsize,
    ended: Event,
}

/// One of them. Dropped when it ends, however it does.
struct Worker(Arc<AtWork>);

impl Drop for Worker {
    fn drop(&mut self) {
        if self.0.threads.fetch_sub(1, AcqRel) == 1 {
            self.0.ended.notify();
        }
    }
}

impl AtWork {
    fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            threads: AtomicUsize::new(threads),
            ended: Event::new(&Sleepers::default()),
        })
    }

    /// Waits until all have ended, or until a deadline; whether all have.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let key = self.ended.listen(Wake::this_thread());
        if self.threads.fetch_add(0, AcqRel) == 0 {
            self.ended.finish(key);
            return true;
        }
        self.ended.park(key, deadline)
    }
}

/// What ended handlers left behind.
///
/// # Examples
///
/// See [`Running`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether all handlers ended before the deadline. The others end after the message that they are at.
    pub ended: bool,
    /// How many deliveries of the subscription were still without a verdict.
    pub in_flight: u64,
}

/// A subscription that is being drained, whatever its payload.
pub(super) trait Drain: Send + Sync {
    /// Orders those who watch `stop` to stop.
    fn begin(&self, stop: &AtomicUsize);
    fn finish(&self);
    fn in_flight(&self) -> u64;
}

impl<T: Send + 'static> Drain for SubscriptionState<T> {
    fn begin(&self, stop: &AtomicUsize) {
        // In this order: see the table above.
        stop.store(1, Release);
        self.change(|beside| beside.ending += 1);
    }

    fn finish(&self) {
        self.change(|beside| beside.ending -= 1);
    }

    fn in_flight(&self) -> u64 {
        self.credit.out()
    }
}

impl Running {
    /// Ends the handlers: they take nothing new, and get until `deadline` to settle what they are at. A delivery that is dropped without a
    /// verdict meanwhile goes back without counting as a failure. An ack timeout that runs out meanwhile counts as ever: whoever has the delivery has
    /// had its time, and a message on which a handler hangs must not do so for ever.
    pub fn drain(self, deadline: Duration) -> DrainReport {
        let until = Instant::now().checked_add(deadline);
        self.subscription.begin(&self.stop);
        let ended = self.at_work.wait(until);
        if ended {
            self.threads.into_iter().for_each(join);
        }
        let in_flight = self.subscription.in_flight();
        self.subscription.finish();
        DrainReport { ended, in_flight }
    }

    /// Waits until the handlers end by themselves, because the subscription is closed and everything settled.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
    /// # let sub = topic.subscribe("s")?;
    /// let running = sub.run(2, |_number| ());
    /// topic.publish_batch(1..=10)?;
    /// topic.close();
    /// running.join();
    /// assert_eq!(sub.stats().lag, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(self) {
        self.threads.into_iter().for_each(join);
    }
}

/// Waits for a thread. Its handler's panics were caught, and counted as failures of their messages.
fn join(thread: JoinHandle<()>) {
    let _ = thread.join();
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Subscription<T> {
    /// Starts `threads` threads (at least one) that receive and call `handle`. Its return value is the verdict: `()` or `Ok` acks, an error or a
    /// panic counts as a failure and its text goes into the message's history, an [`Outcome`] says it in full. A handler is not told of losses
    /// (`DropOldest`, `Conflate`): [`stats`](Self::stats) counts them, and [`Event::Lagged`](crate::Event::Lagged) tells them.
    ///
    /// # Panics
    ///
    /// If the system refuses a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringmq::{Backoff, SubscribeOptions};
    ///
    /// # fn main() -> ringmq::Result<()> {
    /// # let topic = ringmq::Broker::open("mem:")?.topic::<String>("numbers")?;
    /// let options = SubscribeOptions::new("parse").max_failures(2).backoff(Backoff::none());
    /// let parse = topic.subscribe_with(options)?;
    /// let running = parse.run(1, |text| text.parse::<u32>().map(drop));
    /// topic.publish("17".into())?;
    /// topic.publish("seventeen".into())?;
    /// topic.close();
    /// running.join();
    /// let letter = parse.dead_letters().list()?.remove(0);
    /// assert_eq!((letter.payload.as_str(), letter.failures), ("seventeen", 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<O: IntoOutcome>(&self, threads: usize, handle: impl Fn(&Delivery<T>) -> O + Send + Sync + 'static) -> Running {
        let threads = threads.max(1);
        let stop = Arc::new(AtomicUsize::new(0));
        let at_work = AtWork::new(threads);
        let handle = Arc::new(handle);
        let spawn = |n| {
            let mut subscriber = self.subscriber();
            let (stop, handle) = (stop.clone(), handle.clone());
            let worker = Worker(at_work.clone());
            let thread = std::thread::Builder::new().name(format!("{}-{n}", self.name()));
            let work = move || {
                let _worker = worker;
                let state = subscriber.subscription().state().clone();
                loop {
                    let until = Until {
                        deadline: None,
                        stop: Some(&stop),
                    };
                    // A payload that panics when cloned is told as lost; the worker goes on.
                    match catch_unwind(AssertUnwindSafe(|| subscriber.recv_until(until))) {
                        Ok(Ok(delivery)) => handle_one(&state, delivery, &*handle),
                        Ok(Err(RecvError::Closed)) => return,
                        Ok(Err(RecvError::Lagged(_) | RecvError::Timeout)) => {}
                        Err(panic) => drop_contained(panic),
                    }
                    if stop.load(Acquire) != 0 {
                        return;
                    }
                }
            };
            thread.spawn(work).expect("the system starts a thread")
        };
        let threads = (0..threads).map(spawn).collect();
        Running {
            stop,
            threads,
            at_work,
            subscription: self.state().clone(),
        }
    }

    /// Receives and calls `handle`, with up to `concurrency` messages (at least one) in hand at a time, until the subscription is closed. All of
    /// it runs inside the returned future, so it needs no particular executor; spawn it several times to use several threads. As with
    /// [`run`](Self::run), the handler is not told of losses.
    ///
    /// The handler's future may keep the delivery as long as it runs. A clone of it that outlives the future keeps the message in flight, and
    /// is a nack when it is dropped, whatever the future returned.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handlers' futures; each of their messages is nacked by that, which counts as a failure, and delivered again. To
    /// stop without that, close the topic and await the future.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn run_async<F, Fut>(&self, concurrency: usize, handle: F) -> impl Future<Output = Result<()>> + Send + use<T, F, Fut>
    where
        T: Sync,
        F: Fn(Arc<Delivery<T>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoOutcome> + Send + 'static,
    {
        let subscription = self.clone();
        let most = concurrency.max(1);
        async move {
            let state = subscription.state().clone();
            let mut hands = Hands::new(&state, most);
            let mut turns = 0;
            loop {
                let received = {
                    let mut recv = pin!(subscription.recv_async());
                    poll_fn(|context| hands.poll(context, recv.as_mut())).await
                };
                match received {
                    Some(Ok(delivery)) => hands.take(delivery, &handle),
                    // Whose subscription has ended may finish what they are at.
                    Some(Err(RecvError::Closed)) => break,
                    Some(Err(_)) | None => {}
                }
                turns += 1;
                if turns == TURNS {
                    turns = 0;
                    let_others_run().await;
                }
            }
            poll_fn(|context| hands.poll_rest(context)).await;
            Ok(())
        }
    }
}

/// How often `run_async` goes round before it lets the executor's other tasks run.
const TURNS: u32 = 128;

async fn let_others_run() {
    let mut has_run = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_run, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn handle_one<T: Send + 'static, O: IntoOutcome>(
    state: &SubscriptionState<T>,
    delivery: Delivery<T>,
    handle: &(impl Fn(&Delivery<T>) -> O + Send + Sync),
) {
    let outcome = {
        let _handling = Handling::enter(state.id);
        catch_unwind(AssertUnwindSafe(|| handle(&delivery).into_outcome()))
    };
    delivery.settle_as_handled(outcome.unwrap_or_else(Outcome::of_panic));
}

const _: fn() = || {
    fn is_send<S: Send>() {}
    is_send::<Running>();
    is_send::<Delivery<u8>>();
    is_send::<Subscription<u8, Explicit>>();
};
