//! Goal: reading by place or in order gives the bytes that were appended, or says which record is damaged, gone or moved; other
//! bytes never (G7; D4, D8, D20).
//!
//! Method: bytes change, and files are rewritten, retired and used again, under an open log and under one that only reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::{
    Background, Damage, DamageKind, Item, Level, Location, Log, LogError, LogOptions, Lsn, OpenReport, Record, SegmentInfo, Tag, Verify,
};

use crate::support::records::body;
use crate::support::session::DIR;

fn options() -> LogOptions {
    LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1)
}

fn open(disk: &SimDisk, options: LogOptions) -> (Log, OpenReport) {
    Log::open(Arc::new(disk.clone()), DIR, options).expect("the disk is fine")
}

/// Two records to a block, of two streams.
fn append(log: &Log, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let body = body(offset);
        log.append(&[Record::new(1, offset, &body), Record::new(2, offset, &body)], Level::Os)
            .expect("written");
    }
}

/// The records that a reader gives, with their places, and the damage it names.
fn read_all(log: &Log) -> (Vec<(Tag, Location)>, Vec<Damage>) {
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    let mut reader = log.reader(log.range().0).expect("the first position");
    while let Some(item) = reader.next().expect("the disk is fine") {
        match item {
            Item::Record(record) => {
                assert_eq!(record.body, body(record.tag.offset), "{:?} has its own bytes", record.tag);
                found.push((record.tag, record.location));
            }
            Item::Damage(place) => damage.push(place),
            other => panic!("{other:?}"),
        }
    }
    (found, damage)
}

fn segment_of(log: &Log, lsn: Lsn) -> SegmentInfo {
    let inside = |segment: &SegmentInfo| segment.from <= lsn && lsn < segment.to;
    log.segments().into_iter().find(inside).expect("a segment")
}

/// Where a record is on the disk.
fn place(log: &Log, location: Location) -> (PathBuf, u64) {
    let segment = segment_of(log, location.lsn);
    let name = format!("{:016x}-{:016x}.{}.log", segment.first, segment.last, segment.generation);
    (Path::new(DIR).join("log").join(name), 1024 + location.lsn.0 - segment.from.0)
}

#[test]
fn a_record_whose_bytes_changed_is_named_by_its_place_and_by_a_reader_and_never_returned() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 0..40);
    let (all, damage) = read_all(&log);
    assert!(all.len() == 80 && damage.is_empty() && log.segments().len() > 3);
    let read_only = open(&disk, options().read_only()).0;
    let mut bytes = Vec::new();
    for (index, (tag, location)) in all.iter().enumerate() {
        let (file, position) = place(&log, *location);
        for byte in [0, 100, 199] {
            assert!(disk.flip(&file, (position + byte) * 8 + index as u64 % 8));
            let named = |damage: &Damage| {
                let kind = DamageKind::Record {
                    topic: tag.topic,
                    offset: tag.offset,
                };
                let end = Lsn(location.lsn.0 + 200);
                assert_eq!(
                    (damage.kind, &damage.file, damage.position, damage.len),
                    (kind, &file, position, 200)
                );
                assert_eq!((damage.from, damage.to), (location.lsn, end));
            };
            for log in [&log, &read_only] {
                bytes.clear();
                bytes.extend_from_slice(b"of somebody else");
                match log.read(*tag, *location, &mut bytes) {
                    Err(LogError::Damaged(damage)) => named(&damage),
                    other => panic!("{tag:?}: {other:?}"),
                }
                assert!(bytes.is_empty(), "nothing of it is given out");
                let (found, damage) = read_all(log);
                assert_eq!(damage.len(), 1, "{damage:?}");
                named(&damage[0]);
                let mut others = all.clone();
                others.remove(index);
                assert_eq!(found, others, "its neighbours are intact");
            }
            assert!(disk.flip(&file, (position + byte) * 8 + index as u64 % 8));
        }
        log.read(*tag, *location, &mut bytes).expect("it is as it was");
        assert_eq!(bytes, body(tag.offset));
    }
}

