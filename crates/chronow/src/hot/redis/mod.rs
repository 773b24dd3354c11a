//! The hot tier on Redis 6.2 or later: single, Sentinel or Cluster.
//!
//! A topic's shard is a stream and everything beside it, all in one slot. A subscription is a position in it,
//! and records of the messages it has taken and not settled. Every change is one script, by the server's
//! time; waiting happens on a connection of its own.
//!
//! `connection.rs`, `connect.rs` and `exclusive.rs` reach the servers, `calls.rs` runs the scripts of a
//! topic's shards (`scripts/`) and says what their refusals mean; above them stands a file for each job:
//! `topics.rs`, `subscriptions.rs`, `publish.rs`, `pull.rs`, `settle.rs`, `dead_letters.rs`, `values.rs` and
//! so on. Only `keys.rs` makes keys. Nothing here knows what is above [`HotTier`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::{Random, SystemRandom};
use futures::FutureExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use redis::cmd;

use super::{
    Change, DeadLetter, DeadLetterId, Delivery, HotTier, Incremented, KeyValueStore, Lock, MessageStore,
    OutboundMessage, Peeked, Precondition, PublishAck, Pulled, Select, SettleAndStart, SettleAndStartResult,
    StoredMessage, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch, TopicStats, Value,
};
use crate::{Page, Result, Scope, SubscriptionName, Timestamp, TopicName};

/// Runs something on a topic, given which one it is, and says what went wrong in a caller's words.
macro_rules! on {
    ($self:ident, topic $topic:expr, |$known:ident| $work:expr) => {
        $self
            .on_topic($topic, |known| {
                async move {
                    let $known = &known;
                    $work.await
                }
                .boxed()
            })
            .await
            .map_err(RedisHot::explain)
    };
    ($self:ident, subscription $sub:expr, |$known:ident| $work:expr) => {
        $self
            .on_topic($sub.topic(), |known| {
                async move {
                    let $known = &known;
                    $work.await
                }
                .boxed()
            })
            .await
            .map_err(|error| {
                if matches!(error, ScriptError::NoSubscription) {
                    $self.forget_subscription($sub);
                }
                RedisHot::explain(error)
            })
    };
}

mod batches;
mod calls;
mod config;
mod connect;
mod connection;
mod dead_letters;
mod errors;
mod exclusive;
mod filters;
mod keys;
mod lending;
mod listen;
mod memory;
mod peek;
mod publish;
mod pull;
mod removal;
mod replicated;
mod reply;
mod script;
mod script_result;
mod server;
mod settle;
mod state;
mod stats;
mod subscriptions;
#[cfg(test)]
mod tests;
mod topics;
mod values;
mod waiting;
mod watching;

pub use config::{RedisConfig, RedisServers};

use connection::{Connection, SharedConnection};
use filters::Compiled;
use keys::Keys;
use listen::Listener;
use script_result::{Known, ScriptError};
use state::{Confirm, Left, Revisions};

/// A hot tier on Redis.
pub struct RedisHot {
    connection: SharedConnection,
    keys: Keys,
    listener: Listener,
    random: Arc<dyn Random>,
    turns: AtomicU64,
    /// What this process is called where it waits.
    process: String,
    topics: Mutex<HashMap<TopicName, Known>>,
    filters: Mutex<HashMap<SubscriptionName, Arc<Compiled>>>,
    revisions: Mutex<HashMap<TopicName, Revisions>>,
    left: Left,
}

