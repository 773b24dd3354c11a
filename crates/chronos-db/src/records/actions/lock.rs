//! Taking the lease of an item.

use std::time::Duration;

use super::Action;
use crate::Result;
use crate::records::write::lock::TIMEOUT;
use crate::records::{Collection, ItemId, ItemLock};

impl Collection {
    /// Takes the lease of an item: other writers wait, then get `LOCKED`.
    pub fn lock(&self, id: &ItemId) -> Lock {
        Lock::new(self, *id)
    }
}

/// Takes a lease; see [`Collection::lock`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Lock {
    collection: Collection,
    id: ItemId,
    patience: Duration,
}

impl Lock {
    pub(crate) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, patience: TIMEOUT }
    }

    /// Wait so long for another holder (default 5 s), then fail with `LOCKED`.
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Action for Lock {
    type Output = ItemLock;

    async fn run(self) -> Result<ItemLock> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let locked = workers.locks.lock(self.id, self.patience, scope).await;
        locked.map_err(|e| e.during("lock").in_collection(&workers.index.names.collection).on_item(self.id))
    }
}

awaitable!(Lock);
