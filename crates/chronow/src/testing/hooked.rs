//! A hot tier with a hook before and after every step of publishing, pulling, settling and renewing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::hot::{
    Change, DeadLetter, DeadLetterId, Delivery, HotTier, Incremented, KeyValueStore, Lock, MessageStore,
    OutboundMessage, Peeked, Precondition, PublishAck, Pulled, Select, Settle, SettleAndStart,
    SettleAndStartResult, Settled, StoredMessage, SubscriptionOptions, SubscriptionPatch, TopicOptions,
    TopicPatch, TopicStats, Value,
};
use crate::{Page, Result, Scope, SubscriptionName, Timestamp, TopicName};

/// A moment before or after a step.
#[derive(Clone, Copy, Debug)]
pub enum Point<'a> {
    /// Before messages are published.
    BeforePublish,
    /// After that.
    AfterPublish,
    /// Before a pull.
    BeforePull,
    /// After a pull that brought something.
    AfterPull(&'a SubscriptionName, &'a [Delivery]),
    /// Before deliveries are settled and messages handed out.
    BeforeSettleAndStart,
    /// After that: what was to be settled, and what came of each.
    AfterSettleAndStart(&'a SubscriptionName, &'a [(Lock, Settle)], &'a [Settled]),
    /// Before locks are renewed.
    BeforeRenew,
    /// After that.
    AfterRenew,
}

impl Point<'_> {
    /// The names of all points.
    pub const NAMES: [&'static str; 8] = [
        "publish.before",
        "publish.after",
        "pull.before",
        "pull.after",
        "advance.before",
        "advance.after",
        "renew.before",
        "renew.after",
    ];

    /// Its name, as a fail point.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let [publish, published, pull, pulled, before_step, after_step, renew, renewed] = Self::NAMES;
        match self {
            Self::BeforePublish => publish,
            Self::AfterPublish => published,
            Self::BeforePull => pull,
            Self::AfterPull(..) => pulled,
            Self::BeforeSettleAndStart => before_step,
            Self::AfterSettleAndStart(..) => after_step,
            Self::BeforeRenew => renew,
            Self::AfterRenew => renewed,
        }
    }
}

/// The same hot tier, with `hook` called at every [`Point`]. Its error before a step keeps the step from
/// being done, and after it hides that it was.
pub fn hooked(
    inner: Arc<dyn HotTier>,
    hook: impl Fn(Point<'_>) -> Result<()> + Send + Sync + 'static,
) -> Arc<dyn HotTier> {
    Arc::new(Hooked { inner, hook })
}

struct Hooked<F> {
    inner: Arc<dyn HotTier>,
    hook: F,
}

impl<F> fmt::Debug for Hooked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.inner).finish()
    }
}

impl<F: Fn(Point<'_>) -> Result<()>> Hooked<F> {
    /// Pulls that bring nothing are not a step.
    fn pulled(&self, subscription: &SubscriptionName, pulled: &Pulled) -> Result<()> {
        if pulled.deliveries.is_empty() {
            return Ok(());
        }
        (self.hook)(Point::AfterPull(subscription, &pulled.deliveries))
    }
}

