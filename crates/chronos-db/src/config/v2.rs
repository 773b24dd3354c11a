//! The shape of versions 2 and 3: named connections, databases by type and tier.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;

use super::identifiers::{bucket_for, database, name};
use super::section::{Section, closest};
use super::uri::resolve_document_uri;
use super::{Buckets, Config, DatabaseType, DocumentConnection, Entry, ObjectSpace, Selector, object_space};
use crate::{Result, json};

/// Buckets that a spaces connection names for all its databases.
type SharedBuckets = BTreeMap<String, BucketNames>;

#[derive(Default)]
struct BucketNames {
    all: Option<String>,
    json: Option<String>,
    content: Option<String>,
    backups: Option<String>,
}

pub(super) fn read(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    connections(root, config, base)?;
    let shared = spaces(root, config, base)?;
    counters(root, config, base)?;
    let Some(databases) = root.section("databases")? else {
        return Err(root.wrong("databases", "is missing"));
    };
    let mut reader = Databases { config, shared };
    reader.read(databases)?;
    if reader.config.entries.is_empty() {
        return Err(root.wrong(
            "databases",
            "needs at least one of metadata, knowledge, runtime, logs, messaging, identities",
        ));
    }
    Ok(())
}

fn connections(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    for (reference, mut section) in root.members("dbConnections")? {
        let uri = section.required_text("mongoUri")?;
        let uri = resolve_document_uri(uri, base).map_err(|message| section.wrong("mongoUri", message))?;
        config.warnings.extend(super::uri::option_warnings(&uri, &section.at("mongoUri")));
        section.finish(&mut config.warnings);
        config.connections.insert(reference.to_owned(), DocumentConnection { uri: SecretString::from(uri) });
    }
    if config.connections.is_empty() {
        return Err(root.wrong("dbConnections", "needs at least one connection"));
    }
    Ok(())
}

