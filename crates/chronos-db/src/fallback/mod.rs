//! The fallback queue: writes that failed in a way that passes wait, and are tried again until they took place
//! exactly once.
//!
//! `entry` is one operation as it is stored, `queued` what a caller sees of it. `queue` is what waits in one
//! store, `queues` knows which store that is for which records. `records/submit.rs` lets writes wait, at once while
//! `breaker` says that the store is away; `replay`
//! tries them again. `handle` is what callers have, with an action a file;
//! `failed` names queues that do not answer.
//!
//! Why an operation takes place once, whatever happens: its identity stands in the version row that it makes
//! (`records/write/identity.rs`). An attempt from the queue looks for that row among the versions that are
//! younger than the one its first commit was to follow, and then commits as the successor of exactly the newest
//! version it looked at (docs/decisions/0011).

pub(crate) mod breaker;
mod cancel;
pub(crate) mod entry;
mod failed;
mod handle;
mod list;
pub(crate) mod queue;
mod queued;
pub(crate) mod queues;
mod replay;
mod retry;
pub(crate) mod retry_due;
mod stats;

pub use self::cancel::CancelOperation;
pub use self::failed::FailedQueue;
pub use self::handle::FallbackQueue;
pub use self::list::{ListOperations, OperationList};
pub use self::queued::QueuedOperation;
pub use self::retry::RetryOperation;
pub use self::retry_due::{Retried, RetryDue};
pub use self::stats::{FallbackStats, GetFallbackStats};
