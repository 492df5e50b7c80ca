//! Goal: no failing call, at whatever point, costs a promise or makes a false one (G6); a full disk is a state that ends by
//! itself (G9).
//!
//! Method: one fixed run of appends on a simulated disk is repeated with one fault at the k-th call, for every k.

use std::sync::{Arc, Mutex};
use std::thread;

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::{Background, Batch, Hook, Level, Log, LogError, LogOptions, Prewrite, Reached, Record, Tag};

use crate::support::oracle::Rec;
use crate::support::records::segments;
use crate::support::session::{DIR, read_all};
use crate::support::watched::Watched;

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 8192).seed(3)
}

fn open(disk: &SimDisk) -> Result<Log, LogError> {
    let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options())?;
    assert!(
        report.damage.is_empty() && report.missing.is_empty() && report.unknown.is_empty(),
        "{report:?}"
    );
    Ok(log)
}

const LEN: usize = 300;

fn append(log: &Log, offset: u64, level: Level) -> Result<(), LogError> {
    log.append(&[Record::new(1, offset, &[offset as u8; LEN])], level).map(|_| ())
}

/// The offsets in the log; each must have its own bytes.
fn offsets(records: &[Rec]) -> Vec<u64> {
    for record in records {
        assert_eq!(record.body[..], [record.offset as u8; LEN]);
    }
    records.iter().map(|r| r.offset).collect()
}

const RUN: u64 = 60;

fn level(i: u64) -> Level {
    if i % 3 == 2 { Level::Synced } else { Level::Os }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_until_the_log_is_opened_again() {
    for k in 1..60 {
        for evicts in [false, true] {
            let disk = SimDisk::new(k);
            let log = open(&disk).unwrap();
            append(&log, 0, Level::Synced).unwrap();
            disk.fail(Op::Sync, k, Fault::Eio);
            let mut confirmed = 0;
            let mut tried = 0;
            let fenced = (1..RUN).find_map(|i| {
                tried = i;
                match append(&log, i, level(i)) {
                    Ok(()) if level(i) == Level::Synced => confirmed = i,
                    Ok(()) => {}
                    Err(e) => return Some(e),
                }
                None
            });
            let Some(error) = fenced else { continue };
            assert!(matches!(error, LogError::Fenced { .. }), "sync {k}: {error}");
            for i in 0..3 {
                assert!(matches!(append(&log, 100 + i, level(i)), Err(LogError::Fenced { .. })), "sync {k}");
            }
            assert!(matches!(log.flush(Level::Synced), Err(LogError::Fenced { .. })));
            assert!(offsets(&read_all(&log).unwrap()).starts_with(&(0..=confirmed).collect::<Vec<_>>()));

            // Opened again in the same boot, the cache shows what the device may not have.
            disk.kill();
            if evicts {
                disk.evict(k);
            }
            let log = open(&disk).unwrap();
            let shown = offsets(&read_all(&log).unwrap());
            assert!(
                shown.len() as u64 > confirmed && shown.len() as u64 <= tried + 1,
                "sync {k}: {shown:?}"
            );
            assert_eq!(shown, (0..shown.len() as u64).collect::<Vec<_>>(), "sync {k}");
            append(&log, shown.len() as u64, Level::Synced).unwrap();
            disk.power_cut(k);
            let after = offsets(&read_all(&open(&disk).unwrap()).unwrap());
            assert_eq!(
                after,
                (0..=shown.len() as u64).collect::<Vec<_>>(),
                "sync {k}: what was shown is gone"
            );
        }
    }
}

#[test]
fn what_is_written_again_while_it_is_synced_is_promised_only_if_every_sync_went_well() {
    // More than 4 MiB that no sync has reached: opening syncs it by a thread of its own, so which of its syncs is the k-th is not fixed.
    let large = |background| LogOptions::new().background(background).segment_bytes(16 << 20, 64 << 20).seed(3);
    let made = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(made.clone()), DIR, large(Background::Inline).write_back_bytes(64 << 20)).unwrap();
    let count = 96;
    let body = |offset: u64| vec![offset as u8; 100_000];
    log.append(&[Record::new(1, 0, &body(0))], Level::Synced).unwrap();
    for offset in 1..count {
        log.append(&[Record::new(1, offset, &body(offset))], Level::Os).unwrap();
    }
    made.kill();
    drop(log);
    let mut refused = 0;
    for k in 0..14 {
        let disk = made.copy();
        if k > 0 {
            disk.fail(Op::Sync, k, Fault::Eio);
        }
        let opened = Log::open(Arc::new(disk.clone()), DIR, large(Background::Thread));
        if let Ok((log, report)) = &opened {
            let again = report.reappended.expect("nothing but the first record was synced");
            assert!(again.to.0 - again.from.0 > 4 << 20, "{again:?}");
            let found = read_all(log).unwrap();
            assert_eq!(found.len() as u64, count, "sync {k}");
            assert!(found.iter().all(|record| record.body[..] == body(record.offset)));
        }
        refused += u64::from(opened.is_err());
        let was_opened = opened.is_ok();
        drop(opened);
        disk.heal();
        disk.power_cut(k);
        let (log, _) = Log::open(Arc::new(disk.clone()), DIR, large(Background::Inline)).unwrap();
        let left = read_all(&log).unwrap().len() as u64;
        // Whoever opened it has seen all of it, and may rely on that.
        assert!(if was_opened { left == count } else { left >= 1 }, "sync {k}: {left} of {count}");
    }
    assert!(refused >= 4, "{refused}: hardly a sync failed");
}

