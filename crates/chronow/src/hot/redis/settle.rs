//! Settling, starting and renewing under locks.

use std::time::Duration;

use futures::future::{join_all, try_join_all};

use super::RedisHot;
use super::batches::{Part, millis, pull_of};
use super::keys::split_id;
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::SubscriptionName;
use crate::hot::{Lock, Settle, SettleAndStart, SettleAndStartResult, Settled};

/// What a shard made of its part of a step: a letter for each settlement and each start.
struct ShardOutcome<'a, 'p> {
    part: &'a Part<'p>,
    settled: String,
    started: String,
}

impl RedisHot {
    /// What of a step belongs to which shard.
    fn parts_of<'a>(&self, step: &'a SettleAndStart, shards: u16) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'_>> = (0..shards).map(|_| Part::default()).collect();
        for (index, (lock, settle)) in step.settle.iter().enumerate() {
            let (shard, id) = split_id(&lock.id);
            // A lock of a shard that is not there cannot be held.
            let (Some(part), Some(token)) = (parts.get_mut(usize::from(shard)), pull_of(lock)) else {
                continue;
            };
            let (how, wait, reason) = match settle {
                Settle::Ack => {
                    part.acks.push(token, id, index);
                    continue;
                }
                Settle::Retry { delay, reason } => ("retry", *delay, reason.as_str()),
                Settle::DeadLetter { reason } => ("dead", None, reason.as_str()),
                Settle::Refuse { reason } => ("refuse", None, reason.as_str()),
                Settle::Defer => ("defer", None, ""),
                Settle::Release => ("release", None, ""),
            };
            part.others.push(id);
            part.others.push(token);
            part.others.push(how);
            match wait {
                Some(wait) => part.others.push(millis(wait)),
                None => part.others.push(""),
            }
            part.others.push(self.chance());
            part.others.push(reason);
            part.other_at.push(index);
        }
        for (index, lock) in step.start.iter().enumerate() {
            let (shard, id) = split_id(&lock.id);
            let (Some(part), Some(token)) = (parts.get_mut(usize::from(shard)), pull_of(lock)) else {
                continue;
            };
            part.starts.push(token, id, index);
        }
        parts
    }

    /// Nothing if the subscription is gone.
    async fn settle_on_shard<'a, 'p>(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        part: &'a Part<'p>,
        known: &Known,
    ) -> ScriptResult<Option<ShardOutcome<'a, 'p>>> {
        let mut args = Args::new().arg(&known.stamp).arg(subscription.name());
        part.acks.write(&mut args);
        args.push(part.other_at.len());
        args.extend(&part.others);
        part.starts.write(&mut args);
        match self.ask(subscription, shard, &scripts::settle_and_start, &args).await {
            Ok(mut reply) => {
                let (settled, started) = (reply.text()?, reply.text()?);
                if shard > 0 {
                    self.touch(subscription, known, reply.next(), Duration::ZERO).await?;
                }
                Ok(Some(ShardOutcome { part, settled, started }))
            }
            // Nobody holds a lock on what is gone.
            Err(ScriptError::NoSubscription | ScriptError::NoTopic) => Ok(None),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn settle(
        &self,
        subscription: &SubscriptionName,
        step: &SettleAndStart,
        known: &Known,
    ) -> ScriptResult<SettleAndStartResult> {
        let shards = known.shards;
        let parts = self.parts_of(step, shards);
        let mut result = SettleAndStartResult {
            settled: vec![Settled::Lost; step.settle.len()],
            started: vec![false; step.start.len()],
        };
        let work = (0..shards).zip(&parts).filter(|(_, part)| !part.is_empty());
        let replies = try_join_all(
            work.map(async |(shard, part)| self.settle_on_shard(subscription, shard, part, known).await),
        )
        .await?;
        let mut again = Vec::new();
        for ShardOutcome { part, settled, started } in replies.into_iter().flatten() {
            for (&index, outcome) in part.acks.at().chain(&part.other_at).zip(settled.bytes()) {
                result.settled[index] = match outcome {
                    b'D' => Settled::Done,
                    b'X' => Settled::DeadLettered,
                    b'A' => {
                        again.push(index);
                        Settled::Lost
                    }
                    _ => Settled::Lost,
                };
            }
            for (&index, outcome) in part.starts.at().zip(started.bytes()) {
                result.started[index] = outcome == b'1';
            }
        }
        if !again.is_empty() {
            // These were too large to be moved in one go.
            let rest = SettleAndStart {
                settle: again.iter().map(|index| step.settle[*index].clone()).collect(),
                start: Vec::new(),
            };
            let rest = Box::pin(self.settle(subscription, &rest, known)).await?;
            for (index, settled) in again.into_iter().zip(rest.settled) {
                result.settled[index] = settled;
            }
        }
        Ok(result)
    }

    pub(super) async fn hold_on(
        &self,
        subscription: &SubscriptionName,
        locks: &[Lock],
        known: &Known,
    ) -> ScriptResult<Vec<bool>> {
        // At once: a lock on one shard does not wait for another shard.
        let renewed =
            join_all((0..known.shards).map(|shard| self.hold_on_shard(subscription, locks, shard, known)))
                .await;
        let mut held = vec![false; locks.len()];
        for renewed in renewed {
            for index in renewed? {
                held[index] = true;
            }
        }
        Ok(held)
    }

    /// Which of the locks live on this shard and were renewed.
    async fn hold_on_shard(
        &self,
        subscription: &SubscriptionName,
        locks: &[Lock],
        shard: u16,
        known: &Known,
    ) -> ScriptResult<Vec<usize>> {
        let mut args = Args::new().arg(&known.stamp).arg(subscription.name());
        let mut at = Vec::new();
        for (index, lock) in locks.iter().enumerate() {
            let (own, id) = split_id(&lock.id);
            if let (true, Some(token)) = (own == shard, pull_of(lock)) {
                args = args.arg(id).arg(token);
                at.push(index);
            }
        }
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let mut reply = match self.ask(subscription, shard, &scripts::renew, &args).await {
            Err(ScriptError::NoSubscription | ScriptError::NoTopic) => return Ok(Vec::new()),
            asked => asked?,
        };
        let held = at
            .into_iter()
            .zip(reply.text()?.into_bytes())
            .filter(|(_, outcome)| *outcome == b'1')
            .map(|(index, _)| index)
            .collect();
        if shard > 0 {
            let locked = Duration::from_millis(u64::try_from(reply.number()?).unwrap_or(0));
            self.touch(subscription, known, reply.next(), locked).await?;
        }
        Ok(held)
    }
}
