//! One opening of a log on a simulated disk, driven by a script, watched by the oracle.

use std::sync::{Arc, Mutex};

use ringmq::log::sim::{Fault, Moment, Op, SimDisk};
use ringmq::log::vfs::Vfs;
use ringmq::log::{
    Background, Batch, Hook, Item, Level, Log, LogError, LogOptions, Lsn, OpenReport, Prewrite, Reached, Receipt, Record, Tag,
};

use super::oracle::{Entry, NEVER, Rec, Session};
use super::rng::Rng;

/// Where all logs of these tests live on their disks.
pub const DIR: &str = "data";

/// What the records of a script look like. Unique ones would hide a stale block that is taken for a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All alike: stream, position, content and length.
    Identical,
    /// Positions ascend, contents and lengths are all alike.
    SameBytes,
    /// Lengths and contents vary.
    Varied,
    /// Bodies are copies of what the segments hold: whole blocks, some of them valid once.
    Blocks,
}

/// One thing to do with an open log.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Append {
        records: usize,
        len: usize,
        level: Level,
    },
    Submit {
        records: usize,
        len: usize,
        level: Level,
    },
    Note {
        records: usize,
        len: usize,
    },
    Flush(Level),
    ReadAll,
    /// Gives up the oldest segments, so many at most.
    Retire(usize),
    /// Rewrites the oldest sealed segments, so many at most, without the records whose position leaves this remainder.
    Rewrite(usize, u64),
    Fault(Op, u64, Fault),
    Capacity(Option<u64>),
    Close,
}

/// A script with its options, drawn from a seed.
#[derive(Clone, Debug)]
pub struct Script {
    pub style: Style,
    pub options: LogOptions,
    pub steps: Vec<Step>,
}

/// Choices that stay the same for all sessions on one disk.
#[derive(Clone, Debug)]
pub struct Setting {
    pub style: Style,
    pub options: LogOptions,
    pub lens: &'static [usize],
    pub faults: bool,
}

impl Setting {
    pub fn draw(rng: &mut Rng) -> Self {
        let (first, max) = rng.pick(&[(4096, 4096), (4096, 4096), (4096, 8192), (4096, 16384), (16384, 65536)]);
        let style = rng.pick(&[Style::Identical, Style::Identical, Style::SameBytes, Style::Varied, Style::Blocks]);
        let lens: &[usize] = match style {
            Style::Identical | Style::SameBytes => rng.pick(&[&[0][..], &[7], &[100], &[400], &[512], &[1000], &[3000]]),
            Style::Varied | Style::Blocks => rng.pick(&[
                &[0, 1, 30, 100][..],
                &[10, 500, 1500],
                &[100, 5000, 9000],
                &[0, 511, 512, 513, 4096],
            ]),
        };
        let options = LogOptions::new()
            .background(Background::Inline)
            .segment_bytes(first, max)
            .align(rng.pick(&[8, 8, 8, 512, 64]))
            .prewrite(rng.pick(&[Prewrite::Auto, Prewrite::Auto, Prewrite::Never]))
            .block_bytes(rng.pick(&[512, 4096, 256 << 10]))
            .write_back_bytes(rng.pick(&[2000, 8 << 20]));
        Self {
            style,
            options,
            lens,
            faults: rng.one_in(3),
        }
    }

    pub fn script(&self, rng: &mut Rng) -> Script {
        let count = rng.pick(&[1, 2, 3, 5, 8, 14]);
        let mut steps: Vec<Step> = (0..count).map(|_| self.step(rng)).collect();
        if self.faults && rng.one_in(2) {
            let fault = match rng.below(8) {
                0..=2 => Step::Fault(Op::Sync, 1 + rng.below(4), Fault::Eio),
                3 => Step::Fault(
                    Op::Write,
                    1 + rng.below(6),
                    rng.pick(&[Fault::Eio, Fault::NoSpace, Fault::WriteBack]),
                ),
                4 => Step::Fault(
                    Op::Write,
                    1 + rng.below(6),
                    rng.pick(&[Fault::Interrupted, Fault::Short(1), Fault::Short(0)]),
                ),
                5 => Step::Fault(Op::SyncDir, 1 + rng.below(2), Fault::Eio),
                6 => Step::Fault(
                    rng.pick(&[Op::Rename, Op::Open, Op::SetLen, Op::Unlink]),
                    1,
                    rng.pick(&[Fault::Eio, Fault::NoSpace]),
                ),
                _ => Step::Capacity(Some(rng.below(40_000))),
            };
            let at = rng.below(steps.len() as u64 + 1) as usize;
            steps.insert(at, fault);
        }
        if rng.one_in(4) {
            steps.push(Step::Close);
        }
        Script {
            style: self.style,
            options: self.options.clone().seed(rng.next()),
            steps,
        }
    }

