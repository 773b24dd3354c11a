//! The routing key: what version 1's hashing spreads by.

use super::Route;

/// `chooseKey`: parts separated by `|`, of which the first that the context has is the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Field(Field),
    CollectionAndObject,
    Unknown(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Tenant,
    Database,
    Collection,
    Object,
    Domain,
    DatabaseType,
    Tier,
    Key,
    ExtIdentifier,
}

impl KeyTemplate {
    pub(crate) fn parse(template: &str) -> Self {
        let parts = template.split('|').map(str::trim).filter(|part| !part.is_empty());
        Self { parts: parts.map(Part::parse).collect() }
    }

    /// The parts that name nothing.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Unknown(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The key of a context. Where no part applies it is the tenant, else the database, else
    /// `collection:objectId`.
    pub(crate) fn key(&self, route: &Route) -> String {
        let own = self.parts.iter().find_map(|part| part.value(route));
        let fallback = || {
            [Part::Field(Field::Tenant), Part::Field(Field::Database)]
                .iter()
                .find_map(|part| part.value(route))
        };
        own.or_else(fallback).unwrap_or_else(|| collection_and_object(route))
    }
}

impl Part {
    fn parse(text: &str) -> Self {
        if text == "collection:objectId" {
            return Self::CollectionAndObject;
        }
        // `x.f` is the field f of the context, whatever x is called.
        let (dotted, name) = text.split_once('.').map_or((false, text), |(_, field)| (true, field));
        let field = match name {
            "tenantId" => Field::Tenant,
            "dbName" => Field::Database,
            "collection" => Field::Collection,
            "objectId" => Field::Object,
            "domain" if dotted => Field::Domain,
            "databaseType" if dotted => Field::DatabaseType,
            "tier" if dotted => Field::Tier,
            "key" if dotted => Field::Key,
            "extIdentifier" if dotted => Field::ExtIdentifier,
            _ => return Self::Unknown(text.to_owned()),
        };
        Self::Field(field)
    }

    fn value(&self, route: &Route) -> Option<String> {
        let value = match self {
            Self::CollectionAndObject => Some(collection_and_object(route)),
            Self::Unknown(_) => None,
            Self::Field(field) => match field {
                Field::Tenant => route.tenant.clone(),
                Field::Database => route.database.clone(),
                Field::Collection => route.collection.clone(),
                Field::Object => route.object_id.clone(),
                Field::Domain => route.domain.clone(),
                Field::DatabaseType => {
                    route.database_type.map(|database_type| database_type.name().to_owned())
                }
                Field::Tier => route.tier.map(|tier| tier.name().to_owned()),
                Field::Key => route.key.clone(),
                Field::ExtIdentifier => route.ext_identifier.clone(),
            },
        };
        value.filter(|value| !value.is_empty())
    }
}

fn collection_and_object(route: &Route) -> String {
    format!(
        "{}:{}",
        route.collection.as_deref().unwrap_or_default(),
        route.object_id.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(template: &str, route: &Route) -> String {
        KeyTemplate::parse(template).key(route)
    }

    #[test]
    fn the_tenant_wins_over_the_database_over_collection_and_object() {
        let template = "tenantId|dbName|collection:objectId";
        let plain = Route::default().collection("users");
        assert_eq!(key(template, &plain.clone().database("shop").tenant("acme").object_id("1")), "acme");
        assert_eq!(key(template, &plain.clone().database("shop").object_id("1")), "shop");
        assert_eq!(key(template, &plain.clone().object_id("1")), "users:1");
        assert_eq!(key(template, &plain), "users:");
    }

    #[test]
    fn a_template_takes_its_first_part_that_applies() {
        let route = Route::default().collection("users").object_id("1").tenant("acme").domain("finance");
        assert_eq!(key("collection|objectId", &route), "users");
        assert_eq!(key("objectId|collection", &Route::default().collection("users")), "users");
        assert_eq!(key("ctx.domain|tenantId", &route), "finance");
        assert_eq!(key("nonsense|ctx.nonsense", &route), "acme");
        assert_eq!(key("nonsense", &Route::default().collection("users")), "users:");
    }

    #[test]
    fn parts_that_name_nothing_are_reported() {
        assert_eq!(
            KeyTemplate::parse("tenant|dbName|ctx.x").unknown().collect::<Vec<_>>(),
            ["tenant", "ctx.x"]
        );
    }
}
