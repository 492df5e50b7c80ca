//! An append-only, segmented log of bytes that can be trusted with them.
//!
//! Records go in at the end, in blocks; a block is there whole or not at all. They are read in order, or one by one from
//! the places that appending named. What a record means is the owner's business: the log knows a stream, an offset, a
//! codec and a kind, compares them, and knows nothing of topics, messages, acks or retention.
//!
//! # On disk
//!
//! All numbers are little-endian. Nothing is mapped: every access names its position, through [`vfs::Vfs`].
//!
//! ```text
//! <directory>/
//!   LOCK                          held by the one writer; never deleted, so a name cannot lead to two locks
//!   META          1 KiB           format and identity, twice                                       (meta.rs)
//!   log/<first>-<last>.<gen>.log  segments; numbers in 16 hexadecimal digits                       (name.rs)
//!   log/<n>.spare                 space for a segment to come: zeros, or blocks of an older number
//!   log/<n>.tmp                   on its way to become one of the others; removed by the next opening
//!   quarantine/                   bytes that were cut off, kept aside; never read by the log         (aside.rs)
//!
//! segment     0   120   header: identity, numbers, epoch, base, predecessor, chain                (header.rs)
//!           512   120   the same again
//!          1024         block, block, block ...    each begins at a multiple of the alignment, 8 as a rule
//!
//! block       0     4   magic          16  8  segment      48  8  time                              (block.rs)
//!             4     4   crc            24  8  lsn          56  4  records
//!             8     2   version        32  8  epoch        60  4  runs
//!            10     1   kind           40  8  durable      64  4  body bytes
//!            11     1   flags                              68  4  zero
//!            12     4   chain
//!            72         directory: runs x 24 (topic 8, first offset 8, records 4, codec 1, kind 1, zero 2)        (directory.rs)
//!                                  records x 8 (length 4, crc 4)
//!                       bodies, zeros up to the alignment
//! ```
//!
//! An LSN counts the bytes of blocks from the beginning of the log; headers of segments do not count. So blocks that
//! recovery writes again keep their LSN.
//!
//! A reader refuses versions and flags that it does not know; it never guesses. Kinds of records are the owner's: those
//! with [`Tag::OPTIONAL`] set may be skipped by an owner who does not know them. A record has at most 16 MiB, a block
//! 32 MiB, and no length is believed before a checksum over it was right.
//!
//! # Why it survives
//!
//! - **One CRC over all of a block's front**, tied to the identity of the log: lengths, names and the checksum of every
//!   body. The checksum of a body is tied to its name. So a bad body costs that record, a bad front that block.
//! - **A promise is a sync that returned Ok**, of the very file handle that was written through. A sync that fails is
//!   never tried again: everything that waits gets [`LogError::Fenced`], and nothing is written until the log is opened
//!   again.
//! - **A write that finds no space** ends the segment where it began, or keeps it to what was written ahead of it. The log
//!   then takes records again as soon as another segment can be made. While it cannot, data is refused with
//!   [`LogError::Full`] once half of the active segment is used; the rest is for [`Log::note`], so that an owner can say
//!   what may be removed. A spare is asked for when half of the segment is used, or when less than half of a first segment
//!   is written ahead: so there is a reserve unless the disk fills before one spare could be made. Facts that share a block
//!   with data that finds no space are written without it. Where files are copied on write, or zeros take no space, the
//!   reserve is no more than a hope.
//! - **A roll** syncs the old segment, renames the spare, syncs the directory and only then writes a header that says
//!   where the old segment ends.
//! - **Opening for writing starts a segment of its own**, in one way after a clean close, a killed process and a power
//!   cut. It is written, synced, renamed and its directory synced before anything is exposed.
//!
//! # Recovery
//!
//! From the newest segment with a header, predecessors are followed to the oldest; what lies between is dead. The last
//! segment is read whole. Its highest `durable` says what was promised: a bad place below is *damage*, reported with its
//! file and position, and the rest is served ([`OnDamage::Salvage`]) or not ([`OnDamage::Refuse`]). The first bad place
//! above every `durable` is the end; what is behind it goes to `quarantine/`. Files that the log did not make are left
//! alone. Segments of which no identity is left are damage, not the beginning of a new log, and a device that gives nothing
//! is an error. Damage in older segments is met, and named, by whoever reads them, or by [`Verify::All`].
//!
//! Four rules carry the proof. Leaving out any one of them loses or invents data, and tests show it:
//!
//! 1. **Chain.** Each block carries the checksum of the block before; a header that of the block where it continues.
//!    A block that was left over from a time when the log went on differently does not fit.
//! 2. **Epoch.** Each opening has a number of its own, durable before the first block that carries it. A block of another
//!    opening, or of an attempt to open that died, does not pass for one of this segment.
//! 3. **Re-append.** Blocks that are visible but not proven are written again, to a new segment. After a failed sync the
//!    page cache shows what the device never got; nothing may be built on that.
//! 4. **Proven.** A new header continues from the highest `durable`, or from the start of the segment if there is none in
//!    it, then in the predecessor: never from a block that is merely there.
//!
//! Until the next commit or a clean close, the last synced block cannot be told from a torn one: if it is damaged after
//! an unclean stop, it is cut like a torn one. That is the one exception to "damage is always named".
//!
//! # What is assumed
//!
//! A sector that is written again holds its old or its new bytes (else raise [`LogOptions::align`]). Rename is atomic. A
//! sync that returned Ok is true. Nobody removes or replaces `LOCK` while it is held. The writer looks at it before it begins,
//! retires or rewrites a segment or makes a spare, and is then fenced if the name leads elsewhere; until then it goes on to
//! confirm what whoever has made the file anew, and opened the log, does not have. A look costs a twelfth of a fast sync, so
//! there is none at each. On Windows a directory cannot be synced, so only the death of the process is covered.
//! Checksums find accidents, not forgers.
//!
//! # Threads
//!
//! Whoever waits for a commit may do it for all; see `commit.rs`. One thread of the log's own makes spares, syncs what was
//! only written, and commits for futures; it is parked when there is nothing to do.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

