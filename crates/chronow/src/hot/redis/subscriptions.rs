//! Subscriptions: made on the first shard, and brought to the others from there.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::Value;

use super::RedisHot;
use super::calls::together;
use super::connection::at_once;
use super::errors::is_refusal;
use super::keys::split_id;
use super::reply::{Parts, text};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use super::topics::{json, options};
use crate::hot::millis::to_millis;
use crate::hot::{DeliverPolicy, SubscriptionOptions, SubscriptionPatch, TopicOptions};
use crate::{Error, Json, Result, SubscriptionName, TopicName};

/// What the first shard has of a subscription.
pub(super) struct StoredSubscription {
    pub(super) json: String,
    pub(super) generation: String,
    pub(super) rev: String,
    pub(super) whole: String,
    pub(super) made: String,
    pub(super) dying: bool,
}

impl RedisHot {
    pub(super) async fn stored_subscription(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
    ) -> ScriptResult<Option<StoredSubscription>> {
        let args = Args::new().arg(&known.stamp).arg(subscription.name());
        let mut found = match self.ask(subscription, 0, &scripts::sub_get, &args).await {
            Err(ScriptError::NoSubscription) => return Ok(None),
            other => other?,
        };
        let mut next = || found.text();
        let (json, generation, rev, whole, made, dying) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        Ok(Some(StoredSubscription { json, generation, rev, whole, made, dying: !dying.is_empty() }))
    }

    pub(super) async fn put_subscription(
        &self,
        subscription: &SubscriptionName,
        patch: &SubscriptionPatch,
        known: &Known,
    ) -> ScriptResult<SubscriptionOptions> {
        let name = subscription.name();
        for _ in 0..20 {
            let mut stored = self.stored_subscription(subscription, known).await?;
            if let Some(dying) = stored.as_ref().filter(|stored| stored.dying) {
                // Its removal comes first, whichever process began it.
                self.finish_subscription(subscription, known, &dying.generation).await?;
                continue;
            }
            let wanted = match &stored {
                Some(stored) => {
                    let before: SubscriptionOptions = options(&stored.json)?;
                    SubscriptionOptions { start: before.start.clone(), ..patch.apply(&before) }
                }
                None => patch.apply(&SubscriptionOptions::default()),
            };
            wanted.check()?;
            let new = json(&wanted)?;
            let (mut fresh, mut counting) = (false, true);
            if stored.as_ref().is_none_or(|stored| stored.json != new) {
                fresh = stored.is_none();
                let expected = stored.as_ref().map_or("", |stored| &stored.json);
                let start = position(&wanted.start, 0)?;
                let args = subscription_args(&known.stamp, name, expected, &new, &wanted, &start)?
                    .arg("")
                    .arg("")
                    .arg("")
                    .arg("")
                    .arg(sieve(&wanted));
                let mut reply = match self.ask(subscription, 0, &scripts::sub_put, &args).await {
                    Err(ScriptError::Changed | ScriptError::Dying) => continue,
                    other => other?,
                };
                let (generation, rev, made) = (reply.text()?, reply.text()?, reply.text()?);
                counting = reply.number()? == 1;
                stored = Some(StoredSubscription {
                    json: new,
                    generation,
                    rev,
                    made,
                    whole: String::new(),
                    dying: false,
                });
            }
            let Some(stored) = stored else { continue };
            if stored.whole != stored.rev {
                let put = |shard| {
                    self.put_subscription_on_shard(subscription, shard, known, &stored, fresh).boxed()
                };
                match together((1..known.shards).map(put).collect()).await {
                    Err(ScriptError::Changed | ScriptError::Dying | ScriptError::NoSubscription) => continue,
                    other => other?,
                };
                if counting {
                    self.count_skipped(subscription, 0, known).await?;
                }
                let args = Args::new().arg(&known.stamp).arg(name).arg(&stored.generation).arg(&stored.rev);
                self.ask(subscription, 0, &scripts::sub_whole, &args).await?;
            }
            return Ok(wanted);
        }
        Err(ScriptError::Changed)
    }

    /// Brings a subscription to a shard other than the first; `fresh` if it is being made at this moment.
    pub(super) async fn put_subscription_on_shard(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        known: &Known,
        stored: &StoredSubscription,
        fresh: bool,
    ) -> ScriptResult<()> {
        let own: SubscriptionOptions = options(&stored.json)?;
        let start = position(&own.start, shard)?;
        let args = subscription_args(&known.stamp, subscription.name(), "*", &stored.json, &own, &start)?
            .arg(&stored.generation)
            .arg(&stored.rev)
            .arg(&stored.made)
            .arg(u8::from(fresh))
            .arg(sieve(&own));
        let keys = self.keys.shard(subscription.topic(), shard, &[subscription.name()]);
        for attempt in 0..6 {
            let mut reply = Parts::of(self.connection.eval(&scripts::sub_put, &keys, &args).await?)?;
            match reply.text()?.as_str() {
                "ok" => {
                    for _ in 0..3 {
                        reply.next();
                    }
                    if reply.number()? == 1 {
                        self.count_skipped(subscription, shard, known).await?;
                    }
                    return Ok(());
                }
                "old" => self.upgrade(subscription.topic(), shard).await?,
                // Of an earlier generation.
                "dying" => self.remove_from_shard(subscription, shard, &known.stamp, "").await?,
                "changed" => return Err(ScriptError::Changed),
                "notopic" | "stale" if attempt < 3 => {
                    let topic = subscription.topic();
                    let Some(now) = self.stored_topic(topic).await?.filter(|now| *now.stamp == *known.stamp)
                    else {
                        return Err(ScriptError::Stale);
                    };
                    let options: TopicOptions = options(&now.json)?;
                    self.put_on_shard(topic, shard, known, &now.rev, &now.json, &options).await?;
                }
                _ => return Err(ScriptError::Stale),
            }
        }
        Err(ScriptError::Stale)
    }

