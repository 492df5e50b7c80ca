//! Group commit: batches gather in a queue, and one of those who wait writes and syncs for all.
//!
//! The leader is a role, not a thread:
//!
//! ```text
//! take the role     by finding it free, or by being handed it
//! wait for company  as many as the last group had, a quarter of a mean sync at most
//! take the queue    all of it, up to a limit
//! write             hooks decide, blocks are written                      (lock: writer)
//! sync              if anybody asked for it                               (lock: publish, until the end)
//! hand the role on  to one who waits in the queue, else to nobody
//! complete          in the order of the log: visible, hooks, receipts
//! ```
//!
//! The next leader writes while the last one completes. Futures never lead: they ask the worker to.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::batch::Batch;
use super::block::{self, Entry};
use super::crc::crc32c;
use super::error::LogError;
use super::group::{Class, Done, Group, Part, Share};
use super::hook::{Hook, Reached};
use super::options::WhenFull;
use super::record::{Level, Lsn, Placed, Record};
use super::shared::Shared;
use crate::sync::{Arc, Ordering, yield_now};

/// The queue, and who may empty it.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Groups to come; the last one is being filled.
    staged: VecDeque<Group>,
    /// Groups that a leader has taken and not finished: whoever fences the log tells them.
    flying: Vec<Arc<Done>>,
    free: Vec<Group>,
    /// Bytes staged or being written.
    bytes: usize,
    /// Bytes staged.
    waiting: usize,
    /// Whether somebody has the role.
    leading: bool,
    pub(crate) shut: Option<LogError>,
    room_wakers: Vec<Waker>,
    /// How many waited for the last group that was synced.
    company: u64,
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
            shut: None,
            room_wakers: Vec::new(),
            company: 0,
        }
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

/// Why a batch was not taken.
pub(crate) enum Turned {
    /// The queue is full; the order comes back.
    Full(Order),
    Away(LogError),
}

