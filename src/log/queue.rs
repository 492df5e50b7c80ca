//! The queue in front of the log: batches gather in groups, and the role of the leader changes hands.
//!
//! Everything here happens under one lock that is held for a copy of a few KiB at most; what is large is traded, not
//! copied.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use super::batch::Batch;
use super::block;
use super::crc::crc32c;
use super::directory::Entry;
use super::error::LogError;
use super::group::{Class, Done, Group, Share};
use super::hook::Hook;
use super::record::{Level, Record};
use super::shared::Shared;
use crate::sync::{Arc, Ordering};
use crate::user_code::{contained, drop_contained};

/// The queue, and who may empty it.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Groups to come; the last one is being filled.
    pub(crate) staged: VecDeque<Group>,
    /// Groups that a leader has taken and not finished: whoever fences the log tells them.
    pub(crate) flying: Vec<Arc<Done>>,
    free: Vec<Group>,
    /// Bytes staged or being written.
    pub(crate) bytes: usize,
    /// Bytes staged.
    waiting: usize,
    /// Whether somebody has the role.
    leading: bool,
    /// Whether what is staged is to be written though nobody waits for it: its time has come, or a round left it behind.
    is_due: bool,
    pub(crate) shut: Option<LogError>,
    /// Tasks that wait for room. Each has one place, and leaves it when it goes.
    room_wakers: BTreeMap<RoomKey, Waker>,
    next_room: RoomKey,
    /// How many waited for the last group that was synced.
    pub(crate) company: u64,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            staged: VecDeque::new(),
            flying: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            waiting: 0,
            leading: false,
            is_due: false,
            shut: None,
            room_wakers: BTreeMap::new(),
            next_room: 0,
            company: 0,
        }
    }

    /// Keeps the waker of a task until there is room, in the place of the one that it left before.
    fn wait_for_room(&mut self, waits: Waits<'_>) -> Option<Waker> {
        let key = *waits.key.get_or_insert_with(|| {
            self.next_room += 1;
            self.next_room
        });
        self.room_wakers.insert(key, waits.waker.clone())
    }

    /// The group that takes that many more.
    fn group_for(&mut self, records: usize, bytes: usize, block_bytes: usize) -> &mut Group {
        // What is large is not copied: it gets a block of its own.
        let fits = self.staged.back().is_some_and(|group| {
            let can_trade = bytes < SWAP_BYTES || group.batch.is_empty();
            can_trade && group.has_room(records, bytes, block_bytes)
        });
        if !fits {
            let group = self.free.pop().unwrap_or_else(Group::new);
            self.staged.push_back(group);
        }
        let last = self.staged.len() - 1;
        &mut self.staged[last]
    }
}

/// Which task it is that waits for room.
pub(crate) type RoomKey = u64;

/// A task that can wait for room.
pub(crate) struct Waits<'a> {
    /// `None` until it does so for the first time.
    pub(crate) key: &'a mut Option<RoomKey>,
    pub(crate) waker: &'a Waker,
}

/// What is to be appended.
pub(crate) enum Input<'a> {
    /// One small record, its CRC taken already.
    One(Record<'a>, u32),
    Batch(&'a mut Batch),
}

/// Everything about a batch besides its records.
pub(crate) struct Order {
    pub(crate) level: Level,
    pub(crate) class: Class,
    pub(crate) hook: Option<Box<dyn Hook>>,
    /// Whether the calling thread is going to wait, and so can lead.
    pub(crate) waits: bool,
    /// Whether the calling thread may write a block that it has filled.
    pub(crate) may_lead: bool,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) done: Arc<Done>,
    pub(crate) share: Share,
    /// The caller has the role of the leader now.
    pub(crate) leads: bool,
}

/// What a caller keeps of a batch that entered the queue: a [`Ticket`], or nothing.
pub(crate) trait Entered {
    fn new(done: &Arc<Done>, share: Share) -> Self;

    /// The caller has the role of the leader now.
    fn leads(&mut self) -> &mut bool;
}

impl Entered for Ticket {
    fn new(done: &Arc<Done>, share: Share) -> Self {
        let done = Arc::clone(done);
        Self { done, share, leads: false }
    }

    fn leads(&mut self) -> &mut bool {
        &mut self.leads
    }
}

/// Nobody is going to ask what became of the batch. Counting who may ask is a good part of the cost of a small record.
#[derive(Debug)]
pub(crate) struct Unwatched {
    pub(crate) leads: bool,
}

impl Entered for Unwatched {
    fn new(_: &Arc<Done>, _: Share) -> Self {
        Self { leads: false }
    }

    fn leads(&mut self) -> &mut bool {
        &mut self.leads
    }
}

/// Why a batch was not taken.
pub(crate) enum Turned {
    /// The queue is full; the order comes back.
    Full(Order),
    Away(LogError),
}

