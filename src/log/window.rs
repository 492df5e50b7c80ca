//! A buffered view of a file that only moves forward, in large reads.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

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
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Arc::new(Vec::new()),
            start: 0,
            filled: 0,
            read: 0,
        }
    }

    /// Forgets what was read: the next bytes come from another file, or may have changed.
    pub(crate) fn reset(&mut self) {
        self.filled = 0;
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
    pub(crate) fn fetch(
        &mut self,
        file: &dyn VfsFile,
        position: u64,
        want: usize,
        limit: u64,
    ) -> io::Result<&[u8]> {
        let left = limit.saturating_sub(position);
        let want = left.min(want as u64) as usize;
        if self.at_hand(position).len() < want {
            self.fill(file, position, want, left)?;
        }
        let bytes = self.at_hand(position);
        Ok(&bytes[..bytes.len().min(left as usize)])
    }

    fn fill(
        &mut self,
        file: &dyn VfsFile,
        position: u64,
        want: usize,
        left: u64,
    ) -> io::Result<()> {
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
        while self.filled < size {
            match file.read_at(
                &mut buffer[self.filled..size],
                position + self.filled as u64,
            ) {
                Ok(0) => break,
                Ok(n) => {
                    self.filled += n;
                    self.read += n as u64;
                    if self.filled >= want {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// How much is read at once: small enough to stay in the second-level cache until it is checked.
const CHUNK: usize = 256 << 10;