#[test]
fn a_failed_write_back_is_heard_by_the_next_sync() {
    for k in 1..40 {
        let disk = SimDisk::new(k);
        let log = open(&disk).unwrap();
        disk.fail(Op::Write, k, Fault::WriteBack);
        let confirmed = (0..RUN)
            .take_while(|i| append(&log, *i, level(*i)).is_ok())
            .filter(|i| level(*i) == Level::Synced)
            .last();
        disk.power_cut(k);
        let after = offsets(&read_all(&open(&disk).unwrap()).unwrap());
        assert!(
            after.len() as u64 >= confirmed.map_or(0, |c| c + 1),
            "write {k}: {confirmed:?} confirmed, {after:?} found"
        );
    }
}

#[test]
fn no_space_at_any_write_loses_nothing_and_passes() {
    for (op, fault) in [
        (Op::Write, Fault::NoSpace),
        (Op::Open, Fault::NoSpace),
        (Op::SetLen, Fault::NoSpace),
    ] {
        for k in 1..90 {
            let disk = SimDisk::new(k);
            let log = open(&disk).unwrap();
            disk.fail(op, k, fault);
            let mut kept = Vec::new();
            let mut fulls = 0;
            for i in 0..RUN {
                match append(&log, i, level(i)) {
                    Ok(()) => kept.push(i),
                    Err(e) => {
                        assert!(e.is_full(), "{op:?} {k}: {e}");
                        fulls += 1;
                    }
                }
            }
            assert!(fulls <= 1, "{op:?} {k}: one fault, {fulls} failures");
            assert_eq!(offsets(&read_all(&log).unwrap()), kept, "{op:?} {k}: while open");
            disk.heal();
            log.flush(Level::Synced).unwrap();
            disk.power_cut(k);
            assert_eq!(
                offsets(&read_all(&open(&disk).unwrap()).unwrap()),
                kept,
                "{op:?} {k}: after a power cut"
            );
        }
    }
}

