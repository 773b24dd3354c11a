//! Inserting a record with its entities.

use serde::Serialize;

use super::{Action, Given};
use crate::Result;
use crate::records::entities::{EntityMapping, InsertedWithEntities, Insertion, insert};
use crate::records::write::WriteOptions;
use crate::records::{Collection, ItemId, Lineage};
use crate::telemetry::{Observed, Operation};

/// Who is recorded as having made the change if the caller names none, and why.
const ACTOR: &str = "system";
const REASON: &str = "insertWithEntities";

impl Collection {
    /// Creates an item whose document carries copies of other records, and writes each of these to its own
    /// collection: it is created there, or, if there is one with its key, enriched with what the copy says
    /// (see [`merge`](crate::merge)), or left as it is if that changes nothing. The item keeps its copies.
    ///
    /// Concurrent calls with the same new entity make one. All of it takes place in one transaction where all
    /// is on one connection, whose store has transactions, and the configuration's `transactions` is not
    /// switched off; elsewhere one after the other. [`InsertedWithEntities::atomic`] says which it was. If
    /// something fails there, entities that were updated are restored by further versions; those that were
    /// created stay, as others may use them already, and the error names them. The same call again finds them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// use chronos_db::{Chronos, EntityMapping, EntityOperation, Route, config::Config, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// let orders = chronos.with(Route::runtime().tenant("default").collection("orders"))?;
    /// let mapping = [EntityMapping::new("customer", "customers", "customerId")];
    ///
    /// let order = json!({"orderId": "O-1", "customer": {"customerId": "C-1", "name": "Ada"}});
    /// let first = orders.insert_with_entities(order, mapping.clone()).actor("shop").await?;
    /// assert_eq!(first.entities[0].operation, EntityOperation::Created);
    ///
    /// let order = json!({"orderId": "O-2", "customer": {"customerId": "C-1", "plan": "gold"}});
    /// let second = orders.insert_with_entities(order, mapping.clone()).await?;
    /// assert_eq!(second.entities[0].operation, EntityOperation::Updated);
    ///
    /// let found = orders.get_with_entities(&second.record.id, mapping).await?;
    /// let customer = found.entities[0].1.as_ref().unwrap().document();
    /// assert_eq!(customer, json!({"customerId": "C-1", "name": "Ada", "plan": "gold"}));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create), of the record or of an entity, whose collection the error names: what is
    /// wrong is found before anything is written. `VALIDATION_ERROR` also if a
    /// [cross-tenant](crate::Route::cross_tenant) handle's record with entities says no tenant, or if
    /// `transactions.autoDetect` is off and one transaction cannot hold all; `OPTIMISTIC_LOCK` or `LOCKED` if
    /// other writers or the holder of a lock of an entity never stop; `ROUTE_NOT_FOUND` if a mapping leads
    /// nowhere.
    pub fn insert_with_entities(
        &self,
        document: impl Serialize,
        entities: impl IntoIterator<Item = EntityMapping>,
    ) -> InsertWithEntities {
        InsertWithEntities::new(self, Given::new(&document), entities.into_iter().collect())
    }
}

/// Inserts a record with its entities; see [`Collection::insert_with_entities`]. What it records holds for every version
/// it makes; by default the actor is `system`, the reason `insertWithEntities`.
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct InsertWithEntities {
    collection: Collection,
    document: Given,
    mappings: Vec<EntityMapping>,
    lineage: Lineage,
    options: WriteOptions,
}

impl InsertWithEntities {
    fn new(collection: &Collection, document: Given, mappings: Vec<EntityMapping>) -> Self {
        let options = WriteOptions {
            actor: Some(ACTOR.to_owned()),
            reason: Some(REASON.to_owned()),
            ..WriteOptions::default()
        };
        Self { collection: collection.clone(), document, mappings, lineage: Lineage::default(), options }
    }

    attribution_options!();
    lineage_options!();
}

impl Action for InsertWithEntities {
    type Output = InsertedWithEntities;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::InsertWithEntities))
    }

    async fn run(self) -> Result<InsertedWithEntities> {
        let Self { collection, document, mappings, lineage, options } = self;
        let name = collection.name().to_owned();
        let inserted = async {
            let document = document.json()?;
            insert(Insertion { collection, document, mappings, lineage, options }).await
        };
        inserted.await.map_err(|error| error.during("insert with entities").in_collection(&name))
    }
}

awaitable!(InsertWithEntities);
