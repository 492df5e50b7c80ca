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
    Record { position: u64, len: u64, topic: u64, offset: u64 },
}

/// Finds the end of the last segment of a log. Reads the file twice at most.
pub(crate) fn scan_tail(source: &Source<'_>, window: &mut Window, mut bad: impl FnMut(Bad)) -> io::Result<Tail> {
    let survey = survey(source, window)?;
    let mut walk = Walk::new(source);
    if source.header.lsn_of(survey.first_bad) >= survey.durable {
        walk = survey.walk;
    } else {
        walk.past_damage(source, window, survey.durable, &mut bad)?;
    }
    let after = walk.position;
    let last = if source.header.fill == Fill::Zeros {
        let used = survey.used.map_or_else(|| source.last_nonzero(window, after), Ok)?;
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
pub(crate) fn verify(source: &Source<'_>, window: &mut Window, end: u64, mut bad: impl FnMut(Bad)) -> io::Result<()> {
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
        while self.boundaries.get(1).is_some_and(|next| next.lsn <= self.durable) {
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
    fn past_damage(&mut self, source: &Source<'_>, window: &mut Window, durable: u64, bad: &mut impl FnMut(Bad)) -> io::Result<()> {
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
                if !is_good {
                    // Promised in part is promised whole: nothing that is bad is to be written again.
                    self.prove(head.end(source.header.align));
                }
                continue;
            }
            if !is_promised {
                return Ok(());
            }
            let found = source.resync(window, position + source.header.align)?;
            let next = found.map_or(u64::MAX, |(found, _)| found).min(source.header.position_of(durable));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::crc::crc32c;
    use super::super::directory::{self, Entry};
    use super::super::header::Header;
    use super::super::record::Tag;
    use super::super::vfs::{FileId, VfsFile};
    use super::*;

    const MIX: u32 = 99;

    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl VfsFile for Bytes {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }
        fn identity(&self) -> io::Result<Option<FileId>> {
            Ok(None)
        }
    }

    /// A segment in the making, as a writer would leave it.
    struct Making {
        header: Header,
        bytes: Vec<u8>,
        chain: u32,
        /// Where each block begins in the file.
        starts: Vec<usize>,
    }

    impl Making {
        fn new() -> Self {
            let header = Header {
                log_id: 1,
                first: 3,
                last: 3,
                generation: 0,
                epoch: 5,
                base: 800,
                predecessor: 2,
                chain: 7,
                header_bytes: Header::bytes_for(8),
                align: 8,
                fill: Fill::Zeros,
                rewritten: None,
            };
            Self {
                bytes: header.encode(),
                chain: header.chain,
                header,
                starts: Vec::new(),
            }
        }

        fn lsn(&self) -> u64 {
            self.header.lsn_of(self.bytes.len() as u64)
        }

        fn block(&mut self, durable: u64) -> &mut Self {
            self.block_with(durable, |_| {})
        }

        fn block_with(&mut self, durable: u64, change: impl FnOnce(&mut Head)) -> &mut Self {
            let offset = self.starts.len() as u64;
            let body = [offset as u8; 20];
            let tag = Tag {
                topic: 1,
                offset,
                ..Tag::default()
            };
            self.put(durable, &[Entry::new(tag, body.len(), crc32c(&body))], &body, change)
        }

        fn closing(&mut self) -> &mut Self {
            let durable = self.lsn();
            self.put(durable, &[], &[], |head| head.kind = Kind::Closing)
        }

        fn put(&mut self, durable: u64, entries: &[Entry], bodies: &[u8], change: impl FnOnce(&mut Head)) -> &mut Self {
            let mut head = Head {
                kind: Kind::Records,
                segment: self.header.first,
                lsn: self.lsn(),
                epoch: self.header.epoch,
                durable,
                time: 0,
                records: entries.len() as u32,
                runs: directory::count_runs(entries) as u32,
                body_bytes: bodies.len() as u32,
                chain: self.chain,
                crc: 0,
            };
            change(&mut head);
            self.starts.push(self.bytes.len());
            let at = self.bytes.len();
            self.bytes.resize(at + head.front(), 0);
            self.chain = head.encode(entries, MIX, &mut self.bytes[at..]);
            self.bytes.extend_from_slice(bodies);
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
            self
        }

        fn scan(&self) -> (Tail, Vec<Bad>) {
            let mut bytes = self.bytes.clone();
            bytes.resize(bytes.len() + 4096, 0);
            let file = Arc::new(Bytes(bytes));
            let source = Source {
                file: &*file,
                header: &self.header,
                log_mix: MIX,
                limit: file.0.len() as u64,
            };
            let mut found = Vec::new();
            let tail = scan_tail(&source, &mut Window::new(), |bad| found.push(bad)).expect("no disk to fail");
            (tail, found)
        }
    }

    #[test]
    fn a_segment_ends_at_its_last_block_and_is_proven_to_the_highest_durable() {
        let mut making = Making::new();
        making.block(800);
        let durable = making.lsn();
        making.block(800).block(durable).block(800);
        let (tail, bad) = making.scan();
        assert_eq!((tail.proven.lsn, tail.end.lsn), (durable, making.lsn()));
        assert_eq!(
            (tail.end.chain, tail.damaged, tail.clean, tail.behind),
            (Some(making.chain), false, false, 0)
        );
        assert_eq!(tail.proven.position, making.starts[1] as u64);
        assert!(bad.is_empty());
    }

    #[test]
    fn nothing_is_proven_without_a_durable_above_the_base() {
        let mut making = Making::new();
        making.block(800).block(800);
        let (tail, _) = making.scan();
        assert_eq!((tail.proven.lsn, tail.proven.chain), (800, Some(7)));
        assert_eq!(tail.end.lsn, making.lsn());
    }

    #[test]
    fn the_first_bad_block_above_every_durable_is_the_end() {
        for byte in [0, 30, 80, 105] {
            let mut making = Making::new();
            making.block(800).block(800);
            let end = making.lsn();
            making.block(end).block(800);
            let third = making.starts[2];
            making.bytes[third + byte] ^= 1;
            let (tail, bad) = making.scan();
            // A front that is bad says nothing, also not about what was durable; a body that is bad leaves it to say so.
            let proven = if byte < 104 { 800 } else { end };
            assert_eq!((tail.proven.lsn, tail.end.lsn, tail.damaged), (proven, end, false), "byte {byte}");
            assert!(tail.behind > 0 && bad.is_empty());
        }
    }

    #[test]
    fn a_bad_block_that_was_promised_in_part_is_not_to_be_written_again() {
        // No writer says that a sync ended within a block; bytes may.
        let mut making = Making::new();
        making.block(800).block(800);
        let within = making.header.lsn_of(making.starts[1] as u64) + 8;
        let end = making.lsn();
        making.block(within);
        let second = making.starts[1];
        making.bytes[second + 105] ^= 1;
        let (tail, bad) = making.scan();
        assert!(matches!(bad[..], [Bad::Record { offset: 1, .. }]), "{bad:?}");
        assert_eq!((tail.proven.lsn, tail.end.lsn, tail.damaged), (end, making.lsn(), true));
    }

    #[test]
    fn a_bad_block_below_a_later_durable_is_damage_and_the_rest_is_served() {
        let mut making = Making::new();
        making.block(800).block(800).block(800);
        let durable = making.lsn();
        making.block(durable);
        let second = making.starts[1];
        let len = (making.starts[2] - second) as u64;
        making.bytes[second + 40] ^= 1;
        let (tail, bad) = making.scan();
        let position = second as u64;
        assert_eq!(bad, [Bad::Blocks { position, len }]);
        assert_eq!((tail.proven.lsn, tail.end.lsn, tail.damaged), (durable, making.lsn(), true));
    }

    #[test]
    fn a_bad_body_below_a_later_durable_costs_one_record() {
        let mut making = Making::new();
        making.block(800).block(800);
        let durable = making.lsn();
        making.block(durable);
        let body = making.starts[1] + 104;
        making.bytes[body] ^= 1;
        let (tail, bad) = making.scan();
        let position = body as u64;
        assert_eq!(
            bad,
            [Bad::Record {
                position,
                len: 20,
                topic: 1,
                offset: 1
            }]
        );
        assert_eq!((tail.end.lsn, tail.damaged), (making.lsn(), true));
    }

    #[test]
    fn damage_that_reaches_up_to_the_last_durable_cuts_the_log_there() {
        let mut making = Making::new();
        making.block(800);
        let second = making.lsn();
        making.block(800);
        let durable = making.lsn();
        making.block(800).block(durable).block(800);
        for block in [1, 2] {
            let at = making.starts[block];
            making.bytes[at] ^= 1;
        }
        let (tail, bad) = making.scan();
        let position = making.starts[1] as u64;
        assert_eq!(
            bad,
            [Bad::Blocks {
                position,
                len: durable - second
            }]
        );
        assert_eq!((tail.proven.lsn, tail.end.lsn, tail.end.chain), (durable, durable, None));
    }

    #[test]
    fn a_block_that_does_not_continue_the_one_before_is_not_part_of_the_log() {
        let mut making = Making::new();
        making.block(800);
        let end = making.lsn();
        making.block_with(800, |head| head.chain ^= 1).block(800);
        let (tail, _) = making.scan();
        assert_eq!((tail.end.lsn, tail.behind > 0), (end, true));
    }

    #[test]
    fn a_block_of_another_epoch_or_segment_or_place_is_not_part_of_the_log() {
        let changes: [fn(&mut Head); 4] = [
            |head| head.epoch += 1,
            |head| head.epoch -= 1,
            |head| head.segment += 1,
            |head| head.lsn += 8,
        ];
        for change in changes {
            let mut making = Making::new();
            making.block(800);
            let end = making.lsn();
            making.block_with(800, change);
            assert_eq!(making.scan().0.end.lsn, end);
        }
    }

    #[test]
    fn a_closing_block_leaves_no_trace_but_says_that_all_was_promised() {
        let mut making = Making::new();
        making.block(800).block(800);
        let end = making.lsn();
        making.closing();
        let (tail, _) = making.scan();
        assert_eq!((tail.clean, tail.end.lsn, tail.proven.lsn, tail.behind), (true, end, end, 0));
        let first = making.starts[0];
        making.bytes[first] ^= 1;
        let (tail, bad) = making.scan();
        assert!(tail.damaged && bad.len() == 1 && tail.end.lsn == end);
    }

    #[test]
    fn no_bit_of_a_segment_can_be_flipped_unseen() {
        let mut making = Making::new();
        making.block(800).block(800);
        making.block(making.lsn()).closing();
        let whole = making.bytes.clone();
        let end = making.scan().0.end;
        for bit in 1024 * 8..whole.len() * 8 {
            making.bytes.clone_from(&whole);
            making.bytes[bit / 8] ^= 1 << (bit % 8);
            let (tail, bad) = making.scan();
            let is_padding = making.starts.iter().any(|start| (start + 124..start + 128).contains(&(bit / 8)));
            let is_seen = !bad.is_empty() || tail.end.lsn < end.lsn || tail.behind > 0;
            assert_eq!(is_seen, !is_padding, "bit {bit}");
        }
    }
}
