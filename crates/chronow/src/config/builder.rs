//! Building a configuration in Rust, and the one place where configurations are checked.

use std::path::PathBuf;
use std::time::Duration;

use chronos_db::config::Warning;
use chronos_db::config::section::{Unit, in_range};
use secrecy::SecretString;

use super::Config;
use super::model::{Defaults, Given, Redis, Space, wrong};
use crate::hot::{SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch};
use crate::{Error, Result, Scope};

/// Builds a [`Config`] in Rust. Every method corresponds to an option of the section `chronow`, and
/// [`build`](Self::build) checks the configuration by the same rules.
///
/// ```
/// use std::time::Duration;
/// use chronow::{Config, Redis};
///
/// let config = Config::builder()
///     .redis(Redis::single("redis://localhost:6379").password("hunter2").key_prefix("app:"))
///     .namespace("orders")
///     .visibility(Duration::from_secs(60))
///     .max_deliveries(9)
///     .build()?;
/// assert_eq!(config.defaults.visibility, Duration::from_secs(60));
/// assert!(!format!("{config:?}").contains("hunter2"));
///
/// let error = Config::builder().redis(Redis::cluster(["somewhere"])).build().unwrap_err();
/// assert_eq!(error.message(), "redis.clusterNodes: expected `host:port` for every node");
/// # Ok::<(), chronow::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    pub(super) redis: Option<Redis>,
    pub(super) mongo_only: Option<bool>,
    pub(super) mongo_uri: Option<SecretString>,
    pub(super) embedded: Option<PathBuf>,
    pub(super) space: Option<Space>,
    pub(super) defaults: Given,
    pub(super) warnings: Vec<Warning>,
}

impl Config {
    /// Returns a builder with the default of every option.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Returns a builder with the options of this configuration.
    ///
    /// ```
    /// use chronow::Config;
    ///
    /// let read = Config::from_json(&chronos_db::json!({"defaults": {"maxDeliveries": 9}}))?;
    /// let config = read.into_builder().tenant("acme").build()?;
    /// assert_eq!((config.defaults.tenant.as_str(), config.defaults.max_deliveries), ("acme", 9));
    /// # Ok::<(), chronow::Error>(())
    /// ```
    pub fn into_builder(self) -> ConfigBuilder {
        let Self { redis, mongo_only, mongo_uri, embedded, space, defaults, warnings } = self;
        let (mongo_only, defaults) = (Some(mongo_only), defaults.into());
        ConfigBuilder { redis, mongo_only, mongo_uri, embedded, space, defaults, warnings }
    }
}

impl ConfigBuilder {
    /// The hot tier is on Redis. Default: it is the messaging database.
    pub fn redis(mut self, redis: Redis) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Whether the hot tier is the messaging database even if Redis is configured. Default: no.
    pub fn mongo_only(mut self, only: bool) -> Self {
        self.mongo_only = Some(only);
        self
    }

    /// MongoDB as `mongodb://…` or `mongodb+srv://…`, for connecting without a chronos-db of one's own. Default:
    /// none.
    pub fn mongo_uri(mut self, uri: impl Into<SecretString>) -> Self {
        self.mongo_uri = Some(uri.into());
        self
    }

    /// The folder of the embedded store, for connecting without anything else; `:memory:` is none. Default
    /// `./chronow-data`.
    pub fn embedded(mut self, folder: impl Into<PathBuf>) -> Self {
        self.embedded = Some(folder.into());
        self
    }

    /// A storage for large payloads, for connecting without a chronos-db of one's own. Default: the folder of the
    /// embedded store; with a server, none.
    pub fn space(mut self, space: Space) -> Self {
        self.space = Some(space);
        self
    }

