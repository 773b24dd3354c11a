//! The metrics there are.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, in buckets.
    Histogram,
}

/// A metric by its name.
///
/// ```
/// use chronos_db::telemetry::{METRICS, MetricKind};
///
/// let errors = METRICS.iter().find(|metric| metric.name == "chronos_errors_total").unwrap();
/// assert_eq!((errors.kind, errors.labels), (MetricKind::Counter, &["operation", "code"][..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, with its unit: `_seconds`, `_bytes`; of counters, `_total`.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// The labels that every one of its series has.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

impl Metric {
    /// Describes a metric.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: MetricKind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, help }
    }

    /// Tells the recorder what the metric says.
    pub fn describe(&self) {
        match self.kind {
            MetricKind::Counter => describe_counter!(self.name, self.help),
            MetricKind::Gauge => describe_gauge!(self.name, self.help),
            MetricKind::Histogram => describe_histogram!(self.name, self.help),
        }
    }
}

pub(super) const ERRORS: &str = "chronos_errors_total";
pub(super) const DURATION: &str = "chronos_operation_duration_seconds";
pub(super) const OPERATIONS: &str = "chronos_operations_total";
pub(super) const ROUTES: &str = "chronos_routes_total";
pub(super) const BACKEND_UP: &str = "chronos_backend_up";
pub(super) const BACKEND_DURATION: &str = "chronos_backend_duration_seconds";
pub(super) const BACKEND_ERRORS: &str = "chronos_backend_errors_total";
pub(super) const STORAGE_BYTES: &str = "chronos_storage_bytes_total";
pub(super) const CACHE_HITS: &str = "chronos_cache_hits_total";
pub(super) const CACHE_MISSES: &str = "chronos_cache_misses_total";
pub(super) const FLUSHED: &str = "chronos_flushed_versions_total";
pub(super) const FLUSH_LAG: &str = "chronos_flush_lag_seconds";
pub(super) const FLUSH_WAITING: &str = "chronos_flush_waiting";
pub(super) const FLUSH_FAILING: &str = "chronos_flush_failing";
pub(super) const FALLBACK_QUEUED: &str = "chronos_fallback_queued_total";
pub(super) const FALLBACK_SIZE: &str = "chronos_fallback_queue_size";
pub(super) const FALLBACK_DEAD: &str = "chronos_fallback_dead_letters";
pub(super) const FALLBACK_OLDEST: &str = "chronos_fallback_oldest_seconds";
pub(super) const STABLE_CV: &str = "chronos_stable_cv";
pub(super) const FOLLOWER_LAG: &str = "chronos_follower_lag";
pub(super) const WORKER_ROUNDS: &str = "chronos_worker_rounds_total";
pub(super) const WORKER_ROUND: &str = "chronos_worker_round_duration_seconds";
pub(super) const WORKER_COLLECTIONS: &str = "chronos_worker_collections";
pub(super) const WORKER_DONE: &str = "chronos_worker_done_total";
pub(super) const WORKER_FAILURES: &str = "chronos_worker_failures_total";

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Counter, labels, help)
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Gauge, labels, help)
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric::new(name, MetricKind::Histogram, labels, help)
}

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    counter(ERRORS, &["operation", "code"], "Operations that failed, by the code of their error."),
    histogram(DURATION, &["operation"], "How long operations took, those that failed too."),
    counter(OPERATIONS, &["collection"], "Operations on a collection; 200 collections at most have a name."),
    counter(
        ROUTES,
        &["connection", "tenant"],
        "Contexts that were resolved, by document connection and tenant.",
    ),
    gauge(BACKEND_UP, &["kind", "connection"], "Whether the last call to the store was answered."),
    histogram(BACKEND_DURATION, &["kind", "connection", "call"], "How long calls to a store took."),
    counter(BACKEND_ERRORS, &["kind", "connection"], "Calls to a store that failed."),
    counter(STORAGE_BYTES, &["connection", "direction"], "Bytes of objects that were written or read."),
    counter(CACHE_HITS, &[], "Payloads that were in memory."),
    counter(CACHE_MISSES, &[], "Payloads that had to be read from a row or an object."),
    counter(FLUSHED, &[], "Versions that were stored as objects."),
    histogram(FLUSH_LAG, &[], "How long versions waited from their commit to their object."),
    gauge(FLUSH_WAITING, &[], "Versions that waited for their objects when the worker ended its last round."),
    gauge(FLUSH_FAILING, &[], "Of these, versions that could not be stored."),
    counter(FALLBACK_QUEUED, &[], "Writes that this process put into the fallback queue."),
    gauge(FALLBACK_SIZE, &[], "Writes that wait in the fallback queue."),
    gauge(FALLBACK_DEAD, &[], "Writes of the fallback queue that were given up."),
    gauge(FALLBACK_OLDEST, &[], "The age of the oldest write that waits in the fallback queue."),
    gauge(
        STABLE_CV,
        &["connection", "database", "collection"],
        "The number up to which nothing of the log changes any more; of logs beyond the first 200 the sum.",
    ),
    gauge(
        FOLLOWER_LAG,
        &["connection", "database", "collection", "follower"],
        "How many numbers a follower of the log is behind it; of logs beyond the first 200 the sum.",
    ),
    counter(WORKER_ROUNDS, &[], "Rounds of the worker."),
    histogram(WORKER_ROUND, &[], "How long rounds of the worker took."),
    gauge(WORKER_COLLECTIONS, &[], "Collections that the worker had a share in, in its last round."),
    counter(WORKER_DONE, &["work"], "What the worker did, such as rows counted or messages removed."),
    counter(WORKER_FAILURES, &["task"], "Jobs of the worker that failed."),
];
