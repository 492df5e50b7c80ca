//! What nobody waits for: spares, syncs of what was only written, and commits that only futures wait for.
//!
//! One thread, parked while there is nothing to do. It wakes by itself only when something was handed over that nobody
//! waits for: that is written 50 ms later and synced 1 s later, unless a commit has done both before.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::error::LogError;
use super::shared::Shared;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, thread};

/// What the worker is asked to do.
#[derive(Debug)]
pub(crate) struct Signal {
    asked: Mutex<Asked>,
    changed: Condvar,
    /// A timer for unwaited data runs: whoever adds more need not start one.
    is_timed: AtomicBool,
}

#[derive(Debug, Default)]
struct Asked {
    lead: bool,
    write_back: bool,
    spare: Option<u64>,
    stop: bool,
    write_at: Option<Instant>,
    sync_at: Option<Instant>,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self {
            asked: Mutex::new(Asked::default()),
            changed: Condvar::new(),
            is_timed: AtomicBool::new(false),
        }
    }

    fn ask(&self, change: impl FnOnce(&mut Asked)) {
        change(&mut self.asked.lock());
        self.changed.notify_one();
    }

    /// Somebody waits who cannot lead.
    pub(crate) fn lead(&self) {
        self.ask(|asked| asked.lead = true);
    }

    /// Much was written and not synced.
    pub(crate) fn write_back(&self) {
        self.ask(|asked| asked.write_back = true);
    }

    pub(crate) fn want_spare(&self, capacity: u64) {
        self.ask(|asked| asked.spare = Some(capacity));
    }

    /// Something was handed over that nobody waits for.
    pub(crate) fn start_timer(&self) {
        if !self.is_timed.load(Ordering::Acquire) && !self.is_timed.swap(true, Ordering::AcqRel) {
            self.ask(|asked| asked.write_at = Some(Instant::now() + WRITE_AFTER));
        }
    }

    pub(crate) fn stop(&self) {
        self.ask(|asked| asked.stop = true);
    }

    fn is_stopping(&self) -> bool {
        self.asked.lock().stop
    }

    /// Waits for something to do.
    fn next(&self) -> Asked {
        let mut asked = self.asked.lock();
        loop {
            let now = Instant::now();
            if asked.write_at.is_some_and(|at| at <= now) {
                asked.write_at = None;
                asked.lead = true;
                asked.sync_at.get_or_insert(now + SYNC_AFTER);
                self.is_timed.store(false, Ordering::Release);
            }
            if asked.sync_at.is_some_and(|at| at <= now) {
                asked.sync_at = None;
                asked.write_back = true;
            }
            if asked.stop || asked.lead || asked.write_back || asked.spare.is_some() {
                let (write_at, sync_at) = (asked.write_at, asked.sync_at);
                let taken = std::mem::take(&mut *asked);
                *asked = Asked {
                    write_at,
                    sync_at,
                    stop: taken.stop,
                    ..Asked::default()
                };
                return taken;
            }
            asked = match [asked.write_at, asked.sync_at].into_iter().flatten().min() {
                Some(at) => self.changed.wait_until(asked, at),
                None => self.changed.wait(asked),
            };
        }
    }

    /// Takes what has been asked for, without waiting.
    fn take(&self) -> Asked {
        let mut asked = self.asked.lock();
        let taken = std::mem::take(&mut *asked);
        asked.write_at = taken.write_at;
        asked.sync_at = taken.sync_at;
        taken
    }
}

/// Starts the thread.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<thread::JoinHandle<()>, LogError> {
    let shared_in_thread = Arc::clone(shared);
    let builder = thread::Builder::new().name("ringmq-log".into());
    let started = builder.spawn(move || run(&shared_in_thread));
    started.map_err(|e| LogError::io("start a thread for", &shared.dir.root, e))
}

fn run(shared: &Arc<Shared>) {
    loop {
        let asked = shared.signal.next();
        if asked.stop {
            return;
        }
        shared.work(&asked);
    }
}

impl Shared {
    fn work(&self, asked: &Asked) {
        if asked.lead {
            self.lead_now();
        }
        if asked.write_back {
            // A failure fences the log, and so is told to everybody who asks for anything.
            let _ = self.sync_tip();
        }
        if let Some(capacity) = asked.spare {
            let inline = self.is_inline();
            self.make_spare(capacity, || {
                if !inline {
                    self.lead_now();
                    thread::sleep(PAUSE);
                }
                inline || !self.signal.is_stopping()
            });
        }
    }

    fn lead_now(&self) {
        if self.try_lead() {
            self.lead();
        }
    }

    /// Does what the worker would do, when there is none.
    pub(crate) fn work_inline(&self) {
        if !self.is_inline() {
            return;
        }
        loop {
            let asked = self.signal.take();
            let is_idle = !(asked.lead || asked.write_back || asked.spare.is_some());
            if is_idle || asked.stop {
                return;
            }
            self.work(&asked);
        }
    }
}

/// When what nobody waits for is written.
const WRITE_AFTER: Duration = Duration::from_millis(50);
/// When what nobody waits for is synced.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// How long the making of a spare pauses between pieces, so that commits get at the disk.
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::log::sim::SimDisk;
    use crate::log::{Background, Level, Log, LogOptions, Record};

    /// A log without a thread: the test is the worker.
    fn open() -> Log {
        let options = LogOptions::new().background(Background::Inline).seed(1);
        Log::open(Arc::new(SimDisk::new(1)), "data", options).expect("the disk is fine").0
    }

    /// Symptom: what nobody waits for was not written until somebody else came. Cause: its time came while another led, and
    /// the worker dropped the request. Fix: whoever hands the role on asks the worker again.
    #[test]
    fn what_is_due_while_somebody_leads_is_written_after() {
        let log = open();
        log.append(&[Record::new(1, 0, b"before")], Level::Os).expect("there is space");
        log.submit_unwatched(&[Record::new(1, 1, b"unwaited")]).expect("handed over");
        assert!(log.shared.try_lead(), "somebody leads");
        let blocks = log.stats().blocks;
        log.shared.lead_now(); // its time comes
        log.shared.hand_on();
        log.shared.work_inline();
        assert_eq!(log.stats().blocks, blocks + 1);
        log.shared.hand_on();
        assert!(!log.shared.signal.take().lead, "and once is enough");
    }

    /// Symptom: a large submit was written, but never synced. Cause: whoever fills a block writes it, and started no timer
    /// then. Fix: it starts one like everybody.
    #[test]
    fn whoever_fills_a_block_has_it_synced_in_time() {
        let log = open();
        log.submit_unwatched(&[Record::new(1, 0, &[1; 300 << 10])]).expect("handed over");
        assert_eq!(log.stats().blocks, 1);
        assert!(log.stats().unsynced_bytes > 0);
        let written = log.shared.signal.asked.lock().write_at.take().expect("a timer runs");
        log.shared.signal.asked.lock().write_at = Some(written - WRITE_AFTER);
        log.shared.work(&log.shared.signal.next());
        let synced = log.shared.signal.asked.lock().sync_at.expect("another one runs");
        log.shared.signal.asked.lock().sync_at = Some(synced - SYNC_AFTER);
        log.shared.work(&log.shared.signal.next());
        assert_eq!(log.stats().unsynced_bytes, 0);
    }
}
