//! The scan: raises `freed`, overtakes cursors that do not gate, and takes out what everybody has passed. And what excludes it:
//! joining, leaving, seeking and giving back.
//!
//! Whoever wants a scan raises `work`; whoever raised it from zero scans, and repeats for those that asked meanwhile. So nobody
//! waits for a scan and no request is missed. Joining, leaving and seeking hold the registry lock; a scan that finds it taken gives up,
//! and whoever held it asks for a new one afterwards.
//!
//! While a cursor is the only one, its claims take the values with them, and nothing is left to be dropped: then a scan only raises `freed`, for
//! publishers that need room.
//!
//! Payloads are dropped promptly, so each message may want a scan. Of many cursors only the slowest has anything to gain from one: the scan leaves
//! the next to it (`holder`), and the others go their way. With four subscriptions that was 0.9 million messages a second before, and 4.9 then.

use super::cursor::{Cursor, LEFT, Line, Overtaken, Overtaking, SideStore};
use std::mem::needs_drop;
use std::ops::Range;

use super::cursor::MOVES;
use super::{BEHIND, Window, position};
use crate::sync::{Arc, Ordering::*, fence};
use crate::user_code::clear_contained;

/// How many payloads a pass takes out before it drops them: what may linger while the ring is busy.
const PASS: usize = 64;

pub(super) struct Registry<T, A> {
    cursors: Vec<Arc<Cursor<T, A>>>,
    lines: Vec<Arc<Line>>,
    /// How many cursors there were so far.
    joined: u64,
    /// Positions whose values were moved out by the only cursor there was, or are: up to `MAX` while it goes on.
    moved: Range<u64>,
    /// Below, a subscriber of a cursor that has left, or has been moved back since, may still be reading.
    read_by_others: u64,
    /// What a run was to move out when it unwound, and could not give back. The next scan drops it.
    pub(super) left_over: Gone<T, A>,
}

/// Payloads that were taken out, to be dropped once nothing is locked.
pub(super) type Gone<T, A> = Vec<(T, Option<A>)>;

impl<T, A> Registry<T, A> {
    pub(super) fn new() -> Self {
        Self {
            cursors: Vec::new(),
            lines: Vec::new(),
            joined: 0,
            moved: 0..0,
            read_by_others: 0,
            left_over: Gone::new(),
        }
    }

    /// The lowest position that a subscriber may be reading.
    fn lines(&self) -> u64 {
        self.lines.iter().map(|l| l.announced()).min().unwrap_or(u64::MAX)
    }

    /// The only cursor, if it may have what it reads for itself.
    fn only(&self) -> Option<&Arc<Cursor<T, A>>> {
        match &self.cursors[..] {
            [only] if only.takes => Some(only),
            _ => None,
        }
    }

    /// From here on every value stays in the ring until all have passed it.
    pub(super) fn stop_moving(&mut self) {
        let Some(only) = self.only() else { return };
        if let Ok(word) = only.head.update(|word| (word & MOVES != 0).then_some(word & !MOVES)) {
            self.moved.end = position(word);
        }
    }

    /// How many of these positions' values were moved out.
    fn moved_within(&self, positions: Range<u64>) -> u64 {
        let (from, to) = (self.moved.start.max(positions.start), self.moved.end.min(positions.end));
        to.saturating_sub(from)
    }

    /// Whether the value of `p` was moved out by its claimant.
    pub(super) fn has_moved(&self, p: u64) -> bool {
        self.moved.contains(&p)
    }

    /// What everybody has passed and nobody reads; without any cursor, nothing.
    fn upto(&self) -> u64 {
        // Heads first, lines second: a subscriber announces its line before it moves the head.
        let heads = self.cursors.iter().map(|c| c.position()).min().unwrap_or(0);
        heads.min(self.lines())
    }
}

