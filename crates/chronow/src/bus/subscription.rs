//! One subscription.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::actions::EnsureSubscription;
use super::codec::{self, Decode};
use super::consume::{Consume, UNDECODABLE};
use super::dead::{DeadLetters, Purge, Redrive};
use super::lock_guard::LockRenewer;
use super::message::{Message, Received, lost, settle_all};
use super::outcome::Outcome;
use super::replay::Replay;
use super::run::Run;
use crate::context::Context;
use crate::headers::strip;
use crate::hot::{
    Delivery, Peeked, Settle, SettleAndStart, Settled, SubscriptionOptions, SubscriptionPatch,
    SubscriptionStats,
};
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
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SubscriptionName {
        &self.name
    }

    fn told(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        let name = self.name.clone();
        move |error| error.during(operation).on(&name)
    }

    /// Makes sure that the subscription is there, and changes the options that are given; all others stay.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let mut config = chronow::Config::default();
    /// # config.embedded = Some(":memory:".into());
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use std::time::Duration;
    /// use chronow::hot::DeliverPolicy;
    ///
    /// let large = orders.subscription("large")?;
    /// let filter = chronos_db::json!({"payload.amount": {"$gte": 100}, "headers.type": "order.created"});
    /// let options = large.ensure().start(DeliverPolicy::Earliest).filter(filter).max_deliveries(9).backoff([Duration::from_secs(1)]).await?;
    /// assert_eq!(options.max_deliveries, 9);
    /// // Gone when nobody has asked for its messages for an hour.
    /// large.ensure().auto_delete(Some(Duration::from_secs(3_600))).await?;
    /// assert_eq!(large.options().await?.unwrap().max_deliveries, 9);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn ensure(&self) -> EnsureSubscription {
        EnsureSubscription::new(self.clone())
    }

    /// The options, or none if there is no such subscription.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn options(&self) -> Result<Option<SubscriptionOptions>> {
        self.inner.hot.subscription(&self.name).await.map_err(self.told("subscription"))
    }

    /// Hands out nothing until it is resumed, for all its consumers everywhere.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn pause(&self) -> Result<()> {
        self.set_paused(true).await.map_err(self.told("pause"))
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn resume(&self) -> Result<()> {
        self.set_paused(false).await.map_err(self.told("resume"))
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        // Ensuring would make it.
        if self.inner.hot.subscription(&self.name).await?.is_none() {
            return Err(missing());
        }
        let patch = SubscriptionPatch { paused: Some(paused), ..SubscriptionPatch::default() };
        self.inner.hot.ensure_subscription(&self.name, &patch).await.map(drop)
    }

    /// Begins to hold messages for a consumer, and to do in the background what there is to do for it.
    pub(super) async fn renewer(&self) -> Result<Arc<LockRenewer>> {
        let told = self.told("consume");
        let renewer = LockRenewer::start(&self.inner, &self.name).await.map_err(&told)?;
        self.inner.ensure_started(self.name.topic()).await.map_err(&told)?;
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

    /// A stream of messages whose payloads are JSON, to be settled by hand.
    pub fn consume<T: DeserializeOwned + Send + 'static>(&self) -> Consume<T> {
        Consume::new(self.clone(), codec::json())
    }

    /// A stream of messages as bytes, to be settled by hand.
    pub fn consume_bytes(&self) -> Consume<Bytes> {
        Consume::new(self.clone(), codec::bytes())
    }

    /// Runs a handler over messages whose payloads are JSON.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let mut config = chronow::Config::default();
    /// # config.embedded = Some(":memory:".into());
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use chronow::{Message, Outcome};
    ///
    /// let billing = orders.subscription("billing")?;
    /// billing.ensure().await?;
    /// orders.publish(&7).await?;
    /// orders.publish(&-1).await?;
    /// let runner = billing
    ///     .run(|order: Message<i64>| async move {
    ///         if order.payload < 0 {
    ///             return Outcome::DeadLetter { reason: "no such order".to_owned() };
    ///         }
    ///         Outcome::Ack
    ///     })
    ///     .concurrency(4)
    ///     .start()
    ///     .await?;
    /// while billing.stats().await?.deliveries < 2 {
    ///     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    /// }
    /// runner.stop().await?; // handlers at work end first
    /// assert_eq!(billing.dead_letters().await?.0[0].reason, "no such order");
    /// assert_eq!(billing.redrive().await?, 1);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// What cannot be decoded goes to the dead letters as `undecodable`.
    pub fn run<T, H, F, O>(&self, handler: H) -> Run<T>
    where
        T: DeserializeOwned + Send + 'static,
        H: Fn(Message<T>) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + 'static,
    {
        Run::new(self.clone(), codec::json(), handler)
    }

    /// Runs a handler over messages as bytes.
    pub fn run_bytes<H, F, O>(&self, handler: H) -> Run<Bytes>
    where
        H: Fn(Message<Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + 'static,
    {
        Run::new(self.clone(), codec::bytes(), handler)
    }

    /// At most so many messages that are due now, started, to be settled by hand.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let mut config = chronow::Config::default();
    /// # config.embedded = Some(":memory:".into());
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// let audit = orders.subscription("audit")?;
    /// audit.ensure().await?;
    /// orders.publish_batch((1..=3).map(|n| chronow::PublishMessage::json(&n))).await?;
    /// let mut batch = audit.receive::<u32>(10).await?;
    /// // One is set aside, and fetched by its id when its time has come; the others are done.
    /// let third = batch.pop().unwrap();
    /// let id = third.id().to_owned();
    /// third.defer().await?;
    /// audit.ack_all(batch).await?;
    /// let third = audit.fetch_deferred::<u32>(vec![id]).await?.pop().unwrap();
    /// assert_eq!(third.payload, 3);
    /// third.ack().await?;
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn receive<T: DeserializeOwned + Send + 'static>(&self, max: u32) -> Result<Vec<Received<T>>> {
        self.receive_as(max, &codec::json()).await
    }

    /// At most so many messages that are due now, as bytes, started, to be settled by hand.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn receive_bytes(&self, max: u32) -> Result<Vec<Received<Bytes>>> {
        self.receive_as(max, &codec::bytes()).await
    }

    async fn receive_as<T>(&self, max: u32, decode: &Decode<T>) -> Result<Vec<Received<T>>> {
        let receive = async {
            let renewer = self.renewer().await?;
            let begun = Instant::now();
            let pulled = self.inner.hot.pull_and_start(&self.name, max, max).await?;
            self.inner.notice(self.name.topic());
            self.start_all(pulled.deliveries, pulled.started, begun, &renewer, decode).await
        };
        receive.await.map_err(self.told("receive"))
    }

    /// Deferred messages by id, started, to be settled by hand; those that are not deferred are left out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn fetch_deferred<T: DeserializeOwned + Send + 'static>(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<Received<T>>> {
        self.fetch_deferred_as(ids, &codec::json()).await
    }

    /// Deferred messages by id, as bytes, started, to be settled by hand; those that are not deferred are
    /// left out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn fetch_deferred_bytes(&self, ids: Vec<String>) -> Result<Vec<Received<Bytes>>> {
        self.fetch_deferred_as(ids, &codec::bytes()).await
    }

    async fn fetch_deferred_as<T>(&self, ids: Vec<String>, decode: &Decode<T>) -> Result<Vec<Received<T>>> {
        let fetch = async {
            let renewer = self.renewer().await?;
            let begun = Instant::now();
            let fetched = self.inner.hot.fetch_deferred(&self.name, ids).await?;
            self.start_all(fetched, 0, begun, &renewer, decode).await
        };
        fetch.await.map_err(self.told("fetch_deferred"))
    }

    /// Messages of which the first so many are started already.
    async fn start_all<T>(
        &self,
        deliveries: Vec<Delivery>,
        started: usize,
        begun: Instant,
        renewer: &Arc<LockRenewer>,
        decode: &Decode<T>,
    ) -> Result<Vec<Received<T>>> {
        let (mut messages, mut undecodable, mut start) =
            (Vec::with_capacity(deliveries.len()), Vec::new(), Vec::new());
        let held: Vec<_> =
            deliveries.into_iter().map(|delivery| (renewer.guard(&delivery, begun), delivery)).collect();
        for (index, (guard, mut delivery)) in held.into_iter().enumerate() {
            // One that is started already carries no claim.
            if let Err(settle) = self.fetch(&mut delivery).await {
                undecodable.push((guard, settle));
                continue;
            }
            match decode(&delivery) {
                Ok(payload) => {
                    if index >= started {
                        start.push(guard.lock.clone());
                    }
                    messages.push((delivery, payload, guard));
                }
                Err(error) => {
                    tracing::warn!(subscription = %self.name, id = %guard.lock.id, %error, "a message cannot be decoded");
                    let reason = UNDECODABLE.to_owned();
                    undecodable.push((
                        guard,
                        if index < started {
                            Settle::Refuse { reason }
                        } else {
                            Settle::DeadLetter { reason }
                        },
                    ));
                }
            }
        }
        if !undecodable.is_empty() {
            settle_all(self, undecodable).await?;
        }
        if !start.is_empty() {
            let begun_already = messages.len() - start.len();
            let told = self
                .inner
                .hot
                .settle_and_start(&self.name, SettleAndStart { settle: Vec::new(), start })
                .await?
                .started;
            let mut told = std::iter::repeat_n(true, begun_already).chain(told);
            messages.retain(|_| told.next() == Some(true));
        }
        let received = |(delivery, payload, guard)| {
            Received::new(Message::new(delivery, payload, guard), self.clone(), Arc::clone(renewer))
        };
        Ok(messages.into_iter().map(received).collect())
    }

    /// Acknowledges messages of this subscription in one step.
    ///
    /// # Errors
    /// `LOCK_LOST` if some came too late; all others are acknowledged.
    pub async fn ack_all<T>(&self, messages: Vec<Received<T>>) -> Result<()> {
        if let Some(foreign) = messages.iter().find(|message| message.subscription.name != self.name) {
            return Err(Error::validation(format!(
                "the message {} is of {}",
                foreign.id(),
                foreign.subscription.name
            ))
            .on(&self.name));
        }
        let settle = messages.iter().map(|message| (Arc::clone(&message.guard), Settle::Ack)).collect();
        let settled = settle_all(self, settle).await?;
        drop(messages);
        match settled.iter().filter(|settled| **settled == Settled::Lost).count() {
            0 => Ok(()),
            _ => Err(lost().during("ack_all").on(&self.name)),
        }
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
        peek.await.map_err(self.told("peek"))
    }

    /// Counts.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn stats(&self) -> Result<SubscriptionStats> {
        let stats = self.inner.hot.stats(self.name.topic()).await.map_err(self.told("stats"))?;
        let found = stats.subscriptions.into_iter().find(|stats| stats.subscription == self.name.name());
        found.ok_or_else(|| missing().during("stats").on(&self.name))
    }

    /// The dead letters, oldest first.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.clone())
    }

    /// Gives dead letters back to this subscription alone, with a new delivery count. All, unless something
    /// else is said.
    pub fn redrive(&self) -> Redrive {
        Redrive::new(self.clone())
    }

    /// Removes dead letters. All, unless something else is said.
    pub fn purge_dead_letters(&self) -> Purge {
        Purge::new(self.clone())
    }

    /// Puts messages back into this subscription from their copies in the warm tier.
    pub fn replay(&self) -> Replay {
        Replay::new(self.clone())
    }

    /// Removes the subscription with everything of it. False if there was none.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn delete(&self) -> Result<bool> {
        self.inner.hot.delete_subscription(&self.name).await.map_err(self.told("delete_subscription"))
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such subscription")
}
