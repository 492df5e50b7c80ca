//! Two threads, one message under way: the round trip while both are awake, and the wake-up of an idle subscriber.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use crate::{
    machine,
    queue::{Ends, Publish, Queue, Receive, Shape},
    stats,
    stream::Gate,
};

/// One publisher, one subscriber, little room: nothing ever queues up.
const SHAPE: Shape = Shape::new(1, 1, 1).capacity(128);

/// An idle subscriber gets a message this often.
const PERIOD: Duration = Duration::from_micros(50);

fn open<Q: Queue<u64>>() -> (Q::Publisher, Q::Subscriber) {
    let Ends {
        mut publishers,
        mut subscriptions,
    } = Q::open(&SHAPE);
    let publisher = publishers.pop().expect("one publisher was asked for");
    let subscriber = subscriptions.pop().and_then(|mut subscribers| subscribers.pop());
    (publisher, subscriber.expect("one subscriber was asked for"))
}

/// A side of a two-thread run, boxed so that starting it is compiled once.
type Side<R> = Box<dyn FnOnce() -> R + Send>;

/// Runs both sides, each on a processor of its own, from the same moment on.
fn together<R: Send>(first: Side<()>, second: Side<R>) -> R {
    let gate = Gate::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(0);
            gate.pass();
            first();
        });
        let second = scope.spawn(|| {
            machine::pin(1);
            gate.pass();
            second()
        });
        second.join().expect("both sides run to their end")
    })
}

/// The median round trip, in nanoseconds, of `bounces` messages there and back through two queues.
///
/// # Errors
///
/// Says which message came back as another.
pub fn round_trip<Q: Queue<u64>>(bounces: u64) -> Result<f64, String> {
    let (mut there, mut echo_in) = open::<Q>();
    let (mut echo_out, mut back) = open::<Q>();
    let echo = move || {
        let mut ball = 0;
        while echo_in.receive(|value| ball = *value) {
            echo_out.publish(ball);
        }
    };
    let serve = move || {
        let mut trips = Vec::with_capacity(bounces as usize);
        for id in 0..bounces {
            let started = Instant::now();
            there.publish(id);
            let mut ball = u64::MAX;
            back.receive(|value| ball = *value);
            trips.push(started.elapsed().as_nanos() as f64);
            if ball != id {
                return Err(format!("sent {id}, got back {ball}"));
            }
        }
        Ok(stats::median(trips))
    };
    together(Box::new(echo), Box::new(serve))
}

/// What it takes to wake an idle subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// Median time from before the publish to the subscriber's return, in nanoseconds.
    pub delay_ns: f64,
    /// Processor time of the subscriber's thread per message, in nanoseconds.
    pub cpu_ns: f64,
}

/// Publishes `messages`, one per period, to a subscriber that has nothing else to do.
///
/// # Errors
///
/// Says how many messages are missing.
pub fn idle_wake<Q: Queue<u64>>(messages: u64) -> Result<Wake, String> {
    let (mut publisher, mut subscriber) = open::<Q>();
    let epoch = Instant::now();
    let publish = move || {
        for _ in 0..messages {
            let quiet_since = Instant::now();
            while quiet_since.elapsed() < PERIOD {
                hint::spin_loop();
            }
            publisher.publish(epoch.elapsed().as_nanos() as u64);
        }
    };
    let receive = move || {
        let before = machine::thread_cpu();
        let mut delays = Vec::with_capacity(messages as usize);
        while subscriber.receive(|sent| delays.push((epoch.elapsed().as_nanos() as u64 - sent) as f64)) {}
        let cpu_ns = (machine::thread_cpu() - before).as_nanos() as f64 / messages as f64;
        match delays.len() as u64 {
            received if received == messages => Ok(Wake {
                delay_ns: stats::median(delays),
                cpu_ns,
            }),
            received => Err(format!("received {received} of {messages}")),
        }
    };
    together(Box::new(publish), Box::new(receive))
}
