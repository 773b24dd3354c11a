//! What a hot tier must do, in messaging words: [`HotTier`].
//!
//! A message that [`HotTier::publish`] accepted reaches every subscription of its topic until that
//! subscription has settled it, it expires, or its deliveries are used up; then it is in that subscription's
//! dead letters. What happens to it in one subscription is never seen in another. All time is the store's.
//! Every state change is atomic and checks the lock it is made under.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::json_to_nearest_bson;
use futures::stream::BoxStream;

use crate::{Error, Json, Result, Scope, SubscriptionName, Timestamp, TopicName};

pub mod documents;
mod options;
#[cfg(feature = "redis")]
pub mod redis;

pub use options::{
    DeliverPolicy, DiscardPolicy, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch,
};

/// The largest headers of a message: the bytes of their names and values together, and of the media type.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The longest ordering key, and the longest dedup id, in bytes.
pub const MAX_KEY_BYTES: usize = 1_024;
/// The longest delay: what is meant to be later is a mistake of units.
pub const MAX_DELAY: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Most dead letters of one page, whatever is asked for.
pub const MAX_LETTERS: u32 = 1_000;

/// A message to publish.
#[derive(Clone, Default, PartialEq)]
pub struct OutboundMessage {
    /// The bytes, kept as they are.
    pub payload: Bytes,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// Text headers, for handlers, filters and trace context.
    pub headers: BTreeMap<String, String>,
    /// Messages of one ordering key are delivered to a subscription in order, one at a time.
    pub key: Option<String>,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// To the dead letters (reason `expired`) of every subscription that has not started it after so long.
    pub ttl: Option<Duration>,
    /// Messages with the same id within the topic's dedup window are accepted once.
    pub dedup_id: Option<String>,
}

chronos_db::debug_some!(OutboundMessage { content_type, not_before, ttl });

impl OutboundMessage {
    /// What is kept of it once a topic has accepted it under an id.
    #[must_use]
    pub fn stored(self, id: String, published_at: Timestamp) -> StoredMessage {
        let Self { payload, content_type, headers, key, .. } = self;
        StoredMessage { id, published_at, payload, content_type, headers, key }
    }

    /// Checks the limits that hold on every hot tier: [`MAX_HEADER_BYTES`] and [`MAX_KEY_BYTES`].
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming what is too large, and the limit.
    pub fn check(&self) -> Result<()> {
        let headers = self.content_type.len()
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let lengths = [
            ("headers", headers, MAX_HEADER_BYTES),
            ("ordering key", self.key.as_ref().map_or(0, String::len), MAX_KEY_BYTES),
            ("dedup id", self.dedup_id.as_ref().map_or(0, String::len), MAX_KEY_BYTES),
        ];
        match lengths.into_iter().find(|(_, bytes, most)| bytes > most) {
            None => Ok(()),
            Some((what, bytes, most)) => Err(Error::validation(format!(
                "the {what} of a message may have {most} bytes; this one has {bytes}"
            ))),
        }
    }
}

/// A message that a topic has accepted, as it was published.
#[derive(Clone, Default, PartialEq)]
pub struct StoredMessage {
    /// The id it was given.
    pub id: String,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// The bytes as they were published.
    pub payload: Bytes,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// The headers as they were published.
    pub headers: BTreeMap<String, String>,
    /// The ordering key.
    pub key: Option<String>,
}

chronos_db::debug_some!(StoredMessage { id, published_at, content_type });

/// What became of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// Its id: ids of one shard grow in the order of acceptance.
    pub id: String,
    /// It had been accepted before under the same dedup id; the id is that of the first.
    pub duplicate: bool,
}

/// A delivery's hold on its message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The message.
    pub id: String,
    /// Fresh for every delivery; whoever has another one no longer holds the message.
    pub token: String,
}

/// A message handed out to one subscription.
#[derive(Clone, PartialEq)]
pub struct Delivery {
    /// The hold on it.
    pub lock: Lock,
    /// The message.
    pub message: StoredMessage,
    /// How often a handler of this subscription has been started on it so far, without this time.
    pub deliveries: u32,
    /// The hold ends then, unless it is renewed.
    pub locked_until: Timestamp,
}

chronos_db::debug_some!(Delivery { lock, message, deliveries, locked_until });

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Ack,
    /// Again: after `delay`, else after the subscription's backoff. With its deliveries used up: to the dead
    /// letters, with `reason`.
    Retry {
        /// An explicit wait.
        delay: Option<Duration>,
        /// Why, for the dead letters.
        reason: String,
    },
    /// To the dead letters, now.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// To the dead letters, now, without a handler having seen it: it was started by its pull, and that does
    /// not count.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Set aside until it is fetched by id.
    Defer,
    /// Given back unused (it was prefetched and its handler not started): at once available again, and not
    /// counted.
    Release,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// As asked.
    Done,
    /// The message went to the dead letters: its deliveries were used up.
    DeadLettered,
    /// The lock was no longer the caller's; nothing happened.
    Lost,
}

