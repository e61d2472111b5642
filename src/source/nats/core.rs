//! A subject of core NATS: what comes faster than it settles is lost, and said so.

use super::{Intake, LOOK, LOOK_BUSY, health, some};
use crate::catalog::NatsClient;
use crate::metrics::labels;
use crate::nats::{self, Refusals};
use crate::source::{Feed, Setup};
use crate::time;
use async_nats::Event;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Reads until asked to stop, then until everything read is settled.
pub fn run(
    client: &NatsClient,
    subject: &str,
    queue: Option<String>,
    setup: &Setup,
    feed: &Feed,
) -> Result<(), String> {
    let refusals = Arc::new(Refusals::default());
    let watching = watch(setup, feed, subject, &refusals);
    feed.metrics.health.set(&setup.info.name, Some("not subscribed yet".into()));
    // Messages that wait for credit are in nobody's count, so they are few; of usual size, they fit the window.
    let capacity = (setup.window.bytes >> 13).clamp(256, 8192) as usize;
    let connection =
        feed.runtime.block_on(nats::connect_with(client, capacity, watching)).map_err(|error| error.to_string())?;
    let subscription = feed.runtime.block_on(async {
        let subscription = match queue {
            Some(queue) => connection.queue_subscribe(subject.to_owned(), queue).await,
            None => connection.subscribe(subject.to_owned()).await,
        };
        // Only an answer says that the server knows of it.
        let known = nats::read_through(&connection, &refusals).await;
        subscription.map_err(|error| error.to_string()).and_then(|made| known.map(|()| made))
    });
    let mut messages = subscription.map_err(|error| format!("cannot subscribe to {subject}: {error}"))?;
    if refusals.subscribing(subject) {
        return Err(not_allowed(subject));
    }
    // Numbers begin anew with every process, so the name must differ as well: no two events share ids.
    let topic = format!("nats-{}-{}", time::wall_millis(), std::process::id());
    let mut intake = Intake::new(setup, feed, &topic, feed.lanes.count());
    intake.note(None);
    let mut number = 0;
    while !intake.stopped() {
        let busy = intake.credit.events() > 0;
        if intake.room() == 0 {
            intake.report.wait(LOOK_BUSY);
            intake.settled();
            continue;
        }
        let waited = if busy { LOOK_BUSY } else { LOOK };
        let Some(some) = feed.runtime.block_on(some(&mut messages, waited)) else {
            return Err(format!("the subscription to {subject} has ended"));
        };
        for message in some {
            intake.push(&message, number, time::wall_millis());
            number += 1;
        }
        intake.flush()?;
        intake.settled();
    }
    feed.runtime.block_on(messages.unsubscribe()).unwrap_or_default();
    // What the server had sent before is still to come.
    while let Some(some) = feed.runtime.block_on(some(&mut messages, LOOK)).filter(|some| !some.is_empty()) {
        for message in some {
            intake.push(&message, number, time::wall_millis());
            number += 1;
        }
    }
    intake.flush()?;
    while !intake.tracker.idle() {
        intake.report.wait(LOOK);
        intake.settled();
    }
    Ok(())
}

/// What becomes of what the connection says: outages, messages lost because we are slow, and being shut out.
fn watch(
    setup: &Setup,
    feed: &Feed,
    subject: &str,
    refusals: &Arc<Refusals>,
) -> impl Fn(&Event) + Send + Sync + 'static {
    let (metrics, name) = (Arc::clone(&feed.metrics), Arc::clone(&setup.info.name));
    let (outage, said) = (health(setup, feed), Mutex::new(None::<Instant>));
    let (refused, fatal, wanted) = (Arc::clone(refusals), feed.fatal.clone(), subject.to_owned());
    move |event: &Event| {
        outage(event);
        refused.note(event);
        if refused.subscribing(&wanted) {
            // The process stops for the first reason; later ones find the channel full.
            drop(fatal.try_send(format!("source {name}: {}", not_allowed(&wanted))));
        }
        if let Event::SlowConsumer(_) = event {
            let reason = labels([("stage", "ingress"), ("reason", "slow_consumer")]);
            metrics.families.dropped_events.get_or_create(&reason).inc();
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                *said = Some(time::now());
                tracing::error!(source = %name, "events are lost: they come faster than they settle, and core NATS keeps none");
            }
        }
    }
}

fn not_allowed(subject: &str) -> String {
    format!("the NATS server does not let us subscribe to {subject}; give the user of `auth` permission for it")
}
