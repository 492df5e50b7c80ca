//! A work queue of closures: values that are neither `Clone` nor serde move to whichever worker is free.
//!
//! ```text
//! cargo run --example work_queue
//! ```

use std::thread;

use ringmq::{Broker, Result, TopicOptions};

type Job = Box<dyn FnOnce() -> usize + Send>;

fn main() -> Result<()> {
    let broker = Broker::open("mem:")?;
    let jobs = broker.topic_with::<Job>("jobs", TopicOptions::work_queue().capacity(16))?;
    let pool = jobs.subscribe("pool")?;

    let workers: Vec<_> = (1..=3)
        .map(|worker| {
            // Each worker is a subscriber of the same subscription: they compete.
            let mut subscriber = pool.auto_ack().subscriber();
            thread::spawn(move || {
                let (mut done, mut primes) = (0, 0);
                while let Ok(job) = subscriber.recv() {
                    primes += job();
                    done += 1;
                }
                println!("worker {worker} did {done} jobs");
                primes
            })
        })
        .collect();

    for block in 0..100 {
        // Waits while 16 jobs are queued.
        jobs.publish(Box::new(move || {
            (block * 1_000..(block + 1) * 1_000).filter(|&n| is_prime(n)).count()
        }))?;
    }
    jobs.close(); // the workers finish what was accepted, and end

    let primes: usize = workers.into_iter().map(|worker| worker.join().expect("no job panics")).sum();
    println!("there are {primes} primes below 100,000");
    assert_eq!(primes, 9_592);
    Ok(())
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}
