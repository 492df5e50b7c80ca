//! Goal: idle is free (G10): a hundred topics with sleeping subscribers use no CPU and no thread that wakes.
//! Method: real idle time, waited for by an event that does not come; the CPU time of each thread before and after.
#![cfg(target_os = "linux")]

mod support;

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use ringmq::RecvError;
use support::{block_on, broker, thread_names, until};

/// The CPU time of each thread of this process, in nanoseconds, and how often it ran.
fn cpu() -> HashMap<String, (u64, u64)> {
    std::fs::read_dir("/proc/self/task")
        .expect("this is Linux")
        .filter_map(|task| {
            let path = task.ok()?.path();
            let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let mut numbers = stat.split_whitespace().map(|n| n.parse().expect("schedstat holds numbers"));
            let (ran, _, times) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some((path.to_string_lossy().into_owned(), (ran, times)))
        })
        .collect()
}

#[test]
fn a_hundred_topics_with_sleeping_subscribers_use_no_cpu() {
    let broker = broker();
    let topics: Vec<_> = (0..100).map(|n| broker.topic::<u64>(&format!("t{n}")).unwrap()).collect();
    let subs: Vec<_> = topics.iter().map(|topic| topic.subscribe("s").unwrap()).collect();
    let threads_before = thread_names().len();
    thread::scope(|scope| {
        for (n, sub) in subs.iter().enumerate() {
            scope.spawn(move || {
                let ended = if n % 2 == 0 { sub.recv() } else { block_on(sub.recv_async()) };
                assert_eq!(ended.map(drop), Err(RecvError::Closed));
            });
        }
        until("all threads are there", || thread_names().len() == threads_before + 100);
        // Nothing comes to whoever watches the events; that is the idle time.
        let mut events = broker.events();
        let quiet = |events: &mut ringmq::Events| {
            let before = cpu();
            assert_eq!(events.next_timeout(Duration::from_millis(400)), None);
            let after = cpu();
            let me = format!(
                "/proc/self/task/{}",
                std::fs::read_link("/proc/thread-self")
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
            );
            let ran = |(path, (ns, times)): (&String, &(u64, u64))| {
                let (ns_before, times_before) = before.get(path).copied().unwrap_or_default();
                (*path != me).then(|| (ns - ns_before, times - times_before))
            };
            after.iter().filter_map(ran).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        // The first look may still see threads on their way to sleep.
        let end = Instant::now() + support::PATIENCE;
        let (mut ns, mut times) = quiet(&mut events);
        while times > 0 && Instant::now() < end {
            (ns, times) = quiet(&mut events);
        }
        assert_eq!((ns, times), (0, 0), "CPU nanoseconds and wake-ups of all other threads in 400 ms");
        assert_eq!(thread_names().len(), threads_before + 100, "the broker itself has no thread");
        topics.iter().for_each(ringmq::Topic::close);
    });
}
