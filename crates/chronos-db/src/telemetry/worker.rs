//! What is measured of a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::meters::Telemetry;
use super::metric;

/// Amounts that say what is left, not what was done.
const LEFT: [&str; 3] = ["waiting", "failing", "queued"];

/// The result of a round.
pub(crate) struct RoundNumbers<'r> {
    pub(crate) took: Duration,
    pub(crate) collections: u64,
    pub(crate) amounts: &'r BTreeMap<&'static str, u64>,
}

/// The handles of one worker.
pub(crate) struct WorkerMeters {
    is_on: bool,
    rounds: Counter,
    durations: Histogram,
    collections: Gauge,
    waiting: Gauge,
    failing: Gauge,
    done: BTreeMap<&'static str, Counter>,
    /// By job. The label has another name, as that of Prometheus' own jobs is `job`.
    failures: BTreeMap<&'static str, Counter>,
}

impl WorkerMeters {
    /// With the names of everything a report counts, and of everything that can fail.
    pub(crate) fn new<'n>(
        telemetry: &Telemetry,
        amounts: impl Iterator<Item = &'n &'static str>,
        jobs: impl Iterator<Item = &'static str>,
    ) -> Self {
        if !telemetry.is_on() {
            return Self {
                is_on: false,
                rounds: Counter::noop(),
                durations: Histogram::noop(),
                collections: Gauge::noop(),
                waiting: Gauge::noop(),
                failing: Gauge::noop(),
                done: BTreeMap::new(),
                failures: BTreeMap::new(),
            };
        }
        let done = amounts.filter(|name| !LEFT.contains(name));
        Self {
            is_on: true,
            rounds: counter!(metric::WORKER_ROUNDS),
            durations: histogram!(metric::WORKER_ROUND),
            collections: gauge!(metric::WORKER_COLLECTIONS),
            waiting: gauge!(metric::FLUSH_WAITING),
            failing: gauge!(metric::FLUSH_FAILING),
            done: done.map(|name| (*name, counter!(metric::WORKER_DONE, "work" => *name))).collect(),
            failures: jobs.map(|job| (job, counter!(metric::WORKER_FAILURES, "task" => job))).collect(),
        }
    }

    /// A round ended.
    pub(crate) fn ended(&self, round: &RoundNumbers<'_>) {
        if !self.is_on {
            return;
        }
        self.rounds.increment(1);
        self.durations.record(round.took);
        let amount = |name: &str| round.amounts.get(name).copied().unwrap_or_default();
        // Counts are far below where floats have holes.
        self.collections.set(round.collections as f64);
        self.waiting.set(amount("waiting") as f64);
        self.failing.set(amount("failing") as f64);
        for (name, counter) in &self.done {
            counter.increment(amount(name));
        }
    }

    /// A job failed.
    pub(crate) fn failed(&self, job: &str) {
        if let Some(counter) = self.failures.get(job) {
            counter.increment(1);
        }
    }
}
