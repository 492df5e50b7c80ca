//! Goal: a reader in a segment reads it to its end as it was, whatever becomes of the file meanwhile (D20).
//!
//! Method: readers stop in the middle of every segment; all sealed segments are retired or rewritten and their files used
//! again; then each reader goes on. Once on the simulated disk, once with threads on the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringmq::log::sim::SimDisk;
use ringmq::log::vfs::{StdVfs, Vfs};
use ringmq::log::{Background, Item, Level, Log, LogError, LogOptions, Reader, Record};

use crate::support::records::{Stop, body, walk};
use crate::support::scratch::Scratch;
use crate::support::session::DIR;

fn append(log: &Log, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        log.append(&[Record::new(1, offset, &body(offset))], Level::Os).unwrap();
    }
}

/// The next record's position in its stream; its bytes must be its own.
fn next(reader: &mut Reader) -> Option<u64> {
    match reader.next().unwrap()? {
        Item::Record(record) => {
            assert_eq!(record.body, body(record.tag.offset));
            Some(record.tag.offset)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_in_a_segment_that_is_retired_recycled_and_written_again_reads_what_was_there() {
    for rewrites in [false, true] {
        let vfs: Arc<dyn Vfs> = Arc::new(SimDisk::new(1));
        let options = LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
        let (log, _) = Log::open(vfs, DIR, options).unwrap();
        append(&log, 0..120);
        let sealed: Vec<_> = log.segments().into_iter().filter(|s| s.is_sealed).collect();
        assert!(sealed.len() > 5);
        let mut parked: Vec<_> = sealed
            .iter()
            .map(|segment| {
                let mut reader = log.reader(segment.from).unwrap().until(segment.to);
                let first = next(&mut reader).unwrap();
                let second = next(&mut reader).unwrap();
                assert_eq!(second, first + 1);
                (reader, second)
            })
            .collect();
        for segment in &sealed {
            if rewrites {
                log.rewrite(segment.first..segment.last + 1, |tag, _| tag.offset % 7 == 0, |_, _, _| {})
                    .unwrap();
            } else {
                log.retire(segment.first).unwrap();
            }
            append(&log, 1000..1006); // takes whatever file was made free
        }
        append(&log, 1000..1120);
        for (index, (reader, at)) in parked.iter_mut().enumerate() {
            let mut expected = *at + 1;
            while let Some(found) = next(reader) {
                assert_eq!(found, expected, "segment {index}");
                expected += 1;
            }
            assert!(expected > *at + 5, "segment {index} ended early, at {expected}");
        }
    }
}

/// The files of the log by their numbers in the file system.
#[cfg(unix)]
fn inodes(dir: &std::path::Path, suffix: &str) -> Vec<u64> {
    use std::os::unix::fs::DirEntryExt;
    let entries = std::fs::read_dir(dir.join("log")).unwrap().map(Result::unwrap);
    let of_that_kind = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
    of_that_kind.map(|entry| entry.ino()).collect()
}

/// With small blocks and with large ones, which nothing is written ahead for.
#[test]
#[cfg(unix)]
fn a_retired_segment_becomes_the_next_one_if_it_is_not_smaller_than_those_of_now() {
    for body in [vec![7; 1000], vec![7; 100_000]] {
        let dir = Scratch::new("recycled");
        let options = LogOptions::new()
            .segment_bytes(256 << 10, 1 << 20)
            .background(Background::Inline)
            .seed(1);
        let (log, _) = Log::open(Arc::new(StdVfs::new()), dir.path(), options).unwrap();
        let mut offset = 0;
        let mut roll = || {
            let before = log.segments().len();
            while log.segments().len() == before {
                log.append(&[Record::new(1, offset, &body)], Level::Synced).unwrap();
                offset += 1;
            }
            log.segments()
        };
        while roll().iter().filter(|segment| segment.to.0 - segment.from.0 > 900 << 10).count() < 3 {}
        // The first is small: it goes. One as large as those of now is kept as a spare, and used.
        let segments = log.segments();
        log.retire(segments[0].first).unwrap();
        assert!(inodes(dir.path(), ".spare").is_empty(), "{} bytes each", body.len());
        let large = segments.iter().find(|segment| segment.to.0 - segment.from.0 > 900 << 10).unwrap();
        log.retire(large.first).unwrap();
        let spare = inodes(dir.path(), ".spare");
        assert_eq!(spare.len(), 1, "{} bytes each", body.len());
        roll();
        assert!(inodes(dir.path(), ".log").contains(&spare[0]), "{} bytes each", body.len());
        log.close().unwrap();
    }
}

#[test]
fn readers_and_retention_run_side_by_side() {
    let dir = Scratch::new("readers");
    let options = LogOptions::new().segment_bytes(16 << 10, 16 << 10);
    let (log, _) = Log::open(Arc::new(StdVfs::new()), dir.path(), options).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            append(&log, 0..20_000);
            is_over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let sealed: Vec<_> = log.segments().into_iter().filter(|s| s.is_sealed).collect();
                for segment in sealed.iter().rev().skip(3) {
                    log.retire(segment.first).unwrap();
                }
                std::thread::yield_now();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut reader = match log.reader(log.range().0) {
                        Ok(reader) => reader,
                        Err(LogError::Gone { .. }) => continue, // retired in between
                        Err(e) => panic!("{e}"),
                    };
                    let (_, stop) = walk(&mut reader, body, |last, offset| offset > last);
                    assert!(matches!(stop, Stop::End | Stop::Gone), "{stop:?}");
                }
            });
        }
    });
}
