//! The disk part: logs of bytes, each at the same level of durability, in fresh directories, taken in turn.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --features disk --bin disk -- [--parts A,B] [--rows A,B]
//! [--rounds N] [--dir DIR] [--seconds N] [--gib A,B]`
//!
//! | part | what it measures |
//! |---|---|
//! | `rates` | appends at each level, a sustained stream of `--seconds`, reading; `--rows` picks some by their names |
//! | `reopen` | opening logs of `--gib` after a kill, with the page cache hot and cold |
//! | `alone` | what only concerns ours: the p99 of a commit while segments roll, and what a small log costs |
//! | `faults` | what each log makes of a flipped bit, a zeroed block, a cut tail and a full disk |

mod alone;
mod child;
mod faults;
mod logs;
mod others;
mod rates;
mod reopen;

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use logs::Done;
use peers::machine;

/// What is to be measured, and how much of it.
pub struct Options {
    pub rounds: usize,
    base: PathBuf,
    rows: Option<Vec<String>>,
    /// How long a sustained stream lasts.
    pub sustained: Duration,
    /// Sizes of logs to open.
    pub gib: Vec<u64>,
}

impl Options {
    /// Tells whether a row was asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.rows
            .as_ref()
            .is_none_or(|words| words.iter().any(|word| row.contains(word.as_str())))
    }

    /// An empty directory of that name.
    pub fn fresh_dir(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.base.join(name);
        clear(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Removes a directory, if it is there.
pub fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const PARTS: [(&str, fn(&Options) -> Done); 4] = [
    ("rates", rates::measure),
    ("reopen", reopen::measure),
    ("alone", alone::measure),
    ("faults", faults::show),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options {
        rounds: 5,
        base: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/disk")),
        rows: None,
        sustained: Duration::from_secs(10),
        gib: vec![1, 10],
    };
    let mut parts: Option<Vec<String>> = None;
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|word| word == child::WORD).is_some() {
        return child::run(&arguments.collect::<Vec<_>>());
    }
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
        let words = || value.split(',').map(str::to_owned).collect();
        match flag.as_str() {
            "--parts" => parts = Some(words()),
            "--rows" => options.rows = Some(words()),
            "--rounds" => options.rounds = value.parse()?,
            "--dir" => options.base = value.into(),
            "--seconds" => options.sustained = Duration::try_from_secs_f64(value.parse()?)?,
            "--gib" => options.gib = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => return Err(format!("unknown flag {flag}; see the top of the source").into()),
        }
    }
    println!("{}\n", machine::describe(" --features disk --bin disk"));
    for (name, measure) in PARTS {
        if parts.as_ref().is_none_or(|parts| parts.iter().any(|part| part == name)) {
            measure(&options)?;
            println!();
        }
    }
    Ok(())
}
