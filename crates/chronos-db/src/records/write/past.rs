//! What is known of the past: up to where no version can be added any more.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Up to where the past of a collection is known to be settled: no version will ever be added to it.
#[derive(Debug)]
pub(crate) struct Past {
    /// Milliseconds; every version whose number was given out at or before has its row, and its head.
    pub(crate) until: AtomicI64,
    pub(crate) cv: AtomicI64,
    /// Some of it was settled without its heads, by a user who may not write.
    pub(crate) heads_lag: AtomicBool,
}

impl Past {
    /// Whether heads are no older than the rows of what is settled.
    pub(crate) fn heads_follow(&self) -> bool {
        !self.heads_lag.load(Ordering::Acquire)
    }
}

impl Default for Past {
    fn default() -> Self {
        Self { until: AtomicI64::new(i64::MIN), cv: AtomicI64::new(-1), heads_lag: AtomicBool::new(false) }
    }
}
