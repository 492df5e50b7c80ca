//! The window: claims, publication, gating cursors, joining, leaving, seeking, closing, runs.

use crate::models::{check, check_leaning, unwind};
use crate::ring::{Cursor, Line, Nothing, Start, Take, Window};
use crate::sync::{Arc, AtomicU64, Ordering::*, thread, yield_now};

pub(super) type Numbers = Window<u64, u64>;

pub(super) fn window(capacity: usize) -> Arc<Numbers> {
    Arc::new(Window::new(capacity, 0))
}

/// A subscriber: the value at a position is ten more than the position, unless a model says otherwise.
pub(super) struct Reader {
    window: Arc<Numbers>,
    cursor: Arc<Cursor<u64, u64>>,
    line: Arc<Line>,
}

impl Reader {
    pub(super) fn new(window: &Arc<Numbers>, cursor: &Arc<Cursor<u64, u64>>) -> Self {
        Self {
            window: window.clone(),
            cursor: cursor.clone(),
            line: window.line(),
        }
    }

    /// One attempt.
    pub(super) fn try_take(&self) -> Take<(u64, u64)> {
        let take = self.window.take(&self.cursor, &self.line, |p, value, _| (p, *value));
        if let Take::Got((p, _)) = take {
            self.window.tidy(&self.cursor, p);
        }
        take
    }

    /// Waits for the next value; `None` once the window is closed and read.
    pub(super) fn take(&self) -> Option<(u64, u64)> {
        loop {
            match self.try_take() {
                Take::Got(got) => return Some(got),
                Take::Nothing(Nothing::Closed) => return None,
                Take::Nothing(_) => yield_now(),
                other => panic!("nobody overtakes: {other:?}"),
            }
        }
    }

    /// The short way.
    fn pop(&self) -> Option<(u64, u64)> {
        self.window.pop(&self.cursor, &self.line, |p, value| (p, *value))
    }
}

pub(super) fn publish(window: &Numbers, limit: &mut u64, value: u64) -> u64 {
    loop {
        match window.claim_run(limit, 1, false) {
            Ok(claim) => return claim.fill(value, None),
            Err(_) => yield_now(),
        }
    }
}

fn sorted(mut got: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    got.sort_unstable();
    got
}

#[test]
fn two_publishers_never_share_a_slot() {
    check(|| {
        let window = window(2);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let publishers = [10, 20].map(|value| {
            let window = window.clone();
            thread::spawn(move || (publish(&window, &mut 0, value), value))
        });
        let got = [reader.take(), reader.take()].map(Option::unwrap);
        let published = publishers.map(|publisher| publisher.join().unwrap());
        assert_eq!(got.to_vec(), sorted(published.into()));
    });
}

#[test]
fn a_slot_is_written_again_only_after_its_cursor_has_passed() {
    check(|| {
        let window = window(1);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let publisher = {
            let window = window.clone();
            thread::spawn(move || {
                let mut limit = 0;
                [10, 11].map(|value| publish(&window, &mut limit, value))
            })
        };
        let got = [reader.take(), reader.take()].map(Option::unwrap);
        assert_eq!(got, [(0, 10), (1, 11)]);
        publisher.join().unwrap();
    });
}

#[test]
fn subscribers_of_one_cursor_read_each_position_once() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        publish(&window, &mut 0, 10);
        let readers = [Reader::new(&window, &cursor), Reader::new(&window, &cursor)];
        let readers = readers.map(|reader| {
            thread::spawn(move || match reader.try_take() {
                Take::Got(got) => vec![got],
                _ => Vec::new(),
            })
        });
        publish(&window, &mut 0, 11);
        let got = readers.map(|reader| reader.join().unwrap()).concat();
        let last = Reader::new(&window, &cursor).try_take();
        let rest = if let Take::Got(got) = last { vec![got] } else { Vec::new() };
        assert_eq!(sorted([got, rest].concat()), [(0, 10), (1, 11)]);
    });
}

#[test]
fn what_the_holder_of_a_head_reads_is_not_written_over() {
    check_leaning(2, || {
        let window = window(1);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let subscriber = thread::spawn(move || {
            // After the first, the head leans towards this thread.
            assert_eq!(reader.pop(), Some((0, 10)));
            reader.take()
        });
        publish(&window, &mut limit, 11);
        let third = window.push(limit, 12).is_ok() || window.claim_run(&mut limit, 1, false).map(|claim| claim.fill(12, None)).is_ok();
        assert_eq!(subscriber.join().unwrap(), Some((1, 11)), "a third was published: {third}");
    });
}

#[test]
fn the_short_way_is_gated_too() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let readers = [Reader::new(&window, &cursor), Reader::new(&window, &cursor)];
        let readers = readers.map(|reader| thread::spawn(move || reader.pop()));
        if window.push(limit, 11).is_err() {
            publish(&window, &mut limit, 11);
        }
        let mut got: Vec<_> = readers.into_iter().filter_map(|reader| reader.join().unwrap()).collect();
        got.extend(Reader::new(&window, &cursor).pop());
        assert_eq!(sorted(got), [(0, 10), (1, 11)]);
    });
}

