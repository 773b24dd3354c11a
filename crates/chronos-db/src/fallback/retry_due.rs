//! Carrying out what is due.

use super::handle::FallbackQueue;
use super::replay::{Counts, Replayer};
use crate::Result;
use crate::action::Action;
use crate::documents::Filter;
use crate::{Json, json};

impl FallbackQueue {
    /// Carries out every operation that is due, those of one item one after the other, until none is. Any
    /// number of processes may do so at once. What fails in a way that passes waits for its next attempt, and
    /// what cannot succeed becomes a dead letter; neither holds up the operations of other items.
    ///
    /// While a document store does not answer at all, what waits in a spool for it is left alone: an outage
    /// takes no attempts.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store of the queue fails; calling it again goes on.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// Operations that took place, now or in an attempt whose answer was lost.
    pub done: u64,
    /// Attempts that failed in a way that passes.
    pub postponed: u64,
    /// Operations that became dead letters.
    pub dead: u64,
    /// Operations that wait: for their next attempt, for another process, or for a store.
    pub waiting: u64,
}

impl Retried {
    /// Returns `{done, postponed, dead, waiting}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { done, postponed, dead, waiting } = *self;
        json!({ "done": done, "postponed": postponed, "dead": dead, "waiting": waiting })
    }
}

impl Action for RetryDue {
    type Output = Retried;

    async fn run(self) -> Result<Retried> {
        let FallbackQueue { chronos, queues } = self.fallback;
        let (counts, mut waiting) = (Counts::default(), 0);
        let mut failed = None;
        for queue in queues {
            // A store that is away holds up what waits in it, nothing else.
            let replayed = Replayer::new(chronos.clone(), queue.clone()).run(&counts).await;
            let counted = match replayed {
                Ok(()) => queue.count(&queue.operations, Filter::All).await,
                Err(error) => Err(error),
            };
            match counted {
                Ok(count) => waiting += count,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let (done, postponed, dead) = counts.read();
        Ok(Retried { done, postponed, dead, waiting })
    }
}

awaitable!(RetryDue);
