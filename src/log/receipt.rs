//! What a submit gives back: the promise that a level will be reached.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::batch::Batch;
use super::error::LogError;
use super::group::Class;
use super::queue::{Input, Order, RoomKey, Ticket, Turned, Waits};
use super::record::{Level, Placed};
use super::shared::Shared;
use crate::sync::Arc;

/// The outcome to come of a batch that was handed over. Wait for it with [`wait`](Self::wait), or await it.
///
/// # Cancel safety
///
/// Dropping it at any time changes nothing about the batch.
#[derive(Debug)]
#[must_use = "without it, nobody learns whether the level was reached"]
pub struct Receipt {
    shared: Arc<Shared>,
    ticket: Ticket,
    /// Whether a waker may be registered.
    is_registered: bool,
}

impl Receipt {
    pub(crate) fn new(shared: Arc<Shared>, ticket: Ticket) -> Self {
        Self {
            shared,
            ticket,
            is_registered: false,
        }
    }

    /// Waits until the level is reached. The waiting thread may do the writing and syncing itself.
    ///
    /// # Errors
    ///
    /// Why it will not be reached.
    pub fn wait(mut self) -> Result<Placed, LogError> {
        self.ticket.leads = self.shared.wait_for(&self.ticket.done);
        let outcome = self.shared.settle(&self.ticket);
        self.shared.work_inline();
        outcome
    }

    /// Tells the outcome if there is one.
    pub fn try_wait(&self) -> Option<Result<Placed, LogError>> {
        self.ticket.done.state.lock().outcome(&self.ticket.share)
    }

    /// The level that was asked for.
    pub fn level(&self) -> Level {
        self.ticket.share.level
    }
}

impl Future for Receipt {
    type Output = Result<Placed, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_registered = true;
        let this = &*self;
        {
            let mut state = this.ticket.done.state.lock();
            if let Some(outcome) = state.outcome(&this.ticket.share) {
                return Poll::Ready(outcome);
            }
            state.register(this.ticket.share.ticket, cx.waker());
        }
        if this.shared.want(&this.ticket.done) {
            this.shared.signal.lead();
        }
        this.shared.work_inline();
        Poll::Pending
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.is_registered {
            let ticket = self.ticket.share.ticket;
            let waker = self.ticket.done.state.lock().unregister(ticket);
            drop(waker); // code of the user, outside the lock
        }
    }
}

/// An append under way; see [`Log::append_async`](super::Log::append_async).
///
/// # Cancel safety
///
/// Dropped before it was polled, or while the queue is full, nothing was handed over. Dropped later, the batch is
/// appended all the same.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Append<'a> {
    state: State<'a>,
}

#[derive(Debug)]
enum State<'a> {
    Entering(Entering<'a>),
    Settling(Receipt),
}

/// What has not entered the queue.
#[derive(Debug)]
struct Entering<'a> {
    shared: Arc<Shared>,
    batch: &'a mut Batch,
    level: Level,
    /// Its place among those who wait for room, once it has had one.
    room: Option<RoomKey>,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.room {
            let waker = self.shared.leave_room(key);
            drop(waker); // code of the user, outside the lock
        }
    }
}

impl<'a> Append<'a> {
    pub(crate) fn new(shared: Arc<Shared>, batch: &'a mut Batch, level: Level) -> Self {
        Self {
            state: State::Entering(Entering {
                shared,
                batch,
                level,
                room: None,
            }),
        }
    }
}

impl Future for Append<'_> {
    type Output = Result<Placed, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Entering(entering) = &mut self.state {
            let order = Order {
                level: entering.level,
                class: Class::Data,
                hook: None,
                waits: false,
                may_lead: false,
            };
            let shared = Arc::clone(&entering.shared);
            let waits = Waits {
                key: &mut entering.room,
                waker: cx.waker(),
            };
            match shared.enqueue(&mut Input::Batch(entering.batch), order, Some(waits)) {
                Ok(ticket) => self.state = State::Settling(Receipt::new(shared, ticket)),
                Err(Turned::Away(error)) => return Poll::Ready(Err(error)),
                Err(Turned::Full(_)) => {
                    // Nobody may be at it: data that is only submitted has no one who waits.
                    shared.signal.lead();
                    shared.work_inline();
                    return Poll::Pending;
                }
            }
        }
        match &mut self.state {
            State::Settling(receipt) => Pin::new(receipt).poll(cx),
            State::Entering(_) => Poll::Pending,
        }
    }
}
