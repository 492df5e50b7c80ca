//! The tables that are printed.

use crate::figures::{Counts, Origins};

/// Prints the counts beside what was expected; whether all are right.
pub fn counts(found: &Counts, expected: &Counts) -> bool {
    type Figure = fn(&Counts) -> u64;
    let figures: [(&str, &str, Figure); 9] = [
        ("archive", "flights archived", |c| c.archived),
        ("", "of them out of their publisher's order", |c| c.out_of_order),
        ("stats", "flights counted by 4 competing subscribers", |c| c.counted),
        ("", "airports of origin", |c| c.origins),
        ("alerts", "flights delayed by more than 60 minutes", |c| c.alerts),
        ("flaky", "settled at the first attempt", |c| c.settled_first),
        ("", "settled at the second attempt", |c| c.settled_second),
        ("", "dead letters", |c| c.dead_letters),
        ("", "deliveries in all", |c| c.deliveries),
    ];
    println!("\n  {:<12}  {:<42}  {:>10}  {:>10}", "subscription", "figure", "found", "expected");
    println!("  {:-<12}  {:-<42}  {:->10}  {:->10}", "", "", "", "");
    let mut right = true;
    for (subscription, what, figure) in figures {
        let (found, expected) = (figure(found), figure(expected));
        let mark = if found == expected { "" } else { "  OFF" };
        right &= found == expected;
        println!(
            "  {subscription:<12}  {what:<42}  {:>10}  {:>10}{mark}",
            grouped(found),
            grouped(expected)
        );
    }
    right
}

/// Prints the airports with the most departures.
pub fn origins(origins: &Origins) {
    const SHOWN: usize = 5;
    let mut busiest: Vec<_> = origins.iter().collect();
    busiest.sort_by_key(|(airport, delays)| (std::cmp::Reverse(delays.flights), **airport));
    println!(
        "\n  {:<12}  {:>10}  {:>18}  {:>19}",
        "origin", "flights", "mean delay, min", "worst delay, min"
    );
    println!("  {:-<12}  {:->10}  {:->18}  {:->19}", "", "", "", "");
    for (airport, delays) in busiest.iter().take(SHOWN) {
        let flights = grouped(delays.flights);
        println!(
            "  {airport:<12}  {flights:>10}  {:>18.1}  {:>19}",
            delays.mean_minutes(),
            delays.worst_minutes
        );
    }
    if origins.len() > SHOWN {
        println!("  and {} more", origins.len() - SHOWN);
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
