//! Credit: a bound on how much is out on loan, shared by many lenders without a shared counter on the hot path.
//!
//! A pool holds a fixed number of credits. A *lender* (one thread's handle) draws some of them in a chunk and keeps them in a word of
//! its own; lending takes one from that word and paying back returns it there, so a loan costs two changes of a word that no other lender
//! touches, and that leans towards the thread that makes them. When the pool is empty, a lender collects what others hold unused; when
//! there is nothing to collect, it marks every word as *wanted*, and from then on loans are paid back to the pool, whose owner is told.
//!
//! The bound is exact: credits in the pool, in the words, and out on loan always add up to the same number.
//!
//! ```text
//! word:  | biased 1 bit (see `counter.rs`) | retired 1 bit | wanted 1 bit | out on loan 30 bits | unused 30 bits |
//! ```
//!
//! A node lives until its lender is gone and its last loan is paid back: the counts in the word are its reference count.

use std::ptr::NonNull;

use super::Counter;
use crate::sync::{Mutex, Ordering::*};

/// What lenders and loans point back to: it owns the pool.
pub(crate) trait Account: Clone {
    /// The pool that this account's loans are drawn from.
    fn pool(&self) -> &CreditPool<Self>;

    /// Called when credits came back that somebody may wait for, or whose lender is gone: they belong into the pool.
    fn returned(&self, credits: u64);
}

const UNUSED: u64 = 1;
const OUT: u64 = 1 << 30;
const COUNT: u64 = OUT - 1;
const WANTED: u64 = 1 << 61;
const RETIRED: u64 = 1 << 62;

const fn unused(word: u64) -> u64 {
    word & COUNT
}

const fn out(word: u64) -> u64 {
    (word / OUT) & COUNT
}

/// The largest number of credits in one pool.
pub(crate) const MAX_CREDITS: u32 = COUNT as u32;

struct Node<S> {
    word: Counter,
    account: S,
}

/// A fixed number of credits, and the lenders that hold some of them.
pub(crate) struct CreditPool<S> {
    total: u32,
    state: Mutex<State<S>>,
}

struct State<S> {
    free: u64,
    lenders: Vec<NodePtr<S>>,
}

struct NodePtr<S>(NonNull<Node<S>>);

// SAFETY: the pointer is used under the pool's lock, while the lender that owns the node is registered; the node's parts are Sync.
unsafe impl<S: Send + Sync> Send for NodePtr<S> {}

impl<S> NodePtr<S> {
    fn word(&self) -> &Counter {
        // SAFETY: a node is registered only while its lender lives (`Lender::drop` takes it out first), and the lender keeps it.
        let node = unsafe { self.0.as_ref() };
        &node.word
    }
}

impl<S> CreditPool<S> {
    /// A pool of `total` credits, at most [`MAX_CREDITS`].
    pub(crate) fn new(total: u32) -> Self {
        debug_assert!(total <= MAX_CREDITS);
        Self {
            total,
            state: Mutex::new(State {
                free: u64::from(total),
                lenders: Vec::new(),
            }),
        }
    }

    /// How many credits are out on loan.
    pub(crate) fn out(&self) -> u64 {
        let state = self.state.lock();
        let unused: u64 = state.lenders.iter().map(|node| unused(node.word().load(Acquire))).sum();
        u64::from(self.total) - state.free - unused
    }

    /// How many credits are out on loan, and asks to be told when one comes back: unused credits are collected, and loans are paid back to
    /// the pool until some lender draws again.
    pub(crate) fn watch(&self) -> u64 {
        let mut state = self.state.lock();
        let collected: u64 = state.lenders.iter().map(|node| collect(node.word())).sum();
        state.free += collected;
        u64::from(self.total) - state.free
    }

    /// Puts credits back that were returned to the account.
    pub(crate) fn put(&self, credits: u64) {
        self.state.lock().free += credits;
    }

    /// How many credits a lender draws at once: enough to come rarely, few enough that none is missed elsewhere.
    fn chunk(&self, lenders: usize) -> u64 {
        (u64::from(self.total) / (4 * lenders.max(1)) as u64).clamp(1, 32)
    }
}

/// One thread's source of loans.
pub(crate) struct Lender<S: Account> {
    node: NonNull<Node<S>>,
}

/// One credit out on loan. Dropping it pays it back: to its lender, or if that is gone or somebody waits for credit, to the account.
pub(crate) struct Loan<S: Account> {
    node: NonNull<Node<S>>,
}

