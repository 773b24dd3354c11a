//! Carrying out what is due.

use std::sync::Arc;

use futures::StreamExt as _;

use super::handle::FallbackQueue;
use super::replay::{Counts, Replayer};
use crate::action::Action;
use crate::documents::Filter;
use crate::telemetry::{Observed, Operation};
use crate::{Error, Json, Result, json};

/// Queues at once: one whose store is away holds up no more than its own place.
const PARALLEL: usize = 8;

impl FallbackQueue {
    /// Carries out every operation that is due, those of one item one after the other, until none is. Any
    /// number of processes may do so at once. What fails in a way that passes waits for its next attempt, and
    /// what cannot succeed becomes a dead letter; neither holds up the operations of other items.
    ///
    /// While a document store does not answer at all, what waits in a spool for it is left alone: an outage
    /// takes no attempts.
    ///
    /// Without a spool there is a queue in each database. One whose store fails holds up no other, and is counted
    /// in [`failed`](Retried::failed).
    ///
    /// # Errors
    /// `TXN_ERROR` if the stores of all queues fail; calling it again goes on.
    pub fn retry_due(&self) -> RetryDue {
        RetryDue { fallback: self.clone() }
    }
}

/// Carries out what is due; see [`FallbackQueue::retry_due`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RetryDue {
    fallback: FallbackQueue,
}

/// What a round came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// Operations that took place, now or in an attempt whose answer was lost.
    pub done: u64,
    /// Attempts that failed in a way that passes.
    pub postponed: u64,
    /// Operations that became dead letters.
    pub dead: u64,
    /// Operations that wait: for their next attempt, for another process, or for a store. Those of queues that
    /// failed are not known.
    pub waiting: u64,
    /// Queues whose store failed.
    pub failed: u64,
    /// Code and message of the first of these failures.
    pub first_error: Option<(String, String)>,
}

impl Retried {
    /// Returns `{done, postponed, dead, waiting}`, and if a queue failed also `{failed, error}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { done, postponed, dead, waiting, failed, first_error } = self;
        let mut out = json!({ "done": done, "postponed": postponed, "dead": dead, "waiting": waiting });
        if let Some((code, message)) = first_error {
            out["failed"] = (*failed).into();
            out["error"] = json!({ "code": code, "message": message });
        }
        out
    }
}

impl RetryDue {
    /// Runs it; with the first error of a queue, if only some failed.
    pub(crate) async fn round(self) -> Result<(Retried, Option<Error>)> {
        let FallbackQueue { chronos, queues } = self.fallback;
        let (counts, all) = (Arc::new(Counts::default()), queues.len() as u64);
        let rounds: Vec<_> = queues
            .into_iter()
            .map(|queue| {
                let (chronos, counts) = (chronos.clone(), Arc::clone(&counts));
                async move {
                    Replayer::new(chronos, Arc::clone(&queue)).run(&counts).await?;
                    queue.count(&queue.operations, Filter::All).await
                }
            })
            .collect();
        let results: Vec<Result<u64>> =
            futures::stream::iter(rounds).buffer_unordered(PARALLEL).collect().await;
        let (mut retried, mut first) = (Retried::default(), None);
        for result in results {
            match result {
                Ok(waiting) => retried.waiting += waiting,
                Err(error) => {
                    retried.failed += 1;
                    tracing::debug!(%error, "a fallback queue failed");
                    first = first.or(Some(error));
                }
            }
        }
        (retried.done, retried.postponed, retried.dead) = counts.read();
        if let Some(error) = &first {
            if retried.failed == all {
                return Err(error.clone());
            }
            retried.first_error = Some((error.code().to_owned(), error.message().to_owned()));
        }
        Ok((retried, first))
    }
}

impl Action for RetryDue {
    type Output = Retried;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<Retried> {
        self.round().await.map(|(retried, _)| retried)
    }
}

awaitable!(RetryDue);
