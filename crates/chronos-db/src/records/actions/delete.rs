//! Deleting an item.

use super::Action;
use crate::records::write::{Change, Request, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Deletes the item: it disappears from reads, its versions stay, and a restore brings it back. Where
    /// `logicalDelete` is off, it and all its versions are erased for good.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// users.delete(&id).reason("asked for it").await?;
    /// assert!(users.get(&id).await?.is_none());
    /// assert!(users.get(&id).version(0).await?.is_some());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item; `OPTIMISTIC_LOCK` if it is not at the version that was expected;
    /// `LOCKED` if another process holds its lock for longer than a write waits (5 s); `TXN_ERROR` if the
    /// document store fails.
    pub fn delete(&self, id: &ItemId) -> Delete {
        Delete::new(self, *id)
    }
}

change_action! {
    /// Deletes the item; see [`Collection::delete`].
    Delete,  => |this| Change::Delete
}
