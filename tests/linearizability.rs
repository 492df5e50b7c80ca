//! Linearizability: what real threads saw, against a sequential model of a topic and its subscriptions.
//!
//! Threads record what they did and what came of it, each operation with the moments of its call and its return. A history is right if there is an
//! order of all operations that keeps those of non-overlapping ones and in which every result is what the model says: the search of Wing and Gong,
//! with the states that were seen before left out (Lowe). So there is no false `Full` or `Empty`, no early `Closed`, no lost or doubled message, in
//! any history that was recorded (G1 to G3; failure catalogue A7, A9, A10, A20).
//!
//! Batches are not atomic, and are checked as the run of single operations that they promise to be. A subscription that drops its oldest messages is
//! moved on by a publisher before that publisher's message enters, so those are two steps.
//!
//! `RINGMQ_LIN_HISTORIES` (default 1,500) histories, over all shapes; `RINGMQ_SEED` repeats the operations, not the schedule.

mod matrix_support;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use matrix_support::*;
use ringmq::{Backoff, Broker, Delivery, Offset, Overflow, PublishError, Start, SubscribeOptions, TryRecvError};

/// One operation with its result.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// Entered at this offset, if that is known.
    Published {
        value: u64,
        at: Option<u64>,
    },
    PublishFull,
    PublishClosed,
    /// Room made by a publisher for the message that it publishes next, or not.
    MakeRoom,
    Received {
        sub: usize,
        value: u64,
        at: u64,
        attempt: u32,
    },
    Lagged {
        sub: usize,
        from: u64,
        to: u64,
    },
    Empty {
        sub: usize,
        /// Another receive of the subscription was under way, which may hold credit for a moment before it finds nothing.
        beside: bool,
    },
    EndOfSub {
        sub: usize,
    },
    Ack {
        sub: usize,
        at: u64,
    },
    Nack {
        sub: usize,
        at: u64,
    },
    Seek {
        sub: usize,
        to: Option<u64>,
        at: u64,
    },
    Close,
    Join {
        sub: usize,
    },
    Leave {
        sub: usize,
    },
}

#[derive(Clone, Debug)]
struct Event {
    op: Op,
    call: u64,
    ret: u64,
}

/// What each thread did, in its order.
type History = Vec<Vec<Event>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sub {
    position: u64,
    ready: VecDeque<(u64, u32)>,
    in_flight: BTreeMap<u64, u32>,
    /// Overtaken from here, not told yet.
    behind_from: Option<u64>,
    fresh_first: bool,
    here: bool,
}

/// The sequential model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    messages: Vec<u64>,
    closed: bool,
    subs: Vec<Sub>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    capacity: u64,
    overflow: [Overflow; 2],
    subs: usize,
    threads: usize,
    lively: bool,
}

impl Model {
    fn new(shape: &Shape) -> Self {
        let sub = |here| Sub {
            position: 0,
            ready: VecDeque::new(),
            in_flight: BTreeMap::new(),
            behind_from: None,
            fresh_first: false,
            here,
        };
        // One more that may join, and may leave.
        let mut subs = vec![sub(true); shape.subs];
        subs.push(sub(false));
        Self {
            messages: Vec::new(),
            closed: false,
            subs,
        }
    }

    fn gates(shape: &Shape, sub: usize) -> bool {
        shape.overflow[sub.min(1)] != Overflow::DropOldest
    }

    /// Room for one more, if it takes that; `false`: full.
    fn make_room(&mut self, shape: &Shape) -> bool {
        let t = self.messages.len() as u64;
        let want = (t + 1).saturating_sub(shape.capacity);
        if (0..self.subs.len()).any(|s| self.subs[s].here && Self::gates(shape, s) && self.subs[s].position < want) {
            return false;
        }
        for sub in self.subs.iter_mut().filter(|sub| sub.here && sub.position < want) {
            sub.behind_from.get_or_insert(sub.position);
            sub.position = want;
        }
        true
    }

