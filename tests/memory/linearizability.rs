//! Linearizability: what real threads saw, against a sequential model of a topic and its subscriptions.
//!
//! Threads record what they did and what came of it, each operation with the moments of its call and its return. A history is right if there is an
//! order of all operations that keeps those of non-overlapping ones and in which every result is what the model says: the search of Wing and Gong,
//! with the states that were seen before left out (Lowe). So there is no false `Full` or `Empty`, no early `Closed`, no lost or doubled message, in
//! any history that was recorded (G1 to G3; failure catalogue A7, A9, A10, A20). Some subscriptions have little credit and verdicts that come late,
//! some have a filter, some conflate: never more is in flight than allowed, no false `InFlightFull`, nothing unwanted, the last of each key and the
//! exact losses.
//!
//! Batches are not atomic, and are checked as the run of single operations that they promise to be. A subscription that drops its oldest messages is
//! moved on by a publisher before that publisher's message enters, so those are two steps. The same goes for one that conflates. While somebody receives,
//! what a filter does not want is passed, and what comes next is set aside for whoever receives first, each in a step of its own.
//!
//! `RINGMQ_LIN_HISTORIES` (default 2,100) histories, over all shapes; `RINGMQ_SEED` repeats the operations, not the schedule.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use crate::matrix_support::*;
use ringmq::{Backoff, Broker, Delivery, Offset, Overflow, PublishError, Start, SubscribeOptions, TryRecvError};

/// One operation with its result.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    /// Entered at this offset, if that is known.
    Published {
        value: u64,
        /// 0: none.
        key: u8,
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
        lost: u64,
    },
    /// A receive of up to `most` may pass any number of messages that the filter does not want. If it finds that it was moved past messages, it sets
    /// aside what comes next; another may be faster to receive that.
    Look {
        sub: usize,
        most: u64,
    },
    InFlightFull {
        sub: usize,
        /// How much credit other calls that were under way may have held for a moment.
        beside: usize,
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
        attempt: u32,
    },
    Nack {
        sub: usize,
        at: u64,
        attempt: u32,
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
    /// Offset and attempt of each, in order.
    in_flight: Vec<(u64, u32)>,
    /// Overtaken from here, not told yet; of one that conflates, not caught up yet.
    behind_from: Option<u64>,
    /// Overtaken: what comes next, and losses that are told before it.
    next: VecDeque<u64>,
    telling: VecDeque<(u64, u64)>,
    /// Of one that conflates: offset and key of what it keeps, and ranges that it has lost and not told.
    kept: BTreeMap<u64, u8>,
    lost: VecDeque<(u64, u64)>,
    fresh_first: bool,
    here: bool,
}

/// The sequential model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    /// Values and keys.
    messages: Vec<(u64, u8)>,
    closed: bool,
    subs: Vec<Sub>,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    capacity: u64,
    overflow: [Overflow; 2],
    /// Of the first subscription and the others: whether they want even values only.
    filter: [bool; 2],
    max_in_flight: u32,
    subs: usize,
    threads: usize,
    lively: bool,
}

impl Shape {
    fn wants(&self, sub: usize, value: u64) -> bool {
        !self.filter[sub.min(1)] || value.is_multiple_of(2)
    }

    fn conflates(&self) -> bool {
        self.overflow.iter().any(|rule| matches!(rule, Overflow::Conflate { .. }))
    }
}

impl Sub {
    /// Conflate: keeps a message as the last of its key.
    fn keep(&mut self, at: u64, key: u8, keys: usize) {
        let same = self.kept.iter().find(|(_, other)| **other == key).map(|(at, _)| *at);
        let gone = same.or_else(|| (self.kept.len() >= keys).then(|| *self.kept.keys().next().expect("at least one key")));
        if let Some(gone) = gone {
            self.kept.remove(&gone);
            match self.lost.back_mut() {
                Some((_, to)) if *to == gone => *to += 1,
                _ => self.lost.push_back((gone, gone + 1)),
            }
        }
        self.kept.insert(at, key);
    }

