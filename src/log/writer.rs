//! Writing blocks to the active segment, and going on to the next one. Only the leader gets here.
//!
//! A roll keeps an order, and nothing in the new segment is promised before all of it has happened:
//!
//! ```text
//! 1. sync the old segment whole        what the new header says about it must be true
//! 2. rename the spare to its name      or make a file, when no spare is ready
//! 3. sync the directory
//! 4. write header and first block      they are promised by the next sync, like any block
//! ```
#![forbid(unsafe_code)]

use std::path::Path;

use super::block::{self, Head, Kind};
use super::directory;
use super::error::{self, LogError};
use super::group::{Class, Group};
use super::header::{Fill, Header};
use super::hook::Staged;
use super::output::Output;
use super::record::Lsn;
use super::recover::Link;
use super::repair::Fresh;
use super::segment::{End, Segment};
use super::shared::Shared;
use super::spare::Spare;
use super::vfs::{Open, VfsFile};
use crate::sync::{Arc, Ordering};

/// The active segment and the state of the chain.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn VfsFile>,
    /// Where in the file the next block goes.
    pub(crate) position: u64,
    /// Up to where the file was written before.
    written: u64,
    /// Where the segment is to end.
    pub(crate) capacity: u64,
    /// Nothing more may be written to this segment: a write failed, and nobody knows how far it went.
    ended: bool,
    /// The directory was let go: another writer may be at work in it.
    pub(crate) gone: bool,
    pub(crate) lsn: u64,
    chain: u32,
    next_number: u64,
    /// Blocks in the active segment.
    blocks: u64,
    /// How many syncs there had been when it was begun.
    syncs: u64,
    /// Header and directory of blocks with many records.
    front: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(fresh: &Fresh, segment: Arc<Segment>, next_number: u64) -> Self {
        Self {
            segment,
            file: Arc::clone(&fresh.file),
            position: fresh.end.position,
            written: fresh.written,
            capacity: fresh.capacity,
            ended: false,
            gone: false,
            lsn: fresh.end.lsn,
            chain: fresh.end.chain.unwrap_or(0),
            next_number,
            blocks: 0,
            syncs: 0,
            front: Vec::new(),
        }
    }

    /// Asks the hooks, refuses what finds no room, and writes the rest as one block.
    ///
    /// Returns where the block is, `None` if nothing was left to write.
    pub(crate) fn write(&mut self, shared: &Shared, group: &mut Group) -> Result<Option<(Lsn, Lsn)>, LogError> {
        if self.gone {
            return Err(LogError::Closed);
        }
        self.stage(shared, group);
        group.compact();
        if group.batch.is_empty() {
            return Ok(None);
        }
        let block = match self.write_block(shared, group, Kind::Records) {
            // There may be room for facts alone.
            Err(LogError::Full) if group.refuse_data() => {
                group.compact();
                self.write_block(shared, group, Kind::Records)?
            }
            written => written?,
        };
        self.watch_fill(shared);
        Ok(Some(block))
    }

    /// Writes the block that ends the log. It goes into the segment that is open, or nowhere: it says that all before it
    /// was promised, and in a segment begun for its sake the header would not be.
    pub(crate) fn write_closing(&mut self, shared: &Shared) -> Result<(), LogError> {
        let mut group = Group::new();
        group.batch.make_room();
        let len = (block::HEAD as u64).next_multiple_of(self.segment.header.align);
        if self.ended {
            return Ok(());
        }
        self.capacity = self.capacity.max(self.position + len);
        match self.write_block(shared, &mut group, Kind::Closing) {
            // Everything that was promised is durable. All that is lost is the word that there was no more.
            Err(LogError::Full) => Ok(()),
            written => written.map(drop),
        }
    }

    /// Lets each part's hook decide, and refuses data where only facts have room.
    fn stage(&mut self, shared: &Shared, group: &mut Group) {
        let at_most = block::front(group.batch.len(), group.batch.len()) + group.batch.bytes();
        let is_short = group.has_data() && self.is_short(shared, at_most as u64);
        let mut entries = &mut group.batch.entries[..];
        for part in &mut group.parts {
            let (mine, rest) = entries.split_at_mut(part.records);
            entries = rest;
            if is_short && part.class == Class::Data && part.records > 0 {
                part.refused = Some(LogError::Full);
                continue;
            }
            let Some(hook) = part.hook.as_mut().filter(|_| part.refused.is_none()) else {
                continue;
            };
            let mut staged = Staged {
                lsn: Lsn(self.lsn),
                entries: mine,
                time: &mut group.batch.time,
            };
            if let Err(veto) = hook.stage(&mut staged) {
                part.refused = Some(LogError::Vetoed { code: veto.0 });
            }
        }
    }

    /// Tells whether what is left is needed for facts: no spare can be made, and half of the segment is used.
    fn is_short(&self, shared: &Shared, len: u64) -> bool {
        if !shared.spares.is_starved() || self.ahead() >= len.max(self.capacity / 2) {
            return false;
        }
        !shared.retry_spare()
    }

    /// Bytes behind the last block that have their space.
    fn ahead(&self) -> u64 {
        self.written.saturating_sub(self.position)
    }

    fn write_block(&mut self, shared: &Shared, group: &mut Group, kind: Kind) -> Result<(Lsn, Lsn), LogError> {
        let runs = directory::count_runs(&group.batch.entries);
        let front = block::front(group.batch.len(), runs);
        let len = front as u64 + group.batch.bytes() as u64;
        debug_assert!(len <= block::MAX_BLOCK as u64);
        for attempt in 0.. {
            let align = self.segment.header.align;
            self.make_room(shared, len.next_multiple_of(align))?;
            let align = self.segment.header.align;
            if attempt > 0 && group.has_data() && self.ahead() < len.next_multiple_of(align) + reserve(shared) {
                return Err(LogError::Full); // space is short, and what this segment has is for facts
            }
            let head = Head {
                kind,
                segment: self.segment.header.first,
                lsn: self.lsn,
                epoch: shared.epoch,
                durable: shared.durable.load(Ordering::Acquire).min(self.lsn),
                time: group.batch.time,
                records: group.batch.len() as u32,
                runs: runs as u32,
                body_bytes: group.batch.bytes() as u32,
                chain: self.chain,
                crc: 0,
            };
            let padded = len.next_multiple_of(align);
            match self.put(shared, group, &head, (padded - len) as usize) {
                Ok(crc) => {
                    self.chain = crc;
                    self.position += padded;
                    self.blocks += 1;
                    self.lsn += padded;
                    self.written = self.written.max(self.position);
                    return Ok((Lsn(head.lsn), Lsn(self.lsn)));
                }
                Err(e) if error::is_full(&e) => {
                    self.ended = !self.take_back(padded);
                    if attempt > 0 || kind == Kind::Closing {
                        return Err(LogError::Full);
                    }
                }
                Err(e) => {
                    let error = LogError::io("write", &self.segment.path, e);
                    return Err(shared.fence(&error));
                }
            }
        }
        Err(LogError::Full)
    }

    /// Makes nothing of a block that found no space: it may be there in part, or even whole. Tells whether the segment goes on, in the
    /// space that was written ahead; else it ends before the block, and until a successor says so, the place where it begins does.
    /// That place has its space already, and if this fails too there was none.
    fn take_back(&mut self, len: u64) -> bool {
        let ahead = self.ahead().min(len);
        let zeros = vec![0; ahead.max(block::HEAD as u64) as usize];
        let cleared = self.file.write_all_at(&zeros, self.position);
        if cleared.is_err() || ahead < zeros.len() as u64 {
            return false;
        }
        let is_as_before = match self.file.len() {
            Ok(len) if len > self.written => self.file.set_len(self.written).is_ok(),
            measured => measured.is_ok(),
        };
        if is_as_before {
            self.capacity = self.capacity.min(self.written);
        }
        is_as_before
    }

    /// Writes the pieces of a block, one as a rule.
    fn put(&mut self, shared: &Shared, group: &mut Group, head: &Head, padding: usize) -> std::io::Result<u32> {
        let front = head.front();
        let buffer = &mut group.batch.buffer;
        let bodies_end = buffer.len();
        buffer.resize(bodies_end + padding, 0);
        let written = if front <= block::ROOM {
            let start = block::ROOM - front;
            let crc = head.encode(&group.batch.entries, shared.log_mix, &mut buffer[start..block::ROOM]);
            self.file.write_all_at(&buffer[start..], self.position).map(|()| crc)
        } else {
            self.front.resize(front, 0);
            let crc = head.encode(&group.batch.entries, shared.log_mix, &mut self.front);
            let bodies = self.position + front as u64;
            let first = self.file.write_all_at(&self.front, self.position);
            first
                .and_then(|()| self.file.write_all_at(&buffer[block::ROOM..], bodies))
                .map(|()| crc)
        };
        buffer.truncate(bodies_end);
        written
    }

    /// Makes sure that a block of that size fits into the active segment.
    fn make_room(&mut self, shared: &Shared, len: u64) -> Result<(), LogError> {
        if !self.ended && self.position + len <= self.capacity {
            return Ok(());
        }
        let is_unused = self.position == u64::from(self.segment.header.header_bytes);
        if is_unused {
            // Another segment would not have more space. What a failed write left here was never a block.
            self.ended = false;
            self.capacity = self.capacity.max(self.position + len);
            return Ok(());
        }
        self.roll(shared, len)
    }

    /// Goes on to another segment, in the promised order.
    fn roll(&mut self, shared: &Shared, len: u64) -> Result<(), LogError> {
        shared.check_lock()?;
        shared.sync(&self.file, &self.segment.path, self.lsn)?;
        let align = shared.options.align;
        let needed = u64::from(Header::bytes_for(align)) + len;
        let found = shared.dir.free_segment(self.next_number);
        let (name, path) = found.map_err(|error| if error.is_full() { LogError::Full } else { error })?;
        // Whatever happens from here on, this number is not tried again.
        self.next_number = name.last + 1;
        let spare = match shared.spares.take(needed) {
            Some(spare) => match shared.dir.rename(&spare.path, &path) {
                Ok(()) => spare,
                Err(error) if error.is_full() => {
                    shared.spares.put(&shared.dir, spare); // no space for its name, and that may pass
                    return Err(LogError::Full);
                }
                Err(error) => return Err(error),
            },
            None => self.growing(shared, &path, needed)?,
        };
        if shared.syncs() {
            shared.sync_names()?;
        }
        let header = Header {
            log_id: shared.log_id,
            first: name.first,
            last: name.last,
            generation: 0,
            epoch: shared.epoch,
            base: self.lsn,
            predecessor: self.segment.header.last,
            chain: self.chain,
            header_bytes: Header::bytes_for(align),
            align,
            fill: spare.fill,
            rewritten: None,
        };
        if let Err(e) = spare.file.write_all_at(&header.encode(), 0) {
            if !error::is_full(&e) {
                return Err(shared.fence(&LogError::io("write", &path, e)));
            }
            // The header may be there all the same, and then says that the old segment ends here. So it does: whatever
            // comes next continues from the same place, and this file is dead by its number.
            self.ended = true;
            shared.spares.starve();
            drop(shared.dir.unlink(&path));
            return Err(LogError::Full);
        }
        self.weigh_prewriting(shared);
        let link = Link {
            header,
            path,
            end: None,
            end_chain: None,
        };
        let segment = Arc::new(Segment::active(&link, Arc::clone(&spare.file)));
        shared.table.push(Arc::clone(&segment));
        // Only now: whoever finds the old one sealed finds its successor, too.
        self.segment.set_end(End::Known(self.lsn, Some(self.chain)));
        self.segment = segment;
        self.file = spare.file;
        self.position = u64::from(header.header_bytes);
        self.written = spare.len;
        self.capacity = spare.capacity.max(needed);
        shared.capacity.store(self.capacity, Ordering::Relaxed);
        self.ended = false;
        shared.rolls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Decides whether the next spare is to be written before it is used.
    ///
    /// What it buys is cheaper syncs. Large blocks, and a stream that is hardly ever synced, would pay for them with
    /// the bandwidth that they need themselves.
    fn weigh_prewriting(&mut self, shared: &Shared) {
        let bytes = self.position - u64::from(self.segment.header.header_bytes);
        let syncs = shared.syncs.load(Ordering::Relaxed);
        let has_small_blocks = bytes / self.blocks.max(1) <= LARGE_BLOCK;
        let has_many_syncs = (syncs - self.syncs) * BYTES_PER_SYNC >= bytes;
        let pays = shared.can_prewrite && has_small_blocks && has_many_syncs;
        shared.is_prewriting.store(pays, Ordering::Relaxed);
        self.blocks = 0;
        self.syncs = syncs;
    }

    /// A file that grows while it is written, for when no spare is ready.
    ///
    /// Its first bytes are zeros before they are a header: space that is short is short before anything says that the
    /// old segment ends.
    fn growing(&self, shared: &Shared, path: &Path, needed: u64) -> Result<Spare, LogError> {
        let full_or = |operation, e: std::io::Error| {
            if error::is_full(&e) {
                shared.spares.starve();
                LogError::Full
            } else {
                LogError::io(operation, path, e)
            }
        };
        let file: Arc<dyn VfsFile> = match shared.dir.vfs.open(path, Open::Create) {
            Ok(file) => Arc::from(file),
            Err(e) => return Err(full_or("create", e)),
        };
        let mut out = Output::new(&*file, path, Vec::new());
        if let Err(error) = out.zeros(needed).and_then(|()| out.flush()) {
            // Nothing refers to it, and without a header it is no segment.
            drop(shared.dir.unlink(path));
            return Err(match error {
                LogError::Io { source, .. } if error::is_full(&source) => {
                    shared.spares.starve();
                    LogError::Full
                }
                error => error,
            });
        }
        Ok(Spare {
            path: path.to_owned(),
            file,
            len: needed,
            capacity: self.next_capacity(shared).max(needed),
            fill: Fill::Zeros,
        })
    }

    /// Twice what this one used, within the limits.
    fn next_capacity(&self, shared: &Shared) -> u64 {
        let options = &shared.options;
        (2 * self.position.max(self.capacity / 2)).clamp(options.first_segment, options.max_segment)
    }

    /// Has a spare made when half of the segment is used, or what was written ahead of it runs out: that is what facts have when
    /// space does.
    fn watch_fill(&self, shared: &Shared) {
        let is_due = self.position >= self.capacity / 2 || self.ahead() < reserve(shared);
        if is_due && shared.spares.is_wanted() {
            shared.want_spare((2 * self.capacity).clamp(shared.options.first_segment, shared.options.max_segment));
        }
    }
}

/// How much data leaves to facts when space is short.
fn reserve(shared: &Shared) -> u64 {
    shared.options.first_segment / 2
}

/// Blocks that are larger on average are not written ahead for.
const LARGE_BLOCK: u64 = 64 << 10;
/// A stream that writes more than this between two syncs gains little from each.
const BYTES_PER_SYNC: u64 = 2 << 20;
