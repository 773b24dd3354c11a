//! Where a document is.

use std::fmt;
use std::sync::Arc;

/// A collection of one database.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    /// The database.
    pub database: Arc<str>,
    /// The collection.
    pub collection: Arc<str>,
}

impl Namespace {
    /// Names the collection `collection` of `database`.
    pub fn new(database: impl Into<Arc<str>>, collection: impl Into<Arc<str>>) -> Self {
        Self { database: database.into(), collection: collection.into() }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}
