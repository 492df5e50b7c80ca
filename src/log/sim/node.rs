//! One file, twice: as every reader sees it now, and as the device would give it back after a power cut.
//!
//! ```text
//! write ----> seen            a reader sees `seen`, always
//!             |  pending      each write since a sync, in order
//! good sync   v
//!             kept            a power cut turns `seen` into `kept`, after settling each dirty sector by chance
//! ```
//!
//! A failed sync empties `pending` without filling `kept`: from then on `seen` shows bytes that the device never got,
//! and a later sync, which finds nothing dirty, succeeds.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc; // shared data without synchronisation of its own: not a matter for the door to atomics

use super::cut::{Cut, Fate};
use super::image::{Image, SECTOR, Sector};
use super::rng::Rng;

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    seen: Image,
    seen_len: u64,
    kept: Image,
    kept_len: u64,
    /// What was seen when the first of `pending` came.
    before: Image,
    pending: Vec<(u64, Write)>,
    /// The lengths since the last sync, each with the time of the call that made it.
    lengths: Vec<(u64, u64)>,
    /// A sync failed, so clean sectors of `seen` and `kept` may differ.
    haunted: bool,
}

/// A change of the content that no sync has carried over.
#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Arc<[u8]>),
    /// Everything from here on became zero, and these sectors held something.
    Cut(u64, Arc<[u64]>),
}

impl Write {
    fn apply(&self, image: &mut Image) {
        match self {
            Self::Bytes(offset, bytes) => image.write(bytes, *offset),
            Self::Cut(len, _) => image.cut(*len),
        }
    }

    fn sectors(&self) -> Vec<u64> {
        match self {
            Self::Bytes(offset, bytes) => {
                let end = offset + bytes.len() as u64;
                (offset / SECTOR as u64..end.div_ceil(SECTOR as u64)).collect()
            }
            Self::Cut(_, sectors) => sectors.to_vec(),
        }
    }
}

impl Node {
    pub(super) fn len(&self) -> u64 {
        self.seen_len
    }

    pub(super) fn space(&self) -> u64 {
        self.seen.space()
    }

    pub(super) fn more_space(&self, offset: u64, len: usize) -> u64 {
        self.seen.more_space(offset, len)
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = (buf.len() as u64).min(self.seen_len.saturating_sub(offset)) as usize;
        self.seen.read(&mut buf[..n], offset);
        n
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, now: u64) {
        if bytes.is_empty() {
            return;
        }
        self.change(now, Write::Bytes(offset, Arc::from(bytes)));
        let end = offset + bytes.len() as u64;
        if end > self.seen_len {
            self.seen_len = end;
            self.lengths.push((now, end));
        }
    }

    pub(super) fn set_len(&mut self, len: u64, now: u64) {
        if len < self.seen_len {
            let gone = self.seen.sectors_from(len / SECTOR as u64).collect();
            self.change(now, Write::Cut(len, gone));
        }
        if len != self.seen_len {
            self.seen_len = len;
            self.lengths.push((now, len));
        }
    }

    fn change(&mut self, now: u64, write: Write) {
        if self.pending.is_empty() {
            self.before = self.seen.clone();
        }
        write.apply(&mut self.seen);
        self.pending.push((now, write));
    }

    fn dirty(&self) -> BTreeSet<u64> {
        self.pending.iter().flat_map(|(_, write)| write.sectors()).collect()
    }

    pub(super) fn sync(&mut self) {
        if self.haunted {
            for sector in self.dirty() {
                self.kept.set_sector(sector, &self.seen.sector(sector));
            }
        } else {
            self.kept = self.seen.clone();
        }
        self.settle_len(self.seen_len);
        self.pending.clear();
    }

