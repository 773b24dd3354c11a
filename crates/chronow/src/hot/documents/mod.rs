//! The hot tier in documents: over a [`DocumentStore`] of chronos-db, so on embedded SQLite (several
//! processes on one file) and on MongoDB alike.
//!
//! # Messages and delivery records
//!
//! A publish is accepted by **one insert**: its messages travel in immutable *chunks* (up to some hundreds of
//! messages a document) under a sequence number each. What one subscription has to do with one message is a
//! small document of its own, the *delivery record*, made lazily: the subscription's *cursor* walks the
//! chunks, and a consumer that pulls inserts a delivery record, already locked for itself, under an `_id`
//! made of subscription and message. That insert is the claim: two consumers cannot both win it. Everything
//! that happens later (start, renewal, retry, deferral, dead letter, end) is one put of that delivery record,
//! guarded by a revision that is fresh with every put.
//!
//! Why not one document per message with an entry per subscription: every settlement would rewrite the
//! payload, subscriptions would contend for the document, and "what is due for this subscription" could not
//! be an index. This way a publish of some hundred messages is one document, a pull of a hundred messages one
//! batch, and settling one message and starting the next one batch of two small puts, on every store.
//!
//! # Why nothing is lost, doubled or brought back
//!
//! * **Sequence gaps.** Where taking numbers and inserting are two steps (MongoDB), a reader may meet numbers
//!   that are still being written. It waits a short grace by the age of what lies behind the gap, then
//!   inserts VOID chunks there; a late publisher then conflicts and takes new numbers. VOIDs stay for an
//!   hour, and a publisher that was interrupted for half of it answers that it does not know. A batch of
//!   several chunks counts by its *head*, the first chunk, which is inserted last; scheduled messages and
//!   dedup ids hang on the head the same way. So a batch is accepted as a whole or not at all without any
//!   transaction.
//! * **The cursor moves after the delivery records.** A crash in between makes the next puller meet existing
//!   delivery records, and go on.
//! * **No delivery record comes back.** A settled delivery record stays as a tombstone until the
//!   subscription's *ack floor* (all below is settled) has passed it, and a delivery record at or below the
//!   ack floor that still needs its chunk is void. A puller that stalled for however long therefore cannot
//!   deliver anything again: it learns of the ack floor when it moves the cursor, which it does before it
//!   hands out anything.
//! * **Stragglers hold nothing back.** A delivery record that is retried, deferred or dead carries its own
//!   copy of the message (it is *detached*), and so does one that stays open for long while others are
//!   settled behind it; so chunks go as soon as every ack floor has passed them.
//! * **Ordering keys.** At most one delivery record per subscription and key can be locked: a unique index
//!   sees to it. Later messages of the key queue behind the oldest open delivery record of the key; the
//!   consumer that settles it wakes the next one, and a recheck does if that process died.
//!
//! # Where what is
//!
//! `entities.rs`, `delivery_record.rs` and `chunk.rs` are the stored shapes, `fields.rs` and `keys.rs` what
//! they are read and named with; `store.rs` and `chunk_cache.rs` are the engine and what it remembers,
//! `chunk_reads.rs` reads through that; above them stands a file for each job: `publish.rs`, `pull.rs` (`pull_new.rs`, `pull_due.rs`), `settle.rs`,
//! `gc.rs` and so on. Nothing here knows what is above [`HotTier`].
//!
//! Shards are an option that is kept but not acted upon: a document store gains nothing from them, so a topic
//! is one sequence.

mod cache;
mod chunk;
mod chunk_cache;
mod chunk_reads;
mod dead;
mod delivery_record;
mod entities;
mod fields;
mod gc;
mod idle;
mod inspect;
mod keys;
mod known;
mod limits;
mod open;
mod others;
mod publish;
mod pull;
mod pull_due;
mod pull_new;
mod schedule;
mod settle;
mod store;
mod subscriptions;
mod topics;
mod values;
mod wait;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::Env;
use chronos_db::documents::DocumentStore;
use futures::stream::BoxStream;

use self::store::Engine;
use super::{
    Change, DeadLetter, DeadLetterId, Delivery, HotTier, Incremented, KeyValueStore, Lock, MessageStore,
    OutboundMessage, Peeked, Precondition, PublishAck, Pulled, Select, SettleAndStart, SettleAndStartResult,
    StoredMessage, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch, TopicStats, Value,
};
use crate::{Page, Result, Scope, SubscriptionName, Timestamp, TopicName};

/// A hot tier in the collections `cw_…` of one database of a document store.
pub struct DocumentsHot {
    engine: Arc<Engine>,
}

impl DocumentsHot {
    /// Makes a hot tier in `database`. Nothing is touched before the first call, and closing it leaves the
    /// store open: others may use it, too.
    #[must_use]
    pub fn new(documents: Arc<dyn DocumentStore>, database: &str, env: Env) -> Self {
        Self { engine: Arc::new(Engine::new(documents, database, env)) }
    }
}

impl fmt::Debug for DocumentsHot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentsHot").field("engine", &self.engine).finish()
    }
}

