//! The archiver: every message of a topic with warm copies goes through a subscription of the library's own,
//! whose consumer makes the copies. So a failing warm tier fails no publish, and what it owes is made up for,
//! in order, by the process that has the topic open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::bus::LockRenewer;
use crate::context::Context;
use crate::hot::{DeliverPolicy, HotTier, Select, Settle, SettleAndStart, StoredMessage, SubscriptionPatch};
use crate::metrics::Counters;
use crate::tasks::{Background, Extent};
use crate::warm::{COPIED, Warm};
use crate::{Error, ErrorKind, Json, Result, SubscriptionName, Timestamp, TopicName};

/// Copies made in one step, and of dead letters.
const BATCH: u32 = 200;
const DEAD_BATCH: u32 = 50;
/// After a step with fewer than that, the next one waits a moment for more: nobody waits for a copy, but each
/// step costs a commit.
const GATHERED: Duration = Duration::from_millis(5);
/// The longest wait without looking.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What the warm tier refuses goes to the dead letters of the archiver, with a reason that begins so.
const REFUSED: &str = "refused by the warm tier: ";
/// How often dead letters that were passed are looked at again: one may have come in before them.
const REVIEW: Duration = Duration::from_secs(300);

/// Waits after failures: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The library's own subscription of a topic.
pub(crate) fn subscription(topic: &TopicName) -> SubscriptionName {
    SubscriptionName::internal(topic, "__warm")
}

fn marked() -> Json {
    let mut filter = chronos_db::json::Map::new();
    filter.insert(format!("headers.{COPIED}"), chronos_db::json!({ "$exists": true }));
    filter.into()
}

/// Makes sure that the subscription of the archiver is there, and makes its copies in the background, unless
/// the topic is deleted.
pub(crate) async fn copy(
    inner: &Context,
    warm: Warm,
    topic: &TopicName,
    extent: Extent,
) -> Result<Background> {
    let name = subscription(topic);
    // Who wants some copies takes none from who wants all.
    // What waits there is dead only if its bytes can never be kept; an outage may last as long as it wants.
    let patch = SubscriptionPatch::default().start(DeliverPolicy::Earliest).max_deliveries(1_000_000);
    let patch = match extent {
        Extent::All => patch.filter(None),
        Extent::Marked
            if inner
                .hot
                .subscription(&name)
                .await
                .map_err(|error| error.during("subscription"))?
                .is_some() =>
        {
            patch
        }
        Extent::Marked => patch.filter(Some(marked())),
    };
    inner
        .hot
        .ensure_subscription(&name, &patch)
        .await
        .map_err(|error| error.during("ensure_subscription"))?;
    let renewer = LockRenewer::start(inner, &name).await?;
    let (hot, counters) = (Arc::clone(&inner.hot), Arc::clone(&inner.counters));
    Background::start(&inner.tasks, |ending| {
        Archiver { hot, counters, warm, name, renewer, ending, passed: None }.run()
    })
}

/// Why messages have no copy, by their ids.
type RejectedCopies = HashMap<String, String>;

struct Archiver {
    hot: Arc<dyn HotTier>,
    counters: Arc<Counters>,
    warm: Warm,
    name: SubscriptionName,
    renewer: Arc<LockRenewer>,
    ending: CancellationToken,
    /// Up to here its dead letters are those of messages the warm tier refused, and since when.
    passed: Option<(String, Instant)>,
}