    /// What follows if `op` happens now; nothing if it cannot.
    fn apply(&self, shape: &Shape, op: &Op) -> Vec<Self> {
        let mut next = self.clone();
        let end = self.messages.len() as u64;
        let happens = match *op {
            Op::Published { value, at } => {
                let happens = !self.closed && next.make_room(shape) && at.is_none_or(|at| at == end);
                next.messages.push(value);
                happens
            }
            Op::PublishFull => !self.closed && !next.make_room(shape),
            Op::PublishClosed => self.closed,
            Op::MakeRoom => {
                let made = next.make_room(shape);
                return if made && next != *self {
                    vec![self.clone(), next]
                } else {
                    vec![self.clone()]
                };
            }
            Op::Received { sub, value, at, attempt } => {
                let sub = &mut next.subs[sub];
                let again = sub.ready.front() == Some(&(at, attempt - 1));
                let fresh = attempt == 1 && sub.position == at && at < end;
                if fresh {
                    sub.position += 1;
                } else {
                    sub.ready.pop_front();
                }
                sub.in_flight.insert(at, attempt);
                sub.here && (again || (fresh && sub.behind_from.is_none())) && self.messages.get(at as usize) == Some(&value)
            }
            Op::Lagged { sub, from, to } => {
                let sub = &mut next.subs[sub];
                sub.here && sub.behind_from.take() == Some(from) && sub.position == to
            }
            Op::Empty { sub, beside } => {
                let sub = &self.subs[sub];
                let nothing = sub.ready.is_empty() && sub.position == end && sub.behind_from.is_none();
                sub.here && nothing && !(self.closed && sub.in_flight.is_empty() && !beside)
            }
            Op::EndOfSub { sub } => {
                let sub = &self.subs[sub];
                let nothing = sub.ready.is_empty() && sub.position == end && sub.behind_from.is_none();
                !sub.here || (self.closed && nothing && sub.in_flight.is_empty())
            }
            Op::Ack { sub, at } => next.subs[sub].in_flight.remove(&at).is_some(),
            Op::Nack { sub, at } => match next.subs[sub].in_flight.remove(&at) {
                Some(attempt) => {
                    next.subs[sub].ready.push_back((at, attempt));
                    true
                }
                None => false,
            },
            Op::Seek { sub, to, at } => {
                let lowest = self.subs.iter().filter(|sub| sub.here).map(|sub| sub.position).min().unwrap_or(end);
                let sub = &mut next.subs[sub];
                sub.position = at;
                sub.behind_from = None;
                let nearest = match to {
                    None => at == end,
                    Some(to) if to >= end => at == end,
                    // The oldest message that is held, which is not older than a lap and not newer than what somebody has yet to see.
                    Some(to) => at == to || (at > to && at <= lowest),
                };
                nearest && at <= end && at + shape.capacity >= end
            }
            Op::Close => {
                next.closed = true;
                true
            }
            Op::Join { sub } => {
                next.subs[sub].here = true;
                next.subs[sub].position = end;
                !self.closed && !self.subs[sub].here
            }
            Op::Leave { sub } => {
                next.subs[sub].here = false;
                self.subs[sub].here
            }
        };
        if happens { vec![next] } else { Vec::new() }
    }
}

/// What the search says about a history.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Explained,
    Wrong,
    /// Too many operations overlap: given up.
    Undecided,
}

/// How many states one search may look at.
const STATES_MAX: usize = 60_000;

struct Search<'h> {
    shape: &'h Shape,
    history: &'h History,
    done: Vec<usize>,
    /// Hashes of what was looked at.
    seen: HashSet<u64>,
}

impl Search<'_> {
    fn run(&mut self, model: &Model) -> Verdict {
        // The next may be whatever was called before the first return of those that are left.
        let pending = self.done.iter().zip(self.history).filter_map(|(&at, thread)| thread.get(at));
        let Some(first_return) = pending.map(|event| event.ret).min() else {
            return Verdict::Explained;
        };
        let mut hasher = DefaultHasher::new();
        (&self.done, model).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return Verdict::Wrong;
        }
        if self.seen.len() > STATES_MAX {
            return Verdict::Undecided;
        }
        for thread in 0..self.history.len() {
            let Some(event) = self.history[thread].get(self.done[thread]) else {
                continue;
            };
            if event.call > first_return {
                continue;
            }
            for next in model.apply(self.shape, &event.op) {
                self.done[thread] += 1;
                let verdict = self.run(&next);
                if verdict != Verdict::Wrong {
                    return verdict;
                }
                self.done[thread] -= 1;
            }
        }
        Verdict::Wrong
    }
}

/// Whether there is an order that explains the history.
fn judge(shape: &Shape, history: &History) -> Verdict {
    let mut search = Search {
        shape,
        history,
        done: vec![0; history.len()],
        seen: HashSet::new(),
    };
    search.run(&Model::new(shape))
}

