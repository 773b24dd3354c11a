//! What the program promises to its users.

// Shared helpers of the tests may fail loudly.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod demo;