    /// The device took some of it and refused some; the kernel calls all of it clean.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        for sector in self.dirty() {
            if rng.one_in(2) {
                self.kept.set_sector(sector, &self.seen.sector(sector));
            }
        }
        let len = if rng.one_in(2) { self.seen_len } else { self.kept_len };
        self.settle_len(len);
        self.pending.clear();
        self.haunted = true;
    }

    fn settle_len(&mut self, len: u64) {
        if len < self.kept_len {
            self.kept.cut(len);
        }
        self.kept_len = len;
        self.lengths.clear();
    }

    /// The kernel drops clean pages; whoever reads them next reads the device.
    pub(super) fn evict(&mut self, rng: &mut Rng) {
        if !self.haunted {
            return;
        }
        let dirty = self.dirty();
        let sectors: Vec<u64> = self.seen.sectors_from(0).collect();
        for sector in sectors {
            if !dirty.contains(&sector) && rng.one_in(2) {
                let kept = self.kept.sector(sector);
                self.seen.set_sector(sector, &kept);
                self.before.set_sector(sector, &kept);
            }
        }
    }

    pub(super) fn power_cut(&mut self, cut: &Cut, rng: &mut Rng) {
        let stale = self.kept.clone();
        for (sector, versions) in self.versions() {
            let before = self.kept.sector(sector);
            let after = match cut.fate(versions.iter().map(|(at, _)| *at), rng) {
                Fate::Lost => continue,
                Fate::Version(i) => versions[i].1,
                Fate::Garbled => garble(&before, &versions, &stale, rng),
            };
            self.kept.set_sector(sector, &after);
        }
        let len = match cut.fate(self.lengths.iter().map(|(at, _)| *at), rng) {
            Fate::Version(i) => self.lengths[i].1,
            Fate::Lost | Fate::Garbled => self.kept_len,
        };
        self.kept.cut(len);
        self.settle_len(len);
        self.pending.clear();
        self.seen = self.kept.clone();
        self.seen_len = len;
        self.haunted = false;
    }

    /// Each dirty sector, with every content that it had since the last sync and when.
    fn versions(&self) -> BTreeMap<u64, Vec<(u64, Sector)>> {
        let mut image = self.before.clone();
        let mut versions: BTreeMap<u64, Vec<(u64, Sector)>> = BTreeMap::new();
        for (at, write) in &self.pending {
            write.apply(&mut image);
            for sector in write.sectors() {
                versions.entry(sector).or_default().push((*at, image.sector(sector)));
            }
        }
        versions
    }

    /// Changes bytes behind everybody's back, on the device and in every cache.
    pub(super) fn corrupt(&mut self, bytes: &[u8], offset: u64) {
        self.seen.write(bytes, offset);
        self.seen_len = self.seen_len.max(offset + bytes.len() as u64);
        self.settle();
    }

    /// Cuts or lengthens the file, now and for good.
    pub(super) fn corrupt_len(&mut self, len: u64) {
        self.seen.cut(len);
        self.seen_len = len;
        self.settle();
    }

    /// Makes what is seen last, as if every sync had been good.
    pub(super) fn settle(&mut self) {
        self.haunted = false;
        self.sync();
    }
}

/// What may stand in a sector whose write was under way: anything, but only within the bytes that the writes changed.
/// The others were promised, and no write of the same bytes takes them back.
fn garble(before: &Sector, versions: &[(u64, Sector)], stale: &Image, rng: &mut Rng) -> Sector {
    let differs = |i: &usize| versions.iter().any(|(_, v)| v[*i] != before[*i]);
    let Some(first) = (0..SECTOR).find(differs) else {
        return *before;
    };
    let last = (0..SECTOR).rev().find(differs).unwrap_or(first);
    let newest = versions.last().map_or(*before, |(_, v)| *v);
    let mut out = *before;
    match rng.below(5) {
        0 => out[first..=last].iter_mut().for_each(|b| *b = rng.next() as u8),
        1 => out[first..=last].fill(0),
        2 => {
            let elsewhere = stale.sector(rng.below(64)); // an old block of the same file
            out[first..=last].copy_from_slice(&elsewhere[first..=last]);
        }
        3 => {
            let torn = first + rng.below((last - first + 1) as u64) as usize;
            out[first..=torn].copy_from_slice(&newest[first..=torn]);
        }
        _ => {
            out[first..=last].copy_from_slice(&newest[first..=last]);
            let hit = first + rng.below((last - first + 1) as u64) as usize;
            out[hit] ^= 1 << rng.below(8);
        }
    }
    out
}
