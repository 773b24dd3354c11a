//! Listing the results of a rule.

use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::handle::{Analytics, Rule};
use super::result::AnalyticsResult;
use super::store::ResultStore;
use super::{cross_tenant, time_based};
use crate::action::Action;
use crate::records::{cursor, parse_cursor};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Page, Result, Route};

/// Results per page if no limit is given, and the most a page can have.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

impl Analytics {
    /// Lists the results of a rule, as of its last run: the latest timeframe first. `route` leads to the data whose
    /// results are meant, and the collection that it names makes no difference; a rule across tenants has its
    /// results where the configuration says.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a rule that there is not, or a wrong token; `ROUTE_NOT_FOUND` for a route that leads
    /// nowhere; `TXN_ERROR` if the store fails.
    pub fn results(&self, rule: impl Into<String>, route: Route) -> ListResults {
        ListResults { analytics: self.clone(), rule: rule.into(), route, limit: PAGE, after: None }
    }
}

/// Lists results; see [`Analytics::results`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListResults {
    analytics: Analytics,
    rule: String,
    route: Route,
    limit: u32,
    after: Option<String>,
}

impl ListResults {
    /// Limits a page to this many results: 1 to 1,000, default 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Goes on after a page, by its [`Page::next`].
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.after = Some(token.into());
        self
    }

    async fn store(&self) -> Result<ResultStore> {
        match self.analytics.rule(&self.rule)? {
            Rule::TimeBased(timed) => {
                let route = self.route.clone().collection(&timed.rule.collection);
                let collection = self.analytics.chronos.with(route)?;
                collection.scope().await?;
                time_based::results(&collection, &timed).await
            }
            Rule::CrossTenant(cross) => cross_tenant::results(&self.analytics.chronos, &cross).await,
        }
    }

    /// Streams all results one by one, in bounded memory; the limit is not looked at.
    ///
    /// # Errors
    /// As the list itself.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<AnalyticsResult>>> {
        let after = self.after.as_deref().map(|token| parse_cursor(token, &ResultStore::order())).transpose();
        let found = async { Ok::<_, Error>(self.store().await?.list(after?, None)) };
        let found = found.await.map_err(|error| error.during("list analytics results"))?;
        Ok(Box::pin(found.and_then(|stored| async move { AnalyticsResult::read(&stored) })))
    }
}

impl Action for ListResults {
    type Output = Page<AnalyticsResult>;

    fn observed(&self) -> Option<Observed> {
        Some(self.analytics.chronos.observed(Operation::AnalyticsResults))
    }

    async fn run(self) -> Result<Page<AnalyticsResult>> {
        let order = ResultStore::order();
        let list = async {
            let after = self.after.as_deref().map(|token| parse_cursor(token, &order)).transpose()?;
            let limit = u64::from(self.limit);
            // One more tells whether there is a next page.
            let mut found: Vec<_> = self.store().await?.list(after, Some(limit + 1)).try_collect().await?;
            let wanted = self.limit as usize;
            let next = match found.get(wanted - 1) {
                Some(last) if found.len() > wanted => Some(cursor(&order, last)?),
                _ => None,
            };
            found.truncate(wanted);
            Page::new(found, next).try_map(|stored| AnalyticsResult::read(&stored))
        };
        list.await.map_err(|error| error.during("list analytics results"))
    }
}

awaitable!(ListResults);
