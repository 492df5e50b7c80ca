//! What travels beside a payload: key, headers, time. One pointer, null for a plain message.
#![forbid(unsafe_code)]

use std::fmt;

use crate::sync::Arc;
use crate::time::Timestamp;

/// Text about a message, as name and value, in the order in which it was added.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// topic.message(7).header("source", "sensor-4").publish()?;
/// let delivery = sub.recv()?;
/// assert_eq!(delivery.headers().find("source"), Some("sensor-4"));
/// # delivery.ack()
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Box<str>, Box<str>)>);

impl Headers {
    pub(crate) const EMPTY: &'static Self = &Self(Vec::new());

    pub(crate) fn add(&mut self, name: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value under this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Everything about a message but its payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) headers: Headers,
    pub(crate) published: Option<Timestamp>,
}

/// The pointer that travels: null for a plain message, shared by the subscriptions otherwise.
pub(crate) type MetaRef = Option<Arc<Meta>>;
