//! One topic.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::actions::{EnsureTopic, Publish, PublishBatch};
use super::draft::Draft;
use super::subscription::Subscription;
use crate::client::Inner;
use crate::hot::{TopicOptions, TopicStats};
use crate::{Result, SubscriptionName, TopicName};

/// A topic; see [`Bus::topic`](super::Bus::topic).
#[derive(Clone)]
pub struct Topic {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: TopicName,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name).finish()
    }
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Makes sure that the topic is there, and changes the options that are given; all others stay.
    pub fn ensure(&self) -> EnsureTopic {
        EnsureTopic::new(self.clone())
    }

    /// The options, or none if there is no such topic.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn options(&self) -> Result<Option<TopicOptions>> {
        self.inner.hot.topic(&self.name).await.map_err(|error| error.during("topic").on(&self.name))
    }

    /// Publishes a payload as JSON.
    pub fn publish<T: Serialize + ?Sized>(&self, payload: &T) -> Publish {
        Publish::new(self.clone(), Draft::json(payload))
    }

    /// Publishes bytes as they are.
    pub fn publish_bytes(&self, payload: impl Into<Bytes>, content_type: impl Into<String>) -> Publish {
        Publish::new(self.clone(), Draft::bytes(payload, content_type))
    }

    /// Publishes several messages, all or none of those that go to one shard.
    pub fn publish_batch(&self, messages: impl IntoIterator<Item = Draft>) -> PublishBatch {
        PublishBatch::new(self.clone(), messages.into_iter().collect())
    }

    /// Takes back a scheduled message whose time has not come. False if it is not scheduled (any more).
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    pub async fn cancel(&self, id: &str) -> Result<bool> {
        self.inner.hot.cancel(&self.name, id).await.map_err(|error| error.during("cancel").on(&self.name))
    }

    /// A subscription of this topic. No I/O: it need not be there yet.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn subscription(&self, name: &str) -> Result<Subscription> {
        Ok(Subscription { inner: Arc::clone(&self.inner), name: SubscriptionName::new(&self.name, name)? })
    }

    /// The subscriptions there are, by name.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn subscriptions(&self) -> Result<Vec<String>> {
        self.inner.hot.subscriptions(&self.name).await.map_err(|error| error.during("subscriptions").on(&self.name))
    }

    /// Counts of the topic and its subscriptions.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    pub async fn stats(&self) -> Result<TopicStats> {
        self.inner.hot.stats(&self.name).await.map_err(|error| error.during("stats").on(&self.name))
    }

    /// Removes all messages for all subscriptions; dead letters and subscriptions stay. Returns how many.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn purge(&self) -> Result<u64> {
        self.inner.hot.purge(&self.name).await.map_err(|error| error.during("purge").on(&self.name))
    }

    /// Removes the topic with everything of it. False if there was none.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn delete(&self) -> Result<bool> {
        self.inner.forget_outbox(&self.name).await;
        self.inner.hot.delete_topic(&self.name).await.map_err(|error| error.during("delete").on(&self.name))
    }
}
