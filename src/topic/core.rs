//! What all handles of one topic share: the ring, its subscriptions, and their coming and going.

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::events::Event as Happened;
use crate::message::MetaRef;
use crate::ring::{self, Overtaken, Queue};
use crate::sync::{Arc, AtomicUsize, CachePadded, Mutex, Ordering::*, plain};
use crate::topic::conflation::SideStoreOf;
use crate::topic::entrance::Entrance;
use crate::topic::options::{Settings, TopicOptions};
use crate::topic::publish::Lane;
use crate::topic::rules::{Overflow, Rules, Start, SubscribeOptions};
use crate::topic::shared::{Ring, Shared};
use crate::topic::state::{Beside, Forward, Place, StoredLetter, SubscriptionState};
use crate::user_code::{drop_contained, drop_each};
use crate::wait::{Event, Patience, Sleepers, Spin, Wakefulness};

type Subscriptions<T> = Arc<[Arc<SubscriptionState<T>>]>;
type Joined<'t, T> = (Arc<SubscriptionState<T>>, Option<Anchor<'t, T>>);

pub(crate) struct TopicCore<T> {
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) settings: Settings,
    pub(crate) first_offset: u64,
    /// Replaced as a whole, so that whoever goes through it holds no lock.
    subscriptions: Mutex<Subscriptions<T>>,
    /// For a dead-letter topic: the subscription whose letters come here.
    dead_letters_of: plain::Mutex<Option<crate::sync::Weak<SubscriptionState<T>>>>,
    /// What the shared handle's publishers remember (see [`Lane`]): only a cache, so any value that was once right will do. Relaxed.
    lane: crate::sync::AtomicU64,
}

