//! The pure core: rows of data through one check each.

mod cases;
mod equal;
mod json;
mod transform;
