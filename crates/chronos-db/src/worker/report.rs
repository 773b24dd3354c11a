//! What a worker did.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::job::{Job, JobOutcome};
use crate::{DamagedRow, Error, FailingVersion, Json};

/// Failures, failing versions and damaged rows that are named.
const NAMED: usize = 100;
/// What is counted of the fallback queue.
pub(super) const QUEUE_COUNTS: [&str; 4] = ["retried", "postponed", "dead", "queued"];

/// Stands among what is left if a round ended before it came to everything.
pub(super) const NOT_REACHED: &str = "what was not reached";

/// A job that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedJob {
    /// The job, such as `flush` or `counters`.
    pub job: &'static str,
    /// What it was for: a collection, or an entry of the configuration.
    pub target: String,
    /// How often it failed in a row.
    pub tries: u32,
    /// What went wrong.
    pub error: Error,
}

/// What one round of a [`Worker`](super::Worker) did, and what it left.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Collections that were worked on.
    pub collections: u64,
    /// How many of what: `waiting` and `failing` versions that are not stored yet, `orphans`, `erased` and
    /// `malformed` of [`Collected`](crate::Collected), erasures that were `certified`, `counted` and `damaged` rows,
    /// analytics `rules` that were run, `trimmed` rows, versions that were `rolledUp` and `pruned`, objects that were
    /// found `unnamed`, items that became `processed`, payloads that were `shrunk` out of their heads, ended
    /// `messages`, `leases` that nobody takes any more; of the fallback queue, writes that were `retried`,
    /// `postponed`, became `dead` letters, or are still `queued`.
    pub amounts: BTreeMap<&'static str, u64>,
    /// Some of the versions that could not be stored.
    pub failing: Vec<FailingVersion>,
    /// Some of the rows that cannot be read, and their collections.
    pub damaged: Vec<(String, DamagedRow)>,
    /// How many jobs failed.
    pub failure_count: u64,
    /// Some of them.
    pub failures: Vec<FailedJob>,
    /// Jobs that failed before, and did not this time, with their targets.
    pub(super) mended: Vec<(&'static str, String)>,
    /// What is left: versions wait to be stored, or another worker is at it. Whether it was worked on.
    pub(super) unfinished: BTreeMap<String, bool>,
}

/// The names of everything that is counted.
pub(super) fn names(jobs: &[Arc<dyn Job>]) -> impl Iterator<Item = &'static &'static str> {
    jobs.iter().flat_map(|job| job.counts()).chain(&QUEUE_COUNTS)
}

impl WorkerReport {
    pub(super) fn blank(jobs: &[Arc<dyn Job>]) -> Self {
        let amounts = names(jobs).map(|name| (*name, 0)).collect();
        Self { amounts, ..Self::default() }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Versions that wait to be stored, and writes that are queued.
    pub(super) fn waiting(&self) -> u64 {
        ["waiting", "queued"].iter().filter_map(|name| self.amounts.get(name)).sum()
    }

    pub(super) fn add(&mut self, collection: &str, done: JobOutcome) {
        for (name, count) in done.counts {
            *self.amounts.entry(name).or_default() += count;
        }
        let room = |known: usize| NAMED.saturating_sub(known);
        self.failing.extend(done.failing.into_iter().take(room(self.failing.len())));
        let named = done.damaged.into_iter().map(|row| (collection.to_owned(), row));
        self.damaged.extend(named.take(room(self.damaged.len())));
    }

    pub(super) fn add_failure(&mut self, failure: FailedJob) {
        self.failure_count += 1;
        if self.failures.len() < NAMED {
            self.failures.push(failure);
        }
    }

    /// Takes in the round that went on with what this one left. What waited, and what failed and was tried
    /// again, is as that round found it.
    pub(super) fn goes_on_as(&mut self, next: Self) {
        if !next.unfinished.contains_key(NOT_REACHED) {
            for name in ["waiting", "failing", "queued"] {
                self.amounts.insert(name, 0);
            }
            self.failing.clear();
        }
        for (name, count) in next.amounts {
            *self.amounts.entry(name).or_default() += count;
        }
        self.collections += next.collections;
        self.failing.extend(next.failing);
        self.failing.truncate(NAMED);
        self.damaged.extend(next.damaged);
        self.damaged.truncate(NAMED);
        let before = self.failures.len();
        self.failures.retain(|failure| {
            let is_this = |job: &str, target: &str| job == failure.job && target == failure.target;
            !next.mended.iter().any(|(job, target)| is_this(job, target))
                && !next.failures.iter().any(|again| is_this(again.job, &again.target))
        });
        self.failure_count -= (before - self.failures.len()) as u64;
        self.failure_count += next.failure_count;
        self.failures.extend(next.failures);
        self.failures.truncate(NAMED);
        self.unfinished = next.unfinished;
    }

    /// Returns the report as JSON: `collections`, every amount, and `failed` jobs.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut json = crate::json!({ "collections": self.collections });
        for (name, amount) in &self.amounts {
            json[*name] = (*amount).into();
        }
        json["failed"] = self.failure_count.into();
        json
    }
}
