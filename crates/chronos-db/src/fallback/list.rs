//! What waits, and what was given up.

use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::failed::FailedQueue;
use super::handle::FallbackQueue;
use super::queue::{AT_ONCE, Queue};
use super::queued::QueuedOperation;
use crate::Result;
use crate::action::Action;
use crate::documents::Filter;
use crate::telemetry::{Observed, Operation};

/// Operations of a list, unless it says otherwise.
const LIMIT: u64 = 100;

impl FallbackQueue {
    /// Lists what waits, the oldest first in each store. One that is malformed is listed as far as it can be
    /// read. Without a spool there is a queue in each database; one whose store fails is named in
    /// [`failed`](OperationList::failed), and the others are listed.
    ///
    /// # Errors
    /// `TXN_ERROR` if the stores of all queues fail.
    pub fn list(&self) -> ListOperations {
        ListOperations { fallback: self.clone(), dead: false, collection: None, limit: LIMIT }
    }

    /// Lists the dead letters: what was given up after its last attempt, or could not succeed at all.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn dead(&self) -> ListOperations {
        ListOperations { dead: true, ..self.list() }
    }
}

/// Lists operations; see [`FallbackQueue::list`] and [`FallbackQueue::dead`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListOperations {
    fallback: FallbackQueue,
    dead: bool,
    collection: Option<String>,
    limit: u64,
}

impl ListOperations {
    /// Lists those of one collection.
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.collection = Some(name.into());
        self
    }

    /// Lists at most this many (default 100).
    pub fn limit(mut self, operations: u64) -> Self {
        self.limit = operations;
        self
    }

    /// Streams them one by one, in bounded memory. A queue whose store fails is reported at its position, and the stream
    /// goes on with the next.
    pub fn stream(self) -> BoxStream<'static, Result<QueuedOperation, FailedQueue>> {
        let filter = self.collection.map_or(Filter::All, |name| Filter::eq("ctx.collection", name));
        let begun = futures::stream::iter(self.fallback.queues)
            .map(move |queue| begin(queue, self.dead, filter.clone()))
            .buffered(AT_ONCE);
        let mut left = self.limit;
        let within = move |found: &Result<QueuedOperation, FailedQueue>| {
            let is_within = found.is_err() || left > 0;
            left = left.saturating_sub(u64::from(found.is_ok()));
            futures::future::ready(is_within)
        };
        begun.flatten().take_while(within).boxed()
    }
}

/// What one queue says, up to its first error; it has been asked when this returns.
async fn begin(
    queue: Arc<Queue>,
    is_dead: bool,
    filter: Filter,
) -> BoxStream<'static, Result<QueuedOperation, FailedQueue>> {
    let (namespace, time) =
        if is_dead { (&queue.dead, "failedAt") } else { (&queue.operations, "createdAt") };
    let mut found = queue.list(namespace, time, filter).peekable();
    Pin::new(&mut found).peek().await;
    let operations = found.map(move |stored| match stored {
        Ok(stored) => Ok(QueuedOperation::read(&stored)),
        Err(error) => Err(FailedQueue::new(&queue, error)),
    });
    let mut has_failed = false;
    let up_to_failure = move |operation: &Result<QueuedOperation, FailedQueue>| {
        let goes_on = !has_failed;
        has_failed |= operation.is_err();
        futures::future::ready(goes_on)
    };
    operations.take_while(up_to_failure).boxed()
}

/// What waits, or what was given up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OperationList {
    /// Of the queues that answer.
    pub operations: Vec<QueuedOperation>,
    /// Queues that do not, or that failed on the way.
    pub failed: Vec<FailedQueue>,
}

impl Action for ListOperations {
    type Output = OperationList;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<OperationList> {
        let queues = self.fallback.queues.len();
        let (mut list, mut found) = (OperationList::default(), self.stream());
        while let Some(found) = found.next().await {
            match found {
                Ok(operation) => list.operations.push(operation),
                Err(failed) => list.failed.push(failed),
            }
        }
        FailedQueue::unless_some_answered(&list.failed, queues)?;
        Ok(list)
    }
}

awaitable!(ListOperations);
