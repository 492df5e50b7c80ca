//! Looking at a log beside a writer, which renames, uses again and removes files meanwhile. Looks, and changes nothing.
//!
//! One look sees files of several moments: one that was listed is gone, another holds blocks of a later segment, a block is
//! there before the one that precedes it. So it is looked at again: until no file went away meanwhile, and until nothing is
//! damaged or missing, or two looks name the same. What a writer does not cause stays where it is; what it causes does not,
//! because numbers of segments are not used twice and nothing but their end is ever changed under their name.
//!
//! The files that were found are held open. A rewritten segment can then be read to its end as it was. A retired one can
//! until its file is used again, and from then on its bytes are wrong: but by then it has another name, which tells that from
//! damage. Of a log with more segments than may be held open, the rest is opened when it is read.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::sync::Arc;

use super::dir::Dir;
use super::error::LogError;
use super::recover::{self, Plan};
use super::segment::Segment;
use super::vfs::{Open, VfsFile};

/// What was seen, with the open files of the segments.
pub(crate) struct Seen {
    pub(crate) plan: Plan,
    pub(crate) files: Files,
}

/// A file for each segment. `None` stands for one that is not held open.
type Files = Vec<Option<Arc<dyn VfsFile>>>;

/// Looks until what is seen holds still, or often enough: then it is taken as the last two looks agree on it.
pub(crate) fn look(dir: &Dir) -> Result<Seen, LogError> {
    let mut before: Option<Plan> = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let mut plan = match recover::look(dir) {
            Err(error) if is_gone(&error) && looks < LOOKS => continue,
            looked => looked?,
        };
        let (files, is_held) = hold(dir, &plan)?;
        let is_still = is_held && !plan.is_moving && !has_more(dir, &plan)?;
        let is_sound = plan.report.damage.is_empty() && plan.report.missing.is_empty();
        let is_again = before.as_ref().is_some_and(|before| agree(before, &plan));
        if is_still && (is_sound || is_again) {
            return Ok(Seen { plan, files });
        }
        if let Some(before) = before.filter(|_| looks >= LOOKS) {
            plan.report.damage.retain(|damage| before.report.damage.contains(damage));
            plan.report.missing.retain(|missing| before.report.missing.contains(missing));
            return Ok(Seen { plan, files });
        }
        before = Some(plan);
    }
}

fn agree(one: &Plan, other: &Plan) -> bool {
    let (one, other) = (&one.report, &other.report);
    one.damage == other.damage && one.missing == other.missing
}

/// Opens the segments, and tells whether none of them went away.
fn hold(dir: &Dir, plan: &Plan) -> Result<(Files, bool), LogError> {
    let mut files = Vec::with_capacity(plan.links.len());
    let mut is_held = true;
    for link in plan.links.iter().take(MOST_HELD) {
        match dir.open(&link.path, Open::Read) {
            Ok(file) => files.push(Some(file)),
            Err(error) if is_gone(&error) => {
                files.push(None);
                is_held = false;
            }
            Err(error) => return Err(error),
        }
    }
    files.resize(plan.links.len(), None);
    Ok((files, is_held))
}

/// Tells whether there are segments now, before the last one that was seen, which were not listed then. A directory that changes
/// while it is listed may show neither the old name nor the new one.
fn has_more(dir: &Dir, plan: &Plan) -> Result<bool, LogError> {
    let last = plan.links.last().map_or(0, |link| link.header.last);
    let now = dir.list()?.segments;
    let is_new = |name: &super::name::SegmentName| name.first <= last && plan.listed.binary_search(name).is_err();
    Ok(now.iter().any(is_new))
}

/// What became of a segment whose file is not there, or holds other bytes than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It is where it was.
    Unchanged,
    /// Its name is gone, and with it what it held.
    Retired,
    /// Another file holds what is left of it.
    Rewritten,
}

/// Looks what became of a segment.
pub(crate) fn what_became_of(dir: &Dir, segment: &Segment, file: Option<&dyn VfsFile>) -> Result<Became, LogError> {
    let named = match dir.open(&segment.path, Open::Read) {
        Err(error) if is_gone(&error) => None,
        opened => Some(opened?),
    };
    let identity = |file: &dyn VfsFile| file.identity().map_err(|e| LogError::io("look at", &segment.path, e));
    if let Some(named) = named {
        let is_same = match file {
            Some(file) => identity(file)? == identity(&*named)?,
            None => true,
        };
        return Ok(if is_same { Became::Unchanged } else { Became::Retired });
    }
    let header = &segment.header;
    let covers =
        |name: &super::name::SegmentName| name.first <= header.first && name.last >= header.last && name.generation > header.generation;
    let is_rewritten = dir.list()?.segments.iter().any(covers);
    Ok(if is_rewritten { Became::Rewritten } else { Became::Retired })
}

/// Tells whether an error says that a file is not there.
pub(crate) fn is_gone(error: &LogError) -> bool {
    matches!(error, LogError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// How often the files are looked at, at most.
const LOOKS: u32 = 100;
/// How many segments are held open. Processes may have 1,024 files open as a rule.
pub(crate) const MOST_HELD: usize = 256;
