//! The stored results of one rule over one collection.
//!
//! A run takes a number before it reads the first item, so a run with a higher number has seen what is at least
//! as new. Its results are put unless a run with a higher number has put them already, under ids that follow from
//! rule, timeframe and group: whatever is killed or runs twice, each is there once. At its end it notes its number,
//! and what it was about, in the state of the rule; then results of that go which have lower numbers. The last of
//! several runs at once does so for all of them, for each goes by the newest state that it finds.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::result::{ARGUMENTS, DEFINITION, OWNER, RULE, RUN, Stamp, TIMESTAMP, digest};
use crate::config::AnalyticsRule;
use crate::documents::filter::Test;
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Index, Namespace, Scan, Write};
use crate::lease::{LEASES, Lease};
use crate::projections::analytics_db::AnalyticsDb;
use crate::projections::counters::owner_of;
use crate::records::{Collection, Order, int, number};
use crate::{Env, Error, Result, Timestamp};

pub(super) const TIME_BASED: &str = "timeBasedResults";
pub(super) const CROSS_TENANT: &str = "crossTenantResults";
/// The states of rules, and the sequences of their runs.
const RUNS: &str = "analyticsRuns";
/// Results that are put or removed at once.
pub(super) const BATCH: usize = 200;

/// Which results a run is about: all of these that it has not put are out of date.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Coverage {
    All,
    /// Those of timeframes that begin between these moments.
    Timeframes(Timestamp, Timestamp),
    /// None. What an erasure is about, marks say.
    Nothing,
}

impl Coverage {
    /// None if it is about nothing.
    fn filter(self) -> Option<Filter> {
        match self {
            Self::All => Some(Filter::All),
            Self::Timeframes(from, to) => {
                let from = Filter::Field(TIMESTAMP.to_owned(), Test::Gte(from.into()));
                Some(from.and(Filter::lte(TIMESTAMP, to)))
            }
            Self::Nothing => None,
        }
    }

    fn write(self, state: &mut Document) {
        if let Self::Timeframes(from, to) = self {
            state.insert("from", from);
            state.insert("to", to);
        }
    }

    fn read(state: &Document) -> Self {
        let time = |field: &str| state.get_datetime(field).ok().map(|at| Timestamp::from(*at));
        match (time("ranAt"), time("from").zip(time("to"))) {
            (None, _) => Self::Nothing,
            (Some(_), Some((from, to))) => Self::Timeframes(from, to),
            (Some(_), None) => Self::All,
        }
    }
}

/// What the last run of a rule left.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleState {
    run: i64,
    definition: String,
    /// When it began, by the store's clock; none if an erasure has made the results out of date.
    pub(super) ran_at: Option<Timestamp>,
    coverage: Coverage,
}

/// Removes the grouped results over a collection of time-based rules that are none of `configured`: nothing says
/// what they are grouped by. Returns how many went.
pub(super) async fn remove_grouped_of_others(collection: &Collection, configured: &[&str]) -> Result<u64> {
    let db = &collection.analytics.db;
    let (documents, results) = (db.documents()?, db.namespace(TIME_BASED));
    let others = Test::Nin(configured.iter().map(|rule| Bson::from(*rule)).collect());
    let filter = Filter::eq(OWNER, owner_of(collection).await?)
        .and(Filter::Field(RULE.to_owned(), others))
        .and(Filter::Field(ARGUMENTS.to_owned(), Test::Exists(true)));
    let mut removed = 0;
    loop {
        let scan = Scan { filter: filter.clone(), limit: Some(BATCH as u64), ..Scan::default() };
        let found: Vec<Document> = documents.scan(&results, scan).try_collect().await?;
        if found.is_empty() {
            if removed > 0 {
                documents.purge(&results.database).await?;
            }
            return Ok(removed);
        }
        let mut batch = Batch::new();
        for id in found.iter().filter_map(|result| result.get("_id").cloned()) {
            batch.push(&results, Write::Delete { id, guard: Guard::Any });
        }
        removed += batch.operations.len() as u64;
        documents.apply(batch).await?;
    }
}

