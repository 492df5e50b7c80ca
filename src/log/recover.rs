//! What the files of a log add up to. Looks, and changes nothing; `repair` does what is found to be necessary.
//!
//! 1. The newest segment with a header is the last one. From it, predecessors are followed to the oldest.
//! 2. A segment whose number lies between a segment and its predecessor was replaced: it is dead.
//! 3. A file without a header never became a segment, unless a block in it says that something in it was promised: then
//!    its header is damaged, and is taken from that block.
//! 4. The last segment is read whole; `tail` says where it ends.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::beside::{self, Became};
use super::block::VERSION;
use super::dir::{Dir, Listing};
use super::error::LogError;
use super::fate::Fate;
use super::header::{self, Copies, Fill, Found, Header};
use super::meta::{self, Meta};
use super::name::{self, SegmentName};
use super::options::Access;
use super::renew::Replaced;
use super::report::{Cut, Damage, DamageKind, Missing, OpenReport};
use super::scan::Source;
use super::segment::Segment;
use super::tail::{self, Bad, Tail};
use super::vfs::VfsFile;
use super::window::{SECTOR, Window};
use super::{crc, record::Lsn};

/// A segment of the log.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    /// LSN behind the segment; `None` when only reading the segment can tell.
    pub(crate) end: Option<u64>,
    /// crc of the block that ended there.
    pub(crate) end_chain: Option<u32>,
}

/// What recovery found.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `None` in a directory without a log.
    pub(crate) log_id: Option<u128>,
    pub(crate) meta_whole: bool,
    /// The segments, oldest first.
    pub(crate) links: Vec<Link>,
    /// The end of the last link; `None` when there is none, or it was rewritten and so is whole.
    pub(crate) tail: Option<Tail>,
    /// Whether one copy of the last header is not intact.
    has_torn_header: bool,
    /// Whether parts of the last segment could not be read.
    pub(crate) has_unreadable: bool,
    pub(crate) rest: Vec<(PathBuf, Fate)>,
    /// Older generations among the rest, those of one newer file together.
    pub(crate) replaced: Vec<Replaced>,
    /// The names of segments that were listed, sorted.
    pub(crate) listed: Vec<SegmentName>,
    /// A file that was listed was gone when it was opened: a writer is at work.
    pub(crate) is_moving: bool,
    pub(crate) spares: Vec<u64>,
    pub(crate) epoch_seen: u64,
    /// The lowest number that any header says.
    pub(super) oldest: u64,
    pub(crate) next_number: u64,
    pub(crate) next_spare: u64,
    pub(crate) report: OpenReport,
}

/// Looks at the files of a log.
pub(crate) fn look(dir: &Dir) -> Result<Plan, LogError> {
    let meta_path = dir.root.join(name::META);
    let mut unread = None;
    let meta = dir.read_small(&meta_path, meta::BYTES, &mut unread)?;
    let listing = dir.list()?;
    let mut plan = Plan {
        log_id: None,
        meta_whole: false,
        links: Vec::new(),
        tail: None,
        has_torn_header: false,
        has_unreadable: false,
        rest: listing.temporary.iter().map(|n| (dir.temporary(*n), Fate::Remove)).collect(),
        replaced: Vec::new(),
        next_number: 1,
        next_spare: next_spare(&listing),
        spares: listing.spares,
        listed: listing.segments,
        is_moving: false,
        epoch_seen: 0,
        oldest: 0,
        report: OpenReport {
            unknown: listing.unknown,
            omitted: listing.unknown_omitted,
            ..OpenReport::default()
        },
    };
    let files = read_headers(dir, &plan.listed, &mut unread)?;
    plan.is_moving = files.len() < plan.listed.len();
    plan.next_number = next_number(&files);
    plan.identify(&meta_path, meta.as_deref(), &files)?;
    if plan.log_id.is_none() {
        if let Some(error) = unread {
            return Err(error); // the device may do better another time
        }
        plan.report_lost(&meta_path, &files);
    } else {
        plan.link(dir, files)?;
        // A segment whose header is lost is taken at its name's word, however far that reaches. What comes next comes behind it.
        let behind = plan.links.last().map_or(0, |last| last.header.last + 1);
        plan.next_number = plan.next_number.max(behind);
        plan.find_end(dir)?;
        plan.find_missing(dir)?;
    }
    plan.summarise();
    Ok(plan)
}

