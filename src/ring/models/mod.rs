//! Models of the ring: see `crate::models`.

mod credit;
mod overtaking;
mod queue;
mod scan;
mod window;
