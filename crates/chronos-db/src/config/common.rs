//! What both shapes have in common.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretString;

use super::section::{Section, wrong};
use super::uri::{check_endpoint, needs_path_style, provider_of, resolve_path};
use super::{Config, DevShadow, HashAlgorithm, Provider, SpaceConnection, Transactions, UpdateMode, Warning};
use crate::route::key::KeyTemplate;
use crate::{Json, Result, validate_name};

/// Rows also carry indexed values and, with a shadow, heads carry the payload: MongoDB's 16 MB must not be
/// met by the payload alone.
const MAX_INLINE_BYTES: u64 = 12 * 1024 * 1024;

/// What every MongoDB server keeps for itself.
const RESERVED_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// A day: what should take longer is no call.
const MAX_TIMEOUT_MILLIS: u64 = 24 * 3_600 * 1_000;

/// MongoDB's bound for names of databases.
const MAX_DATABASE_BYTES: usize = 63;

/// Reads everything but connections and databases.
pub(super) fn read(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    root.accept(&["$schema"]);
    local_storage(root, config, base)?;
    routing(root, config)?;
    retention(root, config)?;
    super::collections::read(root, config)?;
    dev_shadow(root, config)?;
    transactions(root, config)?;
    for (key, setting) in
        [("logicalDelete", &mut config.logical_delete), ("versioning", &mut config.versioning)]
    {
        if let Some(mut section) = root.section(key)? {
            *setting = section.enabled()?;
            section.finish(&mut config.warnings);
        }
    }
    config.update_mode = match root.text("updateMode")? {
        None | Some("merge") => UpdateMode::Merge,
        Some("replace") => UpdateMode::Replace,
        Some(other) => {
            return Err(root.wrong("updateMode", format!("`{other}` is neither `merge` nor `replace`")));
        }
    };
    if let Some(bytes) = root.number("inlineMaxBytes", 0, MAX_INLINE_BYTES)? {
        // The bound above fits every usize.
        config.inline_max_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(millis) = root.number("timeoutMs", 1, MAX_TIMEOUT_MILLIS)? {
        config.timeout = Some(std::time::Duration::from_millis(millis));
    }
    if let Some(allowed) = root.flag("hardDeleteEnabled")? {
        config.sections.insert("hardDeleteEnabled".to_owned(), Json::Bool(allowed));
        config.not_yet("hardDeleteEnabled", "`logicalDelete` alone says whether a delete erases");
    }
    sections(root, config)
}

fn local_storage(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    let Some(mut section) = root.section("localStorage")? else { return Ok(()) };
    let path = section.text("basePath")?;
    if section.enabled()? {
        let path = path.ok_or_else(|| section.wrong("basePath", "is missing or empty"))?;
        config.local_storage =
            Some(resolve_path(path, base).map_err(|message| section.wrong("basePath", message))?);
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn routing(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("routing")? else { return Ok(()) };
    config.routing.hash = match section.text("hashAlgo")? {
        None | Some("rendezvous") => HashAlgorithm::Rendezvous,
        Some("jump") => HashAlgorithm::Jump,
        Some(other) => {
            return Err(section.wrong("hashAlgo", format!("`{other}` is neither `rendezvous` nor `jump`")));
        }
    };
    if let Some(template) = section.text("chooseKey")? {
        for part in KeyTemplate::parse(template).unknown() {
            config
                .warnings
                .push(section.warning("chooseKey", format!("the part `{part}` is not known and is skipped")));
        }
        config.routing.choose_key = template.to_owned();
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn retention(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("retention")? else { return Ok(()) };
    if let Some(written) = root.get("retention") {
        config.sections.insert("retention".to_owned(), written.clone());
    }
    let on = section.enabled()?;
    if let Some(mut versions) = section.section("ver")? {
        let days = versions.positive("days")?;
        let (new, old) = (versions.positive("maxPerItem")?, versions.positive("maxVersions")?);
        let most = agreeing(&versions, ("maxPerItem", new), ("maxVersions", old))?;
        if versions.get("maxAge").is_some() {
            config.warnings.push(versions.warning("maxAge", "has no defined unit and no effect; use `days`"));
        }
        if versions.enabled()? && on {
            config.retention.days = days;
            config.retention.max_per_item = most;
            if days.is_some() || most.is_some() {
                config.not_yet(versions.path(), "every version stays in the index");
            }
        }
        versions.finish(&mut config.warnings);
    }
    if let Some(mut counters) = section.section("counters")? {
        for key in ["days", "weeks", "months", "maxAge", "maxVersions"] {
            counters.number(key, 0, u64::from(u32::MAX))?;
        }
        counters.enabled()?;
        config.warnings.push(Warning {
            path: counters.path().to_owned(),
            message: "has no effect: counters are totals and have no age".to_owned(),
        });
        counters.finish(&mut config.warnings);
    }
    if section.section("objects")?.is_some() {
        config.not_yet(section.at("objects"), "every version's payload stays");
    }
    section.finish(&mut config.warnings);
    Ok(())
}

/// Two names of one setting; if both are given they must say the same.
pub(super) fn agreeing<T: PartialEq>(
    section: &Section<'_>,
    (name, value): (&str, Option<T>),
    (synonym, other): (&str, Option<T>),
) -> Result<Option<T>> {
    match (value, other) {
        (Some(a), Some(b)) if a != b => {
            Err(section.wrong(synonym, format!("is another name of `{name}` and says something else")))
        }
        (value, other) => Ok(value.or(other)),
    }
}

fn dev_shadow(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("devShadow")? else { return Ok(()) };
    let hours = section.positive("ttlHours")?;
    let max_bytes = section.positive("maxBytesPerDoc")?.map(|bytes| bytes as usize);
    if section.enabled()? {
        let ttl_hours = hours.ok_or_else(|| section.wrong("ttlHours", "is missing"))?;
        config.dev_shadow = Some(DevShadow { ttl_hours, max_bytes });
        config.not_yet(section.at("ttlHours"), "the latest payload stays in the head until the next version");
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn transactions(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("transactions")? else { return Ok(()) };
    config.transactions = Transactions {
        enabled: section.enabled()?,
        auto_detect: section.flag("autoDetect")?.unwrap_or(true),
    };
    config.not_yet(section.path(), "no change of several items uses a transaction");
    section.finish(&mut config.warnings);
    Ok(())
}

/// Sections other parts read. Their outline is checked here so that a mistyped key shows in `config check`.
fn sections(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let outlines: [(&'static str, &[&'static str]); 5] = [
        ("analytics", &["counterRules", "timeBasedRules", "crossTenantRules", "tenants"]),
        ("counterRules", &["rules"]),
        ("fallback", &["enabled", "deadLetterCollection", "maxDelayMs"]),
        ("rollup", &["enabled", "manifestPeriod", "autoSchedule"]),
        (
            "writeOptimization",
            &[
                "batchSize",
                "debounceMs",
                "compressionEnabled",
                "batchS3",
                "batchWindowMs",
                "debounceCountersMs",
                "allowShadowSkip",
            ],
        ),
    ];
    for (key, known) in outlines {
        let Some(mut section) = root.section(key)? else { continue };
        section.accept(known);
        match key {
            "analytics" => {
                for list in known {
                    section.list(list)?;
                }
            }
            "counterRules" => drop(section.list("rules")?),
            "fallback" => fallback(&mut section)?,
            _ => drop(section.flag("enabled")?),
        }
        section.finish(&mut config.warnings);
        if root.get(key).and_then(|written| written.get("enabled")) != Some(&Json::Bool(false)) {
            config.not_yet(key, "it is only checked");
        }
        keep(root, key, config);
    }
    keep(root, "chronow", config);
    Ok(())
}

fn keep(root: &mut Section<'_>, key: &'static str, config: &mut Config) {
    if let Some(written) = root.get(key) {
        config.sections.insert(key.to_owned(), written.clone());
    }
}

fn fallback(section: &mut Section<'_>) -> Result<()> {
    section.enabled()?;
    section.text("deadLetterCollection")?;
    section.number("maxDelayMs", 0, u64::from(u32::MAX))?;
    for (name, synonym, least) in [("maxAttempts", "maxRetries", 1), ("baseDelayMs", "retryDelayMs", 0)] {
        let (value, other) = (
            section.number(name, least, u64::from(u32::MAX))?,
            section.number(synonym, least, u64::from(u32::MAX))?,
        );
        agreeing(section, (name, value), (synonym, other))?;
    }
    Ok(())
}

/// Reads one object storage; keys of buckets are left to the shape.
pub(super) fn space(
    section: &mut Section<'_>,
    base: &Path,
    warnings: &mut Vec<Warning>,
) -> Result<SpaceConnection> {
    let endpoint = section.text("endpoint")?;
    let provider = match section.text("provider")? {
        Some("s3") => Provider::S3,
        Some("azure") => Provider::Azure,
        Some("local") => Provider::Local,
        Some("memory") => Provider::Memory,
        Some(other) => {
            return Err(
                section.wrong("provider", format!("`{other}` is none of `s3`, `azure`, `local`, `memory`"))
            );
        }
        None => endpoint.map_or(Provider::S3, provider_of),
    };
    let region = section.text("region")?.unwrap_or("us-east-1").to_owned();
    let path_style = section.flag("forcePathStyle")?;
    let (access, secret) = (section.text("accessKey")?, section.text("secretKey")?);
    let mut connection = SpaceConnection {
        provider,
        endpoint: endpoint.unwrap_or_default().to_owned(),
        region,
        access_key: SecretString::from(access.unwrap_or_default()),
        secret_key: SecretString::from(secret.unwrap_or_default()),
        force_path_style: path_style.unwrap_or(false),
    };
    match provider {
        Provider::Memory => connection.endpoint = "memory".to_owned(),
        Provider::Local => {
            let path = section.required_text("endpoint")?;
            let path = path.strip_prefix("file://").or(path.strip_prefix("file:")).unwrap_or(path);
            let folder = resolve_path(path, base).map_err(|message| section.wrong("endpoint", message))?;
            let text = folder.to_str().ok_or_else(|| {
                section.wrong("endpoint", "the configuration's folder has a name that is not UTF-8")
            })?;
            connection.endpoint = text.to_owned();
        }
        Provider::S3 | Provider::Azure => {
            let url = check_endpoint(section.required_text("endpoint")?, provider)
                .map_err(|message| section.wrong("endpoint", message))?;
            section.required_text("accessKey")?;
            let secret = section.required_text("secretKey")?;
            connection.force_path_style = path_style.unwrap_or_else(|| needs_path_style(&url));
            if provider == Provider::Azure && BASE64_STANDARD.decode(secret).is_err() {
                warnings.push(section.warning("secretKey", "is no base64, as Azure's account keys are"));
            }
        }
    }
    Ok(connection)
}

/// A checked name of a tenant, domain or bucket; the error names the path.
pub(super) fn name(path: &str, what: &str, text: &str) -> Result<String> {
    validate_name(what, text).map(str::to_owned).map_err(|error| wrong(path, error.message()))
}

/// A checked name of a database. What MongoDB refuses is refused for every engine, so that a configuration
/// can move between them.
pub(crate) fn check_database(text: &str) -> Result<&str> {
    validate_name("database", text)?;
    if text.len() > MAX_DATABASE_BYTES {
        return Err(crate::Error::validation(format!(
            "the name of a database has at most {MAX_DATABASE_BYTES} bytes"
        )));
    }
    if RESERVED_DATABASES.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
        // `local` is not even replicated.
        return Err(crate::Error::validation(format!(
            "the database `{text}` is MongoDB's own: what is written there is lost or refused"
        )));
    }
    if text.contains(['.', ' ', '"']) {
        return Err(crate::Error::validation(format!(
            "the database `{text}` may not hold `.`, `\"` or spaces"
        )));
    }
    Ok(text)
}

pub(super) fn database(section: &mut Section<'_>, key: &'static str) -> Result<String> {
    let text = section.required_text(key)?;
    check_database(text).map(str::to_owned).map_err(|error| section.wrong(key, error.message()))
}

/// A bucket's name made from a database's: what S3 and Azure take is lower case, digits and single hyphens, 3
/// to 63 bytes.
pub(super) fn bucket_for(database: &str) -> String {
    let mut name = String::new();
    for c in database.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !(name.is_empty() || name.ends_with('-')) {
            name.push(c);
        }
    }
    name.truncate(63);
    let name = name.trim_end_matches('-');
    if name.len() < 3 { format!("chronos-{name}").trim_end_matches('-').to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_names_a_bucket_every_storage_takes() {
        let made = [
            ("chronos_runtime", "chronos-runtime"),
            ("Tenant__A_", "tenant-a"),
            ("ä", "chronos"),
            ("x", "chronos-x"),
        ];
        for (database, bucket) in made {
            assert_eq!(bucket_for(database), bucket);
        }
        assert_eq!(bucket_for(&"a_".repeat(50)).len(), 63);
    }
}
