//! What waits, and what was given up.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::handle::FallbackQueue;
use super::queued::QueuedOperation;
use crate::Result;
use crate::action::Action;
use crate::documents::Filter;
use crate::telemetry::{Observed, Operation};

/// Operations of a list, unless it says otherwise.
const LIMIT: u64 = 100;

impl FallbackQueue {
    /// Lists what waits, the oldest first in each store. One that is malformed is listed as far as it can be
    /// read.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store of the queue fails.
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

    /// Lists at most so many (default 100).
    pub fn limit(mut self, operations: u64) -> Self {
        self.limit = operations;
        self
    }

    /// Streams them one by one, in bounded memory.
    pub fn stream(self) -> BoxStream<'static, Result<QueuedOperation>> {
        let filter = self.collection.map_or(Filter::All, |name| Filter::eq("ctx.collection", name));
        let dead = self.dead;
        let each = futures::stream::iter(self.fallback.queues).flat_map(move |queue| {
            let (namespace, time) =
                if dead { (&queue.dead, "failedAt") } else { (&queue.operations, "createdAt") };
            queue.list(namespace, time, filter.clone())
        });
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        each.map_ok(|stored| QueuedOperation::read(&stored)).take(limit).boxed()
    }
}

impl Action for ListOperations {
    type Output = Vec<QueuedOperation>;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<Vec<QueuedOperation>> {
        self.stream().try_collect().await
    }
}

awaitable!(ListOperations);
