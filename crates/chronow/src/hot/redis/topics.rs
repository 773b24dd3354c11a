//! Topics and subscriptions: their options, shards, and what is counted about them.
//!
//! The first shard of a topic has the say: it exists exactly if that one does. The others repeat its options and subscriptions, and are mended from
//! it when somebody meets one that is behind.

use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use redis::{Value, cmd};

use super::RedisHot;
use super::keys::split_id;
use super::reply::{Parts, list, number, text};
use super::script::{Args, Script, scripts};
use crate::hot::{Overflow, Start, SubscriptionOptions, SubscriptionPatch, SubscriptionStats, TopicOptions, TopicPatch, TopicStats};
use crate::{Error, ErrorKind, Result, Scope, SubscriptionName, TopicName};

/// Why a script did not do it.
pub(super) enum Miss {
    NoTopic,
    NoSubscription,
    /// The topic has another number of shards than we thought.
    Stale,
    Full(u64),
    /// The options changed meanwhile.
    Changed,
    /// Another script has to do it; nothing was done.
    Other,
    Failed(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Tried<T> = Result<T, Miss>;

/// Options of others are read through a JSON text that only we write.
fn options<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    chronos_db::json::from_slice(json.as_bytes())
        .map_err(|error| Error::new(ErrorKind::HotTier, "Redis holds options that cannot be read").caused_by(error))
}

fn json<T: serde::Serialize>(options: &T) -> Result<String> {
    chronos_db::json::to_string(options).map_err(|error| Error::validation("the options cannot be written").caused_by(error))
}

impl RedisHot {
    /// Runs a script on a shard, mending the shard if it is behind the first one, and telling the others of subscriptions that went.
    pub(super) async fn ask(&self, topic: &TopicName, shard: u16, script: &Script, args: &Args) -> Tried<Parts> {
        for attempt in 0..4 {
            let reply = self.link.eval(script, &self.keys.stream(topic, shard), args).await?;
            if let Some(parts) = self.judge(topic, shard, attempt, reply).await? {
                return Ok(parts);
            }
        }
        Err(Miss::Stale)
    }

    /// What a script answered; nothing if it did nothing, and should be called again.
    pub(super) async fn judge(&self, topic: &TopicName, shard: u16, attempt: usize, reply: Value) -> Tried<Option<Parts>> {
        let mut parts = Parts::of(reply)?;
        match parts.text()?.as_str() {
            "ok" => return Ok(Some(parts)),
            "notopic" if shard > 0 && attempt == 0 => self.mend(topic, shard).await?,
            "nosub" if shard > 0 && attempt == 0 => self.mend(topic, shard).await?,
            "notopic" => return Err(Miss::NoTopic),
            "nosub" => return Err(Miss::NoSubscription),
            "stale" => return Err(Miss::Stale),
            "changed" => return Err(Miss::Changed),
            "other" => return Err(Miss::Other),
            "full" => return Err(Miss::Full(parts.count()?)),
            "reaped" => {
                for name in parts.rest() {
                    let name = text(name)?;
                    tracing::info!(topic = topic.name(), subscription = name, "removed an idle subscription");
                    self.forget_subscription(topic, &name).await?;
                }
            }
            "idle" => {
                let mut parts = parts.rest().into_iter();
                while let (Some(name), Some(seen)) = (parts.next(), parts.next()) {
                    self.reap(topic, &text(name)?, number(seen)?).await?;
                }
            }
            other => return Err(Error::new(ErrorKind::HotTier, format!("a script answered `{other}`")).into()),
        }
        Ok(None)
    }

