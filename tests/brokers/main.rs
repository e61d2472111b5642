//! Sluice on a real Kafka broker. Starts one, runs every scenario against it, stops it.
//!
//! `cargo test --test brokers -- NAME` runs the scenarios whose names contain NAME. Each ends in one JSON line.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../readme/blocks.rs"]
mod blocks;
mod cities;
mod kafka;
mod model;
mod process;
mod quickstart;
mod stream;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

type Scenario = (&'static str, fn(&kafka::Kafka));

const SCENARIOS: &[Scenario] = &[
    ("stream_100k_through_200_rules", stream::all_arrives),
    ("crash_twice_in_mid_stream", stream::nothing_is_lost_in_a_crash),
    ("second_member_joins_and_first_leaves", stream::nothing_is_lost_in_a_rebalance),
    ("readme_quickstart", quickstart::as_written),
    ("public_data_set", cities::counts_agree),
    ("topics_that_do_not_exist", trouble::unknown_topics),
    ("broker_that_is_not_there", trouble::no_broker),
    ("broker_that_comes_late", trouble::late_broker),
    ("refused_credentials", trouble::refused_credentials),
    ("poison_goes_to_the_dead_letter_topic", trouble::poison),
    ("target_that_takes_no_large_records", trouble::small_topic),
    ("start_latest_skips_what_was_there", trouble::start_latest),
    ("cloudevents_in_headers", trouble::cloud_events),
    ("reload_under_load", trouble::reload),
    ("full_disk_and_back", trouble::full_disk),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<_> = SCENARIOS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
        .collect();
    let kafka = kafka::Kafka::start();
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in chosen {
        let begin = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| scenario(&kafka))).is_ok();
        println!("test {name} ... {} ({:.1} s)", if good { "ok" } else { "FAILED" }, begin.elapsed().as_secs_f64());
        if good { passed += 1 } else { failed += 1 }
    }
    drop(kafka);
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
