//! Goal: a topic that is removed is gone: its name and its memory are free, its handles are closed, and what it still held is reported.
//! Method: remove topics with messages in each state, while others publish, receive and open the name again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::support::{A_MOMENT, PATIENCE, broker, until};
use ringmq::{Broker, Event, PublishError, RecvError, SubscribeOptions, Topic, TopicOptions};

#[test]
fn the_name_of_a_removed_topic_is_free_for_another_of_any_kind() {
    let broker = broker();
    let mut events = broker.events();
    let old = broker.topic::<u64>("t").unwrap();
    let sub = old.subscribe("s").unwrap();
    old.publish_batch(0..3).unwrap();
    let report = broker.remove_topic("t", Duration::ZERO).unwrap();
    assert_eq!((report.unsettled, report.dead_letters), (3, 0), "nobody received in time (G3)");

    assert!(matches!(old.publish(7).unwrap_err(), PublishError::Closed(7)));
    assert_eq!(sub.recv().unwrap_err(), RecvError::Closed);
    assert!(broker.stats().is_empty());
    let gone: Vec<_> = events
        .by_ref()
        .filter(|event| matches!(event, Event::TopicRemoved { .. }))
        .collect();
    assert_eq!(gone, [Event::TopicRemoved { topic: "t".into() }]);

    let new = broker.topic_with("t", TopicOptions::<String>::work_queue().capacity(2)).unwrap();
    let receipt = new.publish("first".into()).unwrap();
    assert_eq!(receipt.offset().get(), 0);
    assert_eq!(
        *new.subscribe("s").unwrap().recv().unwrap(),
        "first",
        "nothing of the old subscription stands in its way"
    );
    assert!(old.is_closed());
}

#[test]
fn removing_what_is_not_there_says_so() {
    let broker = broker();
    assert_eq!(broker.remove_topic("t", PATIENCE), None);
    assert_eq!(broker.remove_topic("not a name", PATIENCE), None);
    broker.topic::<u64>("t").unwrap();
    assert!(broker.remove_topic("t", PATIENCE).is_some());
    assert_eq!(broker.remove_topic("t", PATIENCE), None);
    broker.topic::<u64>("t").unwrap();
    broker.close(Duration::ZERO);
    assert_eq!(broker.remove_topic("t", PATIENCE), None, "a closed broker has no topics");
}

#[test]
fn subscribers_get_their_time_and_the_rest_is_counted() {
    let broker = broker();
    let topic = broker.topic::<u64>("t").unwrap();
    let (busy, idle) = (topic.subscribe("busy").unwrap(), topic.subscribe("idle").unwrap());
    topic.publish_batch(0..100).unwrap();
    let running = busy.run(2, |_| ());
    let in_hand = idle.recv().unwrap();
    idle.recv().unwrap().reject("no").unwrap();
    let report = broker.remove_topic("t", A_MOMENT).unwrap();
    assert!(
        report.unsettled >= 99,
        "{report:?}: what only `idle` has not settled, one of them in flight"
    );
    assert_eq!(report.dead_letters, 1);
    assert!(running.drain(PATIENCE).ended, "handlers end with their topic");
    in_hand.ack().unwrap();
}

