//! What all handles of an open log share.
#![forbid(unsafe_code)]

use std::path::Path;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::beside::{self, Became};
use super::block;
use super::crc;
use super::dir::Dir;
use super::error::LogError;
use super::group::{Class, wake_all};
use super::name;
use super::options::{Background, LogOptions, Survives};
use super::queue::{Gate, Input, Order, Ticket};
use super::record::{Level, Location, Lsn, Tag};
use super::report::{Damage, DamageKind};
use super::segment::Table;
use super::space::Space;
use super::spare::Spares;
use super::vfs::{VfsFile, VfsLock};
use super::worker::Signal;
use super::writer::Writer;
use crate::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering};

/// The state of an open log.
///
/// ```text
/// lock       held while                                  then taken
/// gate       batches are added, the role changes hands   nothing
/// writer     a leader writes                             syncing, spares, table, fence
/// publish    a leader completes its groups               syncing, gate
/// syncing    one sync runs                               fence
/// fence      it is looked at, or raised                  nothing
/// late       tasks are left there to be woken            nothing
/// ```
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Dir,
    pub(crate) options: LogOptions,
    pub(crate) log_id: u128,
    pub(crate) log_mix: u32,
    pub(crate) epoch: u64,
    pub(crate) table: Table,
    /// `None` when the log is open for reading only.
    pub(crate) writer: Option<Mutex<Writer>>,
    pub(crate) gate: Mutex<Gate>,
    /// Those who wait for room in the queue.
    pub(crate) room: Condvar,
    /// Held by a leader from its last write until its groups are complete: completion follows the order of the log.
    pub(crate) publish: Mutex<()>,
    pub(crate) syncing: Mutex<()>,
    /// Why nothing may be written any more. Set while `syncing` is held if a sync failed, so that the next one knows; read
    /// by leaders, who must not wait for a sync to learn that there is no fence.
    fence: Mutex<Option<Arc<str>>>,
    /// How long a sync takes on average, in nanoseconds. Written under `syncing`.
    mean_sync_nanos: AtomicU64,
    /// What a sync would make durable: the active file and the end of what is in it. Written by leaders.
    pub(crate) tip: Mutex<Tip>,
    /// LSN up to which a sync has returned Ok. Written under `syncing`, only grows.
    pub(crate) durable: AtomicU64,
    /// LSN up to which everything may be read: groups are complete. Written under `publish`, only grows.
    pub(crate) visible: AtomicU64,
    pub(crate) spares: Spares,
    pub(crate) signal: Signal,
    pub(crate) lock: Mutex<Option<Box<dyn VfsLock>>>,
    /// Batches in the queue that somebody waits for. Written under `gate`, read by a leader that waits for company.
    pub(crate) company: AtomicU64,
    /// Whether writing ahead can pay at all, here and as configured.
    pub(crate) can_prewrite: bool,
    /// Whether it pays for what is being written. Written by leaders.
    pub(crate) is_prewriting: AtomicBool,
    /// Where the active segment is to end. Written by leaders; a hint.
    pub(crate) capacity: AtomicU64,
    pub(crate) rolls: AtomicU64,
    pub(crate) blocks: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// Segments are retired and rewritten one at a time.
    pub(crate) managing: Mutex<()>,
    pub(crate) space: Space,
    /// Tasks to be woken once nobody holds the locks of a round.
    late: Mutex<Vec<Waker>>,
}

/// What the next sync is for.
#[derive(Debug)]
pub(crate) struct Tip {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) path: std::path::PathBuf,
    pub(crate) lsn: u64,
}

