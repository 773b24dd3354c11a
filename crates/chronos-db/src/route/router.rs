//! Resolving routes against one configuration.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::key::KeyTemplate;
use super::{Resolved, Route, Tier};
use crate::config::{Config, DatabaseType, Entry, HashAlgorithm, Owner, Selector, check_database};
use crate::hash::{jump, no_backends, rendezvous};
use crate::{Error, ErrorKind, Result, validate_name};

/// How many names an error lists.
const SHOWN: usize = 5;

/// The tenant whose messaging database serves all tenants that have none of their own.
const FALLBACK_TENANT: &str = "default";

type KeyFn = Arc<dyn Fn(&Route) -> String + Send + Sync>;

/// Resolves routes against one configuration.
#[derive(Clone)]
pub struct Router {
    entries: Vec<Arc<Entry>>,
    hashed: Vec<Arc<Entry>>,
    identities: Vec<SecretString>,
    algorithm: HashAlgorithm,
    template: KeyTemplate,
    key_fn: Option<KeyFn>,
}

/// A database that routes can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its position among version 1's hashed backends, for [`Route::forced_index`].
    pub index: Option<usize>,
    /// The JSON path it is configured at.
    pub path: String,
    /// Its type; none for hashed backends.
    pub database_type: Option<DatabaseType>,
    /// Which contexts it answers.
    pub selector: Selector,
    /// Its key, for [`Route::key`].
    pub key: Option<String>,
    /// The reference of its document connection.
    pub connection: String,
    /// Its name; hashed backends take it from the route.
    pub database: Option<String>,
}

/// How evenly keys spread over version 1's backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// How many keys each backend gets.
    pub counts: Vec<usize>,
    /// How many keys there are.
    pub total: usize,
    /// Keys for each backend on average.
    pub mean: f64,
    /// The standard deviation of the counts.
    pub stddev: f64,
    /// Whether the standard deviation is below a fifth of the mean.
    pub balanced: bool,
}

