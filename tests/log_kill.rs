//! Goal: what a receipt confirmed survives a real SIGKILL, on the real file system, with the real I/O thread (G6).
//!
//! Method: this binary starts itself as a child that appends numbered records, at both levels, from two threads, and
//! prints each number once its receipt said Ok. The parent kills it after a number of lines, opens the log, and compares:
//! each thread's records are 0, 1, 2, ... without a gap, and reach at least to what was printed.
//!
//! `KILLS=n` sets how often (500 without it).
#![cfg(unix)]

#[path = "log/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ringmq::log::vfs::StdVfs;
use ringmq::log::{Level, Log, LogOptions, Record};

use support::rng::Rng;
use support::scratch::Scratch;
use support::session::read_all;

const THREADS: u64 = 2;
const CHILD_DIR: &str = "RINGMQ_KILL_DIR";
/// After so many kills a new directory is begun, so that the log stays small.
const KILLS_PER_DIR: u64 = 50;

#[test]
fn what_was_confirmed_survives_a_kill() {
    let kills = std::env::var("KILLS").map_or(500, |n| n.parse().expect("KILLS is a number"));
    let seed = std::env::var("KILL_SEED").map_or(1, |n| n.parse().expect("KILL_SEED is a number"));
    let mut rng = Rng::new(seed);
    let mut confirmed = 0;
    let mut done = 0;
    while done < kills {
        let dir = Scratch::new(&format!("kill-{done}"));
        let mut next = [0; THREADS as usize];
        for _ in 0..KILLS_PER_DIR.min(kills - done) {
            let printed = run_and_kill(dir.path(), &mut rng);
            for (thread, n) in printed {
                let next = &mut next[thread as usize];
                assert!(n >= *next, "thread {thread} confirmed {n} twice");
                *next = n + 1;
                confirmed += 1;
            }
            next = verify(dir.path(), next, done);
            done += 1;
        }
    }
    println!("{kills} kills, {confirmed} confirmed records, KILL_SEED={seed}");
}

/// Starts the child, reads its lines, kills it somewhere in between; returns all that it printed before it died.
fn run_and_kill(dir: &Path, rng: &mut Rng) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_appends", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Zero lines: killed while it opens, or even before.
    let patience = rng.below(40);
    let mut printed = Vec::new();
    while (printed.len() as u64) < patience {
        match lines.next() {
            Some(line) => printed.extend(parse(&line.unwrap())),
            None => panic!("the child ended by itself after {} lines", printed.len()),
        }
    }
    child.kill().unwrap();
    printed.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
    child.wait().unwrap();
    printed
}

fn parse(line: &str) -> Option<(u64, u64)> {
    let (thread, n) = line.strip_prefix("confirmed ")?.strip_suffix(" .")?.split_once(' ')?;
    Some((thread.parse().ok()?, n.parse().ok()?))
}

/// Compares the log with what was confirmed; returns what each thread goes on with.
fn verify(dir: &Path, confirmed: [u64; THREADS as usize], kill: u64) -> [u64; THREADS as usize] {
    let (log, report) = Log::open(Arc::new(StdVfs::new()), dir, options()).unwrap();
    assert!(
        report.damage.is_empty() && report.missing.is_empty() && report.unknown.is_empty(),
        "{report:?}"
    );
    let mut found = [0; THREADS as usize];
    for record in read_all(&log).unwrap() {
        let expected = &mut found[record.topic as usize];
        assert_eq!(record.offset, *expected, "kill {kill}: thread {} skips or repeats", record.topic);
        assert_eq!(record.body[..], body(record.topic, record.offset)[..]);
        *expected += 1;
    }
    for thread in 0..THREADS as usize {
        assert!(
            found[thread] >= confirmed[thread],
            "kill {kill}: {confirmed:?} confirmed, {found:?} found: {report:?}"
        );
    }
    found
}

#[test]
#[ignore = "not a test: the process that is killed"]
fn child_that_appends() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let (log, _) = Log::open(Arc::new(StdVfs::new()), PathBuf::from(dir), options()).unwrap();
    let mut next = [0; THREADS as usize];
    for record in read_all(&log).unwrap() {
        next[record.topic as usize] = record.offset + 1;
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for n in next[thread as usize].. {
                    let level = if n % 3 == 0 { Level::Synced } else { Level::Os };
                    log.append(&[Record::new(thread, n, &body(thread, n))], level).unwrap();
                    // One write per line, so that a kill never leaves half of one that looks whole.
                    let line = format!("\nconfirmed {thread} {n} .\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

fn options() -> LogOptions {
    LogOptions::new().segment_bytes(16 << 10, 128 << 10)
}

fn body(thread: u64, n: u64) -> Vec<u8> {
    vec![thread as u8; (n * 37 % 700) as usize]
}
