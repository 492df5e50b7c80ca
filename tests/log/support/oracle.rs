//! What a log may hold after a crash, from what was asked of it and what it promised before.
//!
//! One opening of the log is a session. It begins with the records that opening exposed: those are promised, whatever
//! was known about them before. Each batch after that carries the times, in calls to the disk, at which it was tried and
//! at which its levels were confirmed. So one run answers for a crash at every call in it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// One record: its stream, its position in the stream, its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Rec {
    pub topic: u64,
    pub offset: u64,
    pub body: Arc<[u8]>,
}

impl Rec {
    pub fn name(&self) -> (u64, u64) {
        (self.topic, self.offset)
    }
}

impl std::fmt::Debug for Rec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.body[..self.body.len().min(4)];
        write!(f, "{}:{} {}B {head:02x?}", self.topic, self.offset, self.body.len())
    }
}

/// What came between the session and the opening that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Processes died; what was handed to the operating system must be there.
    Process,
    /// Power went at least once, or a failed sync let the operating system forget: what was synced must be there.
    Power,
}

/// When a crash came: after this call to the disk, or within it.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub call: u64,
    pub midway: bool,
}

impl At {
    /// A crash after everything.
    pub const END: Self = Self {
        call: NEVER - 1,
        midway: false,
    };

    fn after(&self, time: u64) -> bool {
        time < self.call || (time == self.call && !self.midway)
    }
}

/// The time of what did not happen.
pub const NEVER: u64 = u64::MAX;

/// Records that went in together, and when what was said about them.
#[derive(Clone, Debug)]
pub struct Entry {
    pub records: Vec<Rec>,
    pub tried: u64,
    pub os: u64,
    pub synced: u64,
    /// Its caller was told that it failed, so it may be there or not.
    pub failed: u64,
    /// It may use the space that is kept for facts.
    pub is_fact: bool,
    /// It failed for want of space. Facts go on without it, perhaps before it was told.
    pub found_no_space: bool,
}

impl Entry {
    pub fn tried(records: Vec<Rec>, now: u64) -> Self {
        Self {
            records,
            tried: now,
            os: NEVER,
            synced: NEVER,
            failed: NEVER,
            is_fact: false,
            found_no_space: false,
        }
    }

    fn is_refused_unheard(&self, at: At) -> bool {
        self.found_no_space && !at.after(self.failed)
    }

    fn exposed(record: Rec) -> Self {
        Self {
            os: 0,
            synced: 0,
            ..Self::tried(vec![record], 0)
        }
    }
}

/// One opening of the log.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub entries: Vec<Entry>,
    /// Records that were given up, by retiring or rewriting, and when: from then on they may be there or not.
    given_up: BTreeMap<Name, u64>,
    /// Records whose removal was confirmed, and when: they must not come back.
    gone: BTreeMap<Name, u64>,
    /// When the order of records of different streams may first have changed.
    reordered: Option<u64>,
    /// Records whose removal failed, in this session and in those before.
    not_removed: Vec<Rec>,
    /// Those of them that this session did not find. A name that was seen to go may be on the device for ever.
    may_return: Vec<Rec>,
    /// How far positions had been handed out for good, and when that was known.
    reached: Vec<Positions>,
}

/// The end of the log, and the end of what is on the device.
#[derive(Clone, Copy, Debug)]
struct Positions {
    time: u64,
    end: u64,
    durable: u64,
}

/// Stream and position. Only where these are unique, records can be given up one by one.
type Name = (u64, u64);

impl Session {
    /// A session that begins with what opening exposed.
    pub fn opened_with(records: &[Rec]) -> Self {
        Self {
            entries: records.iter().cloned().map(Entry::exposed).collect(),
            ..Self::default()
        }
    }

    /// Everything written so far in this session is on the device from `now` on.
    pub fn all_synced(&mut self, now: u64) {
        for entry in &mut self.entries {
            if entry.os != NEVER && entry.synced == NEVER {
                entry.synced = now;
            }
        }
    }

    /// These records are given up from now on.
    pub fn give_up(&mut self, records: &[Rec], now: u64) {
        for record in records {
            self.given_up.entry(record.name()).or_insert(now);
        }
    }

