//! Goal: appending keeps its promises whoever brings the records, and however many do. Method: threads, futures and hooks
//! on a simulated disk, then a look at what a reader and a reopened log say. Guarantees G1, G5, G6, G8.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::{
    Background, Batch, Hook, Item, Level, Location, Log, LogError, LogOptions, OpenReport, Reached, Record, Staged, Survives, Tag, Veto,
};

fn open(disk: &SimDisk, options: LogOptions) -> (Log, OpenReport) {
    Log::open(Arc::new(disk.clone()), "data", options).expect("the disk is fine")
}

fn records(log: &Log) -> Vec<(u64, u64, Vec<u8>)> {
    let mut reader = log.reader(log.range().0).expect("the first position");
    let mut found = Vec::new();
    while let Some(item) = reader.next().expect("the disk is fine") {
        match item {
            Item::Record(record) => found.push((record.tag.topic, record.tag.offset, record.body.to_vec())),
            other => panic!("{other:?}"),
        }
    }
    found
}

/// Polls to the end on this thread, parking between.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn sixteen_threads_share_syncs_and_lose_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, LogOptions::new());
    thread::scope(|scope| {
        for topic in 0..16u64 {
            let log = &log;
            scope.spawn(move || {
                for offset in 0..200 {
                    let body = [topic as u8; 50];
                    let placed = log.append(&[Record::new(topic, offset, &body)], Level::Synced).expect("synced");
                    assert!(log.durable() >= placed.end);
                }
            });
        }
    });
    disk.power_cut(7);
    drop(log);
    let (log, report) = open(&disk, LogOptions::new());
    assert!(report.damage.is_empty(), "{report:?}");
    let found = records(&log);
    assert_eq!(found.len(), 16 * 200);
    for topic in 0..16 {
        let offsets: Vec<u64> = found.iter().filter(|r| r.0 == topic).map(|r| r.1).collect();
        assert!(offsets.is_sorted(), "topic {topic}");
    }
}

#[test]
fn futures_are_completed_by_the_worker() {
    let disk = SimDisk::new(2);
    let (log, _) = open(&disk, LogOptions::new());
    for offset in 0..50 {
        let mut batch = Batch::new();
        batch
            .push(
                Tag {
                    topic: 1,
                    offset,
                    ..Tag::default()
                },
                b"async",
            )
            .expect("small");
        let placed = block_on(log.append_async(&mut batch, Level::Synced)).expect("synced");
        assert!(log.durable() >= placed.end);
    }
    let receipt = log.submit(&[Record::new(1, 50, b"submitted")], Level::Synced).expect("handed over");
    block_on(receipt).expect("synced");
    assert_eq!(records(&log).len(), 51);
}

#[test]
fn a_dropped_future_changes_nothing_about_a_batch_that_was_handed_over() {
    let disk = SimDisk::new(3);
    let (log, _) = open(&disk, LogOptions::new());
    let mut batch = Batch::new();
    batch.push(Tag::default(), b"kept").expect("small");
    {
        let mut future = pin!(log.append_async(&mut batch, Level::Synced));
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }
    log.flush(Level::Synced).expect("synced");
    assert_eq!(records(&log).len(), 1);
    let mut unpolled = Batch::new();
    unpolled.push(Tag::default(), b"never").expect("small");
    drop(log.append_async(&mut unpolled, Level::Os));
    log.flush(Level::Synced).expect("synced");
    assert_eq!((records(&log).len(), unpolled.len()), (1, 1));
}

/// Assigns offsets, and writes down what it is told.
struct Assign {
    next: Arc<AtomicU64>,
    veto: bool,
    told: Arc<Mutex<Vec<(u64, Location)>>>,
    failed: Arc<AtomicUsize>,
}

impl Hook for Assign {
    fn stage(&mut self, staged: &mut Staged<'_>) -> Result<(), Veto> {
        if self.veto {
            return Err(Veto(42));
        }
        for index in 0..staged.len() {
            staged.set_offset(index, self.next.fetch_add(1, Ordering::Relaxed));
        }
        Ok(())
    }

