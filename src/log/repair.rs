//! Doing what recovery found to be necessary, so that a crash in the middle of it loses nothing.
//!
//! Every opening for writing starts a segment of its own, whose header carries the new epoch and says where the log was
//! cut. Nothing is ever appended to a file that another opening wrote, so there is one path for a clean close, a killed
//! process and a power cut, and an epoch is durable before the first block that carries it.
//!
//! ```text
//! 1. keep aside what is cut           copy, sync, sync directory; and give names again that nothing proves (`renew`)
//! 2. write the new segment            as .tmp: header, blocks above the last proven LSN, zeros; sync
//! 3. give it its name                 rename, sync directory
//! 4. remove what it replaces          unlink, sync directory
//! ```
//!
//! Before 3 nothing has changed; after it, the old files are dead by rule, whether 4 happened or not. The blocks are
//! written again because nobody knows whether the device has them: after a failed sync the page cache shows bytes that
//! the device never got. For the same reason the new header continues from what is *proven*, never from what is visible.
//! They are synced while the rest is still copied (`output`), as opening waits for the last of them.
//! A small last segment is taken over whole, so that many short runs do not leave many small files.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use super::aside::Aside;
use super::crc;
use super::dir::Dir;
use super::error::LogError;
use super::fate::Fate;
use super::header::{Fill, Header};
use super::meta::Meta;
use super::name;
use super::options::{Background, LogOptions, Prewrite};
use super::output::Output;
use super::record::Lsn;
use super::recover::{Link, Plan};
use super::renew;
use super::report::Reappended;
use super::scan::{self, Source};
use super::tail::Boundary;
use super::vfs::{Open, VfsFile};
use super::window::Window;

/// The segment that an opening starts with.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) link: Link,
    pub(crate) file: Arc<dyn VfsFile>,
    /// Where the next block goes.
    pub(crate) end: Boundary,
    /// Bytes of the file that were written before, and so will not run out of space.
    pub(crate) written: u64,
    /// Where the segment is to end.
    pub(crate) capacity: u64,
}

/// Where the new segment continues the log.
#[derive(Debug)]
struct Start {
    predecessor: u64,
    base: Boundary,
    /// The old segment with the blocks to write again, and where they end.
    tail: Option<(Link, Boundary)>,
    /// Whether the new segment takes the place of that one.
    replaces: bool,
    align: u64,
}

/// Carries out a plan. What it returns is durable.
pub(crate) fn repair(dir: &Dir, plan: &mut Plan, options: &LogOptions, salt: u64) -> Result<Fresh, LogError> {
    if plan.next_number > name::LAST_NUMBER {
        return Err(LogError::TooLarge {
            what: "a segment number",
            size: plan.next_number,
            limit: name::LAST_NUMBER,
        });
    }
    let log_id = plan
        .log_id
        .unwrap_or_else(|| u128::from(crc::spread(salt)) << 64 | u128::from(crc::spread(!salt)));
    if !plan.meta_whole {
        write_meta(dir, log_id)?;
    }
    let epoch = ((plan.epoch_seen >> 32) + 1) << 32 | u64::from(crc::spread(salt ^ plan.epoch_seen) as u32);
    // Where an identity was lost, the log that is made now is not the first.
    plan.report.created = plan.log_id.is_none() && plan.report.damage.is_empty();
    plan.report.log_id = log_id;
    plan.report.epoch = epoch;
    let mut aside = Aside::default();
    let is_tail_kept = aside.keep(dir, plan);
    renew::renew(dir, plan)?; // the directory is synced when the new segment gets its name
    let start = Start::choose(plan, options);
    let fresh = make_segment(dir, plan, options, &start, log_id, epoch)?;
    if start.replaces {
        if let Some(old) = plan.links.pop()
            && is_tail_kept
        {
            let fate = if plan.has_unreadable { Fate::Move } else { Fate::Remove };
            plan.rest.push((old.path, fate));
        }
    } else if let Some(last) = plan.links.last_mut() {
        last.end = Some(start.base.lsn);
        last.end_chain = start.base.chain;
    }
    remove_dead(dir, plan, options, &mut aside)?;
    plan.report.end = Lsn(fresh.end.lsn);
    plan.report.first = Lsn(plan.links.first().map_or(fresh.link.header.base, |link| link.header.base));
    plan.report.segments = plan.links.len() + 1;
    Ok(fresh)
}

