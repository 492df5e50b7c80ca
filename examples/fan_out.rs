//! Fan-out: every subscription sees every message that its filter lets pass; a late one starts at the oldest message still held.
//!
//! ```text
//! cargo run --example fan_out
//! ```

use ringmq::{Broker, Result, Start, SubscribeOptions};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reading {
    sensor: String,
    celsius: f64,
}

fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let readings = broker.topic::<Reading>("readings")?;
    let log = readings.subscribe("log")?;
    let alarm = readings.subscribe_with(SubscribeOptions::new("alarm").filter(|r: &Reading| r.celsius > 30.0))?;

    for (sensor, celsius) in [("hall", 19.5), ("oven", 180.0), ("hall", 20.1), ("yard", 31.2)] {
        let sensor = sensor.to_owned();
        let receipt = readings.publish(Reading { sensor, celsius })?;
        println!(
            "published at offset {} to {} subscriptions",
            receipt.offset(),
            receipt.subscriptions()
        );
    }
    // What `log` has not read yet is still held, so a newcomer can have it, or only the news.
    let replay = readings.subscribe("replay")?;
    let news = readings.subscribe_with(SubscribeOptions::new("news").start(Start::Latest))?;
    readings.close();

    for (name, subscription, expected) in [("log", log, 4), ("alarm", alarm, 2), ("replay", replay, 4), ("news", news, 0)] {
        let mut seen = 0;
        for reading in &subscription.auto_ack() {
            let Reading { sensor, celsius } = reading?;
            println!("{name:>6}: {sensor} {celsius}");
            seen += 1;
        }
        assert_eq!(seen, expected);
    }
    Ok(())
}