    /// Removes a subscription that was last used then as far as the first shard knows, unless the others know better.
    async fn reap(&self, topic: &TopicName, name: &str, seen: i64) -> Tried<()> {
        let mut used = seen;
        for shard in 1..self.shards(topic).await? {
            let reply = self.link.eval(&scripts::sub_idle, &self.keys.stream(topic, shard), &Args::new().arg(name)).await?;
            let mut parts = Parts::of(reply)?;
            if parts.text()? == "ok" {
                used = used.max(parts.number()?);
            }
        }
        let later = (used > seen).then_some(used);
        let args = Args::new().arg(name).arg(seen).maybe(later);
        let mut parts = Parts::of(self.link.eval(&scripts::sub_idle, &self.keys.stream(topic, 0), &args).await?)?;
        if parts.text()? == "ok" && parts.number()? == 1 {
            tracing::info!(topic = topic.name(), subscription = name, "removed an idle subscription");
            self.forget_subscription(topic, name).await?;
        }
        Ok(())
    }

    async fn forget_subscription(&self, topic: &TopicName, name: &str) -> Tried<()> {
        let shards = self.shards(topic).await?;
        for shard in 1..shards {
            self.link.eval(&scripts::sub_delete, &self.keys.stream(topic, shard), &Args::new().arg(name)).await?;
        }
        Ok(())
    }

    /// Runs something that needs the number of shards; once more if that had changed.
    pub(super) async fn on_topic<'a, T>(&'a self, topic: &TopicName, work: impl Fn(u16) -> BoxFuture<'a, Tried<T>> + Send) -> Tried<T> {
        let shards = self.shards(topic).await?;
        match work(shards).await {
            Err(Miss::Stale) => {
                self.forget_shards(topic);
                let shards = self.shards(topic).await?;
                work(shards).await
            }
            other => {
                if matches!(other, Err(Miss::NoTopic)) {
                    self.forget_shards(topic);
                }
                other
            }
        }
    }

    /// How many shards a topic has.
    pub(super) async fn shards(&self, topic: &TopicName) -> Tried<u16> {
        if let Some(shards) = self.known_shards(topic) {
            return Ok(shards);
        }
        let found = self.link.run(cmd("HGET").arg(self.keys.meta(topic, 0)).arg("shards")).await?;
        if found == Value::Nil {
            return Err(Miss::NoTopic);
        }
        let shards = u16::try_from(number(found)?).map_err(|_| Error::new(ErrorKind::HotTier, "Redis holds a wrong number of shards"))?;
        self.know_shards(topic, shards);
        Ok(shards)
    }

    pub(super) fn explain(miss: Miss, topic: &TopicName, subscription: Option<&SubscriptionName>) -> Error {
        match miss {
            Miss::Failed(error) => error,
            Miss::NoTopic => Error::new(ErrorKind::NotFound, "there is no such topic; create it first"),
            Miss::NoSubscription => Error::new(ErrorKind::NotFound, "there is no such subscription; create it first"),
            Miss::Full(owed) => {
                Error::new(ErrorKind::Full, format!("the topic holds {owed} messages that somebody still needs; publish again later"))
            }
            Miss::Stale | Miss::Changed | Miss::Other => {
                Error::new(ErrorKind::Conflict, "the options are being changed by others; try again").retryable()
            }
        }
        .on(subscription.map_or_else(|| topic.to_string(), ToString::to_string))
    }

    async fn stored_topic(&self, topic: &TopicName) -> Result<Option<String>> {
        match self.link.run(cmd("HGET").arg(self.keys.meta(topic, 0)).arg("options")).await? {
            Value::Nil => Ok(None),
            found => text(found).map(Some),
        }
    }

