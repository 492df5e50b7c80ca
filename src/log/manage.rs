//! Letting go of segments, and rewriting those of which little is needed. What is needed is for the owner to know.
//!
//! A rewritten segment keeps its place in the log: the positions it spans, what it continues, and what continues it.
//! Only positions within it change. It gets its name when it is whole, and counts from then on because its generation is
//! higher; the files it replaces are dead by rule, whether they are still there or not.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::batch::Batch;
use super::block::{self, Head, Kind};
use super::directory::{self, Entry};
use super::error::LogError;
use super::header::{Fill, Header, Rewritten};
use super::output::Output;
use super::reader::{Item, Reader};
use super::record::{Location, Lsn, Tag};
use super::recover::Link;
use super::segment::{End, Segment};
use super::shared::Shared;
use super::vfs::VfsFile;
use crate::sync::{Arc, Ordering};

/// A segment, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number, or the first of those that a rewriting merged.
    pub first: u64,
    /// The last of its numbers.
    pub last: u64,
    /// How often it was rewritten.
    pub generation: u32,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends; the end of the log for the one that is being written.
    pub to: Lsn,
    /// How many bytes its blocks have.
    pub bytes: u64,
    /// Whether it is complete: only then can it be retired or rewritten.
    pub is_sealed: bool,
}

/// What a rewriting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrote {
    /// How many records were kept.
    pub kept: u64,
    /// How many were left out.
    pub dropped: u64,
    /// How many bytes of blocks there were before.
    pub before: u64,
    /// How many there are now. The same as before when rewriting would not have made it smaller; then nothing changed.
    pub after: u64,
}

