//! What a connection does in the background for a topic: copies, payloads, and what was left about to be
//! published.

use std::sync::Arc;

use crate::archiver;
use crate::context::Context;
use crate::hot::TopicOptions;
use crate::payloads::{self, Payloads};
use crate::tasks::Extent;
use crate::{Error, ErrorKind, Result, TopicName};

impl Context {
    /// Looks whether there is something to do for a topic: once, and again whenever this connection has
    /// noticed that the topic is not what it was.
    pub(crate) async fn ensure_started(&self, topic: &TopicName) -> Result<()> {
        if self.warm().is_none() && self.payloads().is_none() {
            return Ok(());
        }
        // What changes from here on is looked at again.
        let now = self.hot.changes(topic);
        if self.known_changes(topic) == Some(now) {
            return Ok(());
        }
        if let Some(options) = self.hot.topic(topic).await.map_err(|error| error.during("topic"))? {
            self.start_for(topic, &options).await?;
            self.noticed.lock().insert(topic.clone(), now);
        }
        Ok(())
    }

    fn known_changes(&self, topic: &TopicName) -> Option<u64> {
        self.noticed.lock().get(topic).copied()
    }

    /// After something by which a change of a topic is noticed: does in the background what it asks for, if
    /// there was one.
    pub(crate) fn notice(self: &Arc<Self>, topic: &TopicName) {
        if self.known_changes(topic).is_none_or(|known| known == self.hot.changes(topic)) {
            return;
        }
        let (inner, topic) = (Arc::clone(self), topic.clone());
        let look = async move {
            if let Err(error) = inner.ensure_started(&topic).await {
                tracing::warn!(%topic, %error, "a change of a topic is looked at again");
            }
        };
        // Closing, there is nothing to begin any more.
        drop(self.tasks.spawn(look));
    }

    /// Does for a topic what its options say.
    pub(crate) async fn start_for(&self, topic: &TopicName, options: &TopicOptions) -> Result<()> {
        let mut all = self.topic_tasks.lock().await;
        let topic_tasks = all.entry(topic.clone()).or_default();
        if let Some(warm) = self.warm() {
            let name = archiver::subscription(topic);
            let extent = match options.warm {
                true => Some(Extent::All),
                // A publisher asked for copies of some messages.
                false if topic_tasks.copies(Extent::Marked) => None,
                false => self
                    .hot
                    .subscription(&name)
                    .await
                    .map_err(|error| error.during("subscription"))?
                    .map(|_| Extent::Marked),
            };
            if let Some(extent) = extent.filter(|extent| !topic_tasks.copies(*extent)) {
                topic_tasks.copies = Some((extent, archiver::copy(self, warm.clone(), topic, extent).await?));
            }
        }
        if let Some(payloads) = self.payloads().filter(|payloads| payloads.has_place(topic.scope()))
            && !topic_tasks.cleans_up()
            && self
                .hot
                .subscription(&payloads::subscription(topic))
                .await
                .map_err(|error| error.during("subscription"))?
                .is_some()
        {
            topic_tasks.janitor =
                Some(payloads::clean_up(self, payloads.clone(), self.warm().cloned(), topic).await?);
        }
        if !std::mem::replace(&mut topic_tasks.met, true) {
            self.put_back(topic)?;
        }
        Ok(())
    }

    /// Copies of a topic's messages are not wanted any more.
    pub(crate) async fn stop_copies(&self, topic: &TopicName) -> Result<()> {
        self.topic_tasks.lock().await.entry(topic.clone()).or_default().copies = None;
        // Nobody would empty it.
        self.hot.delete_subscription(&archiver::subscription(topic)).await.map(drop)
    }

    /// Sees to it that messages get copies that are marked so.
    pub(crate) async fn copy_marked(&self, topic: &TopicName) -> Result<()> {
        let warm = self.warm_tier()?.clone();
        let mut all = self.topic_tasks.lock().await;
        let topic_tasks = all.entry(topic.clone()).or_default();
        if !topic_tasks.copies(Extent::Marked) {
            topic_tasks.copies =
                Some((Extent::Marked, archiver::copy(self, warm, topic, Extent::Marked).await?));
        }
        Ok(())
    }

    /// The storage for a topic's large payloads, once a task is there that removes them in the end.
    pub(crate) async fn claims(&self, topic: &TopicName) -> Result<&Payloads> {
        let there = self.payloads().filter(|payloads| payloads.has_place(topic.scope()));
        let payloads =
            there.ok_or_else(|| Error::new(ErrorKind::Unsupported, "there is no object storage"))?;
        let mut all = self.topic_tasks.lock().await;
        let topic_tasks = all.entry(topic.clone()).or_default();
        if !topic_tasks.cleans_up() {
            topic_tasks.janitor =
                Some(payloads::clean_up(self, payloads.clone(), self.warm().cloned(), topic).await?);
        }
        Ok(payloads)
    }

    pub(crate) async fn forget(&self, topic: &TopicName) {
        self.topic_tasks.lock().await.remove(topic);
        self.noticed.lock().remove(topic);
    }
}
