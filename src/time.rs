//! Time as an input: the clock that retries, delays and statistics follow.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync::Arc;

/// A moment, in nanoseconds since 1970. Good until the year 2554; arithmetic saturates.
///
/// # Examples
///
/// ```
/// use ringmq::Timestamp;
/// use std::time::Duration;
///
/// let t = Timestamp::from_nanos(5);
/// assert_eq!(t.after(Duration::from_nanos(2)).as_nanos(), 7);
/// assert_eq!(t.after(Duration::MAX), Timestamp::MAX);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment there is: what is due then is never due.
    pub const MAX: Self = Self(u64::MAX);

    /// A moment from nanoseconds since 1970.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment and `d` more.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to this moment; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::default().after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// Where time comes from. Retries, back-off and the times in statistics follow it; how long a blocking call waits does not.
///
/// The default is [`SystemClock`]; tests drive a `ManualClock` (feature `testing`).
///
/// # Examples
///
/// ```
/// use ringmq::{Clock, SystemClock};
///
/// let now = SystemClock::new().now();
/// assert!(now.as_nanos() > 0);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The time now. It must not go backwards within a process.
    fn now(&self) -> Timestamp;

    /// How long a thread should really sleep until `due`; `None` if the clock calls the watchers instead when its time moves.
    fn sleep_until(&self, due: Timestamp) -> Option<Duration> {
        Some(due.since(self.now()))
    }

    /// Keeps `watcher`, to be called whenever time was moved by hand. A clock that moves by itself has nothing to do here.
    fn watch(&self, watcher: Arc<dyn Fn() + Send + Sync>) {
        drop(watcher);
    }
}

/// The computer's clock: starts at the calendar time and goes on monotonically, so that setting the calendar moves no retry.
///
/// # Examples
///
/// ```
/// use ringmq::{Clock, SystemClock};
///
/// # fn main() -> ringmq::Result<()> {
/// let clock = SystemClock::new();
/// let earlier = clock.now();
/// assert!(clock.now() >= earlier);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SystemClock {
    started: std::time::Instant,
    at: Timestamp,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
            at: SystemTime::now().into(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.at.after(self.started.elapsed())
    }
}
