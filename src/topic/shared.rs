//! What the publishers and subscriptions of one topic share: the ring, and who sleeps on it.

use std::collections::TryReserveError;

use crate::environment::Environment;
use crate::message::Meta;
use crate::ring::{Cursor, Line, Nothing, Queue, Refusal, Take, Value, Window};
use crate::sync::{Arc, AtomicUsize, Ordering::*};
use crate::topic::state::SubscriptionState;
use crate::user_code::{clear_contained, drop_contained};
use crate::wait::{Event, Sleepers};

/// A message as it leaves the ring.
pub(crate) struct Taken<T> {
    pub(crate) offset: u64,
    pub(crate) value: T,
    pub(crate) meta: Option<Arc<Meta>>,
}

/// What the publishers and subscriptions of one topic share.
pub(crate) struct Shared<T> {
    pub(crate) name: Arc<str>,
    pub(crate) ring: Ring<T>,
    /// How many subscribers sleep, over all subscriptions: the one thing that a publish looks at besides the ring.
    pub(crate) sleepers: Sleepers,
    /// How many subscriptions there are, for receipts. Beside `sleepers`, and as rarely written. Relaxed: a number to report.
    pub(crate) subscriptions: AtomicUsize,
    /// Messages that a queue dropped while nobody subscribed. Relaxed: a number to report.
    pub(crate) unrouted: AtomicUsize,
    /// Publishers that wait for room.
    pub(crate) space: Event,
    pub(crate) timestamps: bool,
    pub(crate) environment: Arc<Environment>,
}

/// The two kinds of ring, chosen when the topic is created.
pub(crate) enum Ring<T> {
    /// One subscription; values move.
    Queue(Queue<T, Arc<Meta>>),
    /// Any number of subscriptions; values are cloned, by functions made where `T: Clone` was known.
    Window(Window<T, Arc<Meta>>, Cloner<T>),
}

/// How values are cloned out of a window: made where `T: Clone` is known, so that no handle needs the bound, and whole runs are
/// cloned by one call.
pub(crate) struct Cloner<T> {
    /// Makes the window, which needs `T: Sync`.
    pub(crate) window: MakeWindow<T>,
    pub(crate) clone: fn(&T) -> T,
    /// The fast path of `one`: a plain message and no filter.
    pub(crate) pop: Pop<T>,
    pub(crate) pop_run: PopRun<T>,
    pub(crate) one: TakeOne<T>,
    pub(crate) run: TakeRun<T>,
}

type MakeWindow<T> = fn(usize, u64) -> Result<Window<T, Arc<Meta>>, TryReserveError>;
type Pop<T> = fn(&Window<T, Arc<Meta>>, &SubscriptionState<T>, &Cursor<T, Arc<Meta>>, &Line) -> Option<(u64, T)>;
type PopRun<T> =
    fn(&Window<T, Arc<Meta>>, &SubscriptionState<T>, &Cursor<T, Arc<Meta>>, &Line, usize, &mut Vec<T>, &mut u64) -> Option<usize>;
type TakeOne<T> = fn(&Window<T, Arc<Meta>>, &SubscriptionState<T>, &Cursor<T, Arc<Meta>>, &Line) -> Take<Option<Taken<T>>>;
type TakeRun<T> =
    fn(&Window<T, Arc<Meta>>, &SubscriptionState<T>, &Cursor<T, Arc<Meta>>, &Line, usize, &mut dyn FnMut(Taken<T>)) -> Take<usize>;

impl<T> Clone for Cloner<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cloner<T> {}

impl<T: Clone + Send + Sync> Cloner<T> {
    pub(crate) fn new() -> Self {
        Self {
            window: Window::try_new,
            clone: T::clone,
            pop,
            pop_run,
            one: take_one,
            run: take_run,
        }
    }
}

/// Says that a position is lost if the clone of its value unwinds.
pub(crate) struct LostOnUnwind<'s, T> {
    pub(crate) state: &'s SubscriptionState<T>,
    pub(crate) position: u64,
}

impl<T> Drop for LostOnUnwind<'_, T> {
    fn drop(&mut self) {
        self.state.lost(self.position, self.position + 1);
    }
}

/// What the filter does not want and was moved out, `unwanted` gets: it is dropped later, because that is code of the user.
#[inline(always)]
fn own<T: Clone>(
    state: &SubscriptionState<T>,
    offset: u64,
    value: Value<'_, T>,
    meta: Option<Value<'_, Arc<Meta>>>,
    unwanted: impl FnOnce(T),
) -> Option<Taken<T>> {
    let unwinding = LostOnUnwind { state, position: offset };
    let mut taken = None;
    if state.passes(&value) {
        taken = Some(Taken {
            offset,
            value: value.into_owned(),
            meta: meta.map(Value::into_owned),
        });
    } else if let Value::Moved(value) = value {
        unwanted(value);
    }
    std::mem::forget(unwinding);
    taken
}

fn pop<T: Clone>(
    window: &Window<T, Arc<Meta>>,
    state: &SubscriptionState<T>,
    cursor: &Cursor<T, Arc<Meta>>,
    line: &Line,
) -> Option<(u64, T)> {
    let unwinding = WakeOnUnwind(state);
    let taken = window.pop(cursor, line, |position, value| match value {
        Value::Lent(value) => (position, clone_plain(state, position, value)),
        Value::Moved(value) => (position, value),
    });
    std::mem::forget(unwinding);
    taken
}

