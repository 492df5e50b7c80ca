//! The scan: what everybody has read is dropped at once when the ring is idle, whoever was in whose way. Its cursors only look: what one moves out
//! is not left to the scan.

use std::sync::atomic::{AtomicI64, Ordering as Std};

use crate::models::check;
use crate::ring::{Cursor, Line, Nothing, Start, Take, Window};
use crate::sync::{Arc, thread, yield_now};

/// A payload that counts how many of its kind are alive.
pub(super) struct Counted(Arc<AtomicI64>);

impl Counted {
    pub(super) fn new(alive: &Arc<AtomicI64>) -> Self {
        alive.fetch_add(1, Std::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Std::SeqCst);
    }
}

pub(super) type Payloads = Window<Counted, ()>;

pub(super) struct Model {
    pub(super) window: Arc<Payloads>,
    pub(super) alive: Arc<AtomicI64>,
}

impl Model {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            window: Arc::new(Window::new(capacity, 0)),
            alive: Arc::default(),
        }
    }

    /// The same window, for another thread.
    pub(super) fn share(&self) -> Self {
        Self {
            window: self.window.clone(),
            alive: self.alive.clone(),
        }
    }

    pub(super) fn publish(&self) {
        let value = Counted::new(&self.alive);
        loop {
            match self.window.claim_run(&mut 0, 1, false) {
                Ok(claim) => {
                    claim.fill(value, None);
                    return;
                }
                Err(_) => yield_now(),
            }
        }
    }

    pub(super) fn reader(&self, cursor: &Arc<Cursor<Counted, ()>>) -> Reader {
        Reader {
            window: self.window.clone(),
            cursor: cursor.clone(),
            line: self.window.line(),
        }
    }

    pub(super) fn assert_nothing_lingers(&self) {
        assert_eq!(self.alive.load(Std::SeqCst), 0, "a payload that everybody has read lingers");
    }
}

pub(super) struct Reader {
    pub(super) window: Arc<Payloads>,
    pub(super) cursor: Arc<Cursor<Counted, ()>>,
    pub(super) line: Arc<Line>,
}

impl Reader {
    pub(super) fn try_take(&self) -> bool {
        match self.window.take(&self.cursor, &self.line, |p, _, _| p) {
            Take::Got(p) => {
                self.window.tidy(&self.cursor, p);
                true
            }
            Take::Nothing(Nothing::Empty | Nothing::Busy) => false,
            other => panic!("neither overtaken nor closed: {other:?}"),
        }
    }

    pub(super) fn pop(&self) -> bool {
        let Some(p) = self.window.pop(&self.cursor, &self.line, |p, _| p) else {
            return false;
        };
        self.window.tidy(&self.cursor, p);
        true
    }
}

#[test]
fn of_two_cursors_that_finish_at_the_same_time_one_drops_the_payload() {
    check(|| {
        let model = Model::new(1);
        let cursors = [(); 2].map(|()| model.window.join_to_look(Start::Oldest));
        model.publish();
        let [mine, other] = cursors.map(|cursor| model.reader(&cursor));
        let other = thread::spawn(move || assert!(other.try_take()));
        assert!(mine.try_take());
        other.join().unwrap();
        model.assert_nothing_lingers();
    });
}

#[test]
fn whoever_loses_the_race_for_a_message_does_not_keep_its_payload() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join_to_look(Start::Oldest);
        model.publish();
        let (mine, other) = (model.reader(&cursor), model.reader(&cursor));
        let other = thread::spawn(move || other.try_take());
        let got = mine.try_take();
        assert!(got ^ other.join().unwrap());
        model.assert_nothing_lingers();
    });
}

#[test]
fn whoever_loses_the_race_on_the_short_way_does_not_keep_its_payload() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join_to_look(Start::Oldest);
        model.publish();
        let (mine, other) = (model.reader(&cursor), model.reader(&cursor));
        let other = thread::spawn(move || other.pop());
        let got = mine.pop();
        assert!(got ^ other.join().unwrap());
        model.assert_nothing_lingers();
    });
}

#[test]
fn a_scan_that_finds_the_registry_taken_is_made_up_for() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join_to_look(Start::Oldest);
        model.publish();
        let reader = model.reader(&cursor);
        let coming = {
            let window = model.window.clone();
            thread::spawn(move || {
                let line = window.line();
                window.drop_line(&line);
            })
        };
        assert!(reader.try_take());
        coming.join().unwrap();
        model.assert_nothing_lingers();
    });
}

#[test]
fn a_cursor_that_leaves_drops_what_it_alone_had_not_read() {
    check(|| {
        let model = Model::new(1);
        let (reads, leaves) = (model.window.join_to_look(Start::Oldest), model.window.join_to_look(Start::Oldest));
        model.publish();
        let reader = model.reader(&reads);
        let leaving = {
            let window = model.window.clone();
            thread::spawn(move || window.leave(&leaves))
        };
        assert!(reader.try_take());
        leaving.join().unwrap();
        model.assert_nothing_lingers();
    });
}

#[test]
fn a_publisher_that_is_not_done_is_not_lapped_when_nobody_subscribes() {
    check(|| {
        let model = Model::new(1);
        let other = {
            let model = model.share();
            thread::spawn(move || model.publish())
        };
        model.publish();
        other.join().unwrap();
        assert_eq!(model.alive.load(Std::SeqCst), 1, "a window of one keeps the newest");
        assert_eq!(model.window.unrouted(), 1);
    });
}

#[test]
fn payloads_left_in_a_window_are_dropped_with_it() {
    check(|| {
        let model = Model::new(2);
        let cursor = model.window.join_to_look(Start::Oldest);
        let reader = model.reader(&cursor);
        let publisher = {
            let model = model.share();
            thread::spawn(move || model.publish())
        };
        reader.try_take();
        publisher.join().unwrap();
        drop(reader);
        let Model { window, alive } = model;
        drop(window);
        assert_eq!(alive.load(Std::SeqCst), 0);
    });
}
