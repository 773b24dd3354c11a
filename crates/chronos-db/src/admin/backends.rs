//! What routes lead to.

use super::Admin;
use super::places::StoragePlace;
use crate::config::{DatabaseType, Entry};
use crate::{Backend, Json, Router, json};

/// A database that routes can lead to, and where it is.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct BackendInfo {
    /// Which one it is.
    pub backend: Backend,
    /// The engine, `mongodb` or `embedded`, and its hosts or its file.
    pub engine: Json,
    /// Its objects: the reference, provider and endpoint of their storage, and the buckets; none where payloads stay
    /// in the database.
    pub objects: Option<Json>,
}

crate::debug_some!(BackendInfo { backend });

impl BackendInfo {
    /// Returns `{index?, path, type, selector, key?, database, connection, engine, hosts|file, storage?, s3Endpoint?,
    /// buckets?}`. No secret is in it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Backend { index, path, database_type, selector, key, connection, database } = &self.backend;
        let mut json = json!({
            "index": index.map(|index| index as u64),
            "path": path,
            "type": database_type.map(DatabaseType::name),
            "selector": selector.to_string(),
            "key": key,
            "database": database,
            "connection": connection,
        });
        for more in [Some(&self.engine), self.objects.as_ref()].into_iter().flatten() {
            for (key, value) in more.as_object().into_iter().flatten() {
                json[key.as_str()] = value.clone();
            }
        }
        json
    }
}

impl Admin {
    /// Returns every database that routes can lead to, in the order of [`Router::list_backends`]. Does no I/O.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendInfo> {
        let config = self.chronos.config();
        let info = |backend: Backend| {
            let entry = config.entries.iter().find(|entry| entry.path == backend.path);
            let engine = config.describe_engine(&backend.connection);
            let objects = entry.and_then(|entry| self.objects_of(entry));
            BackendInfo { backend, engine, objects }
        };
        Router::new(config).list_backends().into_iter().map(info).collect()
    }

    fn objects_of(&self, entry: &Entry) -> Option<Json> {
        let config = self.chronos.config();
        let space = entry.objects.as_ref()?;
        let name = space.connection.clone().unwrap_or_else(|| super::places::LOCAL.to_owned());
        let place = StoragePlace { name, space: space.clone(), buckets: Vec::new() };
        Some(json!({
            "storage": place.name,
            "provider": place.kind(config),
            "s3Endpoint": place.endpoint(config),
            "buckets": { "json": space.buckets.json, "content": space.buckets.content, "backups": space.buckets.backups },
        }))
    }
}
