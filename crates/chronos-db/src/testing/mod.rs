//! The conformance suites of the seams: plain async functions that any backend calls.

pub mod documents;
pub mod objects;
