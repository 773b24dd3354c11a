//! Carrying out what is due.

use std::sync::Arc;

use futures::StreamExt as _;

use super::failed::FailedQueue;
use super::handle::FallbackQueue;
use super::queue::{AT_ONCE, Queue};
use super::replay::{Counts, Replayer};
use crate::action::Action;
use crate::documents::Filter;
use crate::telemetry::{Observed, Operation};
use crate::{Json, Result, json};

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

/// The result of a round.
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

/// The result of a round, queue by queue.
pub(crate) struct Round {
    pub(crate) retried: Retried,
    /// The places of queues that answered.
    pub(crate) answered: Vec<String>,
    pub(crate) failed: Vec<FailedQueue>,
}

impl RetryDue {
    /// Runs it over those queues that `is_wanted`, by their places.
    pub(crate) async fn round(self, is_wanted: impl Fn(&str) -> bool) -> Round {
        let FallbackQueue { chronos, queues } = self.fallback;
        let counts = Arc::new(Counts::default());
        let rounds: Vec<_> = queues
            .into_iter()
            .filter(|queue| is_wanted(&queue.place))
            .map(|queue| {
                let (chronos, counts) = (chronos.clone(), Arc::clone(&counts));
                async move {
                    let round = async {
                        Replayer::new(chronos, Arc::clone(&queue)).run(&counts).await?;
                        queue.count(&queue.operations, Filter::All).await
                    };
                    let result = round.await;
                    (queue, result)
                }
            })
            .collect();
        let results: Vec<(Arc<Queue>, Result<u64>)> =
            futures::stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
        let mut round = Round { retried: Retried::default(), answered: Vec::new(), failed: Vec::new() };
        for (queue, result) in results {
            match result {
                Ok(waiting) => {
                    round.retried.waiting += waiting;
                    round.answered.push(queue.place.clone());
                }
                Err(error) => round.failed.push(FailedQueue::new(&queue, error)),
            }
        }
        let retried = &mut round.retried;
        (retried.done, retried.postponed, retried.dead) = counts.read();
        retried.failed = round.failed.len() as u64;
        let first = round.failed.first().map(|failed| &failed.error);
        retried.first_error = first.map(|error| (error.code().to_owned(), error.message().to_owned()));
        round
    }
}

impl Action for RetryDue {
    type Output = Retried;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<Retried> {
        let queues = self.fallback.queues.len();
        let Round { retried, failed, .. } = self.round(|_| true).await;
        FailedQueue::unless_some_answered(&failed, queues)?;
        Ok(retried)
    }
}

awaitable!(RetryDue);
