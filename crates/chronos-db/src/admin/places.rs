//! Which object storages and buckets a configuration names.

use std::collections::BTreeMap;

use crate::config::{Config, ObjectSpace, SpaceConnection};

/// What the folder of `localStorage` is called, which has no reference.
pub(super) const LOCAL: &str = "local";

/// An object storage that entries lead to, and their buckets in it.
#[derive(Clone, Debug)]
pub(super) struct StoragePlace {
    /// Its reference.
    pub(super) name: String,
    /// A space of it, by which its buckets are opened.
    pub(super) space: ObjectSpace,
    /// The buckets, each once.
    pub(super) buckets: Vec<String>,
}

impl StoragePlace {
    /// The connection; none for the folder of `localStorage`.
    pub(super) fn connection<'c>(&self, config: &'c Config) -> Option<&'c SpaceConnection> {
        self.space.connection.as_ref().and_then(|reference| config.spaces.get(reference))
    }

    /// What kind of storage it is.
    pub(super) fn kind(&self, config: &Config) -> &'static str {
        self.connection(config).map_or(LOCAL, |connection| connection.provider.name())
    }

    /// Where it is: the endpoint without credentials, or the folder.
    pub(super) fn endpoint(&self, config: &Config) -> String {
        match (self.connection(config), &config.local_storage) {
            (Some(connection), _) => connection.shown_endpoint(),
            (None, Some(folder)) => folder.display().to_string(),
            (None, None) => String::new(),
        }
    }
}

/// The storages in the order of their references.
pub(super) fn storages(config: &Config) -> Vec<StoragePlace> {
    let mut places: BTreeMap<String, StoragePlace> = BTreeMap::new();
    for space in config.entries.iter().filter_map(|entry| entry.objects.as_ref()) {
        let name = space.connection.clone().unwrap_or_else(|| LOCAL.to_owned());
        let place = places.entry(name.clone()).or_insert_with(|| StoragePlace {
            name,
            space: space.clone(),
            buckets: Vec::new(),
        });
        for bucket in [&space.buckets.json, &space.buckets.content, &space.buckets.backups] {
            if !place.buckets.contains(bucket) {
                place.buckets.push(bucket.clone());
            }
        }
    }
    places.into_values().collect()
}
