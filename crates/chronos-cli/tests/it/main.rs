//! The program from outside: one binary, one module a topic.

// Shared helpers of the tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod analytics;
mod backup;
mod bus;
mod cli;
mod configs;
mod counters;
mod demo;
mod entities;
mod erase;
mod examples;
mod fallback;
mod import;
mod inline;
mod metrics;
mod migrate;
mod readme;
mod records;
mod retention;
mod rights;
mod sp500;
mod surface;
mod top;
mod worker;
