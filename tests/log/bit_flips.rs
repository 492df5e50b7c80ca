//! Goal: every flipped bit and every cut of a file is found, costs exactly what it hits, and panics nothing (G7).
//!
//! Method: a directory of at least 64 KiB is made on a simulated disk and closed. Then, one at a time, each bit of each
//! file is flipped, each file is cut at each length, and sectors are zeroed or overwritten by others; the log is opened
//! and read. Whatever is found must have been appended, in order. A flipped bit costs nothing, or one record, or the
//! records of one block; what is lost is named with its file and place; what is not noticed hit a zero.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringmq::log::sim::SimDisk;
use ringmq::log::{
    Background, Damage, DamageKind, Item, Level, Log, LogError, LogOptions, OnDamage, OpenReport, Record, SegmentInfo, Verify,
};

use crate::support::oracle::Rec;
use crate::support::records::segments;
use crate::support::rng::Rng;
use crate::support::session::{DIR, read_salvaging};

/// How many records the largest block has.
const PER_BLOCK: u64 = 4;

fn options() -> LogOptions {
    LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(16 << 10, 16 << 10)
        .seed(5)
        .verify(Verify::All)
}

/// A closed log of several segments, and the batches in it.
fn made() -> (SimDisk, Vec<Vec<Rec>>) {
    let disk = SimDisk::new(1);
    let mut rng = Rng::new(1);
    let mut batches: Vec<Vec<Rec>> = Vec::new();
    let mut next = 0;
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap();
    while disk.used() < 80 << 10 {
        let batch: Vec<Rec> = (0..1 + rng.below(PER_BLOCK))
            .map(|i| Rec {
                topic: 1 + batches.len() as u64 % 3 / 2,
                offset: next + i,
                body: (0..rng.below(700)).map(|_| rng.next() as u8).collect(),
            })
            .collect();
        let borrowed: Vec<_> = batch.iter().map(|r| Record::new(r.topic, r.offset, &r.body)).collect();
        log.append(&borrowed, Level::Synced).unwrap();
        next += batch.len() as u64;
        batches.push(batch);
    }
    log.close().unwrap();
    disk.settle();
    (disk, batches)
}

/// What a broken place did.
#[derive(Debug)]
struct Effect {
    report: OpenReport,
    /// What the reader met; the report has what opening met.
    damage: Vec<Damage>,
    /// The indices of the lost records.
    lost: Vec<usize>,
    total: usize,
}

impl Effect {
    /// Opens and reads a broken log; everything that is found must have been appended, in order.
    fn of(disk: &SimDisk, all: &[Rec]) -> Result<Self, LogError> {
        let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options())?;
        let (found, damage) = read_salvaging(&log)?;
        let mut lost = Vec::new();
        let mut next = 0;
        for record in &found {
            while next < all.len() && all[next] != *record {
                lost.push(next);
                next += 1;
            }
            assert!(next < all.len(), "{record:?} was never appended there: {report:?}");
            next += 1;
        }
        lost.extend(next..all.len());
        Ok(Self {
            report,
            damage,
            lost,
            total: all.len(),
        })
    }

    /// Damage is named at this place.
    fn names(&self, file: &Path, byte: u64) -> bool {
        let mut all = self.report.damage.iter().chain(&self.damage);
        all.any(|d| d.file.ends_with(file) && (d.position..d.position + d.len.max(1)).contains(&byte))
    }

    /// Somebody was told something.
    fn noticed(&self) -> bool {
        let report = &self.report;
        !self.damage.is_empty()
            || !report.damage.is_empty()
            || !report.missing.is_empty()
            || !report.unknown.is_empty()
            || !report.quarantined.is_empty()
            || !report.kept.is_empty()
            || report.cut.is_some()
            || !report.clean
    }
}

/// Breaks a copy of the disk in every way of a list, on all cores; `check` judges each effect.
fn each<T: Sync>(ways: &[T], breaks: impl Fn(&SimDisk, &T) + Sync, check: impl Fn(&T, Result<Effect, LogError>) + Sync) {
    let (disk, batches) = made();
    let all = batches.concat();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(way) = ways.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let broken = disk.copy();
                    breaks(&broken, way);
                    check(way, Effect::of(&broken, &all));
                }
            });
        }
    });
}

fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let (disk, _) = made();
    let files: Vec<_> = disk.files().into_iter().map(|f| (f.clone(), disk.read(&f).unwrap())).collect();
    assert!(files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= 64 << 10);
    files
}

/// Every place of a list of files, each `step` bytes.
fn places(files: &[(PathBuf, Vec<u8>)], step: usize) -> Vec<(usize, u64)> {
    let of = |(i, (_, bytes)): (usize, &(PathBuf, Vec<u8>))| (0..bytes.len() as u64).step_by(step).map(move |at| (i, at));
    files.iter().enumerate().flat_map(of).collect()
}

