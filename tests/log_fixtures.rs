//! Goal: directories that an older version wrote open for ever, with the same records.
//!
//! Method: `tests/fixtures/log-v<format>-<state>/` holds a directory as it was left on a disk, and beside it a list of
//! what must be found in it. Each is put on a simulated disk, opened and compared. A new format adds directories and keeps
//! these; `cargo test --features disk,testing --test log_fixtures -- --ignored` writes those of the present format anew.
#![cfg(all(feature = "disk", feature = "testing"))]

mod log_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::sim::SimDisk;
use ringmq::log::{Background, Batch, Item, Level, Log, LogError, LogOptions, Tag, Verify};

use log_support::session::DIR;

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
