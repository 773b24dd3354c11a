//! Messages as consumers see them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lock_guard::{Cancelled, LockGuard, LockRenewer};
use super::publish_message::check_delay;
use super::runs;
use super::subscription::Subscription;
use super::trace::{TRACEPARENT, TraceContext};
use crate::context::Context;
use crate::headers::strip;
use crate::hot::{Delivery, Settle, SettleAndStart, Settled, StoredMessage};
use crate::metrics::{Counters, Operation};
use crate::{Error, ErrorKind, Result, SubscriptionName, Timestamp};

/// A message in the hands of its handler.
#[derive(Clone)]
pub struct Message<T> {
    /// What it says.
    pub payload: T,
    content_type: String,
    headers: BTreeMap<String, String>,
    key: Option<String>,
    published_at: Timestamp,
    deliveries: u32,
    pub(super) guard: Arc<LockGuard>,
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl<T> Message<T> {
    /// A message whose handler starts now.
    pub(super) fn new(delivery: Delivery, payload: T, guard: Arc<LockGuard>) -> Self {
        let Delivery { message, deliveries, .. } = delivery;
        let StoredMessage { published_at, content_type, mut headers, key, .. } = message;
        strip(&mut headers);
        Self { payload, content_type, headers, key, published_at, deliveries: deliveries + 1, guard }
    }

    /// Returns the id, the same in every delivery.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.guard.lock.id
    }

    /// Returns the media type of its bytes; JSON if empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Returns the headers, without those of the library.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// Returns one header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns the trace the publisher was in, as the header of the W3C writes it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.header(TRACEPARENT)
    }

    /// Returns the trace the publisher was in, if a valid one came with the message.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::extract(&self.headers)
    }

    /// Returns the ordering key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns when it was accepted, by the store's clock.
    #[must_use]
    pub fn published_at(&self) -> Timestamp {
        self.published_at
    }

    /// Returns how often a handler of this subscription was started on it, this time included.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// Returns when the lock ends, by the store's clock; it is renewed in the background long before.
    #[must_use]
    pub fn locked_until(&self) -> Timestamp {
        self.guard.locked_until()
    }

    /// From its publish until a consumer got hold of it, by the store's clock.
    pub(super) fn waited(&self) -> Duration {
        self.guard.waited(self.published_at)
    }

    /// Returns whether the lock was lost, so that another consumer may have the message.
    #[must_use]
    pub fn is_lock_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// Returns when the work should end early; else never. It may be awaited beside the work.
    pub async fn cancelled(&self) -> Cancelled {
        self.guard.cancelled().await
    }
}

/// A message of a stream, to be settled by hand. Dropped without that, it comes again when its lock ends.
#[must_use = "a message that is not settled comes again"]
pub struct Received<T> {
    message: Message<T>,
    pub(super) subscription: Subscription,
    /// Keeps the lock while the message is in a consumer's hands.
    pub(super) renewer: Arc<LockRenewer>,
    begun: Begun,
}

/// Counts a handler as at work until it is dropped.
struct Begun {
    at: Instant,
    subscription: Subscription,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.subscription.inner.counters.end(self.at.elapsed());
    }
}

impl<T: fmt::Debug> fmt::Debug for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl<T> Deref for Received<T> {
    type Target = Message<T>;

    fn deref(&self) -> &Message<T> {
        &self.message
    }
}

impl<T> Received<T> {
    pub(super) fn new(message: Message<T>, subscription: Subscription, renewer: Arc<LockRenewer>) -> Self {
        subscription.inner.counters.begin(message.deliveries > 1, message.waited());
        let begun = Begun { at: Instant::now(), subscription: subscription.clone() };
        Self { message, subscription, renewer, begun }
    }

    /// Acknowledges the message: this subscription has done with it.
    ///
    /// # Errors
    /// `LOCK_LOST` if the lock is not this consumer's any more; `HOT_TIER_ERROR` if the store fails.
    pub async fn ack(self) -> Result<()> {
        self.settle(Settle::Ack).await
    }

    /// Gives the message back: it comes again after the subscription's backoff, unless something else is
    /// said. After the last delivery it is a dead letter.
    ///
    /// # Errors
    /// `LOCK_LOST` if the lock is not this consumer's any more; `VALIDATION_ERROR` for a delay beyond ten
    /// years; `HOT_TIER_ERROR` if the store fails.
    pub fn nack(self) -> Nack<T> {
        Nack { received: self, requeue: true, delay: None, reason: String::new() }
    }

