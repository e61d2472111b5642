//! Instructions that an event takes, for a handful of fixed cases.
//!
//! `instructions` lists the cases; `instructions CASE` decodes and matches the case's events, in [`measured`], which is
//! what valgrind counts, and prints how many events that are and how often memory was allocated meanwhile.

#![allow(clippy::expect_used)]

#[allow(dead_code)]
#[path = "../corpus/mod.rs"]
mod corpus;

use bumpalo::Bump;
use corpus::hostile::Set;
use corpus::orders::{self, Mix, SHOPS};
use sluice::event::{Scanner, decode};
use sluice::matcher::{Builder, Matcher, Scratch};
use sluice::pattern::{Limits, Numbers, parse};

/// A name, how many rules it has, rule and event by number, and how many events.
struct Case {
    name: &'static str,
    rules: u64,
    rule: fn(u64) -> String,
    event: fn(u64) -> String,
    events: u64,
}

fn order_rule(number: u64) -> String {
    orders::pattern(1, number, SHOPS, Mix::Full)
}

fn order(number: u64) -> String {
    orders::event(1, number, SHOPS, 2)
}

fn long_order(number: u64) -> String {
    orders::event(1, number, SHOPS, 200)
}

const CASES: [Case; 7] = [
    Case { name: "orders_1", rules: 1, rule: order_rule, event: order, events: 1000 },
    Case { name: "orders_100", rules: 100, rule: order_rule, event: order, events: 1000 },
    Case { name: "orders_1000", rules: 1000, rule: order_rule, event: order, events: 1000 },
    Case { name: "orders_10000", rules: 10_000, rule: order_rule, event: order, events: 1000 },
    Case { name: "orders_100_of_200_lines", rules: 100, rule: order_rule, event: long_order, events: 100 },
    Case {
        name: "wildcards_10000",
        rules: 10_000,
        rule: |number| Set::Wildcards.pattern(1, number),
        event: |number| Set::Wildcards.event(1, number, 0),
        events: 200,
    },
    Case {
        name: "objects_10000",
        rules: 10_000,
        rule: |number| Set::Objects.pattern(1, number),
        event: |number| Set::Objects.event(1, number, 200),
        events: 20,
    },
];

/// What a worker has of its own.
struct Own<'m> {
    matcher: &'m Matcher,
    scanner: Scanner,
    scratch: Scratch,
    bump: Bump,
}

/// How many matches the events have.
#[inline(always)]
fn matches(own: &mut Own<'_>, events: &[String]) -> usize {
    let mut matches = 0;
    for event in events {
        own.bump.reset();
        let fields = decode(event.as_bytes(), own.matcher.paths(), &mut own.scanner, &own.bump).expect("a valid event");
        matches += own.matcher.matches(&fields, &mut own.scratch).expect("few choices").len();
    }
    matches
}

/// The same, counted.
#[inline(never)]
fn measured(own: &mut Own<'_>, events: &[String]) -> usize {
    matches(own, events)
}

fn main() {
    let Some(wanted) = std::env::args().nth(1) else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return;
    };
    let case = CASES.iter().find(|case| case.name == wanted).expect("a case of the list");
    let mut builder = Builder::new(1, Numbers::Value);
    for number in 0..case.rules {
        builder.add(&parse((case.rule)(number).as_bytes(), &Limits::default()).expect("a valid pattern"));
    }
    let matcher = builder.build();
    let events: Vec<String> = (0..case.events).map(case.event).collect();
    let mut own =
        Own { matcher: &matcher, scanner: Scanner::default(), scratch: Scratch::default(), bump: Bump::new() };
    // Memory grows to its size.
    let wanted = matches(&mut own, &events);
    let allocated = allocation_counter::measure(|| assert_eq!(measured(&mut own, &events), wanted));
    println!("events {} matches {wanted} allocations {}", case.events, allocated.count_total);
}
