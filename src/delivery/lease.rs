//! Lease: with an ack timeout, who holds which message until when.

use std::collections::{BTreeMap, HashMap};

use crate::time::Timestamp;

/// Which lease. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseId(u64);

/// The messages in flight and the time at which each is taken back.
pub(crate) struct Leases<M> {
    held: HashMap<LeaseId, (Timestamp, M)>,
    by_due: BTreeMap<(Timestamp, LeaseId), ()>,
    next: u64,
}

impl<M> Leases<M> {
    pub(crate) fn new() -> Self {
        Self {
            held: HashMap::new(),
            by_due: BTreeMap::new(),
            next: 0,
        }
    }

    /// Notes that `what` is out until `due`.
    pub(crate) fn grant(&mut self, due: Timestamp, what: M) -> LeaseId {
        let id = LeaseId(self.next);
        self.next += 1;
        self.by_due.insert((due, id), ());
        self.held.insert(id, (due, what));
        id
    }

    /// Ends a lease by a verdict; `None` if it had run out.
    pub(crate) fn end(&mut self, id: LeaseId) -> Option<M> {
        let (due, what) = self.held.remove(&id)?;
        self.by_due.remove(&(due, id));
        Some(what)
    }

    /// Moves the end of a lease; `false` if it had run out.
    pub(crate) fn extend(&mut self, id: LeaseId, to: Timestamp) -> bool {
        let Some((due, _)) = self.held.get_mut(&id) else { return false };
        self.by_due.remove(&(*due, id));
        *due = to;
        self.by_due.insert((to, id), ());
        true
    }

    /// Takes back one lease that has run out at `now`.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Option<M> {
        let (&(due, id), ()) = self.by_due.first_key_value()?;
        if due > now {
            return None;
        }
        self.end(id)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.by_due.first_key_value().map(|((due, _), ())| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(t: u64) -> Timestamp {
        Timestamp::from_nanos(t)
    }

    #[test]
    fn a_lease_ends_once_by_verdict_or_by_time() {
        let mut leases = Leases::new();
        let a = leases.grant(at(10), 'a');
        let b = leases.grant(at(20), 'b');
        assert!(leases.extend(a, at(30)));
        assert_eq!(leases.expire(at(15)), None);
        assert_eq!(leases.expire(at(20)), Some('b'));
        assert_eq!(leases.end(b), None, "it had run out");
        assert!(!leases.extend(b, at(99)));
        assert_eq!(leases.next_due(), Some(at(30)));
        assert_eq!(leases.end(a), Some('a'));
        assert_eq!(leases.next_due(), None);
    }
}
