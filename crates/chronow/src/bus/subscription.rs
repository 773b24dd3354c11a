//! One subscription.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::lock_guard::LockRenewer;
use crate::context::Context;
use crate::headers::strip;
use crate::hot::{Delivery, Peeked, Settle, SubscriptionOptions, SubscriptionPatch, SubscriptionStats};
use crate::payloads;
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// When a message is tried again whose payload could not be fetched.
const LATER: Duration = Duration::from_secs(5);

/// A subscription; see [`Topic::subscription`](super::Topic::subscription).
#[derive(Clone)]
pub struct Subscription {
    pub(crate) inner: Arc<Context>,
    pub(crate) name: SubscriptionName,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.name).finish()
    }
}

impl Subscription {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &SubscriptionName {
        &self.name
    }

    pub(super) fn in_context(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        let name = self.name.clone();
        move |error| error.during(operation).on(&name)
    }

    /// Reads the options; none if there is no such subscription.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn options(&self) -> Result<Option<SubscriptionOptions>> {
        self.inner.hot.subscription(&self.name).await.map_err(self.in_context("subscription"))
    }

    /// Hands out nothing until it is resumed, for all its consumers everywhere.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn pause(&self) -> Result<()> {
        self.set_paused(true).await.map_err(self.in_context("pause"))
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn resume(&self) -> Result<()> {
        self.set_paused(false).await.map_err(self.in_context("resume"))
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        // Ensuring would make it.
        if self.inner.hot.subscription(&self.name).await?.is_none() {
            return Err(missing());
        }
        let patch = SubscriptionPatch::default().paused(paused);
        self.inner.hot.ensure_subscription(&self.name, &patch).await.map(drop)
    }

    /// Begins to hold messages for a consumer, in the course of `operation`, and to do in the background what there is to do for it.
    pub(super) async fn renewer(&self, operation: &'static str) -> Result<Arc<LockRenewer>> {
        let in_context = self.in_context(operation);
        let renewer = LockRenewer::start(&self.inner, &self.name).await.map_err(&in_context)?;
        self.inner.ensure_started(self.name.topic()).await.map_err(&in_context)?;
        self.inner.audit_dead_letters(&self.name);
        Ok(renewer)
    }

    /// Fetches the payload if the message carries a claim on it. Fails with what becomes of the message
    /// without.
    pub(super) async fn fetch(&self, delivery: &mut Delivery) -> Result<(), Settle> {
        let Delivery { message, lock, .. } = delivery;
        let Err(error) = payloads::resolve(self.inner.payloads(), self.name.topic(), message).await else {
            return Ok(());
        };
        tracing::warn!(subscription = %self.name, id = %lock.id, %error, "the payload of a message cannot be fetched");
        let reason = error.message().to_owned();
        Err(match error.kind() {
            ErrorKind::NotFound => Settle::DeadLetter { reason },
            // Not started, it is not counted: an outage uses no deliveries up.
            _ => Settle::Retry { delay: Some(LATER), reason },
        })
    }

    /// Looks at messages without taking them, in order.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn peek(&self, limit: u32) -> Result<Vec<Peeked>> {
        let peek = async {
            let mut peeked = self.inner.hot.peek(&self.name, limit).await?;
            for Peeked { message, .. } in &mut peeked {
                payloads::resolve(self.inner.payloads(), self.name.topic(), message).await?;
                strip(&mut message.headers);
            }
            Ok(peeked)
        };
        peek.await.map_err(self.in_context("peek"))
    }

    /// Counts its messages: unread, pending, scheduled, deferred, dead, and what was acknowledged so far.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn stats(&self) -> Result<SubscriptionStats> {
        let stats = self.inner.hot.stats(self.name.topic()).await.map_err(self.in_context("stats"))?;
        let found = stats.subscriptions.into_iter().find(|stats| stats.subscription == self.name.name());
        found.ok_or_else(|| missing().during("stats").on(&self.name))
    }

    /// Removes the subscription with everything of it. False if there was none.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn delete(&self) -> Result<bool> {
        self.inner.hot.delete_subscription(&self.name).await.map_err(self.in_context("delete_subscription"))
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such subscription")
}
