//! What is asked of counters: one file an action, with the method that begins it and how it runs.

mod buckets;
mod counters;
mod follow;
mod recount;
mod reset;
mod totals;
mod unique;

pub use self::buckets::Buckets;
pub use self::counters::Counters;
pub use self::follow::Follow;
pub use self::recount::Recount;
pub use self::reset::Reset;
pub use self::totals::TotalsOf;
pub use self::unique::Unique;