/// Where a cursor starts, or is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The oldest position that the ring still holds.
    Oldest,
    /// Behind everything claimed so far.
    Latest,
    /// This position, or the nearest one that the ring still holds.
    At(u64),
}

/// How a pass ended.
#[derive(PartialEq)]
enum Pass {
    Done,
    /// The buffer was full; there is more to free.
    More,
}

impl<T, A> Window<T, A> {
    /// Raises `freed` as far as it goes. With `want`, frees positions below it even if cursors that do not gate have to be moved on.
    pub(crate) fn reclaim(&self, want: u64) {
        loop {
            let mut taken = Vec::new();
            if self.work.fetch_add(1, AcqRel) != 0 {
                return;
            }
            let mut asked = 1;
            let mut end = Pass::Done;
            loop {
                if let Some(mut registry) = self.registry.try_lock() {
                    if taken.capacity() == 0 {
                        taken = self.take_spare();
                    }
                    end = self.scan(&mut registry, want, &mut taken);
                }
                let was = self.work.fetch_sub(asked, AcqRel);
                if was == asked {
                    break;
                }
                asked = was - asked;
            }
            // Outside of everything: dropping a payload may panic, block or publish. A panic ends here: the caller may hold a message that it
            // has just taken, or one that it is about to publish.
            clear_contained(&mut taken);
            self.give_spare(taken);
            if end == Pass::Done {
                return;
            }
        }
    }

    /// An empty buffer, so that scanning does not allocate. Under a lock of its own: a scan that finds the registry taken relies on a new one
    /// being asked for.
    fn take_spare(&self) -> Gone<T, A> {
        self.spare
            .try_lock()
            .map(|mut spare| std::mem::take(&mut *spare))
            .unwrap_or_default()
    }

    fn give_spare(&self, taken: Gone<T, A>) {
        if taken.capacity() > 0
            && let Some(mut spare) = self.spare.try_lock()
            && spare.capacity() == 0
        {
            *spare = taken;
        }
    }

    fn scan(&self, registry: &mut Registry<T, A>, want: u64, taken: &mut Gone<T, A>) -> Pass {
        taken.append(&mut registry.left_over);
        let freed = self.freed.load(Relaxed); // Only the scan writes it.
        let gate = registry
            .cursors
            .iter()
            .filter(|c| c.gates())
            .map(|c| c.position())
            .min()
            .unwrap_or(u64::MAX);
        if want > freed && gate >= want {
            self.overtake(registry, freed, want, gate, taken);
        }
        // Heads first, lines second: a subscriber announces its line before it moves the head.
        let slowest = registry.cursors.iter().map(|c| (c.position(), c)).min_by_key(|(head, _)| *head);
        let heads = match slowest {
            Some((head, _)) => head,
            None if want > freed => registry.moved.end.max(want + self.chunk()),
            None => registry.moved.end.max(freed),
        };
        let lines = registry.lines();
        let upto = lines.min(heads);
        let (to, end) = match self.is_plain(registry, freed) {
            true => (upto.max(freed), Pass::Done),
            false => self.take_out(registry, freed, upto, taken),
        };
        if registry.cursors.is_empty() {
            self.unrouted.fetch_add(to - freed - registry.moved_within(freed..to), Relaxed);
        }
        self.freed.store(to, Release);
        if !self.slots.needs_drop() || end == Pass::More {
            return end;
        }
        if registry.only().is_some_and(|only| only.moves()) {
            return Pass::Done; // nothing lingers that it has passed
        }
        if self.starts_moving(registry, to) {
            debug_assert!(registry.moved.end <= to, "no head goes back to what was moved out");
            registry.moved = to..u64::MAX;
            return Pass::Done;
        }
        let holder = slowest.filter(|(head, _)| *head <= lines && *head == to).map(|(_, cursor)| cursor);
        self.entrust(registry, holder, upto)
    }

