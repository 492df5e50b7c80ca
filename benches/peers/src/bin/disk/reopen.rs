//! Opening after a kill: another process fills a log without syncing it and is killed when everything is with the operating system.

use std::{
    error::Error,
    fs::{self, File},
    os::fd::AsRawFd,
    path::Path,
    time::{Duration, Instant},
};

use peers::{report::columns, stats::Quartiles};

use super::{
    Options,
    child::{self, Task},
    logs::{Done, Log, Ours},
    others::{Fjall, Okaywal},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Hot,
    Cold,
}

type Reopen = fn(&Path) -> Result<Duration, Box<dyn Error>>;

/// Those that check what they open. Ours first; only ours is held to a bar for more than a gibibyte.
const LOGS: [(&str, Reopen); 3] = [
    (Ours::NAME, reopen::<Ours>),
    (Fjall::NAME, reopen::<Fjall>),
    (Okaywal::NAME, reopen::<Okaywal>),
];

/// What opening may take.
const HOT: Duration = Duration::from_millis(50);
const COLD: Duration = Duration::from_millis(150);

/// Measures and prints the table.
pub fn measure(options: &Options) -> Done {
    let mut lines = vec![
        ["open after a kill", "ours, ms", "bar", "fjall, ms", "okaywal, ms"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (gib, cache) in options.gib.iter().flat_map(|gib| [(*gib, Cache::Hot), (*gib, Cache::Cold)]) {
        let logs = if gib == 1 { &LOGS[..] } else { &LOGS[..1] };
        let mut times = vec![Vec::new(); LOGS.len()];
        for _ in 0..options.rounds {
            for (times, (name, reopen)) in times.iter_mut().zip(logs) {
                let dir = options.fresh_dir(name)?;
                let filled = child::start(Task::Fill(gib << 10), name, &dir)?.kill_at("filled")?;
                filled.ok_or(format!("{name} did not take {gib} GiB"))?;
                if cache == Cache::Cold {
                    forget(&dir)?;
                }
                times.push(reopen(&dir)?.as_secs_f64());
                fs::remove_dir_all(&dir)?;
            }
        }
        let bar = if cache == Cache::Hot { HOT } else { COLD };
        let ours = Quartiles::of(times[0].clone());
        let verdict = ours.map_or("not measured", |it| if it.median <= bar.as_secs_f64() { "met" } else { "MISSED" });
        let mut line = vec![format!("{gib} GiB, {}", if cache == Cache::Hot { "hot" } else { "cold" })];
        line.extend(times.into_iter().map(|times| Quartiles::of(times).map_or("-".to_owned(), show)));
        line.insert(2, format!("<= {} {verdict}", bar.as_millis()));
        lines.push(line);
    }
    println!("{}", columns(&lines));
    Ok(())
}

fn show(times: Quartiles) -> String {
    let [low, median, high] = [times.low, times.median, times.high].map(|seconds| seconds * 1e3);
    format!("{median:.1} [{low:.1}..{high:.1}]")
}

fn reopen<L: Log>(dir: &Path) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let log = L::open(dir)?;
    let took = started.elapsed();
    log.close()?;
    Ok(took)
}

/// Takes the files of a directory out of the page cache. Dirty pages would stay, so they are written first.
fn forget(dir: &Path) -> Done {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
            continue;
        }
        let file = File::open(&path)?;
        file.sync_all()?;
        // SAFETY: a plain call on a descriptor that is open until the end of the block.
        let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if refused != 0 {
            return Err(format!("{} stays in the cache: error {refused}", path.display()).into());
        }
    }
    Ok(())
}