impl Shared {
    /// Puts a batch into the queue, if there is room.
    pub(crate) fn enqueue<E: Entered>(&self, input: &mut Input<'_>, order: Order, waits: Option<Waits<'_>>) -> Result<E, Turned> {
        let (records, bytes) = match input {
            Input::One(record, _) => (1, record.body.len()),
            Input::Batch(batch) => (batch.len(), batch.bytes()),
        };
        let weight = weight(records, bytes);
        if order.level == Level::Synced && !self.syncs() {
            return Err(Turned::Away(LogError::Options {
                option: "survives",
                reason: "a log that is to survive a kill only never syncs",
            }));
        }
        let mut gate = self.gate.lock();
        if let Some(error) = &gate.shut {
            return Err(Turned::Away(error.clone()));
        }
        if gate.bytes > 0 && gate.bytes + weight > self.options.queue_bytes {
            let before = waits.and_then(|waits| gate.wait_for_room(waits));
            drop(gate);
            drop(before); // code of the user, outside the lock
            return Err(Turned::Full(order));
        }
        gate.bytes += weight;
        gate.waiting += weight;
        let group = gate.group_for(records, bytes, self.options.block_bytes);
        let first = group.batch.len();
        group.add(input);
        let share = Share {
            part: group.add_part(records, bytes, order.level, order.class, order.hook),
            ticket: group.next_ticket(),
            first,
            count: records,
            level: order.level,
        };
        group.level = group.level.max(order.level);
        if order.waits {
            group.blocking += 1;
            self.company.fetch_add(1, Ordering::Relaxed);
        }
        let mut entered = E::new(&group.done, share);
        let is_large = gate.waiting >= self.options.block_bytes;
        // A full block of data that only goes to the operating system is written by whoever filled it.
        let leads = !gate.leading && (order.waits || (order.may_lead && is_large && order.level == Level::Os));
        gate.leading |= leads;
        let asks = is_large && !gate.leading;
        drop(gate);
        if asks {
            self.signal.lead();
        }
        *entered.leads() = leads;
        Ok(entered)
    }

    /// Puts a batch into the queue, waiting for room.
    pub(crate) fn enqueue_blocking<E: Entered>(&self, mut input: Input<'_>, mut order: Order) -> Result<E, LogError> {
        loop {
            match self.enqueue(&mut input, order, None) {
                Ok(entered) => return Ok(entered),
                Err(Turned::Away(error)) => return Err(error),
                Err(Turned::Full(back)) => {
                    order = back;
                    self.make_room_in_queue();
                }
            }
        }
    }

    /// A task does not wait for room any more. What it has left is to be dropped.
    pub(crate) fn leave_room(&self, key: RoomKey) -> Option<Waker> {
        self.gate.lock().room_wakers.remove(&key)
    }

    /// Empties the queue, or waits until somebody has.
    fn make_room_in_queue(&self) {
        let mut gate = self.gate.lock();
        if gate.shut.is_some() {
            return;
        }
        if gate.leading {
            drop(self.room.wait(gate));
            return;
        }
        gate.leading = true;
        drop(gate);
        self.lead();
    }

    /// Tells the queue that a thread waits for a group that was only submitted. Tells whether that thread must lead.
    pub(crate) fn wait_for(&self, done: &Arc<Done>) -> bool {
        let mut gate = self.gate.lock();
        if done.taken.load(Ordering::Relaxed) {
            return false;
        }
        let Some(group) = gate.staged.iter_mut().find(|group| Arc::ptr_eq(&group.done, done)) else {
            return false;
        };
        group.blocking += 1;
        self.company.fetch_add(1, Ordering::Relaxed);
        let leads = !gate.leading;
        gate.leading = true;
        leads
    }

    /// Tells the queue that a task waits for a group. Tells whether somebody must be asked to lead.
    pub(crate) fn want(&self, done: &Arc<Done>) -> bool {
        let mut gate = self.gate.lock();
        if done.taken.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(group) = gate.staged.iter_mut().find(|group| Arc::ptr_eq(&group.done, done)) {
            group.wanted = true;
        }
        !gate.leading
    }

    /// Takes the role if it is free and there is something to do. If somebody else has it, asks again when it is handed on.
    pub(crate) fn try_lead(&self) -> bool {
        let mut gate = self.gate.lock();
        let has_work = !gate.staged.is_empty() && gate.shut.is_none();
        let can = has_work && !gate.leading;
        gate.is_due |= has_work && gate.leading;
        gate.leading |= can;
        can
    }

    /// Takes the queue, up to a limit, and tells how much that is.
    pub(crate) fn take_groups(&self) -> (Vec<Group>, usize) {
        let mut gate = self.gate.lock();
        let mut groups = Vec::with_capacity(gate.staged.len());
        let mut bytes = 0;
        while let Some(group) = gate.staged.pop_front() {
            let weight = weight(group.batch.len(), group.batch.bytes());
            bytes += weight;
            gate.waiting -= weight;
            group.done.taken.store(true, Ordering::Relaxed);
            gate.flying.push(Arc::clone(&group.done));
            self.company.fetch_sub(group.blocking as u64, Ordering::Relaxed);
            groups.push(group);
            if bytes >= ROUND_BYTES {
                break;
            }
        }
        gate.is_due = !gate.staged.is_empty();
        (groups, bytes)
    }

