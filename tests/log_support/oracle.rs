//! What a log may hold after a crash, from what was asked of it and what it promised before.
//!
//! One opening of the log is a session. It begins with the records that opening exposed: those are promised, whatever
//! was known about them before. Each batch after that carries the times, in calls to the disk, at which it was tried and
//! at which its levels were confirmed. So one run answers for a crash at every call in it.

use std::sync::Arc;

/// One record: its stream, its position in the stream, its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Rec {
    pub topic: u64,
    pub offset: u64,
    pub body: Arc<[u8]>,
}

impl std::fmt::Debug for Rec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.body[..self.body.len().min(4)];
        write!(
            f,
            "{}:{} {}B {head:02x?}",
            self.topic,
            self.offset,
            self.body.len()
        )
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
    /// It was given up by retiring, so it may be there or not.
    pub retired: u64,
}

impl Entry {
    pub fn tried(records: Vec<Rec>, now: u64) -> Self {
        Self {
            records,
            tried: now,
            os: NEVER,
            synced: NEVER,
            failed: NEVER,
            retired: NEVER,
        }
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
}

impl Session {
    /// A session that begins with what opening exposed.
    pub fn opened_with(records: &[Rec]) -> Self {
        Self {
            entries: records.iter().cloned().map(Entry::exposed).collect(),
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

    /// The first `n` entries are given up.
    pub fn retire(&mut self, n: usize, now: u64) {
        for entry in &mut self.entries[..n] {
            entry.retired = entry.retired.min(now);
        }
    }

    /// Judges what an opening found after a crash: all that was promised, nothing else, in order, batches whole.
    pub fn judge(&self, at: At, loss: Loss, found: &[Rec]) -> Result<(), String> {
        let promised = |e: &Entry| match loss {
            Loss::Process => at.after(e.os.min(e.synced)),
            Loss::Power => at.after(e.synced),
        };
        let may_miss = |e: &Entry| at.after(e.failed) || e.retired <= at.call;
        let tried: Vec<&Entry> = self
            .entries
            .iter()
            .take_while(|e| e.tried <= at.call)
            .collect();
        let must = tried
            .iter()
            .rposition(|e| promised(e) && !may_miss(e))
            .map_or(0, |i| i + 1);

        // Every way to read `found` as tried entries, some that may miss left out, at once: the set of places reached.
        let mut reached = vec![false; tried.len() + 1];
        skip(&mut reached, 0, &tried, may_miss);
        let mut at_record = vec![reached];
        at_record.resize(found.len() + 1, vec![false; tried.len() + 1]);
        for i in 0..found.len() {
            for (j, entry) in tried.iter().enumerate() {
                let n = entry.records.len();
                if at_record[i][j] && n > 0 && found[i..].starts_with(&entry.records) {
                    skip(&mut at_record[i + n], j + 1, &tried, may_miss);
                }
            }
        }
        match at_record[found.len()].iter().rposition(|reached| *reached) {
            Some(end) if end >= must => Ok(()),
            Some(end) => Err(format!(
                "lost: {} entries tried, {must} promised, {end} found ({} records): next missing {:?}",
                tried.len(),
                found.len(),
                tried[end].records.iter().take(3).collect::<Vec<_>>()
            )),
            None => {
                let good = at_record
                    .iter()
                    .rposition(|r| r.contains(&true))
                    .unwrap_or(0);
                let end = at_record[good].iter().rposition(|r| *r).unwrap_or(0);
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

/// Marks a place as reached, and those behind entries that may miss, and those behind entries without records.
fn skip(reached: &mut [bool], from: usize, tried: &[&Entry], may_miss: impl Fn(&Entry) -> bool) {
    let mut place = from;
    loop {
        reached[place] = true;
        match tried.get(place) {
            Some(entry) if may_miss(entry) || entry.records.is_empty() => place += 1,
            _ => return,
        }
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
        assert!(
            !verdict(12, false, Loss::Process, &[0]),
            "Os survives a kill"
        );
        assert!(verdict(12, false, Loss::Power, &[0]));
        assert!(!verdict(12, false, Loss::Power, &[0, 1]), "half a batch");
        assert!(
            verdict(13, true, Loss::Power, &[0]),
            "the sync was under way"
        );
        assert!(!verdict(13, false, Loss::Power, &[0]));
        assert!(verdict(22, false, Loss::Power, &[0, 1, 2]));
        assert!(verdict(22, false, Loss::Power, &[0, 1, 2, 3]));
        assert!(!verdict(22, false, Loss::Power, &[0, 1, 2, 3, 3]), "twice");
        assert!(!verdict(22, false, Loss::Process, &[0, 3]), "a gap");
        assert!(
            !verdict(22, false, Loss::Process, &[0, 2, 1, 3]),
            "reordered"
        );
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
        session.retire(1, 30);
        session.judge(At::END, Loss::Power, &[rec(3)]).unwrap();
        session.judge(At::END, Loss::Power, &[rec(0)]).unwrap_err();
    }
}
