//! Events and rules for measurements, from a seed: the same on every machine. The benches, `sluice bench` and `load/` draw
//! from here.

pub mod hostile;
pub mod orders;
pub mod slots;
