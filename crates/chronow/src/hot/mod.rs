//! What a hot tier must do, in messaging words: [`HotTier`].
//!
//! A message that [`MessageStore::publish`] accepted reaches every subscription of its topic until that
//! subscription has settled it, it expires, or its deliveries are used up; then it is in that subscription's
//! dead letters. What happens to it in one subscription is never seen in another. All time is the store's.
//! Every state change is atomic and checks the lock it is made under.
//!
//! `message.rs`, `delivery.rs`, `options.rs`, `patch.rs`, `stats.rs` and `value.rs` are the words; `documents/` and
//! `redis/` are two stores that speak them. Nothing here knows the bus, the warm tier or object storage.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Page, Result, Scope, SubscriptionName, Timestamp, TopicName};

mod delivery;
pub mod documents;
mod message;
pub(crate) mod millis;
mod options;
mod patch;
#[cfg(feature = "redis")]
pub mod redis;
mod stats;
mod value;

pub use delivery::{
    DeadLetter, DeadLetterId, Delivery, Lock, MAX_LETTERS, MessageState, Peeked, Pulled, Select, Settle,
    SettleAndStart, SettleAndStartResult, Settled,
};
pub use message::{
    MAX_DELAY, MAX_HEADER_BYTES, MAX_KEY_BYTES, OutboundMessage, PublishAck, StoredMessage, filter_view,
};
pub use options::{DeliverPolicy, DiscardPolicy, SubscriptionOptions, TopicOptions};
pub use patch::{SubscriptionPatch, TopicPatch};
pub use stats::{SubscriptionStats, TopicStats};
pub use value::{Change, Incremented, Precondition, Value};

/// A hot tier: one connection's worth of topics ([`MessageStore`]) and shared memory ([`KeyValueStore`]).
/// A store says what went wrong; the caller adds to the error what was tried, and on what.
#[async_trait]
pub trait HotTier: MessageStore + KeyValueStore {
    /// Makes a round trip, and returns what the server can do that matters here, as words for people.
    async fn ping(&self) -> Result<String>;

    /// Returns the store's time.
    async fn now(&self) -> Result<Timestamp>;

    /// Ends the connection after what is in flight.
    async fn close(&self) -> Result<()>;
}

/// Shared memory: values under keys, with conditions, times to live, and changes as they happen.
#[async_trait]
pub trait KeyValueStore: Send + Sync + std::fmt::Debug {
    /// Returns the values of keys, in their order; none for expired ones.
    async fn get(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>>;

    /// Puts a value (`bytes: None` puts a tombstone), for `ttl` if given, and returns its version; nothing if
    /// the condition did not hold.
    async fn set(
        &self,
        scope: &Scope,
        key: &str,
        bytes: Option<Bytes>,
        content_type: &str,
        ttl: Option<Duration>,
        when: Precondition,
    ) -> Result<Option<u64>>;

    /// Removes what is known of a key, tombstones too. False if there was no value.
    async fn remove(&self, scope: &Scope, key: &str) -> Result<bool>;

    /// Changes what is left of a value's time; false if there is no value.
    async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool>;

    /// Adds to a whole number (absent is 0) and returns it with its version. The value's time stays unless
    /// `ttl` is given.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the value is not a 64-bit whole number, or would overflow.
    async fn increment(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented>;

    /// Returns keys with a prefix, without tombstones, in pages of about `limit`. A key that is there all the
    /// time is returned at least once.
    async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>>;

    /// Streams changes of keys with a prefix, from now on, as they happen; that the time of a value is over
    /// is one.
    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>>;
}

/// Topics, their subscriptions, and the messages in them.
#[async_trait]
pub trait MessageStore: Send + Sync + std::fmt::Debug {
    /// Makes sure that a topic exists, and changes the options the patch gives; all others stay.
    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions>;

    /// Returns the topic's options, or nothing if there is no such topic.
    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>>;

    /// Returns how often this connection has noticed that a topic's options, or the library's own
    /// subscriptions of it, had changed, or that it was deleted or made anew: publishes and pulls notice it
    /// on their way. Does no I/O.
    fn changes(&self, topic: &TopicName) -> u64;

    /// Returns the names of a scope's topics, in their order.
    async fn topics(&self, scope: &Scope) -> Result<Vec<String>>;

    /// Removes a topic with its subscriptions, messages and dead letters, leaving nothing behind. False if
    /// there was none.
    async fn delete_topic(&self, topic: &TopicName) -> Result<bool>;

    /// Makes sure that a subscription exists, and changes the options the patch gives; all others stay.
    /// [`DeliverPolicy`] matters at its creation alone.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    async fn ensure_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
    ) -> Result<SubscriptionOptions>;

    /// Returns the subscription's options, or nothing if there is no such subscription.
    async fn subscription(&self, subscription: &SubscriptionName) -> Result<Option<SubscriptionOptions>>;

    /// Returns the names of a topic's subscriptions, in their order, without the library's own.
    async fn subscriptions(&self, topic: &TopicName) -> Result<Vec<String>>;

    /// Removes a subscription with everything of it. False if there was none.
    async fn delete_subscription(&self, subscription: &SubscriptionName) -> Result<bool>;

    /// Accepts messages: all or none of those that go to one shard, with ids in order. The shard is that of
    /// the key, else spread.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic, `TOPIC_FULL` if it is full and its policy is to reject,
    /// `VALIDATION_ERROR` if a message is beyond the limits of [`OutboundMessage::check`]: then none is
    /// accepted.
    async fn publish(&self, topic: &TopicName, messages: Vec<OutboundMessage>) -> Result<Vec<PublishAck>>;

    /// Publishes as [`publish`](Self::publish) does, but returns only when this many replicas of the server
    /// have confirmed the messages. Stores that acknowledge by majority or on disk have nothing to add, and
    /// do the same as `publish`.
    ///
    /// # Errors
    /// As `publish`; `NOT_REPLICATED` if fewer replicas have confirmed within the time: the messages are
    /// accepted all the same.
    async fn publish_replicated(
        &self,
        topic: &TopicName,
        messages: Vec<OutboundMessage>,
        replicas: u32,
        within: Duration,
    ) -> Result<Vec<PublishAck>> {
        // What is acknowledged is replicated already.
        let (_, _) = (replicas, within);
        self.publish(topic, messages).await
    }

    /// Takes back a message whose time has not come; its dedup id is free again. False if it is not scheduled
    /// (any more).
    async fn cancel(&self, topic: &TopicName, id: &str) -> Result<bool>;

    /// Hands out at most `max` messages that are due: retries, those whose lock expired, and new ones, at
    /// most one in flight per ordering key, each locked with a fresh token for the visibility timeout.
    /// Expired messages and those with used-up deliveries go to the dead letters on the way; those the filter
    /// leaves out are settled on the way. A paused subscription hands out nothing. A handed-out message is
    /// not counted as delivered until it is started.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    async fn pull(&self, subscription: &SubscriptionName, max: u32) -> Result<Pulled>;

    /// Pulls as [`pull`](Self::pull) does, and starts the first `start` messages of what it hands out as
    /// [`settle_and_start`](Self::settle_and_start) would, which saves that step. [`Pulled::started`] says
    /// how many of the first it started: fewer if there are fewer, and none where the store cannot do both at
    /// once, or a filter has yet to say which messages they are.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    async fn pull_and_start(&self, subscription: &SubscriptionName, max: u32, start: u32) -> Result<Pulled> {
        let _ = start;
        self.pull(subscription, max).await
    }

