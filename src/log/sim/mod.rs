//! A simulated disk: everything that a real one may do to a program that dies, or whose power is cut, on demand.
//!
//! It knows nothing of the log; it is a [`Vfs`] in memory that keeps two worlds apart. What every reader **sees** is the
//! page cache of a kernel: it outlives a killed process. What the device **keeps** is all that is left after a power cut.
//! Only a good sync carries bytes from one to the other, and only a sync of the directory carries names.
//!
//! | event | what is left |
//! |---|---|
//! | [`kill`](SimDisk::kill) | all that was written; handles and locks are gone |
//! | [`power_cut`](SimDisk::power_cut) | what was synced; each unsynced sector of 512 B lost, kept, at any earlier content, or garbled; each unsynced name, rename, removal and length undone or not |
//! | failed sync | the cache still shows everything and calls it clean, the device has some of it, the next sync is `Ok` |
//! | [`evict`](SimDisk::evict) | some clean pages show what the device has |
//!
//! Bytes that were promised, by a good sync, never change in any of these: a sector that is rewritten when the power goes
//! keeps its old bytes wherever the new ones are the same. [`flip`](SimDisk::flip) and [`Fault::Misdirected`] break
//! that on purpose.
//!
//! Equal seeds and equal calls give equal disks. A copy is cheap, because all copies share their pages: thousands of
//! crash states of one run can be opened one after the other. [`record`](SimDisk::record) keeps one for each call.
//!
//! Limits: no hard links, no symbolic links, no permissions; one thread at a time is inside.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::fault::Planned;
use self::state::State;
use super::vfs::{Entry, EntryKind, FileId, Open, Vfs, VfsFile, VfsLock};
use crate::sync::{Arc, Mutex};

mod cut;
mod fault;
mod image;
mod node;
mod rng;
mod state;
mod tree;

pub use self::fault::{Fault, Op};

/// A disk in memory that can lose power. Clones are handles of the same disk; [`copy`](Self::copy) makes another.
///
/// # Examples
///
/// ```
/// use ringmq::log::sim::SimDisk;
/// use ringmq::log::vfs::{Open, Vfs, VfsFile};
///
/// # fn main() -> std::io::Result<()> {
/// let disk = SimDisk::new(7);
/// let file = disk.open("a".as_ref(), Open::Create)?;
/// file.write_all_at(b"promised", 0)?;
/// file.sync_data()?;
/// disk.sync_dir("".as_ref())?;
/// file.write_all_at(b" and not", 8)?;
///
/// for seed in 0..100 {
///     let after = disk.copy();
///     after.power_cut(seed);
///     assert_eq!(&after.read("a").unwrap()[..8], b"promised");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// The disk as it was after one call, kept by [`SimDisk::record`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Moment {
    /// Which call it was, counted from 1 since the disk was made, as [`SimDisk::calls`] does.
    pub call: u64,
    /// What kind of call it was.
    pub op: Op,
    /// The call was a write and had done only a part of it.
    pub midway: bool,
    /// The disk, its handles and locks gone, faults not planned.
    pub disk: SimDisk,
}

impl SimDisk {
    /// An empty disk of unlimited size.
    pub fn new(seed: u64) -> Self {
        Self::of(State::new(seed))
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another disk, now equal to this one, on which no process runs: handles, locks and planned faults stay here.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut copy = self.0.lock().without_process();
        copy.kill();
        Self::of(copy)
    }

    /// Ends every process that uses the disk: its handles fail from now on, its locks are free.
    pub fn kill(&self) {
        self.0.lock().kill();
    }

    /// Cuts the power; the seed decides what becomes of all that was never synced.
    pub fn power_cut(&self, seed: u64) {
        self.0.lock().power_cut(seed);
    }

    /// Drops some clean pages, so that readers see what the device has. It differs only after a failed sync.
    pub fn evict(&self, seed: u64) {
        self.0.lock().evict(seed);
    }

    /// Makes everything seen last, as if every file and directory had been synced.
    pub fn settle(&self) {
        self.0.lock().settle();
    }

