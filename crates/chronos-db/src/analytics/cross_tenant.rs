//! Running a rule across tenants.

use std::sync::Arc;

use async_trait::async_trait;
use bson::Bson;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::fold::{Fold, Sample, SampleGroup, Samples};
use super::result::AnalyticsResult;
use super::store::{CROSS_TENANT, Coverage, ResultStore};
use super::time_based::OnResult;
use super::values::{numbers_of, query_of};
use crate::config::{AnalyticsOperation, CrossTenant, CrossTenantMode};
use crate::records::{Collection, Scope, ValuesQuery, Workers, int};
use crate::{Chronos, ErrorKind, Result, Route, Timestamp};

/// The group that all tenants' items are in.
const POOLED: i64 = i64::MAX;

fn collection(chronos: &Chronos, cross: &CrossTenant, tenant: &str) -> Result<Collection> {
    let route = Route::runtime().tenant(tenant).collection(&cross.rule.collection);
    chronos.resolved(&chronos.route(&route)?)
}

/// The results of a rule, among the analytics of its master.
pub(super) async fn results(chronos: &Chronos, cross: &CrossTenant) -> Result<ResultStore> {
    let master = collection(chronos, cross, &cross.master)?;
    ResultStore::of(&master, &cross.rule, CROSS_TENANT).await
}

/// Makes the rule due after an item of a collection was erased, if the collection is one of those it pools.
pub(super) async fn make_due_after(
    chronos: &Chronos,
    cross: &CrossTenant,
    erased_from: &Collection,
) -> Result<()> {
    if cross.rule.collection != erased_from.name() {
        return Ok(());
    }
    for tenant in &cross.tenants {
        let pooled = match collection(chronos, cross, tenant) {
            Ok(pooled) => pooled,
            // A tenant without a database has no item that could be erased.
            Err(error) if error.kind() == ErrorKind::RouteNotFound => continue,
            Err(error) => return Err(error),
        };
        let is_same_store = pooled.analytics.records == erased_from.analytics.records;
        if is_same_store && pooled.database() == erased_from.database() {
            let store = match results(chronos, cross).await {
                Ok(store) => store,
                Err(error) if error.kind() == ErrorKind::RouteNotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let stamp = store.begin().await?;
            return store.make_due(&stamp).await.map(drop);
        }
    }
    Ok(())
}

/// Runs the rule as of `now`, by default the present.
pub(super) async fn run(
    chronos: &Chronos,
    cross: &Arc<CrossTenant>,
    now: Option<Timestamp>,
    hear: &OnResult,
) -> Result<u64> {
    let store = results(chronos, cross).await?;
    let stamp = store.begin().await?;
    let now = match now {
        Some(now) => now,
        None => store.now().await?,
    };
    let mut tenants = Vec::with_capacity(cross.tenants.len());
    for tenant in &cross.tenants {
        let collection = collection(chronos, cross, tenant)?;
        let scope = collection.upkeep_scope().await?.clone();
        tenants.push(Tenant { workers: collection.workers, scope });
    }
    let samples = TenantSamples { tenants, query: query_of(&cross.rule, &[], now), cross: Arc::clone(cross) };
    let (value, each) = match cross.mode {
        CrossTenantMode::Boolean => samples.who_has_any().await?,
        CrossTenantMode::Sum => samples.fold(AnalyticsOperation::Sum).await?,
        CrossTenantMode::Max => samples.fold(AnalyticsOperation::Max).await?,
        CrossTenantMode::Min => samples.fold(AnalyticsOperation::Min).await?,
        CrossTenantMode::Median => samples.fold(AnalyticsOperation::Median).await?,
    };
    let each = cross.tenants.iter().cloned().zip(each).collect();
    let result = stamp.cross_tenant(cross, now, value, each);
    store.put(std::slice::from_ref(&result)).await?;
    hear(&AnalyticsResult::read(&result)?);
    store.end(&stamp, Coverage::All).await?;
    Ok(1)
}

/// The items of one tenant.
struct Tenant {
    workers: Arc<Workers>,
    scope: Scope,
}

/// What the items of several tenants add.
struct TenantSamples {
    tenants: Vec<Tenant>,
    query: ValuesQuery,
    cross: Arc<CrossTenant>,
}

impl TenantSamples {
    /// How many tenants have such an item, and which of them.
    async fn who_has_any(&self) -> Result<(Bson, Vec<Bson>)> {
        let mut each = Vec::with_capacity(self.tenants.len());
        for tenant in &self.tenants {
            each.push(i64::from(self.has_any(tenant).await?));
        }
        Ok((int(each.iter().sum()), each.into_iter().map(int).collect()))
    }

    async fn has_any(&self, tenant: &Tenant) -> Result<bool> {
        let rule = &self.cross.rule;
        if rule.field.is_none()
            && let Some(count) = tenant.workers.reader.count_values(&self.query, &tenant.scope, 1).await?
        {
            return Ok(count > 0);
        }
        let mut items = tenant.workers.reader.values(&self.query, &tenant.scope).await?;
        while let Some(item) = items.try_next().await? {
            if !numbers_of(rule, &item, true)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The value of all tenants together, and of each.
    async fn fold(&self, measure: AnalyticsOperation) -> Result<(Bson, Vec<Bson>)> {
        let nothing = if measure == AnalyticsOperation::Sum { int(0) } else { Bson::Null };
        let mut each = vec![nothing.clone(); self.tenants.len()];
        let mut pooled = nothing;
        let mut fold = Fold::new(self, measure, None);
        while let Some(groups) = fold.next().await? {
            for group in groups {
                match usize::try_from(group.key.0).ok().and_then(|position| each.get_mut(position)) {
                    Some(value) => *value = group.value,
                    None => pooled = group.value,
                }
            }
        }
        Ok((pooled, each))
    }
}

#[async_trait]
impl Samples for TenantSamples {
    async fn read(&self) -> Result<BoxStream<'static, Result<Sample>>> {
        let tenants: Vec<_> = self
            .tenants
            .iter()
            .zip(0_i64..)
            .map(|(tenant, position)| (Arc::clone(&tenant.workers), tenant.scope.clone(), position))
            .collect();
        let (query, cross) = (self.query.clone(), Arc::clone(&self.cross));
        let of_tenant = move |(workers, scope, position): (Arc<Workers>, Scope, i64)| {
            let (query, cross) = (query.clone(), Arc::clone(&cross));
            async move {
                let items = workers.reader.values(&query, &scope).await?;
                Ok::<_, crate::Error>(items.map(move |item| {
                    let numbers = numbers_of(&cross.rule, &item?, false)?;
                    let group = |of: i64| SampleGroup { key: (of, Vec::new()), arguments: Vec::new() };
                    Ok::<_, crate::Error>(Sample { numbers, groups: vec![group(position), group(POOLED)] })
                }))
            }
        };
        Ok(stream::iter(tenants).then(of_tenant).try_flatten().boxed())
    }
}
