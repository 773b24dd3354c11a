//! From a context to the database and the buckets it means.

use std::sync::Arc;

use crate::Result;
use crate::config::{Config, DatabaseType, Entry};

/// The tier of a metadata or knowledge context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// For everybody.
    Generic,
    /// For one domain.
    Domain,
    /// For one tenant.
    Tenant,
}

/// A context: which database, and which collection in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The kind of database; needed on v2 configurations unless `key` is given.
    pub database_type: Option<DatabaseType>,
    /// The tier; default: that of the identifier that is given.
    pub tier: Option<Tier>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The domain.
    pub domain: Option<String>,
    /// v1: `key` of an entry.
    pub key: Option<String>,
    /// v1: `extIdentifier` of an entry.
    pub ext_identifier: Option<String>,
    /// v1: the database's name on the backend that the hash picks; elsewhere it must equal the configured one.
    pub database: Option<String>,
    /// v1: the backend by position.
    pub forced_index: Option<usize>,
    /// v1: a part of the routing key.
    pub object_id: Option<String>,
    /// The collection.
    pub collection: Option<String>,
}

/// What a route leads to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configured entry.
    pub entry: Arc<Entry>,
    /// The database's name.
    pub database: String,
    /// The checked collection name.
    pub collection: String,
    /// The tenant every document and query is forced to, on databases that several tenants share.
    pub enforced_tenant: Option<String>,
}

/// Resolves routes against one configuration.
#[derive(Clone, Debug)]
pub struct Router {
    entries: Vec<Arc<Entry>>,
}

impl Router {
    /// A router over the configuration's entries.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { entries: config.entries.iter().cloned().map(Arc::new).collect() }
    }

    /// Finds the entry of a context.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if no entry answers it, `VALIDATION_ERROR` for a bad name or a contradiction.
    pub fn resolve(&self, _route: &Route) -> Result<Resolved> {
        Err(crate::Error::new(crate::ErrorKind::RouteNotFound, "no entries").during("route"))
    }
}
