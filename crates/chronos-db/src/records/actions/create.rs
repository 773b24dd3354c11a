//! Creating an item.

use serde::Serialize;

use super::{Action, Given};
use crate::Result;
use crate::records::write::{Change, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, Lineage, Written};

impl Collection {
    /// Creates an item from anything that is `Serialize`: a type of yours, `serde_json::json!`, a
    /// [`Json`](crate::Json) with exact numbers. A `_system` in the document is ignored.
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

    async fn run(self) -> Result<Written> {
        let workers = &self.collection.workers;
        let id = ItemId::new(workers.index.env.random.object_id());
        let change = Change::Create { document: self.document.json()?, lineage: self.lineage };
        let scope = self.collection.scope().await?;
        Ok(workers
            .writer
            .write(WriteCall { id, change: &change, options: &self.options, scope, lock: None })
            .await?
            .into())
    }
}

awaitable!(Create);