    async fn count_skipped(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        known: &Known,
    ) -> ScriptResult<()> {
        let args = Args::new().arg(&known.stamp).arg(subscription.name());
        let keys = self.keys.shard(subscription.topic(), shard, &[subscription.name()]);
        loop {
            let mut reply = Parts::of(self.connection.eval(&scripts::sub_count, &keys, &args).await?)?;
            // Nothing is left to count of what is gone.
            if reply.text()? != "ok" || reply.number()? == 0 {
                return Ok(());
            }
        }
    }

    pub(super) async fn read_subscription(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
    ) -> ScriptResult<Option<SubscriptionOptions>> {
        match self.stored_subscription(subscription, known).await {
            Ok(Some(stored)) if !stored.dying => Ok(Some(options(&stored.json)?)),
            Ok(_) | Err(ScriptError::NoTopic) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn list_subscriptions(&self, topic: &TopicName) -> ScriptResult<Vec<String>> {
        let mut names = self.names(topic, 0).await?;
        names.retain(|name| !name.starts_with("__"));
        Ok(names)
    }

    pub(super) async fn remove_subscription(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
    ) -> ScriptResult<bool> {
        let args = Args::new().arg(&known.stamp).arg(subscription.name()).arg("").arg("begin");
        let mut reply = self.ask(subscription, 0, &scripts::sub_delete, &args).await?;
        let (existed, generation, left) = (reply.number()? == 1, reply.text()?, reply.number()? == 1);
        if left {
            match self.finish_subscription(subscription, known, &generation).await {
                // Its topic is gone, and it with it; what there is now is not what was meant.
                Err(ScriptError::Stale | ScriptError::NoTopic) => {}
                finished => finished?,
            }
        }
        Ok(existed)
    }

    pub(super) fn remove_idle<'a>(
        &'a self,
        topic: &'a TopicName,
        name: &'a str,
    ) -> BoxFuture<'a, ScriptResult<()>> {
        // Removing asks scripts, which may tell of idle ones.
        async move {
            let subscription = SubscriptionName::stored(topic, name);
            let known = self.known(topic).await?;
            // The first shard knows when it was last used, and each shard whose locks live there.
            let mut at_work = false;
            for shard in 1..known.shards {
                let args = Args::new().arg(&known.stamp).arg(name).arg("").arg("look");
                at_work |= self.ask(&subscription, shard, &scripts::sub_delete, &args).await?.number()? == 1;
            }
            let args = Args::new().arg(&known.stamp).arg(name).arg("").arg("idle").arg(u8::from(at_work));
            let mut reply = self.ask(&subscription, 0, &scripts::sub_delete, &args).await?;
            let (begun, generation) = (reply.number()? == 1, reply.text()?);
            if begun {
                tracing::info!(topic = topic.name(), subscription = name, "removed an idle subscription");
                self.finish_subscription(&subscription, &known, &generation).await?;
            }
            Ok(())
        }
        .boxed()
    }

    /// Removes a subscription that is hidden already, from all shards.
    async fn finish_subscription(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
        generation: &str,
    ) -> ScriptResult<()> {
        together(
            (1..known.shards)
                .map(|shard| self.remove_from_shard(subscription, shard, &known.stamp, generation).boxed())
                .collect(),
        )
        .await?;
        self.remove_from_shard(subscription, 0, &known.stamp, generation).await
    }

