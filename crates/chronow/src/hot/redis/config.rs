//! Where Redis is and how to get in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};

use crate::{Error, Result};

/// Where the servers are.
#[derive(Clone)]
pub enum RedisServers {
    /// One server, as `redis://[user:password@]host:port/db` or `rediss://…`; what is given beside the URL
    /// wins over what is in it.
    Single(SecretString),
    /// Some nodes of a cluster, as `host:port` or URLs; the others are found through them.
    Cluster(Vec<SecretString>),
    /// Sentinels that know who is the master.
    Sentinel {
        /// Some of them, as `host:port`.
        nodes: Vec<String>,
        /// The name they know the master by.
        master: String,
    },
}

/// A hot tier on Redis 6.2 or later. [`RedisHot::connect`](super::RedisHot::connect) refuses an invalid one, as
/// [`check`](Self::check) does.
///
/// ```
/// use std::time::Duration;
/// use chronow::hot::redis::RedisConfig;
///
/// let config = RedisConfig::cluster(["a:6379", "b:6379"])
///     .username("app")
///     .password("hunter2")
///     .tls(true)
///     .key_prefix("app:")
///     .response_timeout(Duration::from_secs(3));
/// config.check()?;
/// assert!(!format!("{config:?}").contains("hunter2"));
/// # Ok::<(), chronow::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use = "it is connected by `RedisHot::connect`"]
pub struct RedisConfig {
    /// Where the servers are.
    pub servers: RedisServers,
    /// Put before every key. Default `cw:`.
    pub key_prefix: String,
    /// Speak TLS; `false` turns it off even for `rediss://`. Default: as the URL says, else no.
    pub tls: Option<bool>,
    /// A PEM file of the authorities to trust, instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// The database (not in a cluster).
    pub db: Option<i64>,
    /// How long an answer may take. Default 10 s. Blocking reads have connections of their own, without it.
    pub response_timeout: Duration,
    /// How long connecting may take. Default 5 s.
    pub connect_timeout: Duration,
}

impl RedisConfig {
    fn new(servers: RedisServers) -> Self {
        Self {
            servers,
            key_prefix: "cw:".to_owned(),
            tls: None,
            ca_cert: None,
            username: None,
            password: None,
            db: None,
            response_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Configures one server.
    pub fn single(url: impl Into<String>) -> Self {
        Self::new(RedisServers::Single(url.into().into()))
    }

    /// Configures a cluster of which some nodes are known.
    pub fn cluster<T: Into<String>>(nodes: impl IntoIterator<Item = T>) -> Self {
        Self::new(RedisServers::Cluster(nodes.into_iter().map(|node| node.into().into()).collect()))
    }

    /// Configures the master that sentinels name.
    pub fn sentinel<T: Into<String>>(nodes: impl IntoIterator<Item = T>, master: impl Into<String>) -> Self {
        Self::new(RedisServers::Sentinel {
            nodes: nodes.into_iter().map(Into::into).collect(),
            master: master.into(),
        })
    }

    /// Puts this before every key: no braces, no control characters. Default `cw:`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Speaks TLS, or doesn't, whatever the URL says. Default: as the URL says, else no.
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = Some(tls);
        self
    }

    /// A PEM file of the authorities to trust, instead of the system's.
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

    /// How long an answer may take. Default 10 s. Blocking reads have connections of their own, without it.
    pub fn response_timeout(mut self, limit: Duration) -> Self {
        self.response_timeout = limit;
        self
    }

    /// How long connecting may take. Default 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Checks everything that needs no server.
    ///
    /// # Errors
    /// `VALIDATION_ERROR`, never with a credential in it.
    pub fn check(&self) -> Result<()> {
        // Braces would move the hash tag of every topic.
        if self.key_prefix.contains(['{', '}']) || self.key_prefix.chars().any(char::is_control) {
            return Err(Error::validation(
                "the key prefix of Redis may not hold braces or control characters",
            ));
        }
        match &self.servers {
            RedisServers::Single(_) => {
                self.nodes()?;
            }
            RedisServers::Cluster(nodes) => {
                if nodes.is_empty() {
                    return Err(Error::validation("a Redis cluster needs at least one node"));
                }
                if self.db.is_some_and(|db| db != 0) {
                    return Err(Error::validation("a Redis cluster has no databases but 0"));
                }
                self.nodes()?;
            }
            RedisServers::Sentinel { nodes, master } => {
                if nodes.is_empty() || master.is_empty() {
                    return Err(Error::validation(
                        "Sentinel needs at least one node and the name of the master",
                    ));
                }
                for node in nodes {
                    address(node)?;
                }
            }
        }
        Ok(())
    }

    /// The servers that are named themselves (none for Sentinel).
    pub(super) fn nodes(&self) -> Result<Vec<ConnectionInfo>> {
        match &self.servers {
            RedisServers::Single(url) => Ok(vec![self.info(url.expose_secret())?]),
            RedisServers::Cluster(nodes) => {
                nodes.iter().map(|node| self.info(node.expose_secret())).collect()
            }
            RedisServers::Sentinel { .. } => Ok(Vec::new()),
        }
    }

    /// The sentinels.
    pub(super) fn sentinels(&self) -> Result<Vec<ConnectionAddr>> {
        match &self.servers {
            RedisServers::Sentinel { nodes, .. } => {
                nodes.iter().map(|node| address(node).map(|(host, port)| self.addr(host, port))).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    pub(super) fn certificates(&self) -> Result<Option<TlsCertificates>> {
        let Some(path) = &self.ca_cert else { return Ok(None) };
        let pem = std::fs::read(path).map_err(|error| {
            Error::validation(format!("the CA certificate `{}` cannot be read: {error}", path.display()))
                .caused_by(error)
        })?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.tls.unwrap_or(false)
            || self.nodes().is_ok_and(|nodes| {
                nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }))
            })
    }

    fn info(&self, text: &str) -> Result<ConnectionInfo> {
        let info = if text.contains("://") {
            // The parser's error is left out: it may quote what it read.
            text.into_connection_info().map_err(|_| {
                Error::validation("a Redis URL looks like redis://[user:password@]host:port/db")
            })?
        } else {
            let (host, port) = address(text)?;
            ConnectionAddr::Tcp(host, port)
                .into_connection_info()
                .map_err(|_| Error::validation("a Redis node looks like host:port"))?
        };
        let addr = match (info.addr().clone(), self.tls) {
            (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }, Some(_)) => {
                self.addr(host, port)
            }
            (addr, _) => addr,
        };
        let settings = self.settings(info.redis_settings().clone());
        Ok(info.set_addr(addr).set_redis_settings(settings))
    }

