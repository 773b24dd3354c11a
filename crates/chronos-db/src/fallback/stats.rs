//! How much waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};

use super::failed::FailedQueue;
use super::handle::FallbackQueue;
use super::queue::{AT_ONCE, Queue};
use super::queued::QueuedOperation;
use crate::action::Action;
use crate::documents::{Filter, Namespace, within};
use crate::records::waiting;
use crate::telemetry::{Observed, Operation};
use crate::{Json, Result, Timestamp, json};

/// The types of operations.
const TYPES: [&str; 6] = ["CREATE", "UPDATE", "REPLACE", "ENRICH", "DELETE", "RESTORE"];
/// How long the stores are asked for what their flushers have left to do: the queue answers without them.
const ASKING: Duration = Duration::from_secs(2);

impl FallbackQueue {
    /// Counts what waits and what was given up. With a spool this works while the document store is away.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// use chronos_db::{Chronos, config::{Config, Fallback}};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let config = Config::embedded_builder(dir.path()).fallback(Fallback::default()).build()?;
    /// let chronos = Chronos::open(config)?;
    /// let stats = chronos.fallback()?.stats().await?;
    /// assert_eq!((stats.queue_size, stats.dead_letter_size), (0, 0));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// Without a spool there is a queue in each database; one whose store fails is named in
    /// [`failed`](FallbackStats::failed), and the others are counted.
    ///
    /// # Errors
    /// `TXN_ERROR` if the stores of all queues fail.
    pub fn stats(&self) -> GetFallbackStats {
        GetFallbackStats { fallback: self.clone() }
    }

    /// Counts what waits and what was given up, for the metrics too; by types only if asked to.
    pub(crate) async fn measure(&self, with_types: bool) -> Result<FallbackStats> {
        let counted = futures::stream::iter(self.queues.clone())
            .map(|queue| async move {
                let counted = count(&queue, with_types).await;
                (queue, counted)
            })
            .buffered(AT_ONCE);
        let counted: Vec<_> = counted.collect().await;
        let mut stats = FallbackStats::default();
        for (queue, counted) in counted {
            match counted {
                Ok(counted) => stats.add(counted),
                Err(error) => stats.failed.push(FailedQueue::new(&queue, error)),
            }
        }
        FailedQueue::unless_some_answered(&stats.failed, self.queues.len())?;
        let env = self.chronos.env();
        let age =
            stats.oldest_pending.map_or(0, |at| env.clock.now().as_millis().saturating_sub(at.as_millis()));
        let age = Duration::from_millis(age.max(0).unsigned_abs());
        env.telemetry.fallback(stats.queue_size, stats.dead_letter_size, age);
        Ok(stats)
    }
}

/// What one queue has.
async fn count(queue: &Queue, with_types: bool) -> Result<FallbackStats> {
    let mut stats = FallbackStats {
        queue_size: queue.count(&queue.operations, Filter::All).await?,
        dead_letter_size: queue.count(&queue.dead, Filter::All).await?,
        ..FallbackStats::default()
    };
    let mut oldest = queue.list(&queue.operations, "createdAt", Filter::All);
    let oldest = oldest.try_next().await?;
    stats.oldest_pending = oldest.map(|stored| QueuedOperation::read(&stored).created_at);
    for kind in TYPES.into_iter().filter(|_| with_types) {
        let count = queue.count(&queue.operations, Filter::eq("type", kind)).await?;
        if count > 0 {
            stats.by_type.insert(kind.to_owned(), count);
        }
    }
    Ok(stats)
}

/// Counts what waits; see [`FallbackQueue::stats`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetFallbackStats {
    fallback: FallbackQueue,
}

/// How much waits, and how much was given up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FallbackStats {
    /// Operations that wait.
    pub queue_size: u64,
    /// Operations that were given up.
    pub dead_letter_size: u64,
    /// When the oldest operation that waits was queued.
    pub oldest_pending: Option<Timestamp>,
    /// Operations that wait, by their types; types without any are left out.
    pub by_type: BTreeMap<String, u64>,
    /// Versions that are committed and whose objects are yet to be stored; none if a store did not say within
    /// 2 s. Databases that only contexts name are not counted.
    pub waiting_objects: Option<u64>,
    /// Queues that do not answer; nothing of them is counted.
    pub failed: Vec<FailedQueue>,
}

impl FallbackStats {
    fn add(&mut self, of_queue: Self) {
        self.queue_size += of_queue.queue_size;
        self.dead_letter_size += of_queue.dead_letter_size;
        self.oldest_pending = match (self.oldest_pending, of_queue.oldest_pending) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (kind, count) in of_queue.by_type {
            *self.by_type.entry(kind).or_default() += count;
        }
    }

    /// Returns `{queueSize, deadLetterSize, oldestPending, byType, waitingObjects}`, and if queues do not answer
    /// also `failed`: `{queue, code, message}` of each.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = json!({
            "queueSize": self.queue_size,
            "deadLetterSize": self.dead_letter_size,
            "oldestPending": self.oldest_pending.map(|at| at.to_string()),
            "byType": self.by_type,
            "waitingObjects": self.waiting_objects,
        });
        if !self.failed.is_empty() {
            let to_json = |FailedQueue { place, error }: &FailedQueue| json!({ "queue": place, "code": error.code(), "message": error.message() });
            out["failed"] = self.failed.iter().map(to_json).collect();
        }
        out
    }
}

impl Action for GetFallbackStats {
    type Output = FallbackStats;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<FallbackStats> {
        let mut stats = self.fallback.measure(true).await?;
        stats.waiting_objects = match within(ASKING, waiting_objects(&self.fallback)).await {
            Ok(waiting) => Some(waiting),
            Err(error) => {
                tracing::debug!(%error, "a store does not say how many objects wait");
                None
            }
        };
        Ok(stats)
    }
}

/// How many versions wait for their objects, in all databases that the configuration names.
async fn waiting_objects(fallback: &FallbackQueue) -> Result<u64> {
    let chronos = &fallback.chronos;
    let entries = chronos.config().entries.iter().filter(|entry| entry.objects.is_some());
    let databases: BTreeSet<(&str, &str)> =
        entries.filter_map(|entry| Some((entry.connection.as_str(), entry.database.as_deref()?))).collect();
    let mut waits = 0;
    for (connection, database) in databases {
        let documents = chronos.documents(connection)?;
        for name in documents.collections(database).await? {
            if name.ends_with("_ver") {
                waits += documents.count(&Namespace::new(database, name), waiting(), u64::MAX).await?;
            }
        }
    }
    Ok(waits)
}

awaitable!(GetFallbackStats);