#[async_trait]
impl<F: Fn(Point<'_>) -> Result<()> + Send + Sync> HotTier for Hooked<F> {
    async fn ping(&self) -> Result<String> {
        self.inner.ping().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[async_trait]
impl<F: Fn(Point<'_>) -> Result<()> + Send + Sync> KeyValueStore for Hooked<F> {
    async fn get(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>> {
        self.inner.get(scope, keys).await
    }

    async fn set(
        &self,
        scope: &Scope,
        key: &str,
        bytes: Option<Bytes>,
        content_type: &str,
        ttl: Option<Duration>,
        when: Precondition,
    ) -> Result<Option<u64>> {
        self.inner.set(scope, key, bytes, content_type, ttl, when).await
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<bool> {
        self.inner.remove(scope, key).await
    }

    async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        self.inner.expire(scope, key, ttl).await
    }

    async fn increment(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented> {
        self.inner.increment(scope, key, by, ttl).await
    }

    async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>> {
        self.inner.keys(scope, prefix, after, limit).await
    }

    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.inner.watch(scope, prefix).await
    }
}

#[async_trait]
impl<F: Fn(Point<'_>) -> Result<()> + Send + Sync> MessageStore for Hooked<F> {
    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions> {
        self.inner.ensure_topic(topic, patch).await
    }

    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        self.inner.topic(topic).await
    }

    fn changes(&self, topic: &TopicName) -> u64 {
        self.inner.changes(topic)
    }

    async fn topics(&self, scope: &Scope) -> Result<Vec<String>> {
        self.inner.topics(scope).await
    }

    async fn delete_topic(&self, topic: &TopicName) -> Result<bool> {
        self.inner.delete_topic(topic).await
    }

    async fn ensure_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
    ) -> Result<SubscriptionOptions> {
        self.inner.ensure_subscription(subscription, patch).await
    }

    async fn subscription(&self, subscription: &SubscriptionName) -> Result<Option<SubscriptionOptions>> {
        self.inner.subscription(subscription).await
    }

    async fn subscriptions(&self, topic: &TopicName) -> Result<Vec<String>> {
        self.inner.subscriptions(topic).await
    }

    async fn delete_subscription(&self, subscription: &SubscriptionName) -> Result<bool> {
        self.inner.delete_subscription(subscription).await
    }

    async fn publish(&self, topic: &TopicName, messages: Vec<OutboundMessage>) -> Result<Vec<PublishAck>> {
        (self.hook)(Point::BeforePublish)?;
        let published = self.inner.publish(topic, messages).await?;
        (self.hook)(Point::AfterPublish)?;
        Ok(published)
    }

    async fn cancel(&self, topic: &TopicName, id: &str) -> Result<bool> {
        self.inner.cancel(topic, id).await
    }

    async fn pull(&self, subscription: &SubscriptionName, max: u32) -> Result<Pulled> {
        (self.hook)(Point::BeforePull)?;
        let pulled = self.inner.pull(subscription, max).await?;
        self.pulled(subscription, &pulled)?;
        Ok(pulled)
    }

    async fn pull_and_start(&self, subscription: &SubscriptionName, max: u32, start: u32) -> Result<Pulled> {
        (self.hook)(Point::BeforePull)?;
        let pulled = self.inner.pull_and_start(subscription, max, start).await?;
        self.pulled(subscription, &pulled)?;
        Ok(pulled)
    }

    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>> {
        self.inner.needed_by_others(subscription, ids).await
    }

    async fn settle_and_start(
        &self,
        subscription: &SubscriptionName,
        step: SettleAndStart,
    ) -> Result<SettleAndStartResult> {
        (self.hook)(Point::BeforeSettleAndStart)?;
        let settle = step.settle.clone();
        let outcome = self.inner.settle_and_start(subscription, step).await?;
        (self.hook)(Point::AfterSettleAndStart(subscription, &settle, &outcome.settled))?;
        Ok(outcome)
    }

    async fn renew(&self, subscription: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        (self.hook)(Point::BeforeRenew)?;
        let renewed = self.inner.renew(subscription, locks).await?;
        (self.hook)(Point::AfterRenew)?;
        Ok(renewed)
    }

    async fn fetch_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>> {
        self.inner.fetch_deferred(subscription, ids).await
    }

    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()> {
        self.inner.wait(subscription, timeout).await
    }

    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeadLetter>> {
        self.inner.dead_letters(subscription, after, limit).await
    }

    async fn redrive(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        self.inner.redrive(subscription, select).await
    }

    async fn dead_letter_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>> {
        self.inner.dead_letter_ids(subscription, from, after, limit).await
    }

    async fn dead_letters_by_id(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>> {
        self.inner.dead_letters_by_id(subscription, ids).await
    }

    async fn purge_dead_letters(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        self.inner.purge_dead_letters(subscription, select).await
    }

    async fn peek(&self, subscription: &SubscriptionName, limit: u32) -> Result<Vec<Peeked>> {
        self.inner.peek(subscription, limit).await
    }

    async fn purge(&self, topic: &TopicName) -> Result<u64> {
        self.inner.purge(topic).await
    }

    async fn stats(&self, topic: &TopicName) -> Result<TopicStats> {
        self.inner.stats(topic).await
    }

    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64> {
        self.inner.replay(subscription, messages).await
    }
}
