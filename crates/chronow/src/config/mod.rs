//! The configuration: from JSON, from the environment, or both.
//!
//! This file says what can be configured, `read.rs` reads it from the `chronow` section, `environment.rs` from
//! variables, and `part.rs` names the place of what is wrong. Nothing here connects to anything.

mod environment;
mod part;
mod read;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use self::environment::{environment, overlay};
use self::part::Part;
use self::read::{read_defaults, read_redis, read_space, with_login};
use crate::{Json, Result};

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
