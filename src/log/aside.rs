//! The quarantine: bytes that were cut off or could not be read, for whoever wants to look at them. The log never does.
//!
//! It holds so many files and bytes; then the oldest make room, and the report of the opening names them. What somebody else put there
//! stays, and does not count. Nothing is written over: what would have the name of another file gets a name of its own, unless it has the
//! same bytes. Nothing that one opening has put there makes room in the same opening: what finds none beside it stays
//! where it is, as does what cannot be copied, and is looked at again by the next opening.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::error::LogError;
use super::fate::Fate;
use super::name::Name;
use super::recover::Plan;
use super::report::OpenReport;
use super::vfs::{EntryKind, Open};
use super::window::Window;

/// The quarantine, as one opening uses it.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// What earlier openings have left there, with lengths, the oldest last. `None` until somebody asks.
    earlier: Option<Vec<(PathBuf, u64)>>,
    /// How many files, and bytes, this opening has put there.
    files: usize,
    bytes: u64,
}

impl Aside {
    /// Copies what will be cut or removed without being understood. What cannot be copied is left where it is, and is no longer in the
    /// plan. Tells whether the end that is cut off the last segment, if there is one, was copied.
    pub(crate) fn keep(&mut self, dir: &Dir, plan: &mut Plan) -> bool {
        let mut is_tail_kept = true;
        if let (Some(tail), Some(last)) = (plan.tail, plan.links.last())
            && tail.behind > 0
        {
            is_tail_kept = self.copy_or_leave(dir, &last.path, tail.after, tail.behind, &mut plan.report);
        }
        for (path, fate) in std::mem::take(&mut plan.rest) {
            let is_settled = match fate {
                Fate::KeepAside(len) => self.copy_or_leave(dir, &path, 0, len, &mut plan.report),
                Fate::Remove | Fate::Move => true,
            };
            if is_settled {
                plan.rest.push((path, fate));
            }
        }
        is_tail_kept
    }

    fn copy_or_leave(&mut self, dir: &Dir, path: &Path, from: u64, len: u64, report: &mut OpenReport) -> bool {
        let copied = self.has_room(len) && {
            self.thin_out(dir, len, report);
            match copy(dir, path, from, len) {
                Ok(copy) => {
                    self.put(&copy, len);
                    OpenReport::push(&mut report.quarantined, &mut report.omitted, copy);
                    true
                }
                Err(_) => false,
            }
        };
        if !copied {
            OpenReport::push(&mut report.kept, &mut report.omitted, path.to_owned());
        }
        copied
    }

    /// Moves a whole file that is replaced but may still be of use, if there is room.
    pub(crate) fn take(&mut self, dir: &Dir, path: PathBuf, report: &mut OpenReport) -> Result<(), LogError> {
        let len = dir.open(&path, Open::Read)?.len().map_err(|e| LogError::io("measure", &path, e))?;
        if !self.has_room(len) {
            OpenReport::push(&mut report.kept, &mut report.omitted, path);
            return Ok(());
        }
        self.thin_out(dir, len, report);
        dir.make_quarantine()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(target) = free_name(dir, &path, &name) else {
            OpenReport::push(&mut report.kept, &mut report.omitted, path);
            return Ok(());
        };
        if dir.is_free(&target)? {
            dir.rename(&path, &target)?;
        } else {
            dir.unlink(&path)?; // the same bytes are there, and nobody has synced these
        }
        dir.sync(&dir.quarantine)?;
        self.put(&target, len);
        OpenReport::push(&mut report.quarantined, &mut report.omitted, target);
        Ok(())
    }

    /// Tells whether that much more is within the limits beside what this opening has put there. The first always is.
    fn has_room(&self, len: u64) -> bool {
        self.files == 0 || (self.files < MAX_FILES && self.bytes.saturating_add(len) <= MAX_BYTES)
    }

    fn put(&mut self, path: &Path, len: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(len);
        if let Some(earlier) = &mut self.earlier {
            earlier.retain(|(other, _)| other != path); // the same bytes
        }
    }

    /// Removes the oldest files until one of that length is within the limits. Failing is no harm: there is more than there should be.
    fn thin_out(&mut self, dir: &Dir, len: u64, report: &mut OpenReport) {
        let earlier = self.earlier.get_or_insert_with(|| {
            let mut files = kept(dir);
            // Names begin with the number of a segment, so the smallest is the oldest.
            files.sort_unstable_by(|one, other| other.cmp(one));
            files
        });
        let mut bytes = earlier.iter().fold(self.bytes, |sum, (_, len)| sum.saturating_add(*len));
        while earlier.len() + self.files >= MAX_FILES || bytes.saturating_add(len) > MAX_BYTES {
            let Some((path, len)) = earlier.pop() else { return };
            if dir.unlink(&path).is_ok() {
                OpenReport::push(&mut report.discarded, &mut report.omitted, path);
            }
            bytes = bytes.saturating_sub(len);
        }
    }
}