    fn done(&mut self, outcome: Result<&Reached<'_>, &LogError>) {
        match outcome {
            Ok(reached) => {
                let mut told = self.told.lock().expect("no panic");
                told.extend(reached.records().map(|(tag, location)| (tag.offset, location)));
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn hooks_assign_offsets_in_log_order_and_veto_only_their_own_batch() {
    let disk = SimDisk::new(4);
    let (log, _) = open(&disk, LogOptions::new().segment_bytes(16 << 10, 64 << 10));
    let next = Arc::new(AtomicU64::new(0));
    let told = Arc::new(Mutex::new(Vec::new()));
    let failed = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (log, next, told, failed) = (&log, &next, &told, &failed);
            scope.spawn(move || {
                let mut batch = Batch::new();
                for round in 0..100usize {
                    let size = 1 + (round + thread) % 3;
                    for at in 0..size {
                        batch
                            .push(
                                Tag {
                                    topic: 1,
                                    ..Tag::default()
                                },
                                &vec![thread as u8; 10 + at],
                            )
                            .expect("small");
                    }
                    let veto = round % 10 == 9;
                    let hook = Assign {
                        next: Arc::clone(next),
                        veto,
                        told: Arc::clone(told),
                        failed: Arc::clone(failed),
                    };
                    let level = if round % 2 == 0 { Level::Os } else { Level::Synced };
                    let receipt = log.submit_batch(&mut batch, level, Some(Box::new(hook))).expect("handed over");
                    match receipt.wait() {
                        Ok(placed) => assert_eq!((placed.count as usize, veto), (size, false)),
                        Err(LogError::Vetoed { code }) => assert_eq!((code, veto), (42, true)),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let found = records(&log);
    let told = told.lock().expect("no panic");
    assert_eq!(failed.load(Ordering::Relaxed), 40);
    assert_eq!(found.len() as u64, next.load(Ordering::Relaxed));
    assert!(
        found.iter().map(|record| record.1).eq(0..found.len() as u64),
        "offsets are in the order of the log"
    );
    assert!(told.iter().map(|(offset, _)| *offset).eq(0..found.len() as u64), "so are the calls");
    let mut body = Vec::new();
    for ((offset, location), record) in told.iter().zip(&found) {
        let tag = Tag {
            topic: 1,
            offset: *offset,
            ..Tag::default()
        };
        log.read(tag, *location, &mut body).expect("the place is right");
        assert_eq!(body, record.2);
    }
}

#[test]
fn a_panicking_hook_fences_the_log_and_leaves_nobody_waiting() {
    struct Bomb;
    impl Hook for Bomb {
        fn done(&mut self, _: Result<&Reached<'_>, &LogError>) {
            panic!("a hook that panics");
        }
    }
    let disk = SimDisk::new(5);
    let (log, _) = open(&disk, LogOptions::new());
    let mut batch = Batch::new();
    batch.push(Tag::default(), b"boom").expect("small");
    let receipt = log
        .submit_batch(&mut batch, Level::Synced, Some(Box::new(Bomb)))
        .expect("handed over");
    let waited = thread::scope(|scope| scope.spawn(|| receipt.wait()).join());
    assert!(waited.is_err(), "the panic reaches whoever leads");
    assert!(matches!(
        log.append(&[Record::new(1, 0, b"x")], Level::Os),
        Err(LogError::Fenced { .. })
    ));
}

/// Symptom: whoever waited for a batch in the queue slept for ever when the log was let go of. Cause: the hook of another batch panicked, and
/// nobody after it was told. Fix: its panic is its own.
#[test]
fn a_hook_that_panics_when_the_log_goes_keeps_nobody_waiting() {
    struct Bomb(Arc<AtomicUsize>);
    impl Hook for Bomb {
        fn done(&mut self, _: Result<&Reached<'_>, &LogError>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("a hook that panics");
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(
                thread::panicking() || self.0.load(Ordering::Relaxed) == 0,
                "a hook that panics when it goes"
            );
        }
    }
    let disk = SimDisk::new(5);
    let (log, _) = open(&disk, LogOptions::new().background(Background::Inline).block_bytes(1 << 20));
    let told = Arc::new(AtomicUsize::new(0));
    // Too large to share a block: each is a group of its own.
    let mut receipts = Vec::new();
    for offset in 0..10 {
        let mut batch = Batch::new();
        let tag = Tag { offset, ..Tag::default() };
        batch.push(tag, &[1; 40_000]).expect("small");
        let hook: Option<Box<dyn Hook>> = (offset % 2 == 0).then(|| Box::new(Bomb(Arc::clone(&told))) as _);
        receipts.push(log.submit_batch(&mut batch, Level::Synced, hook).expect("handed over"));
    }
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(log)));
    assert!(gone.is_ok(), "the panic of a hook reaches whoever closes the log");
    assert_eq!(told.load(Ordering::Relaxed), 5, "every hook is told");
    for receipt in receipts {
        assert!(
            matches!(receipt.try_wait(), Some(Err(LogError::Closed))),
            "{receipt:?} waits for ever"
        );
    }
    let (log, _) = open(&disk, LogOptions::new());
    assert!(records(&log).is_empty(), "and the directory was let go of");
}

#[test]
fn notes_ride_on_the_next_block() {
    let disk = SimDisk::new(6);
    let (log, _) = open(&disk, LogOptions::new());
    let mut batch = Batch::new();
    batch
        .push(
            Tag {
                topic: 7,
                ..Tag::default()
            },
            b"ack",
        )
        .expect("small");
    log.note(&mut batch, None).expect("handed over");
    let placed = log.append(&[Record::new(1, 0, b"message")], Level::Synced).expect("synced");
    assert_eq!((placed.first, placed.count, log.stats().blocks), (1, 1, 1));
}

#[test]
fn a_full_queue_holds_up_those_who_submit_and_nothing_is_lost() {
    let disk = SimDisk::new(7);
    let (log, _) = open(&disk, LogOptions::new().queue_bytes(4096).block_bytes(512));
    thread::scope(|scope| {
        for topic in 0..4u64 {
            let log = &log;
            scope.spawn(move || {
                for offset in 0..500 {
                    drop(
                        log.submit(&[Record::new(topic, offset, &[1; 100])], Level::Os)
                            .expect("handed over"),
                    );
                }
            });
        }
    });
    log.flush(Level::Os).expect("written");
    assert_eq!(records(&log).len(), 2000);
}

#[test]
fn closing_twice_over_a_receipt_that_lives_on_is_harmless() {
    let disk = SimDisk::new(8);
    let (log, _) = open(&disk, LogOptions::new());
    let receipt = log.submit(&[Record::new(1, 0, b"late")], Level::Synced).expect("handed over");
    log.close().expect("closed");
    receipt.wait().expect("closing has written it");
    let (log, report) = open(&disk, LogOptions::new());
    assert!(report.clean);
    let receipt = log.submit(&[Record::new(1, 1, b"lost")], Level::Synced).expect("handed over");
    drop(log);
    assert!(matches!(receipt.wait(), Err(LogError::Closed)));
}

#[test]
fn a_reader_goes_on_where_writers_have_gone_in_the_meantime() {
    let disk = SimDisk::new(9);
    let (log, _) = open(&disk, LogOptions::new().segment_bytes(4096, 4096));
    let mut reader = log.reader(log.range().0).expect("the first position");
    for offset in 0..200 {
        assert!(reader.next().expect("the disk is fine").is_none());
        log.append(&[Record::new(1, offset, &[3; 100])], Level::Os).expect("written");
        match reader.next().expect("the disk is fine") {
            Some(Item::Record(found)) => assert_eq!(found.tag.offset, offset),
            other => panic!("{other:?}"),
        }
    }
    assert!(log.stats().rolls > 2);
}

#[test]
fn pinned_bodies_stay_while_the_reader_moves_on() {
    let disk = SimDisk::new(10);
    let (log, _) = open(&disk, LogOptions::new());
    for offset in 0..100u64 {
        log.append(&[Record::new(1, offset, &[offset as u8; 10_000])], Level::Os)
            .expect("written");
    }
    let mut reader = log.reader(log.range().0).expect("the first position");
    let mut pinned = Vec::new();
    while let Some(Item::Record(found)) = reader.next().expect("the disk is fine") {
        pinned.push(found.pin());
    }
    assert_eq!(pinned.len(), 100);
    for (at, body) in pinned.iter().enumerate() {
        assert!(body.iter().all(|byte| *byte == at as u8) && body.len() == 10_000);
    }
}

#[test]
fn retired_and_rewritten_segments_keep_their_readers_and_their_order() {
    let disk = SimDisk::new(11);
    let options = || LogOptions::new().segment_bytes(4096, 8192);
    let (log, _) = open(&disk, options());
    for offset in 0..400u64 {
        log.append(&[Record::new(offset % 3, offset, &[offset as u8; 60])], Level::Os)
            .expect("written");
    }
    let before = records(&log);
    let segments = log.segments();
    let mut old_reader = log.reader(segments[1].from).expect("a segment");
    assert!(old_reader.next().expect("the disk is fine").is_some());
    let mut moved = Vec::new();
    let rewrote = log
        .rewrite(
            segments[1].first..segments[3].last + 1,
            |tag, _| tag.offset % 2 == 0,
            |tag, _, to| moved.push((tag, to)),
        )
        .expect("rewritten");
    assert!(rewrote.after < rewrote.before && rewrote.kept as usize == moved.len());
    assert!(old_reader.next().expect("the old file is still there").is_some());
    let mut body = Vec::new();
    for (tag, location) in &moved {
        log.read(*tag, *location, &mut body).expect("the new place");
        assert_eq!(body, [tag.offset as u8; 60]);
    }
    let inside = |lsn: u64| (segments[1].from.0..segments[3].to.0).contains(&lsn);
    let after = records(&log);
    assert!(after.len() < before.len());
    for topic in 0..3 {
        assert!(after.iter().filter(|r| r.0 == topic).map(|r| r.1).is_sorted());
    }
    assert!(inside(moved[0].1.lsn.0));
    log.retire(segments[0].first).expect("sealed");
    assert_eq!(log.range().0, segments[1].from);
    let kept = records(&log);
    assert!(after.ends_with(&kept));
    log.close().expect("closed");
    let (log, report) = open(&disk, options().verify(ringmq::log::Verify::All));
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    assert_eq!(records(&log), kept);
}

#[test]
fn a_failed_sync_fences_until_the_log_is_opened_again() {
    use ringmq::log::sim::{Fault, Op};
    let disk = SimDisk::new(12);
    let (log, _) = open(&disk, LogOptions::new());
    log.append(&[Record::new(1, 0, b"promised")], Level::Synced).expect("synced");
    disk.fail(Op::Sync, 0, Fault::Eio);
    let failed = log.append(&[Record::new(1, 1, b"unknown")], Level::Synced);
    assert!(matches!(failed, Err(LogError::Fenced { .. })), "{failed:?}");
    assert!(matches!(
        log.append(&[Record::new(1, 2, b"no")], Level::Os),
        Err(LogError::Fenced { .. })
    ));
    assert_eq!(records(&log).len(), 1, "what was confirmed can be read");
    drop(log);
    let (log, _) = open(&disk, LogOptions::new());
    assert_eq!(records(&log)[0].2, b"promised");
    log.append(&[Record::new(1, 3, b"again")], Level::Synced).expect("synced");
}

#[test]
fn a_thousand_crashes_cost_little_space_and_lose_nothing() {
    let disk = SimDisk::new(13);
    let mut count = 0;
    for round in 0..1000u64 {
        let (log, _) = open(&disk, LogOptions::new());
        if round % 100 == 0 {
            for offset in count..count + 10 {
                log.append(&[Record::new(1, offset, b"small")], Level::Synced).expect("synced");
            }
            count += 10;
        }
        drop(log);
        if round % 3 == 0 {
            disk.power_cut(round);
        }
    }
    let (log, _) = open(&disk, LogOptions::new());
    assert!(records(&log).iter().map(|record| record.1).eq(0..count));
    assert!(disk.used() <= 1 << 20, "{} bytes after a thousand crashes", disk.used());
}

#[test]
fn handles_can_be_sent_and_shared() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Log>();
    sync::<Log>();
    send::<ringmq::log::Reader>();
    send::<ringmq::log::Receipt>();
    send::<ringmq::log::Append<'_>>();
    send::<ringmq::log::Pinned>();
    send::<Batch>();
    sync::<LogError>();
    send::<LogError>();
}

#[test]
fn everybody_gets_an_answer_however_they_wait() {
    let disk = SimDisk::new(14);
    let options = LogOptions::new()
        .segment_bytes(16 << 10, 64 << 10)
        .queue_bytes(8 << 10)
        .block_bytes(1024);
    let (log, _) = open(&disk, options);
    thread::scope(|scope| {
        for topic in 0..8u64 {
            let log = &log;
            scope.spawn(move || {
                let mut state = topic + 1;
                let mut batch = Batch::new();
                for offset in 0..400 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let body = vec![topic as u8; (state >> 56) as usize];
                    let level = if state & (1 << 40) == 0 { Level::Os } else { Level::Synced };
                    let tag = Tag {
                        topic,
                        offset,
                        ..Tag::default()
                    };
                    match (state >> 33) % 6 {
                        0 => drop(log.append(&[Record { tag, body: &body }], level).expect("appended")),
                        1 => drop(log.submit(&[Record { tag, body: &body }], level).expect("handed over")),
                        2 => {
                            let receipt = log.submit(&[Record { tag, body: &body }], level).expect("handed over");
                            receipt.wait().expect("reached");
                        }
                        3 => {
                            batch.push(tag, &body).expect("small");
                            block_on(log.append_async(&mut batch, level)).expect("reached");
                        }
                        4 => {
                            batch.push(tag, &body).expect("small");
                            log.note(&mut batch, None).expect("handed over");
                        }
                        _ => {
                            batch.push(tag, &body).expect("small");
                            let receipt = log.submit_batch(&mut batch, level, None).expect("handed over");
                            block_on(receipt).expect("reached");
                        }
                    }
                }
            });
        }
    });
    log.close().expect("closed");
    let (log, report) = open(&disk, LogOptions::new());
    assert!(report.clean && report.damage.is_empty(), "{report:?}");
    let found = records(&log);
    for topic in 0..8 {
        let offsets = found.iter().filter(|record| record.0 == topic).map(|record| record.1);
        assert!(offsets.eq(0..400), "topic {topic}");
    }
}

#[test]
fn a_log_that_is_to_survive_kills_only_never_syncs_and_keeps_what_it_confirmed() {
    let disk = SimDisk::new(12);
    let options = LogOptions::new().segment_bytes(4096, 16384).background(Background::Inline);
    let options = options.write_back_bytes(2000).survives(Survives::Kill);
    let (log, _) = open(&disk, options.clone());
    disk.fail_from(Op::Sync, 1, Fault::Eio);
    disk.fail_from(Op::SyncDir, 1, Fault::Eio);
    let body = |n: u64| vec![n as u8; 100];
    for n in 0..400 {
        log.append(&[Record::new(1, n, &body(n))], Level::Os).expect("nothing is synced");
    }
    let refused = log.append(&[Record::new(1, 400, b"")], Level::Synced);
    assert!(matches!(refused, Err(LogError::Options { option: "survives", .. })), "{refused:?}");
    assert!(log.flush(Level::Synced).is_err());
    assert!(log.stats().rolls > 3 && log.stats().syncs == 0, "{:?}", log.stats());
    drop(log);
    disk.kill();
    disk.heal();

    for seed in 0..50 {
        let cut = disk.copy();
        cut.power_cut(seed);
        let (log, _) = open(&cut, options.clone());
        let mut reader = log.reader(log.range().0).expect("the first position");
        let mut before = None;
        while let Some(item) = reader.next().expect("the disk is fine") {
            if let Item::Record(found) = item {
                let n = found.tag.offset;
                assert!(found.body == body(n) && before < Some(n), "seed {seed}: {n} after {before:?}");
                before = Some(n);
            }
        }
    }

    let all: Vec<_> = (0..400).map(|n| (1, n, body(n))).collect();
    let (log, report) = open(&disk, options.clone());
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    assert_eq!(records(&log), all);
    log.close().expect("nothing is synced");
    let (log, report) = open(&disk, options);
    assert!(report.clean, "{report:?}");
    assert_eq!(records(&log), all);
}
