//! The shape of version 1: parallel lists of databases and storages, and `databaseTypes` on top.

use std::path::Path;

use secrecy::SecretString;

use super::bucket_names::BucketNames;
use super::identifiers::{database, name};
use super::section::{Section, wrong};
use super::uri::resolve_document_uri;
use super::{Buckets, Config, DatabaseType, Entry, ObjectSpace, Selector, Warning, object_space};
use crate::Result;

const MAX_URIS: usize = 10;

/// Makes the selector of a tier out of a name.
type Named = fn(String) -> Selector;

/// A storage as version 1 knows it: where, which buckets, and how it reads in a backend's identity.
#[derive(Clone)]
struct Storage {
    objects: Option<ObjectSpace>,
    identity: String,
}

pub(super) fn read(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    let uris = uris(root, config, base)?;
    let storages = storages(root, config, base, uris.len())?;
    let counters = counters(root, config, base)?;
    for (index, (path, written)) in uris.iter().enumerate() {
        let Storage { objects, identity } = storages[index % storages.len()].clone();
        config.entries.push(Entry {
            path: path.clone(),
            database_type: None,
            selector: Selector::Hashed(index),
            key: None,
            connection: path.clone(),
            database: None,
            objects,
            analytics_database: counters
                .as_ref()
                .filter(|(reference, _)| reference == path)
                .map(|(_, database)| database.clone()),
            capture_deliveries: false,
            backend_id: Some(SecretString::from(format!("{written}|{identity}"))),
        });
    }
    database_types(root, config, base, &storages, counters.as_ref())
}

/// The connection strings as they were written, with their paths, which are also the references of their
/// connections.
fn uris<'a>(root: &mut Section<'a>, config: &mut Config, base: &Path) -> Result<Vec<(String, &'a str)>> {
    let uris = root.texts("mongoUris")?;
    if uris.is_empty() {
        return Err(root.wrong("mongoUris", "At least one MongoDB URI is required"));
    }
    check_count(uris.len())?;
    for (path, uri) in &uris {
        config.add_connection(path, path.clone(), uri, base)?;
    }
    Ok(uris)
}

/// Checks that there are not too many backends.
pub(super) fn check_count(backends: usize) -> Result<()> {
    if backends > MAX_URIS {
        let message = format!("Maximum {MAX_URIS} MongoDB URIs allowed, found {backends}");
        return Err(wrong("mongoUris", message));
    }
    Ok(())
}

/// One storage for all databases, or one for each.
fn storages(
    root: &mut Section<'_>,
    config: &mut Config,
    base: &Path,
    databases: usize,
) -> Result<Vec<Storage>> {
    let mut storages = Vec::new();
    for mut section in root.sections("spacesConns")? {
        let connection = object_space::read(&mut section, base, &mut config.warnings)?;
        let all = bucket(&mut section, "bucket")?;
        let names = BucketNames {
            json: bucket(&mut section, "jsonBucket")?,
            content: bucket(&mut section, "contentBucket")?,
            backups: bucket(&mut section, "backupsBucket")?,
            all,
        };
        let buckets = names.resolve(&BucketNames::default(), &Buckets::version_1("chronos-"));
        let reference = section.path().to_owned();
        section.finish(&mut config.warnings);
        let identity = format!("{}|{}", connection.endpoint, buckets.json);
        config.spaces.insert(reference.clone(), connection);
        storages.push(Storage { objects: Some(ObjectSpace::new(Some(reference), buckets)), identity });
    }
    let warn = |config: &mut Config, message: &str| {
        config.warnings.push(Warning { path: root.at("spacesConns"), message: message.to_owned() })
    };
    if config.local_storage.is_some() {
        if !storages.is_empty() {
            warn(config, "has no effect: `localStorage` is enabled and takes all objects");
        }
        return Ok(vec![Storage {
            objects: Some(ObjectSpace::new(None, Buckets::version_1(""))),
            identity: "localhost|local".to_owned(),
        }]);
    }
    match storages.len() {
        0 => Ok(vec![Storage { objects: None, identity: "none|none".to_owned() }]),
        1 if databases > 1 => {
            warn(config, "its only storage serves all databases of `mongoUris`");
            Ok(storages)
        }
        count if count == databases => Ok(storages),
        count => Err(root.wrong(
            "spacesConns",
            format!("Number of MongoDB URIs must match number of S3 connections (found {databases} and {count}), unless one connection serves all"),
        )),
    }
}