impl Shared {
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let all = self.table.all();
        let visible = self.visible.load(Ordering::Acquire);
        let next_bases = all.iter().skip(1).map(|s| s.header.base).chain([visible]);
        let info = |(segment, next): (&Arc<Segment>, u64)| {
            let header = &segment.header;
            let end = match segment.end() {
                End::Known(end, _) => end,
                End::Active | End::Open => next.max(header.base),
            };
            let used = header.rewritten.map(|r| r.used - u64::from(header.header_bytes));
            SegmentInfo {
                first: header.first,
                last: header.last,
                generation: header.generation,
                from: Lsn(header.base),
                to: Lsn(end),
                bytes: used.unwrap_or(end - header.base),
                is_sealed: segment.end() != End::Active,
            }
        };
        all.iter().zip(next_bases).map(info).collect()
    }

    /// Removes a sealed segment. Its file is used again for a segment to come if that is possible.
    pub(crate) fn retire(&self, number: u64) -> Result<(), LogError> {
        let segment = self.sealed(number)?;
        self.check_lock()?;
        self.keep_positions(&segment)?;
        self.table.replace(std::slice::from_ref(&segment), None);
        self.discard(segment)?;
        self.space.free();
        self.sync_names()
    }

    /// Makes sure that the header of the active segment is on the device before the last sealed one goes: else a power cut could leave
    /// nothing that says how far the log had come, and its positions would be handed out again.
    fn keep_positions(&self, segment: &Arc<Segment>) -> Result<(), LogError> {
        let all = self.table.all();
        match &all[..] {
            [.., last, active] if Arc::ptr_eq(last, segment) => {
                let file = self.table.file(active)?;
                self.sync_header(&file, &active.path, active.header.base)
            }
            _ => Ok(()),
        }
    }

    fn sealed(&self, number: u64) -> Result<Arc<Segment>, LogError> {
        if self.writer.is_none() {
            return Err(LogError::ReadOnly);
        }
        if let Some(error) = self.fenced() {
            return Err(error);
        }
        let found = self.table.all().into_iter().find(|segment| segment.header.first == number);
        let sealed = found.filter(|segment| segment.end() != End::Active);
        sealed.ok_or(LogError::Gone { lsn: Lsn(u64::MAX) })
    }

    /// Gives up a file that is no longer in the table.
    fn discard(&self, segment: Arc<Segment>) -> Result<(), LogError> {
        // Out of the table, nobody can get at it any more who does not have it now.
        let is_unread = Arc::strong_count(&segment) == 1;
        let len = self.table.file(&segment).and_then(|file| {
            let len = file.len();
            len.map_err(|e| LogError::io("measure", &segment.path, e))
        })?;
        if is_unread && self.is_of_use(len) && self.spares.is_wanted() {
            let path = segment.path.clone();
            drop(segment);
            let recycled = self.spares.recycle(&self.dir, &path);
            if recycled.is_err() {
                self.spares.give_up();
            }
            return recycled;
        }
        self.dir.unlink(&segment.path)
    }

    /// Whether a file of that length is worth being a segment again. Its space was written before, which costs nothing this time, so it pays for large
    /// blocks too. One that is smaller than what is being written would keep segments small; but a file that grew ends a little before its limit.
    fn is_of_use(&self, len: u64) -> bool {
        let wanted = self.capacity.load(Ordering::Relaxed);
        self.can_prewrite && (wanted - wanted / 8..=self.options.max_segment).contains(&len)
    }

    /// Writes the records that are still needed of neighbouring segments to one new file that takes their place.
    pub(crate) fn rewrite(
        self: &Arc<Self>,
        numbers: Range<u64>,
        keep: &mut dyn FnMut(Tag, Location) -> bool,
        moved: &mut dyn FnMut(Tag, Location, Location),
    ) -> Result<Rewrote, LogError> {
        self.rewrite_at_most(MAX_KEPT, numbers, keep, moved)
    }

    fn rewrite_at_most(
        self: &Arc<Self>,
        most: usize,
        numbers: Range<u64>,
        keep: &mut dyn FnMut(Tag, Location) -> bool,
        moved: &mut dyn FnMut(Tag, Location, Location),
    ) -> Result<Rewrote, LogError> {
        let old = self.neighbours(&numbers)?;
        self.check_lock()?;
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Err(LogError::Gone { lsn: Lsn(u64::MAX) });
        };
        let End::Known(end, end_chain) = last.end() else {
            return Err(LogError::Gone {
                lsn: Lsn(last.header.base),
            });
        };
        let mut header = Header {
            last: last.header.last,
            generation: old.iter().map(|s| s.header.generation).max().unwrap_or(0),
            epoch: self.epoch,
            fill: Fill::Zeros,
            rewritten: None,
            ..first.header
        };
        loop {
            header.generation = next_generation(header.generation)?;
            if self.dir.is_free(&self.dir.segment(&header.name()))? {
                break; // the others are somebody else's
            }
        }
        let before = old.iter().map(|s| self.block_bytes_of(s)).sum();
        let tmp = self.dir.temporary(self.spares.number(&self.dir)?);
        let file = self.dir.create(&tmp)?;
        let mut rewriting = Rewriting::new(self, header, &*file, &tmp, most);
        let done = rewriting
            .copy(self, end, keep)
            .and_then(|()| rewriting.finish(end, end_chain, before));
        let (header, moves, mut rewrote) = match done {
            Ok(done) => done,
            Err(error) => {
                self.dir.unlink(&tmp)?;
                return Err(error);
            }
        };
        rewrote.before = before;
        if header.rewritten.is_none() {
            self.dir.unlink(&tmp)?;
            return Ok(rewrote);
        }
        if !self.dir.is_free(&self.dir.segment(&header.name()))? {
            self.dir.unlink(&tmp)?; // somebody took the name while the records were copied
            let taken = std::io::ErrorKind::AlreadyExists.into();
            return Err(LogError::io("rename", &tmp, taken));
        }
        self.put_in_place(&old, header, file, &tmp)?;
        moves.into_iter().for_each(|(tag, from, to)| moved(tag, from, to));
        Ok(rewrote)
    }

    fn put_in_place(&self, old: &[Arc<Segment>], header: Header, file: Arc<dyn VfsFile>, tmp: &std::path::Path) -> Result<(), LogError> {
        self.check_lock()?; // copying took its time
        let path = self.dir.segment(&header.name());
        // Should this fail, it is unknown which of the files a crash would leave. Both hold all that is needed, but no
        // more may follow.
        let named = match self.dir.rename(tmp, &path) {
            Err(error) if error.is_full() => {
                self.dir.unlink(tmp)?;
                return Err(error);
            }
            renamed => renamed.and_then(|()| self.sync_names()),
        };
        named.map_err(|error| self.fence(&error))?;
        let link = Link {
            header,
            path,
            end: header.rewritten.map(|r| r.end),
            end_chain: header.rewritten.map(|r| r.end_chain),
        };
        drop(file); // opened again for reading when it is read
        self.table.replace(old, Some(Arc::new(Segment::new(&link))));
        // An old file that may still be there is dead only as long as the new one is: that must not be retired then.
        let remove = |segment: &Arc<Segment>| self.dir.unlink(&segment.path);
        let removed = old.iter().try_for_each(remove);
        self.space.free();
        let removed = removed.and_then(|()| self.sync_names());
        removed.map_err(|error| self.fence(&error))
    }

    /// Sealed segments that follow each other without a gap.
    fn neighbours(&self, numbers: &Range<u64>) -> Result<Vec<Arc<Segment>>, LogError> {
        self.sealed(numbers.start)?;
        let all = self.table.all();
        let inside = |s: &&Arc<Segment>| numbers.contains(&s.header.first) && numbers.contains(&s.header.last);
        let chosen: Vec<Arc<Segment>> = all.iter().filter(inside).cloned().collect();
        for pair in chosen.windows(2) {
            let follows = matches!(pair[0].end(), End::Known(end, _) if end == pair[1].header.base);
            if !follows || pair[0].header.align != pair[1].header.align {
                return Err(LogError::Gone {
                    lsn: Lsn(pair[1].header.base),
                });
            }
        }
        Ok(chosen)
    }

    fn block_bytes_of(&self, segment: &Segment) -> u64 {
        let header = &segment.header;
        match (header.rewritten, segment.end()) {
            (Some(rewritten), _) => rewritten.used - u64::from(header.header_bytes),
            (None, End::Known(end, _)) => end - header.base,
            (None, _) => 0,
        }
    }
}

