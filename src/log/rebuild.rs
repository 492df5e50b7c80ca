//! The header of a segment that lost both copies of it, from what its blocks say. Looks, and changes nothing.
//!
//! A block names its segment, its place in the log and its epoch, but not what it is aligned to. That shows in the distance
//! from each block to the next: of all alignments that the format allows, the one under which the most blocks are found, the chain
//! breaks least often, and the fewest bytes are damaged, in this order. A coarser one than the true one takes for filling what it
//! passes over, and so may show less damage: but it finds fewer blocks, or one that does not continue the one before.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::io;

use super::block::{Head, MAX_ALIGN, MIN_ALIGN};
use super::crc;
use super::dir::Dir;
use super::error::LogError;
use super::header::{self, Header};
use super::recover::{self, Candidate, Plan, blank_header};
use super::scan::{self, Source};
use super::tail::{self, Bad};
use super::vfs::VfsFile;
use super::window::Window;

impl Plan {
    /// The header of a file that has none: `None` if there is no block in it, or nothing says that it was promised.
    pub(super) fn header_from_blocks(
        &self,
        dir: &Dir,
        file: &Candidate,
        successor: Option<&Header>,
        older: &[Candidate],
    ) -> Result<Option<Header>, LogError> {
        let read = |e| LogError::io("read", &file.path, e);
        let (opened, limit) = dir.open_to_look(&file.path)?;
        let Some((position, head, predecessor)) = self.first_in_place(dir, file, (&*opened, limit), older)? else {
            return Ok(None);
        };
        let blank = Header {
            predecessor: predecessor.map_or(0, |file| file.name.last),
            ..blank_header(self.log_id.unwrap_or_default(), &file.name)
        };
        // Where several fit alike, a neighbour's is the likelier one.
        let likely = successor
            .or(predecessor.and_then(Candidate::header))
            .map_or(MIN_ALIGN, |header| header.align);
        let mut best: Option<(Fit, Header)> = None;
        for align in std::iter::once(likely).chain(alignments().filter(|align| *align != likely)) {
            let Some(header) = placed(&blank, align, position, &head) else {
                continue;
            };
            let (fit, newer) = self.fit(&*opened, &header, limit, successor).map_err(read)?;
            recover::refuse_newer(&file.path, newer)?;
            if best.is_none_or(|(other, _)| fit > other) {
                best = Some((fit, header));
            }
            if fit.is_perfect() {
                break;
            }
        }
        // Without a successor, only what its own blocks say was promised.
        let promised = best.filter(|(fit, header)| successor.is_some() || fit.proven > header.base);
        Ok(promised.map(|(_, header)| header))
    }

    /// The first block that can be where it is, and the segment before it. A record may hold the bytes of a block, and when that of the
    /// segment is gone, such a copy comes first: it is further behind in the file, so the segment would begin before its predecessor ends.
    fn first_in_place<'a>(
        &self,
        dir: &Dir,
        file: &Candidate,
        (opened, limit): (&dyn VfsFile, u64),
        older: &'a [Candidate],
    ) -> Result<Option<InPlace<'a>>, LogError> {
        let log_mix = crc::mix_log(self.log_id.unwrap_or_default());
        let blank = blank_header(self.log_id.unwrap_or_default(), &file.name);
        let mut window = Window::new();
        let mut known: Option<(u64, u64, u64)> = None; // number, epoch, end: of many copies, each would ask
        // Whatever the alignment is, this one finds every block.
        let mut from = u64::from(Header::bytes_for(MIN_ALIGN));
        loop {
            let found = scan::next_block(opened, &mut window, (file.name.first, MIN_ALIGN, log_mix), from, limit);
            let Some((position, head)) = found.map_err(|e| LogError::io("read", &file.path, e))? else {
                return Ok(None);
            };
            let predecessor = match head.lsn {
                0 => None, // it begins the log
                _ => self.predecessor(dir, &head, older)?,
            };
            let end = match (predecessor, known) {
                (None, _) => 0,
                (Some(before), Some((last, epoch, end))) if (last, epoch) == (before.name.last, head.epoch) => end,
                (Some(before), _) => {
                    let end = self.least_end(dir, before, &head)?;
                    known = Some((before.name.last, head.epoch, end));
                    end
                }
            };
            let mut places = alignments().filter_map(|align| placed(&blank, align, position, &head));
            if places.any(|header| header.base >= end) {
                return Ok(Some((position, head, predecessor)));
            }
            window.allowance().spend(head.front());
            from = position + MIN_ALIGN;
        }
    }

    /// Before where no segment with this block begins that comes behind another one: a roll, unlike an opening, cuts nothing off.
    fn least_end(&self, dir: &Dir, before: &Candidate, head: &Head) -> Result<u64, LogError> {
        let Some(header) = before.header() else {
            return Ok(0);
        };
        if let Some(rewritten) = header.rewritten {
            return Ok(rewritten.end);
        }
        if header.epoch != head.epoch {
            return Ok(header.base);
        }
        let (opened, limit) = dir.open_to_look(&before.path)?;
        let tail = tail::scan_tail(&self.source(&*opened, header, limit), &mut Window::new(), |_| {});
        Ok(tail.map_err(|e| LogError::io("read", &before.path, e))?.end.lsn)
    }

    /// The segment before that of a block: the newest of the older files that has a header, or a block that was written before it.
    fn predecessor<'a>(&self, dir: &Dir, head: &Head, older: &'a [Candidate]) -> Result<Option<&'a Candidate>, LogError> {
        let log_mix = crc::mix_log(self.log_id.unwrap_or_default());
        for file in older.iter().rev() {
            if file.header().is_some() {
                return Ok(Some(file));
            }
            let read = |e| LogError::io("read", &file.path, e);
            let (opened, limit) = dir.open_to_look(&file.path)?;
            let first = scan::first_block(&*opened, &mut Window::new(), file.name.first, MIN_ALIGN, log_mix, limit);
            if first.map_err(read)?.is_some_and(|(_, first)| first.lsn < head.lsn) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// How well blocks fit a header, and the version of one among them that this code does not know.
    fn fit(&self, file: &dyn VfsFile, header: &Header, limit: u64, successor: Option<&Header>) -> io::Result<(Fit, Option<u16>)> {
        let mut damaged = 0;
        let mut count = |bad: Bad| {
            let (Bad::Blocks { len, .. } | Bad::Chain { len, .. } | Bad::Record { len, .. }) = bad;
            damaged += len;
        };
        let mut window = Window::new();
        let mut fit = Fit::default();
        let end = match successor {
            None => {
                let tail = tail::scan_tail(&self.source(file, header, limit), &mut window, &mut count)?;
                fit.proven = tail.proven.lsn;
                fit.behind = Reverse(tail.behind);
                tail.after
            }
            // One that ends before it begins is put where it belongs by whoever links it.
            Some(next) if next.base < header.base => return Ok((fit, None)),
            Some(next) => {
                let end = header.position_of(next.base);
                tail::verify(&self.source(file, header, limit.max(end)), &mut window, next.base, &mut count)?;
                end
            }
        };
        fit.damaged = Reverse(damaged);
        let chain = successor.filter(|_| header.generation == 0).map(|next| next.chain);
        fit.pass(&self.source(file, header, limit), end, chain)?;
        Ok((fit, window.newer()))
    }
}

