//! Smoke.
use ringmq::*;
use std::thread;
#[test]
fn mpmc() {
    for kind in 0..2 {
        for cap in [1usize, 2, 8, 1024] {
            let broker = Broker::open("mem:").unwrap();
            let o = if kind == 0 {
                TopicOptions::work_queue()
            } else {
                TopicOptions::in_memory()
            };
            let t = broker.topic_with::<u64>("t", o.capacity(cap)).unwrap();
            let s = t.subscribe("s").unwrap();
            let n = 20000u64;
            let sum: u64 = thread::scope(|sc| {
                let hs: Vec<_> = (0..3)
                    .map(|i| {
                        let s = s.clone();
                        sc.spawn(move || {
                            let mut sum = 0;
                            let mut sub = s.subscriber();
                            loop {
                                match sub.recv() {
                                    Ok(d) => {
                                        if *d % 97 == i {
                                            sum += *d;
                                            d.ack().unwrap()
                                        } else {
                                            sum += d.into_inner().unwrap()
                                        }
                                    }
                                    Err(RecvError::Closed) => return sum,
                                    Err(e) => panic!("{e}"),
                                }
                            }
                        })
                    })
                    .collect();
                let ps: Vec<_> = (0..2)
                    .map(|i| {
                        let t = t.clone();
                        sc.spawn(move || {
                            let mut p = t.publisher();
                            for v in 0..n {
                                p.publish(v * 2 + i).unwrap();
                            }
                        })
                    })
                    .collect();
                for p in ps {
                    p.join().unwrap()
                }
                t.close();
                hs.into_iter().map(|h| h.join().unwrap()).sum()
            });
            assert_eq!(sum, (0..2 * n).sum::<u64>());
        }
    }
}
#[test]
fn fanout_batches() {
    let broker = Broker::open("mem:").unwrap();
    let t = broker
        .topic_with::<std::sync::Arc<u64>>("t", TopicOptions::in_memory().capacity(64))
        .unwrap();
    let n = 100_000u64;
    let subs: Vec<_> = (0..3).map(|i| t.subscribe(&format!("s{i}")).unwrap()).collect();
    thread::scope(|sc| {
        for s in subs {
            sc.spawn(move || {
                let mut sub = s.auto_ack().subscriber();
                let mut out = vec![];
                let mut want = 0;
                loop {
                    match sub.recv_batch(&mut out, 32) {
                        Ok(_) => {
                            for v in out.drain(..) {
                                assert_eq!(*v, want);
                                want += 1;
                            }
                        }
                        Err(RecvError::Closed) => break,
                        Err(e) => panic!("{e}"),
                    }
                }
                assert_eq!(want, n);
            });
        }
        let mut p = t.publisher();
        assert_eq!(p.publish_batch((0..n).map(std::sync::Arc::new)).unwrap(), n);
        t.close();
    });
}
