//! The bounded ring of `T` at the core of every topic: lock-free claims, many publishers, many cursors.
//!
//! It knows nothing of messages, topics or waiting: it says `Full` or `Empty`, and a layer above decides what that means.
//!
//! ```text
//!               freed            head(B)      head(A)              tail
//!                 |                 |            |                   |
//!   . . . . . . . +--- kept for B --+-- B has ---+--- nobody has ----+ . . . free . . .
//!   taken, dropped   (A has them)     yet to read     read these yet
//! ```
//!
//! There is one protocol to claim and publish, and two ways to free a slot:
//! - [`Queue`]: one cursor; the value moves out and the slot's own stamp frees it.
//! - [`Window`]: many cursors; every cursor clones, and a slot is freed once all have passed it. While there is only one, values move here too.
//!
//! # Positions and stamps
//!
//! Positions are `u64`, only grow, and never wrap (2^61 positions at 10^9 a second last 73 years). Slot `p & mask` carries a
//! stamp beside the value, so one cache line brings both:
//!
//! | stamp | meaning |
//! |---|---|
//! | `p << 3` | free for position `p` (what the slots start with; only [`Queue`] stores it again) |
//! | `p << 3 \| 1` | holds the value of `p` |
//! | `p << 3 \| 3` | holds the value of `p`, and its attachment stands in the side array |
//!
//! # Progress
//!
//! A claim and its publication are two steps. Between them no code of the user runs, but a publisher that the scheduler
//! stops there holds up its own slot, as in every bounded ring of this family: readers see everything before it and wait,
//! spinning, for it. A thread that takes a counter away from another (`counter.rs`), or is about to sleep, waits for one that is in the middle of
//! a change of it. Nothing else in this module waits for another thread.
//!
//! # Every atomic and its ordering
//!
//! | variable | written by | read by | orderings and why |
//! |---|---|---|---|
//! | `Slot::stamp` | the publisher that claimed the position; the queue's reader that claimed it | everyone | store Release, load Acquire: carries the value (and, freeing, the end of the read) |
//! | every counter's `word` | its holder by stores, everybody else by compare-and-exchange | everyone | change AcqRel, or by the holder Release: see the next rows. Load Acquire, or by the holder Relaxed: nobody else writes it meanwhile |
//! | a counter's `held`, a thread's `inside` | the holder and who revokes | the same | `held` Relaxed: a pair of fences (`fence.rs`) stands between the two on either side, so the holder finds itself dispossessed, or the other finds it inside. `inside` is stored with Release, also when the next change begins, and loaded with Acquire: the word that the holder stored before comes with it |
//! | a counter's `last`, `streak`, `wanted` | whoever changes it | the same | Relaxed: guesses |
//! | `tail` | publishers (claim), `close` | publishers, readers that found nothing | claim AcqRel: a sleeper settles `tail` by a read-modify-write, so the claim that follows it in `tail`'s order sees that somebody sleeps; if there is a holder, the pair of fences says the same of its next claim. Load Acquire before answering Empty or Closed: with the close bit comes everything claimed before it |
//! | `Queue::head` | readers (claim) | publishers that found no room | claim AcqRel: the mirror image, for publishers that sleep |
//! | `Cursor::head` | its subscribers (claim), the scan (overtaking), seek, leave | its subscribers, the scan | claim AcqRel, by the holder Release: publishes the announced line to the scan. Acquire joins the order with sleeping publishers. Load Acquire: a position that was overtaken brings `lag_from` with it. `leave` puts in `LEFT`, AcqRel: the scan after it finds the lines of the claims that succeeded before (I4). The scan puts in `MOVES`, who joins or seeks takes it out: each claim goes by the word that it changed, so these changes and the claims are in one order (I7) |
//! | `holder` of a window | the scan | subscribers that have moved or ended a reading | Relaxed, each side of a sequentially consistent fence: the subscriber changes its head, then reads; the scan writes, then looks at the head again. So one of the two sees what the other did |
//! | `Cursor::lag_from` | the scan, while the *behind* bit is clear | the subscriber that catches up | Relaxed: ordered by the head's CAS on either side |
//! | `Cursor::told` | who catches up, a seek | the same | Relaxed: under a lock that is the same for all subscribers of the cursor |
//! | `Line` | its subscriber | the scan | announce Release, clear Release (the reads of the slot come before), scan Acquire. Announcing before the stamp check and scanning heads before lines is what keeps a slot that is being read |
//! | `freed` | the scan | publishers | store Release after the values were taken out, load Acquire before a slot is written again |
//! | `work` | whoever wants a scan | the same | AcqRel: hands the right to scan, and what was written before asking for one, to the thread that scans. A subscriber that took nothing adds 0: either the next scan sees its line cleared, or it sees the heads that moved before |
//! | `Node::word`, a counter | lender, loans, the credit pool | the same | AcqRel on every change, or by the holder, who then is no other thread's peer: the last one to leave frees the node and must see all that others did with it |
//!
//! # What no tool shows
//!
//! `tests/weaken_orderings.sh` weakens each ordering by one step and expects that a model fails. These go unnoticed, and stay for these reasons:
//!
//! - The Acquire half of the exchange in `Counter::settled`: the protocols for sleeping need only what later changes learn from it. Whoever acts on
//!   the word looks at a stamp or another counter with Acquire. It stays because an exchange that does not acquire would make the word alone a
//!   thing that must not be acted upon.
//! - Acquire of the load in `Counter::update`: an exchange that succeeds acquires as well. It is for changes that are refused, whose caller decides
//!   by the word: `lag_from` comes with an overtaken head. No model has a second overtaking between the two loads that would show another value.
//! - Both halves of the exchanges in `Counter::lean` and `Counter::revoke`: the first follows a change of the same thread, and both happen under
//!   the holder's lock, after its `inside` was read with Acquire. They continue the order of the word, and cost nothing where they are.
//! - Both halves of `work`, and of the exchanges on it: heads and lines are loaded with Acquire, and a scan locks the registry, as the one before
//!   did. What is left to `work` is that who asks in vain is seen by the scan that follows; the models of the scan go only to two askers.
//! - Acquire of `freed` outside of claims, and in `Drop`: a number to report or to start from; whoever drops a ring is alone.
//!
//! # Invariants that the unsafe blocks cite
//!
//! - **I1 (claim)**: a position is claimed by exactly one publisher, by a change of `tail`; only it writes that slot until it stores the stamp.
//!   Changes of a counter happen one after the other, each from the word that the one before left.
//! - **I2 (stamp)**: whoever loads the stamp of `p` full with Acquire sees the value of `p`; the value is there until it is taken.
//! - **I3 (gate)**: slot `p` is written for `p + capacity` only when `freed > p` (window) or its stamp says free (queue).
//! - **I4 (line)**: `freed` passes `p` only when every cursor's head is beyond `p` and no line announces `p` or less; so a
//!   subscriber that announced `p` before it claimed `p` may read the slot until it clears the line. A head never goes back below `freed`,
//!   and that of a cursor which left stands beyond every position: no claim succeeds that the scan does not know of.
//! - **I5 (scan)**: at most one thread is in the scan, and the registry lock is held meanwhile; only the scan takes values out of a window, but for
//!   those of I7.
//! - **I6 (thread)**: the address under which a thread finds what counters know of it is null, or the thread keeps what is there. No counter's
//!   `held` is null.
//! - **I7 (only)**: a claim on a head that says `MOVES` has the values of its positions for itself. The registry knows these positions: from where
//!   the head stood when it began to say so, to where it stood when it stopped. The scan passes over them, no cursor joins or goes back to them,
//!   and nobody who claimed before reads them: where it begins is beyond all that a cursor which has left, or was moved back, can have claimed.

