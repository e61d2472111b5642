#![doc = include_str!("../ARCHITECTURE.md")]

pub mod event;
pub mod pattern;
pub mod matcher;
pub mod transform;
pub mod catalog;
pub mod plan;
