//! Counters: how many versions created, updated and deleted something, in all and by rules.
//!
//! They follow the log (see `projections`), so a write costs nothing for them, and what is not followed yet is
//! added when they are read: a total is exact right after a write.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> chronos_db::Result<()> {
//! use chronos_db::{Chronos, Route, config::Config, json};
//!
//! let config = Config::parse(
//!     r#"{"dbConnections": {"here": {"mongoUri": "embedded::memory:"}},
//!         "databases": {"runtime": {"tenantDatabases": [{"tenantId": "shop", "dbConnRef": "here", "dbName": "shop"}]}},
//!         "counterRules": {"rules": [
//!             {"name": "logins", "on": ["CREATE"], "when": {"action": "login"}, "countUnique": ["user"]}]}}"#,
//!     ".".as_ref(),
//! )?;
//! let events = Chronos::open(config)?.with(Route::runtime().tenant("shop").collection("events"))?;
//! for user in ["ada", "bob", "ada"] {
//!     events.create(json!({"action": "login", "user": user})).await?;
//! }
//!
//! let totals = events.counters().totals().await?;
//! assert_eq!(totals.counts.created, 3);
//! assert_eq!(totals.rules["logins"].unique["user"], 2);
//! let users = events.counters().unique("logins", "user").limit(1).await?;
//! assert_eq!((&users[0].value, users[0].counts.created), (&json!("ada"), 2));
//! # Ok(()) }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! A count is exact because it says up to which number of the log it goes: `record.rs` is the totals, with the
//! position in them; `row.rs` are the counts of single values and of days, weeks and months, each of which
//! has a position of its own. `change.rs` is what a piece of the log changes, computed from the rows alone,
//! so every follower that computes it comes to the same; `projection.rs` writes it. `present.rs` adds what is not followed
//! yet, `actions/` is what a caller asks, `recount.rs` counts anew beside the counts that are read.

mod actions;
mod answer;
mod change;
mod counts;
mod period;
mod present;
mod projection;
mod record;
mod recount;
mod row;
mod session;
mod store;

pub use self::actions::{Buckets, Counters, Follow, Recount, Reset, TotalsOf, Unique};
pub use self::answer::{Bucket, FollowProgress, Recounted, RuleTotals, Totals, UniqueValue};
pub use self::counts::Counts;
pub use self::period::Period;
pub(crate) use self::session::owner_of;
