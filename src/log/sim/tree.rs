//! The names: as everybody sees them now, and as a power cut would leave them.
//!
//! A change of names is pending until the directory that it writes to is synced. A power cut applies any subset of what
//! is pending, in order; a rename is one change, so it happened or it did not. Syncing a file does not keep its name.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc; // shared data without synchronisation of its own: not a matter for the door to atomics

use super::cut::{Cut, Fate};
use super::rng::Rng;
use crate::log::vfs::EntryKind;

/// Number of a file or directory; never used twice.
pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ino: Ino,
    pub(super) kind: EntryKind,
}

/// A name within a directory.
pub(super) type Place = (Ino, OsString);

type Names = BTreeMap<Place, Link>;

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    seen: Arc<Names>,
    kept: Arc<Names>,
    pending: Vec<(u64, Arc<Change>)>,
}

#[derive(Clone, Debug)]
struct Change {
    /// The directory whose sync settles it.
    dir: Ino,
    takes: Option<Place>,
    gives: Option<(Place, Link)>,
}

impl Tree {
    /// The directory and the name that a path ends in.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name.to_owned()))
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<Ino> {
        let mut dir = ROOT;
        for component in path.components() {
            let name = match component {
                Component::Prefix(_) | Component::RootDir | Component::CurDir => continue,
                Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
                Component::Normal(name) => name,
            };
            match self.seen.get(&(dir, name.to_owned())) {
                Some(link) if link.kind == EntryKind::Dir => dir = link.ino,
                Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(dir)
    }

    pub(super) fn find(&self, place: &Place) -> Option<Link> {
        self.seen.get(place).copied()
    }

    pub(super) fn entries(&self, dir: Ino) -> impl Iterator<Item = (&OsStr, Link)> {
        self.seen
            .range((dir, OsString::new())..(dir + 1, OsString::new()))
            .map(|((_, name), link)| (name.as_os_str(), *link))
    }

    /// Every file or directory that has a name, now or on the device, or may have one after a power cut.
    pub(super) fn named(&self) -> BTreeSet<Ino> {
        let pending = self.pending.iter().filter_map(|(_, change)| change.gives.as_ref());
        self.seen
            .values()
            .chain(self.kept.values())
            .chain(pending.map(|(_, link)| link))
            .map(|link| link.ino)
            .collect()
    }

    pub(super) fn link(&mut self, place: Place, link: Link, now: u64) {
        self.change(now, place.0, None, Some((place, link)));
    }

    pub(super) fn unlink(&mut self, place: Place, now: u64) {
        self.change(now, place.0, Some(place), None);
    }

    pub(super) fn rename(&mut self, from: Place, to: Place, link: Link, now: u64) {
        self.change(now, to.0, Some(from), Some((to, link)));
    }

    fn change(&mut self, now: u64, dir: Ino, takes: Option<Place>, gives: Option<(Place, Link)>) {
        let change = Change { dir, takes, gives };
        apply(Arc::make_mut(&mut self.seen), &change);
        self.pending.push((now, Arc::new(change)));
    }

    pub(super) fn sync(&mut self, dir: Ino) {
        let kept = Arc::make_mut(&mut self.kept);
        self.pending.retain(|(_, change)| {
            if change.dir == dir {
                apply(kept, change);
            }
            change.dir != dir
        });
    }

    /// Some names reached the device, others did not, and nobody will try again.
    pub(super) fn fail_sync(&mut self, dir: Ino, rng: &mut Rng) {
        let kept = Arc::make_mut(&mut self.kept);
        self.pending.retain(|(_, change)| {
            if change.dir == dir && rng.one_in(2) {
                apply(kept, change);
            }
            change.dir != dir
        });
    }

    pub(super) fn power_cut(&mut self, cut: &Cut, rng: &mut Rng) {
        let kept = Arc::make_mut(&mut self.kept);
        for (at, change) in self.pending.drain(..) {
            match cut.fate(std::iter::once(at), rng) {
                Fate::Version(_) => apply(kept, &change),
                Fate::Lost => {}
                Fate::Garbled => {
                    if rng.one_in(2) {
                        apply(kept, &change); // a directory is never garbled: file systems guard their own
                    }
                }
            }
        }
        drop_orphans(kept);
        self.seen = self.kept.clone();
    }

    /// Makes all names last, as if every directory had been synced.
    pub(super) fn settle(&mut self) {
        self.pending.clear();
        self.kept = self.seen.clone();
    }
}

fn apply(names: &mut Names, change: &Change) {
    if let Some(place) = &change.takes {
        names.remove(place);
    }
    if let Some((place, link)) = &change.gives {
        if change.takes.is_some() {
            names.retain(|_, other| other != link); // a file that moved has one name, whatever of its past was lost
        }
        names.insert(place.clone(), *link);
    }
}

/// What lay in a directory that is gone is gone with it.
fn drop_orphans(names: &mut Names) {
    loop {
        let dirs: BTreeSet<Ino> = names
            .values()
            .filter(|link| link.kind == EntryKind::Dir)
            .map(|link| link.ino)
            .chain([ROOT])
            .collect();
        let before = names.len();
        names.retain(|(dir, _), _| dirs.contains(dir));
        if names.len() == before {
            return;
        }
    }
}