    /// The tenant. Default `default`.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.defaults.tenant = Some(tenant.into());
        self
    }

    /// The namespace. Default `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.defaults.namespace = Some(namespace.into());
        self
    }

    /// How long values stay in the hot tier; none is for ever. Default one hour.
    pub fn hot_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.defaults.hot_ttl = Some(ttl);
        self
    }

    /// How long copies stay in the warm tier: whole days, at least one. Default 30 days.
    pub fn warm_retention(mut self, time: Duration) -> Self {
        self.defaults.warm_retention = Some(time);
        self
    }

    /// The largest value, in bytes; at least 1. Default 256 KiB.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.defaults.max_value_bytes = Some(bytes);
        self
    }

    /// The largest payload the hot tier holds, in bytes; at least 1. Larger ones go to the object storage of the
    /// messaging database, if it has one; else they are refused. Default 256 KiB.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.defaults.max_payload_bytes = Some(bytes);
        self
    }

    /// The largest payload of a message wherever it lies, in bytes; at least 1. A consumer has it in memory.
    /// Default 16 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.defaults.max_message_bytes = Some(bytes);
        self
    }

    /// How long a message is locked for its consumer, from 100 ms to 12 hours. Default 30 s.
    pub fn visibility(mut self, timeout: Duration) -> Self {
        self.defaults.visibility = Some(timeout);
        self
    }

    /// Most handler starts per message, from 1 to 1,000,000. Default 5.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.defaults.max_deliveries = Some(deliveries);
        self
    }

    /// Waits before the second, third … delivery, from 1 to 100 of up to ten years; the last one repeats. Default
    /// 1, 5, 30 s.
    pub fn backoff(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.defaults.backoff = Some(waits.into_iter().collect());
        self
    }

    /// Most messages a topic holds that a subscription still needs; at least 1. Default 100,000.
    pub fn max_len(mut self, messages: u64) -> Self {
        self.defaults.max_len = Some(messages);
        self
    }

    /// Takes the options that are not set from `other`.
    pub(super) fn or(mut self, other: Self) -> Self {
        // Servers are one choice: a configuration that names some means those alone.
        self.mongo_only = self.mongo_only.or(other.mongo_only.filter(|_| self.redis.is_none()));
        self.redis = match (self.redis, other.redis) {
            (Some(own), Some(other)) => Some(own.with_settings_of(other)),
            (own, other) => own.or(other),
        };
        self.mongo_uri = self.mongo_uri.or(other.mongo_uri);
        self.embedded = self.embedded.or(other.embedded);
        self.space = self.space.or(other.space);
        self.defaults = self.defaults.or(other.defaults);
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self
    }

    /// Checks the configuration and returns it.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the path that the invalid option has in JSON; it never contains a credential.
    pub fn build(self) -> Result<Config> {
        let config = Config {
            redis: self.redis,
            mongo_only: self.mongo_only.unwrap_or(false),
            mongo_uri: self.mongo_uri,
            embedded: self.embedded,
            space: self.space,
            defaults: self.defaults.into_defaults(),
            warnings: self.warnings,
        };
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// Checks every field again: they are public and may have been set after `build`.
    pub(crate) fn check(&self) -> Result<()> {
        check_defaults(&self.defaults)?;
        if let Some(redis) = &self.redis {
            redis.check()?;
        }
        if let Some(space) = &self.space {
            space.check()?;
        }
        if self.embedded.as_ref().is_some_and(|folder| folder.to_str().is_none()) {
            return Err(wrong("embedded", "the folder of the embedded store has a name that is not UTF-8"));
        }
        Ok(())
    }
}

fn check_defaults(defaults: &Defaults) -> Result<()> {
    let at = |key: &'static str| move |error: Error| wrong(&format!("defaults.{key}"), error.message());
    for (key, name) in [("tenantId", &defaults.tenant), ("namespace", &defaults.namespace)] {
        Scope::new(name, name).map_err(at(key))?;
    }
    let days = Unit::Days.count(defaults.warm_retention);
    in_range("defaults.warmRetentionDays", days, 1, u32::MAX.into())?;
    for (key, bytes) in [
        ("maxValueBytes", defaults.max_value_bytes),
        ("maxPayloadBytes", defaults.max_payload_bytes),
        ("maxMessageBytes", defaults.max_message_bytes),
    ] {
        if bytes == 0 {
            return Err(wrong(&format!("defaults.{key}"), "must be at least 1"));
        }
    }
    if defaults.hot_ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(wrong("defaults.hotTtlSeconds", "must be more than 0; without it values stay"));
    }
    let patch = SubscriptionPatch::default;
    for (key, patch) in [
        ("visibilityTimeoutMs", patch().visibility(defaults.visibility)),
        ("maxDeliveries", patch().max_deliveries(defaults.max_deliveries)),
        ("retryBackoffMs", patch().backoff(defaults.backoff.iter().copied())),
    ] {
        patch.apply(&SubscriptionOptions::default()).check().map_err(at(key))?;
    }
    let topic = TopicPatch::default().max_len(defaults.max_len);
    topic.apply(&TopicOptions::default()).check().map_err(at("maxStreamLen"))
}
