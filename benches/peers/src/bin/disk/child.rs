//! Processes to be killed: this program starts itself, and the child does one thing to one log and says so on its output.

use std::{
    error::Error,
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use super::{
    logs::{Done, Level, Log, Ours},
    others::{Commitlog, Fjall, Okaywal, QueueFile, Yaque},
    rates::noise,
};

/// The first argument of a child.
pub const WORD: &str = "child";

/// What a child can be told to do.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Writes so many MiB in records of 1 KiB, then waits to be killed.
    Fill(u64),
    /// Writes so many numbered records, each confirmed as well as the log can, then waits to be killed.
    Number(u64),
    /// Reads everything.
    Read,
}

/// Starts a child; its lines come as it prints them.
pub fn start(task: Task, log: &str, dir: &Path) -> Result<Running, Box<dyn Error>> {
    let (verb, amount) = match task {
        Task::Fill(mib) => ("fill", mib),
        Task::Number(count) => ("number", count),
        Task::Read => ("read", 0),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args([WORD, verb, log, &amount.to_string()])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = child.stdout.take().ok_or("a child has an output")?;
    let lines = BufReader::new(out).lines();
    Ok(Running { child, lines })
}

/// A child at work.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Waits for the first line that begins so, and kills it. Returns the rest of that line; `None` if the child ended before.
    pub fn kill_at(mut self, start: &str) -> Result<Option<String>, Box<dyn Error>> {
        let mut found = None;
        while found.is_none() {
            let Some(line) = self.lines.next() else { break };
            found = line?.strip_prefix(start).map(|rest| rest.trim().to_owned());
        }
        // One that is dead already cannot be killed, and that is as good.
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(found)
    }

    /// All that it prints, and whether it came to its end.
    pub fn finish(mut self) -> Result<(Vec<String>, bool), Box<dyn Error>> {
        let lines = self.lines.by_ref().collect::<Result<_, _>>()?;
        Ok((lines, self.child.wait()?.success()))
    }
}

/// The part of a child.
pub fn run(words: &[String]) -> Done {
    let [verb, log, amount, dir] = words else {
        return Err("a child is told what, to which log, how much, where".into());
    };
    let (dir, amount) = (Path::new(dir), amount.parse()?);
    type Play = fn(&str, &Path, u64) -> Done;
    let logs: [(&str, Play); 6] = [
        (Ours::NAME, play::<Ours>),
        (Fjall::NAME, play::<Fjall>),
        (Okaywal::NAME, play::<Okaywal>),
        (QueueFile::NAME, play::<QueueFile>),
        (Yaque::NAME, play::<Yaque>),
        (Commitlog::NAME, play::<Commitlog>),
    ];
    let (_, play) = logs.iter().find(|(name, _)| name == log).ok_or("no such log")?;
    play(verb, dir, amount)
}

fn play<L: Log>(verb: &str, dir: &Path, amount: u64) -> Done {
    match verb {
        "fill" => fill::<L>(dir, amount),
        "number" => number::<L>(dir, amount),
        _ => read::<L>(dir),
    }
}

fn fill<L: Log>(dir: &Path, mib: u64) -> Done {
    const BATCH: usize = 512;
    let log = L::create_keeping(dir)?;
    let noise = noise(1024);
    let bodies: Vec<&[u8]> = vec![&noise; BATCH];
    for _ in 0..mib * 1024 / BATCH as u64 {
        log.append(&bodies, Level::Accepted)?;
    }
    log.hand_over()?;
    say("filled");
    wait_for_the_end(log)
}

fn number<L: Log>(dir: &Path, count: u64) -> Done {
    let level = if L::SYNCS { Level::Synced } else { Level::Accepted };
    let log = L::create_keeping(dir)?;
    let mut accepted = 0;
    let mut error = String::new();
    while accepted < count && error.is_empty() {
        match log.append(&[&numbered(accepted)], level) {
            Ok(()) => accepted += 1,
            Err(refused) => error = refused.to_string().replace('\n', " "),
        }
    }
    say(&format!("accepted {accepted} {error}"));
    wait_for_the_end(log)
}

fn read<L: Log>(dir: &Path) -> Done {
    let mut out = std::io::stdout().lock();
    let outcome = L::read(dir, &mut |body| {
        let number = body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        // Whoever started this listens until it ends.
        let _ = match number {
            Some(number) if body == numbered(number) => writeln!(out, "found {number}"),
            _ => writeln!(out, "wrong"),
        };
    });
    match outcome {
        Ok(said) => said.iter().try_for_each(|said| writeln!(out, "said {said}"))?,
        Err(error) => writeln!(out, "error {}", error.to_string().replace('\n', " "))?,
    }
    Ok(())
}

/// The body of a numbered record: no two are alike anywhere, and none compresses.
pub fn numbered(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut body = number.to_be_bytes().to_vec();
    while body.len() < 1000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend(state.to_le_bytes());
    }
    body
}

fn say(line: &str) {
    println!("{line}");
}

/// Nothing is closed: the parent kills.
fn wait_for_the_end<L: Log>(log: L) -> Done {
    std::mem::forget(log);
    loop {
        thread::park();
    }
}
