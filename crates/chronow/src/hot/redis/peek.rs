//! Looking at messages without taking them.

use std::sync::Arc;

use redis::Value;

use super::RedisHot;
use super::filters::Compiled;
use super::pull::MAX_PER_PULL;
use super::reply::{Parts, count, read_message};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::hot::{MessageState, Peeked};
use crate::{Result, SubscriptionName, Timestamp};

impl RedisHot {
    async fn current_filter(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
    ) -> ScriptResult<Arc<Compiled>> {
        let options =
            self.read_subscription(subscription, known).await?.ok_or(ScriptError::NoSubscription)?;
        let json = options.filter.map(|filter| filter.to_string()).unwrap_or_default();
        Ok(Arc::new(Compiled::read(String::new(), &json)?))
    }

    pub(super) async fn look(
        &self,
        subscription: &SubscriptionName,
        limit: u32,
        known: &Known,
    ) -> ScriptResult<Vec<Peeked>> {
        let limit = limit.min(MAX_PER_PULL);
        let compiled = self.current_filter(subscription, known).await?;
        let mut found = Vec::new();
        for shard in 0..known.shards {
            let args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(limit);
            for message in self.ask(subscription, shard, &scripts::peek, &args).await?.list()? {
                let mut message = Parts::of(message)?;
                let id = message.text()?;
                let state = match message.text()?.as_str() {
                    "flight" => MessageState::InFlight,
                    "scheduled" => MessageState::Scheduled,
                    "deferred" => MessageState::Deferred,
                    _ => MessageState::Unread,
                };
                let deliveries = small(message.next())?;
                let until = message.text()?.parse().ok().map(Timestamp::from_millis);
                let stored = read_message(shard, &id, message.next())?;
                if state == MessageState::Unread && deliveries == 0 && !compiled.lets_pass(&stored) {
                    continue;
                }
                let order = id
                    .split_once('-')
                    .and_then(|(ms, seq)| Some((ms.parse::<u64>().ok()?, seq.parse::<u64>().ok()?)));
                found.push(((order, shard), Peeked { message: stored, state, deliveries, until }));
            }
        }
        found.sort_by_key(|(order, _)| *order);
        found.truncate(limit as usize);
        Ok(found.into_iter().map(|(_, peeked)| peeked).collect())
    }
}

pub(super) fn small(value: Value) -> Result<u32> {
    Ok(u32::try_from(count(value)?).unwrap_or(u32::MAX))
}
