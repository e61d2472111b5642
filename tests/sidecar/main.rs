//! The process without brokers: configuration, command line, pipes, reload, health, and the delivery core.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod ack;
mod admin;
mod bench;
mod careful;
#[path = "../shared/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod command;
mod config;
mod diff;
mod dlq;
mod endpoint;
mod explain;
mod flags;
mod http_out;
mod inlet;
mod journal;
mod lint;
mod patterns;
#[path = "../shared/ports.rs"]
mod ports;
mod process;
#[path = "../shared/receiver.rs"]
#[allow(dead_code)]
mod receiver;
mod retry;
mod retry_log;
mod rule_tests;
mod simulation;
mod update;
mod webhook;
