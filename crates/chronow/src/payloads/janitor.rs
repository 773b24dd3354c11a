//! Who removes payloads that nobody needs any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{CLAIMED, Payloads};
use crate::bus::LockRenewer;
use crate::context::Context;
use crate::hot::{Delivery, HotTier, Select, Settle, SettleAndStart, SubscriptionPatch};
use crate::tasks::Background;
use crate::warm::{COPIED, Warm};
use crate::{ErrorKind, Result, SubscriptionName, Timestamp, TopicName};

/// Messages looked at in one step.
const BATCH: u32 = 100;
/// The longest wait without looking.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How soon, and how late at the latest, a message is looked at again.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(600);
/// A copy that was asked for comes within this time, or never.
const COPY_COMES: Duration = Duration::from_secs(24 * 3_600);
/// The wait after a failure.
const TROUBLE: Duration = Duration::from_secs(5);
/// How often what expired in this subscription, too, is fetched back.
const REVIEW: Duration = Duration::from_secs(20);

/// The library's own subscription to messages with claims.
pub(crate) fn subscription(topic: &TopicName) -> SubscriptionName {
    SubscriptionName::internal(topic, "__claims")
}

/// Makes sure that the subscription is there, before a message with a claim is published, and removes what
/// nobody needs in the background, unless the topic is deleted.
pub(crate) async fn clean_up(
    inner: &Context,
    payloads: Payloads,
    warm: Option<Warm>,
    topic: &TopicName,
) -> Result<Background> {
    let name = subscription(topic);
    let mut filter = chronos_db::json::Map::new();
    filter.insert(format!("headers.{CLAIMED}"), chronos_db::json!({ "$exists": true }));
    // It has no handlers that could fail.
    let patch = SubscriptionPatch::default().filter(Some(filter.into())).max_deliveries(1_000_000);
    inner
        .hot
        .ensure_subscription(&name, &patch)
        .await
        .map_err(|error| error.during("ensure_subscription"))?;
    let renewer = LockRenewer::start(inner, &name).await?;
    let hot = Arc::clone(&inner.hot);
    Background::start(&inner.tasks, |ending| Sweeper { hot, payloads, warm, name, renewer, ending }.run())
}

struct Sweeper {
    hot: Arc<dyn HotTier>,
    payloads: Payloads,
    warm: Option<Warm>,
    name: SubscriptionName,
    renewer: Arc<LockRenewer>,
    ending: CancellationToken,
}

impl Sweeper {
    async fn run(mut self) {
        let mut reviewed: Option<Instant> = None;
        while !self.ending.is_cancelled() {
            if reviewed.is_none_or(|at| at.elapsed() >= REVIEW) {
                reviewed = Some(Instant::now());
                // What ended its time to live, or was dead for another reason, still has its object.
                if let Err(error) = self.hot.redrive(&self.name, &Select::All).await
                    && self.is_over(&error)
                {
                    return;
                }
            }
            if let Err(error) = self.look().await {
                if self.is_over(&error) {
                    return;
                }
                self.ending.run_until_cancelled(tokio::time::sleep(TROUBLE)).await;
            }
        }
    }

    fn is_over(&self, error: &crate::Error) -> bool {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) {
            return true;
        }
        tracing::warn!(topic = %self.name.topic(), %error, "payloads that nobody needs any more wait in object storage");
        false
    }

    async fn look(&mut self) -> Result<()> {
        let begun = Instant::now();
        let pulled = self.hot.pull(&self.name, BATCH).await.map_err(|error| error.during("pull"))?;
        if pulled.deliveries.is_empty() {
            let due = pulled.next_due.unwrap_or(TIMEOUT).min(TIMEOUT);
            tokio::select! {
                waited = self.hot.wait(&self.name, due) => waited.map_err(|error| error.during("wait"))?,
                () = self.ending.cancelled() => {}
            }
            return Ok(());
        }
        let guards: Vec<_> =
            pulled.deliveries.iter().map(|delivery| self.renewer.guard(delivery, begun)).collect();
        // What was started does not expire here.
        let start = guards.iter().map(|guard| guard.lock().clone()).collect();
        self.hot
            .settle_and_start(&self.name, SettleAndStart { settle: Vec::new(), start })
            .await
            .map_err(|error| error.during("settle_and_start"))?;
        let now = self.hot.now().await.map_err(|error| error.during("now"))?;
        let ids: Vec<String> = pulled.deliveries.iter().map(|delivery| delivery.lock.id.clone()).collect();
        let needed = self.hot.needed_by_others(&self.name, &ids).await;
        let mut settle = Vec::with_capacity(ids.len());
        for (index, delivery) in pulled.deliveries.iter().enumerate() {
            let needed = needed.as_ref().map_or(true, |needed| needed[index]);
            let how = match needed || self.is_kept(delivery, now).await {
                true => again(delivery, now),
                false => match self.payloads.remove(self.name.topic(), &delivery.message.payload).await {
                    Ok(()) => Settle::Ack,
                    // A claim that nobody can read leads to nothing that could be removed.
                    Err(error) if error.kind() == ErrorKind::NotFound => Settle::Ack,
                    Err(error) => {
                        tracing::warn!(topic = %self.name.topic(), id = %delivery.lock.id, %error, "a payload could not be removed");
                        again(delivery, now)
                    }
                },
            };
            settle.push((guards[index].lock().clone(), how));
        }
        self.hot
            .settle_and_start(&self.name, SettleAndStart { settle, start: Vec::new() })
            .await
            .map_err(|error| error.during("settle_and_start"))?;
        needed.map(drop)
    }

    /// Whether the warm tier has a copy of the message, from which it can be replayed, or will have one. If
    /// nobody knows: yes.
    async fn is_kept(&self, delivery: &Delivery, now: Timestamp) -> bool {
        let id = &delivery.lock.id;
        match &self.warm {
            None => false,
            Some(warm) => match warm.has(self.name.topic(), id).await {
                Ok(true) => true,
                Ok(false) => delivery.message.headers.contains_key(COPIED) && age(delivery, now) < COPY_COMES,
                Err(error) => {
                    tracing::warn!(topic = %self.name.topic(), id, %error, "it is not known whether a message has a warm copy");
                    true
                }
            },
        }
    }
}

/// The older a message is, the longer it can wait.
fn again(delivery: &Delivery, now: Timestamp) -> Settle {
    let delay = (age(delivery, now) / 4).clamp(SOONEST, LATEST);
    Settle::Retry { delay: Some(delay), reason: "it is still needed".to_owned() }
}

fn age(delivery: &Delivery, now: Timestamp) -> Duration {
    Duration::from_millis(
        u64::try_from(now.as_millis() - delivery.message.published_at.as_millis()).unwrap_or(0),
    )
}
