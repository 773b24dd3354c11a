//! A configuration made in Rust.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::assemble::known;
use super::bucket_names::SharedBuckets;
use super::database::Database;
use super::section::{below, wrong};
use super::uri::resolve_path;
use super::{
    Buckets, CollectionMap, Config, CounterRetention, CounterRule, CrossTenantRule, DatabaseType, DevShadow,
    DocumentConnection, Fallback, HashAlgorithm, ObjectSpace, Retention, Rollup, Selector, SpaceConnection,
    TimeBasedRule, Transactions, UpdateMode, Warning, WriteOptimization, analytics_rule, check_database,
    collections, counter_rules, settings, v1,
};
use crate::{Json, Result, json};

/// The reference of the document connection of [`Config::embedded`].
const EMBEDDED: &str = "embedded";

/// Builds a [`Config`] in Rust. Every method corresponds to an option of the file, and [`build`](Self::build)
/// checks the configuration by the rules of the file. An option, or a reference, that is given twice has the last
/// value.
///
/// ```
/// use std::time::Duration;
/// use chronos_db::config::{CollectionMap, Config, Database, SpaceConnection};
///
/// let config = Config::builder()
///     .connection("main", "mongodb://localhost:27017/?replicaSet=rs0")
///     .space("s3", SpaceConnection::s3("https://s3.eu-central-1.amazonaws.com", "key", "secret").region("eu-central-1"))
///     .database(Database::runtime("acme", "main", "acme_orders").space("s3").bucket("acme-orders"))
///     .database(Database::messaging("main", "bus"))
///     .collection("orders", CollectionMap::default().indexed(["status", "customer"]))
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// assert_eq!(config.entries[0].path, "databases.runtime.tenantDatabases[0]");
///
/// let error = Config::builder()
///     .connection("main", "mongodb://localhost")
///     .database(Database::logs("mian", "logs"))
///     .build()
///     .unwrap_err();
/// assert_eq!(error.message(), "databases.logs.dbConnRef: there is no connection `mian` (configured: main); did you mean `main`?");
/// # Ok::<(), chronos_db::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    /// The options that need no other one to be checked.
    config: Config,
    connections: BTreeMap<String, DocumentsAt>,
    spaces: BTreeMap<String, ObjectsAt>,
    databases: Vec<Database>,
    local_storage: Option<PathBuf>,
    collections: BTreeMap<String, CollectionMap>,
    counters: Option<(String, String)>,
    counter_rules: Vec<CounterRule>,
    counter_retention: Option<CounterRetention>,
    time_based_rules: Vec<TimeBasedRule>,
    cross_tenant_rules: Vec<CrossTenantRule>,
}

crate::debug_some!(ConfigBuilder {
    config,
    connections,
    spaces,
    databases,
    local_storage,
    collections,
    counters,
    counter_rules,
    counter_retention,
    time_based_rules,
    cross_tenant_rules
});

#[derive(Clone, Debug)]
enum DocumentsAt {
    Uri(SecretString),
    Folder(PathBuf),
}

#[derive(Clone, Debug)]
enum ObjectsAt {
    Space(SpaceConnection),
    Folder(PathBuf),
}

