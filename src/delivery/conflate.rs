//! Conflate: of what a subscription was overtaken by, it keeps the last message of each key.

use std::collections::{BTreeMap, HashMap};

use crate::sync::Arc;

/// The last message of each key, oldest first, for a bounded number of keys. Messages without a key count as one key.
pub(crate) struct Conflated<M> {
    by_offset: BTreeMap<u64, (Arc<[u8]>, M)>,
    by_key: HashMap<Arc<[u8]>, u64>,
    keys_max: usize,
}

impl<M> Conflated<M> {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self {
            by_offset: BTreeMap::new(),
            by_key: HashMap::new(),
            keys_max,
        }
    }

    /// Keeps `message` as the last of its key; returns the offset that it replaces, or that has to go because there are too many keys.
    pub(crate) fn keep(&mut self, offset: u64, key: &[u8], message: M) -> Option<(u64, M)> {
        let gone = match self.by_key.remove_entry(key) {
            Some((key, old)) => {
                let message = self.by_offset.remove(&old).map(|(_, message)| (old, message));
                self.by_key.insert(key, offset);
                message
            }
            None => {
                let gone = if self.by_key.len() >= self.keys_max { self.pop() } else { None };
                self.by_key.insert(key.into(), offset);
                gone
            }
        };
        let key = self.by_key.get_key_value(key).map(|(key, _)| key.clone()).unwrap_or_default();
        self.by_offset.insert(offset, (key, message));
        gone
    }

    /// The oldest message kept.
    pub(crate) fn pop(&mut self) -> Option<(u64, M)> {
        let (offset, (key, message)) = self.by_offset.pop_first()?;
        self.by_key.remove(&key);
        Some((offset, message))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_offset.len()
    }

    pub(crate) fn clear(&mut self) -> Vec<M> {
        self.by_key.clear();
        std::mem::take(&mut self.by_offset)
            .into_values()
            .map(|(_, message)| message)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_key_is_kept_in_order_of_offset() {
        let mut kept = Conflated::new(10);
        assert_eq!(kept.keep(0, b"a", 'A'), None);
        assert_eq!(kept.keep(1, b"b", 'B'), None);
        assert_eq!(kept.keep(2, b"a", 'a'), Some((0, 'A')));
        assert_eq!(kept.len(), 2);
        assert_eq!(kept.pop(), Some((1, 'B')));
        assert_eq!(kept.pop(), Some((2, 'a')));
        assert_eq!(kept.pop(), None);
    }

    #[test]
    fn beyond_the_bound_the_oldest_key_goes() {
        let mut kept = Conflated::new(2);
        assert_eq!(kept.keep(0, b"a", 0), None);
        assert_eq!(kept.keep(1, b"b", 1), None);
        assert_eq!(kept.keep(2, b"c", 2), Some((0, 0)));
        assert_eq!(kept.keep(3, b"b", 3), Some((1, 1)));
        assert_eq!(kept.clear(), [2, 3]);
        assert_eq!(kept.len(), 0);
    }
}