mod allowance;
mod aside;
mod batch;
mod beside;
mod block;
mod bytes;
mod commit;
mod crc;
mod dir;
mod directory;
mod error;
mod fate;
mod group;
mod header;
mod hook;
mod manage;
mod meta;
mod missing;
mod name;
mod open;
mod options;
mod output;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod probe;
mod queue;
mod reader;
mod rebuild;
mod receipt;
mod record;
mod recover;
mod renew;
mod repair;
mod report;
mod scan;
mod segment;
mod shared;
#[cfg(feature = "testing")]
pub mod sim;
mod space;
mod spare;
mod tail;
pub mod vfs;
mod window;
mod worker;
mod writer;

pub use self::batch::Batch;
pub use self::error::LogError;
pub use self::hook::{Hook, Reached, Staged, Veto};
pub use self::manage::{Rewrote, SegmentInfo};
pub use self::options::{Background, LogOptions, OnDamage, Prewrite, Survives, Verify, WhenFull};
pub use self::reader::{Found, Item, Pinned, Reader};
pub use self::receipt::{Append, Receipt};
pub use self::record::{Level, Location, Lsn, Placed, Record, Tag};
pub use self::report::{Cut, Damage, DamageKind, Missing, OpenReport, Reappended};

use self::group::Class;
use self::queue::{Entered, Input, Order, Ticket, Unwatched};
use self::shared::Shared;
use self::vfs::Vfs;
use crate::sync::{Ordering, thread};