mod claim;
mod counter;
mod credit;
mod fence;
#[cfg(all(test, ringmq_loom))]
mod models;
mod queue;
mod slots;
mod window;

pub(crate) use self::claim::Claim;
pub(crate) use self::credit::{Account, CreditPool, Lender, Loan, Loans, MAX_CREDITS};
pub(crate) use self::queue::Queue;
pub(crate) use self::window::{CaughtUp, Cursor, Line, Overtaken, ReadAt, SideStore, Start, Take, Value, Window};

use self::counter::Counter;
use self::slots::Slots;

/// Why a claim for publishing got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room; the position that could not be claimed.
    Full(u64),
    /// Room is there, but a reader is still leaving the slot: it clears by itself.
    Busy,
    /// The ring is closed: nothing is accepted any more.
    Closed,
}

/// Why a reader got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// Nothing was published beyond the cursor.
    Empty,
    /// The next position is claimed but not written yet: it comes by itself.
    Busy,
    /// Closed, and everything before the end was taken.
    Closed,
}

/// The low bit of a tail: set once, by `close`.
const CLOSED: u64 = 1;

/// The largest capacity a ring accepts. Whether there is memory for it shows when it is made.
pub(crate) const MAX_CAPACITY: u64 = 1 << 32;

/// How many bytes one message of `T` takes in a ring.
pub(crate) const fn slot_bytes<T>() -> usize {
    Slots::<T, ()>::bytes()
}

/// How much room a publisher that ran out of it waits for, a little while, before it takes whatever there is: one part of the ring, at most `most`.
/// Taking it slot by slot would pass the same cache line back and forth between publisher and receiver for every message.
const fn burst(capacity: u64, part: u64, most: u64) -> u64 {
    let wanted = capacity / part;
    if wanted > most {
        most
    } else if wanted == 0 {
        1
    } else {
        wanted
    }
}

/// What a look for a run found: how many to claim, if any.
#[inline(always)]
fn run_of(n: u64) -> Option<(u64, u64)> {
    (n > 0).then_some((n, n))
}

/// The position of a tail; of a closed one, a number beyond every position.
#[inline(always)]
const fn open_position(tail: u64) -> u64 {
    tail.rotate_right(1) & !(1 << 62)
}

/// The position in a counter's word: between the flag, and a head's `MOVES` and the bit that is the counter's own.
#[inline(always)]
const fn position(word: u64) -> u64 {
    (word << 2) >> 3
}
