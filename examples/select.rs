//! One thread, several subscriptions with different payloads: whichever has something first.
//!
//! ```text
//! cargo run --example select
//! ```

use std::thread;
use std::time::{Duration, Instant};

use ringmq::{Broker, Result, TryRecvError, select};

fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let keys = broker.topic::<char>("keys")?;
    let frames = broker.topic::<Vec<u8>>("frames")?;
    let (key_input, screen) = (keys.subscribe("editor")?.auto_ack(), frames.subscribe("editor")?.auto_ack());

    let publishing = thread::spawn(move || -> Result<()> {
        let mut publisher = frames.publisher();
        for (n, key) in "hello".chars().enumerate() {
            keys.publish(key)?;
            publisher.publish(vec![0; n])?;
        }
        keys.close();
        Ok(())
    });

    let (mut text, mut bytes) = (String::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Somebody else could be faster, so the message is taken by `try_recv`.
        match select(&[&key_input, &screen], Some(deadline)) {
            Some(0) => match key_input.try_recv() {
                Ok(key) => text.push(key),
                Err(TryRecvError::Closed) => break,
                Err(_) => {}
            },
            Some(_) => bytes += screen.try_recv().map_or(0, |frame| frame.len()),
            None => panic!("nothing came for ten seconds"),
        }
    }
    publishing.join().expect("no panic")?;
    println!("typed {text:?} and drew at least {bytes} bytes");
    assert_eq!(text, "hello");
    Ok(())
}
