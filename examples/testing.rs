//! Testing code that uses a broker: a clock that the test drives, waiting until the work is done, and what was published.
//!
//! Needs the feature `testing`, which belongs under `[dev-dependencies]`.
//!
//! ```text
//! cargo run --example testing
//! ```

use std::time::Duration;

use ringmq::testing::ManualClock;
use ringmq::{Backoff, Broker, Delivery, Result, Running, SubscribeOptions};

/// The program under test: sends a reminder for every order, and tries again an hour after a failure.
fn remind(broker: &Broker, send: impl Fn(u64) -> Result<(), String> + Send + Sync + 'static) -> Result<Running> {
    let reminders = broker.topic::<u64>("reminders")?;
    let orders = broker.topic::<u64>("orders")?;
    let options = SubscribeOptions::new("remind").backoff(Backoff::fixed(Duration::from_secs(3600)));
    let handle = move |order: &Delivery<u64>| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        send(**order)?;
        reminders.publish(**order)?;
        Ok(())
    };
    Ok(orders.subscribe_with(options)?.run(1, handle))
}

fn main() -> Result<()> {
    let clock = ManualClock::new();
    let broker = Broker::builder().clock(clock.clone()).seed(1).open("mem:")?;
    let reminded = broker.published::<u64>("reminders")?;
    let mail_works = std::sync::atomic::AtomicBool::new(false);
    let running = remind(&broker, move |_| {
        let works = mail_works.swap(true, std::sync::atomic::Ordering::Relaxed);
        if works { Ok(()) } else { Err("the mail server is away".into()) }
    })?;

    broker.topic::<u64>("orders")?.publish(42)?;
    assert!(broker.wait_idle(Duration::from_secs(10)));
    assert_eq!(reminded.take(), [], "the first attempt failed");

    clock.advance(Duration::from_secs(3600)); // no waiting: the retry is due now
    assert!(broker.wait_idle(Duration::from_secs(10)));
    assert_eq!(reminded.take(), [42]);
    println!("an hour passed in no time, and order 42 was reminded");
    running.drain(Duration::from_secs(10));
    Ok(())
}
