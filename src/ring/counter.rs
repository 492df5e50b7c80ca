//! A word that threads change in turn: the tail that publishers claim from, the heads that readers take from, a lender's credits.
//!
//! Whoever changes one looks first, at a slot for instance, then compares and exchanges. That is a locked operation for every message, and the most
//! expensive part of it, although most topics have one publishing thread and most subscriptions one that receives. So a counter leans towards a
//! thread that has changed it alone for a while: it is *biased*, and that thread changes it by plain stores, until somebody else comes. (The idea
//! is that of biased locks: Russell and Detlefs, "Eliminating synchronization-related atomic operations with biased locking and bulk rebiasing",
//! 2006. The fence that costs the usual thread nothing is that of RCU in user space: Desnoyers and others, "User-level implementations of
//! read-copy update", 2012.)
//!
//! # How it is taken away
//!
//! The top bit of the word says that the counter is biased, so whoever would change it otherwise sees that, and revokes:
//!
//! ```text
//! holder, for every change                   whoever revokes, under the lock
//!   1. inside = this counter                   1. held = nobody
//!   2. light fence                             2. heavy fence
//!   3. held = me? else leave                   3. wait until the holder is not inside
//!   4. load the word, look                     4. clear the bit in the word
//!   5. store the word
//!   6. inside = nothing
//! ```
//!
//! The fences see to it that the holder finds itself dispossessed or the other finds it inside. So after step 3 the word is up to date, and the
//! former holder changes it by compare-and-exchange, like everybody. That is what the protocols for sleeping are made for: they begin with
//! [`Counter::settled`], which revokes.
//!
//! Revoking waits for a thread that is between steps 1 and 6: a dozen instructions, none of them the user's. `inside` belongs to the thread, not to
//! the counter, so one that comes late, dispossessed since step 1, disturbs nobody who holds the counter by then.
//!
//! A thread gets the counter after so many changes that no other thread came between. Each time that it is taken away before that has paid, it takes
//! longer, up to as many changes as it takes to pay: so all in all it never costs much more than it saves. (This is how to rent skis, if you do not
//! know how long you will: Karlin and others, "Competitive snoopy caching", 1988.)

use std::cell::Cell;
use std::ptr;

use super::{fence, position};
use crate::sync::{Arc, AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering, Ordering::*, first_streak, pause, plain, yield_now};

/// The bit of a word that says: only the holder may change it, by plain stores.
///
/// A holder gets to see it, and leaves it: whoever looks at a word within a change knows that the top bit says nothing to it.
const BIASED: u64 = 1 << 63;

/// No thread has this address; nor 0, which is that of a thread no counter ever leant towards.
const NOBODY: usize = 1;

/// How many changes a counter has to lean towards a thread for, to make up for being taken away from it.
///
/// Taking it away interrupts the other cores, which costs as much as some thousand changes save; on virtual cores, more. With this price instead of
/// at most 256 changes in a row, whatever came of them, a topic with acknowledgements made 1.82, 1.52 and 1.40 times as many messages a second (1 publisher
/// and 4 competing receivers, 2 and 2, 4 and 4), without them 1.41, 1.19 and 1.11 times; queues and single receivers made 0.97 to 1.04 times as
/// many. With 4,096 it was 1.74, 1.78 and 1.30; with 131,072 no better than with this (60 runs of 10 ms in turn; capacity 1,024; rustc 1.95, two virtual
/// cores of an AMD EPYC, 2026-11-23; the programs of `benches/peers` have the same shapes).
const PRICE: u64 = 16_384;

/// A word of 63 bits.
pub(super) struct Counter {
    hot: CachePadded<Hot>,
    /// There is one exactly while the word says biased.
    holder: Mutex<Option<Holder>>,
    /// Whether the word is a position, which tells how often it was changed.
    counts: bool,
}

/// Whom a counter leans towards.
struct Holder {
    thread: Arc<Thread>,
    /// The word when it began.
    since: u64,
}

/// What a change touches.
struct Hot {
    word: AtomicU64,
    /// The address of the holder, or `NOBODY`. Written under the lock.
    held: AtomicUsize,
    /// Which thread made the last change, how many it made in a row, and how many it takes. Guesses, unless one thread alone comes here.
    last: plain::AtomicUsize,
    streak: plain::AtomicU64,
    wanted: plain::AtomicU64,
}