impl Shared {
    /// Puts a batch into the queue, if there is room.
    pub(crate) fn enqueue(
        &self,
        input: &mut Input<'_>,
        order: Order,
        waker: Option<&Waker>,
    ) -> Result<Ticket, Turned> {
        let (records, bytes) = match input {
            Input::One(record, _) => (1, record.body.len()),
            Input::Batch(batch) => (batch.len(), batch.bytes()),
        };
        let weight = weight(records, bytes);
        let mut gate = self.gate.lock();
        if let Some(error) = &gate.shut {
            return Err(Turned::Away(error.clone()));
        }
        if gate.bytes > 0 && gate.bytes + weight > self.options.queue_bytes {
            if let Some(waker) = waker
                && !gate.room_wakers.iter().any(|known| known.will_wake(waker))
            {
                gate.room_wakers.push(waker.clone());
            }
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
        let done = Arc::clone(&group.done);
        let is_large = gate.waiting >= self.options.block_bytes;
        // A full block of data that only goes to the operating system is written by whoever filled it.
        let leads = !gate.leading
            && (order.waits || (order.may_lead && is_large && order.level == Level::Os));
        gate.leading |= leads;
        let asks = is_large && !gate.leading;
        drop(gate);
        if asks {
            self.signal.lead();
        }
        Ok(Ticket { done, share, leads })
    }

    /// Puts a batch into the queue, waiting for room.
    pub(crate) fn enqueue_blocking(
        &self,
        mut input: Input<'_>,
        mut order: Order,
    ) -> Result<Ticket, LogError> {
        loop {
            match self.enqueue(&mut input, order, None) {
                Ok(ticket) => return Ok(ticket),
                Err(Turned::Away(error)) => return Err(error),
                Err(Turned::Full(back)) => {
                    order = back;
                    self.make_room_in_queue();
                }
            }
        }
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

    /// Waits for the outcome. Whoever waits may be made the leader.
    pub(crate) fn settle(&self, ticket: &Ticket) -> Result<Placed, LogError> {
        if ticket.leads {
            self.lead();
        }
        let mut state = ticket.done.state.lock();
        loop {
            if let Some(outcome) = state.outcome(&ticket.share) {
                if std::mem::take(&mut state.promoted) {
                    // The role was handed here a moment before there was nothing left to wait for.
                    drop(state);
                    self.hand_on();
                }
                return outcome;
            }
            if std::mem::take(&mut state.promoted) {
                drop(state);
                self.lead();
                state = ticket.done.state.lock();
                continue;
            }
            state = ticket.done.changed.wait(state);
        }
    }

    /// Tells the queue that a thread waits for a group that was only submitted. Tells whether that thread must lead.
    pub(crate) fn wait_for(&self, done: &Arc<Done>) -> bool {
        let mut gate = self.gate.lock();
        if done.taken.load(Ordering::Relaxed) {
            return false;
        }
        let Some(group) = gate
            .staged
            .iter_mut()
            .find(|group| Arc::ptr_eq(&group.done, done))
        else {
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
        if let Some(group) = gate
            .staged
            .iter_mut()
            .find(|group| Arc::ptr_eq(&group.done, done))
        {
            group.wanted = true;
        }
        !gate.leading
    }

    /// Takes the role if it is free and there is something to do.
    pub(crate) fn try_lead(&self) -> bool {
        let mut gate = self.gate.lock();
        let can = !gate.leading && !gate.staged.is_empty() && gate.shut.is_none();
        gate.leading |= can;
        can
    }

    /// Does one round. The caller has the role, and has it no more afterwards.
    pub(crate) fn lead(&self) {
        self.wait_for_company();
        let (mut groups, bytes) = self.take_groups();
        let unwinding = Unwinding(self);
        let level = groups
            .iter()
            .map(|group| group.level)
            .max()
            .unwrap_or(Level::Os);
        let mut outcomes = Vec::with_capacity(groups.len());
        let mut unsynced = 0;
        let mut generation = 0;
        if let Some(writer) = &self.writer {
            let mut writer = writer.lock();
            for group in &mut groups {
                let outcome = match self.fenced() {
                    Some(error) => Err(error),
                    None => writer.write(self, group),
                };
                generation = writer.segment.header.generation;
                outcomes.push(outcome);
            }
            let mut tip = self.tip.lock();
            if !Arc::ptr_eq(&tip.file, &writer.file) {
                tip.file = Arc::clone(&writer.file);
                tip.path.clone_from(&writer.segment.path);
            }
            tip.lsn = writer.lsn;
            unsynced = writer
                .lsn
                .saturating_sub(self.durable.load(Ordering::Acquire));
        }
        let end = self.tip.lock().lsn;
        let publish = self.publish.lock();
        for (group, outcome) in groups.iter_mut().zip(&outcomes) {
            if let Ok(block) = outcome {
                self.written(group, *block, generation, level);
            }
        }
        let synced = if level == Level::Synced {
            self.sync_tip()
        } else {
            Ok(())
        };
        if level == Level::Os && unsynced >= self.options.write_back {
            self.signal.write_back();
        }
        self.give_back(&groups, bytes, level);
        self.hand_on();
        if synced.is_ok() {
            self.visible.fetch_max(end, Ordering::AcqRel);
        }
        for (group, outcome) in groups.iter_mut().zip(outcomes) {
            let outcome = outcome.and_then(|block| synced.clone().map(|()| block));
            self.complete(group, outcome, generation, level);
        }
        drop(publish);
        std::mem::forget(unwinding);
        self.recycle(groups);
    }

    /// Gives those who are about to append again the time to do so: one sync for all is faster than one each.
    fn wait_for_company(&self) {
        let expected = {
            let gate = self.gate.lock();
            let is_synced = gate.staged.iter().any(|group| group.level == Level::Synced);
            if is_synced && !self.is_inline() {
                gate.company
            } else {
                0
            }
        };
        if expected <= 1 || self.company.load(Ordering::Relaxed) >= expected {
            return;
        }
        let deadline = Instant::now() + self.mean_sync() / 4;
        while self.company.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
            yield_now();
        }
    }

    /// Takes the queue, up to a limit, and tells how much that is.
    fn take_groups(&self) -> (Vec<Group>, usize) {
        let mut gate = self.gate.lock();
        let mut groups = Vec::with_capacity(gate.staged.len());
        let mut bytes = 0;
        while let Some(group) = gate.staged.pop_front() {
            let weight = weight(group.batch.len(), group.batch.bytes());
            bytes += weight;
            gate.waiting -= weight;
            group.done.taken.store(true, Ordering::Relaxed);
            gate.flying.push(Arc::clone(&group.done));
            self.company
                .fetch_sub(group.blocking as u64, Ordering::Relaxed);
            groups.push(group);
            if bytes >= ROUND_BYTES {
                break;
            }
        }
        (groups, bytes)
    }

    /// Tells hooks, and those who asked for no more than that, that the bytes are with the operating system.
    fn written(&self, group: &mut Group, block: Option<(Lsn, Lsn)>, generation: u32, round: Level) {
        self.blocks
            .fetch_add(u64::from(block.is_some()), Ordering::Relaxed);
        let block = block.unwrap_or_else(|| self.nowhere());
        each_part(group, block, generation, |part, reached| {
            if let Some(hook) = &mut part.hook {
                hook.written(reached);
                if part.level == Level::Os {
                    hook.done(Ok(reached));
                    part.hook = None;
                }
            }
        });
        let is_mixed =
            round == Level::Synced && group.parts.iter().any(|part| part.level == Level::Os);
        if is_mixed {
            let refused = refusals(group);
            group.done.update(|progress| {
                progress.block = Some(block);
                progress.reached = Some(Level::Os);
                progress.refused = refused;
            });
        }
    }

    /// Tells hooks and receipts how it ended.
    fn complete(
        &self,
        group: &mut Group,
        outcome: Result<Option<(Lsn, Lsn)>, LogError>,
        generation: u32,
        level: Level,
    ) {
        let refused = refusals(group);
        for part in &mut group.parts {
            let error = part.refused.as_ref().or(outcome.as_ref().err());
            if let (Some(error), Some(hook)) = (error, &mut part.hook) {
                hook.done(Err(error));
                part.hook = None;
            }
        }
        match outcome {
            Ok(block) => {
                let block = block.unwrap_or_else(|| self.nowhere());
                each_part(group, block, generation, |part, reached| {
                    if let Some(mut hook) = part.hook.take() {
                        hook.done(Ok(reached));
                    }
                });
                group.done.update(|progress| {
                    progress.block = Some(block);
                    progress.reached = Some(level);
                    progress.refused = refused;
                });
            }
            Err(error) => group.done.update(|progress| {
                progress.refused = refused;
                progress.failed = Some(error);
            }),
        }
    }

    /// The place of a group that wrote nothing.
    fn nowhere(&self) -> (Lsn, Lsn) {
        let end = Lsn(self.tip.lock().lsn);
        (end, end)
    }

    fn give_back(&self, groups: &[Group], bytes: usize, level: Level) {
        let mut gate = self.gate.lock();
        gate.bytes -= bytes.min(gate.bytes);
        if level == Level::Synced {
            gate.company = groups.iter().map(|group| group.blocking as u64).sum();
        }
        let wakers = std::mem::take(&mut gate.room_wakers);
        drop(gate);
        self.room.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Hands the role to one who waits in the queue, else to nobody.
    fn hand_on(&self) {
        let mut gate = self.gate.lock();
        let next = gate
            .staged
            .iter()
            .find(|group| group.blocking > 0)
            .map(|group| Arc::clone(&group.done));
        gate.leading = next.is_some() && gate.shut.is_none();
        let is_large = gate.waiting >= self.options.block_bytes;
        let asks = is_large || gate.staged.iter().any(|group| group.wanted);
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

    fn recycle(&self, mut groups: Vec<Group>) {
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
        self.shut(LogError::Fenced {
            cause: Arc::clone(cause),
        });
    }

    pub(crate) fn shut(&self, error: LogError) {
        let mut gate = self.gate.lock();
        let error = gate.shut.get_or_insert(error).clone();
        let staged: Vec<Group> = gate.staged.drain(..).collect();
        gate.waiting = 0;
        self.company.store(0, Ordering::Relaxed);
        let wakers = std::mem::take(&mut gate.room_wakers);
        drop(gate);
        self.room.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        for mut group in staged {
            for part in &mut group.parts {
                if let Some(mut hook) = part.hook.take() {
                    hook.done(Err(&error));
                }
            }
            group
                .done
                .update(|progress| progress.failed = Some(error.clone()));
        }
    }

    /// Tells whether appending that found no space should wait for it.
    pub(crate) fn waits_for_space(&self, error: &LogError) -> bool {
        matches!(error, LogError::Full) && self.options.when_full == WhenFull::Wait
    }
}

impl Group {
    fn add(&mut self, input: &mut Input<'_>) {
        match input {
            Input::One(record, crc) => {
                self.batch.make_room();
                self.batch.buffer.extend_from_slice(record.body);
                self.batch
                    .entries
                    .push(Entry::new(record.tag, record.body.len(), *crc));
            }
            Input::Batch(batch) => {
                self.batch.time = self.batch.time.max(batch.time);
                if self.batch.is_empty() && batch.bytes() >= SWAP_BYTES {
                    let time = self.batch.time;
                    std::mem::swap(&mut self.batch, batch);
                    self.batch.time = time;
                } else if !batch.is_empty() {
                    self.batch.make_room();
                    self.batch
                        .buffer
                        .extend_from_slice(&batch.buffer[block::ROOM..]);
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

/// Shows each part that was written where it is.
fn each_part(
    group: &mut Group,
    (lsn, end): (Lsn, Lsn),
    generation: u32,
    mut show: impl FnMut(&mut Part, &Reached<'_>),
) {
    if group.parts.iter().all(|part| part.hook.is_none()) {
        return;
    }
    let entries = &group.batch.entries[..];
    let front = block::front(entries.len(), block::count_runs(entries)) as u64;
    let mut first = 0;
    let mut body = lsn.0 + front;
    for part in group.parts.iter_mut().filter(|part| part.refused.is_none()) {
        let reached = Reached {
            placed: Placed {
                lsn,
                end,
                first: first as u32,
                count: part.records as u32,
            },
            entries: &entries[first..first + part.records],
            body: Lsn(body),
            generation,
        };
        show(part, &reached);
        first += part.records;
        body += part.bytes as u64;
    }
}

fn refusals(group: &Group) -> Vec<(usize, usize, LogError)> {
    let refused =
        |(at, part): (usize, &Part)| part.refused.clone().map(|error| (at, part.records, error));
    group.parts.iter().enumerate().filter_map(refused).collect()
}

/// Fences the log when a hook panics in the middle of a commit.
struct Unwinding<'a>(&'a Shared);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let error = self.0.fence(&LogError::Fenced {
            cause: "a panic in a hook".into(),
        });
        let flying = std::mem::take(&mut self.0.gate.lock().flying);
        for done in flying {
            done.update(|progress| progress.failed = Some(error.clone()));
        }
    }
}

/// Batches from this size on trade buffers instead of being copied, when their group is empty.
const SWAP_BYTES: usize = 32 << 10;
/// How much one leader writes before the next one takes over.
const ROUND_BYTES: usize = 8 << 20;
const FREE_GROUPS: usize = 8;
