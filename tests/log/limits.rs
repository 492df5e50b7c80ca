//! Goal: what is over a limit is refused or waits, whole, and the log goes on as if it had not been asked (G5, G8, G9).
//!
//! Method: each way to append, blocking and asynchronous, with each level, meets each limit: the size of a record and of a
//! block, a queue that a held sync keeps full, a disk without space.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::{Append, Background, Batch, Level, Log, LogError, LogOptions, Placed, Record, WhenFull, probe};

use crate::support::records::{batch, tag};
use crate::support::session::{DIR, read_all};
use crate::support::watched::{Watched, until};

fn open(disk: &SimDisk, options: LogOptions) -> Log {
    Log::open(Arc::new(disk.clone()), DIR, options).expect("the disk is fine").0
}

/// The offsets of all records.
fn offsets(log: &Log) -> Vec<u64> {
    read_all(log)
        .expect("the disk is fine")
        .iter()
        .map(|record| record.offset)
        .collect()
}

/// The records of a disk once the process, or the power, is gone.
fn left(disk: &SimDisk, power_cut: Option<u64>) -> Vec<u64> {
    let disk = disk.copy();
    if let Some(seed) = power_cut {
        disk.power_cut(seed);
    }
    offsets(&open(&disk, LogOptions::new().background(Background::Inline)))
}

/// Counts how often it is woken, and unparks its thread.
struct Woken(AtomicUsize, thread::Thread);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.unpark();
    }
}

fn woken() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken(AtomicUsize::new(0), thread::current()));
    (Arc::clone(&woken), Waker::from(woken))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let (_, waker) = woken();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

type Way = fn(&Log, u64, Level) -> Result<Placed, LogError>;

/// Every way to append one record and hear what became of it.
const WAYS: [(&str, Way); 7] = [
    ("append", |log, offset, level| {
        log.append(
            &[Record {
                tag: tag(offset),
                body: b"x",
            }],
            level,
        )
    }),
    ("append of several", |log, offset, level| {
        let record = |at| Record { tag: tag(at), body: b"x" };
        log.append(&[record(offset), record(offset + 1)], level)
    }),
    ("append_batch", |log, offset, level| {
        log.append_batch(&mut batch(offset, b"x"), level)
    }),
    ("append_async", |log, offset, level| {
        block_on(log.append_async(&mut batch(offset, b"x"), level))
    }),
    ("submit and wait", |log, offset, level| {
        log.submit(
            &[Record {
                tag: tag(offset),
                body: b"x",
            }],
            level,
        )?
        .wait()
    }),
    ("submit and await", |log, offset, level| {
        block_on(log.submit(
            &[Record {
                tag: tag(offset),
                body: b"x",
            }],
            level,
        )?)
    }),
    ("submit_batch and wait", |log, offset, level| {
        log.submit_batch(&mut batch(offset, b"x"), level, None)?.wait()
    }),
];

#[test]
fn each_way_to_append_reaches_its_level_and_no_more() {
    for background in [Background::Thread, Background::Inline] {
        for (name, way) in WAYS {
            let disk = SimDisk::new(1);
            let log = open(&disk, LogOptions::new().background(background));
            let syncs = log.stats().syncs;
            let placed = way(&log, 0, Level::Os).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(left(&disk, None)[0], 0, "{name}: it survives the process");
            assert_eq!(log.stats().syncs, syncs, "{name}: Os makes no sync");
            assert!(log.durable() < placed.end && log.range().1 >= placed.end, "{name}");
            let placed = way(&log, 10, Level::Synced).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(log.durable() >= placed.end, "{name}: it was synced");
            for seed in 0..20 {
                let left = left(&disk, Some(seed));
                assert!(
                    left.contains(&0) && left.contains(&10),
                    "{name}: {left:?} survived the loss of power"
                );
            }
        }
    }
}

#[test]
fn who_asked_for_less_does_not_wait_for_a_sync_and_who_asked_for_it_does() {
    let disk = SimDisk::new(1);
    let view = Watched::new(&disk);
    let (log, _) = Log::open(Arc::new(view.clone()), DIR, LogOptions::new()).expect("the disk is fine");
    let submit = |offset, level| {
        log.submit(
            &[Record {
                tag: tag(offset),
                body: b"x",
            }],
            level,
        )
        .expect("handed over")
    };
    let held = view.hold_syncs();
    let (written, synced, leads) = (submit(0, Level::Os), submit(1, Level::Synced), submit(2, Level::Synced));
    let leader = thread::spawn(move || leads.wait());
    view.wait_for_held(1);
    written.wait().expect("it is with the operating system");
    assert!(synced.try_wait().is_none() && !leader.is_finished());
    assert_eq!(log.stats().blocks, 1, "all of them are in one block");
    drop(held);
    leader.join().expect("no panic").expect("synced");
    let placed = synced.try_wait().expect("an outcome").expect("synced");
    assert!(log.durable() >= placed.end);
}