// SAFETY: a lender is a handle on a node whose parts are Sync; it may move between threads, and only it lends.
unsafe impl<S: Account + Send + Sync> Send for Lender<S> {}
// SAFETY: by reference a lender only lends, which is a read-modify-write on the word.
unsafe impl<S: Account + Send + Sync> Sync for Lender<S> {}
// SAFETY: a loan gives access to the account and to one read-modify-write on the word.
unsafe impl<S: Account + Send + Sync> Send for Loan<S> {}
// SAFETY: by reference a loan only gives `&S`.
unsafe impl<S: Account + Send + Sync> Sync for Loan<S> {}

impl<S: Account> Lender<S> {
    /// A lender of `account`'s pool.
    pub(crate) fn new(account: S) -> Self {
        let node = Box::new(Node {
            word: Counter::of_parts(0),
            account,
        });
        let lender = Self {
            node: NonNull::from(Box::leak(node)),
        };
        lender.account().pool().state.lock().lenders.push(NodePtr(lender.node));
        lender
    }

    fn node(&self) -> &Node<S> {
        // SAFETY: a node lives at least until its lender retires, which takes the lender.
        unsafe { self.node.as_ref() }
    }

    pub(crate) fn account(&self) -> &S {
        &self.node().account
    }

    /// Takes one credit, drawing from the pool if the lender's own are used up. `None`: all credits are out, and whoever pays one back
    /// from now on is told so.
    #[inline(always)]
    pub(crate) fn lend(&self) -> Option<Loan<S>> {
        if self.take(1) == 1 { Some(Loan { node: self.node }) } else { None }
    }

    /// As `lend`, on the lender's own credit alone: the fast path.
    #[inline(always)]
    pub(crate) fn lend_own(&self) -> Option<Loan<S>> {
        let lent = self
            .node()
            .word
            .change(|word| (unused(word) != 0).then(|| (word - UNUSED + OUT, ())));
        lent.is_ok().then(|| Loan { node: self.node })
    }

    /// Takes up to `most` credits.
    #[inline]
    pub(crate) fn lend_run(&self, most: u64) -> Loans<S> {
        Loans {
            left: self.take(most),
            node: self.node,
        }
    }

    #[inline(always)]
    fn take(&self, most: u64) -> u64 {
        loop {
            let lent = self.node().word.change(|word| {
                let n = unused(word).min(most);
                (n != 0).then(|| (word - n * UNUSED + n * OUT, n))
            });
            match lent {
                Ok((_, n)) => return n,
                Err(_) if most == 0 || !self.draw() => return 0,
                Err(_) => {}
            }
        }
    }

    /// Gets at least one credit into the own word, from the pool or from what other lenders hold unused.
    #[cold]
    pub(crate) fn draw(&self) -> bool {
        let pool = self.account().pool();
        let mut state = pool.state.lock();
        if state.free == 0 {
            // Every word gets the mark in the same step in which its unused credits are collected, so that from then on no
            // credit can come back unseen.
            let collected: u64 = state.lenders.iter().map(|node| collect(node.word())).sum();
            state.free += collected;
            if state.free == 0 {
                return false;
            }
        }
        let chunk = pool.chunk(state.lenders.len()).min(state.free);
        state.free -= chunk;
        let _ = self.node().word.change(|word| Some((word + chunk * UNUSED, ())));
        if state.free > 0 {
            // Only under this lock is a word marked.
            for word in state
                .lenders
                .iter()
                .map(NodePtr::word)
                .filter(|word| word.load(Relaxed) & WANTED != 0)
            {
                let _ = word.update(|word| Some(word & !WANTED));
            }
        }
        true
    }
}

/// Several credits of one lender out on loan, to be taken one by one. What is left when it is dropped is paid back in one step.
pub(crate) struct Loans<S: Account> {
    left: u64,
    node: NonNull<Node<S>>,
}

impl<S: Account> Iterator for Loans<S> {
    type Item = Loan<S>;

