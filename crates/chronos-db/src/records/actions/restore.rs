//! Restoring one item to an earlier version.

use super::Action;
use crate::records::model::VersionSelector;
use crate::records::write::{Request, WriteOptions};
use crate::records::{Collection, ItemId, Written};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result, Timestamp};

impl Collection {
    /// Restores one item to an earlier version, as a new one that shares the payload of the old one. A
    /// deleted item comes back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// # users.update(&id, chronos_db::json!({"plan": "team"})).await?;
    /// let restored = users.restore(&id).to_version(0).actor("support").reason("it was a mistake").await?;
    /// assert_eq!(restored.ov, 2);
    /// assert_eq!(users.get(&id).await?.unwrap().document()["plan"], "free");
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if neither a version nor a time is named; `NOT_FOUND` if there is no such item or
    /// version; `OPTIMISTIC_LOCK`, `LOCKED` and `TXN_ERROR` as [`update`](Self::update).
    pub fn restore(&self, id: &ItemId) -> Restore {
        Restore::new(self, *id)
    }
}

/// Restores one item; see [`Collection::restore`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Restore {
    collection: Collection,
    id: ItemId,
    which: VersionSelector,
    options: WriteOptions,
}

impl Restore {
    pub(crate) fn new(collection: &Collection, id: ItemId) -> Self {
        Self {
            collection: collection.clone(),
            id,
            which: VersionSelector::Latest,
            options: WriteOptions::default(),
        }
    }

    write_options!();
    change_options!();

    /// Restores to the version with this number (`ov`).
    pub fn to_version(mut self, ov: i64) -> Self {
        self.which = VersionSelector::Ov(ov);
        self
    }

    /// Restores to the newest version at this time, by the store's clock.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }
}

impl Action for Restore {
    type Output = Written;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Restore))
    }

    async fn run(self) -> Result<Written> {
        if self.which == VersionSelector::Latest {
            return Err(Error::validation("name the version or the time to restore to")
                .during("restore")
                .on_item(self.id));
        }
        self.collection.submit(self.id, Request::Restore(self.which), self.options).await
    }
}

awaitable!(Restore);
