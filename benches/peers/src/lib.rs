//! Measures ringmq beside its peers.
//!
//! [`rows`] is the table as data; [`queue`] is what a queue must offer; [`peers`] and [`ours`] offer it;
//! [`stream`], [`latency`] and [`peers::tasks`] run it; [`bench`] repeats and pairs the runs; [`report`] prints.
//! [`machine`] tells where the host has put the processors, without which no figure means anything.

pub mod alloc;
pub mod bench;
pub mod contender;
pub mod latency;
pub mod machine;
pub mod ours;
pub mod payload;
pub mod peers;
pub mod queue;
pub mod report;
pub mod rows;
pub mod spin;
pub mod stats;
pub mod stream;
