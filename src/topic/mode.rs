//! How a handle receives: as deliveries that want a verdict, or as plain payloads.

use crate::topic::delivery::Delivery;
use crate::topic::seat::{Credit, Seat};
use crate::topic::shared::Taken;
use crate::topic::state::Held;

/// How a handle receives: as deliveries that want a verdict ([`Explicit`]), or as plain payloads ([`Auto`]).
///
/// The mode is a type, because it changes what `recv` returns. Sealed.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let explicit = topic.subscribe("numbers")?;
/// let auto = explicit.auto_ack();
/// topic.publish(1)?;
/// topic.publish(2)?;
/// explicit.recv()?.ack()?;
/// assert_eq!(auto.recv()?, 2);
/// # Ok(())
/// # }
/// ```
pub trait Mode: sealed::Sealed + Send + Sync + 'static {
    /// What receiving gives.
    type Item<T: Send + 'static>: Send;

    #[doc(hidden)]
    const EXPLICIT: bool;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, credit: Option<Credit<T>>) -> Self::Item<T>;

    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<Self::Item<T>>) -> Option<usize>;

    /// The next message by the fast path, if there is one; else what `otherwise` says.
    #[doc(hidden)]
    #[allow(private_interfaces, private_bounds)]
    fn pop_or<T: Send + 'static, E>(
        seat: &mut Seat<T>,
        otherwise: impl FnOnce(&mut Seat<T>) -> Result<Self::Item<T>, E>,
    ) -> Result<Self::Item<T>, E>;

    /// As `fresh`, for a message that was delivered before, or where the ack timeout is to start.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(held: Held<T>, credit: Option<Credit<T>>) -> Self::Item<T>;
}

/// Receives [`Delivery`]s: each is to be acked, nacked or rejected.
///
/// # Examples
///
/// See [`Mode`].
#[derive(Clone, Copy, Debug)]
pub enum Explicit {}

/// Receives plain payloads: each counts as done when it is received.
///
/// # Examples
///
/// See [`Mode`].
#[derive(Clone, Copy, Debug)]
pub enum Auto {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Explicit {}
    impl Sealed for super::Auto {}
}

impl Mode for Explicit {
    type Item<T: Send + 'static> = Delivery<T>;
    const EXPLICIT: bool = true;

    #[allow(private_interfaces)]
    #[inline(always)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, credit: Option<Credit<T>>) -> Delivery<T> {
        let credit = credit.expect("an explicit seat takes credit before it takes a message");
        Delivery::new(Held::fresh(taken), credit)
    }

    #[allow(private_interfaces)]
    #[inline]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<Delivery<T>>) -> Option<usize> {
        seat.pop_deliveries(max, out)
    }

    /// The two ways meet in the delivery's parts, not in deliveries: so those are kept in registers. Otherwise one would be written to memory in
    /// pieces and read as a whole at once, which waits until everything that was written before, the ring's head as well, has left the core.
    #[allow(private_interfaces, private_bounds)]
    #[inline(always)]
    fn pop_or<T: Send + 'static, E>(
        seat: &mut Seat<T>,
        otherwise: impl FnOnce(&mut Seat<T>) -> Result<Delivery<T>, E>,
    ) -> Result<Delivery<T>, E> {
        let (credit, offset, value, meta, history);
        match seat.pop_on_own_credit() {
            Some(popped) => {
                (offset, value, credit) = popped;
                (meta, history) = (None, None);
            }
            None => {
                let (its_credit, held) = otherwise(seat)?.into_parts();
                credit = its_credit;
                Held {
                    offset,
                    value,
                    meta,
                    history,
                } = held;
            }
        }
        Ok(Delivery::new(
            Held {
                value,
                meta,
                offset,
                history,
            },
            credit,
        ))
    }

    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(mut held: Held<T>, credit: Option<Credit<T>>) -> Delivery<T> {
        let credit = credit.expect("an explicit seat takes credit before it takes a message");
        credit.account().grant(&mut held);
        Delivery::new(held, credit)
    }
}

impl Mode for Auto {
    type Item<T: Send + 'static> = T;
    const EXPLICIT: bool = false;

    #[allow(private_interfaces)]
    #[inline(always)]
    fn fresh<T: Send + 'static>(taken: Taken<T>, _credit: Option<Credit<T>>) -> T {
        taken.value
    }

    #[allow(private_interfaces)]
    #[inline]
    fn pop_run<T: Send + 'static>(seat: &mut Seat<T>, max: usize, out: &mut Vec<T>) -> Option<usize> {
        seat.pop_run(max, out)
    }

    #[allow(private_interfaces, private_bounds)]
    #[inline(always)]
    fn pop_or<T: Send + 'static, E>(seat: &mut Seat<T>, otherwise: impl FnOnce(&mut Seat<T>) -> Result<T, E>) -> Result<T, E> {
        match seat.pop_plain() {
            Some((_, value)) => Ok(value),
            None => otherwise(seat),
        }
    }

    #[allow(private_interfaces)]
    fn limited<T: Send + 'static>(held: Held<T>, _credit: Option<Credit<T>>) -> T {
        held.value
    }
}