    fn step(&self, rng: &mut Rng) -> Step {
        let records = rng.pick(&[1, 1, 1, 2, 5]);
        let len = rng.pick(self.lens);
        let level = rng.pick(&[Level::Os, Level::Os, Level::Synced]);
        match rng.below(18) {
            0..=8 => Step::Append { records, len, level },
            9..=10 => Step::Submit { records, len, level },
            11 => Step::Note { records, len },
            12..=13 => Step::Flush(level),
            14 => Step::ReadAll,
            15 => Step::Retire(1 + rng.below(3) as usize),
            16 => Step::Rewrite(1 + rng.below(4) as usize, rng.below(3)),
            _ if self.faults => Step::Capacity(None),
            _ => Step::Flush(Level::Synced),
        }
    }
}

/// What a session did: for the oracle, and for whoever cuts it.
#[derive(Debug)]
pub struct Ran {
    /// What opening found; with it the session's promises begin.
    pub found: Vec<Rec>,
    pub report: OpenReport,
    /// The last call that opening made.
    pub opened_at: u64,
    pub session: Session,
    /// Where it can be cut: while it was opened, and after that.
    pub opening: Vec<Moment>,
    pub moments: Vec<Moment>,
    /// The log was fenced by a failed sync.
    pub fenced: bool,
    /// The log was closed, and closing said Ok.
    pub closed: bool,
}

/// Opens the log on a disk and reads everything in it.
pub fn open(disk: &SimDisk, options: &LogOptions) -> Result<(Log, OpenReport, Vec<Rec>), LogError> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let (log, report) = Log::open(vfs, DIR, options.clone())?;
    let found = read_all(&log)?;
    Ok((log, report, found))
}

/// Reads all records; damage is an error here.
pub fn read_all(log: &Log) -> Result<Vec<Rec>, LogError> {
    let (found, damage) = read_salvaging(log)?;
    match damage.into_iter().next() {
        Some(damage) => Err(LogError::Damaged(Box::new(damage))),
        None => Ok(found),
    }
}

/// Reads all records that are intact, and what is damaged.
pub fn read_salvaging(log: &Log) -> Result<(Vec<Rec>, Vec<ringmq::log::Damage>), LogError> {
    let (first, _) = log.range();
    let mut reader = log.reader(first)?;
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next()? {
        match item {
            Item::Record(record) => found.push(Rec {
                topic: record.tag.topic,
                offset: record.tag.offset,
                body: Arc::from(record.body),
            }),
            Item::Damage(place) => damage.push(place),
            _ => {}
        }
    }
    Ok((found, damage))
}

/// Runs a script on a disk from opening to its end; the log is dropped as if the process died, unless a step closed it.
///
/// Every moment is recorded, or one of opening and one of the rest.
pub fn run(disk: &SimDisk, script: &Script, all_moments: bool, rng: &mut Rng) -> Result<Ran, LogError> {
    let record = || {
        if all_moments { disk.record() } else { disk.record_one() }
    };
    record();
    let (log, report, found) = open(disk, &script.options)?;
    let opening = disk.recorded();
    record();
    let mut run = Run {
        disk,
        style: script.style,
        session: Session::opened_with(&found),
        receipts: Vec::new(),
        notes: Vec::new(),
        next: found.iter().map(|r| r.offset + 1).max().unwrap_or(0),
        steps: script.steps.clone(),
        fenced: false,
        strange: None,
    };
    let opened_at = disk.calls();
    run.session.reach(report.end.0, report.end.0, opened_at);
    let mut closed = false;
    let mut log = Some(log);
    for step in &script.steps {
        let Some(open) = &log else { break };
        if let Step::Close = step {
            let all = run.session.entries.len();
            let done = log.take().map(Log::close);
            closed = matches!(done, Some(Ok(())));
            run.look();
            if closed {
                run.confirm(all, Level::Synced);
            }
        } else {
            run.step(open, *step, rng);
            run.look();
            run.session.reach(open.range().1.0, open.durable().0, disk.calls());
        }
    }
    if let Some(strange) = run.strange {
        return Err(strange);
    }
    Ok(Ran {
        found,
        report,
        opened_at,
        opening,
        moments: disk.recorded(),
        session: run.session,
        fenced: run.fenced,
        closed,
    })
}

struct Run<'a> {
    disk: &'a SimDisk,
    style: Style,
    session: Session,
    receipts: Vec<(usize, Level, Receipt)>,
    notes: Vec<(usize, Arc<Mutex<Option<bool>>>)>,
    next: u64,
    steps: Vec<Step>,
    fenced: bool,
    /// An error that nothing explains.
    strange: Option<LogError>,
}

