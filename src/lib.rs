//! An embeddable message queue: publish and subscribe in-process, with the delivery rules of a broker.

#[cfg(all(feature = "disk", not(ringmq_loom)))]
pub mod log;

#[allow(
    dead_code,
    unused_imports,
    reason = "the ring and the wait layer use the rest"
)]
mod sync;
