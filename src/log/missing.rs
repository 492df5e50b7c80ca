//! Which parts of the log no file holds. Looks, and changes nothing.
//!
//! A successor says where its predecessor ended, so a gap between two segments is known. Nothing comes after the newest one, and
//! one that is gone leaves a log that ends earlier. But every opening for writing begins with a segment of its own, which is durable
//! before anything else of that opening: a segment that it has rewritten tells that its own is missing. Spares are
//! not asked: what they hold was retired.
#![forbid(unsafe_code)]

use super::dir::Dir;
use super::error::LogError;
use super::record::Lsn;
use super::recover::{self, Link, Plan};
use super::report::{Missing, OpenReport};
use super::tail;
use super::window::Window;

impl Plan {
    /// Says of the gaps where they begin, and whether the end of the log is missing.
    pub(super) fn find_missing(&mut self, dir: &Dir) -> Result<(), LogError> {
        for pair in 0..self.links.len().saturating_sub(1) {
            let (link, next) = (&self.links[pair], &self.links[pair + 1]);
            let (base, to) = (Lsn(link.header.base), Lsn(next.header.base));
            if link.end.is_none()
                && let Some(at) = self
                    .report
                    .missing
                    .iter()
                    .position(|missing| (missing.from, missing.to) == (base, to))
            {
                self.report.missing[at].from = self.end_of(dir, link)?.min(to);
            }
        }
        if self.is_end_missing() {
            let end = self
                .tail
                .map(|tail| tail.end.lsn)
                .or_else(|| self.links.last().and_then(|link| link.end));
            let missing = Missing {
                from: Lsn(end.unwrap_or(0)),
                to: Lsn(u64::MAX),
                segment: None,
            };
            OpenReport::push(&mut self.report.missing, &mut self.report.omitted, missing);
        }
        Ok(())
    }

    /// A segment that was rewritten carries the epoch of the opening that did it.
    fn is_end_missing(&self) -> bool {
        let last = self.links.last().map_or(0, |last| last.header.epoch);
        self.links.iter().any(|link| link.header.epoch > last)
    }

    /// The end of the last block that can be read in a segment whose end nobody knows.
    fn end_of(&self, dir: &Dir, link: &Link) -> Result<Lsn, LogError> {
        let read = |e| LogError::io("read", &link.path, e);
        let (file, limit) = dir.open_to_look(&link.path)?;
        let mut window = Window::new();
        let source = self.source(&*file, &link.header, limit);
        let found = tail::scan_tail(&source, &mut window, |_| {}).map_err(read)?;
        recover::refuse_newer(&link.path, window.newer())?;
        Ok(Lsn(found.end.lsn))
    }
}