impl Run<'_> {
    fn step(&mut self, log: &Log, step: Step, rng: &mut Rng) {
        match step {
            Step::Append { records, len, level } => {
                let (entry, records) = self.attempt(records, len, rng);
                let outcome = log.append(&borrow(&records), level);
                self.settle(entry, level, outcome.map(|_| ()));
            }
            Step::Submit { records, len, level } => {
                let (entry, records) = self.attempt(records, len, rng);
                match log.submit(&borrow(&records), level) {
                    Ok(receipt) => self.receipts.push((entry, level, receipt)),
                    Err(e) => self.settle(entry, level, Err(e)),
                }
            }
            Step::Note { records, len } => {
                let (entry, records) = self.attempt(records, len, rng);
                self.session.entries[entry].is_fact = true;
                let mut batch = Batch::new();
                for record in &records {
                    batch.push(tag(record), &record.body).expect("small records fit");
                }
                let outcome = Arc::default();
                let hook = Noted(Arc::clone(&outcome));
                match log.note(&mut batch, Some(Box::new(hook))) {
                    Ok(()) => self.notes.push((entry, outcome)),
                    Err(e) => self.settle(entry, Level::Os, Err(e)),
                }
            }
            Step::Flush(level) => {
                let all = self.session.entries.len();
                match log.flush(level) {
                    Ok(()) => {
                        self.look();
                        self.confirm(all, level);
                    }
                    Err(e) => self.failed(&e),
                }
            }
            Step::ReadAll => match read_all(log) {
                Ok(found) => {
                    let now = super::oracle::At {
                        call: self.disk.calls(),
                        midway: false,
                    };
                    // Once fenced, an open log need not show what only the operating system has.
                    let loss = if self.fenced {
                        super::oracle::Loss::Power
                    } else {
                        super::oracle::Loss::Process
                    };
                    if let Err(what) = self.session.judge(now, loss, &found) {
                        panic!(
                            "reading an open log, fenced: {}: {what}\nat {step:?} of {:?}",
                            self.fenced, self.steps
                        );
                    }
                }
                Err(e) => self.failed(&e),
            },
            // Records that are all alike cannot be given up one by one.
            Step::Retire(_) | Step::Rewrite(..) if self.style == Style::Identical => {}
            Step::Retire(most) => self.retire(log, most),
            Step::Rewrite(most, remainder) => self.rewrite(log, most, remainder),
            Step::Fault(op, nth, fault) => self.disk.fail(op, nth, fault),
            Step::Capacity(capacity) => {
                let used = self.disk.used();
                self.disk.set_capacity(capacity.map(|more| used + more));
            }
            Step::Close => {}
        }
    }

    /// Gives up the oldest segments. From the first call on, their records may be missing; after the last, they are.
    fn retire(&mut self, log: &Log, most: usize) {
        let sealed: Vec<_> = log.segments().into_iter().filter(|s| s.is_sealed).collect();
        for segment in sealed.into_iter().take(most) {
            let Ok(before) = read_until(log, segment.to) else {
                return;
            };
            self.session.give_up(&before, self.disk.calls());
            match log.retire(segment.first) {
                Ok(()) => self.session.confirm_gone(&before, self.disk.calls()),
                Err(e) => {
                    self.session.fail_to_remove(&before);
                    return self.failed(&e);
                }
            }
        }
    }

    /// Drops some of the records of the oldest segments.
    fn rewrite(&mut self, log: &Log, most: usize, remainder: u64) {
        let segments = log.segments();
        let sealed: Vec<_> = segments.iter().filter(|s| s.is_sealed).take(most).collect();
        let (Some(first), Some(last)) = (sealed.first(), sealed.last()) else {
            return;
        };
        let Ok(before) = read_until(log, last.to) else {
            return;
        };
        let is_dropped = |offset: u64| offset % 3 == remainder;
        let dropped: Vec<Rec> = before.into_iter().filter(|r| is_dropped(r.offset)).collect();
        self.session.give_up(&dropped, self.disk.calls());
        self.session.may_reorder(self.disk.calls());
        let range = first.first..last.last + 1;
        match log.rewrite(range, |tag, _| !is_dropped(tag.offset), |_, _, _| {}) {
            Ok(done) if done.after != done.before => self.session.confirm_gone(&dropped, self.disk.calls()),
            Ok(_) => {}
            Err(e) => {
                self.session.fail_to_remove(&dropped);
                self.failed(&e);
            }
        }
    }

    /// Makes the records of a batch and tells the oracle that they are on their way.
    fn attempt(&mut self, records: usize, len: usize, rng: &mut Rng) -> (usize, Vec<Rec>) {
        let records: Vec<Rec> = (0..records).map(|_| self.record(len, rng)).collect();
        let entry = Entry::tried(records.clone(), self.disk.calls());
        self.session.entries.push(entry);
        (self.session.entries.len() - 1, records)
    }

    fn record(&mut self, len: usize, rng: &mut Rng) -> Rec {
        let offset = self.next;
        self.next += 1;
        let body: Arc<[u8]> = match self.style {
            Style::Identical | Style::SameBytes => Arc::from(vec![0xB1; len]),
            Style::Varied => (0..len + rng.below(30) as usize).map(|_| rng.next() as u8).collect(),
            Style::Blocks => self.copied(len, rng),
        };
        match self.style {
            Style::Identical => Rec { topic: 1, offset: 0, body },
            Style::SameBytes => Rec { topic: 1, offset, body },
            Style::Varied | Style::Blocks => Rec {
                topic: rng.below(3),
                offset,
                body,
            },
        }
    }

    /// Bytes of a segment, from the beginning of a block if one is found.
    fn copied(&self, len: usize, rng: &mut Rng) -> Arc<[u8]> {
        let files = self.disk.files();
        let segments: Vec<_> = files.iter().filter(|f| f.extension().is_some_and(|e| e == "log")).collect();
        let content = match segments.len() {
            0 => None,
            n => self.disk.read(segments[rng.below(n as u64) as usize]),
        };
        let content = content.unwrap_or_default();
        let start = content.len().min(1024 + 8 * rng.below(64) as usize);
        let mut body = content[start..].to_vec();
        body.resize(len, 0);
        Arc::from(body)
    }

    fn settle(&mut self, entry: usize, level: Level, outcome: Result<(), LogError>) {
        match outcome {
            Ok(()) => {
                let now = self.disk.calls();
                let entry = &mut self.session.entries[entry];
                entry.os = entry.os.min(now);
                if level == Level::Synced {
                    entry.synced = entry.synced.min(now);
                }
            }
            Err(e) => {
                self.fail(entry);
                let entry = &mut self.session.entries[entry];
                entry.found_no_space |= matches!(e, LogError::Full) && !entry.is_fact;
                self.failed(&e);
            }
        }
    }

    fn fail(&mut self, entry: usize) {
        let now = self.disk.calls();
        let entry = &mut self.session.entries[entry];
        entry.failed = entry.failed.min(now);
    }

    /// Everything among the first `n` entries that did not fail has reached a level.
    fn confirm(&mut self, n: usize, level: Level) {
        for entry in 0..n {
            if self.session.entries[entry].failed == NEVER {
                self.settle(entry, level, Ok(()));
            }
        }
    }

    fn failed(&mut self, error: &LogError) {
        match error {
            LogError::Fenced { .. } => self.fenced = true,
            LogError::Full | LogError::Io { .. } => {}
            LogError::TooLarge { .. } | LogError::Closed | LogError::Gone { .. } => {}
            other => self.strange = Some(other.clone()),
        }
    }

    /// Hears what has become of receipts and notes.
    fn look(&mut self) {
        for (entry, level, receipt) in std::mem::take(&mut self.receipts) {
            match receipt.try_wait() {
                Some(outcome) => self.settle(entry, level, outcome.map(|_| ())),
                None => self.receipts.push((entry, level, receipt)),
            }
        }
        for (entry, outcome) in std::mem::take(&mut self.notes) {
            let heard = *outcome.lock().unwrap();
            match heard {
                Some(true) => self.settle(entry, Level::Os, Ok(())),
                Some(false) => self.fail(entry),
                None => self.notes.push((entry, outcome)),
            }
        }
    }
}

