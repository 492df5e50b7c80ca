//! Rates: appends at each level, and reading. All logs take turns in each round, so that a ratio compares neighbours in time.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use peers::{report::columns, stats::Quartiles, stream::Gate};

use super::{
    Options,
    logs::{Done, Floor, Level, Log, Ours},
    others::{Commitlog, Fjall, Okaywal, QueueFile, Yaque},
};

/// An append run ends after so long, or so much.
const RUN: Duration = Duration::from_millis(400);
const MOST_BYTES: usize = 192 << 20;

/// What a log that forgets has forgotten some of when it is measured: its files are the ones that it uses again.
const WARM_BYTES: usize = 40 << 20;

/// How much the reading row stores.
const READ_BYTES: usize = 256 << 20;

/// One workload and its bar, as a ratio of rates to the best peer; and one for the p99 of an append, as a ratio to the same peer's.
struct Row {
    name: &'static str,
    work: Work,
    bar: f64,
    p99_bar: Option<f64>,
}

/// Whether ours is synced behind a stream that asks for no sync. No peer does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Synced,
    Never,
}

#[derive(Clone, Copy)]
enum Work {
    Append {
        threads: usize,
        batch: usize,
        body: usize,
        level: Level,
        behind: Behind,
    },
    /// One thread, for as long as the options say, and no end to what is kept.
    Sustained,
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
            behind: Behind::Synced,
        },
        bar,
        p99_bar: None,
    }
}

const fn accepted(name: &'static str, body: usize, behind: Behind, bar: f64) -> Row {
    Row {
        name,
        work: Work::Append {
            threads: 1,
            batch: 1,
            body,
            level: Level::Accepted,
            behind,
        },
        bar,
        p99_bar: None,
    }
}

const ROWS: &[Row] = &[
    Row {
        p99_bar: Some(1.2),
        ..synced("append and sync, 1 thread", 1, 1, 0.95)
    },
    synced("append and sync, 4 threads", 4, 1, 1.5),
    synced("append and sync, 16 threads", 16, 1, 2.0),
    synced("100 per sync", 1, 100, 2.0),
    synced("1000 per sync", 1, 1000, 1.5),
    accepted("no sync, 1 KiB", 1024, Behind::Never, 2.5),
    accepted("no sync, 100 B", 100, Behind::Never, 5.0),
    accepted("no sync, 64 KiB", 64 << 10, Behind::Never, 0.9),
    accepted("synced behind, 1 KiB", 1024, Behind::Synced, 2.5),
    accepted("synced behind, 100 B", 100, Behind::Synced, 5.0),
    accepted("synced behind, 64 KiB", 64 << 10, Behind::Synced, 0.9),
    Row {
        name: "sustained, 1 KiB",
        work: Work::Sustained,
        bar: 1.0,
        p99_bar: None,
    },
    Row {
        name: "verified read, hot",
        work: Work::Read,
        bar: 1.3,
        p99_bar: None,
    },
];

/// What a run brought: a rate in records per second (reading: bytes per second), and the p99 of an append where that means something.
#[derive(Clone, Copy)]
struct Outcome {
    rate: f64,
    p99: Option<Duration>,
}

type Run = fn(&Path, Work, &Options) -> Result<Option<Outcome>, Box<dyn Error>>;

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

/// Measures all rows, or those whose names hold one of the words, and prints the table.
pub fn measure(options: &Options) -> Done {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row.name)).collect();
    let mut outcomes: Vec<Vec<Vec<Outcome>>> = rows.iter().map(|_| vec![Vec::new(); LOGS.len()]).collect();
    for round in 0..options.rounds {
        for (row, results) in rows.iter().zip(&mut outcomes) {
            for turn in 0..LOGS.len() {
                let index = (turn + round) % LOGS.len();
                let dir = options.fresh_dir(LOGS[index].0)?;
                let outcome =
                    LOGS[index].1(&dir, row.work, options).map_err(|error| format!("{}: {}: {error}", row.name, LOGS[index].0))?;
                results[index].extend(outcome);
                fs::remove_dir_all(&dir)?;
            }
        }
    }
    println!("{}", table(&rows, &outcomes));
    Ok(())
}

