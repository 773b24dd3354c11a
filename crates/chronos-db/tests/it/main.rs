//! The promises of the crate, seen from outside.

// The lint spares test functions, but not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mongo;
mod mongo_faults;