/// What a log is made of when it is opened.
pub(crate) struct Parts {
    pub(crate) dir: Dir,
    pub(crate) options: LogOptions,
    pub(crate) log_id: u128,
    pub(crate) epoch: u64,
    pub(crate) table: Table,
    pub(crate) writer: Option<Writer>,
    pub(crate) tip: Tip,
    pub(crate) spares: Spares,
    pub(crate) lock: Option<Box<dyn VfsLock>>,
    pub(crate) can_prewrite: bool,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let end = parts.tip.lsn;
        let capacity = parts.writer.as_ref().map_or(0, |writer| writer.capacity);
        Self {
            dir: parts.dir,
            options: parts.options,
            log_id: parts.log_id,
            log_mix: super::crc::mix_log(parts.log_id),
            epoch: parts.epoch,
            table: parts.table,
            writer: parts.writer.map(Mutex::new),
            gate: Mutex::new(Gate::new()),
            room: Condvar::new(),
            publish: Mutex::new(()),
            syncing: Mutex::new(()),
            fence: Mutex::new(None),
            mean_sync_nanos: AtomicU64::new(0),
            tip: Mutex::new(parts.tip),
            durable: AtomicU64::new(end),
            visible: AtomicU64::new(end),
            spares: parts.spares,
            signal: Signal::new(),
            lock: Mutex::new(parts.lock),
            company: AtomicU64::new(0),
            can_prewrite: parts.can_prewrite,
            is_prewriting: AtomicBool::new(parts.can_prewrite),
            capacity: AtomicU64::new(capacity),
            rolls: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            managing: Mutex::new(()),
            space: Space::new(),
            late: Mutex::new(Vec::new()),
        }
    }

    /// Wakes tasks, as soon as nobody holds the locks of a round: a waker may be the end of the last handle, which waits for them.
    pub(crate) fn wake_when_free(&self, tasks: Vec<Waker>) {
        if tasks.is_empty() {
            return;
        }
        self.late.lock().extend(tasks);
        // Whoever holds one of the locks looks for them after it: what was not there then finds the lock free here.
        let is_free = self.writer.as_ref().is_none_or(|writer| writer.try_lock().is_some()) && self.publish.try_lock().is_some();
        if is_free {
            self.wake_late();
        }
    }

    /// Wakes tasks that others could not, by whoever has held a lock of a round and holds it no more.
    pub(crate) fn wake_late(&self) {
        let tasks = std::mem::take(&mut *self.late.lock());
        wake_all(tasks);
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.options.background == Background::Inline
    }

    pub(crate) fn syncs(&self) -> bool {
        self.options.survives == Survives::PowerLoss
    }

    /// Makes everything up to `upto`, which was written through this file or is durable already, survive a power cut.
    ///
    /// One at a time, because a failure is reported to one caller only: whoever syncs next must know of it.
    pub(crate) fn sync(&self, file: &Arc<dyn VfsFile>, path: &Path, upto: u64) -> Result<(), LogError> {
        self.sync_unless(file, path, upto, |durable| durable >= upto)
    }

    /// Makes the header of the active segment survive a power cut, as any sync of what is behind it has done.
    pub(crate) fn sync_header(&self, file: &Arc<dyn VfsFile>, path: &Path, base: u64) -> Result<(), LogError> {
        self.sync_unless(file, path, base, |durable| durable > base)
    }

    fn sync_unless(&self, file: &Arc<dyn VfsFile>, path: &Path, upto: u64, is_done: impl FnOnce(u64) -> bool) -> Result<(), LogError> {
        let syncing = self.syncing.lock();
        if let Some(error) = self.fenced() {
            return Err(error);
        }
        if !self.syncs() || is_done(self.durable.load(Ordering::Acquire)) {
            return Ok(());
        }
        let start = Instant::now();
        if let Err(e) = file.sync_data() {
            let error = LogError::io("sync", path, e);
            let cause = self.raise_fence(&error);
            drop(syncing);
            self.fail_all(&cause);
            return Err(LogError::Fenced { cause });
        }
        self.durable.fetch_max(upto, Ordering::AcqRel);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let took = start.elapsed().as_nanos().min(100_000_000) as u64;
        let mean = match self.mean_sync_nanos.load(Ordering::Relaxed) {
            0 => took,
            mean => (mean * 7 + took) / 8,
        };
        self.mean_sync_nanos.store(mean, Ordering::Relaxed);
        Ok(())
    }

    /// Syncs what was written so far.
    pub(crate) fn sync_tip(&self) -> Result<(), LogError> {
        let (file, path, lsn) = {
            let tip = self.tip.lock();
            if self.durable.load(Ordering::Acquire) >= tip.lsn {
                return Ok(());
            }
            (Arc::clone(&tip.file), tip.path.clone(), tip.lsn)
        };
        self.sync(&file, &path, lsn)
    }

    /// Makes the names of segments survive a power cut. One at a time with all other syncs, and for the same reason.
    pub(crate) fn sync_names(&self) -> Result<(), LogError> {
        let syncing = self.syncing.lock();
        if let Some(error) = self.fenced() {
            return Err(error);
        }
        let synced = self.dir.sync_log().map_err(|error| self.raise_fence(&error));
        drop(syncing);
        synced.map_err(|cause| {
            self.fail_all(&cause);
            LogError::Fenced { cause }
        })
    }

    pub(crate) fn mean_sync(&self) -> Duration {
        Duration::from_nanos(self.mean_sync_nanos.load(Ordering::Relaxed))
    }

    /// How many bytes were written and not synced.
    pub(crate) fn unsynced(&self) -> u64 {
        self.tip.lock().lsn.saturating_sub(self.durable.load(Ordering::Acquire))
    }

    /// Lets nothing more be written or promised, because something failed whose extent nobody knows.
    pub(crate) fn fence(&self, error: &LogError) -> LogError {
        let cause = self.raise_fence(error);
        self.fail_all(&cause);
        LogError::Fenced { cause }
    }

    fn raise_fence(&self, error: &LogError) -> Arc<str> {
        let mut fence = self.fence.lock();
        Arc::clone(fence.get_or_insert_with(|| describe(error)))
    }

    /// Looks whether the lock is still one: a file of that name that somebody else made has a lock of its own.
    pub(crate) fn check_lock(&self) -> Result<(), LogError> {
        let path = self.dir.root.join(name::LOCK);
        let named = self.lock.lock().as_ref().map(|lock| lock.still_named());
        match named {
            Some(Ok(false)) => Err(self.fence(&LogError::Locked { path })),
            Some(Err(e)) => Err(LogError::io("look at", &path, e)),
            Some(Ok(true)) | None => Ok(()),
        }
    }

    /// The fence, if it is up.
    pub(crate) fn fenced(&self) -> Option<LogError> {
        let cause = self.fence.lock().clone()?;
        Some(LogError::Fenced { cause })
    }

    /// Asks for a spare of that size.
    pub(crate) fn want_spare(&self, capacity: u64) {
        self.signal.want_spare(capacity);
    }

    /// Makes a spare of that size now. Failing is no harm: the log goes on in a file that grows.
    pub(crate) fn make_spare(&self, capacity: u64, pause: impl FnMut() -> bool) {
        let zeroed = if self.is_prewriting.load(Ordering::Relaxed) {
            capacity
        } else {
            // Even where writing ahead does not pay, there is something to fall back on when space runs out.
            capacity.min(self.options.first_segment)
        };
        let made = self.check_lock();
        if made
            .and_then(|()| self.spares.make(&self.dir, capacity, zeroed, self.options.survives, pause))
            .is_err()
        {
            self.spares.give_up();
        }
    }

    /// Tries again to make a spare after there was no space, not too often. Tells whether there is one now.
    pub(crate) fn retry_spare(&self) -> bool {
        if !self.is_inline() && !self.space.may_try() {
            return false;
        }
        self.make_spare(self.options.first_segment, || true);
        self.spares.is_ready()
    }
}

