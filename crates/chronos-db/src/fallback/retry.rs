//! Making an operation due.

use super::handle::{FallbackQueue, find, identity};
use super::queued::QueuedOperation;
use crate::Result;
use crate::action::Action;
use crate::telemetry::{Observed, Operation};

impl FallbackQueue {
    /// Makes an operation due at once, and returns it: one that waits for its next attempt, or a dead letter,
    /// which begins anew at the end of what waits for its item. [`retry_due`](Self::retry_due) or a worker
    /// then carries it out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such operation; `LOCKED` if another caller is working on the same dead letter;
    /// `TXN_ERROR` if a queue that may have it does not answer.
    pub fn retry(&self, request_id: impl Into<String>) -> RetryOperation {
        RetryOperation { fallback: self.clone(), request_id: request_id.into() }
    }
}

/// Makes an operation due; see [`FallbackQueue::retry`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RetryOperation {
    fallback: FallbackQueue,
    request_id: String,
}

impl Action for RetryOperation {
    type Output = QueuedOperation;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<QueuedOperation> {
        let id = identity(&self.request_id)?;
        find(&self.fallback.queues, &self.request_id, |queue| queue.revive(id)).await
    }
}

awaitable!(RetryOperation);