impl RedisHot {
    /// Connects, and warns in the log of what endangers messages on this server.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong configuration, `HOT_TIER_ERROR` if the server cannot be reached or is
    /// older than 6.2.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        let keys = Keys::new(&config.key_prefix);
        // The futures of the driver are deep, and would count against the compiler's limit of the callers of
        // this.
        let connection: SharedConnection =
            Arc::new(Box::pin(Connection::connect(config)).await.map_err(|error| error.during("connect"))?);
        let process = format!("{:016x}", SystemRandom.next_u64());
        let listener = Listener::start(Arc::clone(&connection), keys.wake(&process, connection.is_cluster()));
        let hot = Self {
            connection,
            keys,
            listener,
            random: Arc::new(SystemRandom),
            turns: AtomicU64::new(0),
            process,
            topics: Mutex::default(),
            filters: Mutex::default(),
            revisions: Mutex::default(),
            left: Left::default(),
        };
        Box::pin(hot.server()).await.map_err(|error| error.during("connect"))?.check()?;
        Ok(hot)
    }

    /// Uses another source of lock tokens and jitter.
    #[must_use]
    pub fn with_random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    fn token(&self) -> String {
        format!("{:016x}", self.random.next_u64())
    }

    /// From 0 up to 1.
    fn chance(&self) -> f64 {
        // 53 bits are what a float holds exactly.
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for RedisHot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisHot").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[async_trait]
impl HotTier for RedisHot {
    async fn ping(&self) -> Result<String> {
        Ok(self.server().await?.to_string())
    }

    async fn now(&self) -> Result<Timestamp> {
        let mut parts = reply::Parts::of(self.connection.run(&cmd("TIME")).await?)?;
        Ok(Timestamp::from_millis(parts.number()? * 1_000 + parts.number()? / 1_000))
    }

    async fn close(&self) -> Result<()> {
        self.connection.close().await;
        self.listener.stop();
        Ok(())
    }
}

#[async_trait]
impl KeyValueStore for RedisHot {
    async fn get(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>> {
        self.reader().read_values(scope, keys).await
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
        self.write_value(scope, key, bytes, content_type, ttl, when).await
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<bool> {
        self.remove_value(scope, key).await
    }

    async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        self.expire_value(scope, key, ttl).await
    }

    async fn increment(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented> {
        self.add_to_value(scope, key, by, ttl).await
    }

    async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>> {
        self.reader().list_keys(scope, prefix, after, limit).await
    }

    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.follow(scope, prefix).await
    }
}

#[async_trait]
impl MessageStore for RedisHot {
    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions> {
        self.put_topic(topic, patch).await.map_err(Self::explain)
    }

    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        self.read_topic(topic).await
    }

    fn changes(&self, topic: &TopicName) -> u64 {
        self.revisions.lock().get(topic).map_or(0, |revisions| revisions.changes)
    }

    async fn topics(&self, scope: &Scope) -> Result<Vec<String>> {
        self.list_topics(scope).await
    }

    async fn delete_topic(&self, topic: &TopicName) -> Result<bool> {
        self.remove_topic(topic).await.map_err(Self::explain)
    }

    async fn ensure_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
    ) -> Result<SubscriptionOptions> {
        on!(self, subscription subscription, |known| self.put_subscription(subscription, patch, known))
    }

    async fn subscription(&self, subscription: &SubscriptionName) -> Result<Option<SubscriptionOptions>> {
        match self
            .on_topic(subscription.topic(), |known| {
                async move { self.read_subscription(subscription, &known).await }.boxed()
            })
            .await
        {
            Err(ScriptError::NoTopic) => Ok(None),
            other => other.map_err(Self::explain),
        }
    }

    async fn subscriptions(&self, topic: &TopicName) -> Result<Vec<String>> {
        match self.on_topic(topic, |_| self.list_subscriptions(topic).boxed()).await {
            Err(ScriptError::NoTopic) => Ok(Vec::new()),
            other => other.map_err(Self::explain),
        }
    }

    async fn delete_subscription(&self, subscription: &SubscriptionName) -> Result<bool> {
        self.forget_subscription(subscription);
        match self
            .on_topic(subscription.topic(), |known| {
                async move { self.remove_subscription(subscription, &known).await }.boxed()
            })
            .await
        {
            Err(ScriptError::NoTopic) => Ok(false),
            other => other.map_err(Self::explain),
        }
    }

    async fn publish(&self, topic: &TopicName, messages: Vec<OutboundMessage>) -> Result<Vec<PublishAck>> {
        let messages = &messages;
        messages.iter().try_for_each(OutboundMessage::check)?;
        on!(self, topic topic, |known| self.accept(topic, messages, known, None))
    }

    async fn publish_replicated(
        &self,
        topic: &TopicName,
        messages: Vec<OutboundMessage>,
        replicas: u32,
        within: Duration,
    ) -> Result<Vec<PublishAck>> {
        let (messages, confirm) = (&messages, Some(Confirm { replicas, within }));
        messages.iter().try_for_each(OutboundMessage::check)?;
        on!(self, topic topic, |known| self.accept(topic, messages, known, confirm))
    }

    async fn cancel(&self, topic: &TopicName, id: &str) -> Result<bool> {
        match self.take_back(topic, id).await {
            Err(ScriptError::NoTopic | ScriptError::Stale) => Ok(false),
            other => other.map_err(Self::explain),
        }
    }

    async fn pull(&self, subscription: &SubscriptionName, max: u32) -> Result<Pulled> {
        on!(self, subscription subscription, |known| self.deliver(subscription, max, 0, known))
    }

    async fn pull_and_start(&self, subscription: &SubscriptionName, max: u32, start: u32) -> Result<Pulled> {
        on!(self, subscription subscription, |known| self.deliver(subscription, max, start, known))
    }

    async fn settle_and_start(
        &self,
        subscription: &SubscriptionName,
        step: SettleAndStart,
    ) -> Result<SettleAndStartResult> {
        let step = &step;
        on!(self, subscription subscription, |known| self.settle(subscription, step, known))
    }

    async fn renew(&self, subscription: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        let locks = &locks;
        on!(self, subscription subscription, |known| self.hold_on(subscription, locks, known))
    }

    async fn fetch_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>> {
        let ids = &ids;
        on!(self, subscription subscription, |known| self.deliver_deferred(subscription, ids, known))
    }

    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>> {
        on!(self, subscription subscription, |known| self.ask_others(subscription, ids, known))
    }

    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()> {
        self.wait_for(subscription, timeout).await
    }

    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeadLetter>> {
        on!(self, subscription subscription, |known| self.list_dead(subscription, after, limit, known))
    }

    async fn dead_letter_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>> {
        on!(self, subscription subscription, |known| self.list_dead_ids(subscription, from, after, limit, known))
    }

    async fn dead_letters_by_id(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>> {
        on!(self, subscription subscription, |known| self.get_dead(subscription, ids, known))
    }

    async fn redrive(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        on!(self, subscription subscription, |known| self.take_dead(subscription, "redrive", select, known))
    }

    async fn purge_dead_letters(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        on!(self, subscription subscription, |known| self.take_dead(subscription, "purge", select, known))
    }

    async fn peek(&self, subscription: &SubscriptionName, limit: u32) -> Result<Vec<Peeked>> {
        on!(self, subscription subscription, |known| self.look(subscription, limit, known))
    }

    async fn purge(&self, topic: &TopicName) -> Result<u64> {
        on!(self, topic topic, |known| self.clear(topic, known))
    }

    async fn stats(&self, topic: &TopicName) -> Result<TopicStats> {
        on!(self, topic topic, |known| self.count(topic, known))
    }

    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64> {
        let messages = &messages;
        on!(self, subscription subscription, |known| self.put_back(subscription, messages, known))
    }
}
