//! Records that are kept in tiers: for all, for a domain, for a tenant. The narrowest that there is, or
//! all of them laid over each other.

mod merge;

use self::merge::{MergeOptions, overlay};
use crate::action::Action;
use crate::json::Map;
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, ErrorKind, Json, Result, Route, Tier, Timestamp, View, json};

impl Chronos {
    /// Reads a record of the tiered knowledge: that of the tenant, if there is none that of the domain, else
    /// the generic one; or with [`merge`](GetTiered::merge) all of them, the narrower laid over the wider.
    ///
    /// The filter is that of [`List::filter`](crate::List::filter); of several records of one tier it is the
    /// one with the least id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// use chronos_db::{Chronos, Route, Tier, config::Config, json};
    /// let config = Config::parse(
    ///     r#"{"dbConnections": {"here": {"mongoUri": "embedded::memory:"}},
    ///         "databases": {"knowledge": {
    ///             "genericDatabase": {"dbConnRef": "here", "dbName": "generic"},
    ///             "domainsDatabases": [],
    ///             "tenantDatabases": [{"tenantId": "acme", "dbConnRef": "here", "dbName": "acme"}]}}}"#,
    ///     ".".as_ref(),
    /// )?;
    /// let chronos = Chronos::open(config)?;
    /// let of = |route: Route| chronos.with(route.collection("configs"));
    /// let generic = json!({"key": "ui", "theme": "light", "features": ["basic"]});
    /// of(Route::knowledge().tier(Tier::Generic))?.create(generic).await?;
    /// of(Route::knowledge().tenant("acme"))?.create(json!({"key": "ui", "features": ["premium"]})).await?;
    ///
    /// let found = chronos.get_knowledge("configs", json!({"key": "ui"})).tenant("acme").merge().await?;
    /// let merged = json!({"key": "ui", "theme": "light", "features": ["basic", "premium"]});
    /// assert_eq!(found.data, Some(merged));
    /// assert_eq!(found.tiers_found(), [Tier::Generic, Tier::Tenant]);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`list`](crate::Collection::list); also if one tier alone does not answer, as a wider answer would be
    /// another one. `ROUTE_NOT_FOUND` if none of the tiers is configured; one that is not is left out.
    pub fn get_knowledge(&self, collection: impl Into<String>, filter: impl Into<Json>) -> GetTiered {
        GetTiered::new(self, Route::knowledge(), collection.into(), filter.into())
    }

    /// Reads a record of the tiered metadata, as [`get_knowledge`](Self::get_knowledge) does of the knowledge.
    ///
    /// # Errors
    /// As [`get_knowledge`](Self::get_knowledge).
    pub fn get_metadata(&self, collection: impl Into<String>, filter: impl Into<Json>) -> GetTiered {
        GetTiered::new(self, Route::metadata(), collection.into(), filter.into())
    }
}

/// Reads a record of several tiers; see [`Chronos::get_knowledge`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct GetTiered {
    chronos: Chronos,
    /// The kind of database.
    kind: Route,
    collection: String,
    filter: Json,
    tenant: Option<String>,
    domain: Option<String>,
    at: Option<Timestamp>,
    merge: bool,
    options: MergeOptions,
}

crate::debug_some!(GetTiered { kind, collection, tenant, domain, at, merge, options });

/// What the tiers say.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct TieredRecord {
    /// The record, without `_system`; none if no tier has it.
    pub data: Option<Json>,
    /// Where it was found, and what is there; the widest tier first.
    pub tiers: Vec<(Tier, View)>,
}

crate::debug_some!(TieredRecord { tiers });

impl TieredRecord {
    /// Returns the tiers that it was found in, the widest first.
    #[must_use]
    pub fn tiers_found(&self) -> Vec<Tier> {
        self.tiers.iter().map(|(tier, _)| *tier).collect()
    }

