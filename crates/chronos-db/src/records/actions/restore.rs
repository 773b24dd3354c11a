//! Restoring one item to an earlier version.

use super::Action;
use crate::records::model::VersionSelector;
use crate::records::write::WriteOptions;
use crate::records::{Collection, ItemId, Written};
use crate::{Error, Result, Timestamp};

impl Collection {
    /// Restores one item to an earlier version, as a new one. A deleted item comes back.
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

    /// To the version with this number.
    pub fn to_version(mut self, ov: i64) -> Self {
        self.which = VersionSelector::Ov(ov);
        self
    }

    /// To the newest version at this time.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }
}

impl Action for Restore {
    type Output = Written;

    async fn run(self) -> Result<Written> {
        if self.which == VersionSelector::Latest {
            return Err(Error::validation("name the version or the time to restore to")
                .during("restore")
                .on_item(self.id));
        }
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        Ok(workers.restorer.restore(self.id, self.which, &self.options, scope).await?.into())
    }
}

awaitable!(Restore);
