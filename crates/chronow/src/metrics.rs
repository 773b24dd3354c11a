//! What happened, in numbers.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Scope;
use crate::hot::TopicStats;

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

impl Metrics {
    /// Returns the text that Prometheus scrapes. What topics hold is said by
    /// [`Bus::prometheus`](crate::Bus::prometheus).
    ///
    /// ```
    /// let text = chronow::Metrics::default().to_prometheus();
    /// assert!(text.contains("# TYPE chronow_published_total counter\nchronow_published_total 0\n"), "{text}");
    /// ```
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        let counters = [
            ("published", "Messages accepted, without duplicates.", self.published),
            ("duplicates", "Publishes recognised as duplicates.", self.duplicates),
            ("delivered", "Handlers started.", self.delivered),
            ("redelivered", "Handlers started on messages that had been started before.", self.redelivered),
            ("acked", "Messages acknowledged.", self.acked),
            ("nacked", "Messages given back to be tried again.", self.nacked),
            ("dead_lettered", "Messages that went to the dead letters.", self.dead_lettered),
            ("lost", "Settlements that came too late.", self.lost),
            ("warm_copies", "Copies made in the warm tier.", self.warm_copies),
            ("warm_dead_letters", "Dead letters kept in the warm tier.", self.warm_dead_letters),
            ("warm_refused", "Messages and dead letters the warm tier refused for good.", self.warm_refused),
        ];
        // Writing to a text cannot fail.
        for (name, help, value) in counters {
            let _ = write!(
                text,
                "# HELP chronow_{name}_total {help}\n# TYPE chronow_{name}_total counter\nchronow_{name}_total {value}\n"
            );
        }
        let help = "# HELP chronow_in_flight Handlers at work.\n# TYPE chronow_in_flight gauge";
        let _ = writeln!(text, "{help}\nchronow_in_flight {}", self.in_flight);
        let sums = [
            (
                "handler",
                "The time handlers took.",
                self.handler_time,
                self.delivered.saturating_sub(self.in_flight),
            ),
            (
                "lag",
                "The time from a publish to the first handler.",
                self.lag,
                self.delivered.saturating_sub(self.redelivered),
            ),
        ];
        for (name, help, sum, count) in sums {
            let _ = write!(
                text,
                "# HELP chronow_{name}_seconds {help}\n# TYPE chronow_{name}_seconds summary\nchronow_{name}_seconds_sum {}\n\
                 chronow_{name}_seconds_count {count}\n",
                sum.as_secs_f64()
            );
        }
        text
    }
}

/// What topics hold, for Prometheus: all samples of a name must stand together.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    lines: [String; NAMES.len()],
}

const NAMES: [(&str, &str); 7] = [
    ("topic_messages", "Messages held, for whomever."),
    ("backlog", "Messages due and not handed out."),
    ("pending", "Messages handed out and not settled."),
    ("scheduled", "Messages that wait for their time."),
    ("deferred", "Messages set aside."),
    ("dead_letters", "Messages that failed for good."),
    ("lag_seconds", "The age of the oldest message that is not settled."),
];

impl Gauges {
    pub(crate) fn add(&mut self, scope: &Scope, topic: &str, stats: &TopicStats) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let of = format!(
            "tenant=\"{}\",namespace=\"{}\",topic=\"{}\"",
            quoted(scope.tenant()),
            quoted(scope.namespace()),
            quoted(topic)
        );
        let mut add = |index: usize, labels: &str, value: f64| {
            let _ = writeln!(self.lines[index], "chronow_{}{{{labels}}} {value}", NAMES[index].0);
        };
        // Counts are far below where floats have holes.
        add(0, &of, stats.length as f64);
        for stats in stats.subscriptions.iter().chain(&stats.internal) {
            let of = format!("{of},subscription=\"{}\"", quoted(&stats.subscription));
            let lag = stats.oldest_age.unwrap_or_default().as_secs_f64();
            let values = [stats.backlog, stats.pending, stats.scheduled, stats.deferred, stats.dead_letters];
            for (index, value) in (1..).zip(values) {
                add(index, &of, value as f64);
            }
            add(6, &of, lag);
        }
    }

    pub(crate) fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for ((name, help), lines) in NAMES.iter().zip(&self.lines) {
            let _ = write!(text, "# HELP chronow_{name} {help}\n# TYPE chronow_{name} gauge\n{lines}");
        }
        text
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            handler_micros: AtomicU64,
            lag_micros: AtomicU64,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    handler_time: Duration::from_micros(self.handler_micros.load(Ordering::Relaxed)),
                    lag: Duration::from_micros(self.lag_micros.load(Ordering::Relaxed)),
                }
            }
        }
    };
}

counters!(
    published,
    duplicates,
    delivered,
    redelivered,
    acked,
    nacked,
    dead_lettered,
    lost,
    in_flight,
    warm_copies,
    warm_dead_letters,
    warm_refused
);

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self, redelivered: bool, waited: Duration) {
        Self::add(&self.delivered, 1);
        Self::add(&self.in_flight, 1);
        if redelivered {
            Self::add(&self.redelivered, 1);
        } else {
            self.lag_micros
                .fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.handler_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
