//! What the helpers of the tests promise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod clock;
mod deploy;
mod house;
mod layers;
mod proxy;
mod random;
mod redis;
mod servers;
