//! The least there is: a topic, a subscription, one message.
//!
//! ```text
//! cargo run --example hello
//! ```

use ringmq::{Broker, Result};

fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let orders = broker.topic::<u64>("orders")?;
    let billing = orders.subscribe("billing")?;
    orders.publish(42)?;
    let order = billing.recv()?;
    println!("{} (attempt {})", *order, order.attempt());
    order.ack()
}
