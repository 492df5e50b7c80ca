//! Credit: an exact bound, lent by many, paid back anywhere, and told to whoever waits for it.

use std::sync::atomic::{AtomicU64, Ordering as Std};

use crate::models::check;
use crate::ring::{Account, CreditPool, Lender, Loan};
use crate::sync::{Arc, Mutex, thread, yield_now};

/// A pool with a bell, as a subscription has one.
struct Bank {
    pool: CreditPool<Owner>,
    out: AtomicU64,
    total: u64,
    /// Who is to be told when a credit comes back to the pool.
    waiting: Mutex<Option<thread::Thread>>,
}

#[derive(Clone)]
struct Owner(Arc<Bank>);

impl Account for Owner {
    fn pool(&self) -> &CreditPool<Self> {
        &self.0.pool
    }

    fn returned(&self, credits: u64) {
        self.0.pool.put(credits);
        let waiting = self.0.waiting.lock().take();
        if let Some(thread) = waiting {
            thread.unpark();
        }
    }
}

impl Owner {
    fn new(total: u32) -> Self {
        Self(Arc::new(Bank {
            pool: CreditPool::new(total),
            out: AtomicU64::new(0),
            total: total.into(),
            waiting: Mutex::new(None),
        }))
    }

    fn lender(&self) -> Lender<Self> {
        Lender::new(self.clone())
    }

    fn lend(&self, lender: &Lender<Self>) -> Option<Loan<Self>> {
        let loan = lender.lend()?;
        let out = self.0.out.fetch_add(1, Std::SeqCst) + 1;
        assert!(out <= self.0.total, "{out} credits out of {}", self.0.total);
        Some(loan)
    }

    fn pay_back(&self, loan: Loan<Self>) {
        self.0.out.fetch_sub(1, Std::SeqCst);
        drop(loan);
    }

    /// Lends, sleeping until there is credit.
    fn lend_waiting(&self, lender: &Lender<Self>) -> Loan<Self> {
        loop {
            if let Some(loan) = self.lend(lender) {
                return loan;
            }
            *self.0.waiting.lock() = Some(thread::current());
            if !lender.draw() {
                thread::park();
            }
        }
    }

    /// Sleeps until nothing is out.
    fn wait_for_all(&self) {
        loop {
            *self.0.waiting.lock() = Some(thread::current());
            if self.0.pool.watch() == 0 {
                return;
            }
            thread::park();
        }
    }

    fn assert_all_back(&self) {
        assert_eq!(self.0.pool.out(), 0);
        assert_eq!(self.0.pool.watch(), 0);
        assert_eq!(Arc::strong_count(&self.0), 1, "every node was freed");
    }
}

#[test]
fn two_lenders_never_lend_more_than_there_is() {
    check(|| {
        let bank = Owner::new(1);
        let other = {
            let (bank, lender) = (bank.clone(), bank.lender());
            thread::spawn(move || {
                if let Some(loan) = bank.lend(&lender) {
                    bank.pay_back(loan);
                }
            })
        };
        let lender = bank.lender();
        if let Some(loan) = bank.lend(&lender) {
            bank.pay_back(loan);
        }
        other.join().unwrap();
        let loan = bank.lend(&lender).expect("the credit is back");
        assert!(bank.lend(&lender).is_none());
        bank.pay_back(loan);
        drop(lender);
        bank.assert_all_back();
    });
}

#[test]
fn whoever_waits_for_credit_gets_what_another_thread_pays_back() {
    check(|| {
        let bank = Owner::new(1);
        let (mine, others) = (bank.lender(), bank.lender());
        let loan = bank.lend(&others).expect("nothing is out");
        let paying = {
            let bank = bank.clone();
            thread::spawn(move || bank.pay_back(loan))
        };
        let loan = bank.lend_waiting(&mine);
        bank.pay_back(loan);
        paying.join().unwrap();
        drop((mine, others));
        bank.assert_all_back();
    });
}

