//! The configuration: from JSON, from the environment, or both.
//!
//! This file and `model.rs` say what can be configured, `read.rs` reads it from the `chronow` section,
//! `environment.rs` from variables, and `part.rs` names the place of what is wrong. Nothing here connects to
//! anything.

use std::path::PathBuf;

use secrecy::SecretString;

use self::environment::{environment, overlay};
pub use self::model::{Defaults, Redis, Space};
use self::part::Part;
use self::read::{read_defaults, read_redis, read_space};
use crate::{Json, Result};

mod environment;
mod model;
mod part;
mod read;

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
