//! Which property of a record is an entity, and where that one is kept.

use crate::config::DatabaseType;
use crate::json::Map;
use crate::records::write::json_at;
use crate::{Error, Json, Result, Route, Tier};

/// One property of a record that is an entity: a record of its own, in a collection of its own, found by a
/// key.
///
/// ```
/// use chronos_db::{EntityMapping, Tier, config::DatabaseType};
///
/// let customer = EntityMapping::new("customer", "customers", "customerId");
/// let product = EntityMapping::new("product", "products", "productId")
///     .database_type(DatabaseType::Knowledge)
///     .tier(Tier::Generic);
/// # let _ = (customer, product);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityMapping {
    /// The property of the record; a path with dots leads into objects.
    pub(crate) property: String,
    collection: String,
    /// The property of the entity that names it; a path with dots leads into objects.
    pub(crate) key_property: String,
    database_type: Option<DatabaseType>,
    tier: Option<Tier>,
}

impl EntityMapping {
    /// Makes a mapping: the entity in `property` of a record is the item of `collection` that has the same value in
    /// `key_property`.
    #[must_use]
    pub fn new(
        property: impl Into<String>,
        collection: impl Into<String>,
        key_property: impl Into<String>,
    ) -> Self {
        Self {
            property: property.into(),
            collection: collection.into(),
            key_property: key_property.into(),
            database_type: None,
            tier: None,
        }
    }

    /// Names the kind of database that its collection is in; by default it is in the record's own database.
    #[must_use]
    pub fn database_type(mut self, database_type: DatabaseType) -> Self {
        self.database_type = Some(database_type);
        self
    }

    /// Names the tier that its collection is in; by default the record's own. Tenant and domain are those of the
    /// record's route.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Reads `{property, collection, keyProperty, databaseType?, tier?}`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` that says what is missing, wrong or not known.
    pub fn from_json(mapping: &Json) -> Result<Self> {
        let map = mapping.as_object().ok_or_else(|| {
            Error::validation("an entity mapping is an object {property, collection, keyProperty}")
        })?;
        let known = ["property", "collection", "keyProperty", "databaseType", "tier"];
        if let Some(other) = map.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Error::validation(format!(
                "an entity mapping has no `{}`; it has {}",
                other.escape_debug(),
                known.join(", ")
            )));
        }
        let text = |key: &str| match map.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) if !text.is_empty() => Ok(Some(text.as_str())),
            Some(_) => {
                Err(Error::validation(format!("`{key}` of an entity mapping is a text, and not empty")))
            }
        };
        let required = |key: &str| {
            text(key)?.ok_or_else(|| Error::validation(format!("an entity mapping needs `{key}`")))
        };
        let mut read = Self::new(required("property")?, required("collection")?, required("keyProperty")?);
        read.database_type = text("databaseType")?.map(str::parse).transpose()?;
        read.tier = text("tier")?.map(str::parse).transpose()?;
        Ok(read)
    }

    /// Where the entity is, as seen from its record.
    pub(crate) fn route(&self, record: &Route) -> Route {
        let mut route = Route { collection: Some(self.collection.clone()), ..record.clone() };
        // A part of the key by which version 1 spreads contexts, and the record's own; an entity is where all
        // records find it.
        route.object_id = None;
        if self.database_type.is_some() || self.tier.is_some() {
            // What named the record's own database does not name this one.
            (route.key, route.database, route.forced_index) = (None, None, None);
        }
        route.database_type = self.database_type.or(record.database_type);
        route.tier = self.tier.or(record.tier);
        route.cross_tenant &= self.database_type.is_none();
        route
    }

    /// The entity in a record.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn entity_in<'r>(&self, record: &'r Map) -> Result<&'r Map, &'static str> {
        let entity = match json_at(record, &self.property) {
            None => return Err("the record has no such property"),
            Some(found) => found.as_object().ok_or("it is not an object")?,
        };
        match json_at(entity, &self.key_property) {
            None | Some(Json::Null | Json::Bool(false)) => Err("it has no key"),
            Some(Json::String(key)) if key.is_empty() => Err("its key is empty"),
            Some(_) => Ok(entity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_mapping_that_is_misspelt_is_refused_by_name() {
        let whole = json!({"property": "customer", "collection": "customers", "keyProperty": "id", "tier": "generic"});
        let read = EntityMapping::from_json(&whole).unwrap();
        assert_eq!(read, EntityMapping::new("customer", "customers", "id").tier(Tier::Generic));
        for (wrong, named) in [
            (json!([]), "object"),
            (json!({"property": "a", "collection": "b"}), "keyProperty"),
            (json!({"property": "a", "collection": "b", "keyProperty": ""}), "keyProperty"),
            (
                json!({"property": "a", "collection": "b", "keyProperty": "k", "databasetype": "x"}),
                "databasetype",
            ),
            (json!({"property": "a", "collection": "b", "keyProperty": "k", "tier": "top"}), "top"),
            (
                json!({"property": "a", "collection": "b", "keyProperty": "k", "databaseType": "files"}),
                "files",
            ),
        ] {
            let error = EntityMapping::from_json(&wrong).unwrap_err();
            assert!(error.message().contains(named), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_entity_is_in_the_database_of_its_record_unless_the_mapping_names_another() {
        let record =
            Route { database: Some("shop".into()), ..Route::runtime() }.tenant("a").collection("orders");
        let plain = EntityMapping::new("c", "customers", "id");
        assert_eq!(plain.route(&record), record.clone().collection("customers"));
        let other = plain.database_type(DatabaseType::Metadata).tier(Tier::Tenant).route(&record);
        assert_eq!(other, Route::metadata().tier(Tier::Tenant).tenant("a").collection("customers"));
    }

    #[test]
    fn what_has_no_key_is_no_entity() {
        let mapping = EntityMapping::new("a.customer", "customers", "id");
        let is = |record: Json| mapping.entity_in(record.as_object().unwrap()).is_ok();
        assert!(is(json!({"a": {"customer": {"id": 0}}})) && is(json!({"a": {"customer": {"id": "x"}}})));
        for record in [
            json!({}),
            json!({"a": {"customer": "x"}}),
            json!({"a": {"customer": {}}}),
            json!({"a": {"customer": {"id": null}}}),
            json!({"a": {"customer": {"id": ""}}}),
        ] {
            assert!(!is(record.clone()), "{record}");
        }
    }
}
