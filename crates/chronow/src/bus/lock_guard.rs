//! Locks of messages in hand, and the task that renews them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::context::Context;
use crate::hot::millis::to_millis;
use crate::hot::{Delivery, HotTier, Lock, Settle, SettleAndStart};
use crate::tasks::Guard;
use crate::{ErrorKind, Result, SubscriptionName, Timestamp};

/// Most locks renewed in one round trip.
const RENEWALS: usize = 500;
/// How often the options are looked at again: another process may have changed the visibility timeout.
const REFRESH: Duration = Duration::from_secs(10);

/// Why the work on a message should end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// The lock is lost: another consumer may have the message, and a settlement will not count.
    LockLost,
    /// The consumer ends, and its time for draining is over.
    Stopping,
}

/// A guard over the lock on one message.
#[derive(Debug)]
pub(crate) struct LockGuard {
    pub(super) lock: Lock,
    /// Which start of a handler this would be, from 1 on.
    pub(super) attempt: u32,
    /// When it was handed out, by the store's clock.
    pulled_at: Timestamp,
    times: Mutex<Times>,
    why: OnceLock<Cancelled>,
    cancelled: Notify,
    /// A settlement is under way: a renewal that fails now says nothing.
    settling: AtomicBool,
    home: Weak<Shared>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.held.lock().remove(&address(self));
        }
    }
}

/// What stands for a guard among those of its consumer, as long as it lives.
fn address(guard: &LockGuard) -> usize {
    std::ptr::from_ref(guard).addr()
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// By this process's clock, rather too early than too late.
    until: Instant,
    /// By the store's clock.
    locked_until: Timestamp,
    /// When `locked_until` was determined.
    seen: Instant,
}

impl LockGuard {
    pub(crate) fn lock(&self) -> &Lock {
        &self.lock
    }

    pub(super) fn locked_until(&self) -> Timestamp {
        self.times.lock().locked_until
    }

    pub(super) fn waited(&self, published_at: Timestamp) -> Duration {
        Duration::from_millis(
            u64::try_from(self.pulled_at.as_millis() - published_at.as_millis()).unwrap_or(0),
        )
    }

    pub(super) fn is_lost(&self) -> bool {
        self.why.get() == Some(&Cancelled::LockLost)
    }

    pub(super) fn cancel(&self, why: Cancelled) {
        // The first reason stays.
        if self.why.set(why).is_ok() {
            self.cancelled.notify_waiters();
        }
    }

    pub(super) async fn cancelled(&self) -> Cancelled {
        loop {
            let notified = self.cancelled.notified();
            // A notification after this look wakes `notified`.
            if let Some(why) = self.why.get() {
                return *why;
            }
            notified.await;
        }
    }

    pub(super) fn begin_settling(&self) {
        self.settling.store(true, Ordering::Release);
    }

    fn renewed(&self, begun: Instant, visibility: Duration) {
        let mut times = self.times.lock();
        let moved = i64::try_from(begun.saturating_duration_since(times.seen).as_millis()).unwrap_or(0);
        *times = Times {
            until: begun + visibility,
            locked_until: times.locked_until.plus_millis(moved),
            seen: begun,
        };
    }
}

/// A message that is held and not started.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) delivery: Delivery,
    pub(super) guard: Arc<LockGuard>,
}

/// Prefetched messages of a stream.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Ready>,
    /// Nobody will take any more.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    hot: Arc<dyn HotTier>,
    subscription: SubscriptionName,
    held: Mutex<HashMap<usize, Weak<LockGuard>>>,
    visibility_ms: AtomicU64,
    queue: Mutex<Queue>,
}

/// Renews the locks of everything a consumer holds, until it is dropped; then gives back what was prefetched.
#[derive(Debug)]
pub(crate) struct LockRenewer {
    shared: Arc<Shared>,
    _end: DropGuard,
}

impl LockRenewer {
    pub(super) fn subscription(&self) -> &SubscriptionName {
        &self.shared.subscription
    }

    /// Begins to renew the locks of a subscription.
    pub(crate) async fn start(inner: &Context, subscription: &SubscriptionName) -> Result<Arc<Self>> {
        let missing =
            || crate::Error::new(ErrorKind::NotFound, "there is no such subscription").on(subscription);
        let options = inner.hot.subscription(subscription).await?.ok_or_else(missing)?;
        let guard = inner.tasks.guard()?;
        let shared = Arc::new(Shared {
            hot: Arc::clone(&inner.hot),
            subscription: subscription.clone(),
            held: Mutex::default(),
            visibility_ms: AtomicU64::new(to_millis(options.visibility)),
            queue: Mutex::default(),
        });
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        tokio::spawn(keep(Arc::clone(&shared), ended, inner.tasks.closing(), guard));
        Ok(Arc::new(Self { shared, _end: end }))
    }

