//! The handles of one [`Chronos`](crate::Chronos).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::bounded::{Bounded, BoundedGauges, OTHER};
use super::metric::{self, METRICS};
use super::operation::Operation;
use crate::ErrorKind;

/// Where measurements go: handles of the recorder that was installed when the [`Chronos`](crate::Chronos) was
/// opened. The default is nowhere; opening replaces it.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Meters>>);

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Telemetry(on)" } else { "Telemetry(off)" })
    }
}

/// By connection and tenant.
type RouteKey = (String, String);
/// The log of a collection. Two connections may have a database of one name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPlace<'l> {
    pub(crate) connection: &'l str,
    pub(crate) database: &'l str,
    pub(crate) collection: &'l str,
}

/// By connection, database and collection.
type LogKey = [String; 3];

fn other_logs() -> LogKey {
    [OTHER, OTHER, OTHER].map(str::to_owned)
}

fn stable_cv([connection, database, collection]: LogKey) -> Gauge {
    gauge!(metric::STABLE_CV, "connection" => connection, "database" => database, "collection" => collection)
}

fn follower_lag([connection, database, collection]: LogKey, follower: &'static str) -> Gauge {
    gauge!(metric::FOLLOWER_LAG, "connection" => connection, "database" => database, "collection" => collection, "follower" => follower)
}

