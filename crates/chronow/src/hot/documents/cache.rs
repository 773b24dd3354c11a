//! What a process remembers of a subscription, and what a call on one needs to know.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::chunk::Body;
use super::delivery_record::DeliveryRecord;
use super::entities::{Cursor, Subscription, Topic};
use crate::Timestamp;

/// Everything a call on a subscription needs to know.
#[derive(Clone, Debug)]
pub(super) struct SubscriptionContext {
    pub(super) topic: Topic,
    pub(super) subscription: Subscription,
    pub(super) cursor: Cursor,
    /// The last sequence number given out, and the signal's count.
    pub(super) seen: (i64, i64),
    pub(super) cache: Arc<SubscriptionCache>,
    pub(super) now: Timestamp,
}

/// Held delivery records whose lock ended so long ago are forgotten.
const FORGET_IN_FLIGHT_MS: i64 = 600_000;

/// A message this process holds.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) record: DeliveryRecord,
    pub(super) body: Arc<Body>,
}

/// What this process remembers of a subscription.
pub(super) struct SubscriptionCache {
    /// Pulls of one process take turns; they would only race for the same messages.
    pub(super) turn: Semaphore,
    /// The ids of the topic and the subscription, as they were when last looked up.
    pub(super) ids: Mutex<Option<(String, String)>>,
    /// What the topic's sequence and the subscription's signal were when the last pull began.
    pub(super) seen: Mutex<Option<(i64, i64)>>,
    pub(super) in_flight: Mutex<HashMap<String, InFlight>>,
    /// What was looked up last, for settling, which need not know of a change of options at once.
    pub(super) context: Mutex<Option<Arc<SubscriptionContext>>>,
    /// Numbers that were given out and under which there is nothing yet, and since when.
    pub(super) pending: Mutex<Option<(i64, i64)>>,
    /// How many of the next pulls expect others to pull at the same time, and how often they were faster.
    pub(super) contended: AtomicU32,
    pub(super) lost: AtomicU32,
    /// Settlements since the last garbage collection.
    pub(super) settled: AtomicU64,
    pub(super) gc_at: AtomicI64,
    /// When it was looked last whether messages wait for a key that is free.
    pub(super) rechecked_at: AtomicI64,
    /// One waiter is woken when this process makes something available.
    pub(super) notify: Notify,
    /// The waiter who has this looks for what other processes do.
    pub(super) looker: Semaphore,
    /// The last pull of this process left something, as far as it knows.
    pub(super) left: AtomicBool,
}

chronos_db::debug_some!(SubscriptionCache {});

impl Default for SubscriptionCache {
    fn default() -> Self {
        Self {
            turn: Semaphore::new(1),
            ids: Mutex::default(),
            seen: Mutex::default(),
            in_flight: Mutex::default(),
            context: Mutex::default(),
            pending: Mutex::default(),
            contended: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            settled: AtomicU64::new(0),
            gc_at: AtomicI64::new(0),
            rechecked_at: AtomicI64::new(0),
            notify: Notify::new(),
            looker: Semaphore::new(1),
            left: AtomicBool::new(false),
        }
    }
}

impl SubscriptionCache {
    pub(super) fn hold(&self, record: DeliveryRecord, body: Arc<Body>, now: i64) {
        let mut in_flight = self.in_flight.lock();
        if in_flight.len() >= 1_024 && in_flight.len().is_multiple_of(1_024) {
            in_flight.retain(|_, in_flight| in_flight.record.due + FORGET_IN_FLIGHT_MS > now);
        }
        in_flight.insert(record.id.clone(), InFlight { record, body });
    }
}
