//! Space made ready for segments to come, off the path of commits.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::dir::{self, Dir};
use super::error::LogError;
use super::header::{Fill, MIN_BYTES};
use super::options::Survives;
use super::vfs::{Open, VfsFile};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// A file that is ready to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn VfsFile>,
    /// How much of it was written before.
    pub(crate) len: u64,
    /// How large the segment may become.
    pub(crate) capacity: u64,
    pub(crate) fill: Fill,
}

/// The spare that is ready, and what hinders making one. One is enough: the next is made while this one is filled.
#[derive(Debug)]
pub(crate) struct Spares {
    ready: Mutex<Option<Spare>>,
    is_ready: AtomicBool,
    is_wanted: AtomicBool,
    /// Making one failed because there was no space.
    starved: AtomicBool,
    next: Mutex<u64>,
}

impl Spares {
    pub(crate) fn new(next: u64) -> Self {
        Self {
            ready: Mutex::new(None),
            is_ready: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            next: Mutex::new(next),
        }
    }

    /// Takes over a spare that an earlier run made.
    pub(crate) fn adopt(&self, dir: &Dir, number: u64) -> Result<(), LogError> {
        let path = dir.spare(number);
        let file = dir.open(&path, Open::Write)?;
        let read = |e| LogError::io("read", &path, e);
        let len = file.len().map_err(read)?;
        let is_new = dir::read_front(&*file, MIN_BYTES).map_err(read)?.iter().all(|b| *b == 0);
        let spare = Spare {
            path,
            file,
            len,
            capacity: len,
            fill: if is_new { Fill::Zeros } else { Fill::OlderBlocks },
        };
        self.put(dir, spare);
        Ok(())
    }

    /// Makes a spare of zeros. `pause` is called after each piece; it may do what is more urgent, and
    /// says whether to go on.
    pub(crate) fn make(
        &self,
        dir: &Dir,
        capacity: u64,
        zeroed: u64,
        survives: Survives,
        mut pause: impl FnMut() -> bool,
    ) -> Result<(), LogError> {
        let number = self.number(dir)?;
        let tmp = dir.temporary(number);
        let made = self.fill(dir, &tmp, zeroed, survives, &mut pause);
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                self.starved.store(error.is_full(), Ordering::Release);
                // What is left of it is only in the way; the next opening removes it too.
                drop(dir.unlink(&tmp));
                return Err(error);
            }
        };
        let path = dir.spare(number);
        if let Err(error) = dir.rename(&tmp, &path) {
            self.starved.store(error.is_full(), Ordering::Release);
            // Whichever name it has now.
            drop(dir.unlink(&tmp).and_then(|()| dir.unlink(&path)));
            return Err(error);
        }
        let spare = Spare {
            path,
            file,
            len: zeroed,
            capacity,
            fill: Fill::Zeros,
        };
        self.put(dir, spare);
        Ok(())
    }

    fn fill(
        &self,
        dir: &Dir,
        tmp: &std::path::Path,
        zeroed: u64,
        survives: Survives,
        pause: &mut impl FnMut() -> bool,
    ) -> Result<Arc<dyn VfsFile>, LogError> {
        let file = dir.create(tmp)?;
        let zeros = vec![0; PIECE.min(zeroed as usize)];
        let mut done = 0;
        while done < zeroed {
            let piece = (zeroed - done).min(PIECE as u64) as usize;
            file.write_all_at(&zeros[..piece], done)
                .map_err(|e| LogError::io("write", tmp, e))?;
            if survives == Survives::PowerLoss {
                file.sync_data().map_err(|e| LogError::io("sync", tmp, e))?;
            }
            done += piece as u64;
            if !pause() {
                return Err(LogError::Closed);
            }
        }
        Ok(file)
    }

    /// Makes a spare of a segment that nobody needs any more. Its blocks stay in it; they belong to another number.
    pub(crate) fn recycle(&self, dir: &Dir, old: &std::path::Path) -> Result<(), LogError> {
        let number = self.number(dir)?;
        let path = dir.spare(number);
        dir.rename(old, &path)?;
        self.adopt(dir, number).inspect_err(|_| drop(dir.unlink(&path)))
    }

    /// A number whose names nobody has.
    pub(crate) fn number(&self, dir: &Dir) -> Result<u64, LogError> {
        let mut next = self.next.lock();
        let number = dir.free_spare(*next)?;
        *next = number + 1;
        Ok(number)
    }

    /// Takes a spare as the one that is ready. If there is one, the larger stays; the file of the other is removed.
    pub(crate) fn put(&self, dir: &Dir, spare: Spare) {
        let mut ready = self.ready.lock();
        let other = match &*ready {
            Some(there) if there.capacity >= spare.capacity => Some(spare),
            _ => ready.replace(spare),
        };
        self.is_ready.store(true, Ordering::Release);
        drop(ready);
        if let Some(other) = other {
            drop(dir.unlink(&other.path)); // if it stays, the next opening removes it
        }
        self.is_wanted.store(false, Ordering::Release);
        self.starved.store(false, Ordering::Release);
    }

    /// The spare, if it is ready and large enough to be of use.
    pub(crate) fn take(&self, needed: u64) -> Option<Spare> {
        let mut ready = self.ready.lock();
        let spare = ready.take_if(|spare| spare.capacity >= needed)?;
        self.is_ready.store(false, Ordering::Release);
        Some(spare)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Tells whether one should be made, to the first who asks.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.is_ready() && !self.is_wanted.swap(true, Ordering::AcqRel)
    }

    /// Nobody is making one any more.
    pub(crate) fn give_up(&self) {
        self.is_wanted.store(false, Ordering::Release);
    }

    /// There was no space for another file.
    pub(crate) fn starve(&self) {
        self.starved.store(true, Ordering::Release);
    }

    /// Tells whether there is no spare because there is no space.
    pub(crate) fn is_starved(&self) -> bool {
        !self.is_ready() && self.starved.load(Ordering::Acquire)
    }
}

/// How much of a spare is written and synced at once: a commit that comes meanwhile waits behind that much.
const PIECE: usize = 128 << 10;

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::sim::SimDisk;

    /// Symptom: after a full disk, files as large as a segment stayed until the next opening. Cause: while one spare was made or a segment
    /// was used again, a leader that found no space made one as well, and the one that was ready first was forgotten. Fix: the larger
    /// stays, and the other one is removed.
    #[test]
    fn of_two_spares_that_are_made_at_once_one_is_left() {
        for capacities in [(4096, 8192), (8192, 4096)] {
            let disk = SimDisk::new(1);
            let dir = Dir::new(Arc::new(disk.clone()), Path::new("data"));
            dir.make().expect("the disk is fine");
            let spares = Spares::new(1);
            let make = |capacity, pause: &mut dyn FnMut() -> bool| {
                spares
                    .make(&dir, capacity, capacity, Survives::PowerLoss, pause)
                    .expect("the disk is fine");
            };
            make(capacities.0, &mut || {
                make(capacities.1, &mut || true);
                true
            });
            assert_eq!(disk.files().len(), 1, "{disk:?}");
            let spare = spares.take(8192).expect("the larger one");
            assert!(disk.files() == [spare.path], "{disk:?}");
            assert!(!spares.is_ready());
        }
    }
}