    /// Removes what a shard has of a generation of a subscription, in steps.
    pub(super) async fn remove_from_shard(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        stamp: &str,
        generation: &str,
    ) -> ScriptResult<()> {
        let args = Args::new().arg(stamp).arg(subscription.name()).arg(generation).arg("end");
        loop {
            let mut reply = self.ask(subscription, shard, &scripts::sub_delete, &args).await?;
            let (_, _, left) = (reply.number()?, reply.text()?, reply.number()?);
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Says on the first shard that a consumer is at work on a subscription on another one, if it is one that
    /// is removed when idle.
    pub(super) async fn touch(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
        idle: Value,
        locked: Duration,
    ) -> ScriptResult<()> {
        if known.shards > 1 && !text(idle)?.is_empty() {
            let args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(locked.as_millis());
            match at_once(self.ask(subscription, 0, &scripts::sub_touch, &args)).await {
                // Then the first shard removes nothing at this moment, either; and a consumer that has a lock
                // on any shard is at work.
                Err(ScriptError::Failed(error)) if is_refusal(&error) => {
                    tracing::debug!(%error, %subscription, "the first shard could not be notified that a subscription is in use");
                }
                result => drop(result?),
            }
        }
        Ok(())
    }
}

fn subscription_args(
    stamp: &str,
    name: &str,
    expected: &str,
    json: &str,
    options: &SubscriptionOptions,
    start: &str,
) -> Result<Args> {
    let backoff: Vec<String> =
        options.backoff.iter().map(|wait| to_millis(*wait).min(1 << 52).to_string()).collect();
    let filter = options.filter.as_ref().map(self::json).transpose()?;
    Ok(Args::new()
        .arg(stamp)
        .arg(name)
        .arg(expected)
        .arg(json)
        .arg(to_millis(options.visibility))
        .arg(options.max_deliveries)
        .arg(backoff.join(","))
        .arg(options.jitter_percent)
        .arg(u8::from(options.dead_letters))
        .maybe(options.auto_delete.map(to_millis))
        .arg(u8::from(options.paused))
        .maybe(filter)
        .arg(start))
}

/// What the filter asks of headers, for the scripts: names, each with the values of which a message must have
/// one. That is needed, and may not be enough: messages that have it are still judged by the whole filter.
/// Values that may be times are left to that, which knows their spellings.
fn sieve(options: &SubscriptionOptions) -> String {
    fn collect(filter: &Json, found: &mut Vec<(String, Vec<String>)>) {
        for (path, condition) in filter.as_object().into_iter().flatten() {
            if path == "$and" {
                condition.as_array().into_iter().flatten().for_each(|part| collect(part, found));
            }
            let Some(name) = path.strip_prefix("headers.").filter(|name| !name.contains('.')) else {
                continue;
            };
            let values: Vec<&Json> =
                match (condition.get("$eq"), condition.get("$in").and_then(Json::as_array)) {
                    (Some(value), _) => vec![value],
                    (None, Some(values)) => values.iter().collect(),
                    (None, None) => vec![condition],
                };
            let plain = |value: &&Json| {
                value.as_str().filter(|text| text.starts_with(char::is_alphabetic)).map(str::to_owned)
            };
            if let Some(values) = values.iter().map(plain).collect() {
                found.push((name.to_owned(), values));
            }
        }
    }
    let mut found = Vec::new();
    if let Some(filter) = &options.filter {
        collect(filter, &mut found);
    }
    // No values would be an object to Lua.
    found.retain(|(_, values)| !values.is_empty());
    if found.is_empty() { String::new() } else { serde_json::to_string(&found).unwrap_or_default() }
}

/// The last entry of a shard that a new subscription does not get.
fn position(start: &DeliverPolicy, shard: u16) -> Result<String> {
    // Entries of one millisecond never get this far.
    let before =
        |millis: u64| if millis == 0 { "0-0".to_owned() } else { format!("{}-999999999", millis - 1) };
    Ok(match start {
        DeliverPolicy::New => "$".to_owned(),
        DeliverPolicy::Earliest => "0-0".to_owned(),
        DeliverPolicy::Time(millis) => before(u64::try_from(*millis).unwrap_or(0)),
        DeliverPolicy::Id(id) => {
            let (own, inner) = split_id(id);
            let parsed = inner
                .split_once('-')
                .and_then(|(ms, seq)| Some((ms.parse::<u64>().ok()?, seq.parse::<u64>().ok()?)));
            let (ms, seq) = parsed.filter(|(ms, seq)| *ms < 1 << 50 && *seq < 1 << 32).ok_or_else(|| {
                Error::validation(format!(
                    "`{id}` is not a message id of this topic, no time, and not `new` or `earliest`"
                ))
            })?;
            if own == shard { format!("{ms}-{seq}") } else { before(ms) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_filter_asks_of_headers_is_found_and_nothing_else() {
        for (filter, expected) in [
            (chronos_db::json!({ "headers.kind": "a", "payload.n": 1 }), r#"[["kind",["a"]]]"#),
            (
                chronos_db::json!({ "$and": [{ "headers.kind": { "$in": ["a", "b"] } }, { "payload.n": 1 }] }),
                r#"[["kind",["a","b"]]]"#,
            ),
            (chronos_db::json!({ "headers.kind": { "$eq": "a", "$ne": "b" } }), r#"[["kind",["a"]]]"#),
            (chronos_db::json!({ "$or": [{ "headers.kind": "a" }, { "payload.n": 1 }] }), ""),
            (chronos_db::json!({ "headers.kind": { "$ne": "a" } }), ""),
            (
                chronos_db::json!({ "headers.at": "2024-01-01T00:00:00Z", "headers.n": { "$in": ["a", 1] }, "headers.a.b": "x" }),
                "",
            ),
        ] {
            let options =
                SubscriptionOptions { filter: Some(filter.clone()), ..SubscriptionOptions::default() };
            assert_eq!(sieve(&options), expected, "{filter}");
        }
    }
}
