//! Reading a record with its entities.

use std::time::Duration;

use super::Action;
use crate::json::Map;
use crate::records::entities::{EntityMapping, RecordWithEntities};
use crate::records::model::VersionSelector;
use crate::records::read::{ReadOptions, unless_erased};
use crate::records::{Collection, ItemId, View};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result};

impl Collection {
    /// Reads an item, and of each entity whose copy it carries the record as it is now; see
    /// [`insert_with_entities`](Self::insert_with_entities), with an example. Without the item, there are no
    /// entities either.
    ///
    /// # Errors
    /// As [`get`](Self::get), of the record or of an entity, whose collection the error names;
    /// `ROUTE_NOT_FOUND` if a mapping leads nowhere.
    pub fn get_with_entities(
        &self,
        id: &ItemId,
        entities: impl IntoIterator<Item = EntityMapping>,
    ) -> GetWithEntities {
        GetWithEntities {
            collection: self.clone(),
            id: *id,
            mappings: entities.into_iter().collect(),
            options: ReadOptions::default(),
        }
    }
}

/// Reads a record with its entities; see [`Collection::get_with_entities`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetWithEntities {
    collection: Collection,
    id: ItemId,
    mappings: Vec<EntityMapping>,
    options: ReadOptions,
}

impl GetWithEntities {
    /// Signs URLs for externalised properties of the record and its entities, good for `ttl` (1 s to 7 days).
    /// S3 and Azure can.
    pub fn presign(mut self, ttl: Duration) -> Self {
        self.options.presign = Some(ttl);
        self
    }
}

impl Action for GetWithEntities {
    type Output = RecordWithEntities;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::GetWithEntities))
    }

    async fn run(self) -> Result<RecordWithEntities> {
        let Self { collection, id, mappings, options } = self;
        let named =
            |error: Error| error.during("get with entities").in_collection(collection.name()).on_item(id);
        let mut get = collection.get(&id);
        if let Some(ttl) = options.presign {
            get = get.presign(ttl);
        }
        let record = get.await.map_err(named)?;
        let document = record.as_ref().and_then(|view| view.item.as_object());
        let entities = mappings.iter().map(|mapping| async {
            let found = match document {
                Some(document) => entity(&collection, document, mapping, &options).await?,
                None => None,
            };
            Ok::<_, Error>((mapping.property.clone(), found))
        });
        let entities =
            futures::future::try_join_all(entities).await.map_err(|e| e.during("get with entities"))?;
        Ok(RecordWithEntities { record, entities })
    }
}

/// The entity that a record names, as it is now.
async fn entity(
    collection: &Collection,
    record: &Map,
    mapping: &EntityMapping,
    options: &ReadOptions,
) -> Result<Option<View>> {
    let Ok(copy) = mapping.entity_in(record) else { return Ok(None) };
    let kept_in = collection.related(mapping)?;
    let (workers, scope) = (&kept_in.workers, kept_in.scope().await?);
    let named = |error: Error| error.in_collection(kept_in.name());
    // Of a handle for all tenants, that of the record's own.
    let scope = &workers.writer.scope_of_keys(record, scope).map_err(named)?;
    let unique =
        workers.writer.unique(copy, std::slice::from_ref(&mapping.key_property), scope).map_err(named)?;
    let Some(head) = workers.writer.live(&unique).await.map_err(named)? else { return Ok(None) };
    let found = workers.reader.find(head.id, VersionSelector::Latest, options, scope).await.map_err(named)?;
    match found {
        Some(found) => unless_erased(workers.reader.view(found, options).await).map_err(named),
        None => Ok(None),
    }
}

awaitable!(GetWithEntities);
