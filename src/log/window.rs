//! A buffered view of a file that only moves forward, in large reads.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use super::allowance::Allowance;
use super::vfs::VfsFile;

/// The bytes of a file around the place that is being read.
///
/// Readers may keep parts of the buffer alive; then the next read goes to a new one, and theirs stays as it is.
#[derive(Debug)]
pub(crate) struct Window {
    buffer: Arc<Vec<u8>>,
    /// Where in the file the buffer begins.
    start: u64,
    /// How many bytes of the buffer are from the file.
    filled: usize,
    read: u64,
    losses: Losses,
    allowance: Allowance,
    /// The version of a block that was met and that this code does not know.
    newer: Option<u16>,
}

/// What a device would not give of a file.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Where the sectors begin.
    unreadable: Vec<u64>,
    /// Whether it gave anything. Before it has, sectors that it does not give are no bad places, but a device that is gone.
    has_answered: bool,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Arc::new(Vec::new()),
            start: 0,
            filled: 0,
            read: 0,
            losses: Losses::default(),
            allowance: Allowance::default(),
            newer: None,
        }
    }

    /// A block was met that is whole, and of a version that this code does not know.
    pub(crate) fn found_newer(&mut self, version: u16) {
        self.newer.get_or_insert(version);
    }

    /// The version of such a block, if there was one in files read since the last reset.
    pub(crate) fn newer(&self) -> Option<u16> {
        self.newer
    }

    /// What searches in this file may still check.
    pub(crate) fn allowance(&mut self) -> &mut Allowance {
        &mut self.allowance
    }

    /// Forgets what was read: the next bytes come from another file, or may have changed.
    pub(crate) fn reset(&mut self) {
        self.filled = 0;
        self.losses = Losses::default();
        self.allowance = Allowance::default();
        self.newer = None;
    }

    /// Where sectors began that could not be read, in files read since the last reset.
    pub(crate) fn unreadable(&self) -> &[u64] {
        &self.losses.unreadable
    }

    /// How many bytes were read from files.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// The buffer, and where in it the byte at `position` is.
    pub(crate) fn pin(&self, position: u64) -> (&Arc<Vec<u8>>, usize) {
        (&self.buffer, (position - self.start) as usize)
    }

    /// The bytes that are at hand from `position` on, without reading.
    pub(crate) fn at_hand(&self, position: u64) -> &[u8] {
        match position.checked_sub(self.start) {
            Some(skip) if skip < self.filled as u64 => &self.buffer[skip as usize..self.filled],
            _ => &[],
        }
    }

    /// Shows the bytes from `position` on: at least `want` of them, fewer only where the file or `limit` ends.
    ///
    /// The caller has checked `want` against the limits of the format. Never more is allocated than the file has.
    pub(crate) fn fetch(&mut self, file: &dyn VfsFile, position: u64, want: usize, limit: u64) -> io::Result<&[u8]> {
        let left = limit.saturating_sub(position);
        let want = left.min(want as u64) as usize;
        if self.at_hand(position).len() < want {
            self.fill(file, position, want, left)?;
        }
        let bytes = self.at_hand(position);
        Ok(&bytes[..bytes.len().min(left as usize)])
    }

    fn fill(&mut self, file: &dyn VfsFile, position: u64, want: usize, left: u64) -> io::Result<()> {
        let kept = self.at_hand(position).len();
        let size = left.min(want.max(CHUNK) as u64) as usize;
        let from = self.filled - kept;
        if let Some(buffer) = Arc::get_mut(&mut self.buffer) {
            buffer.copy_within(from..from + kept, 0);
            if buffer.len() < size {
                buffer.resize(size, 0);
            } else if buffer.len() > 4 * size.max(CHUNK) {
                // One large block is no reason to hold its memory for ever.
                buffer.truncate(size);
                buffer.shrink_to_fit();
            }
        } else {
            let mut fresh = vec![0; size];
            fresh[..kept].copy_from_slice(&self.buffer[from..from + kept]);
            self.buffer = Arc::new(fresh);
        }
        self.start = position;
        self.filled = kept;
        let Some(buffer) = Arc::get_mut(&mut self.buffer) else {
            return Ok(()); // nobody else has it: it was just made, or just found to be ours alone
        };
        while self.filled < want {
            let at = position + self.filled as u64;
            let n = read_around(file, &mut buffer[self.filled..size], at, &mut self.losses)?;
            if n == 0 {
                break;
            }
            self.filled += n;
            self.read += n as u64;
        }
        Ok(())
    }
}

/// Reads once. If the device fails, reads sector by sector, and takes for zeros what it will not give: the checksums over
/// it say what is lost by that, and everything else is served.
///
/// Returns zero at the end of the file only. Sectors that could not be read are added to `losses`. A device that has given
/// nothing of the file yet, and gives nothing now, is an error: zeros would say that there was never anything.
pub(crate) fn read_around(file: &dyn VfsFile, buffer: &mut [u8], position: u64, losses: &mut Losses) -> io::Result<usize> {
    let error = loop {
        match file.read_at(buffer, position) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break e,
            Ok(n) => {
                losses.has_answered |= n > 0;
                return Ok(n);
            }
        }
    };
    let mut filled = 0;
    let mut given = 0;
    let mut lost = Vec::new();
    while filled < buffer.len() {
        let at = position + filled as u64;
        let in_sector = (SECTOR - at % SECTOR).min((buffer.len() - filled) as u64) as usize;
        let part = &mut buffer[filled..filled + in_sector];
        match read_sector(file, part, at) {
            Some(0) => break,
            Some(n) => {
                filled += n;
                given += n;
            }
            None => {
                part.fill(0);
                lost.push(at - at % SECTOR);
                filled += in_sector;
            }
        }
    }
    losses.has_answered |= given > 0;
    let is_all = given == 0 && (lost.len() >= ALL_UNREADABLE || !losses.has_answered);
    if (is_all && !lost.is_empty()) || lost.len() as u64 * SECTOR > MOST_UNREADABLE {
        return Err(error); // not a few bad places, but a device that is gone
    }
    for sector in lost {
        if losses.unreadable.len() < MAX_NAMED && !losses.unreadable.contains(&sector) {
            losses.unreadable.push(sector);
        }
    }
    Ok(filled)
}

/// Reads within one sector, more than once if need be. `None` if the device will not give it.
fn read_sector(file: &dyn VfsFile, part: &mut [u8], position: u64) -> Option<usize> {
    let mut failures = 0;
    while failures < ATTEMPTS {
        match file.read_at(part, position) {
            Ok(n) => return Some(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => failures += 1,
        }
    }
    None
}

/// How much is read at once: small enough to stay in the second-level cache until it is checked.
const CHUNK: usize = 256 << 10;
/// The unit in which devices lose data.
pub(crate) const SECTOR: u64 = 512;
/// How often a sector is tried before it is given up.
const ATTEMPTS: u32 = 3;
/// More than this in one place is a device that does not answer at all.
const MOST_UNREADABLE: u64 = 128 << 10;
/// So is one that has given something before, but nothing at all of a piece of this many sectors.
const ALL_UNREADABLE: usize = 8;
const MAX_NAMED: usize = 1024;
