//! The process without brokers: configuration, command line, pipes, reload, health, and the delivery core.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod access;
mod ack;
mod admin;
mod api;
mod archive;
mod archive_verbs;
mod aws;
mod bench;
mod bodies;
mod careful;
#[path = "../shared/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod command;
mod config;
mod destinations;
mod diff;
mod dlq;
mod edits;
mod egress;
mod endpoint;
mod explain;
mod failures;
mod flags;
mod functions;
mod http_out;
mod inlet;
mod journal;
mod kept;
mod lint;
mod made;
mod many_schedules;
mod model;
mod offsets;
mod patterns;
mod policies;
#[path = "../shared/ports.rs"]
mod ports;
mod process;
#[path = "../shared/receiver.rs"]
#[allow(dead_code)]
mod receiver;
mod retry;
mod retry_log;
mod rule_tests;
#[path = "../shared/signed.rs"]
mod signed;
mod simulation;
mod store;
mod tokens;
mod update;
mod webhook;
