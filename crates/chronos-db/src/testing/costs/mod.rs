//! What calls of the seams cost, as promises: the same among a hundred times as much, or in proportion to
//! what they give.
//!
//! A clock tells nothing here: it says more of the machine than of the call. A backend brings a [`Gauge`],
//! which counts what its own engine did.

#![allow(clippy::unwrap_used, reason = "a suite says that a promise is broken by panicking")]

pub mod documents;
pub mod objects;

use async_trait::async_trait;

/// What calls cost a backend, in counts. What it cannot tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Requests that went to a server.
    pub requests: u64,
    /// What the engine looked at, in whatever it counts: index entries and documents, or steps.
    pub examined: u64,
    /// Bytes of its answers.
    pub bytes: u64,
}

/// Counts what a backend does.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// Begins to count what concerns `place`: a database of a document store, the bucket of an object
    /// storage.
    async fn begin(&self, place: &str);

    /// Returns what was spent since.
    async fn end(&self, place: &str) -> Spent;
}

/// What `call` costs once it has been made before: the first call of a kind may have to learn something.
async fn spent(gauge: &dyn Gauge, place: &str, call: impl AsyncFn(i32)) -> Spent {
    call(0).await;
    gauge.begin(place).await;
    call(1).await;
    gauge.end(place).await
}

/// Half as much again, and what a few entries cost: an index has more levels, a message longer numbers.
fn about(spent: u64, little: u64) -> u64 {
    spent + spent / 2 + little
}

/// That a call costs the same among few and among a hundred times as many.
fn same(what: &str, few: Spent, many: Spent) {
    assert!(many.requests <= few.requests, "{what}: {few:?} among few, {many:?} among many");
    assert!(many.examined <= about(few.examined, 10), "{what}: {few:?} among few, {many:?} among many");
    assert!(many.bytes <= about(few.bytes, 200), "{what}: {few:?} among few, {many:?} among many");
}

/// That a call costs no more than a hundred times as much for a hundred times as many.
fn in_proportion(what: &str, few: Spent, many: Spent) {
    assert!(many.requests <= about(few.requests * 100, 0), "{what}: {few:?} of few, {many:?} of many");
    assert!(many.examined <= about(few.examined * 100, 0), "{what}: {few:?} of few, {many:?} of many");
    assert!(many.bytes <= about(few.bytes * 100, 0), "{what}: {few:?} of few, {many:?} of many");
}