/// What counters know of a thread.
struct Thread {
    /// The address of the counter that it is changing as its holder, or 0. Written by the thread alone.
    inside: CachePadded<AtomicUsize>,
}

/// The thread's share in what counters know of it.
struct Own(Arc<Thread>);

crate::sync::thread_local! {
    static OWN: Own = Own::new();
}

crate::sync::thread_local! {
    /// Where that is, for the usual way, which has no time to ask whether `OWN` was made: null before it is, and when the thread is ending.
    static THIS: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

impl Own {
    fn new() -> Self {
        let own = Self(Arc::new(Thread {
            inside: CachePadded::new(AtomicUsize::new(0)),
        }));
        THIS.with(|this| this.set(&raw const *own.0));
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = THIS.try_with(|this| this.set(ptr::null()));
    }
}

/// A thread between steps 1 and 6.
struct Inside<'t>(&'t Thread);

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: whoever revokes sees the word that was stored.
        self.0.inside.store(0, Release);
    }
}

/// Tells the compiler that what comes next belongs behind everything else.
#[cold]
const fn out_of_line() {}

fn address<T>(of: &T) -> usize {
    ptr::from_ref(of).addr()
}

/// The calling thread; null if no counter ever leant towards it, or it is ending.
#[inline(always)]
fn this_thread() -> *const Thread {
    THIS.try_with(Cell::get).unwrap_or(ptr::null())
}

impl Counter {
    /// A counter of positions, shifted by one bit, that may lean towards a thread, or, if several are to be expected, may not.
    pub(super) fn new(word: u64, leans: bool) -> Self {
        let wanted = if leans { first_streak() } else { u64::MAX };
        Self::with(word, wanted, true)
    }

    /// A word that holds no position; it may lean towards a thread.
    pub(super) fn of_parts(word: u64) -> Self {
        Self::with(word, first_streak(), false)
    }

    fn with(word: u64, wanted: u64, counts: bool) -> Self {
        let hot = Hot {
            word: AtomicU64::new(word),
            held: AtomicUsize::new(NOBODY),
            last: plain::AtomicUsize::new(0),
            streak: plain::AtomicU64::new(0),
            wanted: plain::AtomicU64::new(wanted),
        };
        Self {
            hot: CachePadded::new(hot),
            holder: Mutex::new(None),
            counts,
        }
    }

    /// The word.
    #[inline(always)]
    pub(super) fn load(&self, ordering: Ordering) -> u64 {
        self.hot.word.load(ordering) & !BIASED
    }

    /// The word, when nobody is in the middle of a change: each change that comes later knows what this thread did before.
    pub(super) fn settled(&self) -> u64 {
        loop {
            // Relaxed: what comes next makes sure.
            let word = self.hot.word.load(Relaxed);
            if word & BIASED != 0 {
                if let Some(word) = self.meet_holder() {
                    return word;
                }
            } else if self.hot.word.compare_exchange(word, word, AcqRel, Relaxed).is_ok() {
                // A read-modify-write, as the changes that follow are: it stands in order with them.
                return word;
            }
        }
    }

    /// Advances a counter of positions, shifted by one bit, by as many as `look` finds from the word on. Returns the position before, and what was
    /// found; if that was nothing, the word.
    #[inline(always)]
    pub(super) fn advance<R>(&self, mut look: impl FnMut(u64) -> Option<(u64, R)>) -> Result<(u64, R), u64> {
        let advanced = self.change(|word| {
            let (by, found) = look(word)?;
            Some((word + (by << 1), found))
        });
        advanced.map(|(word, found)| (position(word), found))
    }

    /// Changes the word to what `to`, which is quick and does not unwind, makes of it, or leaves it. Returns the word before, and what `to` has to
    /// say; as an error the word, if it was left.
    #[inline(always)]
    pub(super) fn change<R>(&self, mut to: impl FnMut(u64) -> Option<(u64, R)>) -> Result<(u64, R), u64> {
        if let Some(done) = self.change_as_holder(&mut to) {
            return done;
        }
        out_of_line();
        let changed = self.update_to(to);
        if changed.is_ok() {
            self.count();
        }
        changed
    }

