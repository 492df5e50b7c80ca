//! The queue: claims, publication, slots that are freed by their stamp, closing.

use crate::models::check;
use crate::ring::{Nothing, Queue, Refusal};
use crate::sync::{Arc, thread, yield_now};

type Numbers = Queue<u64, u64>;

fn queue(capacity: usize) -> Arc<Numbers> {
    Arc::new(Queue::new(capacity, 0))
}

/// Waits for the next value; `None` once the queue is closed and empty.
fn take(queue: &Numbers) -> Option<(u64, u64)> {
    loop {
        match queue.take() {
            Ok((p, value, _)) => return Some((p, value)),
            Err(Nothing::Closed) => return None,
            Err(_) => yield_now(),
        }
    }
}

fn publish(queue: &Numbers, value: u64) -> u64 {
    loop {
        match queue.claim_run(1, false) {
            Ok(claim) => return claim.fill(value, None),
            Err(Refusal::Closed) => panic!("nobody closes it"),
            Err(_) => yield_now(),
        }
    }
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

#[test]
fn two_publishers_and_a_reader_lose_and_repeat_nothing() {
    check(|| {
        let queue = queue(2);
        let publishers = [1, 2].map(|value| {
            let queue = queue.clone();
            thread::spawn(move || queue.push(value).unwrap_or_else(|value| publish(&queue, value)))
        });
        let got = [take(&queue), take(&queue)].map(Option::unwrap);
        let positions = publishers.map(|publisher| publisher.join().unwrap());
        assert_eq!(sorted(positions.into()), [0, 1]);
        assert_eq!(sorted(got.map(|(_, value)| value).into()), [1, 2]);
        assert_eq!(got.map(|(p, _)| p), [0, 1]);
    });
}

#[test]
fn two_readers_share_what_was_published() {
    check(|| {
        let queue = queue(2);
        let reader = {
            let queue = queue.clone();
            thread::spawn(move || [queue.pop(), queue.pop()])
        };
        assert_eq!(queue.push(1), Ok(0));
        assert_eq!(queue.push(2), Ok(1));
        let mine = queue.pop();
        let others = reader.join().unwrap();
        let rest = [queue.pop(), queue.pop()];
        let all = others.into_iter().chain([mine]).chain(rest).flatten().map(|(_, value)| value);
        assert_eq!(sorted(all.collect()), [1, 2]);
    });
}

#[test]
fn a_slot_is_written_again_only_after_its_reader_has_left() {
    check(|| {
        let queue = queue(1);
        let reader = {
            let queue = queue.clone();
            thread::spawn(move || [take(&queue), take(&queue), take(&queue)].map(Option::unwrap))
        };
        let positions = [10, 11, 12].map(|value| publish(&queue, value));
        assert_eq!(positions, [0, 1, 2]);
        assert_eq!(reader.join().unwrap(), [(0, 10), (1, 11), (2, 12)]);
    });
}

#[test]
fn the_short_way_frees_a_slot_too() {
    check(|| {
        let queue = queue(1);
        let reader = {
            let queue = queue.clone();
            thread::spawn(move || {
                std::iter::repeat_with(|| queue.pop().or_else(|| (yield_now(), None).1))
                    .flatten()
                    .take(2)
                    .collect::<Vec<_>>()
            })
        };
        for value in [10, 11] {
            while queue.push(value).is_err() {
                yield_now();
            }
        }
        assert_eq!(reader.join().unwrap(), [(0, 10), (1, 11)]);
    });
}

#[test]
fn a_full_queue_says_busy_only_while_a_reader_leaves_the_slot() {
    check(|| {
        let queue = queue(1);
        publish(&queue, 10);
        let reader = {
            let queue = queue.clone();
            thread::spawn(move || take(&queue))
        };
        let position = loop {
            match queue.claim_run(1, false) {
                Ok(claim) => break claim.fill(11, None),
                Err(Refusal::Busy) => assert_eq!(queue.start(), 1, "the reader has claimed"),
                Err(refusal) => assert_eq!(refusal, Refusal::Full(1)),
            }
            yield_now();
        };
        assert_eq!((position, reader.join().unwrap()), (1, Some((0, 10))));
    });
}

#[test]
fn runs_of_two_publishers_stay_whole() {
    check(|| {
        let queue = queue(4);
        let run = |first: u64| {
            let queue = queue.clone();
            move || {
                let claim = queue.claim_run(2, false).ok().expect("there is room for both");
                assert_eq!(claim.len(), 2);
                claim.fill_run(vec![first, first + 1].drain(..))
            }
        };
        let other = thread::spawn(run(10));
        let mine = run(20)();
        let others = other.join().unwrap();
        let mut got = Vec::new();
        while queue.take_run(3, |p, value, _| got.push((p, value))).is_ok() {}
        let expected = |from: u64, first: u64| [(from, first), (from + 1, first + 1)];
        let mut all = [expected(mine, 20), expected(others, 10)].concat();
        all.sort_unstable();
        assert_eq!(got, all);
    });
}

#[test]
fn a_run_is_taken_while_it_is_being_published() {
    check(|| {
        let queue = queue(2);
        let publisher = {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut values = vec![1, 2, 3];
                while !values.is_empty() {
                    match queue.claim_run(values.len(), false) {
                        Ok(claim) => {
                            let n = claim.len();
                            claim.fill_run(values.drain(..n));
                        }
                        Err(_) => yield_now(),
                    }
                }
            })
        };
        let mut got = Vec::new();
        while got.len() < 3 {
            if queue.take_run(2, |_, value, _| got.push(value)).is_err() {
                yield_now();
            }
        }
        publisher.join().unwrap();
        assert_eq!(got, [1, 2, 3]);
    });
}

#[test]
fn a_run_and_a_single_take_compete_for_each_value_once() {
    check(|| {
        let queue = queue(2);
        publish(&queue, 1);
        publish(&queue, 2);
        let single = {
            let queue = queue.clone();
            thread::spawn(move || queue.pop())
        };
        let mut got = Vec::new();
        let _ = queue.take_run(2, |_, value, _| got.push(value));
        got.extend(single.join().unwrap().map(|(_, value)| value));
        got.extend(queue.pop().map(|(_, value)| value));
        assert_eq!(sorted(got), [1, 2]);
    });
}

#[test]
fn what_was_accepted_before_the_close_is_taken_and_nothing_after() {
    check(|| {
        let queue = queue(2);
        let publisher = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(1).is_ok())
        };
        let reader = {
            let queue = queue.clone();
            thread::spawn(move || std::iter::from_fn(|| take(&queue)).count())
        };
        queue.close();
        assert!(queue.push(2).is_err());
        let accepted = publisher.join().unwrap();
        assert_eq!(reader.join().unwrap(), usize::from(accepted));
    });
}

#[test]
fn an_attachment_travels_with_its_value() {
    check(|| {
        let queue = queue(1);
        let publisher = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.prepare_attachments();
                queue.claim_run(1, false).ok().expect("it is empty").fill(1, Some(10));
                loop {
                    match queue.claim_run(1, false) {
                        Ok(claim) => return claim.fill(2, Some(20)),
                        Err(_) => yield_now(),
                    }
                }
            })
        };
        for expected in [(0, 1, Some(10)), (1, 2, Some(20))] {
            let got = loop {
                assert_eq!(queue.pop(), None, "the short way leaves attachments alone");
                match queue.take() {
                    Ok(got) => break got,
                    Err(_) => yield_now(),
                }
            };
            assert_eq!(got, expected);
        }
        publisher.join().unwrap();
    });
}
