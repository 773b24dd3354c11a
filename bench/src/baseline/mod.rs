//! The baselines: what the stores do without the library, measured in the same run as the library.
//!
//! One file a store: the MongoDB driver, SQLite, and Redis by itself. Nothing here uses the crates that are
//! measured, but for JSON values.

pub(crate) mod mongo;
pub(crate) mod redis;
pub(crate) mod sqlite;
