//! The collections that a [`Chronos`](crate::Chronos) has open.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{ObjectSpace, closest};
use crate::records::{Names, Workers};

/// One collection: where its documents are, where its objects go, and whether all tenants share it by design.
pub(crate) type CollectionKey = (String, String, String, Option<ObjectSpace>, bool);

/// Collections that are kept open while nobody uses them.
pub(crate) const MAX_IDLE: usize = 1_024;

/// The collections that are open. Names may come without end, so those that nobody uses go when there are
/// many.
#[derive(Default)]
pub(crate) struct OpenCollections {
    pub(crate) by_key: HashMap<CollectionKey, Arc<Workers>>,
    /// When there are this many, it is time to look again which are in use.
    sweep_at: usize,
}

impl OpenCollections {
    pub(crate) fn add(&mut self, key: CollectionKey, workers: Arc<Workers>) {
        if self.by_key.len() >= self.sweep_at.max(MAX_IDLE) {
            self.by_key.retain(|_, workers| !workers.is_idle());
            self.sweep_at = self.by_key.len() * 2;
        }
        self.by_key.insert(key, workers);
    }
}

/// How many names an error suggests.
const NEAREST: usize = 3;

/// The names that are nearest to this one, which may be misspelt, in quotes.
pub(crate) fn nearest(name: &str, known: &[String]) -> Vec<String> {
    let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut nearest = Vec::new();
    while let Some(near) = closest(name, &names).filter(|_| nearest.len() < NEAREST) {
        names.retain(|name| *name != near);
        nearest.push(format!("`{near}`"));
    }
    nearest
}

/// Versions of one collection that were not stored when a [`Chronos`](crate::Chronos) was shut down. They are committed, and
/// safe in the version index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftBehind {
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// How many.
    pub versions: u64,
}

impl LeftBehind {
    pub(crate) fn new(names: &Names, versions: u64) -> Self {
        Self { database: names.head.database.to_string(), collection: names.collection.clone(), versions }
    }
}