impl<T: Send + 'static> TopicCore<T> {
    pub(crate) fn new(name: &str, options: &TopicOptions<T>, environment: &Arc<Environment>) -> Result<Self> {
        let settings = options.settings()?;
        #[cfg(any(test, feature = "testing"))]
        let first = options.first_offset;
        #[cfg(not(any(test, feature = "testing")))]
        let first = 0;
        let ring = match options.cloner {
            None => Queue::try_new(settings.capacity, first).map(Ring::Queue),
            Some(cloner) => (cloner.window)(settings.capacity, first).map(|window| Ring::Window(window, cloner)),
        };
        let ring = ring.map_err(|_| Error::OutOfMemory {
            topic: name.to_owned(),
            capacity: settings.capacity,
            message_bytes: ring::slot_bytes::<T>(),
        })?;
        let sleepers: Sleepers = Arc::new(CachePadded::new(AtomicUsize::new(0)));
        let waiting: Sleepers = Arc::new(CachePadded::new(AtomicUsize::new(0)));
        let shared = Shared {
            name: name.into(),
            ring,
            sleepers,
            subscriptions: AtomicUsize::new(0),
            unrouted: AtomicUsize::new(0),
            space: Event::new(&waiting),
            timestamps: settings.timestamps,
            environment: environment.clone(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            settings,
            first_offset: first,
            subscriptions: Mutex::new(Arc::new([])),
            dead_letters_of: plain::Mutex::new(None),
            lane: crate::sync::AtomicU64::new(0),
        })
    }

    /// The subscriptions at this moment.
    pub(crate) fn subscriptions(&self) -> Subscriptions<T> {
        self.subscriptions.lock().clone()
    }

    /// How far the shared handle may write without asking, as far as it remembers.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.lane.load(Relaxed)
    }

    /// Lends what the shared handle remembers. It is only a cache: any value that was once right will do, hence Relaxed.
    #[inline]
    pub(crate) fn with_lane<R>(&self, use_it: impl FnOnce(&mut Lane) -> R) -> R {
        let before = self.lane.load(Relaxed);
        let mut lane = Lane {
            limit: before,
            patience: Patience::NONE,
            wakefulness: Wakefulness::default(),
        };
        let result = use_it(&mut lane);
        if lane.limit != before {
            self.lane.store(lane.limit, Relaxed);
        }
        result
    }

    /// The subscription of this name, made if it does not exist. It has one more handle from here on.
    ///
    /// No lock is held while it joins the ring, which may drop payloads: they are code of the user, and may subscribe. Who finds another of that name
    /// when it is about to enter the list takes that one.
    pub(crate) fn subscribe(&self, options: &SubscribeOptions<T>) -> Result<Arc<SubscriptionState<T>>> {
        let rules = Rules::new(options)?;
        if let Some(state) = find(&self.subscriptions.lock(), options)? {
            return Ok(state);
        }
        self.check_open()?;
        let (state, anchor) = self.join(options, rules)?;
        let admitted = self.admit(&state, options);
        drop(anchor);
        if !matches!(admitted, Ok(None)) {
            self.leave(&state);
        }
        // Publishers that found nobody to wait for may find somebody now, and the other way round.
        self.shared.space.notify_all();
        if let Some(earlier) = admitted? {
            return Ok(earlier);
        }
        self.shared.environment.feed.tell(|| Happened::Subscribed {
            topic: self.shared.name.to_string(),
            subscription: state.name.to_string(),
        });
        self.take_stored_letters();
        Ok(state)
    }

    fn check_open(&self) -> Result<()> {
        if self.shared.ring.is_closed() {
            return Err(Error::Closed { what: "the topic" });
        }
        Ok(())
    }

    /// Puts a new subscription into the list, unless there is one of that name by now: that one.
    fn admit(&self, state: &Arc<SubscriptionState<T>>, options: &SubscribeOptions<T>) -> Result<Option<Arc<SubscriptionState<T>>>> {
        let mut subscriptions = self.subscriptions.lock();
        if let Some(earlier) = find(&subscriptions, options)? {
            return Ok(Some(earlier));
        }
        // Again, under the lock: of a closed topic, whoever ends its subscriptions has them all.
        self.check_open()?;
        if let (Place::Queue, Some(first)) = (&state.place, subscriptions.first()) {
            return Err(Error::SingleSubscription {
                topic: self.shared.name.to_string(),
                existing: first.name.to_string(),
            });
        }
        state.add_handle();
        *subscriptions = subscriptions.iter().cloned().chain([state.clone()]).collect();
        self.shared.subscriptions.store(subscriptions.len(), Relaxed);
        Ok(None)
    }

    /// Takes a subscription's cursor out of the ring: it holds nothing back any more. Returns how much stood before it. What a queue holds stays there,
    /// for its next subscription.
    fn leave(&self, state: &SubscriptionState<T>) -> u64 {
        match (&self.shared.ring, &state.place) {
            (Ring::Window(window, _), Place::Cursor(cursor)) => {
                let next = window.leave(cursor);
                self.shared.ring.end().saturating_sub(next)
            }
            _ => 0,
        }
    }

    /// A new subscription, and what its start was found among: to be kept until the subscription's own cursor stands there.
    fn join(&self, options: &SubscribeOptions<T>, rules: Rules<T>) -> Result<Joined<'_, T>> {
        let (window, cloner) = match &self.shared.ring {
            Ring::Window(window, cloner) => (window, cloner),
            Ring::Queue(_) => {
                self.check_queue(options.start, &rules)?;
                return Ok((SubscriptionState::new(&self.shared, &options.name, Place::Queue, None, rules), None));
            }
        };
        let (start, anchor) = self.start(options.start)?;
        let store = |keys| {
            let filter = rules.filter.clone();
            let wanted = Box::new(move |value: &T| filter.as_ref().is_none_or(|wanted| wanted(value)));
            Arc::new(SideStoreOf::new(keys, cloner.clone, wanted))
        };
        let (cursor, store) = match rules.overflow {
            Overflow::Block | Overflow::Fail => (window.join(start), None),
            Overflow::DropOldest => (window.join_overtakable(start, None), Some(store(1))),
            Overflow::Conflate { keys } => {
                let store = store(keys);
                (window.join_overtakable(start, Some(Box::new(store.clone()))), Some(store))
            }
        };
        let state = SubscriptionState::new(&self.shared, &options.name, Place::Cursor(cursor), store, rules);
        Ok((state, anchor))
    }

    fn check_queue(&self, start: Start, rules: &Rules<T>) -> Result<()> {
        let what = match (start, rules.overflow, rules.ack_timeout) {
            (Start::Latest | Start::At(_) | Start::Since(_), ..) => "a start other than Start::Earliest",
            (_, Overflow::Conflate { .. }, _) => "Overflow::Conflate",
            (.., Some(_)) => "an ack timeout",
            _ => return Ok(()),
        };
        Err(Error::NotCloneable {
            what,
            topic: self.shared.name.to_string(),
        })
    }

    fn start(&self, start: Start) -> Result<(ring::Start, Option<Anchor<'_, T>>)> {
        let at = match start {
            Start::Earliest => ring::Start::Oldest,
            Start::Latest => ring::Start::Latest,
            Start::At(offset) => ring::Start::At(offset.get()),
            Start::Since(_) if !self.settings.timestamps => {
                return Err(Error::NoTimestamps {
                    what: "Start::Since",
                    topic: self.shared.name.to_string(),
                });
            }
            Start::Since(time) => {
                let anchor = Anchor::new(&self.shared.ring);
                return Ok((ring::Start::At(self.first_since(time)), anchor));
            }
        };
        Ok((at, None))
    }

    /// The offset of the first message held that was published at `time` or later; the end, if there is none.
    fn first_since(&self, time: crate::Timestamp) -> u64 {
        let Ring::Window(window, _) = &self.shared.ring else { return 0 };
        let cursor = window.join_to_look(ring::Start::Oldest);
        let line = window.line();
        let mut found = None;
        while found.is_none() {
            let take = window.take(&cursor, &line, |p, _, meta: Option<ring::Value<'_, Arc<crate::message::Meta>>>| {
                let late = meta.and_then(|meta| meta.published).is_some_and(|published| published >= time);
                late.then_some(p)
            });
            match take {
                ring::Take::Got(late) => found = late,
                _ => break,
            }
        }
        let end = cursor.position();
        window.drop_line(&line);
        window.leave(&cursor);
        found.unwrap_or(end)
    }

    /// Moves a subscription to another place. What is in flight or parked is not touched.
    pub(crate) fn seek(&self, state: &SubscriptionState<T>, to: Start) -> Result<u64> {
        let not_cloneable = || Error::NotCloneable {
            what: "seek",
            topic: self.shared.name.to_string(),
        };
        let (Ring::Window(window, _), Place::Cursor(cursor)) = (&self.shared.ring, &state.place) else {
            return Err(not_cloneable());
        };
        let (to, _anchor) = self.start(to)?;
        let forget = |overtaken: &dyn Fn() -> Option<Overtaken>| {
            let mut kept = state.side_store.as_ref()?.kept.lock();
            Some((overtaken(), kept.forget()))
        };
        let (at, forgotten) = window.seek(cursor, to, forget);
        if let Some((overtaken, forgotten)) = forgotten {
            drop_each(forgotten.messages);
            // What a rule dropped is told, wherever the subscription goes from here.
            state.change(|beside| {
                forgotten.lost.into_iter().for_each(|lost| beside.lag.append(lost));
                overtaken.into_iter().for_each(|range| beside.lag.add(range.from, range.to));
            });
        }
        self.shared.space.notify_all();
        state.wake_all();
        Ok(at)
    }

    /// Ends a subscription: its receivers find it closed, and it holds nothing back any more. Returns how many messages it has not settled, whatever
    /// others do at this time: none is counted that a receiver still gets, but for those in flight.
    pub(crate) fn unsubscribe(&self, state: &Arc<SubscriptionState<T>>) -> u64 {
        if self.remove_if(state, || true) { self.end(state) } else { 0 }
    }

    /// Drops what the ring of a closed topic without subscriptions still holds, so that it does not stay as long as the last handle. Returns how much of
    /// it a queue's last subscription has left there.
    pub(crate) fn drop_rest(&self) -> u64 {
        let queue = match &self.shared.ring {
            Ring::Queue(queue) => queue,
            Ring::Window(window, _) => {
                window.reclaim(self.shared.ring.end());
                return 0;
            }
        };
        let (mut dropped, mut spin) = (0, Spin::new());
        loop {
            match queue.take() {
                Ok((_, value, meta)) => {
                    dropped += 1;
                    drop_contained((value, meta));
                }
                // It is being published by somebody who came before the close.
                Err(ring::Nothing::Busy) => spin.snooze(),
                Err(_) => return dropped,
            }
        }
    }

    /// Takes a subscription out of the list, if it is there and so is the condition; whether it did. Nobody subscribes meanwhile: who subscribes under
    /// the same name gets either this one, alive, or a new one.
    fn remove_if(&self, state: &Arc<SubscriptionState<T>>, condition: impl FnOnce() -> bool) -> bool {
        let mut subscriptions = self.subscriptions.lock();
        let before = subscriptions.len();
        if !condition() {
            return false;
        }
        *subscriptions = subscriptions.iter().filter(|s| !Arc::ptr_eq(s, state)).cloned().collect();
        self.shared.subscriptions.store(subscriptions.len(), Relaxed);
        before != subscriptions.len()
    }

    /// Ends a subscription that was taken out of the list.
    fn end(&self, state: &Arc<SubscriptionState<T>>) -> u64 {
        let fresh = self.leave(state);
        // Dropped outside of the lock: payloads are code of the user.
        let kept = state.side_store.as_ref().map(|store| store.kept.lock().forget());
        let (left, dropped) = state.change(|beside| {
            let left = (beside.ready.len() + beside.parked_count()) as u64 + state.credit.out();
            (left, beside.end())
        });
        let left = left + fresh + kept.as_ref().map_or(0, |kept| kept.messages.len() as u64 + kept.copying);
        state.reschedule();
        drop_each(kept.into_iter().flat_map(|kept| kept.messages));
        drop_each(dropped.0);
        drop_each(dropped.1);
        self.shared.space.notify_all();
        self.shared.environment.feed.tell(|| Happened::Unsubscribed {
            topic: self.shared.name.to_string(),
            subscription: state.name.to_string(),
        });
        left
    }

    /// A handle went. The last one to go wakes publishers, which wait for nobody now, and ends an ephemeral subscription.
    pub(crate) fn drop_handle(&self, state: &Arc<SubscriptionState<T>>) {
        if state.handles.fetch_sub(1, AcqRel) != 1 {
            return;
        }
        if !state.rules.ephemeral {
            return self.shared.space.notify_all();
        }
        if self.remove_if(state, || state.handles.load(Acquire) == 0) {
            self.end(state);
        }
    }

    /// Accepts nothing from here on. Receivers get what was accepted, then learn that the topic is closed.
    pub(crate) fn close(&self) {
        if self.shared.ring.is_closed() {
            return;
        }
        self.shared.ring.close();
        self.shared.space.notify_all();
        for state in self.subscriptions().iter() {
            // Nothing waits any more: what is parked becomes due.
            state.change(Beside::hurry);
            state.reschedule();
        }
        self.tell_closed();
    }

    /// No handle is left that could publish: what was accepted is all that receivers get. Unlike a topic that was closed, it is in no hurry: what
    /// is parked becomes due in its time.
    pub(crate) fn nobody_publishes(&self) {
        if self.shared.ring.is_closed() {
            return;
        }
        self.shared.ring.close();
        for state in self.subscriptions().iter() {
            // Changes nothing, but whoever sleeps beside the ring finds out.
            state.change(|_| ());
        }
        self.tell_closed();
    }

    fn tell_closed(&self) {
        self.shared.environment.feed.tell(|| Happened::TopicClosed {
            topic: self.shared.name.to_string(),
        });
    }

    /// The subscription of this name, if there is one.
    pub(crate) fn origin(&self, name: &str) -> Option<Arc<SubscriptionState<T>>> {
        self.subscriptions().iter().find(|state| &*state.name == name).cloned()
    }

    /// From here on this topic gets the dead letters of `origin`, those stored so far included, while it has a subscription. `origin` may be
    /// the successor of an earlier subscription of that name.
    pub(crate) fn collect_dead_letters_of(self: &Arc<Self>, origin: &Arc<SubscriptionState<T>>, entrance: &Arc<Entrance<T>>) {
        let forward: Arc<dyn Forward<T>> = Arc::new(DeadLetterTopic {
            core: Arc::downgrade(self),
            _entrance: entrance.clone(),
        });
        origin.change(|beside| beside.forward = Some(forward));
        *self.dead_letters_of.lock() = Some(Arc::downgrade(origin));
        if !self.subscriptions().is_empty() {
            self.take_stored_letters();
        }
    }

    /// Takes over the dead letters that were stored before anybody subscribed here.
    fn take_stored_letters(&self) {
        let origin = self.dead_letters_of.lock().as_ref().and_then(crate::sync::Weak::upgrade);
        let Some(origin) = origin else { return };
        let forward = origin.beside.lock().forward.clone();
        if let Some(forward) = forward {
            origin.forward_stored(&*forward);
        }
        origin.retry_undeliverable();
    }
}

