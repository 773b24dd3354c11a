//! The configuration: from JSON, from the environment, or both.

use std::path::PathBuf;
use std::time::Duration;

use chronos_db::json::Map;
use secrecy::{ExposeSecret, SecretString};

use crate::{Error, Json, Result};

/// Where the hot tier is, and what holds unless a call says otherwise.
///
/// ```
/// use chronow::Config;
/// let config = Config::from_json(&chronos_db::json!({
///     "redis": {"url": "redis://localhost:6379", "keyPrefix": "cw:"},
///     "defaults": {"maxDeliveries": 9}
/// }))?;
/// assert_eq!(config.defaults.max_deliveries, 9);
/// assert_eq!(config.defaults.tenant, "default");
/// # Ok::<(), chronow::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// Redis. Without it the hot tier is the messaging database.
    pub redis: Option<Redis>,
    /// Use the messaging database even if Redis is configured.
    pub mongo_only: bool,
    /// MongoDB, for connecting without a chronos-db of one's own.
    pub mongo_uri: Option<SecretString>,
    /// The folder of the embedded store, for connecting without anything else. Default `./chronow-data`.
    pub embedded: Option<PathBuf>,
    /// A storage for large payloads, for connecting without a chronos-db of one's own.
    pub space: Option<Space>,
    /// What holds unless a call says otherwise.
    pub defaults: Defaults,
    /// What was accepted but deserves a look.
    pub warnings: Vec<String>,
}

/// An object storage: S3, or Azure if the endpoint says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Space {
    /// The URL.
    pub endpoint: String,
    /// The access key; the account's name on Azure.
    pub access_key: SecretString,
    /// The secret key.
    pub secret_key: SecretString,
    /// The bucket. Default `chronow-payloads`.
    pub bucket: String,
}

/// Where Redis is. Of several ways to name servers the last one given here wins: Sentinel, a cluster, a URL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Redis {
    /// `redis://[user:password@]host:port/db` or `rediss://…`.
    pub url: Option<SecretString>,
    /// Some nodes of a cluster, as `host:port` or URLs.
    pub cluster_nodes: Vec<SecretString>,
    /// Sentinels as `host:port`, and the name they know the master by.
    pub sentinel: Option<(Vec<String>, String)>,
    /// Put before every key. Default `cw:`.
    pub key_prefix: Option<String>,
    /// Speak TLS, or don't, whatever the URL says.
    pub tls: Option<bool>,
    /// A PEM file of the authorities to trust.
    pub ca_cert: Option<PathBuf>,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// The database.
    pub db: Option<i64>,
}

/// What holds unless a call says otherwise. What concerns topics and subscriptions holds when they are made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Defaults {
    /// The tenant.
    pub tenant: String,
    /// The namespace.
    pub namespace: String,
    /// How long values stay in the hot tier; none is for ever. Default one hour.
    pub hot_ttl: Option<Duration>,
    /// How long copies stay in the warm tier. Default 30 days.
    pub warm_retention_days: u32,
    /// The largest value, in bytes. Default 256 KiB.
    pub max_value_bytes: usize,
    /// The largest payload the hot tier holds, in bytes. Larger ones go to the object storage of the
    /// messaging database, if it has one; else they are refused. Default 256 KiB.
    pub max_payload_bytes: usize,
    /// The largest payload of a message wherever it lies, in bytes: a consumer has it in memory. Default 16
    /// MiB.
    pub max_message_bytes: usize,
    /// How long a message is locked for its consumer. Default 30 s.
    pub visibility_ms: u64,
    /// Most handler starts per message. Default 5.
    pub max_deliveries: u32,
    /// Waits before the second, third … delivery. Default 1, 5, 30 s.
    pub backoff_ms: Vec<u64>,
    /// Most messages a topic holds that somebody still needs. Default 100,000.
    pub max_len: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            tenant: "default".to_owned(),
            namespace: "default".to_owned(),
            hot_ttl: Some(Duration::from_secs(3_600)),
            warm_retention_days: 30,
            max_value_bytes: 262_144,
            max_payload_bytes: 262_144,
            max_message_bytes: 16 * 1_024 * 1_024,
            visibility_ms: 30_000,
            max_deliveries: 5,
            backoff_ms: vec![1_000, 5_000, 30_000],
            max_len: 100_000,
        }
    }
}

