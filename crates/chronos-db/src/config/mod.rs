//! One model for every configuration: read from a file of either shape, v2 (`dbConnections`) or v1
//! (`mongoUris`), or built in Rust with [`Config::builder`].
//!
//! `load.rs` finds out which shape a text has; `v1.rs` and `v2.rs` read connections and databases,
//! `settings.rs`, `collections.rs`, `counter_rules.rs` and `analytics_rules.rs` everything else, all of them through `section.rs`,
//! whose errors name the JSON path. `builder.rs` takes the same from Rust, a database as `database.rs` has it,
//! counter rules as
//! `counter_rule.rs`, analytics rules as `analytics_rule.rs`, the rest as `construct.rs` makes it. The rules are the same for both: `assemble.rs` knows those of databases
//! and `bucket_names.rs` those of their buckets, `identifiers.rs` checks names, `uri.rs` and `object_space.rs`
//! connections, `collections.rs` the paths of properties. `describe.rs` shows a configuration without its
//! secrets. Nothing here opens a connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::Json;

mod analytics_rule;
mod analytics_rules;
mod assemble;
mod bucket_names;
mod builder;
mod collections;
mod construct;
mod counter_rule;
mod counter_rules;
mod database;
mod describe;
mod expand;
mod fallback;
mod identifiers;
mod load;
mod names;
mod object_space;
mod owner;
mod relative_time;
mod rollup;
pub mod section;
mod settings;
mod uri;
mod v1;
mod v2;
mod write_optimization;

pub use analytics_rule::{CrossTenantRule, TimeBasedRule};
pub use analytics_rules::{AnalyticsOperation, CrossTenantMode, Timeframe};
pub(crate) use analytics_rules::{AnalyticsRule, AnalyticsRules, CrossTenant, TimeBased};
pub use builder::ConfigBuilder;
pub use counter_rule::CounterRule;
pub(crate) use counter_rules::{CheckedRule, CounterRules};
pub use counter_rules::{CountedOp, CounterRetention, RuleScope};
pub use database::Database;
pub use expand::expand_env;
pub use fallback::Fallback;
pub(crate) use fallback::{COUNTER, OPERATIONS};
pub(crate) use identifiers::check_database;
pub use load::Counters;
pub(crate) use load::OneStore;
pub(crate) use owner::Owner;
pub(crate) use section::closest;
pub use write_optimization::WriteOptimization;

/// An in-memory store is its connection's own, though all of them have this connection string.
pub(crate) const IN_MEMORY: &str = "embedded::memory:";

/// A checked configuration, read ([`Config::from_file`]) or built ([`Config::builder`]). Secrets never show in
/// `Debug`.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Document connections by reference.
    pub connections: BTreeMap<String, DocumentConnection>,
    /// Object storage connections by reference.
    pub spaces: BTreeMap<String, SpaceConnection>,
    /// Every database a route can lead to.
    pub entries: Vec<Entry>,
    /// Objects in a local folder instead of the spaces.
    pub local_storage: Option<PathBuf>,
    /// How v1 contexts without a database type are spread.
    pub routing: Routing,
    /// What a collection indexes, requires and externalises, by collection name.
    pub collection_maps: BTreeMap<String, CollectionMap>,
    /// Keep the latest payload in the head.
    pub dev_shadow: Option<DevShadow>,
    /// Bounds of the version index.
    pub retention: Retention,
    /// How versions that leave the index are rolled up.
    pub rollup: Rollup,
    /// Whether a delete leaves a deleted head (default) or erases the item.
    pub logical_delete: bool,
    /// Whether superseded versions are kept (default).
    pub versioning: bool,
    /// What `update` does.
    pub update_mode: UpdateMode,
    /// Whether several items change in one transaction.
    pub transactions: Transactions,
    /// The largest payload that rides in a version row, in bytes (default 1 MiB); larger ones are stored
    /// before their commit.
    pub inline_max_bytes: usize,
    /// How long a call to a document store on a server may take in all (default 30 s), unless its connection
    /// string says `timeoutMS`.
    pub timeout: Option<Duration>,
    /// Whether writes that fail in a way that passes wait in a queue (default: no).
    pub fallback: Option<Fallback>,
    /// How writes reach object storage, counters and shadows.
    pub write_optimization: WriteOptimization,
    /// Sections that other parts read, as they were written: `analytics`, `counterRules`, `fallback`,
    /// `writeOptimization`, `rollup`, `retention`, `hardDeleteEnabled`, `chronow`; and `counters` as
    /// `{dbConnRef, dbName}`, see [`Config::counters`].
    pub sections: BTreeMap<String, Json>,
    /// What was accepted but deserves a look: unknown keys, shared storage connections.
    pub warnings: Vec<Warning>,
    /// The rules of the section `analytics`.
    pub(crate) analytics: Arc<AnalyticsRules>,
}

/// Something a configuration says that is ignored or surprising.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The JSON path of the option, such as `databases.runtime.tenantDatabases[0].bucktet`.
    pub path: String,
    /// What about it.
    pub message: String,
}

/// A document store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DocumentConnection {
    /// `mongodb://…`, `mongodb+srv://…`, or `embedded:PATH` (resolved against the configuration's folder),
    /// `embedded::memory:`.
    pub uri: SecretString,
}

/// Which kind of object storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// S3 or compatible.
    S3,
    /// Azure Blob, also Azurite.
    Azure,
    /// A local folder.
    Local,
    /// Memory of this process; for tests.
    Memory,
}