    /// Returns `{data, tiersFound, tierRecords: {TIER: record}}`, all records without `_system`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let records = self.tiers.iter().map(|(tier, view)| (tier.name().to_owned(), view.document()));
        json!({
            "data": self.data,
            "tiersFound": self.tiers.iter().map(|(tier, _)| tier.name()).collect::<Vec<_>>(),
            "tierRecords": Json::Object(records.collect::<Map>()),
        })
    }
}

impl GetTiered {
    fn new(chronos: &Chronos, kind: Route, collection: String, filter: Json) -> Self {
        Self {
            chronos: chronos.clone(),
            kind,
            collection,
            filter,
            tenant: None,
            domain: None,
            at: None,
            merge: false,
            options: MergeOptions::default(),
        }
    }

    /// Looks in this tenant's tier, too.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Looks in this domain's tier, too.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Lays the tiers over each other: objects meet property by property, arrays are united in the order in
    /// which their elements are first seen, and of everything else the narrower tier's stays, null too.
    pub fn merge(mut self) -> Self {
        self.merge = true;
        self
    }

    /// In a merge, keeps every element of arrays that meet, equal ones too.
    pub fn keep_duplicates(mut self) -> Self {
        self.options.dedupe_arrays = false;
        self
    }

    /// In a merge, keeps what a wider tier says: narrower ones add properties and elements.
    pub fn preserve_existing(mut self) -> Self {
        self.options.preserve_existing = true;
        self
    }

    /// Reads all tiers as they were at this time.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// The tiers to look in, the widest first, that the configuration has.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if it has none of them.
    fn routes(&self) -> Result<Vec<(Tier, Route)>> {
        let route = |tier| self.kind.clone().tier(tier).collection(self.collection.clone());
        let mut wanted = vec![(Tier::Generic, route(Tier::Generic))];
        if let Some(domain) = &self.domain {
            wanted.push((Tier::Domain, route(Tier::Domain).domain(domain)));
        }
        if let Some(tenant) = &self.tenant {
            wanted.push((Tier::Tenant, route(Tier::Tenant).tenant(tenant)));
        }
        let (mut routes, mut missing) = (Vec::with_capacity(wanted.len()), None);
        for (tier, route) in wanted {
            match self.chronos.route(&route) {
                Ok(_) => routes.push((tier, route)),
                Err(error) if error.kind() == ErrorKind::RouteNotFound => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if routes.is_empty() => Err(error),
            _ => Ok(routes),
        }
    }

    async fn look(&self, route: Route) -> Result<Option<View>> {
        let mut list = self.chronos.with(route)?.list().filter(self.filter.clone()).limit(1);
        if let Some(at) = self.at {
            list = list.as_of(at);
        }
        Ok(list.await?.items.pop())
    }
}

impl Action for GetTiered {
    type Output = TieredRecord;

    fn observed(&self) -> Option<Observed> {
        Some(self.chronos.observed(Operation::GetTiered))
    }

    async fn run(self) -> Result<TieredRecord> {
        let routes = self.routes()?;
        let mut tiers = Vec::with_capacity(routes.len());
        if !self.merge {
            for (tier, route) in routes.into_iter().rev() {
                if let Some(view) = self.look(route).await? {
                    tiers.push((tier, view));
                    break;
                }
            }
            return Ok(TieredRecord { data: tiers.first().map(|(_, view)| view.document()), tiers });
        }
        let look = &self;
        let looks =
            routes.into_iter().map(|(tier, route)| async move { Ok((tier, look.look(route).await?)) });
        let found: Vec<(Tier, Option<View>)> = futures::future::try_join_all(looks).await?;
        tiers.extend(found.into_iter().filter_map(|(tier, view)| Some((tier, view?))));
        let merged = tiers.iter().map(|(_, view)| view.document()).reduce(|mut wider, narrower| {
            overlay(&mut wider, &narrower, self.options);
            wider
        });
        Ok(TieredRecord { data: merged, tiers })
    }
}

awaitable!(GetTiered);
