//! An append-only, segmented log of bytes that can be trusted with them.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

mod batch;
mod block;
mod crc;
mod error;
mod hook;
mod options;
mod receipt;
mod record;
mod report;
pub mod vfs;

pub use self::batch::Batch;
pub use self::error::LogError;
pub use self::hook::{Hook, Reached, Staged, Veto};
pub use self::options::{Background, LogOptions, OnDamage, Prewrite, Verify, WhenFull};
pub use self::receipt::Receipt;
pub use self::record::{Level, Location, Lsn, Placed, Record, Tag};
pub use self::report::{Cut, Damage, DamageKind, Missing, OpenReport, Reappended};

use self::vfs::Vfs;

/// An open log.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Opens the log in a directory, making it if there is none, and recovers it if it was not closed.
    ///
    /// # Errors
    ///
    /// [`LogError::Locked`], [`LogError::Refused`], [`LogError::NewerFormat`], [`LogError::Options`], [`LogError::Io`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: impl AsRef<Path>,
        options: LogOptions,
    ) -> Result<(Self, OpenReport), LogError> {
        let _ = (vfs, dir.as_ref(), options);
        todo!()
    }

    /// Appends records as one unit and waits until they have reached the level.
    ///
    /// # Errors
    ///
    /// What was written is unknown after [`LogError::Fenced`]; after any other error nothing was.
    pub fn append(&self, records: &[Record<'_>], level: Level) -> Result<Placed, LogError> {
        let _ = (records, level);
        todo!()
    }

    /// Appends a batch as one unit and waits until it has reached the level. The batch is empty afterwards.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn append_batch(&self, batch: &mut Batch, level: Level) -> Result<Placed, LogError> {
        let _ = (batch, level);
        todo!()
    }

    /// Hands records over without waiting for them to be written; waits only while the queue is full.
    ///
    /// # Errors
    ///
    /// When nothing was handed over.
    pub fn submit(&self, records: &[Record<'_>], level: Level) -> Result<Receipt, LogError> {
        let _ = (records, level);
        todo!()
    }

    /// Hands a batch over, with the owner's part in its commit.
    ///
    /// # Errors
    ///
    /// When nothing was handed over; then the hook is dropped without a call.
    pub fn submit_batch(
        &self,
        batch: &mut Batch,
        level: Level,
        hook: Option<Box<dyn Hook>>,
    ) -> Result<Receipt, LogError> {
        let _ = (batch, level, hook);
        todo!()
    }

    /// Hands over facts that nobody waits for. They ride on the next block, and may use the reserve when space is short.
    ///
    /// # Errors
    ///
    /// When nothing was handed over.
    pub fn note(&self, batch: &mut Batch, hook: Option<Box<dyn Hook>>) -> Result<(), LogError> {
        let _ = (batch, hook);
        todo!()
    }

    /// Waits until everything handed over before has reached the level.
    ///
    /// # Errors
    ///
    /// The failure of the write or sync.
    pub fn flush(&self, level: Level) -> Result<(), LogError> {
        let _ = level;
        todo!()
    }

    /// Reads from a position on: the first block that begins there or behind it, and all that follow.
    ///
    /// # Errors
    ///
    /// [`LogError::Gone`] when the position is before the first or behind the end.
    pub fn reader(&self, from: Lsn) -> Result<Reader, LogError> {
        let _ = from;
        todo!()
    }

    /// Writes what was handed over, syncs, writes a closing block and lets go of the directory.
    ///
    /// Dropping the log instead writes nothing more, as if the process were killed.
    ///
    /// # Errors
    ///
    /// The failure of the write or sync; the directory is let go in any case.
    pub fn close(self) -> Result<(), LogError> {
        todo!()
    }

    /// The first position that the log holds, and the one behind the last block that can be read.
    pub fn range(&self) -> (Lsn, Lsn) {
        todo!()
    }
}

/// Reads blocks in order, checking everything. See [`Log::reader`].
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Goes to the next record, or to the next damaged place; `None` at the end, for now.
    ///
    /// # Errors
    ///
    /// When the file system fails. The reader stays where it is and may be asked again.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, LogError> {
        todo!()
    }
}

/// What a reader meets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A record that is what was appended.
    Record(Found<'a>),
    /// A place that is damaged. The reader goes on behind it.
    Damage(Damage),
}

/// A record in the buffer of a reader.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Found<'a> {
    /// What the owner said about it.
    pub tag: Tag,
    /// The bytes.
    pub body: &'a [u8],
    /// Where its block begins.
    pub block: Lsn,
    /// Its own place.
    pub location: Location,
    /// The time that its block carries.
    pub time: u64,
}
