//! Where the servers of `scripts/services` are, and names nobody else uses on them.
//!
//! # Panics
//! Every function panics if the server isn't named in the environment: a test that needs a server fails
//! without it, it is never skipped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// An S3 server and its only account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// The URL; buckets are addressed by path.
    pub endpoint: String,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
}

/// An Azure Blob server and its only account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Azure {
    /// The URL with the account's path.
    pub endpoint: String,
    /// The account's name.
    pub account: String,
    /// The account's key, in base64.
    pub key: String,
}

/// The MongoDB replica set (of one member), which has transactions and change streams.
#[must_use]
pub fn mongo_rs_uri() -> String {
    variable("MONGO_RS_URI")
}

/// The MongoDB replica set of three members, with fail points. One test at a time holds back its members or
/// elects another primary, by [`ReplicaSet::of_services`](crate::ReplicaSet::of_services); who wants to kill
/// or freeze members starts a set of its own.
#[must_use]
pub fn mongo_rs3_uri() -> String {
    variable("MONGO_RS3_URI")
}

/// The MongoDB server without a replica set, which has neither.
#[must_use]
pub fn mongo_standalone_uri() -> String {
    variable("MONGO_STANDALONE_URI")
}

/// The S3 server that checks signatures. Its create-only put is racy; for races use [`moto_endpoint`].
#[must_use]
pub fn s3() -> S3 {
    S3 {
        endpoint: variable("S3_ENDPOINT"),
        access_key: variable("S3_ACCESS_KEY"),
        secret_key: variable("S3_SECRET_KEY"),
    }
}

/// The S3 server whose create-only put is atomic. It takes any credentials and doesn't check signatures.
#[must_use]
pub fn moto_endpoint() -> String {
    variable("MOTO_ENDPOINT")
}

/// The Azure Blob server.
#[must_use]
pub fn azure() -> Azure {
    Azure {
        endpoint: variable("AZURE_ENDPOINT"),
        account: variable("AZURE_ACCOUNT"),
        key: variable("AZURE_KEY"),
    }
}

/// The single Redis server.
#[must_use]
pub fn redis_url() -> String {
    variable("REDIS_URL")
}

/// The nodes of the Redis cluster as `host:port`, masters and replicas.
#[must_use]
pub fn redis_cluster_nodes() -> Vec<String> {
    let text = variable("REDIS_CLUSTER_NODES");
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("REDIS_CLUSTER_NODES is not a JSON array of strings ({error}): {text}")
    })
}

/// `prefix` with something behind it that no other call returns, in this or another process: good for
/// databases, buckets and containers.
///
/// # Panics
/// If `prefix` isn't made of `a`-`z`, `0`-`9` and single inner `-`, starting with a letter, at most 24 of
/// them: not every server takes others.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let fits = prefix.len() <= 24
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !prefix.contains("--")
        && !prefix.ends_with('-');
    assert!(
        fits,
        "`{prefix}` is not a prefix for names on every server: use at most 24 of a-z, 0-9 and single dashes inside"
    );
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the machine's clock is set to before 1970")
        .as_millis();
    format!("{prefix}-{millis:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!(
            "{name} is not set: start the servers with `scripts/services up` and `eval \"$(scripts/services env)\"`, or run `scripts/test`"
        ),
    }
}