struct Meters {
    durations: Vec<Histogram>,
    /// By operation, then by kind.
    errors: Vec<Vec<Counter>>,
    collections: Bounded<String, Counter>,
    routes: Bounded<RouteKey, Counter>,
    cache_hits: Counter,
    cache_misses: Counter,
    flushed: Counter,
    flush_lag: Histogram,
    fallback_queued: Counter,
    fallback_size: Gauge,
    fallback_dead: Gauge,
    fallback_oldest: Gauge,
    /// The stable cv.
    logs: BoundedGauges<LogKey>,
    followers: BoundedGauges<(LogKey, &'static str)>,
}

impl Telemetry {
    /// Takes handles of the recorder that is installed. Every counter begins to be there.
    pub(crate) fn register() -> Self {
        METRICS.iter().for_each(super::metric::Metric::describe);
        let errors = |operation: &Operation| -> Vec<Counter> {
            let of = |kind: &ErrorKind| counter!(metric::ERRORS, "operation" => operation.label(), "code" => kind.code());
            ErrorKind::ALL.iter().map(of).collect()
        };
        let duration = |operation: &Operation| histogram!(metric::DURATION, "operation" => operation.label());
        Self(Some(Arc::new(Meters {
            durations: Operation::ALL.iter().map(duration).collect(),
            errors: Operation::ALL.iter().map(errors).collect(),
            collections: Bounded::default(),
            routes: Bounded::default(),
            cache_hits: counter!(metric::CACHE_HITS),
            cache_misses: counter!(metric::CACHE_MISSES),
            flushed: counter!(metric::FLUSHED),
            flush_lag: histogram!(metric::FLUSH_LAG),
            fallback_queued: counter!(metric::FALLBACK_QUEUED),
            fallback_size: gauge!(metric::FALLBACK_SIZE),
            fallback_dead: gauge!(metric::FALLBACK_DEAD),
            fallback_oldest: gauge!(metric::FALLBACK_OLDEST),
            logs: BoundedGauges::default(),
            followers: BoundedGauges::default(),
        })))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// An operation ended, well or with an error of this kind.
    pub(super) fn ended(&self, operation: Operation, took: Duration, failed: Option<ErrorKind>) {
        let Some(meters) = &self.0 else { return };
        meters.durations[operation as usize].record(took);
        if let Some(kind) = failed
            && let Some(counter) = meters.errors[operation as usize].get(kind as usize)
        {
            counter.increment(1);
        }
    }

    /// What counts the operations on a collection.
    pub(super) fn collection(&self, name: &str) -> Counter {
        let Some(meters) = &self.0 else { return Counter::noop() };
        let make = |name: &str| counter!(metric::OPERATIONS, "collection" => name.to_owned());
        meters.collections.get(&name.to_owned(), || make(name)).unwrap_or_else(|| make(OTHER))
    }

    /// Counts the contexts that lead to a connection, for a tenant.
    fn route(&self, connection: &str, tenant: Option<&str>) -> Counter {
        let Some(meters) = &self.0 else { return Counter::noop() };
        let key = (connection.to_owned(), tenant.unwrap_or_default().to_owned());
        let make = |(connection, tenant): &RouteKey| counter!(metric::ROUTES, "connection" => connection.clone(), "tenant" => tenant.clone());
        let other = || make(&(connection.to_owned(), OTHER.to_owned()));
        meters.routes.get(&key, || make(&key)).unwrap_or_else(other)
    }

    /// A context led to a connection.
    pub(crate) fn routed(&self, connection: &str, tenant: Option<&str>) {
        if self.is_on() {
            self.route(connection, tenant).increment(1);
        }
    }

    /// Contexts may lead to a connection: their series begins with 0.
    pub(crate) fn may_route(&self, connection: &str, tenant: Option<&str>) {
        if self.is_on() {
            self.route(connection, tenant).increment(0);
        }
    }

    /// A payload was looked for in memory.
    pub(crate) fn cache(&self, hit: bool) {
        if let Some(meters) = &self.0 {
            if hit { &meters.cache_hits } else { &meters.cache_misses }.increment(1);
        }
    }

    /// A version was stored, this long after its commit.
    pub(crate) fn flushed(&self, lag: Duration) {
        if let Some(meters) = &self.0 {
            meters.flushed.increment(1);
            meters.flush_lag.record(lag);
        }
    }

    /// A write was queued.
    pub(crate) fn queued(&self) {
        if let Some(meters) = &self.0 {
            meters.fallback_queued.increment(1);
        }
    }

    /// How much waits in the fallback queues, how much was given up, and how old the oldest is that waits.
    pub(crate) fn fallback(&self, size: u64, dead: u64, oldest: Duration) {
        if let Some(meters) = &self.0 {
            // Counts are far below where floats have holes.
            meters.fallback_size.set(size as f64);
            meters.fallback_dead.set(dead as f64);
            meters.fallback_oldest.set(oldest.as_secs_f64());
        }
    }

    /// Up to where a log is stable, and how far a follower of it has come. The logs beyond the bound are summed up.
    pub(crate) fn followed(&self, log: LogPlace<'_>, follower: &'static str, stable: i64, position: i64) {
        let Some(meters) = &self.0 else { return };
        let log = [log.connection, log.database, log.collection].map(str::to_owned);
        meters.logs.set(&log, stable, || stable_cv(log.clone()), || stable_cv(other_logs()));
        let lag = stable.saturating_sub(position).max(0);
        let key = (log, follower);
        let make = || follower_lag(key.0.clone(), follower);
        meters.followers.set(&key, lag, make, || follower_lag(other_logs(), follower));
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn logs_beyond_the_bound_are_summed_up_and_connections_are_distinguished() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let telemetry = metrics::with_local_recorder(&recorder, || {
            let telemetry = Telemetry::register();
            for round in 1..=2 {
                for n in 0..250 {
                    let collection = format!("c{}", n / 2);
                    let connection = if n % 2 == 0 { "one" } else { "two" };
                    let log = LogPlace { connection, database: "d", collection: &collection };
                    telemetry.followed(log, "counters", round * 10, round);
                }
            }
            telemetry
        });
        assert!(telemetry.is_on());
        let text = handle.render();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!((series(metric::STABLE_CV), series(metric::FOLLOWER_LAG)), (201, 201));
        let of = r#"{connection="_other",database="_other",collection="_other""#;
        assert!(text.contains(&format!("{}{of}}} 1000\n", metric::STABLE_CV)), "{text}");
        assert!(
            text.contains(&format!("{}{of},follower=\"counters\"}} 900\n", metric::FOLLOWER_LAG)),
            "{text}"
        );
        for connection in ["one", "two"] {
            let named = format!(r#"{{connection="{connection}",database="d",collection="c7"}} 20"#);
            assert!(text.contains(&format!("{}{named}\n", metric::STABLE_CV)), "{text}");
        }
    }
}