impl Start {
    fn choose(plan: &Plan, options: &LogOptions) -> Self {
        let nothing = Boundary {
            lsn: 0,
            position: 0,
            chain: Some(0),
        };
        let Some(last) = plan.links.last() else {
            return Self {
                predecessor: 0,
                base: nothing,
                tail: None,
                replaces: false,
                align: options.align,
            };
        };
        let Some(tail) = plan.tail else {
            let base = Boundary {
                lsn: last.end.unwrap_or(last.header.base),
                position: 0,
                chain: last.end_chain,
            };
            return Self {
                predecessor: last.header.last,
                base,
                tail: None,
                replaces: false,
                align: options.align,
            };
        };
        let is_small = !tail.damaged && tail.end.lsn - last.header.base <= options.first_segment;
        let replaces = is_small || tail.proven.lsn <= last.header.base;
        let base = if replaces {
            Boundary {
                lsn: last.header.base,
                position: u64::from(last.header.header_bytes),
                chain: Some(last.header.chain),
            }
        } else {
            tail.proven
        };
        let is_empty = base.lsn == tail.end.lsn;
        Self {
            predecessor: if replaces { last.header.predecessor } else { last.header.last },
            base,
            tail: (!is_empty).then(|| (last.clone(), tail.end)),
            replaces,
            // Written again, blocks keep their positions only if they keep their alignment.
            align: if is_empty { options.align } else { last.header.align },
        }
    }
}

fn write_meta(dir: &Dir, log_id: u128) -> Result<(), LogError> {
    let tmp = dir.root.join(name::META_TMP);
    let file = dir.create(&tmp)?;
    file.write_all_at(&Meta::encode(log_id), 0)
        .map_err(|e| LogError::io("write", &tmp, e))?;
    file.sync_data().map_err(|e| LogError::io("sync", &tmp, e))?;
    dir.rename(&tmp, &dir.root.join(name::META))?;
    dir.sync(&dir.root)
}

/// The new segment while it is being made.
struct Making<'a> {
    dir: &'a Dir,
    options: &'a LogOptions,
    start: &'a Start,
    header: Header,
    tmp: PathBuf,
}

/// What was made.
struct Written {
    file: Arc<dyn VfsFile>,
    end: Boundary,
    /// Bytes of the file that have their space.
    len: u64,
    capacity: u64,
    reappended: Option<Reappended>,
}

fn make_segment(dir: &Dir, plan: &mut Plan, options: &LogOptions, start: &Start, log_id: u128, epoch: u64) -> Result<Fresh, LogError> {
    let (name, path) = dir.free_segment(plan.next_number)?;
    let spare = dir.free_spare(plan.next_spare)?;
    plan.next_number = name.last + 1;
    plan.next_spare = spare + 1;
    let making = Making {
        dir,
        options,
        start,
        header: Header {
            log_id,
            first: name.first,
            last: name.last,
            generation: 0,
            epoch,
            base: start.base.lsn,
            predecessor: start.predecessor,
            chain: start.base.chain.unwrap_or(0),
            header_bytes: Header::bytes_for(start.align),
            align: start.align,
            fill: Fill::Zeros,
            rewritten: None,
        },
        tmp: dir.temporary(spare),
    };
    let is_prewritten = options.prewrite == Prewrite::Auto && !dir.vfs.copies_on_write(&dir.log);
    let written = match making.in_new_file(is_prewritten) {
        Err(error) if error.is_full() => making.in_spare(plan)?,
        other => other?,
    };
    plan.report.reappended = written.reappended;
    dir.rename(&making.tmp, &path)?;
    dir.sync_log()?;
    let link = Link {
        header: making.header,
        path,
        end: None,
        end_chain: None,
    };
    Ok(Fresh {
        link,
        file: written.file,
        end: written.end,
        written: written.len,
        capacity: written.capacity,
    })
}

