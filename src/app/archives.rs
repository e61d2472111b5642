//! What brokers that keep archives must have before anything starts: the topic or the stream, room for the largest event,
//! and no wish to forget what is to be kept.

use super::brokers::{Needs, takes};
use super::{Exit, Failed};
use crate::catalog::{Catalog, FILE_ARCHIVE_TARGETS, KafkaTarget, MARK, NatsTarget, Storage, Target, TargetKind};
use crate::kafka::Cluster;
use crate::nats::{self, NatsError};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

/// Looks for the topic or stream of an archive that a file declares.
pub fn prepare(target: &Target, needs: &Needs) -> Result<(), Failed> {
    let TargetKind::Archive { storage, days, .. } = &target.kind else { return Ok(()) };
    // Those of callers are kept where their bus says, which is looked at by itself.
    let Some(name) = target.name.strip_prefix(FILE_ARCHIVE_TARGETS) else { return Ok(()) };
    let name = name.split(MARK).next().unwrap_or(name);
    keeps(&format!("archive {name}"), storage, Some(*days), needs)
}

/// Looks for the topics and streams of archives that callers make.
pub fn prepare_buses(catalog: &Catalog, needs: &Needs) -> Result<(), Failed> {
    catalog.buses().try_for_each(|bus| keeps(&format!("archives of bus {}", bus.name), &bus.archives, None, needs))
}

/// Whether a topic or stream is there and fits. `days` are how long events are to be kept, 0 for ever, where that is known.
fn keeps(whose: &str, storage: &Storage, days: Option<i64>, needs: &Needs) -> Result<(), Failed> {
    let forgets = match storage {
        Storage::Disk => return Ok(()),
        Storage::Topic(kafka) => topic(whose, kafka, days, needs)?,
        Storage::Stream(nats, name) => needs.runtime.block_on(stream(whose, nats, name, needs.event_bytes))?,
    };
    for (age, what, remedy) in forgets {
        let sooner = |days: i64| age.is_none_or(|age| days == 0 || age < days_of(days));
        if days.is_some_and(sooner) {
            let kept = match days {
                Some(days) if days > 0 => format!("keeps events for {days}d"),
                _ => "keeps events for ever".to_owned(),
            };
            tracing::warn!("{whose} {kept}, but {what}; {remedy}");
        }
    }
    Ok(())
}

/// Why something forgets: after which time, where that is known; in words; what helps.
type Forgets = (Option<Duration>, String, String);

fn days_of(days: i64) -> Duration {
    DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))
}

fn topic(whose: &str, kafka: &KafkaTarget, days: Option<i64>, needs: &Needs) -> Result<Vec<Forgets>, Failed> {
    let (topic, cluster) = (&kafka.topic, Cluster::new(&kafka.client)?);
    let servers = kafka.client.get("bootstrap.servers").map_or("", String::as_str);
    let millis = days.filter(|days| *days > 0).map_or(-1, |days| i128::from(days) * 24 * 3_600_000);
    if cluster.partitions(topic)?.is_none() {
        return Err(Failed::missing(format!(
            "{whose}: topic {topic} does not exist on {servers}; create it with \
             `kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --config retention.ms={millis}`"
        )));
    }
    takes(&cluster, whose, topic, needs.event_bytes)?;
    let settings = cluster.settings(topic);
    if settings.get("cleanup.policy").is_some_and(|policy| policy != "delete") {
        let message = format!("{whose}: topic {topic} is compacted; set its cleanup.policy to delete");
        return Err(Failed::new(Exit::Config, message));
    }
    let number = |name: &str| settings.get(name)?.parse::<u64>().ok();
    let alter = |setting: &str| {
        format!(
            "raise it with `kafka-configs.sh --bootstrap-server {servers} --alter --topic {topic} --add-config {setting}`"
        )
    };
    let age = number("retention.ms").map(|age| {
        let what = format!("topic {topic} forgets them after {age} ms (retention.ms)");
        (Some(Duration::from_millis(age)), what, alter(&format!("retention.ms={millis}")))
    });
    let size = number("retention.bytes").map(|bytes| {
        let what = format!("topic {topic} forgets them beyond {bytes} bytes a partition (retention.bytes)");
        (None, what, alter("retention.bytes=-1"))
    });
    Ok(age.into_iter().chain(size).collect())
}

async fn stream(whose: &str, target: &NatsTarget, name: &str, event_bytes: u64) -> Result<Vec<Forgets>, NatsError> {
    let subject = target.subject.to_string();
    let client = nats::connect(&target.client, |_| {}).await?;
    let found = nats::stream(&client, name).await.map_err(|error| match error {
        NatsError::Missing(_) => NatsError::Missing(format!(
            "{whose}: stream {name} does not exist; create it with `nats stream add {name} --subjects {subject}`"
        )),
        error => error,
    })?;
    nats::takes(whose, client.max_payload() as u64, event_bytes)?;
    let has: &Config = &found.cached_info().config;
    let refused = |why: &str| Err(NatsError::Refused(format!("{whose}: stream {name} {why}")));
    if !has.subjects.iter().any(|kept| nats::overlap(kept, &subject)) {
        let kept = has.subjects.join(", ");
        return refused(&format!("keeps {kept}, and nothing that fits subject {subject}"));
    }
    if has.no_ack {
        return refused("does not acknowledge (`no_ack`); set it to false");
    }
    if has.retention != RetentionPolicy::Limits {
        return refused("forgets what was read; set its retention to limits");
    }
    // Headers count as well.
    let wanted = i64::try_from(event_bytes).unwrap_or(i64::MAX).saturating_add(8192);
    if (0..wanted).contains(&i64::from(has.max_message_size)) && has.max_message_size > 0 {
        return refused(&format!("takes messages of {} bytes; raise max_msg_size to {wanted}", has.max_message_size));
    }
    let mut forgets = Vec::new();
    let edit = |setting: &str| format!("change it with `nats stream edit {name} {setting}`");
    if !has.max_age.is_zero() {
        let what = format!("stream {name} forgets them after {} s (max_age)", has.max_age.as_secs());
        forgets.push((Some(has.max_age), what, edit("--max-age")));
    }
    let bounded = has.max_messages > 0 || has.max_bytes > 0;
    if (bounded && has.discard == DiscardPolicy::Old) || has.max_messages_per_subject > 0 {
        let what = format!("stream {name} forgets them beyond its limits (max_msgs, max_bytes, max_msgs_per_subject)");
        forgets.push((None, what, edit("--max-msgs=-1 --max-bytes=-1 --max-msgs-per-subject=-1")));
    }
    Ok(forgets)
}
