//! Moving out: what only one cursor is to get leaves the ring with whoever claims it. Nothing is dropped twice, kept, or looked at by others then.

use std::sync::atomic::Ordering as Std;

use super::scan::{Model, Reader};
use crate::models::{check, unwind};
use crate::ring::{Nothing, Start, Take};
use crate::sync::{Arc, thread, yield_now};

impl Model {
    /// The ring goes, with all that is in it.
    fn assert_dropped_once(self) {
        assert_eq!(Arc::strong_count(&self.window), 1, "the model has let go of it");
        drop(self.window);
        assert_eq!(self.alive.load(Std::SeqCst), 0, "alive, or dropped twice");
    }
}

impl Reader {
    /// The positions that it gets, until there is nothing.
    fn positions(&self) -> Vec<u64> {
        let mut got = Vec::new();
        loop {
            match self.window.take(&self.cursor, &self.line, |p, _, _| p) {
                Take::Got(p) => got.push(p),
                Take::Nothing(Nothing::Busy) => yield_now(),
                Take::Nothing(_) => return got,
                other => panic!("neither overtaken nor closed: {other:?}"),
            }
        }
    }

    /// The same, of a run that unwinds when it has read one.
    fn unwinds_after_one(&self, lost: &mut Vec<u64>) -> Option<u64> {
        let mut first = None;
        let read = |p, value: crate::ring::Value<'_, _>, _: Option<crate::ring::Value<'_, ()>>| {
            drop(value);
            first = Some(p);
            unwind();
        };
        let lost = std::sync::Mutex::new(lost);
        let told = |from, to| lost.lock().expect("not poisoned").extend(from..to);
        let run = || self.window.take_run(&self.cursor, &self.line, 2, read, told);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        first
    }
}

#[test]
fn what_the_only_cursor_reads_is_dropped_once() {
    check(|| {
        let model = Model::new(1);
        let cursor = model.window.join(Start::Oldest);
        let (mine, other) = (model.reader(&cursor), model.reader(&cursor));
        let publisher = {
            let model = model.share();
            thread::spawn(move || {
                model.publish();
                model.publish();
            })
        };
        let other = thread::spawn(move || other.pop());
        let mut got = usize::from(mine.pop());
        got += usize::from(other.join().unwrap());
        while got < 2 {
            got += mine.positions().len();
            yield_now();
        }
        publisher.join().unwrap();
        model.assert_nothing_lingers();
        drop(mine);
        model.assert_dropped_once();
    });
}

#[test]
fn a_cursor_that_joins_finds_nothing_that_another_has_moved_out() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join(Start::Oldest);
        model.publish();
        model.publish();
        let reader = model.reader(&cursor);
        let reading = thread::spawn(move || reader.pop());
        let joined = model.window.join(Start::Oldest);
        let from = joined.position();
        let late = model.reader(&joined);
        assert_eq!(late.positions(), (from..2).collect::<Vec<_>>());
        assert!(reading.join().unwrap());
        drop((late, joined, cursor));
        model.assert_dropped_once();
    });
}

#[test]
fn a_cursor_that_stays_moves_nothing_out_that_one_which_left_still_reads() {
    check(|| {
        let model = Model::new(2);
        let (stays, leaves) = (model.window.join(Start::Oldest), model.window.join(Start::Oldest));
        model.publish();
        let (mine, other) = (model.reader(&stays), model.reader(&leaves));
        let reading = thread::spawn(move || other.positions().len());
        model.window.leave(&leaves);
        model.publish();
        assert_eq!(mine.positions(), [0, 1]);
        assert!(reading.join().unwrap() <= 1);
        drop((mine, stays, leaves));
        model.assert_dropped_once();
    });
}

#[test]
fn what_comes_after_the_only_cursor_has_left_is_dropped_once() {
    check(|| {
        let model = Model::new(2);
        let leaves = model.window.join(Start::Oldest);
        model.publish();
        let reader = model.reader(&leaves);
        let reading = thread::spawn(move || reader.positions());
        model.window.leave(&leaves);
        let next = model.window.join(Start::Latest);
        model.publish();
        let late = model.reader(&next);
        assert_eq!(late.positions(), [1]);
        assert!(reading.join().unwrap().len() <= 1);
        drop((late, next, leaves));
        model.assert_dropped_once();
    });
}

