//! What the proofs of the log share: chance, an oracle, sessions with scripted steps.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

pub mod oracle;
pub mod records;
pub mod rng;
pub mod scratch;
pub mod session;
pub mod watched;