#[test]
fn a_full_disk_stays_readable_takes_facts_and_resumes() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, 0, Level::Synced).unwrap();
    disk.set_capacity(Some(disk.used() + (60 << 10)));
    let mut kept = vec![0];
    let mut next = 1;
    let error = loop {
        match append(&log, next, level(next)) {
            Ok(()) => kept.push(next),
            Err(e) => break e,
        }
        next += 1;
        assert!(next < 1000, "a disk of 60 KiB never fills");
    };
    assert!(error.is_full(), "{error}");
    assert_eq!(offsets(&read_all(&log).unwrap()), kept);

    // Facts have a reserve, so that whoever acks can free space.
    let mut fact = Batch::new();
    let tag = Tag {
        topic: 1,
        offset: 200,
        ..Tag::default()
    };
    fact.push(tag, &[200; LEN]).unwrap();
    log.note(&mut fact, None).unwrap();
    log.flush(Level::Synced).unwrap();
    kept.push(200);

    disk.set_capacity(None);
    append(&log, 201, Level::Synced).unwrap();
    kept.push(201);
    assert_eq!(offsets(&read_all(&log).unwrap()), kept);
    disk.power_cut(1);
    assert_eq!(offsets(&read_all(&open(&disk).unwrap()).unwrap()), kept);
}

/// Symptom: after a power cut in a close that met a full disk, one copy of a segment header was reported as damaged.
/// Cause: the closing block found no space, a segment was begun for it, and its header was not synced when the block in
/// it said that all was promised. Fix: the closing block goes into the segment that is open, or nowhere.
#[test]
fn closing_on_a_full_disk_begins_no_segment() {
    for fault in [Fault::NoSpace, Fault::Short(0)] {
        let disk = SimDisk::new(1);
        let log = open(&disk).unwrap();
        append(&log, 0, Level::Synced).unwrap();
        disk.fail(Op::Write, 1, fault);
        disk.record();
        log.close().unwrap();
        for moment in disk.recorded() {
            for seed in 0..200 {
                let after = moment.disk.copy();
                after.power_cut(seed);
                assert_eq!(offsets(&read_all(&open(&after).unwrap()).unwrap()), [0], "{:?} {seed}", moment.op);
            }
        }
    }
}

/// Symptom: records whose removal was confirmed were back after a power cut. Cause: the file of an older generation was
/// still there, because renaming, unlinking or syncing the directory had failed, and counted again when the newer one was
/// retired; or the newer one had its name after all, and the older one was retired. Fix: such a failure fences the log.
#[test]
fn what_was_retired_after_a_failed_rewriting_does_not_come_back() {
    let mut retired = 0;
    for op in [Op::Rename, Op::SyncDir, Op::Unlink] {
        for (k, fault) in [1, 2].into_iter().flat_map(|k| [(k, Fault::Eio), (k, Fault::NoSpace)]) {
            for seed in 0..30 {
                let disk = SimDisk::new(seed);
                let log = open(&disk).unwrap();
                (0..RUN).for_each(|i| append(&log, i, Level::Synced).unwrap());
                let first = log.segments()[0];
                disk.fail(op, k, fault);
                drop(log.rewrite(first.first..first.last + 1, |tag, _| tag.offset % 2 == 0, |_, _, _| {}));
                disk.heal();
                let end = log.segments()[1].from;
                let before = offsets(&read_all(&log).unwrap());
                if log.retire(first.first).is_err() {
                    continue;
                }
                retired += 1;
                let after = offsets(&read_all(&log).unwrap());
                assert!(after.len() < before.len() && log.range().0 == end);
                if seed % 2 == 0 {
                    disk.power_cut(seed);
                }
                disk.kill();
                let log = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap().0;
                assert_eq!(offsets(&read_all(&log).unwrap()), after, "{op:?} {k} {fault:?} {seed}");
            }
        }
    }
    assert!(retired > 0, "a failure that is known to have changed nothing is no reason to stop");
}