type Move = (Tag, Location, Location);

/// The last is never reached by rewriting, but a header may say anything.
fn next_generation(generation: u32) -> Result<u32, LogError> {
    let limit = u64::from(u32::MAX);
    generation.checked_add(1).ok_or(LogError::TooLarge {
        what: "generation of a segment",
        size: limit + 1,
        limit,
    })
}

/// A new generation on its way.
struct Rewriting<'a> {
    header: Header,
    log_mix: u32,
    out: Output<'a>,
    batch: Batch,
    /// For each record of the batch: where its body is in the buffer, and where it was in the log.
    from: Vec<(Range<usize>, Location)>,
    time: u64,
    chain: u32,
    moves: Vec<Move>,
    /// How many there may be: they stay in memory until the file is durable.
    most: usize,
    dropped: u64,
}

impl<'a> Rewriting<'a> {
    fn new(shared: &Shared, header: Header, file: &'a dyn VfsFile, path: &'a std::path::Path, most: usize) -> Self {
        Self {
            // The header comes last: until then the file is nothing.
            out: Output::new(file, path, vec![0; header.header_bytes as usize]),
            log_mix: shared.log_mix,
            batch: Batch::new(),
            from: Vec::new(),
            time: 0,
            chain: header.chain,
            moves: Vec::new(),
            most,
            dropped: 0,
            header,
        }
    }

    /// Copies what is to be kept. Damaged segments are never rewritten.
    fn copy(&mut self, shared: &Arc<Shared>, end: u64, keep: &mut dyn FnMut(Tag, Location) -> bool) -> Result<(), LogError> {
        let mut reader = Reader::new(Arc::clone(shared), self.header.base).until(Lsn(end));
        while let Some(item) = reader.next()? {
            let found = match item {
                Item::Record(found) => found,
                Item::Damage(damage) => return Err(LogError::Damaged(Box::new(damage))),
            };
            if !keep(found.tag, found.location) {
                self.dropped += 1;
                continue;
            }
            let kept = self.moves.len() + self.batch.len();
            if kept >= self.most {
                return Err(LogError::TooLarge {
                    what: "the records that a rewriting keeps",
                    size: kept as u64 + 1,
                    limit: self.most as u64,
                });
            }
            if self.batch.bytes() + found.body.len() > WINDOW_BYTES || self.batch.len() >= WINDOW_RECORDS {
                self.put_block()?;
            }
            let at = self.batch.bytes();
            self.batch.push(found.tag, found.body)?;
            self.from.push((at..at + found.body.len(), found.location));
            self.time = self.time.max(found.time);
        }
        self.put_block()
    }

    /// Writes what was gathered as one block, the records of each topic together.
    fn put_block(&mut self) -> Result<(), LogError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut order: Vec<usize> = (0..self.batch.len()).collect();
        // Stable: within a topic, nothing changes places.
        order.sort_by_key(|at| self.batch.entries[*at].tag.topic);
        let entries: Vec<Entry> = order.iter().map(|at| self.batch.entries[*at]).collect();
        let runs = directory::count_runs(&entries);
        let front = block::front(entries.len(), runs);
        let position = self.out.done + self.out.buffer.len() as u64;
        let head = Head {
            kind: Kind::Records,
            segment: self.header.first,
            lsn: self.header.lsn_of(position),
            epoch: self.header.epoch,
            durable: self.header.base,
            time: self.time,
            records: entries.len() as u32,
            runs: runs as u32,
            body_bytes: self.batch.bytes() as u32,
            chain: self.chain,
            crc: 0,
        };
        let at = self.out.buffer.len();
        self.out.buffer.resize(at + front, 0);
        self.chain = head.encode(&entries, self.log_mix, &mut self.out.buffer[at..]);
        let mut body = head.lsn + front as u64;
        for (index, entry) in order.iter().zip(&entries) {
            let (range, old) = &self.from[*index];
            let bytes = &self.batch.buffer[block::ROOM..][range.clone()];
            self.out.buffer.extend_from_slice(bytes);
            let new = Location {
                lsn: Lsn(body),
                len: entry.len,
                crc: entry.crc(),
                generation: self.header.generation,
            };
            self.moves.push((entry.tag, *old, new));
            body += u64::from(entry.len);
        }
        let end = at + head.len().next_multiple_of(self.header.align as usize);
        self.out.buffer.resize(end, 0);
        self.batch.clear();
        self.from.clear();
        self.out.flush_if_large()
    }

    /// Writes the header and syncs, unless the file came out no smaller than what it is to replace.
    fn finish(&mut self, end: u64, end_chain: Option<u32>, before: u64) -> Result<(Header, Vec<Move>, Rewrote), LogError> {
        self.out.flush()?;
        let used = self.out.done;
        let after = used - u64::from(self.header.header_bytes);
        let mut rewrote = Rewrote {
            kept: self.moves.len() as u64,
            dropped: self.dropped,
            before,
            after,
        };
        if after >= before.max(1) || after > end - self.header.base {
            rewrote.after = before;
            return Ok((self.header, Vec::new(), rewrote));
        }
        self.header.rewritten = Some(Rewritten {
            end,
            used,
            end_chain: end_chain.unwrap_or(0),
        });
        let path = self.out.path;
        let written = self.out.file.write_all_at(&self.header.encode(), 0);
        written.map_err(|e| LogError::io("write", path, e))?;
        self.out.file.sync_data().map_err(|e| LogError::io("sync", path, e))?;
        Ok((self.header, std::mem::take(&mut self.moves), rewrote))
    }
}

