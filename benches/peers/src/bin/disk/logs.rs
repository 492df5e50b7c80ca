//! What is measured: a log of byte strings. Here are ours and the floor; the peers are in `others.rs`.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use ringmq::log::{LogOptions, Survives};

/// What cannot be done is reported and ends the run.
pub type Done = Result<(), Box<dyn Error>>;

/// When an append returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Accepted, as the log does by default: by the operating system, or by a buffer of the process.
    Accepted,
    /// On the device.
    Synced,
}

/// A log that can be measured.
pub trait Log: Send + Sync + Sized {
    /// Its name in the table.
    const NAME: &'static str;
    /// Whether it can sync at all.
    const SYNCS: bool;

    /// Opens a log in an empty directory.
    fn create(dir: &Path) -> Result<Self, Box<dyn Error>>;

    /// Opens a log in an empty directory that need only survive the death of the process, if that can be chosen.
    fn create_unsynced(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Self::create(dir)
    }

    /// Opens a log in an empty directory that forgets what is old, as a queue does whose messages are consumed. Some then use space again.
    fn create_forgetting(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Self::create(dir)
    }

    /// Opens a log in an empty directory that keeps what it is given, if it would not by itself.
    fn create_keeping(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Self::create(dir)
    }

    /// Opens the log that is in a directory, whatever state it was left in.
    fn open(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Self::create(dir)
    }

    /// Appends these together.
    fn append(&self, bodies: &[&[u8]], level: Level) -> Done;

    /// Brings to the operating system what is still in a buffer of the process.
    fn hand_over(&self) -> Done {
        Ok(())
    }

    /// Ends it in order.
    fn close(self) -> Done {
        Ok(())
    }

    /// Reads everything from the start, checked as far as the log does that, and tells what the log itself said to be lost. An error ends
    /// it; what was shown before is what a user would have.
    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>>;
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no append panics")
}

/// ringmq's log.
pub struct Ours {
    log: Arc<ringmq::log::Log>,
    next: AtomicU64,
    owner: Option<Owner>,
}

fn open_ours(dir: &Path, options: LogOptions) -> Result<(ringmq::log::Log, ringmq::log::OpenReport), Box<dyn Error>> {
    let vfs = Arc::new(ringmq::log::vfs::StdVfs::new());
    Ok(ringmq::log::Log::open(vfs, dir, options)?)
}

fn ours(dir: &Path, options: LogOptions) -> Result<Ours, Box<dyn Error>> {
    let (log, _) = open_ours(dir, options)?;
    Ok(Ours {
        log: Arc::new(log),
        next: AtomicU64::new(0),
        owner: None,
    })
}

/// What the owner of a log does: it retires the segments that nobody needs any more, here all but the last that is full.
struct Owner {
    thread: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

/// The size of a segment where the old ones are used again.
const SEGMENT: u64 = 8 << 20;

impl Owner {
    fn new(log: &Arc<ringmq::log::Log>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (log, is_ending) = (Arc::clone(log), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !is_ending.load(Ordering::Acquire) {
                let segments = log.segments();
                let sealed = segments.iter().filter(|segment| segment.is_sealed).count();
                for old in &segments[..sealed.saturating_sub(1)] {
                    log.retire(old.first).expect("a sealed segment can be retired");
                }
                thread::park();
            }
        });
        Owner { thread, is_over }
    }

    /// Called for every block: each quarter of a segment is worth a look.
    fn saw(&self, placed: ringmq::log::Placed) {
        if placed.lsn.0 / (SEGMENT / 4) != placed.end.0 / (SEGMENT / 4) {
            self.thread.thread().unpark();
        }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("the owner does not panic");
    }
}

