//! Goal: the four faults that other embedded logs were measured with cost us exactly the record that was hit, by name (G7).
//!
//! Method: 1,000 numbered records of 1,000 B, each confirmed after a sync, on the real file system; the process goes away
//! without closing; one fault; open and read everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::log::vfs::StdVfs;
use ringmq::log::{Damage, DamageKind, Level, Log, LogOptions, OpenReport, Record};

use crate::support::scratch::Scratch;
use crate::support::session::read_salvaging;

const COUNT: u64 = 1000;

fn body(n: u64) -> Vec<u8> {
    let mut body = vec![0x5A; 1000];
    body[..8].copy_from_slice(&n.to_be_bytes());
    body[992..].copy_from_slice(&n.to_be_bytes());
    body
}

/// Where in which file a record's body begins.
fn place(dir: &Path, n: u64) -> (PathBuf, usize) {
    for entry in fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "log") {
            let bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(1000).step_by(8).position(|w| w == body(n)) {
                return (path, at * 8);
            }
            if let Some(at) = bytes.windows(1000).position(|w| w == body(n)) {
                return (path, at);
            }
        }
    }
    panic!("record {n} is nowhere");
}

/// Makes the log, breaks it, opens it: what is lost, and what was said about it.
fn after(name: &str, fault: impl Fn(&Path)) -> (Vec<u64>, OpenReport, Vec<Damage>) {
    let dir = Scratch::new(&format!("fault-{name}"));
    let options = LogOptions::new();
    let (log, _) = Log::open(Arc::new(StdVfs::new()), dir.path(), options.clone()).unwrap();
    for n in 0..COUNT {
        log.append(&[Record::new(1, n, &body(n))], Level::Synced).unwrap();
    }
    drop(log);
    fault(dir.path());
    let (log, report) = Log::open(Arc::new(StdVfs::new()), dir.path(), options).unwrap();
    let (found, damage) = read_salvaging(&log).unwrap();
    for record in &found {
        assert_eq!(record.body[..], body(record.offset)[..], "wrong bytes");
    }
    let found: Vec<u64> = found.iter().map(|r| r.offset).collect();
    assert!(found.is_sorted_by(|a, b| a < b));
    let lost = (0..COUNT).filter(|n| !found.contains(n)).collect();
    (lost, report, damage)
}

fn overwrite(path: &Path, at: usize, with: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    with(&mut bytes[at..]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn without_a_fault_nothing_is_lost_or_reported() {
    let (lost, report, damage) = after("none", |_| {});
    assert_eq!((lost, report.damage, damage, report.cut), (vec![], vec![], vec![], None));
}

#[test]
fn one_bit_in_a_record_costs_that_record_by_name() {
    let (lost, report, damage) = after("body", |dir| {
        let (path, at) = place(dir, 500);
        overwrite(&path, at, |bytes| bytes[300] ^= 4);
    });
    assert_eq!(lost, [500]);
    let damage = [report.damage, damage].concat();
    let named = damage.iter().any(|d| d.kind == DamageKind::Record { topic: 1, offset: 500 });
    assert!(named, "{damage:?}");
}

#[test]
fn one_bit_in_a_head_costs_that_block() {
    for back in [8, 20, 40, 60, 100] {
        let (lost, report, damage) = after(&format!("head-{back}"), |dir| {
            let (path, at) = place(dir, 500);
            overwrite(&path, at - back, |bytes| bytes[0] ^= 4);
        });
        assert_eq!(lost, [500], "{back} bytes before the body");
        assert!(
            !report.damage.is_empty() || !damage.is_empty(),
            "{back} bytes before the body: in silence"
        );
    }
}

#[test]
fn four_zeroed_kibibytes_cost_the_records_in_them() {
    let (lost, report, damage) = after("zeroed", |dir| {
        let (path, at) = place(dir, 500);
        overwrite(&path, at / 4096 * 4096, |bytes| bytes[..4096].fill(0));
    });
    assert!(
        lost.contains(&500) && lost.len() <= 6 && lost.windows(2).all(|w| w[1] == w[0] + 1),
        "{lost:?}"
    );
    assert!(!report.damage.is_empty() || !damage.is_empty(), "in silence");
}

#[test]
fn a_cut_in_the_last_record_costs_that_record_and_is_reported() {
    let (lost, report, _) = after("cut", |dir| {
        let (path, at) = place(dir, 999);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(at as u64 + 500).unwrap();
    });
    assert_eq!(lost, [999]);
    assert!(report.cut.is_some(), "{report:?}");
}
