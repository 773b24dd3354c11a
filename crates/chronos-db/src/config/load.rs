//! From files and texts to a [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::section::Section;
use super::{
    Config, DocumentConnection, Entry, HashAlgorithm, IN_MEMORY, Owner, Retention, Rollup, Routing, Selector,
    Transactions, UpdateMode, Warning, WriteOptimization, settings, uri, v1, v2,
};
use crate::{Error, Json, Result};

const DEFAULT_INLINE_BYTES: usize = 1024 * 1024;
pub(crate) const DEFAULT_CHOOSE_KEY: &str = "tenantId|dbName|collection:objectId";

/// The database of the counters of all entries that name none of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters<'c> {
    /// The reference of its document connection.
    pub connection: &'c str,
    /// Its name.
    pub database: &'c str,
}

/// Whether two connection strings lead to one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OneStore {
    Yes,
    No,
    /// They differ, and only the stores can tell.
    Unknown,
}

impl Config {
    /// Reads a configuration file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the file can't be read, or as [`Config::parse`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::validation(format!("the configuration file {} cannot be read: {error}", path.display()))
                .caused_by(error)
        })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a configuration of either shape from JSON text; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` whose message starts with the JSON path of what is wrong. No secret is ever in it.
    ///
    /// ```
    /// use chronos_db::config::Config;
    /// let text = r#"{
    ///     "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
    ///     "databases": {"runtime": {"tenantDatabases": [{"tenantId": "a", "dbConnRef": "hier", "dbName": "app"}]}}
    /// }"#;
    /// let error = Config::parse(text, "/etc/app".as_ref()).unwrap_err();
    /// assert!(error.message().starts_with("databases.runtime.tenantDatabases[0].dbConnRef: there is no connection `hier`"));
    /// ```
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        // Some editors begin files with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let document: Json = Json::parse(text)
            .map_err(|error| Error::validation(format!("the configuration is not JSON: {error}")))?;
        Self::from_json(&document, base)
    }

    /// Reads a configuration of either shape; see [`Config::parse`].
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn from_json(document: &Json, base: &Path) -> Result<Self> {
        let mut root = Section::new("", document)?;
        let has = |key: &str| document.get(key).is_some_and(|value| !value.is_null());
        let newer = has("dbConnections");
        let older = has("mongoUris") || has("databaseTypes") || has("spacesConns");
        let mut config = Self::blank();
        match (newer, older) {
            (true, true) => {
                return Err(
                    root.wrong("mongoUris", "stands beside `dbConnections`; use one of the two shapes")
                );
            }
            (false, false) if has("mongoConns") => {
                return Err(root.wrong(
                    "mongoConns",
                    "the shape of 1.5 is not supported; name the connections in `dbConnections`",
                ));
            }
            (false, false) => {
                return Err(root.wrong(
                    "dbConnections",
                    "is missing; a configuration has `dbConnections` and `databases`, or version 1's `mongoUris`",
                ));
            }
            (true, false) => {
                settings::read(&mut root, &mut config, base)?;
                v2::read(&mut root, &mut config, base)?;
            }
            (false, true) => {
                settings::read(&mut root, &mut config, base)?;
                v1::read(&mut root, &mut config, base)?;
            }
        }
        root.finish(&mut config.warnings);
        config.check_entries()?;
        let unknown = config.analytics.check(&config)?;
        config.warnings.extend(unknown);
        Ok(config)
    }

    /// The counters' own database, if the configuration has one.
    #[must_use]
    pub fn counters(&self) -> Option<Counters<'_>> {
        let section = self.sections.get("counters")?;
        Some(Counters {
            connection: section.get("dbConnRef")?.as_str()?,
            database: section.get("dbName")?.as_str()?,
        })
    }

    /// Whether `hardDeleteEnabled` allows erasing items for good; false unless it is set.
    #[must_use]
    pub fn hard_delete_enabled(&self) -> bool {
        self.sections.get("hardDeleteEnabled").and_then(Json::as_bool).unwrap_or(false)
    }

    pub(crate) fn blank() -> Self {
        Self {
            connections: BTreeMap::new(),
            spaces: BTreeMap::new(),
            entries: Vec::new(),
            local_storage: None,
            routing: Routing { hash: HashAlgorithm::Rendezvous, choose_key: DEFAULT_CHOOSE_KEY.to_owned() },
            collection_maps: BTreeMap::new(),
            dev_shadow: None,
            fallback: None,
            write_optimization: WriteOptimization::default(),
            retention: Retention::default(),
            rollup: Rollup::default(),
            logical_delete: true,
            versioning: true,
            update_mode: UpdateMode::Merge,
            transactions: Transactions::default(),
            inline_max_bytes: DEFAULT_INLINE_BYTES,
            timeout: None,
            sections: BTreeMap::new(),
            warnings: Vec::new(),
            analytics: Arc::default(),
        }
    }

    /// The reference of the connection to `uri`; a new one gets the reference `otherwise`.
    pub(super) fn connection_for(&mut self, uri: String, otherwise: &str) -> String {
        if let Some((reference, _)) = self.connections.iter().find(|(_, connection)| connection.is(&uri)) {
            return reference.clone();
        }
        let mut reference = otherwise.to_owned();
        while self.connections.contains_key(&reference) {
            reference.push('\'');
        }
        self.connections.insert(reference.clone(), DocumentConnection { uri: SecretString::from(uri) });
        reference
    }

    /// Checks what only the whole list of entries shows.
    pub(super) fn check_entries(&mut self) -> Result<()> {
        let mut warnings = Vec::new();
        for (position, entry) in self.entries.iter().enumerate() {
            for earlier in &self.entries[..position] {
                if entry.database_type.is_some()
                    && (entry.database_type, &entry.selector) == (earlier.database_type, &earlier.selector)
                {
                    return Err(super::section::wrong(
                        &entry.path,
                        format!("answers the same contexts as {}", earlier.path),
                    ));
                }
                // Whatever the tenant, a single database would answer.
                let single = |entry: &Entry| matches!(entry.selector, Selector::Single);
                if entry.database_type.is_some()
                    && entry.database_type == earlier.database_type
                    && single(entry) != single(earlier)
                {
                    return Err(super::section::wrong(
                        &entry.path,
                        format!(
                            "is never used, or hides {}: one of the two is for every tenant",
                            earlier.path
                        ),
                    ));
                }
                if entry.key.is_some() && entry.key == earlier.key {
                    return Err(super::section::wrong(
                        &format!("{}.key", entry.path),
                        format!("is also the key of {}", earlier.path),
                    ));
                }
                if entry.database.is_some()
                    && entry.database == earlier.database
                    && self.one_store(entry, earlier) == OneStore::Yes
                {
                    let apart = Owner::of(entry).is_apart_from(&Owner::of(earlier));
                    let meeting = if apart {
                        "documents carry their tenant, and each sees its own alone"
                    } else {
                        "what one writes, the other reads"
                    };
                    let message = format!("is also the database of {}: {meeting}", earlier.path);
                    warnings.push(Warning { path: format!("{}.dbName", entry.path), message });
                }
            }
        }
        self.warnings.append(&mut warnings);
        Ok(())
    }

    /// Whether the records of an entry are inline. Not where records with versions may be in the same database,
    /// as what is superseded there must not go.
    pub(crate) fn keeps_inline(&self, entry: &Entry) -> bool {
        let meets = |other: &Entry| {
            other.database.is_none() || entry.database.is_none() || other.database == entry.database
        };
        entry.asks_for_inline()
            && !self.entries.iter().any(|other| {
                !other.asks_for_inline() && meets(other) && self.one_store(entry, other) != OneStore::No
            })
    }

    /// Whether two entries lead to one store, as far as their connection strings tell.
    pub(crate) fn one_store(&self, one: &Entry, other: &Entry) -> OneStore {
        if one.connection == other.connection {
            return OneStore::Yes;
        }
        let uri = |entry: &Entry| self.connections.get(&entry.connection).map(|c| c.uri.expose_secret());
        let (Some(one), Some(other)) = (uri(one), uri(other)) else { return OneStore::No };
        if one == IN_MEMORY || other == IN_MEMORY {
            return OneStore::No;
        }
        if one == other {
            return OneStore::Yes;
        }
        match (uri::parse(one), uri::parse(other)) {
            (Ok(uri::Engine::MongoDb { .. }), Ok(uri::Engine::MongoDb { .. })) => {
                let sets = (uri::replica_set(one), uri::replica_set(other));
                if matches!(sets, (Some(a), Some(b)) if a != b) { OneStore::No } else { OneStore::Unknown }
            }
            (Ok(uri::Engine::Embedded { .. }), Ok(uri::Engine::Embedded { .. })) => OneStore::Unknown,
            _ => OneStore::No,
        }
    }
}

