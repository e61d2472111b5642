//! What follows a failed attempt, by rows.

use sluice::catalog::RetryPolicy;
use sluice::deliver::retry::{Class, Exhausted, Next, jitter, next};
use sluice::envelope::{DeliveryId, Position, way};
use std::time::Duration;

#[test]
fn next_decides() {
    let policy = RetryPolicy {
        max_attempts: 3,
        max_age: Duration::from_secs(60),
        initial: Duration::from_secs(1),
        max: Duration::from_secs(5),
        jitter: true,
    };
    let again = |millis| Next::Again(Duration::from_millis(millis));
    let check = |retries, age, class, jitter, want| {
        assert_eq!(
            next(&policy, retries, Duration::from_secs(age), class, jitter),
            want,
            "after {retries} retries at {age} s"
        );
    };
    check(0, 0, Class::Retry, 1.0, again(1000));
    check(0, 0, Class::Retry, 0.5, again(500));
    check(0, 0, Class::Retry, 0.0, again(0));
    check(1, 0, Class::Retry, 1.0, again(2000));
    check(2, 59, Class::Retry, 1.0, again(4000));
    check(3, 0, Class::Retry, 1.0, Next::DeadLetter(Some(Exhausted::Attempts)));
    check(0, 60, Class::Retry, 1.0, Next::DeadLetter(Some(Exhausted::Age)));
    check(0, 0, Class::Permanent, 1.0, Next::DeadLetter(None));
    // Without jitter a pause is what it can be at most.
    let even = RetryPolicy { jitter: false, ..policy };
    assert_eq!(next(&even, 1, Duration::ZERO, Class::Retry, 0.1), again(2000));
    let long = RetryPolicy { max_attempts: u32::MAX, max_age: Duration::MAX, ..policy };
    assert_eq!(next(&long, 1_000_000, Duration::from_secs(1), Class::Retry, 1.0), again(5000));
}

#[test]
fn jitter_spreads_and_repeats() {
    let all: Vec<f64> = (0..1000).map(|n| jitter(DeliveryId(n), 1)).collect();
    assert!(all.iter().all(|j| (0.0..1.0).contains(j)));
    let mean = all.iter().sum::<f64>() / 1000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
    assert_eq!(jitter(DeliveryId(7), 1), jitter(DeliveryId(7), 1));
    assert_ne!(jitter(DeliveryId(7), 1), jitter(DeliveryId(7), 2));
}

/// A delivery id names (source, position, arrival, bus, rule, target, place in the rule) and nothing else; it must never
/// change between versions, or a restart would defeat the receiver's deduplication.
#[test]
fn delivery_ids_are_stable() {
    let position = |topic: &str, offset| Position { topic: topic.into(), partition: 3, offset };
    let by = |position: &Position, bus: &str, rule: &str, nth, way| {
        DeliveryId::new(("source", position), "in", (bus, rule), ("t", nth), way)
    };
    let id = |position: &Position, bus: &str, rule: &str, nth| by(position, bus, rule, nth, 0);
    let first = id(&position("orders", 42), "b", "r", 0);
    assert_eq!(first, id(&position("orders", 42), "b", "r", 0));
    let others = [
        id(&position("orders", 43), "b", "r", 0),
        id(&position("order", 42), "b", "r", 0),
        id(&position("orders", 42), "br", "", 0),
        id(&position("orders", 42), "b", "r", 1),
        // By way of another bus, and by way of another target of the same rule.
        by(&position("orders", 42), "b", "r", 0, way(0, "x", 0)),
        by(&position("orders", 42), "b", "r", 0, way(0, "x", 1)),
    ];
    assert!(others.iter().all(|other| *other != first));
    // Two clusters may have topics of one name.
    let elsewhere = DeliveryId::new(("other", &position("orders", 42)), "in", ("b", "r"), ("t", 0), 0);
    assert_ne!(first, elsewhere);
    assert_ne!(others[4], others[5]);
    assert_eq!(first.to_string(), "64c93b54c3978c04cbf19142de7967d5");
}