/// The results of one rule over one collection.
pub(super) struct ResultStore {
    pub(super) documents: Arc<dyn DocumentStore>,
    db: Arc<AnalyticsDb>,
    results: Namespace,
    pub(super) states: Namespace,
    owner: String,
    tenant: Option<String>,
    rule: String,
    definition: String,
    pub(super) env: Env,
}

impl ResultStore {
    /// Those of a rule, where the analytics of a collection are.
    pub(super) async fn of(collection: &Collection, rule: &AnalyticsRule, results: &str) -> Result<Self> {
        let db = Arc::clone(&collection.analytics.db);
        Ok(Self {
            documents: db.documents()?,
            results: db.namespace(results),
            states: db.namespace(RUNS),
            db,
            owner: owner_of(collection).await?,
            tenant: collection.upkeep_scope().await?.owner().map(str::to_owned),
            rule: rule.name.clone(),
            definition: digest([rule.definition.as_bytes()])[..12].to_owned(),
            env: collection.workers.index.env.clone(),
        })
    }

    pub(super) fn state_id(&self) -> String {
        format!("{}|{}", self.owner, self.rule)
    }

    async fn ensure(&self) -> Result<()> {
        self.db.results_ready.get_or_try_init(|| self.prepare()).await.map(drop)
    }

    async fn prepare(&self) -> Result<()> {
        let index = [Index::on("results", &[OWNER, RULE, TIMESTAMP, "_id"])];
        for results in [TIME_BASED, CROSS_TENANT] {
            self.documents.ensure(&self.db.namespace(results), &index).await?;
        }
        Ok(())
    }

    pub(super) async fn now(&self) -> Result<Timestamp> {
        self.documents.now().await
    }

    /// The lease on running the rule; none if another has it.
    pub(super) async fn lease(&self) -> Result<Option<Lease>> {
        let name = format!("analytics|{}", self.state_id());
        Lease::take(Arc::clone(&self.documents), self.db.namespace(LEASES), &name, &self.env).await
    }

    /// The state that the last run of the rule, as it is now, left.
    pub(super) async fn state(&self) -> Result<Option<RuleState>> {
        Ok(self.any_state().await?.filter(|state| state.definition == self.definition))
    }

    async fn any_state(&self) -> Result<Option<RuleState>> {
        let found = self.documents.get(&self.states, vec![self.state_id().into()]).await?;
        let Some(state) = found.first() else { return Ok(None) };
        let run = number(state, RUN).ok_or_else(|| {
            Error::database(format!("the state of the analytics rule `{}` is damaged", self.rule))
        })?;
        Ok(Some(RuleState {
            run,
            definition: state.get_str(DEFINITION).unwrap_or_default().to_owned(),
            ran_at: state.get_datetime("ranAt").ok().map(|at| Timestamp::from(*at)),
            coverage: Coverage::read(state),
        }))
    }

    /// Begins a run.
    pub(super) async fn begin(&self) -> Result<Stamp> {
        self.ensure().await?;
        let name = format!("{}|run", self.state_id());
        let given = self.documents.sequence(&self.states, &name, 1).await?;
        Ok(Stamp {
            owner: self.owner.clone(),
            tenant: self.tenant.clone(),
            definition: self.definition.clone(),
            run: given.first,
            computed_at: given.now,
        })
    }

    /// Puts results, unless a later run has.
    pub(super) async fn put(&self, results: &[Document]) -> Result<()> {
        for chunk in results.chunks(BATCH) {
            self.env.fail.hit("analytics.before_results")?;
            let mut batch = Batch::new();
            for result in chunk {
                batch.push(&self.results, Write::put(result.clone(), Guard::Newer { field: RUN.into() }));
            }
            self.documents.apply(batch).await?;
            self.env.fail.hit("analytics.after_results")?;
        }
        Ok(())
    }