impl DocumentConnection {
    /// Where the store is, without credentials: the same for all who name it with the same hosts, or the same
    /// path, in whichever configuration.
    pub(crate) fn address(&self) -> String {
        let uri = self.uri.expose_secret();
        match uri::parse(uri) {
            Ok(uri::Engine::MongoDb { hosts }) => {
                let has_port =
                    |host: &str| host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
                let srv = uri.starts_with("mongodb+srv");
                let hosts = hosts.iter().map(|host| host.to_lowercase());
                let mut hosts: Vec<String> = hosts
                    .map(|host| if srv || has_port(&host) { host } else { format!("{host}:27017") })
                    .collect();
                hosts.sort();
                hosts.dedup();
                format!("{} {}", if srv { "srv" } else { "hosts" }, hosts.join(","))
            }
            Ok(uri::Engine::Embedded { path: Some(path) }) => {
                format!("path {}", real(path.as_ref()).display())
            }
            // Nobody else sees what is in memory.
            Ok(uri::Engine::Embedded { path: None }) | Err(_) => "memory".to_owned(),
        }
    }

    pub(super) fn is(&self, uri: &str) -> bool {
        self.uri.expose_secret() == uri
    }
}

/// A path without links. Of what does not exist yet, the folder around it tells where it will be.
fn real(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|there| {
        let rest = path.strip_prefix(there).ok()?;
        Some(there.canonicalize().ok()?.join(rest))
    });
    real.as_deref().unwrap_or(path).components().collect()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("connections", &self.connections)
            .field("spaces", &self.spaces)
            .field("entries", &self.entries)
            .field("local_storage", &self.local_storage)
            .field("routing", &self.routing)
            .field("collection_maps", &self.collection_maps)
            .field("dev_shadow", &self.dev_shadow)
            .field("retention", &self.retention)
            .field("rollup", &self.rollup)
            .field("logical_delete", &self.logical_delete)
            .field("versioning", &self.versioning)
            .field("update_mode", &self.update_mode)
            .field("transactions", &self.transactions)
            .field("inline_max_bytes", &self.inline_max_bytes)
            .field("write_optimization", &self.write_optimization)
            // Sections of others may hold connection strings.
            .field("sections", &self.sections.keys().collect::<Vec<_>>())
            .field("warnings", &self.warnings)
            .finish()
    }
}
