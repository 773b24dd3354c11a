//! Marking the items whose time has passed.

use std::time::Duration;

use super::Action;
use crate::records::Collection;
use crate::telemetry::{Observed, Operation};
use crate::{Json, Result, Timestamp, json};

impl Collection {
    /// Marks every item as [`processed`](crate::State::Processed) whose newest version is stored as an object and
    /// was written at least `ttl` ago, by the store's clock. It makes no versions.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use std::time::Duration;
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # users.create(chronos_db::json!({"email": "ada@example.org"})).await?;
    /// let day = Duration::from_secs(24 * 3600);
    /// let report = users.mark_items_as_processed_by_ttl(day).await?;
    /// assert_eq!(report.items_marked_as_processed, 0, "it was written just now");
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails; calling it again goes on.
    pub fn mark_items_as_processed_by_ttl(&self, ttl: Duration) -> MarkItemsAsProcessed {
        MarkItemsAsProcessed { collection: self.clone(), ttl, max_items: None, dry_run: false }
    }
}

/// Marks items; see [`Collection::mark_items_as_processed_by_ttl`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct MarkItemsAsProcessed {
    collection: Collection,
    ttl: Duration,
    max_items: Option<u64>,
    dry_run: bool,
}

/// What was marked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MarkedItems {
    /// The collection.
    pub collection: String,
    /// Items whose time has passed and that were not marked yet.
    pub items_processed: u64,
    /// Those that this call marked, or would have. Items that are written meanwhile are not.
    pub items_marked_as_processed: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// When it began, by the store's clock.
    pub processed_at: Timestamp,
}

impl MarkedItems {
    /// Returns `{collection, itemsProcessed, itemsMarkedAsProcessed, dryRun, processedAt}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "collection": self.collection,
            "itemsProcessed": self.items_processed,
            "itemsMarkedAsProcessed": self.items_marked_as_processed,
            "dryRun": self.dry_run,
            "processedAt": self.processed_at.to_string(),
        })
    }
}

impl MarkItemsAsProcessed {
    /// Counts what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Ends after this many items. Default: all.
    pub fn max_items(mut self, items: u64) -> Self {
        self.max_items = Some(items);
        self
    }
}

impl Action for MarkItemsAsProcessed {
    type Output = MarkedItems;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::MarkProcessed))
    }

    async fn run(self) -> Result<MarkedItems> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let mark = async {
            let now = workers.index.documents.now().await?;
            let before = now.minus(self.ttl);
            let done = workers.expirer.mark(before, self.max_items, self.dry_run, scope).await?;
            Ok(MarkedItems {
                collection: self.collection.name().to_owned(),
                items_processed: done.seen,
                items_marked_as_processed: done.changed,
                dry_run: self.dry_run,
                processed_at: now,
            })
        };
        mark.await
            .map_err(|e: crate::Error| e.during("mark as processed").in_collection(self.collection.name()))
    }
}

awaitable!(MarkItemsAsProcessed);
