//! The pure core: rows of data through one check each.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod cases;
#[allow(dead_code)]
#[path = "../../benches/corpus/mod.rs"]
mod corpus;
mod equal;
mod generate;
mod json;
mod large;
mod limits;
mod relate;
mod schedule;
mod transform;