impl Config {
    /// Returns a builder without connections and databases, with the default of every other option.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder {
            config: Self::blank(),
            connections: BTreeMap::new(),
            spaces: BTreeMap::new(),
            databases: Vec::new(),
            local_storage: None,
            collections: BTreeMap::new(),
            counters: None,
            counter_rules: Vec::new(),
            counter_retention: None,
            time_based_rules: Vec::new(),
            cross_tenant_rules: Vec::new(),
        }
    }

    /// Returns a builder that already has what [`Config::embedded`] has: the document connection `embedded` in
    /// `dir`, objects in `dir/objects`, records of the tenant `default`, and messaging.
    ///
    /// ```
    /// use chronos_db::config::{CollectionMap, Config};
    ///
    /// let users = CollectionMap::default().indexed(["email"]);
    /// let config = Config::embedded_builder("/var/lib/app".as_ref()).collection("users", users).build()?;
    /// assert_eq!(config.entries.len(), 2);
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    pub fn embedded_builder(dir: &Path) -> ConfigBuilder {
        let mut builder = Self::builder().embedded(EMBEDDED, dir).local_storage(dir.join("objects"));
        builder.databases = Database::embedded(EMBEDDED).into();
        builder
    }

    /// The configuration that needs no file and no server: records of the tenant `default` and messaging in
    /// an embedded store in `dir`, objects in `dir/objects`. To add options, use
    /// [`embedded_builder`](Self::embedded_builder).
    ///
    /// ```
    /// use chronos_db::{Route, Router, config::Config};
    /// let router = Router::new(&Config::embedded("/var/lib/app".as_ref()));
    /// let resolved = router.resolve(&Route::runtime().tenant("default").collection("users"))?;
    /// assert_eq!(resolved.database, "chronos");
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    #[must_use]
    pub fn embedded(dir: &Path) -> Self {
        let mut config = Self::blank();
        // It fails for an empty path and without a current directory; then the path is used as it is, and
        // opening it says what is wrong.
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        if dir.to_str().is_none() {
            let message = "the folder's name is not UTF-8; what is not was replaced".to_owned();
            config.warnings.push(Warning { path: "dbConnections.embedded.mongoUri".to_owned(), message });
        }
        let uri = SecretString::from(format!("embedded:{}", dir.to_string_lossy()));
        config.connections.insert(EMBEDDED.to_owned(), DocumentConnection { uri });
        config.local_storage = Some(dir.join("objects"));
        let mut paths = Paths::default();
        for database in Database::embedded(EMBEDDED) {
            let records = database.database_type == Some(DatabaseType::Runtime);
            let bucket = database.name.as_deref().filter(|_| records);
            let objects = bucket.map(|bucket| ObjectSpace::new(None, Buckets::one(bucket)));
            config.enter(&paths.next(&database).0, database, objects);
        }
        config
    }
}

impl ConfigBuilder {
    /// A document connection by its reference: `mongodb://…`, `mongodb+srv://…`, `embedded:PATH` or
    /// `embedded::memory:`. At least one is needed.
    pub fn connection(mut self, reference: impl Into<String>, uri: impl Into<SecretString>) -> Self {
        self.connections.insert(reference.into(), DocumentsAt::Uri(uri.into()));
        self
    }

    /// An embedded store in a folder, by its reference. [`build`](Self::build) refuses names that are not
    /// UTF-8.
    ///
    /// ```
    /// use chronos_db::config::{Config, Database};
    ///
    /// let config = Config::builder()
    ///     .embedded("here", "/var/lib/app")
    ///     .database(Database::runtime("acme", "here", "app"))
    ///     .build()?;
    /// assert!(config.connections.contains_key("here"));
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    pub fn embedded(mut self, reference: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.connections.insert(reference.into(), DocumentsAt::Folder(folder.into()));
        self
    }

    /// An object storage by its reference.
    pub fn space(mut self, reference: impl Into<String>, space: SpaceConnection) -> Self {
        self.spaces.insert(reference.into(), ObjectsAt::Space(space));
        self
    }

    /// A folder as an object storage, by its reference; [`local_storage`](Self::local_storage) is one that
    /// takes the objects of all databases. [`build`](Self::build) refuses names that are not UTF-8.
    pub fn local_space(mut self, reference: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.spaces.insert(reference.into(), ObjectsAt::Folder(folder.into()));
        self
    }

    /// A database that routes can lead to. At least one is needed; no two of them may answer the same contexts.
    pub fn database(mut self, database: Database) -> Self {
        self.databases.push(database);
        self
    }

    /// Objects of all databases lie in this folder, whatever storage they name. Default: in their storages.
    pub fn local_storage(mut self, folder: impl Into<PathBuf>) -> Self {
        self.local_storage = Some(folder.into());
        self
    }

    /// How routing keys pick one of version 1's backends. Default: [`HashAlgorithm::Rendezvous`].
    pub fn hash_algorithm(mut self, algorithm: HashAlgorithm) -> Self {
        self.config.routing.hash = algorithm;
        self
    }

    /// The template of routing keys. Default `tenantId|dbName|collection:objectId`; parts that are not known
    /// are skipped, with a warning.
    pub fn choose_key(mut self, template: impl Into<String>) -> Self {
        self.config.routing.choose_key = template.into();
        self
    }

    /// What a collection indexes, requires and externalises. Default: every top-level property is indexed.
    pub fn collection(mut self, name: impl Into<String>, map: CollectionMap) -> Self {
        self.collections.insert(name.into(), map);
        self
    }

    /// Keep the latest payload in the head. Default: no.
    pub fn dev_shadow(mut self, shadow: DevShadow) -> Self {
        self.config.dev_shadow = Some(shadow);
        self
    }

