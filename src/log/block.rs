//! The block: what one write brings, and what one commit makes durable. Pure bytes, no files.
//!
//! ```text
//!  0  4  magic            never zero, so space that was never written is not a block
//!  4  4  crc              CRC32C over everything from 8 up to the bodies, tied to the log id
//!  8  2  version          1
//! 10  1  kind             0 records, 1 closing
//! 11  1  flags            zero; a reader that finds others does not understand the block
//! 12  4  chain            crc of the block before
//! 16  8  segment          number of the segment that it was written for
//! 24  8  lsn              where it begins, in bytes of the log
//! 32  8  epoch            of the opening that wrote it
//! 40  8  durable          LSN up to which a sync had returned Ok when this was written
//! 48  8  time             of the owner
//! 56  4  records
//! 60  4  runs
//! 64  4  body bytes
//! 68  4  zero
//! 72     directory        names, lengths and checksums of the records, see directory.rs
//!        bodies           one behind the other
//!        zeros            up to the alignment of the segment, 8 at least
//! ```
//!
//! All lengths are under the header's CRC, so none is believed, and nothing is allocated by one, before it was checked.
//!
//! A later version keeps the first 72 bytes where they are, and the CRC over as many bytes as records and runs take here. By
//! that an older one tells its blocks from torn ones, and refuses them. One that cannot keep it gives the header of the segment
//! a new version too.
#![forbid(unsafe_code)]

use super::bytes::{u16_at, u32_at, u64_at};
use super::crc::crc32c;
use super::directory::{self, Directory, Entry, MAX_RECORD};
use super::error::LogError;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It brings records.
    Records,
    /// Written by a proper close; brings nothing but its `durable`.
    Closing,
}

/// The fixed part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) segment: u64,
    pub(crate) lsn: u64,
    pub(crate) epoch: u64,
    pub(crate) durable: u64,
    pub(crate) time: u64,
    pub(crate) records: u32,
    pub(crate) runs: u32,
    pub(crate) body_bytes: u32,
    pub(crate) chain: u32,
    pub(crate) crc: u32,
}

