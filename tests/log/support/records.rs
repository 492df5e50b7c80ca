//! Records that tell what they are, the files that they are in, and a walk over them.

use std::path::PathBuf;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Batch, Damage, Item, LogError, Reader, Tag};

/// The bytes of a record: 200 of them, its own.
pub fn body(offset: u64) -> Vec<u8> {
    let mut body = vec![offset as u8; 200];
    body[..8].copy_from_slice(&offset.to_le_bytes());
    body
}

pub fn tag(offset: u64) -> Tag {
    Tag {
        topic: 1,
        offset,
        ..Tag::default()
    }
}

/// A batch of one record.
pub fn batch(offset: u64, body: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.push(tag(offset), body).expect("small");
    batch
}

/// The segments that are on a disk, sorted.
pub fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files()
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
        .collect()
}

/// Why a walk ended.
#[derive(Debug)]
pub enum Stop {
    End,
    Gone,
    Damage(Damage),
}

/// Reads on to the end, or to where something is in the way. Each record must be what it was, and fit behind the one before. Tells the
/// last one.
pub fn walk(reader: &mut Reader, body: impl Fn(u64) -> Vec<u8>, fits: impl Fn(u64, u64) -> bool) -> (Option<u64>, Stop) {
    let mut last = None;
    loop {
        match reader.next() {
            Ok(Some(Item::Record(record))) => {
                let offset = record.tag.offset;
                assert_eq!(record.body, body(offset));
                assert!(last.is_none_or(|last| fits(last, offset)), "{offset} behind {last:?}");
                last = Some(offset);
            }
            Ok(Some(Item::Damage(damage))) => return (last, Stop::Damage(damage)),
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => return (last, Stop::End),
            Err(LogError::Gone { .. }) => return (last, Stop::Gone),
            Err(e) => panic!("{e}"),
        }
    }
}
