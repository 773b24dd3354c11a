//! From a context to the database and the buckets it means.
//!
//! `router.rs` finds the entry of a configuration that answers a context, `key.rs` makes the key that
//! version 1 hashed, `sharing.rs` knows which entries share a database and therefore need tenants in their
//! documents. Nothing here opens a connection but `sharing.rs`, which asks which deployment one reaches.

use std::fmt;
use std::sync::Arc;

use crate::config::{DatabaseType, Entry};
use crate::{Error, Result};

pub(crate) mod key;
mod router;
pub(crate) mod sharing;

pub use router::{Backend, Distribution, Router};

/// The tier of a metadata or knowledge context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// For everybody.
    Generic,
    /// For one domain.
    Domain,
    /// For one tenant.
    Tenant,
}

impl Tier {
    /// Returns the name in routes, such as `tenant`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Domain => "domain",
            Self::Tenant => "tenant",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Tier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Generic, Self::Domain, Self::Tenant].into_iter().find(|tier| tier.name() == text);
        known.ok_or_else(|| {
            Error::validation(format!(
                "`{}` is not a tier; there are generic, domain, tenant",
                text.escape_debug()
            ))
        })
    }
}

/// A context: which database, and which collection in it.
///
/// ```
/// use chronos_db::{Route, Tier};
/// let users = Route::runtime().tenant("acme").collection("users");
/// let shared = Route::metadata().tier(Tier::Generic).collection("settings");
/// assert_eq!(users.to_string(), "runtime, tenant `acme`");
/// assert_eq!(shared.to_string(), "metadata, tier generic");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The kind of database; needed on v2 configurations.
    pub database_type: Option<DatabaseType>,
    /// The tier; default: that of the identifier that is given.
    pub tier: Option<Tier>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The domain.
    pub domain: Option<String>,
    /// v1: `key` of an entry.
    pub key: Option<String>,
    /// v1: `extIdentifier` of an entry.
    pub ext_identifier: Option<String>,
    /// v1: the database's name on the backend that the hash picks; elsewhere it must equal the configured
    /// one.
    pub database: Option<String>,
    /// v1: the backend by position.
    pub forced_index: Option<usize>,
    /// v1: a part of the routing key.
    pub object_id: Option<String>,
    /// The collection.
    pub collection: Option<String>,
    /// The data of all tenants is meant, in a database that they share.
    pub cross_tenant: bool,
}

/// What a route leads to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configured entry.
    pub entry: Arc<Entry>,
    /// The database's name.
    pub database: String,
    /// The checked collection name.
    pub collection: String,
    /// The tenant that the route names, where the entry is for several: every document and query is forced to
    /// it. Entries of one tenant have it in their [`selector`](Entry::selector), and force it where others
    /// lead to the same database.
    pub enforced_tenant: Option<String>,
}

impl Resolved {
    /// The tenant whose data it leads to, if it is one's.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.enforced_tenant.as_deref().or(self.entry.tenant())
    }
}

impl Route {
    /// Leads to the data of one tenant.
    ///
    /// ```
    /// use chronos_db::Route;
    /// let orders = Route::runtime().tenant("acme").collection("orders");
    /// assert_eq!(orders.tenant.as_deref(), Some("acme"));
    /// ```
    #[must_use]
    pub fn runtime() -> Self {
        Self::of(DatabaseType::Runtime)
    }

    /// Leads to reference data: of all, of a domain or of a tenant.
    ///
    /// ```
    /// use chronos_db::Route;
    /// let codes = Route::metadata().domain("healthcare").collection("codes");
    /// assert_eq!(codes.to_string(), "metadata, domain `healthcare`");
    /// ```
    #[must_use]
    pub fn metadata() -> Self {
        Self::of(DatabaseType::Metadata)
    }

    /// Leads to knowledge: of all, of a domain or of a tenant.
    ///
    /// ```
    /// use chronos_db::{Route, Tier};
    /// let articles = Route::knowledge().tier(Tier::Generic).collection("articles");
    /// assert_eq!(articles.to_string(), "knowledge, tier generic");
    /// ```
    #[must_use]
    pub fn knowledge() -> Self {
        Self::of(DatabaseType::Knowledge)
    }

    /// Leads to the logs of one tenant, or of [all of them](Self::cross_tenant).
    ///
    /// ```
    /// use chronos_db::Route;
    /// assert_eq!(Route::logs().tenant("acme").collection("audit").to_string(), "logs, tenant `acme`");
    /// assert_eq!(Route::logs().cross_tenant().collection("audit").to_string(), "logs, all tenants");
    /// ```
    #[must_use]
    pub fn logs() -> Self {
        Self::of(DatabaseType::Logs)
    }

    /// Leads to the messaging database of a tenant.
    ///
    /// ```
    /// use chronos_db::Route;
    /// assert_eq!(Route::messaging().tenant("acme").collection("topics").to_string(), "messaging, tenant `acme`");
    /// ```
    #[must_use]
    pub fn messaging() -> Self {
        Self::of(DatabaseType::Messaging)
    }

