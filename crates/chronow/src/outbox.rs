//! The outbox: every message of a topic with warm copies goes through a subscription of the library's own, whose consumer makes the copies. So a
//! failing warm tier fails no publish, and what it owes is made up for, in order, by whoever has the topic open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bus::Keeper;
use crate::client::Inner;
use crate::hot::{Accepted, Advance, Hot, Select, Settle, Start, SubscriptionPatch};
use crate::metrics::Counters;
use crate::tasks::{Background, Ending};
use crate::warm::{COPIED, Warm};
use crate::{Error, ErrorKind, Json, Result, SubscriptionName, TopicName};

/// Copies made in one step.
const BATCH: u32 = 200;
/// After a step with fewer than that, the next one waits a moment for more: nobody waits for a copy, but each step costs a commit.
const GATHERED: Duration = Duration::from_millis(5);
/// The longest wait without looking.
const PATIENCE: Duration = Duration::from_secs(2);
/// Waits after failures: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Which messages get copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Those that were published so.
    Marked,
    /// All of the topic.
    All,
}

/// The library's own subscription of a topic.
pub(crate) fn subscription(topic: &TopicName) -> SubscriptionName {
    SubscriptionName::internal(topic, "__warm")
}

fn marked() -> Json {
    let mut filter = chronos_db::json::Map::new();
    filter.insert(format!("headers.{COPIED}"), chronos_db::json!({ "$exists": true }));
    filter.into()
}

/// Makes sure that the outbox is there, and makes its copies in the background, unless somebody deletes the topic.
pub(crate) async fn copy(inner: &Inner, warm: Warm, topic: &TopicName, extent: Extent) -> Result<Background> {
    let name = subscription(topic);
    // Who wants some copies takes none from who wants all.
    let filter = match extent {
        Extent::All => Some(None),
        Extent::Marked if inner.hot.subscription(&name).await?.is_some() => None,
        Extent::Marked => Some(Some(marked())),
    };
    // What waits there is dead only if its bytes can never be kept; an outage may last as long as it wants.
    let patch = SubscriptionPatch { start: Some(Start::Earliest), max_deliveries: Some(1_000_000), filter, ..SubscriptionPatch::default() };
    inner.hot.ensure_subscription(&name, &patch).await?;
    let keeper = Keeper::start(inner, &name).await?;
    let (hot, counters) = (Arc::clone(&inner.hot), Arc::clone(&inner.counters));
    Background::start(inner, |ending| Copier { hot, counters, warm, name, keeper, ending }.run())
}

struct Copier {
    hot: Arc<dyn Hot>,
    counters: Arc<Counters>,
    warm: Warm,
    name: SubscriptionName,
    keeper: Arc<Keeper>,
    ending: Ending,
}

impl Copier {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            // At the end it goes on as long as there is something to copy and nothing fails.
            let ending = self.ending.is_here();
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
                    self.ending.pause(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Copies what is there, or waits for something. Answers whether there was something.
    async fn copy(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let pulled = self.hot.pull(&self.name, BATCH).await?;
        if pulled.deliveries.is_empty() {
            if self.copy_dead().await? {
                return Ok(true);
            }
            if !self.ending.is_here() {
                let due = pulled.next_due.unwrap_or(PATIENCE).min(PATIENCE);
                tokio::select! {
                    waited = self.hot.wait(&self.name, due) => waited?,
                    () = self.ending.comes() => {}
                }
            }
            return Ok(false);
        }
        let holds: Vec<_> = pulled.deliveries.iter().map(|delivery| self.keeper.hold(delivery, begun)).collect();
        let few = pulled.deliveries.len() < BATCH as usize;
        let kept = self.keep(pulled.deliveries.into_iter().map(Accepted::from).collect()).await;
        // Given back, they come again first: copies are made in order.
        let settle = if kept.is_ok() { Settle::Ack } else { Settle::Release };
        let settle = holds.iter().map(|hold| (hold.lock().clone(), settle.clone())).collect();
        self.hot.advance(&self.name, Advance { settle, start: Vec::new() }).await?;
        kept?;
        if few && !self.ending.is_here() {
            self.ending.pause(GATHERED).await;
        }
        Ok(true)
    }

    /// Copies what expired before its turn came: it lies in the dead letters of this subscription. Answers whether there was something.
    async fn copy_dead(&self) -> Result<bool> {
        let (letters, _) = self.hot.dead_letters(&self.name, None, BATCH).await?;
        if letters.is_empty() {
            return Ok(false);
        }
        let ids = letters.iter().map(|letter| letter.id.clone()).collect();
        self.keep(letters.into_iter().map(Accepted::from).collect()).await?;
        self.hot.purge_dead_letters(&self.name, &Select::Ids(ids)).await?;
        Ok(true)
    }

    async fn keep(&self, copies: Vec<Accepted>) -> Result<()> {
        let count = copies.len();
        // Making so many documents takes the processor for milliseconds: on a thread of its own it holds up nobody who shares this runtime.
        let (warm, topic, runtime) = (self.warm.clone(), self.name.topic().clone(), tokio::runtime::Handle::current());
        let kept = tokio::task::spawn_blocking(move || runtime.block_on(warm.keep(&topic, copies))).await;
        kept.map_err(|error| Error::new(ErrorKind::WarmTier, "making warm copies was broken off").caused_by(error).retryable())??;
        Counters::add(&self.counters.warm_copies, count);
        Ok(())
    }
}
