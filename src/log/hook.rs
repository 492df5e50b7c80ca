//! Where the owner of a log takes part in a commit.
#![forbid(unsafe_code)]

use super::directory::Entry;
use super::error::LogError;
use super::record::{Location, Lsn, Placed, Tag};

/// The owner's part in the commit of one batch.
///
/// The log calls `stage` once and then either `written` and `done`, or only `done`. All calls come in the order of the
/// log, one at a time, whatever thread brought the batch. They run inside the commit: they must not block, and must not
/// use the log that calls them. Only when the log is fenced or closed, batches that were not taken up yet are told so at any
/// time.
pub trait Hook: Send {
    /// Decides about the batch under the append lock: offsets are assigned here, and what is no longer valid is refused.
    ///
    /// # Errors
    ///
    /// A [`Veto`] takes the batch out: nothing of it is written.
    fn stage(&mut self, staged: &mut Staged<'_>) -> Result<(), Veto> {
        let _ = staged;
        Ok(())
    }

    /// The bytes were handed to the operating system.
    fn written(&mut self, receipt: &Reached<'_>) {
        let _ = receipt;
    }

    /// The level that was asked for is reached, or never will be.
    fn done(&mut self, outcome: Result<&Reached<'_>, &LogError>);
}

/// Why a hook refuses a batch: a code that only the owner reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Veto(pub u64);

/// A batch that is about to get its place.
#[derive(Debug)]
pub struct Staged<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) entries: &'a mut [Entry],
    pub(crate) time: &'a mut u64,
}

impl Staged<'_> {
    /// Where the block begins that the batch will be in.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Tells how many records the batch has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tag of a record, if there is one of that index.
    pub fn tag(&self, index: usize) -> Option<Tag> {
        self.entries.get(index).map(|entry| entry.tag)
    }

    /// Gives a record its offset.
    ///
    /// # Panics
    ///
    /// If there is no record of that index.
    #[track_caller]
    pub fn set_offset(&mut self, index: usize, offset: u64) {
        self.entries[index].tag.offset = offset;
    }

    /// Sets the time that the block carries, if it is later than what it has.
    pub fn set_time(&mut self, time: u64) {
        *self.time = time.max(*self.time);
    }
}

/// Where a batch went, with the places of its records.
#[derive(Debug)]
pub struct Reached<'a> {
    pub(crate) placed: Placed,
    pub(crate) entries: &'a [Entry],
    pub(crate) body: Lsn,
    pub(crate) generation: u32,
}

impl Reached<'_> {
    /// The block and the part of it.
    pub fn placed(&self) -> Placed {
        self.placed
    }

    /// The records, in order, with the place of each.
    pub fn records(&self) -> impl Iterator<Item = (Tag, Location)> + '_ {
        let mut at = self.body.0;
        self.entries.iter().map(move |entry| {
            let location = Location {
                lsn: Lsn(at),
                len: entry.len,
                crc: entry.crc(),
                generation: self.generation,
            };
            at += u64::from(entry.len);
            (entry.tag, location)
        })
    }
}
