//! Batches on their way into one block, and those who wait for them.
#![forbid(unsafe_code)]

use std::fmt;
use std::task::Waker;

use super::batch::Batch;
use super::block;
use super::error::LogError;
use super::hook::Hook;
use super::record::{Level, Lsn, Placed};
use crate::sync::crowd::{Condvar, Mutex};
use crate::sync::{Arc, AtomicBool};
use crate::user_code::contained;

/// What may use the last of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// New data: fails while there is no room for more than facts.
    Data,
    /// What helps the owner to free space.
    Fact,
}

/// One batch within a group, or several that need not be told apart.
pub(crate) struct Part {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) level: Level,
    pub(crate) class: Class,
    pub(crate) hook: Option<Box<dyn Hook>>,
    /// Set when the part was taken out again: vetoed, or no space.
    pub(crate) refused: Option<LogError>,
}

impl Part {
    pub(crate) fn is_data(&self) -> bool {
        self.class == Class::Data && self.records > 0 && self.refused.is_none()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("records", &self.records)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// The block to be: batches are added until it is taken by a leader.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) batch: Batch,
    pub(crate) parts: Vec<Part>,
    pub(crate) done: Arc<Done>,
    /// Threads that wait for it and can lead.
    pub(crate) blocking: usize,
    /// Whether a task waits for it, which cannot lead.
    pub(crate) wanted: bool,
    pub(crate) level: Level,
    tickets: usize,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self {
            batch: Batch::new(),
            parts: Vec::new(),
            done: Arc::new(Done::new()),
            blocking: 0,
            wanted: false,
            level: Level::Os,
            tickets: 0,
        }
    }

    /// Adds to the part that is there already, unless hooks or levels tell them apart. Returns which part it is.
    pub(crate) fn add_part(&mut self, records: usize, bytes: usize, level: Level, class: Class, hook: Option<Box<dyn Hook>>) -> usize {
        if let Some(last) = self.parts.last_mut()
            && last.hook.is_none()
            && hook.is_none()
            && (last.level, last.class) == (level, class)
        {
            last.records += records;
            last.bytes += bytes;
        } else {
            self.parts.push(Part {
                records,
                bytes,
                level,
                class,
                hook,
                refused: None,
            });
        }
        self.parts.len() - 1
    }

    /// A number for each of those who wait.
    pub(crate) fn next_ticket(&mut self) -> usize {
        self.tickets += 1;
        self.tickets
    }

    /// Makes it new again, keeping the memory unless that is a lot.
    pub(crate) fn renew(&mut self) {
        self.batch.clear();
        if self.batch.buffer.capacity() > KEEP_BYTES {
            self.batch.buffer = Vec::new();
        }
        self.parts.clear();
        self.done = Arc::new(Done::new());
        self.blocking = 0;
        self.wanted = false;
        self.level = Level::Os;
        self.tickets = 0;
    }

    /// Tells whether that much more still makes one block of reasonable size.
    pub(crate) fn has_room(&self, records: usize, bytes: usize, block_bytes: usize) -> bool {
        let is_first = self.batch.is_empty();
        let records = self.batch.len() + records;
        let bytes = self.batch.bytes() + bytes;
        is_first || (bytes <= block_bytes && records <= block::MAX_RECORDS / 4)
    }

    /// Tells whether there is data in it that was not refused.
    pub(crate) fn has_data(&self) -> bool {
        self.parts.iter().any(Part::is_data)
    }

    /// Tells whether there are facts in it that were not refused.
    pub(crate) fn has_facts(&self) -> bool {
        let is_fact = |part: &Part| part.class == Class::Fact && part.records > 0 && part.refused.is_none();
        self.parts.iter().any(is_fact)
    }

    /// Refuses data for want of space. Tells whether there are facts beside it; else nothing is changed.
    pub(crate) fn refuse_data(&mut self) -> bool {
        if !self.has_facts() || !self.has_data() {
            return false;
        }
        for part in self.parts.iter_mut().filter(|part| part.is_data()) {
            part.refused = Some(LogError::Full);
        }
        true
    }