impl Router {
    /// Makes a router over the configuration's entries.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let (hashed, entries): (Vec<_>, Vec<_>) = config
            .entries
            .iter()
            .cloned()
            .map(Arc::new)
            .partition(|entry| matches!(entry.selector, Selector::Hashed(_)));
        let identities = hashed
            .iter()
            .map(|entry| entry.backend_id.clone().unwrap_or_else(|| entry.path.as_str().into()))
            .collect();
        Self {
            entries,
            hashed,
            identities,
            algorithm: config.routing.hash,
            template: KeyTemplate::parse(&config.routing.choose_key),
            key_fn: None,
        }
    }

    /// Takes the routing key of version 1's hashed contexts from a function instead of `chooseKey`.
    ///
    /// ```
    /// use chronos_db::{Route, Router, config::Config};
    /// let config = Config::parse(r#"{"mongoUris": ["mongodb://a", "mongodb://b"]}"#, ".".as_ref())?;
    /// let router = Router::new(&config).with_key_fn(|route| route.domain.clone().unwrap_or_default());
    /// assert_eq!(router.routing_key(&Route::default().domain("finance")), "finance");
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    #[must_use]
    pub fn with_key_fn(mut self, key: impl Fn(&Route) -> String + Send + Sync + 'static) -> Self {
        self.key_fn = Some(Arc::new(key));
        self
    }

    /// Returns the key by which a context without a database type is spread.
    #[must_use]
    pub fn routing_key(&self, route: &Route) -> String {
        self.key_fn.as_ref().map_or_else(|| self.template.key(route), |key| key(route))
    }

    /// Returns everything routes can lead to.
    #[must_use]
    pub fn list_backends(&self) -> Vec<Backend> {
        let backend = |(index, entry): (Option<usize>, &Arc<Entry>)| Backend {
            index,
            path: entry.path.clone(),
            database_type: entry.database_type,
            selector: entry.selector.clone(),
            key: entry.key.clone(),
            connection: entry.connection.clone(),
            database: entry.database.clone(),
        };
        let hashed = self.hashed.iter().enumerate().map(|(index, entry)| (Some(index), entry));
        hashed.chain(self.entries.iter().map(|entry| (None, entry))).map(backend).collect()
    }

    /// Returns how evenly these keys would spread over version 1's backends.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if there are none.
    pub fn distribution(&self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Distribution> {
        if self.hashed.is_empty() {
            return Err(no_backends().during("route"));
        }
        let mut counts = vec![0_usize; self.hashed.len()];
        for key in keys {
            counts[self.pick(key.as_ref())?] += 1;
        }
        let total: usize = counts.iter().sum();
        let mean = total as f64 / counts.len() as f64;
        let variance =
            counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        let stddev = variance.sqrt();
        Ok(Distribution { counts, total, mean, stddev, balanced: stddev < mean / 5.0 })
    }

    /// Finds the entry of a context.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if no entry answers it, `VALIDATION_ERROR` for a bad name or a contradiction.
    pub fn resolve(&self, route: &Route) -> Result<Resolved> {
        self.find(route).map_err(|error| error.during("route"))
    }

    fn find(&self, route: &Route) -> Result<Resolved> {
        let collection =
            route.collection.as_deref().ok_or_else(|| Error::validation("the route names no collection"))?;
        let collection = validate_name("collection", collection)?.to_owned();
        let names =
            [("tenant", &route.tenant), ("domain", &route.domain), ("extIdentifier", &route.ext_identifier)];
        for (what, name) in names {
            if let Some(name) = name {
                validate_name(what, name)?;
            }
        }
        let entry = self.entry(route)?;
        let database = database(route, entry)?;
        check_cross_tenant(route, entry)?;
        Ok(Resolved {
            entry: Arc::clone(entry),
            database,
            collection,
            enforced_tenant: enforced_tenant(route, entry)?,
        })
    }

    fn entry(&self, route: &Route) -> Result<&Arc<Entry>> {
        if let Some(index) = route.forced_index {
            return self.forced(index);
        }
        if let Some(key) = &route.key {
            return self.keyed(route, key);
        }
        match route.database_type {
            // A version 1 configuration without `databaseTypes` has nothing to look types up in; there they
            // have never mattered.
            Some(database_type) if !self.entries.is_empty() => self.typed(route, database_type),
            _ if !self.hashed.is_empty() => Ok(&self.hashed[self.pick(&self.routing_key(route))?]),
            _ => Err(self.not_found(route, "the route names no database type")),
        }
    }

    fn forced(&self, index: usize) -> Result<&Arc<Entry>> {
        self.hashed.get(index).ok_or_else(|| {
            Error::validation(match self.hashed.len() {
                0 => {
                    format!("Forced index {index} needs a configuration with `mongoUris`; this one has none")
                }
                count => format!("Forced index {index} is out of range (0-{})", count - 1),
            })
        })
    }

    fn keyed(&self, route: &Route, key: &str) -> Result<&Arc<Entry>> {
        let entry = self.entries.iter().find(|entry| entry.key.as_deref() == Some(key));
        let entry = entry.ok_or_else(|| self.not_found(route, "no entry has this key"))?;
        if route.database_type.is_some() && route.database_type != entry.database_type {
            let found = entry.database_type.map_or("untyped", DatabaseType::name);
            return Err(Error::validation(format!(
                "the key `{key}` is that of a {found} database, but the route says {route}"
            )));
        }
        if selector_of(route)?.is_some_and(|wanted| wanted != entry.selector) {
            return Err(Error::validation(format!(
                "the key `{key}` is that of {}, but the route says {route}",
                entry.selector
            )));
        }
        Ok(entry)
    }

    fn typed(&self, route: &Route, database_type: DatabaseType) -> Result<&Arc<Entry>> {
        let entries = || self.entries.iter().filter(move |entry| entry.database_type == Some(database_type));
        let by = |selector: &Selector| entries().find(|entry| entry.selector == *selector);
        let missing = || self.not_found(route, "no entry answers it");
        match database_type {
            DatabaseType::Logs | DatabaseType::Identities => by(&Selector::Single).ok_or_else(missing),
            DatabaseType::Messaging => {
                if let Some(shared) = by(&Selector::Single) {
                    return Ok(shared);
                }
                let tenant = identifier(route, Tier::Tenant)?
                    .ok_or_else(|| self.not_found(route, "the route names no tenant"))?;
                let own = by(&Selector::Tenant(tenant.to_owned()));
                own.or_else(|| by(&Selector::Tenant(FALLBACK_TENANT.to_owned()))).ok_or_else(missing)
            }
            DatabaseType::Metadata | DatabaseType::Knowledge | DatabaseType::Runtime => {
                let wanted = selector_of(route)?.ok_or_else(|| {
                    self.not_found(
                        route,
                        if database_type == DatabaseType::Runtime {
                            "the route names no tenant"
                        } else {
                            "the route names no tier, tenant or domain"
                        },
                    )
                })?;
                by(&wanted).ok_or_else(missing)
            }
        }
    }

    fn pick(&self, key: &str) -> Result<usize> {
        match self.algorithm {
            HashAlgorithm::Jump => jump(key, self.hashed.len()),
            HashAlgorithm::Rendezvous => {
                let identities: Vec<&str> =
                    self.identities.iter().map(|identity| identity.expose_secret()).collect();
                rendezvous(key, &identities)
            }
        }
    }

    fn not_found(&self, route: &Route, why: &str) -> Error {
        let configured = self.configured(route.database_type, route.key.is_some());
        Error::new(
            ErrorKind::RouteNotFound,
            format!("no database for {route}: {why}; configured: {configured}"),
        )
    }

    /// What there is, for an error: of the wanted type if there is any of it, else the types.
    fn configured(&self, wanted: Option<DatabaseType>, keys: bool) -> String {
        if keys {
            let names: Vec<&str> = self.entries.iter().filter_map(|entry| entry.key.as_deref()).collect();
            return format!("keys {}", shortened(&names));
        }
        let of_type: Vec<&Arc<Entry>> =
            self.entries.iter().filter(|entry| wanted.is_some() && entry.database_type == wanted).collect();
        if of_type.is_empty() {
            let has =
                |kind: &DatabaseType| self.entries.iter().any(|entry| entry.database_type == Some(*kind));
            let types: Vec<&str> =
                DatabaseType::ALL.iter().filter(|kind| has(kind)).map(|kind| kind.name()).collect();
            return shortened(&types);
        }
        let mut parts = Vec::new();
        if of_type.iter().any(|entry| entry.selector == Selector::Generic) {
            parts.push("generic".to_owned());
        }
        let domains = |entry: &&Arc<Entry>| {
            if let Selector::Domain(name) = &entry.selector { Some(name.clone()) } else { None }
        };
        let tenants = |entry: &&Arc<Entry>| {
            if let Selector::Tenant(name) = &entry.selector { Some(name.clone()) } else { None }
        };
        for (what, names) in [
            ("domains", of_type.iter().filter_map(domains).collect::<Vec<_>>()),
            ("tenants", of_type.iter().filter_map(tenants).collect::<Vec<_>>()),
        ] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", shortened(&names)));
            }
        }
        parts.join(", ")
    }
}

