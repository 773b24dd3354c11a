//! How much waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt as _;

use super::handle::FallbackQueue;
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
    /// # Errors
    /// `TXN_ERROR` if the store of the queue fails.
    pub fn stats(&self) -> GetFallbackStats {
        GetFallbackStats { fallback: self.clone() }
    }

    /// Counts what waits and what was given up, for the metrics too; not what it is.
    pub(crate) async fn measure(&self) -> Result<FallbackStats> {
        let mut stats = FallbackStats::default();
        for queue in &self.queues {
            stats.queue_size += queue.count(&queue.operations, Filter::All).await?;
            stats.dead_letter_size += queue.count(&queue.dead, Filter::All).await?;
            let mut oldest = queue.list(&queue.operations, "createdAt", Filter::All);
            if let Some(stored) = oldest.try_next().await? {
                let at = QueuedOperation::read(&stored).created_at;
                stats.oldest_pending = Some(stats.oldest_pending.map_or(at, |oldest| oldest.min(at)));
            }
        }
        let env = self.chronos.env();
        let age =
            stats.oldest_pending.map_or(0, |at| env.clock.now().as_millis().saturating_sub(at.as_millis()));
        let age = Duration::from_millis(age.max(0).unsigned_abs());
        env.telemetry.fallback(stats.queue_size, stats.dead_letter_size, age);
        Ok(stats)
    }
}

/// Counts what waits; see [`FallbackQueue::stats`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetFallbackStats {
    fallback: FallbackQueue,
}

/// How much waits, and how much was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

impl FallbackStats {
    /// Returns `{queueSize, deadLetterSize, oldestPending, byType, waitingObjects}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "queueSize": self.queue_size,
            "deadLetterSize": self.dead_letter_size,
            "oldestPending": self.oldest_pending.map(|at| at.to_string()),
            "byType": self.by_type,
            "waitingObjects": self.waiting_objects,
        })
    }
}

impl Action for GetFallbackStats {
    type Output = FallbackStats;

    fn observed(&self) -> Option<Observed> {
        Some(self.fallback.chronos.observed(Operation::Fallback))
    }

    async fn run(self) -> Result<FallbackStats> {
        let mut stats = self.fallback.measure().await?;
        for queue in &self.fallback.queues {
            for kind in TYPES {
                let count = queue.count(&queue.operations, Filter::eq("type", kind)).await?;
                if count > 0 {
                    *stats.by_type.entry(kind.to_owned()).or_default() += count;
                }
            }
        }
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
