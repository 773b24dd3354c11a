//! What followers derive from the log.
//!
//! A follower reads the rows of a collection in the order of their numbers, up to the end of the gapless
//! prefix, and writes what it makes of them together with how far it has come: whatever crashes, every row
//! counts exactly once. `log.rs` reads the rows, `follower.rs` is the loop that all followers share,
//! a `lease` keeps two of them from doing the same work (correctness never rests on it), `analytics_db.rs`
//! is where results are kept. `counters/` is the first of them; `trim.rs` and `retain.rs` let go of rows that
//! all of them are past.

pub(crate) mod analytics_db;
pub mod counters;
mod follower;
mod log;
mod retain;
mod trim;

pub use self::log::DamagedRow;
pub use self::retain::{Prune, RollUp};
