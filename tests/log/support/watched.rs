//! A simulated disk that counts what it is asked for, and can hold syncs or stop giving bytes of one file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmq::log::sim::SimDisk;
use ringmq::log::vfs::{Entry, FileId, Open, Vfs, VfsFile, VfsLock};

/// A view of a disk. Clones share what is counted.
#[derive(Clone, Debug)]
pub struct Watched {
    disk: SimDisk,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    seen: Mutex<Seen>,
    changed: Condvar,
    behind_listing: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    behind_naming: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Seen {
    syncs: u64,
    under_way: usize,
    most_under_way: usize,
    holds: bool,
    changes: Vec<String>,
    read: u64,
    /// A file, how many more reads of it go well, and how many were made.
    silent: Option<(PathBuf, u64)>,
    reads: Vec<PathBuf>,
}

impl Watched {
    pub fn new(disk: &SimDisk) -> Self {
        Self {
            disk: disk.clone(),
            watch: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.watch.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many syncs of files have begun.
    pub fn syncs(&self) -> u64 {
        self.seen().syncs
    }

    /// How many syncs of files are under way.
    pub fn under_way(&self) -> usize {
        self.seen().under_way
    }

    /// How many syncs of files were under way at once, at most.
    pub fn most_under_way(&self) -> usize {
        self.seen().most_under_way
    }

    /// From now on, syncs begin and do not end, until what this returns is dropped.
    pub fn hold_syncs(&self) -> Held<'_> {
        self.seen().holds = true;
        Held(self)
    }

    /// Waits until so many syncs are held.
    pub fn wait_for_held(&self, syncs: usize) {
        until(|| self.under_way() >= syncs);
    }

    /// Every call so far that changed the disk, or was to: what, and of which file.
    pub fn changes(&self) -> Vec<String> {
        self.seen().changes.clone()
    }

    /// How many bytes were read.
    pub fn bytes_read(&self) -> u64 {
        self.seen().read
    }

    /// The file of each read so far.
    pub fn reads(&self) -> Vec<PathBuf> {
        self.seen().reads.clone()
    }

    /// Lets reads of a file fail once so many went well.
    pub fn silence(&self, path: &Path, after: u64) {
        self.seen().silent = Some((path.to_owned(), after));
    }

    /// Has something happen right behind the next listing of a directory.
    pub fn behind_listing(&self, happens: impl FnOnce() + Send + 'static) {
        *self.watch.behind_listing.lock().unwrap() = Some(Box::new(happens));
    }

    /// Has something happen right behind the next renaming that gives a segment its name.
    pub fn behind_naming(&self, happens: impl FnOnce() + Send + 'static) {
        *self.watch.behind_naming.lock().unwrap() = Some(Box::new(happens));
    }

    fn change(&self, what: &str, path: &Path) {
        self.seen().changes.push(format!("{what} {}", path.display()));
    }

    fn sync(&self) {
        let mut seen = self.seen();
        seen.syncs += 1;
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
        drop(self.watch.changed.wait_while(seen, |seen| seen.holds));
    }
}

/// Dropped, it lets the syncs that are held go on.
#[derive(Debug)]
pub struct Held<'a>(&'a Watched);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.seen().holds = false;
        self.0.watch.changed.notify_all();
    }
}

/// Waits until something is so, which it is bound to be; panics when it is not.
pub fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "what is waited for does not come");
        thread::yield_now();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Vfs for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        if how == Open::Create {
            self.change("create", path);
        }
        let file = self.disk.open(path, how)?;
        Ok(Box::new(WatchedFile {
            file,
            path: path.to_owned(),
            view: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change("rename", from);
        let renamed = self.disk.rename(from, to);
        if to.extension().is_some_and(|e| e == "log") {
            let happens = self.watch.behind_naming.lock().unwrap().take();
            happens.into_iter().for_each(|happens| happens());
        }
        renamed
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change("unlink", path);
        self.disk.unlink(path)
    }

    fn list(&self, dir: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let listed = self.disk.list(dir, visit);
        let happens = self.watch.behind_listing.lock().unwrap().take();
        happens.into_iter().for_each(|happens| happens());
        listed
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change("create directory", dir);
        self.disk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change("sync directory", dir);
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        self.change("lock", path);
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    view: Watched,
}

impl VfsFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut seen = self.view.seen();
        seen.reads.push(self.path.clone());
        if let Some((path, left)) = &mut seen.silent
            && *path == self.path
        {
            if *left == 0 {
                return Err(io::Error::other("the device is silent"));
            }
            *left -= 1;
        }
        let n = self.file.read_at(buf, offset)?;
        seen.read += n as u64;
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.view.change("write", &self.path);
        self.file.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.view.change("set length", &self.path);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.view.change("sync", &self.path);
        self.view.sync();
        let synced = self.file.sync_data();
        self.view.seen().under_way -= 1;
        synced
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn identity(&self) -> io::Result<Option<FileId>> {
        self.file.identity()
    }
}
