//! What a log makes of a fault: a thousand numbered records, each confirmed, a kill, one fault, and another process reads them back.

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use peers::report::columns;

use super::{
    Options,
    child::{self, Task, numbered},
    logs::{Done, Log, Ours},
    others::{Commitlog, Fjall, Okaywal, QueueFile, Yaque},
};

const LOGS: [&str; 6] = [
    Ours::NAME,
    Fjall::NAME,
    Okaywal::NAME,
    QueueFile::NAME,
    Yaque::NAME,
    Commitlog::NAME,
];
const COUNT: u64 = 1000;
const HIT: u64 = 500;

/// A change of the files of a log.
type Fault = fn(&Path) -> Done;

const FAULTS: [(&str, Fault); 4] = [
    ("no fault", |_| Ok(())),
    ("one bit of record 500", one_bit),
    ("4 KiB zeroed there", zeroed),
    ("cut within record 999", cut),
];

/// Prints what becomes of the records.
pub fn show(options: &Options) -> Done {
    let mut header = vec!["lost of 1,000".to_owned()];
    header.extend(FAULTS.iter().map(|(name, _)| (*name).to_owned()));
    header.push("full disk, enlarged".to_owned());
    let mut lines = vec![header];
    for log in LOGS {
        let mut line = vec![log.to_owned()];
        for (_, fault) in FAULTS {
            let dir = options.fresh_dir("faults")?;
            let (accepted, _) = write(log, &dir, COUNT)?;
            fault(&dir).map_err(|error| format!("{log}: {error}"))?;
            line.push(verdict(log, &dir, accepted)?);
        }
        line.push(full_disk(options, log)?);
        lines.push(line);
    }
    println!("{}", columns(&lines));
    Ok(())
}

/// Has another process write, and kills it. Returns how many records were accepted, and the error that ended it.
fn write(log: &str, dir: &Path, count: u64) -> Result<(u64, String), Box<dyn Error>> {
    match child::start(Task::Number(count), log, dir)?.kill_at("accepted ")? {
        Some(line) => {
            let (accepted, error) = line.split_once(' ').unwrap_or((&line, ""));
            Ok((accepted.parse()?, error.to_owned()))
        }
        None => Err(format!("{log} died while it wrote").into()),
    }
}

/// Has another process read everything, and puts in words what a user would see.
fn verdict(log: &str, dir: &Path, accepted: u64) -> Result<String, Box<dyn Error>> {
    let (lines, ended) = child::start(Task::Read, log, dir)?.finish()?;
    let rest = |start: &str| lines.iter().filter_map(|line| line.strip_prefix(start)).collect::<Vec<_>>();
    let found: BTreeSet<u64> = rest("found ").iter().filter_map(|number| number.parse().ok()).collect();
    let lost: Vec<u64> = (0..accepted).filter(|number| !found.contains(number)).collect();
    let (said, errors) = (rest("said "), rest("error "));
    let is_named = lost.iter().all(|number| said.contains(&format!("record {number}").as_str()));
    let count = lost.len();
    Ok(match () {
        () if !ended => format!("panic, {count} lost"),
        () if !errors.is_empty() && found.is_empty() => "error, nothing readable".to_owned(),
        () if !errors.is_empty() => format!("{count} lost, error"),
        () if lines.iter().any(|line| line == "wrong") => "wrong bytes, silent".to_owned(),
        () if count == 0 => "nothing lost".to_owned(),
        () if is_named => format!("{count} lost, named"),
        () if said.is_empty() => format!("{count} lost, silent"),
        () => format!("{count} lost, reported"),
    })
}

fn one_bit(dir: &Path) -> Done {
    let (path, at) = place(dir, HIT)?;
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 300)?;
    byte[0] ^= 4;
    Ok(file.write_all_at(&byte, at + 300)?)
}

fn zeroed(dir: &Path) -> Done {
    let (path, at) = place(dir, HIT)?;
    let file = fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.write_all_at(&[0; 4096], at / 4096 * 4096)?)
}

fn cut(dir: &Path) -> Done {
    let (path, at) = place(dir, COUNT - 1)?;
    Ok(fs::OpenOptions::new().write(true).open(path)?.set_len(at + 500)?)
}

/// Where in which file a record begins.
fn place(dir: &Path, number: u64) -> Result<(PathBuf, u64), Box<dyn Error>> {
    let body = numbered(number);
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Some(at) = fs::read(&path)?.windows(body.len()).position(|bytes| bytes == body) {
                return Ok((path, at as u64));
            }
        }
    }
    Err(format!("record {number} is nowhere").into())
}

/// A small disk in memory is filled until the log refuses, enlarged, and read.
fn full_disk(options: &Options, log: &str) -> Result<String, Box<dyn Error>> {
    const SIZE: &str = "size=80m";
    const LARGER: &str = "remount,size=400m";
    let dir = options.fresh_dir("full")?;
    let mount = |how: &str| {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", how, "tmpfs"]).arg(&dir).status();
        status.is_ok_and(|status| status.success())
    };
    if !mount(SIZE) {
        return Ok("no disk to mount".to_owned());
    }
    let outcome = write(log, &dir, 200_000).and_then(|(accepted, error)| {
        if !mount(LARGER) {
            return Err("the disk in memory does not grow".into());
        }
        let noticed = if error.is_empty() { "no error at all, " } else { "" };
        Ok(format!("{noticed}{}", verdict(log, &dir, accepted)?))
    });
    let unmounted = Command::new("umount").arg(&dir).status()?;
    if !unmounted.success() {
        return Err(format!("{} is still mounted", dir.display()).into());
    }
    Ok(outcome.unwrap_or_else(|error| error.to_string()))
}