    /// Guards the lock of a delivery that a pull brought which began then.
    pub(crate) fn guard(&self, delivery: &Delivery, begun: Instant) -> Arc<LockGuard> {
        let times = Times {
            until: begun + self.shared.visibility(),
            locked_until: delivery.locked_until,
            seen: Instant::now(),
        };
        let guard = Arc::new(LockGuard {
            lock: delivery.lock.clone(),
            attempt: delivery.deliveries.saturating_add(1),
            pulled_at: delivery
                .locked_until
                .plus_millis(-i64::try_from(self.shared.visibility().as_millis()).unwrap_or(0)),
            times: Mutex::new(times),
            why: OnceLock::new(),
            cancelled: Notify::new(),
            settling: AtomicBool::new(false),
            home: Arc::downgrade(&self.shared),
        });
        self.shared.held.lock().insert(address(&guard), Arc::downgrade(&guard));
        guard
    }

    /// Keeps prefetched messages, or gives them back if nobody will take them.
    pub(super) async fn queue(&self, deliveries: Vec<Delivery>, begun: Instant) -> Result<()> {
        let ready: Vec<Ready> = deliveries
            .into_iter()
            .map(|delivery| Ready { guard: self.guard(&delivery, begun), delivery })
            .collect();
        let unwanted = {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                ready
            } else {
                queue.ready.extend(ready);
                Vec::new()
            }
        };
        self.shared.release(unwanted).await
    }

    pub(super) fn next(&self) -> Option<Ready> {
        self.shared.queue.lock().ready.pop_front()
    }

    /// Gives everything prefetched back.
    pub(super) async fn close(&self) -> Result<()> {
        self.shared.close().await
    }
}

impl Shared {
    fn visibility(&self) -> Duration {
        Duration::from_millis(self.visibility_ms.load(Ordering::Relaxed))
    }

    async fn close(&self) -> Result<()> {
        let ready: Vec<Ready> = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            queue.ready.drain(..).collect()
        };
        self.release(ready).await
    }

    async fn release(&self, ready: Vec<Ready>) -> Result<()> {
        if ready.is_empty() {
            return Ok(());
        }
        let settle = ready.iter().map(|ready| (ready.guard.lock.clone(), Settle::Release)).collect();
        self.hot
            .settle_and_start(&self.subscription, SettleAndStart { settle, start: Vec::new() })
            .await
            .map(drop)
    }

    async fn renew(&self) -> Result<()> {
        // In two steps: a guard that is dropped asks for this lock.
        let mut guards: Vec<Arc<LockGuard>> = self.held.lock().values().filter_map(Weak::upgrade).collect();
        guards.retain(|guard| !guard.is_lost());
        let mut failed = None;
        for chunk in guards.chunks(RENEWALS) {
            let begun = Instant::now();
            let locks = chunk.iter().map(|guard| guard.lock.clone()).collect();
            match self.hot.renew(&self.subscription, locks).await {
                Ok(renewed) => {
                    for (guard, renewed) in chunk.iter().zip(renewed) {
                        if renewed {
                            guard.renewed(begun, self.visibility());
                        } else if !guard.settling.load(Ordering::Acquire) {
                            guard.cancel(Cancelled::LockLost);
                        }
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        // What could not be renewed in time is lost, whatever the cause.
        let now = Instant::now();
        for guard in guards.iter().filter(|guard| guard.times.lock().until <= now) {
            guard.cancel(Cancelled::LockLost);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn refresh(&self) -> Result<()> {
        if let Some(options) = self.hot.subscription(&self.subscription).await? {
            self.visibility_ms.store(to_millis(options.visibility), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Goes on until `ended`, beyond the closing of the connection.
async fn keep(shared: Arc<Shared>, ended: CancellationToken, closing: CancellationToken, guard: Guard) {
    let mut guard = Some(guard);
    let mut refreshed = Instant::now();
    let mut troubled = false;
    loop {
        // Three chances within a lock's time, and more when the store is in trouble.
        let tick = shared.visibility() / if troubled { 12 } else { 3 };
        tokio::select! {
            () = ended.cancelled() => break,
            () = closing.cancelled(), if guard.is_some() => {
                report(&shared, "release", shared.close().await);
                // What is in the user's hands is kept until the connection ends, but nobody waits for it.
                guard = None;
            }
            () = tokio::time::sleep(tick) => {
                let renewed = shared.renew().await;
                if renewed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed) {
                    return;
                }
                troubled = renewed.is_err();
                report(&shared, "renew", renewed);
                if refreshed.elapsed() >= REFRESH {
                    refreshed = Instant::now();
                    report(&shared, "refresh", shared.refresh().await);
                }
            }
        }
    }
    report(&shared, "release", shared.close().await);
}

fn report(shared: &Shared, operation: &'static str, result: Result<()>) {
    if let Err(error) = result.map_err(|error| error.during(operation)) {
        tracing::warn!(subscription = %shared.subscription, %error, "locks of messages could not be renewed or released");
    }
}
