//! Waiting for queues that cannot wait: the caller's spin loop, and an end-of-stream flag.

use std::{
    hint, ops,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::queue::Shape;

/// How a refused call is tried again. Two pinned threads only pause; more threads than processors must yield.
#[derive(Clone, Copy)]
pub struct Patience {
    yields: bool,
}

impl Patience {
    /// Waits as the number of threads of `shape` asks for.
    pub fn for_shape(shape: &Shape) -> Self {
        Patience {
            yields: shape.threads() > 2,
        }
    }

    /// Repeats `attempt` until it answers.
    #[inline(always)]
    pub fn until<R>(self, mut attempt: impl FnMut() -> Option<R>) -> R {
        let mut refused = 0;
        loop {
            if let Some(answer) = attempt() {
                return answer;
            }
            self.pause(refused);
            refused += 1;
        }
    }

    fn pause(self, refused: u32) {
        match (self.yields, refused) {
            (false, _) => hint::spin_loop(),
            (true, 0..6) => (0..1 << refused).for_each(|_| hint::spin_loop()),
            (true, _) => thread::yield_now(),
        }
    }
}

/// A queue without an end, and the flag that gives it one. Receivers hold it.
pub struct Endless<Q> {
    queue: Q,
    ended: AtomicBool,
}

impl<Q> Endless<Q> {
    /// Wraps `queue`; the stream ends when the last clone of the second handle is dropped.
    pub fn new(queue: Q) -> (Arc<Self>, Arc<Ender<Q>>) {
        let endless = Arc::new(Endless {
            queue,
            ended: AtomicBool::new(false),
        });
        (endless.clone(), Arc::new(Ender(endless)))
    }

    /// Whether nothing more will be published. What was published before is visible to whoever sees `true`.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl<Q> ops::Deref for Endless<Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.queue
    }
}

/// What publishers hold together: ends the stream when they are all gone.
pub struct Ender<Q>(Arc<Endless<Q>>);

impl<Q> ops::Deref for Ender<Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.0.queue
    }
}

impl<Q> Drop for Ender<Q> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}
