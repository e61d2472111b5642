//! The event as bytes: reading JSON exactly, and keeping what some rule names.
//!
//! In: payload bytes. Out: the named fields with their values ([`Fields`]) or a whole document ([`Tree`]).
//! Promises: the complete document is validated whatever is kept; numbers keep their spelling; no recursion, no panic.
//! Leaves to others: what a value means to a condition (`pattern`, `matcher`).

pub mod address;
pub mod decode;
pub mod number;
pub mod paths;
pub mod scan;
pub mod text;
pub mod tree;
pub mod walk;

pub use decode::{Field, Fields, Place, Value, decode};
pub use paths::{FieldId, PathTree, PathTreeBuilder};
pub use scan::Scanner;
pub use tree::{Children, Kind, Node, Tree};
pub use walk::{Fault, FaultKind, MAX_DEPTH};
