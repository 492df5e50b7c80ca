//! Publishes and receives one message at a time in one thread, for `instructions.sh` to count.
//!
//! `instructions NAME COUNT`; the name `nothing` runs the empty loop, `list` prints all names.

use std::{env, hint::black_box, process::ExitCode};

use peers::{
    ours,
    peers::{Visitor, broadcast, channels, disruptor, rings},
    queue::{Ends, Publish, Queue, Receive, Shape},
};

const SHAPE: Shape = Shape::new(1, 1, 1);

struct Pick {
    name: String,
    count: u64,
    found: bool,
}

impl Visitor<u64> for Pick {
    fn queue<Q: Queue<u64>>(&mut self) {
        if !Q::serves(&SHAPE) {
            return;
        }
        if self.name == "list" {
            println!("{}", Q::NAME);
        }
        if Q::NAME == self.name && !self.found {
            self.found = true;
            there_and_back::<Q>(self.count);
        }
    }
}

#[inline(never)]
fn there_and_back<Q: Queue<u64>>(count: u64) {
    let Ends {
        mut publishers,
        mut subscriptions,
    } = Q::open(&SHAPE);
    let publisher = &mut publishers[0];
    let subscriber = &mut subscriptions[0][0];
    for id in 0..count {
        publisher.publish(black_box(id));
        subscriber.receive(|value| {
            black_box(*value);
        });
    }
}

#[inline(never)]
fn nothing(count: u64) {
    for id in 0..count {
        black_box(black_box(id));
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "list".into());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    if name == "nothing" {
        nothing(count);
        return ExitCode::SUCCESS;
    }
    let mut pick = Pick {
        found: name == "list",
        name,
        count,
    };
    ours::visit::<u64>(&mut pick);
    pick.queue::<disruptor::Pair>();
    pick.queue::<rings::Rtrb>();
    pick.queue::<rings::Array>();
    pick.queue::<channels::Kanal>();
    pick.queue::<channels::CrossfireSpsc>();
    pick.queue::<channels::CrossfireMpmc>();
    pick.queue::<channels::OmangoSpsc>();
    pick.queue::<channels::CrossbeamChannel>();
    pick.queue::<channels::TokioMpsc>();
    pick.queue::<broadcast::TokioBroadcast>();
    if pick.found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