    /// Plans a fault for the `nth` call of a kind, counted from 1 and from now.
    pub fn fail(&self, op: Op, nth: u64, fault: Fault) {
        self.plan(op, nth, fault, false);
    }

    /// Plans a fault for the `nth` call of a kind and every later one.
    pub fn fail_from(&self, op: Op, nth: u64, fault: Fault) {
        self.plan(op, nth, fault, true);
    }

    fn plan(&self, op: Op, nth: u64, fault: Fault, lasts: bool) {
        self.0.lock().planned.push(Planned {
            op,
            left: nth.max(1),
            fault,
            lasts,
        });
    }

    /// Forgets every planned fault.
    pub fn heal(&self) {
        self.0.lock().planned.clear();
    }

    /// Limits what all files together may take, in bytes; `None` is no limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.0.lock().capacity = capacity_bytes;
    }

    /// Tells how many bytes all files together take, in pages of 4 KiB.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Counts the calls since the disk was made, those of its copies' common past included.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// Keeps a copy of the disk for each call that changes it, and one with a part of each write done, until
    /// [`recorded`](Self::recorded) fetches them.
    pub fn record(&self) {
        self.0.lock().record(false);
    }

    /// Keeps one of the moments that [`record`](Self::record) would keep, each as likely as the others.
    pub fn record_one(&self) {
        self.0.lock().record(true);
    }

    /// Fetches what was recorded and stops recording.
    pub fn recorded(&self) -> Vec<Moment> {
        self.0.lock().recorded()
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.lock().files()
    }

    /// What a reader sees of a file; `None` when there is none.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.0.lock().content(path.as_ref())
    }

    /// Puts a file there that has always been there, making its directories.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.0.lock().put(path.as_ref(), bytes);
    }

    /// Takes a file away as if it had never been; tells whether there was one.
    pub fn remove(&self, path: impl AsRef<Path>) -> bool {
        self.0.lock().remove(path.as_ref())
    }

    /// Flips one bit of a file for good; tells whether the file is that long.
    pub fn flip(&self, path: impl AsRef<Path>, bit: u64) -> bool {
        self.0.lock().flip(path.as_ref(), bit)
    }

    /// Cuts a file for good, or lengthens it with zeros; tells whether there is one.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> bool {
        self.0.lock().truncate(path.as_ref(), len)
    }

    /// Makes a sector of 512 B unreadable until it is written again; tells whether the file is that long.
    pub fn break_sector(&self, path: impl AsRef<Path>, offset: u64) -> bool {
        self.0.lock().break_sector(path.as_ref(), offset)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("SimDisk")
            .field("files", &state.files())
            .field("calls", &state.calls)
            .finish_non_exhaustive()
    }
}

impl Vfs for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let handle = self.0.lock().open(path, how)?;
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, handle }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.lock().rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unlink(path)
    }

    fn list(&self, dir: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let entries = self.0.lock().list(dir)?;
        entries.into_iter().for_each(visit);
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let handle = self.0.lock().lock(path)?;
        let file = SimFile {
            disk: self.clone(),
            handle,
        };
        Ok(Box::new(SimLock {
            file,
            path: path.to_owned(),
        }))
    }
}

/// A handle; the state knows which file it is, and forgets it when the process dies.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    handle: u64,
}

impl VfsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.0.lock().read(self.handle, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.0.lock().write(self.handle, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.0.lock().len(self.handle)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.0.lock().set_len(self.handle, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.0.lock().sync(self.handle)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.0.lock().sync(self.handle)
    }

    fn identity(&self) -> io::Result<Option<FileId>> {
        let ino = self.disk.0.lock().ino(self.handle)?;
        Ok(Some(FileId::new(0, ino)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.0.lock().close(self.handle);
    }
}

#[derive(Debug)]
struct SimLock {
    file: SimFile,
    path: PathBuf,
}

impl VfsLock for SimLock {
    fn still_named(&self) -> io::Result<bool> {
        let state = self.file.disk.0.lock();
        let ino = state.ino(self.file.handle)?;
        Ok(state.find(&self.path) == Some((ino, EntryKind::File)))
    }
}

#[cfg(test)]
mod tests;
