//! Reading one item.

use std::time::Duration;

use super::Action;
use crate::records::model::VersionSelector;
use crate::records::read::{ReadOptions, unless_erased};
use crate::records::{Collection, ItemId, View};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result, Timestamp};

impl Collection {
    /// Reads one item: the latest version, one by number, or the one of a time. None if there is no such item
    /// or version, or if it is deleted and [`include_deleted`](Get::include_deleted) was not asked for.
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
    /// let now = users.get(&id).await?.unwrap();
    /// let before = users.get(&id).version(0).await?.unwrap();
    /// assert_eq!((now.ov, &now.document()["plan"]), (1, &"team".into()));
    /// assert_eq!((before.ov, &before.document()["plan"]), (0, &"free".into()));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `STORAGE_ERROR` if the payload is missing or not what was written; `PRESIGN_UNSUPPORTED` if URLs were
    /// asked for that the storage cannot sign; `TXN_ERROR` if the document store fails.
    pub fn get(&self, id: &ItemId) -> Get {
        Get::new(self, *id)
    }
}

/// Reads one item; see [`Collection::get`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Get {
    collection: Collection,
    id: ItemId,
    which: VersionSelector,
    options: ReadOptions,
}

impl Get {
    pub(crate) fn new(collection: &Collection, id: ItemId) -> Self {
        Self {
            collection: collection.clone(),
            id,
            which: VersionSelector::Latest,
            options: ReadOptions::default(),
        }
    }

    fn options(&mut self) -> &mut ReadOptions {
        &mut self.options
    }

    read_options!();

    /// Reads the version with this number (`ov`, from 0).
    pub fn version(mut self, ov: i64) -> Self {
        self.which = VersionSelector::Ov(ov);
        self
    }

    /// Reads the newest version at this time, by the store's clock.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }

    /// Reads the newest version at this version of the collection (`cv`, from 0).
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.which = VersionSelector::Cv(cv);
        self
    }
}

impl Action for Get {
    type Output = Option<View>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Get))
    }

    async fn run(self) -> Result<Option<View>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let named =
            |e: Error| e.during("get").in_collection(&workers.index.names.collection).on_item(self.id);
        match workers.reader.find(self.id, self.which, &self.options, scope).await.map_err(named)? {
            Some(found) => unless_erased(workers.reader.view(found, &self.options).await).map_err(named),
            None => Ok(None),
        }
    }
}

awaitable!(Get);
