//! Opening a log: look, decide, repair, and put the parts together.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use super::beside::{self, Seen};
use super::block;
use super::dir::Dir;
use super::error::LogError;
use super::name;
use super::options::{Access, Background, LogOptions, OnDamage, Prewrite, Survives, Verify};
use super::recover::{self, Plan};
use super::repair;
use super::report::OpenReport;
use super::segment::{self, Segment, Table};
use super::shared::{Parts, Shared, Tip};
use super::spare::Spares;
use super::vfs::{Open, Vfs};
use super::worker;
use super::writer::Writer;
use crate::sync::{Arc, thread};

/// A log that was just opened.
pub(crate) struct OpenedLog {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Option<thread::JoinHandle<()>>,
    pub(crate) report: OpenReport,
}

pub(crate) fn open(vfs: Arc<dyn Vfs>, root: &Path, options: LogOptions) -> Result<OpenedLog, LogError> {
    options.validate()?;
    let dir = Dir::new(vfs, root);
    match options.access {
        Access::Read => open_to_read(dir, options),
        Access::Write => open_to_write(dir, options),
    }
}

fn open_to_write(dir: Dir, options: LogOptions) -> Result<OpenedLog, LogError> {
    dir.make()?;
    let lock = dir.lock()?;
    let mut plan = recover::look(&dir)?;
    check(&mut plan, &dir, &options)?;
    let salt = options.seed.unwrap_or_else(random);
    let fresh = repair::repair(&dir, &mut plan, &options, salt)?;
    let active = Arc::new(Segment::active(&fresh.link, Arc::clone(&fresh.file)));
    let mut segments: Vec<_> = plan.links.iter().map(|link| Arc::new(Segment::new(link))).collect();
    segments.push(Arc::clone(&active));
    let spares = Spares::new(plan.next_spare);
    for number in plan.spares.drain(..) {
        spares.adopt(&dir, number)?;
    }
    let report = plan.report;
    let can_prewrite = options.prewrite == Prewrite::Auto && options.survives == Survives::PowerLoss && !dir.vfs.copies_on_write(&dir.log);
    let has_thread = options.background == Background::Thread;
    let shared = Arc::new(Shared::new(Parts {
        log_id: report.log_id,
        epoch: report.epoch,
        table: Table::new(dir.clone(), segments, segment::MAX_OPEN),
        writer: Some(Writer::new(&fresh, active, plan.next_number)),
        tip: Tip {
            file: fresh.file,
            path: fresh.link.path,
            lsn: fresh.end.lsn,
        },
        spares,
        lock: Some(lock),
        can_prewrite,
        dir,
        options,
    }));
    let worker = has_thread.then(|| worker::start(&shared)).transpose()?;
    Ok(OpenedLog { shared, worker, report })
}

fn open_to_read(dir: Dir, options: LogOptions) -> Result<OpenedLog, LogError> {
    let Seen { mut plan, files } = beside::look(&dir)?;
    check(&mut plan, &dir, &options)?;
    let tip = match (plan.links.last(), files.last()) {
        (Some(last), Some(Some(file))) => Some((Arc::clone(file), last.path.clone())),
        _ => None,
    };
    // A log without segments has an identity at least.
    let (file, path) = match tip {
        Some(tip) => tip,
        None if plan.log_id.is_some() => {
            let meta = dir.root.join(name::META);
            (dir.open(&meta, Open::Read)?, meta)
        }
        None if !plan.report.damage.is_empty() => {
            let report = Box::new(plan.report);
            return Err(LogError::Refused { report });
        }
        None => return Err(LogError::NotFound { path: dir.root }),
    };
    let tip = Tip {
        file,
        path,
        lsn: plan.report.end.0,
    };
    let segments = plan.links.iter().zip(files).map(|(link, file)| Arc::new(Segment::held(link, file)));
    let shared = Arc::new(Shared::new(Parts {
        log_id: plan.report.log_id,
        epoch: 0,
        table: Table::new(dir.clone(), segments.collect(), beside::MOST_HELD),
        writer: None,
        tip,
        spares: Spares::new(plan.next_spare),
        lock: None,
        can_prewrite: false,
        dir,
        options,
    }));
    shared.shut(LogError::ReadOnly);
    Ok(OpenedLog {
        shared,
        worker: None,
        report: plan.report,
    })
}

/// Reads all of it if that was asked for, and refuses it if it is damaged and that was asked for.
fn check(plan: &mut Plan, dir: &Dir, options: &LogOptions) -> Result<(), LogError> {
    if options.verify == Verify::All {
        plan.verify(dir, options.access)?;
    }
    if options.on_damage == OnDamage::Refuse && !plan.report.damage.is_empty() {
        return Err(LogError::Refused {
            report: Box::new(plan.report.clone()),
        });
    }
    Ok(())
}

/// Randomness from the system, by the only door that `std` has to it.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

const _: () = assert!(block::ROOM >= block::HEAD, "a closing block fits before the bodies");
