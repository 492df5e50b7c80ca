//! What topics and subscriptions may be called.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

const TOPIC_BYTES_MAX: usize = 180;
const SUBSCRIPTION_BYTES_MAX: usize = 60;
/// How the crate's own dead-letter topics start.
const DEAD: &str = "$dead.";

const TOPIC_RULE: &str =
    "1 to 180 bytes: tokens of A-Z a-z 0-9 _ - joined by dots, like \"orders.eu\"; names that start with $ belong to the crate";
const SUBSCRIPTION_RULE: &str = "1 to 60 bytes of A-Z a-z 0-9 _ -";

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn bad(what: &'static str, name: &str, why: &'static str) -> Error {
    Error::BadName {
        what,
        name: name.chars().take(200).collect(),
        why,
    }
}

/// Checks the name of a topic.
pub(crate) fn check_topic(name: &str) -> Result<()> {
    let is_good = match name.strip_prefix(DEAD).map(|origin| origin.rsplit_once('.')) {
        None => is_topic(name),
        Some(Some((topic, subscription))) => is_topic(topic) && is_subscription(subscription),
        Some(None) => false,
    };
    if is_good { Ok(()) } else { Err(bad("topic", name, TOPIC_RULE)) }
}

fn is_topic(name: &str) -> bool {
    name.len() <= TOPIC_BYTES_MAX && name.split('.').all(is_token)
}

fn is_subscription(name: &str) -> bool {
    name.len() <= SUBSCRIPTION_BYTES_MAX && is_token(name)
}

/// Checks the name of a subscription.
pub(crate) fn check_subscription(name: &str) -> Result<()> {
    if is_subscription(name) {
        Ok(())
    } else {
        Err(bad("subscription", name, SUBSCRIPTION_RULE))
    }
}

/// The topic and subscription that a dead-letter topic belongs to.
pub(crate) fn origin_of(dead_letter_topic: &str) -> Option<(&str, &str)> {
    dead_letter_topic.strip_prefix(DEAD)?.rsplit_once('.')
}

/// The refusal of a dead-letter topic that belongs to nothing.
pub(crate) fn no_origin(name: &str) -> Error {
    bad(
        "topic",
        name,
        "a dead-letter topic opens once its topic and subscription exist, with the same payload type",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_joined_by_dots() {
        let longest = format!("$dead.{}.{}", "x".repeat(180), "y".repeat(60));
        for good in [
            "orders",
            "orders.eu-1",
            "a.b.c",
            "A_9",
            "$dead.orders.eu.billing",
            &"x".repeat(180),
            &longest,
        ] {
            assert!(check_topic(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a/b",
            "..",
            "$x",
            "a*",
            ">",
            "\0",
            "caf\u{e9}",
            "$dead.",
            "$dead.orders",
            "$dead.$dead.orders.billing.x",
            "$dead.orders..x",
            &"x".repeat(181),
        ] {
            assert!(check_topic(wrong).is_err(), "{wrong}");
        }
        assert!(check_subscription("billing").is_ok());
        for wrong in ["", "a.b", "$x", &"x".repeat(61)] {
            assert!(check_subscription(wrong).is_err(), "{wrong}");
        }
        assert_eq!(origin_of("$dead.orders.eu.billing"), Some(("orders.eu", "billing")));
    }
}