    /// Tells whether anything in it was refused for want of space.
    pub(crate) fn is_refused_for_space(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.refused, Some(LogError::Full)))
    }

    /// Takes out the records of refused parts.
    pub(crate) fn compact(&mut self) {
        if self.parts.iter().all(|part| part.refused.is_none() || part.records == 0) {
            return;
        }
        let mut entry = 0;
        let mut kept_entries = 0;
        let mut at = block::ROOM;
        let mut kept = block::ROOM;
        for part in &self.parts {
            if part.refused.is_none() {
                self.batch.entries.copy_within(entry..entry + part.records, kept_entries);
                self.batch.buffer.copy_within(at..at + part.bytes, kept);
                kept_entries += part.records;
                kept += part.bytes;
            }
            entry += part.records;
            at += part.bytes;
        }
        self.batch.entries.truncate(kept_entries);
        self.batch.buffer.truncate(kept);
    }
}

/// What is known about a group, shared by all receipts of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether a leader has taken the group. Written under the lock of the gate.
    pub(crate) taken: AtomicBool,
    pub(crate) state: Mutex<Progress>,
    pub(crate) changed: Condvar,
}

/// How far a group has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The role of the leader is handed to one of those who wait here.
    pub(crate) promoted: bool,
    pub(crate) block: Option<(Lsn, Lsn)>,
    pub(crate) reached: Option<Level>,
    pub(crate) failed: Option<LogError>,
    /// Parts that were taken out: index, how many records, why.
    pub(crate) refused: Vec<(usize, usize, LogError)>,
    wakers: Vec<(usize, Waker)>,
}

impl Done {
    fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            state: Mutex::new(Progress::default()),
            changed: Condvar::new(),
        }
    }

    /// Changes the state and wakes the threads that wait. The tasks are left to [`wake_all`].
    pub(crate) fn update(&self, tasks: &mut Vec<Waker>, change: impl FnOnce(&mut Progress)) {
        let mut state = self.state.lock();
        change(&mut state);
        tasks.extend(state.wakers.drain(..).map(|(_, waker)| waker));
        drop(state);
        self.changed.notify_all();
    }
}

impl Progress {
    pub(crate) fn outcome(&self, share: &Share) -> Option<Result<Placed, LogError>> {
        if let Some((_, _, error)) = self.refused.iter().find(|(part, ..)| *part == share.part) {
            return Some(Err(error.clone()));
        }
        if self.reached.is_some_and(|reached| reached >= share.level) {
            let (lsn, end) = self.block.unwrap_or_default();
            let gone: usize = self.refused.iter().filter(|(part, ..)| *part < share.part).map(|(_, n, _)| n).sum();
            return Some(Ok(Placed {
                lsn,
                end,
                first: (share.first - gone) as u32,
                count: share.count as u32,
            }));
        }
        self.failed.clone().map(Err)
    }

    /// Keeps one waker per ticket.
    pub(crate) fn register(&mut self, ticket: usize, waker: &Waker) {
        match self.wakers.iter_mut().find(|(of, _)| *of == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => self.wakers.push((ticket, waker.clone())),
        }
    }

    pub(crate) fn unregister(&mut self, ticket: usize) -> Option<Waker> {
        let at = self.wakers.iter().position(|(of, _)| *of == ticket)?;
        Some(self.wakers.swap_remove(at).1)
    }
}

/// Wakes tasks. A waker is code of the user: it may append, so no lock and no role may be held here, and its panic is its own.
pub(crate) fn wake_all(tasks: Vec<Waker>) {
    for task in tasks {
        contained(|| task.wake());
    }
}

/// Which part of a group somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) part: usize,
    pub(crate) ticket: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) level: Level,
}

/// Buffers that are larger than this are given back.
const KEEP_BYTES: usize = 4 << 20;
