//! Merging top-level fields.

use serde::Serialize;

use super::{Action, Given};
use crate::records::write::{Change, Request, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Merges top-level fields into the current document (or replaces it, where the configuration's
    /// `updateMode` says so). Without [`expect_ov`](Update::expect_ov) a conflict with another writer is
    /// repeated on the newest state. An update that changes nothing makes no version.
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
    /// let written = users.update(&id, json!({"plan": "team"})).expect_ov(0).reason("upgrade").await?;
    /// assert_eq!(written.ov, 1);
    /// let user = users.get(&id).await?.unwrap();
    /// assert_eq!(user.document(), json!({"email": "ada@example.org", "plan": "team"}));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item; `OPTIMISTIC_LOCK` if it is not at the version that was expected;
    /// `LOCKED` if another process holds its lock for longer than a write waits (5 s); `VALIDATION_ERROR` and
    /// the others as [`create`](Self::create).
    pub fn update(&self, id: &ItemId, fields: impl Serialize) -> Update {
        Update::new(self, *id, Given::new(&fields))
    }
}

change_action! {
    /// Merges top-level fields; see [`Collection::update`].
    Update, document: Given => |this| Change::Update { document: this.document.json()? }
}
