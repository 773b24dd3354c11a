//! Publishing: builders that run when awaited, and the way of a message into the hot tier.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use serde::Serialize;

use super::publish_message::{PublishMessage, message_options};
use super::runs;
use super::topic::Topic;
use crate::hot::{OutboundMessage, PublishAck};
use crate::metrics::Counters;
use crate::payloads::Payloads;
use crate::warm::COPIED;
use crate::{Error, ErrorKind, Result, TopicName, outbox};

/// Large payloads stored at the same time.
const TOGETHER: usize = 4;

/// When a publish returns: what "accepted" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// When the hot tier has accepted it: as durable as Redis is set to be; on documents, acknowledged by the
    /// majority or on disk.
    #[default]
    Hot,
    /// When this many replicas of the Redis server that accepted it have confirmed it. If fewer do within the
    /// time, the publish fails with `NOT_REPLICATED`: the message is accepted all the same, and publishing it
    /// again is safe with a dedup id. What documents acknowledge is replicated already, so there this is the
    /// same as [`Hot`](Self::Hot).
    Replicated {
        /// How many replicas.
        replicas: u32,
        /// How long to wait for them.
        within: Duration,
    },
    /// When it is committed in the warm tier and then accepted by the hot one. If the process ends in
    /// between, or the hot tier fails (then the publish does, too), the message is put into the hot tier by
    /// the process that opens the topic next. It may be there twice only if that is later than the topic's
    /// dedup window. There is a copy in the warm tier.
    Warm,
}

impl Topic {
    /// Publishes a payload as JSON.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use std::time::Duration;
    /// use chronow::Ack;
    ///
    /// let order = chronos_db::json!({"order": 7});
    /// orders.publish(&order).key("customer-1").header("type", "order.created").ttl(Duration::from_secs(60)).await?;
    /// // Accepted once, however often it is sent; and in the warm tier before it is in the hot one.
    /// let first = orders.publish(&order).dedup_id("order-7").ack(Ack::Warm).await?;
    /// assert_eq!(orders.publish(&order).dedup_id("order-7").await?.id, first.id);
    /// // Later, and then not at all.
    /// let reminder = orders.publish(&order).delay(Duration::from_secs(3_600)).await?;
    /// assert!(orders.cancel(&reminder.id).await?);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic, unless [`auto_create`](Publish::auto_create) makes it;
    /// `VALIDATION_ERROR` for what cannot be encoded or is beyond a limit; `TOPIC_FULL` if the topic is at
    /// its length; `NOT_REPLICATED` if replicas did not confirm in time; `HOT_TIER_ERROR` if the hot tier
    /// fails: the message may have been accepted, and with a dedup id publishing it again is safe.
    pub fn publish<T: Serialize + ?Sized>(&self, payload: &T) -> Publish {
        Publish::new(self.clone(), PublishMessage::json(payload))
    }

    /// Publishes bytes as they are, with their media type.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_bytes(&self, payload: impl Into<Bytes>, content_type: impl Into<String>) -> Publish {
        Publish::new(self.clone(), PublishMessage::bytes(payload, content_type))
    }

    /// Publishes several messages, all or none of those that go to one shard. Returns their ids in the order
    /// given.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use chronow::PublishMessage;
    ///
    /// let messages = (1..=3).map(|n| PublishMessage::json(&n).key("customer-1"));
    /// assert_eq!(orders.publish_batch(messages).await?.len(), 3);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_batch(&self, messages: impl IntoIterator<Item = PublishMessage>) -> PublishBatch {
        PublishBatch::new(self.clone(), messages.into_iter().collect())
    }
}

/// What a publish is to do beside publishing.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    ack: Ack,
    warm_copy: bool,
    auto_create: bool,
}

macro_rules! how_options {
    () => {
        /// Says when the publish returns (default [`Ack::Hot`]).
        pub fn ack(mut self, ack: Ack) -> Self {
            self.how.ack = ack;
            self
        }

        /// Keeps a copy in the warm tier though the topic does not keep copies of all messages. It is made in
        /// the background, in order; a failing warm tier fails no publish.
        pub fn persist_warm_copy(mut self, persist: bool) -> Self {
            self.how.warm_copy = persist;
            self
        }

        /// Makes the topic if it is not there, with the default options. Otherwise that is an error: a typing
        /// error makes no topic.
        pub fn auto_create(mut self, create: bool) -> Self {
            self.how.auto_create = create;
            self
        }
    };
}

/// Publishes a message; see [`Topic::publish`].
#[derive(Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Publish {
    topic: Topic,
    message: PublishMessage,
    how: How,
}

impl Publish {
    pub(super) fn new(topic: Topic, message: PublishMessage) -> Self {
        Self { topic, message, how: How::default() }
    }

    message_options!(message);
    how_options!();

    async fn run(self) -> Result<PublishAck> {
        let published = publish(&self.topic, vec![self.message], self.how).await?;
        // One message, one answer.
        published
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(ErrorKind::HotTier, "the store did not answer for the message"))
    }
}

runs!(Publish => PublishAck, Publish by topic.inner);

/// Publishes messages together; see [`Topic::publish_batch`].
#[derive(Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct PublishBatch {
    topic: Topic,
    messages: Vec<PublishMessage>,
    how: How,
}

impl PublishBatch {
    pub(super) fn new(topic: Topic, messages: Vec<PublishMessage>) -> Self {
        Self { topic, messages, how: How::default() }
    }

    how_options!();

