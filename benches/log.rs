//! How fast the log is by itself: `cargo bench --features disk --bench log -- [seconds per row] [directory] [rows]`,
//! where rows is one of submit, append, synced, read.
//!
//! Payloads are noise, each row has a fresh directory, latencies are per call. Ratios against others are made elsewhere.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmq::log::vfs::{StdVfs, Vfs};
use ringmq::log::{Batch, Item, Level, Log, LogOptions, Record, Survives, Tag};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let seconds: f64 = args.first().map_or(Ok(0.5), |text| text.parse())?;
    let root = args.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let bench = Bench {
        vfs: Arc::new(StdVfs::new()),
        dir: root.join(format!("ringmq-bench-{}", std::process::id())),
        time: Duration::from_secs_f64(seconds),
    };
    let is_wanted = |rows: &str| args.get(2).is_none_or(|wanted| wanted == rows);
    if is_wanted("submit") {
        for (bytes, survives) in [100, 1024, 64 << 10]
            .into_iter()
            .flat_map(|n| [(n, Survives::Kill), (n, Survives::PowerLoss)])
        {
            bench.submit(bytes, survives)?;
        }
        bench.submit_batches(1024, 100)?;
    }
    if is_wanted("append") {
        for bytes in [100, 1024, 64 << 10] {
            bench.append(bytes)?;
        }
    }
    if is_wanted("synced") {
        for threads in [1, 4, 16] {
            bench.synced(threads, 1)?;
        }
        for (threads, each) in [(1, 10), (1, 100), (1, 1000), (4, 100)] {
            bench.synced(threads, each)?;
        }
    }
    if is_wanted("read") {
        bench.read(1024)?;
        bench.read(100)?;
    }
    Ok(())
}

type Outcome = Result<(), ringmq::log::LogError>;

struct Bench {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    time: Duration,
}

impl Bench {
    fn open(&self) -> Result<Log, ringmq::log::LogError> {
        self.open_with(LogOptions::new())
    }

    fn open_with(&self, options: LogOptions) -> Result<Log, ringmq::log::LogError> {
        remove(&self.dir);
        Log::open(Arc::clone(&self.vfs), &self.dir, options).map(|(log, _)| log)
    }

    fn close(&self, log: Log) -> Outcome {
        let closed = log.close();
        remove(&self.dir);
        closed
    }

    /// One record at a time, not waited for one by one.
    fn submit(&self, bytes: usize, survives: Survives) -> Outcome {
        let log = self.open_with(LogOptions::new().survives(survives))?;
        let body = noise(bytes);
        let start = Instant::now();
        let mut count = 0u64;
        while start.elapsed() < self.time && count * (bytes as u64) < LIMIT {
            for _ in 0..64 {
                log.submit_unwatched(&[Record::new(1, count, &body)])?;
                count += 1;
            }
        }
        log.flush(Level::Os)?;
        let name = match survives {
            Survives::Kill => "never synced",
            Survives::PowerLoss => "synced behind",
        };
        report(&format!("submit, {name}, {bytes} B"), count, bytes, start.elapsed(), &mut []);
        self.close(log)
    }

    fn submit_batches(&self, bytes: usize, each: u64) -> Outcome {
        let log = self.open()?;
        let body = noise(bytes);
        let mut batch = Batch::new();
        let start = Instant::now();
        let mut count = 0u64;
        while start.elapsed() < self.time && count * (bytes as u64) < LIMIT {
            fill(&mut batch, 1, count, each, &body)?;
            drop(log.submit_batch(&mut batch, Level::Os, None)?);
            count += each;
        }
        log.flush(Level::Os)?;
        report(
            &format!("submit {each} x {bytes} B, no sync"),
            count,
            bytes,
            start.elapsed(),
            &mut [],
        );
        self.close(log)
    }

