//! The configuration: from JSON, from the environment, from both, or made in Rust.
//!
//! This file and `model.rs` say what can be configured. `load.rs` reads it: `read.rs` from the `chronow` section,
//! with the reader of chronos-db, `environment.rs` from variables; both give a `ConfigBuilder` (`builder.rs`),
//! which checks it. Nothing here connects to anything.

use std::path::PathBuf;

use chronos_db::config::Warning;
use secrecy::SecretString;

pub use self::builder::ConfigBuilder;
pub use self::model::{Defaults, Redis, Space};

mod builder;
mod environment;
mod load;
mod model;
mod read;

/// Where the hot tier is, and what holds unless a call says otherwise; [`Config::builder`] makes one in Rust. The
/// default is an embedded store in `./chronow-data`.
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
    pub warnings: Vec<Warning>,
}
