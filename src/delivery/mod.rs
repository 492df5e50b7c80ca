//! The rules of delivery, one small file each: what happens to a message between its hand-over and its end.
//!
//! Every part here is a pure state machine: state, input and `now` in, a decision out. Nothing locks, sleeps, logs, spawns or
//! reads a clock, so each rule can be tested in microseconds.
//!
//! ```text
//!                 deliver              ack
//!   pending ---------------> in flight -------------------------> done
//!      ^                        | nack, error, panic, drop
//!      | parked until due       v
//!      +-------------------- retry -- failures used up, reject --> dead letter
//! ```
#![forbid(unsafe_code)]

pub(crate) mod conflate;
pub(crate) mod dead_letter;
pub(crate) mod lag;
pub(crate) mod lease;
pub(crate) mod outcome;
pub(crate) mod parked;
pub(crate) mod retry;