#[test]
fn what_was_read_before_its_cursor_left_does_not_count_as_read_by_nobody() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join(Start::Oldest);
        model.publish();
        let reader = model.reader(&cursor);
        // The cursor leaves while the position is being read, so the slot is freed when nobody subscribes any more.
        let took = reader.window.take(&reader.cursor, &reader.line, |p, _, _| {
            model.window.leave(&cursor);
            p
        });
        assert_eq!(took, Take::Got(0));
        (0..2).for_each(|_| model.publish());
        assert_eq!(model.window.unrouted(), 0, "the first was read");
        model.publish();
        assert_eq!(model.window.unrouted(), 1, "the second never is");
        drop((reader, cursor));
        model.assert_dropped_once();
    });
}

#[test]
fn a_seek_back_goes_to_nothing_that_was_moved_out_or_is_being_read() {
    check(|| {
        let model = Model::new(2);
        let (cursor, other) = (model.window.join(Start::Oldest), model.window.join(Start::Oldest));
        model.publish();
        model.publish();
        let (mine, rival) = (model.reader(&cursor), model.reader(&cursor));
        // Not before here can it have anything for itself.
        model.window.leave(&other);
        let reading = thread::spawn(move || rival.positions());
        let (from, ()) = model.window.seek(&cursor, Start::Oldest, |_| ());
        let mut got = mine.positions();
        got.extend(reading.join().unwrap());
        got.sort_unstable();
        assert!((from..2).all(|p| got.contains(&p)), "from {from}: {got:?}");
        drop((mine, cursor, other));
        model.assert_dropped_once();
    });
}

#[test]
fn after_a_seek_back_nothing_is_moved_out_that_a_rival_still_reads() {
    check(|| {
        let model = Model::new(2);
        let (stays, leaves) = (model.window.join(Start::Oldest), model.window.join(Start::Oldest));
        model.publish();
        let [first, second, rival] = [(); 3].map(|()| model.reader(&stays));
        // While the first position is being read, the cursor becomes the only one, and the rival claims the next.
        let mut reading = None;
        let took = first.window.take(&first.cursor, &first.line, |p, _, _| {
            model.window.leave(&leaves);
            model.publish();
            reading = Some(thread::spawn(move || drop(rival.positions())));
            p
        });
        assert_eq!(took, Take::Got(0));
        model.window.tidy(&stays, 0);
        model.window.seek(&stays, Start::At(1), |_| ());
        second.positions();
        reading.expect("it was begun").join().unwrap();
        drop((first, second, stays, leaves));
        model.assert_dropped_once();
    });
}

#[test]
fn a_run_that_unwinds_while_it_moves_values_out_gives_back_the_rest() {
    check(|| {
        let model = Model::new(4);
        let cursor = model.window.join(Start::Oldest);
        (0..3).for_each(|_| model.publish());
        let (unwinding, rival) = (model.reader(&cursor), model.reader(&cursor));
        let reading = thread::spawn(move || rival.positions());
        let mut lost = Vec::new();
        let mut got: Vec<u64> = unwinding.unwinds_after_one(&mut lost).into_iter().collect();
        got.extend(reading.join().unwrap());
        got.extend(unwinding.positions());
        got.extend(lost);
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2], "each position is read or told lost, once");
        drop((unwinding, cursor));
        model.assert_dropped_once();
    });
}

#[test]
fn what_a_run_gives_back_is_left_to_the_scan_if_another_cursor_has_joined() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join(Start::Oldest);
        model.publish();
        model.publish();
        let unwinding = model.reader(&cursor);
        let joining = {
            let window = model.window.clone();
            thread::spawn(move || window.join(Start::Oldest))
        };
        let mut lost = Vec::new();
        let mut got: Vec<u64> = unwinding.unwinds_after_one(&mut lost).into_iter().collect();
        let joined = joining.join().unwrap();
        let (late, from) = (model.reader(&joined), joined.position());
        assert_eq!(late.positions(), (from..2).collect::<Vec<_>>());
        got.extend(unwinding.positions());
        assert_eq!((&got[..], &lost[..]), (&[0, 1][..], &[][..]), "nobody has claimed beyond");
        drop((unwinding, late, joined, cursor));
        model.assert_dropped_once();
    });
}