/// Runs one history with real threads.
fn record(shape: &Shape, seed: u64) -> History {
    let broker = Broker::open("mem:").unwrap();
    let topic = broker
        .topic_with::<u64>("t", shape.kind.options().capacity(shape.capacity as usize))
        .unwrap();
    let options = |s: usize| {
        SubscribeOptions::new(&format!("s{s}"))
            .overflow(shape.overflow[s.min(1)])
            .start(if shape.kind == Kind::Queue {
                Start::Earliest
            } else {
                Start::Latest
            })
            .max_failures(1_000)
            .backoff(Backoff::none())
    };
    let subs: Vec<_> = (0..shape.subs).map(|s| topic.subscribe_with(options(s)).unwrap()).collect();
    let clock = AtomicU64::new(0);
    let waiting = AtomicUsize::new(shape.threads);
    let drops = (0..=shape.subs).any(|s| !Model::gates(shape, s));
    let make_room = drops.then_some(Op::MakeRoom);
    let work = |thread: usize| {
        let mut random = Random(seed ^ (thread as u64) << 32);
        let mut publisher = topic.publisher();
        let mut receivers: Vec<_> = subs.iter().map(|sub| sub.subscriber()).collect();
        let mut held: Vec<(usize, Delivery<u64>)> = Vec::new();
        let mut joined = None;
        let mut done: Vec<Event> = Vec::new();
        let operations = 12 / shape.threads + random.below(3);
        let (mut values, mut out) = ((thread as u64 + 1) * 100, Vec::new());
        waiting.fetch_sub(1, SeqCst);
        while waiting.load(SeqCst) > 0 {
            std::hint::spin_loop();
        }
        for _ in 0..operations {
            let sub = random.below(shape.subs);
            let choice = random.below(if shape.lively { 20 } else { 13 });
            let call = clock.fetch_add(1, SeqCst);
            let mut ops = Vec::new();
            let received = |sub: usize, held: &mut Vec<(usize, Delivery<u64>)>, delivery: Delivery<u64>| {
                let op = Op::Received {
                    sub,
                    value: *delivery,
                    at: delivery.offset().get(),
                    attempt: delivery.attempt(),
                };
                held.push((sub, delivery));
                op
            };
            let refused = |sub, refused| match refused {
                TryRecvError::Empty => Op::Empty { sub, beside: false },
                TryRecvError::Closed => Op::EndOfSub { sub },
                TryRecvError::Lagged(lagged) => Op::Lagged {
                    sub,
                    from: lagged.from.get(),
                    to: lagged.to.get(),
                },
                other => panic!("{other}"),
            };
            match choice {
                0..=3 => {
                    values += 1;
                    let result = match choice {
                        0 => topic.try_publish(values),
                        1 => publisher.publish_timeout(values, Duration::from_micros(20)),
                        _ => publisher.try_publish(values),
                    };
                    ops.extend(make_room.clone());
                    ops.push(match result {
                        Ok(receipt) => Op::Published {
                            value: values,
                            at: Some(receipt.offset().get()),
                        },
                        Err(PublishError::Full(_) | PublishError::Timeout(_)) => Op::PublishFull,
                        Err(PublishError::Closed(_)) => Op::PublishClosed,
                        Err(other) => panic!("{other}"),
                    });
                }
                4 => {
                    let all: Vec<u64> = (values + 1..=values + 2).collect();
                    values += 2;
                    let (left, failure) = match publisher.publish_batch_deadline(all.clone(), Instant::now()) {
                        Ok(_) => (0, None),
                        Err(PublishError::Closed(left)) => (left.len(), Some(Op::PublishClosed)),
                        Err(PublishError::Full(left) | PublishError::Timeout(left)) => (left.len(), Some(Op::PublishFull)),
                        Err(other) => panic!("{other}"),
                    };
                    for &value in &all[..all.len() - left] {
                        ops.extend(make_room.clone());
                        ops.push(Op::Published { value, at: None });
                    }
                    // One that is refused may have made room first.
                    ops.extend(make_room.clone().filter(|_| failure.is_some()));
                    ops.extend(failure);
                }
                5..=7 => ops.push(match receivers[sub].try_recv() {
                    Ok(delivery) => received(sub, &mut held, delivery),
                    Err(other) => refused(sub, other),
                }),
                8 => ops.push(match subs[sub].try_recv() {
                    Ok(delivery) => received(sub, &mut held, delivery),
                    Err(other) => refused(sub, other),
                }),
                9 => match receivers[sub].try_recv_batch(&mut out, 2) {
                    Ok(_) => ops.extend(out.drain(..).map(|delivery| received(sub, &mut held, delivery))),
                    Err(other) => ops.push(refused(sub, other)),
                },
                10..=12 if held.is_empty() => {}
                10 | 11 => {
                    let (sub, delivery) = held.remove(random.below(held.len()));
                    ops.push(Op::Nack {
                        sub,
                        at: delivery.offset().get(),
                    });
                    delivery.nack().unwrap();
                }
                12 => {
                    let (sub, delivery) = held.remove(random.below(held.len()));
                    ops.push(Op::Ack {
                        sub,
                        at: delivery.offset().get(),
                    });
                    delivery.ack().unwrap();
                }
                // A seek tells what was lost before, in a step of its own: only where nothing is.
                13 if shape.kind == Kind::Window && !drops => {
                    let at = subs[sub].seek(Start::Latest).unwrap().get();
                    ops.push(Op::Seek { sub, to: None, at });
                }
                // Two threads that seek and receive may well hold the same message twice: only the first does.
                14 | 15 if shape.kind == Kind::Window && !drops && held.is_empty() && shape.threads == 2 && thread == 0 => {
                    let to = random.below(6) as u64;
                    let at = subs[sub].seek(Start::At(Offset::new(to))).unwrap().get();
                    ops.push(Op::Seek { sub, to: Some(to), at });
                }
                16 if random.below(3) == 0 => {
                    topic.close();
                    ops.push(Op::Close);
                }
                17..=19 if shape.kind == Kind::Window && thread == 0 => match joined.take() {
                    None if done.iter().any(|event| matches!(event.op, Op::Join { .. })) => {}
                    None => {
                        if let Ok(new) = topic.subscribe_with(options(shape.subs)) {
                            joined = Some(new);
                            ops.push(Op::Join { sub: shape.subs });
                        }
                    }
                    Some(sub) => {
                        sub.unsubscribe();
                        ops.push(Op::Leave { sub: shape.subs });
                    }
                },
                _ => {}
            }
            let ret = clock.fetch_add(1, SeqCst);
            done.extend(ops.into_iter().map(|op| Event { op, call, ret }));
        }
        // What is held at the end is neither acked nor given back within the history.
        held.into_iter().for_each(|(_, delivery)| std::mem::forget(delivery));
        std::mem::forget(joined);
        done
    };
    let mut history: History = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..shape.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    note_company(&mut history);
    history
}