/// How much is gathered for one block of a rewritten segment.
const WINDOW_BYTES: usize = 1 << 20;
const WINDOW_RECORDS: usize = 16 << 10;
/// How many records are kept at most, at 72 bytes of memory each.
const MAX_KEPT: usize = 4 << 20;

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::log::sim::SimDisk;
    use crate::log::{Background, Level, Log, LogOptions, Record};

    /// Symptom: rewriting segments of many small records took memory without bound. Cause: the places of all of them are kept until the new
    /// file is durable. Fix: it ends with an error when they are too many, and nothing has changed.
    #[test]
    fn a_rewriting_that_keeps_too_many_records_changes_nothing() {
        let disk = SimDisk::new(1);
        let options = LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
        let (log, _) = Log::open(Arc::new(disk.clone()), "/log", options).unwrap();
        for offset in 0..60 {
            log.append(&[Record::new(1, offset, &[1; 200])], Level::Os).unwrap();
        }
        let segments = log.segments();
        let (files, range) = (disk.files(), segments[0].first..segments[2].last + 1);
        let rewrite = |most| {
            let mut keep = |tag: Tag, _: Location| tag.offset.is_multiple_of(2);
            let mut moves = 0;
            let rewrote = log
                .shared
                .rewrite_at_most(most, range.clone(), &mut keep, &mut |_, _, _| moves += 1);
            rewrote.map(|rewrote| (rewrote.kept, moves))
        };
        let refused = rewrite(10);
        assert!(
            matches!(refused, Err(LogError::TooLarge { size: 11, limit: 10, .. })),
            "{refused:?}"
        );
        assert_eq!(log.segments(), segments);
        assert_eq!(disk.files(), files);
        let (kept, moves) = rewrite(100).unwrap();
        assert!(kept > 10 && kept == moves, "{kept} kept, {moves} told");
    }

    /// Symptom: rewriting a segment whose header says that it was rewritten as often as the format can tell ended in an overflow. Fix: it is refused.
    #[test]
    fn a_segment_of_the_last_generation_is_not_rewritten_again() {
        use crate::log::header::Found;
        let disk = SimDisk::new(1);
        let options = || LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
        let open = || Log::open(Arc::new(disk.clone()), "/log", options()).unwrap();
        let rewrite = |log: &Log| {
            let first = &log.segments()[0];
            log.rewrite(first.first..first.last + 1, |tag, _| tag.offset.is_multiple_of(2), |_, _, _| ())
        };
        let (log, _) = open();
        for offset in 0..60 {
            log.append(&[Record::new(1, offset, &[1; 200])], Level::Os).unwrap();
        }
        rewrite(&log).unwrap();
        let path = disk
            .files()
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with(".1.log"))
            .expect("it is rewritten");
        log.close().unwrap();
        let mut bytes = disk.read(&path).expect("it is there");
        let Found::Header(mut header, _) = Header::decode_any(&bytes) else {
            panic!("it has a header")
        };
        header.generation = u32::MAX;
        let forged = header.encode();
        bytes[..forged.len()].copy_from_slice(&forged);
        disk.remove(&path);
        disk.put(path.with_file_name(header.name().to_string()), &bytes);
        let (log, report) = open();
        assert!(report.damage.is_empty(), "{report:?}");
        let (segments, files) = (log.segments(), disk.files());
        assert_eq!(segments[0].generation, u32::MAX);
        let refused = rewrite(&log);
        assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
        assert_eq!((log.segments(), disk.files()), (segments, files), "nothing changed");
    }
}
