//! Where counters and analytics of an entry are kept: its `analyticsDbName`, else the configuration's `counters`, else the
//! database of the data itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::config::{AnalyticsRules, Config, Selector};
use crate::connections::Connections;
use crate::documents::{DocumentStore, Namespace};
use crate::{Resolved, Result};

/// One database of counters.
pub(crate) struct AnalyticsDb {
    connections: Arc<Connections>,
    connection: String,
    database: String,
    /// Its indexes are there.
    pub(crate) ready: OnceCell<()>,
    /// The indexes of analytics results are there.
    pub(crate) results_ready: OnceCell<()>,
}

impl fmt::Debug for AnalyticsDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnalyticsDb")
            .field("connection", &self.connection)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl AnalyticsDb {
    /// The store it is in. No I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if this build has no backend for it.
    pub(crate) fn documents(&self) -> Result<Arc<dyn DocumentStore>> {
        self.connections.open(&self.connection)
    }

    pub(crate) fn namespace(&self, collection: &str) -> Namespace {
        Namespace::new(self.database.as_str(), collection)
    }
}

/// The databases of counters that are in use.
#[derive(Debug, Default)]
pub(crate) struct AnalyticsDbs(Mutex<HashMap<(String, String), Arc<AnalyticsDb>>>);

impl AnalyticsDbs {
    /// That of what a route leads to.
    pub(crate) fn of(
        &self,
        config: &Config,
        resolved: &Resolved,
        connections: &Arc<Connections>,
    ) -> Analytics {
        let entry = &resolved.entry;
        let (connection, database) = home(config, resolved);
        let mut open = self.0.lock();
        let db = open.entry((connection.to_owned(), database.to_owned())).or_insert_with(|| {
            Arc::new(AnalyticsDb {
                connections: Arc::clone(connections),
                connection: connection.to_owned(),
                database: database.to_owned(),
                ready: OnceCell::new(),
                results_ready: OnceCell::new(),
            })
        });
        let backend = match (&entry.selector, &entry.backend_id) {
            (Selector::Hashed(_), Some(id)) => Some(short_digest(id.expose_secret().as_bytes())),
            _ => None,
        };
        let records = entry.connection.as_str().into();
        Analytics { records, db: Arc::clone(db), backend, rules: Arc::clone(&config.analytics) }
    }
}

/// The connection and the database of the counters of what a route leads to.
fn home<'r>(config: &'r Config, resolved: &'r Resolved) -> (&'r str, &'r str) {
    let entry = &resolved.entry;
    match (&entry.analytics_database, config.counters()) {
        (Some(own), _) => (entry.connection.as_str(), own.as_str()),
        (None, Some(counters)) => (counters.connection, counters.database),
        (None, None) => (entry.connection.as_str(), resolved.database.as_str()),
    }
}

/// A short text that tells where the counters and the objects of what a route leads to are kept. Entries that
/// see the same documents may keep either elsewhere.
pub(crate) fn homes(config: &Config, resolved: &Resolved) -> String {
    let entry = &resolved.entry;
    let (connection, database) = home(config, resolved);
    // Two configurations may call one connection differently.
    let elsewhere = if connection == entry.connection { "" } else { connection };
    let mut homes = vec![elsewhere, database];
    if let Some(space) = &entry.objects {
        let connection = space.connection.as_deref().unwrap_or_default();
        homes.extend([connection, &space.buckets.json, &space.buckets.content]);
    }
    short_digest(homes.join("\0").as_bytes())
}

/// Where the counters and analytics of one collection are kept.
#[derive(Clone, Debug)]
pub(crate) struct Analytics {
    /// The connection of the records.
    pub(crate) records: Arc<str>,
    pub(crate) db: Arc<AnalyticsDb>,
    /// Which of version 1's backends counts here: several of them may have a database of one name.
    pub(crate) backend: Option<String>,
    /// The analytics rules of the configuration.
    pub(crate) rules: Arc<AnalyticsRules>,
}

impl Analytics {
    /// What tells the place of results from others, for records of this database.
    pub(crate) fn place_of_results(&self, records: &str) -> String {
        let AnalyticsDb { connections, connection, database, .. } = &*self.db;
        let is_same = **connection == *self.records;
        if is_same && database == records {
            return "here".to_owned();
        }
        // Two configurations may call one connection differently, and two of them alike.
        let address = if is_same { None } else { connections.address(connection) };
        short_digest(format!("{}\0{database}", address.unwrap_or_default()).as_bytes())
    }
}

/// Twelve hex digits that tell texts apart.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..6])
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
