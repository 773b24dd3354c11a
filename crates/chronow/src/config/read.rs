//! Reading the `chronow` section.

use secrecy::ExposeSecret as _;
use std::path::PathBuf;
use std::time::Duration;

use super::model::{Defaults, Redis, Space};
use super::part::Part;
use crate::{Json, Result};

pub(super) fn read_redis(redis: &Part<'_>, warnings: &mut Vec<String>) -> Result<Redis> {
    let cluster_nodes = match redis.value("clusterNodes") {
        None => Vec::new(),
        Some(Json::String(text)) => redis.checked_nodes("clusterNodes", text.split(',').map(str::trim))?,
        Some(Json::Array(list)) => {
            redis.checked_nodes("clusterNodes", list.iter().map(|node| node.as_str().unwrap_or("")))?
        }
        Some(_) => return Err(redis.wrong("clusterNodes", "expected a list of `host:port`")),
    };
    let sentinel = match redis.part("sentinel")? {
        None => None,
        Some(part) => {
            let list = part.value("nodes").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
            let nodes = part.checked_nodes("nodes", list.iter().map(|node| node.as_str().unwrap_or("")))?;
            if nodes.is_empty() {
                return Err(part.wrong("nodes", "expected at least one `host:port`"));
            }
            let master = part.text("master")?.ok_or_else(|| {
                part.wrong("master", "is missing: the name the sentinels know the master by")
            })?;
            part.known(&["nodes", "master"], warnings);
            Some((nodes.iter().map(|node| node.expose_secret().to_owned()).collect(), master.to_owned()))
        }
    };
    if redis.number("retryMs")?.is_some() {
        warnings.push("redis.retryMs: reconnecting has a backoff of its own; this is not used".to_owned());
    }
    let url = redis.text("url")?;
    if let Some(url) = url
        && !["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme))
    {
        return Err(redis.wrong("url", "expected redis://… or rediss://…"));
    }
    let read = Redis {
        url: url.map(Into::into),
        cluster_nodes,
        sentinel,
        key_prefix: redis.text("keyPrefix")?.map(str::to_owned),
        tls: redis.flag("tls")?,
        ca_cert: redis.text("caCert")?.map(PathBuf::from),
        username: redis.text("username")?.map(str::to_owned),
        password: redis.text("password")?.map(Into::into),
        db: redis
            .number("db")?
            .map(|db| i64::try_from(db).map_err(|_| redis.wrong("db", "is too large")))
            .transpose()?,
    };
    if read.url.is_none() && read.cluster_nodes.is_empty() && read.sentinel.is_none() {
        return Err(redis.wrong("url", "is missing; Redis needs `url`, `clusterNodes` or `sentinel`"));
    }
    let known = [
        "url",
        "clusterNodes",
        "sentinel",
        "retryMs",
        "keyPrefix",
        "tls",
        "caCert",
        "username",
        "password",
        "db",
    ];
    redis.known(&known, warnings);
    Ok(read)
}

pub(super) fn read_space(space: &Part<'_>, warnings: &mut Vec<String>) -> Result<Space> {
    let required = |key: &str| space.text(key)?.ok_or_else(|| space.wrong(key, "is missing"));
    let endpoint = required("endpoint")?;
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(space.wrong("endpoint", "expected https://… or http://…"));
    }
    space.known(&["endpoint", "accessKey", "secretKey", "bucket"], warnings);
    Ok(Space {
        endpoint: endpoint.to_owned(),
        access_key: required("accessKey")?.into(),
        secret_key: required("secretKey")?.into(),
        bucket: space.text("bucket")?.unwrap_or("chronow-payloads").to_owned(),
    })
}

pub(super) fn read_defaults(part: &Part<'_>, warnings: &mut Vec<String>) -> Result<Defaults> {
    let mut defaults = Defaults::default();
    let named = |key: &str, otherwise: &str| -> Result<String> {
        let name = part.text(key)?.unwrap_or(otherwise);
        crate::Scope::new(name, name).map_err(|error| part.wrong(key, error.message()))?;
        Ok(name.to_owned())
    };
    defaults.tenant = named("tenantId", &defaults.tenant)?;
    defaults.namespace = named("namespace", &defaults.namespace)?;
    if let Some(seconds) = part.number("hotTtlSeconds")? {
        defaults.hot_ttl = (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    let small = |key: &str, otherwise: u32| -> Result<u32> {
        let Some(number) = part.number(key)? else { return Ok(otherwise) };
        u32::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| part.wrong(key, "is out of bounds"))
    };
    let days = small("warmRetentionDays", 0)?;
    if days > 0 {
        defaults.warm_retention = Duration::from_secs(u64::from(days) * 86_400);
    }
    defaults.max_deliveries = small("maxDeliveries", defaults.max_deliveries)?;
    let bytes = |key: &str, otherwise: usize| -> Result<usize> {
        let Some(number) = part.number(key)? else { return Ok(otherwise) };
        usize::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| part.wrong(key, "is out of bounds"))
    };
    defaults.max_value_bytes = bytes("maxValueBytes", defaults.max_value_bytes)?;
    defaults.max_payload_bytes = bytes("maxPayloadBytes", defaults.max_payload_bytes)?;
    defaults.max_message_bytes = bytes("maxMessageBytes", defaults.max_message_bytes)?;
    if let Some(millis) = part.number("visibilityTimeoutMs")? {
        defaults.visibility = Duration::from_millis(millis);
    }
    defaults.max_len = part.number("maxStreamLen")?.unwrap_or(defaults.max_len);
    if let Some(value) = part.value("retryBackoffMs") {
        let waits =
            value.as_array().and_then(|list| list.iter().map(Json::as_u64).collect::<Option<Vec<_>>>());
        let waits = waits
            .filter(|waits| !waits.is_empty())
            .ok_or_else(|| part.wrong("retryBackoffMs", "expected a list of milliseconds"))?;
        defaults.backoff = waits.into_iter().map(Duration::from_millis).collect();
    }
    let options = crate::hot::SubscriptionOptions {
        visibility: defaults.visibility,
        max_deliveries: defaults.max_deliveries,
        backoff: defaults.backoff.clone(),
        ..Default::default()
    };
    options.check().map_err(|error| part.wrong("", error.message()))?;
    crate::hot::TopicOptions { max_len: defaults.max_len, ..Default::default() }
        .check()
        .map_err(|error| part.wrong("", error.message()))?;
    let known = [
        "tenantId",
        "namespace",
        "hotTtlSeconds",
        "warmRetentionDays",
        "maxDeliveries",
        "maxValueBytes",
        "maxPayloadBytes",
        "maxMessageBytes",
        "visibilityTimeoutMs",
        "maxStreamLen",
        "retryBackoffMs",
        "pollIntervalMs",
    ];
    part.known(&known, warnings);
    Ok(defaults)
}