    /// Ends a run: what it covers and has not put goes. Returns how many results went.
    pub(super) async fn end(&self, run: &Stamp, coverage: Coverage) -> Result<u64> {
        self.leave(run, coverage, Some(run.computed_at)).await
    }

    /// Makes the rule due after an erasure, unless a run has begun since.
    pub(super) async fn make_due(&self, erasure: &Stamp) -> Result<u64> {
        self.leave(erasure, Coverage::Nothing, None).await
    }

    async fn leave(&self, stamp: &Stamp, coverage: Coverage, ran_at: Option<Timestamp>) -> Result<u64> {
        let is_changed = self.any_state().await?.is_some_and(|state| state.definition != self.definition);
        let mut state = doc! { "_id": self.state_id(), RUN: int(stamp.run), DEFINITION: &self.definition };
        if let Some(ran_at) = ran_at {
            state.insert("ranAt", ran_at);
        }
        coverage.write(&mut state);
        let mut batch = Batch::new();
        batch.push(&self.states, Write::put(state, Guard::Newer { field: RUN.into() }));
        self.documents.apply(batch).await?;
        self.env.fail.hit("analytics.after_state")?;
        let Some(newest) = self.any_state().await? else { return Ok(0) };
        let mut removed = match newest.coverage.filter() {
            Some(covered) => self.remove(newest.run, covered).await?,
            None => 0,
        };
        if is_changed && newest.definition == self.definition {
            let others = Filter::Field(DEFINITION.to_owned(), Test::Ne(self.definition.as_str().into()));
            removed += self.remove(newest.run, others).await?;
        }
        Ok(removed)
    }

    fn own(&self) -> Filter {
        Filter::eq(OWNER, self.owner.as_str()).and(Filter::eq(RULE, self.rule.as_str()))
    }

    /// Removes results of earlier runs.
    async fn remove(&self, run: i64, which: Filter) -> Result<u64> {
        self.remove_if(run, which, |_| true).await
    }

    /// Removes those results of earlier runs that `is_stale` says.
    pub(super) async fn remove_if(
        &self,
        run: i64,
        which: Filter,
        is_stale: impl Fn(&Document) -> bool + Send + Sync,
    ) -> Result<u64> {
        let earlier = Filter::Field(RUN.to_owned(), Test::Lt(int(run)));
        let scan = Scan { filter: self.own().and(which).and(earlier), ..Scan::default() };
        let mut found = self.documents.scan(&self.results, scan).try_chunks(BATCH);
        let mut removed = 0;
        while let Some(chunk) = found.next().await {
            let mut batch = Batch::new();
            for result in chunk.map_err(|error| error.1)?.into_iter().filter(&is_stale) {
                if let (Some(id), Some(run)) = (result.get("_id"), result.get(RUN)) {
                    // Unless a run is putting it anew.
                    let guard = Guard::Equals { field: RUN.into(), value: run.clone() };
                    batch.push(&self.results, Write::Delete { id: id.clone(), guard });
                }
            }
            if batch.operations.is_empty() {
                continue;
            }
            let outcomes = self.documents.apply(batch).await?;
            removed += outcomes.iter().filter(|outcome| outcome.is_applied()).count() as u64;
            self.env.fail.hit("analytics.between_removals")?;
        }
        Ok(removed)
    }

    /// Sees to it that nothing of what was removed is left in the files of the store.
    pub(super) async fn purge(&self) -> Result<()> {
        self.documents.purge(&self.results.database).await
    }

    /// The order of lists: the newest first.
    pub(super) fn order() -> Order {
        [TIMESTAMP, "_id"].map(|path| (path.to_owned(), Direction::Descending)).to_vec()
    }

    /// The results of the rule as it is now.
    pub(super) fn list(
        &self,
        after: Option<Vec<Bson>>,
        limit: Option<u64>,
    ) -> BoxStream<'static, Result<Document>> {
        let current = Filter::eq(DEFINITION, self.definition.as_str());
        let scan =
            Scan { filter: self.own().and(current), order: Self::order(), after, limit, ..Scan::default() };
        self.documents.scan(&self.results, scan)
    }
}