/// A file with the name of a segment.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    found: Found,
    /// Why the place of its header could not be read at all.
    unread: Option<LogError>,
}

impl Candidate {
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.found {
            Found::Header(header, _) => Some(header),
            _ => None,
        }
    }
}

fn read_headers(dir: &Dir, names: &[SegmentName], unread: &mut Option<LogError>) -> Result<Vec<Candidate>, LogError> {
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let path = dir.segment(name);
        // A file that went away since it was listed belongs to a writer at work beside this reader.
        let mut lost = None;
        let Some(bytes) = dir.read_small(&path, header::MIN_BYTES, &mut lost)? else {
            continue;
        };
        let found = Header::decode(&bytes, name);
        if let Found::Newer(version) = found {
            return Err(newer(path, version));
        }
        if unread.is_none() {
            unread.clone_from(&lost);
        }
        files.push(Candidate {
            name: *name,
            path,
            found,
            unread: lost,
        });
    }
    Ok(files)
}

/// A number that no segment has. A stray name near the end of all numbers does not use them up.
fn next_number(files: &[Candidate]) -> u64 {
    let of_segments = files.iter().filter(|file| file.header().is_some()).map(|file| file.name.last).max();
    let highest = of_segments.unwrap_or(0);
    let nearby = files
        .iter()
        .map(|file| file.name.last)
        .filter(|last| *last <= highest + (1 << 32))
        .max();
    nearby.unwrap_or(0) + 1
}

/// A number that no spare has, nor a file on its way to become one. Strange names do not use them up either.
fn next_spare(listing: &Listing) -> u64 {
    let all = listing.spares.iter().chain(&listing.temporary);
    all.copied().filter(|number| *number <= name::LAST_NUMBER).max().unwrap_or(0) + 1
}

fn newer(path: PathBuf, found: u16) -> LogError {
    LogError::NewerFormat {
        path,
        found,
        supported: VERSION,
    }
}

/// Nothing is cut or kept aside that a newer version has written.
pub(super) fn refuse_newer(path: &Path, found: Option<u16>) -> Result<(), LogError> {
    found.map_or(Ok(()), |version| Err(newer(path.to_owned(), version)))
}

impl Plan {
    /// Finds the identity of the log: in META, else in the newest segment.
    fn identify(&mut self, path: &Path, meta: Option<&[u8]>, files: &[Candidate]) -> Result<(), LogError> {
        let in_segments = files.iter().rev().find_map(|file| file.header().map(|header| header.log_id));
        match meta.map(Meta::decode) {
            Some(Meta::Newer(version)) => return Err(newer(path.to_owned(), version)),
            Some(Meta::Id { log_id, whole }) => {
                self.log_id = Some(log_id);
                self.meta_whole = whole;
            }
            Some(Meta::Nothing) | None => self.log_id = in_segments,
        }
        if self.log_id.is_some() && !self.meta_whole {
            self.report_nowhere(path, DamageKind::Meta, meta.map_or(0, |bytes| bytes.len() as u64));
        }
        Ok(())
    }

    /// Names what cannot be tied to any log. The identity is durable before the first segment: without segments it is a log
    /// that was being made, and nothing was ever promised; with them, it was there and is lost.
    fn report_lost(&mut self, meta: &Path, files: &[Candidate]) {
        if files.is_empty() {
            return;
        }
        self.report_nowhere(meta, DamageKind::Meta, meta::BYTES as u64);
        for file in files {
            self.report_nowhere(&file.path, DamageKind::Header, header::MIN_BYTES as u64);
            OpenReport::push(&mut self.report.kept, &mut self.report.omitted, file.path.clone());
        }
    }