    /// The removal of these records was confirmed.
    pub fn confirm_gone(&mut self, records: &[Rec], now: u64) {
        self.gone.extend(records.iter().map(|record| (record.name(), now)));
    }

    /// The removal of these records was tried and failed.
    pub fn fail_to_remove(&mut self, records: &[Rec]) {
        self.not_removed.extend_from_slice(records);
    }

    /// This session followed that one on the same disk.
    pub fn follow(&mut self, before: &Self) {
        self.not_removed.extend_from_slice(&before.not_removed);
        let is_here = |r: &&Rec| self.entries.iter().any(|e| e.records.iter().any(|here| here.name() == r.name()));
        self.may_return = before.not_removed.iter().filter(|r| !is_here(r)).cloned().collect();
    }

    /// Positions up to here have been handed out, by now.
    pub fn reach(&mut self, end: u64, durable: u64, now: u64) {
        self.reached.push(Positions { time: now, end, durable });
    }

    /// Judges where an opening after a crash lets the log go on: a position that was handed out is not given to other bytes.
    pub fn judge_end(&self, at: At, loss: Loss, end: u64) -> Result<(), String> {
        let known = self.reached.iter().filter(|positions| at.after(positions.time));
        let least = known.map(|positions| match loss {
            Loss::Process => positions.end,
            Loss::Power => positions.durable,
        });
        match least.max() {
            Some(least) if end < least => Err(format!("positions up to {least} were handed out, and the log goes on at {end}")),
            _ => Ok(()),
        }
    }

    /// Rewriting keeps the order within a stream only.
    pub fn may_reorder(&mut self, now: u64) {
        self.reordered.get_or_insert(now);
    }

    /// Tells whether anything was given up: then there may be holes.
    pub fn gave_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    fn may_miss(&self, at: At, record: &Rec) -> bool {
        !self.given_up.is_empty() && self.given_up.get(&record.name()).is_some_and(|time| *time <= at.call)
    }

    /// Judges what an opening found after a crash: all that was promised, nothing else, in order, batches whole.
    pub fn judge(&self, at: At, loss: Loss, found: &[Rec]) -> Result<(), String> {
        let found: Vec<Rec> = found.iter().filter(|r| !self.may_return.contains(r)).cloned().collect();
        self.judge_rest(at, loss, &found)
    }

    fn judge_rest(&self, at: At, loss: Loss, found: &[Rec]) -> Result<(), String> {
        let promised = |e: &Entry| match loss {
            Loss::Process => at.after(e.os.min(e.synced)),
            Loss::Power => at.after(e.synced),
        };
        let may_miss = |e: &Entry| at.after(e.failed) || (self.gave_up() && e.records.iter().all(|r| self.may_miss(at, r)));
        if let Some(back) = found.iter().find(|r| self.gone.get(&r.name()).is_some_and(|time| at.after(*time))) {
            return Err(format!("resurrected: {back:?} was removed, and that was confirmed"));
        }
        let tried: Vec<&Entry> = self.entries.iter().take_while(|e| e.tried <= at.call).collect();
        let must = tried.iter().rposition(|e| promised(e) && !may_miss(e)).map_or(0, |i| i + 1);

        if self.reordered.is_some_and(|time| time <= at.call) {
            return self.judge_streams(at, &tried[..], must, found);
        }

        // Every way to read `found` as tried entries, some that may miss left out, at once: the set of places reached, with
        // and without data left out that found no space, behind which only facts go on.
        let mut reached = vec![[false; 2]; tried.len() + 1];
        skip(&mut reached, (0, false), &tried, may_miss, at);
        let mut at_record = vec![reached];
        at_record.resize(found.len() + 1, vec![[false; 2]; tried.len() + 1]);
        for i in 0..found.len() {
            for (j, entry) in tried.iter().enumerate() {
                let n = entry.records.len();
                for only_facts in [false, true] {
                    let is_possible = at_record[i][j][usize::from(only_facts)] && (entry.is_fact || !only_facts);
                    if is_possible && n > 0 && found[i..].starts_with(&entry.records) {
                        skip(&mut at_record[i + n], (j + 1, only_facts), &tried, may_miss, at);
                    }
                }
            }
        }
        match at_record[found.len()].iter().rposition(|reached| reached.contains(&true)) {
            Some(end) if end >= must => Ok(()),
            Some(end) => Err(format!(
                "lost: {} entries tried, {must} promised, {end} found ({} records): next missing {:?}",
                tried.len(),
                found.len(),
                tried[end].records.iter().take(3).collect::<Vec<_>>()
            )),
            None => {
                let good = at_record.iter().rposition(|r| r.iter().any(|r| r.contains(&true))).unwrap_or(0);
                let end = at_record[good].iter().rposition(|r| r.contains(&true)).unwrap_or(0);
                Err(format!(
                    "invented, reordered, halved or lost: {} records found, the first {good} explained by {end} of {} \
                     entries, {must} promised; then found {:?}, tried {:?}",
                    found.len(),
                    tried.len(),
                    found[good..].iter().take(3).collect::<Vec<_>>(),
                    tried[end..]
                        .iter()
                        .take(2)
                        .map(|e| e.records.iter().take(3).collect::<Vec<_>>())
                        .collect::<Vec<_>>()
                ))
            }
        }
    }
}