fn bucket(section: &mut Section<'_>, key: &'static str) -> Result<Option<String>> {
    section.text(key)?.map(|text| name(&section.at(key), "bucket", text)).transpose()
}

/// The connection and the database of all counters.
fn counters(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<Option<(String, String)>> {
    let Some(mut section) = root.section("counters")? else { return Ok(None) };
    let uri = section.required_text("mongoUri")?;
    let uri = resolve_document_uri(uri, base).map_err(|message| section.wrong("mongoUri", message))?;
    let database = database(&mut section, "dbName")?;
    section.finish(&mut config.warnings);
    let reference = config.connection_for(uri, "counters");
    config.set_counters(&reference, &database);
    Ok(Some((reference, database)))
}

fn database_types(
    root: &mut Section<'_>,
    config: &mut Config,
    base: &Path,
    storages: &[Storage],
    counters: Option<&(String, String)>,
) -> Result<()> {
    let Some(mut types) = root.section("databaseTypes")? else { return Ok(()) };
    let known = [
        ("metadata", DatabaseType::Metadata),
        ("knowledge", DatabaseType::Knowledge),
        ("runtime", DatabaseType::Runtime),
    ];
    for (key, database_type) in known {
        let Some(mut tiers) = types.section(key)? else { continue };
        let mut found: Vec<(Section<'_>, Option<Named>)> = Vec::new();
        found.extend(tiers.section("generic")?.map(|section| (section, None)));
        found.extend(
            tiers.sections("domains")?.into_iter().map(|section| (section, Some(Selector::Domain as Named))),
        );
        found.extend(
            tiers.sections("tenants")?.into_iter().map(|section| (section, Some(Selector::Tenant as Named))),
        );
        for (mut section, selector) in found {
            let entry = typed(&mut section, config, base, database_type, selector, storages, counters)?;
            section.finish(&mut config.warnings);
            config.entries.push(entry);
        }
        tiers.finish(&mut config.warnings);
    }
    types.finish(&mut config.warnings);
    Ok(())
}

fn typed(
    section: &mut Section<'_>,
    config: &mut Config,
    base: &Path,
    database_type: DatabaseType,
    selector: Option<Named>,
    storages: &[Storage],
    counters: Option<&(String, String)>,
) -> Result<Entry> {
    let path = section.path().to_owned();
    let key = section.required_text("key")?.to_owned();
    let uri = section.required_text("mongoUri")?;
    let uri = resolve_document_uri(uri, base).map_err(|message| section.wrong("mongoUri", message))?;
    let database = database(section, "dbName")?;
    let selector = match selector {
        None => Selector::Generic,
        Some(selector) => {
            let identifier = section.text("extIdentifier")?.unwrap_or(&key);
            selector(name(&section.at("extIdentifier"), "extIdentifier", identifier)?)
        }
    };
    let storage = match storages {
        [only] => only,
        several => {
            let index = config.entries.iter().position(|entry| {
                matches!(entry.selector, Selector::Hashed(_))
                    && config.connections.get(&entry.connection).is_some_and(|c| c.is(&uri))
            });
            let index = index.ok_or_else(|| {
                section.wrong("mongoUri", "is none of `mongoUris`, so none of the storages belongs to it")
            })?;
            &several[index]
        }
    };
    let connection = config.connection_for(uri, &path);
    Ok(Entry {
        path,
        database_type: Some(database_type),
        selector,
        key: Some(key),
        database: Some(database),
        objects: storage.objects.clone(),
        analytics_database: counters
            .filter(|(reference, _)| *reference == connection)
            .map(|(_, database)| database.clone()),
        connection,
        capture_deliveries: false,
        backend_id: None,
    })
}