    /// Reports damage that has no known place in the log.
    fn report_nowhere(&mut self, file: &Path, kind: DamageKind, len: u64) {
        self.report.add_damage(Damage {
            kind,
            file: file.to_owned(),
            position: 0,
            len,
            from: Lsn(0),
            to: Lsn(0),
        });
    }

    /// Links the files that are segments of this log, newest to oldest, and finds a fate for the others.
    fn link(&mut self, dir: &Dir, mut files: Vec<Candidate>) -> Result<(), LogError> {
        let log_id = self.log_id.unwrap_or_default();
        // The files of another log are not ours to touch.
        files.retain(|file| {
            let is_foreign = file.header().is_some_and(|header| header.log_id != log_id);
            if is_foreign {
                self.settle(&file.path, None);
            }
            !is_foreign
        });
        self.epoch_seen = files.iter().filter_map(|file| file.header().map(|h| h.epoch)).max().unwrap_or(0);
        self.oldest = files.iter().filter_map(|file| file.header().map(|h| h.first)).min().unwrap_or(0);
        self.drop_older_generations(dir, &mut files)?;
        files.sort_by_key(|file| file.name.last);
        let mut successor: Option<Header> = None;
        while let Some(file) = files.pop() {
            let expected = successor.map(|next| next.predecessor);
            if expected.is_some_and(|expected| file.name.last > expected) {
                self.put_aside(dir, &file)?;
                continue;
            }
            let header = match file.found {
                Found::Header(header, copies) => {
                    if copies != Copies::Both && successor.is_some() {
                        self.report_header(&file.path, &header, DamageKind::HeaderCopy);
                    }
                    // A last header may be torn like any write. It was promised if anything behind it was.
                    self.has_torn_header |= copies != Copies::Both && successor.is_none();
                    header
                }
                _ => match self.rebuild_header(dir, &file, successor.as_ref(), &files)? {
                    Some(header) => {
                        self.report_header(&file.path, &header, DamageKind::Header);
                        self.epoch_seen = self.epoch_seen.max(header.epoch);
                        header
                    }
                    None => continue,
                },
            };
            if !self.attach(file.path, header, successor.as_ref()) {
                continue;
            }
            successor = Some(header);
            if header.predecessor == 0 {
                break;
            }
        }
        // What is left is older than the first segment of the log.
        for file in &files {
            self.put_aside(dir, file)?;
        }
        self.links.reverse();
        self.report.missing.reverse();
        Ok(())
    }

    /// Adds a segment before its successor. A file that contradicts its successor is left alone.
    fn attach(&mut self, path: PathBuf, header: Header, successor: Option<&Header>) -> bool {
        let mut link = Link {
            header,
            path,
            end: header.rewritten.map(|r| r.end),
            end_chain: header.rewritten.map(|r| r.end_chain),
        };
        if let Some(next) = successor {
            let fits = header.base <= next.base && header.rewritten.is_none_or(|r| r.end <= next.base);
            if !fits {
                OpenReport::push(&mut self.report.kept, &mut self.report.omitted, link.path);
                return false;
            }
            if next.predecessor == header.last {
                link.end = Some(next.base);
                link.end_chain = Some(next.chain);
            } else {
                let missing = Missing {
                    from: Lsn(link.end.unwrap_or(header.base)),
                    to: Lsn(next.base),
                    segment: Some(next.predecessor),
                };
                OpenReport::push(&mut self.report.missing, &mut self.report.omitted, missing);
            }
        }
        self.links.push(link);
        true
    }