impl Log for Ours {
    const NAME: &'static str = "ringmq";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        ours(dir, LogOptions::new())
    }

    fn create_unsynced(dir: &Path) -> Result<Self, Box<dyn Error>> {
        ours(dir, LogOptions::new().survives(Survives::Kill))
    }

    fn create_forgetting(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let ours = ours(dir, LogOptions::new().segment_bytes(SEGMENT, SEGMENT))?;
        let owner = Some(Owner::new(&ours.log));
        Ok(Ours { owner, ..ours })
    }

    fn append(&self, bodies: &[&[u8]], level: Level) -> Done {
        let offsets = self.next.fetch_add(bodies.len() as u64, Ordering::Relaxed)..;
        let record = |(offset, body)| ringmq::log::Record::new(1, offset, body);
        let many: Vec<_>;
        let one;
        let records = match bodies {
            [body] => {
                one = [record((offsets.start, *body))];
                &one[..]
            }
            _ => {
                many = offsets.zip(bodies.iter().copied()).map(record).collect();
                &many[..]
            }
        };
        match level {
            Level::Accepted => self.log.submit_unwatched(records)?,
            Level::Synced => {
                let placed = self.log.append(records, ringmq::log::Level::Synced)?;
                self.owner.as_ref().inspect(|owner| owner.saw(placed));
            }
        }
        Ok(())
    }

    fn close(self) -> Done {
        if let Some(owner) = self.owner {
            owner.end();
        }
        let log = Arc::into_inner(self.log).ok_or("somebody still has the log")?;
        Ok(log.close()?)
    }

    fn hand_over(&self) -> Done {
        Ok(self.log.flush(ringmq::log::Level::Os)?)
    }

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        let (log, report) = open_ours(dir, LogOptions::new())?;
        let mut said: Vec<String> = report.damage.iter().map(describe).collect();
        said.extend(report.cut.map(|cut| format!("cut at {}", cut.lsn)));
        let mut reader = log.reader(report.first)?;
        while let Some(item) = reader.next()? {
            match item {
                ringmq::log::Item::Record(found) => each(found.body),
                ringmq::log::Item::Damage(damage) => said.push(describe(&damage)),
                _ => {}
            }
        }
        Ok(said)
    }
}

fn describe(damage: &ringmq::log::Damage) -> String {
    match damage.kind {
        ringmq::log::DamageKind::Record { offset, .. } => format!("record {offset}"),
        _ => format!("{} to {}", damage.from, damage.to),
    }
}

/// One file without index or rotation: length, CRC32C, body; 64 KiB of process buffer; blocks written before they are used. Nothing with a
/// promise can be faster by much.
pub struct Floor {
    inner: Mutex<FloorFile>,
}

struct FloorFile {
    file: File,
    buffer: Vec<u8>,
}

const FLOOR_PREWRITTEN: usize = 256 << 20;
const FLOOR_BUFFER: usize = 64 << 10;

impl Log for Floor {
    const NAME: &'static str = "floor";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let path = dir.join("floor");
        let zeros = vec![0; 1 << 20];
        let mut file = File::create(&path)?;
        for _ in 0..FLOOR_PREWRITTEN / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let file = OpenOptions::new().write(true).open(&path)?;
        Ok(Floor {
            inner: Mutex::new(FloorFile {
                file,
                buffer: Vec::with_capacity(2 * FLOOR_BUFFER),
            }),
        })
    }

    fn append(&self, bodies: &[&[u8]], level: Level) -> Done {
        let FloorFile { file, buffer } = &mut *lock(&self.inner);
        for body in bodies {
            buffer.extend((body.len() as u32).to_le_bytes());
            buffer.extend(crc32c::crc32c(body).to_le_bytes());
            buffer.extend(*body);
            if buffer.len() >= FLOOR_BUFFER {
                file.write_all(buffer)?;
                buffer.clear();
            }
        }
        if level == Level::Synced {
            file.write_all(buffer)?;
            buffer.clear();
            file.sync_data()?;
        }
        Ok(())
    }

    fn hand_over(&self) -> Done {
        let FloorFile { file, buffer } = &mut *lock(&self.inner);
        file.write_all(buffer)?;
        buffer.clear();
        Ok(())
    }

    fn read(_dir: &Path, _each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        Err("the floor does not read".into())
    }
}
