//! Values of shared memory.

use std::time::Duration;

use bytes::Bytes;

/// A value of shared memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes; none is a tombstone.
    pub bytes: Option<Bytes>,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// Grows with every change of the key, and never comes again: neither after the value's end nor after its
    /// removal. It is at least the store's time of the change in microseconds, and fits 53 bits.
    pub version: u64,
    /// What is left of its time.
    pub ttl: Option<Duration>,
}

chronos_db::debug_some!(Value { content_type, version, ttl });

/// What [`KeyValueStore::increment`](super::KeyValueStore::increment) made of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// The sum.
    pub number: i64,
    /// The version of the value; see [`Value::version`].
    pub version: u64,
}

/// Under which condition a key changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Always.
    #[default]
    Always,
    /// Only if there is no value; a tombstone is none.
    Absent,
    /// Only if nothing at all is known of the key, not even a tombstone: for refilling from the warm tier.
    Unknown,
    /// As [`Unknown`](Self::Unknown), and the key has this version again, which it was given out for this
    /// very value; a later one if the store remembers a later one.
    UnknownSince(u64),
    /// Only if it has this version.
    Version(u64),
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its version now.
    pub version: u64,
    /// Whether it is gone.
    pub deleted: bool,
    /// Whether it is gone because its time is over.
    pub expired: bool,
}
