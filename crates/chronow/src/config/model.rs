//! What can be configured below [`Config`](super::Config).

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "redis")]
use secrecy::ExposeSecret;
use secrecy::SecretString;

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
    /// How long copies stay in the warm tier; whole days. Default 30 days.
    pub warm_retention: Duration,
    /// The largest value, in bytes. Default 256 KiB.
    pub max_value_bytes: usize,
    /// The largest payload the hot tier holds, in bytes. Larger ones go to the object storage of the
    /// messaging database, if it has one; else they are refused. Default 256 KiB.
    pub max_payload_bytes: usize,
    /// The largest payload of a message wherever it lies, in bytes: a consumer has it in memory. Default 16
    /// MiB.
    pub max_message_bytes: usize,
    /// How long a message is locked for its consumer. Default 30 s.
    pub visibility: Duration,
    /// Most handler starts per message. Default 5.
    pub max_deliveries: u32,
    /// Waits before the second, third … delivery. Default 1, 5, 30 s.
    pub backoff: Vec<Duration>,
    /// Most messages a topic holds that somebody still needs. Default 100,000.
    pub max_len: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            tenant: "default".to_owned(),
            namespace: "default".to_owned(),
            hot_ttl: Some(Duration::from_secs(3_600)),
            warm_retention: Duration::from_secs(30 * 86_400),
            max_value_bytes: 262_144,
            max_payload_bytes: 262_144,
            max_message_bytes: 16 * 1_024 * 1_024,
            visibility: Duration::from_secs(30),
            max_deliveries: 5,
            backoff: [1, 5, 30].map(Duration::from_secs).to_vec(),
            max_len: 100_000,
        }
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
