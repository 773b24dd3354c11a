//! The integration tests: one binary, one module a topic.

// Shared helpers of the tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abandoned;
mod admin;
mod config;
mod config_builder;
mod config_minimal;
mod config_secrets;
mod costs;
mod crash;
mod debug;
mod embedded;
mod failovers;
mod filter_cases;
mod filter_mongo;
mod gauges;
mod golden;
mod json;
mod legacy;
mod members;
mod memory;
mod messaging;
mod mongo;
mod mongo_faults;
mod object_keys;
mod objects;
mod outage;
mod records;
mod route;
