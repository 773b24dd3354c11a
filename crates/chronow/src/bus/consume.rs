//! Messages as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::codec::{self, Decode};
use super::lock_guard::{LockRenewer, Ready};
use super::message::{Message, Received, settle_all};
use super::runs;
use super::subscription::Subscription;
use crate::hot::{Settle, SettleAndStart};
use crate::{ErrorKind, Result};

/// Messages of a subscription held in advance, unless something else is said.
const PREFETCH: u32 = 10;
/// The longest a consumer waits without looking: other processes may have given something back.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// The reason of what cannot be decoded.
pub(super) const UNDECODABLE: &str = "undecodable";

impl Subscription {
    /// Streams messages whose payloads are JSON, to be settled by hand. A payload that is not goes to the
    /// dead letters as `undecodable`.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// # let billing = orders.subscription("billing")?;
    /// # billing.ensure().max_deliveries(1).await?;
    /// use futures::TryStreamExt as _;
    ///
    /// orders.publish(&7).await?;
    /// let mut messages = billing.consume::<i64>().prefetch(20).await?;
    /// if let Some(order) = messages.try_next().await? {
    ///     assert_eq!(order.payload, 7);
    ///     order.ack().await?; // or `nack`, `dead_letter`, `defer`
    /// }
    /// messages.close().await?; // gives back what was fetched in advance
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription; `HOT_TIER_ERROR` if the store fails.
    pub fn consume<T: DeserializeOwned + Send + 'static>(&self) -> Consume<T> {
        Consume::new(self.clone(), codec::json())
    }

    /// Streams messages as bytes, to be settled by hand.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub fn consume_bytes(&self) -> Consume<Bytes> {
        Consume::new(self.clone(), codec::bytes())
    }
}

/// Opens a stream of messages; see [`Subscription::consume`].
#[must_use = "an action runs when it is awaited"]
pub struct Consume<T> {
    subscription: Subscription,
    decode: Decode<T>,
    prefetch: u32,
}

impl<T> fmt::Debug for Consume<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consume")
            .field("subscription", &self.subscription.name)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Consume<T> {
    pub(super) fn new(subscription: Subscription, decode: Decode<T>) -> Self {
        Self { subscription, decode, prefetch: PREFETCH }
    }

    /// Holds at most this many messages in advance (default 10, at least 1). Their locks are renewed, and they
    /// are given back at the end.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = messages.clamp(1, 1_000);
        self
    }

    async fn run(self) -> Result<Consumer<T>> {
        let renewer = self.subscription.renewer("consume").await?;
        let closer = Arc::clone(&renewer);
        let closing = self.subscription.inner.tasks.closing();
        let Self { subscription, decode, prefetch } = self;
        let source = Source { subscription, decode, prefetch, renewer, closing };
        let stream = futures::stream::unfold(Some(source), |source| async move {
            let mut source = source?;
            match source.next().await {
                Ok(Some(received)) => Some((Ok(received), Some(source))),
                Ok(None) => None,
                Err(error) => {
                    // What is there no more stays away; everything else may pass.
                    let over = matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Closed | ErrorKind::Validation
                    );
                    let error = error.during("consume").on(&source.subscription.name);
                    Some((Err(error), (!over).then_some(source)))
                }
            }
        });
        Ok(Consumer { stream: stream.boxed(), closer })
    }
}

