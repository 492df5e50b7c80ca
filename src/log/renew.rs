//! Giving a rewritten segment its name again, before the opening removes what it replaced.
//!
//! That both are there says that a rewriting was interrupted; perhaps by a sync of the directory that failed. Then the name is seen, and
//! no later sync brings it to the device: nothing may be built on that. So its bytes get the name once more, in one step. Where that
//! does not succeed the older files stay, dead by rule as before, and the next opening looks again.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::error::LogError;
use super::recover::Plan;
use super::report::OpenReport;
use super::vfs::Open;
use super::window::Window;

/// A file that was replaced, and the one that takes its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) older: PathBuf,
    pub(crate) newer: PathBuf,
}

/// What this has renamed is for the caller to sync.
pub(crate) fn renew(dir: &Dir, plan: &mut Plan) -> Result<(), LogError> {
    let replaced = std::mem::take(&mut plan.replaced);
    for of_one in replaced.chunk_by(|one, other| one.newer == other.newer) {
        let newer = &of_one[0].newer;
        let number = dir.free_spare(plan.next_spare)?;
        plan.next_spare = number + 1;
        let tmp = dir.temporary(number);
        if copy(dir, newer, &tmp).and_then(|()| dir.rename(&tmp, newer)).is_ok() {
            continue;
        }
        drop(dir.unlink(&tmp));
        for Replaced { older, .. } in of_one {
            plan.rest.retain(|(path, _)| path != older);
            OpenReport::push(&mut plan.report.kept, &mut plan.report.omitted, older.clone());
        }
    }
    Ok(())
}

/// Copies all of a file, or fails: what the device does not give is not taken for zeros here.
fn copy(dir: &Dir, from: &Path, to: &Path) -> Result<(), LogError> {
    let read = |e| LogError::io("read", from, e);
    let source = dir.open(from, Open::Read)?;
    let target = dir.create(to)?;
    let len = source.len().map_err(read)?;
    let mut window = Window::new();
    let mut done = 0;
    while done < len {
        let bytes = window.fetch(&*source, done, 1, len).map_err(read)?;
        if bytes.is_empty() {
            return Err(read(io::ErrorKind::UnexpectedEof.into()));
        }
        target.write_all_at(bytes, done).map_err(|e| LogError::io("write", to, e))?;
        done += bytes.len() as u64;
    }
    if !window.unreadable().is_empty() {
        return Err(read(io::ErrorKind::InvalidData.into()));
    }
    target.sync_data().map_err(|e| LogError::io("sync", to, e))
}
