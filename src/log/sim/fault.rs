//! What can go wrong with one call, and which call it shall be.
#![forbid(unsafe_code)]

use std::io;

/// A kind of call to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Opening a file, also when that creates it.
    Open,
    /// Reading at a position.
    Read,
    /// Writing at a position.
    Write,
    /// Changing the length.
    SetLen,
    /// Syncing a file, its metadata or not.
    Sync,
    /// Renaming.
    Rename,
    /// Removing a name.
    Unlink,
    /// Listing a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Syncing a directory.
    SyncDir,
    /// Taking the lock.
    Lock,
    /// Whatever it is.
    Any,
}

/// What happens instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The device fails (EIO). Of a write, any prefix was done; a rename was done or not; a failed sync wrote some
    /// sectors and lost others, and calls all of them clean.
    Eio,
    /// No space is left (ENOSPC). Of a write, any prefix was done.
    NoSpace,
    /// A signal came first (EINTR), nothing was done.
    Interrupted,
    /// At most so many bytes are read or written; other calls are not affected. Zero is possible.
    Short(usize),
    /// The write succeeds, but before it the kernel fails to write back what was dirty. Each open handle of the file
    /// will hear of it once, at its next sync; whoever opens the file later never does.
    WriteBack,
    /// The device puts a write elsewhere in the same file and says that all is well.
    Misdirected,
}

impl Fault {
    /// The error that the caller sees.
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
            Self::Interrupted => io::ErrorKind::Interrupted.into(),
            _ => io::Error::other("the simulated device failed"),
        }
    }
}

/// A fault that waits for its call.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) op: Op,
    /// Calls of that kind until it strikes.
    pub(super) left: u64,
    pub(super) fault: Fault,
    pub(super) lasts: bool,
}

impl Planned {
    /// Counts a call; tells whether the fault strikes it.
    pub(super) fn strikes(&mut self, op: Op) -> bool {
        if self.op != Op::Any && self.op != op {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && !self.lasts
    }
}
