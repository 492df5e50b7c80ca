//! Cursors that do not gate: moved on by publishers, told what they lost, or given it by a side store.

use crate::models::check;
use crate::ring::models::window::{Numbers, publish, window};
use crate::ring::{Cursor, Line, Overtaken, ReadAt, SideStore, Start, Take};
use crate::sync::{Arc, Mutex, thread};

/// A subscriber that notes each position that it reads or is told lost.
struct Reader {
    window: Arc<Numbers>,
    cursor: Arc<Cursor<u64, u64>>,
    line: Arc<Line>,
    /// What comes next for all subscribers of the cursor.
    aside: Arc<Mutex<Option<u64>>>,
    seen: Vec<u64>,
    /// Whether it was told of a loss, and what comes next was set aside.
    was_told: bool,
}

impl Reader {
    fn new(window: &Arc<Numbers>, cursor: &Arc<Cursor<u64, u64>>) -> Self {
        Self {
            window: window.clone(),
            cursor: cursor.clone(),
            line: window.line(),
            aside: Arc::default(),
            seen: Vec::new(),
            was_told: false,
        }
    }

    /// One that competes with it.
    fn another(&self) -> Self {
        Self {
            aside: self.aside.clone(),
            ..Self::new(&self.window, &self.cursor)
        }
    }

    /// One look; `false` if there was nothing.
    fn look(&mut self) -> bool {
        let take = self.window.take(&self.cursor, &self.line, |p, value, _| (p, *value));
        match take {
            Take::Got((p, value)) => {
                assert_eq!(value, p + 10);
                self.see(p..p + 1);
                true
            }
            Take::Behind => {
                self.catch_up();
                true
            }
            Take::Nothing(_) => false,
        }
    }

    fn catch_up(&mut self) {
        let shared = self.aside.clone();
        let mut aside = shared.lock();
        if let Some(p) = aside.take() {
            self.was_told = false;
            self.see(p..p + 1);
        } else {
            let (lost, next) = self.window.catch_up(&self.cursor, &self.line, 1);
            let read = |p: u64, value: &u64, _: Option<&u64>| {
                assert_eq!(*value, p + 10);
                *aside = Some(p);
            };
            let was_told = next.map(|next| next.read(read)).is_ok();
            if let Some(Overtaken { from, to }) = lost {
                assert!(from < to);
                self.was_told = was_told;
                self.see(from..to);
            }
        }
        if aside.is_none() {
            self.cursor.clear_behind();
        }
        drop(aside);
        self.window.left_empty_handed(&self.cursor);
    }

    fn see(&mut self, positions: std::ops::Range<u64>) {
        assert!(
            self.seen.last().is_none_or(|&last| last < positions.start),
            "one subscriber sees positions ascend"
        );
        self.seen.extend(positions);
    }

    fn look_to_the_end(mut self) -> Vec<u64> {
        while self.look() {}
        self.seen
    }
}

fn assert_each_once(mut seen: Vec<u64>, positions: u64) {
    seen.sort_unstable();
    assert_eq!(seen, (0..positions).collect::<Vec<_>>(), "each position is read or told lost, once");
}

#[test]
fn an_overtaken_cursor_reads_or_is_told_each_position_once() {
    check(|| {
        let window = window(1);
        let cursor = window.join_overtakable(Start::Oldest, None);
        publish(&window, &mut 0, 10);
        let mut reader = Reader::new(&window, &cursor);
        let reading = thread::spawn(move || {
            reader.look();
            reader.look();
            reader
        });
        let mut limit = 0;
        publish(&window, &mut limit, 11);
        publish(&window, &mut limit, 12);
        assert_each_once(reading.join().unwrap().look_to_the_end(), 3);
    });
}

#[test]
fn a_loss_that_is_told_is_followed_by_what_comes_next() {
    check(|| {
        let window = window(1);
        let mut reader = Reader::new(&window, &window.join_overtakable(Start::Oldest, None));
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        let reading = thread::spawn(move || {
            reader.look();
            if reader.was_told {
                let lost = reader.seen.len();
                reader.look();
                assert_eq!(
                    (reader.was_told, reader.seen.len()),
                    (false, lost + 1),
                    "a message, not another loss"
                );
            }
            reader
        });
        publish(&window, &mut limit, 12);
        publish(&window, &mut limit, 13);
        assert_each_once(reading.join().unwrap().look_to_the_end(), 4);
    });
}

