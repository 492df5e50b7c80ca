//! Models of the ring: see `crate::models`.

mod queue;
mod window;