fn spaces(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<SharedBuckets> {
    let mut shared = SharedBuckets::new();
    for (reference, mut section) in root.members("spacesConnections")? {
        let connection = object_space::read(&mut section, base, &mut config.warnings)?;
        let mut names = BucketNames { all: bucket(&mut section, "bucket")?, ..BucketNames::default() };
        if let Some(mut buckets) = section.section("buckets")? {
            names.json = bucket(&mut buckets, "records")?;
            names.content = bucket(&mut buckets, "content")?;
            names.backups = bucket(&mut buckets, "backups")?;
            if names.backups.is_some() {
                config.not_yet(buckets.at("backups"), "nothing is backed up");
            }
            ignore_versions_bucket(&mut buckets, "versions", config)?;
            buckets.finish(&mut config.warnings);
        }
        section.finish(&mut config.warnings);
        shared.insert(reference.to_owned(), names);
        config.spaces.insert(reference.to_owned(), connection);
    }
    Ok(shared)
}

fn counters(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    let Some(mut section) = root.section("counters")? else { return Ok(()) };
    let reference = match (section.text("dbConnRef")?, section.text("mongoUri")?) {
        (Some(_), Some(_)) => {
            return Err(section.wrong("mongoUri", "stands beside `dbConnRef`; one of them is enough"));
        }
        (None, None) => return Err(section.wrong("dbConnRef", "is missing or empty")),
        (Some(reference), None) => {
            known(&config.connections, reference).map_err(|message| section.wrong("dbConnRef", message))?
        }
        (None, Some(uri)) => {
            let uri =
                resolve_document_uri(uri, base).map_err(|message| section.wrong("mongoUri", message))?;
            config.connection_for(uri, "counters")
        }
    };
    let database = database(&mut section, "dbName")?;
    section.finish(&mut config.warnings);
    config.not_yet("counters", "nothing is counted");
    config.sections.insert("counters".to_owned(), json!({ "dbConnRef": reference, "dbName": database }));
    Ok(())
}

/// Checks that a reference leads somewhere.
fn known<T>(connections: &BTreeMap<String, T>, reference: &str) -> Result<String, String> {
    if connections.contains_key(reference) {
        return Ok(reference.to_owned());
    }
    let names: Vec<&str> = connections.keys().map(String::as_str).collect();
    let hint = closest(reference, &names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Err(format!("there is no connection `{reference}` (configured: {names}){hint}"))
}

fn bucket(section: &mut Section<'_>, key: &'static str) -> Result<Option<String>> {
    section.text(key)?.map(|text| name(&section.at(key), "bucket", text)).transpose()
}

fn ignore_versions_bucket(section: &mut Section<'_>, key: &'static str, config: &mut Config) -> Result<()> {
    if section.text(key)?.is_some() {
        config.warnings.push(section.warning(key, "has no effect: all versions lie in the records' bucket"));
    }
    Ok(())
}

struct Databases<'c> {
    config: &'c mut Config,
    shared: SharedBuckets,
}

impl Databases<'_> {
    fn read(&mut self, mut databases: Section<'_>) -> Result<()> {
        for (key, database_type) in
            [("metadata", DatabaseType::Metadata), ("knowledge", DatabaseType::Knowledge)]
        {
            let Some(mut section) = databases.section(key)? else { continue };
            if let Some(entry) = section.section("genericDatabase")? {
                self.entry(entry, database_type, Selector::Generic, false)?;
            }
            for mut entry in section.sections("domainsDatabases")? {
                let domain = entry.required_text("domain")?;
                let domain = name(&entry.at("domain"), "domain", domain)?;
                self.entry(entry, database_type, Selector::Domain(domain), false)?;
            }
            self.tenants(&mut section, database_type, false)?;
            section.finish(&mut self.config.warnings);
        }
        if let Some(mut section) = databases.section("runtime")? {
            self.tenants(&mut section, DatabaseType::Runtime, false)?;
            section.finish(&mut self.config.warnings);
        }
        if let Some(section) = databases.section("logs")? {
            self.entry(section, DatabaseType::Logs, Selector::Single, false)?;
        }
        if let Some(section) = databases.section("messaging")? {
            self.messaging(section)?;
        }
        if let Some(section) = databases.section("identities")? {
            self.entry(section, DatabaseType::Identities, Selector::Single, false)?;
        }
        databases.finish(&mut self.config.warnings);
        Ok(())
    }

    /// One database for all tenants, or one for each.
    fn messaging(&mut self, mut section: Section<'_>) -> Result<()> {
        if section.get("tenantDatabases").is_none() {
            return self.entry(section, DatabaseType::Messaging, Selector::Single, false);
        }
        for key in ["dbConnRef", "dbName"] {
            if section.text(key)?.is_some() {
                return Err(section.wrong(key, "stands beside `tenantDatabases`: messaging has either one database or one for each tenant"));
            }
        }
        let capture = section.flag("captureDeliveries")?.unwrap_or(false);
        self.tenants(&mut section, DatabaseType::Messaging, capture)?;
        section.finish(&mut self.config.warnings);
        Ok(())
    }

    fn tenants(
        &mut self,
        section: &mut Section<'_>,
        database_type: DatabaseType,
        capture: bool,
    ) -> Result<()> {
        for mut entry in section.sections("tenantDatabases")? {
            let tenant = entry.required_text("tenantId")?;
            let tenant = name(&entry.at("tenantId"), "tenant", tenant)?;
            self.entry(entry, database_type, Selector::Tenant(tenant), capture)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        mut section: Section<'_>,
        database_type: DatabaseType,
        selector: Selector,
        capture: bool,
    ) -> Result<()> {
        let reference = section.required_text("dbConnRef")?;
        let connection = known(&self.config.connections, reference)
            .map_err(|message| section.wrong("dbConnRef", message))?;
        let name = database(&mut section, "dbName")?;
        let objects = self.objects(&mut section, database_type, &name)?;
        let analytics_database = section
            .text("analyticsDbName")?
            .map(|_| database(&mut section, "analyticsDbName"))
            .transpose()?;
        if analytics_database.is_some() {
            self.config.not_yet(section.at("analyticsDbName"), "nothing is counted");
        }
        let capture_deliveries = match database_type {
            DatabaseType::Messaging => section.flag("captureDeliveries")?.unwrap_or(capture),
            _ => false,
        };
        let path = section.path().to_owned();
        section.finish(&mut self.config.warnings);
        self.config.entries.push(Entry {
            path,
            database_type: Some(database_type),
            selector,
            key: None,
            connection,
            database: Some(name),
            objects,
            analytics_database,
            capture_deliveries,
            backend_id: None,
        });
        Ok(())
    }

    fn objects(
        &mut self,
        section: &mut Section<'_>,
        database_type: DatabaseType,
        database: &str,
    ) -> Result<Option<ObjectSpace>> {
        let reference = section.text("spaceConnRef")?;
        let all = bucket(section, "bucket")?;
        let (records, json) = (bucket(section, "recordsBucket")?, bucket(section, "jsonBucket")?);
        let json = section.agreeing(("recordsBucket", records), ("jsonBucket", json))?;
        let (content, backups) = (bucket(section, "contentBucket")?, bucket(section, "backupsBucket")?);
        ignore_versions_bucket(section, "versionsBucket", self.config)?;
        let named = all.is_some() || json.is_some() || content.is_some() || backups.is_some();
        if backups.is_some() {
            self.config.not_yet(section.at("backupsBucket"), "nothing is backed up");
        }

        let connection = if self.config.local_storage.is_some() {
            // Messaging and identities are document databases; they keep objects only where the configuration
            // asks for it.
            let documents_only = matches!(database_type, DatabaseType::Messaging | DatabaseType::Identities);
            if documents_only && reference.is_none() && !named {
                return Ok(None);
            }
            if reference.is_some() {
                self.config.warnings.push(section.warning(
                    "spaceConnRef",
                    "has no effect: `localStorage` is enabled and takes all objects",
                ));
            }
            None
        } else if let Some(reference) = reference {
            Some(
                known(&self.config.spaces, reference)
                    .map_err(|message| section.wrong("spaceConnRef", message))?,
            )
        } else {
            if named {
                self.config.warnings.push(section.warning(
                    "bucket",
                    "has no effect without `spaceConnRef`: payloads stay in the database",
                ));
            }
            return Ok(None);
        };

        let unnamed = BucketNames::default();
        let shared = connection.as_ref().and_then(|reference| self.shared.get(reference)).unwrap_or(&unnamed);
        let pick = |own: Option<String>, theirs: &Option<String>| {
            own.or_else(|| all.clone())
                .or_else(|| theirs.clone())
                .or_else(|| shared.all.clone())
                .unwrap_or_else(|| bucket_for(database))
        };
        let buckets = Buckets {
            json: pick(json, &shared.json),
            content: pick(content, &shared.content),
            backups: pick(backups, &shared.backups),
        };
        Ok(Some(ObjectSpace { connection, buckets }))
    }
}
