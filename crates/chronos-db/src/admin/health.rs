//! Whether everything that a configuration names answers.

use std::time::Duration;

use futures::future::{join, join_all};
use secrecy::ExposeSecret as _;

use super::Admin;
use super::ping::{Ping, TIMEOUT};
use super::places::{StoragePlace, storages};
use crate::action::Action;
use crate::config::{DatabaseType, Entry};
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Json, Result, Timestamp, json};

impl Admin {
    /// Asks every document connection for its time and every object storage for one of its buckets, all side by
    /// side. What does not answer is in the report, and no error.
    pub fn health(&self) -> CheckHealth {
        CheckHealth { chronos: self.chronos.clone(), timeout: TIMEOUT }
    }
}

/// Asks whether everything answers; see [`Admin::health`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct CheckHealth {
    chronos: Chronos,
    timeout: Duration,
}

impl CheckHealth {
    /// Waits this long for each answer (default 5 s).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// Whether everything that a configuration names answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// When it was asked, by this process's clock.
    pub at: Timestamp,
    /// The databases that routes lead to.
    pub databases: Vec<DatabaseHealth>,
    /// The document connections.
    pub connections: Vec<Ping>,
    /// The object storages that databases lead to.
    pub storages: Vec<Ping>,
    /// The document connection of the counters' own database, if there is one.
    pub counters: Option<Ping>,
}

/// Whether what a database needs answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseHealth {
    /// Its JSON path in the configuration.
    pub path: String,
    /// Its type; none for version 1's hashed backends.
    pub database_type: Option<DatabaseType>,
    /// Which contexts it answers.
    pub selector: String,
    /// Its name; none where contexts name it.
    pub database: Option<String>,
    /// The reference of its document connection.
    pub connection: String,
    /// The reference of its object storage, if it has one.
    pub storage: Option<String>,
    /// Whether both answer.
    pub ok: bool,
}

impl Health {
    /// Returns whether everything answers.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.connections.iter().chain(&self.storages).all(Ping::is_ok)
    }

    /// Returns `{ok, timestamp, databaseTypes, databases, mongoBackends, s3Backends, countersDb}`. Every type of
    /// database is named, with how many are configured and whether they answer. No secret is in it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut types = json!({});
        for database_type in DatabaseType::ALL {
            let of: Vec<&DatabaseHealth> = self
                .databases
                .iter()
                .filter(|database| database.database_type == Some(database_type))
                .collect();
            let ok = (!of.is_empty()).then(|| of.iter().all(|database| database.ok));
            types[database_type.name()] = json!({ "configured": of.len() as u64, "ok": ok });
        }
        let pings = |pings: &[Ping]| -> Vec<Json> {
            let numbered = pings.iter().enumerate().map(|(index, ping)| {
                let mut json = ping.to_json();
                json["index"] = (index as u64).into();
                json
            });
            numbered.collect()
        };
        json!({
            "ok": self.is_ok(),
            "timestamp": self.at.to_string(),
            "databaseTypes": types,
            "databases": self.databases.iter().map(DatabaseHealth::to_json).collect::<Vec<_>>(),
            "mongoBackends": pings(&self.connections),
            "s3Backends": pings(&self.storages),
            "countersDb": self.counters.as_ref().map(Ping::to_json),
        })
    }
}

impl DatabaseHealth {
    fn new(entry: &Entry, connections: &[Ping], storages: &[Ping]) -> Self {
        let answers = |pings: &[Ping], name: &str| pings.iter().any(|ping| ping.name == name && ping.is_ok());
        let storage = entry.objects.as_ref();
        let storage =
            storage.map(|space| space.connection.clone().unwrap_or_else(|| super::places::LOCAL.to_owned()));
        Self {
            path: entry.path.clone(),
            database_type: entry.database_type,
            selector: entry.selector.to_string(),
            database: entry.database.clone(),
            connection: entry.connection.clone(),
            ok: answers(connections, &entry.connection)
                && storage.as_ref().is_none_or(|storage| answers(storages, storage)),
            storage,
        }
    }

    fn to_json(&self) -> Json {
        json!({
            "path": self.path,
            "type": self.database_type.map(DatabaseType::name),
            "selector": self.selector,
            "database": self.database,
            "connection": self.connection,
            "storage": self.storage,
            "ok": self.ok,
        })
    }
}

impl Action for CheckHealth {
    type Output = Health;

    fn observed(&self) -> Option<Observed> {
        Some(self.chronos.observed(Operation::Health))
    }

    async fn run(self) -> Result<Health> {
        let Self { chronos, timeout } = self;
        let config = chronos.config();
        let at = chronos.env().clock.now();
        let connections = config.connections.iter().map(|(name, connection)| {
            let kind =
                if connection.uri.expose_secret().starts_with("embedded:") { "embedded" } else { "mongodb" };
            Ping::of(name, kind, timeout, ask_connection(&chronos, name))
        });
        let places = storages(config);
        let asked = places
            .iter()
            .map(|place| Ping::of(&place.name, place.kind(config), timeout, ask_storage(&chronos, place)));
        let (connections, storages) = join(join_all(connections), join_all(asked)).await;
        let databases =
            config.entries.iter().map(|entry| DatabaseHealth::new(entry, &connections, &storages));
        let counters = config
            .counters()
            .and_then(|counters| connections.iter().find(|ping| ping.name == counters.connection).cloned());
        Ok(Health { at, databases: databases.collect(), counters, connections, storages })
    }
}

awaitable!(CheckHealth);

async fn ask_connection(chronos: &Chronos, name: &str) -> Result<()> {
    chronos.documents(name)?.now().await.map(drop)
}

/// Any of its buckets will do: what is asked is whether the storage answers these credentials.
async fn ask_storage(chronos: &Chronos, place: &StoragePlace) -> Result<()> {
    match place.buckets.first() {
        Some(bucket) => chronos.objects(&place.space, bucket)?.bucket_exists().await.map(drop),
        None => Ok(()),
    }
}