/// The subscription of this name in the list, if its rules do not contradict, with one more handle.
fn find<T>(subscriptions: &Subscriptions<T>, options: &SubscribeOptions<T>) -> Result<Option<Arc<SubscriptionState<T>>>> {
    let Some(state) = subscriptions.iter().find(|state| *state.name == *options.name) else {
        return Ok(None);
    };
    state.rules.check_same(options)?;
    state.add_handle();
    Ok(Some(state.clone()))
}

/// A cursor that stands at the oldest message: while it is there, the topic lets go of nothing. A look through the messages needs it,
/// because the last cursor to leave takes what it has read along.
struct Anchor<'r, T> {
    window: &'r ring::Window<T, Arc<crate::message::Meta>>,
    cursor: Arc<ring::Cursor<T, Arc<crate::message::Meta>>>,
}

impl<'r, T> Anchor<'r, T> {
    /// An anchor, unless it is a queue, which nobody looks through.
    fn new(ring: &'r Ring<T>) -> Option<Self> {
        let Ring::Window(window, _) = ring else { return None };
        let cursor = window.join_to_look(ring::Start::Oldest);
        Some(Self { window, cursor })
    }
}

impl<T> Drop for Anchor<'_, T> {
    fn drop(&mut self) {
        self.window.leave(&self.cursor);
    }
}

