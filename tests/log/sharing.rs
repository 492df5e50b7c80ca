//! Goal: those who wait for a sync at the same time share it, and there is one at a time: a failed one is reported once, so
//! whoever syncs next has to know of it (G5, G6).
//!
//! Method: the disk holds a sync while others enter the queue; then it lets go, and the syncs are counted.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Batch, Level, Log, LogOptions, Record, Tag, probe};

use crate::support::session::{DIR, read_all};
use crate::support::watched::{Watched, until};

/// Large enough that nothing but commits syncs.
fn open(disk: &SimDisk, options: LogOptions) -> (Log, Watched) {
    let view = Watched::new(disk);
    let (log, _) = Log::open(Arc::new(view.clone()), DIR, options.segment_bytes(1 << 20, 1 << 20)).expect("the disk is fine");
    (log, view)
}

const OTHERS: u64 = 16;

/// Holds the sync of a first append until `OTHERS` more wait in the queue; tells how many syncs those took.
fn syncs_of_others(options: LogOptions, body: &[u8], wait: impl Fn(&Log, u64) + Sync) -> u64 {
    let disk = SimDisk::new(1);
    let (log, view) = open(&disk, options);
    let before = view.syncs();
    thread::scope(|scope| {
        let held = view.hold_syncs();
        scope.spawn(|| log.append(&[Record::new(0, 0, body)], Level::Synced).expect("synced"));
        view.wait_for_held(1);
        for other in 0..OTHERS {
            let (log, wait) = (&log, &wait);
            scope.spawn(move || wait(log, other));
        }
        until(|| probe::company(&log) == OTHERS);
        assert_eq!(view.syncs(), before + 1, "the first is still under way");
        drop(held);
    });
    assert_eq!(read_all(&log).expect("the disk is fine").len() as u64, 1 + OTHERS);
    disk.power_cut(1);
    let syncs = view.syncs() - before - 1;
    drop(log);
    let (log, _) = open(&disk, LogOptions::new());
    assert_eq!(read_all(&log).expect("the disk is fine").len() as u64, 1 + OTHERS);
    syncs
}

#[test]
fn all_threads_that_append_during_a_sync_share_the_next_one() {
    // In one block, and in blocks of their own.
    for (options, len) in [(LogOptions::new(), 50), (LogOptions::new().block_bytes(512), 500)] {
        let body = vec![7; len];
        let syncs = syncs_of_others(options, &body, |log, other| {
            let placed = log.append(&[Record::new(1, other, &body)], Level::Synced).expect("synced");
            assert!(log.durable() >= placed.end);
        });
        assert_eq!(syncs, 1, "{len} bytes each");
    }
}

#[test]
fn all_threads_that_wait_for_a_receipt_during_a_sync_share_the_next_one() {
    let syncs = syncs_of_others(LogOptions::new(), b"submitted", |log, other| {
        let receipt = log
            .submit(&[Record::new(1, other, b"submitted")], Level::Synced)
            .expect("handed over");
        let placed = receipt.wait().expect("synced");
        assert!(log.durable() >= placed.end);
    });
    assert_eq!(syncs, 1);
}

#[test]
fn all_futures_that_are_polled_during_a_sync_share_the_next_one() {
    let disk = SimDisk::new(1);
    let (log, view) = open(&disk, LogOptions::new());
    let before = view.syncs();
    thread::scope(|scope| {
        let held = view.hold_syncs();
        scope.spawn(|| log.append(&[Record::new(0, 0, b"first")], Level::Synced).expect("synced"));
        view.wait_for_held(1);
        for offset in 0..OTHERS {
            let tag = Tag {
                topic: 1,
                offset,
                ..Tag::default()
            };
            let mut batch = Batch::new();
            batch.push(tag, b"async").expect("small");
            let mut future = pin!(log.append_async(&mut batch, Level::Synced));
            let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "no sync has ended");
        }
        assert_eq!(view.syncs(), before + 1, "a future does not sync");
        drop(held);
    });
    log.flush(Level::Synced).expect("synced");
    assert_eq!(view.syncs(), before + 2);
    assert_eq!(read_all(&log).expect("the disk is fine").len() as u64, 1 + OTHERS);
}

#[test]
fn a_sync_that_was_covered_by_another_is_not_made_again() {
    let (log, view) = open(&SimDisk::new(1), LogOptions::new());
    log.append(&[Record::new(1, 0, b"once")], Level::Synced).expect("synced");
    let before = view.syncs();
    for _ in 0..10 {
        log.flush(Level::Synced).expect("synced");
    }
    assert_eq!(view.syncs(), before);
}

/// The thread of the log syncs what nobody waits for; a commit comes meanwhile.
#[test]
fn a_commit_does_not_begin_a_sync_while_another_one_is_under_way() {
    let (log, view) = open(&SimDisk::new(1), LogOptions::new().write_back_bytes(1000));
    let before = view.syncs();
    thread::scope(|scope| {
        let held = view.hold_syncs();
        log.append(&[Record::new(1, 0, &[1; 2000])], Level::Os).expect("written");
        view.wait_for_held(1);
        let blocks = log.stats().blocks;
        scope.spawn(|| log.append(&[Record::new(1, 1, b"commit")], Level::Synced).expect("synced"));
        until(|| log.stats().blocks > blocks);
        // It is written, and all that is left is to sync it. A second sync would be here soon.
        for _ in 0..10_000 {
            assert_eq!(view.under_way(), 1);
            thread::yield_now();
        }
        drop(held);
    });
    assert_eq!((view.syncs() - before, view.most_under_way()), (2, 1));
}

#[test]
fn there_is_one_sync_at_a_time_whoever_asks_for_it() {
    let disk = SimDisk::new(2);
    let (log, view) = open(&disk, LogOptions::new().write_back_bytes(1000).block_bytes(512));
    thread::scope(|scope| {
        for topic in 0..8u64 {
            let log = &log;
            scope.spawn(move || {
                for offset in 0..100 {
                    let level = if topic < 4 { Level::Synced } else { Level::Os };
                    let placed = log.append(&[Record::new(topic, offset, &[1; 300])], level).expect("appended");
                    assert!(level == Level::Os || log.durable() >= placed.end);
                }
            });
        }
    });
    assert_eq!(view.most_under_way(), 1);
}