    /// Of files for the same numbers, the one that was rewritten last counts.
    fn drop_older_generations(&mut self, dir: &Dir, files: &mut Vec<Candidate>) -> Result<(), LogError> {
        files.sort_by_key(|f| (f.name.first, u64::MAX - f.name.last, u32::MAX - f.name.generation));
        let mut cover: Option<SegmentName> = None;
        let mut newer = Vec::new();
        let older = files.extract_if(.., |file| {
            let name = file.name;
            let is_older = cover.is_some_and(|c| c.last >= name.last && c.generation > name.generation);
            if !is_older && file.header().is_some() && cover.is_none_or(|c| name.last >= c.last) {
                cover = Some(name);
            }
            newer.extend(cover.filter(|_| is_older));
            is_older
        });
        let older: Vec<Candidate> = older.collect();
        for (file, newer) in older.into_iter().zip(newer) {
            self.replaced.push(Replaced {
                older: file.path.clone(),
                newer: dir.segment(&newer),
            });
            if file.unread.is_some() {
                self.settle(&file.path, Some(Fate::Move));
            } else {
                self.put_aside(dir, &file)?;
            }
        }
        Ok(())
    }

    /// The header of a file that has none, if its blocks say that something in it was promised.
    fn rebuild_header(
        &mut self,
        dir: &Dir,
        file: &Candidate,
        successor: Option<&Header>,
        older: &[Candidate],
    ) -> Result<Option<Header>, LogError> {
        let fate = self.judge(dir, file)?;
        let rebuilt = match fate {
            None | Some(Fate::Remove) => None,
            Some(Fate::KeepAside(_) | Fate::Move) => self.header_from_blocks(dir, file, successor, older)?,
        };
        if rebuilt.is_none() {
            if let Some(next) = successor.filter(|next| next.predecessor == file.name.last) {
                // It was promised whole, and nothing of it can be placed. Never removed.
                let before = older.iter().rev().find_map(|f| f.header());
                self.report.add_damage(Damage {
                    kind: DamageKind::Header,
                    file: file.path.clone(),
                    position: 0,
                    len: header::MIN_BYTES as u64,
                    from: Lsn(before.map_or(0, |header| header.base)),
                    to: Lsn(next.base),
                });
                OpenReport::push(&mut self.report.kept, &mut self.report.omitted, file.path.clone());
            } else if let Some(error) = &file.unread {
                return Err(error.clone()); // perhaps a header is there, and says that this is the end of the log
            } else {
                self.settle(&file.path, fate);
            }
        }
        Ok(rebuilt)
    }

    fn report_header(&mut self, file: &Path, header: &Header, kind: DamageKind) {
        self.report.add_damage(Damage {
            kind,
            file: file.to_owned(),
            position: 0,
            len: header::MIN_BYTES as u64,
            from: Lsn(header.base),
            to: Lsn(header.base),
        });
    }

    /// Reads the last segment.
    fn find_end(&mut self, dir: &Dir) -> Result<(), LogError> {
        let Some(last) = &self.links.last().cloned() else {
            return Ok(());
        };
        if last.header.rewritten.is_some() {
            return Ok(());
        }
        let read = |e| LogError::io("read", &last.path, e);
        let (file, limit) = dir.open_to_look(&last.path)?;
        let mut window = Window::new();
        let mut damage = Vec::new();
        let source = self.source(&*file, &last.header, limit);
        let mut omitted = 0;
        let found = tail::scan_tail(&source, &mut window, |bad| {
            OpenReport::push(&mut damage, &mut omitted, damage_of(bad, last));
        });
        let mut tail = found.map_err(read)?;
        refuse_newer(&last.path, window.newer())?;
        for sector in window.unreadable() {
            let header = &last.header;
            let lsn = |at: u64| Lsn(header.lsn_of(at.max(u64::from(header.header_bytes))));
            self.report.add_damage(Damage {
                kind: DamageKind::Unreadable,
                file: last.path.clone(),
                position: *sector,
                len: SECTOR,
                from: lsn(*sector),
                to: lsn(sector + SECTOR),
            });
            tail.damaged = true;
        }
        self.has_unreadable = !window.unreadable().is_empty();
        if self.has_torn_header && (tail.clean || tail.proven.lsn > last.header.base) {
            self.report_header(&last.path, &last.header, DamageKind::HeaderCopy);
        }
        if tail.behind > 0 {
            self.report.cut = Some(Cut {
                file: last.path.clone(),
                position: tail.after,
                lsn: Lsn(tail.end.lsn),
                bytes: tail.behind,
            });
        }
        self.report.scanned += window.read();
        self.report.clean = tail.clean;
        self.report.omitted += omitted;
        self.tail = Some(tail);
        damage.into_iter().for_each(|damage| self.report.add_damage(damage));
        Ok(())
    }

