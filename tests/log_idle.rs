//! Goal: an idle log costs no time (G10).
//!
//! Method: the real file system and the real I/O thread, alone in this process; how often its threads let go of the processor, before and after.
#![cfg(target_os = "linux")]

#[path = "log/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use ringmq::log::vfs::StdVfs;
use ringmq::log::{Level, Log, LogOptions, Record};

use support::scratch::Scratch;

#[test]
fn an_idle_log_uses_no_processor_time() {
    let dir = Scratch::new("close-idle");
    let options = LogOptions::new().segment_bytes(16 << 10, 64 << 10);
    let log = Log::open(Arc::new(StdVfs::new()), dir.path(), options).unwrap().0;
    log.append(&[Record::new(1, 0, b"x")], Level::Synced).unwrap();
    log.flush(Level::Synced).unwrap();
    let wakes = || -> u64 {
        let mut sum = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap().path();
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let switches = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            if name.starts_with("ringmq") {
                sum += switches.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        }
        sum
    };
    // One-shot work that is still due (a note, a spare) may come within the first two seconds; nothing after that.
    let (_alive, quiet) = mpsc::channel::<()>();
    let _ = quiet.recv_timeout(Duration::from_millis(2200));
    let before = wakes();
    let _ = quiet.recv_timeout(Duration::from_millis(1500));
    assert_eq!(wakes(), before, "the I/O thread wakes though nothing is to be done");
}
