//! Parked: what waits for a time, earliest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Timestamp;

/// For how many there stays room once all are gone: a burst gives its memory back.
pub(crate) const KEPT: usize = 64;

/// Things that wait for a time. Of two that are due together, the one parked first comes first.
pub(crate) struct Parked<M> {
    heap: BinaryHeap<Reverse<Entry<M>>>,
    parked: u64,
}

struct Entry<M> {
    due: Timestamp,
    order: u64,
    what: M,
}

impl<M> Parked<M> {
    pub(crate) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            parked: 0,
        }
    }

    pub(crate) fn push(&mut self, due: Timestamp, what: M) {
        self.parked += 1;
        self.heap.push(Reverse(Entry {
            due,
            order: self.parked,
            what,
        }));
    }

    /// The next that is due at `now`.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<M> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        if self.heap.is_empty() && self.heap.capacity() > KEPT {
            self.heap.shrink_to(KEPT);
        }
        Some(entry.what)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<M> Ord for Entry<M> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<M> PartialOrd for Entry<M> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> PartialEq for Entry<M> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<M> Eq for Entry<M> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_ties_keep_their_order() {
        let mut parked = Parked::new();
        for (due, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            parked.push(Timestamp::from_nanos(due), what);
        }
        assert_eq!(parked.pop(Timestamp::from_nanos(2)), None);
        assert_eq!(parked.next_due(), Some(Timestamp::from_nanos(3)));
        let all: String = std::iter::from_fn(|| parked.pop(Timestamp::MAX)).collect();
        assert_eq!(all, "abcd");
        assert!(parked.is_empty());
    }
}