#[cfg(feature = "redis")]
impl Redis {
    /// The same for the hot tier.
    pub(crate) fn to_hot(&self) -> crate::hot::redis::RedisConfig {
        use crate::hot::redis::RedisConfig;

        let url = self.url.as_ref().map(ExposeSecret::expose_secret);
        let mut config = if let Some((nodes, master)) = &self.sentinel {
            RedisConfig::sentinel(nodes.iter().cloned(), master.clone())
        } else if self.cluster_nodes.is_empty() {
            RedisConfig::single(url.unwrap_or_default())
        } else {
            RedisConfig::cluster(self.cluster_nodes.iter().map(|node| with_login(node.expose_secret(), url)))
        };
        if let Some(prefix) = &self.key_prefix {
            config.key_prefix.clone_from(prefix);
        }
        config.tls = self.tls;
        config.ca_cert.clone_from(&self.ca_cert);
        config.username.clone_from(&self.username);
        config.password.clone_from(&self.password);
        config.db = self.db;
        config
    }
}

/// A node with the scheme and the login of the URL beside it, unless it has its own.
#[cfg(feature = "redis")]
fn with_login(node: &str, url: Option<&str>) -> String {
    let parts = url.and_then(|url| url.split_once("://"));
    match parts {
        Some((scheme, rest)) if !node.contains("://") => {
            let login = rest
                .rsplit_once('@')
                .filter(|_| !node.contains('@'))
                .map_or(String::new(), |(login, _)| format!("{login}@"));
            format!("{scheme}://{login}{node}")
        }
        _ => node.to_owned(),
    }
}

impl Config {
    /// Reads the configuration from JSON: the section `chronow` of a configuration of chronos-db, or a file
    /// of its own.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the path of what is wrong, never with a credential in it.
    pub fn from_json(section: &Json) -> Result<Self> {
        let mut config = Self::default();
        let root = Part::new("", section)?;
        if let Some(redis) = root.part("redis")? {
            config.redis = Some(read_redis(&redis, &mut config.warnings)?);
        }
        config.mongo_only = root.flag("mongoOnly")?.unwrap_or(false);
        config.mongo_uri = root.text("mongoUri")?.map(Into::into);
        config.embedded = root.text("embedded")?.map(PathBuf::from);
        config.space =
            root.part("space")?.map(|space| read_space(&space, &mut config.warnings)).transpose()?;
        if let Some(defaults) = root.part("defaults")? {
            config.defaults = read_defaults(&defaults, &mut config.warnings)?;
        }
        root.known(
            &["redis", "mongoOnly", "mongoUri", "embedded", "defaults", "chronos", "space"],
            &mut config.warnings,
        );
        Ok(config)
    }

    /// Reads the configuration from variables such as `REDIS_URL`; empty ones count as not set.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the variable that is wrong.
    ///
    /// ```
    /// use chronow::Config;
    /// let config = Config::from_env(|name| (name == "REDIS_CLUSTER_NODES").then(|| "a:6379, b:6379".to_owned()))?;
    /// assert_eq!(config.redis.unwrap().cluster_nodes.len(), 2);
    /// # Ok::<(), chronow::Error>(())
    /// ```
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        Self::from_json(&environment(&lookup)?)
    }

    /// Reads the configuration from the variables of this process.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_process_env() -> Result<Self> {
        Self::from_env(|name| std::env::var(name).ok())
    }

    /// Reads JSON, and what it doesn't say from variables.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json) and [`from_env`](Self::from_env).
    pub fn from_json_and_env(section: &Json, lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // Each by itself first, so that what is wrong is named where it stands.
        Self::from_json(section)?;
        let mut merged = environment(&lookup)?;
        let given = |path: &str| section.pointer(path).is_some_and(|value| !value.is_null());
        if ["/redis/url", "/redis/clusterNodes", "/redis/sentinel"].into_iter().any(given) {
            // These are one choice: who names servers means those alone.
            if let Some(redis) = merged.get_mut("redis").and_then(Json::as_object_mut) {
                redis.retain(|key, _| !matches!(key.as_str(), "url" | "clusterNodes"));
            }
            if let Some(root) = merged.as_object_mut() {
                root.remove("mongoOnly");
            }
        }
        overlay(&mut merged, section);
        Self::from_json(&merged)
    }
}

