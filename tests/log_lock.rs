//! Goal: one writer per directory, whatever dies, is deleted or is replaced (D21); readers need no lock.
//!
//! Method: real directories, real processes: this binary starts itself as the other process.
#![cfg(unix)]

#[path = "log/support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ringmq::log::vfs::{StdVfs, Vfs};
use ringmq::log::{Level, Log, LogError, LogOptions, Record};

use support::scratch::Scratch;
use support::session::read_all;

const CHILD_DIR: &str = "RINGMQ_LOCK_DIR";

fn open(dir: &Path) -> Result<Log, LogError> {
    Log::open(Arc::new(StdVfs::new()), dir, LogOptions::new().segment_bytes(16 << 10, 64 << 10)).map(|(log, _)| log)
}

fn append(log: &Log, offset: u64) -> Result<(), LogError> {
    log.append(&[Record::new(1, offset, b"x")], Level::Os).map(|_| ())
}

/// Starts a process that has the log open, once it says so.
fn neighbour(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_the_lock", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.contains("holding")),
        "the child never opened the log"
    );
    child
}

#[test]
#[ignore = "not a test: the process that holds the lock"]
fn child_that_holds_the_lock() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let log = open(Path::new(&dir)).unwrap();
    append(&log, 0).unwrap();
    println!("\nholding");
    let _ = std::io::stdin().read_line(&mut String::new()); // until it is killed, or the parent is gone
}