/// An open log.
///
/// All methods take `&self`; threads share one log. [`close`](Self::close) it to learn whether everything was written.
/// Dropped without, it writes nothing more, as if the process had been killed; that loses nothing that was confirmed.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use ringmq::log::{Item, Level, Log, LogOptions, Record, vfs::StdVfs};
///
/// # fn main() -> Result<(), ringmq::log::LogError> {
/// # let dir = std::env::temp_dir().join(format!("ringmq-log-doc-{}", std::process::id()));
/// # let _ = std::fs::remove_dir_all(&dir);
/// let (log, _) = Log::open(Arc::new(StdVfs::new()), &dir, LogOptions::new())?;
/// log.append(&[Record::new(1, 0, b"first"), Record::new(1, 1, b"second")], Level::Synced)?;
/// log.close()?;
///
/// let (log, report) = Log::open(Arc::new(StdVfs::new()), &dir, LogOptions::new())?;
/// assert!(report.clean);
/// let mut reader = log.reader(report.first)?;
/// let mut bodies = Vec::new();
/// while let Some(Item::Record(found)) = reader.next()? {
///     bodies.push(found.body.to_vec());
/// }
/// assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
/// # drop(log);
/// # let _ = std::fs::remove_dir_all(&dir);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Log {
    /// Opens the log in a directory, making it if there is none, and recovers it if it was not closed.
    ///
    /// # Errors
    ///
    /// [`LogError::Locked`], [`LogError::Refused`], [`LogError::NewerFormat`], [`LogError::Options`], [`LogError::Io`];
    /// [`LogError::TooLarge`] when a name has used up the numbers of segments, or there are too many files;
    /// [`LogError::NotFound`] for a log that is to be read only and is not there.
    pub fn open(vfs: Arc<dyn Vfs>, dir: impl AsRef<Path>, options: LogOptions) -> Result<(Self, OpenReport), LogError> {
        let opened = open::open(vfs, dir.as_ref(), options)?;
        let log = Self {
            shared: opened.shared,
            worker: opened.worker,
        };
        Ok((log, opened.report))
    }

    /// Appends records as one unit and waits until they have reached the level.
    ///
    /// # Errors
    ///
    /// What became of the records is unknown after [`LogError::Fenced`]; after any other error nothing was appended.
    pub fn append(&self, records: &[Record<'_>], level: Level) -> Result<Placed, LogError> {
        if self.shared.options.when_full == WhenFull::Fail
            && let Some(input) = Input::one(records)?
        {
            return self.settle(input, level);
        }
        with_scratch(records, |batch| self.append_batch(batch, level))
    }

    /// Appends a batch as one unit and waits until it has reached the level. The batch is empty afterwards.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn append_batch(&self, batch: &mut Batch, level: Level) -> Result<Placed, LogError> {
        if self.shared.options.when_full == WhenFull::Fail {
            return self.settle(Input::Batch(batch), level);
        }
        loop {
            let freed = self.shared.space.freed();
            let mut copy = batch.duplicate();
            match self.settle(Input::Batch(&mut copy), level) {
                Err(error) if self.shared.waits_for_space(&error) => self.shared.wait_for_space(freed)?,
                outcome => {
                    batch.clear();
                    return outcome;
                }
            }
        }
    }

    /// Appends a batch as one unit without blocking the thread: the writing and syncing is done by the log's own thread.
    pub fn append_async<'a>(&self, batch: &'a mut Batch, level: Level) -> Append<'a> {
        Append::new(Arc::clone(&self.shared), batch, level)
    }

    /// Hands records over without waiting for them to be written; waits only while the queue is full.
    ///
    /// What nobody waits for is written together with what comes after it, after 50 ms at the latest, and synced after
    /// a second at the latest.
    ///
    /// # Errors
    ///
    /// When nothing was handed over.
    pub fn submit(&self, records: &[Record<'_>], level: Level) -> Result<Receipt, LogError> {
        match Input::one(records)? {
            Some(input) => self.hand_over(input, level, Class::Data, None),
            None => with_scratch(records, |batch| self.hand_over(Input::Batch(batch), level, Class::Data, None)),
        }
    }

    /// Hands records over as [`submit`](Self::submit) does, for callers who will not ask what became of them; for small
    /// records that is a good part of the cost. Nobody learns, then, that they were refused for want of space later on.
    ///
    /// # Errors
    ///
    /// When nothing was handed over.
    pub fn submit_unwatched(&self, records: &[Record<'_>]) -> Result<(), LogError> {
        let entered: Result<Unwatched, LogError> = match Input::one(records)? {
            Some(input) => self.enter(input, Level::Os, Class::Data, None),
            None => with_scratch(records, |batch| self.enter(Input::Batch(batch), Level::Os, Class::Data, None)),
        };
        entered.map(drop)
    }

    /// Hands a batch over, with the owner's part in its commit. The batch is empty afterwards.
    ///
    /// # Errors
    ///
    /// When nothing was handed over; then the hook is dropped without a call.
    pub fn submit_batch(&self, batch: &mut Batch, level: Level, hook: Option<Box<dyn Hook>>) -> Result<Receipt, LogError> {
        self.hand_over(Input::Batch(batch), level, Class::Data, hook)
    }

    /// Hands over facts that nobody waits for. They ride on the next block, and may use the space that is kept for them
    /// when data finds none.
    ///
    /// # Errors
    ///
    /// When nothing was handed over; then the hook is dropped without a call.
    pub fn note(&self, batch: &mut Batch, hook: Option<Box<dyn Hook>>) -> Result<(), LogError> {
        self.enter::<Unwatched>(Input::Batch(batch), Level::Os, Class::Fact, hook).map(drop)
    }

    /// Waits until everything handed over before has reached the level.
    ///
    /// # Errors
    ///
    /// The failure of the write or sync.
    pub fn flush(&self, level: Level) -> Result<(), LogError> {
        self.settle(Input::Batch(&mut Batch::new()), level).map(drop)
    }

    /// Reads from a position on: the block that begins there, or the first one of the next segment, and all that follow.
    ///
    /// # Errors
    ///
    /// [`LogError::Gone`] when the position is before the first or behind the end.
    pub fn reader(&self, from: Lsn) -> Result<Reader, LogError> {
        let (first, end) = self.range();
        if from < first || from > end {
            return Err(LogError::Gone { lsn: from });
        }
        Ok(Reader::new(Arc::clone(&self.shared), from.0))
    }

    /// Reads the body of one record into a buffer, replacing what is in it. After an error the buffer is empty.
    ///
    /// # Errors
    ///
    /// [`LogError::Gone`] and [`LogError::Moved`] when the place does not exist any more, [`LogError::Damaged`] when the
    /// bytes are not what was appended.
    pub fn read(&self, tag: Tag, location: Location, body: &mut Vec<u8>) -> Result<(), LogError> {
        self.shared.read(tag, location, body)
    }

    /// The first position that the log holds, and the one behind the last block that can be read.
    pub fn range(&self) -> (Lsn, Lsn) {
        let end = self.shared.visible.load(Ordering::Acquire);
        (Lsn(self.shared.table.first().min(end)), Lsn(end))
    }

    /// The position up to which everything is known to survive the loss of power.
    pub fn durable(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments()
    }

    /// Removes a sealed segment, named by its first number. The owner has made sure that it does not need it, and that
    /// the next opening knows: a segment that is missing is reported.
    ///
    /// Readers that are in it read it to its end. Positions never begin again: before the last sealed segment goes, the header of the
    /// one that continues it is synced, unless that has happened.
    ///
    /// # Errors
    ///
    /// [`LogError::Gone`] when there is no such segment, or it is being written; [`LogError::Io`] when its file could
    /// not be removed, and may be back at the next opening; [`LogError::Fenced`] when another writer has the directory now, or a sync
    /// failed.
    pub fn retire(&self, segment: u64) -> Result<(), LogError> {
        let _one_at_a_time = self.shared.managing.lock();
        self.shared.retire(segment)
    }

    /// Writes the records that `keep` names of neighbouring sealed segments to one new file that takes their place.
    ///
    /// The order within a topic stays; the records of one topic move together. Each record that is kept gets a new
    /// place, which `moved` is told after the file is durable. Damaged segments are not rewritten.
    ///
    /// # Errors
    ///
    /// [`LogError::Gone`] when the numbers are not those of sealed segments that follow each other,
    /// [`LogError::Damaged`], [`LogError::Io`]: then the old segments are there as before. [`LogError::Fenced`] when files
    /// could not be exchanged: the next opening finds the old ones or the new one; or when another writer has the directory.
    /// [`LogError::TooLarge`] when more than 4,194,304 records are kept, and so remembered until they can be told, or a segment was rewritten
    /// 4,294,967,295 times: nothing changed.
    pub fn rewrite(
        &self,
        segments: std::ops::Range<u64>,
        mut keep: impl FnMut(Tag, Location) -> bool,
        mut moved: impl FnMut(Tag, Location, Location),
    ) -> Result<Rewrote, LogError> {
        let _one_at_a_time = self.shared.managing.lock();
        self.shared.rewrite(segments, &mut keep, &mut moved)
    }

    /// What the log has done so far, and what is in its queue.
    pub fn stats(&self) -> LogStats {
        LogStats {
            blocks: self.shared.blocks.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            rolls: self.shared.rolls.load(Ordering::Relaxed),
            unsynced_bytes: self.shared.unsynced(),
            segments: self.shared.table.len(),
            is_fenced: self.shared.fenced().is_some(),
            is_short_of_space: self.shared.spares.is_starved(),
        }
    }

    /// Writes what was handed over, syncs, writes a closing block and lets go of the directory.
    ///
    /// # Errors
    ///
    /// The failure of the write or sync; the directory is let go in any case.
    pub fn close(mut self) -> Result<(), LogError> {
        let closed = self.shared.finish();
        self.let_go();
        closed
    }

    fn settle(&self, input: Input<'_>, level: Level) -> Result<Placed, LogError> {
        let order = Order {
            level,
            class: Class::Data,
            hook: None,
            waits: true,
            may_lead: true,
        };
        let ticket: Ticket = self.shared.enqueue_blocking(input, order)?;
        let outcome = self.shared.settle(&ticket);
        self.shared.work_inline();
        outcome
    }

    fn hand_over(&self, input: Input<'_>, level: Level, class: Class, hook: Option<Box<dyn Hook>>) -> Result<Receipt, LogError> {
        let ticket: Ticket = self.enter(input, level, class, hook)?;
        Ok(Receipt::new(Arc::clone(&self.shared), ticket))
    }

    /// Puts records into the queue, and writes a block if that filled one.
    #[inline]
    fn enter<E: Entered>(&self, input: Input<'_>, level: Level, class: Class, hook: Option<Box<dyn Hook>>) -> Result<E, LogError> {
        let order = Order {
            level,
            class,
            hook,
            waits: false,
            may_lead: true,
        };
        let mut entered: E = self.shared.enqueue_blocking(input, order)?;
        // What is written at once is still to be synced.
        self.shared.signal.start_timer();
        if std::mem::take(entered.leads()) {
            self.shared.lead();
        }
        self.shared.work_inline();
        Ok(entered)
    }

    fn let_go(&mut self) {
        self.shared.signal.stop();
        // The last handle may go with a waker that the worker calls: then the worker ends by itself, once the waker has returned.
        let worker = self.worker.take().filter(|worker| worker.thread().id() != thread::current().id());
        if let Some(worker) = worker {
            // A panic of the worker has fenced the log and was told to everybody who waits.
            let _ = worker.join();
        }
        self.shared.let_go();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Encodes records into a buffer that each thread keeps: handed over, it is traded for one that was written before.
fn with_scratch<T>(records: &[Record<'_>], use_it: impl FnOnce(&mut Batch) -> Result<T, LogError>) -> Result<T, LogError> {
    thread_local! {
        static SCRATCH: Cell<Batch> = const { Cell::new(Batch::new()) };
    }
    let mut batch = SCRATCH.take();
    let outcome = batch.extend(records).and_then(|()| use_it(&mut batch));
    batch.clear();
    if batch.buffer.capacity() <= SCRATCH_BYTES {
        SCRATCH.set(batch);
    }
    outcome
}

/// A thread does not keep more than this.
const SCRATCH_BYTES: usize = 1 << 20;

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Blocks written.
    pub blocks: u64,
    /// Syncs of the active segment.
    pub syncs: u64,
    /// How often another segment was begun.
    pub rolls: u64,
    /// Bytes written and not synced.
    pub unsynced_bytes: u64,
    /// Segments in the log.
    pub segments: usize,
    /// Whether a failed sync keeps the log from being written.
    pub is_fenced: bool,
    /// Whether there was no space for another segment when one was tried.
    pub is_short_of_space: bool,
}
