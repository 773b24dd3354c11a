//! What can be configured below [`Config`](super::Config).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::{Error, Result};

/// An object storage: S3, or Azure if the endpoint says so.
///
/// ```
/// use chronow::{Config, Space};
///
/// let space = Space::new("https://s3.eu-central-1.amazonaws.com", "AKIA…", "hunter2").bucket("payloads");
/// let config = Config::builder().mongo_uri("mongodb://localhost").space(space).build()?;
/// assert!(!format!("{config:?}").contains("hunter2"));
/// # Ok::<(), chronow::Error>(())
/// ```
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

impl Space {
    /// The bucket `chronow-payloads` of the storage at an endpoint (`https://HOST` or `http://HOST:PORT`), with
    /// access key and secret key; on Azure the account's name and its key.
    #[must_use]
    pub fn new(
        endpoint: impl Into<String>,
        access_key: impl Into<SecretString>,
        secret_key: impl Into<SecretString>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            bucket: "chronow-payloads".to_owned(),
        }
    }

    /// Another bucket.
    #[must_use]
    pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = bucket.into();
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.endpoint.is_empty() {
            return Err(wrong("space.endpoint", "is missing"));
        }
        if !["http://", "https://"].iter().any(|scheme| self.endpoint.starts_with(scheme)) {
            return Err(wrong("space.endpoint", "expected https://… or http://…"));
        }
        for (path, key) in [("space.accessKey", &self.access_key), ("space.secretKey", &self.secret_key)] {
            if key.expose_secret().is_empty() {
                return Err(wrong(path, "is missing"));
            }
        }
        Ok(())
    }
}

/// Where Redis is. Of several ways to name servers the last one given here wins: Sentinel, a cluster, a URL.
///
/// ```
/// use chronow::{Config, Redis};
///
/// let redis = Redis::sentinel(["a:26379", "b:26379"], "main").username("app").password("hunter2").tls(true);
/// let config = Config::builder().redis(redis).build()?;
/// assert!(!format!("{config:?}").contains("hunter2"));
/// # Ok::<(), chronow::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "it is part of no configuration before `ConfigBuilder::redis`"]
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
    /// Most messages a topic holds that a subscription still needs. Default 100,000.
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

macro_rules! given {
    ($($field:ident: $type:ty),* $(,)?) => {
        /// [`Defaults`], as far as they are given.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Given {
            $(pub(super) $field: Option<$type>,)*
        }

        impl Given {
            /// Takes the values that are not given from `other`.
            pub(super) fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }

            pub(super) fn into_defaults(self) -> Defaults {
                let otherwise = Defaults::default();
                Defaults { $($field: self.$field.unwrap_or(otherwise.$field),)* }
            }
        }

        impl From<Defaults> for Given {
            fn from(defaults: Defaults) -> Self {
                Self { $($field: Some(defaults.$field),)* }
            }
        }
    };
}

given! {
    tenant: String,
    namespace: String,
    hot_ttl: Option<Duration>,
    warm_retention: Duration,
    max_value_bytes: usize,
    max_payload_bytes: usize,
    max_message_bytes: usize,
    visibility: Duration,
    max_deliveries: u32,
    backoff: Vec<Duration>,
    max_len: u64,
}

impl Redis {
    /// No server yet.
    pub(super) fn nowhere() -> Self {
        Self {
            url: None,
            cluster_nodes: Vec::new(),
            sentinel: None,
            key_prefix: None,
            tls: None,
            ca_cert: None,
            username: None,
            password: None,
            db: None,
        }
    }

    /// One server, as `redis://[user:password@]host:port/db` or `rediss://…`; what is given beside the URL wins
    /// over what is in it.
    pub fn single(url: impl Into<SecretString>) -> Self {
        Self::nowhere().url(url)
    }

    /// A cluster that some nodes are known of, as `host:port` or URLs; the others are found through them.
    pub fn cluster<T: Into<SecretString>>(nodes: impl IntoIterator<Item = T>) -> Self {
        Self { cluster_nodes: nodes.into_iter().map(Into::into).collect(), ..Self::nowhere() }
    }

    /// The master that sentinels (`host:port`) know by a name.
    pub fn sentinel<T: Into<String>>(nodes: impl IntoIterator<Item = T>, master: impl Into<String>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        Self { sentinel: Some((nodes, master.into())), ..Self::nowhere() }
    }

    /// A URL whose scheme and login hold for the nodes of a cluster that have none of their own.
    pub fn url(mut self, url: impl Into<SecretString>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Puts this before every key. Default `cw:`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(prefix.into());
        self
    }

    /// Speaks TLS, or doesn't, whatever the URL says. Default: as the URL says, else no.
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = Some(tls);
        self
    }

    /// A PEM file of the authorities to trust. Default: the system's.
    pub fn ca_cert(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_cert = Some(file.into());
        self
    }

    /// The user. Default: that of the URL, else none.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password. Default: that of the URL, else none.
    pub fn password(mut self, password: impl Into<SecretString>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The database; a cluster has none but 0. Default: that of the URL, else 0.
    pub fn db(mut self, db: i64) -> Self {
        self.db = Some(db);
        self
    }

    /// Takes the settings that are not given, apart from the servers, from `other`.
    pub(super) fn with_settings_of(self, other: Self) -> Self {
        Self {
            key_prefix: self.key_prefix.or(other.key_prefix),
            tls: self.tls.or(other.tls),
            ca_cert: self.ca_cert.or(other.ca_cert),
            username: self.username.or(other.username),
            password: self.password.or(other.password),
            db: self.db.or(other.db),
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let nodes = self.cluster_nodes.iter().map(ExposeSecret::expose_secret);
        check_nodes("redis.clusterNodes", nodes)?;
        if let Some((nodes, master)) = &self.sentinel {
            check_nodes("redis.sentinel.nodes", nodes.iter().map(String::as_str))?;
            if nodes.is_empty() {
                return Err(wrong("redis.sentinel.nodes", "expected at least one `host:port`"));
            }
            if master.is_empty() {
                let message = "is missing: the name the sentinels know the master by";
                return Err(wrong("redis.sentinel.master", message));
            }
        }
        let schemes = ["redis://", "rediss://", "redis+unix://", "unix://"];
        match self.url.as_ref().map(ExposeSecret::expose_secret) {
            Some(url) if !schemes.iter().any(|scheme| url.starts_with(scheme)) => {
                Err(wrong("redis.url", "expected redis://… or rediss://…"))
            }
            None if self.cluster_nodes.is_empty() && self.sentinel.is_none() => {
                Err(wrong("redis.url", "is missing; Redis needs `url`, `clusterNodes` or `sentinel`"))
            }
            _ => Ok(()),
        }
    }
}

/// A `VALIDATION_ERROR` about the option at `path`, or the variable of that name.
pub(super) fn wrong(path: &str, message: impl fmt::Display) -> Error {
    Error::validation(format!("{path}: {message}"))
}

fn check_nodes<'n>(path: &str, mut nodes: impl Iterator<Item = &'n str>) -> Result<()> {
    let is_node = |node: &str| {
        let address = node.rsplit_once('@').map_or(node, |(_, address)| address);
        let port = address.rsplit_once(':').map(|(_, port)| port.trim_end_matches('/').parse::<u16>());
        matches!(port, Some(Ok(1..)))
    };
    if nodes.all(is_node) { Ok(()) } else { Err(wrong(path, "expected `host:port` for every node")) }
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
            config = config.key_prefix(prefix);
        }
        RedisConfig {
            tls: self.tls,
            ca_cert: self.ca_cert.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            db: self.db,
            ..config
        }
    }
}
