//! Analytics rules: what is computed over the items of collections, on a schedule, and kept.
//!
//! A time-based rule counts the live items that match a filter, or takes the sum, mean, largest, smallest or median
//! of an indexed property: one result in all, or one for each hour, day or month in which items were last changed,
//! and for each combination of the values of its `arguments`. A rule across tenants puts the items of several
//! tenants together. `relativeTime` looks at items alone that were created within a moving window.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> chronos_db::Result<()> {
//! use chronos_db::config::{AnalyticsOperation, Config, TimeBasedRule, Timeframe};
//! use chronos_db::{Chronos, Route, json};
//! # let dir = tempfile::tempdir().unwrap();
//!
//! let revenue = TimeBasedRule::new("daily_revenue", "orders", AnalyticsOperation::Sum)
//!     .query(json!({"status": "completed"}))
//!     .field("amount")
//!     .timeframe(Timeframe::Daily);
//! let chronos = Chronos::open(Config::embedded_builder(dir.path()).time_based_rule(revenue).build()?)?;
//! let shop = Route::runtime().tenant("default");
//! let orders = chronos.with(shop.clone().collection("orders"))?;
//! for amount in [120, 30] {
//!     orders.create(json!({"status": "completed", "amount": amount})).await?;
//! }
//!
//! chronos.analytics().run().await?; // a worker does it each hour
//! let days = chronos.analytics().results("daily_revenue", shop).await?;
//! assert_eq!(days.items[0].value, json!(150));
//! # chronos.shutdown().await
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Items are streamed from the heads, filtered by the store: `values.rs` is what a rule takes of one, `fold.rs`
//! makes values of them, by `number.rs` and `spread.rs` exactly and in bounded memory. `time_based.rs` and
//! `cross_tenant.rs` are the two kinds of rules, `store.rs` keeps their results so that each is there once (decision
//! 12), `result.rs` is their shape. `contexts.rs` tells where a rule is run, `due.rs` when. `handle.rs` is what
//! callers have, `run.rs`, `list.rs` and `forget.rs` what they do.

mod contexts;
mod cross_tenant;
pub(crate) mod due;
mod fold;
mod forget;
mod handle;
mod list;
mod marks;
mod number;
mod presence;
mod result;
mod run;
mod spread;
mod store;
mod time_based;
mod values;

pub use self::handle::Analytics;
pub use self::list::ListResults;
pub use self::result::{AnalyticsResult, ResultOf};
pub use self::run::{AnalyticsRun, RuleRun, RunAnalytics};
