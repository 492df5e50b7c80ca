//! Random sequences of operations on one thread against a naive model: what is delivered, what is refused and every number of the statistics
//! must be exactly what the model says (G1 to G4, G11, G12).
//!
//! `RINGMQ_MODEL_SEQUENCES` (default 400) sequences of 200 operations each, for each kind of ring, driven by a [`ManualClock`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::matrix_support::*;
use ringmq::testing::ManualClock;
use ringmq::{
    Backoff, Broker, Delivery, Lagged, Offset, Overflow, PublishError, Start, SubscribeOptions, Subscription, Topic, TryRecvError,
};

const OPERATIONS: usize = 200;
const BACKOFF_MS: u64 = 10;

/// A message between its hand-overs, in the model.
#[derive(Clone, Debug)]
struct Held {
    offset: u64,
    value: u64,
    attempts: u32,
    failures: u32,
}

/// What a subscription is made with.
#[derive(Clone, Copy, Debug)]
struct Rules {
    overflow: Overflow,
    max_in_flight: usize,
    max_parked: usize,
    max_failures: u32,
    dead_letters_max: usize,
    odd_only: bool,
    ack_timeout_ms: Option<u64>,
}

#[derive(Debug)]
struct ModelSub {
    rules: Rules,
    position: u64,
    /// Overtaken from here: not told yet, or what was kept is not all taken yet.
    behind_from: Option<u64>,
    /// Losses not told yet.
    lag: VecDeque<(u64, u64, u64)>,
    /// Kept by conflation: offset to key and value.
    kept: BTreeMap<u64, (u8, u64)>,
    kept_lost: VecDeque<(u64, u64, u64)>,
    /// What comes next, set aside when the losses before it are told: offset and value.
    next: Option<(u64, u64)>,
    telling: VecDeque<(u64, u64, u64)>,
    ready: VecDeque<Held>,
    /// By due time, then order of parking.
    parked: BTreeMap<(u64, u64), Held>,
    undeliverable: VecDeque<Held>,
    letters: VecDeque<Held>,
    /// By lease: when it runs out.
    leases: BTreeMap<u64, (u64, Held)>,
    next_lease: u64,
    parkings: u64,
    in_flight: usize,
    fresh_first: bool,
    paused: bool,
    failures: u64,
    redelivered: u64,
    dropped: u64,
    filtered: u64,
    dead_lettered: u64,
}

#[derive(Debug)]
struct Model {
    kind: Kind,
    capacity: u64,
    messages: Vec<(u64, u8)>,
    queue_head: u64,
    now_ms: u64,
    closed: bool,
    subs: Vec<ModelSub>,
}

#[derive(Debug, PartialEq)]
enum Got {
    Message {
        offset: u64,
        value: u64,
        attempts: u32,
        failures: u32,
    },
    Lagged(u64, u64, u64),
    Empty,
    Closed,
    InFlightFull,
}

fn add_lag(log: &mut VecDeque<(u64, u64, u64)>, from: u64, to: u64, lost: u64) {
    match log.back_mut() {
        Some(last) if last.1 == from => {
            last.1 = to;
            last.2 += lost;
        }
        _ => log.push_back((from, to, lost)),
    }
}

impl ModelSub {
    fn gates(&self) -> bool {
        matches!(self.rules.overflow, Overflow::Block | Overflow::Fail)
    }

    fn wants(&self, value: u64) -> bool {
        !self.rules.odd_only || value % 2 == 1
    }

    fn parked_full(&self) -> bool {
        self.parked.len() + self.ready.len() + self.undeliverable.len() >= self.rules.max_parked
    }

    fn fail(&mut self, mut held: Held, wait_ms: Option<u64>, reject: bool, now: u64, closed: bool) {
        if !reject {
            held.failures += 1;
            self.failures += 1;
        }
        if reject || held.failures >= self.rules.max_failures {
            self.dead_letter(held);
            return;
        }
        let wait = wait_ms.unwrap_or(BACKOFF_MS);
        if wait == 0 || closed {
            self.ready.push_back(held);
        } else {
            self.parkings += 1;
            self.parked.insert((now + wait, self.parkings), held);
        }
    }

