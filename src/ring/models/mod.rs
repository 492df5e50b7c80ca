//! Models of the ring: see `crate::models`.

mod counter;
mod credit;
mod moving;
mod overtaking;
mod queue;
mod scan;
mod window;
