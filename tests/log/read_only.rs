//! Goal: a log can be opened for reading beside its writer: it shows a prefix of what was written, changes nothing, takes no lock, and
//! refuses to write by name (G6, G7; D21).
//!
//! Method: a writer is looked at between its steps, at each of its calls to the disk, and while it runs; what is opened to read sees a
//! disk that notes every change that was tried.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Background, Batch, Level, Log, LogError, LogOptions, OpenReport, Record, Tag, Verify};

use crate::support::records::{Stop, walk};
use crate::support::session::{DIR, read_all};
use crate::support::watched::Watched;

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 8192).seed(1)
}

fn body(offset: u64) -> Vec<u8> {
    vec![offset as u8; 100 + offset as usize % 50]
}

fn append(log: &Log, offset: u64) {
    let level = if offset.is_multiple_of(3) { Level::Synced } else { Level::Os };
    log.append(&[Record::new(1, offset, &body(offset))], level)
        .expect("the disk is fine");
}

/// Opens to read; tells the offsets. Nothing may be changed, and no byte of any file is another one afterwards.
fn look(disk: &SimDisk) -> Result<(Log, OpenReport, Vec<u64>), LogError> {
    let view = Watched::new(disk);
    let before = files(disk);
    let opened = Log::open(Arc::new(view.clone()), DIR, LogOptions::new().read_only().verify(Verify::All));
    let seen = opened.and_then(|(log, report)| {
        let found = read_all(&log)?;
        assert!(found.iter().all(|record| record.body[..] == body(record.offset)));
        Ok((log, report, found.iter().map(|record| record.offset).collect()))
    });
    assert_eq!(view.changes(), [""; 0], "who only reads changes nothing");
    assert!(files(disk) == before);
    seen
}

fn files(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|file| (file.clone(), disk.read(&file))).collect()
}

#[test]
fn it_shows_all_that_was_written_between_any_two_steps_of_a_writer() {
    let disk = SimDisk::new(1);
    let missing = look(&SimDisk::new(1)).map(drop);
    assert!(
        matches!(&missing, Err(LogError::NotFound { path }) if path.ends_with(DIR)),
        "{missing:?}"
    );
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
    let mut older = Vec::new();
    let mut first = 0;
    for offset in 0..120 {
        append(&log, offset);
        if offset % 30 == 29 {
            log.retire(log.segments()[0].first).expect("sealed");
            first = read_all(&log).expect("no damage")[0].offset;
        }
        let (beside, report, found) = look(&disk).expect("the disk is fine");
        assert_eq!(found, (first..=offset).collect::<Vec<_>>(), "{report:?}");
        assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
        assert_eq!((beside.range(), report.epoch, report.clean), (log.range(), 0, false));
        if offset % 30 == 0 {
            older.push((beside, found));
        }
    }
    // Each goes on to show what there was when it was opened, as far as it is still there.
    for (beside, found) in &older {
        match read_all(beside) {
            Ok(again) => assert!(again.iter().map(|record| record.offset).eq(found.iter().copied())),
            Err(e) => assert!(matches!(e, LogError::Gone { .. } | LogError::Damaged(_)), "{e}"),
        }
    }
    log.close().expect("closed");
    let (_, report, found) = look(&disk).expect("the disk is fine");
    assert!(report.clean && found == (first..120).collect::<Vec<_>>(), "{report:?}");
}

#[test]
fn at_each_call_of_a_writer_it_shows_a_prefix_with_all_that_was_confirmed() {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
    let mut confirmed = Vec::new(); // behind which call
    disk.record();
    for offset in 0..60 {
        append(&log, offset);
        confirmed.push(disk.calls());
    }
    log.close().expect("closed");
    let moments = disk.recorded();
    assert!(moments.len() > 150);
    for moment in moments {
        let count = confirmed
            .iter()
            .filter(|call| **call <= moment.call && !(moment.midway && **call == moment.call))
            .count();
        let place = format!("{:?} {} midway: {}", moment.op, moment.call, moment.midway);
        let (_, report, found) = look(&moment.disk).unwrap_or_else(|e| panic!("{place}: {e}"));
        assert!(
            found.len() >= count && found.len() <= count + 1,
            "{place}: {count} confirmed, {found:?}"
        );
        assert!(found.iter().copied().eq(0..found.len() as u64), "{place}: {found:?}");
        assert!(report.damage.is_empty() && report.missing.is_empty(), "{place}: {report:?}");
    }
}