    #[inline(always)]
    fn next(&mut self) -> Option<Loan<S>> {
        self.left = self.left.checked_sub(1)?;
        Some(Loan { node: self.node })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<S: Account> ExactSizeIterator for Loans<S> {}

impl<S: Account> Loans<S> {
    /// All of them; none is left here.
    #[inline(always)]
    pub(crate) fn take_all(&mut self) -> Self {
        Self {
            left: std::mem::take(&mut self.left),
            node: self.node,
        }
    }

    /// Makes something of each value and a loan, as far as both reach. What is left is paid back.
    ///
    /// The loans are counted before, not one by one: a count that unwinding may need is kept in memory. So if `values` or `make` unwinds, those
    /// that were not handed out stay out on loan.
    #[inline(always)]
    pub(crate) fn deal<V, R>(mut self, values: impl ExactSizeIterator<Item = V>, out: &mut Vec<R>, mut make: impl FnMut(V, Loan<S>) -> R) {
        let n = self.left.min(values.len() as u64);
        self.left -= n;
        let node = self.node;
        out.extend(values.take(n as usize).map(move |value| make(value, Loan { node })));
    }

    /// These loans and this one, if it is of the same lender.
    #[inline(always)]
    pub(crate) fn add(&mut self, loan: Loan<S>) -> Result<(), Loan<S>> {
        if loan.node != self.node {
            return Err(loan);
        }
        std::mem::forget(loan);
        self.left += 1;
        Ok(())
    }
}

impl<S: Account> From<Loan<S>> for Loans<S> {
    fn from(loan: Loan<S>) -> Self {
        let loan = std::mem::ManuallyDrop::new(loan);
        Self { left: 1, node: loan.node }
    }
}

impl<S: Account> Drop for Loans<S> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.left > 0 {
            settle_run(self.node, self.left);
        }
    }
}

/// A call, so that dropping loans is so little code that it always becomes part of what drops them: then their count stays in a register while
/// they are handed out or collected.
#[inline(never)]
fn settle_run<S: Account>(node: NonNull<Node<S>>, n: u64) {
    settle(node, n);
}

/// Takes the unused credits out of a word and marks it as wanted.
fn collect(word: &Counter) -> u64 {
    let collected = word.update(|word| Some((word & !COUNT) | WANTED));
    collected.map_or_else(unused, unused)
}

impl<S: Account> Drop for Lender<S> {
    fn drop(&mut self) {
        let account = self.account().clone();
        let mut state = account.pool().state.lock();
        state.lenders.retain(|node| node.0 != self.node);
        let word = &self.node().word;
        let unused = collect(word);
        state.free += unused;
        drop(state);
        let before = word.update(|word| Some(word | RETIRED));
        if before.is_ok_and(|before| out(before) == 0) {
            free(self.node);
        }
        drop(account);
    }
}

impl<S: Account> Loan<S> {
    fn node(&self) -> &Node<S> {
        // SAFETY: the word counts this loan as out, and a node with a loan out is not freed.
        unsafe { self.node.as_ref() }
    }

    pub(crate) fn account(&self) -> &S {
        &self.node().account
    }
}

impl<S: Account> Loan<S> {
    /// Ends a loan whose credit was put back into the pool already.
    pub(crate) fn write_off(self) {
        let loan = std::mem::ManuallyDrop::new(self);
        let _ = end_elsewhere(loan.node, 1);
    }
}

/// Returns `n` credits that are out on loan.
#[inline(always)]
fn settle<S: Account>(node: NonNull<Node<S>>, n: u64) {
    // SAFETY: `n` loans of the caller are out, and a node with a loan out is not freed.
    let word = unsafe { &node.as_ref().word };
    let to = |word| (word & (RETIRED | WANTED) == 0).then(|| word - n * OUT + n * UNUSED);
    // Once it is changed, the node may be freed.
    if !word.change_and_go(to) {
        settle_elsewhere(node, n);
    }
}

#[cold]
fn settle_elsewhere<S: Account>(node: NonNull<Node<S>>, n: u64) {
    end_elsewhere(node, n).returned(n);
}

/// Ends `n` loans without giving their credits back to the lender.
fn end_elsewhere<S: Account>(node: NonNull<Node<S>>, n: u64) -> S {
    // SAFETY: `n` loans of the caller are out, and a node with a loan out is not freed.
    let alive = unsafe { node.as_ref() };
    // First the account, while these loans still keep the node.
    let account = alive.account.clone();
    let before = alive.word.update(|word| Some(word - n * OUT));
    if before.is_ok_and(|before| before & RETIRED != 0 && out(before) == n) {
        free(node);
    }
    account
}

impl<S: Account> Drop for Loan<S> {
    #[inline(always)]
    fn drop(&mut self) {
        settle(self.node, 1);
    }
}

fn free<S>(node: NonNull<Node<S>>) {
    // SAFETY: the caller saw, by an AcqRel change of the word, that the lender is gone and no loan is out: nobody else has the pointer.
    drop(unsafe { Box::from_raw(node.as_ptr()) });
}
