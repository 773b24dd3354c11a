//! Asking the scripts of a topic's shards, and what their refusals mean.

use futures::future::{BoxFuture, try_join_all};
use redis::Value;

use super::RedisHot;
use super::reply::{Parts, text};
use super::script::{Args, Script};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::{Error, ErrorKind, Result, SubscriptionName, TopicName};

/// Before the stamp of a topic that is being removed.
pub(super) const DYING: &str = "dying:";

/// How many shards are asked at a time.
const TOGETHER: usize = 16;

/// Does things on many shards, some at a time.
pub(super) async fn together<T>(mut work: Vec<BoxFuture<'_, ScriptResult<T>>>) -> ScriptResult<Vec<T>> {
    let mut all = Vec::with_capacity(work.len());
    while !work.is_empty() {
        let rest = work.split_off(work.len().min(TOGETHER));
        all.extend(try_join_all(std::mem::replace(&mut work, rest)).await?);
    }
    Ok(all)
}

impl RedisHot {
    /// Runs a script about a subscription on a shard, as [`Self::ask_with`] does.
    pub(super) async fn ask(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        script: &Script,
        args: &Args,
    ) -> ScriptResult<Parts> {
        let keys = self.keys.shard(subscription.topic(), shard, &[subscription.name()]);
        self.ask_with(subscription.topic(), shard, script, &keys, args).await
    }

    /// Runs a script about a topic on a shard, as [`Self::ask_with`] does.
    pub(super) async fn ask_topic(
        &self,
        topic: &TopicName,
        shard: u16,
        script: &Script,
        args: &Args,
    ) -> ScriptResult<Parts> {
        self.ask_with(topic, shard, script, &self.keys.shard::<&str>(topic, shard, &[]), args).await
    }

    /// Runs a script on a shard, mending the shard if it is behind the first one, and removing idle
    /// subscriptions that it tells of.
    pub(super) async fn ask_with(
        &self,
        topic: &TopicName,
        shard: u16,
        script: &Script,
        keys: &[String],
        args: &Args,
    ) -> ScriptResult<Parts> {
        let mut attempt = 0;
        while attempt < 4 {
            let reply = self.connection.eval(script, keys, args).await?;
            if let Some(parts) = self.classify(topic, shard, &mut attempt, reply).await? {
                return Ok(parts);
            }
        }
        Err(ScriptError::Stale)
    }

    /// What a script answered; nothing if it did nothing, and should be called again.
    pub(super) async fn classify(
        &self,
        topic: &TopicName,
        shard: u16,
        attempt: &mut usize,
        reply: Value,
    ) -> ScriptResult<Option<Parts>> {
        let mut parts = Parts::of(reply)?;
        let first = *attempt == 0;
        match parts.text()?.as_str() {
            "ok" => return Ok(Some(parts)),
            "notopic" | "nosub" if shard > 0 && first => self.mend(topic, shard, None).await?,
            "stale" if shard > 0 && first => self.mend(topic, shard, Some(parts.text()?)).await?,
            "old" => self.upgrade(topic, shard).await?,
            "notopic" => return Err(ScriptError::NoTopic),
            "nosub" => return Err(ScriptError::NoSubscription),
            "stale" => return Err(ScriptError::Stale),
            "changed" => return Err(ScriptError::Changed),
            "dying" => return Err(ScriptError::Dying),
            "other" => return Err(ScriptError::Other),
            "full" => return Err(ScriptError::Full(parts.count()?)),
            "crowded" => {
                return Err(ScriptError::Crowded(parts.rest().into_iter().map(text).collect::<Result<_>>()?));
            }
            "idle" => {
                for name in parts.rest() {
                    self.remove_idle(topic, &text(name)?).await?;
                }
                // There may be more of them.
                return Ok(None);
            }
            other => {
                return Err(Error::new(ErrorKind::HotTier, format!("a script answered `{other}`")).into());
            }
        }
        *attempt += 1;
        Ok(None)
    }

    /// Runs something that needs to know which topic it is; again if that had changed.
    pub(super) async fn on_topic<'a, T>(
        &'a self,
        topic: &TopicName,
        work: impl Fn(Known) -> BoxFuture<'a, ScriptResult<T>> + Send,
    ) -> ScriptResult<T> {
        let mut attempt = 0;
        loop {
            let known = self.known(topic).await?;
            match work(known).await {
                Err(ScriptError::Stale) if attempt < 3 => {
                    self.forget(topic);
                    attempt += 1;
                }
                other => {
                    if matches!(other, Err(ScriptError::NoTopic)) {
                        self.forget(topic);
                    }
                    return other;
                }
            }
        }
    }

    /// Which topic it is now.
    pub(super) async fn known(&self, topic: &TopicName) -> ScriptResult<Known> {
        if let Some(known) = self.remembered(topic) {
            return Ok(known);
        }
        match self.stored_topic(topic).await? {
            Some(stored) if !stored.stamp.starts_with(DYING) => {
                let known = Known::read(&stored.stamp)?;
                self.remember(topic, known.clone());
                Ok(known)
            }
            _ => Err(ScriptError::NoTopic),
        }
    }

    pub(super) fn explain(error: ScriptError) -> Error {
        match error {
            ScriptError::Failed(error) => error,
            ScriptError::NoTopic => {
                Error::new(ErrorKind::NotFound, "there is no such topic; create it first")
            }
            ScriptError::NoSubscription => {
                Error::new(ErrorKind::NotFound, "there is no such subscription; create it first")
            }
            ScriptError::Full(owed) => Error::new(
                ErrorKind::Full,
                format!(
                    "the topic holds {owed} messages that a subscription still needs; publish again later"
                ),
            ),
            ScriptError::Stale
            | ScriptError::Changed
            | ScriptError::Dying
            | ScriptError::Other
            | ScriptError::Crowded(_) => {
                Error::new(ErrorKind::Conflict, "the options are being changed by others; try again")
                    .retryable()
            }
        }
    }
}