#[test]
fn a_place_that_was_made_up_or_belongs_to_another_record_gives_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 1..21); // of 0, the bytes would be the same a little further on
    let (all, _) = read_all(&log);
    let mut bytes = Vec::new();
    for ((tag, location), (other, elsewhere)) in all.iter().zip(all.iter().cycle().skip(2)) {
        let wrong = [
            (*other, *location),
            (*tag, *elsewhere),
            (
                *tag,
                Location {
                    lsn: elsewhere.lsn,
                    ..*location
                },
            ),
            (
                *tag,
                Location {
                    crc: elsewhere.crc,
                    ..*location
                },
            ),
            (*tag, Location { len: 199, ..*location }),
            (*tag, Location { len: 201, ..*location }),
            (
                *tag,
                Location {
                    lsn: Lsn(location.lsn.0 + 1),
                    ..*location
                },
            ),
        ];
        for (tag, location) in wrong {
            bytes.clear();
            let outcome = log.read(tag, location, &mut bytes);
            assert!(matches!(outcome, Err(LogError::Damaged(_) | LogError::Gone { .. })), "{outcome:?}");
            assert!(bytes.is_empty());
        }
        let of_later = Location {
            generation: 1,
            ..*location
        };
        assert!(matches!(log.read(*tag, of_later, &mut bytes), Err(LogError::Moved { lsn }) if lsn == location.lsn));
        for lsn in [log.range().1, Lsn(log.range().1.0 - 1), Lsn(u64::MAX - 100), Lsn(u64::MAX)] {
            let behind = log.read(*tag, Location { lsn, ..*location }, &mut bytes);
            assert!(matches!(behind, Err(LogError::Gone { lsn: at }) if at == lsn), "{behind:?}");
        }
    }
}

#[test]
fn a_disk_that_fails_is_no_damage_and_is_asked_again() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 0..20);
    let (all, _) = read_all(&log);
    let (tag, location) = all[5];
    let mut bytes = Vec::new();
    disk.fail(Op::Read, 1, Fault::Eio);
    let failed = log.read(tag, location, &mut bytes);
    let file = place(&log, location).0;
    match &failed {
        Err(LogError::Io { operation, path, source }) => {
            assert_eq!((*operation, path), ("read", &file));
            assert!(source.to_string().contains("device failed"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    log.read(tag, location, &mut bytes).expect("the disk is fine again");
    assert_eq!(bytes, body(tag.offset));
    for fault in [Fault::Interrupted, Fault::Short(7)] {
        disk.fail(Op::Read, 1, fault);
        log.read(tag, location, &mut bytes).expect("no failure");
        assert_eq!(bytes, body(tag.offset));
    }
}

#[test]
fn a_place_from_before_a_rewriting_or_retiring_gives_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 0..60);
    let (mut all, _) = read_all(&log);
    let mut bytes = Vec::new();
    for round in 1..=2 {
        let segments = log.segments();
        let chosen = segments[1];
        let stale: Vec<_> = all
            .iter()
            .filter(|(_, location)| (chosen.from..chosen.to).contains(&location.lsn))
            .copied()
            .collect();
        assert!(stale.len() > 2);
        let mut moved = Vec::new();
        let first = stale[0].0.offset;
        log.rewrite(
            chosen.first..chosen.last + 1,
            |tag, _| tag.offset % 2 == first % 2 && (round == 1 || tag.offset != first),
            |tag, from, to| moved.push((tag, from, to)),
        )
        .expect("rewritten");
        for (tag, location) in &stale {
            bytes.clear();
            let outcome = log.read(*tag, *location, &mut bytes);
            assert!(
                matches!(outcome, Err(LogError::Moved { lsn }) if lsn == location.lsn),
                "{outcome:?}"
            );
            assert!(bytes.is_empty(), "{tag:?} of generation {}", location.generation);
        }
        assert!(!moved.is_empty() && moved.len() < stale.len());
        for (tag, from, to) in &moved {
            assert!(stale.contains(&(*tag, *from)) && to.generation == round);
            log.read(*tag, *to, &mut bytes).expect("its new place");
            assert_eq!(bytes, body(tag.offset));
        }
        all = read_all(&log).0;
    }
    let segments = log.segments();
    for segment in &segments[..2] {
        log.retire(segment.first).expect("sealed");
    }
    for (tag, location) in all {
        let outcome = log.read(tag, location, &mut bytes);
        if location.lsn < segments[1].to {
            assert!(matches!(outcome, Err(LogError::Gone { lsn }) if lsn == location.lsn), "{outcome:?}");
        } else {
            outcome.expect("it is still there");
            assert_eq!(bytes, body(tag.offset));
        }
    }
}

/// A writer knows its own readers, and keeps its hands off their files. It does not know who reads beside it.
#[test]
fn who_reads_beside_a_writer_that_uses_its_files_again_never_gets_what_is_in_them_now() {
    const LEN: usize = 20_000;
    const OLD: u64 = 200;
    let disk = SimDisk::new(1);
    let large = options().segment_bytes(1 << 20, 1 << 20);
    let (log, _) = open(&disk, large.clone());
    let body = |offset: u64| vec![offset as u8; LEN];
    let append = |offset: u64| log.append(&[Record::new(1, offset, &body(offset))], Level::Os).map(drop);
    (0..OLD).for_each(|offset| append(offset).expect("written"));
    let beside = open(&disk, large.read_only()).0;
    let mut places = Vec::new();
    let mut reader = beside.reader(beside.range().0).expect("the first position");
    while let Some(Item::Record(record)) = reader.next().expect("the disk is fine") {
        places.push((record.tag, record.location));
    }
    assert_eq!(places.len() as u64, OLD);
    // Readers that stand in each segment, with most of it still to be read, and all files open.
    let mut parked = Vec::new();
    for segment in beside.segments() {
        let mut reader = beside.reader(segment.from).expect("a segment");
        assert!(matches!(reader.next(), Ok(Some(Item::Record(_)))));
        parked.push(reader);
    }
    let spares = || {
        disk.files()
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "spare"))
            .count()
    };
    let (mut offset, mut recycled) = (1000, 0);
    while log
        .segments()
        .first()
        .is_some_and(|segment| segment.from < Lsn(OLD * LEN as u64 / 2))
    {
        let rolls = log.stats().rolls;
        while log.stats().rolls == rolls {
            append(offset).expect("written");
            offset += 1;
        }
        let before = spares();
        log.retire(log.segments()[0].first).expect("sealed");
        recycled += u64::from(spares() > before);
    }
    assert!(recycled > 0, "else nothing is shown");
    (0..60).for_each(|more| append(offset + more).expect("written"));

    let mut bytes = Vec::new();
    let (mut intact, mut gone) = (0, 0);
    for (tag, location) in &places {
        match beside.read(*tag, *location, &mut bytes) {
            Ok(()) => {
                intact += 1;
                assert_eq!(bytes, body(tag.offset));
            }
            Err(LogError::Gone { lsn }) => {
                gone += 1;
                assert_eq!(lsn, location.lsn, "its file has another name by now, so it is not damage");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(intact > 0 && gone > 0, "{intact} intact, {gone} gone");
    let mut passed_over = 0;
    for reader in &mut parked {
        let mut last = 0;
        while let Some(item) = reader.next().expect("the disk is fine") {
            match item {
                Item::Record(record) => {
                    let offset = record.tag.offset;
                    assert!(
                        offset < OLD && offset > last,
                        "{offset} after {last}: not of the log as it was opened"
                    );
                    assert_eq!(record.body, body(offset));
                    passed_over += u64::from(last > 0 && offset > last + 1);
                    last = offset;
                }
                other => panic!("what was retired is no damage: {other:?}"),
            }
        }
        assert_eq!(last, OLD - 1, "it reads to the end");
    }
    assert!(passed_over > 0, "else no reader stood in a file that was used again");
}

#[test]
fn damage_that_opening_does_not_look_for_is_met_by_whoever_reads_there() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 0..60);
    let (all, _) = read_all(&log);
    let (tag, location) = all[3];
    let (file, position) = place(&log, location);
    log.close().expect("closed");
    disk.flip(&file, position * 8);
    let (log, report) = open(&disk, options());
    assert!(report.damage.is_empty(), "the first segment is not looked at: {report:?}");
    let (found, damage) = read_all(&log);
    assert_eq!((found.len(), damage.len()), (all.len() - 1, 1));
    assert!(matches!(log.read(tag, location, &mut Vec::new()), Err(LogError::Damaged(_))));
    drop(log);
    let (_, report) = open(&disk, options().verify(Verify::All));
    assert_eq!(report.damage, damage, "the same, before anybody reads");
}

