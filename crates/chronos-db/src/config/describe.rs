//! What a configuration means, for people, without secrets.

use crate::clock::millis;
use crate::{Json, json};
use secrecy::ExposeSecret;
use url::Url;

use super::section::Unit;
use super::uri::{Engine, parse};
use super::{Config, Entry, Fallback, ObjectSpace, OneStore, Provider, SpaceConnection, WriteOptimization};

impl Config {
    /// The resolved configuration: every database with its engine, hosts and buckets, the settings, and the
    /// warnings. It holds no secret.
    #[must_use]
    pub fn describe(&self) -> Json {
        let entries: Vec<Json> = self.entries.iter().map(|entry| self.describe_entry(entry)).collect();
        let warnings: Vec<Json> =
            self.warnings.iter().map(|w| json!({ "path": w.path, "message": w.message })).collect();
        json!({
            "entries": entries,
            "counters": self.counters().map(|c| json!({ "connection": c.connection, "database": c.database })),
            "collections": self.collection_maps.keys().collect::<Vec<_>>(),
            "settings": {
                "routing": { "hashAlgo": self.routing.hash.name(), "chooseKey": self.routing.choose_key },
                "logicalDelete": self.logical_delete,
                "versioning": self.versioning,
                "updateMode": self.update_mode.name(),
                "hardDeleteEnabled": self.hard_delete_enabled(),
                "transactions": { "enabled": self.transactions.enabled, "autoDetect": self.transactions.auto_detect },
                "retention": { "days": self.retention.max_age.and_then(|age| Unit::Days.count(age)), "maxPerItem": self.retention.max_per_item },
                "rollup": { "enabled": self.rollup.enabled, "autoSchedule": self.rollup.auto_schedule, "manifestPeriod": self.rollup.period.name() },
                "devShadow": self.dev_shadow.map(|s| json!({ "ttlHours": Unit::Hours.count(s.ttl), "maxBytesPerDoc": s.max_bytes })),
                "fallback": self.fallback.as_ref().map(describe_fallback),
                "writeOptimization": describe_writes(&self.write_optimization),
                "inlineMaxBytes": self.inline_max_bytes,
                "timeoutMs": self.timeout.map(millis),
            },
            "sections": self.sections.keys().collect::<Vec<_>>(),
            "warnings": warnings,
        })
    }

    fn describe_entry(&self, entry: &Entry) -> Json {
        let mut described = json!({
            "path": entry.path,
            "type": entry.database_type.map(super::DatabaseType::name),
            "selector": entry.selector.to_string(),
            "key": entry.key,
            "database": entry.database,
            "analyticsDatabase": entry.analytics_database,
            "connection": entry.connection,
            "objects": entry.objects.as_ref().map(|space| self.describe_space(space)),
        });
        if self.keeps_inline(entry) {
            described["records"] = json!("inline, without versions");
        }
        // Only where it is so; and what may be so, only the stores can tell.
        for (key, wanted) in
            [("sharesDatabaseWith", OneStore::Yes), ("mayShareDatabaseWith", OneStore::Unknown)]
        {
            let others = self.entries.iter().filter(|other| {
                other.path != entry.path && entry.database.is_some() && other.database == entry.database
            });
            let paths: Vec<&str> = others
                .filter(|other| self.one_store(entry, other) == wanted)
                .map(|other| other.path.as_str())
                .collect();
            if !paths.is_empty() {
                described[key] = json!(paths);
            }
        }
        for (key, value) in self.describe_engine(&entry.connection).as_object().into_iter().flatten() {
            described[key.as_str()] = value.clone();
        }
        described
    }

    /// The engine of a document connection, with its hosts or its file.
    pub(crate) fn describe_engine(&self, connection: &str) -> Json {
        match self.connections.get(connection).and_then(|c| parse(c.uri.expose_secret()).ok()) {
            Some(Engine::MongoDb { hosts }) => json!({ "engine": "mongodb", "hosts": hosts }),
            Some(Engine::Embedded { path }) => {
                json!({ "engine": "embedded", "file": path.as_deref().unwrap_or(":memory:") })
            }
            // Only a configuration put together by hand can hold a string that was never checked.
            None => json!({ "engine": "unknown" }),
        }
    }

    fn describe_space(&self, space: &ObjectSpace) -> Json {
        let buckets = json!({ "json": space.buckets.json, "content": space.buckets.content, "backups": space.buckets.backups });
        match &space.connection {
            None => json!({ "provider": "local", "folder": self.local_storage, "buckets": buckets }),
            Some(reference) => {
                let connection = self.spaces.get(reference);
                json!({
                    "provider": connection.map(|c| c.provider.name()),
                    "connection": reference,
                    "endpoint": connection.map(SpaceConnection::shown_endpoint),
                    "region": connection.map(|c| &c.region),
                    "buckets": buckets,
                })
            }
        }
    }
}

fn describe_fallback(fallback: &Fallback) -> Json {
    json!({
        "maxAttempts": fallback.max_attempts,
        "baseDelayMs": Unit::Milliseconds.count(fallback.base_delay),
        "maxDelayMs": Unit::Milliseconds.count(fallback.max_delay),
        "deadLetterCollection": fallback.dead_letter_collection,
        "spoolPath": fallback.spool.as_ref().map(|path| path.display().to_string()),
    })
}

fn describe_writes(writes: &WriteOptimization) -> Json {
    json!({
        "batchWindowMs": Unit::Milliseconds.count(writes.batch_window),
        "batchSize": writes.batch_size,
        "compressionEnabled": writes.compression,
        "debounceCountersMs": Unit::Milliseconds.count(writes.counters_every),
        "allowShadowSkip": writes.skips_large_shadows,
    })
}

impl SpaceConnection {
    /// Where it is, without credentials: the host, or the folder.
    pub(crate) fn shown_endpoint(&self) -> String {
        match self.provider {
            Provider::Local | Provider::Memory => self.endpoint.clone(),
            Provider::S3 | Provider::Azure => Url::parse(&self.endpoint)
                .ok()
                .and_then(|url| {
                    url.host_str().map(|host| {
                        url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
                    })
                })
                .unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}