    pub(super) async fn put_topic(&self, topic: &TopicName, patch: &TopicPatch) -> Tried<TopicOptions> {
        for _ in 0..10 {
            let current = self.stored_topic(topic).await?;
            let mut wanted;
            if let Some(json) = &current {
                let before: TopicOptions = options(json)?;
                wanted = patch.apply(&before);
                wanted.shards = before.shards;
            } else {
                wanted = patch.apply(&TopicOptions::default());
            }
            wanted.check()?;
            let new = json(&wanted)?;
            if current.as_ref() != Some(&new) || current.is_none() {
                if current.is_none() {
                    // What an interrupted removal may have left behind must not come back.
                    for shard in 1..wanted.shards {
                        self.link.eval(&scripts::topic_delete, &self.keys.stream(topic, shard), &Args::new()).await?;
                    }
                }
                match self.ask(topic, 0, &scripts::topic_put, &topic_args(current.as_deref().unwrap_or(""), &new, &wanted)).await {
                    Err(Miss::Changed) => continue,
                    other => other?,
                };
                for shard in 1..wanted.shards {
                    self.ask(topic, shard, &scripts::topic_put, &topic_args("*", &new, &wanted)).await?;
                }
            }
            self.know_shards(topic, wanted.shards);
            self.link.run(cmd("SADD").arg(self.keys.topics(topic.scope())).arg(topic.name())).await?;
            return Ok(wanted);
        }
        Err(Miss::Changed)
    }

    /// Brings a shard to what the first one says.
    async fn mend(&self, topic: &TopicName, shard: u16) -> Tried<()> {
        let Some(current) = self.stored_topic(topic).await? else { return Err(Miss::NoTopic) };
        let wanted: TopicOptions = options(&current)?;
        if shard >= wanted.shards {
            return Err(Miss::Stale);
        }
        let at = self.keys.stream(topic, shard);
        self.link.eval(&scripts::topic_put, &at, &topic_args("*", &current, &wanted)).await?;
        for name in self.all_subscriptions(topic, wanted.shards).await? {
            let args = Args::new().arg(wanted.shards).arg(&name);
            let stored = match self.ask_plain(topic, 0, &scripts::sub_get, &args).await? {
                Some(mut parts) => parts.text()?,
                None => continue,
            };
            let own: SubscriptionOptions = options(&stored)?;
            let start = position(&own.start, shard)?;
            self.link.eval(&scripts::sub_put, &at, &subscription_args(wanted.shards, &name, "*", &stored, &own, &start)?).await?;
        }
        Ok(())
    }

    /// As [`Self::ask`], without mending anything: nothing unless the script says `ok`.
    async fn ask_plain(&self, topic: &TopicName, shard: u16, script: &Script, args: &Args) -> Result<Option<Parts>> {
        let mut parts = Parts::of(self.link.eval(script, &self.keys.stream(topic, shard), args).await?)?;
        Ok((parts.text()? == "ok").then_some(parts))
    }

    async fn all_subscriptions(&self, topic: &TopicName, shards: u16) -> Result<Vec<String>> {
        let Some(mut parts) = self.ask_plain(topic, 0, &scripts::subs, &Args::new().arg(shards)).await? else { return Ok(Vec::new()) };
        parts.list()?.into_iter().map(text).collect()
    }

    pub(super) async fn read_topic(&self, topic: &TopicName) -> Result<Option<TopicOptions>> {
        self.stored_topic(topic).await?.map(|json| options(&json)).transpose()
    }