impl Making<'_> {
    fn in_new_file(&self, is_prewritten: bool) -> Result<Written, LogError> {
        self.write_to(self.dir.create(&self.tmp)?, is_prewritten)
    }

    /// No space for another file: the space that was made ready for a segment to come is what it is for.
    ///
    /// All of it is written over. Older blocks may be left in files that get a number which no file had before; this
    /// number may have been tried by an opening that did not live to sync the directory.
    fn in_spare(&self, plan: &mut Plan) -> Result<Written, LogError> {
        self.dir.unlink(&self.tmp)?;
        let Some(number) = plan.spares.pop() else {
            // A smaller file may still fit.
            return self.in_new_file(false);
        };
        self.dir.rename(&self.dir.spare(number), &self.tmp)?;
        self.write_to(self.dir.open(&self.tmp, Open::Write)?, true)
    }

    fn write_to(&self, file: Arc<dyn VfsFile>, is_prewritten: bool) -> Result<Written, LogError> {
        let header = &self.header;
        let mut out = Output::new(&*file, &self.tmp, header.encode());
        let mut end = Boundary {
            lsn: header.base,
            position: u64::from(header.header_bytes),
            chain: Some(header.chain),
        };
        let mut reappended = None;
        if let Some((link, until)) = &self.start.tail {
            if self.options.background == Background::Thread && until.position - self.start.base.position >= SYNC_AHEAD {
                out.sync_ahead(&file);
            }
            let old = self.dir.open(&link.path, Open::Read)?;
            let (reached, report) = copy_blocks(&*old, link, self.start.base, *until, header, &mut out)?;
            end = reached;
            reappended = Some(report);
        }
        let used = end.position;
        let options = self.options;
        let capacity = options.first_segment.max((2 * used).min(options.max_segment)).max(used);
        let old_len = file.len().map_err(|e| LogError::io("measure", &self.tmp, e))?;
        let wanted = if is_prewritten { capacity.min(used + MAX_ZEROED) } else { used };
        let len = wanted.max(old_len);
        out.zeros(len)?;
        out.sync()?;
        Ok(Written {
            file,
            end,
            len,
            capacity,
            reappended,
        })
    }
}

/// Writes valid blocks again, for another segment.
fn copy_blocks(
    old: &dyn VfsFile,
    link: &Link,
    from: Boundary,
    until: Boundary,
    header: &Header,
    out: &mut Output<'_>,
) -> Result<(Boundary, Reappended), LogError> {
    let read = |e| LogError::io("read", &link.path, e);
    let log_mix = crc::mix_log(header.log_id);
    let source = Source {
        file: old,
        header: &link.header,
        log_mix,
        limit: old.len().map_err(read)?,
    };
    let mut window = Window::new();
    let mut position = from.position;
    let mut chain = header.chain;
    let mut report = Reappended {
        from: Lsn(from.lsn),
        to: Lsn(until.lsn),
        blocks: 0,
        records: 0,
        segment: header.first,
    };
    while position < until.position {
        let head = source.block(&mut window, position).map_err(read)?;
        let head = head.filter(|head| scan::is_whole(&window, position, head));
        // It was whole a moment ago.
        let mut head = head.ok_or_else(|| read(std::io::ErrorKind::InvalidData.into()))?;
        let len = head.len();
        let next = link.header.position_of(head.end(header.align));
        head.segment = header.first;
        head.epoch = header.epoch;
        head.durable = header.base;
        head.chain = chain;
        let at = out.buffer.len();
        out.buffer.extend_from_slice(&window.at_hand(position)[..len]);
        chain = head.reseal(&mut out.buffer[at..at + head.front()], log_mix);
        out.buffer.resize(at + (next - position) as usize, 0);
        out.flush_if_large()?;
        report.blocks += 1;
        report.records += u64::from(head.records);
        position = next;
    }
    let end = Boundary {
        lsn: until.lsn,
        position: header.position_of(until.lsn),
        chain: Some(chain),
    };
    debug_assert_eq!(out.done + out.buffer.len() as u64, end.position);
    Ok((end, report))
}

/// Removes files that are dead, and spares that are more than enough.
fn remove_dead(dir: &Dir, plan: &mut Plan, options: &LogOptions, aside: &mut Aside) -> Result<(), LogError> {
    let mut is_changed = false;
    for (path, fate) in plan.rest.drain(..) {
        match fate {
            Fate::Move => aside.take(dir, path, &mut plan.report)?,
            Fate::Remove | Fate::KeepAside(_) => dir.unlink(&path)?,
        }
        is_changed = true;
    }
    let mut kept: Option<u64> = None;
    for number in std::mem::take(&mut plan.spares) {
        let path = dir.spare(number);
        let file = dir.open(&path, Open::Read)?;
        let len = file.len().map_err(|e| LogError::io("measure", &path, e))?;
        if kept.is_none() && (options.first_segment..=options.max_segment).contains(&len) {
            kept = Some(number);
        } else {
            dir.unlink(&path)?;
            is_changed = true;
        }
    }
    plan.spares = kept.into_iter().collect();
    if is_changed { dir.sync_log() } else { Ok(()) }
}

/// From how many bytes on that are written again the device is to begin with the first while the last are copied.
const SYNC_AHEAD: u64 = 4 << 20;
/// How many zeros an opening writes ahead. More would make it wait.
const MAX_ZEROED: u64 = 1 << 20;