    /// Reads every byte that the search for the end did not need. Beside a writer, a segment that goes away meanwhile is taken as
    /// retired.
    pub(crate) fn verify(&mut self, dir: &Dir, access: Access) -> Result<(), LogError> {
        let mut window = Window::new();
        let whole = self.links.len() - usize::from(self.tail.is_some());
        for index in 0..whole {
            let link = self.links[index].clone();
            let read = |e| LogError::io("read", &link.path, e);
            let (file, limit) = match dir.open_to_look(&link.path) {
                Err(error) if access == Access::Read && beside::is_gone(&error) => continue,
                opened => opened?,
            };
            let header = &link.header;
            // Where nobody knows the end, nobody can say that something is missing there.
            let end = match (header.rewritten, link.end) {
                (Some(rewritten), _) => header.lsn_of(rewritten.used),
                (None, Some(end)) => end,
                (None, None) => continue,
            };
            let mut found = Vec::new();
            window.reset();
            let source = self.source(&*file, header, limit.max(header.position_of(end)));
            let mut omitted = 0;
            let checked = tail::verify(&source, &mut window, end, |bad| {
                OpenReport::push(&mut found, &mut omitted, damage_of(bad, &link));
            });
            checked.map_err(read)?;
            refuse_newer(&link.path, window.newer())?;
            if access == Access::Read
                && !found.is_empty()
                && beside::what_became_of(dir, &Segment::new(&link), Some(&*file))? != Became::Unchanged
            {
                continue;
            }
            self.report.omitted += omitted;
            found.into_iter().for_each(|damage| self.report.add_damage(damage));
        }
        self.report.scanned += window.read();
        Ok(())
    }

    pub(super) fn source<'a>(&self, file: &'a dyn VfsFile, header: &'a Header, limit: u64) -> Source<'a> {
        Source {
            file,
            header,
            log_mix: crc::mix_log(self.log_id.unwrap_or_default()),
            limit,
        }
    }

    fn summarise(&mut self) {
        let report = &mut self.report;
        report.log_id = self.log_id.unwrap_or_default();
        report.segments = self.links.len();
        report.first = Lsn(self.links.first().map_or(0, |link| link.header.base));
        let end = self.tail.map(|tail| tail.end.lsn);
        let end = end.or_else(|| self.links.last().and_then(|link| link.end));
        report.end = Lsn(end.unwrap_or(0));
        if let Some(last) = self.links.last_mut() {
            last.end = end;
        }
    }
}

/// Names a damaged place of a segment.
pub(crate) fn damage_of(bad: Bad, link: &Link) -> Damage {
    let (kind, position, len) = match bad {
        Bad::Blocks { position, len } => (DamageKind::Blocks, position, len),
        Bad::Chain { position, len } => (DamageKind::Chain, position, len),
        Bad::Record {
            position,
            len,
            topic,
            offset,
        } => (DamageKind::Record { topic, offset }, position, len),
    };
    Damage {
        kind,
        file: link.path.clone(),
        position,
        len,
        from: Lsn(link.header.lsn_of(position)),
        to: Lsn(link.header.lsn_of(position + len)),
    }
}

pub(super) fn blank_header(log_id: u128, name: &SegmentName) -> Header {
    Header {
        log_id,
        first: name.first,
        last: name.last,
        generation: name.generation,
        epoch: 0,
        base: 0,
        predecessor: 0,
        chain: 0,
        header_bytes: Header::bytes_for(8),
        align: 8,
        fill: Fill::Zeros,
        rewritten: None,
    }
}
