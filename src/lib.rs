#![doc = include_str!("../ARCHITECTURE.md")]

pub mod catalog;
pub mod event;
pub mod lint;
pub mod matcher;
pub mod pattern;
pub mod plan;
pub mod transform;

#[cfg(feature = "sidecar")]
pub mod ack;
#[cfg(feature = "sidecar")]
pub mod api;
#[cfg(feature = "sidecar")]
pub mod app;
#[cfg(feature = "sidecar")]
pub mod cli;
#[cfg(feature = "sidecar")]
pub mod config;
#[cfg(feature = "sidecar")]
pub mod control;
#[cfg(feature = "sidecar")]
pub mod credit;
#[cfg(feature = "sidecar")]
pub mod deliver;
#[cfg(feature = "sidecar")]
pub mod egress;
#[cfg(feature = "sidecar")]
pub mod envelope;
#[cfg(feature = "sidecar")]
pub mod journal;
#[cfg(feature = "sidecar")]
pub mod kafka;
#[cfg(feature = "sidecar")]
pub mod metrics;
#[cfg(feature = "sidecar")]
pub mod nats;
#[cfg(feature = "sidecar")]
pub mod planted;
#[cfg(feature = "sidecar")]
pub mod reload;
#[cfg(feature = "sidecar")]
pub mod source;
#[cfg(feature = "sidecar")]
pub mod tap;
#[cfg(feature = "sidecar")]
pub mod time;
#[cfg(feature = "sidecar")]
pub mod tls;
#[cfg(feature = "sidecar")]
pub mod webhook;
#[cfg(feature = "sidecar")]
pub mod worker;

/// Whether this build can have planted faults; see [`planted`].
#[cfg(feature = "sidecar")]
const PLANTED: bool = cfg!(feature = "planted");