/// An object storage with its credentials.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpaceConnection {
    /// The kind.
    pub provider: Provider,
    /// The endpoint URL; for [`Provider::Local`] the folder.
    pub endpoint: String,
    /// The region; S3 signs with it.
    pub region: String,
    /// Access key, or Azure's account name.
    pub access_key: SecretString,
    /// Secret key, or Azure's account key (base64).
    pub secret_key: SecretString,
    /// Whether the bucket stands in the path rather than in the host name.
    pub force_path_style: bool,
}

/// The kinds of databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatabaseType {
    /// Reference data in tiers.
    Metadata,
    /// Knowledge in tiers.
    Knowledge,
    /// The tenants' own data.
    Runtime,
    /// Logs of all tenants.
    Logs,
    /// Chronow's warm tier.
    Messaging,
    /// Users and accounts of all tenants.
    Identities,
}

/// Which contexts an entry answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// The tier `generic`.
    Generic,
    /// One domain.
    Domain(String),
    /// One tenant.
    Tenant(String),
    /// The only database of its type.
    Single,
    /// One of v1's backends, by position.
    Hashed(usize),
}

/// One database a route can lead to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The JSON path it was read from, or would be.
    pub path: String,
    /// The kind; none for v1's hashed backends.
    pub database_type: Option<DatabaseType>,
    /// Which contexts it answers.
    pub selector: Selector,
    /// v1's `key`.
    pub key: Option<String>,
    /// The reference of its document connection.
    pub connection: String,
    /// The database's name; for v1's hashed backends the context names it.
    pub database: Option<String>,
    /// Where its objects lie; none: payloads stay in the version rows.
    pub objects: Option<ObjectSpace>,
    /// The database of its counters and analytics, on the same connection; none: [`Config::counters`], if
    /// there is one.
    pub analytics_database: Option<String>,
    /// `captureDeliveries` of messaging.
    pub capture_deliveries: bool,
    /// v1's identity of this backend for hashing, such as `mongodb://a:27017|https://…|json-bucket`, without
    /// credentials in `Debug`.
    pub backend_id: Option<SecretString>,
}

/// Where the objects of an entry lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ObjectSpace {
    /// The reference of the spaces connection, or none for the local folder.
    pub connection: Option<String>,
    /// The buckets.
    pub buckets: Buckets,
}

/// Buckets by use; `bucket` fills all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Buckets {
    /// item.json of every version, and manifests.
    pub json: String,
    /// Externalised properties.
    pub content: String,
    /// Backups.
    pub backups: String,
}

/// Spreading over v1 backends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routing {
    /// The algorithm.
    pub hash: HashAlgorithm,
    /// The template of the routing key; default `tenantId|dbName|collection:objectId`.
    pub choose_key: String,
}

/// How a routing key picks a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HashAlgorithm {
    /// Highest random weight.
    #[default]
    Rendezvous,
    /// Jump consistent hash.
    Jump,
}

/// What a collection indexes, requires and externalises.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CollectionMap {
    /// Dotted paths, `[]` behind an array; empty: every top-level property.
    pub indexed: Vec<String>,
    /// Indexed paths that must be present and neither null nor empty.
    pub required: Vec<String>,
    /// Base64 properties by dotted path.
    pub base64: BTreeMap<String, Base64Property>,
}

/// A property whose base64 text is stored as an object of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Base64Property {
    /// Its media type.
    pub content_type: String,
    /// Whether a text rendition is wanted whatever the type.
    pub preferred_text: bool,
    /// The text's character set; `utf8` by default.
    pub text_charset: String,
}

/// Keep the latest payload in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevShadow {
    /// For how long; whole hours.
    pub ttl: Duration,
    /// Larger payloads are not kept.
    pub max_bytes: Option<usize>,
}

/// Bounds of the version index; none means unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Versions that are older may leave the index; whole days.
    pub max_age: Option<Duration>,
    /// Versions beyond so many of an item may leave the index.
    pub max_per_item: Option<u32>,
    /// Objects that no version names go when they were found so long ago; whole days. None keeps them.
    pub objects: Option<Duration>,
}

impl Retention {
    /// Returns whether the version index is bounded.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.max_age.is_some() || self.max_per_item.is_some()
    }
}

/// How versions that leave the index are rolled up into manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rollup {
    /// Whether they may be (default). If not, every version stays in the index, whatever its bounds.
    pub enabled: bool,
    /// Whether workers roll up and prune by themselves (default), or only who asks for it.
    pub auto_schedule: bool,
    /// What one manifest of the first level covers; default a day.
    pub period: ManifestPeriod,
}

/// The time of roll-ups that one manifest of the first level covers: each adds to it, until the next period
/// begins and it is merged into the next level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ManifestPeriod {
    /// A day, in UTC.
    #[default]
    Daily,
    /// A week from Monday on.
    Weekly,
    /// A month.
    Monthly,
}

/// What `update` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpdateMode {
    /// Top-level fields are merged into the current document.
    #[default]
    Merge,
    /// The document is replaced.
    Replace,
}

/// Whether a change of several items is one transaction. A change of one item never needs any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transactions {
    /// Use them; otherwise such changes are written one after the other, and undone if one fails, but for items
    /// that were created.
    pub enabled: bool,
    /// Only where one can hold all of the change: where the server has them, and all is on one connection.
    /// Otherwise such a change is refused elsewhere.
    pub auto_detect: bool,
}
