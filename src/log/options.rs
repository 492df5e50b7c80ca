//! How a log is to be opened.
#![forbid(unsafe_code)]

use super::block::{MAX_ALIGN, MAX_BLOCK, MIN_ALIGN};
use super::error::LogError;

/// Choices for opening a log, validated once by [`Log::open`](super::Log::open).
///
/// # Examples
///
/// ```
/// use ringmq::log::{LogOptions, OnDamage, WhenFull};
///
/// let options = LogOptions::new()
///     .segment_bytes(1 << 20, 16 << 20)
///     .on_damage(OnDamage::Refuse)
///     .when_full(WhenFull::Wait);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LogOptions {
    pub(crate) first_segment: u64,
    pub(crate) max_segment: u64,
    pub(crate) queue_bytes: usize,
    pub(crate) block_bytes: usize,
    pub(crate) write_back: u64,
    pub(crate) align: u64,
    pub(crate) on_damage: OnDamage,
    pub(crate) when_full: WhenFull,
    pub(crate) background: Background,
    pub(crate) prewrite: Prewrite,
    pub(crate) survives: Survives,
    pub(crate) verify: Verify,
    pub(crate) seed: Option<u64>,
    pub(crate) access: Access,
}

impl LogOptions {
    /// The defaults, as each method names them.
    pub const fn new() -> Self {
        Self {
            first_segment: 256 << 10,
            max_segment: 64 << 20,
            queue_bytes: 64 << 20,
            block_bytes: 256 << 10,
            write_back: 8 << 20,
            align: 8,
            on_damage: OnDamage::Salvage,
            when_full: WhenFull::Fail,
            background: Background::Thread,
            prewrite: Prewrite::Auto,
            survives: Survives::PowerLoss,
            verify: Verify::Tail,
            seed: None,
            access: Access::Write,
        }
    }

    /// Sizes of segments: the first has `first` bytes, each one twice what the last one used, up to `max`. The default
    /// is 256 KiB and 64 MiB. Allowed are 4 KiB to 1 GiB. A block that is larger gets a segment that holds it.
    pub const fn segment_bytes(mut self, first: u64, max: u64) -> Self {
        self.first_segment = first;
        self.max_segment = max;
        self
    }

    /// How many bytes may wait to be written before those who append have to wait. The default is 64 MiB.
    pub const fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How many bytes of small batches are gathered for one block, and how much submitted data waits for company before
    /// it is written. The default is 256 KiB.
    pub const fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// How many bytes may be written without anybody asking for a sync until one is made. The default is 8 MiB.
    pub const fn write_back_bytes(mut self, bytes: u64) -> Self {
        self.write_back = bytes;
        self
    }

    /// What blocks are aligned to: a power of two, at most 64 KiB. The default is 8.
    ///
    /// A block shares its first sector with the end of the one before. Devices that may lose the old bytes of a sector
    /// when power goes while it is written again need their sector size here.
    pub const fn align(mut self, bytes: u64) -> Self {
        self.align = bytes;
        self
    }

    /// What to do about promised bytes that are damaged. The default is [`OnDamage::Salvage`].
    pub const fn on_damage(mut self, choice: OnDamage) -> Self {
        self.on_damage = choice;
        self
    }

    /// What [`append`](super::Log::append) and [`append_batch`](super::Log::append_batch) do when no space is left. The
    /// default is [`WhenFull::Fail`], as all other ways to append always do.
    pub const fn when_full(mut self, choice: WhenFull) -> Self {
        self.when_full = choice;
        self
    }

    /// Who prepares segments, syncs now and then and writes for futures. The default is [`Background::Thread`].
    pub const fn background(mut self, choice: Background) -> Self {
        self.background = choice;
        self
    }

    /// Whether segments are filled with zeros before use. The default is [`Prewrite::Auto`].
    pub const fn prewrite(mut self, choice: Prewrite) -> Self {
        self.prewrite = choice;
        self
    }

    /// What the log is to survive. The default is [`Survives::PowerLoss`]; a log has one answer for its whole life.
    pub const fn survives(mut self, choice: Survives) -> Self {
        self.survives = choice;
        self
    }

    /// How much opening looks at. The default is [`Verify::Tail`].
    pub const fn verify(mut self, choice: Verify) -> Self {
        self.verify = choice;
        self
    }

    /// The randomness behind the identity of a new log and the salt of epochs. The default is taken from the system;
    /// a fixed seed makes runs repeatable.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens for reading only: beside a writer, without a lock, changing nothing.
    pub const fn read_only(mut self) -> Self {
        self.access = Access::Read;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), LogError> {
        let check = |ok: bool, option, reason| {
            if ok { Ok(()) } else { Err(LogError::Options { option, reason }) }
        };
        check(self.first_segment >= MIN_SEGMENT, "segment_bytes", "a segment has at least 4 KiB")?;
        check(self.first_segment <= self.max_segment, "segment_bytes", "first is over max")?;
        check(self.max_segment <= 1 << 30, "segment_bytes", "a segment has at most 1 GiB")?;
        check(self.align.is_power_of_two(), "align", "not a power of two")?;
        check((MIN_ALIGN..=MAX_ALIGN).contains(&self.align), "align", "not within 8 and 64 KiB")?;
        check(self.queue_bytes >= 4096, "queue_bytes", "less than 4 KiB")?;
        check(self.block_bytes >= 512, "block_bytes", "less than 512 bytes")?;
        check(self.block_bytes <= MAX_BLOCK / 2, "block_bytes", "over half the limit of a block")?;
        check(self.write_back > 0, "write_back_bytes", "zero")
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What opening does about damage: promised bytes that are not readable any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Fail with [`LogError::Refused`](super::LogError::Refused) and change nothing.
    Refuse,
    /// Report it and serve what is intact.
    Salvage,
}

/// What appending does while no space is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Fail with [`LogError::Full`](super::LogError::Full).
    Fail,
    /// Wait until there is space again. What this log frees, by retiring and rewriting, is known at once; what others free is looked
    /// for every 50 ms.
    Wait,
}

/// Who does what nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// One thread, parked when there is nothing to do. Opening after a kill may start another for as long as it takes.
    Thread,
    /// Whoever appends does it at the end of the call, so that every access to the disk has a fixed place in the run.
    /// For tests and for programs with a single thread. Futures then write and sync while they are polled.
    Inline,
}

/// Whether blocks on the device are written before they are used, which makes each later sync cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prewrite {
    /// Unless the file system copies on write, or blocks are large.
    Auto,
    /// Never.
    Never,
}

/// What a log survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// The loss of power, up to the last sync: on demand, behind a stream that asks for none, and before each new segment.
    PowerLoss,
    /// The death of the process. Appending never syncs, so it is as fast as the page cache; [`Level::Synced`](super::Level::Synced)
    /// is refused with [`LogError::Options`](super::LogError::Options). After a loss of power, parts of any segment may be gone,
    /// which is found as damage. For what is thrown away at the next start.
    Kill,
}

/// How much of the log opening looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// What it needs to find the end: the headers of all segments, and the last segment whole.
    Tail,
    /// Every byte.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

const MIN_SEGMENT: u64 = 4096;
