//! What needs a clock, or is left when a process dies: done for every collection of every entry of a
//! configuration, by any number of workers.
//!
//! A worker owns nothing. It lists what there is (`targets.rs`), takes the lease of one collection or database
//! after the other (`share.rs`), and runs the jobs that are for it (`job.rs`, `jobs/`), each of which a caller
//! could run as well. Nothing is right or wrong because of a lease: it keeps two workers from doing the same
//! work. Writes that wait in the fallback queue are carried out beside (`queued.rs`). What fails is tried again
//! after growing waits (`failures.rs`) and stops nothing else.

mod cross_tenant;
mod failures;
mod job;
mod jobs;
mod queued;
mod report;
mod share;
mod targets;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::failures::{Attempt, Failures};
use self::job::{FailureKey, Job, Part, Target};
pub use self::report::{FailedJob, WorkerReport};
use self::targets::{EntryRef, Listed};
use crate::projections::analytics_db::homes;
use crate::telemetry::{RoundNumbers, WorkerMeters};
use crate::{Chronos, Collection, Error, Route, Timestamp};

/// Entries that are worked on at once, and collections of each of them: a store that does not answer holds up
/// its own.
const ENTRIES: usize = 8;
const TARGETS: usize = 2;
/// How long jobs have that are under way when the worker is stopped.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two rounds of [`Worker::once`], while something is left.
const AGAIN: Duration = Duration::from_millis(250);
/// So often `once` tries what failed in a way that may pass.
const TRIES: u32 = 3;
/// Finding what there is, as the name of a job.
const LIST: &str = "list";
/// Finding where a collection is.
const ROUTE: &str = "route";
/// How long one round waits for the storage of a collection.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(10);

impl Chronos {
    /// Returns a worker for everything that the configuration leads to.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use std::time::Duration;
    ///
    /// use chronos_db::{Chronos, Route, config::Config, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// chronos.with(Route::runtime().tenant("default").collection("users"))?.create(json!({"n": 1})).await?;
    ///
    /// let report = chronos.worker().once(Duration::from_secs(30)).await;
    /// assert_eq!((report.collections, report.failure_count), (1, 0));
    /// assert_eq!(report.amounts["waiting"], 0);
    /// # chronos.shutdown().await
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker { all: Arc::new(All::new(self, None)) }
    }
}

/// Does what needs a clock, for every collection; see [`Chronos::worker`]. Any number of them may run, in any
/// number of processes.
///
/// What it does in each round: store what waits to be stored, remove uploads whose commit never came and
/// objects of erased items that came back, finish erasures that a process left, follow the log for the counters,
/// run analytics rules when the hour has changed (those across tenants, when the day has), trim what is superseded
/// where versions are not kept, mark what has passed its time and take payloads out of heads that keep them, remove
/// messages whose time has passed, and leases that nobody takes any more; and, unless it works on one collection
/// alone, carry out what is due of the fallback queue.
#[derive(Clone, Debug)]
pub struct Worker {
    all: Arc<All>,
}

struct All {
    chronos: Chronos,
    jobs: Vec<Arc<dyn Job>>,
    failures: Arc<Failures>,
    meters: WorkerMeters,
    only: Option<Only>,
}

impl All {
    fn new(chronos: &Chronos, only: Option<Only>) -> Self {
        let failures = Arc::new(Failures::default());
        let jobs = jobs::all(chronos, &failures);
        let amounts = report::names(&jobs);
        let names = jobs.iter().map(|job| job.name()).chain([LIST, ROUTE, share::LEASE, queued::FALLBACK]);
        let meters = WorkerMeters::new(&chronos.env().telemetry, amounts, names);
        Self { chronos: chronos.clone(), failures, meters, jobs, only }
    }
}

/// The only collection that is worked on.
struct Only {
    collection: Collection,
    homes: String,
}

impl std::fmt::Debug for All {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("chronos", &self.chronos)
            .field("only", &self.only.as_ref().map(|only| &only.collection))
            .finish_non_exhaustive()
    }
}