#[test]
fn whoever_waits_for_credit_gets_what_a_retiring_lender_held() {
    check(|| {
        let bank = Owner::new(1);
        let (mine, others) = (bank.lender(), bank.lender());
        let loan = bank.lend(&others).expect("nothing is out");
        let leaving = {
            let bank = bank.clone();
            thread::spawn(move || {
                drop(others);
                bank.pay_back(loan);
            })
        };
        let loan = bank.lend_waiting(&mine);
        bank.pay_back(loan);
        leaving.join().unwrap();
        drop(mine);
        bank.assert_all_back();
    });
}

#[test]
fn a_node_is_freed_once_whoever_is_last() {
    check(|| {
        let bank = Owner::new(2);
        let lender = bank.lender();
        let loans = [bank.lend(&lender), bank.lend(&lender)].map(Option::unwrap);
        let [mine, others] = loans;
        let paying = {
            let bank = bank.clone();
            thread::spawn(move || bank.pay_back(others))
        };
        drop(lender);
        bank.pay_back(mine);
        paying.join().unwrap();
        bank.assert_all_back();
    });
}

#[test]
fn a_watcher_is_told_when_the_last_loan_is_paid_back() {
    check(|| {
        let bank = Owner::new(2);
        let lender = bank.lender();
        let loans = [bank.lend(&lender), bank.lend(&lender)].map(Option::unwrap);
        let paying = {
            let bank = bank.clone();
            thread::spawn(move || {
                for loan in loans {
                    bank.pay_back(loan);
                }
            })
        };
        bank.wait_for_all();
        paying.join().unwrap();
        drop(lender);
        bank.assert_all_back();
    });
}

#[test]
fn unused_credit_of_one_lender_is_there_for_another() {
    check(|| {
        let bank = Owner::new(2);
        let (mine, others) = (bank.lender(), bank.lender());
        let loan = bank.lend(&others).expect("nothing is out");
        bank.pay_back(loan);
        // Its credit lies unused at the other lender, which lends and pays back meanwhile.
        let other = {
            let bank = bank.clone();
            thread::spawn(move || {
                if let Some(loan) = others.lend_own() {
                    bank.pay_back_unlent(loan);
                }
                others
            })
        };
        let first = bank.lend_waiting(&mine);
        let others = other.join().unwrap();
        let second = bank.lend(&mine).expect("two credits, one out");
        assert!(bank.lend(&others).is_none());
        bank.pay_back(first);
        bank.pay_back(second);
        drop((mine, others));
        bank.assert_all_back();
    });
}

impl Owner {
    /// As `pay_back`, for a loan that was not counted.
    fn pay_back_unlent(&self, loan: Loan<Self>) {
        self.0.out.fetch_add(1, Std::SeqCst);
        self.pay_back(loan);
    }
}

#[test]
fn what_was_done_before_paying_back_is_seen_by_whoever_frees_the_node() {
    check(|| {
        let bank = Owner::new(1);
        let lender = bank.lender();
        let loan = bank.lend(&lender).expect("nothing is out");
        let told = Arc::new(loom::cell::UnsafeCell::new(0));
        let paying = {
            let (bank, told) = (bank.clone(), told.clone());
            thread::spawn(move || {
                // SAFETY: a model's cell: the checker reports any access at the same time.
                told.with_mut(|cell| unsafe { *cell = 1 });
                bank.pay_back(loan);
            })
        };
        while bank.0.pool.watch() != 0 {
            yield_now();
        }
        // SAFETY: as above.
        assert_eq!(told.with(|cell| unsafe { *cell }), 1);
        paying.join().unwrap();
        drop(lender);
        bank.assert_all_back();
    });
}

#[test]
fn a_lender_whose_credit_is_out_lends_none_by_the_fast_way_and_none_comes_back() {
    check(|| {
        let bank = Owner::new(1);
        let lender = bank.lender();
        let only = bank.lend(&lender).unwrap();
        assert!(lender.lend_own().is_none());
        assert_eq!(bank.pool().out(), 1, "what was not lent was not paid back");
        bank.pay_back(only);
        assert_eq!(bank.pool().out(), 0);
    });
}