    /// Lets the only cursor move out what it claims from here on, if it stands at `to` and so has read, or never will, all that the ring does not hold
    /// any more: nobody looks at a value that it claims later.
    fn starts_moving(&self, registry: &Registry<T, A>, to: u64) -> bool {
        let moves = |only: &Arc<Cursor<T, A>>| only.head.update(|word| (word == to << 1).then_some(word | MOVES)).is_ok();
        needs_drop::<T>() && to >= registry.read_by_others && registry.only().is_some_and(moves)
    }

    /// Leaves the next scan to the cursor that held this one up: until it moves, nobody else has anything to gain from one. If it was not a cursor
    /// but somebody who still reads, or that cannot be told, everybody may ask.
    ///
    /// Whoever moves, or ends a reading, changes its head before it looks who is the holder; here it is the other way round. So either that thread
    /// sees who the holder is, or it is seen here that there is more to do.
    fn entrust(&self, registry: &Registry<T, A>, holder: Option<&Arc<Cursor<T, A>>>, upto: u64) -> Pass {
        self.holder.store(holder.map_or(0, |cursor| cursor.id), Relaxed);
        fence(SeqCst);
        let asked = |cursor: &&Arc<Cursor<T, A>>| holder.is_none_or(|holder| Arc::ptr_eq(holder, cursor));
        let mut is_idle = false;
        for cursor in registry.cursors.iter().filter(asked) {
            is_idle |= !self.has_next(cursor);
        }
        if is_idle && registry.upto() > upto {
            return Pass::More;
        }
        if holder.is_some_and(|cursor| cursor.position() != upto) {
            // It takes more, and then sees that it may ask.
            self.holder.store(0, Relaxed);
        }
        Pass::Done
    }

    /// Whether a scan may free anything on account of what this cursor's subscriber has done. Called when that is done.
    fn is_entrusted(&self, cursor: &Cursor<T, A>) -> bool {
        // See `entrust`.
        fence(SeqCst);
        let holder = self.holder.load(Relaxed);
        holder == 0 || holder == cursor.id
    }

    /// Whether nothing has to be taken out and every position that the heads have passed is known to be released: a gating cursor claims only
    /// what is released, from where it joined. Called after the heads were loaded, which brings the side array of whatever they passed.
    fn is_plain(&self, registry: &Registry<T, A>, freed: u64) -> bool {
        !self.slots.needs_drop() && registry.cursors.iter().any(|c| c.gates() && c.since.load(Relaxed) <= freed)
    }

    /// Takes out what stands below `upto` and is released; returns where it stopped.
    fn take_out(&self, registry: &Registry<T, A>, freed: u64, upto: u64, taken: &mut Gone<T, A>) -> (u64, Pass) {
        let mut f = freed;
        let most = PASS.min((64 << 10) / size_of::<T>().max(1)).max(1);
        while f < upto {
            if registry.has_moved(f) {
                f = upto.min(registry.moved.end);
                continue;
            }
            let Some(stamp) = self.slots.full(f) else { break };
            if self.slots.needs_drop() {
                if taken.len() >= most {
                    return (f, Pass::More);
                }
                taken.reserve(most - taken.len());
                // SAFETY: I5: this is the scan, it holds the registry lock, and `f` is taken once because `freed` passes it now and no claim has
                // moved it (I7); I4: every head is beyond `f` and no line announces it.
                taken.push(unsafe { self.slots.take(f, stamp) });
            }
            f += 1;
        }
        (f, Pass::Done)
    }

    fn chunk(&self) -> u64 {
        self.capacity() / 8
    }