    pub(super) async fn list_topics(&self, scope: &Scope) -> Result<Vec<String>> {
        let names = list(self.link.run(cmd("SMEMBERS").arg(self.keys.topics(scope))).await?)?;
        let mut names: Vec<String> = names.into_iter().map(text).collect::<Result<_>>()?;
        // An interrupted removal leaves the name; the topic itself decides.
        let there = try_join_all(names.iter().map(async |name| {
            let topic = TopicName::new(scope, name)?;
            number(self.link.run(cmd("EXISTS").arg(self.keys.meta(&topic, 0))).await?)
        }))
        .await?;
        let mut there = there.into_iter();
        names.retain(|_| there.next() == Some(1));
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn remove_topic(&self, topic: &TopicName) -> Tried<bool> {
        self.forget_shards(topic);
        let shards = match self.shards(topic).await {
            Ok(shards) => shards,
            Err(Miss::NoTopic) => 1,
            Err(other) => return Err(other),
        };
        let mut existed = false;
        // The first shard last: a removal that is interrupted can be repeated.
        for shard in (0..shards).rev() {
            existed = self.ask(topic, shard, &scripts::topic_delete, &Args::new()).await?.number()? == 1;
        }
        self.forget_shards(topic);
        self.link.run(cmd("SREM").arg(self.keys.topics(topic.scope())).arg(topic.name())).await?;
        Ok(existed)
    }

    pub(super) async fn put_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
        shards: u16,
    ) -> Tried<SubscriptionOptions> {
        let (topic, name) = (subscription.topic(), subscription.name());
        for _ in 0..10 {
            let current = match self.ask(topic, 0, &scripts::sub_get, &Args::new().arg(shards).arg(name)).await {
                Ok(mut parts) => Some(parts.text()?),
                Err(Miss::NoSubscription) => None,
                Err(other) => return Err(other),
            };
            let mut wanted;
            if let Some(json) = &current {
                let before: SubscriptionOptions = options(json)?;
                wanted = patch.apply(&before);
                wanted.start = before.start;
            } else {
                wanted = patch.apply(&SubscriptionOptions::default());
            }
            wanted.check()?;
            let new = json(&wanted)?;
            if current.as_ref() == Some(&new) {
                return Ok(wanted);
            }
            let expected = current.as_deref().unwrap_or("");
            let start = position(&wanted.start, 0)?;
            match self.ask(topic, 0, &scripts::sub_put, &subscription_args(shards, name, expected, &new, &wanted, &start)?).await {
                Err(Miss::Changed) => continue,
                other => other?,
            };
            for shard in 1..shards {
                let start = position(&wanted.start, shard)?;
                self.ask(topic, shard, &scripts::sub_put, &subscription_args(shards, name, "*", &new, &wanted, &start)?).await?;
            }
            return Ok(wanted);
        }
        Err(Miss::Changed)
    }

