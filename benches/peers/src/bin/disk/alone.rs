//! What only concerns ours: how much a commit is held up while segments roll and spares are made, and what a small log costs.

use std::{
    error::Error,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use peers::{report::columns, stats::Quartiles};
use ringmq::log::{Level, Log, LogOptions, Record, vfs::StdVfs};

use super::{Options, logs::Done, rates::noise};

const IDLE_SEGMENT: u64 = 8 << 20;
/// How long commits are timed at a stretch.
const RUN: Duration = Duration::from_secs(2);
const RESTARTS: u64 = 1000;

/// Measures and prints the table.
pub fn measure(options: &Options) -> Done {
    let mut lines = vec![["ours alone", "figure [quartiles]", "bar"].map(str::to_owned).to_vec()];
    lines.extend(commits(options)?);
    lines.extend(small(options)?);
    println!("{}", columns(&lines));
    Ok(())
}

/// One thread commits 1 KiB at a time: in a segment that was written before and is not yet half full, so that nothing else is done; while
/// segments grow as they do in a new log; and in segments so short that one is always being made.
fn commits(options: &Options) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let kinds = [
        ("p99 of a commit, idle", LogOptions::new().segment_bytes(IDLE_SEGMENT, IDLE_SEGMENT)),
        ("p99 of a commit, growing segments", LogOptions::new()),
        (
            "p99 of a commit, segments of 1 MiB",
            LogOptions::new().segment_bytes(1 << 20, 1 << 20),
        ),
    ];
    let mut p99 = [const { Vec::new() }; 3];
    let mut rolls = [0; 3];
    for _ in 0..options.rounds {
        for (index, (_, kind)) in kinds.iter().enumerate() {
            let dir = options.fresh_dir("alone")?;
            let (log, _) = Log::open(Arc::new(StdVfs::new()), &dir, kind.clone())?;
            let most = match index {
                0 => {
                    // The first segment was not written before. The second is the spare that was made of it.
                    commits_until(&log, |_| log.stats().rolls > 0)?;
                    IDLE_SEGMENT / 2 / 1200
                }
                _ => u64::MAX,
            };
            let started = Instant::now();
            let mut latencies = commits_until(&log, |count| count >= most || started.elapsed() >= RUN)?;
            latencies.sort();
            p99[index].push(latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6);
            rolls[index] += log.stats().rolls;
            log.close()?;
            fs::remove_dir_all(&dir)?;
        }
    }
    let idle = p99[0].clone();
    let line = |(index, times): (usize, Vec<f64>)| {
        let ratio = Quartiles::of(times.iter().zip(&idle).map(|(it, idle)| it / idle).collect());
        let bar = ratio.filter(|_| index > 0).map_or("-".to_owned(), |ratio| {
            let verdict = if ratio.median <= 3.0 { "met" } else { "MISSED" };
            format!("{:.2} of idle <= 3 {verdict}", ratio.median)
        });
        let figure = format!("{} us, {} rolls", show(times), rolls[index]);
        vec![kinds[index].0.to_owned(), figure, bar]
    };
    Ok(p99.into_iter().enumerate().map(line).collect())
}

fn commits_until(log: &Log, is_over: impl Fn(u64) -> bool) -> Result<Vec<Duration>, Box<dyn Error>> {
    let body = noise(1024);
    let mut latencies = Vec::new();
    while !is_over(latencies.len() as u64) {
        let begun = Instant::now();
        log.append(&[Record::new(1, latencies.len() as u64, &body)], Level::Synced)?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Ten records of 100 B: what they take on the disk, how long a first opening takes, and what a thousand crashes leave.
fn small(options: &Options) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let vfs = Arc::new(StdVfs::new());
    let (mut first, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let dir = options.fresh_dir("alone")?;
        let begun = Instant::now();
        let (log, _) = Log::open(vfs.clone(), &dir, LogOptions::new())?;
        first.push(begun.elapsed().as_secs_f64() * 1e3);
        let body = noise(100);
        for n in 0..10 {
            log.append(&[Record::new(1, n, &body)], Level::Synced)?;
        }
        drop(log);
        before.push(on_disk(&dir)? as f64 / 1024.0);
        for _ in 0..RESTARTS {
            // Dropped without a close, a log stops as if its process had been killed.
            drop(Log::open(vfs.clone(), &dir, LogOptions::new())?);
        }
        after.push(on_disk(&dir)? as f64 / 1024.0);
        fs::remove_dir_all(&dir)?;
    }
    let line = |name: &str, values: Vec<f64>, unit: &str, most: f64| {
        let median = Quartiles::of(values.clone()).map_or(f64::NAN, |it| it.median);
        let verdict = if median <= most { "met" } else { "MISSED" };
        vec![
            name.to_owned(),
            format!("{} {unit}", show(values)),
            format!("<= {most} {unit} {verdict}"),
        ]
    };
    Ok(vec![
        line("first open", first, "ms", 20.0),
        line("10 small records, disk used", before, "KiB", 1024.0),
        line("the same after 1,000 crashes", after, "KiB", 4096.0),
    ])
}

/// Blocks that all files together take.
fn on_disk(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            bytes += on_disk(&entry.path())?;
        }
    }
    Ok(bytes)
}

fn show(values: Vec<f64>) -> String {
    Quartiles::of(values).map_or("-".to_owned(), |it| format!("{:.1} [{:.1}..{:.1}]", it.median, it.low, it.high))
}