fn shortened(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{} and {} more", shown.join(", "), count - SHOWN),
        _ => shown.join(", "),
    }
}

/// The tenant or the domain of a route; `extIdentifier` may name it instead, but not differently.
fn identifier(route: &Route, tier: Tier) -> Result<Option<&str>> {
    let own = match tier {
        Tier::Generic => return Ok(None),
        Tier::Domain => &route.domain,
        Tier::Tenant => &route.tenant,
    };
    match (own.as_deref(), route.ext_identifier.as_deref()) {
        (Some(own), Some(other)) if own != other => Err(Error::validation(format!(
            "the route names the {tier} `{own}` and the extIdentifier `{other}`"
        ))),
        (own, other) => Ok(own.or(other)),
    }
}

/// What a tiered route asks for; none if it says nothing.
fn selector_of(route: &Route) -> Result<Option<Selector>> {
    let runtime = route.database_type == Some(DatabaseType::Runtime);
    let tier = match (route.tier, &route.tenant, &route.domain, &route.ext_identifier) {
        (Some(tier), ..) => tier,
        (None, Some(_), Some(_), _) if !runtime => {
            return Err(Error::validation("the route names a tenant and a domain; say which by a tier"));
        }
        (None, Some(_), ..) => Tier::Tenant,
        (None, None, Some(_), _) => Tier::Domain,
        (None, None, None, Some(_)) if runtime => Tier::Tenant,
        (None, None, None, Some(_)) => {
            return Err(Error::validation(
                "the route names an extIdentifier; say by a tier whether it is a domain or a tenant",
            ));
        }
        (None, None, None, None) => return Ok(None),
    };
    let name = identifier(route, tier)?.map(str::to_owned);
    match (tier, name) {
        (Tier::Generic, _) => Ok(Some(Selector::Generic)),
        (Tier::Domain, Some(name)) => Ok(Some(Selector::Domain(name))),
        (Tier::Tenant, Some(name)) => Ok(Some(Selector::Tenant(name))),
        (tier, None) => Err(Error::validation(format!("the route names the tier {tier} but no {tier}"))),
    }
}