#[test]
fn competing_subscribers_of_an_overtaken_cursor_are_told_each_position_once() {
    check(|| {
        let window = window(1);
        let first = Reader::new(&window, &window.join_overtakable(Start::Oldest, None));
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let readers = [(); 2].map(|()| first.another()).map(|mut reader| {
            thread::spawn(move || {
                reader.look();
                reader.seen
            })
        });
        publish(&window, &mut limit, 11);
        let mut seen = readers.map(|reader| reader.join().unwrap()).concat();
        seen.extend(first.look_to_the_end());
        assert_each_once(seen, 2);
    });
}

#[test]
fn competing_subscribers_of_an_overtaken_cursor_each_see_positions_ascend() {
    check(|| {
        let window = window(2);
        let first = Reader::new(&window, &window.join_overtakable(Start::Oldest, None));
        let mut limit = 0;
        for value in 10..13 {
            publish(&window, &mut limit, value);
        }
        let mut other = first.another();
        let reading = thread::spawn(move || {
            other.look();
            other.look();
            other.seen
        });
        let mut reader = first.another();
        reader.look();
        reader.look();
        let mut seen = [reading.join().unwrap(), reader.look_to_the_end()].concat();
        seen.extend(first.look_to_the_end());
        assert_each_once(seen, 3);
    });
}

#[test]
fn what_is_told_by_a_receive_is_not_told_by_a_seek_as_well() {
    check(|| {
        let window = window(1);
        let mut reader = Reader::new(&window, &window.join_overtakable(Start::Oldest, None));
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        let seeking = {
            let (window, cursor, aside) = (window.clone(), reader.cursor.clone(), reader.aside.clone());
            thread::spawn(move || {
                window.seek(&cursor, Start::Latest, |overtaken| {
                    let mut aside = aside.lock();
                    *aside = None;
                    overtaken()
                })
            })
        };
        reader.look();
        publish(&window, &mut limit, 12);
        let (at, told) = seeking.join().unwrap();
        let told = told.map_or(0..0, |range| range.from..range.to);
        let mut seen = reader.look_to_the_end();
        assert_eq!(
            seen.iter().chain(&told.collect::<Vec<_>>()).filter(|p| **p == 0).count(),
            1,
            "lost, and told once"
        );
        seen.retain(|p| *p >= at);
        assert_eq!(seen, (at..3).collect::<Vec<_>>(), "from there on, everything");
    });
}

#[test]
fn two_publishers_that_overtake_lose_nothing_in_silence() {
    check(|| {
        let window = window(1);
        let reader = Reader::new(&window, &window.join_overtakable(Start::Oldest, None));
        publish(&window, &mut 0, 10);
        let other = {
            let window = window.clone();
            thread::spawn(move || {
                let claim = window.claim_run(&mut 0, 1, false);
                // Only what is claimed is filled; the value follows from the position.
                claim.ok().map(|claim| fill(&window, claim))
            })
        };
        let mine = window.claim_run(&mut 0, 1, false).ok().map(|claim| fill(&window, claim));
        let others = other.join().unwrap();
        let published = 1 + mine.into_iter().chain(others).count() as u64;
        assert_each_once(reader.look_to_the_end(), published);
    });
}

/// Fills a claim of one with the value that its position should have.
fn fill(window: &Numbers, claim: crate::ring::Claim<'_, u64, u64>) -> u64 {
    let p = window.end() - 1;
    claim.fill(p + 10, None);
    p
}

#[test]
fn overtaking_stops_at_a_cursor_that_gates() {
    check(|| {
        let window = window(1);
        let gates = window.join(Start::Oldest);
        let drops = window.join_overtakable(Start::Oldest, None);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let mut gating = Reader::new(&window, &gates);
        let gating = thread::spawn(move || {
            assert!(gating.look());
            gating
        });
        publish(&window, &mut limit, 11);
        assert_each_once(gating.join().unwrap().look_to_the_end(), 2);
        assert_each_once(Reader::new(&window, &drops).look_to_the_end(), 2);
    });
}

