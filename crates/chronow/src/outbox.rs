//! The outbox: every message of a topic with warm copies goes through a subscription of the library's own, whose consumer makes the copies. So a
//! failing warm tier fails no publish, and what it owes is made up for, in order, by whoever has the topic open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bus::Keeper;
use crate::client::Inner;
use crate::hot::{Advance, Delivery, Hot, Outgoing, Settle, Start, SubscriptionPatch};
use crate::metrics::Counters;
use crate::tasks::closed;
use crate::warm::Warm;
use crate::{Error, ErrorKind, Result, SubscriptionName, TopicName};

/// Copies made in one step.
const BATCH: u32 = 200;
/// After a step with fewer than that, the next one waits a moment for more: nobody waits for a copy, but each step costs a commit.
const GATHERED: Duration = Duration::from_millis(20);
/// The longest wait without looking.
const PATIENCE: Duration = Duration::from_secs(2);
/// Waits after failures: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The library's own subscription of a topic.
pub(crate) fn subscription(topic: &TopicName) -> SubscriptionName {
    SubscriptionName::internal(topic, "__warm")
}

/// Makes copies in the background until it is dropped or the connection is closed.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Dropping it ends the task.
    _alive: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Outbox {
    /// Not if somebody deleted the topic.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Makes sure that the outbox is there, and begins to copy.
    pub(crate) async fn open(inner: &Inner, warm: Warm, topic: &TopicName) -> Result<Self> {
        let name = subscription(topic);
        // What waits there is dead only if its bytes can never be kept; an outage may last as long as it wants.
        let patch = SubscriptionPatch { start: Some(Start::Earliest), max_deliveries: Some(1_000_000), ..SubscriptionPatch::default() };
        inner.hot.ensure_subscription(&name, &patch).await?;
        let keeper = Keeper::start(inner, &name).await?;
        let guard = inner.guard()?;
        let (alive, ended) = watch::channel(false);
        let copier = Copier {
            hot: Arc::clone(&inner.hot),
            counters: Arc::clone(&inner.counters),
            warm,
            name,
            keeper,
            closing: inner.tasks.closing(),
            ended,
        };
        let task = tokio::spawn(async move {
            copier.run().await;
            drop(guard);
        });
        Ok(Self { _alive: alive, task })
    }
}

struct Copier {
    hot: Arc<dyn Hot>,
    counters: Arc<Counters>,
    warm: Warm,
    name: SubscriptionName,
    keeper: Arc<Keeper>,
    closing: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
}

impl Copier {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            // At the end it goes on as long as there is something to copy and nothing fails.
            let ending = self.is_ending();
            match self.copy().await {
                Ok(true) => wait = FIRST_WAIT,
                Ok(false) if ending => return,
                Ok(false) => wait = FIRST_WAIT,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => return,
                Err(error) => {
                    tracing::warn!(topic = %self.name.topic(), %error, "warm copies wait in the outbox");
                    if ending {
                        return;
                    }
                    self.pause(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    fn is_ending(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err() || self.ended.has_changed().is_err()
    }

    async fn pause(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = closed(&mut self.closing) => {}
            () = closed(&mut self.ended) => {}
        }
    }

    /// Copies what is there, or waits for something. Answers whether there was something.
    async fn copy(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let pulled = self.hot.pull(&self.name, BATCH).await?;
        if pulled.deliveries.is_empty() {
            if !self.is_ending() {
                let due = pulled.next_due.unwrap_or(PATIENCE).min(PATIENCE);
                tokio::select! {
                    waited = self.hot.wait(&self.name, due) => waited?,
                    () = closed(&mut self.closing) => {}
                    () = closed(&mut self.ended) => {}
                }
            }
            return Ok(false);
        }
        let holds: Vec<_> = pulled.deliveries.iter().map(|delivery| self.keeper.hold(delivery, begun)).collect();
        let few = pulled.deliveries.len() < BATCH as usize;
        let kept = self.keep(pulled.deliveries).await;
        // Given back, they come again first: copies are made in order.
        let settle = if kept.is_ok() { Settle::Ack } else { Settle::Release };
        let settle = holds.iter().map(|hold| (hold.lock().clone(), settle.clone())).collect();
        self.hot.advance(&self.name, Advance { settle, start: Vec::new() }).await?;
        kept?;
        if few && !self.is_ending() {
            self.pause(GATHERED).await;
        }
        Ok(true)
    }

    async fn keep(&self, deliveries: Vec<Delivery>) -> Result<()> {
        let mut copies = Vec::new();
        for delivery in deliveries {
            let Delivery { lock, payload, content_type, headers, key, published_at, .. } = delivery;
            let message = Outgoing { payload, content_type, headers, key, ..Outgoing::default() };
            copies.push((lock.id, published_at, message));
        }
        let count = copies.len();
        // Making so many documents takes the processor for milliseconds: on a thread of its own it holds up nobody who shares this runtime.
        let (warm, topic, runtime) = (self.warm.clone(), self.name.topic().clone(), tokio::runtime::Handle::current());
        let kept = tokio::task::spawn_blocking(move || runtime.block_on(warm.keep(&topic, copies))).await;
        kept.map_err(|error| Error::new(ErrorKind::WarmTier, "making warm copies was broken off").caused_by(error).retryable())??;
        Counters::add(&self.counters.warm_copies, count);
        Ok(())
    }
}
