//! Goal: a device that fails while a log is opened is no damage: opening goes on, or says which file could not be read and why, and the next
//! one finds everything (G6, G7; D14, D16).
//!
//! Method: each read of an opening fails in each way, once or from then on, for the whole disk or for one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::{Background, Level, Log, LogError, LogOptions, OpenReport, Record, Verify};

use crate::support::session::{DIR, read_all};
use crate::support::watched::Watched;

fn options(verify: Verify) -> LogOptions {
    LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(4096, 8192)
        .seed(3)
        .verify(verify)
}

const COUNT: u64 = 40;

/// A log of some segments and a spare, closed or killed.
fn made(closed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options(Verify::Tail)).expect("the disk is fine");
    for offset in 0..COUNT {
        let level = if offset % 3 == 2 { Level::Synced } else { Level::Os };
        log.append(&[Record::new(1, offset, &[offset as u8; 300])], level)
            .expect("the disk is fine");
    }
    if closed {
        log.close().expect("the disk is fine");
    }
    disk.kill();
    disk.settle();
    disk
}

fn made_in_each_way() -> impl Iterator<Item = (SimDisk, Verify)> {
    [true, false]
        .into_iter()
        .flat_map(|closed| [(made(closed), Verify::Tail), (made(closed), Verify::All)])
}

fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files()
        .into_iter()
        .map(|file| (file.clone(), disk.read(&file).expect("it is there")))
        .collect()
}

fn finds_everything(log: &Log, place: &str) {
    let found = read_all(log).unwrap_or_else(|e| panic!("{place}: {e}"));
    assert!(found.iter().map(|record| record.offset).eq(0..COUNT), "{place}: {found:?}");
}

fn opens_and_finds_everything(disk: &SimDisk, place: &str) {
    let opened = Log::open(Arc::new(disk.clone()), DIR, options(Verify::All));
    let (log, report) = opened.unwrap_or_else(|e| panic!("{place}: the next opening fails: {e}"));
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{place}: {report:?}");
    finds_everything(&log, place);
}

/// An opening that failed said which file it could not read, and why, and took nothing away.
fn is_honest(error: &LogError, before: &BTreeMap<PathBuf, Vec<u8>>, disk: &SimDisk, why: &str, place: &str) -> PathBuf {
    let LogError::Io { operation, path, source } = error else {
        panic!("{place}: {error}");
    };
    assert!(
        *operation == "read" && source.to_string().contains(why),
        "{place}: {error}: {source}"
    );
    assert!(before.contains_key(path), "{place}: {error}");
    let after = files(disk);
    let is_spare = |file: &Path| file.extension().is_some_and(|e| e == "spare");
    if !is_spare(path) {
        // Spares are looked at last, when the new segment has its name.
        assert!(
            before.iter().all(|(file, bytes)| after.get(file) == Some(bytes)),
            "{place}: {error}"
        );
        let is_temporary = |file: &PathBuf| file.extension().is_some_and(|e| e == "tmp");
        assert!(
            after.keys().all(|file| before.contains_key(file) || is_temporary(file)),
            "{place}: {error}"
        );
    }
    path.clone()
}

/// Opens without a fault; tells what was reported, and the file of each read.
fn plain(disk: &SimDisk, verify: Verify) -> (OpenReport, Vec<PathBuf>) {
    let view = Watched::new(&disk.copy());
    let (log, report) = Log::open(Arc::new(view.clone()), DIR, options(verify)).expect("the disk is fine");
    let reads = view.reads();
    finds_everything(&log, "without a fault");
    (report, reads)
}

#[test]
fn a_read_that_fails_once_or_is_short_or_interrupted_is_not_noticed() {
    for (made, verify) in made_in_each_way() {
        let (expected, reads) = plain(&made, verify);
        assert!(reads.iter().any(|file| file.ends_with("META")) && reads.len() >= 6, "{reads:?}");
        for k in 1..=reads.len() as u64 {
            for fault in [
                Fault::Eio,
                Fault::Interrupted,
                Fault::Short(1),
                Fault::Short(100),
                Fault::Short(600),
            ] {
                let disk = made.copy();
                disk.fail(Op::Read, k, fault);
                let place = format!("{fault:?} at read {k}, of {}", reads[k as usize - 1].display());
                let opened = Log::open(Arc::new(disk.clone()), DIR, options(verify));
                let (log, report) = opened.unwrap_or_else(|e| panic!("{place}: {e}"));
                assert_eq!(report, expected, "{place}");
                finds_everything(&log, &place);
            }
        }
    }
}

#[test]
fn a_device_that_dies_at_any_read_of_an_opening_is_named_and_changes_nothing() {
    let mut named = BTreeMap::new();
    for (made, verify) in made_in_each_way() {
        let before = files(&made);
        let reads = plain(&made, verify).1;
        for k in 1..=reads.len() as u64 {
            let disk = made.copy();
            disk.fail_from(Op::Read, k, Fault::Eio);
            let place = format!("dead from read {k} on, of {}", reads[k as usize - 1].display());
            match Log::open(Arc::new(disk.clone()), DIR, options(verify)) {
                Ok((_, report)) => assert!(report.damage.is_empty(), "{place}: {report:?}"),
                Err(error) => {
                    let file = is_honest(&error, &before, &disk, "device failed", &place);
                    *named.entry(file.file_name().map(PathBuf::from)).or_insert(0) += 1;
                }
            }
            disk.heal();
            disk.kill();
            opens_and_finds_everything(&disk, &place);
        }
    }
    assert!(named.contains_key(&Some(PathBuf::from("META"))) && named.len() > 3, "{named:?}");
}

#[test]
fn a_file_that_stops_giving_anything_is_named_or_done_without() {
    let mut refused = 0;
    for (made, verify) in made_in_each_way() {
        let before = files(&made);
        let reads = plain(&made, verify).1;
        for file in before.keys() {
            for after in 0..=reads.iter().filter(|read| *read == file).count() as u64 {
                let disk = made.copy();
                let view = Watched::new(&disk);
                view.silence(file, after);
                let place = format!("{} is silent after {after} reads", file.display());
                match Log::open(Arc::new(view.clone()), DIR, options(verify)) {
                    // What it held is known from elsewhere, or it was not needed any more.
                    Ok((log, report)) => {
                        let is_lost = report.damage.iter().any(|damage| damage.file == *file);
                        assert!(report.damage.is_empty() || is_lost, "{place}: {report:?}");
                        drop(log);
                    }
                    Err(error) => {
                        refused += 1;
                        let named = is_honest(&error, &before, &disk, "silent", &place);
                        assert_eq!(named, *file, "{place}");
                    }
                }
                disk.kill();
                let opened = Log::open(Arc::new(disk.clone()), DIR, options(verify));
                let (log, _) = opened.unwrap_or_else(|e| panic!("{place}: the next opening fails: {e}"));
                finds_everything(&log, &place);
            }
        }
    }
    assert!(refused > 4, "{refused}");
}
