//! What the fuzz targets do with their input. The corpus goes through the same functions in `cargo test`.
//!
//! Each function panics if something passes that must not, and otherwise says nothing: an input is anything.
#![allow(dead_code, reason = "each target uses its own part of this")]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ringmq::log::sim::{Fault, Op, SimDisk};
use ringmq::log::vfs::{Open, Vfs};
use ringmq::log::{Background, Item, Level, Log, LogOptions, OnDamage, Record, Verify, probe};

const DIR: &str = "data";
const SEED: u64 = 4;
/// An opening that makes more calls than this does not end.
const CALLS: u64 = 50_000;

/// Any bytes as the head of a block and of a segment, and, sealed, once more.
pub fn block_header(data: &[u8]) {
    let log_id = base().log_id;
    let _ = probe::block(data, log_id);
    let _ = probe::header(data, 1, 1, 0);
    if let Ok(name) = std::str::from_utf8(data) {
        let _ = probe::name(name);
    }
    let mut sealed = data.to_vec();
    probe::seal(&mut sealed, log_id);
    let _ = probe::header(&sealed, 1, 1, 0);
    if probe::seal_block(&mut sealed, None, log_id).is_some() {
        let _ = probe::block(&sealed, log_id);
    }
}

/// A real block whose directory is overwritten by any bytes, sealed.
pub fn directory(data: &[u8]) {
    let base = base();
    let mut block = base.segment[1024..].to_vec();
    let (counts, rest) = data.split_at(data.len().min(12));
    block[56..56 + counts.len()].copy_from_slice(counts);
    let n = rest.len().min(block.len() - 72);
    block[72..72 + n].copy_from_slice(&rest[..n]);
    if probe::seal_block(&mut block, None, base.log_id).is_some() {
        let _ = probe::block(&block, base.log_id);
    }
}

/// A log whose only segment is overwritten: `at`, `len`, bytes, and again. The first byte says whether it is sealed.
pub fn segment(data: &[u8]) {
    let base = base();
    let Some((choice, edits)) = data.split_first() else {
        return;
    };
    let mut bytes = base.segment.clone();
    edit(&mut bytes, edits);
    if choice & 1 == 1 {
        probe::seal(&mut bytes, base.log_id);
    }
    let disk = base.disk.copy();
    disk.put(&base.path, &bytes);
    visit(&disk, choice & 2 == 2);
}

/// A directory of several segments, edited as a whole: files copied over each other, cut, lengthened, removed, flipped,
/// sealed.
pub fn log_directory(data: &[u8]) {
    let base = base();
    let Some((choice, mut ops)) = data.split_first() else {
        return;
    };
    let disk = base.large.copy();
    let files = disk.files();
    while let Some((op, rest)) = ops.split_first_chunk::<6>() {
        ops = rest;
        let file = &files[op[1] as usize % files.len()];
        let other = &files[op[2] as usize % files.len()];
        let at = u64::from(u16::from_le_bytes([op[3], op[4]]));
        match op[0] % 8 {
            0 => _ = disk.flip(file, at * 8 + u64::from(op[5] % 8)),
            1 => _ = disk.truncate(file, at),
            // Up to 16 MiB: files of any length take a second each to look through, and `tests/log/directory.rs` has them.
            2 => _ = disk.truncate(file, at << (op[5] % 9)),
            3 => _ = disk.remove(file),
            4 => disk.put(other, &content(&disk, file).unwrap_or_default()),
            5 => {
                let mut bytes = content(&disk, file).unwrap_or_default();
                if bytes.len() < 1 << 20 {
                    edit(&mut bytes, &[op[3], op[4], 1, op[5]]);
                    probe::seal(&mut bytes, base.log_id);
                    disk.put(file, &bytes);
                }
            }
            6 => {
                let name = file.file_name().and_then(|n| n.to_str()).unwrap_or("x");
                let mut name = name.to_owned();
                let place = op[3] as usize % name.len();
                if name.is_char_boundary(place) && name.is_char_boundary(place + 1) {
                    name.replace_range(place..=place, ["0", "1", "f", "-", ".", "7"][op[5] as usize % 6]);
                }
                let content = content(&disk, other).unwrap_or_default();
                disk.put(file.with_file_name(name), &content[..content.len().min(1 << 20)]);
            }
            _ => {
                let n = u64::from(op[5]) * 8;
                let bytes = content(&disk, other).unwrap_or_default();
                let from = (at as usize).min(bytes.len());
                let part = bytes[from..bytes.len().min(from + n as usize)].to_vec();
                let mut target = content(&disk, file).unwrap_or_default();
                target.truncate(1 << 20);
                target.extend_from_slice(&part);
                disk.put(file, &target);
            }
        }
    }
    visit(&disk, choice & 2 == 2);
}