/// A block: its position in the file, what it says, and the segment before its own.
type InPlace<'a> = (u64, Head, Option<&'a Candidate>);

/// More is better, and what comes first counts first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// How many blocks there are.
    blocks: u64,
    /// Up to where the blocks say that a sync had returned Ok; nothing where a successor says that all of it was promised.
    proven: u64,
    /// How often a block does not continue the one before.
    breaks: Reverse<u64>,
    /// How many bytes are damaged.
    damaged: Reverse<u64>,
    /// How many bytes behind the last block are not zero.
    behind: Reverse<u64>,
}

impl Fit {
    /// Counts the blocks up to a place in the file, behind which no block reaches. The last one is continued by `chain`, if that is known.
    fn pass(&mut self, source: &Source<'_>, end: u64, chain: Option<u32>) -> io::Result<()> {
        let mut window = Window::new();
        let header = source.header;
        let mut position = u64::from(header.header_bytes);
        let mut before = Some(header.chain);
        self.damaged.0 += misfilled(source, &mut window, 0, header::MIN_BYTES, position)?;
        while position < end {
            if let Some(head) = source.block(&mut window, position)? {
                self.blocks += 1;
                self.breaks.0 += u64::from(before.is_some_and(|before| before != head.chain));
                before = Some(head.crc);
                let next = header.position_of(head.end(header.align));
                self.damaged.0 += misfilled(source, &mut window, position, head.len(), next)?;
                position = next;
                continue;
            }
            before = None;
            let found = source.resync_within(&mut window, position + header.align, end)?;
            position = found.map_or(end, |(found, _)| found);
        }
        let is_continued = before.is_none() || chain.is_none() || before == chain;
        self.breaks.0 += u64::from(position > end || !is_continued);
        Ok(())
    }

    /// Tells whether nothing fits better: every byte is accounted for.
    fn is_perfect(&self) -> bool {
        self.blocks > 0 && (self.breaks, self.damaged, self.behind) == (Reverse(0), Reverse(0), Reverse(0))
    }
}

/// The length of what fills up a block or a header, if it is not zeros: then it is what is left of a block that was lost.
fn misfilled(source: &Source<'_>, window: &mut Window, position: u64, len: usize, next: u64) -> io::Result<u64> {
    let whole = (next - position) as usize;
    let bytes = window.fetch(source.file, position, whole, source.limit)?;
    let filling = bytes.get(len..whole.min(bytes.len())).unwrap_or_default();
    let is_zeros = filling.iter().all(|b| *b == 0);
    Ok(if is_zeros { 0 } else { filling.len() as u64 })
}

/// The header under which a block is where it says it is; `None` if no segment of that alignment can have it there.
fn placed(blank: &Header, align: u64, position: u64, head: &Head) -> Option<Header> {
    let header_bytes = Header::bytes_for(align);
    let skipped = position.checked_sub(u64::from(header_bytes))?;
    let base = head.lsn.checked_sub(skipped)?;
    position.is_multiple_of(align).then_some(Header {
        epoch: head.epoch,
        base,
        chain: if skipped == 0 { head.chain } else { 0 },
        header_bytes,
        align,
        ..*blank
    })
}

/// Every alignment there is.
fn alignments() -> impl Iterator<Item = u64> {
    (MIN_ALIGN.trailing_zeros()..=MAX_ALIGN.trailing_zeros()).map(|bit| 1 << bit)
}