/// Notes of each `Empty` whether another receive of its subscription was under way.
fn note_company(history: &mut History) {
    let receives = |event: &Event| match event.op {
        Op::Received { sub, .. } | Op::Lagged { sub, .. } | Op::Empty { sub, .. } | Op::EndOfSub { sub } => {
            Some((sub, event.call, event.ret))
        }
        _ => None,
    };
    let all: Vec<_> = history.iter().flatten().filter_map(receives).collect();
    for event in history.iter_mut().flatten() {
        if let Op::Empty { sub, beside } = &mut event.op {
            *beside = all
                .iter()
                .any(|&(other, call, ret)| other == *sub && call != event.call && call < event.ret && ret > event.call);
        }
    }
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for threads in [2, 3, 4] {
        for capacity in [1, 2, 4] {
            for lively in [false, true] {
                for overflow in [Overflow::Block, Overflow::Fail] {
                    shapes.push(Shape {
                        kind: Kind::Queue,
                        capacity,
                        overflow: [overflow; 2],
                        subs: 1,
                        threads,
                        lively,
                    });
                }
                for (subs, overflow) in [
                    (1, [Overflow::Block, Overflow::Block]),
                    (2, [Overflow::Fail, Overflow::Block]),
                    (1, [Overflow::DropOldest, Overflow::Block]),
                    (2, [Overflow::Block, Overflow::DropOldest]),
                    (2, [Overflow::DropOldest, Overflow::DropOldest]),
                ] {
                    shapes.push(Shape {
                        kind: Kind::Window,
                        capacity,
                        overflow,
                        subs,
                        threads,
                        lively,
                    });
                }
            }
        }
    }
    shapes
}