runs!([T: Send + 'static] Consume<T> => Consumer<T>, Consume by subscription.inner);

/// A stream of messages, each started (and counted) when it is yielded. Dropping it gives back what was
/// prefetched; messages in your hands stay yours.
///
/// It ends when the connection is closed. After an error it goes on, unless the subscription is gone.
#[must_use = "a stream does nothing unless it is read"]
pub struct Consumer<T> {
    stream: BoxStream<'static, Result<Received<T>>>,
    closer: Arc<LockRenewer>,
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl<T> Consumer<T> {
    /// Ends the stream and gives back what was prefetched before it returns.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails; then the locks end by themselves.
    pub async fn close(self) -> Result<()> {
        drop(self.stream);
        let name = self.closer.subscription().clone();
        self.closer.close().await.map_err(|error| error.during("close").on(&name))
    }
}

impl<T> Stream for Consumer<T> {
    type Item = Result<Received<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

struct Source<T> {
    subscription: Subscription,
    decode: Decode<T>,
    prefetch: u32,
    renewer: Arc<LockRenewer>,
    closing: CancellationToken,
}

impl<T: Send + 'static> Source<T> {
    async fn next(&mut self) -> Result<Option<Received<T>>> {
        loop {
            if self.closing.is_cancelled() {
                return Ok(None);
            }
            match self.renewer.next() {
                Some(ready) => {
                    if let Some(received) = self.start(ready).await? {
                        return Ok(Some(received));
                    }
                }
                None => tokio::select! {
                    () = self.closing.cancelled() => return Ok(None),
                    looked = self.look() => looked?,
                },
            }
        }
    }

    /// Starts a message, unless its lock is lost or it cannot be decoded.
    async fn start(&self, ready: Ready) -> Result<Option<Received<T>>> {
        let Ready { mut delivery, guard } = ready;
        if let Err(settle) = self.subscription.fetch(&mut delivery).await {
            settle_all(&self.subscription, vec![(guard, settle)]).await?;
            return Ok(None);
        }
        if guard.is_lost() {
            return Ok(None);
        }
        let payload = match (self.decode)(&delivery) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(subscription = %self.subscription.name, id = %guard.lock.id, %error, "a message cannot be decoded");
                settle_all(
                    &self.subscription,
                    vec![(guard, Settle::DeadLetter { reason: UNDECODABLE.to_owned() })],
                )
                .await?;
                return Ok(None);
            }
        };
        let step = SettleAndStart { settle: Vec::new(), start: vec![guard.lock.clone()] };
        let outcome = self.subscription.inner.hot.settle_and_start(&self.subscription.name, step).await;
        let started = outcome.map_err(|error| error.during("consume").on(&self.subscription.name))?.started;
        if started != [true] {
            return Ok(None);
        }
        let message = Message::new(delivery, payload, guard);
        Ok(Some(Received::new(message, self.subscription.clone(), Arc::clone(&self.renewer))))
    }

    /// Pulls; if there is nothing, waits and pulls again.
    async fn look(&self) -> Result<()> {
        if let Some(due) = self.pull().await? {
            let inner = &self.subscription.inner;
            let mut wait = inner.hot.wait(&self.subscription.name, due.min(TIMEOUT));
            // What is published between the pull and the wait is seen by a pull after the wait has begun.
            if futures::poll!(&mut wait).is_pending() && self.pull().await?.is_some() {
                wait.await?;
            }
        }
        Ok(())
    }

    /// Pulls in a task of its own: when the stream is dropped meanwhile, what comes is given back. Answers
    /// how long to wait if nothing came.
    async fn pull(&self) -> Result<Option<Duration>> {
        let (subscription, renewer, prefetch) =
            (self.subscription.clone(), Arc::clone(&self.renewer), self.prefetch);
        let pull = self.subscription.inner.tasks.spawn(async move {
            let begun = Instant::now();
            let pulled = subscription.inner.hot.pull(&subscription.name, prefetch).await?;
            subscription.inner.notice(subscription.name.topic());
            let due = pulled.deliveries.is_empty().then(|| pulled.next_due.unwrap_or(TIMEOUT));
            renewer.queue(pulled.deliveries, begun).await?;
            Ok(due)
        })?;
        match pull.await {
            Ok(pulled) => pulled,
            Err(error) => Err(crate::Error::new(ErrorKind::HotTier, "a pull was broken off")
                .caused_by(error)
                .retryable()),
        }
    }
}
