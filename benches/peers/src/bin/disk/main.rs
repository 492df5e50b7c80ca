//! The disk part: logs of bytes, each at the same level of durability, in fresh directories, taken in turn.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --features disk --bin disk -- [--rounds N] [--dir DIR] [--rows A,B]`

mod logs;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use logs::{Commitlog, Fjall, Floor, Level, Log, Okaywal, Ours, QueueFile, Yaque};
use peers::{machine, report::columns, stats::Quartiles, stream::Gate};

/// An append run ends after so long, or so much.
const RUN: Duration = Duration::from_millis(400);
const MOST_BYTES: usize = 192 << 20;

/// How much the reading row stores.
const READ_BYTES: usize = 256 << 20;

/// One workload and its bar, as a ratio of rates to the best peer.
struct Row {
    name: &'static str,
    work: Work,
    bar: f64,
}

#[derive(Clone, Copy)]
enum Work {
    Append {
        threads: usize,
        batch: usize,
        body: usize,
        level: Level,
    },
    Read,
}

const fn synced(name: &'static str, threads: usize, batch: usize, bar: f64) -> Row {
    Row {
        name,
        work: Work::Append {
            threads,
            batch,
            body: 1024,
            level: Level::Synced,
        },
        bar,
    }
}

const fn accepted(name: &'static str, body: usize, bar: f64) -> Row {
    Row {
        name,
        work: Work::Append {
            threads: 1,
            batch: 1,
            body,
            level: Level::Accepted,
        },
        bar,
    }
}

const ROWS: &[Row] = &[
    synced("append and sync, 1 thread", 1, 1, 0.95),
    synced("append and sync, 4 threads", 4, 1, 1.5),
    synced("append and sync, 16 threads", 16, 1, 2.0),
    synced("100 per sync", 1, 100, 2.0),
    synced("1000 per sync", 1, 1000, 1.5),
    accepted("no sync, 1 KiB", 1024, 2.5),
    accepted("no sync, 100 B", 100, 5.0),
    accepted("no sync, 64 KiB", 64 << 10, 0.9),
    Row {
        name: "verified read, hot",
        work: Work::Read,
        bar: 1.3,
    },
];

/// What a run brought: a rate in records per second (reading: bytes per second), and the p99 of an append where that means something.
#[derive(Clone, Copy)]
struct Outcome {
    rate: f64,
    p99: Option<Duration>,
}

type Run = fn(&Path, Work) -> Result<Option<Outcome>, Box<dyn Error>>;

/// Ours first.
const LOGS: &[(&str, Run)] = &[
    (Ours::NAME, run::<Ours>),
    (Fjall::NAME, run::<Fjall>),
    (Okaywal::NAME, run::<Okaywal>),
    (QueueFile::NAME, run::<QueueFile>),
    (Yaque::NAME, run::<Yaque>),
    (Commitlog::NAME, run::<Commitlog>),
    (Floor::NAME, run::<Floor>),
];

fn run<L: Log>(dir: &Path, work: Work) -> Result<Option<Outcome>, Box<dyn Error>> {
    match work {
        Work::Append { level: Level::Synced, .. } if !L::SYNCS => Ok(None),
        // Okaywal syncs at every commit: it has no faster level.
        Work::Append {
            level: Level::Accepted, ..
        } if L::NAME == Okaywal::NAME => Ok(None),
        Work::Append {
            threads,
            batch,
            body,
            level,
        } => append::<L>(dir, threads, batch, body, level).map(Some),
        Work::Read => read::<L>(dir),
    }
}

fn append<L: Log>(dir: &Path, threads: usize, batch: usize, body: usize, level: Level) -> Result<Outcome, Box<dyn Error>> {
    let log = L::create(dir)?;
    let noise = noise(body);
    let gate = Gate::new(threads);
    let most = (MOST_BYTES / (threads * batch * body)).max(1);
    let worker = || -> Result<(usize, Duration, Vec<Duration>), String> {
        let bodies: Vec<&[u8]> = vec![&noise; batch];
        let mut latencies = Vec::new();
        gate.pass();
        let started = Instant::now();
        let mut calls = 0;
        while calls < most && started.elapsed() < RUN {
            let begun = Instant::now();
            log.append(&bodies, level).map_err(|error| error.to_string())?;
            if level == Level::Synced {
                latencies.push(begun.elapsed());
            }
            calls += 1;
        }
        Ok((calls, started.elapsed(), latencies))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|it| it.join().expect("an append does not panic"))
            .collect::<Result<_, _>>()
    })?;
    let records: usize = results.iter().map(|result| result.0 * batch).sum();
    let took = results.iter().map(|result| result.1).max().expect("at least one thread");
    let mut latencies: Vec<Duration> = results.into_iter().flat_map(|result| result.2).collect();
    latencies.sort();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied();
    log.close()?;
    Ok(Outcome {
        rate: records as f64 / took.as_secs_f64(),
        p99,
    })
}

