//! What actions on records with entities answer.

use crate::json::Map;
use crate::records::model::ItemId;
use crate::records::view::{View, Written};
use crate::{Json, json};

/// What became of one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntityOperation {
    /// There was none with this key.
    Created,
    /// It has a new version, with what the record says of it merged into it.
    Updated,
    /// It says already what the record says of it.
    Unchanged,
}

impl EntityOperation {
    /// Returns the word in JSON, such as `created`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }

    pub(crate) fn of(written: &Written) -> Self {
        match (written.created, written.changed) {
            (true, _) => Self::Created,
            (false, true) => Self::Updated,
            (false, false) => Self::Unchanged,
        }
    }
}

/// An entity that was inserted with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenEntity {
    /// The property of the record.
    pub property: String,
    /// The entity.
    pub id: ItemId,
    /// What became of it.
    pub operation: EntityOperation,
}

/// A property that should have been an entity, and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedEntity {
    /// The property of the record.
    pub property: String,
    /// Why.
    pub reason: &'static str,
}

/// A record that was inserted with its entities.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertedWithEntities {
    /// The record.
    pub record: Written,
    /// Its entities, in the order of the mappings.
    pub entities: Vec<WrittenEntity>,
    /// Mappings that found no entity in the record.
    pub skipped: Vec<SkippedEntity>,
    /// Whether all of it took place at once, or would not have at all. Otherwise it was written one after the
    /// other, the record last, and a failure would have left the entities that were created.
    pub atomic: bool,
}

impl InsertedWithEntities {
    /// Returns `{id, ov, cv, at, entities: {PROPERTY: {id, operation}}, skipped?: {PROPERTY: why}, atomic}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Written { id, ov, cv, at, .. } = &self.record;
        let entities = self.entities.iter().map(|WrittenEntity { property, id, operation }| {
            (property.clone(), json!({ "id": id.to_string(), "operation": operation.name() }))
        });
        let mut out = json!({
            "id": id.to_string(), "ov": ov, "cv": cv, "at": at.to_string(), "entities": Json::Object(entities.collect::<Map>()),
        });
        if !self.skipped.is_empty() {
            let skipped =
                self.skipped.iter().map(|skipped| (skipped.property.clone(), Json::from(skipped.reason)));
            out["skipped"] = Json::Object(skipped.collect::<Map>());
        }
        out["atomic"] = self.atomic.into();
        out
    }
}

/// A record with its entities as they are now.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordWithEntities {
    /// The record, with the copies it was inserted with; none if there is no such item.
    pub record: Option<View>,
    /// By property, in the order of the mappings: the entity; none if there is none any more, or the record
    /// names none there.
    pub entities: Vec<(String, Option<View>)>,
}

impl RecordWithEntities {
    /// Returns `{record, entities: {PROPERTY: entity}}`, each as [`View::to_json`] shows it, or null.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let shown = |view: &Option<View>| view.as_ref().map_or(Json::Null, View::to_json);
        let entities = self.entities.iter().map(|(property, view)| (property.clone(), shown(view)));
        json!({ "record": shown(&self.record), "entities": Json::Object(entities.collect::<Map>()) })
    }
}
