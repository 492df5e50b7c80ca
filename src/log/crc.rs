//! Checksums: CRC32C, and the small mixes that tie one to its place.
//!
//! The CRC of a body is taken by the thread that brings it, before anybody knows which offset it gets. So the seed goes
//! on last, as an exclusive or: a record's checksum is `crc32c(body) ^ mix(topic, offset)`, and the same bytes under
//! another name do not pass. For a given length, seeding a CRC at its start is an exclusive or as well, so nothing is
//! lost by doing it at the end.
#![forbid(unsafe_code)]

use crc_fast::CrcAlgorithm;

/// CRC32C (Castagnoli, as in iSCSI and ext4), by the widest instructions that the processor has.
#[inline]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    // The function returns the CRC in the low half.
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// What a record's checksum is tied to.
#[inline]
pub(crate) fn mix_record(topic: u64, offset: u64) -> u32 {
    fold(topic.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ offset.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(31))
}

/// What the checksums of headers are tied to: the identity of the log.
pub(crate) fn mix_log(log_id: u128) -> u32 {
    crc32c(&log_id.to_le_bytes()) ^ 0x5EED_1065
}

/// Spreads a 64-bit state over 32 bits, so that near inputs give far outputs.
#[inline]
fn fold(mut x: u64) -> u32 {
    x ^= x >> 32;
    x = x.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x ^= x >> 32;
    x as u32
}

/// A well-spread 64-bit value from a seed: for identities and salts, not for secrets.
pub(crate) fn spread(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_has_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn neighbouring_names_give_different_mixes() {
        let mut seen = std::collections::HashSet::new();
        for topic in 0..64 {
            for offset in 0..64 {
                assert!(seen.insert(mix_record(topic, offset)), "{topic} {offset}");
            }
        }
    }
}