    /// Moves the cursors that do not gate to `want` and a chunk beyond, but never past `gate` nor past a position being written.
    fn overtake(&self, registry: &Registry<T, A>, freed: u64, want: u64, gate: u64, gone: &mut Gone<T, A>) {
        let behind = || registry.cursors.iter().filter(|c| !c.gates() && c.position() < want);
        let Some(lowest) = behind().map(|c| c.position()).min() else {
            return;
        };
        let most = (want + self.chunk()).min(gate);
        let released = (lowest.max(freed)..most).take_while(|&p| self.slots.full(p).is_some()).count() as u64;
        let to = lowest.max(freed) + released;
        for cursor in behind() {
            match &cursor.overtaking {
                Overtaking::Never => {}
                Overtaking::Drop => {
                    cursor.overtake(to);
                }
                Overtaking::Keep(store) => {
                    let mut read = |p, keep: &mut dyn FnMut(&T, Option<&A>)| {
                        if let Some(stamp) = self.slots.full(p) {
                            // SAFETY: I5: only the scan takes values out, and it is busy here; `p` is not below `freed`.
                            unsafe { self.slots.read(p, stamp, |value, with| keep(value, with)) };
                        }
                    };
                    store.overtake(&mut || cursor.overtake(to), &mut read, gone);
                }
            }
        }
    }

    /// Called by a subscriber that has taken `h`: drops consumed payloads promptly, but in passes while more is coming.
    #[inline(always)]
    pub(crate) fn tidy(&self, cursor: &Cursor<T, A>, h: u64) {
        if self.slots.needs_drop()
            && !cursor.moves()
            && (h - self.freed.load(Relaxed).min(h) >= PASS as u64 || !self.has_next(cursor))
            && self.is_entrusted(cursor)
        {
            self.reclaim(0);
        }
    }

    /// Called by a subscriber that found nothing: drops what was consumed, so that nothing lingers while the ring is idle.
    pub(crate) fn tidy_idle(&self, cursor: &Cursor<T, A>) {
        if self.slots.needs_drop() && !cursor.moves() && self.freed.load(Relaxed) < cursor.position() && self.is_entrusted(cursor) {
            self.reclaim(0);
        }
    }

    /// Called by a subscriber that announced a line and took nothing: a scan may have stopped there, on account of what others had taken.
    #[cold]
    pub(crate) fn left_empty_handed(&self, cursor: &Cursor<T, A>) {
        if self.slots.needs_drop() {
            // A read-modify-write: either the scan that comes next finds the line cleared, or this thread sees what was taken before it.
            self.work.fetch_add(0, AcqRel);
            if !cursor.moves() && self.freed.load(Relaxed) < cursor.position() && self.is_entrusted(cursor) {
                self.reclaim(0);
            }
        }
    }

    /// Adds a cursor that publishers wait for.
    pub(crate) fn join(&self, start: Start) -> Arc<Cursor<T, A>> {
        self.join_as(start, Overtaking::Never, true)
    }

    /// The same for somebody who only looks, and takes nothing from whoever comes later.
    pub(crate) fn join_to_look(&self, start: Start) -> Arc<Cursor<T, A>> {
        self.join_as(start, Overtaking::Never, false)
    }

    /// Adds a cursor that is moved on when it is in the way, with what it skips lost or kept in `store`.
    pub(crate) fn join_overtakable(&self, start: Start, store: Option<Box<dyn SideStore<T, A>>>) -> Arc<Cursor<T, A>> {
        self.join_as(start, store.map_or(Overtaking::Drop, Overtaking::Keep), false)
    }

    fn join_as(&self, start: Start, overtaking: Overtaking<T, A>, takes: bool) -> Arc<Cursor<T, A>> {
        let mut registry = self.registry.lock();
        registry.stop_moving();
        registry.joined += 1;
        let cursor = Arc::new(Cursor::new(registry.joined, self.resolve(&registry, start), overtaking, takes));
        registry.cursors.push(cursor.clone());
        drop(registry);
        self.reclaim(0);
        cursor
    }

