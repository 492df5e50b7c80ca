//! Where the last segment ends, and how much of it is proven.
//!
//! ```text
//! base        proven           end          a later block that survived
//!  |  blocks   |  blocks        |  torn ...  |
//!  +-----------+----------------+------------+------ nothing promised beyond `proven`
//!        ^ damage in here was promised      ^ and so this is not part of the log
//! ```
//!
//! *Proven* is the highest `durable` that any block of the segment carries: a sync had returned Ok for everything below.
//! A bad place below it is damage. The first bad place at or above it is the end.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use super::block::{Head, Kind};
use super::header::Fill;
use super::scan::{self, Source};
use super::window::Window;

/// A boundary between two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) lsn: u64,
    pub(crate) position: u64,
    /// The crc of the block that ends here; `None` when that block is damaged.
    pub(crate) chain: Option<u32>,
}

/// What the last segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) proven: Boundary,
    pub(crate) end: Boundary,
    /// Whether promised bytes are damaged.
    pub(crate) damaged: bool,
    /// Whether a closing block is the last thing in the segment.
    pub(crate) clean: bool,
    /// Where in the file the last valid byte is, closing block included.
    pub(crate) after: u64,
    /// How many bytes behind that are worth keeping aside.
    pub(crate) behind: u64,
}

/// A damaged place that a scan met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// From a position in the file, for a number of bytes, nothing is readable.
    Blocks { position: u64, len: u64 },
    /// A block does not continue the one before.
    Chain { position: u64, len: u64 },
    /// One record.
    Record {
        position: u64,
        len: u64,
        topic: u64,
        offset: u64,
    },
}

/// Finds the end of the last segment of a log. Reads the file twice at most.
pub(crate) fn scan_tail(
    source: &Source<'_>,
    window: &mut Window,
    mut bad: impl FnMut(Bad),
) -> io::Result<Tail> {
    let survey = survey(source, window)?;
    let mut walk = Walk::new(source);
    if source.header.lsn_of(survey.first_bad) >= survey.durable {
        walk = survey.walk;
    } else {
        walk.past_damage(source, window, survey.durable, &mut bad)?;
    }
    let after = walk.position;
    let last = if source.header.fill == Fill::Zeros {
        let used = survey
            .used
            .map_or_else(|| source.last_nonzero(window, after), Ok)?;
        used.max(after)
    } else {
        // Older blocks are everywhere in such a file: only what is of this segment says that something was cut.
        survey.last_block.max(source.claimed_end(window, after)?)
    };
    let (damaged, closing) = (walk.damaged, walk.closing);
    let (proven, end) = walk.outcome();
    Ok(Tail {
        proven,
        end,
        damaged,
        clean: closing && last <= after,
        after,
        behind: last.saturating_sub(after),
    })
}

/// Names all damage in a segment whose end is known.
pub(crate) fn verify(
    source: &Source<'_>,
    window: &mut Window,
    end: u64,
    mut bad: impl FnMut(Bad),
) -> io::Result<()> {
    Walk::new(source).past_damage(source, window, end, &mut bad)
}

/// A walk over blocks that continue each other.
#[derive(Debug)]
struct Walk {
    /// Boundaries from the proven one on. No more than fit between two syncs.
    boundaries: VecDeque<Boundary>,
    durable: u64,
    position: u64,
    /// Whether the last block is a closing one.
    closing: bool,
    damaged: bool,
}

impl Walk {
    fn new(source: &Source<'_>) -> Self {
        let header = source.header;
        let start = Boundary {
            lsn: header.base,
            position: u64::from(header.header_bytes),
            chain: Some(header.chain),
        };
        Self {
            boundaries: VecDeque::from([start]),
            durable: header.base,
            position: start.position,
            closing: false,
            damaged: false,
        }
    }

    fn continues(&self, head: &Head) -> bool {
        let chain = self.boundaries.back().and_then(|last| last.chain);
        chain.is_none_or(|chain| chain == head.chain)
    }

    fn step(&mut self, source: &Source<'_>, head: &Head) {
        let lsn = head.end(source.header.align);
        self.position = source.header.position_of(lsn);
        self.closing = head.kind == Kind::Closing;
        self.boundaries.push_back(Boundary {
            lsn,
            position: self.position,
            chain: Some(head.crc),
        });
        self.prove(head.durable);
    }