/// How long a round goes on.
#[derive(Clone, Copy)]
struct Until {
    /// Work that a worker did less than this long ago is left alone.
    done_before: Duration,
    /// From then on nothing is waited for.
    ends_at: Option<Timestamp>,
}

/// How one round goes.
struct Round<'w> {
    all: &'w All,
    until: Until,
    /// Only these are worked on; none for all.
    only: Option<BTreeMap<String, bool>>,
    /// Ends the round: nothing more is begun.
    stopping: &'w CancellationToken,
    so_far: Mutex<WorkerReport>,
}

impl Worker {
    /// Works on one collection alone.
    ///
    /// # Errors
    /// As [`Chronos::with`].
    pub fn only(self, route: Route) -> crate::Result<Self> {
        let chronos = self.all.chronos.clone();
        let homes = homes(chronos.config(), &chronos.route(&route)?);
        let only = Some(Only { collection: chronos.with(route)?, homes });
        Ok(Self { all: Arc::new(All::new(&chronos, only)) })
    }

    /// Does everything that is due until nothing is left, or `limit` has passed; what is under way then has
    /// five seconds more. Nothing is an error here: what failed, or is left, is named in the report.
    pub async fn once(&self, limit: Duration) -> WorkerReport {
        self.all.failures.forget();
        let stopping = CancellationToken::new();
        let clock = Arc::clone(&self.all.chronos.env().clock);
        let rounds = async {
            let ends_at = clock.now().plus(limit);
            let until = Until { done_before: Duration::ZERO, ends_at: Some(ends_at) };
            let mut report = self.round(until, None, &stopping).await;
            while !report.unfinished.is_empty() && !stopping.is_cancelled() {
                tokio::select! {
                    biased;
                    () = clock.sleep(AGAIN) => {}
                    () = stopping.cancelled() => break,
                }
                let left = std::mem::take(&mut report.unfinished);
                report.goes_on_as(self.round(until, Some(left), &stopping).await);
            }
            report
        };
        let end = async {
            clock.sleep(limit).await;
            stopping.cancel();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            report = rounds => report,
            never = end => match never {},
        }
    }

    /// Does everything that is due until nothing is left, however long that takes, as long as it gets on: it ends,
    /// too, when for `idle` what waits has not become less. Nothing is an error here, as with [`once`](Self::once).
    pub async fn until_done(&self, idle: Duration) -> WorkerReport {
        while_less_waits(async || self.once(idle).await).await
    }

    /// Does everything that is due once every `every`, until `stop` comes; what is under way then has five
    /// seconds to end. `report` is called after each round.
    pub async fn run(
        &self,
        every: Duration,
        stop: impl Future<Output = ()> + Send,
        mut report: impl FnMut(WorkerReport) + Send,
    ) {
        let stopping = CancellationToken::new();
        let clock = Arc::clone(&self.all.chronos.env().clock);
        let rounds = async {
            while !stopping.is_cancelled() {
                let until = Until { done_before: every, ends_at: None };
                report(self.round(until, None, &stopping).await);
                tokio::select! {
                    biased;
                    () = clock.sleep(every) => {}
                    () = stopping.cancelled() => {}
                }
            }
        };
        let stop = async {
            stop.await;
            stopping.cancel();
        };
        futures::future::join(rounds, stop).await;
    }

    async fn round(
        &self,
        until: Until,
        only: Option<BTreeMap<String, bool>>,
        stopping: &CancellationToken,
    ) -> WorkerReport {
        let all = &*self.all;
        let so_far = Mutex::new(WorkerReport::blank(&all.jobs));
        let round = Round { all, until, only, stopping, so_far };
        let began = Instant::now();
        round.run().await;
        let report = round.so_far.into_inner();
        let (collections, amounts) = (report.collections, &report.amounts);
        all.meters.ended(&RoundNumbers { took: began.elapsed(), collections, amounts });
        report
    }
}

/// Passes over everything until nothing is left, or until no less waits than before.
async fn while_less_waits(mut pass: impl AsyncFnMut() -> WorkerReport) -> WorkerReport {
    let mut report = pass().await;
    let mut before = u64::MAX;
    while !report.is_finished() && report.waiting() < before {
        before = report.waiting();
        report.goes_on_as(pass().await);
    }
    report
}

