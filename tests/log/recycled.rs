//! Goal: a segment that is written into the file of a retired one ends where it ends, whatever older blocks are behind it, and its
//! report tells of nothing else (G6, G7; D2, D8).
//!
//! Method: a file full of valid blocks of the same log becomes the active segment; it is left at every fill, closed, killed and cut
//! off, and torn at every byte, with the older bytes, zeros or noise behind.

use std::path::PathBuf;
use std::sync::Arc;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Background, Level, Log, LogOptions, OpenReport, Record};

use crate::support::session::{DIR, read_all};

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1)
}

fn append(log: &Log, offset: u64, level: Level) {
    log.append(&[Record::new(1, offset, &[7; 200])], level).expect("the disk is fine");
}

fn with_ending(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    disk.files()
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == ending))
        .collect()
}

/// A block: head, one run, one record, its body, up to the alignment.
const BLOCK: usize = 72 + 24 + 8 + 200;

/// A log whose active segment was just begun, in the file of a retired one, and that file's bytes from before. Appending goes on with the
/// offset that comes with it; the log holds those from `FIRST` on.
struct Recycled {
    disk: SimDisk,
    log: Log,
    file: PathBuf,
    older: Vec<u8>,
    first: u64,
    next: u64,
}

/// With `reopened`, the file waits through a closing and an opening before it is used.
fn recycled(reopened: bool) -> Recycled {
    let disk = SimDisk::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine").0;
    let mut next = 0;
    let mut roll = |log: &Log| {
        let rolls = log.stats().rolls;
        while log.stats().rolls == rolls {
            append(log, next, Level::Synced);
            next += 1;
        }
        next
    };
    for _ in 0..4 {
        roll(&log);
    }
    // No spare is ready just behind a roll.
    assert!(with_ending(&disk, "spare").is_empty());
    log.retire(log.segments()[0].first).expect("sealed");
    let spare = with_ending(&disk, "spare").pop().expect("the file is used again");
    let older = disk.read(&spare).expect("it is there");
    assert!(older[1024..].chunks(BLOCK).next().is_some_and(|block| block[..4] != [0; 4]));
    if reopened {
        log.close().expect("closed");
        log = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine").0;
    }
    let next = roll(&log);
    let file = with_ending(&disk, "log").pop().expect("the active one");
    let bytes = disk.read(&file).expect("it is there");
    assert_eq!(bytes[108], 1, "its header says that older blocks are in it");
    assert_eq!(bytes[1024 + BLOCK..], older[1024 + BLOCK..], "and so they are");
    let first = read_all(&log).expect("the disk is fine")[0].offset;
    assert!(first > 0);
    Recycled {
        disk,
        log,
        file,
        older,
        first,
        next,
    }
}

/// Opens what is left; tells the offsets.
fn opened(disk: &SimDisk) -> (Vec<u64>, OpenReport) {
    let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
    let found = read_all(&log).expect("no damage");
    assert!(found.iter().all(|record| record.body[..] == [7; 200]));
    (found.iter().map(|record| record.offset).collect(), report)
}

fn is_silent(report: &OpenReport) -> bool {
    let lists = [&report.quarantined, &report.discarded, &report.kept, &report.unknown];
    report.damage.is_empty() && report.missing.is_empty() && report.cut.is_none() && lists.iter().all(|list| list.is_empty())
}

#[test]
fn the_older_blocks_in_a_recycled_file_are_neither_read_nor_reported() {
    for reopened in [false, true] {
        for more in 0..8 {
            for closes in [false, true] {
                let Recycled {
                    disk,
                    log,
                    first,
                    mut next,
                    ..
                } = recycled(reopened);
                for _ in 0..more {
                    append(&log, next, Level::Synced);
                    next += 1;
                }
                if closes {
                    log.close().expect("closed");
                } else {
                    drop(log);
                }
                let expected: Vec<_> = (first..next).collect();
                for cut in 0..6 {
                    let disk = disk.copy();
                    if cut > 0 {
                        disk.power_cut(cut);
                    }
                    let (found, report) = opened(&disk);
                    assert_eq!(found, expected, "{more} more, closed: {closes}, cut {cut}: {report:?}");
                    assert!(is_silent(&report), "{more} more, closed: {closes}, cut {cut}: {report:?}");
                    assert_eq!(report.clean, closes, "{more} more, cut {cut}: {report:?}");
                }
            }
        }
    }
}

#[test]
fn a_block_torn_in_a_recycled_file_is_cut_and_told_from_the_older_ones_behind_it() {
    for reopened in [false, true] {
        let Recycled {
            disk,
            log,
            file,
            older,
            first,
            mut next,
        } = recycled(reopened);
        for _ in 0..3 {
            append(&log, next, Level::Synced);
            next += 1;
        }
        let before = disk.read(&file).expect("it is there");
        append(&log, next, Level::Os);
        drop(log);
        disk.kill();
        let whole = disk.read(&file).expect("it is there");
        let start = 1024 + 4 * BLOCK;
        assert!(whole[..start] == before[..start] && before[start..] == older[start..]);
        assert_eq!(whole[start + BLOCK..], older[start + BLOCK..]);
        let expected: Vec<_> = (first..next).collect();
        for torn in 1..BLOCK {
            for how in ["older bytes", "zeros", "noise"] {
                let mut with = whole.clone();
                let rest = &mut with[start + torn..start + BLOCK];
                match how {
                    "older bytes" => rest.copy_from_slice(&older[start + torn..start + BLOCK]),
                    "zeros" => rest.fill(0),
                    _ => rest.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= i as u8 | 1),
                }
                if with == whole {
                    continue; // the older bytes are the same there
                }
                let disk = disk.copy();
                disk.put(&file, &with);
                let (found, report) = opened(&disk);
                let place = format!("{how} from byte {torn} on: {report:?}");
                assert_eq!(found, expected, "{place}");
                assert!(report.damage.is_empty() && report.missing.is_empty() && !report.clean, "{place}");
                if torn >= 72 {
                    let cut = report.cut.as_ref().unwrap_or_else(|| panic!("not reported: {place}"));
                    assert_eq!((cut.position, cut.bytes), (start as u64, BLOCK as u64), "{place}");
                    assert!(cut.file == file && cut.lsn == report.end, "{place}");
                    assert_eq!(report.quarantined.len(), 1, "{place}");
                    let aside = disk.read(&report.quarantined[0]).expect("it is kept aside");
                    assert_eq!(aside, with[start..start + BLOCK], "{place}");
                } else if report.cut.is_none() {
                    // Nothing says whose the bytes are: then they are older ones.
                    assert!(report.quarantined.is_empty(), "{place}");
                }
            }
        }
    }
}
