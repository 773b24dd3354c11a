//! What environment variables say.

use chronos_db::json::Map;

use crate::{Error, Json, Result};

/// Puts `over` on `base`; null says nothing.
pub(super) fn overlay(base: &mut Json, over: &Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            for (key, value) in over.iter().filter(|(_, value)| !value.is_null()) {
                overlay(&mut base[key.as_str()], value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The variables, in the shape of the JSON.
pub(super) fn environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Json> {
    let get = |name: &str| lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let flag = |name: &str| -> Result<Option<bool>> {
        let Some(text) = get(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "no" | "off" => Ok(Some(false)),
            _ => Err(Error::validation(format!("{name}: expected `true` or `false`"))),
        }
    };
    let number = |name: &str| -> Result<Option<u64>> {
        let parse = |text: String| {
            text.parse()
                .map_err(|_| Error::validation(format!("{name}: expected a whole number, not `{text}`")))
        };
        get(name).map(parse).transpose()
    };
    let mut redis = Map::new();
    let mut put = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            redis.insert(key.to_owned(), value);
        }
    };
    put("url", get("REDIS_URL").map(Json::from));
    put("clusterNodes", get("REDIS_CLUSTER_NODES").map(|text| nodes(&text)).transpose()?);
    put("tls", flag("REDIS_TLS")?.map(Json::from));
    put("username", get("REDIS_USERNAME").map(Json::from));
    put("password", get("REDIS_PASSWORD").map(Json::from));
    put("db", number("REDIS_DB")?.map(Json::from));
    put("keyPrefix", get("REDIS_KEY_PREFIX").map(Json::from));
    put("retryMs", number("REDIS_RETRY_MS")?.map(Json::from));
    put("caCert", get("REDIS_CA_CERT").map(Json::from));
    let mut defaults = Map::new();
    for (name, key) in [
        ("REDIS_VISIBILITY_TIMEOUT_MS", "visibilityTimeoutMs"),
        ("REDIS_MAX_STREAM_LEN", "maxStreamLen"),
        ("REDIS_MAX_PAYLOAD_BYTES", "maxPayloadBytes"),
    ] {
        if let Some(value) = number(name)? {
            defaults.insert(key.to_owned(), value.into());
        }
    }
    let mut root = Map::new();
    // Settings without a server are no server.
    if redis.contains_key("url") || redis.contains_key("clusterNodes") {
        root.insert("redis".to_owned(), redis.into());
    }
    if let Some(mongo_only) = flag("CHRONOW_MONGO_ONLY")? {
        root.insert("mongoOnly".to_owned(), mongo_only.into());
    }
    if let Some(uri) = get("MONGO_URI") {
        root.insert("mongoUri".to_owned(), uri.into());
    }
    if let Some(space) = space(&get)? {
        root.insert("space".to_owned(), space.into());
    }
    root.insert("defaults".to_owned(), defaults.into());
    Ok(root.into())
}

/// The storage for large payloads, if there is one.
fn space(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Map>> {
    let mut space = Map::new();
    for (name, key) in
        [("SPACE_ENDPOINT", "endpoint"), ("SPACE_ACCESS_KEY", "accessKey"), ("SPACE_SECRET_KEY", "secretKey")]
    {
        if let Some(value) = get(name) {
            space.insert(key.to_owned(), value.into());
        }
    }
    // Credentials without a storage are no storage.
    if !space.contains_key("endpoint") {
        return Ok(None);
    }
    for (name, key) in [("SPACE_ACCESS_KEY", "accessKey"), ("SPACE_SECRET_KEY", "secretKey")] {
        if !space.contains_key(key) {
            return Err(Error::validation(format!("{name}: is missing beside SPACE_ENDPOINT")));
        }
    }
    Ok(Some(space))
}

/// A list of nodes: a JSON array, or separated by commas.
pub(super) fn nodes(text: &str) -> Result<Json> {
    let list: Vec<String> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|_| {
            Error::validation(
                "REDIS_CLUSTER_NODES: expected a JSON array of texts, or nodes separated by commas",
            )
        })?
    } else {
        text.split(',').map(|node| node.trim().to_owned()).collect()
    };
    Ok(list.into())
}