/// Settlements and handler starts that belong together: settling one message and starting the next is one
/// step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettleAndStart {
    /// Ends.
    pub settle: Vec<(Lock, Settle)>,
    /// Starts: each counts one delivery of its message.
    pub start: Vec<Lock>,
}

/// What became of an [`SettleAndStart`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleAndStartResult {
    /// One per settlement.
    pub settled: Vec<Settled>,
    /// One per start: whether the lock still holds and the message's deliveries were not used up (then it is
    /// dead-lettered, and must not be handled).
    pub started: Vec<bool>,
}

/// What a pull brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulled {
    /// The messages, each locked for the subscription's visibility timeout.
    pub deliveries: Vec<Delivery>,
    /// How many of the first of them were started with it; see [`HotTier::pull_and_start`].
    pub started: usize,
    /// When something more becomes due at the earliest, as far as the store knows; publishing may be earlier.
    pub next_due: Option<Duration>,
}

/// A dead letter of one subscription.
#[derive(Clone, PartialEq)]
pub struct DeadLetter {
    /// The message, under its own id.
    pub message: StoredMessage,
    /// Why it is here: the last failure's reason, `expired`, `undecodable`, or what the handler said.
    pub reason: String,
    /// How often a handler was started on it.
    pub deliveries: u32,
    /// When it came here.
    pub failed_at: Timestamp,
}

chronos_db::debug_some!(DeadLetter { message, deliveries, failed_at });

/// Where a dead letter lies, without the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterId {
    /// The message's own id.
    pub id: String,
    /// For going on behind it.
    pub cursor: String,
    /// When it came here.
    pub failed_at: Timestamp,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All.
    All,
    /// The oldest so many.
    Oldest(u64),
    /// These.
    Ids(Vec<String>),
}

/// Where a message of a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// Not handed out yet.
    Unread,
    /// Handed out, not settled.
    InFlight,
    /// Waits for its time: scheduled, or retried after a while.
    Scheduled,
    /// Set aside.
    Deferred,
}

/// A message of a subscription, looked at without taking it.
#[derive(Clone, PartialEq)]
pub struct Peeked {
    /// The message.
    pub message: StoredMessage,
    /// Where it is.
    pub state: MessageState,
    /// How often a handler was started on it.
    pub deliveries: u32,
    /// When it becomes due or its lock ends, if it waits for that.
    pub until: Option<Timestamp>,
}

chronos_db::debug_some!(Peeked { message, state, deliveries, until });

/// Counts of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// The subscription.
    pub subscription: String,
    /// Not handed out yet and due; without pending and scheduled ones.
    pub backlog: u64,
    /// Handed out, not settled.
    pub pending: u64,
    /// Waiting for their time.
    pub scheduled: u64,
    /// Set aside.
    pub deferred: u64,
    /// In the dead letters.
    pub dead_letters: u64,
    /// Handler starts ever.
    pub deliveries: u64,
    /// Acknowledged ever.
    pub acked: u64,
    /// The age of the oldest message that is not settled.
    pub oldest_age: Option<Duration>,
    /// It hands out nothing until it is resumed.
    pub paused: bool,
}

/// Counts of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Messages held, for whomever.
    pub length: u64,
    /// Messages dropped by [`DiscardPolicy::DropOldest`] ever.
    pub dropped: u64,
    /// Its subscriptions, by name, without the library's own.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The library's own, by name: what waits there counts for the length, too. `__warm` is owed warm copies,
    /// `__claims` keeps payloads in object storage.
    pub internal: Vec<SubscriptionStats>,
}

/// A value of shared memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes; none is a tombstone.
    pub bytes: Option<Bytes>,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// Grows with every change of the key, and never comes again: neither after the value's end nor after its
    /// removal. It is at least the store's time of the change in microseconds, and fits 53 bits.
    pub version: u64,
    /// What is left of its time.
    pub ttl: Option<Duration>,
}

chronos_db::debug_some!(Value { content_type, version, ttl });

/// Under which condition a key changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Always.
    #[default]
    Always,
    /// Only if there is no value; a tombstone is none.
    Absent,
    /// Only if nothing at all is known of the key, not even a tombstone: for refilling from the warm tier.
    Unknown,
    /// As [`Unknown`](Self::Unknown), and the key has this version again, which it was given out for this
    /// very value; a later one if the store remembers a later one.
    UnknownSince(u64),
    /// Only if it has this version.
    Version(u64),
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its version now.
    pub version: u64,
    /// Whether it is gone.
    pub deleted: bool,
    /// Whether it is gone because its time is over.
    pub expired: bool,
}