#[test]
fn every_flipped_bit_costs_what_it_hits_and_is_named() {
    let files = files();
    let (_, batches) = made();
    let ways: Vec<(usize, u64, u64)> = places(&files, 1)
        .into_iter()
        .flat_map(|(f, at)| (0..8).map(move |bit| (f, at, bit)))
        .collect();
    let (idle, noticed, records, blocks) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    each(
        &ways,
        |disk, (file, at, bit)| assert!(disk.flip(&files[*file].0, at * 8 + bit)),
        |(file, at, bit), effect| {
            let (name, bytes) = &files[*file];
            let place = format!("bit {bit} of byte {at} of {}", name.display());
            let effect = effect.unwrap_or_else(|e| panic!("{place} bricks the log: {e}"));
            let count = match effect.lost.as_slice() {
                [] if effect.noticed() => &noticed,
                [] => {
                    assert_eq!(bytes[*at as usize], 0, "{place} is not noticed and was no zero");
                    &idle
                }
                lost => {
                    assert!(effect.names(name, *at), "{place} is not named: {effect:?}");
                    let mut first = 0;
                    let block = batches.iter().map(|b| {
                        first += b.len();
                        (first - b.len()..first).collect::<Vec<_>>()
                    });
                    assert!(lost.len() == 1 || block.into_iter().any(|b| b == lost), "{place} costs {lost:?}");
                    if lost.len() == 1 { &records } else { &blocks }
                }
            };
            count.fetch_add(1, Ordering::Relaxed);
        },
    );
    println!(
        "{} bits: {} carry nothing, {} are noticed and cost nothing, {} cost one record, {} the records of one block",
        ways.len(),
        idle.into_inner(),
        noticed.into_inner(),
        records.into_inner(),
        blocks.into_inner()
    );
}

/// Where a block lies: its segment file, where it begins, where its last body ends, and which records it has.
#[derive(Debug)]
struct Block {
    file: PathBuf,
    begin: u64,
    end: u64,
    records: std::ops::Range<usize>,
}

/// The blocks of the closed log, in order, and the segment files with the position behind each.
fn blocks() -> (Vec<Block>, Vec<(PathBuf, u64)>) {
    let (disk, _) = made();
    let (log, _) = Log::open(Arc::new(disk), DIR, options().read_only()).unwrap();
    let path = |segment: &SegmentInfo| {
        let name = format!("{:016x}-{:016x}.{}.log", segment.first, segment.last, segment.generation);
        Path::new(DIR).join("log").join(name)
    };
    let segments = log.segments();
    let mut blocks: Vec<Block> = Vec::new();
    let mut reader = log.reader(log.range().0).unwrap();
    let mut index = 0;
    while let Some(Item::Record(record)) = reader.next().unwrap() {
        let holds = |segment: &&SegmentInfo| (segment.from..segment.to).contains(&record.block);
        let segment = segments.iter().find(holds).unwrap();
        let place = |lsn: u64| 1024 + lsn - segment.from.0;
        let end = place(record.location.lsn.0) + record.body.len() as u64;
        match blocks.last_mut() {
            Some(block) if block.file == path(segment) && block.begin == place(record.block.0) => {
                block.end = end;
                block.records.end += 1;
            }
            _ => blocks.push(Block {
                file: path(segment),
                begin: place(record.block.0),
                end,
                records: index..index + 1,
            }),
        }
        index += 1;
    }
    let ends = segments.iter().map(|segment| (path(segment), 1024 + segment.to.0 - segment.from.0));
    (blocks, ends.collect())
}

