//! Lag: what a subscription lost, until it has been told.

use crate::offset::Offset;

/// What a subscription has missed: `lost` messages with offsets from `from` up to, but not including, `to`.
///
/// Told in-band, before the first message behind it: nothing is lost in silence. What is delivered again and stands before the loss may come before it
/// is told. `lost` is the width of the range unless other messages
/// within it were delivered.
///
/// # Examples
///
/// ```
/// use ringmq::{Overflow, RecvError, SubscribeOptions, TopicOptions};
///
/// # fn main() -> ringmq::Result<()> {
/// # let broker = ringmq::Broker::open("mem:")?;
/// let ticks = broker.topic_with::<u32>("ticks", TopicOptions::new().capacity(8))?;
/// let slow = ticks.subscribe_with(SubscribeOptions::new("slow").overflow(Overflow::DropOldest))?;
/// for n in 0..20 {
///     ticks.publish(n)?;
/// }
/// let Err(RecvError::Lagged(lagged)) = slow.recv() else { panic!("it was overtaken") };
/// assert_eq!(lagged.lost, lagged.to.get() - lagged.from.get());
/// assert_eq!(slow.recv()?.offset(), lagged.to);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged {
    /// The first offset lost.
    pub from: Offset,
    /// The offset after the last one lost.
    pub to: Offset,
    /// How many were lost.
    pub lost: u64,
}

/// Losses not told yet. It keeps a few ranges apart and joins the rest, so it is bounded and its counts stay exact.
#[derive(Debug, Default)]
pub(crate) struct LagLog {
    ranges: Vec<Lagged>,
}

const RANGES_MAX: usize = 64;

impl LagLog {
    /// Notes that `from..to` is lost.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        self.add_all(Lagged {
            from: Offset::new(from),
            to: Offset::new(to),
            lost: to - from,
        });
    }

    /// Notes a loss that another log had noted.
    pub(crate) fn add_all(&mut self, lagged: Lagged) {
        let full = self.ranges.len() >= RANGES_MAX;
        match self.ranges.last_mut() {
            Some(last) if full || last.to == lagged.from => {
                last.from = last.from.min(lagged.from);
                last.to = last.to.max(lagged.to);
                last.lost += lagged.lost;
            }
            _ => self.ranges.push(lagged),
        }
    }

    /// Notes all that another log has.
    pub(crate) fn append(&mut self, mut other: Self) {
        std::iter::from_fn(|| other.pop()).for_each(|lagged| self.add_all(lagged));
    }

    pub(crate) fn pop(&mut self) -> Option<Lagged> {
        if self.ranges.is_empty() {
            None
        } else {
            Some(self.ranges.remove(0))
        }
    }

    /// How many are lost, of those not told yet.
    pub(crate) fn total(&self) -> u64 {
        self.ranges.iter().map(|lagged| lagged.lost).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_the_count_stays_exact_when_bounded() {
        let mut log = LagLog::default();
        log.add(0, 3);
        log.add(3, 4);
        assert_eq!(
            log.ranges,
            [Lagged {
                from: Offset::new(0),
                to: Offset::new(4),
                lost: 4
            }]
        );
        for p in 0..1000 {
            log.add(10 + 2 * p, 11 + 2 * p);
        }
        assert!(log.ranges.len() <= RANGES_MAX);
        let lost: u64 = std::iter::from_fn(|| log.pop()).map(|l| l.lost).sum();
        assert_eq!(lost, 1004);
    }
}
