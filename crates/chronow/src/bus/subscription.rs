//! One subscription.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde::de::DeserializeOwned;

use super::actions::EnsureSubscription;
use super::codec::{self, Decode};
use super::consume::{Consume, UNDECODABLE};
use super::dead::{DeadLetters, Purge, Redrive};
use super::hold::Keeper;
use super::message::{Message, Received, lost, settle_all};
use super::run::{Outcome, Run};
use super::runs;
use crate::client::Inner;
use crate::hot::{Advance, Delivery, Peeked, Settle, Settled, SubscriptionOptions, SubscriptionPatch, SubscriptionStats};
use crate::{Error, ErrorKind, Result, SubscriptionName, Timestamp};

/// Messages put back in one step.
const REPLAYED: usize = 200;

/// A subscription; see [`Topic::subscription`](super::Topic::subscription).
#[derive(Clone)]
pub struct Subscription {
    pub(crate) inner: Arc<Inner>,
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

    /// A stream of messages whose payloads are JSON, to be settled by hand.
    pub fn consume<T: DeserializeOwned + Send + 'static>(&self) -> Consume<T> {
        Consume::new(self.clone(), codec::json())
    }

    /// A stream of messages as bytes, to be settled by hand.
    pub fn consume_bytes(&self) -> Consume<Bytes> {
        Consume::new(self.clone(), codec::bytes())
    }

    /// Runs a handler over messages whose payloads are JSON. What cannot be decoded goes to the dead letters as `undecodable`.
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
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn receive<T: DeserializeOwned + Send + 'static>(&self, max: u32) -> Result<Vec<Received<T>>> {
        let receive = async {
            let keeper = Keeper::start(&self.inner, &self.name).await?;
            let begun = Instant::now();
            let (pulled, started) = self.inner.hot.pull_and_start(&self.name, max, max).await?;
            self.start_all(pulled.deliveries, started, begun, &keeper, &codec::json()).await
        };
        receive.await.map_err(self.told("receive"))
    }

    /// Deferred messages by id, started, to be settled by hand; those that are not deferred are left out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn fetch_deferred<T: DeserializeOwned + Send + 'static>(&self, ids: Vec<String>) -> Result<Vec<Received<T>>> {
        let fetch = async {
            let keeper = Keeper::start(&self.inner, &self.name).await?;
            let begun = Instant::now();
            let fetched = self.inner.hot.fetch_deferred(&self.name, ids).await?;
            self.start_all(fetched, 0, begun, &keeper, &codec::json()).await
        };
        fetch.await.map_err(self.told("fetch_deferred"))
    }

    /// Messages of which the first so many are started already.
    async fn start_all<T>(
        &self,
        deliveries: Vec<Delivery>,
        started: usize,
        begun: Instant,
        keeper: &Arc<Keeper>,
        decode: &Decode<T>,
    ) -> Result<Vec<Received<T>>> {
        let (mut messages, mut undecodable, mut start) = (Vec::with_capacity(deliveries.len()), Vec::new(), Vec::new());
        for (place, delivery) in deliveries.into_iter().enumerate() {
            let hold = keeper.hold(&delivery, begun);
            match decode(&delivery) {
                Ok(payload) => {
                    if place >= started {
                        start.push(hold.lock.clone());
                    }
                    messages.push((delivery, payload, hold));
                }
                Err(error) => {
                    tracing::warn!(subscription = %self.name, id = %hold.lock.id, %error, "a message cannot be decoded");
                    let reason = UNDECODABLE.to_owned();
                    undecodable.push((hold, if place < started { Settle::Refuse { reason } } else { Settle::DeadLetter { reason } }));
                }
            }
        }
        if !undecodable.is_empty() {
            settle_all(self, undecodable).await?;
        }
        if !start.is_empty() {
            let begun_already = messages.len() - start.len();
            let told = self.inner.hot.advance(&self.name, Advance { settle: Vec::new(), start }).await?.started;
            let mut told = std::iter::repeat_n(true, begun_already).chain(told);
            messages.retain(|_| told.next() == Some(true));
        }
        let received = |(delivery, payload, hold)| Received::new(Message::new(delivery, payload, hold), self.clone(), Arc::clone(keeper));
        Ok(messages.into_iter().map(received).collect())
    }

    /// Acknowledges messages of this subscription in one step.
    ///
    /// # Errors
    /// `LOCK_LOST` if some came too late; all others are acknowledged.
    pub async fn ack_all<T>(&self, messages: Vec<Received<T>>) -> Result<()> {
        if let Some(foreign) = messages.iter().find(|message| message.subscription.name != self.name) {
            return Err(Error::validation(format!("the message {} is of {}", foreign.id(), foreign.subscription.name)).on(&self.name));
        }
        let settle = messages.iter().map(|message| (Arc::clone(&message.hold), Settle::Ack)).collect();
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
        self.inner.hot.peek(&self.name, limit).await.map_err(self.told("peek"))
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

    /// Gives dead letters back to this subscription alone, with a new delivery count. All, unless something else is said.
    pub fn redrive(&self) -> Redrive {
        Redrive::new(self.clone())
    }

    /// Removes dead letters. All, unless something else is said.
    pub fn purge_dead_letters(&self) -> Purge {
        Purge::new(self.clone())
    }

    /// Puts messages back into this subscription from their copies in the warm tier.
    pub fn replay(&self) -> Replay {
        Replay { subscription: self.clone(), from: None, until: None }
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

/// Puts messages back from the warm tier; see [`Subscription::replay`]. Answers how many.
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Replay {
    subscription: Subscription,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Replay {
    /// Only what was published then or later.
    pub fn from(mut self, at: Timestamp) -> Self {
        self.from = Some(at);
        self
    }

    /// Only what was published before.
    pub fn until(mut self, at: Timestamp) -> Self {
        self.until = Some(at);
        self
    }

    async fn run(self) -> Result<u64> {
        let Self { subscription, from, until } = self;
        let replay = async {
            let kept = subscription.inner.warm_tier()?.kept(subscription.name.topic(), from, until)?;
            let mut chunks = kept.try_chunks(REPLAYED);
            let mut count = 0;
            while let Some(chunk) = chunks.try_next().await.map_err(|failed| failed.1)? {
                count += subscription.inner.hot.replay(&subscription.name, chunk).await?;
            }
            Ok(count)
        };
        replay.await.map_err(|error: Error| error.during("replay").on(&subscription.name))
    }
}

runs!(Replay => u64);
