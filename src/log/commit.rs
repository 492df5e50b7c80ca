//! Group commit: batches gather in a queue, and one of those who wait writes and syncs for all.
//!
//! The leader is a role, not a thread:
//!
//! ```text
//! take the role     by finding it free, or by being handed it
//! wait for company  as many as the last group had, a quarter of a mean sync at most
//! take the queue    all of it, up to a limit
//! write             hooks decide, blocks are written                      (lock: writer)
//! sync              if anybody asked for it                               (lock: syncing)
//! hand the role on  to one who waits in the queue, else to nobody         (lock: publish, until the end)
//! complete          in the order of the log: visible, hooks, receipts
//! wake              tasks; one that appends may become the next leader    (no lock)
//! ```
//!
//! The next leader writes while the last one completes. Futures never lead: they ask the worker to.
#![forbid(unsafe_code)]

use std::task::Waker;
use std::time::Instant;

use super::block;
use super::directory;
use super::error::LogError;
use super::group::{Group, Part, wake_all};
use super::hook::Reached;
use super::options::WhenFull;
use super::queue::Ticket;
use super::record::{Level, Lsn, Placed};
use super::shared::Shared;
use crate::sync::{Arc, Ordering, yield_now};

impl Shared {
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

    /// Does one round. The caller has the role, and has it no more afterwards.
    pub(crate) fn lead(&self) {
        self.wait_for_company();
        let (mut groups, bytes) = self.take_groups();
        let mut unwinding = Unwinding {
            shared: self,
            tasks: Vec::new(),
        };
        let level = groups.iter().map(|group| group.level).max().unwrap_or(Level::Os);
        let written = self.write_groups(&mut groups);
        // Whoever is told of the write is told before the sync, and in the order of the log like everybody.
        let tells = groups.iter().any(|group| group.tells_of_writes(level));
        let early = tells.then(|| self.publish.lock());
        if tells {
            for (group, outcome) in groups.iter_mut().zip(&written.outcomes) {
                if let Ok(block) = outcome {
                    self.written(group, *block, written.generation, level, &mut unwinding.tasks);
                }
            }
        }
        let synced = match level {
            Level::Synced => self.sync_tip(),
            Level::Os => Ok(()),
        };
        if level == Level::Os && self.syncs() && written.unsynced >= self.options.write_back {
            self.signal.write_back();
        }
        // Taken before the role is handed on, so that nobody who leads later completes sooner.
        let publish = early.unwrap_or_else(|| self.publish.lock());
        self.give_back(&groups, bytes, level, &mut unwinding.tasks);
        self.hand_on();
        if synced.is_ok() {
            self.visible.fetch_max(written.end, Ordering::AcqRel);
        }
        for (group, outcome) in groups.iter_mut().zip(written.outcomes) {
            self.complete(group, outcome, &synced, written.generation, level, &mut unwinding.tasks);
        }
        drop(publish);
        let tasks = std::mem::take(&mut unwinding.tasks);
        std::mem::forget(unwinding);
        self.recycle(groups);
        wake_all(tasks);
        self.wake_late();
    }

    /// Writes one block for each group. What fails takes with it what comes behind it in the round, or a crash before
    /// anybody is told would show a hole in the order; only where space is short, facts go on without the data, all of it,
    /// up to the first fact that finds none.
    fn write_groups(&self, groups: &mut [Group]) -> Written {
        let mut written = Written::default();
        let Some(writer) = &self.writer else {
            return written; // nothing gets into the queue of a log that is open for reading
        };
        let mut writer = writer.lock();
        let mut failed: Option<LogError> = None;
        let mut is_short = false;
        let mut is_out = false; // not even facts find space
        for group in groups {
            let outcome = match failed.clone().or_else(|| self.fenced()) {
                Some(error) => Err(error),
                None if is_out && !group.batch.is_empty() => Err(LogError::Full),
                None if is_short && group.has_data() && !group.refuse_data() => Err(LogError::Full),
                None => writer.write(self, group),
            };
            is_short |= outcome.as_ref().is_err_and(LogError::is_full) || group.is_refused_for_space();
            is_out |= outcome.as_ref().is_err_and(LogError::is_full) && group.has_facts();
            failed = failed.or_else(|| outcome.as_ref().err().filter(|error| !error.is_full()).cloned());
            let is_block = matches!(outcome, Ok(Some(_)));
            self.blocks.fetch_add(u64::from(is_block), Ordering::Relaxed);
            let end = Lsn(writer.lsn);
            written.outcomes.push(outcome.map(|block| block.unwrap_or((end, end))));
        }
        let mut tip = self.tip.lock();
        if !Arc::ptr_eq(&tip.file, &writer.file) {
            tip.file = Arc::clone(&writer.file);
            tip.path.clone_from(&writer.segment.path);
        }
        tip.lsn = writer.lsn;
        written.end = writer.lsn;
        written.unsynced = writer.lsn.saturating_sub(self.durable.load(Ordering::Acquire));
        written.generation = writer.segment.header.generation;
        written
    }

