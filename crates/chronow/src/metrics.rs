//! What happened, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    /// Copies made in the warm tier.
    pub warm_copies: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            handler_micros: AtomicU64,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    handler_time: Duration::from_micros(self.handler_micros.load(Ordering::Relaxed)),
                }
            }
        }
    };
}

counters!(published, duplicates, delivered, redelivered, acked, nacked, dead_lettered, lost, in_flight, warm_copies);

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self, redelivered: bool) {
        Self::add(&self.delivered, 1);
        Self::add(&self.in_flight, 1);
        if redelivered {
            Self::add(&self.redelivered, 1);
        }
    }

    pub(crate) fn end(&self, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.handler_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
