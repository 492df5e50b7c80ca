//! Goal: directories that an older version wrote open for ever, with the same records.
//!
//! Method: `tests/fixtures/log-v<format>-<state>/` holds a directory as it was left on a disk, and beside it a list of
//! what must be found in it. Each is put on a simulated disk, opened and compared. A new format adds directories and keeps
//! these; `cargo test --features disk,testing --test log fixtures:: -- --ignored` writes those of the present format anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Background, Batch, Item, Level, Log, LogError, LogOptions, Tag, Verify};

use crate::support::session::DIR;

/// The states of the present format.
const STATES: [&str; 3] = ["closed", "killed", "torn"];
const FORMAT: u32 = 1;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn options() -> LogOptions {
    LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(4096, 8192)
        .verify(Verify::All)
        .seed(u64::from(FORMAT))
}

#[test]
fn directories_of_every_format_open_with_their_records() {
    let mut seen = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !dir.is_dir() || !name.starts_with("log-v") {
            continue;
        }
        let listed = fs::read_to_string(dir.with_extension("txt")).unwrap();
        let (identity, expected) = listed.split_once('\n').unwrap();
        let disk = SimDisk::new(1);
        load(&disk, &dir, Path::new(DIR));
        let (reader, report) = Log::open(Arc::new(disk.clone()), DIR, options().read_only()).unwrap();
        assert!(report.damage.is_empty() && report.unknown.is_empty(), "{name}: {report:?}");
        assert_eq!(list(&reader), expected, "{name}, for reading only");
        drop(reader);
        let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap();
        assert_eq!(list(&log), expected, "{name}: {report:?}");
        assert_eq!(report.cut.is_some(), name.ends_with("torn"), "{name}: {report:?}");
        assert_eq!(report.clean, name.ends_with("closed"), "{name}: {report:?}");
        assert_eq!(format!("log {:032x}", report.log_id), identity, "{name}");
        seen += 1;
    }
    assert!(seen >= STATES.len(), "only {seen} fixtures");
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    // The version stands at 8 in META and in the header of each segment; the checksum over it is made right again.
    for file in ["META", "segment"] {
        let disk = SimDisk::new(1);
        load(&disk, &fixtures().join(format!("log-v{FORMAT}-closed")), Path::new(DIR));
        let path = match file {
            "META" => PathBuf::from(DIR).join("META"),
            _ => disk
                .files()
                .into_iter()
                .rfind(|f| f.extension().is_some_and(|e| e == "log"))
                .unwrap(),
        };
        let mut bytes = disk.read(&path).unwrap();
        for copy in [0, 512] {
            bytes[copy + 8] = 99;
        }
        if file == "META" {
            ringmq::log::probe::seal_meta(&mut bytes);
        } else {
            ringmq::log::probe::seal(&mut bytes, 0);
        }
        disk.put(&path, &bytes);
        let before: Vec<_> = disk.files().into_iter().map(|f| (f.clone(), disk.read(&f))).collect();
        match Log::open(Arc::new(disk.clone()), DIR, options()) {
            Err(LogError::NewerFormat {
                found: 99, path: named, ..
            }) => assert!(named.ends_with(&path), "{named:?}"),
            other => panic!("{file}: {other:?}"),
        }
        let after: Vec<_> = disk.files().into_iter().map(|f| (f.clone(), disk.read(&f))).collect();
        assert!(before == after, "{file}: refusing changed the directory");
    }
}

/// Symptom: blocks of a newer version behind a header of this one were cut off as a torn end. Cause: what could not be read was no
/// block. Fix: a block of this place whose checksum is right, with a version, kind or flag that is not known, is refused.
#[test]
fn blocks_of_a_newer_format_are_refused_and_left_as_they_are() {
    for state in ["closed", "killed"] {
        let made = SimDisk::new(1);
        load(&made, &fixtures().join(format!("log-v{FORMAT}-{state}")), Path::new(DIR));
        let listed = fs::read_to_string(fixtures().join(format!("log-v{FORMAT}-{state}.txt"))).unwrap();
        let log_id = u128::from_str_radix(&listed[4..36], 16).unwrap();
        let segments: Vec<_> = made
            .files()
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "log"))
            .collect();
        for (path, has_header) in segments.iter().flat_map(|path| [(path, true), (path, false)]) {
            let whole = made.read(path).unwrap();
            for (begins, front) in blocks(&whole) {
                for (at, value) in [(8, 2), (9, 1), (10, 7), (11, 1)] {
                    let mut bytes = whole.clone();
                    bytes[begins + at] = value;
                    let crc = crc32c(&bytes[begins + 8..begins + front]) ^ crc32c(&log_id.to_le_bytes()) ^ 0x5EED_1065;
                    bytes[begins + 4..begins + 8].copy_from_slice(&crc.to_le_bytes());
                    if !has_header {
                        bytes[..1024].fill(0);
                    }
                    let disk = made.copy();
                    disk.put(path, &bytes);
                    let place = format!("{state}, byte {at} of the block at {begins} of {}, {has_header}", path.display());
                    let before: Vec<_> = disk.files().into_iter().map(|f| (f.clone(), disk.read(&f))).collect();
                    for options in [options(), options().read_only()] {
                        match Log::open(Arc::new(disk.clone()), DIR, options) {
                            Err(LogError::NewerFormat { path: named, .. }) => assert_eq!(&named, path, "{place}"),
                            other => panic!("{place}: {other:?}"),
                        }
                    }
                    let after: Vec<_> = disk.files().into_iter().map(|f| (f.clone(), disk.read(&f))).collect();
                    assert!(before == after, "{place}: refusing changed the directory");
                    // Opening that does not look at it does not cut it either, and whoever reads it is told.
                    if let Ok((log, report)) = Log::open(Arc::new(disk.clone()), DIR, options().verify(Verify::Tail)) {
                        assert!(report.cut.is_none() && report.quarantined.is_empty(), "{place}: {report:?}");
                        assert_eq!(disk.read(path).unwrap(), bytes, "{place}");
                        let mut reader = log.reader(log.range().0).unwrap();
                        let refused = loop {
                            match reader.next() {
                                Ok(Some(Item::Record(_))) => {}
                                other => break other.err(),
                            }
                        };
                        assert!(matches!(refused, Some(LogError::NewerFormat { .. })), "{place}: {refused:?}");
                    }
                }
            }
        }
    }
}