/// A hot tier: one connection's worth of shared memory and topics.
#[async_trait]
pub trait HotTier: Send + Sync + std::fmt::Debug {
    /// A round trip; what the server can do that matters here, as words for people.
    async fn ping(&self) -> Result<String>;

    /// The store's time.
    async fn now(&self) -> Result<Timestamp>;

    /// Makes sure that a topic exists, and changes the options the patch gives; all others stay.
    async fn ensure_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Result<TopicOptions>;

    /// The topic's options, or nothing if there is no such topic.
    async fn topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>>;

    /// How often this connection has noticed that a topic's options, or the library's own subscriptions of
    /// it, had changed, or that it was deleted or made anew: publishes and pulls notice it on their way. Asks
    /// nobody.
    fn changes(&self, topic: &TopicName) -> u64;

    /// The topics of a scope, by name.
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

    /// The subscription's options, or nothing if there is no such subscription.
    async fn subscription(&self, subscription: &SubscriptionName) -> Result<Option<SubscriptionOptions>>;

    /// The subscriptions of a topic, by name, without the library's own.
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

    /// As [`publish`](Self::publish), but returns only when so many replicas of the server have confirmed the
    /// messages. Stores that acknowledge by majority or on disk have nothing to add, and do the same as
    /// `publish`.
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

    /// As [`pull`](Self::pull), and starts the first `start` messages of what it hands out as
    /// [`settle_and_start`](Self::settle_and_start) would, which saves that step. [`Pulled::started`] says
    /// how many of the first it started: fewer if there are fewer, and none where the store cannot do both at once, or a
    /// filter has yet to say which messages they are.
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

    /// Whether somebody else needs messages that this subscription has: another subscription that has not
    /// settled them, has them as dead letters, or may still get them. True also for what this subscription
    /// does not have. Once false for a message, it stays false, unless it is replayed.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    async fn needed_by_others(&self, subscription: &SubscriptionName, ids: &[String]) -> Result<Vec<bool>>;

    /// Returns when a pull may bring something that was published by whomever since the call began, or after
    /// `timeout`. Of several that wait for one subscription, one may return at once and the others a second
    /// later: so a message wakes one consumer.
    async fn wait(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()>;

    /// Dead letters, oldest first, after a cursor, at most [`MAX_LETTERS`]; the second part is the cursor for
    /// the next page.
    async fn dead_letters(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, Option<String>)>;

    /// Where the dead letters lie that failed then or later, oldest first, after a cursor. Costs nothing for
    /// the letters themselves, however large.
    async fn dead_letter_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>>;

    /// Dead letters by the ids of their messages, in any order; those that are none (any more) are left out.
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

    /// Counts.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    async fn stats(&self, topic: &TopicName) -> Result<TopicStats>;

    /// Puts messages back into one subscription (replay from the warm tier), under their own ids where the
    /// store allows it. Returns how many.
    async fn replay(&self, subscription: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64>;

    /// Values of keys, in their order; expired ones are none.
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
    /// `VALIDATION_ERROR` if the value is no 64-bit whole number, or would overflow.
    async fn increment(&self, scope: &Scope, key: &str, by: i64, ttl: Option<Duration>)
    -> Result<(i64, u64)>;

    /// Keys with a prefix, without tombstones, in pages of about `limit`; the second part is the cursor for
    /// the next page. A key that is there all the time is returned at least once.
    async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<String>, Option<String>)>;

    /// Changes of keys with a prefix, from now on, as they happen; that the time of a value is over is one.
    async fn watch(&self, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>>;

    /// Ends the connection after what is in flight.
    async fn close(&self) -> Result<()>;
}

/// A filter of a subscription sees this document: `{payload, headers}`. A payload that is not JSON is null; a
/// number that has no other form is the nearest double.
#[must_use]
pub fn filter_view(message: &StoredMessage) -> bson::Document {
    let StoredMessage { payload, content_type, headers, .. } = message;
    let is_json = content_type.is_empty() || content_type.contains("json");
    // What others publish may have a key twice; the last one counts.
    let lenient = || serde_json::from_slice::<serde_json::Value>(payload).map_or(Json::Null, Json::from);
    let payload = if is_json { Json::parse(payload).unwrap_or_else(|_| lenient()) } else { Json::Null };
    let headers: bson::Document =
        headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    bson::doc! { "payload": json_to_nearest_bson(&payload), "headers": headers }
}
