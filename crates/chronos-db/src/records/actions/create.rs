//! Creating an item.

use serde::Serialize;

use super::{Action, Given};
use crate::Result;
use crate::records::write::{Change, Request, WriteOptions};
use crate::records::{Collection, ItemId, Lineage, Written};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Creates an item from anything that is `Serialize`: a type of yours, `serde_json::json!`, a
    /// [`Json`](crate::Json) with exact numbers. A `_system` in the document is ignored. Returns when the
    /// version is committed; its object is stored right after, unless [`ack_stored`](Create::ack_stored)
    /// waits for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// use chronos_db::json;
    ///
    /// let ada = users.create(json!({"email": "ada@example.org"})).actor("signup").reason("campaign 7").await?;
    /// assert_eq!((ada.ov, ada.cv), (0, 0));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the document is not an object, lacks a required property or is beyond a limit;
    /// `EXTERNALIZATION_ERROR` if a property that is declared as base64 is not; `STORAGE_ERROR` if a payload
    /// too large to ride in its row cannot be stored; `TXN_ERROR` if the document store fails: the message
    /// says whether the outcome is known.
    pub fn create(&self, document: impl Serialize) -> Create {
        Create::new(self, Given::new(&document))
    }
}

/// Creates an item; see [`Collection::create`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Create {
    collection: Collection,
    document: Given,
    lineage: Lineage,
    options: WriteOptions,
}

impl Create {
    pub(crate) fn new(collection: &Collection, document: Given) -> Self {
        Self {
            collection: collection.clone(),
            document,
            lineage: Lineage::default(),
            options: WriteOptions::default(),
        }
    }

    write_options!();

    lineage_options!();
}

impl Action for Create {
    type Output = Written;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Create))
    }

    async fn run(self) -> Result<Written> {
        let id = ItemId::new(self.collection.workers.index.env.random.object_id());
        let change = Change::Create { document: self.document.json()?, lineage: self.lineage };
        self.collection.submit(id, Request::Change(change), self.options).await
    }
}

awaitable!(Create);
