//! The bytes of a file, shared page by page, so that a copy of a whole disk costs a few pointers.
#![forbid(unsafe_code)]

use std::sync::Arc; // shared data without synchronisation of its own: not a matter for the door to atomics

/// What a device writes in one piece.
pub(super) const SECTOR: usize = 512;
const PAGE: usize = 4096;

pub(super) type Sector = [u8; SECTOR];

/// Content of unbounded length; what was never written is zero and takes no space.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Image {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let (page, within) = locate(offset + done as u64);
            let n = (PAGE - within).min(buf.len() - done);
            let part = &mut buf[done..done + n];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + n]),
                None => part.fill(0),
            }
            done += n;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = locate(offset + done as u64);
            let n = (PAGE - within).min(bytes.len() - done);
            self.page(page)[within..within + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    pub(super) fn sector(&self, index: u64) -> Sector {
        let mut sector = [0; SECTOR];
        self.read(&mut sector, index * SECTOR as u64);
        sector
    }

    pub(super) fn set_sector(&mut self, index: u64, sector: &Sector) {
        self.write(sector, index * SECTOR as u64);
    }

    /// Makes everything from `len` on zero.
    pub(super) fn cut(&mut self, len: u64) {
        let (page, within) = locate(len);
        if within > 0 && self.pages.get(page).is_some_and(Option::is_some) {
            self.page(page)[within..].fill(0);
        }
        self.pages.truncate(page + usize::from(within > 0));
    }

    /// The sectors at or after `from` that hold space.
    pub(super) fn sectors_from(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        const PER_PAGE: u64 = (PAGE / SECTOR) as u64;
        (from / PER_PAGE..self.pages.len() as u64)
            .filter(|page| self.pages[*page as usize].is_some())
            .flat_map(|page| page * PER_PAGE..(page + 1) * PER_PAGE)
            .filter(move |sector| *sector >= from)
    }

    /// Bytes that the content takes on the device.
    pub(super) fn space(&self) -> u64 {
        self.pages.iter().flatten().count() as u64 * PAGE as u64
    }

    /// Bytes that writing `len` bytes at `offset` would take in addition.
    pub(super) fn more_space(&self, offset: u64, len: usize) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, _) = locate(offset);
        let (last, _) = locate(offset + len as u64 - 1);
        let there = (first..=last).filter(|page| self.pages.get(*page).is_some_and(Option::is_some));
        (last - first + 1 - there.count()) as u64 * PAGE as u64
    }

    fn page(&mut self, index: usize) -> &mut [u8; PAGE] {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        Arc::make_mut(self.pages[index].get_or_insert_with(|| Arc::new([0; PAGE])))
    }
}

fn locate(offset: u64) -> (usize, usize) {
    ((offset / PAGE as u64) as usize, (offset % PAGE as u64) as usize)
}