    /// As `change`, by a thread that perhaps does not own what the counter is in any more once it has changed it. Says whether it was changed.
    #[inline(always)]
    pub(super) fn change_and_go(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let to = |word| Some((to(word)?, ()));
        if let Some(done) = self.change_as_holder(to) {
            return done.is_ok();
        }
        if self.hot.last.load(Relaxed) != this_thread().addr() {
            // It goes back and forth between two threads: not before it, because the counter may be gone then.
            self.hot.last.store(0, Relaxed);
        }
        self.update_to(to).is_ok()
    }

    #[inline(always)]
    fn change_as_holder<R>(&self, mut to: impl FnMut(u64) -> Option<(u64, R)>) -> Option<Result<(u64, R), u64>> {
        let _inside = self.enter()?;
        // Relaxed: this thread was the last to write it, or came after whoever was.
        let word = self.hot.word.load(Relaxed);
        let Some((to, said)) = to(word) else {
            return Some(Err(word & !BIASED));
        };
        self.hot.word.store(to, Release);
        Some(Ok((word, said)))
    }

    /// Steps 1 to 3.
    #[inline(always)]
    fn enter(&self) -> Option<Inside<'_>> {
        let this = this_thread();
        if self.hot.held.load(Relaxed) != this.addr() {
            return None;
        }
        // SAFETY: I6: it is not null, and kept by this thread until it is.
        let this = unsafe { &*this };
        // Release: whoever waits for the end of an earlier change may see this one instead.
        this.inside.store(address(self), Release);
        let inside = Inside(this);
        fence::light();
        (self.hot.held.load(Relaxed) == address(this)).then_some(inside)
    }

    /// As `change`, in the way of all who are not the holder.
    #[inline(always)]
    pub(super) fn update(&self, to: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let updated = self.update_to(|word| Some((to(word)?, ())));
        updated.map(|(word, ())| word)
    }

    #[inline(always)]
    fn update_to<R>(&self, mut to: impl FnMut(u64) -> Option<(u64, R)>) -> Result<(u64, R), u64> {
        let mut rivalry = Rivalry::new();
        loop {
            let mut word = self.hot.word.load(Acquire);
            if word & BIASED != 0 {
                word = self.revoke();
            }
            let (to, said) = to(word).ok_or(word)?;
            if self.hot.word.compare_exchange(word, to, AcqRel, Relaxed).is_ok() {
                return Ok((word, said));
            }
            rivalry.step_back();
        }
    }

    /// Counts a change towards this thread's streak.
    #[inline(always)]
    fn count(&self) {
        let hot = &*self.hot;
        let wanted = hot.wanted.load(Relaxed);
        if wanted == u64::MAX {
            return;
        }
        let this = this_thread().addr();
        let same = hot.last.load(Relaxed) == this;
        let streak = if same { hot.streak.load(Relaxed) + 1 } else { 1 };
        hot.last.store(this, Relaxed);
        hot.streak.store(streak, Relaxed);
        if streak >= wanted {
            self.lean();
        }
    }

    /// Lets the counter lean towards this thread.
    #[cold]
    fn lean(&self) {
        if !fence::is_paired() {
            return self.hot.wanted.store(u64::MAX, Relaxed);
        }
        let Some(mut holder) = self.holder.try_lock() else { return };
        let Ok(this) = OWN.try_with(|own| own.0.clone()) else { return };
        let word = self.hot.word.load(Relaxed);
        if holder.is_none() && self.hot.word.compare_exchange(word, word | BIASED, AcqRel, Relaxed).is_ok() {
            self.hot.held.store(address(&*this), Relaxed);
            *holder = Some(Holder { thread: this, since: word });
        }
    }

    /// Waits for a holder that is inside, and makes it know, for its later changes, what this thread did. Steps 2 and 3. `None` if there is no
    /// holder any more.
    #[cold]
    fn meet_holder(&self) -> Option<u64> {
        let holder = self.holder.lock();
        self.wait_outside(&holder.as_ref()?.thread);
        Some(self.load(Acquire))
    }

    fn wait_outside(&self, holder: &Thread) {
        fence::heavy();
        while holder.inside.load(Acquire) == address(self) {
            yield_now();
        }
    }

    /// Takes the counter away from whoever it leans towards; returns the word.
    #[cold]
    fn revoke(&self) -> u64 {
        let mut holder = self.holder.lock();
        let Some(Holder { thread, since }) = holder.take() else {
            return self.load(Acquire);
        };
        self.hot.held.store(NOBODY, Relaxed);
        self.wait_outside(&thread);
        let word = self.hot.word.fetch_and(!BIASED, AcqRel) & !BIASED;
        let wanted = if self.has_paid(since, word) {
            first_streak()
        } else {
            (2 * self.hot.wanted.load(Relaxed)).min(PRICE)
        };
        self.hot.streak.store(0, Relaxed);
        self.hot.wanted.store(wanted, Relaxed);
        word
    }

    /// Whether leaning has saved what ending it costs. Of a word that does not count, nobody knows: no.
    fn has_paid(&self, since: u64, word: u64) -> bool {
        self.counts && position(word).wrapping_sub(position(since)) >= PRICE
    }
}