    /// A sync returned Ok for everything below `durable`.
    fn prove(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        while self
            .boundaries
            .get(1)
            .is_some_and(|next| next.lsn <= self.durable)
        {
            self.boundaries.pop_front();
        }
    }

    /// Goes on at a later block, when what is before it is damaged.
    fn skip_to(&mut self, source: &Source<'_>, position: u64) {
        self.position = position;
        self.closing = false;
        self.damaged = true;
        self.boundaries.push_back(Boundary {
            lsn: source.header.lsn_of(position),
            position,
            chain: None,
        });
        self.prove(self.durable);
    }

    /// Walks a segment in which something below `durable` is damaged, and names all of it.
    fn past_damage(
        &mut self,
        source: &Source<'_>,
        window: &mut Window,
        durable: u64,
        bad: &mut impl FnMut(Bad),
    ) -> io::Result<()> {
        self.durable = durable;
        while self.position < source.limit {
            let position = self.position;
            let is_promised = source.header.lsn_of(position) < durable;
            if let Some(head) = source.block(window, position)? {
                let len = head.len() as u64;
                let continues = self.continues(&head);
                let is_whole = scan::is_whole(window, position, &head);
                let is_good = continues && is_whole;
                if !is_promised && !is_good {
                    return Ok(());
                }
                if !continues {
                    self.damaged = true;
                    bad(Bad::Chain { position, len });
                }
                if !is_whole {
                    self.damaged = true;
                    bad_records(window, position, &head, bad);
                }
                self.step(source, &head);
                continue;
            }
            if !is_promised {
                return Ok(());
            }
            let found = source.resync(window, position + source.header.align)?;
            let next = found
                .map_or(u64::MAX, |(found, _)| found)
                .min(source.header.position_of(durable));
            bad(Bad::Blocks {
                position,
                len: next - position,
            });
            self.skip_to(source, next);
        }
        Ok(())
    }

    fn outcome(mut self: Walk) -> (Boundary, Boundary) {
        if self.closing && self.boundaries.len() > 1 {
            // The closing block said what it had to say. The log ends before it, so that closing leaves no trace.
            self.boundaries.pop_back();
        }
        let start = Boundary {
            lsn: 0,
            position: 0,
            chain: None,
        };
        let proven = self.boundaries.front().copied().unwrap_or(start);
        (proven, self.boundaries.back().copied().unwrap_or(proven))
    }
}

/// What one look at all blocks of a segment says.
struct Survey {
    /// Up to the first bad place.
    walk: Walk,
    first_bad: u64,
    /// The highest `durable` anywhere.
    durable: u64,
    /// Where the last block ends, bad places or not.
    last_block: u64,
    /// Where nothing but zeros follows, if that was looked at.
    used: Option<u64>,
}

fn survey(source: &Source<'_>, window: &mut Window) -> io::Result<Survey> {
    let mut walk = Walk::new(source);
    let mut first_bad = None;
    let mut durable = walk.durable;
    let mut position = walk.position;
    let mut last_block = position;
    let mut used = None;
    while position < source.limit {
        let Some(head) = source.block(window, position)? else {
            first_bad.get_or_insert(position);
            let used = match used {
                Some(used) => used,
                None => *used.insert(source.used(window, position)?),
            };
            match source.resync_within(window, position + source.header.align, used)? {
                Some((found, _)) => position = found,
                None => break,
            }
            continue;
        };
        if first_bad.is_none() {
            if walk.continues(&head) && scan::is_whole(window, position, &head) {
                walk.step(source, &head);
            } else {
                first_bad = Some(position);
            }
        }
        durable = durable.max(head.durable);
        position = source.header.position_of(head.end(source.header.align));
        last_block = position.min(source.limit);
    }
    // What a block behind the first bad place says about durability holds for what is before that place as well.
    walk.prove(durable);
    Ok(Survey {
        used,
        first_bad: first_bad.unwrap_or(position),
        walk,
        durable,
        last_block,
    })
}

fn bad_records(window: &Window, position: u64, head: &Head, bad: &mut impl FnMut(Bad)) {
    for (slot, body) in scan::bodies(window, position, head) {
        if !slot.matches(body) {
            bad(Bad::Record {
                position: position + (head.front() + slot.body) as u64,
                len: slot.len as u64,
                topic: slot.tag.topic,
                offset: slot.tag.offset,
            });
        }
    }
}
