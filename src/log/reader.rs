//! Reading the log in order, with everything checked.
#![forbid(unsafe_code)]

use std::ops::Deref;

use super::beside::{self, Became};
use super::block::{Head, Kind};
use super::directory::{Cursor, Slot};
use super::error::LogError;
use super::record::{Location, Lsn, Tag};
use super::recover::{self, Link};
use super::report::Damage;
use super::scan::Source;
use super::segment::{End, Segment};
use super::shared::Shared;
use super::tail::Bad;
use super::vfs::VfsFile;
use super::window::Window;
use crate::sync::{Arc, Ordering};

/// Reads blocks in order, checking everything. See [`Log::reader`](super::Log::reader).
///
/// It sees what was complete when it got there: asked again after `None`, it goes on with what came in the meantime.
/// A segment that is retired or rewritten while the reader is in it is read to its end as it was. Only a log that is open
/// for reading, beside a writer of another process, cannot hold what that writer retires: there the reader goes on behind it.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    window: Window,
    /// Where the next block is.
    lsn: u64,
    /// Where to stop, whatever the log holds.
    until: u64,
    /// What begins before this is passed over.
    from: u64,
    /// Whether the way to `from` was taken from the beginning of its segment.
    has_sought: bool,
    /// The crc of the block before, if it is known.
    chain: Option<u32>,
    current: Option<Current>,
    open: Option<Opened>,
}

/// The segment that is being read. Holding it keeps the file from being used for anything else.
#[derive(Debug)]
struct Current {
    segment: Arc<Segment>,
    file: Arc<dyn VfsFile>,
    next_base: Option<u64>,
}

/// The block whose records are being given out.
#[derive(Clone, Copy, Debug)]
struct Opened {
    head: Head,
    position: u64,
    cursor: Cursor,
    end: u64,
}

/// What a reader meets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A record that is what was appended.
    Record(Found<'a>),
    /// A place that is damaged. The reader goes on behind it.
    Damage(Damage),
}

/// A record in the buffer of a reader.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Found<'a> {
    /// What the owner said about it.
    pub tag: Tag,
    /// The bytes.
    pub body: &'a [u8],
    /// Where its block begins.
    pub block: Lsn,
    /// Its own place.
    pub location: Location,
    /// The time that its block carries.
    pub time: u64,
    buffer: &'a Arc<Vec<u8>>,
    at: usize,
}

impl Found<'_> {
    /// Keeps the body for longer than the reader stays here, without copying it. The buffer that it is part of lives as
    /// long, a few hundred KiB as a rule.
    pub fn pin(&self) -> Pinned {
        Pinned {
            buffer: Arc::clone(self.buffer),
            at: self.at,
            len: self.body.len(),
        }
    }
}

/// The body of a record, as a part of the buffer that it was read into.
#[derive(Clone)]
pub struct Pinned {
    buffer: Arc<Vec<u8>>,
    at: usize,
    len: usize,
}