/// A file that is cut loses the records whose blocks reach beyond the cut, and no others. Before the last segment, all that is lost is
/// damage, from the first block that is not whole to the end of the segment. In the last one, what is lost looks as if it had never been
/// written, its promises with it: the log is not clean, and the bytes of a block that is there in part are cut.
#[test]
fn every_truncation_costs_the_records_beyond_it_and_is_told() {
    let files = files();
    let (blocks, ends) = blocks();
    assert!(ends.len() > 3 && blocks.last().is_some_and(|block| block.file == ends[ends.len() - 1].0));
    each(
        &places(&files, 1),
        |disk, (file, len)| assert!(disk.truncate(&files[*file].0, *len)),
        |(file, len), effect| {
            let (name, bytes) = &files[*file];
            let (len, place) = (*len, format!("{} cut at {len}", name.display()));
            let effect = effect.unwrap_or_else(|e| panic!("{place} bricks the log: {e}"));
            let (report, named) = (&effect.report, |kind| move |damage: &&Damage| damage.kind == kind);
            let gone: Vec<&Block> = blocks.iter().filter(|block| block.file == *name && block.end > len).collect();
            let lost: Vec<usize> = gone.iter().flat_map(|block| block.records.clone()).collect();
            assert_eq!(effect.lost, lost, "{place}: {report:?}");
            assert!(report.unknown.is_empty(), "{place}: {report:?}");
            let is_headless = len < 120 && ends.iter().any(|(segment, _)| segment == name);
            assert!(report.missing.is_empty() || is_headless, "{place}: {report:?}");
            let Some(at) = ends.iter().position(|(segment, _)| segment == name) else {
                // META is there twice; a lock and a spare say nothing.
                let hits_a_copy = name.ends_with("META") && len < 512 + 64;
                assert_eq!(
                    report.damage.iter().filter(named(DamageKind::Meta)).count(),
                    usize::from(hits_a_copy),
                    "{place}"
                );
                assert!(
                    report.clean && report.cut.is_none() && report.damage.len() <= 1,
                    "{place}: {report:?}"
                );
                return;
            };
            let header_copies = u64::from(len >= 120) + u64::from(len >= 512 + 120);
            if at + 1 < ends.len() {
                let expected: Vec<_> = gone.first().map(|first| (first.begin, ends[at].1)).into_iter().collect();
                let of_blocks = report.damage.iter().filter(|damage| damage.kind == DamageKind::Blocks);
                if header_copies > 0 {
                    let found: Vec<_> = of_blocks.map(|damage| (damage.position, damage.position + damage.len)).collect();
                    assert_eq!(found, expected, "{place}: {report:?}");
                    let copies = report.damage.iter().filter(named(DamageKind::HeaderCopy)).count();
                    assert_eq!(copies, usize::from(header_copies == 1), "{place}: {report:?}");
                } else {
                    assert_eq!(
                        report.damage.iter().filter(named(DamageKind::Header)).count(),
                        1,
                        "{place}: {report:?}"
                    );
                }
                assert!(report.damage.iter().all(|damage| damage.file == *name), "{place}: {report:?}");
                assert!(report.clean && report.cut.is_none(), "{place}: {report:?}");
                return;
            }
            // The closing block is the last one, and is behind the last record.
            let closing = ends[at].1 + 72;
            assert_eq!(report.clean, len >= closing, "{place}: {report:?}");
            if header_copies > 0 {
                let begins = gone.first().map_or(ends[at].1, |block| block.begin).min(len);
                let torn = bytes[begins as usize..len as usize].iter().rposition(|byte| *byte != 0);
                let cut = report.cut.as_ref().map(|cut| (cut.position, cut.bytes));
                let expected = torn
                    .filter(|_| len < closing && begins >= 1024)
                    .map(|last| (begins, last as u64 + 1));
                assert_eq!(cut, expected, "{place}: {report:?}");
                assert!(
                    report.damage.iter().all(|damage| damage.kind == DamageKind::HeaderCopy),
                    "{place}: {report:?}"
                );
            }
        },
    );
}

#[test]
fn every_zeroed_or_misdirected_sector_is_noticed_and_costs_its_blocks_only() {
    let files = files();
    let sectors = places(&files, 512);
    for (what, size) in [
        ("zeroed", 512),
        ("zeroed", 4096),
        ("replaced by another", 512),
        ("replaced by another", 4096),
    ] {
        each(
            &sectors,
            |disk, (file, at)| {
                let (name, bytes) = &files[*file];
                let (at, end) = (*at as usize, bytes.len().min(*at as usize + size));
                let mut broken = bytes.clone();
                if what == "zeroed" {
                    broken[at..end].fill(0);
                } else {
                    let from = (at + 8192) % (bytes.len() - (end - at)).max(1) / 512 * 512;
                    broken.copy_within(from..from + (end - at), at);
                }
                disk.put(name, &broken);
            },
            |(file, at), effect| {
                let place = format!("{size} bytes at {at} of {} {what}", files[*file].0.display());
                let effect = effect.unwrap_or_else(|e| panic!("{place} brick the log: {e}"));
                assert!(effect.lost.is_empty() || effect.noticed(), "lost in silence: {place}: {effect:?}");
                let most = size / 80 + 2 * PER_BLOCK as usize;
                assert!(effect.lost.len() <= most && effect.lost.len() < effect.total, "{place}: {effect:?}");
            },
        );
    }
}

#[test]
fn a_damaged_log_can_be_refused_and_is_then_left_as_it_is() {
    let (disk, batches) = made();
    let segment = segments(&disk).remove(0);
    let content = |disk: &SimDisk| -> Vec<_> { disk.files().into_iter().map(|f| (f.clone(), disk.read(&f))).collect() };
    // Somewhere in the first segment, behind its header: a record or the head of a block.
    for byte in [1100, 2000, 5000] {
        let broken = disk.copy();
        broken.flip(&segment, byte * 8);
        let before = content(&broken);
        match Log::open(Arc::new(broken.clone()), DIR, options().on_damage(OnDamage::Refuse)) {
            Err(LogError::Refused { report }) => assert!(!report.damage.is_empty()),
            other => panic!("byte {byte}: {other:?}"),
        }
        assert!(before == content(&broken), "byte {byte}: refusing changed the directory");
        assert!(Effect::of(&broken, &batches.concat()).unwrap().names(&segment, byte));
    }
}