impl Round<'_> {
    async fn run(&self) {
        if let Some(Only { collection, homes }) = &self.all.only {
            match Target::of_collection(collection, homes, format!("`{}`", collection.name())).await {
                Ok(target) => self.work(target).await,
                Err(error) => {
                    let name = collection.name();
                    self.fail(ROUTE, FailureKey { key: name, shown: name }, error);
                }
            }
            return;
        }
        let entries = targets::distinct_entries(self.all.chronos.config());
        let entries = futures::stream::iter(entries).take_until(self.stopping.cancelled());
        let entries = entries.for_each_concurrent(ENTRIES, |entry| self.work_on_entry(entry));
        let across = cross_tenant::work(self);
        futures::future::join3(entries.boxed(), queued::work(self).boxed(), across.boxed()).await;
        if self.stopping.is_cancelled() {
            self.leave(report::NOT_REACHED);
        }
    }

    /// Everything that one entry leads to.
    async fn work_on_entry(&self, entry: EntryRef) {
        let shown = entry.shown();
        let failure_key = FailureKey { key: entry.path(), shown: &shown };
        let is_left = |left: &String| left == failure_key.key || entry.may_hold(left);
        if self.only.as_ref().is_some_and(|only| !only.keys().any(is_left))
            || !self.all.failures.may_try(failure_key.key, LIST, self.now())
        {
            return;
        }
        let listed = tokio::select! {
            biased;
            listed = targets::list(&self.all.chronos, &entry) => listed,
            () = self.drained() => Err(Error::database("it did not answer in time").retryable()),
        };
        let found = match listed {
            Ok(found) => found.take_until(self.stopping.cancelled()),
            Err(error) => return self.fail(LIST, failure_key, error),
        };
        // One that could not be listed before is new as a whole.
        let is_whole = self.only.as_ref().is_none_or(|only| only.contains_key(failure_key.key));
        let failed = AtomicBool::new(false);
        let work = |found: crate::Result<Listed>| async {
            match found {
                Ok(found) => self.work_on(found, is_whole).await,
                // One try of the entry, however many of its databases do not answer.
                Err(error) if failed.swap(true, Ordering::AcqRel) => {
                    tracing::debug!(target = failure_key.shown, %error, "more of an entry could not be listed");
                }
                Err(error) => self.fail(LIST, failure_key, error),
            }
        };
        found.for_each_concurrent(TARGETS, work).await;
        if !failed.load(Ordering::Acquire) && !self.stopping.is_cancelled() {
            self.succeed(LIST, failure_key);
        }
    }

    /// What an entry leads to, if it is asked for. A collection that cannot be looked at waits for itself.
    async fn work_on(&self, found: Listed, is_whole: bool) {
        let is_asked_for =
            |key: &str| is_whole || self.only.as_ref().is_some_and(|only| only.contains_key(key));
        let candidate = match found {
            Listed::Target(target) if is_asked_for(&target.lease) => return self.work(target).await,
            Listed::Target(_) => return,
            Listed::Candidate(candidate) => candidate,
        };
        let failure_key = candidate.failure_key();
        if !self.all.failures.may_try(failure_key.key, LIST, self.now()) {
            return;
        }
        let target = tokio::select! {
            biased;
            target = candidate.target() => target,
            () = self.drained() => return self.leave(failure_key.key),
        };
        match target {
            Ok(target) => {
                self.succeed(LIST, failure_key);
                if let Some(target) = target
                    && (is_asked_for(failure_key.key) || is_asked_for(&target.lease))
                {
                    self.work(target).await;
                }
            }
            Err(error) => self.fail(LIST, failure_key, error),
        }
    }

    async fn work(&self, target: Target) {
        let now = self.now();
        let wanted = |job: &&Arc<dyn Job>| {
            job.is_for(&target.subject) && self.all.failures.may_try(&target.lease, job.name(), now)
        };
        let jobs: Vec<Arc<dyn Job>> = self.all.jobs.iter().filter(wanted).cloned().collect();
        if !jobs.is_empty() && self.all.failures.may_try(&target.lease, share::LEASE, now) {
            share::work(self, &target, &jobs).await;
        }
    }

    /// Whether a target was not worked on in the rounds before that this one goes on with.
    fn is_first_for(&self, lease: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.get(lease) != Some(&true))
    }

    fn now(&self) -> Timestamp {
        self.all.chronos.env().clock.now()
    }

    /// How long a job may wait for something that does not come: half of the time there is, so that the others
    /// have theirs.
    fn patience(&self) -> Duration {
        let left = self.until.ends_at.map(|end| {
            Duration::from_millis(
                end.as_millis().saturating_sub(self.now().as_millis()).max(0).unsigned_abs(),
            )
        });
        left.map_or(STORAGE_TIMEOUT, |left| (left / 2).min(STORAGE_TIMEOUT))
    }

    /// Returns when what is under way has to end.
    async fn drained(&self) {
        self.stopping.cancelled().await;
        self.all.chronos.env().clock.sleep(DRAIN).await;
    }

    /// Notes that something is left that was not worked on.
    fn leave(&self, lease: &str) {
        self.so_far.lock().unfinished.entry(lease.to_owned()).or_insert(false);
    }

    /// Notes that a job did not fail.
    fn succeed(&self, job: &'static str, FailureKey { key, shown }: FailureKey<'_>) {
        if self.all.failures.succeeded(key, job) {
            self.so_far.lock().mended.push((job, shown.to_owned()));
        }
    }

    /// Notes how the parts of a job ended that have failures of their own.
    fn end_parts(
        &self,
        job: &'static str,
        of: FailureKey<'_>,
        worked: Vec<Part>,
        failed: Vec<(Part, Error)>,
    ) {
        let shown = |part: &Part| format!("{} over {}", part.shown, of.shown);
        for part in worked {
            self.succeed(job, FailureKey { key: &part.key, shown: &shown(&part) });
        }
        for (part, error) in failed {
            self.fail_for(of.key, job, FailureKey { key: &part.key, shown: &shown(&part) }, error);
        }
    }

    /// Notes that a job failed. The first time it is logged.
    fn fail(&self, job: &'static str, of: FailureKey<'_>, error: Error) {
        self.fail_for(of.key, job, of, error);
    }

    /// The same, where `left` names what is to be worked on for another try.
    fn fail_for(
        &self,
        left: &str,
        job: &'static str,
        FailureKey { key, shown }: FailureKey<'_>,
        error: Error,
    ) {
        let Attempt { tries, .. } = self.all.failures.failed(key, job, self.now());
        if tries == 1 {
            tracing::warn!(job, target = shown, %error, "a job of the worker failed; it is tried again after growing waits");
        } else {
            tracing::debug!(job, target = shown, tries, %error, "a job of the worker failed again");
        }
        self.all.meters.failed(job);
        let mut so_far = self.so_far.lock();
        if self.until.done_before.is_zero() && error.is_retryable() && tries < TRIES {
            self.all.failures.at_once(key, job);
            so_far.unfinished.insert(left.to_owned(), true);
        }
        so_far.add_failure(FailedJob { job, target: shown.to_owned(), tries, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is reported in the end, and after how many passes, if after each of them so many versions wait.
    async fn passes(waiting: &[u64]) -> (WorkerReport, usize) {
        let mut made = 0;
        let report = while_less_waits(async || {
            let left = waiting[made];
            made += 1;
            let mut report = WorkerReport { collections: 1, ..WorkerReport::default() };
            report.amounts.insert("waiting", left);
            report.unfinished.extend((left > 0).then(|| ("users".to_owned(), true)));
            report
        });
        (report.await, made)
    }

    #[tokio::test]
    async fn a_worker_goes_on_as_long_as_less_and_less_waits() {
        let (report, made) = passes(&[900, 500, 100, 0]).await;
        assert_eq!((report.is_finished(), report.amounts["waiting"], made), (true, 0, 4));
        let (report, made) = passes(&[900, 500, 500, 0]).await;
        assert_eq!((report.is_finished(), report.amounts["waiting"], made), (false, 500, 3));
        let (report, made) = passes(&[0]).await;
        assert_eq!((report.is_finished(), made), (true, 1));
    }
}
