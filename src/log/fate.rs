//! What becomes of a file that has the name of a segment and is none. Looks, and changes nothing.
//!
//! Only what the log knows is removed: what it has replaced, what it never wrote to, and the space of a retired segment that got the
//! name of a new one, but not its header. Such a segment was older than all that are left; one that was retired from the middle is not
//! told from one whose name somebody changed, and goes to the quarantine. What another log wrote stays.
#![forbid(unsafe_code)]

use std::path::Path;

use super::crc;
use super::dir::{self, Dir};
use super::error::LogError;
use super::header::{self, Found, Header};
use super::recover::{Candidate, Plan, blank_header, refuse_newer};
use super::report::OpenReport;
use super::scan;
use super::window::Window;

/// What to do with a file that is not a segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Remove it: it was replaced, or never used.
    Remove,
    /// Keep this many bytes of it aside, then remove it.
    KeepAside(u64),
    /// Move it to the quarantine: a part of it could not be read, and perhaps can be another time, or it is a segment under a name
    /// that is not its own.
    Move,
}

impl Plan {
    /// A file that is not a segment of the log any more, or never was one.
    pub(super) fn put_aside(&mut self, dir: &Dir, file: &Candidate) -> Result<(), LogError> {
        let fate = match file.header() {
            // Its successor was made from it, and synced, before it got its name.
            Some(header) if self.is_readable(dir, file, header)? => Some(Fate::Remove),
            // But not from all of it, and whoever did so may have died before it was moved.
            Some(_) => Some(Fate::Move),
            None => self.judge(dir, file)?,
        };
        self.settle(&file.path, fate);
        Ok(())
    }

    /// Tells whether the device gives all of a file.
    fn is_readable(&self, dir: &Dir, file: &Candidate, header: &Header) -> Result<bool, LogError> {
        let (opened, limit) = dir.open_to_look(&file.path)?;
        let source = self.source(&*opened, header, limit);
        let mut window = Window::new();
        let read = source.last_nonzero(&mut window, 0);
        Ok(read.is_ok() && window.unreadable().is_empty())
    }

    /// Notes what becomes of a file. One without a fate stays where it is.
    pub(super) fn settle(&mut self, path: &Path, fate: Option<Fate>) {
        match fate {
            Some(fate) => self.rest.push((path.to_owned(), fate)),
            None => OpenReport::push(&mut self.report.unknown, &mut self.report.omitted, path.to_owned()),
        }
    }

    /// What is in a file without a header. `None` if another log wrote it.
    pub(super) fn judge(&self, dir: &Dir, file: &Candidate) -> Result<Option<Fate>, LogError> {
        let read = |e| LogError::io("read", &file.path, e);
        let (opened, limit) = dir.open_to_look(&file.path)?;
        // What the device does not give is no header.
        let front = dir::read_front(&*opened, header::MIN_BYTES).unwrap_or_default();
        let log_mix = crc::mix_log(self.log_id.unwrap_or_default());
        let mut window = Window::new();
        let used = scan::first_block(&*opened, &mut window, file.name.first, 8, log_mix, limit).map_err(read)?;
        refuse_newer(&file.path, window.newer())?;
        if used.is_none()
            && let Found::Header(other, _) = Header::decode_any(&front)
        {
            if Some(other.log_id) != self.log_id {
                return Ok(None);
            }
            // Space of a retired segment, made ready for this one, and not used.
            let is_retired = other.last < self.oldest;
            return Ok(Some(if is_retired { Fate::Remove } else { Fate::Move }));
        }
        let header = blank_header(self.log_id.unwrap_or_default(), &file.name);
        let source = self.source(&*opened, &header, limit);
        let last = source.last_nonzero(&mut window, 0).map_err(read)?;
        Ok(Some(match last {
            _ if !window.unreadable().is_empty() => Fate::Move,
            0 => Fate::Remove,
            _ => Fate::KeepAside(last),
        }))
    }
}
