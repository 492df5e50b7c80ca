//! Walking the blocks of one segment file, and finding the next one behind a damaged place.
#![forbid(unsafe_code)]

use std::io;

use super::block::{HEAD, Head, MAGIC};
use super::directory::Slot;
use super::header::{Fill, Header};
use super::vfs::VfsFile;
use super::window::Window;

/// A segment file as a scan sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a dyn VfsFile,
    pub(crate) header: &'a Header,
    pub(crate) log_mix: u32,
    /// Where in the file to stop: nothing from here on is looked at.
    pub(crate) limit: u64,
}

impl Source<'_> {
    /// Reads the block at `position`, header and directory checked, bodies at hand but not checked.
    ///
    /// A block counts only if it was written for this segment, in this epoch, at this place.
    pub(crate) fn block(&self, window: &mut Window, position: u64) -> io::Result<Option<Head>> {
        let Some(head) = Head::parse(window.fetch(self.file, position, HEAD, self.limit)?) else {
            self.look_for_newer(window, position)?;
            return Ok(None);
        };
        if !self.belongs(&head, position) || self.limit - position < head.len() as u64 || !window.allowance().has(head.front()) {
            return Ok(None);
        }
        // The front alone first: a length is believed only when its CRC was right.
        let front = window.fetch(self.file, position, head.front(), self.limit)?;
        let is_checked = front
            .get(..head.front())
            .is_some_and(|front| head.check(front, self.log_mix).is_some());
        if !is_checked {
            window.allowance().spend(head.front());
            return Ok(None);
        }
        let bytes = window.fetch(self.file, position, head.len(), self.limit)?;
        Ok((bytes.len() >= head.len()).then_some(head))
    }

    /// Makes the window remember a block of this place that was written whole, but by a version that knows more.
    fn look_for_newer(&self, window: &mut Window, position: u64) -> io::Result<()> {
        let bytes = window.fetch(self.file, position, HEAD, self.limit)?;
        if let Some((head, Some(version))) = Head::parse_any(bytes)
            && self.belongs(&head, position)
        {
            note_if_sealed(self.file, window, position, (&head, version), self.log_mix, self.limit)?;
        }
        Ok(())
    }

    /// Where a block that was begun at `position` would have ended, if its first bytes still say so.
    pub(crate) fn claimed_end(&self, window: &mut Window, position: u64) -> io::Result<u64> {
        let bytes = window.fetch(self.file, position, HEAD, self.limit)?;
        let claimed = Head::parse(bytes).filter(|head| self.belongs(head, position));
        Ok(claimed.map_or(position, |head| self.limit.min(position + head.len() as u64)))
    }

    /// Finds the first block at `from` or behind it, looking at every place where one could begin.
    pub(crate) fn resync(&self, window: &mut Window, from: u64) -> io::Result<Option<(u64, Head)>> {
        self.resync_within(window, from, self.limit)
    }

    /// The same, for a block that begins before `until`.
    pub(crate) fn resync_within(&self, window: &mut Window, from: u64, until: u64) -> io::Result<Option<(u64, Head)>> {
        let mut position = from;
        while position < until {
            let bytes = window.fetch(self.file, position, HEAD, self.limit)?;
            if bytes.len() < HEAD {
                return Ok(None);
            }
            let before = position;
            match find_magic(bytes, self.header.align as usize) {
                None => {
                    // Every place whose magic is at hand was looked at.
                    let align = self.header.align;
                    position += (bytes.len() as u64 - 4) / align * align + align;
                }
                Some(skip) => {
                    position += skip as u64;
                    if let Some(head) = self.block(window, position)? {
                        return Ok(Some((position, head)));
                    }
                    position += self.header.align;
                }
            }
            window.allowance().searched += position - before;
        }
        Ok(None)
    }

    /// Finds the end of the last byte at `from` or behind it that is not zero.
    pub(crate) fn last_nonzero(&self, window: &mut Window, from: u64) -> io::Result<u64> {
        let mut position = from;
        let mut last = from;
        while position < self.limit {
            let bytes = window.fetch(self.file, position, 1, self.limit)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(at) = bytes.iter().rposition(|b| *b != 0) {
                last = position + at as u64 + 1;
            }
            position += bytes.len() as u64;
        }
        Ok(last)
    }

    /// Where a file that was zeros has been written to, from a position on. Of other files, all was.
    pub(crate) fn used(&self, window: &mut Window, from: u64) -> io::Result<u64> {
        match self.header.fill {
            Fill::Zeros => self.last_nonzero(window, from),
            Fill::OlderBlocks => Ok(self.limit),
        }
    }

    fn belongs(&self, head: &Head, position: u64) -> bool {
        head.segment == self.header.first
            && head.epoch == self.header.epoch
            && head.lsn == self.header.lsn_of(position)
            && head.durable <= head.lsn
    }
}

/// Makes the window remember a version that this code does not know, if the checksum says that somebody has written such a block.
fn note_if_sealed(
    file: &dyn VfsFile,
    window: &mut Window,
    position: u64,
    (head, version): (&Head, u16),
    log_mix: u32,
    limit: u64,
) -> io::Result<()> {
    if !window.allowance().has(head.front()) {
        return Ok(());
    }
    let front = window.fetch(file, position, head.front(), limit)?;
    if front.get(..head.front()).is_some_and(|front| head.is_sealed(front, log_mix)) {
        window.found_newer(version);
    } else {
        window.allowance().spend(head.front());
    }
    Ok(())
}

