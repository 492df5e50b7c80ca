//! The header of a segment file: where the segment stands in the log. Pure bytes, no files.
//!
//! ```text
//!   0  4  magic
//!   4  4  crc            CRC32C over 8..120
//!   8  2  version        1
//!  10  2  flags          zero; a reader that finds others does not understand the file
//!  12  4  generation     how often the segments of this file were rewritten
//!  16 16  log id
//!  32  8  first          number of the segment, or of the first one that a rewriting merged
//!  40  8  last           number of the last one
//!  48  8  epoch          of the opening that made the file
//!  56  8  base           LSN where the first block begins
//!  64  8  predecessor    last number of the segment that this one continues, 0 when it is the first of the log
//!  72  4  chain          crc of the block that ends at `base`
//!  76  4  header bytes   where in the file the first block begins
//!  80  8  align          what blocks are aligned to
//!  88  8  end            LSN behind the segment; 0 unless the file was rewritten
//!  96  8  used           bytes of the file up to the end of its last block; 0 unless the file was rewritten
//! 104  4  end chain      crc of the block that ended at `end` before; 0 unless the file was rewritten
//! 108  4  fill           0: the file held zeros before; 1: it held older blocks
//! 112  8  zero
//! 120     the same again at 512, so that one damaged sector costs nothing
//! ```
//!
//! **`predecessor`, `base` and `chain` are the only way a log is ever cut**: the predecessor ends where its successor
//! says it does, whatever else its file holds.
#![forbid(unsafe_code)]

use super::block::{MAX_ALIGN, MIN_ALIGN};
use super::bytes::{u16_at, u32_at, u64_at};
use super::crc::crc32c;
use super::name::SegmentName;

/// What a segment file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) log_id: u128,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) generation: u32,
    pub(crate) epoch: u64,
    pub(crate) base: u64,
    pub(crate) predecessor: u64,
    pub(crate) chain: u32,
    pub(crate) header_bytes: u32,
    pub(crate) align: u64,
    pub(crate) fill: Fill,
    pub(crate) rewritten: Option<Rewritten>,
}

/// What was in a file before it became a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Zeros,
    OlderBlocks,
}

/// What is known of a segment that was rewritten, because it was whole before it got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) end: u64,
    pub(crate) used: u64,
    pub(crate) end_chain: u32,
}

/// What the bytes at the beginning of a segment file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header, and whether only one copy of it is intact.
    Header(Header, Copies),
    /// The header of a format that is newer than this code.
    Newer(u16),
    /// No header.
    Nothing,
}

/// Which copies of a header are intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    Both,
    OnlyFirst,
    OnlySecond,
}

impl Header {
    /// Where blocks begin in a file whose blocks have this alignment.
    pub(crate) fn bytes_for(align: u64) -> u32 {
        debug_assert!(align <= MAX_ALIGN);
        (MIN_BYTES as u64).next_multiple_of(align) as u32
    }

    /// Both copies and the zeros between and behind them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; COPY];
        copy[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        copy[8..10].copy_from_slice(&VERSION.to_le_bytes());
        copy[12..16].copy_from_slice(&self.generation.to_le_bytes());
        copy[16..32].copy_from_slice(&self.log_id.to_le_bytes());
        copy[32..40].copy_from_slice(&self.first.to_le_bytes());
        copy[40..48].copy_from_slice(&self.last.to_le_bytes());
        copy[48..56].copy_from_slice(&self.epoch.to_le_bytes());
        copy[56..64].copy_from_slice(&self.base.to_le_bytes());
        copy[64..72].copy_from_slice(&self.predecessor.to_le_bytes());
        copy[72..76].copy_from_slice(&self.chain.to_le_bytes());
        copy[76..80].copy_from_slice(&self.header_bytes.to_le_bytes());
        copy[80..88].copy_from_slice(&self.align.to_le_bytes());
        if let Some(rewritten) = self.rewritten {
            copy[88..96].copy_from_slice(&rewritten.end.to_le_bytes());
            copy[96..104].copy_from_slice(&rewritten.used.to_le_bytes());
            copy[104..108].copy_from_slice(&rewritten.end_chain.to_le_bytes());
        }
        copy[108] = match self.fill {
            Fill::Zeros => 0,
            Fill::OlderBlocks => 1,
        };
        let crc = crc32c(&copy[8..]);
        copy[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut out = vec![0; self.header_bytes as usize];
        out[..COPY].copy_from_slice(&copy);
        out[SECOND..SECOND + COPY].copy_from_slice(&copy);
        out
    }

    /// Reads the header of a file from its first [`MIN_BYTES`]; fewer are taken for a file that ends there.
    ///
    /// A file that was used before may still hold the header of that time, in one copy or in both. So a copy counts
    /// only if it belongs to the name.
    pub(crate) fn decode(bytes: &[u8], name: &SegmentName) -> Found {
        let read = |copy| match decode_copy(copy) {
            Found::Header(header, _) if header.name() != *name => Found::Nothing,
            found => found,
        };
        let first = read(bytes.get(..COPY));
        let second = read(bytes.get(SECOND..SECOND + COPY));
        match (first, second) {
            (Found::Header(a, _), Found::Header(b, _)) if a == b => Found::Header(a, Copies::Both),
            (Found::Header(a, _), _) => Found::Header(a, Copies::OnlyFirst),
            (_, Found::Header(b, _)) => Found::Header(b, Copies::OnlySecond),
            (Found::Newer(version), _) | (_, Found::Newer(version)) => Found::Newer(version),
            _ => Found::Nothing,
        }
    }

    /// Reads whatever header there is, of whatever name: for files that are not in use.
    pub(crate) fn decode_any(bytes: &[u8]) -> Found {
        match decode_copy(bytes.get(..COPY)) {
            Found::Nothing => decode_copy(bytes.get(SECOND..SECOND + COPY)),
            found => found,
        }
    }

    /// The name that belongs to this header.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName {
            first: self.first,
            last: self.last,
            generation: self.generation,
        }
    }

    /// The LSN of a place in the file.
    pub(crate) fn lsn_of(&self, position: u64) -> u64 {
        self.base + (position - u64::from(self.header_bytes))
    }

    /// The place in the file of an LSN.
    pub(crate) fn position_of(&self, lsn: u64) -> u64 {
        u64::from(self.header_bytes) + (lsn - self.base)
    }
}

