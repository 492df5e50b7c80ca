//! The messages that `run_async` has in hand, and the futures of their handlers.
//!
//! Each future has a waker of its own, so that a wake-up costs one poll however many are in hand.
//!
//! | access | ordering | why |
//! |---|---|---|
//! | `Nudge::is_due`, set | Release | what the waker did comes before the poll that it asks for |
//! | `Nudge::is_due`, taken | AcqRel | the other half |
//!
//! No model shows that these are needed: a task that is woken has all of it from its own waker. They are for the poll that comes for another reason.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::delivery::outcome::{IntoOutcome, Outcome};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering::*};
use crate::topic::delivery::Delivery;
use crate::topic::publish::Handling;
use crate::topic::receive::RecvError;
use crate::topic::state::SubscriptionState;
use crate::user_code::drop_contained;

/// Up to so many messages in hand.
pub(crate) struct Hands<'s, T: Send + 'static, Fut> {
    state: &'s SubscriptionState<T>,
    most: usize,
    handlers: Vec<Handler<T, Fut>>,
    task: Arc<Task>,
}

/// One message in hand.
struct Handler<T: Send + 'static, Fut> {
    delivery: Arc<Delivery<T>>,
    future: Pin<Box<Fut>>,
    nudge: Arc<Nudge>,
    waker: Waker,
}

/// Who polls all of them.
#[derive(Default)]
struct Task(Mutex<Option<Arc<Waker>>>);

impl Task {
    /// Whoever is woken from here on is this one. A waker is code of the user: it is cloned and dropped outside of the lock.
    fn polls_with(&self, waker: &Waker) {
        let known = self.0.lock().clone();
        if !known.is_some_and(|known| known.will_wake(waker)) {
            let new = Some(Arc::new(waker.clone()));
            let old = std::mem::replace(&mut *self.0.lock(), new);
            drop(old);
        }
    }
}

/// The waker of one handler's future.
struct Nudge {
    task: Arc<Task>,
    /// Whether the future is to be polled.
    is_due: AtomicU64,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(1, Release);
        let task = self.task.0.lock().clone();
        if let Some(waker) = task {
            waker.wake_by_ref();
        }
    }
}

impl<'s, T, Fut> Hands<'s, T, Fut>
where
    T: Send + Sync + 'static,
    Fut: Future<Output: IntoOutcome> + Send,
{
    pub(crate) fn new(state: &'s SubscriptionState<T>, most: usize) -> Self {
        Self {
            state,
            most,
            handlers: Vec::new(),
            task: Arc::default(),
        }
    }

    /// Calls the handler for one more message.
    pub(crate) fn take(&mut self, delivery: Delivery<T>, handle: &impl Fn(Arc<Delivery<T>>) -> Fut) {
        let delivery = Arc::new(delivery);
        let shared = delivery.clone();
        let future = {
            let _handling = Handling::enter(self.state.id);
            catch_unwind(AssertUnwindSafe(|| Box::pin(handle(shared))))
        };
        match future {
            Ok(future) => {
                let nudge = Arc::new(Nudge {
                    task: self.task.clone(),
                    is_due: AtomicU64::new(1),
                });
                let waker = Waker::from(nudge.clone());
                self.handlers.push(Handler {
                    delivery,
                    future,
                    nudge,
                    waker,
                });
            }
            Err(panic) => settle_shared(delivery, Outcome::of_panic(panic)),
        }
    }

    /// Polls the handlers that want it, then, if there is room for one more, the receive. `None`: some handler has finished.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        recv: Pin<&mut impl Future<Output = Result<Delivery<T>, RecvError>>>,
    ) -> Poll<Option<Result<Delivery<T>, RecvError>>> {
        if self.poll_handlers(context) {
            return Poll::Ready(None);
        }
        if self.handlers.len() >= self.most {
            return Poll::Pending;
        }
        match catch_unwind(AssertUnwindSafe(|| recv.poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(panic) => {
                // A payload that panics when cloned is told as lost; the others are handled.
                drop_contained(panic);
                Poll::Ready(None)
            }
        }
    }
}

impl<T: Send + 'static, Fut: Future<Output: IntoOutcome>> Hands<'_, T, Fut> {
    /// Polls the handlers until all have finished.
    pub(crate) fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_handlers(context);
        if self.handlers.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Polls the handlers that want it; whether some have finished.
    fn poll_handlers(&mut self, context: &mut Context<'_>) -> bool {
        self.task.polls_with(context.waker());
        let before = self.handlers.len();
        let mut at = 0;
        while at < self.handlers.len() {
            let Some(outcome) = self.handlers[at].poll(self.state) else {
                at += 1;
                continue;
            };
            // The future may have kept the delivery, so it goes first.
            let Handler { delivery, future, .. } = self.handlers.remove(at);
            drop_contained(future);
            settle_shared(delivery, outcome);
        }
        self.handlers.len() < before
    }
}

impl<T: Send + 'static, Fut: Future<Output: IntoOutcome>> Handler<T, Fut> {
    /// What the handler says about the message, once it has done so.
    fn poll(&mut self, state: &SubscriptionState<T>) -> Option<Outcome> {
        if self.nudge.is_due.swap(0, AcqRel) == 0 {
            return None;
        }
        let polled = {
            let _handling = Handling::enter(state.id);
            let future = self.future.as_mut();
            let mut context = Context::from_waker(&self.waker);
            catch_unwind(AssertUnwindSafe(|| future.poll(&mut context).map(IntoOutcome::into_outcome)))
        };
        match polled {
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(outcome)) => Some(outcome),
            Err(panic) => Some(Outcome::of_panic(panic)),
        }
    }
}

/// Settles what a handler's future may have kept a clone of. If somebody still has one, the message is settled when that one is dropped: as a
/// nack.
fn settle_shared<T: Send + 'static>(delivery: Arc<Delivery<T>>, outcome: Outcome) {
    if let Ok(delivery) = Arc::try_unwrap(delivery) {
        delivery.settle_as_handled(outcome);
    }
}