    /// Puts the message into the subscription's dead letters.
    ///
    /// # Errors
    /// `LOCK_LOST` if the lock is not this consumer's any more; `HOT_TIER_ERROR` if the store fails.
    pub async fn dead_letter(self, reason: impl Into<String>) -> Result<()> {
        self.settle(Settle::DeadLetter { reason: reason.into() }).await
    }

    /// Sets it aside until it is fetched by its id.
    ///
    /// # Errors
    /// `LOCK_LOST` if the lock is not this consumer's any more; `HOT_TIER_ERROR` if the store fails.
    pub async fn defer(self) -> Result<()> {
        self.settle(Settle::Defer).await
    }

    async fn settle(self, settle: Settle) -> Result<()> {
        let Self { message, subscription, renewer, begun } = self;
        drop(begun);
        let mut settled = settle_all(&subscription, vec![(Arc::clone(&message.guard), settle)]).await?;
        drop(renewer);
        match settled.pop() {
            Some(Settled::Done | Settled::DeadLettered) => Ok(()),
            Some(Settled::Lost) | None => Err(lost().on(&subscription.name)),
        }
    }
}

pub(super) fn lost() -> Error {
    Error::new(
        ErrorKind::LockLost,
        "the lock of the message is not this consumer's any more; the settlement does not count",
    )
}

/// Settles several messages in one step.
pub(super) async fn settle_all(
    subscription: &Subscription,
    settle: Vec<(Arc<LockGuard>, Settle)>,
) -> Result<Vec<Settled>> {
    for (guard, _) in &settle {
        guard.begin_settling();
    }
    let step = SettleAndStart {
        settle: settle.iter().map(|(guard, settle)| (guard.lock.clone(), settle.clone())).collect(),
        start: Vec::new(),
    };
    let inner = &subscription.inner;
    let settling = async {
        let outcome = inner.hot.settle_and_start(&subscription.name, step).await;
        outcome.map_err(|error| error.during("settle").on(&subscription.name))
    };
    let settled = inner.counters.watch(Operation::Settle, settling).await?.settled;
    let ended: Vec<_> =
        settle.iter().zip(&settled).map(|((guard, settle), settled)| (&**guard, settle, *settled)).collect();
    note(&subscription.inner, &subscription.name, &ended);
    Ok(settled)
}

/// Counts what became of settlements, and tells the audit.
pub(super) fn note(inner: &Context, name: &SubscriptionName, ended: &[(&LockGuard, &Settle, Settled)]) {
    for (_, settle, settled) in ended {
        count(&inner.counters, settle, *settled);
    }
    inner.audit_attempts(
        name,
        ended
            .iter()
            .map(|(guard, settle, settled)| (guard.lock.id.as_str(), guard.attempt, *settle, *settled)),
    );
}

/// Counts what became of a settlement.
fn count(counters: &Counters, settle: &Settle, settled: Settled) {
    let counter = match (settled, settle) {
        (Settled::Lost, _) => &counters.lost,
        (Settled::DeadLettered, _) | (_, Settle::DeadLetter { .. } | Settle::Refuse { .. }) => {
            &counters.dead_lettered
        }
        (_, Settle::Ack) => &counters.acked,
        (_, Settle::Retry { .. }) => &counters.nacked,
        (_, Settle::Defer | Settle::Release) => return,
    };
    Counters::add(counter, 1);
}

/// Gives a message back; see [`Received::nack`].
#[derive(Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Nack<T> {
    received: Received<T>,
    requeue: bool,
    delay: Option<Duration>,
    reason: String,
}

impl<T> Nack<T> {
    /// Says whether to have it again as soon as the backoff or the delay says (default). Otherwise it comes
    /// again when its lock ends.
    pub fn requeue(mut self, requeue: bool) -> Self {
        self.requeue = requeue;
        self
    }

    /// Delivers it again after this long, instead of the subscription's backoff.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Records why, for the dead letters.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    async fn run(self) -> Result<()> {
        if !self.requeue {
            return Ok(());
        }
        self.delay.map_or(Ok(()), check_delay)?;
        let reason = if self.reason.is_empty() { "given back".to_owned() } else { self.reason };
        self.received.settle(Settle::Retry { delay: self.delay, reason }).await
    }
}

runs!([T: Send + 'static] Nack<T> => ());
