//! The identity of a log: which format its files have, and the number that ties them to it. Pure bytes, no files.
//!
//! ```text
//!   0  4  magic
//!   4  4  crc        CRC32C over 8..64
//!   8  2  version    1
//!  10  6  zero
//!  16 16  log id     random, made with the log; the header of every segment repeats it
//!  32 32  zero
//! 512     the same again, so that one damaged sector costs nothing
//! ```
#![forbid(unsafe_code)]

use super::bytes::{u16_at, u32_at};
use super::crc::crc32c;

/// What the bytes of a META file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// An identity, and whether both copies of it are intact.
    Id { log_id: u128, whole: bool },
    /// A format that is newer than this code.
    Newer(u16),
    /// Neither copy is intact.
    Nothing,
}

impl Meta {
    pub(crate) fn encode(log_id: u128) -> Vec<u8> {
        let mut copy = [0; COPY];
        copy[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        copy[8..10].copy_from_slice(&VERSION.to_le_bytes());
        copy[16..32].copy_from_slice(&log_id.to_le_bytes());
        let crc = crc32c(&copy[8..]);
        copy[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut out = vec![0; BYTES];
        out[..COPY].copy_from_slice(&copy);
        out[SECOND..SECOND + COPY].copy_from_slice(&copy);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let first = decode_copy(bytes.get(..COPY));
        let second = decode_copy(bytes.get(SECOND..SECOND + COPY));
        match (first, second) {
            (Self::Id { log_id, .. }, other) | (other, Self::Id { log_id, .. }) => Self::Id {
                log_id,
                whole: other == Self::Id { log_id, whole: true },
            },
            (Self::Newer(version), _) | (_, Self::Newer(version)) => Self::Newer(version),
            _ => Self::Nothing,
        }
    }
}

fn decode_copy(bytes: Option<&[u8]>) -> Meta {
    let Some(bytes) = bytes else {
        return Meta::Nothing;
    };
    if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c(&bytes[8..]) {
        return Meta::Nothing;
    }
    let version = u16_at(bytes, 8);
    if version != VERSION {
        return Meta::Newer(version);
    }
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&bytes[16..32]);
    Meta::Id {
        log_id: u128::from_le_bytes(log_id),
        whole: true,
    }
}

/// `R`, `M`, and two bytes that are no text.
const MAGIC: u32 = 0x1DE7_4D52;
pub(crate) const VERSION: u16 = 1;
const COPY: usize = 64;
const SECOND: usize = 512;
/// Bytes of the file.
pub(crate) const BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen_and_costs_one_copy() {
        let bytes = Meta::encode(42);
        assert_eq!(Meta::decode(&bytes), Meta::Id { log_id: 42, whole: true });
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = !(0..COPY).contains(&(bit / 8)) && !(SECOND..SECOND + COPY).contains(&(bit / 8));
            assert_eq!(Meta::decode(&flipped), Meta::Id { log_id: 42, whole }, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut copy = Meta::encode(42);
        copy.truncate(COPY);
        copy[8] = 9;
        let crc = crc32c(&copy[8..]);
        copy[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Meta::decode(&copy), Meta::Newer(9));
    }
}
