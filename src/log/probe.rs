//! A way in for fuzzers and proofs: the parsers that stand behind a file, and checksums made right again.
//!
//! A random change of a file almost always stops at a checksum. To reach the code behind it, [`seal`] writes the
//! checksums and chains that the changed bytes would need. It is no forgery tool: it needs the identity of the log.
//!
//! And a look into the queue of an open log: a proof that holds the disk has to know when those it waits for have come.
#![forbid(unsafe_code)]

use super::Log;
use super::block::{self, Head};
use super::crc::{crc32c, mix_log};
use super::directory;
use super::header::{Found, Header};
use super::meta::Meta;
use super::name::{Name, SegmentName};
use crate::sync::Ordering;

/// Reads bytes as a block; tells how many records its directory lists, if all of it is consistent.
///
/// # Panics
///
/// If the parser lets something pass that the format forbids.
pub fn block(bytes: &[u8], log_id: u128) -> Option<usize> {
    let head = Head::parse(bytes)?;
    assert!(head.front() <= head.len() && head.len() <= block::MAX_BLOCK);
    assert!(head.end(8) > head.lsn && head.end(block::MAX_ALIGN) - head.lsn <= (block::MAX_BLOCK as u64) + block::MAX_ALIGN);
    let front = bytes.get(..head.front())?;
    let directory = head.check(front, mix_log(log_id))?;
    let mut next = 0;
    let mut records = 0;
    for slot in directory.iter() {
        assert!(slot.body == next && slot.len <= directory::MAX_RECORD);
        next += slot.len;
        records += 1;
        if let Some(body) = bytes.get(head.front() + slot.body..head.front() + slot.body + slot.len) {
            let _ = slot.matches(body);
        }
    }
    assert_eq!((records, next), (head.records as usize, head.body_bytes as usize));
    Some(records)
}

/// Reads bytes as the header of a segment file, under a name; tells whether they are one.
pub fn header(bytes: &[u8], first: u64, last: u64, generation: u32) -> bool {
    let name = SegmentName { first, last, generation };
    let _ = Header::decode_any(bytes);
    let _ = Meta::decode(bytes);
    matches!(Header::decode(bytes, &name), Found::Header(..))
}

/// Reads a file name as the log does; tells whether it is one that the log would make.
///
/// # Panics
///
/// If a known name is not written the way it was read.
pub fn name(name: &str) -> bool {
    let parsed = Name::parse(name.as_ref());
    let known = parsed != Name::Unknown;
    assert!(!known || parsed.to_string() == name);
    known
}

/// Makes the checksums of a segment file right again, and the chain from block to block, as far as blocks can be read.
/// Tells how many blocks it sealed.
pub fn seal(file: &mut [u8], log_id: u128) -> usize {
    for copy in [0, 512] {
        if let Some(copy) = file.get_mut(copy..copy + 120) {
            let crc = crc32c(&copy[8..]);
            copy[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let mut blocks = 0;
    let mut position = 1024;
    let mut chain = None;
    while let Some(bytes) = file.get_mut(position..) {
        let Some(crc) = seal_block(bytes, chain, log_id) else {
            break;
        };
        let Some(head) = Head::parse(bytes) else {
            break;
        };
        chain = Some(crc);
        position += (head.end(8) - head.lsn) as usize;
        blocks += 1;
    }
    blocks
}

/// Makes the checksums of a META file right again.
pub fn seal_meta(file: &mut [u8]) {
    for copy in [0, 512] {
        if let Some(copy) = file.get_mut(copy..copy + 64) {
            let crc = crc32c(&copy[8..]);
            copy[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Makes the checksum of one block right again, and its chain if one is given; returns the new checksum.
pub fn seal_block(bytes: &mut [u8], chain: Option<u32>, log_id: u128) -> Option<u32> {
    let front = Head::parse(bytes)?.front();
    if let (Some(chain), Some(place)) = (chain, bytes.get_mut(12..16)) {
        place.copy_from_slice(&chain.to_le_bytes());
    }
    let crc = crc32c(bytes.get(8..front)?) ^ mix_log(log_id);
    bytes.get_mut(4..8)?.copy_from_slice(&crc.to_le_bytes());
    Some(crc)
}

/// Tells how many batches are in the queue that a thread waits for, and no leader has taken.
pub fn company(log: &Log) -> u64 {
    log.shared.company.load(Ordering::Relaxed)
}

/// Tells how much of the queue is used: bytes, and something for each record.
pub fn queued(log: &Log) -> usize {
    log.shared.gate.lock().bytes
}
