//! Counters that lean towards a thread: it and its rivals, threads that sleep, and a holder that comes late.

use crate::models::check_leaning;
use crate::ring::counter::Counter;
use crate::ring::position;
use crate::sync::{Arc, AtomicU64, Ordering::*, thread};

/// Two threads: any number of preemptions can be afforded. Those with three make do with one.
const ALL: usize = usize::MAX;

fn leaning() -> Arc<Counter> {
    let counter = Arc::new(Counter::new(0, true));
    claim(&counter);
    assert_eq!(claim(&counter), 1);
    counter
}

/// Claims a position.
fn claim(counter: &Counter) -> u64 {
    let (position, ()) = counter.advance(|_| Some((1, ()))).expect("it looks at nothing");
    position
}

/// A thread that says that it sleeps, then looks where the counter is.
fn sleeper(counter: &Arc<Counter>) -> (Arc<AtomicU64>, loom::thread::JoinHandle<u64>) {
    let sleeps = Arc::new(AtomicU64::new(0));
    let (counter, says) = (counter.clone(), sleeps.clone());
    let sleeper = thread::spawn(move || {
        says.store(1, Relaxed);
        position(counter.settled())
    });
    (sleeps, sleeper)
}

fn assert_each_once(mut claimed: Vec<u64>) {
    claimed.sort_unstable();
    let expected: Vec<u64> = (2..2 + claimed.len() as u64).collect();
    assert_eq!(claimed, expected, "each position from 2 on has one owner");
}

#[test]
fn a_holder_and_its_rivals_never_claim_the_same_position() {
    check_leaning(1, || {
        let counter = leaning();
        let rivals = [1, 1].map(|claims| {
            let counter = counter.clone();
            thread::spawn(move || (0..claims).map(|_| claim(&counter)).collect::<Vec<_>>())
        });
        let mine = vec![claim(&counter), claim(&counter)];
        let others = rivals.map(|rival| rival.join().unwrap()).concat();
        assert_each_once([mine, others].concat());
    });
}

#[test]
fn a_holder_and_a_rival_that_take_turns_never_claim_the_same_position() {
    check_leaning(ALL, || {
        let counter = leaning();
        let rival = {
            let counter = counter.clone();
            thread::spawn(move || vec![claim(&counter), claim(&counter)])
        };
        let mine = vec![claim(&counter), claim(&counter)];
        assert_each_once([mine, rival.join().unwrap()].concat());
    });
}

#[test]
fn what_a_claim_owns_is_its_own_whoever_holds_the_counter() {
    check_leaning(ALL, || {
        let counter = leaning();
        let cells: Arc<[crate::sync::UnsafeCell<u64>; 4]> = Arc::new([0; 4].map(crate::sync::UnsafeCell::new));
        let (others, theirs) = (counter.clone(), cells.clone());
        // The cells are watched: two threads in one at the same time fail the model.
        let rival = thread::spawn(move || theirs[claim(&others) as usize].with_mut(|_| ()));
        cells[claim(&counter) as usize].with_mut(|_| ());
        rival.join().unwrap();
    });
}

#[test]
fn a_sleeper_that_finds_the_holder_at_another_counter_sees_what_it_did_at_this_one() {
    check_leaning(ALL, || {
        let [counter, other] = [leaning(), leaning()];
        let (sleeps, sleeper) = sleeper(&counter);
        claim(&counter);
        let saw_it = sleeps.load(Relaxed) == 1;
        claim(&other);
        let position = sleeper.join().unwrap();
        assert!(saw_it || position == 3, "it sleeps at {position}, and the holder does not know");
    });
}

#[test]
fn a_change_that_a_sleeper_has_not_seen_sees_the_sleeper() {
    check_leaning(ALL, || {
        let counter = leaning();
        let (sleeps, sleeper) = sleeper(&counter);
        let last = claim(&counter).max(claim(&counter));
        let is_seen = sleeps.load(Relaxed) == 1;
        let end = sleeper.join().unwrap();
        assert!(
            is_seen || end > last,
            "it sleeps on, and nobody wakes it: it saw {end}, and {last} was claimed"
        );
    });
}

#[test]
fn a_sleeper_that_meets_a_revocation_is_seen_by_the_former_holder() {
    check_leaning(1, || {
        let counter = leaning();
        let (sleeps, sleeper) = sleeper(&counter);
        let rival = {
            let counter = counter.clone();
            thread::spawn(move || counter.update(|word| Some(word + 2)).is_ok())
        };
        let last = claim(&counter);
        let is_seen = sleeps.load(Relaxed) == 1;
        let end = sleeper.join().unwrap();
        assert!(rival.join().unwrap());
        assert!(is_seen || end > last, "it sleeps on, and nobody wakes it");
    });
}

#[test]
fn a_former_holder_that_comes_late_disturbs_no_later_one() {
    check_leaning(1, || {
        let counter = leaning();
        let second = {
            let counter = counter.clone();
            // Two claims in a row, and the counter leans towards this thread.
            thread::spawn(move || vec![claim(&counter), claim(&counter)])
        };
        let third = {
            let counter = counter.clone();
            thread::spawn(move || vec![claim(&counter)])
        };
        let mine = vec![claim(&counter)];
        assert_each_once([mine, second.join().unwrap(), third.join().unwrap()].concat());
    });
}

#[test]
fn a_counter_that_is_closed_stays_closed_whoever_held_it() {
    check_leaning(ALL, || {
        let counter = leaning();
        let closing = {
            let counter = counter.clone();
            thread::spawn(move || counter.update(|word| Some(word | 1)))
        };
        let mut claimed = 0;
        for _ in 0..2 {
            claimed += u64::from(counter.advance(|word| (word & 1 == 0).then_some((1, ()))).is_ok());
        }
        closing.join().unwrap().unwrap();
        assert_eq!(counter.load(Acquire), (2 + claimed) << 1 | 1, "nothing was claimed after the end");
    });
}
