//! A database of a configuration, as it is described in Rust.

use super::bucket_names::BucketNames;
use super::{DatabaseType, Selector};

/// A database that routes can lead to, for [`ConfigBuilder::database`](super::ConfigBuilder::database): which
/// contexts it answers, on which document connection it is, and where its objects lie.
///
/// ```
/// use chronos_db::config::{Database, DatabaseType, Selector};
///
/// let orders = Database::runtime("acme", "main", "acme_orders").space("s3").bucket("acme-orders");
/// let health = Database::new(DatabaseType::Metadata, Selector::Domain("health".to_owned()), "main", "health");
/// let bus = Database::messaging("main", "bus").capture_deliveries(true);
/// # let _ = (orders, health, bus);
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is part of no configuration before `ConfigBuilder::database`"]
pub struct Database {
    /// None for one of version 1's hashed backends.
    pub(super) database_type: Option<DatabaseType>,
    pub(super) selector: Selector,
    pub(super) connection: String,
    /// None for one of version 1's hashed backends: the context names it.
    pub(super) name: Option<String>,
    pub(super) key: Option<String>,
    pub(super) space: Option<String>,
    pub(super) buckets: BucketNames,
    pub(super) analytics: Option<String>,
    pub(super) capture_deliveries: bool,
}

impl Database {
    /// The database `name` of a type, for the contexts of `selector`, on the document connection with the
    /// reference `connection`.
    ///
    /// Metadata, knowledge and runtime are [`Selector::Generic`] or of a domain or tenant; logs and identities
    /// are [`Selector::Single`]; messaging is `Single` or of a tenant. [`build`](super::ConfigBuilder::build)
    /// refuses anything else.
    pub fn new(
        database_type: DatabaseType,
        selector: Selector,
        connection: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let mut database = Self::hashed(connection);
        database.database_type = Some(database_type);
        database.selector = selector;
        database.name = Some(name.into());
        database
    }

    /// The data of one tenant.
    pub fn runtime(
        tenant: impl Into<String>,
        connection: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self::new(DatabaseType::Runtime, Selector::Tenant(tenant.into()), connection, name)
    }

    /// The messages and shared values of all tenants; [`Database::new`] with [`Selector::Tenant`] is for one.
    pub fn messaging(connection: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(DatabaseType::Messaging, Selector::Single, connection, name)
    }

    /// The logs of all tenants.
    pub fn logs(connection: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(DatabaseType::Logs, Selector::Single, connection, name)
    }

    /// The users and accounts of all tenants.
    pub fn identities(connection: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(DatabaseType::Identities, Selector::Single, connection, name)
    }

    /// One of version 1's backends (`mongoUris`), at most ten. Contexts without a database type are spread among
    /// them by a hash of the routing key, and name the database themselves.
    ///
    /// [`HashAlgorithm::Jump`](super::HashAlgorithm::Jump) picks a backend by its position;
    /// [`HashAlgorithm::Rendezvous`](super::HashAlgorithm::Rendezvous) by the connection string as it was given,
    /// the endpoint and the bucket. Changing any of these moves contexts to other backends.
    pub fn hashed(connection: impl Into<String>) -> Self {
        Self {
            database_type: None,
            selector: Selector::Hashed(0),
            connection: connection.into(),
            name: None,
            key: None,
            space: None,
            buckets: BucketNames::default(),
            analytics: None,
            capture_deliveries: false,
        }
    }

    /// The key by which [`Route::key`](crate::Route::key) finds it; unique in a configuration. Default: none.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Objects lie in the storage with this reference. Without it payloads stay in the version rows, unless
    /// [`local_storage`](super::ConfigBuilder::local_storage) takes them.
    pub fn space(mut self, reference: impl Into<String>) -> Self {
        self.space = Some(reference.into());
        self
    }

    /// The bucket of all its objects. Default: a name made from the database's, or for hashed backends
    /// `chronos-json`, `chronos-content` and `chronos-backups`.
    pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
        self.buckets.all = Some(bucket.into());
        self
    }

    /// Another bucket for item.json of every version, and manifests.
    pub fn json_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.buckets.json = Some(bucket.into());
        self
    }

    /// Another bucket for externalised properties.
    pub fn content_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.buckets.content = Some(bucket.into());
        self
    }

    /// Another bucket for backups: where [`Collection::backup`](crate::Collection::backup) puts them.
    pub fn backups_bucket(mut self, bucket: impl Into<String>) -> Self {
        self.buckets.backups = Some(bucket.into());
        self
    }

    /// The database of its counters, on the same connection.
    pub fn analytics(mut self, name: impl Into<String>) -> Self {
        self.analytics = Some(name.into());
        self
    }

    /// Keep how every delivery of a message ended; messaging only. Default: no.
    pub fn capture_deliveries(mut self, capture: bool) -> Self {
        self.capture_deliveries = capture;
        self
    }

    /// Those of [`Config::embedded`](super::Config::embedded), on the connection with this reference.
    pub(super) fn embedded(connection: &str) -> [Self; 2] {
        let records = Self::runtime("default", connection, "chronos").analytics("chronos_analytics");
        [records, Self::messaging(connection, "chronos_messaging")]
    }

    /// Whether its type has such contexts.
    pub(super) fn is_possible(&self) -> bool {
        use DatabaseType::{Identities, Knowledge, Logs, Messaging, Metadata, Runtime};
        use Selector::{Domain, Generic, Hashed, Single, Tenant};

        matches!(
            (self.database_type, &self.selector),
            (Some(Metadata | Knowledge | Runtime), Generic | Domain(_) | Tenant(_))
                | (Some(Messaging), Single | Tenant(_))
                | (Some(Logs | Identities), Single)
                | (None, Hashed(_))
        )
    }
}
