//! The peers: five published crates that store byte strings. Who cannot share a handle is locked.

use std::{
    error::Error,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::logs::{Done, Level, Log, lock};

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

    fn hand_over(&self) -> Done {
        Ok(self.database.persist(fjall::PersistMode::Buffer)?)
    }

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        let fjall = Self::create(dir)?;
        for entry in fjall.keyspace.iter() {
            each(&entry.value()?);
        }
        Ok(Vec::new())
    }
}

/// `okaywal`: every commit is synced, in groups.
pub struct Okaywal(okaywal::WriteAheadLog);

/// Keeps what recovery shows, which is the only time that entries are shown, or forgets it.
#[derive(Debug)]
struct Recovered(Option<Arc<Mutex<Vec<Vec<u8>>>>>);

impl okaywal::LogManager for Recovered {
    fn recover(&mut self, entry: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
        if let (Some(kept), Some(chunks)) = (&self.0, entry.read_all_chunks()?) {
            lock(kept).extend(chunks);
        }
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
        Ok(Okaywal(okaywal::WriteAheadLog::recover(dir, Recovered(None))?))
    }

    /// Its checkpoints hand entries over to be stored elsewhere, and forget them.
    fn create_keeping(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let configuration = okaywal::Configuration::default_for(dir).checkpoint_after_bytes(u64::MAX);
        Ok(Okaywal(configuration.open(Recovered(None))?))
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

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        let kept = Arc::default();
        let opened = okaywal::WriteAheadLog::recover(dir, Recovered(Some(Arc::clone(&kept))));
        lock(&kept).iter().for_each(|body| each(body));
        opened?;
        Ok(Vec::new())
    }
}

/// `queue-file`: one file, synced on demand.
pub struct QueueFile {
    file: Mutex<queue_file::QueueFile>,
    /// How many bytes it keeps, if it forgets.
    keeps: Option<u64>,
}

/// As much as ours keeps.
const KEPT: u64 = 16 << 20;

impl Log for QueueFile {
    const NAME: &'static str = "queue-file";
    const SYNCS: bool = true;

    fn create(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let mut file = queue_file::QueueFile::open(dir.join("queue"))?;
        file.set_sync_writes(false);
        Ok(QueueFile {
            file: Mutex::new(file),
            keeps: None,
        })
    }

    fn create_forgetting(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let log = Self::create(dir)?;
        lock(&log.file).set_overwrite_on_remove(false);
        Ok(QueueFile { keeps: Some(KEPT), ..log })
    }

    fn append(&self, bodies: &[&[u8]], level: Level) -> Done {
        let mut file = lock(&self.file);
        if self.keeps.is_some_and(|keeps| file.used_bytes() > keeps) {
            file.remove_n(bodies.len())?;
        }
        file.add_n(bodies.iter().copied())?;
        if level == Level::Synced {
            file.sync_all()?;
        }
        Ok(())
    }

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        let file = queue_file::QueueFile::open(dir.join("queue"))?;
        file.iter().for_each(|body| each(&body));
        Ok(Vec::new())
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

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        for body in yaque::QueueIter::open(dir.join("queue"))? {
            each(&body?);
        }
        Ok(Vec::new())
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

    fn read(dir: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Box<dyn Error>> {
        use commitlog::message::MessageSet as _;
        let log = commitlog::CommitLog::new(commitlog_options(dir))?;
        let mut offset = 0;
        while log.last_offset().is_some_and(|last| offset <= last) {
            let messages = log.read(offset, commitlog::ReadLimit::max_bytes(1 << 20))?;
            for message in messages.iter() {
                if !message.verify_hash() {
                    return Err("a message fails its check".into());
                }
                each(message.payload());
                offset = message.offset() + 1;
            }
        }
        Ok(Vec::new())
    }
}
