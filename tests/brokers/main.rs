//! Sluice on a real Kafka broker and a real NATS server. Starts what is wanted, runs every scenario against it, stops it.
//!
//! `cargo test --test brokers -- NAME` runs the scenarios whose names contain NAME. Each ends in one JSON line.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod archives;
mod bench;
#[path = "../readme/blocks.rs"]
mod blocks;
#[path = "../shared/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod cities;
mod clients;
mod dlq;
#[path = "../shared/guard.rs"]
mod guard;
mod jetstream;
mod judge;
#[path = "../shared/kafka.rs"]
#[allow(dead_code)]
mod kafka;
mod keeper;
mod model;
#[path = "../shared/nats.rs"]
#[allow(dead_code)]
mod nats;
#[path = "../shared/ports.rs"]
mod ports;
#[path = "../shared/process.rs"]
#[allow(dead_code)]
mod process;
mod quickstart;
#[path = "../shared/receiver.rs"]
#[allow(dead_code)]
mod receiver;
mod retry_topics;
mod scale;
mod secure;
mod services;
mod sizes;
mod stream;
mod trouble;

use guard::guard;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What a scenario needs.
enum On {
    Kafka(fn(&kafka::Kafka)),
    Nats(fn(&nats::Nats)),
    Both(fn(&kafka::Kafka, &nats::Nats)),
    Nothing(fn()),
}

type Scenario = (&'static str, On);

const SCENARIOS: &[Scenario] = &[
    ("stream_100k_through_200_rules", On::Kafka(stream::all_arrives)),
    ("crash_twice_in_mid_stream", On::Kafka(stream::nothing_is_lost_in_a_crash)),
    ("second_member_joins_and_first_leaves", On::Kafka(stream::nothing_is_lost_in_a_rebalance)),
    ("readme_kafka", On::Kafka(quickstart::kafka)),
    ("readme_nats", On::Nats(quickstart::nats)),
    ("readme_aws", On::Nothing(quickstart::aws)),
    ("readme_workshop", On::Nothing(quickstart::workshop)),
    ("classic_workshop", On::Nothing(quickstart::classic)),
    ("services_of_aws", On::Nothing(services::aws)),
    ("topic_by_its_arn", On::Kafka(services::kafka)),
    ("readme_webhook", On::Nothing(quickstart::webhook)),
    ("readme_sidecar", On::Kafka(quickstart::sidecar)),
    ("readme_broker", On::Both(quickstart::broker)),
    ("partner_examples", On::Kafka(quickstart::partners)),
    ("public_data_set", On::Kafka(cities::counts_agree)),
    ("topics_that_do_not_exist", On::Kafka(trouble::unknown_topics)),
    ("broker_that_is_not_there", On::Kafka(trouble::no_broker)),
    ("broker_that_comes_late", On::Kafka(trouble::late_broker)),
    ("refused_commit", On::Nothing(trouble::refused_commit)),
    ("refused_credentials", On::Kafka(trouble::refused_credentials)),
    ("poison_goes_to_the_dead_letter_topic", On::Kafka(trouble::poison)),
    ("dead_letter_topic_is_read_back", On::Kafka(dlq::topic)),
    ("dead_letter_topic_that_takes_nothing", On::Kafka(dlq::blocked)),
    ("retry_topics_survive_the_machine", On::Kafka(retry_topics::survives_the_machine)),
    ("retry_topics_keep_an_order", On::Kafka(retry_topics::keeps_an_order)),
    ("retry_topics_count_attempts", On::Kafka(retry_topics::counts_attempts)),
    ("retry_topics_refuse_and_bury", On::Kafka(retry_topics::refuses_and_buries)),
    ("retry_stream_survives_the_machine", On::Nats(retry_topics::stream_survives_the_machine)),
    ("target_that_takes_no_large_records", On::Kafka(trouble::small_topic)),
    ("start_latest_skips_what_was_there", On::Kafka(trouble::start_latest)),
    ("member_with_another_assignor", On::Kafka(trouble::other_assignor)),
    ("cloudevents_in_headers", On::Kafka(trouble::cloud_events)),
    ("reload_under_load", On::Kafka(trouble::reload)),
    ("full_disk_and_back", On::Kafka(trouble::full_disk)),
    ("jetstream_100k_through_200_rules_and_a_crash", On::Nats(jetstream::nothing_is_lost_in_a_crash)),
    ("jetstream_slow_target", On::Nats(jetstream::slow_targets_keep_their_events)),
    ("kafka_to_nats_and_nats_to_kafka", On::Both(jetstream::between_brokers)),
    ("nats_core_queue_group_and_subjects", On::Nats(jetstream::core)),
    ("nats_streams_and_subjects_that_do_not_exist", On::Nats(secure::unknown_streams)),
    ("nats_stream_that_forgets", On::Nats(secure::removed_unread)),
    ("nats_permissions", On::Nothing(secure::permissions)),
    ("nats_tls_and_credentials", On::Nothing(secure::nats)),
    ("kafka_tls_and_scram", On::Kafka(secure::kafka)),
    ("real_clients_of_the_endpoint", On::Nothing(clients::all)),
    ("scale_out_on_twelve_partitions", On::Kafka(scale::partitions)),
    ("scale_out_on_one_jetstream_consumer", On::Nats(scale::consumer)),
    ("size_of_a_sidecar", On::Kafka(sizes::sidecar)),
    ("size_of_a_processor", On::Kafka(sizes::processor)),
    ("throughput_of_matching_adds_up", On::Both(scale::matching)),
    ("bench_latency", On::Both(bench::latency)),
    ("bench_pipeline", On::Both(bench::pipeline)),
    ("events_that_kafka_keeps", On::Kafka(keeper::in_a_topic)),
    ("events_that_jetstream_keeps", On::Nats(keeper::in_a_stream)),
    ("topics_and_streams_that_cannot_keep_events", On::Both(keeper::refused)),
    ("archive_in_a_topic", On::Kafka(archives::in_a_topic)),
    ("archive_in_a_stream", On::Nats(archives::in_a_stream)),
    ("archives_that_topics_and_streams_cannot_keep", On::Both(archives::refused)),
    ("nats_server_restarts", On::Nats(jetstream::server_restarts)),
];

/// What no scenario takes; the longest takes a third of it.
const LIMIT: Duration = Duration::from_secs(300);

/// What processes have in their environment beside our own.
fn environment() -> Vec<(&'static str, String)> {
    Vec::new()
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<_> = SCENARIOS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
        .collect();
    let (mut kafka, mut nats) = (None, None);
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in chosen {
        let (begin, running) = (Instant::now(), guard(name, LIMIT));
        let good = catch_unwind(AssertUnwindSafe(|| match scenario {
            On::Kafka(run) => run(kafka.get_or_insert_with(kafka::Kafka::start)),
            On::Nats(run) => run(nats.get_or_insert_with(nats::Nats::start)),
            On::Nothing(run) => run(),
            On::Both(run) => {
                run(kafka.get_or_insert_with(kafka::Kafka::start), nats.get_or_insert_with(nats::Nats::start));
            }
        }))
        .is_ok();
        drop(running);
        println!("test {name} ... {} ({:.1} s)", if good { "ok" } else { "FAILED" }, begin.elapsed().as_secs_f64());
        if good { passed += 1 } else { failed += 1 }
    }
    drop((kafka, nats));
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