impl Archiver {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            // At the end it goes on as long as there is something to copy and nothing fails.
            let ending = self.ending.is_cancelled();
            match self.copy().await {
                Ok(true) => wait = FIRST_WAIT,
                Ok(false) if ending => return,
                Ok(false) => wait = FIRST_WAIT,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => return,
                Err(error) => {
                    tracing::warn!(topic = %self.name.topic(), %error, "warm copies wait in the archiver");
                    if ending {
                        return;
                    }
                    self.ending.run_until_cancelled(tokio::time::sleep(wait)).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Copies what is there, or waits for something. Answers whether there was something.
    async fn copy(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let pulled = self.hot.pull(&self.name, BATCH).await.map_err(|error| error.during("pull"))?;
        if pulled.deliveries.is_empty() {
            if self.copy_dead().await? {
                return Ok(true);
            }
            if !self.ending.is_cancelled() {
                let due = pulled.next_due.unwrap_or(TIMEOUT).min(TIMEOUT);
                tokio::select! {
                    waited = self.hot.wait(&self.name, due) => waited.map_err(|error| error.during("wait"))?,
                    () = self.ending.cancelled() => {}
                }
            }
            return Ok(false);
        }
        let guards: Vec<_> =
            pulled.deliveries.iter().map(|delivery| self.renewer.guard(delivery, begun)).collect();
        let few = pulled.deliveries.len() < BATCH as usize;
        let kept = self.keep(pulled.deliveries.into_iter().map(|delivery| delivery.message).collect()).await;
        let settle = guards.iter().map(|guard| {
            let settle = match &kept {
                // Given back, they come again first: copies are made in order.
                Err(_) => Settle::Release,
                Ok(refused) => match refused.get(&guard.lock().id) {
                    Some(why) => Settle::DeadLetter { reason: format!("{REFUSED}{why}") },
                    None => Settle::Ack,
                },
            };
            (guard.lock().clone(), settle)
        });
        self.hot
            .settle_and_start(&self.name, SettleAndStart { settle: settle.collect(), start: Vec::new() })
            .await?;
        kept?;
        if few && !self.ending.is_cancelled() {
            self.ending.run_until_cancelled(tokio::time::sleep(GATHERED)).await;
        }
        Ok(true)
    }

    /// Copies what expired before its turn came: it lies in the dead letters of this subscription. Answers
    /// whether there was something.
    async fn copy_dead(&mut self) -> Result<bool> {
        if self.passed.as_ref().is_some_and(|(_, since)| since.elapsed() >= REVIEW) {
            self.passed = None;
        }
        let after = self.passed.as_ref().map(|(cursor, _)| cursor.as_str());
        let found = self
            .hot
            .dead_letter_ids(&self.name, Timestamp::from_millis(0), after, DEAD_BATCH)
            .await
            .map_err(|error| error.during("dead_letter_ids"))?;
        let Some(last) = found.last() else { return Ok(false) };
        let (last, since) =
            (last.cursor.clone(), self.passed.as_ref().map_or_else(Instant::now, |(_, since)| *since));
        let ids: Vec<String> = found.into_iter().map(|letter| letter.id).collect();
        let mut letters = self
            .hot
            .dead_letters_by_id(&self.name, &ids)
            .await
            .map_err(|error| error.during("dead_letters_by_id"))?;
        letters.retain(|letter| !letter.reason.starts_with(REFUSED));
        let mut ids: Vec<String> = letters.iter().map(|letter| letter.message.id.clone()).collect();
        let refused = self.keep(letters.into_iter().map(|letter| letter.message).collect()).await?;
        // They are dead letters already, for another reason.
        ids.retain(|id| !refused.contains_key(id));
        if !ids.is_empty() {
            self.hot
                .purge_dead_letters(&self.name, &Select::Ids(ids))
                .await
                .map_err(|error| error.during("purge_dead_letters"))?;
        }
        self.passed = Some((last, since));
        Ok(true)
    }

    /// Keeps copies; answers which the warm tier refuses for good. A batch that it refuses is cut in two
    /// until it is known who is to blame, so that nobody else waits for them.
    async fn keep(&self, copies: Vec<StoredMessage>) -> Result<RejectedCopies> {
        let mut refused = RejectedCopies::new();
        let mut parts = vec![copies];
        // The last one is the first in order.
        while let Some(mut part) = parts.pop() {
            match self.keep_all(part.clone()).await {
                Ok(()) => {}
                Err(error) if error.kind() != ErrorKind::Validation => return Err(error),
                Err(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error) => {
                    let id = part.pop().map(|copy| copy.id).unwrap_or_default();
                    tracing::error!(topic = %self.name.topic(), id, %error, "the warm tier refuses the copy of a message; it is a dead letter of the archiver");
                    Counters::add(&self.counters.warm_refused, 1);
                    refused.insert(id, error.message().to_owned());
                }
            }
        }
        Ok(refused)
    }

    async fn keep_all(&self, copies: Vec<StoredMessage>) -> Result<()> {
        let count = copies.len();
        if count == 0 {
            return Ok(());
        }
        // Making so many documents takes the processor for milliseconds: on a thread of its own it holds up
        // nobody who shares this runtime.
        let (warm, topic, env) =
            (self.warm.clone(), self.name.topic().clone(), tokio::runtime::Handle::current());
        let kept = tokio::task::spawn_blocking(move || env.block_on(warm.keep(&topic, copies))).await;
        kept.map_err(|error| {
            Error::new(ErrorKind::WarmTier, "making warm copies was broken off").caused_by(error).retryable()
        })??;
        Counters::add(&self.counters.warm_copies, count);
        Ok(())
    }
}
