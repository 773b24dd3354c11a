//! Running rules.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;

use super::contexts::{self, Context};
use super::handle::{Analytics, Rule};
use super::result::AnalyticsResult;
use super::time_based::OnResult;
use super::{cross_tenant, time_based};
use crate::action::Action;
use crate::config::{CrossTenant, Entry, TimeBased};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result, Route, Timestamp};

/// Rules and entries at once: one whose store does not answer holds up no more than its own place.
const PARALLEL: usize = 4;

impl Analytics {
    /// Computes the results of rules anew, whether they are due or not. A time-based rule is run over every
    /// collection of its name: in each database of the configuration, and there for its tenant.
    ///
    /// Any number of processes may do so at once, and a run may end anywhere: no result is there twice, those of
    /// the run that began last stay, and the next run goes on.
    ///
    /// A rule that fails does not make the whole run fail: it is named in the [`AnalyticsRun`].
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a rule that there is not.
    pub fn run(&self) -> RunAnalytics {
        RunAnalytics {
            analytics: self.clone(),
            rules: None,
            now: None,
            route: None,
            on_result: Heard(Arc::new(|_| {})),
        }
    }
}

#[derive(Clone)]
struct Heard(Arc<OnResult>);

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard")
    }
}

/// Runs rules; see [`Analytics::run`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RunAnalytics {
    analytics: Analytics,
    rules: Option<Vec<String>>,
    now: Option<Timestamp>,
    route: Option<Route>,
    on_result: Heard,
}

/// What became of rules that were run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AnalyticsRun {
    /// One for each rule and collection it was run over. A rule for which there is no collection has none.
    pub rules: Vec<RuleRun>,
}

/// What became of one rule over one collection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuleRun {
    /// The rule.
    pub rule: String,
    /// What it was run over: a collection, or an entry of the configuration that could not be looked at.
    pub target: String,
    /// How many results it has.
    pub results: u64,
    /// Why it failed.
    pub error: Option<Error>,
}

impl RunAnalytics {
    /// Runs these rules alone. Default: all.
    pub fn rules<R: Into<String>>(mut self, names: impl IntoIterator<Item = R>) -> Self {
        self.rules = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Runs them as of a moment: it bounds `relativeTime`, and no item counts that was created later. What the items
    /// are is what they are now. Default: now, by the store's clock.
    pub fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    /// Runs time-based rules alone, over what this route sees; the collection that it names makes no difference.
    /// Default: every rule, everywhere.
    pub fn only(mut self, route: Route) -> Self {
        self.route = Some(route);
        self
    }

    /// Calls `hear` for every result as it is stored.
    pub fn on_result(mut self, hear: impl Fn(&AnalyticsResult) + Send + Sync + 'static) -> Self {
        self.on_result = Heard(Arc::new(hear));
        self
    }

    fn chosen(&self) -> Result<Vec<Rule>> {
        match &self.rules {
            None => Ok(self.analytics.rules()),
            Some(names) => names.iter().map(|name| self.analytics.rule(name)).collect(),
        }
    }

    /// A rule over each of its collections in one entry.
    async fn in_entry(&self, timed: &Arc<TimeBased>, entry: &Arc<Entry>) -> Vec<RuleRun> {
        let found = contexts::of_entry(&self.analytics.chronos, entry, &timed.rule.collection).await;
        match found {
            Ok(found) => self.over(timed, found).await,
            Err(error) => {
                let target = format!("{} (connection `{}`)", entry.path, entry.connection);
                vec![RuleRun { rule: timed.rule.name.clone(), target, results: 0, error: Some(error) }]
            }
        }
    }

    async fn over(&self, timed: &Arc<TimeBased>, found: Vec<Context>) -> Vec<RuleRun> {
        let mut runs = Vec::with_capacity(found.len());
        for Context { collection, shown } in found {
            let ran = time_based::run(&collection, timed, self.now, &*self.on_result.0).await;
            runs.push(RuleRun::of(&timed.rule.name, shown, ran));
        }
        runs
    }

    async fn on_route(&self, timed: &Arc<TimeBased>, route: &Route) -> Vec<RuleRun> {
        let name = &timed.rule.collection;
        let open = async {
            let collection = self.analytics.chronos.with(route.clone().collection(name))?;
            collection.scope().await?;
            Ok::<_, Error>(collection.exists().await?.then_some(collection))
        };
        let shown = format!("`{name}` ({route})");
        match open.await {
            Ok(Some(collection)) => self.over(timed, vec![Context { collection, shown }]).await,
            Ok(None) => Vec::new(),
            Err(error) => vec![RuleRun::of(&timed.rule.name, shown, Err(error))],
        }
    }

    async fn across(&self, cross: &Arc<CrossTenant>) -> RuleRun {
        let ran = cross_tenant::run(&self.analytics.chronos, cross, self.now, &*self.on_result.0).await;
        RuleRun::of(
            &cross.rule.name,
            format!("`{}` of {}", cross.rule.collection, cross.tenants.join(", ")),
            ran,
        )
    }
}

impl RuleRun {
    fn of(rule: &str, target: String, ran: Result<u64>) -> Self {
        let rule = rule.to_owned();
        match ran {
            Ok(results) => Self { rule, target, results, error: None },
            Err(error) => {
                Self { rule, target, results: 0, error: Some(error.during("run an analytics rule")) }
            }
        }
    }
}

/// A rule, and where it is run.
enum Task {
    TimeBased(Arc<TimeBased>, Arc<Entry>),
    OnRoute(Arc<TimeBased>, Route),
    CrossTenant(Arc<CrossTenant>),
}

impl Action for RunAnalytics {
    type Output = AnalyticsRun;

    fn observed(&self) -> Option<Observed> {
        Some(self.analytics.chronos.observed(Operation::RunAnalytics))
    }

    async fn run(self) -> Result<AnalyticsRun> {
        let entries = self.analytics.chronos.config().distinct_entries();
        let tasks = self.chosen()?.into_iter().flat_map(|rule| match (rule, &self.route) {
            (Rule::TimeBased(timed), None) => {
                entries.iter().map(|entry| Task::TimeBased(Arc::clone(&timed), Arc::clone(entry))).collect()
            }
            (Rule::TimeBased(timed), Some(route)) => vec![Task::OnRoute(timed, route.clone())],
            (Rule::CrossTenant(cross), None) => vec![Task::CrossTenant(cross)],
            (Rule::CrossTenant(_), Some(_)) => Vec::new(),
        });
        let tasks: Vec<Task> = tasks.collect();
        let this = &self;
        let ran = futures::stream::iter(tasks).map(|task| async move {
            match task {
                Task::TimeBased(timed, entry) => this.in_entry(&timed, &entry).await,
                Task::OnRoute(timed, route) => this.on_route(&timed, &route).await,
                Task::CrossTenant(cross) => vec![this.across(&cross).await],
            }
        });
        let rules: Vec<Vec<RuleRun>> = ran.buffered(PARALLEL).collect().await;
        Ok(AnalyticsRun { rules: rules.into_iter().flatten().collect() })
    }
}

awaitable!(RunAnalytics);
