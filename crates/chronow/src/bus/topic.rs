//! One topic.

use std::fmt;
use std::sync::Arc;

use super::subscription::Subscription;
use crate::context::Context;
use crate::hot::{StoredMessage, TopicOptions, TopicStats};
use crate::{Error, Result, SubscriptionName, TopicName, payloads};

/// A topic; see [`Bus::topic`](super::Bus::topic).
#[derive(Clone)]
pub struct Topic {
    pub(crate) inner: Arc<Context>,
    pub(crate) name: TopicName,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name).finish()
    }
}

impl Topic {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Reads the options; none if there is no such topic.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn options(&self) -> Result<Option<TopicOptions>> {
        self.inner.hot.topic(&self.name).await.map_err(|error| error.during("topic").on(&self.name))
    }

    /// Takes back a scheduled message whose time has not come. False if it is not scheduled (any more).
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    pub async fn cancel(&self, id: &str) -> Result<bool> {
        self.inner.hot.cancel(&self.name, id).await.map_err(|error| error.during("cancel").on(&self.name))
    }

    /// Returns a handle of a subscription. Does no I/O: the subscription need not be there yet.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn subscription(&self, name: &str) -> Result<Subscription> {
        Ok(Subscription { inner: Arc::clone(&self.inner), name: SubscriptionName::new(&self.name, name)? })
    }

    /// Returns the names of the subscriptions there are, in their order.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn subscriptions(&self) -> Result<Vec<String>> {
        self.inner
            .hot
            .subscriptions(&self.name)
            .await
            .map_err(|error| error.during("subscriptions").on(&self.name))
    }

    /// Counts the messages of the topic and of its subscriptions.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such topic.
    pub async fn stats(&self) -> Result<TopicStats> {
        self.inner.hot.stats(&self.name).await.map_err(|error| error.during("stats").on(&self.name))
    }

    /// Removes all messages for all subscriptions; dead letters and subscriptions stay, and so do the ids
    /// under which messages were accepted once. Returns how many.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn purge(&self) -> Result<u64> {
        let purge = async {
            let claims = self.claims().await?;
            let purged = self.inner.hot.purge(&self.name).await?;
            if !claims.is_empty() {
                // Dead letters may still need them: that is looked at as always.
                self.inner.hot.replay(&payloads::subscription(&self.name), claims).await?;
            }
            Ok(purged)
        };
        purge.await.map_err(|error: Error| error.during("purge").on(&self.name))
    }

    /// Removes the topic with everything of it. False if there was none.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn delete(&self) -> Result<bool> {
        let delete = async {
            let claims = self.claims().await?;
            self.inner.forget(&self.name).await;
            let deleted = self.inner.hot.delete_topic(&self.name).await?;
            if let Some(payloads) = self.inner.payloads() {
                for claim in claims {
                    // From a copy it could be replayed into a topic of the same name.
                    let copied = match self.inner.warm() {
                        Some(warm) => warm.has(&self.name, &claim.id).await?,
                        None => false,
                    };
                    if !copied {
                        payloads.remove(&self.name, &claim.payload).await?;
                    }
                }
            }
            if let Some(warm) = self.inner.warm() {
                warm.discard(&self.name).await?;
            }
            Ok(deleted)
        };
        delete.await.map_err(|error: Error| error.during("delete").on(&self.name))
    }

    /// Messages whose payloads lie in object storage, as far as they can be seen at once.
    async fn claims(&self) -> Result<Vec<StoredMessage>> {
        let name = payloads::subscription(&self.name);
        if self.inner.payloads().is_none() || self.inner.hot.subscription(&name).await?.is_none() {
            return Ok(Vec::new());
        }
        let held = self.inner.hot.peek(&name, u32::MAX).await?;
        Ok(held
            .into_iter()
            .map(|peeked| peeked.message)
            .filter(|message| message.content_type == payloads::CLAIM)
            .collect())
    }
}
