//! Records on their way into the log: encoded once, by the thread that brings them.
#![forbid(unsafe_code)]

use super::block;
use super::crc::crc32c;
use super::directory::Entry;
use super::error::LogError;
use super::record::{Record, Tag};

/// Records that are appended together: they share a block, so they are there whole or not at all.
///
/// A batch is a buffer to use again: appending empties it and keeps, or trades, its memory.
///
/// # Examples
///
/// ```
/// use ringmq::log::{Batch, Tag};
///
/// # fn main() -> Result<(), ringmq::log::LogError> {
/// let mut batch = Batch::new();
/// batch.push(Tag { topic: 1, offset: 0, ..Tag::default() }, b"in place")?;
/// batch.push_with(Tag { topic: 1, offset: 1, ..Tag::default() }, |body| body.extend_from_slice(b"encoded"))?;
/// assert_eq!((batch.len(), batch.bytes()), (2, 15));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// `block::ROOM` bytes for header and directory, then the bodies.
    pub(crate) buffer: Vec<u8>,
    pub(crate) time: u64,
}

impl Batch {
    /// Makes an empty batch. It allocates with the first record.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            buffer: Vec::new(),
            time: 0,
        }
    }

    /// Adds a record, copying its body.
    ///
    /// # Errors
    ///
    /// [`LogError::TooLarge`] when the record or the batch would be over the limits of a block.
    pub fn push(&mut self, tag: Tag, body: &[u8]) -> Result<(), LogError> {
        self.check(body.len())?;
        self.make_room();
        self.buffer.extend_from_slice(body);
        self.entries.push(Entry::new(tag, body.len(), crc32c(body)));
        Ok(())
    }

    /// Adds a record whose body is appended to the buffer by `encode`, which sees what is in it already.
    ///
    /// # Errors
    ///
    /// [`LogError::TooLarge`] when the record or the batch would be over the limits of a block; the record is taken out
    /// again.
    ///
    /// # Panics
    ///
    /// If `encode` makes the buffer shorter; the batch is empty then. If `encode` panics, the record is taken out again.
    #[track_caller]
    pub fn push_with(&mut self, tag: Tag, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), LogError> {
        self.make_room();
        let start = self.buffer.len();
        let unfinished = Unfinished { batch: self, start };
        let batch = &mut *unfinished.batch;
        encode(&mut batch.buffer);
        assert!(batch.buffer.len() >= start, "encoding a record made the batch shorter");
        let len = batch.buffer.len() - start;
        batch.check_with(start - block::ROOM, len)?;
        batch.entries.push(Entry::new(tag, len, crc32c(&batch.buffer[start..])));
        std::mem::forget(unfinished);
        Ok(())
    }

    /// Sets the time that the block will carry, in whatever unit the owner uses. The latest of a block's batches wins.
    pub fn set_time(&mut self, time: u64) {
        self.time = time;
    }

    /// Takes all records out.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.buffer.truncate(block::ROOM);
        self.time = 0;
    }

    /// Tells how many records are in the batch.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are no records in the batch.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells how many bytes the bodies have together.
    pub fn bytes(&self) -> usize {
        self.buffer.len().saturating_sub(block::ROOM)
    }

    pub(crate) fn extend(&mut self, records: &[Record<'_>]) -> Result<(), LogError> {
        records.iter().try_for_each(|record| self.push(record.tag, record.body))
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            buffer: self.buffer.clone(),
            time: self.time,
        }
    }

    pub(crate) fn make_room(&mut self) {
        if self.buffer.len() < block::ROOM {
            self.buffer.resize(block::ROOM, 0);
        }
    }

    fn check(&self, len: usize) -> Result<(), LogError> {
        self.check_with(self.bytes(), len)
    }

    fn check_with(&self, bytes: usize, len: usize) -> Result<(), LogError> {
        block::check_record(len)?;
        block::check_block(self.entries.len() + 1, bytes.saturating_add(len))
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes out again what was encoded of a record that did not become one: bytes without an entry would shift every body
/// behind them.
struct Unfinished<'a> {
    batch: &'a mut Batch,
    start: usize,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.batch.buffer.len() < self.start {
            self.batch.clear(); // bodies of other records are gone with it
        } else {
            self.batch.buffer.truncate(self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn bodies(batch: &Batch) -> usize {
        batch.entries.iter().map(|entry| entry.len as usize).sum()
    }

    /// Symptom: an append after a panic in `encode` answered Ok for a block that no reader could read. Cause: the bytes of
    /// the half-encoded record stayed in the buffer without an entry. Fix: a guard takes them out while unwinding.
    #[test]
    fn a_panic_while_encoding_leaves_nothing_of_the_record() {
        let mut batch = Batch::new();
        batch.push(Tag::default(), b"before").expect("small");
        let half = |body: &mut Vec<u8>| {
            body.extend_from_slice(b"half");
            panic!("the owner's encoder fails");
        };
        let encoded = catch_unwind(AssertUnwindSafe(|| batch.push_with(Tag::default(), half)));
        assert!(encoded.is_err());
        assert_eq!((batch.len(), batch.bytes()), (1, bodies(&batch)));
        batch
            .push_with(Tag::default(), |body| body.extend_from_slice(b"behind"))
            .expect("small");
        assert_eq!((batch.len(), batch.bytes()), (2, bodies(&batch)));
        assert_eq!(&batch.buffer[block::ROOM..], b"beforebehind");
    }

    #[test]
    fn an_encoder_that_shortens_the_batch_empties_it() {
        let mut batch = Batch::new();
        batch.push(Tag::default(), b"before").expect("small");
        let encoded = catch_unwind(AssertUnwindSafe(|| batch.push_with(Tag::default(), Vec::clear)));
        assert!(encoded.is_err());
        assert!(batch.is_empty() && batch.bytes() == 0);
    }
}
