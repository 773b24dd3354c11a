//! Topics and subscriptions: their options, shards, and what is counted about them.
//!
//! The first shard of a topic has the say. A topic gets a stamp there when it is made, with its number of
//! shards and a generation of its own, and a subscription a number that grows; the other shards repeat both
//! with the options. What is done to a shard is done to what has that stamp and number alone: whoever is late
//! can neither remove nor skip what others have made since. A shard that is behind is mended by whoever meets
//! it.

use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use redis::{Value, cmd};
use std::sync::Arc;

use super::RedisHot;
use super::reply::{Parts, list, number, text};
use super::script::{Args, Script, scripts};
use crate::hot::{DiscardPolicy, TopicOptions, TopicPatch};
use crate::{Error, ErrorKind, Result, Scope, SubscriptionName, TopicName};

/// So many shards are asked at a time.
const TOGETHER: usize = 16;

/// Why a script did not do it.
pub(super) enum ScriptError {
    NoTopic,
    NoSubscription,
    /// The topic is another one than we thought, such as one with another number of shards.
    Stale,
    Full(u64),
    /// One of these subscriptions may have room to give back.
    Crowded(Vec<String>),
    /// The options changed meanwhile.
    Changed,
    /// Somebody is removing it.
    Dying,
    /// Another script has to do it; nothing was done.
    Other,
    Failed(Error),
}

impl From<Error> for ScriptError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type ScriptResult<T> = Result<T, ScriptError>;

/// Which topic of a name it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) shards: u16,
    /// The number of shards and the generation, as the scripts compare them.
    pub(super) stamp: Arc<str>,
}

impl Known {
    fn read(stamp: &str) -> Result<Self> {
        let shards = stamp.split_once(':').and_then(|(shards, _)| shards.parse().ok());
        let shards = shards.ok_or_else(|| {
            Error::new(ErrorKind::HotTier, format!("Redis holds `{stamp}` in the place of a topic's stamp"))
        })?;
        Ok(Self { shards, stamp: stamp.into() })
    }
}

/// What the first shard has of a topic.
pub(super) struct StoredTopic {
    pub(super) stamp: String,
    pub(super) json: String,
    pub(super) rev: String,
    /// The revision that all shards have.
    whole: String,
}

/// Before the stamp of a topic that is being removed.
const DYING: &str = "dying:";

/// Options of others are read through a JSON text that only we write.
pub(super) fn options<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    chronos_db::json::from_slice(json.as_bytes()).map_err(|error| {
        Error::new(ErrorKind::HotTier, "Redis holds options that cannot be read").caused_by(error)
    })
}