/// Publishes dead letters to their topic while it has a subscription.
struct DeadLetterTopic<T: Send + 'static> {
    core: crate::sync::Weak<TopicCore<T>>,
    _entrance: Arc<Entrance<T>>,
}

impl<T: Send + 'static> Forward<T> for DeadLetterTopic<T> {
    fn forward(&self, stored: StoredLetter<T>) -> Option<StoredLetter<T>> {
        let Some(topic) = self.core.upgrade().filter(|topic| !topic.subscriptions().is_empty()) else {
            return Some(stored);
        };
        let StoredLetter { letter, meta } = stored;
        let with_history = with_history(&letter, &meta);
        topic.shared.ring.prepare_attachments();
        let refused = topic.try_publish(&mut Lane::default(), letter.payload, with_history).err()?;
        Some(StoredLetter {
            letter: crate::DeadLetter {
                payload: refused.into_inner(),
                ..letter
            },
            meta,
        })
    }
}

/// The message's own key and headers, and its history as headers.
fn with_history<T>(letter: &crate::DeadLetter<T>, meta: &MetaRef) -> MetaRef {
    let mut meta = meta.as_deref().cloned().unwrap_or_default();
    let mut add = |name: &str, value: String| meta.headers.add(name, value);
    add("dead-topic", letter.topic.clone());
    add("dead-subscription", letter.subscription.clone());
    add("dead-offset", letter.offset.to_string());
    add("dead-reason", letter.reason.to_string());
    add("dead-attempts", letter.attempts.to_string());
    add("dead-failures", letter.failures.to_string());
    add("dead-first-failed", letter.first_failed.as_nanos().to_string());
    add("dead-last-failed", letter.last_failed.as_nanos().to_string());
    if let Some(error) = &letter.error {
        add("dead-error", error.clone());
    }
    Some(Arc::new(meta))
}
