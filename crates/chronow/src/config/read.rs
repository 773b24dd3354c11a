//! Reading the `chronow` section.

use chronos_db::Result;
use chronos_db::config::Warning;
use chronos_db::config::section::{Section, Unit};
use chronos_db::json::Map;
use secrecy::SecretString;

use super::builder::ConfigBuilder;
use super::model::{Given, Redis, Space};
use crate::Json;

/// Reads the section into a builder, which checks the values; null is an empty section.
pub(super) fn read(section: &Json) -> Result<ConfigBuilder> {
    let nothing = Json::from(Map::new());
    let mut root = match section {
        Json::Null => Section::new("", &nothing)?,
        Json::Object(_) => Section::new("", section)?,
        // The paths in the section begin within it, and that of the section itself would be empty.
        other => Section::new("chronow", other)?,
    };
    let mut builder = ConfigBuilder::default();
    if let Some(section) = root.section("redis")? {
        builder.redis = Some(redis(section, &mut builder.warnings)?);
    }
    builder.mongo_only = root.flag("mongoOnly")?;
    builder.mongo_uri = root.text("mongoUri")?.map(SecretString::from);
    builder.embedded = root.text("embedded")?.map(Into::into);
    if let Some(section) = root.section("space")? {
        builder.space = Some(space(section, &mut builder.warnings)?);
    }
    if let Some(section) = root.section("defaults")? {
        builder.defaults = defaults(section, &mut builder.warnings)?;
    }
    root.accept(&["chronos"]);
    root.finish(&mut builder.warnings);
    Ok(builder)
}

fn redis(mut section: Section<'_>, warnings: &mut Vec<Warning>) -> Result<Redis> {
    let mut redis = Redis::nowhere();
    redis.url = section.text("url")?.map(SecretString::from);
    redis.cluster_nodes = match section.get("clusterNodes") {
        Some(Json::String(nodes)) if nodes.is_empty() => Vec::new(),
        Some(Json::String(nodes)) => nodes.split(',').map(|node| node.trim().into()).collect(),
        _ => section.texts("clusterNodes")?.into_iter().map(|(_, node)| node.into()).collect(),
    };
    if let Some(mut sentinel) = section.section("sentinel")? {
        let nodes = sentinel.texts("nodes")?.into_iter().map(|(_, node)| node.to_owned()).collect();
        let master = sentinel.text("master")?.unwrap_or_default().to_owned();
        sentinel.finish(warnings);
        redis.sentinel = Some((nodes, master));
    }
    redis.key_prefix = section.verbatim("keyPrefix")?.map(str::to_owned);
    redis.tls = section.flag("tls")?;
    redis.ca_cert = section.text("caCert")?.map(Into::into);
    redis.username = section.verbatim("username")?.map(str::to_owned);
    redis.password = section.verbatim("password")?.map(SecretString::from);
    redis.db = section.number("db", 0, i64::MAX.unsigned_abs())?.and_then(|db| i64::try_from(db).ok());
    if section.number("retryMs", 0, u64::MAX)?.is_some() {
        warnings.push(unused_retry());
    }
    section.finish(warnings);
    Ok(redis)
}

/// The warning about `retryMs`, and about the variable.
pub(super) fn unused_retry() -> Warning {
    Warning::new("redis.retryMs", "reconnecting has a backoff of its own; this is not used")
}

fn space(mut section: Section<'_>, warnings: &mut Vec<Warning>) -> Result<Space> {
    let mut text = |key| Ok(section.text(key)?.unwrap_or_default());
    let space = Space::new(text("endpoint")?, text("accessKey")?, text("secretKey")?);
    let space = match section.text("bucket")? {
        Some(bucket) => space.bucket(bucket),
        None => space,
    };
    section.finish(warnings);
    Ok(space)
}

fn defaults(mut section: Section<'_>, warnings: &mut Vec<Warning>) -> Result<Given> {
    // Bounds are the builder's.
    let any = u64::MAX;
    let mut given = Given {
        tenant: section.text("tenantId")?.map(str::to_owned),
        namespace: section.text("namespace")?.map(str::to_owned),
        hot_ttl: section
            .duration("hotTtlSeconds", Unit::Seconds, 0, any)?
            .map(|ttl| (!ttl.is_zero()).then_some(ttl)),
        warm_retention: section.duration("warmRetentionDays", Unit::Days, 1, u32::MAX.into())?,
        visibility: section.duration("visibilityTimeoutMs", Unit::Milliseconds, 0, any)?,
        max_deliveries: section.positive("maxDeliveries")?,
        backoff: section.durations("retryBackoffMs", Unit::Milliseconds, 0, any)?,
        max_len: section.number("maxStreamLen", 0, any)?,
        ..Given::default()
    };
    for (key, bytes) in [
        ("maxValueBytes", &mut given.max_value_bytes),
        ("maxPayloadBytes", &mut given.max_payload_bytes),
        ("maxMessageBytes", &mut given.max_message_bytes),
    ] {
        let most = u64::try_from(usize::MAX).unwrap_or(u64::MAX);
        *bytes = section.number(key, 1, most)?.and_then(|bytes| usize::try_from(bytes).ok());
    }
    section.accept(&["pollIntervalMs"]);
    section.finish(warnings);
    Ok(given)
}