    /// Goes on by the ring, if nothing stands before it.
    fn catch_up(&mut self, conflates: bool) {
        let nothing_kept = self.next.is_empty() && self.telling.is_empty() && self.kept.is_empty() && self.lost.is_empty();
        if nothing_kept && (conflates || self.behind_from == Some(self.position)) {
            self.behind_from = None;
        }
    }

    /// Nothing to deliver or to tell.
    fn is_empty(&self, end: u64) -> bool {
        self.ready.is_empty() && self.position == end && self.behind_from.is_none()
    }

    /// Ends the flight of this delivery; `false` if it is not in flight.
    fn lands(&mut self, delivery: (u64, u32)) -> bool {
        let found = self.in_flight.binary_search(&delivery);
        found.map(|at| self.in_flight.remove(at)).is_ok()
    }
}

impl Model {
    fn new(shape: &Shape) -> Self {
        let sub = |here| Sub {
            position: 0,
            ready: VecDeque::new(),
            in_flight: Vec::new(),
            behind_from: None,
            next: VecDeque::new(),
            telling: VecDeque::new(),
            kept: BTreeMap::new(),
            lost: VecDeque::new(),
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
        matches!(shape.overflow[sub.min(1)], Overflow::Block | Overflow::Fail)
    }

    fn conflates(shape: &Shape, sub: usize) -> bool {
        matches!(shape.overflow[sub.min(1)], Overflow::Conflate { .. })
    }

    /// Room for one more, if it takes that; `false`: full.
    fn make_room(&mut self, shape: &Shape) -> bool {
        let t = self.messages.len() as u64;
        let want = (t + 1).saturating_sub(shape.capacity);
        if (0..self.subs.len()).any(|s| self.subs[s].here && Self::gates(shape, s) && self.subs[s].position < want) {
            return false;
        }
        for (s, sub) in self.subs.iter_mut().enumerate().filter(|(_, sub)| sub.here && sub.position < want) {
            sub.behind_from.get_or_insert(sub.position);
            if let Overflow::Conflate { keys } = shape.overflow[s.min(1)] {
                for at in sub.position..want {
                    let (value, key) = self.messages[at as usize];
                    if shape.wants(s, value) {
                        sub.keep(at, key, keys);
                    }
                }
            }
            sub.position = want;
        }
        true
    }

    /// What follows if a receive passes one message that the filter does not want, or finds that what it was moved past were all such.
    fn skip(&self, shape: &Shape, sub: usize) -> Option<Self> {
        let mut next = self.clone();
        let it = &mut next.subs[sub];
        let conflates = Self::conflates(shape, sub);
        if conflates && it.behind_from.is_some() {
            it.catch_up(true);
            return it.behind_from.is_none().then_some(next);
        }
        let unwanted = self
            .messages
            .get(it.position as usize)
            .is_some_and(|(value, _)| !shape.wants(sub, *value));
        if let Some(from) = it.behind_from {
            if shape.kind == Kind::Queue {
                return None;
            }
            it.telling.extend((from < it.position).then_some((from, it.position)));
            it.behind_from = Some(it.position + 1);
        }
        it.position += 1;
        (it.here && it.next.is_empty() && unwanted).then_some(next)
    }

    /// What may follow while a receive of up to `most` looks for a message.
    fn look(&self, shape: &Shape, sub: usize, most: u64) -> Vec<Self> {
        let skipped = shape.filter[sub.min(1)].then(|| self.skip(shape, sub)).flatten();
        let aside = if Self::gates(shape, sub) {
            Vec::new()
        } else {
            self.set_aside(shape, sub, most)
        };
        skipped.into_iter().chain(aside).collect()
    }

    /// What may follow if a receive finds that it was moved past messages: what comes next, up to `most`, is set aside.
    fn set_aside(&self, shape: &Shape, sub: usize, most: u64) -> Vec<Self> {
        let mut next = self.clone();
        let it = &mut next.subs[sub];
        if !it.here {
            return Vec::new();
        }
        if Self::conflates(shape, sub) {
            if it.next.is_empty() && it.telling.is_empty() {
                it.telling = std::mem::take(&mut it.lost);
                it.next.extend(it.kept.pop_first().map(|(at, _)| at));
            }
            return vec![next];
        }
        let (Some(from), true) = (it.behind_from, it.next.is_empty()) else {
            return vec![next];
        };
        it.telling.extend((from < it.position).then_some((from, it.position)));
        it.behind_from = Some(it.position);
        let (first, end) = (it.position, self.messages.len() as u64);
        if shape.kind == Kind::Queue || first == end {
            return vec![next];
        }
        let run = |n: u64| {
            let mut next = next.clone();
            let it = &mut next.subs[sub];
            it.next = (first..first + n)
                .filter(|at| shape.wants(sub, self.messages[*at as usize].0))
                .collect();
            it.position += n;
            it.behind_from = Some(it.position);
            (!it.next.is_empty()).then_some(next)
        };
        (1..=most.min(end - first)).filter_map(run).collect()
    }

    /// What follows if `op` happens now; nothing if it cannot.
    fn apply(&self, shape: &Shape, op: &Op) -> Vec<Self> {
        let mut next = self.clone();
        let end = self.messages.len() as u64;
        let happens = match *op {
            Op::Published { value, key, at } => {
                let happens = !self.closed && next.make_room(shape) && at.is_none_or(|at| at == end);
                next.messages.push((value, key));
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
            Op::Received {
                sub: s,
                value,
                at,
                attempt,
            } => {
                let sub = &mut next.subs[s];
                let again = sub.ready.front() == Some(&(at, attempt - 1));
                let set_aside = attempt == 1 && sub.telling.is_empty() && sub.next.front() == Some(&at);
                let kept = attempt == 1 && sub.next.is_empty() && sub.lost.is_empty() && sub.kept.keys().next() == Some(&at);
                let fresh = attempt == 1 && sub.position == at && at < end && sub.behind_from.is_none();
                if again {
                    sub.ready.pop_front();
                } else if set_aside || kept {
                    sub.next.pop_front();
                    sub.kept.remove(&at);
                    sub.catch_up(Self::conflates(shape, s));
                } else {
                    sub.position += 1;
                }
                let credit = sub.in_flight.len() < shape.max_in_flight as usize;
                let place = sub.in_flight.partition_point(|other| *other < (at, attempt));
                sub.in_flight.insert(place, (at, attempt));
                let right = self.messages.get(at as usize).is_some_and(|(published, _)| *published == value);
                sub.here && (again || set_aside || kept || fresh) && credit && right && shape.wants(s, value)
            }
            Op::Lagged { sub, from, to, lost } => {
                let it = &mut next.subs[sub];
                let told = it.telling.pop_front();
                it.catch_up(Self::conflates(shape, sub));
                told == Some((from, to)) && lost == to - from
            }
            Op::Look { .. } => true,
            Op::InFlightFull { sub, beside } => {
                let sub = &self.subs[sub];
                sub.here && !sub.is_empty(end) && sub.in_flight.len() + beside >= shape.max_in_flight as usize
            }
            Op::Empty { sub, beside } => {
                let sub = &self.subs[sub];
                sub.here && sub.is_empty(end) && !(self.closed && sub.in_flight.is_empty() && !beside)
            }
            Op::EndOfSub { sub } => {
                let sub = &self.subs[sub];
                !sub.here || (self.closed && sub.is_empty(end) && sub.in_flight.is_empty())
            }
            Op::Ack { sub, at, attempt } => next.subs[sub].lands((at, attempt)),
            Op::Nack { sub, at, attempt } => {
                next.subs[sub].ready.push_back((at, attempt));
                next.subs[sub].lands((at, attempt))
            }
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
            let looks = match event.op {
                Op::Look { sub, most } => model.look(self.shape, sub, most),
                _ => Vec::new(),
            };
            for next in looks {
                let verdict = self.run(&next);
                if verdict != Verdict::Wrong {
                    return verdict;
                }
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
        let options = SubscribeOptions::new(&format!("s{s}"));
        let options = if shape.filter[s.min(1)] {
            options.filter(|value: &u64| value.is_multiple_of(2))
        } else {
            options
        };
        options
            .max_in_flight(shape.max_in_flight)
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
            // Before a receive finds this, and in a batch also behind it.
            let look = |sub: usize, most| (shape.filter[sub.min(1)] || !Model::gates(shape, sub)).then_some(Op::Look { sub, most });
            let refused = |sub, refused| match refused {
                TryRecvError::Empty => Op::Empty { sub, beside: false },
                TryRecvError::Closed => Op::EndOfSub { sub },
                TryRecvError::Lagged(lagged) => Op::Lagged {
                    sub,
                    from: lagged.from.get(),
                    to: lagged.to.get(),
                    lost: lagged.lost,
                },
                TryRecvError::InFlightFull => Op::InFlightFull { sub, beside: 0 },
                other => panic!("{other}"),
            };
            match choice {
                0..=3 => {
                    values += 1;
                    let key = if choice != 1 && shape.conflates() {
                        random.below(4) as u8
                    } else {
                        0
                    };
                    let result = match choice {
                        1 => publisher.publish_timeout(values, Duration::from_micros(20)),
                        0 if key > 0 => topic.message(values).key([key]).try_publish(),
                        0 => topic.try_publish(values),
                        _ if key > 0 => publisher.message(values).key([key]).try_publish(),
                        _ => publisher.try_publish(values),
                    };
                    ops.extend(make_room.clone());
                    ops.push(match result {
                        Ok(receipt) => Op::Published {
                            value: values,
                            key,
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
                        ops.push(Op::Published { value, key: 0, at: None });
                    }
                    // One that is refused may have made room first.
                    ops.extend(make_room.clone().filter(|_| failure.is_some()));
                    ops.extend(failure);
                }
                5..=8 => {
                    ops.extend(look(sub, 1));
                    let result = if choice == 8 {
                        subs[sub].try_recv()
                    } else {
                        receivers[sub].try_recv()
                    };
                    ops.push(match result {
                        Ok(delivery) => received(sub, &mut held, delivery),
                        Err(other) => refused(sub, other),
                    });
                }
                9 => {
                    ops.extend(look(sub, 2));
                    match receivers[sub].try_recv_batch(&mut out, 2) {
                        Ok(_) => {
                            for delivery in out.drain(..) {
                                ops.push(received(sub, &mut held, delivery));
                                ops.extend(look(sub, 2));
                            }
                        }
                        Err(other) => ops.push(refused(sub, other)),
                    }
                }
                10..=12 if held.is_empty() => {}
                10..=12 => {
                    let (sub, delivery) = held.remove(random.below(held.len()));
                    let (at, attempt) = (delivery.offset().get(), delivery.attempt());
                    if choice == 12 {
                        delivery.ack().unwrap();
                        ops.push(Op::Ack { sub, at, attempt });
                    } else {
                        delivery.nack().unwrap();
                        ops.push(Op::Nack { sub, at, attempt });
                    }
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

/// Notes of each `Empty` and `InFlightFull` which other calls on its subscription were under way.
fn note_company(history: &mut History) {
    /// The most that one call draws.
    const CREDITS: usize = 2;
    let credits = |event: &Event| match event.op {
        Op::Received { sub, .. } | Op::Lagged { sub, .. } | Op::Empty { sub, .. } | Op::EndOfSub { sub } | Op::InFlightFull { sub, .. } => {
            Some((sub, event.call, event.ret, CREDITS))
        }
        Op::Ack { sub, .. } | Op::Nack { sub, .. } => Some((sub, event.call, event.ret, 1)),
        _ => None,
    };
    let mut all: Vec<_> = history.iter().flatten().filter_map(credits).collect();
    // A batch is one call.
    all.sort_unstable();
    all.dedup();
    for Event { op, call, ret } in history.iter_mut().flatten() {
        let company = |sub: usize| {
            let others = all
                .iter()
                .filter(|(other, from, to, _)| *other == sub && from != call && *from < *ret && *to > *call);
            others.map(|call| call.3).collect::<Vec<_>>()
        };
        match op {
            Op::Empty { sub, beside } => *beside = company(*sub).contains(&CREDITS),
            Op::InFlightFull { sub, beside } => *beside = company(*sub).iter().sum(),
            _ => {}
        }
    }
}

fn shapes() -> Vec<Shape> {
    use Overflow::{Block, DropOldest, Fail};
    const PLENTY: u32 = 1_024;
    let (one, two) = (Overflow::Conflate { keys: 1 }, Overflow::Conflate { keys: 2 });
    let (all, odd, both) = ([false; 2], [true, false], [true; 2]);
    let mut shapes = Vec::new();
    for threads in [2, 3, 4] {
        for capacity in [1, 2, 4] {
            for lively in [false, true] {
                let mut add = |kind, subs, overflow, filter, max_in_flight| {
                    shapes.push(Shape {
                        kind,
                        capacity,
                        overflow,
                        filter,
                        max_in_flight,
                        subs,
                        threads,
                        lively,
                    });
                };
                for (overflow, filter, max_in_flight) in [
                    (Block, all, PLENTY),
                    (Fail, all, PLENTY),
                    (DropOldest, all, PLENTY),
                    (DropOldest, both, 2),
                    (Block, all, 1),
                    (Block, both, 2),
                ] {
                    add(Kind::Queue, 1, [overflow; 2], filter, max_in_flight);
                }
                for (subs, overflow, filter, max_in_flight) in [
                    (1, [Block, Block], all, PLENTY),
                    (2, [Fail, Block], all, PLENTY),
                    (1, [DropOldest, Block], all, PLENTY),
                    (2, [Block, DropOldest], all, PLENTY),
                    (2, [DropOldest, DropOldest], all, PLENTY),
                    (1, [Block, Block], all, 1),
                    (1, [Block, Block], all, 3),
                    (2, [Block, Block], odd, 2),
                    (2, [DropOldest, Fail], odd, 1),
                    (1, [one, Block], all, PLENTY),
                    (1, [two, two], both, 1),
                    (1, [two, Block], all, 3),
                    (2, [two, one], all, 2),
                ] {
                    add(Kind::Window, subs, overflow, filter, max_in_flight);
                }
            }
        }
    }
    shapes
}

#[test]
fn everything_that_real_threads_saw_can_be_explained_by_one_order() {
    let mut random = Random(seed("linearizability"));
    let histories = size("RINGMQ_LIN_HISTORIES", 2_100);
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
        filter: [false; 2],
        max_in_flight: 1_024,
        subs: 1,
        threads: 2,
        lively: true,
    };
    let event = |call, ret, op| Event { op, call, ret };
    let published = |value, at| Op::Published {
        value,
        key: 0,
        at: Some(at),
    };
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
            event(15, 16, Op::Nack { sub: 0, at: 0, attempt: 1 }),
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

/// The same for what one thread saw under the rules of a subscription.
#[test]
fn the_checker_knows_credit_filters_and_conflation() {
    let rules = |overflow, filter, max_in_flight, capacity| Shape {
        kind: Kind::Window,
        capacity,
        overflow: [overflow; 2],
        filter: [filter; 2],
        max_in_flight,
        subs: 1,
        threads: 1,
        lively: true,
    };
    let published = |value, key, at| Op::Published { value, key, at: Some(at) };
    let received = |value, at| Op::Received {
        sub: 0,
        value,
        at,
        attempt: 1,
    };
    let empty = Op::Empty { sub: 0, beside: false };
    let in_flight_full = Op::InFlightFull { sub: 0, beside: 0 };
    let lagged = |from, to, lost| Op::Lagged { sub: 0, from, to, lost };
    let look = Op::Look { sub: 0, most: 1 };
    let ack = Op::Ack { sub: 0, at: 0, attempt: 1 };
    let check = |shape: Shape, right: &[Op], wrong: &[(&str, usize, Op)]| {
        let judge = |ops: &[Op]| {
            let events = ops.iter().enumerate().map(|(n, op)| Event {
                op: op.clone(),
                call: 2 * n as u64,
                ret: 2 * n as u64 + 1,
            });
            judge(&shape, &vec![events.collect()])
        };
        assert_eq!(judge(right), Verdict::Explained);
        for (what, at, op) in wrong {
            let mut ops = right.to_vec();
            ops[*at] = op.clone();
            assert_eq!(judge(&ops), Verdict::Wrong, "{what} goes unnoticed");
        }
    };
    check(
        rules(Overflow::Block, false, 1, 2),
        &[
            published(1, 0, 0),
            published(2, 0, 1),
            received(1, 0),
            in_flight_full.clone(),
            ack,
            received(2, 1),
            empty.clone(),
        ],
        &[
            ("more in flight than allowed", 3, received(2, 1)),
            ("Empty for want of credit", 3, empty.clone()),
            ("credit that does not come back", 5, in_flight_full.clone()),
            ("a lack of credit for nothing", 6, in_flight_full),
        ],
    );
    check(
        rules(Overflow::Block, true, 8, 2),
        &[
            published(1, 0, 0),
            published(2, 0, 1),
            Op::PublishFull,
            look.clone(),
            received(2, 1),
            published(3, 0, 2),
            look.clone(),
            empty.clone(),
        ],
        &[
            ("an unwanted message", 4, received(1, 0)),
            ("a wanted message passed over", 4, empty.clone()),
            ("the place of an unwanted message before it was looked at", 2, published(9, 0, 2)),
        ],
    );
    check(
        rules(Overflow::Conflate { keys: 2 }, false, 8, 1),
        &[
            published(10, 1, 0),
            published(20, 2, 1),
            published(11, 1, 2),
            published(30, 3, 3),
            published(40, 3, 4),
            look.clone(),
            lagged(0, 2, 2),
            received(11, 2),
            received(30, 3),
            received(40, 4),
            empty.clone(),
        ],
        &[
            ("too small a loss", 6, lagged(0, 1, 1)),
            ("a wrong count", 6, lagged(0, 2, 1)),
            ("a loss that is not told", 6, received(11, 2)),
            ("not the last of its key", 7, received(10, 0)),
            ("one key too many", 7, received(20, 1)),
            ("a newer key before an older", 7, received(30, 3)),
            ("a message of the ring before one that is kept", 7, received(40, 4)),
            ("Empty while something is kept", 8, empty.clone()),
        ],
    );
    check(
        rules(Overflow::DropOldest, false, 8, 1),
        &[
            published(1, 0, 0),
            published(2, 0, 1),
            look.clone(),
            published(3, 0, 2),
            published(4, 0, 3),
            lagged(0, 1, 1),
            received(2, 1),
            look,
            lagged(2, 3, 1),
            received(4, 3),
            empty.clone(),
        ],
        &[
            ("a loss twice", 5, lagged(0, 3, 3)),
            ("the loss of what was set aside", 6, lagged(1, 3, 2)),
            ("a loss that is not told", 8, received(4, 3)),
            ("Empty while something is set aside", 6, empty),
        ],
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