    fn dead_letter(&mut self, held: Held) {
        if self.letters.len() >= self.rules.dead_letters_max {
            self.undeliverable.push_back(held);
        } else {
            self.dead_lettered += 1;
            self.letters.push_back(held);
        }
    }

    fn retry_undeliverable(&mut self) {
        while self.letters.len() < self.rules.dead_letters_max {
            let Some(held) = self.undeliverable.pop_front() else { return };
            self.dead_letter(held);
        }
    }

    fn all_due(&mut self, until: u64) {
        while let Some(entry) = self.parked.first_entry() {
            if entry.key().0 > until {
                break;
            }
            self.ready.push_back(entry.remove());
        }
    }

    /// A publisher moves this subscription on to `to`.
    fn overtake(&mut self, to: u64, messages: &[(u64, u8)]) {
        let from = self.position;
        self.position = to;
        self.behind_from.get_or_insert(from);
        let Overflow::Conflate { keys } = self.rules.overflow else { return };
        for p in from..to {
            let (value, key) = messages[p as usize];
            if !self.wants(value) {
                self.filtered += 1;
                continue;
            }
            let of_key = self.kept.iter().find(|(_, (k, _))| *k == key).map(|(p, _)| *p);
            let gone = of_key.or_else(|| (self.kept.len() >= keys).then(|| *self.kept.keys().next().unwrap()));
            if let Some(gone) = gone {
                self.kept.remove(&gone);
                add_lag(&mut self.kept_lost, gone, gone + 1, 1);
            }
            self.kept.insert(p, (key, value));
        }
    }

    /// Overtaken: takes what comes next, and the losses before it.
    fn set_aside(&mut self, messages: &[(u64, u8)]) {
        if let Overflow::Conflate { .. } = self.rules.overflow {
            if self.telling.is_empty() {
                self.telling = std::mem::take(&mut self.kept_lost);
                self.next = self.kept.pop_first().map(|(offset, (_, value))| (offset, value));
            }
            return;
        }
        let (from, to) = (self.behind_from.unwrap(), self.position);
        if from < to {
            self.telling.push_back((from, to, to - from));
        }
        while self.next.is_none() && self.position < messages.len() as u64 {
            let (value, _) = messages[self.position as usize];
            if self.wants(value) {
                self.next = Some((self.position, value));
            } else {
                self.filtered += 1;
            }
            self.position += 1;
        }
        self.behind_from = Some(self.position);
    }

    /// Goes on by the ring, if nothing stands before it.
    fn catch_up(&mut self) {
        let conflates = matches!(self.rules.overflow, Overflow::Conflate { .. });
        let nothing_kept = self.next.is_none() && self.telling.is_empty() && self.kept.is_empty() && self.kept_lost.is_empty();
        if nothing_kept && (conflates || self.behind_from == Some(self.position)) {
            self.behind_from = None;
        }
    }
}