/// Fills a log, closes it, and times opening it and reading all of it, which the page cache holds.
fn read<L: Log>(dir: &Path) -> Result<Option<Outcome>, Box<dyn Error>> {
    if ![Ours::NAME, Commitlog::NAME].contains(&L::NAME) {
        return Ok(None);
    }
    let log = L::create(dir)?;
    let noise = noise(1024);
    let bodies: Vec<&[u8]> = vec![&noise; 256];
    for _ in 0..READ_BYTES / (256 * 1024) {
        log.append(&bodies, Level::Accepted)?;
    }
    log.close()?;
    let started = Instant::now();
    let bytes = L::read(dir)?;
    match bytes {
        Some(bytes) if bytes == READ_BYTES as u64 => Ok(Some(Outcome {
            rate: bytes as f64 / started.elapsed().as_secs_f64(),
            p99: None,
        })),
        other => Err(format!("read {other:?} bytes of {READ_BYTES}").into()),
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rounds = 5;
    let mut base = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/disk"));
    let mut words: Option<Vec<String>> = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => rounds = value.parse()?,
            "--dir" => base = value.into(),
            "--rows" => words = Some(value.split(',').map(str::to_owned).collect()),
            _ => return Err(format!("unknown flag {flag}; there are --rounds, --dir, --rows").into()),
        }
    }
    println!("{}\n", machine::describe(" --features disk --bin disk"));
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| {
            words
                .as_ref()
                .is_none_or(|words| words.iter().any(|word| row.name.contains(word.as_str())))
        })
        .collect();
    let mut outcomes: Vec<Vec<Vec<Outcome>>> = rows.iter().map(|_| vec![Vec::new(); LOGS.len()]).collect();
    for round in 0..rounds {
        for (row, results) in rows.iter().zip(&mut outcomes) {
            for turn in 0..LOGS.len() {
                let index = (turn + round) % LOGS.len();
                let dir = base.join(format!("{index}"));
                let _ = fs::remove_dir_all(&dir);
                fs::create_dir_all(&dir)?;
                let outcome = LOGS[index].1(&dir, row.work).map_err(|error| format!("{}: {}: {error}", row.name, LOGS[index].0))?;
                results[index].extend(outcome);
                fs::remove_dir_all(&dir)?;
            }
        }
    }
    println!("{}", table(&rows, &outcomes));
    Ok(())
}

fn table(rows: &[&Row], outcomes: &[Vec<Vec<Outcome>>]) -> String {
    let header = [
        "workload",
        "ours",
        "best peer",
        "ratio [quartiles]",
        "bar",
        "p99 ours / best",
        "floor",
        "ours / floor",
    ];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for (row, results) in rows.iter().zip(outcomes) {
        let figures = |index: usize| Quartiles::of(results[index].iter().map(|it| it.rate).collect());
        let ratios = |other: usize| {
            Quartiles::of(
                results[0]
                    .iter()
                    .zip(&results[other])
                    .map(|(ours, theirs)| ours.rate / theirs.rate)
                    .collect(),
            )
        };
        let p99 = |index: usize| Quartiles::of(results[index].iter().filter_map(|it| Some(it.p99?.as_secs_f64())).collect());
        let floor = LOGS.len() - 1;
        let best = (1..floor)
            .filter_map(|index| Some((index, figures(index)?.median)))
            .max_by(|one, other| one.1.total_cmp(&other.1));
        let Some((ours, (best, best_figure))) = figures(0).zip(best) else {
            continue;
        };
        let ratio = ratios(best);
        let verdict = match ratio {
            Some(ratio) if ratio.median >= row.bar => "met",
            Some(_) => "MISSED",
            None => "not measured",
        };
        let show =
            |ratio: Option<Quartiles>| ratio.map_or("-".to_owned(), |it| format!("{:.2} [{:.2}..{:.2}]", it.median, it.low, it.high));
        lines.push(vec![
            row.name.to_owned(),
            rate(ours.median),
            format!("{} {}", LOGS[best].0, rate(best_figure)),
            show(ratio),
            format!(">= {} {verdict}", row.bar),
            p99(0)
                .zip(p99(best))
                .map_or("-".to_owned(), |(ours, best)| format!("{:.2}", ours.median / best.median)),
            figures(floor).map_or("-".to_owned(), |it| rate(it.median)),
            show(ratios(floor)),
        ]);
    }
    columns(&lines)
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e9 => format!("{:.2} G/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.2} M/s", rate / 1e6),
        rate => format!("{:.1} k/s", rate / 1e3),
    }
}