/// What a thread does that lost a claim to another: it steps back, longer each time, and looks anew.
///
/// Meanwhile the winner makes its next claims with the line in its own cache; otherwise the line goes back and forth with each claim. Measured
/// with 2 publishers and 2 competing subscribers on two cores, 19 million messages a second became 34; with 4 publishers that rarely find
/// the ring full, 27 became 38.
struct Rivalry {
    lost: u32,
}

/// How many pauses the first step back takes, and how often it is doubled.
const STEP_BACK: u32 = 32;
const DOUBLED: u32 = 2;

impl Rivalry {
    #[inline(always)]
    const fn new() -> Self {
        Self { lost: 0 }
    }

    #[cold]
    fn step_back(&mut self) {
        if cfg!(ringmq_loom) {
            return; // a model tries every order anyway
        }
        pause(STEP_BACK << self.lost);
        self.lost = DOUBLED.min(self.lost + 1);
    }
}

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;

    /// Changes by a thread of their own, to which the counter leans then if they are enough.
    fn change_elsewhere(counter: &Counter, changes: u64) {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..changes).for_each(|_| _ = counter.change(|word| Some((word + 2, ())))));
        });
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "hundreds of thousands of changes, and nothing that the tests with rivals do not do"
    )]
    fn a_counter_leans_later_the_more_often_it_is_taken_away_before_that_has_paid() {
        if !fence::is_paired() {
            return; // no counter leans here
        }
        for (counter, resets) in [(Counter::new(0, true), true), (Counter::of_parts(0), false)] {
            let mut wanted = first_streak();
            for _ in 0..10 {
                change_elsewhere(&counter, wanted);
                assert!(counter.holder.lock().is_some(), "after {wanted} changes in a row");
                counter.settled();
                assert!(counter.update(|word| Some(word + 2)).is_ok(), "it is taken away");
                assert!(counter.holder.lock().is_none());
                wanted = (2 * wanted).min(PRICE);
                assert_eq!(counter.hot.wanted.load(Relaxed), wanted);
            }
            change_elsewhere(&counter, wanted + PRICE);
            assert!(counter.update(|word| Some(word + 2)).is_ok());
            let now = if resets { first_streak() } else { PRICE };
            assert_eq!(counter.hot.wanted.load(Relaxed), now, "it has paid, if that can be known");
        }
    }

    /// Thousands of hand-overs: a thread that nearly always holds the counter, and rivals that take it away now and then.
    #[test]
    fn no_change_is_lost_while_a_counter_goes_from_hand_to_hand() {
        let changes: u64 = if cfg!(miri) { 2_000 } else { 2_000_000 };
        let counter = Counter::new(0, true);
        std::thread::scope(|scope| {
            for rarely in [1, 100, 1_000] {
                let counter = &counter;
                scope.spawn(move || {
                    for _ in 0..changes / rarely {
                        assert!(counter.change(|word| Some((word + 1, ()))).is_ok());
                        for _ in 1..rarely {
                            crate::sync::spin_loop();
                        }
                    }
                });
            }
        });
        assert_eq!(counter.load(Acquire), changes + changes / 100 + changes / 1_000);
    }
}
