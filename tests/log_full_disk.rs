//! Goal: on a real file system that is full, the log loses nothing, stays readable, and goes on when there is space (D15).
//!
//! Method: a tmpfs of 1 MiB, where this process may mount one; elsewhere the test says why it was skipped.
#![cfg(target_os = "linux")]

#[path = "log/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq::log::vfs::StdVfs;
use ringmq::log::{Level, Log, LogError, LogOptions, OpenReport, Record};

use support::session::read_all;

fn open(dir: &Path) -> (Log, OpenReport) {
    let options = LogOptions::new().segment_bytes(64 << 10, 128 << 10);
    let (log, report) = Log::open(Arc::new(StdVfs::new()), dir, options).unwrap();
    assert!(report.damage.is_empty() && report.missing.is_empty(), "{report:?}");
    (log, report)
}

#[test]
fn a_full_disk_loses_nothing_and_ends_by_itself() {
    for level in [Level::Os, Level::Synced] {
        let Some(disk) = Tmpfs::mount() else {
            return;
        };
        let dir = disk.0.join("data");
        let ballast = disk.0.join("ballast");
        fs::write(&ballast, vec![1; 300 << 10]).unwrap();

        let (log, _) = open(&dir);
        let mut next = 0;
        let append = |log: &Log, n: u64| log.append(&[Record::new(1, n, &[n as u8; 1000])], level);
        // Refused twice in a row: what is refused first may fit then, because a spare that was in the making has taken the last space, and is there.
        let mut refused = 0;
        while refused < 2 {
            match append(&log, next) {
                Ok(_) => (next, refused) = (next + 1, 0),
                Err(e) => {
                    assert!(e.is_full(), "{e}");
                    refused += 1;
                }
            }
            assert!(next < 2000, "1 MiB never fills");
        }
        assert_eq!(offsets(&log), (0..next).collect::<Vec<_>>(), "while full");

        // Opened while the disk is full, all of it is still there, and the log is usable for reading at least.
        drop(log);
        let reader = Log::open(Arc::new(StdVfs::new()), &dir, LogOptions::new().read_only()).unwrap().0;
        assert_eq!(offsets(&reader), (0..next).collect::<Vec<_>>(), "reopened while full");
        drop(reader);
        if let Ok((log, _)) = Log::open(Arc::new(StdVfs::new()), &dir, LogOptions::new().segment_bytes(64 << 10, 128 << 10)) {
            assert_eq!(offsets(&log), (0..next).collect::<Vec<_>>(), "reopened for writing while full");
            fs::remove_file(&ballast).unwrap();
            for n in next..next + 20 {
                patiently(|| append(&log, n));
            }
        } else {
            fs::remove_file(&ballast).unwrap();
            let (log, _) = open(&dir);
            for n in next..next + 20 {
                patiently(|| append(&log, n));
            }
        }
        let (log, _) = open(&dir);
        assert_eq!(offsets(&log), (0..next + 20).collect::<Vec<_>>(), "after all");
        println!("{level:?}: {next} records fitted");
    }
}

#[test]
fn a_full_disk_ends_without_reopening() {
    let Some(disk) = Tmpfs::mount() else {
        return;
    };
    let dir = disk.0.join("data");
    let ballast = disk.0.join("ballast");
    let (log, _) = open(&dir);
    let mut kept = Vec::new();
    let mut n = 0;
    for _ in 0..5 {
        let _ = fs::write(&ballast, vec![1; 1 << 20]); // takes what there is
        while log.append(&[Record::new(1, n, &[n as u8; 1000])], Level::Synced).is_ok() {
            kept.push(n);
            n += 1;
        }
        n += 1;
        fs::remove_file(&ballast).unwrap();
        for _ in 0..50 {
            patiently(|| log.append(&[Record::new(1, n, &[n as u8; 1000])], Level::Synced));
            kept.push(n);
            n += 1;
        }
        assert_eq!(offsets(&log), kept);
    }
    drop(log);
    assert_eq!(offsets(&open(&dir).0), kept);
}

/// Tries again while the log says that it is full: it looks for space again after a moment, not at each append.
fn patiently<T>(append: impl Fn() -> Result<T, LogError>) -> T {
    let begun = Instant::now();
    loop {
        match append() {
            Ok(done) => return done,
            Err(e) => assert!(e.is_full() && begun.elapsed() < PATIENCE, "there is space again: {e}"),
        }
        std::thread::yield_now();
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn offsets(log: &Log) -> Vec<u64> {
    read_all(log).unwrap().iter().map(|r| r.offset).collect()
}

/// A file system of 1 MiB that goes away with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount() -> Option<Self> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ringmq-full-{}-{n}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&dir)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                let _ = fs::remove_dir(&dir);
                None
            }
            Err(e) => {
                println!("skipped: there is no mount command: {e}");
                let _ = fs::remove_dir(&dir);
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
