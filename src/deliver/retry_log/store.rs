//! Where the records of a retry log are: in a journal on this disk, in a topic, or in a stream.

use super::Ticket;
use super::stream::{RetryStream, StreamStore};
use super::topic::{RetryTopics, TopicStore};
use crate::journal::{Journal, JournalError};
use crate::kafka::ClusterError;
use crate::nats::NatsError;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// A retry log's records.
pub(super) enum Store {
    /// On this disk.
    Disk(Journal<Ticket>),
    /// In a topic.
    Topic(Arc<TopicStore>),
    /// In a stream.
    Stream(Arc<StreamStore>),
}

/// What a store must know of a record.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// The partition that its event came from.
    pub partition: i32,
    /// It has an order.
    pub ordered: bool,
    /// Its attempt is under way.
    pub under_way: bool,
}

impl Store {
    /// Keeps a body; the outcome tells when it is kept.
    pub fn put(&self, kind: Kind, body: Vec<u8>, ticket: Ticket) -> Result<u64, (Ticket, JournalError)> {
        match self {
            Self::Disk(journal) => journal.put(body, ticket),
            Self::Topic(topic) => topic.put(kind, &body, ticket),
            Self::Stream(stream) => stream.put(kind, body, ticket),
        }
    }

    /// A record is done with.
    pub fn remove(&self, sequence: u64) {
        match self {
            Self::Disk(journal) => journal.remove(sequence),
            Self::Topic(topic) => topic.remove(sequence),
            Self::Stream(stream) => stream.remove(sequence),
        }
    }

    /// Reads a record back.
    pub fn read(&self, sequence: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk(journal) => journal.read(sequence),
            Self::Topic(topic) => topic.read(sequence),
            Self::Stream(stream) => stream.read(sequence),
        }
    }

    /// Whether a record has its place in memory; others come when they are read.
    pub fn is_known(&self, sequence: u64) -> bool {
        match self {
            Self::Disk(_) => true,
            Self::Topic(topic) => topic.is_known(sequence),
            Self::Stream(stream) => stream.is_known(sequence),
        }
    }

    /// The partition that a record's event came from, where that matters.
    pub fn partition(&self, sequence: u64) -> i32 {
        match self {
            Self::Disk(_) | Self::Stream(_) => 0,
            Self::Topic(topic) => topic.partition(sequence).unwrap_or(0),
        }
    }

    /// How many wait that have no place in memory.
    pub fn unread(&self) -> u64 {
        match self {
            Self::Disk(_) => 0,
            Self::Topic(topic) => topic.unread(),
            Self::Stream(stream) => stream.unread(),
        }
    }

    /// Records that are to be put anew, ascending, so that what is done with between them can go.
    pub fn crowded(&self) -> Vec<u64> {
        match self {
            Self::Disk(journal) => journal.crowded(),
            Self::Topic(topic) => topic.crowded(),
            Self::Stream(_) => Vec::new(),
        }
    }

    /// Live records, and the bytes of the disk that they take.
    pub fn size(&self) -> (u64, u64) {
        match self {
            Self::Disk(journal) => journal.size(),
            Self::Topic(topic) => (topic.live(), 0),
            Self::Stream(stream) => (stream.live(), 0),
        }
    }

    /// Waits until everything is written, `deadline` at most.
    pub fn flush(&self, deadline: Instant) {
        match self {
            Self::Disk(journal) => journal.flush(deadline),
            Self::Topic(topic) => topic.flush(deadline),
            Self::Stream(stream) => stream.flush(deadline),
        }
    }

    /// Whether it is to be looked after, also when nothing is due.
    pub fn wants_tending(&self) -> bool {
        !matches!(self, Self::Disk(_))
    }
}

/// Where the logs of one source's deliveries are, when not on this disk.
#[derive(Clone)]
pub enum Elsewhere {
    /// In topics.
    Topics(Arc<RetryTopics>),
    /// In a stream.
    Stream(Arc<RetryStream>),
}

impl Elsewhere {
    /// The source.
    pub fn source(&self) -> &Arc<str> {
        match self {
            Self::Topics(topics) => &topics.source,
            Self::Stream(stream) => &stream.source,
        }
    }

    /// The bus that it feeds.
    pub fn bus(&self) -> &str {
        match self {
            Self::Topics(topics) => &topics.bus,
            Self::Stream(stream) => &stream.bus,
        }
    }

    /// Whether targets may wait there that keep an order.
    pub fn keeps_order(&self) -> bool {
        matches!(self, Self::Topics(_))
    }

    /// Makes what is missing for these targets. Returns all that something may wait for.
    ///
    /// # Errors
    /// Nobody answers, or what is there cannot be used.
    pub fn prepare<'a>(&self, targets: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, Unprepared> {
        match self {
            Self::Topics(topics) => {
                topics.prepare(targets).map_err(Unprepared::Kafka)?;
                topics.existing().map_err(Unprepared::Kafka)
            }
            Self::Stream(stream) => {
                stream.prepare().map_err(Unprepared::Nats)?;
                stream.existing().map_err(Unprepared::Nats)
            }
        }
    }
}

/// Why there is no place for what waits.
#[derive(Debug)]
pub enum Unprepared {
    /// Kafka's answer.
    Kafka(ClusterError),
    /// A NATS server's answer.
    Nats(NatsError),
    /// The system has no threads to give.
    Here(String),
}