/// The records of a block that was just read, with their bytes.
pub(crate) fn bodies<'w>(window: &'w Window, position: u64, head: &Head) -> impl Iterator<Item = (Slot, &'w [u8])> {
    let bytes = window.at_hand(position);
    let front = head.front();
    head.directory(&bytes[..front])
        .iter()
        .map(move |slot| (slot, &bytes[front + slot.body..front + slot.body + slot.len]))
}

/// Tells whether every record of a block that was just read is what was written.
pub(crate) fn is_whole(window: &Window, position: u64, head: &Head) -> bool {
    bodies(window, position, head).all(|(slot, body)| slot.matches(body))
}

fn find_magic(bytes: &[u8], align: usize) -> Option<usize> {
    let magic = MAGIC.to_le_bytes();
    let mut at = 0;
    // A stretch at a time: most of what is searched is zeros, and comparing those is what takes the time.
    if align == 8 {
        let (stretches, _) = bytes.as_chunks::<64>();
        for stretch in stretches {
            if stretch.iter().fold(0, |any, b| any | b) != 0 {
                for step in (0..64).step_by(8) {
                    if stretch[step..step + 4] == magic {
                        return Some(at + step);
                    }
                }
            }
            at += 64;
        }
    }
    while at + 4 <= bytes.len() {
        if bytes[at..at + 4] == magic {
            return Some(at);
        }
        at += align;
    }
    None
}

/// Finds the first block of a segment whose header is lost, so that neither its place in the log nor its epoch is known.
pub(crate) fn first_block(
    file: &dyn VfsFile,
    window: &mut Window,
    segment: u64,
    align: u64,
    log_mix: u32,
    limit: u64,
) -> io::Result<Option<(u64, Head)>> {
    let from = u64::from(Header::bytes_for(align));
    next_block(file, window, (segment, align, log_mix), from, limit)
}

/// The same, at `from` or behind it.
pub(crate) fn next_block(
    file: &dyn VfsFile,
    window: &mut Window,
    (segment, align, log_mix): (u64, u64, u32),
    from: u64,
    limit: u64,
) -> io::Result<Option<(u64, Head)>> {
    let mut position = from;
    while position < limit {
        let bytes = window.fetch(file, position, HEAD, limit)?;
        if bytes.len() < HEAD {
            return Ok(None);
        }
        let Some(skip) = find_magic(bytes, align as usize) else {
            // Every place whose magic is at hand was looked at.
            let step = (bytes.len() as u64 - 4) / align * align + align;
            position += step;
            window.allowance().searched += step;
            continue;
        };
        position += skip as u64;
        window.allowance().searched += skip as u64;
        let bytes = window.fetch(file, position, HEAD, limit)?;
        let (claimed, newer) = match Head::parse_any(bytes).filter(|(head, _)| head.segment == segment) {
            Some((head, None)) => (Some(head), None),
            Some((head, Some(version))) => (None, Some((head, version))),
            None => (None, None),
        };
        if let Some((head, version)) = &newer {
            note_if_sealed(file, window, position, (head, *version), log_mix, limit)?;
        }
        if let Some(head) = claimed.filter(|head| window.allowance().has(head.front())) {
            let front = window.fetch(file, position, head.front(), limit)?;
            if front.get(..head.front()).is_some_and(|front| head.check(front, log_mix).is_some()) {
                return Ok(Some((position, head)));
            }
            window.allowance().spend(head.front());
        }
        position += align;
    }
    Ok(None)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::log::allowance::Allowance;
    use crate::log::block::{Kind, MAX_BLOCK};
    use crate::log::sim::SimDisk;
    use crate::log::vfs::{Open, Vfs};

    /// Goal: bytes laid out to make a search slow do not. Method: heads that belong to their places, one behind the other, each of which claims
    /// a directory of half a mebibyte that fails its check; what was checked is counted.
    #[test]
    fn a_search_checks_a_fixed_share_of_what_it_passes() {
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
        let start = header.header_bytes as usize;
        let mut bytes = vec![0; 2 << 20];
        for at in (start..bytes.len() - HEAD).step_by(HEAD) {
            let mut head = Head {
                kind: Kind::Records,
                segment: header.first,
                lsn: header.lsn_of(at as u64),
                epoch: header.epoch,
                durable: 0,
                time: 0,
                records: 0,
                runs: 0,
                body_bytes: 0,
                chain: 0,
                crc: 0,
            };
            head.encode(&[], 0, &mut bytes[at..at + HEAD]);
            head.records = 64 << 10;
            assert!(head.len() < MAX_BLOCK);
            bytes[at + 56..at + 60].copy_from_slice(&head.records.to_le_bytes());
        }
        let disk = SimDisk::new(1);
        disk.put("segment", &bytes);
        let file = disk.open("segment".as_ref(), Open::Read).expect("it was put there");
        let source = Source {
            file: &*file,
            header: &header,
            log_mix: 9,
            limit: bytes.len() as u64,
        };
        let mut window = Window::new();
        let found = source.resync(&mut window, start as u64);
        assert!(found.expect("no disk to fail").is_none());
        let fronts = bytes.len() / HEAD * (512 << 10);
        let most = Allowance::START + Allowance::PER_BYTE * source.limit;
        let spent = window.allowance().spent;
        assert!(spent > Allowance::START / 2 && spent <= most, "{spent}");
        assert!(fronts as u64 > 10 * most, "else nothing is shown");
        // Searches for each of many damaged places, one behind the other, share it.
        let mut window = Window::new();
        for from in (start as u64..source.limit).step_by(source.limit as usize / 16) {
            let until = source.limit.min(from + source.limit / 16);
            assert!(source.resync_within(&mut window, from, until).expect("no disk to fail").is_none());
        }
        assert!(window.allowance().spent <= most, "{:?}", window.allowance());
    }
}
