//! Removing an operation.

use super::handle::{FallbackQueue, find, identity};
use super::queued::QueuedOperation;
use crate::Result;
use crate::action::Action;
use crate::telemetry::{Observed, Operation};

impl FallbackQueue {
    /// Removes an operation that waits, or a dead letter, and returns it as it was. If
    /// [`may_have_happened`](QueuedOperation::may_have_happened) is set, the item's history shows whether it
    /// did.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such operation; `LOCKED` if it is being carried out at this moment;
    /// `TXN_ERROR` if a queue that may have it does not answer.
    pub fn cancel(&self, request_id: impl Into<String>) -> CancelOperation {
        CancelOperation { fallback: self.clone(), request_id: request_id.into() }
    }
}

/// Removes an operation; see [`FallbackQueue::cancel`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct CancelOperation {
    fallback: FallbackQueue,
    request_id: String,
}

impl Action for CancelOperation {
    type Output = QueuedOperation;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<QueuedOperation> {
        let id = identity(&self.request_id)?;
        find(&self.fallback.queues, &self.request_id, |queue| queue.cancel(id)).await
    }
}

awaitable!(CancelOperation);
