//! A handler that fails: back-off and retry, then the dead letters with their history, then another try after the repair.
//!
//! ```text
//! cargo run --example retry_and_dead_letters
//! ```

use std::time::Duration;

use ringmq::{Backoff, Broker, Event, Outcome, Result, SubscribeOptions};

fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let mut events = broker.events();
    let texts = broker.topic::<String>("texts")?;
    let numbers = texts.subscribe_with(
        SubscribeOptions::new("numbers")
            .max_failures(3)
            .backoff(Backoff::exponential(Duration::from_millis(1), Duration::from_millis(50))),
    )?;

    // An error or a panic is a failure; an `Outcome` says more.
    let running = numbers.run(2, |text| {
        println!("{:?}, attempt {}", **text, text.attempt());
        if text.is_empty() {
            return Outcome::reject("nothing to parse"); // no retry would help
        }
        match text.parse::<i32>() {
            Ok(_) => Outcome::Ack,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    });
    for text in ["17", "seventeen", ""] {
        texts.publish(text.to_owned())?;
    }

    let mut dead = 0;
    while dead < 2 {
        let event = events.next_timeout(Duration::from_secs(10)).expect("two texts are no numbers");
        dead += u32::from(matches!(event, Event::DeadLettered { .. }));
    }
    assert!(running.drain(Duration::from_secs(10)).ended);
    for letter in numbers.dead_letters().list()? {
        let error = letter.error.as_deref().unwrap_or("none");
        println!(
            "dead: {:?}, {} (deliveries {}, last error: {error})",
            letter.payload, letter.reason, letter.attempts
        );
    }

    // The handler learnt words: redrive what it choked on, purge the rest.
    let redriven = numbers.dead_letters().redrive(|letter| !letter.payload.is_empty());
    let purged = numbers.dead_letters().purge();
    let again = numbers.recv()?;
    println!(
        "redriven: {redriven}, purged: {purged}, delivered again: {:?} (attempt {})",
        *again,
        again.attempt()
    );
    again.ack()
}
