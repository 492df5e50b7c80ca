//! What a publish reached: where the message stands, who sees it, how durable it is.

use crate::offset::Offset;

/// What a publish reached.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let alone = topic.publish(1)?;
/// assert_eq!(alone.subscriptions(), 0);
/// let sub = topic.subscribe("s")?;
/// assert_eq!(topic.publish(2)?.subscriptions(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    offset: u64,
    subscriptions: u32,
    level: Durability,
}

/// How durable a message is.
///
/// # Examples
///
/// ```
/// # use ringmq::Durability;
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// assert_eq!(topic.publish(1)?.level(), Durability::Memory);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// In this process's memory.
    Memory,
}

impl Receipt {
    #[inline(always)]
    pub(crate) fn new(offset: u64, subscriptions: usize) -> Self {
        Self {
            offset,
            subscriptions: subscriptions as u32,
            level: Durability::Memory,
        }
    }

    /// The message's place in its topic.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        Offset::new(self.offset)
    }

    /// How many subscriptions the topic had. With none, it keeps its newest messages for the first one to come.
    #[must_use]
    pub const fn subscriptions(&self) -> usize {
        self.subscriptions as usize
    }

    /// What was reached.
    #[must_use]
    pub const fn level(&self) -> Durability {
        self.level
    }
}
