//! Select: waiting for whichever of several subscriptions has something first.

use std::time::Instant;

use crate::sync::{Ordering::*, plain};
use crate::topic::delivery::Mode;
use crate::topic::subscription::Subscription;
use crate::wait::{Key, Spin, Wake};

/// Something to wait for with [`select`]. Sealed.
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
        fn leave(&self, registration: super::Registration, looks: bool);
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Registration(Key);

impl<T: Send + 'static, M: Mode> Ready for Subscription<T, M> {
    fn is_ready(&self) -> bool {
        let state = self.state();
        if state.attention.load(Acquire) != 0 {
            return state.recheck_beside(true) || (!state.holds_back() && state.has_fresh());
        }
        state.has_fresh() || (state.shared.ring.is_closed() && state.position() >= state.shared.ring.end())
    }
}

impl<T: Send + 'static, M: Mode> sealed::Listen for Subscription<T, M> {
    fn listen(&self) -> Registration {
        Registration(self.state().event.listen(Wake::this_thread()))
    }

    fn recheck(&self) -> bool {
        let state = self.state();
        state.recheck_beside(true) || (!state.holds_back() && state.recheck_fresh())
    }

    fn is_woken(&self, registration: &Registration) -> bool {
        self.state().event.is_woken(registration.0)
    }

    fn leave(&self, registration: Registration, looks: bool) {
        if looks {
            self.state().event.finish(registration.0);
        } else {
            self.state().event.cancel(registration.0);
        }
    }
}

/// Waits until one of `any` is ready and returns its index, or `None` at the deadline. Take the message with `try_recv`: another receiver may
/// have been faster. Payload types may differ. If several are ready, each has a fair chance.
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
    let mut turn = TURN.fetch_add(1, Relaxed);
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

/// Where the next look begins, so that no subscription is always first. Relaxed: any value will do.
static TURN: plain::AtomicUsize = plain::AtomicUsize::new(0);

fn first_ready(any: &[&dyn Ready], turn: usize) -> Option<usize> {
    let n = any.len();
    (0..n).map(|i| (i + turn) % n).find(|&i| any[i].is_ready())
}

fn sleep(any: &[&dyn Ready], deadline: Option<Instant>) {
    let registrations: Vec<_> = any.iter().map(|ready| ready.listen()).collect();
    let mut look = any.iter().any(|ready| ready.recheck());
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
        // Only one of them is going to be received from: wake-ups of the others go to somebody else.
        ready.leave(registration, false);
    }
}