/// Symptom: a power cut took a segment whose records were confirmed as synced. Cause: between renaming it and syncing the directory, a
/// retiring had the error of a sync of that directory, and the next sync said nothing of it any more. Fix: that fences the log, like
/// every failed sync, and syncs of the directory come one at a time with the others.
#[test]
fn a_directory_sync_that_fails_for_a_retiring_is_not_good_for_a_roll() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let view = Watched::new(&disk);
        let log = Arc::new(Log::open(Arc::new(view.clone()), DIR, options()).unwrap().0);
        let mut confirmed = Vec::new();
        let mut append_until = |rolls| {
            while log.stats().rolls < rolls && append(&log, confirmed.len() as u64, Level::Synced).is_ok() {
                confirmed.push(confirmed.len() as u64);
            }
        };
        append_until(2);
        let first = log.segments()[0].first;
        let (other, failing) = (Arc::clone(&log), disk.clone());
        view.behind_naming(move || {
            failing.fail(Op::SyncDir, 1, Fault::Eio);
            let retired = thread::spawn(move || other.retire(first)).join().unwrap();
            assert!(retired.is_err());
        });
        append_until(3);
        let left = offsets(&read_all(&log).unwrap())[0];
        drop(log);
        disk.power_cut(seed);
        let found = offsets(&read_all(&open(&disk).unwrap()).unwrap());
        assert!(
            found.ends_with(&confirmed[left as usize..]),
            "seed {seed}: {found:?}, {confirmed:?}"
        );
    }
}

/// Symptom: a power cut took a whole segment whose records had been synced. Cause: a rewriting had failed to sync the directory, the process
/// was started again, and the opening removed what the new file replaced; that one's name never reached the device. Fix: the opening
/// gives the name again before it removes anything, and where it cannot, removes nothing.
#[test]
fn what_a_failed_rewriting_replaced_is_not_removed_before_the_new_name_lasts() {
    for (op, k) in [(Op::SyncDir, 1), (Op::SyncDir, 2), (Op::Rename, 1), (Op::Unlink, 1)] {
        for (seed, is_full) in (0..30).flat_map(|seed| [(seed, false), (seed, true)]) {
            let disk = SimDisk::new(seed);
            let log = open(&disk).unwrap();
            (0..RUN).for_each(|i| append(&log, i, Level::Synced).unwrap());
            let second = log.segments()[1].first;
            disk.fail(op, k, Fault::Eio);
            let rewritten = log.rewrite(second..second + 1, |tag, _| tag.offset % 3 > 0, |_, _, _| {});
            assert!(rewritten.is_err());
            disk.heal();
            drop(log);
            disk.kill();
            if is_full {
                disk.fail(Op::Write, 1, Fault::NoSpace);
            }
            let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap();
            assert!(report.damage.is_empty() && (is_full || report.kept.is_empty()), "{report:?}");
            append(&log, RUN, Level::Synced).unwrap();
            let before = offsets(&read_all(&log).unwrap());
            drop(log);
            disk.power_cut(seed);
            let after = offsets(&read_all(&open(&disk).unwrap()).unwrap());
            assert!(
                before.iter().all(|offset| after.contains(offset)),
                "{op:?} {k}, seed {seed}: {after:?}"
            );
        }
    }
}

#[test]
fn short_and_interrupted_calls_are_not_noticed() {
    let plain = [
        (Op::Write, Fault::Interrupted),
        (Op::Write, Fault::Short(1)),
        (Op::Write, Fault::Short(511)),
        (Op::Read, Fault::Interrupted),
        (Op::Read, Fault::Short(1)),
    ];
    for (op, fault) in plain {
        for k in 1..90 {
            let disk = SimDisk::new(k);
            disk.fail(op, k, fault);
            let log = open(&disk).unwrap();
            for i in 0..RUN {
                append(&log, i, level(i)).unwrap_or_else(|e| panic!("{op:?} {k} {fault:?}: {e}"));
            }
            assert_eq!(offsets(&read_all(&log).unwrap()).len() as u64, RUN);
            log.flush(Level::Os).unwrap();
            disk.kill();
            assert_eq!(
                offsets(&read_all(&open(&disk).unwrap()).unwrap()).len() as u64,
                RUN,
                "{op:?} {k} {fault:?}"
            );
        }
    }
}