    /// Removes a cursor; what it alone held back is freed. Whoever is about to take from it finds nothing. Returns the position that would have been
    /// its next; of one that has left before, one behind all others.
    pub(crate) fn leave(&self, cursor: &Arc<Cursor<T, A>>) -> u64 {
        // What it has consumed goes first: without any cursor, the ring keeps what it holds.
        self.reclaim(0);
        let mut registry = self.registry.lock();
        registry.stop_moving();
        registry.cursors.retain(|c| !Arc::ptr_eq(c, cursor));
        // The scan does not look at this head any more, so no claim on it may succeed from here on; Acquire, so that the scan finds the
        // lines of those that succeeded before.
        let was = cursor.head.update(|_| Some(LEFT)).unwrap_or(LEFT);
        // Acquire: whatever those claims found is below.
        registry.read_by_others = position(self.tail.load(Acquire));
        drop(registry);
        self.reclaim(0);
        position(was)
    }

    /// A line for one more subscriber.
    pub(crate) fn line(&self) -> Arc<Line> {
        let line = Arc::new(Line::new());
        self.registry.lock().lines.push(line.clone());
        self.reclaim(0);
        line
    }

    /// Takes a line back. Its subscriber is not in a call.
    pub(crate) fn drop_line(&self, line: &Arc<Line>) {
        self.registry.lock().lines.retain(|l| !Arc::ptr_eq(l, line));
        self.reclaim(0);
    }

    /// Moves a cursor, and calls `forget` before it can be overtaken again; returns where it stands now, and what `forget` returned. One that has left
    /// stays away.
    ///
    /// `forget` is to ask, under the lock under which the cursor's subscribers catch up, what it had been moved past without knowing.
    pub(crate) fn seek<R>(&self, cursor: &Cursor<T, A>, to: Start, forget: impl FnOnce(&dyn Fn() -> Option<Overtaken>) -> R) -> (u64, R) {
        let mut registry = self.registry.lock();
        registry.stop_moving();
        let to = self.resolve(&registry, to);
        let moved = cursor.head.update(|word| {
            if word == LEFT {
                return None;
            }
            cursor.since.store(to, Relaxed);
            Some(to << 1)
        });
        let word = moved.unwrap_or(LEFT);
        let forgotten = forget(&|| cursor.tell(word, to));
        registry.read_by_others = position(self.tail.load(Acquire));
        drop(registry);
        self.reclaim(0);
        (to, forgotten)
    }

    /// Takes out what a claim was to move out, for the next scan to drop: not here, where a line is announced, because that is code of the user.
    ///
    /// # Safety
    ///
    /// The claim moves what it claims (I7), and the caller has moved out none of these, nor will.
    #[cold]
    pub(super) unsafe fn leave_over(&self, positions: Range<u64>) {
        let mut registry = self.registry.lock();
        for p in positions {
            // SAFETY: this function's contract.
            registry.left_over.push(unsafe { self.take_out_one(p) });
        }
    }

    /// Undoes the claim of these positions if it was the cursor's last. The caller's line still announces one that is not above them.
    #[cold]
    pub(super) fn give_back(&self, cursor: &Cursor<T, A>, claimed: Range<u64>) -> bool {
        let mut registry = self.registry.lock();
        let back = (claimed.end - claimed.start) << 1;
        let last = |word| (word & !MOVES == claimed.end << 1).then(|| word - back);
        let given = cursor.head.update(last).is_ok();
        if given && registry.moved.end == claimed.end {
            registry.moved.end = claimed.start; // the claim was to move them out, and has not
        }
        drop(registry);
        self.reclaim(0);
        given
    }

    fn resolve(&self, registry: &Registry<T, A>, start: Start) -> u64 {
        let (freed, latest) = (self.freed.load(Acquire), position(self.tail.load(Acquire)));
        let moved = &registry.moved;
        let oldest = if moved.is_empty() { freed } else { freed.max(moved.end) };
        match start {
            Start::Oldest => oldest,
            Start::Latest => latest,
            Start::At(p) => p.clamp(oldest, latest),
        }
    }
}

const _: () = assert!(BEHIND == 1, "heads are shifted by one bit");
