//! The disk itself: files, names, handles, and the faults that wait.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc; // shared data without synchronisation of its own: not a matter for the door to atomics

use super::cut::Cut;
use super::fault::{Fault, Op, Planned};
use super::image::SECTOR;
use super::node::Node;
use super::rng::Rng;
use super::tree::{Ino, Link, ROOT, Tree};
use super::{Moment, SimDisk};
use crate::log::vfs::{Entry, EntryKind, Open};

#[derive(Debug)]
pub(super) struct State {
    nodes: BTreeMap<Ino, Arc<Node>>,
    tree: Tree,
    rng: Rng,
    next_id: u64,
    /// Time, in calls.
    pub(super) calls: u64,
    pub(super) capacity: Option<u64>,
    broken: BTreeSet<(Ino, u64)>,
    // What ends with the process:
    handles: BTreeMap<u64, Handle>,
    // What belongs to the observer:
    pub(super) planned: Vec<Planned>,
    recording: Recording,
    moments: Vec<Moment>,
}

/// Which moments are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    Off,
    All,
    /// One of those that have been, so many, each as likely as the others.
    One(u64),
}

#[derive(Debug)]
struct Handle {
    ino: Ino,
    writes: bool,
    locks: bool,
    /// Write-back failed, and this handle has not heard of it.
    unheard: bool,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            tree: Tree::default(),
            rng: Rng::new(seed),
            next_id: ROOT + 1,
            calls: 0,
            capacity: None,
            broken: BTreeSet::new(),
            handles: BTreeMap::new(),
            planned: Vec::new(),
            recording: Recording::Off,
            moments: Vec::new(),
        }
    }

    // Events.

    /// The same disk without those who use it. Files that had no name but a handle are still in it, and go when names
    /// change next.
    pub(super) fn without_process(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            tree: self.tree.clone(),
            rng: self.rng.clone(),
            broken: self.broken.clone(),
            handles: BTreeMap::new(),
            planned: Vec::new(),
            recording: Recording::Off,
            moments: Vec::new(),
            ..*self
        }
    }

    pub(super) fn kill(&mut self) {
        self.handles.clear();
        self.forget_unnamed();
    }

    pub(super) fn power_cut(&mut self, seed: u64) {
        let mut rng = Rng::new(seed);
        let cut = Cut::draw(&mut rng, self.calls + 1);
        self.tree.power_cut(&cut, &mut rng);
        for node in self.nodes.values_mut() {
            Arc::make_mut(node).power_cut(&cut, &mut rng);
        }
        self.rng = rng;
        self.kill();
    }

    pub(super) fn evict(&mut self, seed: u64) {
        let mut rng = Rng::new(seed);
        for node in self.nodes.values_mut() {
            Arc::make_mut(node).evict(&mut rng);
        }
    }

    pub(super) fn settle(&mut self) {
        self.tree.settle();
        for node in self.nodes.values_mut() {
            Arc::make_mut(node).settle();
        }
    }

    /// Counts a call and tells which fault strikes it. `Interrupted` and the plain errors of calls that have no half
    /// are for the caller to turn into an error.
    fn begin(&mut self, op: Op) -> Option<Fault> {
        self.calls += 1;
        let mut struck = None;
        for planned in &mut self.planned {
            if planned.strikes(op) {
                struck = Some(planned.fault);
            }
        }
        self.planned.retain(|planned| !planned.is_over());
        struck
    }

    /// As [`begin`](Self::begin), for calls that a fault simply prevents.
    fn begin_whole(&mut self, op: Op) -> io::Result<()> {
        match self.begin(op) {
            Some(fault @ (Fault::Eio | Fault::NoSpace | Fault::Interrupted)) => Err(fault.error()),
            _ => Ok(()),
        }
    }

    pub(super) fn record(&mut self, only_one: bool) {
        self.recording = if only_one { Recording::One(0) } else { Recording::All };
        self.moments.clear();
    }

    pub(super) fn recorded(&mut self) -> Vec<Moment> {
        self.recording = Recording::Off;
        std::mem::take(&mut self.moments)
    }

    fn remember(&mut self, op: Op, midway: bool) {
        match &mut self.recording {
            Recording::Off => return,
            Recording::All => {}
            Recording::One(seen) => {
                *seen += 1;
                let seen = *seen;
                if !self.rng.one_in(seen) {
                    return;
                }
                self.moments.clear();
            }
        }
        self.moments.push(Moment {
            call: self.calls,
            op,
            midway,
            disk: SimDisk::of(self.without_process()),
        });
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    // Names.

    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<u64> {
        self.begin_whole(Op::Open)?;
        let ino = self.open_file(path, how == Open::Create)?;
        Ok(self.hold(ino, how != Open::Read, false))
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<u64> {
        self.begin_whole(Op::Lock)?;
        let ino = match self.open_file(path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.open_file(path, true)?,
            other => other?,
        };
        if self.handles.values().any(|h| h.ino == ino && h.locks) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.hold(ino, true, true))
    }

    fn open_file(&mut self, path: &Path, creates: bool) -> io::Result<Ino> {
        let place = self.tree.place(path)?;
        match (self.tree.find(&place), creates) {
            (Some(_), true) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(link), false) if link.kind == EntryKind::File => Ok(link.ino),
            (Some(_), false) => Err(io::ErrorKind::InvalidInput.into()),
            (None, false) => Err(io::ErrorKind::NotFound.into()),
            (None, true) => {
                let ino = self.new_id();
                let kind = EntryKind::File;
                self.nodes.insert(ino, Arc::default());
                self.tree.link(place, Link { ino, kind }, self.calls);
                self.remember(Op::Open, false);
                Ok(ino)
            }
        }
    }

    fn hold(&mut self, ino: Ino, writes: bool, locks: bool) -> u64 {
        let id = self.new_id();
        let handle = Handle {
            ino,
            writes,
            locks,
            unheard: false,
        };
        self.handles.insert(id, handle);
        id
    }

    pub(super) fn close(&mut self, handle: u64) {
        if self.handles.remove(&handle).is_some() {
            self.forget_unnamed();
        }
    }

    fn forget_unnamed(&mut self) {
        let mut wanted = self.tree.named();
        wanted.extend(self.handles.values().map(|h| h.ino));
        self.nodes.retain(|ino, _| wanted.contains(ino));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let struck = self.begin(Op::Rename);
        let (from, to) = (self.tree.place(from)?, self.tree.place(to)?);
        let link = self.tree.find(&from).ok_or(io::ErrorKind::NotFound)?;
        if self.tree.find(&to).is_some_and(|there| there.kind != link.kind) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let failed = match struck {
            Some(fault @ (Fault::NoSpace | Fault::Interrupted)) => return Err(fault.error()),
            Some(Fault::Eio) if self.rng.one_in(2) => return Err(Fault::Eio.error()),
            Some(Fault::Eio) => true, // done, and yet an error
            _ => false,
        };
        if from != to {
            self.tree.rename(from, to, link, self.calls);
        }
        self.forget_unnamed();
        self.remember(Op::Rename, false);
        if failed { Err(Fault::Eio.error()) } else { Ok(()) }
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.begin_whole(Op::Unlink)?;
        let place = self.tree.place(path)?;
        match self.tree.find(&place) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(link) if link.kind != EntryKind::File => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Some(_) => {}
        }
        self.tree.unlink(place, self.calls);
        self.forget_unnamed();
        self.remember(Op::Unlink, false);
        Ok(())
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.begin_whole(Op::List)?;
        let dir = self.tree.dir(dir)?;
        let entries = self.tree.entries(dir);
        Ok(entries.map(|(name, link)| Entry::new(name, link.kind)).collect())
    }

    pub(super) fn create_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.begin_whole(Op::CreateDir)?;
        if self.tree.dir(dir).is_ok() {
            return Ok(());
        }
        let place = self.tree.place(dir)?;
        if self.tree.find(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = self.new_id();
        let kind = EntryKind::Dir;
        self.tree.link(place, Link { ino, kind }, self.calls);
        self.remember(Op::CreateDir, false);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let struck = self.begin(Op::SyncDir);
        let dir = self.tree.dir(dir)?;
        match struck {
            Some(Fault::Eio) => {
                self.tree.fail_sync(dir, &mut self.rng);
                self.remember(Op::SyncDir, false);
                return Err(Fault::Eio.error());
            }
            Some(fault @ (Fault::NoSpace | Fault::Interrupted)) => return Err(fault.error()),
            _ => {}
        }
        self.tree.sync(dir);
        self.forget_unnamed();
        self.remember(Op::SyncDir, false);
        Ok(())
    }

    pub(super) fn find(&self, path: &Path) -> Option<(Ino, EntryKind)> {
        let place = self.tree.place(path).ok()?;
        self.tree.find(&place).map(|link| (link.ino, link.kind))
    }

    // Bytes.

    pub(super) fn ino(&self, handle: u64) -> io::Result<Ino> {
        match self.handles.get(&handle) {
            Some(handle) => Ok(handle.ino),
            None => Err(io::Error::other("the process that held this handle is dead")),
        }
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        Arc::make_mut(self.nodes.entry(ino).or_default())
    }

    pub(super) fn len(&self, handle: u64) -> io::Result<u64> {
        let ino = self.ino(handle)?;
        Ok(self.nodes.get(&ino).map_or(0, |node| node.len()))
    }

    pub(super) fn read(&mut self, handle: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let ino = self.ino(handle)?;
        let limit = match self.begin(Op::Read) {
            Some(fault @ (Fault::Eio | Fault::Interrupted)) => return Err(fault.error()),
            Some(Fault::Short(limit)) => limit,
            _ => usize::MAX,
        };
        let n = buf.len().min(limit);
        let n = self.nodes.get(&ino).map_or(0, |node| node.read(&mut buf[..n], offset));
        let sectors = offset / SECTOR as u64..(offset + n as u64).div_ceil(SECTOR as u64);
        if self.broken.range((ino, sectors.start)..(ino, sectors.end)).next().is_some() {
            return Err(Fault::Eio.error());
        }
        Ok(n)
    }

    pub(super) fn write(&mut self, handle: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let ino = self.writable(handle)?;
        let struck = self.begin(Op::Write);
        let part = self.rng.below(bytes.len() as u64 + 1) as usize;
        let mut offset = offset;
        let (n, failed) = match struck {
            Some(fault @ Fault::Interrupted) => return Err(fault.error()),
            Some(fault @ (Fault::Eio | Fault::NoSpace)) => (part, Some(fault)),
            Some(Fault::Short(limit)) => (bytes.len().min(limit), None),
            Some(Fault::WriteBack) => {
                self.fail_write_back(ino);
                (bytes.len(), None)
            }
            Some(Fault::Misdirected) => {
                let away = (1 + self.rng.below(16)) * SECTOR as u64;
                offset = offset.checked_sub(away).unwrap_or(offset + away);
                (bytes.len(), None)
            }
            None => (bytes.len(), None),
        };
        let fits = self.fitting(ino, offset, n);
        if fits == 0 && n > 0 {
            return Err(Fault::NoSpace.error());
        }
        if self.recording != Recording::Off && part < fits {
            let whole = self.nodes.get(&ino).cloned();
            self.put_bytes(ino, &bytes[..part], offset);
            self.remember(Op::Write, true);
            if let Some(whole) = whole {
                self.nodes.insert(ino, whole);
            }
        }
        self.put_bytes(ino, &bytes[..fits], offset);
        self.remember(Op::Write, false);
        match failed {
            Some(fault) => Err(fault.error()),
            None => Ok(fits),
        }
    }

    fn put_bytes(&mut self, ino: Ino, bytes: &[u8], offset: u64) {
        let now = self.calls;
        self.node(ino).write(bytes, offset, now);
        let sectors = offset / SECTOR as u64..(offset + bytes.len() as u64).div_ceil(SECTOR as u64);
        self.broken.retain(|(of, sector)| *of != ino || !sectors.contains(sector));
    }

    /// How much of a write the rest of the disk takes.
    fn fitting(&self, ino: Ino, offset: u64, len: usize) -> usize {
        let (Some(capacity), Some(node)) = (self.capacity, self.nodes.get(&ino)) else {
            return len;
        };
        let free = capacity.saturating_sub(self.used());
        let mut fits = len;
        while fits > 0 && node.more_space(offset, fits) > free {
            let end = offset + fits as u64 - 1;
            fits = (end / 4096 * 4096).saturating_sub(offset) as usize;
        }
        fits
    }

    pub(super) fn used(&self) -> u64 {
        self.nodes.values().map(|node| node.space()).sum()
    }

    pub(super) fn set_len(&mut self, handle: u64, len: u64) -> io::Result<()> {
        let ino = self.writable(handle)?;
        self.begin_whole(Op::SetLen)?;
        let now = self.calls;
        self.node(ino).set_len(len, now);
        self.remember(Op::SetLen, false);
        Ok(())
    }

    pub(super) fn sync(&mut self, handle: u64) -> io::Result<()> {
        let ino = self.ino(handle)?;
        let struck = self.begin(Op::Sync);
        if let Some(fault @ Fault::Interrupted) = struck {
            return Err(fault.error());
        }
        if matches!(struck, Some(Fault::Eio | Fault::NoSpace | Fault::WriteBack)) {
            self.fail_write_back(ino);
        } else {
            self.node(ino).sync();
        }
        self.remember(Op::Sync, false);
        let unheard = match self.handles.get_mut(&handle) {
            Some(handle) => std::mem::take(&mut handle.unheard),
            None => false,
        };
        if unheard { Err(Fault::Eio.error()) } else { Ok(()) }
    }

    fn fail_write_back(&mut self, ino: Ino) {
        let mut rng = self.rng.clone();
        self.node(ino).fail_sync(&mut rng);
        self.rng = rng;
        for handle in self.handles.values_mut().filter(|h| h.ino == ino) {
            handle.unheard = true;
        }
    }

    fn writable(&self, handle: u64) -> io::Result<Ino> {
        let ino = self.ino(handle)?;
        match self.handles.get(&handle) {
            Some(handle) if handle.writes => Ok(ino),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    // What an observer does, outside every process.

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut dirs = vec![(ROOT, PathBuf::new())];
        while let Some((dir, path)) = dirs.pop() {
            for (name, link) in self.tree.entries(dir) {
                match link.kind {
                    EntryKind::Dir => dirs.push((link.ino, path.join(name))),
                    _ => files.push(path.join(name)),
                }
            }
        }
        files.sort();
        files
    }

    fn file(&self, path: &Path) -> Option<Ino> {
        match self.find(path) {
            Some((ino, EntryKind::File)) => Some(ino),
            _ => None,
        }
    }

    pub(super) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let node = self.nodes.get(&self.file(path)?)?;
        let mut bytes = vec![0; node.len() as usize];
        node.read(&mut bytes, 0);
        Some(bytes)
    }

    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let mut above = PathBuf::new();
        let names = path.parent().into_iter().flat_map(Path::components);
        for name in names.filter(|c| matches!(c, Component::Normal(_))) {
            above.push(name);
            if self.tree.dir(&above).is_err() {
                let ino = self.new_id();
                let kind = EntryKind::Dir;
                if let Ok(place) = self.tree.place(&above) {
                    self.tree.link(place, Link { ino, kind }, self.calls);
                }
            }
        }
        let ino = self.file(path).or_else(|| self.open_file(path, true).ok());
        self.tree.settle();
        if let Some(ino) = ino {
            self.node(ino).corrupt_len(0);
            self.node(ino).corrupt(bytes, 0);
        }
    }

    pub(super) fn remove(&mut self, path: &Path) -> bool {
        let (Some(_), Ok(place)) = (self.file(path), self.tree.place(path)) else {
            return false;
        };
        self.tree.unlink(place, self.calls);
        self.tree.settle();
        self.forget_unnamed();
        true
    }

    pub(super) fn flip(&mut self, path: &Path, bit: u64) -> bool {
        let Some(ino) = self.file(path) else {
            return false;
        };
        let node = self.node(ino);
        let mut byte = [0];
        if node.read(&mut byte, bit / 8) == 0 {
            return false;
        }
        byte[0] ^= 1 << (bit % 8);
        node.corrupt(&byte, bit / 8);
        true
    }

    pub(super) fn truncate(&mut self, path: &Path, len: u64) -> bool {
        let Some(ino) = self.file(path) else {
            return false;
        };
        self.node(ino).corrupt_len(len);
        true
    }

    pub(super) fn break_sector(&mut self, path: &Path, offset: u64) -> bool {
        let Some(ino) = self.file(path) else {
            return false;
        };
        let there = offset < self.node(ino).len();
        if there {
            self.broken.insert((ino, offset / SECTOR as u64));
        }
        there
    }
}
