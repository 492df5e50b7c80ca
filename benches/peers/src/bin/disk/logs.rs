//! The logs: ours, five peers, and the floor. Each stores byte strings; who cannot share a handle is locked.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

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

    /// Appends these together.
    fn append(&self, bodies: &[&[u8]], level: Level) -> Done;

    /// Ends it in order.
    fn close(self) -> Done {
        Ok(())
    }

    /// Reads everything from the start, checked, and returns how many bytes of bodies there were; `None` if it is not that kind of log.
    fn read(_dir: &Path) -> Result<Option<u64>, Box<dyn Error>> {
        Ok(None)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no append panics")
}

/// ringmq's log.
pub struct Ours {
    log: ringmq::log::Log,
    next: AtomicU64,
}

fn open_ours(dir: &Path) -> Result<(ringmq::log::Log, ringmq::log::OpenReport), Box<dyn Error>> {
    let vfs = Arc::new(ringmq::log::vfs::StdVfs::new());
    Ok(ringmq::log::Log::open(vfs, dir, ringmq::log::LogOptions::new())?)
}

impl Log for Ours {
    const NAME: &'static str = "ringmq";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let (log, _) = open_ours(dir)?;
        Ok(Ours {
            log,
            next: AtomicU64::new(0),
        })
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
            Level::Accepted => drop(self.log.submit(records, ringmq::log::Level::Os)?),
            Level::Synced => drop(self.log.append(records, ringmq::log::Level::Synced)?),
        }
        Ok(())
    }

    fn close(self) -> Done {
        Ok(self.log.close()?)
    }

    fn read(dir: &Path) -> Result<Option<u64>, Box<dyn Error>> {
        let (log, report) = open_ours(dir)?;
        let mut reader = log.reader(report.first)?;
        let mut bytes = 0;
        while let Some(item) = reader.next()? {
            if let ringmq::log::Item::Record(found) = item {
                bytes += found.body.len() as u64;
            }
        }
        Ok(Some(bytes))
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
}

/// `fjall`: a key-value store whose journal is persisted on demand.
pub struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
    next: AtomicU64,
}

impl Log for Fjall {
    const NAME: &'static str = "fjall";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let database = fjall::Database::builder(dir).open()?;
        let keyspace = database.keyspace("log", fjall::KeyspaceCreateOptions::default)?;
        Ok(Fjall {
            database,
            keyspace,
            next: AtomicU64::new(0),
        })
    }

    fn append(&self, bodies: &[&[u8]], level: Level) -> Done {
        let first = self.next.fetch_add(bodies.len() as u64, Ordering::Relaxed);
        let mut batch = self.database.batch();
        for (key, body) in (first..).zip(bodies) {
            batch.insert(&self.keyspace, key.to_be_bytes(), *body);
        }
        batch.commit()?;
        if level == Level::Synced {
            self.database.persist(fjall::PersistMode::SyncData)?;
        }
        Ok(())
    }
}

/// `okaywal`: every commit is synced, in groups.
pub struct Okaywal(okaywal::WriteAheadLog);

#[derive(Debug)]
struct Forget;

impl okaywal::LogManager for Forget {
    fn recover(&mut self, _entry: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: okaywal::EntryId,
        _entries: &mut okaywal::SegmentReader,
        _wal: &okaywal::WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log for Okaywal {
    const NAME: &'static str = "okaywal";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Okaywal(okaywal::WriteAheadLog::recover(dir, Forget)?))
    }

    fn append(&self, bodies: &[&[u8]], _level: Level) -> Done {
        let mut entry = self.0.begin_entry()?;
        for body in bodies {
            entry.write_chunk(body)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn close(self) -> Done {
        Ok(self.0.shutdown()?)
    }
}

/// `queue-file`: one file, synced on demand.
pub struct QueueFile(Mutex<queue_file::QueueFile>);

impl Log for QueueFile {
    const NAME: &'static str = "queue-file";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut file = queue_file::QueueFile::open(dir.join("queue"))?;
        file.set_sync_writes(false);
        Ok(QueueFile(Mutex::new(file)))
    }

    fn append(&self, bodies: &[&[u8]], level: Level) -> Done {
        let mut file = lock(&self.0);
        file.add_n(bodies.iter().copied())?;
        if level == Level::Synced {
            file.sync_all()?;
        }
        Ok(())
    }
}

/// `yaque`: never syncs.
pub struct Yaque(Mutex<yaque::Sender>);

impl Log for Yaque {
    const NAME: &'static str = "yaque";
    const SYNCS: bool = false;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Yaque(Mutex::new(yaque::Sender::open(dir.join("queue"))?)))
    }

    fn append(&self, bodies: &[&[u8]], _level: Level) -> Done {
        let mut sender = lock(&self.0);
        match bodies {
            [body] => sender.try_send(body).map_err(|error| format!("{error:?}"))?,
            _ => sender.try_send_batch(bodies.iter()).map_err(|_| "the batch was refused")?,
        }
        Ok(())
    }
}

/// `commitlog`: its flush never reaches the device.
pub struct Commitlog(Mutex<commitlog::CommitLog>);

fn commitlog_options(dir: &Path) -> commitlog::LogOptions {
    let mut options = commitlog::LogOptions::new(dir);
    options
        .segment_max_bytes(64 << 20)
        .index_max_items(10_000_000)
        .message_max_bytes(1 << 20);
    options
}

impl Log for Commitlog {
    const NAME: &'static str = "commitlog";
    const SYNCS: bool = false;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Commitlog(Mutex::new(commitlog::CommitLog::new(commitlog_options(dir))?)))
    }

    fn append(&self, bodies: &[&[u8]], _level: Level) -> Done {
        let mut log = lock(&self.0);
        if let [body] = bodies {
            log.append_msg(body)?;
        } else {
            let mut messages: commitlog::message::MessageBuf = bodies.iter().copied().collect();
            log.append(&mut messages)?;
        }
        Ok(())
    }

    fn close(self) -> Done {
        Ok(lock(&self.0).flush()?)
    }

    fn read(dir: &Path) -> Result<Option<u64>, Box<dyn Error>> {
        use commitlog::message::MessageSet as _;
        let log = commitlog::CommitLog::new(commitlog_options(dir))?;
        let (mut offset, mut bytes) = (0, 0);
        while log.last_offset().is_some_and(|last| offset <= last) {
            let messages = log.read(offset, commitlog::ReadLimit::max_bytes(1 << 20))?;
            for message in messages.iter() {
                if !message.verify_hash() {
                    return Err("a message fails its check".into());
                }
                bytes += message.payload().len() as u64;
                offset = message.offset() + 1;
            }
        }
        Ok(Some(bytes))
    }
}