#[test]
fn a_second_writer_is_refused_in_this_process_and_in_another() {
    let dir = Scratch::new("lock-second");
    let log = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(LogError::Locked { .. })));
    log.close().unwrap();
    let mut child = neighbour(dir.path());
    assert!(matches!(open(dir.path()), Err(LogError::Locked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    let log = open(dir.path()).expect("the lock of a killed process is free");
    assert_eq!(read_all(&log).unwrap().len(), 1);
}

#[test]
fn a_reader_needs_no_lock_and_changes_nothing() {
    let dir = Scratch::new("lock-reader");
    let log = open(dir.path()).unwrap();
    append(&log, 0).unwrap();
    let listing = |dir: &Path| {
        let mut names: Vec<_> = walk(dir).into_iter().map(|f| (fs::read(&f).unwrap(), f)).collect();
        names.sort();
        names
    };
    let before = listing(dir.path());
    let (reader, _) = Log::open(Arc::new(StdVfs::new()), dir.path(), LogOptions::new().read_only()).unwrap();
    assert_eq!(read_all(&reader).unwrap().len(), 1);
    assert!(matches!(append(&reader, 9), Err(LogError::ReadOnly)));
    assert!(before == listing(dir.path()));
    append(&log, 1).expect("the writer goes on");
}

#[test]
fn a_reader_of_nothing_says_so_and_makes_nothing() {
    let dir = Scratch::new("lock-nothing");
    let opened = Log::open(Arc::new(StdVfs::new()), dir.path(), LogOptions::new().read_only());
    assert!(matches!(opened, Err(LogError::NotFound { .. })));
    assert!(!dir.path().exists());
}

#[test]
fn a_deleted_lock_file_is_noticed_by_its_holder() {
    let dir = Scratch::new("lock-deleted");
    fs::create_dir(dir.path()).unwrap();
    let vfs = StdVfs::new();
    let path = dir.path().join("LOCK");
    let held = vfs.lock(&path).unwrap();
    assert!(held.still_named().unwrap());
    fs::remove_file(&path).unwrap();
    assert!(!held.still_named().unwrap());
    let other = vfs.lock(&path).unwrap();
    assert!(other.still_named().unwrap());
    assert!(!held.still_named().unwrap(), "another file has the name now");
}

#[test]
fn a_writer_whose_lock_file_was_replaced_stops_before_it_makes_another_segment() {
    let dir = Scratch::new("lock-replaced");
    let log = open(dir.path()).unwrap();
    append(&log, 0).unwrap();
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let stopped = (1..100_000).find_map(|i| append(&log, i).err());
    assert!(stopped.is_some(), "it wrote on for 100,000 records beside whoever has the new lock");
}

/// Goal: what was prepared while it had the lock is no way around it: a ready spare does not become a segment.
#[test]
fn a_writer_whose_lock_file_was_replaced_makes_no_segment_of_a_spare_that_is_ready() {
    let dir = Scratch::new("lock-spare");
    let log = open(dir.path()).unwrap();
    let has_spare = || walk(dir.path()).iter().any(|file| file.extension().is_some_and(|e| e == "spare"));
    let mut offset = 0;
    while !has_spare() {
        append(&log, offset).unwrap();
        offset += 1;
    }
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let before = log.segments().len();
    let stopped = (offset..offset + 100_000).find_map(|i| append(&log, i).err());
    assert!(stopped.is_some(), "it wrote on for 100,000 records beside whoever has the new lock");
    assert_eq!(log.segments().len(), before);
}

/// Symptom: a writer whose lock file was deleted removed records that the next writer had confirmed. Cause: only a roll looked at
/// the lock. Fix: so does whatever removes or replaces a segment.
#[test]
fn a_writer_whose_lock_file_was_replaced_removes_nothing_of_the_next_one() {
    for rewrites in [false, true] {
        let dir = Scratch::new("lock-removes");
        let one = open(dir.path()).unwrap();
        let mut offset = 0;
        while one.segments().len() < 3 {
            append(&one, offset).unwrap();
            offset += 1;
        }
        one.flush(Level::Synced).unwrap();
        fs::remove_file(dir.path().join("LOCK")).unwrap();
        let other = open(dir.path()).unwrap();
        append(&other, offset).unwrap();
        let names = || walk(&dir.path().join("log"));
        let before = names();
        let first = one.segments()[0];
        let stopped = if rewrites {
            one.rewrite(first.first..first.last + 1, |tag, _| tag.offset % 2 == 0, |_, _, _| {})
                .map(drop)
        } else {
            one.retire(first.first)
        };
        assert!(matches!(stopped, Err(LogError::Fenced { .. })), "{stopped:?}");
        assert_eq!(names(), before);
        assert_eq!(read_all(&other).unwrap().len() as u64, offset + 1);
    }
}

#[test]
fn files_are_private_and_links_are_not_followed() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let dir = Scratch::new("lock-private");
    let log = open(dir.path()).unwrap();
    append(&log, 0).unwrap();
    log.close().unwrap();
    for file in walk(dir.path()) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    for sub in ["", "log"] {
        assert_eq!(fs::metadata(dir.path().join(sub)).unwrap().mode() & 0o777, 0o700);
    }

    let vfs = StdVfs::new();
    let outside = Scratch::new("lock-outside");
    fs::create_dir(outside.path()).unwrap();
    let target = outside.path().join("precious");
    fs::write(&target, b"precious").unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    for how in [
        ringmq::log::vfs::Open::Read,
        ringmq::log::vfs::Open::Write,
        ringmq::log::vfs::Open::Create,
    ] {
        assert!(vfs.open(&link, how).is_err(), "{how:?} followed a link");
    }
    assert!(vfs.lock(&link).is_err());
    let dir_link = dir.path().join("dir");
    symlink(outside.path(), &dir_link).unwrap();
    assert!(vfs.create_dir(&dir_link).is_err());
    // A link in the place of a segment's directory, or of the lock, is an error and costs the target nothing.
    for name in ["LOCK", "META"] {
        fs::rename(dir.path().join(name), dir.path().join("aside")).unwrap();
        symlink(&target, dir.path().join(name)).unwrap();
        assert!(open(dir.path()).is_err(), "{name} may not be a link");
        fs::rename(dir.path().join("aside"), dir.path().join(name)).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    open(dir.path()).unwrap();
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}