#[test]
fn every_write_may_be_short() {
    let disk = SimDisk::new(1);
    disk.fail_from(Op::Write, 1, Fault::Short(100));
    disk.fail_from(Op::Read, 1, Fault::Short(100));
    let log = open(&disk).unwrap();
    (0..RUN).for_each(|i| append(&log, i, level(i)).unwrap());
    disk.kill();
    assert_eq!(offsets(&read_all(&open(&disk).unwrap()).unwrap()).len() as u64, RUN);
}

#[test]
fn a_failing_call_in_recovery_is_an_error_and_the_next_opening_finds_everything() {
    let ops = [
        Op::Open,
        Op::Write,
        Op::SetLen,
        Op::Sync,
        Op::Rename,
        Op::Unlink,
        Op::List,
        Op::CreateDir,
        Op::SyncDir,
        Op::Lock,
    ];
    let made = SimDisk::new(1);
    let log = open(&made).unwrap();
    (0..RUN).for_each(|i| append(&log, i, level(i)).unwrap());
    log.flush(Level::Synced).unwrap();
    let torn = made.copy();
    for op in ops {
        for fault in [Fault::Eio, Fault::NoSpace] {
            for k in 1..30 {
                let disk = torn.copy();
                disk.fail(op, k, fault);
                // It may also succeed, when what failed was not needed or there were fewer such calls.
                if let Ok(log) = open(&disk) {
                    disk.heal();
                    assert_eq!(offsets(&read_all(&log).unwrap()).len() as u64, RUN, "{op:?} {k} {fault:?}");
                }
                disk.heal();
                disk.power_cut(k);
                let log = open(&disk).unwrap_or_else(|e| panic!("{op:?} {k} {fault:?} bricks the log: {e}"));
                assert_eq!(offsets(&read_all(&log).unwrap()).len() as u64, RUN, "{op:?} {k} {fault:?}");
            }
        }
    }
}

#[test]
fn a_failing_call_in_the_first_opening_leaves_something_that_opens() {
    for k in 1..40 {
        for fault in [Fault::Eio, Fault::NoSpace] {
            let disk = SimDisk::new(k);
            disk.fail(Op::Any, k, fault);
            let first = open(&disk).and_then(|log| append(&log, 0, Level::Synced));
            disk.heal();
            disk.power_cut(k);
            let log = open(&disk).unwrap_or_else(|e| panic!("call {k} {fault:?} bricks the log: {e}"));
            let found = offsets(&read_all(&log).unwrap());
            assert!(
                found == [0] || (first.is_err() && found.is_empty()),
                "call {k} {fault:?}: {first:?} {found:?}"
            );
        }
    }
}

/// A closed log.
fn closed(options: LogOptions) -> SimDisk {
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options).unwrap();
    (0..RUN).for_each(|i| append(&log, i, Level::Synced).unwrap());
    log.close().unwrap();
    disk.settle();
    disk
}

#[test]
fn a_sector_that_cannot_be_read_costs_its_records_only() {
    let made = closed(options());
    let mut broken = 0;
    for segment in segments(&made) {
        for sector in 2..made.read(&segment).unwrap().len() / 512 {
            let disk = made.copy();
            disk.break_sector(&segment, sector as u64 * 512);
            let opened = Log::open(Arc::new(disk.clone()), DIR, options());
            let (log, report) = match opened {
                Ok(opened) => opened,
                Err(LogError::Io { .. }) => continue, // an honest answer too: the disk may do better next time
                Err(e) => panic!("sector {sector} of {}: {e}", segment.display()),
            };
            // The reader may say Io for ever, or name the damage and go on.
            if let Ok((found, damage)) = crate::support::session::read_salvaging(&log) {
                broken += 1;
                assert!(found.len() as u64 + 8 >= RUN, "{report:?}");
                assert!(found.len() as u64 == RUN || !damage.is_empty() || !report.damage.is_empty());
            }
        }
    }
    println!("{broken} broken sectors were read around");
}

