//! Receiving messages in batches, to be settled by hand.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::codec::{self, Decode};
use super::consume::UNDECODABLE;
use super::lock_guard::LockRenewer;
use super::message::{Message, Received, lost, settle_all};
use super::subscription::Subscription;
use crate::hot::{Delivery, Settle, SettleAndStart, Settled};
use crate::metrics::Operation;
use crate::{Error, Result};

impl Subscription {
    /// Takes at most this many messages that are due now, started, to be settled by hand.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
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

    /// Takes at most this many messages that are due now, as bytes, started, to be settled by hand.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn receive_bytes(&self, max: u32) -> Result<Vec<Received<Bytes>>> {
        self.receive_as(max, &codec::bytes()).await
    }

    async fn receive_as<T>(&self, max: u32, decode: &Decode<T>) -> Result<Vec<Received<T>>> {
        let receive = async {
            let renewer = self.renewer("receive").await?;
            let begun = Instant::now();
            let pulled = self.inner.hot.pull_and_start(&self.name, max, max).await?;
            self.inner.notice(self.name.topic());
            self.start_all(pulled.deliveries, pulled.started, begun, &renewer, decode).await
        };
        let received = async { receive.await.map_err(self.in_context("receive")) };
        self.inner.counters.watch(Operation::Receive, received).await
    }

    /// Takes deferred messages by id, started, to be settled by hand; those that are not deferred are left
    /// out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn fetch_deferred<T: DeserializeOwned + Send + 'static>(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<Received<T>>> {
        self.fetch_deferred_as(ids, &codec::json()).await
    }

    /// Takes deferred messages by id, as bytes, started, to be settled by hand; those that are not deferred
    /// are left out.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn fetch_deferred_bytes(&self, ids: Vec<String>) -> Result<Vec<Received<Bytes>>> {
        self.fetch_deferred_as(ids, &codec::bytes()).await
    }

    async fn fetch_deferred_as<T>(&self, ids: Vec<String>, decode: &Decode<T>) -> Result<Vec<Received<T>>> {
        let fetch = async {
            let renewer = self.renewer("fetch_deferred").await?;
            let begun = Instant::now();
            let fetched = self.inner.hot.fetch_deferred(&self.name, ids).await?;
            self.start_all(fetched, 0, begun, &renewer, decode).await
        };
        fetch.await.map_err(self.in_context("fetch_deferred"))
    }

    /// Messages of which the first this many are started already.
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
            let started = self
                .inner
                .hot
                .settle_and_start(&self.name, SettleAndStart { settle: Vec::new(), start })
                .await?
                .started;
            let mut started = std::iter::repeat_n(true, begun_already).chain(started);
            messages.retain(|_| started.next() == Some(true));
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
}
