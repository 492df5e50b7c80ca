//! The four overflow rules side by side: what becomes of 1,000 prices when a subscription does not read them in time.
//!
//! ```text
//! cargo run --example backpressure
//! ```

use std::time::Duration;

use ringmq::{Broker, Overflow, PublishError, Result, SubscribeOptions, Topic, TopicOptions};

fn main() -> Result<()> {
    let rules = [
        ("Block", Overflow::Block),
        ("Fail", Overflow::Fail),
        ("DropOldest", Overflow::DropOldest),
        ("Conflate", Overflow::Conflate { keys: 3 }),
    ];
    println!("{:<12}{:>10}{:>10}{:>10}", "rule", "entered", "received", "lost");
    for (name, overflow) in rules {
        let broker = Broker::open("mem:")?;
        let prices = broker.topic_with::<u32>("prices", TopicOptions::new().capacity(64))?;
        let slow = prices.subscribe_with(SubscribeOptions::new("slow").overflow(overflow))?;
        let entered = publish_all(&prices)?;
        prices.close();

        // Nothing is lost in silence: before the next message, the subscription is told what it missed.
        let (mut received, mut lost) = (0, 0);
        for price in &slow.auto_ack() {
            match price {
                Ok(_) => received += 1,
                Err(lagged) => lost += lagged.lost,
            }
        }
        println!("{name:<12}{entered:>10}{received:>10}{lost:>10}");
        assert_eq!(entered, received + lost);
        assert_eq!(slow.stats().dropped, lost);
    }
    Ok(())
}

/// Publishes 1,000 prices of three shares, waiting a millisecond for room; returns how many entered.
fn publish_all(prices: &Topic<u32>) -> Result<u64> {
    for n in 0..1_000 {
        let share = ["AAA", "BBB", "CCC"][n as usize % 3];
        match prices.message(n).key(share).publish_timeout(Duration::from_millis(1)) {
            Ok(_) => {}
            // `Block` waits, `Fail` does not; either way the price comes back in the error.
            Err(PublishError::Timeout(price) | PublishError::Full(price)) => return Ok(price.into()),
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(1_000)
}
