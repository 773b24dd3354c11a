//! Replacing a document.

use serde::Serialize;

use super::{Action, Given};
use crate::records::write::{Change, Request, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Replaces the whole document. Its id, history and lineage stay.
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
    /// users.replace(&id, json!({"email": "ada@example.com"})).await?;
    /// assert_eq!(users.get(&id).await?.unwrap().document(), json!({"email": "ada@example.com"}));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn replace(&self, id: &ItemId, document: impl Serialize) -> Replace {
        Replace::new(self, *id, Given::new(&document))
    }
}

change_action! {
    /// Replaces the whole document; see [`Collection::replace`].
    Replace, document: Given => |this| Change::Replace { document: this.document.json()? }
}