/// Symptom: an opening during which no read succeeded replaced the log by an empty one. Cause: what the device would not give
/// was taken for zeros, so there seemed to be neither identity nor segment. Fix: a device that gives nothing is an error.
#[test]
fn a_device_that_gives_nothing_does_not_pass_for_an_empty_log() {
    let disk = closed(options().segment_bytes(64 << 10, 64 << 10));
    for k in 1..20 {
        let dying = disk.copy();
        dying.fail_from(Op::Read, k, Fault::Eio);
        let opened = Log::open(Arc::new(dying.clone()), DIR, options());
        assert!(matches!(opened, Ok(_) | Err(LogError::Io { .. })), "read {k}: {opened:?}");
        assert!(opened.is_err() || k > 1);
        drop(opened);
        dying.heal();
        assert_eq!(offsets(&read_all(&open(&dying).unwrap()).unwrap()).len() as u64, RUN, "read {k}");
    }
}

/// Symptom: a segment whose header could not be read once went to the quarantine, with a synced record. Cause: no later block said
/// that the record was promised, and the header was taken for zeros. Fix: that opening is an error.
#[test]
fn a_segment_whose_header_cannot_be_read_is_not_given_up() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    append(&log, 0, Level::Synced).unwrap();
    drop(log);
    disk.kill();
    let segment = segments(&disk).remove(0);
    let dying = disk.copy();
    dying.break_sector(&segment, 0);
    dying.break_sector(&segment, 512);
    let opened = Log::open(Arc::new(dying.clone()), DIR, options());
    assert!(matches!(opened, Err(LogError::Io { .. })), "{opened:?}");
    assert!(dying.files().contains(&segment));
    assert_eq!(offsets(&read_all(&open(&disk).unwrap()).unwrap()), [0]);
}

/// Goal: two bad sectors cost no more than what they held, even where a header or the identity is both of them.
#[test]
fn an_identity_or_a_header_that_cannot_be_read_is_taken_from_elsewhere() {
    let made = closed(options());
    let meta = made.files().into_iter().find(|f| f.ends_with("META")).unwrap();
    for file in segments(&made).into_iter().chain([meta]) {
        let disk = made.copy();
        disk.break_sector(&file, 0);
        disk.break_sector(&file, 512);
        let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(!report.created && !report.damage.is_empty(), "{}: {report:?}", file.display());
        assert_eq!(read_all(&log).unwrap().len() as u64, RUN, "{}: {report:?}", file.display());
    }
}

/// Symptom: an append that found no space answered Io, not Full, so nobody waited for space. Cause: the renaming of a spare passed the
/// error of the file system on. Fix: it is Full like everywhere, and the spare is kept for the next try.
#[test]
fn no_space_for_the_name_of_a_segment_is_full_and_passes() {
    let mut refused = 0;
    for k in 1..8 {
        let disk = SimDisk::new(k);
        let log = open(&disk).unwrap();
        disk.fail(Op::Rename, k, Fault::NoSpace);
        let mut confirmed = Vec::new();
        for i in 0..RUN {
            match append(&log, i, level(i)) {
                Ok(()) => confirmed.push(i),
                Err(LogError::Full) => refused += 1,
                Err(e) => panic!("rename {k}, append {i}: {e}"),
            }
        }
        assert!(confirmed.len() as u64 + 1 >= RUN, "rename {k}: it did not pass");
        assert_eq!(offsets(&read_all(&log).unwrap()), confirmed);
        log.close().unwrap();
        assert_eq!(offsets(&read_all(&open(&disk).unwrap()).unwrap()), confirmed);
    }
    assert!(refused > 0, "else nothing is shown");
}

/// How a note ended, if it has.
struct Heard(Arc<Mutex<Option<bool>>>);