/// All tenants are meant only where all are.
fn check_cross_tenant(route: &Route, entry: &Entry) -> Result<()> {
    let wrong = match (&route.tenant, &entry.selector) {
        _ if !route.cross_tenant => return Ok(()),
        (Some(_), _) => "it names one of them",
        (None, _) if !entry.is_for_all_tenants() => {
            "only logs, identities and messaging are shared by all tenants"
        }
        (None, Selector::Tenant(_)) => "each tenant has a messaging database of its own",
        (None, _) => return Ok(()),
    };
    Err(Error::validation(format!("the route says that all tenants are meant, but {wrong}")))
}

fn database(route: &Route, entry: &Entry) -> Result<String> {
    match (&route.database, &entry.database) {
        (None, None) => {
            Err(Error::validation("the route names no database, and `mongoUris` configures none"))
        }
        (None, Some(configured)) => Ok(configured.clone()),
        (Some(named), None) => check_database(named).map(str::to_owned),
        (Some(named), Some(configured)) if named == configured => Ok(configured.clone()),
        (Some(named), Some(configured)) => {
            check_database(named)?;
            Err(Error::validation(format!(
                "the route names the database `{named}`, but {} is `{configured}`",
                entry.path
            )))
        }
    }
}

/// On databases that several tenants share, every document carries its tenant. Messaging's always do: a
/// tenant's own database may also be the fallback of others, and data may move between the layouts.
fn enforced_tenant(route: &Route, entry: &Entry) -> Result<Option<String>> {
    let named = match Owner::of(entry) {
        // Version 1's contexts may say more than they are found by.
        Owner::Anybody if matches!(route.tier, Some(Tier::Generic | Tier::Domain)) => route.tenant.as_deref(),
        Owner::Anybody => identifier(route, Tier::Tenant)?,
        Owner::Tenant(_) | Owner::Nobody => None,
    };
    Ok(named.map(str::to_owned))
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("entries", &self.entries)
            .field("hashed", &self.hashed)
            .field("algorithm", &self.algorithm)
            .field("template", &self.template)
            .field("key_fn", &self.key_fn.is_some())
            .finish()
    }
}
