//! What a connection does in the background for a topic: copies, payloads, and what was left about to be published.

use crate::client::Inner;
use crate::hot::TopicOptions;
use crate::outbox::{self, Extent};
use crate::payloads::{self, Payloads};
use crate::tasks::Background;
use crate::{Error, ErrorKind, Result, TopicName};

/// The background work of one topic.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    copies: Option<(Extent, Background)>,
    janitor: Option<Background>,
    /// Somebody looked whether there is anything to do.
    met: bool,
}

impl Followed {
    fn copies(&self, extent: Extent) -> bool {
        self.copies.as_ref().is_some_and(|(current, outbox)| *current >= extent && outbox.is_running())
    }

    fn cleans_up(&self) -> bool {
        self.janitor.as_ref().is_some_and(Background::is_running)
    }
}

impl Inner {
    /// Looks once whether there is something to do for a topic.
    pub(crate) async fn meet(&self, topic: &TopicName) -> Result<()> {
        if self.warm().is_none() && self.payloads().is_none() {
            return Ok(());
        }
        if self.followed.lock().await.get(topic).is_some_and(|followed| followed.met) {
            return Ok(());
        }
        match self.hot.topic(topic).await? {
            Some(options) => self.follow(topic, &options).await,
            None => Ok(()),
        }
    }

    /// Does for a topic what its options say.
    pub(crate) async fn follow(&self, topic: &TopicName, options: &TopicOptions) -> Result<()> {
        let mut all = self.followed.lock().await;
        let followed = all.entry(topic.clone()).or_default();
        if let Some(warm) = self.warm() {
            let name = outbox::subscription(topic);
            let extent = match options.warm {
                true => Some(Extent::All),
                // Somebody asked for copies of some messages.
                false if followed.copies(Extent::Marked) => None,
                false => self.hot.subscription(&name).await?.map(|_| Extent::Marked),
            };
            if let Some(extent) = extent.filter(|extent| !followed.copies(*extent)) {
                followed.copies = Some((extent, outbox::copy(self, warm.clone(), topic, extent).await?));
            }
        }
        if let Some(payloads) = self.payloads().filter(|payloads| payloads.has_place(topic.scope()))
            && !followed.cleans_up()
            && self.hot.subscription(&payloads::subscription(topic)).await?.is_some()
        {
            followed.janitor = Some(payloads::clean_up(self, payloads.clone(), self.warm().cloned(), topic).await?);
        }
        if !std::mem::replace(&mut followed.met, true) {
            self.put_back(topic)?;
        }
        Ok(())
    }

    /// Copies of a topic's messages are not wanted any more.
    pub(crate) async fn stop_copies(&self, topic: &TopicName) -> Result<()> {
        self.followed.lock().await.entry(topic.clone()).or_default().copies = None;
        // Nobody would empty it.
        self.hot.delete_subscription(&outbox::subscription(topic)).await.map(drop)
    }

    /// Sees to it that messages get copies that are marked so.
    pub(crate) async fn copy_marked(&self, topic: &TopicName) -> Result<()> {
        let warm = self.warm_tier()?.clone();
        let mut all = self.followed.lock().await;
        let followed = all.entry(topic.clone()).or_default();
        if !followed.copies(Extent::Marked) {
            followed.copies = Some((Extent::Marked, outbox::copy(self, warm, topic, Extent::Marked).await?));
        }
        Ok(())
    }

    /// The storage for a topic's large payloads, after somebody is there who removes them in the end.
    pub(crate) async fn claims(&self, topic: &TopicName) -> Result<&Payloads> {
        let there = self.payloads().filter(|payloads| payloads.has_place(topic.scope()));
        let payloads = there.ok_or_else(|| Error::new(ErrorKind::Unsupported, "there is no object storage"))?;
        let mut all = self.followed.lock().await;
        let followed = all.entry(topic.clone()).or_default();
        if !followed.cleans_up() {
            followed.janitor = Some(payloads::clean_up(self, payloads.clone(), self.warm().cloned(), topic).await?);
        }
        Ok(payloads)
    }

    pub(crate) async fn forget(&self, topic: &TopicName) {
        self.followed.lock().await.remove(topic);
    }
}