    /// Writes that fail in a way that passes wait in a queue and are tried again. Default: they fail.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.config.fallback = Some(fallback);
        self
    }

    /// How writes reach object storage, counters and shadows. Default: at once, as they are.
    pub fn write_optimization(mut self, optimization: WriteOptimization) -> Self {
        self.config.write_optimization = optimization;
        self
    }

    /// Bounds of the version index. Default: none.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.config.retention = retention;
        self
    }

    /// How versions that leave the index are rolled up. Default: by a worker, a manifest a day.
    pub fn rollup(mut self, rollup: Rollup) -> Self {
        self.config.rollup = rollup;
        self
    }

    /// Whether a delete leaves a deleted head (default) or erases the item.
    pub fn logical_delete(mut self, logical: bool) -> Self {
        self.config.logical_delete = logical;
        self
    }

    /// Whether superseded versions are kept. Default: yes.
    pub fn versioning(mut self, keep: bool) -> Self {
        self.config.versioning = keep;
        self
    }

    /// What `update` does. Default: [`UpdateMode::Merge`].
    pub fn update_mode(mut self, mode: UpdateMode) -> Self {
        self.config.update_mode = mode;
        self
    }

    /// Whether a change of several items, as of a record with its entities, is one transaction. Default: where
    /// the server has them.
    pub fn transactions(mut self, transactions: Transactions) -> Self {
        self.config.transactions = transactions;
        self
    }

    /// Whether administrators may erase items by [`Collection::hard_delete`](crate::Collection::hard_delete).
    /// Default: no. [`Collection::erase`](crate::Collection::erase) goes without.
    pub fn hard_delete(mut self, allowed: bool) -> Self {
        self.config.set_hard_delete(allowed);
        self
    }

    /// The largest payload that rides in a version row, in bytes; larger ones are stored before their commit.
    /// Default 1 MiB, at most 12 MiB.
    pub fn inline_max_bytes(mut self, bytes: usize) -> Self {
        self.config.inline_max_bytes = bytes;
        self
    }

    /// How long a call to a document store on a server may take in all, unless its connection string says
    /// `timeoutMS`: from a millisecond to a day. Default 30 s.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.config.timeout = Some(limit);
        self
    }

    /// The database of the counters of all databases that name none of their own, on the document connection
    /// with this reference.
    pub fn counters(mut self, connection: impl Into<String>, database: impl Into<String>) -> Self {
        self.counters = Some((connection.into(), database.into()));
        self
    }

    /// Counts versions by a rule, in every collection. No two rules may have one name and say different things.
    pub fn counter_rule(mut self, rule: CounterRule) -> Self {
        self.counter_rules.push(rule);
        self
    }

    /// Keeps counts by day, week or month. Default: totals alone.
    ///
    /// ```
    /// use chronos_db::config::{Config, CounterRetention};
    ///
    /// let keep = CounterRetention::default().days(30).months(12);
    /// Config::embedded_builder("/var/lib/app".as_ref()).counter_retention(keep).build()?;
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    pub fn counter_retention(mut self, keep: CounterRetention) -> Self {
        self.counter_retention = Some(keep);
        self
    }

    /// Computes something over the items of a collection, wherever there is one of that name. No two analytics
    /// rules may have one name.
    pub fn time_based_rule(mut self, rule: TimeBasedRule) -> Self {
        self.time_based_rules.push(rule);
        self
    }

    /// Computes something over the items of several tenants. No two analytics rules may have one name.
    pub fn cross_tenant_rule(mut self, rule: CrossTenantRule) -> Self {
        self.cross_tenant_rules.push(rule);
        self
    }

    /// Checks the configuration and returns it. Relative paths are resolved against the current directory.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` whose message starts with the JSON path that the invalid option has in a file. It
    /// never contains a secret.
    pub fn build(self) -> Result<Config> {
        let Self { mut config, connections, spaces, databases, local_storage, collections, .. } = self;
        if let Some(folder) = local_storage {
            config.local_storage = Some(absolute("localStorage.basePath", &folder)?);
        }
        settings::check(&mut config)?;
        for (collection, map) in collections {
            collections::add(&mut config, collection, map)?;
        }
        add_counter_rules(&mut config, self.counter_rules, self.counter_retention)?;
        analytics_rule::add(&mut config, self.time_based_rules, self.cross_tenant_rules)?;
        let written = add_connections(&mut config, connections)?;
        add_spaces(&mut config, spaces)?;
        if let Some((reference, database)) = self.counters {
            known(&config.connections, &reference).map_err(|message| wrong("counters.dbConnRef", message))?;
            check_database(&database).map_err(|error| wrong("counters.dbName", error.message()))?;
            config.set_counters(&reference, &database);
        }
        add_databases(&mut config, databases, &written)?;
        config.check_entries()?;
        let unknown = config.analytics.check(&config)?;
        config.warnings.extend(unknown);
        Ok(config)
    }
}