fn run<L: Log>(dir: &Path, work: Work, options: &Options) -> Result<Option<Outcome>, Box<dyn Error>> {
    // Okaywal syncs at every commit: it has no faster level. The floor is a file of one size.
    let never_accepts = L::NAME == Okaywal::NAME;
    match work {
        Work::Append { level: Level::Synced, .. } if !L::SYNCS => Ok(None),
        Work::Append {
            level: Level::Accepted, ..
        } if never_accepts => Ok(None),
        Work::Append {
            threads,
            batch,
            body,
            level,
            behind,
        } => {
            let log = match (level, behind) {
                (Level::Synced, _) => warm(L::create_forgetting(dir)?)?,
                (Level::Accepted, Behind::Synced) => L::create(dir)?,
                (Level::Accepted, Behind::Never) => L::create_unsynced(dir)?,
            };
            let stream = Stream {
                batch,
                body,
                level,
                time: RUN,
                most: (MOST_BYTES / (threads * batch * body)).max(1),
            };
            append(log, threads, stream).map(Some)
        }
        Work::Sustained if never_accepts || L::NAME == Floor::NAME => Ok(None),
        Work::Sustained => {
            let stream = Stream {
                batch: 1,
                body: 1024,
                level: Level::Accepted,
                time: options.sustained,
                most: usize::MAX,
            };
            append(L::create(dir)?, 1, stream).map(Some)
        }
        Work::Read => read::<L>(dir),
    }
}

/// Appends as much as it takes until space is used again.
fn warm<L: Log>(log: L) -> Result<L, Box<dyn Error>> {
    let noise = noise(1024);
    let bodies: Vec<&[u8]> = vec![&noise; 100];
    for _ in 0..WARM_BYTES / (100 * noise.len()) {
        log.append(&bodies, Level::Synced)?;
    }
    Ok(log)
}

/// What one thread appends, and until when.
#[derive(Clone, Copy)]
struct Stream {
    batch: usize,
    body: usize,
    level: Level,
    time: Duration,
    /// Calls.
    most: usize,
}

/// A call that waits for nothing is too short to look at the clock each time.
const CALLS_PER_LOOK: usize = 32;

fn append<L: Log>(log: L, threads: usize, stream: Stream) -> Result<Outcome, Box<dyn Error>> {
    let noise = noise(stream.body);
    let gate = Gate::new(threads);
    let worker = || -> Result<(usize, Duration, Vec<Duration>), String> {
        let bodies: Vec<&[u8]> = vec![&noise; stream.batch];
        let mut latencies = Vec::new();
        let mut calls = 0;
        let mut append = || {
            calls += 1;
            log.append(&bodies, stream.level)
                .map(|()| calls < stream.most)
                .map_err(|error| error.to_string())
        };
        gate.pass();
        let started = Instant::now();
        match stream.level {
            Level::Synced => {
                let mut before = started;
                while append()? && before - started < stream.time {
                    let now = Instant::now();
                    latencies.push(now - before);
                    before = now;
                }
            }
            Level::Accepted => {
                'all: while started.elapsed() < stream.time {
                    for _ in 0..CALLS_PER_LOOK {
                        if !append()? {
                            break 'all;
                        }
                    }
                }
                // Within the time: nobody is faster by keeping bytes to himself.
                log.hand_over().map_err(|error| error.to_string())?;
            }
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
    let records: usize = results.iter().map(|result| result.0 * stream.batch).sum();
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
    let mut bytes = 0;
    L::read(dir, &mut |body| bytes += body.len())?;
    if bytes != READ_BYTES {
        return Err(format!("read {bytes} bytes of {READ_BYTES}").into());
    }
    Ok(Some(Outcome {
        rate: bytes as f64 / started.elapsed().as_secs_f64(),
        p99: None,
    }))
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
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
            p99(0).zip(p99(best)).map_or("-".to_owned(), |(ours, best)| {
                let ratio = ours.median / best.median;
                row.p99_bar.map_or(format!("{ratio:.2}"), |bar| {
                    format!("{ratio:.2}, <= {bar} {}", if ratio <= bar { "met" } else { "MISSED" })
                })
            }),
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
