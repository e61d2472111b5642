//! Where events come from. Each source is a thread that reads, takes credit, and sends batches down the lanes.
//!
//! In: records. Out: [`crate::envelope::Batch`]es, and commits of what is settled. Promises: bounded in flight (I7),
//! one partition one lane (I8), offsets committed only when settled (I1). Leaves to others: what a record means.

mod batch;
mod group;
pub mod inlet;
pub mod kafka;
pub mod keeper;
pub mod lines;
pub mod nats;
mod room;

use crate::credit::Window;
use crate::envelope::{Lanes, SourceInfo};
use crate::metrics::Metrics;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A source, ready to run.
pub enum Source {
    /// A consumer group member.
    Kafka(kafka::KafkaSource),
    /// A NATS stream or subject.
    Nats(nats::NatsSource),
    /// JSON lines.
    Lines(lines::LineSource),
}

/// What every source is given.
#[derive(Clone)]
pub struct Feed {
    /// To the workers.
    pub lanes: Lanes,
    /// Set when the process drains.
    pub stop: Stop,
    /// Takes the reason when the process cannot go on.
    pub fatal: Sender<String>,
    /// Counters and health.
    pub metrics: Arc<Metrics>,
    /// Where network clients run.
    pub runtime: tokio::runtime::Handle,
}

/// Asks sources to read no more.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a source has in common with all others.
pub struct Setup {
    /// Its name, bus and framing.
    pub info: Arc<SourceInfo>,
    /// What it may have in flight.
    pub window: Window,
    /// Whether what comes over HTTP is among its records, with traces in their headers.
    pub keeps_http: bool,
}

impl Source {
    /// Runs the source on a thread of its own, which ends when the source is exhausted, or after [`Stop`] when
    /// everything it read is settled and committed.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(self, setup: Setup, feed: Feed) -> std::io::Result<JoinHandle<()>> {
        // Said before the thread runs: nobody may take a source that has not begun for one that is ready.
        if !matches!(self, Self::Lines(_)) {
            feed.metrics.health.set(&setup.info.name, Some("not reading yet".into()));
        }
        let name = format!("sluice-in-{}", setup.info.name);
        std::thread::Builder::new().name(name).spawn(move || match self {
            Source::Kafka(kafka) => kafka.run(&setup, &feed),
            Source::Nats(nats) => nats.run(&setup, &feed),
            Source::Lines(lines) => lines.run(&setup, &feed),
        })
    }
}
