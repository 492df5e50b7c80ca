//! Select: waiting for whichever of several subscriptions has something first.

use std::time::Instant;

use crate::sync::{Ordering::*, plain};
use crate::topic::mode::Mode;
use crate::topic::state::SubscriptionState;
use crate::topic::subscription::Subscription;
use crate::wait::{Key, Spin, Wake};

/// Something to wait for with [`select`]. Sealed.
///
/// # Examples
///
/// See [`select`].
pub trait Ready: sealed::Listen {
    /// Whether a receive would not wait now. Somebody else may be faster.
    fn is_ready(&self) -> bool;
}

mod sealed {
    pub trait Listen {
        #[doc(hidden)]
        fn listen(&self) -> super::Registration;
        #[doc(hidden)]
        fn recheck(&self) -> bool;
        #[doc(hidden)]
        fn is_woken(&self, registration: &super::Registration) -> bool;
        #[doc(hidden)]
        fn leave(&self, registration: super::Registration);
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Registration(Key, Option<Key>);

impl<T: Send + 'static, M: Mode> Ready for Subscription<T, M> {
    fn is_ready(&self) -> bool {
        let state = self.state();
        state.is_ready(M::EXPLICIT, state.has_fresh())
    }
}

impl<T> SubscriptionState<T> {
    /// Whether a receive would not wait, if there is a fresh message or not.
    fn is_ready(&self, needs_credit: bool, fresh: bool) -> bool {
        let beside = self.beside.lock();
        if beside.ended || !beside.lag.is_empty() {
            return true;
        }
        let is_due = fresh && !beside.is_parked_full(&self.rules);
        if !beside.paused && (is_due || !beside.ready.is_empty()) {
            drop(beside);
            return !needs_credit || self.credit.watch() < u64::from(self.rules.max_in_flight);
        }
        // What is kept beside the ring counts as fresh, too.
        let nothing_left = self.shared.ring.is_closed() && self.position() >= self.shared.ring.end() && !fresh && !beside.has_more();
        drop(beside);
        nothing_left && self.credit.watch() == 0
    }
}

impl<T: Send + 'static, M: Mode> sealed::Listen for Subscription<T, M> {
    fn listen(&self) -> Registration {
        let state = self.state();
        let for_credit = M::EXPLICIT.then(|| state.credit_event.listen(Wake::this_thread()));
        Registration(state.event.listen(Wake::this_thread()), for_credit)
    }

    fn recheck(&self) -> bool {
        let state = self.state();
        // Both are read-modify-writes, as sleeping requires: see `wait`. What is claimed but not yet written counts as there.
        state.attention.fetch_add(0, AcqRel);
        let came = state.recheck_fresh() && (state.has_fresh() || state.position() < state.shared.ring.end());
        state.is_ready(M::EXPLICIT, came)
    }

    fn is_woken(&self, registration: &Registration) -> bool {
        let state = self.state();
        state.event.is_woken(registration.0) || registration.1.is_some_and(|key| state.credit_event.is_woken(key))
    }

    fn leave(&self, registration: Registration) {
        // Only one of them is going to be received from: wake-ups of the others go to somebody else.
        self.state().event.cancel(registration.0);
        if let Some(key) = registration.1 {
            self.state().credit_event.cancel(key);
        }
    }
}

/// Waits until one of `any` is ready and returns its index, or `None` at the deadline. Take the message with `try_recv`: another receiver may
/// have been faster. Payload types may differ. If several are ready, each has a fair chance. A subscription that is closed is ready, as a
/// receive would say so at once. Of none, none is ever ready: the answer is `None` at once.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// let words = broker.topic::<String>("words")?.subscribe("s")?;
/// let numbers = broker.topic::<u32>("numbers")?.subscribe("s")?;
/// broker.topic::<u32>("numbers")?.publish(7)?;
/// assert_eq!(ringmq::select(&[&words, &numbers], None), Some(1));
/// assert_eq!(*numbers.try_recv()?, 7);
/// # Ok(())
/// # }
/// ```
pub fn select(any: &[&dyn Ready], deadline: Option<Instant>) -> Option<usize> {
    if any.is_empty() {
        return None;
    }
    let mut turn = next_turn();
    let mut spin = Spin::new();
    loop {
        if let Some(ready) = first_ready(any, turn) {
            return Some(ready);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return None;
        }
        if !spin.spin() {
            sleep(any, deadline);
            spin = Spin::new();
        }
        turn = turn.wrapping_add(1);
    }
}

/// Where the next look begins, so that no subscription is always first. A model does the same each time.
fn next_turn() -> usize {
    static TURN: plain::AtomicUsize = plain::AtomicUsize::new(0);
    // Relaxed: any value will do.
    if cfg!(ringmq_loom) { 0 } else { TURN.fetch_add(1, Relaxed) }
}

fn first_ready(any: &[&dyn Ready], turn: usize) -> Option<usize> {
    let n = any.len();
    (0..n).map(|i| (i + turn) % n).find(|&i| any[i].is_ready())
}

fn sleep(any: &[&dyn Ready], deadline: Option<Instant>) {
    let registrations: Vec<_> = any.iter().map(|ready| ready.listen()).collect();
    let mut look = any.iter().any(|ready| ready.recheck());
    if look {
        crate::sync::pause(1); // it may be in the making by another thread
    }
    while !look {
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(left) if left.is_zero() => break,
            Some(left) => crate::sync::park_timeout(left),
            None => crate::sync::thread::park(),
        }
        look = any
            .iter()
            .zip(&registrations)
            .any(|(ready, registration)| ready.is_woken(registration));
    }
    for (ready, registration) in any.iter().zip(registrations) {
        ready.leave(registration);
    }
}