impl Session {
    /// As `judge`, when streams may have been drawn apart. The names of the records are unique here, and ascend.
    fn judge_streams(&self, at: At, tried: &[&Entry], must: usize, found: &[Rec]) -> Result<(), String> {
        let by_name: BTreeMap<Name, &Rec> = found.iter().map(|r| (r.name(), r)).collect();
        if by_name.len() != found.len() {
            return Err("a record is there twice".to_owned());
        }
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for record in found {
            if last
                .insert(record.topic, record.offset)
                .is_some_and(|before| before >= record.offset)
            {
                return Err(format!("reordered within a stream: {record:?}"));
            }
        }
        let mut explained = 0;
        let mut end = None;
        let mut refused = None;
        for (index, entry) in tried.iter().enumerate() {
            let here = entry.records.iter().filter(|r| by_name.get(&r.name()) == Some(r)).count();
            explained += here;
            let needed = entry.records.iter().filter(|r| !self.may_miss(at, r)).count();
            let whole = entry
                .records
                .iter()
                .all(|r| self.may_miss(at, r) || by_name.contains_key(&r.name()));
            if whole && here >= needed && needed > 0 {
                if let Some(missing) = end.or(refused.filter(|_| !entry.is_fact)) {
                    return Err(format!("entry {index} is there and {missing} is not"));
                }
            } else if needed > 0 && here > 0 {
                return Err(format!("half of entry {index}: {:?}", entry.records));
            } else if needed > 0 && entry.is_refused_unheard(at) {
                refused = refused.or(Some(index));
            } else if needed > 0 && !at.after(entry.failed) {
                end = end.or(Some(index));
            }
        }
        if explained != found.len() {
            return Err(format!("invented: {} records found, {explained} explained", found.len()));
        }
        match end {
            Some(end) if end < must => Err(format!("lost: {must} entries promised, {end} found")),
            _ => Ok(()),
        }
    }
}