#[test]
fn every_cursor_reads_everything() {
    check(|| {
        let window = window(1);
        let readers = [(); 2].map(|()| Reader::new(&window, &window.join(Start::Oldest)));
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let readers = readers.map(|reader| {
            thread::spawn(move || {
                assert_eq!(reader.take(), Some((0, 10)));
                reader
            })
        });
        publish(&window, &mut limit, 11);
        for reader in readers {
            assert_eq!(reader.join().unwrap().take(), Some((1, 11)));
        }
    });
}

#[test]
fn publishers_may_share_their_memory_of_the_limit() {
    // A topic's shared handle keeps the limit in a variable that is read and written Relaxed.
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        let limit = Arc::new(AtomicU64::new(0));
        publish(&window, &mut 0, 10);
        let reader = Reader::new(&window, &cursor);
        let reader = thread::spawn(move || {
            assert_eq!(reader.take(), Some((0, 10)));
            reader
        });
        let other = {
            let (window, limit) = (window.clone(), limit.clone());
            thread::spawn(move || {
                let mut mine = limit.load(Relaxed);
                let published = window.claim_run(&mut mine, 1, false).map(|claim| claim.fill(11, None));
                limit.store(mine, Relaxed);
                published.ok()
            })
        };
        let mine = window.push(limit.load(Relaxed), 12).ok();
        let others = other.join().unwrap();
        let reader = reader.join().unwrap();
        match (mine, others) {
            (None, None) => assert!(matches!(reader.try_take(), Take::Nothing(Nothing::Empty))),
            (Some(1), None) => assert_eq!(reader.take(), Some((1, 12))),
            (None, Some(1)) => assert_eq!(reader.take(), Some((1, 11))),
            both => panic!("there is room for one: {both:?}"),
        }
    });
}

#[test]
fn a_run_of_positions_is_published_and_taken_whole_or_in_parts() {
    check(|| {
        let window = window(2);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let publisher = {
            let window = window.clone();
            thread::spawn(move || {
                let (mut limit, mut values) = (0, vec![10, 11, 12]);
                while !values.is_empty() {
                    match window.claim_run(&mut limit, 3, false) {
                        Ok(claim) => {
                            let n = claim.len().min(values.len());
                            assert_eq!(n, claim.len(), "a window of two grants no more");
                            claim.fill_run(values.drain(..n));
                        }
                        Err(_) => yield_now(),
                    }
                    if values.len() == 1 {
                        publish(&window, &mut limit, values.remove(0));
                    }
                }
            })
        };
        let mut got = Vec::new();
        while got.len() < 3 {
            let took = reader
                .window
                .take_run(&reader.cursor, &reader.line, 2, |p, value, _| got.push((p, *value)), |_, _| ());
            if !matches!(took, Take::Got(_)) {
                yield_now();
            }
        }
        publisher.join().unwrap();
        assert_eq!(got, [(0, 10), (1, 11), (2, 12)]);
    });
}

#[test]
fn a_run_that_unwinds_gives_back_what_it_did_not_read() {
    check(|| {
        let window = window(2);
        let cursor = window.join(Start::Oldest);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        let (first, second) = (Reader::new(&window, &cursor), Reader::new(&window, &cursor));
        let lost = Arc::new(std::sync::Mutex::new(Vec::new()));
        let unwinding = {
            let lost = lost.clone();
            thread::spawn(move || {
                let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    first.window.take_run(
                        &first.cursor,
                        &first.line,
                        2,
                        |p, _, _| {
                            lost.lock().unwrap().push(p);
                            unwind();
                        },
                        |from, to| lost.lock().unwrap().extend(from..to),
                    )
                }));
                drop(took);
            })
        };
        let mut got: Vec<u64> = match second.try_take() {
            Take::Got((p, _)) => vec![p],
            _ => Vec::new(),
        };
        publish(&window, &mut limit, 12);
        unwinding.join().unwrap();
        while let Take::Got((p, value)) = second.try_take() {
            assert_eq!(value, p + 10);
            got.push(p);
        }
        got.extend(&*lost.lock().unwrap());
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2], "each position is read or told lost, once");
    });
}

#[test]
fn a_cursor_that_joins_reads_everything_from_where_it_joined() {
    check(|| {
        let window = window(1);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let joiner = {
            let window = window.clone();
            thread::spawn(move || {
                let cursor = window.join(Start::Oldest);
                let from = cursor.position();
                let got = Reader::new(&window, &cursor).take().unwrap();
                assert_eq!(got, (from, from + 10));
            })
        };
        // Nobody gates until the joiner has come: then this waits for it.
        publish(&window, &mut limit, 11);
        joiner.join().unwrap();
    });
}

#[test]
fn a_cursor_that_joins_at_the_end_misses_nothing_after_it() {
    check(|| {
        let window = window(2);
        let first = Reader::new(&window, &window.join(Start::Oldest));
        let joiner = {
            let window = window.clone();
            thread::spawn(move || {
                let cursor = window.join(Start::Latest);
                let from = cursor.position();
                (cursor, from)
            })
        };
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        publish(&window, &mut limit, 11);
        first.take().unwrap();
        let third = window.claim_run(&mut limit, 1, false).map(|claim| claim.fill(12, None));
        let (cursor, from) = joiner.join().unwrap();
        let late = Reader::new(&window, &cursor);
        let end = if third.is_ok() { 3 } else { 2 };
        for p in from..end {
            assert_eq!(late.take(), Some((p, p + 10)));
        }
    });
}