#[async_trait]
impl HotTier for DocumentsHot {
    async fn ping(&self) -> Result<String> {
        self.engine.looking().await?;
        let can = self.engine.documents.capabilities().await?;
        let transactions = if can.transactions { "with transactions" } else { "without transactions" };
        Ok(format!("documents {transactions}; changes are seen by polling"))
    }

    async fn now(&self) -> Result<Timestamp> {
        self.engine.looking().await?;
        Ok(self.engine.documents.now().await?)
    }

    async fn close(&self) -> Result<()> {
        // The store is closed by its owner: others may use it, too.
        self.engine.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[async_trait]
impl KeyValueStore for DocumentsHot {
    async fn get(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>> {
        self.engine.in_time(self.engine.values(scope, keys)).await
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
        self.engine.in_time(self.engine.set(scope, key, bytes, content_type, ttl, when)).await
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<bool> {
        self.engine.in_time(self.engine.remove(scope, key)).await
    }

    async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        self.engine.in_time(self.engine.expire(scope, key, ttl)).await
    }

    async fn increment(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented> {
        self.engine.in_time(self.engine.increment(scope, key, by, ttl)).await
    }

    async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>> {
        self.engine.in_time(self.engine.keys(scope, prefix, after, limit)).await
    }

    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.engine.clone().watch(scope, prefix).await
    }
}

#[async_trait]
impl MessageStore for DocumentsHot {
    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions> {
        self.engine.in_time(self.engine.ensure_topic(topic, patch)).await
    }

    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        let found = async {
            self.engine.looking().await?;
            self.engine.find_topic(topic).await
        };
        Ok(self.engine.in_time(found).await?.map(|found| found.options))
    }

    fn changes(&self, topic: &TopicName) -> u64 {
        self.engine.changes(topic)
    }

    async fn topics(&self, scope: &Scope) -> Result<Vec<String>> {
        self.engine.in_time(self.engine.topics(scope)).await
    }

    async fn delete_topic(&self, topic: &TopicName) -> Result<bool> {
        self.engine.delete_topic(topic).await
    }

    async fn ensure_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
    ) -> Result<SubscriptionOptions> {
        self.engine.in_time(self.engine.ensure_subscription(subscription, patch)).await
    }

    async fn subscription(&self, subscription: &SubscriptionName) -> Result<Option<SubscriptionOptions>> {
        self.engine.in_time(self.engine.subscription(subscription)).await
    }

    async fn subscriptions(&self, topic: &TopicName) -> Result<Vec<String>> {
        self.engine.in_time(self.engine.subscriptions(topic)).await
    }

    async fn delete_subscription(&self, subscription: &SubscriptionName) -> Result<bool> {
        self.engine.delete_subscription(subscription).await
    }

    async fn publish(&self, topic: &TopicName, messages: Vec<OutboundMessage>) -> Result<Vec<PublishAck>> {
        self.engine.in_time(self.engine.publish(topic, messages)).await
    }

    async fn cancel(&self, topic: &TopicName, id: &str) -> Result<bool> {
        self.engine.in_time(self.engine.cancel(topic, id)).await
    }

    async fn pull(&self, subscription: &SubscriptionName, max: u32) -> Result<Pulled> {
        self.engine.in_time(self.engine.pull(subscription, max)).await
    }

    async fn settle_and_start(
        &self,
        subscription: &SubscriptionName,
        step: SettleAndStart,
    ) -> Result<SettleAndStartResult> {
        self.engine.in_time(self.engine.settle_and_start(subscription, step)).await
    }

    async fn renew(&self, subscription: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        self.engine.in_time(self.engine.renew(subscription, locks)).await
    }

    async fn fetch_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>> {
        self.engine.in_time(self.engine.fetch_deferred(subscription, ids)).await
    }

    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>> {
        self.engine.in_time(self.engine.needed_by_others(subscription, ids)).await
    }

    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()> {
        self.engine.wait(subscription, timeout).await
    }

    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeadLetter>> {
        self.engine.in_time(self.engine.dead_letters(subscription, after, limit)).await
    }

    async fn dead_letter_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>> {
        self.engine.in_time(self.engine.dead_letter_ids(subscription, from, after, limit)).await
    }

    async fn dead_letters_by_id(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>> {
        self.engine.in_time(self.engine.dead_letters_by_id(subscription, ids)).await
    }

    async fn redrive(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        self.engine.redrive(subscription, select).await
    }

    async fn purge_dead_letters(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64> {
        self.engine.purge_dead_letters(subscription, select).await
    }

    async fn peek(&self, subscription: &SubscriptionName, limit: u32) -> Result<Vec<Peeked>> {
        self.engine.in_time(self.engine.peek(subscription, limit)).await
    }

    async fn purge(&self, topic: &TopicName) -> Result<u64> {
        self.engine.purge(topic).await
    }

    async fn stats(&self, topic: &TopicName) -> Result<TopicStats> {
        self.engine.in_time(self.engine.stats(topic)).await
    }

    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64> {
        self.engine.replay(subscription, messages).await
    }
}