    /// Gives room for as much as was taken, to threads at once and to tasks when they are woken.
    pub(crate) fn give_back(&self, groups: &[Group], bytes: usize, level: Level, tasks: &mut Vec<Waker>) {
        let mut gate = self.gate.lock();
        gate.bytes -= bytes.min(gate.bytes);
        if level == Level::Synced {
            gate.company = groups.iter().map(|group| group.blocking as u64).sum();
        }
        tasks.extend(std::mem::take(&mut gate.room_wakers).into_values());
        drop(gate);
        self.room.notify_all();
    }

    /// Hands the role to one who waits in the queue, else to nobody.
    pub(crate) fn hand_on(&self) {
        let mut gate = self.gate.lock();
        let next = gate
            .staged
            .iter()
            .find(|group| group.blocking > 0)
            .map(|group| Arc::clone(&group.done));
        gate.leading = next.is_some() && gate.shut.is_none();
        let is_large = gate.waiting >= self.options.block_bytes;
        let asks = is_large || gate.is_due || gate.staged.iter().any(|group| group.wanted);
        let is_led = gate.leading;
        drop(gate);
        match next {
            Some(done) if is_led => {
                done.state.lock().promoted = true;
                done.changed.notify_one();
            }
            _ if asks => self.signal.lead(),
            _ => {}
        }
    }

    pub(crate) fn recycle(&self, mut groups: Vec<Group>) {
        let mut gate = self.gate.lock();
        gate.flying
            .retain(|done| !groups.iter().any(|group| Arc::ptr_eq(&group.done, done)));
        drop(gate);
        groups.iter_mut().for_each(Group::renew);
        gate = self.gate.lock();
        while gate.free.len() < FREE_GROUPS {
            match groups.pop() {
                Some(group) => gate.free.push(group),
                None => break,
            }
        }
    }

    /// Tells everybody who waits that there is nothing to wait for, and lets nobody in.
    pub(crate) fn fail_all(&self, cause: &Arc<str>) {
        self.shut(LogError::Fenced { cause: Arc::clone(cause) });
    }

    pub(crate) fn shut(&self, error: LogError) {
        let mut gate = self.gate.lock();
        let error = gate.shut.get_or_insert(error).clone();
        let staged: Vec<Group> = gate.staged.drain(..).collect();
        gate.waiting = 0;
        self.company.store(0, Ordering::Relaxed);
        let mut tasks: Vec<Waker> = std::mem::take(&mut gate.room_wakers).into_values().collect();
        drop(gate);
        self.room.notify_all();
        for mut group in staged {
            for part in &mut group.parts {
                if let Some(mut hook) = part.hook.take() {
                    // Others wait, perhaps for a panic to unwind that raised the fence: its panic is its own.
                    contained(|| hook.done(Err(&error)));
                    drop_contained(hook);
                }
            }
            group.done.update(&mut tasks, |progress| progress.failed = Some(error.clone()));
        }
        // Whoever fences the log may hold its locks.
        self.wake_when_free(tasks);
    }
}

impl Group {
    fn add(&mut self, input: &mut Input<'_>) {
        match input {
            Input::One(record, crc) => {
                self.batch.make_room();
                self.batch.buffer.extend_from_slice(record.body);
                self.batch.entries.push(Entry::new(record.tag, record.body.len(), *crc));
            }
            Input::Batch(batch) => {
                self.batch.time = self.batch.time.max(batch.time);
                if self.batch.is_empty() && batch.bytes() >= SWAP_BYTES {
                    let time = self.batch.time;
                    std::mem::swap(&mut self.batch, batch);
                    self.batch.time = time;
                } else if !batch.is_empty() {
                    self.batch.make_room();
                    self.batch.buffer.extend_from_slice(&batch.buffer[block::ROOM..]);
                    self.batch.entries.extend_from_slice(&batch.entries);
                }
                batch.clear();
            }
        }
    }
}

impl<'a> Input<'a> {
    /// Takes records as they are if that needs no buffer.
    pub(crate) fn one(records: &[Record<'a>]) -> Result<Option<Self>, LogError> {
        match records {
            [record] if record.body.len() < SWAP_BYTES => {
                block::check_record(record.body.len())?;
                Ok(Some(Self::One(*record, crc32c(record.body))))
            }
            _ => Ok(None),
        }
    }
}

/// How much of the queue a batch takes: records without a body take something as well.
fn weight(records: usize, bytes: usize) -> usize {
    bytes + records * size_of::<Entry>()
}

/// Batches from this size on trade buffers instead of being copied, when their group is empty.
const SWAP_BYTES: usize = 32 << 10;
/// How much one leader writes before the next one takes over.
const ROUND_BYTES: usize = 8 << 20;
const FREE_GROUPS: usize = 8;
