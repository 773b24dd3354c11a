//! Subscriptions that nobody uses any more.

use std::collections::HashSet;

use chronos_db::documents::{Filter, Scan};

use super::delivery_record::State;
use super::entities::{Cursor, Listed, Subscription, Topic, is_idle};
use super::fields::{ascending, delete_if};
use super::keys::{cursor_key, subscription_key};
use super::store::Engine;
use crate::{Result, SubscriptionName, Timestamp, TopicName};

impl Engine {
    /// Whether a message of a subscription is locked.
    async fn has_lock(&self, id: &str, now: Timestamp) -> Result<bool> {
        let filter = Filter::eq("w", id)
            .and(Filter::gt("due", now.as_millis()))
            .and(Filter::eq("st", State::Locked.letter()));
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            limit: Some(1),
            without: vec!["b".to_owned()],
            ..Scan::default()
        };
        Ok(!self.scan(&self.collections.deliveries, scan).await?.is_empty())
    }

    /// Whether nobody used a subscription for the time it says, and nobody is at work on a message of it.
    pub(super) async fn is_unused(
        &self,
        subscription: &Subscription,
        cursor: &Cursor,
        now: Timestamp,
    ) -> Result<bool> {
        Ok(is_idle(subscription, cursor, now) && !self.has_lock(&subscription.id, now).await?)
    }

    /// Removes a subscription nobody uses. True if so.
    pub(super) async fn expire_idle(
        &self,
        name: &SubscriptionName,
        listed: &Listed,
        now: Timestamp,
    ) -> Result<bool> {
        let found = self
            .get_map(&self.collections.topics, vec![subscription_key(&listed.id), cursor_key(&listed.id)])
            .await?;
        let (Some(subscription), Some(cursor)) =
            (found.get(&subscription_key(&listed.id)), found.get(&cursor_key(&listed.id)))
        else {
            // Its removal was broken off.
            return self.remove_subscription(name, Some(&listed.id)).await;
        };
        let subscription = Subscription::read(&listed.id, subscription)?;
        let cursor = Cursor::read(&listed.id, cursor)?;
        if !is_idle(&subscription, &cursor, now) {
            return Ok(false);
        }
        if self.has_lock(&listed.id, now).await? {
            self.touch(&listed.id, now).await?;
            return Ok(false);
        }
        // A consumer that begins to use it meanwhile changes its cursor.
        if !self
            .write_one(&self.collections.topics, delete_if(cursor_key(&listed.id), cursor.rev))
            .await?
            .is_applied()
        {
            return Ok(false);
        }
        tracing::info!(subscription = %name, "subscription removed: it was unused");
        self.remove_subscription(name, Some(&listed.id)).await
    }

    /// Removes subscriptions of a topic that nobody uses. True if there were some.
    pub(super) async fn expire_idle_of(
        &self,
        name: &TopicName,
        topic: &Topic,
        now: Timestamp,
    ) -> Result<bool> {
        let mut removed = false;
        for id in self.idle_of(topic, now).await? {
            if let Some(listed) = topic.listed().find(|listed| listed.id == id)
                && let Ok(subscription) = SubscriptionName::new(name, &listed.name)
            {
                removed |= self.expire_idle(&subscription, listed, now).await?;
            }
        }
        Ok(removed)
    }

    /// The ids of subscriptions of a topic that seem to be used by nobody.
    pub(super) async fn idle_of(&self, topic: &Topic, now: Timestamp) -> Result<HashSet<String>> {
        let keys = topic
            .listed()
            .flat_map(|listed| [subscription_key(&listed.id), cursor_key(&listed.id)])
            .collect();
        let found = self.get_map(&self.collections.topics, keys).await?;
        let mut idle = HashSet::new();
        for listed in topic.listed() {
            if let (Some(subscription), Some(cursor)) =
                (found.get(&subscription_key(&listed.id)), found.get(&cursor_key(&listed.id)))
                && self
                    .is_unused(
                        &Subscription::read(&listed.id, subscription)?,
                        &Cursor::read(&listed.id, cursor)?,
                        now,
                    )
                    .await?
            {
                idle.insert(listed.id.clone());
            }
        }
        Ok(idle)
    }
}
