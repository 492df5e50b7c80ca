//! Receiving several messages at a time: a run of what stands in the ring, claimed in one step.

use crate::ring::Take;
use crate::sync::Ordering::*;
use crate::topic::delivery::Delivery;
use crate::topic::mode::Mode;
use crate::topic::seat::{Blocked, Credit, Credits, Fast, LOOKS, Look, Seat};
use crate::topic::shared::{Fresh, Ring, Taken};
use crate::topic::state::Place;
use crate::user_code::clear_contained;

const CREDIT: &str = "no more messages are taken than there is credit for";

impl<T: Send + 'static> Seat<T> {
    /// The fast path of a run: plain values from the ring. Returns how many.
    #[inline]
    pub(crate) fn pop_run(&mut self, max: usize, out: &mut Vec<T>) -> Option<usize> {
        let taken = match self.fast()? {
            Fast::Queue(queue) => queue.pop_run(max, out, |_, value| value)?,
            Fast::Window(window, cloner, cursor, line) => {
                let mut first = 0;
                let taken = (cloner.pop_run)(window, &self.state, cursor, line, max, out, &mut first)?;
                window.tidy(cursor, first + taken as u64 - 1);
                taken
            }
        };
        self.taken_one();
        Some(taken)
    }

    /// The same as deliveries, as many as there is credit for. What credit is left over pays itself back.
    #[inline]
    pub(crate) fn pop_deliveries(&mut self, max: usize, out: &mut Vec<Delivery<T>>) -> Option<usize> {
        if !self.state.has_fresh() {
            return None;
        }
        let mut values = std::mem::take(&mut self.values);
        let taken = self.pop_on_credit(max, &mut values, out);
        self.values = values;
        taken
    }

    #[inline(always)]
    fn pop_on_credit(&self, max: usize, values: &mut Vec<T>, out: &mut Vec<Delivery<T>>) -> Option<usize> {
        let fast = self.fast()?;
        let mut credits = self.lender.lend_run(max as u64);
        let most = credits.len();
        if most == 0 {
            return None;
        }
        let taken = match fast {
            Fast::Queue(queue) => {
                let make = |offset, value| Delivery::plain(offset, value, credits.next().expect(CREDIT));
                queue.pop_run(most, out, make)?
            }
            Fast::Window(window, cloner, cursor, line) => {
                let mut run = HandOver {
                    first: 0,
                    values,
                    credits,
                    out,
                };
                let taken = (cloner.pop_run)(window, &self.state, cursor, line, most, run.values, &mut run.first)?;
                window.tidy(cursor, run.first + taken as u64 - 1);
                taken
            }
        };
        self.taken_one();
        Some(taken)
    }

    /// Takes up to `max` messages, at least one, into `out`.
    #[inline]
    pub(crate) fn try_run<M: Mode>(&mut self, max: usize, out: &mut Vec<M::Item<T>>) -> Result<usize, Blocked> {
        match M::pop_run(self, max, out) {
            Some(taken) => Ok(taken),
            None => self.try_run_slowly::<M>(max, out),
        }
    }

    #[cold]
    fn try_run_slowly<M: Mode>(&mut self, max: usize, out: &mut Vec<M::Item<T>>) -> Result<usize, Blocked> {
        if max == 0 {
            return Ok(0);
        }
        if self.state.drops_from_queue() {
            return self.try_one_by_one::<M>(max, out);
        }
        let before = out.len();
        for _ in 0..LOOKS {
            if self.state.attention.load(Relaxed) != 0 {
                match self.look_beside::<M>() {
                    Look::Item(item) => {
                        out.push(item);
                        return Ok(1);
                    }
                    Look::Blocked(blocked) => return Err(blocked),
                    Look::Ring => {}
                }
            }
            if !self.state.has_fresh() {
                return Err(self.nothing());
            }
            let result = if M::EXPLICIT {
                self.run_on_credit::<M>(max, out)
            } else {
                self.run::<M>(max, None, out)
            };
            match result {
                Ok(()) if out.len() > before => return Ok(out.len() - before),
                Ok(()) => {}
                Err(Some(Fresh::Behind)) => {
                    if let Some(item) = self.take_kept::<M>(max)? {
                        out.push(item);
                        self.take_more_kept::<M>(max - 1, out);
                        return Ok(out.len() - before);
                    }
                }
                Err(other) => self.not_got(other.ok_or(Blocked::InFlightFull)?)?,
            }
        }
        Err(Blocked::Unwanted)
    }

    /// A run where each message may be the one before which a loss is to be told.
    fn try_one_by_one<M: Mode>(&mut self, max: usize, out: &mut Vec<M::Item<T>>) -> Result<usize, Blocked> {
        let before = out.len();
        out.push(self.try_next::<M>()?);
        while out.len() - before < max && self.state.attention.load(Relaxed) == 0 {
            let credit = if M::EXPLICIT { self.lender.lend() } else { None };
            if M::EXPLICIT && credit.is_none() {
                break;
            }
            match self.state.take_fresh(None) {
                Fresh::Got(taken) => out.push(self.hand_over::<M>(taken, credit)),
                Fresh::Filtered(n) => {
                    self.state.counters.filtered.fetch_add(n, Relaxed);
                }
                _ => break,
            }
        }
        self.taken_one();
        Ok(out.len() - before)
    }

    /// A run of deliveries: as many as there is credit for.
    fn run_on_credit<M: Mode>(&mut self, max: usize, out: &mut Vec<M::Item<T>>) -> Result<(), Option<Fresh<T>>> {
        let credits: Vec<_> = self.lender.lend_run(max as u64).collect();
        if credits.is_empty() {
            return Err(None);
        }
        self.run::<M>(credits.len(), Some(credits), out)
    }

    fn run<M: Mode>(&mut self, max: usize, mut credits: Option<Vec<Credit<T>>>, out: &mut Vec<M::Item<T>>) -> Result<(), Option<Fresh<T>>> {
        let state = &*self.state;
        let before = out.len();
        let mut push = |taken: Taken<T>| out.push(self.hand_over::<M>(taken, credits.as_mut().and_then(Vec::pop)));
        let result = match (&state.shared.ring, &state.place, self.line()) {
            (Ring::Window(window, cloner), Place::Cursor(cursor), Some(line)) => {
                let result = (cloner.run)(window, state, cursor, line, max, &mut push);
                window.tidy(cursor, cursor.position().saturating_sub(1));
                match result {
                    Take::Got(taken) => Ok(taken),
                    Take::Behind => Err(Some(Fresh::Behind)),
                    Take::Nothing(nothing) => Err(Some(Fresh::Nothing(nothing))),
                }
            }
            (Ring::Queue(queue), _, _) => {
                let mut unwanted = Vec::new();
                let taken = queue.take_run(max, |offset, value, meta| {
                    if state.rules.filter.is_none() || state.passes(&value) {
                        push(Taken { offset, value, meta });
                    } else {
                        unwanted.push(value);
                    }
                });
                clear_contained(&mut unwanted);
                taken.map_err(|nothing| Some(Fresh::Nothing(nothing)))
            }
            _ => unreachable!("a window's subscription has a cursor, and its subscribers lines"),
        };
        drop(credits);
        let unwanted = result? - (out.len() - before);
        if unwanted > 0 {
            state.counters.filtered.fetch_add(unwanted as u64, Relaxed);
        }
        self.taken_one();
        Ok(())
    }
}

/// Makes deliveries of a run's values and credits, on unwinding too: what was cloned before a clone panicked is not lost.
struct HandOver<'a, T: Send + 'static> {
    first: u64,
    values: &'a mut Vec<T>,
    credits: Credits<T>,
    out: &'a mut Vec<Delivery<T>>,
}

impl<T: Send + 'static> Drop for HandOver<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        debug_assert!(self.values.len() <= self.credits.len(), "{CREDIT}");
        let mut next = self.first;
        self.credits.take_all().deal(self.values.drain(..), self.out, move |value, credit| {
            let offset = next;
            next += 1;
            Delivery::plain(offset, value, credit)
        });
    }
}
