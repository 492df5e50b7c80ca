//! Goal: nothing that the log did not make is ever written over, whatever name it bears (G7).
//!
//! Method: strange files and directories get the very names that a log is going to need: for a segment to come, a spare, a new
//! generation, a copy in the quarantine. The log does what it was asked to, and the strangers are what they were.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::SimDisk;
use ringmq::log::vfs::{Open, Vfs};
use ringmq::log::{Background, Level, Log, LogError, LogOptions, OpenReport, Prewrite, Record};

use crate::support::session::{DIR, read_all};

const STRANGE: &[u8] = b"not of the log";

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1)
}

fn open(disk: &SimDisk) -> (Log, OpenReport) {
    open_with(disk, options())
}

fn open_with(disk: &SimDisk, options: LogOptions) -> (Log, OpenReport) {
    Log::open(Arc::new(disk.clone()), DIR, options).expect("the disk is fine")
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

fn other(number: u64, suffix: &str) -> PathBuf {
    Path::new(DIR).join(format!("log/{number:016x}.{suffix}"))
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

/// Symptom: a strange file that came while the log was open was gone after a roll. Cause: the spare was renamed to the name of the next
/// segment, and a spare to the next number, whoever had it. Fix: both pass over names that something has.
#[test]
fn segments_and_spares_to_come_pass_over_names_that_are_taken() {
    for prewrite in [Prewrite::Auto, Prewrite::Never] {
        let disk = SimDisk::new(1);
        let (log, _) = open_with(&disk, options().prewrite(prewrite));
        append(&log, 0..2);
        let next = log.segments().last().expect("one is being written").last + 1;
        let strangers: Vec<PathBuf> = [
            segment(next, 0),
            segment(next + 1, 0),
            segment(next + 3, 0),
            other(3, "spare"),
            other(4, "tmp"),
            other(6, "spare"),
        ]
        .into();
        for stranger in &strangers {
            disk.put(stranger, STRANGE);
        }
        append(&log, 2..60);
        let oldest = log.segments()[0];
        log.retire(oldest.first).expect("the disk is fine"); // used again, perhaps
        append(&log, 60..80);
        assert!(log.segments().len() > 5);
        assert_untouched(&disk, &strangers);
        let kept: Vec<u64> = offsets(&log);
        assert_eq!(kept, (80 - kept.len() as u64..80).collect::<Vec<_>>());
        log.close().expect("closed");
        let (log, report) = open_with(&disk, options().prewrite(prewrite));
        assert_eq!(offsets(&log), kept, "{report:?}");
        assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    }
}

/// Symptom: a directory with the name of the next segment kept a log from being opened. Cause: only files count for what the next
/// number is. Fix: a name that anything has is passed over.
#[test]
fn a_directory_with_the_name_of_a_file_to_come_is_no_obstacle() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk);
    append(&log, 0..20);
    let next = log.segments().last().expect("one is being written").last + 1;
    log.close().expect("closed");
    disk.kill();
    let mut strangers = vec![segment(next, 0)];
    strangers.extend((1..20).flat_map(|number| [other(number, "spare"), other(number, "tmp")]));
    strangers.retain(|stranger| disk.read(stranger).is_none());
    for stranger in &strangers {
        disk.create_dir(stranger).expect("a directory can be made");
    }
    let (log, report) = open(&disk);
    assert_eq!(offsets(&log), (0..20).collect::<Vec<_>>());
    assert_eq!(report.unknown, sorted(strangers), "{report:?}");
    append(&log, 20..60);
    assert_eq!(offsets(&log), (0..60).collect::<Vec<_>>());
}

/// Symptom: spares stayed for ever, as files that nobody knows. Cause: a strange file had the highest number that a name can have, and theirs
/// were beyond it. Fix: such a number is not counted.
#[test]
fn a_spare_with_the_highest_number_does_not_use_up_the_names() {
    for suffix in ["spare", "tmp"] {
        let disk = SimDisk::new(1);
        let (log, _) = open(&disk);
        append(&log, 0..20);
        drop(log);
        disk.kill();
        disk.put(other(u64::MAX / 2 - 1, suffix), STRANGE);
        for session in 1..4 {
            let (log, report) = open(&disk);
            assert!(report.unknown.is_empty(), "{suffix}, {session}: {report:?}");
            append(&log, session * 20..session * 20 + 20);
            assert_eq!(offsets(&log), (0..session * 20 + 20).collect::<Vec<_>>());
            drop(log);
            disk.kill();
        }
    }
}

/// A crash at any call of a roll that passes over names finds all that was confirmed, and the strangers' bytes are somewhere.
#[test]
fn a_crash_while_names_are_passed_over_loses_neither_records_nor_strangers() {
    let mut crashes = 0;
    for (prewrite, bytes) in [Prewrite::Auto, Prewrite::Never]
        .into_iter()
        .flat_map(|p| [(p, STRANGE), (p, &[0; 3000][..]), (p, &[5; 3000][..])])
    {
        let disk = SimDisk::new(1);
        let (log, _) = open_with(&disk, options().prewrite(prewrite));
        append(&log, 0..4);
        let next = log.segments().last().expect("one is being written").last + 1;
        let strangers = [segment(next, 0), segment(next + 2, 0)];
        for stranger in &strangers {
            disk.put(stranger, bytes);
        }
        disk.record();
        let confirmed: Vec<u64> = (4..40)
            .map(|offset| {
                append(&log, offset..offset + 1);
                if offset == 25 {
                    log.retire(log.segments()[0].first).expect("sealed");
                }
                disk.calls()
            })
            .collect();
        let retired = offsets(&log)[0];
        for moment in disk.recorded() {
            let known = 4 + confirmed.iter().filter(|call| **call < moment.call).count() as u64;
            for cut in 0..4 {
                let disk = moment.disk.copy();
                if cut > 0 {
                    disk.power_cut(cut + moment.call);
                }
                let (log, report) = open_with(&disk, options().prewrite(prewrite));
                crashes += 1;
                let found = offsets(&log);
                let first = found.first().copied().unwrap_or(0);
                assert!(first == 0 || first == retired, "{found:?}");
                assert_eq!(found, (first..first + found.len() as u64).collect::<Vec<_>>());
                assert!(first + found.len() as u64 >= known, "{known} {found:?} {report:?}");
                assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
                let all: Vec<Vec<u8>> = disk.files().into_iter().filter_map(|file| disk.read(&file)).collect();
                assert!(bytes[0] == 0 || all.iter().any(|there| there == bytes), "{disk:?} {report:?}");
            }
        }
    }
    println!("{crashes} crashes");
}

