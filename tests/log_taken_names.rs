//! Goal: nothing that the log did not make is ever written over, whatever name it bears (G7).
//!
//! Method: strange files get the very names that a log is going to need. The log does what it was asked to, and the strangers are what they were.
#![cfg(all(feature = "disk", feature = "testing"))]

mod log_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Background, Level, Log, LogError, LogOptions, OpenReport, Record};

use log_support::session::{DIR, read_all};

const STRANGE: &[u8] = b"not of the log";

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1)
}

fn open(disk: &SimDisk) -> (Log, OpenReport) {
    Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine")
}

fn append(log: &Log, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        log.append(&[Record::new(1, offset, &[7; 300])], Level::Synced)
            .expect("the disk is fine");
    }
}

fn offsets(log: &Log) -> Vec<u64> {
    read_all(log).expect("no damage").iter().map(|record| record.offset).collect()
}

fn segment(number: u64, generation: u32) -> PathBuf {
    Path::new(DIR).join(format!("log/{number:016x}-{number:016x}.{generation}.log"))
}

fn assert_untouched(disk: &SimDisk, strangers: &[PathBuf]) {
    for stranger in strangers {
        assert!(
            disk.read(stranger).as_deref() == Some(STRANGE),
            "{} is not what it was",
            stranger.display()
        );
    }
}

/// Symptom: a strange file was gone once its neighbours were rewritten. Cause: the new generation was renamed to a name that it had.
/// Fix: a name that something has is passed over.
#[test]
fn a_rewriting_passes_over_a_name_that_is_taken() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk);
    append(&log, 0..20);
    let first = log.segments()[0].first;
    let strangers = [segment(first, 1), segment(first, 2)];
    for stranger in &strangers {
        disk.put(stranger, STRANGE);
    }
    let rewrote = log.rewrite(first..first + 1, |tag, _| tag.offset > 2, |_, _, _| {});
    assert_eq!(rewrote.expect("another name is free").dropped, 3);
    assert_untouched(&disk, &strangers);
    assert_eq!(log.segments()[0].generation, 3);
    log.close().expect("closed");
    let (log, report) = open(&disk);
    assert_eq!(offsets(&log), (3..20).collect::<Vec<_>>(), "{report:?}");
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    assert_eq!(
        report.quarantined.len(),
        2,
        "what bears a name of the log is kept aside: {report:?}"
    );
}

#[test]
fn a_name_that_is_taken_while_a_rewriting_copies_is_left_to_who_has_it() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk);
    append(&log, 0..20);
    let segments = log.segments();
    let first = segments[0].first;
    let before = disk.files();
    let keep = |offset: u64| {
        disk.put(segment(first, 1), STRANGE);
        offset > 2
    };
    let refused = log.rewrite(first..first + 1, |tag, _| keep(tag.offset), |_, _, _| {});
    assert!(matches!(refused, Err(LogError::Io { .. })), "{refused:?}");
    assert_untouched(&disk, &[segment(first, 1)]);
    assert_eq!(log.segments(), segments);
    assert_eq!(disk.files().len(), before.len() + 1, "nothing else is left: {disk:?}");
    // Asked again, it passes over the name.
    let rewrote = log.rewrite(first..first + 1, |tag, _| tag.offset > 2, |_, _, _| {});
    assert_eq!(rewrote.expect("another name is free").dropped, 3);
    append(&log, 20..21);
    assert_eq!(offsets(&log), (3..21).collect::<Vec<_>>());
}
