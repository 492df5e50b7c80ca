//! What opening a log found, and what it did about it.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use super::record::Lsn;

/// What recovery found and did. Nothing is ever dropped without an entry here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// The identity of the log, the same for its whole life.
    pub log_id: u128,
    /// The epoch of this opening; larger than any seen before. Zero when opened for reading only.
    pub epoch: u64,
    /// Whether the log was new.
    pub created: bool,
    /// Whether the last writer closed it properly. Only then is it known that nothing is missing at the end.
    ///
    /// What a later block or segment says was there is missed, and named. But behind the last block nothing does: if the file is cut
    /// exactly between two blocks, or ends in zeros from there on, it is that of a writer that was killed before it wrote more. So blocks
    /// that were synced may be missing without a word when this is `false`. An owner who must know keeps what
    /// [`Log::durable`](super::Log::durable) said elsewhere, and compares it with `end`.
    pub clean: bool,
    /// The first position that the log still holds.
    pub first: Lsn,
    /// The position behind the last block, where appending goes on.
    pub end: Lsn,
    /// How many segments the log has.
    pub segments: usize,
    /// How many bytes were read to find the end.
    pub scanned: u64,
    /// The end of the log, when something was behind it that is not part of the log.
    pub cut: Option<Cut>,
    /// Valid blocks above the last proven position, which were written again to a new segment.
    pub reappended: Option<Reappended>,
    /// Promised bytes that are no longer readable, in the parts that were looked at.
    pub damage: Vec<Damage>,
    /// Parts behind the first position that no file holds. Whether they were retired is known to the owner.
    pub missing: Vec<Missing>,
    /// Files that were kept aside, at their new place.
    pub quarantined: Vec<PathBuf>,
    /// Files that earlier openings had kept aside, removed because the quarantine holds 256 files and 256 MiB at most.
    pub discarded: Vec<PathBuf>,
    /// What could not be kept aside, or found no room beside what this opening kept aside, and so was left where it is.
    pub kept: Vec<PathBuf>,
    /// Files in the directories of the log that it did not make. They are left alone.
    pub unknown: Vec<PathBuf>,
    /// How many entries did not fit into the lists above.
    pub omitted: u64,
}

impl OpenReport {
    /// How many entries each list of the report holds at most.
    pub const MAX_ENTRIES: usize = 1024;

    pub(crate) fn push<T>(list: &mut Vec<T>, omitted: &mut u64, entry: T) {
        if list.len() < Self::MAX_ENTRIES {
            list.push(entry);
        } else {
            *omitted += 1;
        }
    }

    pub(crate) fn add_damage(&mut self, damage: Damage) {
        Self::push(&mut self.damage, &mut self.omitted, damage);
    }
}

/// The torn end of a log: the first block above every promise that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment file.
    pub file: PathBuf,
    /// Where in the file the valid part ends.
    pub position: u64,
    /// The same as a position in the log.
    pub lsn: Lsn,
    /// How many bytes behind it were not zero throughout, up to the last such byte.
    pub bytes: u64,
}

/// Blocks that were not proven to be on the device, and so were written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reappended {
    /// The first position written again.
    pub from: Lsn,
    /// The position behind the last one.
    pub to: Lsn,
    /// How many blocks.
    pub blocks: u64,
    /// How many records.
    pub records: u64,
    /// The number of the new segment.
    pub segment: u64,
}

/// A range of positions that no file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Where the missing part begins: behind the last block that can be read of the segment before it.
    pub from: Lsn,
    /// The position behind the last missing one. The highest there is when the end of the log is missing: nobody knows how far
    /// it reached.
    pub to: Lsn,
    /// The last number in the name of the last segment that is missing, `log/<first>-<last>.<generation>.log`. `None` when the
    /// end of the log is missing.
    pub segment: Option<u64>,
}

/// A place whose bytes were promised and are not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What is lost.
    pub kind: DamageKind,
    /// The file.
    pub file: PathBuf,
    /// Where in the file the damage begins.
    pub position: u64,
    /// How many bytes of the file are affected.
    pub len: u64,
    /// The first position in the log that is affected.
    pub from: Lsn,
    /// The position behind the last one.
    pub to: Lsn,
}

/// What a damaged place held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// One record, named by its tag. Its neighbours are intact.
    Record {
        /// The stream of the record.
        topic: u64,
        /// Its position in the stream.
        offset: u64,
    },
    /// One or more whole blocks; the records in them are not known.
    Blocks,
    /// One of the two copies of a segment's header. No record is lost.
    HeaderCopy,
    /// Both copies of a segment's header.
    Header,
    /// One of the two copies of the log's identity, or both; it was taken from elsewhere. No record is lost.
    Meta,
    /// A sector that the device will not give. What it held is zeros to the log; records that are lost by it are named by
    /// themselves.
    Unreadable,
    /// Blocks that are whole but do not continue what is before them.
    Chain,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DamageKind::Record { topic, offset } => write!(f, "record {offset} of topic {topic} is damaged")?,
            DamageKind::Blocks => write!(f, "blocks {}..{} are damaged", self.from, self.to)?,
            DamageKind::HeaderCopy => write!(f, "one copy of a segment header is damaged")?,
            DamageKind::Header => write!(f, "a segment header is damaged")?,
            DamageKind::Meta => write!(f, "the identity of the log is damaged")?,
            DamageKind::Unreadable => write!(f, "a sector cannot be read")?,
            DamageKind::Chain => write!(f, "blocks from {} on do not continue the log", self.from)?,
        }
        write!(f, " ({} at {}, {} bytes)", self.file.display(), self.position, self.len)
    }
}