    /// Settles and starts, in one step. Never fails because of a lost lock; the answer says so.
    async fn settle_and_start(
        &self,
        subscription: &SubscriptionName,
        step: SettleAndStart,
    ) -> Result<SettleAndStartResult>;

    /// Holds on for another visibility timeout from now; false where the lock is lost. As pulls and
    /// settlements do, it counts as use of the subscription, which does not delete itself as long as a lock
    /// holds.
    async fn renew(&self, subscription: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>>;

    /// Hands out deferred messages by id; those that are not deferred are left out.
    async fn fetch_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>>;

    /// Returns whether messages that this subscription has are needed by another one: one that has not
    /// settled them, has them as dead letters, or may still get them. True also for what this subscription
    /// does not have. Once false for a message, it stays false, unless it is replayed.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>>;

    /// Returns when a pull may bring something that was published by any process since the call began, or
    /// after `timeout`. Of several that wait for one subscription, one may return at once and the others a
    /// second later: so a message wakes one consumer.
    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()>;

    /// Returns dead letters, oldest first, after a cursor, at most [`MAX_LETTERS`].
    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeadLetter>>;

    /// Returns where the dead letters lie that failed then or later, oldest first, after a cursor. Costs
    /// nothing for the letters themselves, however large.
    async fn dead_letter_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>>;

    /// Returns dead letters by the ids of their messages, in any order; those that are none (any more) are
    /// left out.
    async fn dead_letters_by_id(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>>;

    /// Gives dead letters back to this subscription alone, with a new delivery count. Returns how many.
    async fn redrive(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64>;

    /// Removes dead letters. Returns how many.
    async fn purge_dead_letters(&self, subscription: &SubscriptionName, select: &Select) -> Result<u64>;

    /// Looks at messages without taking them, in order, at most `limit`; fewer where a filter leaves out
    /// thousands of those that come first.
    async fn peek(&self, subscription: &SubscriptionName, limit: u32) -> Result<Vec<Peeked>>;

    /// Removes all messages of a topic, for all subscriptions; dead letters and subscriptions stay, and dedup
    /// ids are remembered: what was purged is not accepted again. Returns how many.
    async fn purge(&self, topic: &TopicName) -> Result<u64>;

    /// Counts the messages of the topic and of its subscriptions.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    async fn stats(&self, topic: &TopicName) -> Result<TopicStats>;

    /// Puts messages back into one subscription (replay from the warm tier), under their own ids where the
    /// store allows it. Returns how many.
    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64>;
}