impl Hook for Heard {
    fn done(&mut self, outcome: Result<&Reached<'_>, &LogError>) {
        *self.0.lock().unwrap() = Some(outcome.is_ok());
    }
}

/// Hands a fact over. What became of it is told later.
fn note(log: &Log, offset: u64) -> Arc<Mutex<Option<bool>>> {
    note_of(log, offset, LEN)
}

fn note_of(log: &Log, offset: u64, len: usize) -> Arc<Mutex<Option<bool>>> {
    let mut fact = Batch::new();
    let tag = Tag {
        topic: 2,
        offset,
        ..Tag::default()
    };
    fact.push(tag, &vec![offset as u8; len]).unwrap();
    let heard = Arc::default();
    log.note(&mut fact, Some(Box::new(Heard(Arc::clone(&heard))))).unwrap();
    heard
}

/// The ways in which segments get their space, and their sizes.
fn ways() -> impl Iterator<Item = LogOptions> {
    let sizes = [(4096, 8192), (8192, 8192), (8192, 64 << 10), (16 << 10, 1 << 20)];
    let prewrites = [Prewrite::Auto, Prewrite::Never];
    prewrites
        .into_iter()
        .flat_map(move |prewrite| sizes.map(|(first, max)| options().segment_bytes(first, max).prewrite(prewrite)))
}

/// Symptom: on a full disk nothing could be acked where segments are not written before they are used. Cause: data took what
/// there was, and the reserve for facts with it. Fix: a spare is asked for before what is written ahead runs out.
#[test]
fn facts_have_a_reserve_however_segments_get_their_space() {
    for (way, options) in ways().enumerate() {
        for len in [LEN, 3000] {
            for more in (24..160).step_by(4) {
                let disk = SimDisk::new(1);
                let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
                let data = |offset| log.append(&[Record::new(1, offset, &vec![1; len])], Level::Synced);
                data(0).unwrap();
                disk.set_capacity(Some(disk.used() + (more << 10)));
                let refused = (1..1000).find_map(|offset| data(offset).err()).expect("it fills");
                assert!(refused.is_full(), "{refused}");
                for offset in 0..3 {
                    let heard = note(&log, offset);
                    drop(log.flush(Level::Synced));
                    assert_eq!(*heard.lock().unwrap(), Some(true), "way {way}, {len} B, {more} KiB: fact {offset}");
                    drop(data(2000)); // which finds space, or takes nothing of theirs
                }
                drop(log);
                disk.set_capacity(None);
                disk.power_cut(more);
                let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
                assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
                let facts = read_all(&log).unwrap().into_iter().filter(|record| record.topic == 2).count();
                assert_eq!(facts, 3, "way {way}, {len} B, {more} KiB");
            }
        }
    }
}

/// Symptom: an ack that rode with a publish was lost when the publish found no space. Cause: they are one block, and it failed. Fix: the
/// block is written again without the data.
#[test]
fn a_fact_outlives_the_data_that_it_rides_with() {
    let mut refused = 0;
    for (way, options) in ways().enumerate() {
        for len in [LEN, 3000, 20_000] {
            for more in (24..160).step_by(4) {
                let disk = SimDisk::new(1);
                let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
                let data = |offset| log.append(&[Record::new(1, offset, &vec![1; len])], Level::Synced);
                data(0).unwrap();
                disk.set_capacity(Some(disk.used() + (more << 10)));
                for offset in 1..1000 {
                    let heard = note(&log, offset);
                    let outcome = data(offset);
                    assert_eq!(*heard.lock().unwrap(), Some(true), "way {way}, {len} B, {more} KiB: {outcome:?}");
                    if let Err(error) = outcome {
                        assert!(error.is_full(), "{error}");
                        refused += 1;
                        break;
                    }
                }
                let facts = |log: &Log| read_all(log).unwrap().into_iter().filter(|record| record.topic == 2).count();
                let before = facts(&log);
                drop(log);
                disk.power_cut(more);
                disk.set_capacity(None);
                let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
                assert_eq!(facts(&log), before);
            }
        }
    }
    assert!(refused > 0, "else nothing is shown");
}

