//! Looking whether the index and the objects are what they should be.
//!
//! `verifier` goes through items, `sequence` holds the collection's `numbers` against rows, `heads` holds heads
//! against rows, `item` is one item while its rows pass by, `report` what was found. Without `repair` nothing
//! is written.

mod heads;
mod item;
mod numbers;
mod report;
mod sequence;
mod verifier;

pub use self::report::{Problem, Verification};
pub(crate) use self::verifier::Verifier;