/// Marks a place as reached, and those behind entries that may miss, and those behind entries without records.
fn skip(reached: &mut [[bool; 2]], from: (usize, bool), tried: &[&Entry], may_miss: impl Fn(&Entry) -> bool, at: At) {
    let (mut place, mut only_facts) = from;
    loop {
        reached[place][usize::from(only_facts)] = true;
        match tried.get(place) {
            Some(entry) if may_miss(entry) || entry.records.is_empty() => {}
            Some(entry) if entry.is_refused_unheard(at) => only_facts = true,
            _ => return,
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(offset: u64) -> Rec {
        Rec {
            topic: 1,
            offset,
            body: Arc::from(&b"same"[..]),
        }
    }

    fn session() -> Session {
        let mut session = Session::opened_with(&[rec(0)]);
        session.entries.push(Entry {
            os: 12,
            synced: 13,
            ..Entry::tried(vec![rec(1), rec(2)], 10)
        });
        session.entries.push(Entry {
            os: 22,
            ..Entry::tried(vec![rec(3)], 20)
        });
        session
    }

    fn verdict(call: u64, midway: bool, loss: Loss, offsets: &[u64]) -> bool {
        let found: Vec<Rec> = offsets.iter().copied().map(rec).collect();
        session().judge(At { call, midway }, loss, &found).is_ok()
    }

    #[test]
    fn the_oracle_knows_every_promise() {
        assert!(verdict(9, false, Loss::Power, &[0]));
        assert!(!verdict(9, false, Loss::Power, &[]), "exposed is promised");
        assert!(!verdict(9, false, Loss::Power, &[0, 1, 2]), "not tried yet");
        assert!(!verdict(12, false, Loss::Process, &[0]), "Os survives a kill");
        assert!(verdict(12, false, Loss::Power, &[0]));
        assert!(!verdict(12, false, Loss::Power, &[0, 1]), "half a batch");
        assert!(verdict(13, true, Loss::Power, &[0]), "the sync was under way");
        assert!(!verdict(13, false, Loss::Power, &[0]));
        assert!(verdict(22, false, Loss::Power, &[0, 1, 2]));
        assert!(verdict(22, false, Loss::Power, &[0, 1, 2, 3]));
        assert!(!verdict(22, false, Loss::Power, &[0, 1, 2, 3, 3]), "twice");
        assert!(!verdict(22, false, Loss::Process, &[0, 3]), "a gap");
        assert!(!verdict(22, false, Loss::Process, &[0, 2, 1, 3]), "reordered");
    }

    #[test]
    fn what_failed_or_was_retired_may_be_missing() {
        let mut session = session();
        session.entries[1].synced = NEVER;
        session.entries[1].os = NEVER;
        session.entries[1].failed = 14;
        session.entries[2].synced = 23;
        for found in [vec![rec(0), rec(3)], vec![rec(0), rec(1), rec(2), rec(3)]] {
            session.judge(At::END, Loss::Power, &found).unwrap();
        }
        session.give_up(&[rec(0)], 30);
        session.judge(At::END, Loss::Power, &[rec(3)]).unwrap();
        session.judge(At::END, Loss::Power, &[rec(0)]).unwrap_err();
        session.confirm_gone(&[rec(0)], 31);
        session.judge(At::END, Loss::Power, &[rec(3)]).unwrap();
        session.judge(At::END, Loss::Power, &[rec(0), rec(3)]).unwrap_err();
    }

    #[test]
    fn only_facts_go_on_without_data_that_found_no_space_and_has_not_heard() {
        let mut session = session();
        session.entries[1].os = NEVER;
        session.entries[1].synced = NEVER;
        session.entries[1].failed = 24;
        session.entries[1].found_no_space = true;
        let judge = |session: &Session, call, found: &[Rec]| session.judge(At { call, midway: false }, Loss::Process, found);
        judge(&session, 23, &[rec(0), rec(3)]).unwrap_err();
        judge(&session, 24, &[rec(0), rec(3)]).unwrap();
        session.entries[2].is_fact = true;
        judge(&session, 23, &[rec(0), rec(3)]).unwrap();
        judge(&session, 23, &[rec(0), rec(1), rec(2), rec(3)]).unwrap();
        judge(&session, 23, &[rec(0)]).unwrap_err();
        session.may_reorder(0);
        judge(&session, 23, &[rec(0), rec(3)]).unwrap();
        session.entries[2].is_fact = false;
        judge(&session, 23, &[rec(0), rec(3)]).unwrap_err();
    }

    #[test]
    fn what_could_not_be_removed_may_return_and_nothing_else() {
        let mut before = session();
        before.fail_to_remove(&[rec(1), rec(2)]);
        let mut session = Session::opened_with(&[rec(3)]);
        session.follow(&before);
        session.judge(At::END, Loss::Power, &[rec(1), rec(2), rec(3)]).unwrap();
        session.judge(At::END, Loss::Power, &[rec(3)]).unwrap();
        session.judge(At::END, Loss::Power, &[rec(0), rec(3)]).unwrap_err();
        session.judge(At::END, Loss::Power, &[rec(1), rec(2)]).unwrap_err();
    }
}
