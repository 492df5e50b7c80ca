//! Goal: a reader beside a writer names no damage that is not there and does not fail because the writer goes on: what is
//! retired while it looks is taken as retired, and everything else is found (G7, D20).
//!
//! Method: the reader's disk lets the writer work within the k-th call of the reader, for every k, once or again and again:
//! it appends, retires, uses the files again and rewrites. Then the reader reads everything.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ringmq::log::sim::SimDisk;
use ringmq::log::vfs::{Entry, FileId, Open, Vfs, VfsFile, VfsLock};
use ringmq::log::{Background, Item, Level, Log, LogOptions, OnDamage, Record, Verify};

use crate::support::session::DIR;

/// The disk of the reader: some of its calls come after the writer has done something.
#[derive(Clone)]
struct Beside {
    disk: SimDisk,
    /// Calls so far.
    calls: Arc<AtomicU64>,
    /// The first call that the writer gets before.
    first: u64,
    /// Every so many calls after that, it gets another turn.
    every: u64,
    turns: u64,
    writer: Arc<Mutex<dyn FnMut() + Send>>,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Beside")
    }
}

impl Beside {
    fn tick(&self) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let past = call.checked_sub(self.first);
        if past.is_some_and(|past| past.is_multiple_of(self.every) && past / self.every < self.turns) {
            (self.writer.lock().unwrap())();
        }
    }
}

impl Vfs for Beside {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        self.tick();
        assert_eq!(how, Open::Read, "a reader changes nothing");
        let file = self.disk.open(path, how)?;
        Ok(Box::new(BesideFile(self.clone(), file)))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn unlink(&self, _: &Path) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn list(&self, dir: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        self.tick();
        self.disk.list(dir, visit)
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn VfsLock>> {
        panic!("a reader changes nothing")
    }
}

#[derive(Debug)]
struct BesideFile(Beside, Box<dyn VfsFile>);

impl VfsFile for BesideFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.tick();
        self.1.read_at(buf, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("a reader changes nothing")
    }
    fn len(&self) -> io::Result<u64> {
        self.0.tick();
        self.1.len()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn sync_data(&self) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn sync_all(&self) -> io::Result<()> {
        panic!("a reader changes nothing")
    }
    fn identity(&self) -> io::Result<Option<FileId>> {
        self.1.identity()
    }
}

/// What the writer does in its turns.
#[derive(Clone, Copy, Debug)]
struct Turn {
    appends: u64,
    /// How many segments stay when it retires.
    keeps: Option<usize>,
    /// How many of the oldest it rewrites.
    rewrites: usize,
}

struct Writer {
    log: Log,
    next: u64,
    body: usize,
    /// What it has given up.
    gone: BTreeSet<u64>,
}

impl Writer {
    fn append(&mut self, count: u64) {
        for _ in 0..count {
            let body = vec![self.next as u8; self.body];
            let level = if self.next.is_multiple_of(2) { Level::Synced } else { Level::Os };
            self.log.append(&[Record::new(1, self.next, &body)], level).unwrap();
            self.next += 1;
        }
    }

    fn offsets(&self, from: ringmq::log::Lsn, to: ringmq::log::Lsn) -> Vec<u64> {
        let mut reader = self.log.reader(from).unwrap().until(to);
        let mut offsets = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Record(record) => offsets.push(record.tag.offset),
                other => panic!("{other:?}"),
            }
        }
        offsets
    }

    fn turn(&mut self, turn: Turn) {
        self.append(turn.appends);
        let sealed = |log: &Log| -> Vec<_> { log.segments().into_iter().filter(|s| s.is_sealed).collect() };
        if turn.rewrites > 0 {
            let some: Vec<_> = sealed(&self.log).into_iter().take(turn.rewrites).collect();
            if let (Some(first), Some(last)) = (some.first(), some.last()) {
                let is_dropped = |offset: u64| !offset.is_multiple_of(5);
                let dropped = self.offsets(first.from, last.to).into_iter().filter(|offset| is_dropped(*offset));
                self.gone.extend(dropped.collect::<Vec<_>>());
                self.log
                    .rewrite(first.first..last.last + 1, |tag, _| !is_dropped(tag.offset), |_, _, _| {})
                    .unwrap();
            }
        }
        if let Some(keeps) = turn.keeps {
            let sealed = sealed(&self.log);
            for segment in sealed.iter().rev().skip(keeps) {
                let offsets = self.offsets(segment.from, segment.to);
                self.gone.extend(offsets);
                self.log.retire(segment.first).unwrap();
            }
        }
        self.append(turn.appends);
    }
}

