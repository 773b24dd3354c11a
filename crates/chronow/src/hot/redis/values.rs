//! Shared memory: a hash per key with its version, bytes and media type; a tombstone has no bytes. Conditions
//! are checked by scripts.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use redis::{Value as Reply, cmd, pipe};

use super::RedisHot;
use super::connection::SharedConnection;
use super::keys::Keys;
use super::reply::{Parts, bytes, count, list, number, text, unexpected};
use super::script::{Args, scripts};
use crate::hot::millis::to_millis;
use crate::hot::{Incremented, Precondition, Value};
use crate::{Error, ErrorKind, Page, Result, Scope};

fn millis(ttl: Duration) -> u64 {
    // Nothing lives for zero milliseconds; the server counts with 63 bits, from the epoch.
    to_millis(ttl).clamp(1, 1 << 52)
}

/// What reading values takes.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) connection: SharedConnection,
    pub(super) keys: Keys,
}

impl Reader {
    pub(super) async fn read_values(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>> {
        try_join_all(keys.iter().map(async |key| {
            let at = self.keys.value(scope, key);
            let mut both = pipe();
            both.cmd("HMGET").arg(&at).arg(&["version", "value", "type"]).cmd("PTTL").arg(&at);
            let mut replies = self.connection.run_all(&both).await?.into_iter();
            let mut next = || replies.next().unwrap_or_default();
            let mut fields = Parts::of(next())?;
            let left = number(next())?;
            let (version, value, content_type) = (fields.next(), fields.next(), fields.next());
            // -2: it expired in between.
            if version == Reply::Nil || left == -2 {
                return Ok(None);
            }
            Ok(Some(Value {
                bytes: if value == Reply::Nil { None } else { Some(bytes(value)?) },
                content_type: if content_type == Reply::Nil { String::new() } else { text(content_type)? },
                version: count(version)?,
                ttl: u64::try_from(left).ok().map(Duration::from_millis),
            }))
        }))
        .await
    }

    pub(super) async fn list_keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>> {
        let nodes = if self.connection.is_cluster() { self.masters().await? } else { Vec::new() };
        let (mut node, mut position) = match after {
            None => (0, 0_u64),
            Some(cursor) => {
                let wrong = || Error::validation(format!("`{cursor}` is not a cursor of a page of keys"));
                let (position, at) = cursor.split_once('@').ok_or_else(wrong)?;
                let position = position.parse().map_err(|_| wrong())?;
                match nodes.iter().position(|(host, port)| at == format!("{host}:{port}")) {
                    Some(node) => (node, position),
                    None if nodes.is_empty() => (0, position),
                    // That master is gone, and with it the sense of the cursor: all over again, so that no
                    // key is missed.
                    None => (0, 0),
                }
            }
        };
        let pattern = self.keys.pattern(scope, prefix);
        let start = self.keys.value(scope, "").len();
        let mut found = Vec::new();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(position)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(limit.clamp(100, 10_000))
                .arg("TYPE")
                .arg("hash");
            let mut reply = Parts::of(self.connection.run_at(scan, nodes.get(node)).await?)?;
            position = scan_cursor(reply.next())?;
            let page: Vec<String> = reply.list()?.into_iter().map(text).collect::<Result<_>>()?;
            let there = try_join_all(
                page.iter()
                    .map(async |at| number(self.connection.run(cmd("HEXISTS").arg(at).arg("value")).await?)),
            )
            .await?;
            found.extend(
                page.into_iter()
                    .zip(there)
                    .filter(|(_, there)| *there == 1)
                    .map(|(at, _)| at[start..].to_owned()),
            );
            if position == 0 {
                node += 1;
                if node >= nodes.len().max(1) {
                    return Ok(Page::new(found, None));
                }
            }
            if found.len() >= limit as usize {
                let at = nodes.get(node).map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
                return Ok(Page::new(found, Some(format!("{position}@{at}"))));
            }
        }
    }

    /// The masters of the cluster, always in the same order.
    pub(super) async fn masters(&self) -> Result<Vec<(String, u16)>> {
        let mut masters = Vec::new();
        for range in list(self.connection.run(&cmd_with("CLUSTER", "SLOTS")).await?)? {
            let master = list(range)?.into_iter().nth(2).unwrap_or_default();
            let mut master = Parts::of(master)?;
            let host = master.text()?;
            let port = u16::try_from(master.count()?).map_err(|_| unexpected(&Reply::Nil))?;
            masters.push((host, port));
        }
        masters.sort_unstable();
        masters.dedup();
        Ok(masters)
    }
}

impl RedisHot {
    pub(super) fn reader(&self) -> Reader {
        Reader { connection: self.connection.clone(), keys: self.keys.clone() }
    }

    pub(super) async fn write_value(
        &self,
        scope: &Scope,
        key: &str,
        value: Option<Bytes>,
        content_type: &str,
        ttl: Option<Duration>,
        when: Precondition,
    ) -> Result<Option<u64>> {
        let args = Args::new().arg(self.keys.changes(scope)).arg(key);
        let args = match when {
            Precondition::Always => args.arg("always"),
            Precondition::Absent => args.arg("absent"),
            Precondition::Unknown => args.arg("unknown"),
            Precondition::UnknownSince(version) => args.arg(format!("since {version}")),
            Precondition::Version(version) => args.arg(version),
        };
        let args = args
            .arg(u8::from(value.is_some()))
            .bytes(value.as_deref().unwrap_or_default())
            .arg(content_type)
            .maybe(ttl.map(millis));
        match self.connection.eval(&scripts::kv_set, &[self.keys.value(scope, key)], &args).await? {
            Reply::Nil => Ok(None),
            version => count(version).map(Some),
        }
    }

    pub(super) async fn remove_value(&self, scope: &Scope, key: &str) -> Result<bool> {
        let args = Args::new().arg(self.keys.changes(scope)).arg(key);
        Ok(number(self.connection.eval(&scripts::kv_remove, &[self.keys.value(scope, key)], &args).await?)?
            == 1)
    }

    pub(super) async fn expire_value(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        let args = Args::new().arg(self.keys.changes(scope)).arg(key).arg(millis(ttl));
        Ok(number(self.connection.eval(&scripts::kv_expire, &[self.keys.value(scope, key)], &args).await?)?
            == 1)
    }

    pub(super) async fn add_to_value(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented> {
        let args = Args::new().arg(self.keys.changes(scope)).arg(key).arg(by).maybe(ttl.map(millis));
        let mut reply = Parts::of(
            self.connection.eval(&scripts::kv_increment, &[self.keys.value(scope, key)], &args).await?,
        )?;
        if reply.text()? == "ok" {
            return Ok(Incremented { number: reply.number()?, version: reply.count()? });
        }
        let refusal = reply.text()?;
        if refusal.contains("overflow") {
            Err(Error::validation("the sum does not fit into 64 bits").on(key))
        } else if refusal.contains("not an integer") {
            Err(Error::validation("the value is not a whole number of 64 bits").on(key))
        } else {
            let refusal = refusal.trim_start_matches('-');
            let error = Error::new(ErrorKind::HotTier, format!("Redis refused to count: {refusal}"));
            Err(if refusal.contains("OOM") { error.retryable() } else { error })
        }
    }
}

/// It has 64 bits, more than a signed number.
fn scan_cursor(value: Reply) -> Result<u64> {
    text(value)?.parse().map_err(|_| unexpected(&Reply::Nil))
}

fn cmd_with(name: &str, argument: &str) -> redis::Cmd {
    let mut command = cmd(name);
    command.arg(argument);
    command
}