const RECORD_MAX: usize = 16 << 20;

fn is_too_large(error: &LogError, of: &str) -> bool {
    matches!(error, LogError::TooLarge { what, size, limit } if *what == of && size > limit)
}

#[test]
fn a_record_that_is_too_large_is_refused_by_every_verb_and_nothing_is_written() {
    let disk = SimDisk::new(1);
    let log = open(&disk, LogOptions::new().background(Background::Inline));
    log.append(&[Record::new(1, 0, b"before")], Level::Synced).expect("synced");
    let large = vec![1; RECORD_MAX + 1];
    let (calls, end) = (disk.calls(), log.range().1);
    let small = Record::new(1, 90, b"small");
    // Alone, and behind one that had gone into the buffer already.
    for records in [&[Record::new(1, 91, &large)][..], &[small, Record::new(1, 91, &large)]] {
        let refused = [
            log.append(records, Level::Synced).map(drop),
            log.submit(records, Level::Os).map(drop),
            log.submit_unwatched(records),
        ];
        for (verb, refused) in ["append", "submit", "submit_unwatched"].into_iter().zip(refused) {
            let error = refused.expect_err(verb);
            assert!(is_too_large(&error, "a record"), "{verb}: {error}");
        }
    }
    let mut batch = batch(92, b"stays");
    let pushed = batch.push(tag(93), &large).expect_err("too large");
    let encoded = batch
        .push_with(tag(93), |body| body.extend_from_slice(&large))
        .expect_err("too large");
    assert!(is_too_large(&pushed, "a record") && is_too_large(&encoded, "a record"));
    assert_eq!(
        (batch.len(), batch.bytes()),
        (1, 5),
        "what was in the batch is still there, and no more"
    );
    assert_eq!((disk.calls(), log.range().1), (calls, end), "the disk was not asked for anything");
    assert_eq!((probe::queued(&log), probe::company(&log)), (0, 0));

    log.append_batch(&mut batch, Level::Synced).expect("it is as it was");
    let behind = [
        Record {
            tag: tag(94),
            body: b"behind",
        },
        Record { tag: tag(95), body: b"it" },
    ];
    log.append(&behind, Level::Synced).expect("the log goes on");
    assert_eq!(offsets(&log), [0, 92, 94, 95]);
    disk.power_cut(1);
    assert_eq!(left(&disk, None), [0, 92, 94, 95]);
}

#[test]
fn the_largest_record_and_the_fullest_block_are_taken() {
    let disk = SimDisk::new(1);
    let log = open(&disk, LogOptions::new().background(Background::Inline));
    let largest = vec![1; RECORD_MAX];
    log.append(&[Record::new(1, 0, &largest)], Level::Synced).expect("at the limit");
    let mut batch = Batch::new();
    batch.push(tag(1), &largest).expect("half a block");
    // 72 bytes of head, and 32 for each record at worst: what is left of 32 MiB takes this and not one byte more.
    let rest = vec![2; RECORD_MAX - 72 - 2 * 32];
    let over = vec![2; rest.len() + 1];
    let refused = batch.push(tag(2), &over).expect_err("one byte over");
    assert!(is_too_large(&refused, "a block"), "{refused}");
    batch.push(tag(2), &rest).expect("at the limit");
    let refused = batch.push(tag(3), b"").expect_err("no room for its name");
    assert!(is_too_large(&refused, "a block"), "{refused}");
    assert_eq!(batch.len(), 2);
    log.append_batch(&mut batch, Level::Synced).expect("at the limit");
    let found = read_all(&log).expect("the disk is fine");
    assert!(
        found
            .iter()
            .map(|record| record.body.len())
            .eq([RECORD_MAX, RECORD_MAX, rest.len()])
    );
    drop(log);
    disk.power_cut(1);
    assert_eq!(left(&disk, None), [0, 1, 2]);
}

