//! The header of a segment that lost both copies of it, from what its blocks say. Looks, and changes nothing.
//!
//! A block names its segment, its place in the log and its epoch, but not what it is aligned to. That shows in the distance
//! from each block to the next: of all alignments that the format allows, the one under which the fewest bytes are damaged.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::io;

use super::block::{Head, MAX_ALIGN, MIN_ALIGN};
use super::crc;
use super::dir::Dir;
use super::error::LogError;
use super::header::Header;
use super::recover::{self, Candidate, MAX_SEGMENT_FILE, Plan, blank_header};
use super::scan;
use super::tail::{self, Bad};
use super::vfs::{Open, VfsFile};
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
        let opened = dir.open(&file.path, Open::Read)?;
        let limit = opened.len().map_err(read)?.min(MAX_SEGMENT_FILE);
        let log_mix = crc::mix_log(self.log_id.unwrap_or_default());
        // Whatever the alignment is, this one finds the first block.
        let first = scan::first_block(&*opened, &mut Window::new(), file.name.first, MIN_ALIGN, log_mix, limit).map_err(read)?;
        let Some((position, head)) = first else {
            return Ok(None);
        };
        let predecessor = match head.lsn {
            0 => None, // it begins the log
            _ => self.predecessor(dir, &head, older)?,
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
        for align in std::iter::once(likely).chain(alignments()) {
            let Some(header) = placed(&blank, align, position, &head) else {
                continue;
            };
            let (fit, newer) = self.fit(&*opened, &header, limit, successor).map_err(read)?;
            recover::refuse_newer(&file.path, newer)?;
            if best.is_none_or(|(other, _)| fit > other) {
                best = Some((fit, header));
            }
        }
        // Without a successor, only what its own blocks say was promised.
        let promised = best.filter(|(fit, header)| successor.is_some() || fit.proven > header.base);
        Ok(promised.map(|(_, header)| header))
    }

    /// The segment before that of a block: the newest of the older files that has a header, or a block that was written before it.
    fn predecessor<'a>(&self, dir: &Dir, head: &Head, older: &'a [Candidate]) -> Result<Option<&'a Candidate>, LogError> {
        let log_mix = crc::mix_log(self.log_id.unwrap_or_default());
        for file in older.iter().rev() {
            if file.header().is_some() {
                return Ok(Some(file));
            }
            let read = |e| LogError::io("read", &file.path, e);
            let opened = dir.open(&file.path, Open::Read)?;
            let limit = opened.len().map_err(read)?.min(MAX_SEGMENT_FILE);
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
        let proven = match successor {
            None => {
                let source = self.source(file, header, limit);
                tail::scan_tail(&source, &mut window, &mut count)?.proven.lsn
            }
            // One that ends before it begins is put where it belongs by whoever links it.
            Some(next) if next.base < header.base => 0,
            Some(next) => {
                let source = self.source(file, header, limit.max(header.position_of(next.base)));
                tail::verify(&source, &mut window, next.base, &mut count)?;
                0
            }
        };
        let fit = Fit {
            proven,
            damaged: Reverse(damaged),
        };
        Ok((fit, window.newer()))
    }
}

/// More is better: first what is proven, then how few bytes are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    proven: u64,
    damaged: Reverse<u64>,
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