#[test]
fn whoever_reads_while_its_cursor_leaves_reads_its_own_position_or_nothing() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let reader = Reader::new(&window, &cursor);
        let reading = thread::spawn(move || match reader.try_take() {
            Take::Got(got) => assert_eq!(got, (0, 10)),
            Take::Nothing(_) => {}
            other => panic!("nobody overtakes: {other:?}"),
        });
        window.leave(&cursor);
        publish(&window, &mut limit, 11);
        reading.join().unwrap();
    });
}

#[test]
fn a_cursor_that_has_left_is_not_brought_back_by_a_seek() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let seeking = {
            let (window, cursor) = (window.clone(), cursor.clone());
            thread::spawn(move || {
                window.seek(&cursor, Start::Oldest, |_| ());
                let reader = Reader::new(&window, &cursor);
                if let Take::Got((p, value)) = reader.try_take() {
                    assert_eq!(value, p + 10);
                }
            })
        };
        window.leave(&cursor);
        publish(&window, &mut limit, 11);
        seeking.join().unwrap();
    });
}

#[test]
fn a_cursor_that_leaves_lets_the_publisher_go_on() {
    check(|| {
        let window = window(1);
        let (stays, leaves) = (window.join(Start::Oldest), window.join(Start::Oldest));
        let reader = Reader::new(&window, &stays);
        let publisher = {
            let window = window.clone();
            thread::spawn(move || {
                let mut limit = 0;
                publish(&window, &mut limit, 10);
                publish(&window, &mut limit, 11);
            })
        };
        window.leave(&leaves);
        assert_eq!([reader.take(), reader.take()], [Some((0, 10)), Some((1, 11))]);
        publisher.join().unwrap();
    });
}

#[test]
fn a_seek_back_never_returns_to_a_slot_that_was_freed() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        let mut limit = 0;
        publish(&window, &mut limit, 10);
        let reader = Reader::new(&window, &cursor);
        let reading = thread::spawn(move || {
            for _ in 0..2 {
                if let Take::Got((p, value)) = reader.try_take() {
                    assert_eq!(value, p + 10);
                }
            }
        });
        let seeking = {
            let (window, cursor) = (window.clone(), cursor.clone());
            thread::spawn(move || window.seek(&cursor, Start::At(0), |_| ()))
        };
        if let Ok(claim) = window.claim_run(&mut limit, 1, false) {
            claim.fill(11, None);
        }
        seeking.join().unwrap();
        reading.join().unwrap();
        assert!(cursor.position() >= window.start());
    });
}

#[test]
fn a_seek_to_the_end_frees_what_it_skips() {
    check(|| {
        let window = window(1);
        let cursor = window.join(Start::Oldest);
        publish(&window, &mut 0, 10);
        let reader = Reader::new(&window, &cursor);
        let publisher = {
            let window = window.clone();
            thread::spawn(move || publish(&window, &mut 0, 11))
        };
        window.seek(&cursor, Start::Latest, |_| ());
        assert_eq!(publisher.join().unwrap(), 1);
        // The publisher could only go on because the cursor was moved; what it published comes next.
        assert_eq!(reader.take(), Some((1, 11)));
    });
}

#[test]
fn what_was_accepted_before_the_close_is_read_and_nothing_after() {
    check(|| {
        let window = window(2);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let publisher = {
            let window = window.clone();
            thread::spawn(move || window.claim_run(&mut 0, 1, false).map(|claim| claim.fill(10, None)).is_ok())
        };
        let reading = thread::spawn(move || std::iter::from_fn(|| reader.take()).count());
        window.close();
        assert!(window.claim_run(&mut 0, 1, false).is_err());
        let accepted = publisher.join().unwrap();
        assert_eq!(reading.join().unwrap(), usize::from(accepted));
    });
}

#[test]
fn an_attachment_is_read_with_its_value() {
    check(|| {
        let window = window(1);
        let reader = Reader::new(&window, &window.join(Start::Oldest));
        let publisher = {
            let window = window.clone();
            thread::spawn(move || {
                let mut limit = 0;
                window.prepare_attachments();
                for value in [10, 11] {
                    let claim = loop {
                        match window.claim_run(&mut limit, 1, false) {
                            Ok(claim) => break claim,
                            Err(_) => yield_now(),
                        }
                    };
                    claim.fill(value, Some(value * 10));
                }
            })
        };
        for p in 0..2 {
            loop {
                let take = reader
                    .window
                    .take(&reader.cursor, &reader.line, |p, value, with| (p, *value, with.map(|with| *with)));
                match take {
                    Take::Got(got) => break assert_eq!(got, (p, p + 10, Some((p + 10) * 10))),
                    _ => yield_now(),
                }
            }
        }
        publisher.join().unwrap();
    });
}