impl Deref for Pinned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.at..self.at + self.len]
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What a step of the reader leads to.
enum Step {
    Record(Slot, u64),
    Damage(Damage),
    /// Look again.
    Moved,
    End,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, from: u64) -> Self {
        Self {
            shared,
            window: Window::new(),
            lsn: from,
            until: u64::MAX,
            from,
            has_sought: false,
            chain: None,
            current: None,
            open: None,
        }
    }

    /// Makes the reader end before the first block that begins at or behind `lsn`.
    #[must_use]
    pub fn until(mut self, lsn: Lsn) -> Self {
        self.until = lsn.0;
        self
    }

    /// Where the next block is that the reader has not opened yet.
    pub fn position(&self) -> Lsn {
        Lsn(self.open.map_or(self.lsn, |open| open.end))
    }

    /// Goes to the next record, or to the next damaged place; `None` at the end, for now.
    ///
    /// # Errors
    ///
    /// When the file system fails. The reader stays where it is and may be asked again. Beside a writer, [`LogError::Moved`]
    /// when the segment was rewritten before it could be opened, which takes a log of more than 256 segments: opening it
    /// again shows it as it is now.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, LogError> {
        let (slot, position) = loop {
            match self.step()? {
                Step::Record(slot, position) => break (slot, position),
                Step::Damage(_) if self.is_used_again()? => self.pass_over(),
                Step::Damage(damage) => return Ok(Some(Item::Damage(damage))),
                Step::Moved => {}
                Step::End => return Ok(None),
            }
        };
        let (Some(open), Some(current)) = (&self.open, &self.current) else {
            return Ok(None);
        };
        let header = &current.segment.header;
        let (buffer, at) = self.window.pin(position);
        Ok(Some(Item::Record(Found {
            tag: slot.tag,
            body: &buffer[at..at + slot.len],
            block: Lsn(open.head.lsn),
            location: Location {
                lsn: Lsn(header.lsn_of(position)),
                len: slot.len as u32,
                crc: slot.crc,
                generation: header.generation,
            },
            time: open.head.time,
            buffer,
            at,
        })))
    }

    #[inline]
    fn step(&mut self) -> Result<Step, LogError> {
        let Some(open) = &mut self.open else {
            let visible = self.shared.visible.load(Ordering::Acquire).min(self.until);
            return self.open_block(visible);
        };
        let bytes = self.window.at_hand(open.position);
        let front = open.head.front();
        let Some(slot) = open.cursor.next(open.head.directory(&bytes[..front])) else {
            self.lsn = open.end;
            self.open = None;
            return Ok(Step::Moved);
        };
        let body = &bytes[front + slot.body..front + slot.body + slot.len];
        let position = open.position + (front + slot.body) as u64;
        if slot.matches(body) {
            return Ok(Step::Record(slot, position));
        }
        let bad = Bad::Record {
            position,
            len: slot.len as u64,
            topic: slot.tag.topic,
            offset: slot.tag.offset,
        };
        Ok(self.damage(bad))
    }

    /// Opens the block at `lsn`, or finds out why there is none. Nothing from `visible` on is looked at.
    fn open_block(&mut self, visible: u64) -> Result<Step, LogError> {
        if self.lsn >= visible {
            return Ok(Step::End);
        }
        match self.enter_segment() {
            Ok(true) => {}
            Ok(false) => return Ok(Step::End),
            Err(LogError::Gone { .. }) if self.shared.writer.is_none() => return self.pass_over_gone(visible),
            Err(error) => return Err(error),
        }
        if self.lsn >= visible {
            // What was visible is retired. How far one may read here is to be asked again.
            return Ok(Step::Moved);
        }
        let Some(current) = &self.current else {
            return Ok(Step::End);
        };
        let header = &current.segment.header;
        let (end, blocks_end) = current.bounds();
        let limit_lsn = blocks_end.unwrap_or(u64::MAX).min(visible);
        if self.lsn >= limit_lsn {
            // A rewritten segment has fewer bytes than positions.
            return Ok(self.leave(end.unwrap_or(visible).max(self.lsn)));
        }
        let source = Source {
            file: &*current.file,
            header,
            log_mix: self.shared.log_mix,
            limit: header.position_of(limit_lsn),
        };
        let read = |e| LogError::io("read", &current.segment.path, e);
        let position = header.position_of(self.lsn);
        if let Some(head) = source.block(&mut self.window, position).map_err(read)? {
            return Ok(self.opened(head, position, source.header.align));
        }
        recover::refuse_newer(&current.segment.path, self.window.newer())?;
        if self.lsn == self.from && self.lsn > header.base && !self.has_sought {
            // Perhaps no block begins here, in a segment that was rewritten: then that is no damage.
            self.has_sought = true;
            self.lsn = header.base;
            self.chain = Some(header.chain);
            return Ok(Step::Moved);
        }
        let found = source.resync(&mut self.window, position + header.align).map_err(read)?;
        recover::refuse_newer(&current.segment.path, self.window.newer())?;
        match (found, end) {
            (Some((next, _)), _) => {
                let lsn = header.lsn_of(next);
                Ok(self.skip(position, next, lsn))
            }
            (None, Some(_)) => {
                let limit = source.limit;
                Ok(self.skip(position, limit, limit_lsn))
            }
            // Nobody knows where this segment ended; it is here.
            (None, None) => {
                let next = current.next_base.unwrap_or(visible);
                Ok(self.leave(next))
            }
        }
    }

    fn opened(&mut self, head: Head, position: u64, align: u64) -> Step {
        let end = head.end(align);
        if self.chain.is_some_and(|chain| chain != head.chain) && head.lsn >= self.from {
            self.chain = None;
            return self.damage(Bad::Chain {
                position,
                len: head.len() as u64,
            });
        }
        self.chain = Some(head.crc);
        if head.kind == Kind::Closing || head.lsn < self.from {
            self.lsn = end;
            return Step::Moved;
        }
        self.open = Some(Opened {
            head,
            position,
            cursor: Cursor::default(),
            end,
        });
        Step::Moved
    }

    fn skip(&mut self, position: u64, next: u64, lsn: u64) -> Step {
        self.lsn = lsn;
        self.chain = None;
        if lsn <= self.from {
            return Step::Moved;
        }
        self.damage(Bad::Blocks {
            position,
            len: next - position,
        })
    }

    /// Goes to `lsn`, in another segment. What lies between is missing, and was reported when the log was opened, or carries nothing.
    fn leave(&mut self, lsn: u64) -> Step {
        if lsn != self.lsn {
            self.chain = None;
        }
        self.lsn = lsn;
        Step::Moved
    }

    /// Makes the segment that holds `lsn` the current one. Tells whether there is one.
    fn enter_segment(&mut self) -> Result<bool, LogError> {
        if self.current.as_ref().is_some_and(|current| !current.is_behind(self.lsn)) {
            return Ok(true);
        }
        let Some((segment, next_base)) = self.shared.table.find(self.lsn) else {
            return Ok(false);
        };
        let file = self.shared.table.file(&segment)?;
        if let Some(rewritten) = self.current.as_ref().and_then(|current| current.segment.header.rewritten) {
            // Its successor continues what it was before.
            self.chain = Some(rewritten.end_chain);
        }
        let header = &segment.header;
        if self.lsn <= header.base {
            // A gap before it was reported when the log was opened, or made by the owner.
            let continues = self.lsn == header.base;
            self.lsn = header.base;
            self.chain = self.chain.filter(|_| continues).or(Some(header.chain));
        } else {
            self.chain = None;
        }
        self.window.reset();
        self.current = Some(Current { segment, file, next_base });
        Ok(true)
    }

    /// Tells whether the bytes at hand are those of a later segment: beside a writer, the file of one that it has retired may be used again.
    fn is_used_again(&self) -> Result<bool, LogError> {
        match &self.current {
            Some(current) if self.shared.writer.is_none() => {
                let became = beside::what_became_of(&self.shared.dir, &current.segment, Some(&*current.file))?;
                Ok(became != Became::Unchanged)
            }
            _ => Ok(false),
        }
    }

    /// Goes to the end of the current segment, as if it had been retired before.
    fn pass_over(&mut self) {
        let visible = self.shared.visible.load(Ordering::Acquire);
        self.open = None;
        self.chain = None;
        if let Some(current) = self.current.take() {
            let end = current.bounds().0.or(current.next_base).unwrap_or(visible);
            self.lsn = self.lsn.max(end);
        }
    }

    /// Goes past a segment whose file a writer has removed before it could be opened, unless another file has what is left of it.
    fn pass_over_gone(&mut self, visible: u64) -> Result<Step, LogError> {
        let Some((segment, next_base)) = self.shared.table.find(self.lsn) else {
            return Ok(Step::End);
        };
        let end = match (segment.end(), next_base) {
            (End::Known(end, _), _) => end,
            (_, next) => next.unwrap_or(visible),
        };
        match beside::what_became_of(&self.shared.dir, &segment, None)? {
            Became::Unchanged => Ok(Step::Moved),
            Became::Retired => Ok(self.leave(end.max(self.lsn))),
            Became::Rewritten => Err(LogError::Moved {
                lsn: Lsn(segment.header.base),
            }),
        }
    }

    fn damage(&self, bad: Bad) -> Step {
        let Some(current) = &self.current else {
            return Step::Moved;
        };
        let link = Link {
            header: current.segment.header,
            path: current.segment.path.clone(),
            end: None,
            end_chain: None,
        };
        Step::Damage(recover::damage_of(bad, &link))
    }
}