/// Symptom: a file `.tmp` as large as a segment stayed until the next opening. Cause: a spare whose renaming failed was forgotten.
/// Fix: it is removed.
#[test]
fn nothing_is_left_of_a_spare_that_got_no_name() {
    for k in 1..8 {
        for fault in [Fault::Eio, Fault::NoSpace] {
            let disk = SimDisk::new(k);
            let log = open(&disk).unwrap();
            disk.fail(Op::Rename, k, fault);
            for i in 0..RUN {
                let outcome = append(&log, i, level(i));
                let extra = disk
                    .files()
                    .into_iter()
                    .filter(|f| f.extension().is_some_and(|e| e == "tmp"))
                    .count();
                assert_eq!(extra, 0, "rename {k} {fault:?}, append {i}: {outcome:?}");
                let spares = disk
                    .files()
                    .into_iter()
                    .filter(|f| f.extension().is_some_and(|e| e == "spare"))
                    .count();
                assert!(spares <= 1, "rename {k} {fault:?}, append {i}: {outcome:?}");
            }
        }
    }
}

/// Symptom: after a crash, records were there and one that was submitted before them was not, though nobody had been told that it was
/// refused. Cause: it found no space, and the data behind it in the same round did. Fix: data that is refused takes with it the data
/// behind it in its round; facts go on.
#[test]
fn data_that_finds_no_space_takes_with_it_the_data_behind_it() {
    let disk = SimDisk::new(1);
    let options = options().prewrite(Prewrite::Never).block_bytes(1000);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
    let records = |offset| [Record::new(1, offset, &[7; 300])];
    for offset in 0.. {
        log.append(&records(offset), Level::Synced).unwrap();
        if log.range().1.0 > 2600 {
            break;
        }
    }
    let before = read_all(&log).unwrap().len() as u64;
    let first = log.submit(&records(before), Level::Os).unwrap();
    disk.fail(Op::Rename, 1, Fault::NoSpace); // of the spare that is ready
    let fact = note(&log, before);
    let second = log.submit(&[Record::new(1, before + 1, &[7; 900])], Level::Os).unwrap();
    assert!(matches!(first.try_wait(), Some(Err(LogError::Full))), "{:?}", first.try_wait());
    assert!(matches!(second.try_wait(), Some(Err(LogError::Full))), "{:?}", second.try_wait());
    assert_eq!(*fact.lock().unwrap(), Some(true), "facts go on");
    disk.heal();
    log.append(&records(before), Level::Synced).expect("there is space again");
    assert_eq!(read_all(&log).unwrap().len() as u64, before + 2);
}

/// Symptom: after a crash, a fact was there and one that was noted before it was not, though nobody had been told that it was refused.
/// Cause: it found no space, and the smaller one behind it in the same round did. Fix: a fact that is refused takes with it all that is
/// behind it in its round.
#[test]
fn a_fact_that_finds_no_space_takes_with_it_what_is_behind_it() {
    let disk = SimDisk::new(1);
    let options = options().segment_bytes(4096, 4096).prewrite(Prewrite::Never).block_bytes(3000);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options).unwrap();
    for offset in 0..7 {
        append(&log, offset, Level::Synced).unwrap();
    }
    disk.set_capacity(Some(disk.used()));
    disk.fail(Op::Rename, 1, Fault::NoSpace); // of the spare that is ready
    let first = note_of(&log, 7, 2500);
    let second = note_of(&log, 8, 600);
    assert_eq!((*first.lock().unwrap(), *second.lock().unwrap()), (Some(false), Some(false)));
    let again = note_of(&log, 9, 300);
    log.flush(Level::Os).unwrap();
    assert_eq!(*again.lock().unwrap(), Some(true), "there was space for the smaller one");
}
