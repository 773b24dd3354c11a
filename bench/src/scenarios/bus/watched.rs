//! A layer around a hot tier that notes when messages of a subscription are acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronow::hot::{
    Advance, Advanced, Change, DeadLetter, Delivery, Hot, Lock, Outgoing, Peeked, Published, Pulled, Select, Settle, Settled,
    SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch, TopicStats, Value, When,
};
use chronow::{Result, Scope, SubscriptionName, Timestamp, TopicName};
use futures::stream::BoxStream;

use super::end_to_end::Latencies;

#[derive(Debug)]
pub(super) struct Watched<H> {
    inner: Arc<H>,
    subscription: &'static str,
    latencies: Arc<Latencies>,
    /// When the messages that were handed out had been sent, by their ids.
    sent: Mutex<HashMap<String, Duration>>,
}

impl<H> Watched<H> {
    pub(super) fn new(inner: Arc<H>, subscription: &'static str, latencies: Arc<Latencies>) -> Self {
        Self { inner, subscription, latencies, sent: Mutex::default() }
    }

    fn handed_out(&self, subscription: &SubscriptionName, deliveries: &[Delivery]) {
        if subscription.name() == self.subscription {
            let sent = deliveries.iter().filter_map(|delivery| Some((delivery.lock.id.clone(), Latencies::sent(&delivery.payload)?)));
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
        }
    }

    fn settled(&self, subscription: &SubscriptionName, acked: &[String], settled: &[Settled]) {
        if subscription.name() == self.subscription {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let done = acked.iter().zip(settled).filter(|(id, settled)| **settled == Settled::Done && !id.is_empty());
            self.latencies.acknowledged(done.filter_map(|(id, _)| sent.remove(id)).collect::<Vec<_>>());
        }
    }
}

#[async_trait]
impl<H: Hot> Hot for Watched<H> {
    async fn pull(&self, subscription: &SubscriptionName, max: u32) -> Result<Pulled> {
        let pulled = self.inner.pull(subscription, max).await?;
        self.handed_out(subscription, &pulled.deliveries);
        Ok(pulled)
    }

    async fn pull_and_start(&self, subscription: &SubscriptionName, max: u32, start: u32) -> Result<(Pulled, usize)> {
        let (pulled, started) = self.inner.pull_and_start(subscription, max, start).await?;
        self.handed_out(subscription, &pulled.deliveries);
        Ok((pulled, started))
    }

    async fn advance(&self, subscription: &SubscriptionName, advance: Advance) -> Result<Advanced> {
        let id = |(lock, settle): &(Lock, Settle)| if *settle == Settle::Ack { lock.id.clone() } else { String::new() };
        let acked: Vec<String> = advance.settle.iter().map(id).collect();
        let advanced = self.inner.advance(subscription, advance).await?;
        self.settled(subscription, &acked, &advanced.settled);
        Ok(advanced)
    }

    async fn ping(&self) -> Result<String> {
        self.inner.ping().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions> {
        self.inner.ensure_topic(topic, patch).await
    }

    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        self.inner.topic(topic).await
    }

    async fn topics(&self, scope: &Scope) -> Result<Vec<String>> {
        self.inner.topics(scope).await
    }

    async fn delete_topic(&self, topic: &TopicName) -> Result<bool> {
        self.inner.delete_topic(topic).await
    }

    async fn ensure_subscription(&self, subscription: &SubscriptionName, patch: &SubscriptionPatch) -> Result<SubscriptionOptions> {
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

    async fn publish(&self, topic: &TopicName, messages: Vec<Outgoing>) -> Result<Vec<Published>> {
        self.inner.publish(topic, messages).await
    }

    async fn cancel(&self, topic: &TopicName, id: &str) -> Result<bool> {
        self.inner.cancel(topic, id).await
    }

    async fn renew(&self, subscription: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        self.inner.renew(subscription, locks).await
    }

    async fn fetch_deferred(&self, subscription: &SubscriptionName, ids: Vec<String>) -> Result<Vec<Delivery>> {
        self.inner.fetch_deferred(subscription, ids).await
    }

    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>> {
        self.inner.needed_by_others(subscription, ids).await
    }

    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()> {
        self.inner.wait(subscription, timeout).await
    }

    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, Option<String>)> {
        self.inner.dead_letters(subscription, after, limit).await
    }

    async fn redrive(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        self.inner.redrive(subscription, select).await
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

    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<(String, Timestamp, Outgoing)>) -> Result<u64> {
        self.inner.replay(subscription, messages).await
    }

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
        when: When,
    ) -> Result<Option<u64>> {
        self.inner.set(scope, key, bytes, content_type, ttl, when).await
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<bool> {
        self.inner.remove(scope, key).await
    }

    async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        self.inner.expire(scope, key, ttl).await
    }

    async fn increment(&self, scope: &Scope, key: &str, by: i64, ttl: Option<Duration>) -> Result<(i64, u64)> {
        self.inner.increment(scope, key, by, ttl).await
    }

    async fn keys(&self, scope: &Scope, prefix: &str, after: Option<&str>, limit: u32) -> Result<(Vec<String>, Option<String>)> {
        self.inner.keys(scope, prefix, after, limit).await
    }

    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.inner.watch(scope, prefix).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