/// Where the blocks of a segment begin, and how many bytes of each precede its bodies.
fn blocks(segment: &[u8]) -> Vec<(usize, usize)> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    let magic = number(1024);
    let mut found = Vec::new();
    let mut at = 1024;
    while at + 72 <= segment.len() && number(at) == magic {
        let front = 72 + 24 * number(at + 60) + 8 * number(at + 56);
        found.push((at, front));
        at += (front + number(at + 64)).next_multiple_of(8);
    }
    found
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 },
        )
    })
}

/// Not a test: writes the fixtures of the present format.
#[test]
#[ignore = "writes into the source tree"]
fn write_fixtures() {
    for state in STATES {
        let disk = SimDisk::new(1);
        let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).unwrap();
        fill(&log);
        let expected = format!("log {:032x}\n{}", report.log_id, list(&log));
        match state {
            "closed" => log.close().unwrap(),
            "torn" => {
                let mut batch = Batch::new();
                batch
                    .push(
                        Tag {
                            topic: 1,
                            offset: 99,
                            ..Tag::default()
                        },
                        &[0x99; 1500],
                    )
                    .unwrap();
                log.append_batch(&mut batch, Level::Os).unwrap();
                drop(log);
                let active = disk
                    .files()
                    .into_iter()
                    .rfind(|f| f.extension().is_some_and(|e| e == "log"))
                    .unwrap();
                let mut bytes = disk.read(&active).unwrap();
                let end = bytes.iter().rposition(|b| *b == 0x99).unwrap();
                bytes[end - 512..].fill(0);
                disk.put(&active, &bytes);
            }
            _ => drop(log),
        }
        let dir = fixtures().join(format!("log-v{FORMAT}-{state}"));
        let _ = fs::remove_dir_all(&dir);
        for file in disk.files() {
            let to = dir.join(file.strip_prefix(DIR).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, disk.read(&file).unwrap()).unwrap();
        }
        fs::write(dir.with_extension("txt"), expected).unwrap();
    }
}

/// Records of every shape that the format knows.
fn fill(log: &Log) {
    let mut batch = Batch::new();
    for n in 0..24u64 {
        for i in 0..1 + n % 4 {
            let tag = Tag {
                topic: n % 3,
                offset: n * 10 + i,
                codec: (n % 2) as u8,
                kind: if n % 5 == 4 { Tag::OPTIONAL | 1 } else { 0 },
            };
            batch.push(tag, &vec![n as u8; (n * n + i) as usize]).unwrap();
        }
        batch.set_time(1_000_000 + n);
        log.append_batch(&mut batch, if n % 3 == 0 { Level::Synced } else { Level::Os })
            .unwrap();
        batch.clear();
    }
    log.flush(Level::Synced).unwrap();
}

/// A line for each record.
fn list(log: &Log) -> String {
    let mut reader = log.reader(log.range().0).unwrap();
    let mut lines = String::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record(r) => {
                let sum = r
                    .body
                    .iter()
                    .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
                let tag = r.tag;
                lines.push_str(&format!(
                    "topic {} offset {} codec {} kind {} time {} bytes {} fnv {sum:016x}\n",
                    tag.topic,
                    tag.offset,
                    tag.codec,
                    tag.kind,
                    r.time,
                    r.body.len()
                ));
            }
            other => panic!("{other:?}"),
        }
    }
    lines
}

fn load(disk: &SimDisk, from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            load(disk, &path, &target);
        } else {
            disk.put(target, &fs::read(path).unwrap());
        }
    }
}
