//! Reading one item.

use std::time::Duration;

use super::Action;
use crate::records::model::VersionSelector;
use crate::records::read::{ReadOptions, unless_erased};
use crate::records::{Collection, ItemId, View};
use crate::{Error, Result, Timestamp};

impl Collection {
    /// Reads one item: the latest version, one by number, or the one of a time.
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

    /// The version with this number.
    pub fn version(mut self, ov: i64) -> Self {
        self.which = VersionSelector::Ov(ov);
        self
    }

    /// The newest version at this time.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }

    /// The newest version at this version of the collection.
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.which = VersionSelector::Cv(cv);
        self
    }
}

impl Action for Get {
    type Output = Option<View>;

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