#[test]
fn everything_that_real_threads_saw_can_be_explained_by_one_order() {
    let mut random = Random(seed("linearizability"));
    let histories = size("RINGMQ_LIN_HISTORIES", 1_500);
    let shapes = shapes();
    let (mut operations, mut undecided) = (0, 0);
    for n in 0..histories {
        let shape = &shapes[n % shapes.len()];
        let history = record(shape, random.next());
        operations += history.iter().map(Vec::len).sum::<usize>();
        let verdict = judge(shape, &history);
        undecided += usize::from(verdict == Verdict::Undecided);
        if verdict == Verdict::Wrong {
            println!("history {n}, {shape:?}");
            for (thread, events) in history.iter().enumerate() {
                for event in events {
                    println!("  {thread}: {:3} to {:3}  {:?}", event.call, event.ret, event.op);
                }
            }
            panic!("no order of these operations explains their results");
        }
    }
    println!("{histories} histories, {operations} operations, {undecided} too entangled to judge");
    assert!(
        undecided * 20 <= histories,
        "{undecided} of {histories} histories are too entangled to judge"
    );
}

/// The checker itself: histories that are right, and the same with one thing wrong.
#[test]
fn the_checker_tells_right_from_wrong() {
    let shape = Shape {
        kind: Kind::Window,
        capacity: 2,
        overflow: [Overflow::Block, Overflow::Block],
        subs: 1,
        threads: 2,
        lively: true,
    };
    let event = |call, ret, op| Event { op, call, ret };
    let published = |value, at| Op::Published { value, at: Some(at) };
    let received = |value, at, attempt| Op::Received {
        sub: 0,
        value,
        at,
        attempt,
    };
    let empty = Op::Empty { sub: 0, beside: false };
    let right: History = vec![
        vec![
            event(0, 3, published(1, 0)),
            event(4, 5, published(2, 1)),
            event(8, 9, Op::PublishFull),
            event(14, 20, published(3, 2)),
        ],
        vec![
            event(1, 2, empty.clone()),
            event(6, 13, received(1, 0, 1)),
            event(15, 16, Op::Nack { sub: 0, at: 0 }),
            event(17, 18, received(1, 0, 2)),
            event(19, 21, received(2, 1, 1)),
        ],
    ];
    assert_eq!(judge(&shape, &right), Verdict::Explained);
    let wrong: [(&str, usize, usize, Event); 9] = [
        ("a value that nobody published", 1, 1, event(6, 13, received(7, 0, 1))),
        ("a message before it was published", 1, 0, event(1, 2, received(2, 1, 1))),
        ("a message left out", 1, 4, event(19, 21, received(3, 2, 1))),
        ("a message twice", 1, 4, event(19, 21, received(1, 0, 1))),
        ("an attempt left out", 1, 3, event(17, 18, received(1, 0, 3))),
        ("a false Full", 0, 1, event(4, 5, Op::PublishFull)),
        ("a false Empty", 1, 4, event(19, 21, empty)),
        ("an early end", 1, 0, event(1, 2, Op::EndOfSub { sub: 0 })),
        ("more than it holds", 0, 2, event(8, 9, published(9, 2))),
    ];
    for (what, thread, at, event) in wrong {
        let mut history = right.clone();
        history[thread][at] = event;
        assert_eq!(judge(&shape, &history), Verdict::Wrong, "{what} goes unnoticed");
    }
    // An order that contradicts real time.
    let mut history = right.clone();
    history[1][0] = event(6, 7, Op::Empty { sub: 0, beside: false });
    history[1][1] = event(8, 13, received(1, 0, 1));
    assert_eq!(
        judge(&shape, &history),
        Verdict::Wrong,
        "an Empty after a publish that had returned goes unnoticed"
    );
}

/// The checker on recorded histories in which one result was changed: nearly all of them are found out, and the kinds of change that can never be right
/// always are.
#[test]
fn the_checker_finds_results_that_were_tampered_with() {
    let mut random = Random(seed("tampering"));
    let (mut tampered, mut shapes) = (0, shapes().into_iter().cycle());
    while tampered < 200 {
        let shape = shapes.next().unwrap();
        let mut history = record(&shape, random.next());
        let received: Vec<_> = (0..history.len())
            .flat_map(|t| (0..history[t].len()).map(move |e| (t, e)))
            .filter(|&(t, e)| matches!(history[t][e].op, Op::Received { .. }))
            .collect();
        if received.is_empty() {
            continue;
        }
        let (t, e) = received[random.below(received.len())];
        let Op::Received { value, attempt, .. } = &mut history[t][e].op else {
            unreachable!()
        };
        match random.below(2) {
            0 => *value += 1_000,
            _ => *attempt += 7,
        }
        tampered += 1;
        assert_ne!(judge(&shape, &history), Verdict::Explained, "{shape:?} {history:?}");
    }
}
