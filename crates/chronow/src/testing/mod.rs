//! The conformance suite of the hot tier: plain async functions that any backend calls.

pub mod hot;
