//! The shape of versions 2 and 3: named connections, databases by type and tier.

use std::path::Path;

use super::assemble::known;
use super::bucket_names::{BucketNames, SharedBuckets};
use super::database::Database;
use super::identifiers::{database, name};
use super::section::Section;
use super::uri::resolve_document_uri;
use super::{Config, DatabaseType, Selector, object_space};
use crate::Result;

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
        config.add_connection(&section.at("mongoUri"), reference.to_owned(), uri, base)?;
        section.finish(&mut config.warnings);
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
            known(&config.connections, reference).map_err(|message| section.wrong("dbConnRef", message))?;
            reference.to_owned()
        }
        (None, Some(uri)) => {
            let uri =
                resolve_document_uri(uri, base).map_err(|message| section.wrong("mongoUri", message))?;
            config.connection_for(uri, "counters")
        }
    };
    let database = database(&mut section, "dbName")?;
    section.finish(&mut config.warnings);
    config.set_counters(&reference, &database);
    Ok(())
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
                let domain = entry.required_text("domain")?.to_owned();
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
            let tenant = entry.required_text("tenantId")?.to_owned();
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
        let connection = section.required_text("dbConnRef")?;
        let name = section.required_text("dbName")?;
        let mut database = Database::new(database_type, selector, connection, name);
        database.space = section.text("spaceConnRef")?.map(str::to_owned);
        database.buckets = buckets(&mut section)?;
        ignore_versions_bucket(&mut section, "versionsBucket", self.config)?;
        database.analytics = section.text("analyticsDbName")?.map(str::to_owned);
        if database_type == DatabaseType::Messaging {
            database.capture_deliveries = section.flag("captureDeliveries")?.unwrap_or(capture);
        }
        self.config.add_database(section.path(), database, &self.shared)?;
        section.finish(&mut self.config.warnings);
        Ok(())
    }
}

/// The buckets that a database names itself.
fn buckets(section: &mut Section<'_>) -> Result<BucketNames> {
    let all = section.text("bucket")?.map(str::to_owned);
    // Checked here, where it is known by which of its two names it goes.
    let (records, json) = (bucket(section, "recordsBucket")?, bucket(section, "jsonBucket")?);
    let json = section.agreeing(("recordsBucket", records), ("jsonBucket", json))?;
    let mut text = |key| Ok(section.text(key)?.map(str::to_owned));
    Ok(BucketNames { all, json, content: text("contentBucket")?, backups: text("backupsBucket")? })
}