#[test]
fn a_batch_has_so_many_records_and_no_more() {
    let log = open(&SimDisk::new(1), LogOptions::new().background(Background::Inline));
    let mut batch = Batch::new();
    let most = 1 << 18;
    for offset in 0..most {
        batch.push(tag(offset), b"").expect("within the limit");
    }
    let refused = batch.push(tag(most), b"").expect_err("one too many");
    assert!(is_too_large(&refused, "a batch"), "{refused}");
    let placed = log.append_batch(&mut batch, Level::Os).expect("at the limit");
    assert_eq!((u64::from(placed.count), batch.len()), (most, 0));
    assert_eq!(offsets(&log), (0..most).collect::<Vec<_>>());
}

/// What each record of 400 bytes may take of the queue at most.
const WEIGHT: usize = 500;
const QUEUE: usize = 4096;

fn small_queue() -> LogOptions {
    LogOptions::new()
        .queue_bytes(QUEUE)
        .block_bytes(512)
        .segment_bytes(1 << 20, 1 << 20)
}

#[test]
fn a_full_queue_holds_up_threads_and_takes_no_more_than_its_bound() {
    let disk = SimDisk::new(1);
    let view = Watched::new(&disk);
    let (log, _) = Log::open(Arc::new(view.clone()), DIR, small_queue()).expect("the disk is fine");
    let entered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let held = view.hold_syncs();
        scope.spawn(|| log.append(&[Record::new(1, 0, b"first")], Level::Synced).expect("synced"));
        view.wait_for_held(1);
        for topic in 0..4 {
            let (log, entered) = (&log, &entered);
            scope.spawn(move || {
                for offset in 1..50 {
                    let record = [Record::new(2 + topic, offset, &[1; 400])];
                    match topic {
                        0 => drop(log.submit(&record, Level::Os).expect("handed over")),
                        1 => drop(log.submit(&record, Level::Synced).expect("handed over")),
                        2 => log.submit_unwatched(&record).expect("handed over"),
                        _ => drop(log.append(&record, Level::Os).expect("written")),
                    }
                    entered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until(|| probe::queued(&log) + WEIGHT > QUEUE);
        for _ in 0..10_000 {
            assert!(probe::queued(&log) <= QUEUE, "{} bytes in a queue of {QUEUE}", probe::queued(&log));
            assert!(entered.load(Ordering::Relaxed) <= QUEUE / 400);
            thread::yield_now();
        }
        drop(held);
    });
    log.flush(Level::Synced).expect("synced");
    assert_eq!(probe::queued(&log), 0, "all room came back");
    assert_eq!(offsets(&log).len(), 1 + 4 * 49);
}

#[test]
fn a_batch_that_is_larger_than_the_queue_goes_in_alone() {
    for background in [Background::Thread, Background::Inline] {
        let log = open(&SimDisk::new(1), small_queue().background(background));
        for (offset, (name, way)) in (0..).step_by(10).zip(WAYS) {
            way(&log, offset, Level::Os).unwrap_or_else(|e| panic!("{name}: {e}"));
            log.append(
                &[Record {
                    tag: tag(offset + 5),
                    body: &[1; 3 * QUEUE],
                }],
                Level::Os,
            )
            .unwrap_or_else(|e| panic!("behind {name}: {e}"));
        }
        let found = offsets(&log);
        assert!(found.is_sorted() && found.len() == 2 * WAYS.len() + 1, "{found:?}");
        assert_eq!(probe::queued(&log), 0);
    }
}

/// Fills the queue behind a held sync; what is pending then has entered nothing.
fn fill(log: &Log) -> u64 {
    let mut offset = 1;
    loop {
        let mut batch = batch(offset, &[1; 400]);
        let polled = pin!(log.append_async(&mut batch, Level::Synced)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "no sync has ended");
        if !batch.is_empty() {
            return offset;
        }
        assert!(probe::queued(log) <= QUEUE, "{} bytes", probe::queued(log));
        offset += 1;
    }
}

#[test]
fn a_full_queue_holds_up_futures_without_taking_their_batches() {
    let disk = SimDisk::new(1);
    let view = Watched::new(&disk);
    let (log, _) = Log::open(Arc::new(view.clone()), DIR, small_queue()).expect("the disk is fine");
    let next = thread::scope(|scope| {
        let held = view.hold_syncs();
        scope.spawn(|| {
            log.append(
                &[Record {
                    tag: tag(0),
                    body: b"first",
                }],
                Level::Synced,
            )
            .expect("synced")
        });
        view.wait_for_held(1);
        let next = fill(&log);
        assert!((2..=QUEUE as u64 / 400 + 1).contains(&next), "{next}");
        let queued = probe::queued(&log);
        let (mut cancelled, mut waiting) = (batch(90, &[1; 400]), batch(next, &[1; 400]));
        let (told, waker) = woken();
        {
            let mut cancelled = pin!(log.append_async(&mut cancelled, Level::Os));
            for _ in 0..100 {
                assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        let mut append: Append<'_> = log.append_async(&mut waiting, Level::Synced);
        assert!(pin!(&mut append).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(
            (cancelled.len(), probe::queued(&log)),
            (1, queued),
            "a cancelled append keeps its batch"
        );
        assert_eq!(told.0.load(Ordering::Relaxed), 0);
        drop(held);
        until(|| told.0.load(Ordering::Relaxed) > 0);
        let placed = block_on(append).expect("there is room again");
        assert!(log.durable() >= placed.end && waiting.is_empty());
        next
    });
    log.flush(Level::Synced).expect("synced");
    assert_eq!(offsets(&log), (0..=next).collect::<Vec<_>>());
    assert_eq!(probe::queued(&log), 0);
}

/// Symptom: a log whose queue stayed full held more and more wakers. Cause: that of an append that was cancelled stayed until there was
/// room. Fix: each append has one place for its waker, and takes it along when it is dropped.
#[test]
fn a_full_queue_keeps_no_waker_of_an_append_that_was_cancelled() {
    let disk = SimDisk::new(1);
    let view = Watched::new(&disk);
    let (log, _) = Log::open(Arc::new(view.clone()), DIR, small_queue()).expect("the disk is fine");
    thread::scope(|scope| {
        let held = view.hold_syncs();
        scope.spawn(|| log.append(&[Record::new(1, 0, b"first")], Level::Synced).expect("synced"));
        view.wait_for_held(1);
        fill(&log);
        let mut waiting = batch(90, &[1; 400]);
        let (told, stays) = woken();
        let mut append = pin!(log.append_async(&mut waiting, Level::Os));
        assert!(append.as_mut().poll(&mut Context::from_waker(&stays)).is_pending());
        let held_by_test = 2; // `told` and `stays`
        assert_eq!(Arc::strong_count(&told), held_by_test + 1, "one that waits is kept");
        for _ in 0..100 {
            let (cancelled, waker) = woken();
            let mut other = batch(91, &[1; 400]);
            {
                let mut append = pin!(log.append_async(&mut other, Level::Os));
                for _ in 0..3 {
                    assert!(append.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                }
                assert_eq!(Arc::strong_count(&cancelled), 3, "once, however often it is asked");
            }
            assert_eq!(Arc::strong_count(&cancelled), 2, "a cancelled append takes its waker along");
        }
        let (latest, waker) = woken();
        assert!(append.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(
            (Arc::strong_count(&told), Arc::strong_count(&latest)),
            (2, 3),
            "only the latest one"
        );
        drop(held);
        until(|| latest.0.load(Ordering::Relaxed) > 0);
        block_on(append).expect("there is room again");
        assert_eq!(told.0.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn those_who_wait_for_room_hear_of_the_end() {
    for fails in [false, true] {
        let disk = SimDisk::new(1);
        let view = Watched::new(&disk);
        let (log, _) = Log::open(Arc::new(view.clone()), DIR, small_queue()).expect("the disk is fine");
        let held = view.hold_syncs();
        let first = log
            .submit(
                &[Record {
                    tag: tag(0),
                    body: b"first",
                }],
                Level::Synced,
            )
            .expect("handed over");
        let (says, heard) = mpsc::channel();
        let first = thread::spawn(move || says.send(first.wait()).expect("somebody listens"));
        view.wait_for_held(1);
        fill(&log);
        let mut batch = batch(90, &[1; 400]);
        let (told, waker) = woken();
        let mut append = log.append_async(&mut batch, Level::Os);
        assert!(pin!(&mut append).poll(&mut Context::from_waker(&waker)).is_pending());
        if fails {
            disk.fail(Op::Sync, 1, Fault::Eio);
            drop(held);
            let outcome = heard.recv().expect("an answer");
            assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
        } else {
            thread::scope(|scope| {
                let dropped = scope.spawn(move || drop(log)); // waits for the round under way
                until(|| told.0.load(Ordering::Relaxed) > 0);
                drop(held);
                dropped.join().expect("no panic");
            });
            heard.recv().expect("an answer").expect("its sync went well");
        }
        first.join().expect("no panic");
        until(|| told.0.load(Ordering::Relaxed) > 0);
        let outcome = block_on(append);
        let is_right = match fails {
            true => matches!(outcome, Err(LogError::Fenced { .. })),
            false => matches!(outcome, Err(LogError::Closed)),
        };
        assert!(is_right && batch.len() == 1, "{outcome:?}, {} records came back", batch.len());
    }
}

/// A log on a disk without space, and how many records are in it.
fn starved(options: LogOptions) -> (SimDisk, Log, u64) {
    let disk = SimDisk::new(1);
    let log = open(&disk, options.segment_bytes(4096, 8192).seed(3));
    disk.set_capacity(Some(0)); // what the first segment has is all there is
    let mut next = 0;
    loop {
        // These never wait for space, whatever the log is told to do.
        let receipt = log
            .submit(
                &[Record {
                    tag: tag(next),
                    body: &[1; 300],
                }],
                Level::Os,
            )
            .expect("handed over");
        match receipt.wait() {
            Ok(_) => next += 1,
            Err(LogError::Full) => return (disk, log, next),
            Err(e) => panic!("{e}"),
        }
        assert!(next < 1000, "a disk of nothing never fills");
    }
}

#[test]
fn without_space_everybody_who_does_not_wait_for_it_is_told_so() {
    for when_full in [WhenFull::Fail, WhenFull::Wait] {
        let (disk, log, next) = starved(LogOptions::new().when_full(when_full));
        for (name, way) in WAYS {
            if when_full == WhenFull::Wait && name.starts_with("append") && name != "append_async" {
                continue; // waits
            }
            let refused = way(&log, 500, Level::Os).expect_err(name);
            assert!(matches!(refused, LogError::Full), "{name}: {refused}");
        }
        assert_eq!(offsets(&log), (0..next).collect::<Vec<_>>());
        disk.set_capacity(None);
        drop(log);
        assert_eq!(left(&disk, None), (0..next).collect::<Vec<_>>());
    }
}

#[test]
fn those_who_wait_for_space_go_on_by_themselves_once_there_is_some() {
    let (disk, log, next) = starved(LogOptions::new().when_full(WhenFull::Wait));
    thread::scope(|scope| {
        let one = scope.spawn(|| {
            log.append(
                &[Record {
                    tag: tag(next),
                    body: &[1; 300],
                }],
                Level::Synced,
            )
        });
        let many = scope.spawn(|| {
            let mut several = batch(next + 1, &[1; 300]);
            several.push(tag(next + 2), &[1; 300]).expect("small");
            let outcome = log.append_batch(&mut several, Level::Os);
            (outcome, several.len())
        });
        // Each looks for space again and again, and finds none.
        let calls = disk.calls();
        until(|| disk.calls() > calls + 20);
        assert!(!one.is_finished() && !many.is_finished());
        assert!(log.stats().is_short_of_space);
        assert_eq!(offsets(&log).len() as u64, next, "what waits is not there in part");
        disk.set_capacity(None);
        let placed = one.join().expect("no panic").expect("there is space");
        assert!(log.durable() >= placed.end);
        let (outcome, kept) = many.join().expect("no panic");
        assert_eq!((outcome.expect("there is space").count, kept), (2, 0));
    });
    let mut found = offsets(&log);
    found.sort_unstable();
    assert_eq!(found, (0..next + 3).collect::<Vec<_>>(), "each once");
}

#[test]
fn those_who_wait_for_space_hear_of_the_end() {
    let (disk, log, next) = starved(LogOptions::new().when_full(WhenFull::Wait));
    let outcome = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            log.append(
                &[Record {
                    tag: tag(next),
                    body: &[1; 300],
                }],
                Level::Os,
            )
        });
        let calls = disk.calls();
        until(|| disk.calls() > calls + 10);
        disk.remove(format!("{DIR}/LOCK")); // somebody else may write here from now on
        waiting.join().expect("no panic")
    });
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
    assert_eq!(offsets(&log), (0..next).collect::<Vec<_>>());
}

#[test]
fn who_is_alone_does_not_wait_for_space_that_nobody_would_make() {
    let (disk, log, next) = starved(LogOptions::new().when_full(WhenFull::Wait).background(Background::Inline));
    let mut batch = batch(next, &[1; 300]);
    let refused = log.append_batch(&mut batch, Level::Os).expect_err("there is no space");
    assert!(matches!(refused, LogError::Full), "{refused}");
    disk.set_capacity(None);
    log.append(
        &[Record {
            tag: tag(next),
            body: &[1; 300],
        }],
        Level::Synced,
    )
    .expect("there is space");
    assert_eq!(offsets(&log), (0..=next).collect::<Vec<_>>());
}
