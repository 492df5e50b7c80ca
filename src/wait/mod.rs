//! Waiting: turns a structure that says *not now* into one that threads and tasks can wait for.
//!
//! It knows nothing of rings or messages. An [`Event`] is a list of waiters and a count of those not yet woken; whoever changes what
//! they wait for loads that count, which is 0 nearly always, and wakes somebody only if it is not.
//!
//! # The protocol that loses no wake-up
//!
//! 1. A waiter registers ([`Event::listen`]).
//! 2. It re-checks what it waits for, by a read-modify-write (`fetch_add(0, AcqRel)`) of the variable that its waker changes.
//! 3. It sleeps only if that says *still nothing*.
//!
//! A waker changes the same variable by an AcqRel read-modify-write, then loads the count Relaxed. The two read-modify-writes are
//! ordered: if the waiter's comes first, the waker's acquires it, and with it the registration; if it comes second, the waiter sees the
//! change. No sequentially consistent access is needed.
//!
//! # Who is woken
//!
//! [`Event::notify`] wakes a waiter that has not been woken yet, so `n` notifications wake `n` waiters even if one of them never
//! runs again (a forgotten future). A woken waiter that leaves without looking (cancelled, timed out) passes its wake-up on. Whoever
//! is woken and leaves work behind wakes one more: that is the duty of the layer above. Waiters are served roughly first come, first
//! served, but a newcomer that finds work takes it.
//!
//! Wakers are code of the user (an executor's): they are cloned, called and dropped outside of the lock, and when one panics as it is called or
//! dropped, the panic ends there.
//!
//! # Every atomic and its ordering
//!
//! | variable | written by | read by | orderings and why |
//! |---|---|---|---|
//! | `Event::asleep`, [`Sleepers`] | under the list's lock | wakers | Relaxed: ordered by the read-modify-writes above |

#![forbid(unsafe_code)]

mod event;
mod list;
#[cfg(all(test, ringmq_loom))]
mod models;
mod spin;
mod timer;

pub(crate) use self::event::{Event, Key, Sleepers, Wake};
pub(crate) use self::spin::{Patience, Spin, Wakefulness, rest};
pub(crate) use self::timer::{Fire, Timer};
