//! Removing topics, and collecting what subscriptions no longer need.

use futures::FutureExt as _;
use redis::{Value, cmd};

use super::RedisHot;
use super::calls::{DYING, together};
use super::reply::text;
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::{Result, SubscriptionName, TopicName};

impl RedisHot {
    pub(super) async fn remove_topic(&self, topic: &TopicName) -> ScriptResult<bool> {
        self.forget(topic);
        let (mut existed, mut meant) = (false, None);
        while let Some(stored) = self.stored_topic(topic).await? {
            let generation = stored.stamp.trim_start_matches(DYING);
            // What was made since is another topic.
            if meant.get_or_insert_with(|| generation.to_owned()) != generation {
                break;
            }
            if stored.stamp.starts_with(DYING) {
                self.finish_removal(topic, &stored.stamp).await?;
            } else {
                // The second one finds it gone.
                let args = Args::new().arg(&stored.stamp).arg("begin");
                existed |= self.ask_topic(topic, 0, &scripts::topic_delete, &args).await?.number()? == 1;
            }
        }
        self.forget(topic);
        self.forget_name(topic).await?;
        Ok(existed)
    }

    /// Removes a topic that is hidden already, from all of its shards.
    pub(super) async fn finish_removal(&self, topic: &TopicName, dying: &str) -> ScriptResult<()> {
        let stamp = dying.trim_start_matches(DYING);
        together(
            (1..Known::read(stamp)?.shards)
                .map(|shard| self.remove_shard(topic, shard, stamp).boxed())
                .collect(),
        )
        .await?;
        self.remove_shard(topic, 0, dying).await?;
        self.forget_name(topic).await
    }

    /// Takes the name from the list if there is no such topic.
    async fn forget_name(&self, topic: &TopicName) -> ScriptResult<()> {
        let names = self.keys.topics(topic.scope());
        self.connection.run(cmd("SREM").arg(&names).arg(topic.name())).await?;
        if self.stored_topic(topic).await?.is_some() {
            self.connection.run(cmd("SADD").arg(&names).arg(topic.name())).await?;
        }
        Ok(())
    }

    /// Removes what a shard has under a stamp, and nothing else, in steps.
    pub(super) async fn remove_shard(&self, topic: &TopicName, shard: u16, stamp: &str) -> ScriptResult<()> {
        loop {
            for name in self.names(topic, shard).await? {
                self.remove_from_shard(&SubscriptionName::stored(topic, &name), shard, stamp, "").await?;
            }
            let args = Args::new().arg(stamp).arg("end");
            let done = self.ask_topic(topic, shard, &scripts::topic_delete, &args).await?.number()? == 1;
            // A subscription may have been made meanwhile.
            if done
                || self.names(topic, shard).await?.is_empty()
                || !self.has_stamp(topic, shard, stamp).await?
            {
                return Ok(());
            }
        }
    }

    async fn has_stamp(&self, topic: &TopicName, shard: u16, stamp: &str) -> Result<bool> {
        let found = self.connection.run(cmd("HGET").arg(self.keys.meta(topic, shard)).arg("stamp")).await?;
        Ok(found != Value::Nil && text(found)? == stamp)
    }

    pub(super) async fn clear(&self, topic: &TopicName, known: &Known) -> ScriptResult<u64> {
        let mut removed = 0;
        for shard in 0..known.shards {
            // What is counted is what a subscription still needs.
            for name in self.names(topic, shard).await? {
                self.gc(&SubscriptionName::stored(topic, &name), shard, known).await?;
            }
            removed += self
                .ask_topic(topic, shard, &scripts::purge, &Args::new().arg(&known.stamp))
                .await?
                .count()?;
        }
        Ok(removed)
    }

    /// Lets a subscription give back what room it can. Answers whether it gave some.
    pub(super) async fn gc(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        known: &Known,
    ) -> ScriptResult<bool> {
        let args = Args::new().arg(&known.stamp).arg(subscription.name());
        let mut gave = false;
        loop {
            let mut reply = match self.ask(subscription, shard, &scripts::gc, &args).await {
                Err(ScriptError::NoSubscription) => return Ok(true),
                other => other?,
            };
            gave |= reply.number()? == 1;
            if reply.number()? == 0 {
                return Ok(gave);
            }
        }
    }
}