    /// Gives those who are about to append again the time to do so: one sync for all is faster than one each.
    fn wait_for_company(&self) {
        let expected = {
            let gate = self.gate.lock();
            let is_synced = gate.staged.iter().any(|group| group.level == Level::Synced);
            if is_synced && !self.is_inline() { gate.company } else { 0 }
        };
        if expected <= 1 || self.company.load(Ordering::Relaxed) >= expected {
            return;
        }
        let deadline = Instant::now() + self.mean_sync() / 4;
        while self.company.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
            yield_now();
        }
    }

    /// Tells hooks that the bytes are with the operating system, and those who asked for no more than that. Tasks among them
    /// are woken with the rest of the round: one that appends would wait for the leader whose thread it is on.
    fn written(&self, group: &mut Group, block: (Lsn, Lsn), generation: u32, round: Level, tasks: &mut Vec<Waker>) {
        each_part(group, block, generation, |part, outcome| {
            if let (Some(hook), Ok(reached)) = (&mut part.hook, outcome) {
                hook.written(reached);
            }
        });
        if group.is_mixed(round) {
            let refused = refusals(group);
            group.done.update(tasks, |progress| {
                progress.block = Some(block);
                progress.reached = Some(Level::Os);
                progress.refused = refused;
            });
        }
    }

    /// Tells hooks and receipts how it ended: first the write, then the sync if there was one.
    fn complete(
        &self,
        group: &mut Group,
        written: Result<(Lsn, Lsn), LogError>,
        synced: &Result<(), LogError>,
        generation: u32,
        level: Level,
        tasks: &mut Vec<Waker>,
    ) {
        let refused = refusals(group);
        let block = match written {
            Ok(block) => block,
            Err(error) => {
                for part in &mut group.parts {
                    if let Some(mut hook) = part.hook.take() {
                        hook.done(Err(part.refused.as_ref().unwrap_or(&error)));
                    }
                }
                group.done.update(tasks, |progress| {
                    progress.refused = refused;
                    progress.failed = Some(error);
                });
                return;
            }
        };
        each_part(group, block, generation, |part, outcome| {
            let Some(mut hook) = part.hook.take() else {
                return;
            };
            match (outcome, synced) {
                (Ok(_), Err(error)) if part.level == Level::Synced => hook.done(Err(error)),
                (outcome, _) => hook.done(outcome),
            }
        });
        group.done.update(tasks, |progress| {
            progress.block = Some(block);
            progress.refused = refused;
            progress.failed = synced.clone().err();
            progress.reached = Some(if synced.is_ok() { level } else { Level::Os });
        });
    }

    /// Tells whether appending that found no space should wait for it.
    pub(crate) fn waits_for_space(&self, error: &LogError) -> bool {
        matches!(error, LogError::Full) && self.options.when_full == WhenFull::Wait
    }
}

/// What a leader has written.
#[derive(Debug, Default)]
struct Written {
    /// Where the block of each group is; no block is nothing long.
    outcomes: Vec<Result<(Lsn, Lsn), LogError>>,
    generation: u32,
    end: u64,
    unsynced: u64,
}

impl Group {
    /// Tells whether anybody wants to know of the write before the round is complete.
    fn tells_of_writes(&self, round: Level) -> bool {
        self.is_mixed(round) || self.parts.iter().any(|part| part.hook.is_some())
    }

    /// Tells whether some are content before others.
    fn is_mixed(&self, round: Level) -> bool {
        round == Level::Synced && self.parts.iter().any(|part| part.level == Level::Os)
    }
}

/// Shows each part where it is, or why it is nowhere, in the order of the log.
fn each_part(group: &mut Group, (lsn, end): (Lsn, Lsn), generation: u32, mut show: impl FnMut(&mut Part, Result<&Reached<'_>, &LogError>)) {
    if group.parts.iter().all(|part| part.hook.is_none()) {
        return;
    }
    let entries = &group.batch.entries[..];
    let front = block::front(entries.len(), directory::count_runs(entries)) as u64;
    let mut first = 0;
    let mut body = lsn.0 + front;
    for part in &mut group.parts {
        if let Some(error) = part.refused.clone() {
            show(part, Err(&error));
            continue;
        }
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
        first += part.records;
        body += part.bytes as u64;
        show(part, Ok(&reached));
    }
}

fn refusals(group: &Group) -> Vec<(usize, usize, LogError)> {
    let refused = |(at, part): (usize, &Part)| part.refused.clone().map(|error| (at, part.records, error));
    group.parts.iter().enumerate().filter_map(refused).collect()
}

/// Fences the log when a hook panics in the middle of a commit.
struct Unwinding<'a> {
    shared: &'a Shared,
    /// Tasks that have an outcome and were not woken yet.
    tasks: Vec<Waker>,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        let error = self.shared.fence(&LogError::Fenced {
            cause: "a panic in a hook".into(),
        });
        let flying = std::mem::take(&mut self.shared.gate.lock().flying);
        let mut tasks = std::mem::take(&mut self.tasks);
        for done in flying {
            done.update(&mut tasks, |progress| progress.failed = Some(error.clone()));
        }
        wake_all(tasks);
        self.shared.wake_late();
    }
}