#[test]
fn a_removed_topic_keeps_nothing_in_memory() {
    let broker = broker();
    let payload = Arc::new(());
    let mut handles = Vec::new();
    for options in [TopicOptions::in_memory as fn() -> TopicOptions<Arc<()>>, TopicOptions::work_queue] {
        let topic = broker.topic_with("t", options()).unwrap();
        let sub = topic.subscribe("s").unwrap();
        for _ in 0..10 {
            topic.publish(payload.clone()).unwrap();
        }
        sub.recv().unwrap().nack_after(PATIENCE).unwrap();
        sub.recv().unwrap().reject("no").unwrap();
        assert!(Arc::strong_count(&payload) > 1);
        let report = broker.remove_topic("t", Duration::ZERO).unwrap();
        assert_eq!((report.unsettled, report.dead_letters), (9, 1));
        handles.push((topic.publisher(), topic));
        drop(sub);
        assert_eq!(Arc::strong_count(&payload), 1, "pending, parked and dead letters went with it");
    }
    let unheard = broker.topic_with("unheard", TopicOptions::in_memory()).unwrap();
    unheard.publish(payload.clone()).unwrap();
    let report = broker.remove_topic("unheard", PATIENCE).unwrap();
    assert_eq!(
        (report.unsettled, unheard.stats().unrouted),
        (0, 1),
        "there was nobody to settle it"
    );
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// The dead-letter topic has a name of its own, and goes on; a subscription made anew sends its letters there once it is opened again.
#[test]
fn the_dead_letter_topic_of_a_removed_topic_keeps_what_it_has() {
    let broker = broker();
    let kill_one = |broker: &Broker| {
        let topic = broker.topic::<u64>("t").unwrap();
        let sub = topic.subscribe("s").unwrap();
        let letters = broker.topic::<u64>("$dead.t.s").unwrap().subscribe("hospital").unwrap();
        topic.publish(7).unwrap();
        sub.recv().unwrap().reject("no").unwrap();
        letters
    };
    let letters = kill_one(&broker);
    let report = broker.remove_topic("t", PATIENCE).unwrap();
    assert_eq!((report.unsettled, report.dead_letters), (0, 0), "the letter had gone to its topic");
    let letter = letters.recv().unwrap();
    assert_eq!((*letter, letter.headers().find("dead-reason").is_some()), (7, true));
    letter.ack().unwrap();

    let again = kill_one(&broker);
    assert_eq!(again.recv().unwrap().into_inner().unwrap(), 7);
    assert!(broker.remove_topic("$dead.t.s", PATIENCE).is_some());
    assert_eq!(letters.recv().unwrap_err(), RecvError::Closed);
}

/// Method: two threads publish to whatever stands under the name, and one removes it again and again; each accepted message is received or reported.
#[test]
fn a_topic_removed_under_its_users_loses_nothing_without_saying_so() {
    for options in [TopicOptions::in_memory as fn() -> TopicOptions<u64>, TopicOptions::work_queue] {
        remove_under_its_users(&|broker| broker.topic_with("t", options()));
    }
}

fn remove_under_its_users(open: &(dyn Fn(&Broker) -> ringmq::Result<Topic<u64>> + Sync)) {
    let broker = broker();
    let done = AtomicBool::new(false);
    let (accepted, received, reported) = thread::scope(|scope| {
        let publishing: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut accepted = 0;
                    while !done.load(Relaxed) {
                        let Ok(topic) = open(&broker) else { continue };
                        // Closed by now, or it has a subscription, so that nothing of it is unrouted.
                        let Ok(_sub) = topic.subscribe_with(SubscribeOptions::new("s")) else {
                            continue;
                        };
                        accepted += u64::from(topic.publish(1).is_ok());
                    }
                    accepted
                })
            })
            .collect();
        let receiving = scope.spawn(|| {
            let mut received = 0;
            while !done.load(Relaxed) {
                let Ok(topic) = open(&broker) else { continue };
                let Ok(sub) = topic.subscribe("s") else { continue };
                while sub.auto_ack().recv_timeout(Duration::from_micros(10)).is_ok() {
                    received += 1;
                }
            }
            received
        });
        let (mut reported, mut removed) = (0, 0);
        until("300 topics to be removed", || {
            if let Some(report) = broker.remove_topic("t", Duration::from_millis(1)) {
                removed += 1;
                reported += report.unsettled;
            }
            removed == 300
        });
        done.store(true, Relaxed);
        let accepted: u64 = publishing.into_iter().map(|thread| thread.join().unwrap()).sum();
        let received: u64 = receiving.join().unwrap();
        reported += broker.remove_topic("t", Duration::ZERO).map_or(0, |report| report.unsettled);
        (accepted, received, reported)
    });
    assert!(accepted > 0);
    assert_eq!(received + reported, accepted);
}