/// Symptom: after an error, the buffer held another record, or a part of one. Cause: it was only emptied where the bytes were read and
/// did not fit their checksum. Fix: it is empty after every error.
#[test]
fn after_any_error_the_buffer_is_empty() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, options());
    append(&log, 0..40);
    let (all, _) = read_all(&log);
    let (tag, location) = all[5];
    let segments = log.segments();
    let at = |lsn| Location { lsn, ..location };
    let of = |generation| Location { generation, ..location };
    let elsewhere = Tag { offset: 77, ..tag };
    log.retire(segments[1].first).expect("sealed");
    let cases = [
        ("behind the end", tag, at(Lsn(u64::MAX / 2))),
        ("beyond all numbers", tag, at(Lsn(u64::MAX))),
        ("of another generation", tag, of(3)),
        ("retired", tag, at(segments[1].from)),
        ("too large", tag, Location { len: u32::MAX, ..location }),
        ("another record", elsewhere, location),
        ("a disk that fails", tag, location),
        ("a disk that fails midway", tag, location),
    ];
    for (what, tag, location) in cases {
        let mut bytes = b"old".to_vec();
        match what {
            "a disk that fails" => disk.fail(Op::Read, 1, Fault::Eio),
            "a disk that fails midway" => {
                disk.fail(Op::Read, 1, Fault::Short(7));
                disk.fail(Op::Read, 2, Fault::Eio);
            }
            _ => {}
        }
        let failed = log.read(tag, location, &mut bytes);
        assert!(failed.is_err() && bytes.is_empty(), "{what}: {failed:?}, {} bytes", bytes.len());
    }
    let mut bytes = b"old".to_vec();
    log.read(tag, location, &mut bytes).expect("it is still there");
    assert_eq!(bytes, body(tag.offset));
}