impl Current {
    /// Where the segment ends, and where its blocks do, as far as anybody knows.
    fn bounds(&self) -> (Option<u64>, Option<u64>) {
        let header = &self.segment.header;
        match (self.segment.end(), header.rewritten) {
            (End::Known(end, _), Some(rewritten)) => (Some(end), Some(header.lsn_of(rewritten.used).min(end))),
            (End::Known(end, _), None) => (Some(end), Some(end)),
            (End::Active, _) => (Some(u64::MAX), None),
            (End::Open, _) => (None, self.next_base),
        }
    }

    fn is_behind(&self, lsn: u64) -> bool {
        match self.segment.end() {
            End::Known(end, _) => end <= lsn,
            End::Active => false,
            End::Open => self.next_base.is_some_and(|next| next <= lsn),
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::log::sim::SimDisk;
    use crate::log::{Background, Level, Log, LogOptions, Record};

    /// Goes on as a reader does whose thread slept after it had asked how far one may read.
    #[test]
    fn a_reader_that_sleeps_while_all_that_it_could_see_is_retired_goes_on_with_what_there_is() {
        let options = LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
        let (log, _) = Log::open(Arc::new(SimDisk::new(1)), "/log", options).unwrap();
        let append = |offsets: std::ops::Range<u64>| {
            for offset in offsets {
                log.append(&[Record::new(1, offset, &[1; 200])], Level::Os).unwrap();
            }
        };
        append(0..20);
        let mut reader = log.reader(log.range().0).unwrap();
        for _ in 0..19 {
            assert!(matches!(reader.next().unwrap(), Some(Item::Record(_))));
        }
        assert!(
            matches!(reader.step().unwrap(), Step::Moved),
            "it stands before the last block that it can see"
        );
        let stale = log.range().1.0;
        append(20..120);
        for segment in log.segments().iter().rev().skip(3) {
            log.retire(segment.first).unwrap();
        }
        reader.current = None;
        assert!(matches!(reader.open_block(stale).unwrap(), Step::Moved));
        let mut offsets = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Record(record) => offsets.push(record.tag.offset),
                Item::Damage(damage) => panic!("{damage:?}"),
            }
        }
        let first = offsets[0];
        assert!(offsets.into_iter().eq(first..120), "nothing that is left is passed over");
        assert!(log.segments()[0].from >= Lsn(stale), "the log began behind what was seen");
    }
}