impl Head {
    /// Reads the fixed part. Says `None` to everything that cannot be a block of this version; the CRC is not looked at.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match Self::parse_any(bytes) {
            Some((head, None)) => Some(head),
            _ => None,
        }
    }

    /// Reads the fixed part of a block of any version, and tells which one if it says something that this version does not know.
    pub(crate) fn parse_any(bytes: &[u8]) -> Option<(Self, Option<u16>)> {
        let bytes: &[u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
        if u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let version = u16_at(bytes, 8);
        let mut is_known = version == VERSION && bytes[11] == 0 && u32_at(bytes, 68) == 0;
        let kind = match bytes[10] {
            0 => Kind::Records,
            1 => Kind::Closing,
            _ => {
                is_known = false;
                Kind::Records
            }
        };
        let head = Self {
            kind,
            segment: u64_at(bytes, 16),
            lsn: u64_at(bytes, 24),
            epoch: u64_at(bytes, 32),
            durable: u64_at(bytes, 40),
            time: u64_at(bytes, 48),
            records: u32_at(bytes, 56),
            runs: u32_at(bytes, 60),
            body_bytes: u32_at(bytes, 64),
            chain: u32_at(bytes, 12),
            crc: u32_at(bytes, 4),
        };
        let is_empty = head.records == 0 && head.body_bytes == 0;
        let fits = (head.kind == Kind::Records || is_empty || !is_known)
            && head.runs <= head.records
            && head.records as usize <= MAX_RECORDS
            && head.body_bytes as usize <= MAX_BLOCK
            && head.len() <= MAX_BLOCK
            && head.lsn.checked_add(MAX_BLOCK as u64 + MAX_ALIGN).is_some()
            && head.durable.is_multiple_of(MIN_ALIGN);
        fits.then_some((head, (!is_known).then_some(version)))
    }

    /// How many bytes precede the bodies.
    pub(crate) fn front(&self) -> usize {
        front(self.records as usize, self.runs as usize)
    }

    /// How many bytes the block has without the zeros behind it. At most `MAX_BLOCK` once parsed.
    pub(crate) fn len(&self) -> usize {
        self.front() + self.body_bytes as usize
    }

    /// Where the next block begins.
    pub(crate) fn end(&self, align: u64) -> u64 {
        self.lsn + (self.len() as u64).next_multiple_of(align)
    }

    /// Writes header and directory into `out`, which has exactly their length, and returns the CRC: the next chain.
    pub(crate) fn encode(&self, entries: &[Entry], log_mix: u32, out: &mut [u8]) -> u32 {
        debug_assert_eq!(out.len(), self.front());
        debug_assert_eq!(entries.len(), self.records as usize);
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = match self.kind {
            Kind::Records => 0,
            Kind::Closing => 1,
        };
        out[11] = 0;
        out[12..16].copy_from_slice(&self.chain.to_le_bytes());
        out[16..24].copy_from_slice(&self.segment.to_le_bytes());
        out[24..32].copy_from_slice(&self.lsn.to_le_bytes());
        out[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        out[40..48].copy_from_slice(&self.durable.to_le_bytes());
        out[48..56].copy_from_slice(&self.time.to_le_bytes());
        out[56..60].copy_from_slice(&self.records.to_le_bytes());
        out[60..64].copy_from_slice(&self.runs.to_le_bytes());
        out[64..68].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[68..72].fill(0);
        directory::encode(entries, self.runs as usize, &mut out[HEAD..]);
        let crc = crc32c(&out[8..]) ^ log_mix;
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Gives a block that was read a new place in another segment: its front is changed, its bodies stay.
    ///
    /// Returns the new CRC: the next chain.
    pub(crate) fn reseal(&self, front: &mut [u8], log_mix: u32) -> u32 {
        debug_assert_eq!(front.len(), self.front());
        front[12..16].copy_from_slice(&self.chain.to_le_bytes());
        front[16..24].copy_from_slice(&self.segment.to_le_bytes());
        front[24..32].copy_from_slice(&self.lsn.to_le_bytes());
        front[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        front[40..48].copy_from_slice(&self.durable.to_le_bytes());
        let crc = crc32c(&front[8..]) ^ log_mix;
        front[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Checks header and directory, given as the bytes before the bodies.
    pub(crate) fn check<'a>(&self, front: &'a [u8], log_mix: u32) -> Option<Directory<'a>> {
        if !self.is_sealed(front, log_mix) {
            return None;
        }
        let directory = self.directory(front);
        directory.is_consistent(self.records, self.body_bytes).then_some(directory)
    }

    /// Tells whether the bytes before the bodies are what was written, whatever they mean.
    #[inline]
    pub(crate) fn is_sealed(&self, front: &[u8], log_mix: u32) -> bool {
        front.len() == self.front() && crc32c(&front[8..]) ^ log_mix == self.crc
    }

    /// The directory of a front that was checked before.
    #[inline]
    pub(crate) fn directory<'a>(&self, front: &'a [u8]) -> Directory<'a> {
        Directory::split(&front[HEAD..self.front()], self.runs as usize)
    }
}

/// How many bytes precede the bodies of a block.
pub(crate) const fn front(records: usize, runs: usize) -> usize {
    HEAD + directory::bytes(records, runs)
}

/// Refuses a body that is too large.
pub(crate) fn check_record(len: usize) -> Result<(), LogError> {
    if len > MAX_RECORD {
        return Err(LogError::TooLarge {
            what: "a record",
            size: len as u64,
            limit: MAX_RECORD as u64,
        });
    }
    Ok(())
}

/// Refuses what would not fit into one block, even if every record had a run of its own.
pub(crate) fn check_block(records: usize, body_bytes: usize) -> Result<(), LogError> {
    if records > MAX_RECORDS {
        return Err(LogError::TooLarge {
            what: "a batch",
            size: records as u64,
            limit: MAX_RECORDS as u64,
        });
    }
    let size = front(records, records).saturating_add(body_bytes);
    if size > MAX_BLOCK {
        return Err(LogError::TooLarge {
            what: "a block",
            size: size as u64,
            limit: MAX_BLOCK as u64,
        });
    }
    Ok(())
}

/// `R`, `B`, and two bytes that are no text.
pub(crate) const MAGIC: u32 = 0xB10C_4252;
pub(crate) const VERSION: u16 = 1;
/// Bytes of the fixed part.
pub(crate) const HEAD: usize = 72;
/// Bytes kept free before the bodies in buffers, so that most blocks are one piece and one write.
pub(crate) const ROOM: usize = 32 * 1024;
/// The largest block.
pub(crate) const MAX_BLOCK: usize = 32 << 20;
/// The most records in a block.
pub(crate) const MAX_RECORDS: usize = 1 << 18;
/// The coarsest alignment of blocks.
pub(crate) const MAX_ALIGN: u64 = 64 * 1024;
/// Whatever the alignment, every block begins at a multiple of this.
pub(crate) const MIN_ALIGN: u64 = 8;

#[cfg(test)]
mod tests {
    use super::super::directory::{Cursor, RECORD, RUN, Slot, count_runs};
    use super::super::record::Tag;
    use super::*;

    const MIX: u32 = 0x1234_5678;

    type Named = (Tag, Vec<u8>);

    fn entries() -> (Vec<Entry>, Vec<u8>) {
        let names = [
            (1, 10, 0),
            (1, 11, 0),
            (1, 12, 0),
            (2, 0, 0),
            (1, 13, 0),
            (1, 14, 1),
            (9, u64::MAX, 0),
            (9, 0, 0),
        ];
        let mut bodies = Vec::new();
        let entries = names.iter().enumerate().map(|(at, (topic, offset, kind))| {
            let body = vec![at as u8; at * 7];
            bodies.extend_from_slice(&body);
            let tag = Tag {
                topic: *topic,
                offset: *offset,
                codec: 3,
                kind: *kind,
            };
            Entry::new(tag, body.len(), crc32c(&body))
        });
        (entries.collect(), bodies)
    }

    fn sample() -> (Head, Vec<u8>, Vec<Entry>) {
        let (entries, bodies) = entries();
        let mut head = Head {
            kind: Kind::Records,
            segment: 5,
            lsn: 4096,
            epoch: 77,
            durable: 4000,
            time: 99,
            records: entries.len() as u32,
            runs: count_runs(&entries) as u32,
            body_bytes: bodies.len() as u32,
            chain: 0xCAFE,
            crc: 0,
        };
        let mut bytes = vec![0; head.front()];
        head.crc = head.encode(&entries, MIX, &mut bytes);
        bytes.extend_from_slice(&bodies);
        (head, bytes, entries)
    }

    /// What a reader makes of the bytes: the names and bodies of the records that pass.
    fn read(bytes: &[u8]) -> Option<Vec<Option<Named>>> {
        let head = Head::parse(bytes)?;
        let front = bytes.get(..head.front())?;
        let directory = head.check(front, MIX)?;
        let bodies = &bytes[head.front()..];
        let record = |slot: Slot| {
            let body = bodies.get(slot.body..slot.body + slot.len)?;
            slot.matches(body).then(|| (slot.tag, body.to_vec()))
        };
        Some(directory.iter().map(record).collect())
    }

    #[test]
    fn a_block_survives_a_round_trip() {
        let (head, bytes, entries) = sample();
        assert_eq!(Head::parse(&bytes), Some(head));
        assert_eq!(head.len(), bytes.len());
        let records = read(&bytes).expect("a valid block");
        let tags: Vec<Tag> = records.iter().flatten().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, entries.iter().map(|entry| entry.tag).collect::<Vec<_>>());
        // Offsets do not wrap around within a run.
        assert_eq!(head.runs, 6);
    }

    #[test]
    fn a_cursor_and_an_iterator_see_the_same_records() {
        let (head, bytes, _) = sample();
        let front = &bytes[..head.front()];
        let mut cursor = Cursor::default();
        for slot in head.directory(front).iter() {
            assert_eq!(cursor.next(head.directory(front)), Some(slot));
        }
        assert_eq!(cursor.next(head.directory(front)), None);
    }

    #[test]
    fn every_flipped_bit_costs_exactly_what_it_hits() {
        let (head, bytes, _) = sample();
        let whole = read(&bytes).expect("a valid block");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = read(&flipped);
            if bit / 8 < head.front() {
                assert_eq!(found, None, "bit {bit} of the front");
                continue;
            }
            let found = found.expect("the front is intact");
            let lost = found.iter().filter(|record| record.is_none()).count();
            assert_eq!(lost, 1, "bit {bit}");
            assert!(found.iter().zip(&whole).all(|(now, before)| now.is_none() || now == before));
        }
    }

    #[test]
    fn every_truncation_is_refused_or_loses_the_end() {
        let (head, bytes, _) = sample();
        for len in 0..bytes.len() {
            let found = read(&bytes[..len]);
            assert_eq!(found.is_some(), len >= head.front(), "{len}");
        }
    }

    #[test]
    fn a_block_of_another_log_is_none() {
        let (head, bytes, _) = sample();
        assert!(head.check(&bytes[..head.front()], MIX ^ 1).is_none());
    }

    #[test]
    fn a_body_under_another_name_does_not_pass() {
        let (_, mut bytes, entries) = sample();
        let (head, ..) = sample();
        let mut renamed = entries;
        renamed[1].tag.topic = 3;
        let runs = count_runs(&renamed) as u32;
        let head = Head { runs, ..head };
        // A directory that names the record differently, over the checksum of the old name.
        let mut front = vec![0; head.front()];
        head.encode(&renamed, MIX, &mut front);
        let record = HEAD + runs as usize * RUN + RECORD + 4;
        let (old, ..) = sample();
        let old_record = HEAD + old.runs as usize * RUN + RECORD + 4;
        front[record..record + 4].copy_from_slice(&bytes[old_record..old_record + 4]);
        let crc = crc32c(&front[8..]) ^ MIX;
        front[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes.splice(..old.front(), front);
        let found = read(&bytes).expect("the front is consistent");
        assert_eq!(found.iter().filter(|record| record.is_none()).count(), 1);
        assert!(found[1].is_none());
    }

    #[test]
    fn a_resealed_block_is_valid_in_its_new_place_only() {
        let (head, mut bytes, _) = sample();
        let moved = Head {
            segment: 6,
            lsn: 8192,
            epoch: 78,
            durable: 8000,
            chain: 1,
            ..head
        };
        let crc = moved.reseal(&mut bytes[..head.front()], MIX);
        assert_eq!(Head::parse(&bytes), Some(Head { crc, ..moved }));
        assert_eq!(read(&bytes).map(|records| records.iter().flatten().count()), Some(8));
    }

    #[test]
    fn lengths_that_lie_are_refused_before_they_are_used() {
        let (_, bytes, _) = sample();
        for (at, value) in [(56, u32::MAX), (60, u32::MAX), (64, u32::MAX), (56, 0), (64, MAX_BLOCK as u32)] {
            let mut lying = bytes.clone();
            lying[at..at + 4].copy_from_slice(&value.to_le_bytes());
            if let Some(head) = Head::parse(&lying) {
                assert!(head.len() <= MAX_BLOCK);
                assert!(lying.get(..head.front()).is_none_or(|front| head.check(front, MIX).is_none()));
            }
        }
    }
}