fn decode_copy(bytes: Option<&[u8]>) -> Found {
    let Some(bytes) = bytes else {
        return Found::Nothing;
    };
    if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c(&bytes[8..]) {
        return Found::Nothing;
    }
    let version = u16_at(bytes, 8);
    if version != VERSION || u16_at(bytes, 10) != 0 {
        return Found::Newer(version);
    }
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&bytes[16..32]);
    let end = u64_at(bytes, 88);
    let header = Header {
        log_id: u128::from_le_bytes(log_id),
        generation: u32_at(bytes, 12),
        first: u64_at(bytes, 32),
        last: u64_at(bytes, 40),
        epoch: u64_at(bytes, 48),
        base: u64_at(bytes, 56),
        predecessor: u64_at(bytes, 64),
        chain: u32_at(bytes, 72),
        header_bytes: u32_at(bytes, 76),
        align: u64_at(bytes, 80),
        fill: match u32_at(bytes, 108) {
            0 => Fill::Zeros,
            _ => Fill::OlderBlocks,
        },
        rewritten: (end != 0).then(|| Rewritten {
            end,
            used: u64_at(bytes, 96),
            end_chain: u32_at(bytes, 104),
        }),
    };
    if is_sane(&header) {
        Found::Header(header, Copies::Both)
    } else {
        Found::Nothing
    }
}

/// What the CRC cannot say. Nothing that passes can overflow or loop in the code that believes it.
fn is_sane(header: &Header) -> bool {
    let aligned = header.align.is_power_of_two() && (MIN_ALIGN..=MAX_ALIGN).contains(&header.align);
    let rewritten_ok = header.rewritten.is_none_or(|r| {
        let room = r.used.checked_sub(u64::from(header.header_bytes));
        (header.base..u64::MAX / 2).contains(&r.end)
            && r.end.is_multiple_of(MIN_ALIGN)
            && room.is_some_and(|room| room <= r.end - header.base)
    });
    aligned
        && header.header_bytes == Header::bytes_for(header.align)
        && header.first >= 1
        && header.last >= header.first
        && header.last < u64::MAX / 2
        && header.predecessor < header.first
        && header.base < u64::MAX / 2
        && header.base.is_multiple_of(MIN_ALIGN)
        && rewritten_ok
}

/// `R`, `S`, and two bytes that are no text.
const MAGIC: u32 = 0x5E6D_5352;
pub(crate) const VERSION: u16 = 1;
const COPY: usize = 120;
const SECOND: usize = 512;
/// The smallest header: two copies in two sectors.
pub(crate) const MIN_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            log_id: 0x0123_4567_89AB_CDEF_0011_2233_4455_6677,
            first: 7,
            last: 9,
            generation: 2,
            epoch: 0x0000_0003_DEAD_BEEF,
            base: 4096,
            predecessor: 6,
            chain: 0xABCD_EF01,
            header_bytes: Header::bytes_for(8),
            align: 8,
            fill: Fill::OlderBlocks,
            rewritten: Some(Rewritten {
                end: 9000,
                used: 2000,
                end_chain: 77,
            }),
        }
    }

    #[test]
    fn header_survives_a_round_trip() {
        for align in [8, 512, 4096, 65536] {
            let header = Header {
                align,
                header_bytes: Header::bytes_for(align),
                rewritten: None,
                ..sample()
            };
            assert_eq!(
                Header::decode(&header.encode(), &header.name()),
                Found::Header(header, Copies::Both)
            );
        }
        assert_eq!(
            Header::decode(&sample().encode(), &sample().name()),
            Found::Header(sample(), Copies::Both)
        );
    }

    #[test]
    fn every_flipped_bit_costs_one_copy_and_nothing_else() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..COPY => Copies::OnlySecond,
                at if (SECOND..SECOND + COPY).contains(&at) => Copies::OnlyFirst,
                _ => Copies::Both,
            };
            assert_eq!(
                Header::decode(&flipped, &sample().name()),
                Found::Header(sample(), expected),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn every_truncation_is_nothing_or_the_header() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            match Header::decode(&bytes[..len], &sample().name()) {
                Found::Nothing => assert!(len < COPY),
                Found::Header(header, _) => assert_eq!(header, sample()),
                Found::Newer(_) => panic!("truncation {len} looks newer"),
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut copy = sample().encode();
        copy.truncate(COPY);
        copy[8] = 2;
        let crc = crc32c(&copy[8..]);
        copy[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&copy, &sample().name()), Found::Newer(2));
    }
}