#[test]
fn at_each_call_of_an_opening_it_shows_what_that_opening_will_find() {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
    (0..30).for_each(|offset| append(&log, offset));
    drop(log);
    disk.kill();
    disk.record();
    drop(Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine"));
    for moment in disk.recorded() {
        let place = format!("{:?} {} midway: {}", moment.op, moment.call, moment.midway);
        let (_, report, found) = look(&moment.disk).unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(found, (0..30).collect::<Vec<_>>(), "{place}: {report:?}");
        assert!(report.damage.is_empty() && report.missing.is_empty(), "{place}: {report:?}");
    }
}

#[test]
fn every_verb_that_writes_is_refused_by_name() {
    let disk = SimDisk::new(1);
    let (writer, _) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
    (0..40).for_each(|offset| append(&writer, offset));
    for background in [Background::Thread, Background::Inline] {
        let view = Watched::new(&disk);
        let (log, report) = Log::open(Arc::new(view.clone()), DIR, options().background(background).read_only()).expect("it is there");
        let record = [Record::new(1, 1000, b"refused")];
        let mut batch = Batch::new();
        batch.push(Tag::default(), b"refused").expect("small");
        let sealed = log.segments()[0];
        let mut refused = vec![
            ("append", log.append(&record, Level::Os).map(drop)),
            ("append synced", log.append(&record, Level::Synced).map(drop)),
            ("submit", log.submit(&record, Level::Os).map(drop)),
            ("submit_unwatched", log.submit_unwatched(&record)),
            ("flush", log.flush(Level::Synced)),
            ("retire", log.retire(sealed.first)),
            (
                "rewrite",
                log.rewrite(sealed.first..sealed.last + 1, |_, _| true, |_, _, _| {}).map(drop),
            ),
            ("submit_batch", log.submit_batch(&mut batch, Level::Os, None).map(drop)),
            ("note", log.note(&mut batch, None)),
        ];
        let polled = pin!(log.append_async(&mut batch, Level::Os)).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(outcome) => refused.push(("append_async", outcome.map(drop))),
            Poll::Pending => panic!("a future that never ends"),
        }
        assert_eq!(batch.len(), 1, "what was not handed over is still there");
        refused.push(("append_batch", log.append_batch(&mut batch, Level::Os).map(drop)));
        for (verb, outcome) in refused {
            assert!(matches!(outcome, Err(LogError::ReadOnly)), "{verb}: {outcome:?}");
        }
        assert_eq!((log.range().1, log.stats().blocks), (report.end, 0));
        log.close().expect("there is nothing to close");
        assert_eq!(view.changes(), [""; 0]);
        append(&writer, writer.stats().blocks); // it has noticed nothing
    }
}

#[test]
fn beside_a_writer_that_appends_rolls_and_retires_it_shows_what_was_there_without_a_hole() {
    let disk = SimDisk::new(1);
    let large = LogOptions::new().segment_bytes(16 << 10, 16 << 10).seed(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, large).expect("the disk is fine");
    append(&log, 0);
    let (confirmed, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 1..3000 {
                append(&log, offset);
                confirmed.store(offset, Ordering::Release);
                if offset % 400 == 0 {
                    log.retire(log.segments()[0].first).expect("sealed");
                }
            }
            is_over.store(true, Ordering::Release);
        });
        let mut looks = 0;
        while !is_over.load(Ordering::Acquire) || looks == 0 {
            looks += 1;
            let view = Watched::new(&disk);
            let least = confirmed.load(Ordering::Acquire);
            let (beside, report) = Log::open(Arc::new(view.clone()), DIR, LogOptions::new().read_only()).expect("it is there");
            let mut reader = match beside.reader(beside.range().0) {
                Ok(reader) => reader,
                Err(e) => panic!("{e}"),
            };
            // Else the writer has taken the file away, or uses it again.
            if let (last, Stop::End) = walk(&mut reader, body, |last, offset| last + 1 == offset) {
                assert!(last.is_some_and(|last| last >= least), "{last:?}, {least} confirmed: {report:?}");
            }
            assert_eq!(view.changes(), [""; 0]);
        }
    });
}

/// Symptom: opened to read beside a writer, a log was empty, or lacked records that had been confirmed before. Cause: segments that were
/// retired or rewritten between the listing and the reading of their headers were left out. Fix: then the directory is looked at again.
#[test]
fn what_the_writer_takes_away_while_it_is_looked_at_is_looked_for_again() {
    for rewrites in [false, true] {
        let disk = SimDisk::new(1);
        let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("the disk is fine");
        let log = Arc::new(log);
        (0..60).for_each(|offset| append(&log, offset));
        let view = Watched::new(&disk);
        let writer = Arc::clone(&log);
        view.behind_listing(move || {
            let listed = writer.segments();
            let rolls = writer.stats().rolls;
            (60..)
                .take_while(|_| writer.stats().rolls < rolls + 2)
                .for_each(|offset| append(&writer, offset));
            if rewrites {
                let range = listed[1].first..listed[listed.len() - 1].last + 1;
                writer
                    .rewrite(range, |tag, _| tag.offset % 2 == 0, |_, _, _| {})
                    .expect("rewritten");
            } else {
                listed.iter().for_each(|segment| writer.retire(segment.first).expect("sealed"));
            }
        });
        let (beside, report) = Log::open(Arc::new(view.clone()), DIR, LogOptions::new().read_only()).expect("it is there");
        assert_eq!(
            read_all(&beside).expect("no damage"),
            read_all(&log).expect("no damage"),
            "rewrites: {rewrites}: {report:?}"
        );
        assert!(
            report.damage.is_empty() && report.missing.is_empty() && report.segments > 1,
            "{report:?}"
        );
        assert_eq!(view.changes(), [""; 0]);
    }
}
