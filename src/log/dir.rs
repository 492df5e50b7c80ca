//! The directory of a log: its paths, and file operations whose errors name them.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::LogError;
use super::name::{self, Name, SegmentName};
use super::vfs::{EntryKind, Open, Vfs, VfsFile, VfsLock};
use super::window::{Losses, read_around};

/// Where the files of a log are, and the file system that has them.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) root: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) quarantine: PathBuf,
}

/// What is in the directory `log/`.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) segments: Vec<SegmentName>,
    pub(crate) spares: Vec<u64>,
    pub(crate) temporary: Vec<u64>,
    pub(crate) unknown: Vec<PathBuf>,
    pub(crate) unknown_omitted: u64,
}

impl Dir {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, root: &Path) -> Self {
        Self {
            vfs,
            root: root.to_owned(),
            log: root.join(name::LOG),
            quarantine: root.join(name::QUARANTINE),
        }
    }

    pub(crate) fn segment(&self, name: &SegmentName) -> PathBuf {
        self.log.join(name.to_string())
    }

    pub(crate) fn spare(&self, number: u64) -> PathBuf {
        self.log.join(Name::Spare(number).to_string())
    }

    pub(crate) fn temporary(&self, number: u64) -> PathBuf {
        self.log.join(Name::Temporary(number).to_string())
    }

    pub(crate) fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn VfsFile>, LogError> {
        let opened = self.vfs.open(path, how);
        opened.map(Arc::from).map_err(|e| LogError::io("open", path, e))
    }

    /// Opens a segment to look at it, and tells how much of it is to be looked at: no more than a segment can have.
    pub(crate) fn open_to_look(&self, path: &Path) -> Result<(Arc<dyn VfsFile>, u64), LogError> {
        let file = self.open(path, Open::Read)?;
        let len = file.len().map_err(|e| LogError::io("read", path, e))?;
        Ok((file, len.min(MAX_SEGMENT_FILE)))
    }

    /// Makes a file, in the place of one of that name if there is one.
    pub(crate) fn create(&self, path: &Path) -> Result<Arc<dyn VfsFile>, LogError> {
        self.unlink(path)?;
        self.open(path, Open::Create)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        self.vfs.rename(from, to).map_err(|e| LogError::io("rename", from, e))
    }

    /// Tells whether nothing has this name: a rename would not ask, and not everything here was made by the log.
    pub(crate) fn is_free(&self, path: &Path) -> Result<bool, LogError> {
        match self.vfs.open(path, Open::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => Err(LogError::io("look at", path, e)),
            _ => Ok(false), // a file, or something else that has the name
        }
    }

    /// The first number from this one on whose segment takes its name from nobody, and that name.
    pub(crate) fn free_segment(&self, mut number: u64) -> Result<(SegmentName, PathBuf), LogError> {
        loop {
            let name = SegmentName {
                first: number,
                last: number,
                generation: 0,
            };
            let path = self.segment(&name);
            if self.is_free(&path)? {
                return Ok((name, path));
            }
            number += 1;
        }
    }

    /// The first number from this one on whose spare takes its names from nobody, neither the one that it is made under.
    pub(crate) fn free_spare(&self, mut number: u64) -> Result<u64, LogError> {
        while !(self.is_free(&self.temporary(number))? && self.is_free(&self.spare(number))?) {
            number += 1;
        }
        Ok(number)
    }

    /// Removes a name; one that is not there is fine.
    pub(crate) fn unlink(&self, path: &Path) -> Result<(), LogError> {
        match self.vfs.unlink(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn sync(&self, dir: &Path) -> Result<(), LogError> {
        self.vfs.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))
    }

    pub(crate) fn sync_log(&self) -> Result<(), LogError> {
        self.sync(&self.log)
    }

    /// Makes the directories that are missing, and their names durable.
    pub(crate) fn make(&self) -> Result<(), LogError> {
        let make = |dir: &Path| self.vfs.create_dir(dir).map_err(|e| LogError::io("create directory", dir, e));
        make(&self.root)?;
        // A predecessor may have died between making a directory and syncing its name.
        if let Some(parent) = self.root.parent() {
            self.sync(parent)?;
        }
        make(&self.log)?;
        self.sync(&self.root)
    }

    pub(crate) fn make_quarantine(&self) -> Result<(), LogError> {
        let made = self.vfs.create_dir(&self.quarantine);
        made.map_err(|e| LogError::io("create directory", &self.quarantine, e))?;
        self.sync(&self.root)
    }

    pub(crate) fn lock(&self) -> Result<Box<dyn VfsLock>, LogError> {
        let path = self.root.join(name::LOCK);
        self.vfs.lock(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => LogError::Locked { path: path.clone() },
            _ => LogError::io("lock", &path, e),
        })
    }

    /// Reads all of a small file, up to `limit` bytes; `None` when there is no such file. When the device gives nothing of it,
    /// the bytes are none and `unread` says why: what is in this file may be known from elsewhere.
    pub(crate) fn read_small(&self, path: &Path, limit: usize, unread: &mut Option<LogError>) -> Result<Option<Vec<u8>>, LogError> {
        match self.vfs.open(path, Open::Read) {
            Ok(file) => Ok(Some(read_front(&*file, limit).unwrap_or_else(|e| {
                unread.get_or_insert(LogError::io("read", path, e));
                Vec::new()
            }))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(LogError::io("open", path, e)),
        }
    }

    /// Lists `log/`. A directory that is missing is empty.
    pub(crate) fn list(&self) -> Result<Listing, LogError> {
        let mut listing = Listing::default();
        let mut count = 0u64;
        let listed = self.vfs.list(&self.log, &mut |entry| {
            count += 1;
            let name = Name::parse(&entry.name);
            let known = entry.kind == EntryKind::File && count <= MAX_FILES;
            match name {
                Name::Segment(name) if known => listing.segments.push(name),
                Name::Spare(number) if known => listing.spares.push(number),
                Name::Temporary(number) if known => listing.temporary.push(number),
                _ if listing.unknown.len() < MAX_UNKNOWN => listing.unknown.push(self.log.join(&entry.name)),
                _ => listing.unknown_omitted += 1,
            }
        });
        match listed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("list", &self.log, e)),
            _ if count > MAX_FILES => Err(LogError::TooLarge {
                what: "the directory of the log",
                size: count,
                limit: MAX_FILES,
            }),
            _ => {
                listing.segments.sort_unstable();
                listing.spares.sort_unstable();
                listing.temporary.sort_unstable();
                listing.unknown.sort_unstable();
                Ok(listing)
            }
        }
    }
}

/// Reads the first bytes of a file, fewer if it is shorter. A sector that cannot be read is zeros: all that is read here is
/// there twice, or checked. If none can be read, that is an error.
pub(crate) fn read_front(file: &dyn VfsFile, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let mut filled = 0;
    let mut losses = Losses::default();
    while filled < limit {
        match read_around(file, &mut bytes[filled..], filled as u64, &mut losses)? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// No segment file is larger; a file that claims to be is not believed.
const MAX_SEGMENT_FILE: u64 = (1 << 30) + (64 << 20);
/// More files than this are not a log: 64 TiB of segments of the usual size.
const MAX_FILES: u64 = 1 << 20;
const MAX_UNKNOWN: usize = 64;