/// Puts `over` on `base`; null says nothing.
fn overlay(base: &mut Json, over: &Json) {
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
fn environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Json> {
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
    let mut space = Map::new();
    for (name, key) in
        [("SPACE_ENDPOINT", "endpoint"), ("SPACE_ACCESS_KEY", "accessKey"), ("SPACE_SECRET_KEY", "secretKey")]
    {
        if let Some(value) = get(name) {
            space.insert(key.to_owned(), value.into());
        }
    }
    // Credentials without a storage are no storage.
    if space.contains_key("endpoint") {
        for (name, key) in [("SPACE_ACCESS_KEY", "accessKey"), ("SPACE_SECRET_KEY", "secretKey")] {
            if !space.contains_key(key) {
                return Err(Error::validation(format!("{name}: is missing beside SPACE_ENDPOINT")));
            }
        }
        root.insert("space".to_owned(), space.into());
    }
    root.insert("defaults".to_owned(), defaults.into());
    Ok(root.into())
}

/// A list of nodes: a JSON array, or separated by commas.
fn nodes(text: &str) -> Result<Json> {
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

fn read_redis(redis: &Part<'_>, warnings: &mut Vec<String>) -> Result<Redis> {
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

fn read_space(space: &Part<'_>, warnings: &mut Vec<String>) -> Result<Space> {
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

fn read_defaults(part: &Part<'_>, warnings: &mut Vec<String>) -> Result<Defaults> {
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
    defaults.warm_retention_days = small("warmRetentionDays", defaults.warm_retention_days)?;
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
    defaults.visibility_ms = part.number("visibilityTimeoutMs")?.unwrap_or(defaults.visibility_ms);
    defaults.max_len = part.number("maxStreamLen")?.unwrap_or(defaults.max_len);
    if let Some(value) = part.value("retryBackoffMs") {
        let waits =
            value.as_array().and_then(|list| list.iter().map(Json::as_u64).collect::<Option<Vec<_>>>());
        defaults.backoff_ms = waits
            .filter(|waits| !waits.is_empty())
            .ok_or_else(|| part.wrong("retryBackoffMs", "expected a list of milliseconds"))?;
    }
    let options = crate::hot::SubscriptionOptions {
        visibility_ms: defaults.visibility_ms,
        max_deliveries: defaults.max_deliveries,
        backoff_ms: defaults.backoff_ms.clone(),
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

/// An object of the configuration, and where it stands.
struct Part<'j> {
    path: String,
    object: Option<&'j Map>,
}

impl<'j> Part<'j> {
    fn new(path: &str, value: &'j Json) -> Result<Self> {
        match value {
            Json::Null => Ok(Self { path: path.to_owned(), object: None }),
            Json::Object(object) => Ok(Self { path: path.to_owned(), object: Some(object) }),
            _ => Err(Error::validation(format!(
                "{}: expected an object",
                if path.is_empty() { "chronow" } else { path }
            ))),
        }
    }

    fn at(&self, key: &str) -> String {
        let dot = if self.path.is_empty() || key.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    fn wrong(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::validation(format!("{}: {message}", self.at(key)))
    }

    /// What is null or an empty text is not given.
    fn value(&self, key: &str) -> Option<&'j Json> {
        self.object?.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn part(&self, key: &str) -> Result<Option<Part<'j>>> {
        self.value(key).map(|value| Part::new(&self.at(key), value)).transpose()
    }

    fn text(&self, key: &str) -> Result<Option<&'j str>> {
        self.value(key)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(key, "expected a text")))
            .transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "expected true or false")))
            .transpose()
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        self.value(key)
            .map(|value| {
                value.as_u64().ok_or_else(|| self.wrong(key, "expected a whole number that is not negative"))
            })
            .transpose()
    }

    fn checked_nodes<'t>(
        &self,
        key: &str,
        nodes: impl Iterator<Item = &'t str>,
    ) -> Result<Vec<SecretString>> {
        let check = |node: &'t str| {
            let address = node.rsplit_once('@').map_or(node, |(_, address)| address);
            let port =
                address.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse::<u16>().ok());
            match port {
                Some(1..) => Ok(SecretString::from(node)),
                _ => Err(self.wrong(key, "expected `host:port` for every node")),
            }
        };
        nodes.map(check).collect()
    }

    fn known(&self, keys: &[&str], warnings: &mut Vec<String>) {
        let unknown = self.object.into_iter().flat_map(Map::keys).filter(|key| !keys.contains(&key.as_str()));
        warnings.extend(unknown.map(|key| format!("{}: is not known and ignored", self.at(key))));
    }
}