    fn settings(&self, mut settings: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose_secret());
        }
        if let Some(db) = self.db {
            settings = settings.set_db(db);
        }
        settings.set_lib_name("chronow", env!("CARGO_PKG_VERSION"))
    }

    fn addr(&self, host: String, port: u16) -> ConnectionAddr {
        if self.tls.unwrap_or(false) {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }
}

fn address(node: &str) -> Result<(String, u16)> {
    let wrong = || Error::validation("a Redis node looks like host:port");
    let (host, port) = node.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains('@') {
        return Err(wrong());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// A URL or address without what is secret in it.
fn redacted(secret: &SecretString) -> String {
    let text = secret.expose_secret();
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) => format!("{}://[redacted]@{}", &text[..scheme], &text[at + 1..]),
        (None, Some(at)) => format!("[redacted]@{}", &text[at + 1..]),
        (_, None) => text.to_owned(),
    }
}

impl fmt::Debug for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(url) => f.debug_tuple("Single").field(&redacted(url)).finish(),
            Self::Cluster(nodes) => {
                f.debug_tuple("Cluster").field(&nodes.iter().map(redacted).collect::<Vec<_>>()).finish()
            }
            Self::Sentinel { nodes, master } => {
                f.debug_struct("Sentinel").field("nodes", nodes).field("master", master).finish()
            }
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("servers", &self.servers)
            .field("key_prefix", &self.key_prefix)
            .field("tls", &self.tls)
            .field("ca_cert", &self.ca_cert)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_configuration_shows_no_password() {
        let config = RedisConfig::single("redis://user:s3cret@host:6379/2").password("t0psecret");
        let cluster = RedisConfig::cluster(["redis://user:s3cret@host:6379"]);
        let printed = format!("{config:?} {cluster:?}");
        assert!(!printed.contains("s3cret") && !printed.contains("t0psecret"), "{printed}");
        assert!(printed.contains("@host:6379/2"), "{printed}");
    }

    #[test]
    fn what_is_given_beside_the_url_wins() {
        let config = RedisConfig::single("rediss://u:p@h:7000/3").tls(false).password("other").db(4);
        let node = config.nodes().unwrap().remove(0);
        assert!(matches!(node.addr(), ConnectionAddr::Tcp(host, 7000) if host == "h"));
        assert_eq!(node.redis_settings().password(), Some("other"));
        assert_eq!(node.redis_settings().username(), Some("u"));
        assert_eq!(node.redis_settings().db(), 4);
    }

    #[test]
    fn wrong_configurations_are_refused_without_their_secrets() {
        let bad = [
            RedisConfig::single("redis://u:s3cret@h:notaport"),
            RedisConfig::cluster(Vec::<String>::new()),
            RedisConfig::cluster(["u:s3cret@h"]),
            RedisConfig::sentinel(["h:1"], ""),
            RedisConfig::single("redis://h").key_prefix("{a}"),
        ];
        for config in bad {
            let error = config.check().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }
}