fn copy(dir: &Dir, path: &Path, from: u64, len: u64) -> Result<PathBuf, LogError> {
    dir.make_quarantine()?;
    let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Recovery that is interrupted again and again makes the same copy, not another one.
    let tmp = dir.quarantine.join(format!("{stem}.{from}.tmp"));
    let written = write_copy(dir, path, from, len, &tmp);
    let named = written.and_then(|()| {
        let taken = io::ErrorKind::AlreadyExists.into();
        let copy = free_name(dir, &tmp, &format!("{stem}.{from}.bytes")).ok_or_else(|| LogError::io("rename", &tmp, taken))?;
        dir.rename(&tmp, &copy).map(|()| copy)
    });
    let copy = named.inspect_err(|_| drop(dir.unlink(&tmp)))?;
    dir.sync(&dir.quarantine)?;
    Ok(copy)
}

fn write_copy(dir: &Dir, path: &Path, from: u64, len: u64, copy: &Path) -> Result<(), LogError> {
    let source = dir.open(path, Open::Read)?;
    let target = dir.create(copy)?;
    let mut window = Window::new();
    let mut done = 0;
    while done < len {
        let read = window
            .fetch(&*source, from + done, 1, from + len)
            .map_err(|e| LogError::io("read", path, e))?;
        if read.is_empty() {
            break;
        }
        target.write_all_at(read, done).map_err(|e| LogError::io("write", copy, e))?;
        done += read.len() as u64;
    }
    target.sync_data().map_err(|e| LogError::io("sync", copy, e))?;
    Ok(())
}

/// A name in the quarantine that nothing has, or a file with the very bytes of this one. `None` if there are too many of that name.
fn free_name(dir: &Dir, file: &Path, name: &str) -> Option<PathBuf> {
    let mut names = (1..=MAX_FILES).map(|nth| match nth {
        1 => dir.quarantine.join(name),
        _ => dir.quarantine.join(format!("{name}.{nth}")),
    });
    // What cannot be looked at is not known to be the same.
    names.find(|path| dir.is_free(path).unwrap_or(false) || has_same_bytes(dir, file, path).unwrap_or(false))
}

fn has_same_bytes(dir: &Dir, one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (dir.vfs.open(one, Open::Read)?, dir.vfs.open(other, Open::Read)?);
    let len = one.len()?;
    let mut is_same = other.len()? == len;
    let (mut bytes, mut others) = (vec![0; PIECE], vec![0; PIECE]);
    let mut done = 0;
    while is_same && done < len {
        let piece = (len - done).min(PIECE as u64) as usize;
        one.read_exact_at(&mut bytes[..piece], done)?;
        other.read_exact_at(&mut others[..piece], done)?;
        is_same = bytes[..piece] == others[..piece];
        done += piece as u64;
    }
    Ok(is_same)
}

/// What the log has put into the quarantine, with lengths.
fn kept(dir: &Dir) -> Vec<(PathBuf, u64)> {
    let mut names = Vec::new();
    // No quarantine yet is an empty one.
    let _ = dir.vfs.list(&dir.quarantine, &mut |entry| {
        if entry.kind == EntryKind::File && names.len() < MAX_LISTED && is_ours(&entry.name.to_string_lossy()) {
            names.push(entry.name);
        }
    });
    let measured = names.into_iter().filter_map(|name| {
        let path = dir.quarantine.join(name);
        let len = dir.open(&path, Open::Read).ok()?.len().ok()?;
        Some((path, len))
    });
    measured.collect()
}

/// `<name>.<position>.bytes` for a copy, `.tmp` while it is made, `<name>` for a file that was moved; behind both a number from the
/// second of that name on.
fn is_ours(name: &str) -> bool {
    let name = match name.rsplit_once('.') {
        Some((first, nth)) if nth.parse::<u64>().is_ok() => first,
        _ => name,
    };
    let copied = name.strip_suffix(".bytes").or_else(|| name.strip_suffix(".tmp"));
    let copied = copied.and_then(|rest| rest.rsplit_once('.'));
    let name = match copied {
        Some((name, position)) if position.parse::<u64>().is_ok() => name,
        _ => name,
    };
    Name::parse(name.as_ref()) != Name::Unknown
}

const MAX_FILES: usize = 256;
const MAX_BYTES: u64 = 256 << 20;
/// How much is compared at once.
const PIECE: usize = 64 << 10;
/// More names than this are not looked at by one opening.
const MAX_LISTED: usize = 4096;