/// What is in a file; nothing when there is none, or one so large that no test should hold it.
fn content(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let len = disk.open(path, Open::Read).ok()?.len().ok()?;
    (len <= 1 << 20).then(|| disk.read(path)).flatten()
}

/// Opens what is there, in both ways, reads it, writes to it, and opens it once more.
fn visit(disk: &SimDisk, refuses: bool) {
    disk.fail_from(Op::Any, CALLS, Fault::Eio);
    let on_damage = if refuses { OnDamage::Refuse } else { OnDamage::Salvage };
    let options = options().on_damage(on_damage).verify(Verify::All);
    if let Ok((log, _)) = Log::open(Arc::new(disk.clone()), DIR, options.clone().read_only()) {
        read(&log);
    }
    let Ok((log, _)) = Log::open(Arc::new(disk.clone()), DIR, options.clone()) else {
        return;
    };
    let before = read(&log);
    if log.append(&[Record::new(9, 9, b"written after")], Level::Synced).is_err() {
        return;
    }
    drop(log);
    disk.power_cut(1);
    let (log, _) = Log::open(Arc::new(disk.clone()), DIR, options.on_damage(OnDamage::Salvage)).expect("what was opened opens again");
    let after = read(&log);
    assert!(
        before.is_none() || after.is_none() || after > before,
        "{before:?} records, one more, then {after:?}"
    );
}

/// How many records can be read; `None` when the disk gave up.
fn read(log: &Log) -> Option<usize> {
    let mut reader = log.reader(log.range().0).ok()?;
    let mut records = 0;
    while let Some(item) = reader.next().ok()? {
        if let Item::Record(_) = item {
            records += 1;
        }
    }
    Some(records)
}

/// Overwrites: two bytes say where, one says how many, then they follow.
fn edit(bytes: &mut [u8], mut edits: &[u8]) {
    while let Some((head, rest)) = edits.split_first_chunk::<3>() {
        let at = usize::from(u16::from_le_bytes([head[0], head[1]])) % bytes.len().max(1);
        let n = usize::from(head[2]).min(rest.len()).min(bytes.len() - at);
        bytes[at..at + n].copy_from_slice(&rest[..n]);
        edits = &rest[n..];
    }
}

fn options() -> LogOptions {
    LogOptions::new()
        .background(Background::Inline)
        .segment_bytes(4096, 4096)
        .seed(SEED)
}

/// What the inputs change.
struct Base {
    log_id: u128,
    /// A log of one segment, killed.
    disk: SimDisk,
    path: std::path::PathBuf,
    segment: Vec<u8>,
    /// A log of several segments, closed.
    large: SimDisk,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let (disk, log_id) = made(3);
        let (large, _) = made(16);
        let path = disk
            .files()
            .into_iter()
            .find(|f| f.extension().is_some_and(|e| e == "log"))
            .expect("a segment");
        let segment = disk.read(&path).expect("its content");
        Base {
            log_id,
            disk,
            path,
            segment,
            large,
        }
    })
}

fn made(records: u64) -> (SimDisk, u128) {
    let disk = SimDisk::new(SEED);
    let (log, report) = Log::open(Arc::new(disk.clone()), DIR, options()).expect("a new log");
    for offset in 0..records {
        let body = [offset as u8; 200];
        log.append(&[Record::new(1, offset, &body), Record::new(2, offset, &body[..20])], Level::Synced)
            .expect("space");
    }
    drop(log);
    disk.kill();
    disk.settle();
    (disk, report.log_id)
}