#[inline(always)]
fn clone_plain<T: Clone>(state: &SubscriptionState<T>, position: u64, value: &T) -> T {
    let unwinding = LostOnUnwind { state, position };
    let value = value.clone();
    std::mem::forget(unwinding);
    value
}

fn pop_run<T: Clone>(
    window: &Window<T, Arc<Meta>>,
    state: &SubscriptionState<T>,
    cursor: &Cursor<T, Arc<Meta>>,
    line: &Line,
    max: usize,
    out: &mut Vec<T>,
    first: &mut u64,
) -> Option<usize> {
    let read = |position, value: &T| clone_plain(state, position, value);
    let unwinding = WakeOnUnwind(state);
    let taken = window.pop_run(cursor, line, max, (out, first), read, |from, to| state.lost(from, to));
    std::mem::forget(unwinding);
    taken
}

fn take_one<T: Clone>(
    window: &Window<T, Arc<Meta>>,
    state: &SubscriptionState<T>,
    cursor: &Cursor<T, Arc<Meta>>,
    line: &Line,
) -> Take<Option<Taken<T>>> {
    let unwinding = WakeOnUnwind(state);
    let mut unwanted = None;
    let taken = window.take(cursor, line, |p, value, meta| {
        own(state, p, value, meta, |value| unwanted = Some(value))
    });
    std::mem::forget(unwinding);
    drop_contained(unwanted);
    taken
}

fn take_run<T: Clone>(
    window: &Window<T, Arc<Meta>>,
    state: &SubscriptionState<T>,
    cursor: &Cursor<T, Arc<Meta>>,
    line: &Line,
    max: usize,
    each: &mut dyn FnMut(Taken<T>),
) -> Take<usize> {
    let mut unwanted = Unwanted(Vec::new());
    let read = |p, value: Value<'_, T>, meta: Option<Value<'_, Arc<Meta>>>| {
        if let Some(taken) = own(state, p, value, meta, |value| unwanted.0.push(value)) {
            each(taken);
        }
    };
    let unwinding = WakeOnUnwind(state);
    let taken = window.take_run(cursor, line, max, read, |from, to| state.lost(from, to));
    std::mem::forget(unwinding);
    drop(unwanted);
    taken
}

/// What a filter did not want, dropped one by one, on unwinding too.
struct Unwanted<T>(Vec<T>);

impl<T> Drop for Unwanted<T> {
    fn drop(&mut self) {
        clear_contained(&mut self.0);
    }
}

/// If a receive unwinds, it has made room all the same, and what a run gave back is there for others.
struct WakeOnUnwind<'s, T>(&'s SubscriptionState<T>);

impl<T> Drop for WakeOnUnwind<'_, T> {
    fn drop(&mut self) {
        self.0.shared.space.notify_all();
        self.0.event.notify_all();
    }
}

/// A publisher's claim on positions of the ring.
pub(crate) type Claim<'s, T> = crate::ring::Claim<'s, T, Arc<Meta>>;

impl<T> Ring<T> {
    /// Claims up to `max` positions in a row, at least one; see the rings.
    #[inline(always)]
    pub(crate) fn claim_run(&self, limit: &mut u64, max: usize, patient: bool) -> Result<Claim<'_, T>, Refusal> {
        match self {
            Self::Queue(queue) => queue.claim_run(max, patient),
            Self::Window(window, _) => window.claim_run(limit, max as u64, patient),
        }
    }

    pub(crate) fn has_burst(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.has_burst(),
            Self::Window(window, _) => window.has_burst(),
        }
    }

    pub(crate) fn prepare_attachments(&self) {
        match self {
            Self::Queue(queue) => queue.prepare_attachments(),
            Self::Window(window, _) => window.prepare_attachments(),
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::Queue(queue) => queue.close(),
            Self::Window(window, _) => window.close(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.is_closed(),
            Self::Window(window, _) => window.is_closed(),
        }
    }

    /// The offset that the next message gets.
    pub(crate) fn end(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.end(),
            Self::Window(window, _) => window.end(),
        }
    }

    /// The offset of the oldest message held.
    pub(crate) fn start(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.start(),
            Self::Window(window, _) => window.start(),
        }
    }

    /// What clones a value, where values are cloned at all.
    pub(crate) fn cloner(&self) -> Option<fn(&T) -> T> {
        match self {
            Self::Queue(_) => None,
            Self::Window(_, cloner) => Some(cloner.clone),
        }
    }
}

impl<T> Shared<T> {
    /// Whether some subscriber sleeps. Relaxed: the claim before it is the read-modify-write of the protocol.
    #[inline(always)]
    pub(crate) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Relaxed) != 0
    }
}

/// What a subscription finds when it wants the next fresh message.
pub(crate) enum Fresh<T> {
    Got(Taken<T>),
    /// One was there and the filter did not want it.
    Filtered(u64),
    /// It was moved past messages: what comes next is kept beside the ring.
    Behind,
    Nothing(Nothing),
}
