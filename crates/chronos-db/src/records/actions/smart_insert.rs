//! Enriching the item with the same unique properties, or creating one.

use serde::Serialize;

use super::{Action, Given};
use crate::Result;
use crate::records::write::WriteOptions;
use crate::records::{Collection, ItemId, Lineage, Written};
use crate::telemetry::{Observed, Operation};

impl Collection {
    /// Enriches the live item whose properties `unique_keys` equal the document's, or creates it. Of
    /// concurrent calls one creates the item, the others enrich it. A [cross-tenant](crate::Route::cross_tenant)
    /// handle means an item of the tenant that the document says.
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
    /// let first = users.smart_insert(json!({"email": "ada@example.org", "tags": ["a"]}), &["email"]).await?;
    /// let second = users.smart_insert(json!({"email": "ada@example.org", "tags": ["b"]}), &["email"]).await?;
    /// assert!(first.created && !second.created && first.id == second.id);
    /// assert_eq!(users.get(&first.id).await?.unwrap().document()["tags"], json!(["a", "b"]));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if a key is missing in the document or cannot be held by the index, or if the document
    /// of a cross-tenant handle says no tenant; the others as [`update`](Self::update).
    pub fn smart_insert(&self, document: impl Serialize, unique_keys: &[&str]) -> SmartInsert {
        SmartInsert::new(self, Given::new(&document), unique_keys)
    }
}

/// Enriches or creates; see [`Collection::smart_insert`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct SmartInsert {
    collection: Collection,
    document: Given,
    keys: Vec<String>,
    lineage: Lineage,
    function_id: Option<String>,
    options: WriteOptions,
}

impl SmartInsert {
    pub(crate) fn new(collection: &Collection, document: Given, keys: &[&str]) -> Self {
        Self {
            collection: collection.clone(),
            document,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            lineage: Lineage::default(),
            function_id: None,
            options: WriteOptions::default(),
        }
    }

    write_options!();

    /// Names the function that computed the document.
    pub fn function_id(mut self, id: impl Into<String>) -> Self {
        self.function_id = Some(id.into());
        self
    }

    lineage_options!();
}

impl Action for SmartInsert {
    type Output = Written;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::SmartInsert))
    }

    async fn run(self) -> Result<Written> {
        let (workers, scope) = (&self.collection.workers, self.collection.scope().await?);
        let done = workers
            .writer
            .smart_insert(
                self.document.json()?,
                &self.keys,
                self.lineage,
                self.function_id,
                &self.options,
                scope,
            )
            .await;
        done.map_err(|e| e.during("smart insert").in_collection(self.collection.name()))
    }
}

awaitable!(SmartInsert);
