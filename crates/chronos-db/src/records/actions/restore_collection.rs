//! Restoring every item of a collection.

use super::Action;
use crate::records::Collection;
use crate::records::model::VersionSelector;
use crate::records::restore::{RestoreOptions, Restored};
use crate::telemetry::{Observed, Operation};
use crate::{Result, Timestamp};

impl Collection {
    /// Restores every item to its state at a time or a collection version. These are ordinary writes that
    /// share payloads: nothing is copied or overwritten, and another restore undoes them. Items that are
    /// written meanwhile are left alone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// let before = users.stable_cv().await?;
    /// users.delete(&id).await?;
    /// let restored = users.restore_collection().to_cv(before).reason("bad clean-up").await?;
    /// assert_eq!(restored.restored, 1);
    /// assert!(users.get(&id).await?.is_some());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if no point is named, or one that is not settled yet; `TXN_ERROR` if the document
    /// store fails. What goes wrong with single items is in
    /// [`Restored::problems`](crate::Restored::problems).
    pub fn restore_collection(&self) -> RestoreCollection {
        RestoreCollection::new(self)
    }
}

/// Restores every item; see [`Collection::restore_collection`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RestoreCollection {
    collection: Collection,
    which: VersionSelector,
    options: RestoreOptions,
}

impl RestoreCollection {
    pub(crate) fn new(collection: &Collection) -> Self {
        let options = RestoreOptions { page: 500, parallel: 500, ..RestoreOptions::default() };
        Self { collection: collection.clone(), which: VersionSelector::Latest, options }
    }

    /// Restores to this version of the collection (`cv`). Items created later are deleted; −1 empties the
    /// collection.
    pub fn to_cv(mut self, cv: i64) -> Self {
        self.which = VersionSelector::Cv(cv);
        self
    }

    /// Restores to this time, by the store's clock.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }

    /// Counts what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.options.dry_run = true;
        self
    }

    /// Records who does this.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.options.write.actor = Some(actor.into());
        self
    }

    /// Records why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.write.reason = Some(reason.into());
        self
    }

    /// Sets how many items are planned together (default 500), and how many changes are under way at once
    /// (default 500).
    pub fn page_size(mut self, items: usize, parallel: usize) -> Self {
        self.options.page = items.clamp(1, 10_000);
        self.options.parallel = parallel.clamp(1, 10_000);
        self
    }

    /// Calls `progress` with the counts so far after every page.
    pub fn on_progress(mut self, progress: impl Fn(&Restored) + Send + Sync + 'static) -> Self {
        self.options.progress = Some(std::sync::Arc::new(progress));
        self
    }
}

impl Action for RestoreCollection {
    type Output = Restored;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::RestoreCollection))
    }

    fn items(restored: &Restored) -> Option<u64> {
        Some(restored.items)
    }

    async fn run(self) -> Result<Restored> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers.restorer.restore_collection(self.which, &self.options, scope).await
    }
}

awaitable!(RestoreCollection);
