//! The real disk, through `std::fs` alone.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Entry, EntryKind, FileId, Open, Vfs, VfsFile, VfsLock};

/// The file system of the operating system.
///
/// Directories are made for their owner only (0700), files too (0600). On Apple systems a sync reaches the medium
/// (`F_FULLFSYNC`), as the standard library does it.
///
/// # Examples
///
/// ```
/// use ringmq::log::vfs::{Open, StdVfs, Vfs};
///
/// let missing = StdVfs::new().open("no/such/file".as_ref(), Open::Read);
/// assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StdVfs(());

impl StdVfs {
    /// The file system of this machine; the value has no state.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Vfs for StdVfs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::Create => {
                options.write(true).create_new(true); // O_EXCL follows no link
            }
        }
        private(&mut options);
        Ok(Box::new(StdFile(open_unfollowed(path, how == Open::Create, &options)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        for entry in fs::read_dir(or_here(dir))? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Dir,
                Ok(_) => EntryKind::Other,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // removed while we listed
                Err(e) => return Err(e),
            };
            visit(Entry::new(entry.file_name(), kind));
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is a notion of unix"))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if fs::symlink_metadata(dir)?.is_dir() {
                    Ok(())
                } else {
                    Err(e)
                }
            }
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if cfg!(windows) {
            return Ok(()); // no such call: the module documentation says what that means
        }
        File::open(or_here(dir))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        // Whoever replaces the file while we lock it makes us start over; it takes a hostile neighbour to do it often.
        for _ in 0..LOCK_ATTEMPTS {
            let file = open_lock(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            let lock = StdLock {
                file,
                path: path.to_owned(),
            };
            if lock.still_named()? {
                return Ok(Box::new(lock));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn copies_on_write(&self, dir: &Path) -> bool {
        if cfg!(target_vendor = "apple") {
            return true; // APFS
        }
        if !cfg!(target_os = "linux") {
            return false;
        }
        let Ok(dir) = fs::canonicalize(dir) else {
            return false;
        };
        let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
            return false;
        };
        file_system_of(&mounts, &dir).is_some_and(|kind| COPYING_FILE_SYSTEMS.contains(&kind.as_str()))
    }
}

#[derive(Debug)]
struct StdFile(File);

impl VfsFile for StdFile {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buf, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.0, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.0, buf, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(&self.0, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn identity(&self) -> io::Result<Option<FileId>> {
        Ok(file_id(&self.0.metadata()?))
    }
}

/// The lock of one descriptor.
#[derive(Debug)]
struct StdLock {
    file: File,
    path: PathBuf,
}

impl Drop for StdLock {
    fn drop(&mut self) {
        // Closing alone would not do: a process that was forked at this moment holds a copy of the descriptor until it
        // executes something else, and the lock with it.
        let _ = self.file.unlock();
    }
}

impl VfsLock for StdLock {
    fn still_named(&self) -> io::Result<bool> {
        let named = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        Ok(named.is_file() && file_id(&named) == file_id(&self.file.metadata()?))
    }
}

/// Opens the lock file, making it if it is missing.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    private(&mut options);
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0); // nobody can replace what nobody can open
    let opened = match open_unfollowed(path, true, options.clone().create_new(true)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open_unfollowed(path, false, &options),
        other => other,
    };
    #[cfg(windows)]
    if matches!(&opened, Err(e) if e.raw_os_error() == Some(SHARING_VIOLATION)) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    opened
}

/// Opens a regular file and nothing else: what was opened must be what the name, unfollowed, says.
fn open_unfollowed(path: &Path, creates: bool, options: &OpenOptions) -> io::Result<File> {
    if creates {
        return options.open(path);
    }
    // A neighbour may rename another file to this name while we open it, so look again; not for ever.
    for _ in 0..OPEN_ATTEMPTS {
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(not_regular(path)); // before opening: opening a pipe would wait for its other end
        }
        let file = options.open(path)?;
        let named = fs::symlink_metadata(path)?;
        if named.is_file() && file_id(&named) == file_id(&file.metadata()?) {
            return Ok(file);
        }
    }
    Err(not_regular(path))
}

fn not_regular(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()))
}

/// The parent of a plain name is empty and means the current directory; the operating system wants it said.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let _ = options;
}

#[cfg(unix)]
fn file_id(metadata: &fs::Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some(FileId::new(metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(_: &fs::Metadata) -> Option<FileId> {
    None // the standard library has no stable way to ask; the share mode of the lock file stands in
}

/// The type of the file system that `dir`, an absolute path, lies on: the mount with the longest matching path, the
/// last one where several lie on top of each other.
fn file_system_of(mounts: &str, dir: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(at), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let at = at.replace("\\040", " ");
        let depth = Path::new(&at).components().count();
        if dir.starts_with(&at) && best.is_none_or(|(deepest, _)| depth >= deepest) {
            best = Some((depth, kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

const LOCK_ATTEMPTS: usize = 16;
const OPEN_ATTEMPTS: usize = 16;
const COPYING_FILE_SYSTEMS: [&str; 3] = ["btrfs", "zfs", "bcachefs"];
#[cfg(windows)]
const SHARING_VIOLATION: i32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_names_the_file_system() {
        let mounts = "/dev/a / ext4 rw 0 0\n/dev/b /mnt btrfs rw 0 0\n/dev/c /mnt/x\\040y xfs rw 0 0\n";
        let kind = |dir: &str| file_system_of(mounts, Path::new(dir)).unwrap();
        assert_eq!(kind("/var"), "ext4");
        assert_eq!(kind("/mnt/me"), "btrfs");
        assert_eq!(kind("/homeless"), "ext4");
        assert_eq!(kind("/mnt/x y/z"), "xfs");
    }
}
