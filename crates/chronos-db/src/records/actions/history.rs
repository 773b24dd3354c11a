//! Reading the versions of one item.

use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::Action;
use crate::Result;
use crate::records::{Collection, ItemId, Version};

impl Collection {
    /// The versions of one item.
    pub fn history(&self, id: &ItemId) -> History {
        History::new(self, *id)
    }
}

/// The versions of one item; see [`Collection::history`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct History {
    collection: Collection,
    id: ItemId,
    newest_first: bool,
}

impl History {
    pub(crate) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, newest_first: false }
    }

    /// The newest version first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Version by version, in bounded memory.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Version>>> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        workers.reader.versions(self.id, scope, self.newest_first).await
    }
}

impl Action for History {
    type Output = Vec<Version>;

    async fn run(self) -> Result<Vec<Version>> {
        self.stream().await?.try_collect().await
    }
}

awaitable!(History);
