//! The rules of connections, databases and buckets, for configurations that are read and that are built.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::bucket_names::{BucketNames, SharedBuckets};
use super::database::Database;
use super::identifiers::{bucket_for, check_database, name};
use super::section::{closest, wrong};
use super::uri::{option_warnings, resolve_document_uri};
use super::{Buckets, Config, DatabaseType, DocumentConnection, Entry, ObjectSpace, Selector, Warning};
use crate::{Result, json};

/// Checks that a reference leads somewhere.
pub(super) fn known<'c, T>(connections: &'c BTreeMap<String, T>, reference: &str) -> Result<&'c T, String> {
    if let Some(connection) = connections.get(reference) {
        return Ok(connection);
    }
    let names: Vec<&str> = connections.keys().map(String::as_str).collect();
    let hint = closest(reference, &names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(format!("there is no connection `{reference}` (configured: {names}){hint}"))
}

impl Config {
    /// Adds the document connection whose string stands at `path`.
    pub(super) fn add_connection(
        &mut self,
        path: &str,
        reference: String,
        uri: &str,
        base: &Path,
    ) -> Result<()> {
        let uri = resolve_document_uri(uri.trim(), base).map_err(|message| wrong(path, message))?;
        self.warnings.extend(option_warnings(&uri, path));
        self.connections.insert(reference, DocumentConnection { uri: SecretString::from(uri) });
        Ok(())
    }

    /// The counters of all databases that name none of their own.
    pub(super) fn set_counters(&mut self, reference: &str, database: &str) {
        let counters = json!({ "dbConnRef": reference, "dbName": database });
        self.sections.insert("counters".to_owned(), counters);
    }

    /// Adds a database of documents that stands at `path`.
    pub(super) fn add_database(
        &mut self,
        path: &str,
        mut database: Database,
        shared: &SharedBuckets,
    ) -> Result<()> {
        let at = |key: &str| format!("{path}.{key}");
        match &database.selector {
            Selector::Tenant(tenant) => drop(name(&at("tenantId"), "tenant", tenant)?),
            Selector::Domain(domain) => drop(name(&at("domain"), "domain", domain)?),
            Selector::Generic | Selector::Single | Selector::Hashed(_) => {}
        }
        known(&self.connections, &database.connection).map_err(|message| wrong(&at("dbConnRef"), message))?;
        let named = database.name.as_deref().unwrap_or_default();
        check_database(named).map_err(|error| wrong(&at("dbName"), error.message()))?;
        database.buckets.check(path)?;
        let objects = self.place_objects(path, &database, named, shared)?;
        check_analytics(path, &database)?;
        let messaging = database.database_type == Some(DatabaseType::Messaging);
        if database.capture_deliveries && !messaging {
            self.warn(at("captureDeliveries"), "has no effect: only messaging has deliveries");
        }
        database.capture_deliveries &= messaging;
        self.enter(path, database, objects);
        Ok(())
    }

    /// Adds a checked database whose objects lie there.
    pub(super) fn enter(&mut self, path: &str, database: Database, objects: Option<ObjectSpace>) {
        self.entries.push(Entry {
            path: path.to_owned(),
            database_type: database.database_type,
            selector: database.selector,
            key: database.key,
            connection: database.connection,
            database: database.name,
            objects,
            analytics_database: database.analytics,
            capture_deliveries: database.capture_deliveries,
            backend_id: None,
        });
    }

    /// Adds one of version 1's hashed backends, whose connection string was written like this.
    pub(super) fn add_backend(
        &mut self,
        path: &str,
        database: Database,
        written: &SecretString,
    ) -> Result<()> {
        let at = |key: &str| format!("{path}.{key}");
        database.buckets.check(path)?;
        let buckets = |prefix| database.buckets.resolve(&BucketNames::default(), &Buckets::version_1(prefix));
        let (objects, storage) = match (&self.local_storage, &database.space) {
            (Some(_), _) => (Some(ObjectSpace::new(None, buckets(""))), "localhost|local".to_owned()),
            (None, None) => (None, "none|none".to_owned()),
            (None, Some(reference)) => {
                let connection =
                    known(&self.spaces, reference).map_err(|message| wrong(&at("spaceConnRef"), message))?;
                let buckets = buckets("chronos-");
                let storage = format!("{}|{}", connection.endpoint, buckets.json);
                (Some(ObjectSpace::new(Some(reference.clone()), buckets)), storage)
            }
        };
        known(&self.connections, &database.connection).map_err(|message| wrong(&at("dbConnRef"), message))?;
        check_analytics(path, &database)?;
        self.enter(path, database, objects);
        if let Some(entry) = self.entries.last_mut() {
            let identity = format!("{}|{storage}", written.expose_secret());
            entry.backend_id = Some(SecretString::from(identity));
        }
        Ok(())
    }

    /// Where the objects of a database of documents lie.
    fn place_objects(
        &mut self,
        path: &str,
        database: &Database,
        named: &str,
        shared: &SharedBuckets,
    ) -> Result<Option<ObjectSpace>> {
        let at = |key: &str| format!("{path}.{key}");
        let Database { space, buckets, .. } = database;
        let connection = if self.local_storage.is_some() {
            // Messaging and identities are document databases; they keep objects only where the configuration
            // asks for it.
            let documents_only =
                matches!(database.database_type, Some(DatabaseType::Messaging | DatabaseType::Identities));
            if documents_only && space.is_none() && buckets.is_empty() {
                return Ok(None);
            }
            if space.is_some() {
                self.warn(
                    at("spaceConnRef"),
                    "has no effect: `localStorage` is enabled and takes all objects",
                );
            }
            None
        } else if let Some(reference) = space {
            known(&self.spaces, reference).map_err(|message| wrong(&at("spaceConnRef"), message))?;
            Some(reference.clone())
        } else {
            if !buckets.is_empty() {
                let message = "has no effect without `spaceConnRef`: payloads stay in the database";
                self.warn(at("bucket"), message);
            }
            return Ok(None);
        };
        let unnamed = BucketNames::default();
        let shared = connection.as_ref().and_then(|reference| shared.get(reference)).unwrap_or(&unnamed);
        let buckets = buckets.resolve(shared, &Buckets::one(bucket_for(named)));
        Ok(Some(ObjectSpace { connection, buckets }))
    }

    fn warn(&mut self, path: String, message: &str) {
        self.warnings.push(Warning { path, message: message.to_owned() });
    }
}

fn check_analytics(path: &str, database: &Database) -> Result<()> {
    let Some(name) = &database.analytics else { return Ok(()) };
    let at = format!("{path}.analyticsDbName");
    check_database(name).map(drop).map_err(|error| wrong(&at, error.message()))
}
