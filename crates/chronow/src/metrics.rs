//! What happened, in numbers: for the caller, and for the recorder of the facade [`metrics`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronos_db::telemetry::{Metric, MetricKind};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;

use crate::hot::{SubscriptionStats, TopicStats};
use crate::{Error, ErrorKind, Result, Scope};

/// What one connection has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Messages accepted, without those recognised as duplicates.
    pub published: u64,
    /// Publishes recognised as duplicates.
    pub duplicates: u64,
    /// Handlers started.
    pub delivered: u64,
    /// Of these, on messages that had been started before.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages given back to be tried again.
    pub nacked: u64,
    /// Messages that went to the dead letters.
    pub dead_lettered: u64,
    /// Settlements that came too late.
    pub lost: u64,
    /// Handlers at work now.
    pub in_flight: u64,
    /// The time handlers took, all together.
    pub handler_time: Duration,
    /// The time messages took from their publish to the handler of their first delivery, by the store's
    /// clock, all together: divided by `delivered - redelivered` it is the mean lag.
    pub lag: Duration,
    /// Copies made in the warm tier.
    pub warm_copies: u64,
    /// Dead letters kept in the warm tier.
    pub warm_dead_letters: u64,
    /// Messages and dead letters the warm tier refused for good.
    pub warm_refused: u64,
}

const IN_FLIGHT: &str = "chronow_in_flight";
const HANDLER: &str = "chronow_handler_duration_seconds";
const LAG: &str = "chronow_delivery_lag_seconds";
const ERRORS: &str = "chronow_errors_total";
const DURATION: &str = "chronow_operation_duration_seconds";
const TOPIC_MESSAGES: &str = "chronow_topic_messages";
const BACKLOG: &str = "chronow_backlog";
const PENDING: &str = "chronow_pending";
const SCHEDULED: &str = "chronow_scheduled";
const DEFERRED: &str = "chronow_deferred";
const DEAD_LETTERS: &str = "chronow_dead_letters";
const OLDEST: &str = "chronow_lag_seconds";

const OF_TOPIC: &[&str] = &["tenant", "namespace", "topic"];
const OF_SUBSCRIPTION: &[&str] = &["tenant", "namespace", "topic", "subscription"];

const fn described(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric::new(name, kind, labels, help)
}

/// A count, for the caller and for the recorder.
pub(crate) struct Count {
    value: AtomicU64,
    series: Counter,
}

impl Count {
    fn new(name: &'static str) -> Self {
        Self { value: AtomicU64::new(0), series: counter!(name) }
    }

    fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
        self.series.increment(count);
    }

    fn read(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident: $series:literal, $help:literal;)*) => {
        /// What one connection does.
        pub(crate) struct Counters {
            $(pub(crate) $name: Count,)*
            in_flight: AtomicU64,
            in_flight_series: Gauge,
            handler_micros: AtomicU64,
            handler: Histogram,
            lag_micros: AtomicU64,
            lag: Histogram,
            durations: Vec<Histogram>,
            /// By operation, then by kind.
            errors: Vec<Vec<Counter>>,
            topics: TopicGauges,
        }

        impl Counters {
            /// Takes handles of the recorder that is installed. Every counter begins to be there.
            pub(crate) fn register() -> Self {
                METRICS.iter().for_each(Metric::describe);
                let of = |operation: Operation, kind: &ErrorKind| {
                    counter!(ERRORS, "operation" => operation.label(), "code" => kind.code())
                };
                let errors = |operation: &Operation| {
                    ErrorKind::ALL.iter().map(|kind| of(*operation, kind)).collect()
                };
                let duration =
                    |operation: &Operation| histogram!(DURATION, "operation" => operation.label());
                Self {
                    $($name: Count::new($series),)*
                    in_flight: AtomicU64::new(0),
                    in_flight_series: gauge!(IN_FLIGHT),
                    handler_micros: AtomicU64::new(0),
                    handler: histogram!(HANDLER),
                    lag_micros: AtomicU64::new(0),
                    lag: histogram!(LAG),
                    durations: Operation::ALL.iter().map(duration).collect(),
                    errors: Operation::ALL.iter().map(errors).collect(),
                    topics: TopicGauges::default(),
                }
            }

            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics {
                    $($name: self.$name.read(),)*
                    in_flight: self.in_flight.load(Ordering::Relaxed),
                    handler_time: Duration::from_micros(self.handler_micros.load(Ordering::Relaxed)),
                    lag: Duration::from_micros(self.lag_micros.load(Ordering::Relaxed)),
                }
            }
        }

        /// Every metric of this crate; those of the records are in [`chronos_db::telemetry::METRICS`].
        pub const METRICS: &[Metric] = &[
            $(described($series, MetricKind::Counter, &[], $help),)*
            described(IN_FLIGHT, MetricKind::Gauge, &[], "Handlers at work."),
            described(HANDLER, MetricKind::Histogram, &[], "How long handlers took."),
            described(LAG, MetricKind::Histogram, &[], "How long messages waited from their publish to their first handler."),
            described(ERRORS, MetricKind::Counter, &["operation", "code"], "Operations that failed, by the code of their error."),
            described(DURATION, MetricKind::Histogram, &["operation"], "How long operations took, those that failed too."),
            described(TOPIC_MESSAGES, MetricKind::Gauge, OF_TOPIC, "Messages held, for any subscription."),
            described(BACKLOG, MetricKind::Gauge, OF_SUBSCRIPTION, "Messages due and not handed out."),
            described(PENDING, MetricKind::Gauge, OF_SUBSCRIPTION, "Messages handed out and not settled."),
            described(SCHEDULED, MetricKind::Gauge, OF_SUBSCRIPTION, "Messages that wait for their time."),
            described(DEFERRED, MetricKind::Gauge, OF_SUBSCRIPTION, "Messages set aside."),
            described(DEAD_LETTERS, MetricKind::Gauge, OF_SUBSCRIPTION, "Messages that failed for good."),
            described(OLDEST, MetricKind::Gauge, OF_SUBSCRIPTION, "The age of the oldest message that is not settled."),
        ];
    };
}