    pub(super) async fn read_subscription(&self, subscription: &SubscriptionName, shards: u16) -> Tried<Option<SubscriptionOptions>> {
        let args = Args::new().arg(shards).arg(subscription.name());
        match self.ask(subscription.topic(), 0, &scripts::sub_get, &args).await {
            Ok(mut parts) => Ok(Some(options(&parts.text()?)?)),
            Err(Miss::NoSubscription | Miss::NoTopic) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn list_subscriptions(&self, topic: &TopicName, shards: u16) -> Tried<Vec<String>> {
        let names = self.ask(topic, 0, &scripts::subs, &Args::new().arg(shards)).await?.list()?;
        let mut names: Vec<String> = names.into_iter().map(text).collect::<Result<_>>()?;
        names.retain(|name| !name.starts_with("__"));
        names.sort_unstable();
        Ok(names)
    }

    pub(super) async fn remove_subscription(&self, subscription: &SubscriptionName, shards: u16) -> Tried<bool> {
        let mut existed = false;
        for shard in (0..shards).rev() {
            let args = Args::new().arg(subscription.name());
            existed = self.ask(subscription.topic(), shard, &scripts::sub_delete, &args).await?.number()? == 1;
        }
        Ok(existed)
    }

    pub(super) async fn clear(&self, topic: &TopicName, shards: u16) -> Tried<u64> {
        let mut removed = 0;
        for shard in 0..shards {
            removed += self.ask(topic, shard, &scripts::purge, &Args::new().arg(shards)).await?.count()?;
        }
        Ok(removed)
    }

    pub(super) async fn count(&self, topic: &TopicName, shards: u16) -> Tried<TopicStats> {
        let mut all = TopicStats::default();
        for shard in 0..shards {
            let mut parts = self.ask(topic, shard, &scripts::stats, &Args::new().arg(shards)).await?;
            all.length += parts.count()?;
            all.dropped += parts.count()?;
            for row in parts.list()? {
                let mut row = Parts::of(row)?;
                let name = row.text()?;
                let known = all.subscriptions.iter().position(|sub| sub.subscription == name);
                if shard > 0 && known.is_none() {
                    // The first shard has let it go; an interrupted removal is brought to its end.
                    self.ask(topic, shard, &scripts::sub_delete, &Args::new().arg(&name)).await?;
                    continue;
                }
                let index = known.unwrap_or_else(|| {
                    all.subscriptions.push(SubscriptionStats { subscription: name, ..SubscriptionStats::default() });
                    all.subscriptions.len() - 1
                });
                let sub = &mut all.subscriptions[index];
                sub.backlog += row.count()?;
                sub.pending += row.count()?;
                sub.scheduled += row.count()?;
                sub.deferred += row.count()?;
                sub.dead_letters += row.count()?;
                sub.deliveries += row.count()?;
                sub.acked += row.count()?;
                if let Ok(age) = row.text()?.parse() {
                    sub.oldest_age = sub.oldest_age.max(Some(Duration::from_millis(age)));
                }
                sub.paused = row.text()? == "1";
            }
        }
        all.subscriptions.sort_unstable_by(|a, b| a.subscription.cmp(&b.subscription));
        (all.internal, all.subscriptions) = all.subscriptions.into_iter().partition(|sub| sub.subscription.starts_with("__"));
        Ok(all)
    }
}

/// A shard's part of what the topic may hold.
fn share(of: u64, shards: u16) -> u64 {
    of.div_ceil(u64::from(shards.max(1)))
}

fn topic_args(expected: &str, json: &str, options: &TopicOptions) -> Args {
    let overflow = match options.overflow {
        Overflow::Reject => "reject",
        Overflow::DropOldest => "drop_oldest",
    };
    // What Lua counts with has 53 bits.
    let max = share(options.max_len, options.shards).min(1 << 52);
    Args::new()
        .arg(expected)
        .arg(json)
        .arg(options.shards)
        .arg(max)
        .arg(overflow)
        .maybe(options.ttl_ms)
        .arg(options.dedup_window_ms.min(1 << 52))
}

fn subscription_args(shards: u16, name: &str, expected: &str, json: &str, options: &SubscriptionOptions, start: &str) -> Result<Args> {
    let backoff: Vec<String> = options.backoff_ms.iter().map(|wait| wait.min(&(1 << 52)).to_string()).collect();
    let filter = options.filter.as_ref().map(self::json).transpose()?;
    Ok(Args::new()
        .arg(shards)
        .arg(name)
        .arg(expected)
        .arg(json)
        .arg(options.visibility_ms)
        .arg(options.max_deliveries)
        .arg(backoff.join(","))
        .arg(options.jitter_percent)
        .arg(u8::from(options.dead_letters))
        .maybe(options.auto_delete_ms)
        .arg(u8::from(options.paused))
        .maybe(filter)
        .arg(start))
}

/// The last entry of a shard that a new subscription does not get.
fn position(start: &Start, shard: u16) -> Result<String> {
    // Entries of one millisecond never get this far.
    let before = |millis: u64| if millis == 0 { "0-0".to_owned() } else { format!("{}-999999999", millis - 1) };
    Ok(match start {
        Start::New => "$".to_owned(),
        Start::Earliest => "0-0".to_owned(),
        Start::Time(millis) => before(u64::try_from(*millis).unwrap_or(0)),
        Start::Id(id) => {
            let (own, inner) = split_id(id);
            let parsed = inner.split_once('-').and_then(|(ms, seq)| Some((ms.parse::<u64>().ok()?, seq.parse::<u64>().ok()?)));
            let (ms, seq) = parsed
                .filter(|(ms, seq)| *ms < 1 << 50 && *seq < 1 << 32)
                .ok_or_else(|| Error::validation(format!("`{id}` is no message id of this topic, no time, and not `new` or `earliest`")))?;
            if own == shard { format!("{ms}-{seq}") } else { before(ms) }
        }
    })
}
