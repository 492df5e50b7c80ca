//! The directory of a block: the name, length and checksum of each record. Pure bytes, no files.
//!
//! ```text
//! runs x 24, then records x 8
//!
//! run     0  8  topic     8  8  first offset     16  4  records     20  1  codec     21  1  kind     22  2  zero
//! record  0  4  length    4  4  crc: CRC32C of the body, tied to topic and offset
//! ```
//!
//! A run names records that follow one another: most blocks have one.
#![forbid(unsafe_code)]

use super::bytes::{u16_at, u32_at, u64_at};
use super::crc::{crc32c, mix_record};
use super::record::Tag;

/// A record that is to be in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tag: Tag,
    pub(crate) len: u32,
    /// CRC32C of the body alone, as its bringer computed it.
    pub(crate) body_crc: u32,
}

impl Entry {
    pub(crate) fn new(tag: Tag, len: usize, body_crc: u32) -> Self {
        debug_assert!(len <= MAX_RECORD);
        Self {
            tag,
            len: len as u32,
            body_crc,
        }
    }

    /// What the directory says about the body: its CRC, tied to the record's name.
    pub(crate) fn crc(&self) -> u32 {
        self.body_crc ^ mix_record(self.tag.topic, self.tag.offset)
    }

    fn continues(&self, before: &Tag, run: u32) -> bool {
        let tag = &self.tag;
        run < u32::MAX
            && tag.topic == before.topic
            && tag.codec == before.codec
            && tag.kind == before.kind
            && before.offset.checked_add(1) == Some(tag.offset)
    }
}

/// How many runs the directory of these records has.
pub(crate) fn count_runs(entries: &[Entry]) -> usize {
    let mut runs = 0;
    let mut before: Option<&Tag> = None;
    for entry in entries {
        if !before.is_some_and(|before| entry.continues(before, 0)) {
            runs += 1;
        }
        before = Some(&entry.tag);
    }
    runs
}

/// How many bytes the directory of so many records takes.
pub(crate) const fn bytes(records: usize, runs: usize) -> usize {
    runs * RUN + records * RECORD
}

/// Writes the directory of these records into `out`, which has exactly its length.
pub(crate) fn encode(entries: &[Entry], runs: usize, out: &mut [u8]) {
    let (run_bytes, record_bytes) = out.split_at_mut(runs * RUN);
    let mut run_slots = run_bytes.chunks_exact_mut(RUN);
    let mut open: Option<(&mut [u8], u32)> = None;
    let mut before = Tag::default();
    for (entry, record) in entries.iter().zip(record_bytes.chunks_exact_mut(RECORD)) {
        record[0..4].copy_from_slice(&entry.len.to_le_bytes());
        record[4..8].copy_from_slice(&entry.crc().to_le_bytes());
        match &mut open {
            Some((_, count)) if entry.continues(&before, *count) => *count += 1,
            _ => {
                close_run(open.take());
                open = run_slots.next().map(|slot| (begin_run(slot, &entry.tag), 1));
            }
        }
        before = entry.tag;
    }
    close_run(open);
}

fn begin_run<'a>(slot: &'a mut [u8], tag: &Tag) -> &'a mut [u8] {
    slot.fill(0);
    slot[0..8].copy_from_slice(&tag.topic.to_le_bytes());
    slot[8..16].copy_from_slice(&tag.offset.to_le_bytes());
    slot[20] = tag.codec;
    slot[21] = tag.kind;
    slot
}

fn close_run(open: Option<(&mut [u8], u32)>) {
    if let Some((slot, count)) = open {
        slot[16..20].copy_from_slice(&count.to_le_bytes());
    }
}

/// The directory of a block that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    runs: &'a [u8],
    records: &'a [u8],
}

impl<'a> Directory<'a> {
    /// Takes bytes for a directory of so many runs.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8], runs: usize) -> Self {
        let (runs, records) = bytes.split_at(runs * RUN);
        Self { runs, records }
    }

    /// What a checksum cannot say: that the numbers agree with each other.
    pub(crate) fn is_consistent(&self, records: u32, body_bytes: u32) -> bool {
        let mut named = 0u64;
        for run in self.runs.chunks_exact(RUN) {
            let count = u64::from(u32_at(run, 16));
            let last = u64_at(run, 8).checked_add(count.saturating_sub(1));
            if count == 0 || last.is_none() || u16_at(run, 22) != 0 {
                return false;
            }
            named += count;
        }
        let bytes: u64 = self.records.chunks_exact(RECORD).map(|r| u64::from(u32_at(r, 0))).sum();
        let largest = self.records.chunks_exact(RECORD).map(|r| u32_at(r, 0)).max().unwrap_or(0);
        named == u64::from(records) && bytes == u64::from(body_bytes) && largest as usize <= MAX_RECORD
    }

    /// The records, of a directory that is consistent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + use<'a> {
        let directory = *self;
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || cursor.next(directory))
    }
}

/// A place in a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    run: usize,
    record: usize,
    left: u32,
    next: Tag,
    body: usize,
}

impl Cursor {
    /// Goes to the next record of a directory that is consistent, the same one each time.
    #[inline]
    pub(crate) fn next(&mut self, directory: Directory<'_>) -> Option<Slot> {
        let record = directory.records.get(self.record * RECORD..)?.get(..RECORD)?;
        if self.left == 0 {
            let run = &directory.runs[self.run * RUN..];
            self.run += 1;
            self.left = u32_at(run, 16);
            self.next = tag_of(run);
        }
        let slot = Slot {
            tag: self.next,
            body: self.body,
            len: u32_at(record, 0) as usize,
            crc: u32_at(record, 4),
        };
        self.record += 1;
        self.body += slot.len;
        self.left -= 1;
        self.next.offset = self.next.offset.wrapping_add(1);
        Some(slot)
    }
}

fn tag_of(run: &[u8]) -> Tag {
    Tag {
        topic: u64_at(run, 0),
        offset: u64_at(run, 8),
        codec: run[20],
        kind: run[21],
    }
}

/// A record as a directory describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) tag: Tag,
    /// Where the body begins, counted from the first one.
    pub(crate) body: usize,
    pub(crate) len: usize,
    /// Tied to the name, as stored.
    pub(crate) crc: u32,
}

impl Slot {
    /// Tells whether these are the bytes that were appended under this name.
    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.len && crc32c(body) ^ mix_record(self.tag.topic, self.tag.offset) == self.crc
    }
}

/// Bytes of a run.
pub(crate) const RUN: usize = 24;
/// Bytes of a record.
pub(crate) const RECORD: usize = 8;
/// The largest body.
pub(crate) const MAX_RECORD: usize = 16 << 20;