/// Opens and reads beside a writer; how many calls that took.
fn read_beside(options: &LogOptions, body: usize, count: u64, turn: Turn, (first, every, turns): (u64, u64, u64), verify: Verify) -> u64 {
    let place = format!("{turn:?} from call {first} on, every {every}, {turns} times, {verify:?}");
    let disk = SimDisk::new(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.clone()).unwrap();
    let mut writer = Writer {
        log,
        next: 0,
        body,
        gone: BTreeSet::new(),
    };
    writer.append(count);
    let writer = Arc::new(Mutex::new(writer));
    let calls = Arc::new(AtomicU64::new(0));
    let turning = Arc::clone(&writer);
    let beside = Beside {
        disk,
        calls: Arc::clone(&calls),
        first,
        every,
        turns,
        writer: Arc::new(Mutex::new(move || turning.lock().unwrap().turn(turn))),
    };
    let read_only = options.clone().read_only().verify(verify).on_damage(OnDamage::Refuse);
    let (reader, report) = Log::open(Arc::new(beside), DIR, read_only).unwrap_or_else(|e| panic!("{place}: {e:?}"));
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{place}: {report:?}");
    let mut found = Vec::new();
    let mut records = reader.reader(reader.range().0).unwrap();
    while let Some(item) = records.next().unwrap_or_else(|e| panic!("{place}: {e:?}")) {
        match item {
            Item::Record(record) => {
                assert!(
                    record.body.len() == body && record.body.iter().all(|b| *b == record.tag.offset as u8),
                    "{place}"
                );
                found.push(record.tag.offset);
            }
            other => panic!("{place}: {other:?}"),
        }
    }
    assert!(found.is_sorted_by(|a, b| a < b), "{place}: {found:?}");
    let gone = &writer.lock().unwrap().gone;
    let lost: Vec<u64> = (0..count).filter(|n| !gone.contains(n) && !found.contains(n)).collect();
    assert!(lost.is_empty(), "{place}: {lost:?} were passed over, found {found:?}");
    calls.load(Ordering::Relaxed)
}

#[test]
fn a_reader_beside_a_writer_finds_no_damage_and_all_that_was_not_given_up() {
    let small = LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
    let turns = [
        (60, Some(2), 0),
        (0, Some(3), 0),
        (20, None, 1),
        (20, None, 4),
        (30, Some(4), 3),
        (5, None, 0),
    ];
    for (appends, keeps, rewrites) in turns {
        let turn = Turn { appends, keeps, rewrites };
        for verify in [Verify::Tail, Verify::All] {
            let mut first = 1;
            // Once, and again and again for a while.
            while read_beside(&small, 200, 120, turn, (first, 1, 1), verify) >= first {
                read_beside(&small, 200, 120, turn, (first, 3, 6), verify);
                first += 1;
            }
            assert!(first > 20, "hardly a call was met");
        }
    }
}

/// A segment that is longer than what is read at once: its beginning is looked at before the writer goes on, its end after.
#[test]
fn a_reader_beside_a_writer_takes_no_block_for_damaged_that_came_while_it_looked() {
    let large = LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(1 << 20, 1 << 20)
        .seed(1);
    for (appends, count) in [(40, 80), (10, 85), (100, 10), (200, 80)] {
        let turn = Turn {
            appends,
            keeps: None,
            rewrites: 0,
        };
        let mut first = 1;
        while read_beside(&large, 3000, count, turn, (first, 1, 1), Verify::All) >= first {
            read_beside(&large, 3000, count, turn, (first, 2, 4), Verify::All);
            first += 1;
        }
    }
}

/// Segments that are longer than what is read at once: their files are used again while the reader is within them.
#[test]
fn a_reader_beside_a_writer_takes_no_file_for_damaged_that_is_used_again() {
    let large = LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(512 << 10, 512 << 10)
        .seed(1);
    for (appends, keeps) in [(200, 1), (400, 0), (0, 1), (600, 2)] {
        let turn = Turn {
            appends,
            keeps: Some(keeps),
            rewrites: 0,
        };
        for verify in [Verify::Tail, Verify::All] {
            let mut first = 1;
            while read_beside(&large, 3000, 600, turn, (first, 1, 1), verify) >= first {
                first += 1;
            }
        }
    }
}
