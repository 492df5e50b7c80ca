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
    seen: Vec<u64>,
}

impl Reader {
    fn new(window: &Arc<Numbers>, cursor: &Arc<Cursor<u64, u64>>) -> Self {
        Self {
            window: window.clone(),
            cursor: cursor.clone(),
            line: window.line(),
            seen: Vec::new(),
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
            Take::Behind(Overtaken { from, to }) => {
                assert!(from < to);
                self.see(from..to);
                true
            }
            Take::Side => panic!("it has no side store"),
            Take::Nothing(_) => false,
        }
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
fn competing_subscribers_of_an_overtaken_cursor_are_told_each_position_once() {
    check(|| {
        let window = window(1);
        let cursor = window.join_overtakable(Start::Oldest, None);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let readers = [(); 2].map(|()| Reader::new(&window, &cursor)).map(|mut reader| {
            thread::spawn(move || {
                reader.look();
                reader.seen
            })
        });
        publish(&window, &mut limit, 11);
        let mut seen = readers.map(|reader| reader.join().unwrap()).concat();
        seen.extend(Reader::new(&window, &cursor).look_to_the_end());
        assert_each_once(seen, 2);
    });
}

#[test]
fn two_publishers_that_overtake_lose_nothing_in_silence() {
    check(|| {
        let window = window(1);
        let cursor = window.join_overtakable(Start::Oldest, None);
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
        assert_each_once(Reader::new(&window, &cursor).look_to_the_end(), published);
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
            if let Take::Behind(Overtaken { from, to }) = take {
                run.extend(from..to);
            }
            reader.seen = run;
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
            Take::Side => {
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
            Take::Behind(_) => panic!("it has a side store"),
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
            thread::spawn(move || window.seek(&cursor, Start::Latest, || store.kept.lock().clear()))
        };
        publish(&window, &mut limit, 11);
        let (from, _, ()) = seeking.join().unwrap();
        let reader = Reader::new(&window, &cursor);
        let mut reader = SideReader { reader, store };
        while reader.look() {}
        assert_eq!(reader.reader.seen, (from..2).collect::<Vec<_>>());
    });
}
