//! Taking the lease of an item.

use std::time::Duration;

use super::Action;
use crate::Result;
use crate::records::write::lock::TIMEOUT;
use crate::records::{Collection, ItemId, ItemLock};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Takes the lease of an item: other writers wait up to 5 s, then get `LOCKED`. It lasts 30 s, is renewed
    /// in the background, and ends when it is released, or by itself once the holder is dropped or gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// use chronos_db::json;
    ///
    /// let lock = users.lock(&id).await?;
    /// users.update(&id, json!({"state": "busy"})).with_lock(&lock).await?;
    /// users.update(&id, json!({"state": "done"})).with_lock(&lock).await?;
    /// lock.release().await?;
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item; `LOCKED` if another holder keeps it for longer than
    /// [`wait`](Lock::wait) says; `TXN_ERROR` if the document store fails.
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

    /// Waits this long for another holder (default 5 s), then fails with `LOCKED`.
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Action for Lock {
    type Output = ItemLock;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Lock))
    }

    async fn run(self) -> Result<ItemLock> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let locked = workers.locks.lock(self.id, self.patience, scope).await;
        locked.map_err(|e| e.during("lock").in_collection(&workers.index.names.collection).on_item(self.id))
    }
}

awaitable!(Lock);