fn absolute(path: &str, folder: &Path) -> Result<PathBuf> {
    resolve_path(folder, Path::new("")).map_err(|message| wrong(path, message))
}

/// A folder that stands at `path` in a file, as a text.
fn utf8(path: &str, folder: PathBuf) -> Result<String> {
    let text = absolute(path, &folder)?.into_os_string().into_string();
    text.map_err(|_| wrong(path, "the folder has a name that is not UTF-8"))
}

/// Adds the document connections. Returns their connection strings as they were given.
fn add_connections(
    config: &mut Config,
    connections: BTreeMap<String, DocumentsAt>,
) -> Result<BTreeMap<String, SecretString>> {
    let mut written = BTreeMap::new();
    for (reference, at) in connections {
        let path = below(&below("dbConnections", &reference), "mongoUri");
        let uri = match at {
            DocumentsAt::Uri(uri) => uri,
            DocumentsAt::Folder(folder) => SecretString::from(format!("embedded:{}", utf8(&path, folder)?)),
        };
        config.add_connection(&path, reference.clone(), uri.expose_secret(), Path::new(""))?;
        written.insert(reference, uri);
    }
    if config.connections.is_empty() {
        return Err(wrong("dbConnections", "needs at least one connection"));
    }
    Ok(written)
}

fn add_spaces(config: &mut Config, spaces: BTreeMap<String, ObjectsAt>) -> Result<()> {
    for (reference, at) in spaces {
        let path = below("spacesConnections", &reference);
        let space = match at {
            ObjectsAt::Space(space) => space,
            ObjectsAt::Folder(folder) => SpaceConnection::local(utf8(&below(&path, "endpoint"), folder)?),
        };
        let space = space.checked(&path, Path::new(""), &mut config.warnings)?;
        config.spaces.insert(reference, space);
    }
    Ok(())
}

fn add_databases(
    config: &mut Config,
    databases: Vec<Database>,
    written: &BTreeMap<String, SecretString>,
) -> Result<()> {
    if databases.is_empty() {
        return Err(wrong("databases", "needs at least one"));
    }
    let mut paths = Paths::default();
    let mut backends = 0;
    for mut database in databases {
        let (path, position) = paths.next(&database);
        if let (Some(database_type), false) = (database.database_type, database.is_possible()) {
            let message = format!("{database_type} has no database for `{}`", database.selector);
            return Err(wrong(&path, message));
        }
        if database.database_type.is_some() {
            config.add_database(&path, database, &SharedBuckets::new())?;
        } else {
            backends += 1;
            database.selector = Selector::Hashed(position);
            let uri = written.get(&database.connection).cloned().unwrap_or_default();
            config.add_backend(&path, database, &uri)?;
        }
    }
    v1::check_count(backends)
}

fn add_counter_rules(
    config: &mut Config,
    rules: Vec<CounterRule>,
    keep: Option<CounterRetention>,
) -> Result<()> {
    let written: Vec<Json> = rules.into_iter().map(CounterRule::written).collect();
    if let Some(keep) = keep {
        config.sections.insert("retention".to_owned(), keep.written());
    }
    if !written.is_empty() {
        config.sections.insert("counterRules".to_owned(), json!({ "rules": written }));
    }
    counter_rules::check(config)
}

/// The JSON paths that databases would have in a file.
#[derive(Debug, Default)]
struct Paths {
    elements: BTreeMap<String, usize>,
}

impl Paths {
    /// The path of the next database, and its position in its list.
    fn next(&mut self, database: &Database) -> (String, usize) {
        let Some(database_type) = database.database_type else {
            return self.element("mongoUris".to_owned());
        };
        let below = format!("databases.{database_type}");
        match database.selector {
            Selector::Generic => (format!("{below}.genericDatabase"), 0),
            Selector::Domain(_) => self.element(format!("{below}.domainsDatabases")),
            Selector::Tenant(_) => self.element(format!("{below}.tenantDatabases")),
            Selector::Single | Selector::Hashed(_) => (below, 0),
        }
    }

    fn element(&mut self, list: String) -> (String, usize) {
        let path = |position| format!("{list}[{position}]");
        let position = self.elements.get(&list).copied().unwrap_or(0);
        let element = (path(position), position);
        self.elements.insert(list, position + 1);
        element
    }
}
