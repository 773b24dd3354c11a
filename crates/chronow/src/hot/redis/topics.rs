//! Topics and subscriptions: their options, shards, and what is counted about them.
//!
//! The first shard of a topic has the say. A topic gets a stamp there when it is made, with its number of
//! shards and a generation of its own, and a subscription a number that grows; the other shards repeat both
//! with the options. What is done to a shard is done to what has that stamp and number alone: a late process
//! can neither remove nor skip what others have made since. A shard that is behind is mended by the process
//! that meets it.

use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use redis::{Value, cmd};

use super::RedisHot;
use super::calls::{DYING, together};
use super::reply::{Parts, list, number, text};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::hot::millis::to_millis;
use crate::hot::{DiscardPolicy, TopicOptions, TopicPatch};
use crate::{Error, ErrorKind, Result, Scope, SubscriptionName, TopicName};

/// What the first shard has of a topic.
pub(super) struct StoredTopic {
    pub(super) stamp: String,
    pub(super) json: String,
    pub(super) rev: String,
    /// The revision that all shards have.
    whole: String,
}

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

impl RedisHot {
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
        // If another one was made meanwhile, nothing was done, and the caller asks again.
        self.connection.eval(&scripts::upgrade, &keys, &args).await?;
        tracing::info!(
            topic = topic.name(),
            shard,
            subscriptions = names.len(),
            "migrated a topic to the layout of this version"
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
                // Its removal comes first, whichever process began it.
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
                    // Another process removed it, or made another one.
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
    pub(super) fn mend<'a>(
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
        .maybe(options.ttl.map(to_millis))
        .arg(to_millis(options.dedup_window).min(1 << 52))
}