    /// One record at a time, each written when the call returns.
    fn append(&self, bytes: usize) -> Outcome {
        let log = self.open()?;
        let body = noise(bytes);
        let start = Instant::now();
        let mut count = 0u64;
        while start.elapsed() < self.time && count * (bytes as u64) < LIMIT {
            log.append(&[Record::new(1, count, &body)], Level::Os)?;
            count += 1;
        }
        report(&format!("append, no sync, {bytes} B"), count, bytes, start.elapsed(), &mut []);
        self.close(log)
    }

    fn synced(&self, threads: u64, each: u64) -> Outcome {
        let log = self.open()?;
        let body = noise(1024);
        let start = Instant::now();
        let results: Vec<Result<Vec<u64>, ringmq::log::LogError>> = std::thread::scope(|scope| {
            let run = |topic| {
                let (log, body) = (&log, &body);
                move || {
                    let mut batch = Batch::new();
                    let mut took = Vec::new();
                    while start.elapsed() < self.time {
                        let begin = Instant::now();
                        fill(&mut batch, topic, took.len() as u64 * each, each, body)?;
                        log.append_batch(&mut batch, Level::Synced)?;
                        took.push(begin.elapsed().as_nanos() as u64);
                    }
                    Ok(took)
                }
            };
            let handles: Vec<_> = (0..threads).map(|topic| scope.spawn(run(topic))).collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let elapsed = start.elapsed();
        let mut took = Vec::new();
        for result in results {
            took.extend(result?);
        }
        let syncs = log.stats().syncs;
        let count = took.len() as u64 * each;
        report(
            &format!("synced, {threads} threads, {each} x 1 KiB, {syncs} syncs"),
            count,
            1024,
            elapsed,
            &mut took,
        );
        self.close(log)
    }

    fn read(&self, bytes: usize) -> Outcome {
        let log = self.open()?;
        let body = noise(bytes);
        let mut batch = Batch::new();
        let total = (512u64 << 20) / bytes as u64;
        let mut count = 0;
        while count < total {
            fill(&mut batch, 1, count, 500, &body)?;
            drop(log.submit_batch(&mut batch, Level::Os, None)?);
            count += 500;
        }
        log.flush(Level::Synced)?;
        for _ in 0..3 {
            let start = Instant::now();
            let mut reader = log.reader(log.range().0)?;
            let mut found = 0;
            while let Some(item) = reader.next()? {
                if let Item::Record(record) = item {
                    found += record.body.len() as u64;
                }
            }
            report(&format!("read, {bytes} B"), found / bytes as u64, bytes, start.elapsed(), &mut []);
        }
        drop(log);
        for _ in 0..2 {
            let start = Instant::now();
            let (log, report) = Log::open(Arc::clone(&self.vfs), &self.dir, LogOptions::new())?;
            println!("open after a kill: {:?}, {} MiB scanned", start.elapsed(), report.scanned >> 20);
            drop(log);
        }
        remove(&self.dir);
        Ok(())
    }
}

fn fill(batch: &mut Batch, topic: u64, offset: u64, each: u64, body: &[u8]) -> Outcome {
    for at in 0..each {
        let tag = Tag {
            topic,
            offset: offset + at,
            ..Tag::default()
        };
        batch.push(tag, body)?;
    }
    Ok(())
}

fn report(name: &str, count: u64, bytes: usize, elapsed: Duration, took: &mut [u64]) {
    let per_second = count as f64 / elapsed.as_secs_f64();
    let megabytes = per_second * bytes as f64 / 1e6;
    print!("{name:<48} {per_second:>12.0}/s {megabytes:>8.0} MB/s");
    took.sort_unstable();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).map_or(0, |nanos| nanos / 1000);
    match took.len() {
        0 => println!(),
        _ => println!("   p50 {} us, p99 {} us", at(0.50), at(0.99)),
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn remove(dir: &Path) {
    // A directory that is not there yet is as good as removed.
    drop(std::fs::remove_dir_all(dir));
}

/// A row ends after this many bytes, so that it measures the log and not the disk behind it.
const LIMIT: u64 = 512 << 20;
