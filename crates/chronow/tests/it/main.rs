//! The integration tests: one binary, one module a topic.

// Shared helpers of the tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod acks;
mod audit;
mod bus;
mod config;
mod costs;
mod documents;
mod documents_faults;
mod faults;
mod features;
mod generations;
mod large;
mod legacy;
mod majority;
mod meanwhile;
#[cfg(feature = "redis")]
mod redis;
mod shared;
mod stores;
mod tiers;
#[cfg(feature = "redis")]
mod tls;