impl Model {
    fn tail(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Makes room for one message; `Err`: full.
    fn make_room(&mut self) -> Result<(), ()> {
        let t = self.tail();
        match self.kind {
            Kind::Queue => {
                if self.queue_head + self.capacity > t {
                    return Ok(());
                }
                let sub = &mut self.subs[0];
                if sub.rules.overflow != Overflow::DropOldest {
                    return Err(());
                }
                add_lag(&mut sub.lag, self.queue_head, self.queue_head + 1, 1);
                self.queue_head += 1;
            }
            Kind::Window => {
                let want = (t + 1).saturating_sub(self.capacity);
                let gate = self.subs.iter().filter(|s| s.gates()).map(|s| s.position).min().unwrap_or(u64::MAX);
                if gate < want {
                    return Err(());
                }
                // A publisher moves laggards on by an eighth of the capacity more than it needs, but past nobody who gates.
                let to = (want + self.capacity / 8).min(gate).min(t);
                let messages = &self.messages;
                for sub in self.subs.iter_mut().filter(|s| !s.gates() && s.position < want) {
                    sub.overtake(to, messages);
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, value: u64, key: u8) -> Result<u64, &'static str> {
        if self.closed {
            return Err("closed");
        }
        self.make_room().map_err(|()| "full")?;
        self.messages.push((value, key));
        Ok(self.tail() - 1)
    }

    fn position(&self, s: usize) -> u64 {
        match self.kind {
            Kind::Queue => self.queue_head,
            Kind::Window => self.subs[s].position,
        }
    }

    fn advance(&mut self, s: usize) {
        match self.kind {
            Kind::Queue => self.queue_head += 1,
            Kind::Window => self.subs[s].position += 1,
        }
    }

    /// The rules of `try_recv`, in the order in which they apply.
    fn receive(&mut self, s: usize) -> Got {
        loop {
            let (tail, position) = (self.tail(), self.position(s));
            let (closed, now) = (self.closed, self.now_ms);
            let window = self.kind == Kind::Window;
            let sub = &mut self.subs[s];
            if let Some((from, to, lost)) = sub.lag.pop_front() {
                sub.dropped += lost;
                return Got::Lagged(from, to, lost);
            }
            let over =
                sub.paused && closed && position >= tail && sub.ready.is_empty() && sub.parked.is_empty() && sub.behind_from.is_none();
            if sub.paused && !over {
                return Got::Empty;
            }
            let has_fresh = position < tail || sub.behind_from.is_some();
            let full = sub.in_flight >= sub.rules.max_in_flight;
            // With parking full, only what was delivered before is delivered again.
            let turn_of_fresh = sub.fresh_first && !sub.parked_full() && has_fresh;
            if !sub.ready.is_empty() && !turn_of_fresh {
                if full {
                    return Got::InFlightFull;
                }
                let mut held = sub.ready.pop_front().unwrap();
                sub.fresh_first = true;
                if held.attempts > 0 {
                    sub.redelivered += 1;
                }
                held.attempts += 1;
                return Self::hand_over(sub, held, now);
            }
            // A turn that is due to a fresh message stays due only while something stands beside the ring.
            if !over && (!sub.ready.is_empty() || sub.parked_full()) {
                sub.fresh_first = false;
            }
            if sub.parked_full() && !over && (!closed || has_fresh) {
                return Got::Empty;
            }
            if !has_fresh {
                return if closed && sub.in_flight == 0 { Got::Closed } else { Got::Empty };
            }
            if full {
                return Got::InFlightFull;
            }
            if window && sub.behind_from.is_some() {
                // What was kept is older than what is in the ring; losses are told before it, and not parted from it by later ones.
                if sub.next.is_none() {
                    sub.set_aside(&self.messages);
                }
                if let Some((from, to, lost)) = sub.telling.pop_front() {
                    sub.dropped += lost;
                    sub.catch_up();
                    return Got::Lagged(from, to, lost);
                }
                let next = sub.next.take();
                sub.catch_up();
                let Some((offset, value)) = next else { continue };
                let held = Held {
                    offset,
                    value,
                    attempts: 1,
                    failures: 0,
                };
                return Self::hand_over(sub, held, now);
            }
            self.advance(s);
            let (value, _) = self.messages[position as usize];
            let sub = &mut self.subs[s];
            if !sub.wants(value) {
                sub.filtered += 1;
                continue;
            }
            let held = Held {
                offset: position,
                value,
                attempts: 1,
                failures: 0,
            };
            return Self::hand_over(sub, held, now);
        }
    }

    fn hand_over(sub: &mut ModelSub, held: Held, now: u64) -> Got {
        sub.in_flight += 1;
        let got = Got::Message {
            offset: held.offset,
            value: held.value,
            attempts: held.attempts,
            failures: held.failures,
        };
        if let Some(timeout) = sub.rules.ack_timeout_ms {
            sub.next_lease += 1;
            sub.leases.insert(sub.next_lease, (now + timeout, held));
        }
        got
    }

    fn advance_clock(&mut self, ms: u64) {
        self.now_ms += ms;
        let (now, closed) = (self.now_ms, self.closed);
        for sub in &mut self.subs {
            // Everything due at that moment happens then: first what ran out, in order of time, then what was parked.
            let mut expired: Vec<_> = sub
                .leases
                .iter()
                .filter(|(_, (due, _))| *due <= now)
                .map(|(o, (due, _))| (*due, *o))
                .collect();
            expired.sort_unstable();
            for (_, offset) in expired {
                let (_, held) = sub.leases.remove(&offset).unwrap();
                sub.in_flight -= 1;
                sub.fail(held, None, false, now, closed);
            }
            sub.all_due(now);
        }
    }

    fn stats(&self, s: usize) -> [u64; 11] {
        let sub = &self.subs[s];
        let pending = self.tail() - self.position(s) + (sub.ready.len() + sub.kept.len() + usize::from(sub.next.is_some())) as u64;
        let parked = (sub.parked.len() + sub.undeliverable.len()) as u64;
        let in_flight = sub.in_flight as u64;
        let overtaken = match (sub.behind_from, sub.rules.overflow) {
            (Some(from), Overflow::DropOldest) => sub.position - from,
            _ => 0,
        };
        let untold = overtaken
            + sub
                .lag
                .iter()
                .chain(&sub.telling)
                .chain(&sub.kept_lost)
                .map(|(_, _, lost)| lost)
                .sum::<u64>();
        [
            pending,
            in_flight,
            parked,
            pending + in_flight + parked,
            sub.failures,
            sub.redelivered,
            sub.dropped + untold,
            sub.filtered,
            sub.dead_lettered,
            sub.letters.len() as u64,
            1,
        ]
    }
}

struct Run {
    clock: ManualClock,
    topic: Topic<u64>,
    subs: Vec<Subscription<u64>>,
    receivers: Vec<ringmq::Subscriber<u64>>,
    /// Deliveries without a verdict, each with its lease.
    out: Vec<Vec<(Delivery<u64>, Held, u64)>>,
    model: Model,
    random: Random,
    log: Vec<String>,
}

fn random_rules(random: &mut Random, kind: Kind) -> Rules {
    let overflow = match (kind, random.below(5)) {
        (_, 0 | 1) => Overflow::Block,
        (_, 2) => Overflow::Fail,
        (Kind::Window, 3) => Overflow::Conflate { keys: 1 + random.below(3) },
        _ => Overflow::DropOldest,
    };
    Rules {
        overflow,
        max_in_flight: [1, 2, 1024][random.below(3)],
        max_parked: [1, 3, 1000][random.below(3)],
        max_failures: [1, 2, 4][random.below(3)],
        dead_letters_max: [1, 2, 1000][random.below(3)],
        odd_only: random.below(3) == 0,
        ack_timeout_ms: (kind == Kind::Window && random.below(4) == 0).then_some(25),
    }
}

impl Run {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut random = Random(seed);
        let clock = ManualClock::new();
        let broker = Broker::builder().clock(clock.clone()).seed(seed).open("mem:").unwrap();
        let capacity = [1, 2, 4, 8, 32][random.below(5)];
        let topic = broker.topic_with::<u64>("t", kind.options().capacity(capacity)).unwrap();
        let mut run = Self {
            clock,
            topic,
            subs: Vec::new(),
            receivers: Vec::new(),
            out: Vec::new(),
            model: Model {
                kind,
                capacity: capacity as u64,
                messages: Vec::new(),
                queue_head: 0,
                now_ms: 0,
                closed: false,
                subs: Vec::new(),
            },
            random,
            log: Vec::new(),
        };
        let subs = if kind == Kind::Queue { 1 } else { 1 + run.random.below(3) };
        for _ in 0..subs {
            run.subscribe();
        }
        run
    }

    fn subscribe(&mut self) {
        let rules = random_rules(&mut self.random, self.model.kind);
        let name = format!("s{}", self.subs.len());
        let mut options = SubscribeOptions::new(&name)
            .start(if self.model.kind == Kind::Queue {
                Start::Earliest
            } else {
                Start::Latest
            })
            .overflow(rules.overflow)
            .max_in_flight(rules.max_in_flight as u32)
            .max_parked(rules.max_parked)
            .max_failures(rules.max_failures)
            .dead_letters_max(rules.dead_letters_max)
            .backoff(Backoff::fixed(Duration::from_millis(BACKOFF_MS)));
        if rules.odd_only {
            options = options.filter(|value| value % 2 == 1);
        }
        if let Some(ms) = rules.ack_timeout_ms {
            options = options.ack_timeout(Duration::from_millis(ms));
        }
        self.log.push(format!("subscribe {name} {rules:?}"));
        let sub = self.topic.subscribe_with(options).unwrap();
        self.receivers.push(sub.subscriber());
        self.subs.push(sub);
        self.out.push(Vec::new());
        self.model.subs.push(ModelSub {
            rules,
            position: self.model.tail(),
            behind_from: None,
            lag: VecDeque::new(),
            kept: BTreeMap::new(),
            kept_lost: VecDeque::new(),
            next: None,
            telling: VecDeque::new(),
            ready: VecDeque::new(),
            parked: BTreeMap::new(),
            undeliverable: VecDeque::new(),
            letters: VecDeque::new(),
            leases: BTreeMap::new(),
            next_lease: 0,
            parkings: 0,
            in_flight: 0,
            fresh_first: false,
            paused: false,
            failures: 0,
            redelivered: 0,
            dropped: 0,
            filtered: 0,
            dead_lettered: 0,
        });
    }

    fn publish(&mut self) {
        let (value, key) = (self.random.next() % 1000, self.random.below(4) as u8);
        let result = self.topic.message(value).key(vec![key]).try_publish();
        let expected = self.model.publish(value, key);
        self.log.push(format!("publish {value} key {key} -> {result:?}"));
        match (result, expected) {
            (Ok(receipt), Ok(offset)) => {
                assert_eq!(receipt.offset().get(), offset);
                assert_eq!(receipt.subscriptions(), self.subs.len());
            }
            (Err(PublishError::Full(v)), Err("full")) | (Err(PublishError::Closed(v)), Err("closed")) => assert_eq!(v, value),
            (result, expected) => panic!("{result:?} but {expected:?}"),
        }
    }

    fn receive(&mut self, s: usize) {
        let result = self.receivers[s].try_recv();
        let expected = self.model.receive(s);
        let got = match &result {
            Ok(d) => Got::Message {
                offset: d.offset().get(),
                value: **d,
                attempts: d.attempt(),
                failures: d.failures(),
            },
            Err(TryRecvError::Lagged(Lagged { from, to, lost, .. })) => Got::Lagged(from.get(), to.get(), *lost),
            Err(TryRecvError::Empty) => Got::Empty,
            Err(TryRecvError::Closed) => Got::Closed,
            Err(TryRecvError::InFlightFull) => Got::InFlightFull,
            Err(other) => panic!("{other}"),
        };
        self.log.push(format!("receive s{s} -> {got:?}"));
        assert_eq!(got, expected);
        if let Ok(delivery) = result {
            let held = Held {
                offset: delivery.offset().get(),
                value: *delivery,
                attempts: delivery.attempt(),
                failures: delivery.failures(),
            };
            self.out[s].push((delivery, held, self.model.subs[s].next_lease));
        }
    }

    fn settle(&mut self, s: usize) {
        if self.out[s].is_empty() {
            return;
        }
        let at = self.random.below(self.out[s].len());
        let (delivery, held, lease) = self.out[s].remove(at);
        let (now, closed) = (self.model.now_ms, self.model.closed);
        let model = &mut self.model.subs[s];
        let in_time = model.rules.ack_timeout_ms.is_none() || model.leases.remove(&lease).is_some();
        // One whose lease ran out is in flight no more.
        model.in_flight -= usize::from(in_time);
        let verdict = self.random.below(6);
        self.log.push(format!("settle s{s} {} as {verdict}", held.offset));
        let mut fail = |wait, reject| {
            if in_time {
                model.fail(held.clone(), wait, reject, now, closed);
            }
        };
        let result = match verdict {
            0 | 1 => delivery.ack(),
            2 => {
                fail(None, false);
                delivery.nack()
            }
            3 => {
                let ms = [0, 1, 30][self.random.below(3)];
                fail(Some(ms), false);
                delivery.nack_after(Duration::from_millis(ms))
            }
            4 => {
                fail(None, true);
                delivery.reject("no")
            }
            _ => {
                fail(None, false);
                drop(delivery);
                return;
            }
        };
        assert_eq!(result.is_ok(), in_time, "whether the lease was lost");
    }

    fn seek(&mut self, s: usize) {
        if self.model.kind == Kind::Queue {
            assert!(self.subs[s].seek(Start::Latest).is_err());
            return;
        }
        let (tail, back) = (self.model.tail(), self.random.below(40) as u64);
        let to = match self.random.below(3) {
            0 => Start::Latest,
            1 => Start::Earliest,
            _ => Start::At(Offset::new(tail.saturating_sub(back))),
        };
        let at = self.subs[s].seek(to).unwrap().get();
        self.log.push(format!("seek s{s} {to:?} -> {at}"));
        // How far back a topic still reaches depends on when it last cleaned up: at least to the slowest subscription, at most a lap.
        let slowest = self.model.subs.iter().map(|sub| sub.position).min().unwrap();
        assert!(at >= tail.saturating_sub(self.model.capacity) && at <= tail);
        match to {
            Start::Latest => assert_eq!(at, tail),
            Start::Earliest => assert!(at <= slowest),
            _ => assert!(at == tail.saturating_sub(back) || (at > tail.saturating_sub(back) && at <= slowest)),
        }
        let sub = &mut self.model.subs[s];
        // What a rule dropped is told, wherever the subscription goes from here.
        let overtaken = sub.behind_from.take();
        sub.next = None;
        for (from, to, lost) in std::mem::take(&mut sub.telling) {
            add_lag(&mut sub.lag, from, to, lost);
        }
        if let Overflow::Conflate { .. } = sub.rules.overflow {
            sub.kept.clear();
            for (from, to, lost) in std::mem::take(&mut sub.kept_lost) {
                add_lag(&mut sub.lag, from, to, lost);
            }
        } else if let Some(from) = overtaken {
            let to = sub.position;
            if from < to {
                add_lag(&mut sub.lag, from, to, to - from);
            }
        }
        sub.position = at;
    }

    fn step(&mut self) {
        let s = self.random.below(self.subs.len());
        match self.random.below(40) {
            0..=12 => self.publish(),
            13..=23 => self.receive(s),
            24..=31 => self.settle(s),
            32 | 33 => {
                let ms = [1, 10, 30][self.random.below(3)];
                self.log.push(format!("advance {ms} ms"));
                self.clock.advance(Duration::from_millis(ms));
                self.model.advance_clock(ms);
            }
            34 => self.seek(s),
            35 => {
                let pause = self.random.below(3) == 0;
                self.log.push(format!("pause s{s}: {pause}"));
                if pause {
                    self.subs[s].pause()
                } else {
                    self.subs[s].resume()
                }
                self.model.subs[s].paused = pause;
            }
            36 => self.redrive(s),
            37 => {
                self.log.push(format!("purge s{s}"));
                let purged = self.subs[s].dead_letters().purge();
                let sub = &mut self.model.subs[s];
                assert_eq!(purged, sub.letters.len() as u64);
                sub.letters.clear();
                sub.retry_undeliverable();
            }
            38 if self.model.kind == Kind::Window && self.subs.len() < 4 && !self.model.closed => self.subscribe(),
            39 if self.random.below(10) == 0 => {
                self.log.push("close".into());
                self.topic.close();
                self.model.closed = true;
                self.model.subs.iter_mut().for_each(|sub| sub.all_due(u64::MAX));
            }
            _ => self.extend(s),
        }
    }

    fn redrive(&mut self, s: usize) {
        self.log.push(format!("redrive s{s}"));
        let redriven = self.subs[s].dead_letters().redrive(|letter| letter.payload % 3 != 0);
        let sub = &mut self.model.subs[s];
        let mut expected = 0;
        for held in std::mem::take(&mut sub.letters) {
            if held.value % 3 == 0 {
                sub.letters.push_back(held);
                continue;
            }
            expected += 1;
            // As if for the first time.
            sub.ready.push_back(Held {
                attempts: 0,
                failures: 0,
                ..held
            });
        }
        assert_eq!(redriven, expected);
        sub.retry_undeliverable();
    }

    fn extend(&mut self, s: usize) {
        let Some((delivery, held, lease)) = self.out[s].first() else {
            return;
        };
        let now = self.model.now_ms;
        let sub = &mut self.model.subs[s];
        let Some(timeout) = sub.rules.ack_timeout_ms else {
            delivery.extend().unwrap();
            return;
        };
        let lease = sub.leases.get_mut(lease);
        self.log.push(format!("extend s{s} {}", held.offset));
        assert_eq!(delivery.extend().is_ok(), lease.is_some());
        if let Some((due, _)) = lease {
            *due = now + timeout;
        }
    }

    fn check(&self) {
        let topic = self.topic.stats();
        assert_eq!(topic.published, self.model.tail());
        assert!(topic.held <= self.model.capacity);
        for (s, sub) in self.subs.iter().enumerate() {
            let stats = sub.stats();
            let found = [
                stats.pending,
                stats.in_flight,
                stats.parked,
                stats.lag,
                stats.failures,
                stats.redelivered,
                stats.dropped,
                stats.filtered,
                stats.dead_lettered,
                stats.dead_letters,
                stats.handles as u64,
            ];
            assert_eq!(found, self.model.stats(s), "s{s}: {stats:?}");
            let letters: Vec<_> = self.model.subs[s]
                .letters
                .iter()
                .map(|held| (held.offset, held.attempts, held.failures))
                .collect();
            if self.model.kind == Kind::Window {
                let found: Vec<_> = sub.dead_letters().list().unwrap();
                let found: Vec<_> = found.iter().map(|l| (l.offset.get(), l.attempts, l.failures)).collect();
                assert_eq!(found, letters);
            }
        }
    }
}

#[test]
fn random_sequences_do_exactly_what_the_model_says() {
    let first = seed("model sequences");
    let sequences = size("RINGMQ_MODEL_SEQUENCES", 400) as u64;
    for kind in KINDS {
        for n in 0..sequences {
            let seed = first.wrapping_add(n);
            let mut run = Run::new(kind, seed);
            for _ in 0..OPERATIONS {
                let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    run.step();
                    run.check();
                }));
                if stepped.is_err() {
                    println!(
                        "{kind:?}, RINGMQ_SEED={seed} RINGMQ_MODEL_SEQUENCES=1, capacity {}:",
                        run.model.capacity
                    );
                    run.log.iter().for_each(|line| println!("  {line}"));
                    panic!("the crate and the model differ");
                }
            }
        }
    }
}
