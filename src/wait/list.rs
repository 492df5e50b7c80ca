//! The waiters of one event: a doubly linked list in a vector, so that adding, removing and waking cost the same at any length.

use super::Wake;

/// Which waiter. Valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

const NIL: u32 = u32::MAX;

enum Entry {
    /// Not in use; the next such entry.
    Vacant(u32),
    /// In the list.
    Waiting { wake: Wake, before: u32, after: u32 },
    /// Woken, not yet gone.
    Woken,
}

pub(super) struct List {
    entries: Vec<Entry>,
    vacant: u32,
    first: u32,
    last: u32,
    /// How many are `Woken`.
    woken: usize,
}

impl List {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            vacant: NIL,
            first: NIL,
            last: NIL,
            woken: 0,
        }
    }

    pub(super) fn push(&mut self, wake: Wake) -> Key {
        let entry = Entry::Waiting {
            wake,
            before: self.last,
            after: NIL,
        };
        let at = if self.vacant == NIL {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 waiters")
        } else {
            let at = self.vacant;
            if let Entry::Vacant(next) = std::mem::replace(&mut self.entries[at as usize], entry) {
                self.vacant = next;
            }
            at
        };
        match self.last {
            NIL => self.first = at,
            last => self.set_after(last, at),
        }
        self.last = at;
        Key(at)
    }

    /// Takes the first waiter out of the list and marks it woken.
    pub(super) fn wake_first(&mut self) -> Option<Wake> {
        let at = self.first;
        if at == NIL {
            return None;
        }
        self.woken += 1;
        self.unlink(at, Entry::Woken)
    }

    pub(super) fn is_woken(&self, key: Key) -> bool {
        matches!(self.entries[key.0 as usize], Entry::Woken)
    }

    /// Gives a waiter that still waits another waker; returns the old one, to be dropped outside of the lock.
    pub(super) fn replace(&mut self, key: Key, new: Wake) -> Wake {
        match &mut self.entries[key.0 as usize] {
            Entry::Waiting { wake, .. } => std::mem::replace(wake, new),
            _ => new,
        }
    }

    pub(super) fn wake(&self, key: Key) -> Option<&Wake> {
        match &self.entries[key.0 as usize] {
            Entry::Waiting { wake, .. } => Some(wake),
            _ => None,
        }
    }

    /// Removes a waiter; returns its waker if it still waited.
    pub(super) fn remove(&mut self, key: Key) -> Option<Wake> {
        let vacant = Entry::Vacant(self.vacant);
        let wake = if self.is_woken(key) {
            self.woken -= 1;
            self.entries[key.0 as usize] = vacant;
            None
        } else {
            self.unlink(key.0, vacant)
        };
        self.vacant = key.0;
        wake
    }

    fn unlink(&mut self, at: u32, with: Entry) -> Option<Wake> {
        let Entry::Waiting { wake, before, after } = std::mem::replace(&mut self.entries[at as usize], with) else {
            return None;
        };
        match before {
            NIL => self.first = after,
            before => self.set_after(before, after),
        }
        match after {
            NIL => self.last = before,
            after => {
                if let Entry::Waiting { before: link, .. } = &mut self.entries[after as usize] {
                    *link = before;
                }
            }
        }
        Some(wake)
    }

    fn set_after(&mut self, at: u32, to: u32) {
        if let Entry::Waiting { after, .. } = &mut self.entries[at as usize] {
            *after = to;
        }
    }
}
