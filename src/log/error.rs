//! What can go wrong with a log, with the file and the place.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Lsn;
use super::report::{Damage, OpenReport};

/// Why an operation on a log failed.
///
/// Errors are cheap to clone, because one failed write or sync is told to everybody who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system refused an operation.
    #[error("{operation} failed for {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process, or another part of this one, has the log open for writing.
    #[error("{} is locked by another writer", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log was damaged, and it was to be refused in that case. Nothing was changed.
    #[error("the log is damaged in {} places, first: {}", report.damage.len(), FirstDamage(report))]
    Refused {
        /// Everything that was found.
        report: Box<OpenReport>,
    },
    /// A record that was asked for is damaged.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The files were written by a newer version, or with features that this one does not know.
    #[error("{} has format {found}, newer than {supported}", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// There is no log in the directory, and it was opened for reading only.
    #[error("no log in {}", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// No space is left. The log stays readable and takes records again when there is space.
    #[error("no space left for the log")]
    Full,
    /// A sync failed earlier. What was confirmed stands; nothing can be written until the log is opened again.
    #[error("the log is fenced until it is opened again: {cause}")]
    Fenced {
        /// The failure that fenced it.
        cause: Arc<str>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The log was opened for reading only.
    #[error("the log is open for reading only")]
    ReadOnly,
    /// A record, a batch or an option is larger than the format allows.
    #[error("{what} of {size} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        size: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The hook of the batch refused it under the append lock; nothing was written.
    #[error("the batch was refused with code {code}")]
    Vetoed {
        /// What the hook gave as its reason.
        code: u64,
    },
    /// An option contradicts another one, or its limits.
    #[error("option {option}: {reason}")]
    Options {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The position lies in a part of the log that was retired, or was never written.
    #[error("the log holds nothing at {lsn}")]
    Gone {
        /// The position asked for.
        lsn: Lsn,
    },
    /// The record was moved when its segment was rewritten; its location has to be looked up again.
    #[error("the segment at {lsn} was rewritten since")]
    Moved {
        /// The position asked for.
        lsn: Lsn,
    },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Tells whether the cause was that no space is left, on the disk or in a quota.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Tells whether an error of the file system means that space is gone, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge | io::ErrorKind::WriteZero
    )
}

struct FirstDamage<'a>(&'a OpenReport);

impl std::fmt::Display for FirstDamage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.damage.first() {
            Some(damage) => damage.fmt(f),
            None => f.write_str("none"),
        }
    }
}