    /// Leads to the users and accounts of one tenant, or of [all of them](Self::cross_tenant). Without an object
    /// storage of their own these are inline records: whole in the document store, in their latest state alone.
    ///
    /// ```
    /// use chronos_db::Route;
    /// assert_eq!(Route::identities().tenant("acme").collection("users").to_string(), "identities, tenant `acme`");
    /// ```
    #[must_use]
    pub fn identities() -> Self {
        Self::of(DatabaseType::Identities)
    }

    /// Leads to the entry of a version 1 configuration that has this `key`.
    ///
    /// ```
    /// use chronos_db::Route;
    /// assert_eq!(Route::key("runtime-tenant-a").collection("users").to_string(), "key `runtime-tenant-a`");
    /// ```
    #[must_use]
    pub fn key(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    fn of(database_type: DatabaseType) -> Self {
        Self { database_type: Some(database_type), ..Self::default() }
    }

    /// Names the tenant.
    ///
    /// ```
    /// # use chronos_db::Route;
    /// assert_eq!(Route::runtime().tenant("acme").tenant.as_deref(), Some("acme"));
    /// ```
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Says that the data of all tenants is meant. Logs, identities and messaging, which all tenants share, answer
    /// nothing to a route that neither names a tenant nor says this; others refuse it. A new item is then of the
    /// tenant that its document says as `tenantId`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// use chronos_db::config::{Config, Database};
    /// use chronos_db::{Chronos, Route, json};
    ///
    /// let config = Config::builder()
    ///     .connection("here", "embedded::memory:")
    ///     .database(Database::identities("here", "chronos_identities"));
    /// let chronos = Chronos::open(config.build()?)?;
    /// let users = |route: Route| chronos.with(route.collection("users"));
    ///
    /// let ada = json!({"email": "ada@example.org"});
    /// users(Route::identities().tenant("acme"))?.create(ada).await?;
    /// let all = users(Route::identities().cross_tenant())?.list().await?;
    /// assert_eq!(all.items[0].item["tenantId"], "acme");
    /// assert!(users(Route::identities())?.list().await.is_err());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    #[must_use]
    pub fn cross_tenant(mut self) -> Self {
        self.cross_tenant = true;
        self
    }

    /// Names the domain.
    ///
    /// ```
    /// # use chronos_db::Route;
    /// assert_eq!(Route::metadata().domain("finance").domain.as_deref(), Some("finance"));
    /// ```
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Names the tier; without it, the tenant or the domain that is given tells.
    ///
    /// ```
    /// # use chronos_db::{Route, Tier};
    /// assert_eq!(Route::metadata().tier(Tier::Generic).tier, Some(Tier::Generic));
    /// ```
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Names the collection.
    ///
    /// ```
    /// # use chronos_db::Route;
    /// assert_eq!(Route::logs().collection("audit").collection.as_deref(), Some("audit"));
    /// ```
    #[must_use]
    pub fn collection(mut self, collection: impl Into<String>) -> Self {
        self.collection = Some(collection.into());
        self
    }

    /// Names the database: on version 1's hashed backends it picks it, elsewhere it must be the configured
    /// one.
    ///
    /// ```
    /// use chronos_db::{Route, Router, config::Config};
    /// let config = Config::parse(r#"{"mongoUris": ["mongodb://localhost"]}"#, ".".as_ref())?;
    /// let resolved = Router::new(&config).resolve(&Route::default().database("shop").collection("orders"))?;
    /// assert_eq!(resolved.database, "shop");
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// Picks one of version 1's backends by its position.
    ///
    /// ```
    /// # use chronos_db::Route;
    /// assert_eq!(Route::default().forced_index(1).to_string(), "backend 1");
    /// ```
    #[must_use]
    pub fn forced_index(mut self, index: usize) -> Self {
        self.forced_index = Some(index);
        self
    }

    /// Names the item, as a part of version 1's routing key.
    ///
    /// ```
    /// # use chronos_db::Route;
    /// assert_eq!(Route::default().object_id("o1").object_id.as_deref(), Some("o1"));
    /// ```
    #[must_use]
    pub fn object_id(mut self, id: impl Into<String>) -> Self {
        self.object_id = Some(id.into());
        self
    }

    /// Names the tenant or the domain, whichever the tier says.
    ///
    /// ```
    /// use chronos_db::{Route, Tier};
    /// let articles = Route::knowledge().tier(Tier::Domain).ext_identifier("domain-1").collection("articles");
    /// assert_eq!(articles.to_string(), "knowledge, tier domain, extIdentifier `domain-1`");
    /// ```
    #[must_use]
    pub fn ext_identifier(mut self, identifier: impl Into<String>) -> Self {
        self.ext_identifier = Some(identifier.into());
        self
    }
}

/// The context as errors name it, without the collection.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |what: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{what} `{}`", value.escape_debug()))
        };
        let parts = [
            self.database_type.map(|database_type| database_type.to_string()),
            self.forced_index.map(|index| format!("backend {index}")),
            quoted("key", &self.key),
            self.tier.map(|tier| format!("tier {tier}")),
            quoted("tenant", &self.tenant),
            self.cross_tenant.then(|| "all tenants".to_owned()),
            quoted("domain", &self.domain),
            quoted("extIdentifier", &self.ext_identifier),
            quoted("database", &self.database),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&if parts.is_empty() {
            "a context without a database type".to_owned()
        } else {
            parts.join(", ")
        })
    }
}
