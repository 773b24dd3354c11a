//! What the server is, as far as it matters for messages.

use std::fmt;

use redis::{InfoDict, Value, cmd, from_redis_value};

use super::RedisHot;
use super::errors::failed;
use super::reply::text;
use crate::{Error, ErrorKind, Result};

/// What a server says of itself.
pub(super) struct Server {
    version: String,
    mode: String,
    policy: String,
    limit: u64,
    aof: bool,
    fsync: Option<String>,
}

impl RedisHot {
    pub(super) async fn server(&self) -> Result<Server> {
        let info = async |section: &str| -> Result<InfoDict> {
            let mut info = cmd("INFO");
            info.arg(section);
            let node = if self.connection.is_cluster() {
                self.reader().masters().await?.into_iter().next()
            } else {
                None
            };
            let value = self.connection.run_at(info, node.as_ref()).await?;
            from_redis_value(value).map_err(|error| failed(error.into()))
        };
        let about = info("server").await?;
        let memory = info("memory").await?;
        let persistence = info("persistence").await?;
        let aof = persistence.get::<u8>("aof_enabled").unwrap_or(0) == 1;
        Ok(Server {
            version: about.get("redis_version").unwrap_or_default(),
            mode: about.get("redis_mode").unwrap_or_default(),
            policy: memory.get("maxmemory_policy").unwrap_or_default(),
            limit: memory.get("maxmemory").unwrap_or(0),
            aof,
            fsync: if aof { self.fsync().await } else { None },
        })
    }

    /// Managed servers refuse to show their settings; then it stays unknown.
    async fn fsync(&self) -> Option<String> {
        let mut get = cmd("CONFIG");
        get.arg("GET").arg("appendfsync");
        match self.connection.run_at(get, None).await {
            Ok(Value::Array(mut pair)) if pair.len() == 2 => pair.pop().and_then(|value| text(value).ok()),
            _ => None,
        }
    }
}

impl Server {
    /// Refuses what cannot work, and warns of what loses messages.
    pub(super) fn check(&self) -> Result<()> {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if !self.version.is_empty() && version < (6, 2) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("Redis {} is too old: 6.2 or later is needed", self.version),
            ));
        }
        if !self.policy.is_empty() && self.policy != "noeviction" {
            tracing::warn!(policy = %self.policy, "Redis may evict messages and values when its memory is full: set maxmemory-policy to noeviction");
        }
        if !self.aof {
            tracing::warn!("Redis keeps no append-only file: what it acknowledged is lost if it crashes");
        }
        Ok(())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, mode, policy, limit, aof, fsync } = self;
        write!(f, "Redis {version} ({mode}); ")?;
        match limit {
            0 => write!(f, "no memory limit, ")?,
            limit => write!(f, "memory limit {} MiB, ", limit / (1 << 20))?,
        }
        write!(f, "policy {policy}")?;
        if policy != "noeviction" && !policy.is_empty() {
            write!(f, " (may evict messages)")?;
        }
        match (aof, fsync) {
            (false, _) => {
                write!(f, "; append-only file off (a crash loses what was acknowledged since the last save)")
            }
            (true, Some(fsync)) => write!(f, "; append-only file on, fsync {fsync}"),
            (true, None) => write!(f, "; append-only file on"),
        }
    }
}