fn sorted(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths
}

/// A disk with a closed log, and the stray file that the next opening has to keep aside.
fn with_stray(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk);
    append(&log, 0..3);
    log.close().expect("closed");
    disk.kill();
    disk.put(segment(500, 0), bytes);
    disk
}

fn quarantine(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(DIR).join("quarantine");
    let files = disk.files().into_iter().filter(|file| file.starts_with(&dir));
    files.map(|file| (file.clone(), disk.read(&file).expect("it is there"))).collect()
}

/// Symptom: what an opening had kept aside was gone. Cause: what a later one kept aside of a file of the same name was written over it,
/// or moved there. Fix: other bytes get a name of their own; the same bytes are not kept twice.
#[test]
fn what_was_kept_aside_before_is_not_written_over() {
    let disk = with_stray(&[1; 5000]);
    for (times, byte) in [(1, 1), (2, 2), (2, 2), (3, 3), (3, 1)] {
        disk.put(segment(500, 0), &[byte; 5000]);
        let (log, report) = open(&disk);
        assert_eq!(report.quarantined.len(), 1, "{report:?}");
        assert!(disk.read(&report.quarantined[0]) == Some(vec![byte; 5000]), "{report:?}");
        assert_eq!(offsets(&log), [0, 1, 2]);
        let kept: Vec<u8> = quarantine(&disk).iter().map(|(_, bytes)| bytes[0]).collect();
        assert_eq!(kept, (1..=times).collect::<Vec<u8>>(), "each once: {disk:?}");
        log.close().expect("closed");
        disk.kill();
    }
}

#[test]
fn what_was_moved_aside_before_is_not_replaced() {
    for older in [&b"moved here before"[..], &[9; 6000]] {
        let disk = with_stray(&[1; 6000]);
        assert!(disk.break_sector(segment(500, 0), 5120), "it is moved, not copied");
        let there = Path::new(DIR).join("quarantine").join(segment(500, 0).file_name().expect("a name"));
        disk.put(&there, older);
        let (log, report) = open(&disk);
        assert_eq!(report.quarantined.len(), 1, "{report:?}");
        assert!(
            report.quarantined[0] != there && disk.read(&there).as_deref() == Some(older),
            "{report:?}"
        );
        assert_eq!(offsets(&log), [0, 1, 2]);
        assert_eq!(quarantine(&disk).len(), 2, "{disk:?}");
        assert_eq!(disk.read(segment(500, 0)), None);
    }
}

/// Symptom: a power cut took what had been kept aside, and was on the device. Cause: another file with the same bytes was moved to its name,
/// and its own were not on the device. Fix: what is there already is not moved again.
#[test]
fn what_was_moved_aside_before_is_not_replaced_by_the_same_bytes_that_may_not_last() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk);
    append(&log, 0..20);
    let bytes = disk.read(segment(log.segments()[0].first, 0)).expect("a segment");
    log.close().expect("closed");
    disk.kill();
    disk.put(segment(500, 0), &bytes); // it says that its name is not its own, so it is moved
    let (log, report) = open(&disk);
    assert_eq!(report.quarantined.len(), 1, "{report:?}");
    log.close().expect("closed");
    disk.kill();
    disk.settle();
    let again = disk.open(&segment(500, 0), Open::Create).expect("the name is free");
    again.write_all_at(&bytes, 0).expect("the disk is fine");
    drop(again);
    let (_, second) = open(&disk);
    assert_eq!((&second.quarantined, disk.read(segment(500, 0))), (&report.quarantined, None));
    for cut in 0..10 {
        let disk = disk.copy();
        disk.power_cut(cut);
        assert!(disk.read(&report.quarantined[0]) == Some(bytes.clone()), "cut {cut}");
    }
}

/// What has the name of a copy need not be a file, and one that was interrupted leaves nothing that is in the way.
#[test]
fn a_directory_in_the_quarantine_is_no_obstacle() {
    let disk = with_stray(&[1; 5000]);
    let dir = Path::new(DIR).join("quarantine");
    disk.create_dir(&dir).expect("a directory can be made");
    let name = segment(500, 0).file_name().expect("a name").to_string_lossy().into_owned();
    disk.create_dir(&dir.join(format!("{name}.0.bytes")))
        .expect("a directory can be made");
    let (log, report) = open(&disk);
    assert_eq!(offsets(&log), [0, 1, 2]);
    assert_eq!((report.quarantined.len(), report.kept.len()), (1, 0), "{report:?}");
    let kept: Vec<Vec<u8>> = quarantine(&disk).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(kept == [vec![1; 5000]], "{disk:?}");
}