pub(super) fn json<T: serde::Serialize>(options: &T) -> Result<String> {
    chronos_db::json::to_string(options)
        .map_err(|error| Error::validation("the options cannot be written").caused_by(error))
}

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

    pub(super) fn explain(
        error: ScriptError,
        topic: &TopicName,
        subscription: Option<&SubscriptionName>,
    ) -> Error {
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
                format!("the topic holds {owed} messages that somebody still needs; publish again later"),
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
        .on(subscription.map_or_else(|| topic.to_string(), ToString::to_string))
    }

    pub(super) async fn stored_topic(&self, topic: &TopicName) -> Result<Option<StoredTopic>> {
        for _ in 0..3 {
            let names = ["stamp", "options", "rev", "whole"];
            let mut found = Parts::of(
                self.connection.run(cmd("HMGET").arg(self.keys.meta(topic, 0)).arg(&names)).await?,
            )?;
            let (stamp, json, rev, whole) = (found.next(), found.next(), found.next(), found.next());
            match (stamp, json) {
                (_, Value::Nil) => return Ok(None),
                (Value::Nil, _) => self.upgrade(topic, 0).await?,
                (stamp, json) => {
                    let whole = if whole == Value::Nil { String::new() } else { text(whole)? };
                    return Ok(Some(StoredTopic {
                        stamp: text(stamp)?,
                        json: text(json)?,
                        rev: text(rev)?,
                        whole,
                    }));
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "subscriptions are being made by an earlier version; try again")
            .retryable())
    }

    /// Brings what an earlier version left to the shape of this one.
    pub(super) async fn upgrade(&self, topic: &TopicName, shard: u16) -> Result<()> {
        let subscriptions = self.keys.old_subscriptions(topic, shard);
        let names: Vec<String> = list(self.connection.run(cmd("SMEMBERS").arg(&subscriptions)).await?)?
            .into_iter()
            .map(text)
            .collect::<Result<_>>()?;
        let mut keys = self.keys.shard(topic, shard, &names);
        keys.push(subscriptions);
        let args = names.iter().fold(Args::new(), |args, name| args.arg(name));
        // If another one was made meanwhile, nothing was done, and whoever asks asks again.
        self.connection.eval(&scripts::upgrade, &keys, &args).await?;
        tracing::info!(
            topic = topic.name(),
            shard,
            subscriptions = names.len(),
            "brought a topic to the shape of this version"
        );
        Ok(())
    }

    pub(super) async fn put_topic(
        &self,
        topic: &TopicName,
        patch: &TopicPatch,
    ) -> ScriptResult<TopicOptions> {
        for _ in 0..20 {
            let stored = self.stored_topic(topic).await?;
            if let Some(dying) = stored.as_ref().filter(|stored| stored.stamp.starts_with(DYING)) {
                // Its removal comes first, whoever began it.
                self.finish_removal(topic, &dying.stamp).await?;
                continue;
            }
            let wanted = match &stored {
                Some(stored) => {
                    let before: TopicOptions = options(&stored.json)?;
                    TopicOptions { shards: before.shards, ..patch.apply(&before) }
                }
                None => patch.apply(&TopicOptions::default()),
            };
            wanted.check()?;
            let new = json(&wanted)?;
            let (stamp, rev, whole) = match stored {
                Some(stored) if stored.json == new => (stored.stamp, stored.rev, stored.whole),
                stored => {
                    let expected = stored.as_ref().map_or("", |stored| &stored.json);
                    let stamp = format!("{}:{}", wanted.shards, self.token());
                    let args = topic_args(expected, &new, &wanted).arg(stamp).arg("");
                    match self.ask_topic(topic, 0, &scripts::topic_put, &args).await {
                        Err(ScriptError::Changed) => continue,
                        other => {
                            let mut reply = other?;
                            (reply.text()?, reply.text()?, String::new())
                        }
                    }
                }
            };
            let known = Known::read(&stamp)?;
            if whole != rev {
                let put = |shard| self.put_on_shard(topic, shard, &known, &rev, &new, &wanted).boxed();
                let confirmed = together((1..known.shards).map(put).collect()).await;
                match confirmed {
                    // Somebody removed it, or made another one.
                    Err(
                        ScriptError::Stale | ScriptError::Changed | ScriptError::Dying | ScriptError::NoTopic,
                    ) => continue,
                    other => other?,
                };
                self.ask_topic(topic, 0, &scripts::topic_whole, &Args::new().arg(&stamp).arg(&rev)).await?;
            }
            self.remember(topic, known);
            let names = self.keys.topics(topic.scope());
            // A full server refuses to add what is there already.
            if number(self.connection.run(cmd("SISMEMBER").arg(&names).arg(topic.name())).await?)? == 0 {
                self.connection.run(cmd("SADD").arg(&names).arg(topic.name())).await?;
            }
            return Ok(wanted);
        }
        Err(ScriptError::Changed)
    }

    /// Brings the topic's options to a shard other than the first.
    pub(super) async fn put_on_shard(
        &self,
        topic: &TopicName,
        shard: u16,
        known: &Known,
        rev: &str,
        json: &str,
        options: &TopicOptions,
    ) -> ScriptResult<()> {
        let args = topic_args("*", json, options).arg(&known.stamp).arg(rev);
        for _ in 0..4 {
            let keys = self.keys.shard::<&str>(topic, shard, &[]);
            let mut reply = Parts::of(self.connection.eval(&scripts::topic_put, &keys, &args).await?)?;
            match reply.text()?.as_str() {
                "ok" => return Ok(()),
                "old" => self.upgrade(topic, shard).await?,
                "stale" => {
                    // Another generation. What the first shard said before is what it says still, so the
                    // other one is gone from there for good.
                    let other = reply.text()?;
                    match self.stored_topic(topic).await? {
                        Some(stored) if *stored.stamp == *known.stamp => {
                            self.remove_shard(topic, shard, &other).await?
                        }
                        _ => return Err(ScriptError::Stale),
                    }
                }
                other => {
                    return Err(Error::new(ErrorKind::HotTier, format!("a script answered `{other}`")).into());
                }
            }
        }
        Err(ScriptError::Stale)
    }

    /// Brings a shard to what the first one says. `other` is the stamp that it has, if it has another one
    /// than the caller.
    fn mend<'a>(
        &'a self,
        topic: &'a TopicName,
        shard: u16,
        other: Option<String>,
    ) -> BoxFuture<'a, ScriptResult<()>> {
        // Mending asks scripts, which may have to mend.
        async move {
            let Some(stored) =
                self.stored_topic(topic).await?.filter(|stored| !stored.stamp.starts_with(DYING))
            else {
                self.forget(topic);
                return Err(ScriptError::NoTopic);
            };
            let known = Known::read(&stored.stamp)?;
            if shard >= known.shards
                || self.remembered(topic).is_some_and(|remembered| remembered != known)
                || other.as_deref() == Some(&*known.stamp)
            {
                return Err(ScriptError::Stale);
            }
            let wanted: TopicOptions = options(&stored.json)?;
            self.put_on_shard(topic, shard, &known, &stored.rev, &stored.json, &wanted).await?;
            for name in self.names(topic, 0).await? {
                let subscription = SubscriptionName::stored(topic, &name);
                match self.stored_subscription(&subscription, &known).await? {
                    Some(own) if !own.dying => {
                        self.put_subscription_on_shard(&subscription, shard, &known, &own, false).await?
                    }
                    _ => {}
                }
            }
            // If it was removed meanwhile, this shard was perhaps made anew behind the removal.
            match self.stored_topic(topic).await? {
                Some(now) if now.stamp == stored.stamp => Ok(()),
                _ => {
                    self.remove_shard(topic, shard, &stored.stamp).await?;
                    self.forget(topic);
                    Err(ScriptError::Stale)
                }
            }
        }
        .boxed()
    }

    /// All subscriptions of a shard, also the library's own and those that are being removed.
    pub(super) async fn names(&self, topic: &TopicName, shard: u16) -> Result<Vec<String>> {
        let mut range = cmd("ZRANGE");
        range.arg(self.keys.floors(topic, shard)).arg(0).arg(-1);
        let mut names: Vec<String> =
            list(self.connection.run(&range).await?)?.into_iter().map(text).collect::<Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn read_topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        let stored = self.stored_topic(topic).await?.filter(|stored| !stored.stamp.starts_with(DYING));
        stored.map(|stored| options(&stored.json)).transpose()
    }

    pub(super) async fn list_topics(&self, scope: &Scope) -> Result<Vec<String>> {
        let names = list(self.connection.run(cmd("SMEMBERS").arg(self.keys.topics(scope))).await?)?;
        let mut names: Vec<String> = names.into_iter().map(text).collect::<Result<_>>()?;
        // An interrupted removal leaves the name; the topic itself decides.
        let there = try_join_all(names.iter().map(async |name| {
            let topic = TopicName::new(scope, name)?;
            number(self.connection.run(cmd("EXISTS").arg(self.keys.meta(&topic, 0))).await?)
        }))
        .await?;
        let mut there = there.into_iter();
        names.retain(|_| there.next() == Some(1));
        names.sort_unstable();
        Ok(names)
    }

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
                // Whoever comes second finds it gone.
                let args = Args::new().arg(&stored.stamp).arg("begin");
                existed |= self.ask_topic(topic, 0, &scripts::topic_delete, &args).await?.number()? == 1;
            }
        }
        self.forget(topic);
        self.forget_name(topic).await?;
        Ok(existed)
    }

    /// Removes a topic that is hidden already, from all of its shards.
    async fn finish_removal(&self, topic: &TopicName, dying: &str) -> ScriptResult<()> {
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
    async fn remove_shard(&self, topic: &TopicName, shard: u16, stamp: &str) -> ScriptResult<()> {
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
            // What is counted is what somebody still needs.
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

/// A shard's part of what the topic may hold.
fn share(of: u64, shards: u16) -> u64 {
    of.div_ceil(u64::from(shards.max(1)))
}

fn topic_args(expected: &str, json: &str, options: &TopicOptions) -> Args {
    let overflow = match options.overflow {
        DiscardPolicy::Reject => "reject",
        DiscardPolicy::DropOldest => "drop_oldest",
    };
    // What Lua counts with has 53 bits.
    let max = share(options.max_len, options.shards).min(1 << 52);
    Args::new()
        .arg(expected)
        .arg(json)
        .arg(max)
        .arg(overflow)
        .maybe(options.ttl_ms)
        .arg(options.dedup_window_ms.min(1 << 52))
}
