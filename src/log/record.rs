//! What the log stores, and how a place in it is named.
#![forbid(unsafe_code)]

use std::fmt;

/// A position in the log as a whole: a count of the bytes of all blocks written before.
///
/// Positions only grow along the log. They belong to blocks; the place of a single record is a [`Location`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the owner says about a record besides its bytes. The log stores it and looks at nothing but equality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The stream that the record belongs to. Neighbours of one stream share a run in the directory of their block.
    pub topic: u64,
    /// The position in that stream. A run holds consecutive ones.
    pub offset: u64,
    /// How the body is encoded.
    pub codec: u8,
    /// What the record means. With the highest bit set, a reader that does not know the kind may skip it.
    pub kind: u8,
}

impl Tag {
    /// The bit of [`kind`](Self::kind) that allows readers to skip a kind they do not know.
    pub const OPTIONAL: u8 = 0x80;
}

/// A record to append: its tag, and the bytes that the log keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record<'a> {
    /// What the owner says about it.
    pub tag: Tag,
    /// The bytes.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Makes a record of a stream, with codec and kind zero.
    pub const fn new(topic: u64, offset: u64, body: &'a [u8]) -> Self {
        Self {
            tag: Tag {
                topic,
                offset,
                codec: 0,
                kind: 0,
            },
            body,
        }
    }
}

/// What reaching a receipt's goal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The bytes were handed to the operating system: they survive the death of this process.
    Os,
    /// The bytes were written and synced: they survive the loss of power.
    Synced,
}

/// Where a block's worth of records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// Where their block begins.
    pub lsn: Lsn,
    /// Where their block ends: everything below has been written too.
    pub end: Lsn,
    /// How many records precede them in the block.
    pub first: u32,
    /// How many records they are.
    pub count: u32,
}

/// The place of one record, enough to read it with one positioned read.
///
/// It holds until the segment is rewritten; after that, reading says [`LogError::Moved`](super::LogError::Moved).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Where the body begins, in bytes of the log.
    pub lsn: Lsn,
    /// How many bytes the body has.
    pub len: u32,
    /// The checksum over body, topic and offset.
    pub crc: u32,
    /// Which rewriting of the segment the place is valid for.
    pub generation: u32,
}
