//! The file-system seam: everything that the log asks of an operating system, and nothing else.
//!
//! The log never touches `std::fs`. It sees a [`Vfs`], so a test can stand a simulated disk in its place, lose what was
//! never synced, and look at what the next open makes of the rest. [`StdVfs`] is the real one.
//!
//! What an implementation promises, and no more than that:
//!
//! ```text
//! write_at     the bytes are visible to every reader at once; they survive this process, not a power cut
//! sync_data    all bytes written before, and the length, survive a power cut once this returned Ok
//! sync_all     the same, with the other metadata of the file
//! rename       one step for every observer, now and after a crash: the old name or the new one, never neither
//! sync_dir     names created, renamed and removed in this directory before survive a power cut
//! lock         one holder among all processes; ends with its holder, however that ends
//! ```
//!
//! A failed sync promises nothing about any byte since the last good one, not even that reading shows what the device
//! holds: a kernel may keep the pages, call them clean, and never write them. So a sync is never tried twice.
//!
//! Windows cannot sync a directory. There `sync_dir` does nothing, and the log claims to survive the death of the
//! process only.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

mod std_vfs;

pub use self::std_vfs::StdVfs;

/// A file system, or something that behaves like one.
///
/// Implement it to put the log on storage of your own; the module documentation says what each verb promises.
///
/// # Examples
///
/// ```
/// use ringmq::log::vfs::{Open, StdVfs, Vfs, VfsFile};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = std::env::temp_dir().join(format!("ringmq-vfs-{}", std::process::id()));
/// let disk = StdVfs::new();
/// disk.create_dir(&dir)?;
/// let file = disk.open(&dir.join("a"), Open::Create)?;
/// file.write_all_at(b"hello", 0)?;
/// file.sync_data()?;
/// disk.sync_dir(&dir)?; // only now does the name survive a power cut
/// assert_eq!(file.len()?, 5);
/// # disk.unlink(&dir.join("a"))?;
/// # std::fs::remove_dir(&dir)
/// # }
/// ```
pub trait Vfs: fmt::Debug + Send + Sync + 'static {
    /// Opens a regular file. A symbolic link in the last component is refused, never followed.
    ///
    /// # Errors
    ///
    /// `NotFound` when [`Open::Read`] or [`Open::Write`] meets no file, `AlreadyExists` when [`Open::Create`] meets
    /// one, `InvalidInput` when something other than a regular file has that name.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>>;

    /// Gives a file another name in one step, replacing what had that name.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says; then the old name stands.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. Whoever has it open keeps reading it.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such name.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Shows every entry of a directory to `visit`, in no order, without `.` and `..`.
    ///
    /// Nothing is collected, so a directory of any size is listed in bounded memory.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such directory; any other failure may come after some entries were shown.
    fn list(&self, dir: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()>;

    /// Makes one directory, readable by its owner only; a directory that is already there is fine, as it is.
    ///
    /// # Errors
    ///
    /// `NotFound` when the parent is missing, `AlreadyExists` when something other than a directory has that name.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in this directory survive a power cut.
    ///
    /// # Errors
    ///
    /// As a failed sync of a file: what was promised before stands, the rest is unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock that the file at `path` stands for, creating the file if it is missing.
    ///
    /// The lock belongs to the file, not to its name: after locking, the name must still lead to the same file, else
    /// another process may hold a lock on its successor. The file is never deleted.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody holds it, in this process or another.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>>;

    /// Says whether writing over old blocks allocates new ones in this directory, so that writing ahead gains nothing.
    ///
    /// A hint about speed: a wrong answer costs time, never data. The default is `false`.
    fn copies_on_write(&self, dir: &Path) -> bool {
        let _ = dir;
        false
    }
}

/// An open file. Every access names its position, so threads may share one.
pub trait VfsFile: fmt::Debug + Send + Sync {
    /// Reads from a position. May read less than asked; `Ok(0)` means that the file ends there.
    ///
    /// # Errors
    ///
    /// `Interrupted` when nothing was read and trying again is right; anything else is a failure of the disk.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at a position; beyond the end the file grows and any gap reads as zeros. May write less than given.
    ///
    /// # Errors
    ///
    /// `Interrupted` when nothing was written and trying again is right. `StorageFull` and `QuotaExceeded` when space
    /// is gone. After any error the bytes asked for may have been written in part.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// Tells how long the file is.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Tells whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says; the length is then the old or the new one.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes all bytes written so far, and the length, survive a power cut.
    ///
    /// # Errors
    ///
    /// Any error means that every byte since the last good sync is in doubt for ever. Never try again.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes, length and other metadata survive a power cut.
    ///
    /// # Errors
    ///
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// Tells which file this is, whatever its name is now; `None` where the platform cannot say.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    fn identity(&self) -> io::Result<Option<FileId>>;

    /// Reads until `buf` is full, going on after interruptions and short reads.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file ends before, or the first failure of the disk.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `buf`, going on after interruptions and short writes.
    ///
    /// # Errors
    ///
    /// `WriteZero` when the file takes no more, or the first failure of the disk. Any prefix may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.write_at(&buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A held lock. Dropping it, or the end of the process, lets go.
pub trait VfsLock: fmt::Debug + Send + Sync {
    /// Tells whether the name still leads to the locked file. Once `false`, somebody removed or replaced the file, and
    /// another process may hold a lock of that name too.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    fn still_named(&self) -> io::Result<bool>;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing, accessible to its owner only.
    Create,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Entry {
    /// The name within the directory, as the file system has it.
    pub name: OsString,
    /// What stands behind the name; links are not followed.
    pub kind: EntryKind,
}

impl Entry {
    /// Makes an entry, for those who implement [`Vfs`].
    pub fn new(name: impl Into<OsString>, kind: EntryKind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, a socket, a device: nothing that the log made.
    Other,
}

/// Which file it is, whatever it is called: equal for two names or two handles of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Makes an identity from two numbers that together are unique among living files.
    pub const fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}