impl Shared {
    /// Reads one record. After an error the buffer is empty.
    pub(crate) fn read(&self, tag: Tag, location: Location, body: &mut Vec<u8>) -> Result<(), LogError> {
        body.clear();
        self.read_into(tag, location, body).inspect_err(|_| body.clear())
    }

    fn read_into(&self, tag: Tag, location: Location, body: &mut Vec<u8>) -> Result<(), LogError> {
        let lsn = location.lsn;
        let gone = LogError::Gone { lsn };
        block::check_record(location.len as usize)?;
        let end = lsn.0.checked_add(u64::from(location.len)).ok_or_else(|| gone.clone())?;
        if end > self.visible.load(Ordering::Acquire) {
            return Err(gone);
        }
        // An empty body may lie at the very end of its segment: what counts is the byte before it.
        let (segment, _) = self.table.find(lsn.0.saturating_sub(1)).ok_or_else(|| gone.clone())?;
        if lsn.0 < segment.header.base {
            return Err(gone);
        }
        if segment.header.generation != location.generation {
            return Err(LogError::Moved { lsn });
        }
        let file = self.table.file(&segment)?;
        let position = segment.header.position_of(lsn.0);
        body.resize(location.len as usize, 0);
        let read = match file.read_exact_at(body, position) {
            Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(LogError::io("read", &segment.path, e));
            }
            read => read,
        };
        let crc = crc::crc32c(body) ^ crc::mix_record(tag.topic, tag.offset);
        if read.is_ok() && crc == location.crc {
            return Ok(());
        }
        if self.writer.is_none() && beside::what_became_of(&self.dir, &segment, Some(&*file))? != Became::Unchanged {
            return Err(gone);
        }
        Err(LogError::Damaged(Box::new(Damage {
            kind: DamageKind::Record {
                topic: tag.topic,
                offset: tag.offset,
            },
            file: segment.path.clone(),
            position,
            len: u64::from(location.len),
            from: lsn,
            to: Lsn(end),
        })))
    }

    /// Waits until there may be space again, more than when the log had freed some so often.
    pub(crate) fn wait_for_space(&self, seen: u64) -> Result<(), LogError> {
        if self.is_inline() {
            return Err(LogError::Full); // nobody else would make space
        }
        self.space.wait(seen);
        let shut = self.gate.lock().shut.clone();
        shut.map_or(Ok(()), Err)
    }

    /// Writes and syncs everything, and says that nothing is missing.
    pub(crate) fn finish(&self) -> Result<(), LogError> {
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        let order = Order {
            level: if self.syncs() { Level::Synced } else { Level::Os },
            class: Class::Fact,
            hook: None,
            waits: true,
            may_lead: true,
        };
        let ticket: Ticket = self.enqueue_blocking(Input::Batch(&mut Batch::new()), order)?;
        self.settle(&ticket)?;
        // Nobody writes behind the closing block.
        self.shut(LogError::Closed);
        let mut writer = writer.lock();
        // A closing block proves the header of its segment, also of one that holds nothing else: so the header comes first.
        let named = self.sync_header(&writer.file, &writer.segment.path, writer.segment.header.base);
        let closed = named.and_then(|()| writer.write_closing(self));
        let synced = closed.and_then(|()| self.sync(&writer.file, &writer.segment.path, writer.lsn));
        drop(writer);
        self.wake_late();
        synced
    }

    /// Lets go of the directory, when whoever is writing has finished.
    pub(crate) fn let_go(&self) {
        self.shut(LogError::Closed);
        let mut writing = self.writer.as_ref().map(Mutex::lock);
        if let Some(writer) = &mut writing {
            writer.gone = true;
        }
        // Only now, so that the next writer does not meet this one.
        let lock = self.lock.lock().take();
        drop(writing);
        drop(lock);
        self.wake_late();
    }
}

fn describe(error: &LogError) -> Arc<str> {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}").into(),
        None => error.to_string().into(),
    }
}
