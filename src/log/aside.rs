//! The quarantine: bytes that were cut off or could not be read, for whoever wants to look at them. The log never does.
//!
//! It holds so many files and bytes; then the oldest make room, and the report of the opening names them. What somebody else put there
//! stays, and does not count.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::error::LogError;
use super::name::Name;
use super::recover::{Fate, Plan};
use super::report::OpenReport;
use super::vfs::{EntryKind, Open};
use super::window::Window;

/// Copies what will be cut or removed without being understood. What cannot be copied is left where it is.
pub(crate) fn keep(dir: &Dir, plan: &mut Plan) {
    let mut wanted: Vec<(PathBuf, u64, u64)> = Vec::new();
    if let (Some(tail), Some(last)) = (plan.tail, plan.links.last())
        && tail.behind > 0
    {
        wanted.push((last.path.clone(), tail.after, tail.behind));
    }
    wanted.extend(plan.rest.iter().filter_map(|(path, fate)| match fate {
        Fate::KeepAside(len) => Some((path.clone(), 0, *len)),
        Fate::Remove | Fate::Move => None,
    }));
    for (path, from, len) in wanted {
        let report = &mut plan.report;
        thin_out(dir, len, report);
        match copy(dir, &path, from, len) {
            Ok(copy) => OpenReport::push(&mut report.quarantined, &mut report.omitted, copy),
            Err(_) => OpenReport::push(&mut report.kept, &mut report.omitted, path),
        }
    }
    let kept = &plan.report.kept;
    plan.rest.retain(|(path, _)| !kept.contains(path));
}

fn copy(dir: &Dir, path: &Path, from: u64, len: u64) -> Result<PathBuf, LogError> {
    dir.make_quarantine()?;
    let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Recovery that is interrupted again and again makes the same copy, not another one.
    let copy = dir.quarantine.join(format!("{stem}.{from}.bytes"));
    let source = dir.open(path, Open::Read)?;
    let target = dir.create(&copy)?;
    let mut window = Window::new();
    let mut done = 0;
    while done < len {
        let read = window
            .fetch(&*source, from + done, 1, from + len)
            .map_err(|e| LogError::io("read", path, e))?;
        if read.is_empty() {
            break;
        }
        target.write_all_at(read, done).map_err(|e| LogError::io("write", &copy, e))?;
        done += read.len() as u64;
    }
    target.sync_data().map_err(|e| LogError::io("sync", &copy, e))?;
    dir.sync(&dir.quarantine)?;
    Ok(copy)
}

/// Moves a whole file that is replaced but may still be of use.
pub(crate) fn take(dir: &Dir, path: &Path, report: &mut OpenReport) -> Result<PathBuf, LogError> {
    let len = dir.open(path, Open::Read)?.len().map_err(|e| LogError::io("measure", path, e))?;
    thin_out(dir, len, report);
    dir.make_quarantine()?;
    let name = path.file_name().unwrap_or_default();
    let target = dir.quarantine.join(name);
    dir.rename(path, &target)?;
    dir.sync(&dir.quarantine)?;
    Ok(target)
}

/// Removes the oldest files until one of that length is within the limits. Failing is no harm: there is more than there should be.
fn thin_out(dir: &Dir, len: u64, report: &mut OpenReport) {
    let mut files = kept(dir);
    let mut bytes: u64 = files.iter().map(|(_, len)| len).sum();
    // Names begin with the number of a segment, so the smallest is the oldest.
    files.sort_unstable_by(|one, other| other.cmp(one));
    while files.len() >= MAX_FILES || bytes.saturating_add(len) > MAX_BYTES {
        let Some((path, len)) = files.pop() else { return };
        if dir.unlink(&path).is_ok() {
            OpenReport::push(&mut report.discarded, &mut report.omitted, path);
        }
        bytes -= len;
    }
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

/// `<name>.<position>.bytes` for a copy, `<name>` for a file that was moved.
fn is_ours(name: &str) -> bool {
    let copied = name.strip_suffix(".bytes").and_then(|rest| rest.rsplit_once('.'));
    let name = match copied {
        Some((name, position)) if position.parse::<u64>().is_ok() => name,
        _ => name,
    };
    Name::parse(name.as_ref()) != Name::Unknown
}

const MAX_FILES: usize = 256;
const MAX_BYTES: u64 = 256 << 20;
/// More names than this are not looked at by one opening.
const MAX_LISTED: usize = 4096;
