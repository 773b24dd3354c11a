//! Making topics and subscriptions: builders that run when awaited.

use std::time::Duration;

use super::runs;
use super::subscription::Subscription;
use super::topic::Topic;
use crate::hot::{
    DeliverPolicy, DiscardPolicy, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch,
};
use crate::{Error, Json, Result};

impl Topic {
    /// Makes sure that the topic is there, and changes the options that are given; all others stay. Returns
    /// the options as they are then.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// use std::time::Duration;
    ///
    /// let orders = chronow.bus().topic("orders")?;
    /// orders.ensure().max_len(10_000).ttl(Some(Duration::from_secs(86_400))).await?;
    /// // Another process changes one option.
    /// let options = orders.ensure().dedup_window(Duration::from_secs(60)).await?;
    /// assert_eq!((options.max_len, options.dedup_window), (10_000, Duration::from_secs(60)));
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for options out of their bounds; `HOT_TIER_ERROR` if the store fails.
    pub fn ensure(&self) -> EnsureTopic {
        EnsureTopic::new(self.clone())
    }
}

/// Makes sure that a topic is there; see [`Topic::ensure`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct EnsureTopic {
    topic: Topic,
    patch: TopicPatch,
}

impl EnsureTopic {
    pub(super) fn new(topic: Topic) -> Self {
        Self { topic, patch: TopicPatch::default() }
    }

    /// Streams the messages are spread over; matters when the topic is made.
    pub fn shards(mut self, shards: u16) -> Self {
        self.patch.shards = Some(shards);
        self
    }

    /// Bounds the messages that the topic holds and a subscription still needs (default 100,000);
    /// [`overflow`](Self::overflow) says what happens beyond it.
    pub fn max_len(mut self, messages: u64) -> Self {
        self.patch.max_len = Some(messages);
        self
    }

    /// Says what happens to a publish beyond the length (default: it is refused).
    pub fn overflow(mut self, overflow: DiscardPolicy) -> Self {
        self.patch.overflow = Some(overflow);
        self
    }

    /// Sets how long messages live that don't say it themselves; none is for ever (default).
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.patch.ttl = Some(ttl);
        self
    }

    /// Sets for how long a dedup id is remembered (default 10 minutes).
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.patch.dedup_window = Some(window);
        self
    }

    /// Says whether to keep a copy of every message in the warm tier. Copies are made in order in the
    /// background; a failing warm tier fails no publish.
    pub fn warm(mut self, warm: bool) -> Self {
        self.patch.warm = Some(warm);
        self
    }

    async fn run(self) -> Result<TopicOptions> {
        let Self { topic, mut patch } = self;
        let (inner, name) = (&topic.inner, &topic.name);
        let in_context = |error: Error| error.during("ensure_topic").on(name);
        if patch.warm == Some(true) {
            inner.warm_tier().map_err(in_context)?;
        }
        if patch.max_len.is_none() && inner.hot.topic(name).await.map_err(in_context)?.is_none() {
            patch.max_len = Some(inner.defaults.max_len);
        }
        let options = inner.hot.ensure_topic(name, &patch).await.map_err(in_context)?;
        if patch.warm == Some(false) {
            inner.stop_copies(name).await.map_err(in_context)?;
        }
        inner.start_for(name, &options).await.map_err(in_context)?;
        Ok(options)
    }
}

runs!(EnsureTopic => TopicOptions, EnsureTopic by topic.inner);

impl Subscription {
    /// Makes sure that the subscription is there, and changes the options that are given; all others stay.
    /// Returns the options as they are then.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use std::time::Duration;
    /// use chronow::hot::DeliverPolicy;
    ///
    /// let large = orders.subscription("large")?;
    /// let filter = chronos_db::json!({"payload.amount": {"$gte": 100}, "headers.type": "order.created"});
    /// let options = large.ensure().start(DeliverPolicy::Earliest).filter(filter).max_deliveries(9).backoff([Duration::from_secs(1)]).await?;
    /// assert_eq!(options.max_deliveries, 9);
    /// // Removed once it was not used for an hour.
    /// large.ensure().auto_delete(Some(Duration::from_secs(3_600))).await?;
    /// assert_eq!(large.options().await?.unwrap().max_deliveries, 9);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic; `VALIDATION_ERROR` for options out of their bounds or a wrong
    /// filter; `HOT_TIER_ERROR` if the store fails.
    pub fn ensure(&self) -> EnsureSubscription {
        EnsureSubscription::new(self.clone())
    }
}

/// Makes sure that a subscription is there; see [`Subscription::ensure`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct EnsureSubscription {
    subscription: Subscription,
    patch: SubscriptionPatch,
}

impl EnsureSubscription {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, patch: SubscriptionPatch::default() }
    }

    /// Sets how long a message is locked for its consumer (default 30 s); the lock is renewed while it is at
    /// work.
    pub fn visibility(mut self, timeout: Duration) -> Self {
        self.patch.visibility = Some(timeout);
        self
    }

    /// Limits how often handlers are started on a message (default 5).
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.patch.max_deliveries = Some(deliveries);
        self
    }

    /// Waits before the second, third … delivery; the last one repeats.
    pub fn backoff(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.patch.backoff = Some(waits.into_iter().collect());
        self
    }

    /// Adds up to this share, in percent, to a wait at random (default 20).
    pub fn jitter_percent(mut self, percent: u8) -> Self {
        self.patch.jitter_percent = Some(percent);
        self
    }

    /// Says whether messages whose deliveries are used up are kept as dead letters (default), or dropped.
    pub fn dead_letters(mut self, keep: bool) -> Self {
        self.patch.dead_letters = Some(keep);
        self
    }

    /// Says where it begins; matters when it is made.
    pub fn start(mut self, start: DeliverPolicy) -> Self {
        self.patch.start = Some(start);
        self
    }

    /// Takes only messages whose `{payload, headers}` match, in chronos-db's filter language.
    pub fn filter(mut self, filter: impl Into<Json>) -> Self {
        self.patch.filter = Some(Some(filter.into()));
        self
    }

    /// Takes all messages again.
    pub fn no_filter(mut self) -> Self {
        self.patch.filter = Some(None);
        self
    }

    /// Removes the subscription after this long without use; none is never (default).
    pub fn auto_delete(mut self, after: Option<Duration>) -> Self {
        self.patch.auto_delete = Some(after);
        self
    }

    /// Hands out nothing while this is set.
    pub fn paused(mut self, paused: bool) -> Self {
        self.patch.paused = Some(paused);
        self
    }

    async fn run(self) -> Result<SubscriptionOptions> {
        let Self { subscription, mut patch } = self;
        let (inner, name) = (&subscription.inner, &subscription.name);
        let in_context = |error: Error| error.during("ensure_subscription").on(name);
        if inner.hot.subscription(name).await.map_err(in_context)?.is_none() {
            let defaults = &inner.defaults;
            patch.visibility.get_or_insert(defaults.visibility);
            patch.max_deliveries.get_or_insert(defaults.max_deliveries);
            patch.backoff.get_or_insert_with(|| defaults.backoff.clone());
        }
        inner.hot.ensure_subscription(name, &patch).await.map_err(in_context)
    }
}

runs!(EnsureSubscription => SubscriptionOptions, EnsureSubscription by subscription.inner);
