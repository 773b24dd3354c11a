//! Restoring every item of a collection.

use super::Action;
use crate::records::Collection;
use crate::records::model::VersionSelector;
use crate::records::restore::{RestoreOptions, Restored};
use crate::{Result, Timestamp};

impl Collection {
    /// Restores every item to its state at a time or a collection version.
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

    /// To this version of the collection. Items created later are deleted; −1 empties the collection.
    pub fn to_cv(mut self, cv: i64) -> Self {
        self.which = VersionSelector::Cv(cv);
        self
    }

    /// To this time.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }

    /// Count what would be done, and do nothing.
    pub fn dry_run(mut self) -> Self {
        self.options.dry_run = true;
        self
    }

    /// Who does this.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.options.write.actor = Some(actor.into());
        self
    }

    /// Why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.write.reason = Some(reason.into());
        self
    }

    /// Items planned together (default 500), and changes under way at once (default 500).
    pub fn page_size(mut self, items: usize, parallel: usize) -> Self {
        self.options.page = items.clamp(1, 10_000);
        self.options.parallel = parallel.clamp(1, 10_000);
        self
    }

    /// Hears the counts so far after every page.
    pub fn on_progress(mut self, progress: impl Fn(&Restored) + Send + Sync + 'static) -> Self {
        self.options.progress = Some(std::sync::Arc::new(progress));
        self
    }
}

impl Action for RestoreCollection {
    type Output = Restored;

    async fn run(self) -> Result<Restored> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers.restorer.restore_collection(self.which, &self.options, scope).await
    }
}

awaitable!(RestoreCollection);
