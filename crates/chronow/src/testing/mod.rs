//! For tests of a hot tier, and of what stands on it: the conformance suite, plain async functions that any backend calls, and a layer with a
//! hook at every step.

mod hooked;
pub mod hot;

pub use hooked::{Point, hooked};