struct Noted(Arc<Mutex<Option<bool>>>);

impl Hook for Noted {
    fn done(&mut self, outcome: Result<&Reached<'_>, &LogError>) {
        *self.0.lock().unwrap() = Some(outcome.is_ok());
    }
}

fn tag(record: &Rec) -> Tag {
    Tag {
        topic: record.topic,
        offset: record.offset,
        ..Tag::default()
    }
}

fn borrow(records: &[Rec]) -> Vec<Record<'_>> {
    records.iter().map(|r| Record::new(r.topic, r.offset, &r.body)).collect()
}

/// Reads the records of the blocks before a position.
fn read_until(log: &Log, until: Lsn) -> Result<Vec<Rec>, LogError> {
    let mut reader = log.reader(log.range().0)?.until(until);
    let mut found = Vec::new();
    while let Some(item) = reader.next()? {
        match item {
            Item::Record(record) => found.push(Rec {
                topic: record.tag.topic,
                offset: record.tag.offset,
                body: Arc::from(record.body),
            }),
            Item::Damage(damage) => return Err(LogError::Damaged(Box::new(damage))),
            _ => {}
        }
    }
    Ok(found)
}

/// The position behind everything, to begin a reader at.
pub fn end(log: &Log) -> Lsn {
    log.range().1
}