counters! {
    published: "chronow_published_total", "Messages accepted, without duplicates.";
    duplicates: "chronow_duplicates_total", "Publishes recognised as duplicates.";
    delivered: "chronow_delivered_total", "Handlers started.";
    redelivered: "chronow_redelivered_total", "Handlers started on messages that had been started before.";
    acked: "chronow_acked_total", "Messages acknowledged.";
    nacked: "chronow_nacked_total", "Messages given back to be tried again.";
    dead_lettered: "chronow_dead_lettered_total", "Messages that went to the dead letters.";
    lost: "chronow_lost_total", "Settlements that came too late.";
    warm_copies: "chronow_warm_copies_total", "Copies made in the warm tier.";
    warm_dead_letters: "chronow_warm_dead_letters_total", "Dead letters kept in the warm tier.";
    warm_refused: "chronow_warm_refused_total", "Messages and dead letters the warm tier refused for good.";
}

macro_rules! operations {
    ($($name:ident: $label:literal;)*) => {
        /// An operation, as metrics name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($name,)*
        }

        impl Operation {
            const ALL: &[Self] = &[$(Self::$name,)*];

            const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

operations! {
    EnsureTopic: "ensure_topic";
    EnsureSubscription: "ensure_subscription";
    Publish: "publish";
    PublishBatch: "publish_batch";
    Receive: "receive";
    Consume: "consume";
    Settle: "settle";
    Replay: "replay";
    DeadLetters: "dead_letters";
    Redrive: "redrive";
    Purge: "purge";
    Set: "set";
    Get: "get";
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Counters").field(&self.snapshot()).finish()
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(crate) fn add(counter: &Count, count: usize) {
        counter.add(count as u64);
    }

    pub(crate) fn begin(&self, redelivered: bool, waited: Duration) {
        self.delivered.add(1);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_flight_series.increment(1.0);
        if redelivered {
            self.redelivered.add(1);
        } else {
            self.lag_micros.fetch_add(micros(waited), Ordering::Relaxed);
            self.lag.record(waited);
        }
    }

    pub(crate) fn end(&self, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_series.decrement(1.0);
        self.handler_micros.fetch_add(micros(took), Ordering::Relaxed);
        self.handler.record(took);
    }

    /// Measures an operation, and counts its error.
    pub(crate) async fn watch<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let ended = work.await;
        self.durations[operation as usize].record(began.elapsed());
        if let Some(counter) = ended
            .as_ref()
            .err()
            .and_then(|error: &Error| self.errors[operation as usize].get(error.kind() as usize))
        {
            counter.increment(1);
        }
        ended
    }

    /// What the topics of one tenant and namespace hold.
    pub(crate) fn topics(&self, scope: &Scope, topics: &[(String, TopicStats)]) {
        self.topics.set(scope, topics);
    }
}

/// Subscriptions, and topics, that have series of their own.
const MAX_SERIES: usize = 1_000;
/// Stands for all names beyond.
const OTHER: &str = "_other";

/// A topic by tenant, namespace and name; with a subscription, or by itself.
type SeriesKey = (String, String, String, Option<String>);

/// What topics hold. What is gone holds nothing. What is beyond the bound has one series together.
#[derive(Default)]
struct TopicGauges {
    known: Mutex<KnownGauges>,
}

#[derive(Default)]
struct KnownGauges {
    named: HashMap<SeriesKey, Vec<Gauge>>,
    /// The values of those beyond the bound.
    rest: HashMap<SeriesKey, Vec<f64>>,
    /// Of topics and of subscriptions, once there are any beyond.
    others: HashMap<bool, Vec<Gauge>>,
}

impl KnownGauges {
    /// Sums up what is beyond the bound; of ages the largest.
    fn set_others(&mut self) {
        for is_subscription in [false, true] {
            let mut rest = self.rest.iter().filter(|(key, _)| key.3.is_some() == is_subscription).peekable();
            if rest.peek().is_none() && !self.others.contains_key(&is_subscription) {
                continue;
            }
            let other = || OTHER.to_owned();
            let key = (other(), other(), other(), is_subscription.then(other));
            let gauges = self.others.entry(is_subscription).or_insert_with(|| gauges_of(&key));
            let mut totals = vec![0.0_f64; gauges.len()];
            for (_, values) in rest {
                for (at, (total, value)) in totals.iter_mut().zip(values).enumerate() {
                    *total = if at == OLDEST_AT { total.max(*value) } else { *total + value };
                }
            }
            gauges.iter().zip(totals).for_each(|(gauge, total)| gauge.set(total));
        }
    }
}

impl TopicGauges {
    fn set(&self, scope: &Scope, topics: &[(String, TopicStats)]) {
        let mut values: HashMap<SeriesKey, Vec<f64>> = HashMap::new();
        let key = |topic: &str, subscription: Option<&str>| -> SeriesKey {
            let (tenant, namespace) = (scope.tenant().to_owned(), scope.namespace().to_owned());
            (tenant, namespace, topic.to_owned(), subscription.map(str::to_owned))
        };
        for (topic, stats) in topics {
            // Counts are far below where floats have holes.
            values.insert(key(topic, None), vec![stats.length as f64]);
            for stats in stats.subscriptions.iter().chain(&stats.internal) {
                values.insert(key(topic, Some(&stats.subscription)), values_of(stats));
            }
        }
        let mut known = self.known.lock();
        let is_elsewhere =
            |key: &SeriesKey| (key.0.as_str(), key.1.as_str()) != (scope.tenant(), scope.namespace());
        known.rest.retain(|key, _| is_elsewhere(key));
        known.named.retain(|key, gauges| {
            let is_there = is_elsewhere(key) || values.contains_key(key);
            if !is_there {
                gauges.iter().for_each(|gauge| gauge.set(0.0));
            }
            is_there
        });
        for (key, values) in values {
            if known.named.len() >= MAX_SERIES && !known.named.contains_key(&key) {
                known.rest.insert(key, values);
                continue;
            }
            let gauges = known.named.entry(key).or_insert_with_key(gauges_of);
            gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
        }
        known.set_others();
    }
}

/// Where [`gauges_of`] a subscription has the age of its oldest message.
const OLDEST_AT: usize = 5;

/// In the order of [`gauges_of`].
fn values_of(stats: &SubscriptionStats) -> Vec<f64> {
    let counts = [stats.backlog, stats.pending, stats.scheduled, stats.deferred, stats.dead_letters];
    let lag = stats.oldest_age.unwrap_or_default().as_secs_f64();
    counts.into_iter().map(|count| count as f64).chain([lag]).collect()
}

fn gauges_of((tenant, namespace, topic, subscription): &SeriesKey) -> Vec<Gauge> {
    let (tenant, namespace, topic) = (tenant.clone(), namespace.clone(), topic.clone());
    let Some(subscription) = subscription else {
        let labels = [("tenant", tenant), ("namespace", namespace), ("topic", topic)];
        return vec![gauge!(TOPIC_MESSAGES, &labels)];
    };
    let labels = [
        ("tenant", tenant),
        ("namespace", namespace),
        ("topic", topic),
        ("subscription", subscription.clone()),
    ];
    let names = [BACKLOG, PENDING, SCHEDULED, DEFERRED, DEAD_LETTERS, OLDEST];
    names.into_iter().map(|name| gauge!(name, &labels)).collect()
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_is_beyond_the_bound_is_summed_up_and_what_is_gone_holds_nothing() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let stats = |age: u64| {
            let subscription = SubscriptionStats {
                subscription: "s".to_owned(),
                backlog: 2,
                oldest_age: Some(Duration::from_secs(age)),
                ..SubscriptionStats::default()
            };
            TopicStats { length: 3, subscriptions: vec![subscription], ..TopicStats::default() }
        };
        let topics = |count: u64| -> Vec<_> { (0..count).map(|n| (format!("t{n}"), stats(n))).collect() };
        let value = |name: &str| {
            let text = handle.render();
            let of = format!("{name}{{tenant=\"_other\",");
            let line = text.lines().find(|line| line.starts_with(&of)).map(str::to_owned);
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        let sum = |name: &str| {
            let text = handle.render();
            let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            lines
                .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>().unwrap_or_default())
                .sum::<f64>()
        };
        let gauges = TopicGauges::default();
        let scope = Scope::new("acme", "default").unwrap();
        metrics::with_local_recorder(&recorder, || {
            gauges.set(&scope, &topics(10));
            assert_eq!((value(BACKLOG), sum(BACKLOG), sum(TOPIC_MESSAGES)), (None, 20.0, 30.0));
            gauges.set(&scope, &topics(700));
            assert_eq!((sum(BACKLOG), sum(TOPIC_MESSAGES)), (1_400.0, 2_100.0), "nothing is left out");
            let series = handle
                .render()
                .lines()
                .filter(|line| line.starts_with(BACKLOG) || line.starts_with(TOPIC_MESSAGES))
                .count();
            assert!(series <= MAX_SERIES + 2, "{series}");
            gauges.set(&scope, &[]);
            assert_eq!((sum(BACKLOG), sum(TOPIC_MESSAGES), sum(OLDEST)), (0.0, 0.0, 0.0));
        });
    }
}
