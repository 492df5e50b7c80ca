//! The segments of an open log: which there are, where each ends, and the files behind them.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::dir::Dir;
use super::error::LogError;
use super::header::Header;
use super::record::Lsn;
use super::recover::Link;
use super::vfs::{Open, VfsFile};
use crate::sync::{Arc, Mutex};

/// One segment file. Whoever reads it holds on to this, and so to the file, even when the log has let it go.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    end: Mutex<End>,
    /// Opened when it is first read, closed again when many are open.
    file: Mutex<Option<Arc<dyn VfsFile>>>,
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is being written.
    Active,
    /// A successor says so: LSN, and crc of the last block if that is known.
    Known(u64, Option<u32>),
    /// Nobody says so: at its last block.
    Open,
}

impl Segment {
    pub(crate) fn new(link: &Link) -> Self {
        Self::held(link, None)
    }

    /// A segment whose file is open already, perhaps.
    pub(crate) fn held(link: &Link, file: Option<Arc<dyn VfsFile>>) -> Self {
        Self {
            header: link.header,
            path: link.path.clone(),
            end: Mutex::new(link.end.map_or(End::Open, |end| End::Known(end, link.end_chain))),
            file: Mutex::new(file),
        }
    }

    pub(crate) fn active(link: &Link, file: Arc<dyn VfsFile>) -> Self {
        Self {
            header: link.header,
            path: link.path.clone(),
            end: Mutex::new(End::Active),
            file: Mutex::new(Some(file)),
        }
    }

    pub(crate) fn end(&self) -> End {
        *self.end.lock()
    }

    pub(crate) fn set_end(&self, end: End) {
        *self.end.lock() = end;
    }
}

/// All segments of a log, oldest first. Shared by the writer, which adds, the owner, who removes, and all readers.
#[derive(Debug)]
pub(crate) struct Table {
    dir: Dir,
    /// How many sealed segments may stay open when nobody reads them.
    max_open: usize,
    segments: Mutex<Vec<Arc<Segment>>>,
}

impl Table {
    pub(crate) fn new(dir: Dir, segments: Vec<Arc<Segment>>, max_open: usize) -> Self {
        Self {
            dir,
            max_open,
            segments: Mutex::new(segments),
        }
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.segments.lock().push(segment);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.lock().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.lock().len()
    }

    /// Where the log begins.
    pub(crate) fn first(&self) -> u64 {
        self.segments.lock().first().map_or(0, |segment| segment.header.base)
    }

    /// The segment that holds a position, and where the next one begins. A position in a gap belongs to the next one.
    pub(crate) fn find(&self, lsn: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments.lock();
        // The last that begins at or below. Empty ones begin where their successor does, which is then found.
        let mut at = segments.partition_point(|segment| segment.header.base <= lsn).saturating_sub(1);
        let is_behind = |segment: &Segment| matches!(segment.end(), End::Known(end, _) if end <= lsn);
        while segments.get(at).is_some_and(|segment| is_behind(segment)) {
            at += 1;
        }
        let segment = segments.get(at)?;
        let next = segments.get(at + 1).map(|next| next.header.base);
        Some((Arc::clone(segment), next))
    }

    /// Takes segments out, and puts another in their place if there is one.
    pub(crate) fn replace(&self, old: &[Arc<Segment>], new: Option<Arc<Segment>>) {
        let mut segments = self.segments.lock();
        let at = segments.iter().position(|s| old.iter().any(|o| Arc::ptr_eq(o, s)));
        segments.retain(|s| !old.iter().any(|o| Arc::ptr_eq(o, s)));
        if let (Some(at), Some(new)) = (at, new) {
            let at = at.min(segments.len());
            segments.insert(at, new);
        }
    }

    /// The open file of a segment.
    pub(crate) fn file(&self, segment: &Arc<Segment>) -> Result<Arc<dyn VfsFile>, LogError> {
        let mut slot = segment.file.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.dir.open(&segment.path, Open::Read).map_err(|error| match error {
            LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => LogError::Gone {
                lsn: Lsn(segment.header.base),
            },
            error => error,
        })?;
        *slot = Some(Arc::clone(&file));
        drop(slot);
        self.close_idle(segment);
        Ok(file)
    }

    /// Closes files that nobody reads now, when there are many.
    fn close_idle(&self, used: &Arc<Segment>) {
        let segments = self.all();
        let is_open = |segment: &&Arc<Segment>| segment.file.try_lock().is_some_and(|slot| slot.is_some());
        let mut open = segments.iter().filter(is_open).count();
        for segment in &segments {
            if open <= self.max_open {
                return;
            }
            if Arc::ptr_eq(segment, used) || segment.end() == End::Active {
                continue;
            }
            if let Some(mut slot) = segment.file.try_lock()
                && slot.as_ref().is_some_and(|file| Arc::strong_count(file) == 1)
            {
                *slot = None;
                open -= 1;
            }
        }
    }
}

/// How many that is for a log that is written.
pub(crate) const MAX_OPEN: usize = 32;
