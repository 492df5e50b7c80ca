//! Waiting for several subscriptions at once.

use crate::models::{check, check_up_to};
use crate::select;
use crate::sync::thread;
use crate::topic::models::Model;

#[test]
fn whoever_selects_is_woken_by_a_message_for_any() {
    check(|| {
        let (idle, busy) = (Model::queue(1), Model::topic(1));
        let (nothing, something) = (idle.subscribe(), busy.subscribe());
        let selecting = thread::spawn(move || {
            assert_eq!(select(&[&nothing, &something], None), Some(1));
            something.try_recv().unwrap().into_inner().unwrap()
        });
        busy.publisher().publish(7).unwrap();
        assert_eq!(selecting.join().unwrap(), 7);
    });
}

#[test]
fn whoever_selects_is_woken_by_the_end_of_any() {
    check(|| {
        let (idle, ending) = (Model::queue(1), Model::topic(1));
        let (nothing, last) = (idle.subscribe(), ending.subscribe());
        let selecting = thread::spawn(move || select(&[&nothing, &last], None));
        ending.topic.close();
        assert_eq!(selecting.join().unwrap(), Some(1));
    });
}

#[test]
fn whoever_selects_leaves_to_others_what_it_was_woken_for_and_does_not_take() {
    check_up_to(1, || {
        let (taken, left) = (Model::queue(1), Model::queue(1));
        let (mine, others) = (taken.subscribe(), left.subscribe());
        let mut other = others.auto_ack().subscriber();
        let receiving = thread::spawn(move || other.recv());
        let selecting = thread::spawn(move || select(&[&mine, &others], None));
        left.publisher().publish(1).unwrap();
        taken.publisher().publish(0).unwrap();
        assert!(selecting.join().unwrap().is_some());
        assert_eq!(receiving.join().unwrap(), Ok(1));
    });
}
