//! A message's place in its topic.
#![forbid(unsafe_code)]

use std::fmt;

/// A message's place in its topic: it only grows and is never used twice.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let first = topic.publish(7)?.offset();
/// let second = topic.publish(8)?.offset();
/// assert!(first < second);
/// assert_eq!(second.get() - first.get(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// An offset with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Its value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