#[test]
fn a_run_is_not_torn_by_overtaking() {
    check(|| {
        let window = window(2);
        let cursor = window.join_overtakable(Start::Oldest, None);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        let mut reader = Reader::new(&window, &cursor);
        let reading = thread::spawn(move || {
            let mut run = Vec::new();
            let take = reader.window.take_run(
                &reader.cursor,
                &reader.line,
                2,
                |p, value, _| {
                    assert_eq!(*value, p + 10);
                    run.push(p);
                },
                |_, _| (),
            );
            reader.seen = run;
            if take == Take::Behind {
                reader.catch_up();
            }
            reader
        });
        publish(&window, &mut limit, 12);
        assert_each_once(reading.join().unwrap().look_to_the_end(), 3);
    });
}

/// A side store that keeps everything.
#[derive(Default)]
struct Everything {
    kept: Mutex<std::collections::VecDeque<(u64, u64)>>,
}

impl SideStore<u64, u64> for Arc<Everything> {
    fn overtake(
        &self,
        advance: &mut dyn FnMut() -> Option<Overtaken>,
        read: &mut ReadAt<'_, u64, u64>,
        _gone: &mut Vec<(u64, Option<u64>)>,
    ) {
        let mut kept = self.kept.lock();
        let Some(Overtaken { from, to }) = advance() else { return };
        for p in from..to {
            read(p, &mut |&value, _| kept.push_back((p, value)));
        }
    }
}

/// A subscriber that reads from the side store while it is behind.
struct SideReader {
    reader: Reader,
    store: Arc<Everything>,
}

impl SideReader {
    fn look(&mut self) -> bool {
        let Reader { window, cursor, line, .. } = &self.reader;
        match window.take(cursor, line, |p, value, _| (p, *value)) {
            Take::Got((p, value)) => {
                assert_eq!(value, p + 10);
                self.reader.see(p..p + 1);
                true
            }
            Take::Behind => {
                let mut kept = self.store.kept.lock();
                let next = kept.pop_front();
                if kept.is_empty() {
                    cursor.clear_behind();
                }
                drop(kept);
                if let Some((p, value)) = next {
                    assert_eq!(value, p + 10);
                    self.reader.see(p..p + 1);
                }
                true
            }
            Take::Nothing(_) => false,
        }
    }
}

fn kept_aside(window: &Arc<Numbers>) -> (Arc<Everything>, Arc<Cursor<u64, u64>>) {
    let store = Arc::new(Everything::default());
    let cursor = window.join_overtakable(Start::Oldest, Some(Box::new(store.clone())));
    (store, cursor)
}

#[test]
fn what_a_side_store_keeps_is_read_once_and_in_order() {
    check(|| {
        let window = window(1);
        let (store, cursor) = kept_aside(&window);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let reader = Reader::new(&window, &cursor);
        let mut reader = SideReader { reader, store };
        let reading = thread::spawn(move || {
            reader.look();
            reader.look();
            reader
        });
        publish(&window, &mut limit, 11);
        publish(&window, &mut limit, 12);
        let mut reader = reading.join().unwrap();
        while reader.look() {}
        assert_each_once(reader.reader.seen, 3);
    });
}

#[test]
fn competing_subscribers_of_a_side_store_each_see_positions_ascend() {
    check(|| {
        let window = window(1);
        let (store, cursor) = kept_aside(&window);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        let readers = [(); 2].map(|()| SideReader {
            reader: Reader::new(&window, &cursor),
            store: store.clone(),
        });
        let readers = readers.map(|mut reader| {
            thread::spawn(move || {
                while reader.look() {}
                reader.reader.seen
            })
        });
        assert_each_once(readers.map(|reader| reader.join().unwrap()).concat(), 2);
    });
}

#[test]
fn a_seek_forgets_what_a_side_store_kept_before_it() {
    check(|| {
        let window = window(1);
        let (store, cursor) = kept_aside(&window);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let seeking = {
            let (window, cursor, store) = (window.clone(), cursor.clone(), store.clone());
            thread::spawn(move || window.seek(&cursor, Start::Latest, |_| store.kept.lock().clear()))
        };
        publish(&window, &mut limit, 11);
        let (from, ()) = seeking.join().unwrap();
        let reader = Reader::new(&window, &cursor);
        let mut reader = SideReader { reader, store };
        while reader.look() {}
        assert_eq!(reader.reader.seen, (from..2).collect::<Vec<_>>());
    });
}
