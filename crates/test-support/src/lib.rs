//! Helpers of the tests: real servers, a network that breaks on demand, time and chance under control, and
//! layers around the seams.
//!
//! | to … | use |
//! |---|---|
//! | find a server that `scripts/services` started | [`servers`] |
//! | kill and restart a Redis server or cluster of one's own | [`RedisServer`], [`RedisCluster`] |
//! | kill, freeze and hold back the members of a MongoDB replica set of one's own | [`ReplicaSet`] |
//! | give a MongoDB server users with few rights | [`MongoServer`] |
//! | cut, stall or slow down a connection | [`Proxy`] |
//! | name a server that is not there | [`SilentPort`] |
//! | own the time and the identifiers | [`MockClock`], [`ShiftedClock`], [`SeededRandom`] |
//! | fail, hang or watch the puts of some objects | [`Selective`] |
//! | count, delay or fail the calls of a store | [`Counting`], [`Delaying`], [`Failing`] with [`documents::decorate`] or [`objects::decorate`] |
//! | count the documents, objects and bytes that go through a seam | [`Meter`] with [`documents::metered`] or [`objects::metered`] |
//!
//! Everything here panics with a sentence that says what is wrong: a test has nothing better to do with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the panic is the failure of the test that asked"
)]

mod clock;
pub mod documents;
mod hurried;
mod layers;
mod meter;
mod mongo_server;
mod mongod;
pub mod objects;
mod promtool;
mod proxy;
mod random;
mod redis;
mod replica_set;
mod selective;
pub mod servers;
mod shifted;
mod silent;

pub use clock::MockClock;
pub use hurried::HurriedClock;
pub use layers::{CallKind, Counting, Delaying, Failing, Fault, Holding, Layer};
pub use meter::{Meter, Moved};
pub use mongo_server::MongoServer;
pub use promtool::promtool;
pub use proxy::Proxy;
pub use random::SeededRandom;
pub use redis::{RedisCluster, RedisServer, free_port};
pub use replica_set::ReplicaSet;
pub use selective::Selective;
pub use shifted::ShiftedClock;
pub use silent::SilentPort;

/// What the README shows compiles. It stands here because a published crate does not have the file.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// What the guide shows compiles, and its programs that need no server run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/getting-started.md")]
struct GettingStarted;
