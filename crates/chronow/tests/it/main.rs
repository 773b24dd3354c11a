//! The integration tests: one binary, one module a topic.

// Shared helpers of the tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bus;
mod config;
mod documents;
mod documents_faults;
mod faults;
mod originals;
#[cfg(feature = "redis")]
mod redis;
mod shared;
mod tiers;