    async fn run(self) -> Result<Vec<PublishAck>> {
        publish(&self.topic, self.messages, self.how).await
    }
}

runs!(PublishBatch => Vec<PublishAck>, PublishBatch by topic.inner);

async fn publish(topic: &Topic, messages: Vec<PublishMessage>, how: How) -> Result<Vec<PublishAck>> {
    let name = topic.name.clone();
    publish_all(topic, messages, how).await.map_err(|error| error.during("publish").on(name))
}

async fn publish_all(topic: &Topic, messages: Vec<PublishMessage>, how: How) -> Result<Vec<PublishAck>> {
    let (inner, name) = (&topic.inner, &topic.name);
    let now =
        if messages.iter().any(PublishMessage::needs_time) { Some(inner.hot.now().await?) } else { None };
    let defaults = &inner.defaults;
    // What cannot be published is refused before anything happens.
    let large = messages.iter().any(|message| message.size() > defaults.max_payload_bytes);
    let most = match large && inner.payloads().is_some_and(|payloads| payloads.has_place(name.scope())) {
        true => defaults.max_message_bytes.max(defaults.max_payload_bytes),
        false => defaults.max_payload_bytes,
    };
    let mut messages =
        messages.into_iter().map(|message| message.finish(now, most)).collect::<Result<Vec<_>>>()?;
    if how.auto_create && inner.hot.topic(name).await?.is_none() {
        topic.ensure().await?;
    }
    inner.ensure_started(name).await?;
    if how.warm_copy {
        inner.copy_marked(name).await?;
        for message in &mut messages {
            message.headers.insert(COPIED.to_owned(), "1".to_owned());
        }
    }
    if how.ack == Ack::Warm {
        inner.warm_tier()?;
    }
    if !large {
        return accept(topic, messages, how.ack).await;
    }
    let payloads = inner.claims(name).await?;
    let (messages, claims) = store(payloads, name, messages, defaults.max_payload_bytes).await?;
    let published = accept(topic, messages, how.ack).await;
    match &published {
        Ok(published) => {
            // The first one has a payload of its own; but it may be that only this one has a copy.
            let mut unused = Vec::new();
            for (index, claim) in claims {
                if let Some(twin) = published.get(index).filter(|published| published.duplicate)
                    && !is_copied(topic, how.ack, &twin.id, &claim).await
                {
                    unused.push(claim);
                }
            }
            discard(payloads, name, unused).await;
        }
        Err(error) if outbox::is_refused(error) => {
            discard(payloads, name, claims.into_iter().map(|(_, claim)| claim).collect()).await
        }
        // Nobody knows whether they were accepted.
        Err(_) => {}
    }
    published
}

/// Stores payloads that are too large for the hot tier. Answers the messages, and the claims that are now in
/// some of them.
async fn store(
    payloads: &Payloads,
    name: &TopicName,
    messages: Vec<OutboundMessage>,
    most: usize,
) -> Result<(Vec<OutboundMessage>, Vec<(usize, Bytes)>)> {
    let stored = futures::stream::iter(messages.into_iter().enumerate().map(|(index, message)| async move {
        if message.payload.len() <= most {
            return Ok((message, None));
        }
        let message = payloads.put(name, message).await?;
        let claim = (index, message.payload.clone());
        Ok((message, Some(claim)))
    }));
    let mut stored = std::pin::pin!(stored.buffered(TOGETHER));
    let (mut messages, mut claims, mut failed) = (Vec::new(), Vec::new(), None);
    while let Some(one) = stored.next().await {
        match one {
            Ok((message, claim)) => {
                messages.push(message);
                claims.extend(claim);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok((messages, claims)),
        Some(error) => {
            discard(payloads, name, claims.into_iter().map(|(_, claim)| claim).collect()).await;
            Err(error)
        }
    }
}

/// Whether the copy in the warm tier has this very claim. If nobody knows: yes.
async fn is_copied(topic: &Topic, ack: Ack, id: &str, claim: &Bytes) -> bool {
    let (Ack::Warm, Some(warm)) = (ack, topic.inner.warm()) else { return false };
    match warm.kept_by_id(&topic.name, &[id.to_owned()]).await {
        Ok(kept) => kept.iter().any(|copy| copy.payload == *claim),
        Err(error) => {
            tracing::warn!(topic = %topic.name, id, %error, "it is not known whether a copy has a claim on a payload");
            true
        }
    }
}

/// Removes payloads that no message has a claim on.
async fn discard(payloads: &Payloads, name: &TopicName, claims: Vec<Bytes>) {
    for together in claims.chunks(TOGETHER) {
        for removed in join_all(together.iter().map(|claim| payloads.remove(name, claim))).await {
            if let Err(error) = removed {
                tracing::warn!(topic = %name, %error, "a payload stays in object storage though no message has a claim on it");
            }
        }
    }
}

async fn accept(topic: &Topic, messages: Vec<OutboundMessage>, ack: Ack) -> Result<Vec<PublishAck>> {
    let (inner, name) = (&topic.inner, &topic.name);
    let published = match ack {
        Ack::Hot => inner.hot.publish(name, messages).await?,
        Ack::Replicated { replicas, within } => {
            inner.hot.publish_replicated(name, messages, replicas, within).await?
        }
        Ack::Warm => outbox::publish(inner, name, messages).await?,
    };
    inner.notice(name);
    let duplicates = published.iter().filter(|one| one.duplicate).count();
    Counters::add(&inner.counters.published, published.len() - duplicates);
    Counters::add(&inner.counters.duplicates, duplicates);
    Ok(published)
}
