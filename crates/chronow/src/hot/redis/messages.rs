//! Messages: publishing, handing out, settling, dead letters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chronos_db::documents::filter::{Filter, parse};
use futures::FutureExt as _;
use futures::future::{join_all, try_join_all};
use redis::Value;
use tokio::time::Instant;

use super::RedisHot;
use super::batches::{Batch, Part, key_of, millis, pull_of};
use super::connection::{at_once, is_refusal};
use super::keys::{join_id, shard_of, split_id};
use super::replicated::Confirm;
use super::reply::{Parts, count, list, number, read_message, text, write_message};
use super::script::{Args, scripts};
use super::topics::{Known, ScriptError, ScriptResult, together};
use crate::hot::{
    DeadLetter, DeadLetterId, Delivery, Lock, MAX_LETTERS, MessageState, OutboundMessage, Peeked, PublishAck,
    Pulled, Select, Settle, SettleAndStart, SettleAndStartResult, Settled, StoredMessage, filter_view,
};
use crate::{Error, ErrorKind, Result, SubscriptionName, Timestamp, TopicName};

/// More are not handed out at once, whatever is asked for: a script blocks the server while it runs.
const MAX_PER_PULL: u32 = 1_000;
const MAX_PER_SCRIPT: usize = 500;
const LETTERS_PER_SCRIPT: usize = 16;
/// A pull looks so long for what a filter lets pass.
const MAX_SIFTING: Duration = Duration::from_millis(100);
/// A shard that refused what it was asked is asked again after so long.
const REFUSED: Duration = Duration::from_millis(200);
/// For so long somebody is called who waits, unless it says so again.
const WAITS: Duration = Duration::from_secs(15);

/// What those who wait no more left on the shards of each subscription.
pub(super) type Left = Mutex<HashMap<SubscriptionName, HashMap<u16, Vec<String>>>>;

/// What somebody who waits has put on each shard. The next one who waits for the same takes its place there.
pub(super) struct Armed<'a> {
    hot: &'a RedisHot,
    subscription: &'a SubscriptionName,
    put: Mutex<HashMap<u16, String>>,
}

impl<'a> Armed<'a> {
    pub(super) fn new(hot: &'a RedisHot, subscription: &'a SubscriptionName) -> Self {
        Self { hot, subscription, put: Mutex::default() }
    }

    /// What is on a shard of this one, or of one that waits no more.
    fn take(&self, shard: u16) -> String {
        let own = self.put.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        own.unwrap_or_else(|| {
            let mut left = self.hot.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.get_mut(self.subscription).and_then(|left| left.get_mut(&shard)?.pop()).unwrap_or_default()
        })
    }

    /// It went with its subscription.
    pub(super) fn forget(&self) {
        self.put.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn keep(&self, shard: u16, put: String) {
        if !put.is_empty() {
            self.put.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, put);
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let put = std::mem::take(&mut *self.put.lock().unwrap_or_else(PoisonError::into_inner));
        if !put.is_empty() {
            let mut left = self.hot.left.lock().unwrap_or_else(PoisonError::into_inner);
            let left = left.entry(self.subscription.clone()).or_default();
            for (shard, put) in put {
                left.entry(shard).or_default().push(put);
            }
        }
    }
}

/// The filter of a subscription, read once per version of its options.
pub(super) struct Compiled {
    version: String,
    filter: Option<Filter>,
}

chronos_db::debug_some!(Compiled { version });

impl Compiled {
    fn read(version: String, json: &str) -> Result<Self> {
        let filter = if json.is_empty() {
            None
        } else {
            let json = chronos_db::Json::parse(json).map_err(|error| {
                Error::new(ErrorKind::HotTier, "Redis holds a filter that cannot be read").caused_by(error)
            })?;
            Some(parse(&json, &mut |path| Ok(path.to_owned()))?)
        };
        Ok(Self { version, filter })
    }

    fn lets_pass(&self, message: &StoredMessage) -> bool {
        let Some(filter) = &self.filter else { return true };
        filter.matches(&filter_view(message))
    }
}

impl RedisHot {
    async fn ask_to_publish(
        &self,
        topic: &TopicName,
        shard: u16,
        known: &Known,
        batch: &Batch,
        confirm: Option<Confirm>,
    ) -> ScriptResult<Parts> {
        if batch.is_plain && confirm.is_none() {
            let args = batch.args(&known.stamp, None);
            match self
                .ask_with(topic, shard, &scripts::publish_plain, &self.keys.few(topic, shard), &args)
                .await
            {
                Err(ScriptError::Other) => {}
                other => return other,
            }
        }
        let mut last = false;
        loop {
            let args = batch.args(&known.stamp, Some(last));
            let told = match confirm {
                Some(confirm) => self.ask_and_confirm(topic, shard, &scripts::publish, &args, confirm).await,
                None => self.ask_topic(topic, shard, &scripts::publish, &args).await,
            };
            let Err(ScriptError::Crowded(names)) = told else { return told };
            // What one of those that are furthest behind needs no more may make room. If they need it all,
            // there is none.
            last = true;
            for name in names {
                if self.gc(&SubscriptionName::stored(topic, &name), shard, known).await? {
                    last = false;
                    break;
                }
            }
        }
    }

    pub(super) async fn accept(
        &self,
        topic: &TopicName,
        messages: &[OutboundMessage],
        known: &Known,
        confirm: Option<Confirm>,
    ) -> ScriptResult<Vec<PublishAck>> {
        let shards = known.shards;
        let mut batches: Vec<Batch> = (0..shards).map(|_| Batch::new()).collect();
        let spread = self.turn();
        for (index, message) in messages.iter().enumerate() {
            // Messages that may be the same must meet; order comes first.
            let shard = match (key_of(message), &message.dedup_id) {
                (Some(text), _) => shard_of(text, shards),
                (None, Some(text)) => shard_of(text, shards),
                (None, None) => u16::try_from((spread + index as u64) % u64::from(shards)).unwrap_or(0),
            };
            batches[usize::from(shard)].push(message, index)?;
        }
        let mut published: Vec<Option<PublishAck>> = vec![None; messages.len()];
        for (shard, mut batch) in (0..shards).zip(batches) {
            if batch.at.is_empty() {
                continue;
            }
            batch.end_run();
            let mut reply = match self.ask_to_publish(topic, shard, known, &batch, confirm).await {
                // That says that nothing was changed.
                Err(ScriptError::Failed(error))
                    if is_refusal(&error) && published.iter().any(Option::is_some) =>
                {
                    let accepted = published.iter().flatten().count();
                    let message = format!(
                        "{accepted} of {} messages, those of other shards, were accepted, and no more: {error}",
                        messages.len()
                    );
                    return Err(Error::new(ErrorKind::HotTier, message).retryable().caused_by(error).into());
                }
                asked => asked?,
            };
            match reply.next() {
                Value::Array(ids) => {
                    let duplicates = reply.text()?;
                    for ((index, id), duplicate) in batch.at.into_iter().zip(ids).zip(duplicates.bytes()) {
                        published[index] =
                            Some(PublishAck { id: join_id(shard, &text(id)?), duplicate: duplicate == b'1' });
                    }
                    self.note_revision(topic, shard, Some(reply.text()?));
                }
                prefix => {
                    let (prefix, first) = (text(prefix)?, reply.count()?);
                    for (index, sequence) in batch.at.into_iter().zip(first..) {
                        published[index] = Some(PublishAck {
                            id: join_id(shard, &format!("{prefix}{sequence}")),
                            duplicate: false,
                        });
                    }
                    self.note_revision(topic, shard, Some(reply.text()?));
                }
            }
        }
        published.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
            Error::new(ErrorKind::HotTier, "Redis accepted messages without telling their ids").into()
        })
    }

    pub(super) async fn take_back(&self, topic: &TopicName, id: &str) -> ScriptResult<bool> {
        let (shard, inner) = split_id(id);
        Ok(self.ask_topic(topic, shard, &scripts::cancel, &Args::new().arg(inner)).await?.number()? == 1)
    }

    pub(super) async fn deliver(
        &self,
        subscription: &SubscriptionName,
        max: u32,
        start: u32,
        known: &Known,
    ) -> ScriptResult<(Pulled, usize)> {
        let max = max.min(MAX_PER_PULL);
        let (mut pulled, mut start) = (Pulled::default(), start as usize);
        let (wanted, begun) = (start, Instant::now());
        let begin = self.turn();
        let (mut answered, mut refused) = (false, None);
        for i in 0..u64::from(known.shards) {
            let shard = u16::try_from((begin + i) % u64::from(known.shards)).unwrap_or(0);
            let shares = self.hand_out_shard(subscription, (max, start), shard, known, begun, &mut pulled);
            // One whose node is away, or whose slot is on its way, holds up no other.
            let handed = if known.shards > 1 { at_once(shares).await } else { shares.await };
            match handed {
                // Where some are left that are not started, as many as asked for are: so the started ones are
                // the first.
                Ok(started) => {
                    answered = true;
                    start -= started.min(start);
                }
                Err(ScriptError::Failed(error)) if known.shards > 1 && is_refusal(&error) => {
                    refused = Some(shard)
                }
                // What is locked already must reach the caller.
                Err(ScriptError::Failed(error)) if !pulled.deliveries.is_empty() => {
                    tracing::warn!(%error, subscription = %subscription, shard, "a pull brought only a part");
                    pulled.next_due = Some(Duration::ZERO);
                    break;
                }
                Err(other) => return Err(other),
            }
            if pulled.deliveries.len() >= max as usize {
                break;
            }
        }
        match refused {
            Some(_) if answered => {
                pulled.next_due = Some(pulled.next_due.map_or(REFUSED, |due| due.min(REFUSED)))
            }
            // As long as it takes, then.
            Some(shard) => {
                start -= self
                    .hand_out_shard(subscription, (max, start), shard, known, begun, &mut pulled)
                    .await?
                    .min(start)
            }
            None => {}
        }
        Ok((pulled, wanted - start))
    }

    /// Answers how many were started. With a filter it goes on until something passes or its time is over:
    /// then there is more at once.
    async fn hand_out_shard(
        &self,
        subscription: &SubscriptionName,
        (max, start): (u32, usize),
        shard: u16,
        known: &Known,
        begun: Instant,
        pulled: &mut Pulled,
    ) -> ScriptResult<usize> {
        let before = pulled.deliveries.len();
        let (mut shown, mut is_first) = (Args::new().arg("").arg(""), true);
        loop {
            let left = max as usize - pulled.deliveries.len();
            if left == 0 {
                return Ok(0);
            }
            let compiled = self.compiled(subscription);
            let version = compiled.as_ref().map_or("", |compiled| &compiled.version);
            let token = self.token();
            let mut args = Args::new()
                .arg(&known.stamp)
                .arg(subscription.name())
                .arg(left)
                .arg(&token)
                .arg(version)
                .arg(start);
            args.extend(&shown);
            let mut reply = self.ask(subscription, shard, &scripts::pull, &args).await?;
            let version = reply.text()?;
            let compiled = match (reply.next(), compiled) {
                (Value::Nil, Some(compiled)) => compiled,
                (json, _) => self.know_compiled(subscription, Compiled::read(version, &text(json)?)?),
            };
            let until = reply.number()?;
            // None if there is a filter: what it leaves out is not started.
            let started = usize::try_from(reply.count()?).unwrap_or(0);
            let (found, due, idle) = (reply.list()?, reply.number()?, reply.next());
            let (at, page) = (reply.text()?, reply.list()?);
            self.note_revision(subscription.topic(), shard, Some(reply.text()?));
            let mut left_out = Vec::new();
            pulled.deliveries.reserve(found.len());
            for message in found {
                let (delivery, late) = delivery(shard, &token, until, message)?;
                if compiled.filter.is_some() && !compiled.lets_pass(&delivery.message) {
                    left_out.push((delivery.lock, "skip", ""));
                } else if late {
                    left_out.push((delivery.lock, "dead", "expired"));
                } else {
                    pulled.deliveries.push(delivery);
                }
            }
            if shard > 0 {
                self.touch(subscription, known, idle, Duration::ZERO).await?;
            }
            let again = !left_out.is_empty();
            if again {
                self.leave_out(subscription, shard, known, left_out).await?;
            }
            // However slow this is, what was shown once is dealt with: so every pull gets somewhere.
            let is_over = pulled.deliveries.len() > before || (!is_first && begun.elapsed() > MAX_SIFTING);
            is_first = false;
            if (page.is_empty() && !again) || is_over {
                if let Ok(due) = u64::try_from(due) {
                    let due = Duration::from_millis(if again { 0 } else { due });
                    pulled.next_due = Some(pulled.next_due.map_or(due, |next| next.min(due)));
                }
                return Ok(started);
            }
            shown = sifted(&compiled, at, page, max as usize - pulled.deliveries.len())?;
        }
    }

    /// Settles what the filter leaves out, and what it lets pass too late; each with how and why.
    async fn leave_out(
        &self,
        subscription: &SubscriptionName,
        shard: u16,
        known: &Known,
        locks: Vec<(Lock, &'static str, &'static str)>,
    ) -> ScriptResult<()> {
        let mut args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(0).arg(locks.len());
        for (lock, how, why) in &locks {
            let (_, id) = split_id(&lock.id);
            args = args.arg(id).arg(pull_of(lock).unwrap_or_default()).arg(how).arg("").arg("").arg(why);
        }
        args.push(0);
        self.ask(subscription, shard, &scripts::settle_and_start, &args).await?;
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        subscription: &SubscriptionName,
        step: &SettleAndStart,
        known: &Known,
    ) -> ScriptResult<SettleAndStartResult> {
        let shards = known.shards;
        let mut parts: Vec<Part<'_>> = (0..shards).map(|_| Part::default()).collect();
        let mut result = SettleAndStartResult {
            settled: vec![Settled::Lost; step.settle.len()],
            started: vec![false; step.start.len()],
        };
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
        let work = (0..shards).zip(&parts).filter(|(_, part)| !part.is_empty());
        let replies = try_join_all(work.map(async |(shard, part)| {
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
                    Ok(Some((part, settled, started)))
                }
                // Nobody holds a lock on what is gone.
                Err(ScriptError::NoSubscription | ScriptError::NoTopic) => Ok(None),
                Err(other) => Err(other),
            }
        }))
        .await?;
        let mut again = Vec::new();
        for (part, settled, started) in replies.into_iter().flatten() {
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

    pub(super) async fn deliver_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        for shard in 0..known.shards {
            let own: Vec<&str> = ids
                .iter()
                .map(|id| split_id(id))
                .filter(|(own, _)| *own == shard)
                .map(|(_, id)| id)
                .collect();
            let mut own = own.as_slice();
            while !own.is_empty() {
                let token = self.token();
                let mut args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(&token);
                for id in &own[..own.len().min(MAX_PER_SCRIPT)] {
                    args.push(id);
                }
                let mut reply = self.ask(subscription, shard, &scripts::fetch_deferred, &args).await?;
                let until = reply.number()?;
                for message in reply.list()? {
                    deliveries.push(delivery(shard, &token, until, message)?.0);
                }
                // Not all if they are large.
                let seen = usize::try_from(reply.count()?).unwrap_or(1);
                own = &own[seen.clamp(1, own.len())..];
            }
        }
        Ok(deliveries)
    }

    pub(super) async fn list_dead(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
        known: &Known,
    ) -> ScriptResult<(Vec<DeadLetter>, Option<String>)> {
        let (after, limit) = (after.map(cursor).transpose()?, limit.min(MAX_LETTERS));
        let mut found = Vec::new();
        // Behind what a shard told, which had no room for more, nothing may be told of another one.
        let mut least: Option<(u64, u16)> = None;
        for shard in 0..known.shards {
            let from = match after {
                None => "-inf".to_owned(),
                // Letters of one moment are ordered by their shard.
                Some((score, last)) if shard > last => score.to_string(),
                Some((score, _)) => format!("({score}"),
            };
            let args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(from).arg(limit);
            let mut reply = self.ask(subscription, shard, &scripts::dead_list, &args).await?;
            let letters = reply.list()?;
            let cut_off = reply.number()? == 1;
            for letter in letters {
                found.push(dead_letter(shard, letter)?);
            }
            if let (true, Some((last, _))) = (cut_off, found.last()) {
                least = Some(least.map_or(*last, |least| least.min(*last)));
            }
        }
        found.sort_unstable_by_key(|(order, _)| *order);
        if let Some(least) = least {
            found.retain(|(order, _)| *order <= least);
        }
        found.truncate(limit as usize);
        let next = (found.len() == limit as usize || least.is_some())
            .then(|| found.last().map(|((score, shard), _)| format!("{score}.{shard}")))
            .flatten();
        Ok((found.into_iter().map(|(_, letter)| letter).collect(), next))
    }

    pub(super) async fn list_dead_ids(
        &self,
        subscription: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
        known: &Known,
    ) -> ScriptResult<Vec<DeadLetterId>> {
        let after = after.map(cursor).transpose()?;
        let begin = u64::try_from(from.as_millis()).unwrap_or(0).saturating_mul(1_000);
        let mut found = Vec::new();
        for shard in 0..known.shards {
            let from = match after {
                Some((score, last)) if score >= begin && shard <= last => format!("({score}"),
                Some((score, _)) => score.max(begin).to_string(),
                None => begin.to_string(),
            };
            let args = Args::new().arg(&known.stamp).arg(subscription.name()).arg(from).arg(limit);
            let mut reply =
                self.ask(subscription, shard, &scripts::dead_ids, &args).await?.list()?.into_iter();
            while let (Some(id), Some(score)) = (reply.next(), reply.next()) {
                // Whole, and below 2^53.
                let score = text(score)?
                    .parse::<f64>()
                    .map_err(|_| Error::new(ErrorKind::HotTier, "Redis holds a wrong score"))?
                    as u64;
                found.push(((score, shard), join_id(shard, &text(id)?)));
            }
        }
        found.sort_unstable();
        found.truncate(limit as usize);
        let told = found.into_iter().map(|((score, shard), id)| DeadLetterId {
            id,
            cursor: format!("{score}.{shard}"),
            failed_at: Timestamp::from_millis((score / 1_000).cast_signed()),
        });
        Ok(told.collect())
    }

    pub(super) async fn get_dead(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<Vec<DeadLetter>> {
        let mut found = Vec::new();
        for shard in 0..known.shards {
            let own: Vec<&str> = ids
                .iter()
                .map(|id| split_id(id))
                .filter(|(own, _)| *own == shard)
                .map(|(_, id)| id)
                .collect();
            // They may be large.
            for own in own.chunks(LETTERS_PER_SCRIPT) {
                let args = own.iter().fold(Args::new().arg(&known.stamp).arg(subscription.name()), Args::arg);
                for letter in self.ask(subscription, shard, &scripts::dead_get, &args).await?.list()? {
                    found.push(dead_letter(shard, letter)?.1);
                }
            }
        }
        Ok(found)
    }

    /// Redrives or purges dead letters.
    pub(super) async fn take_dead(
        &self,
        subscription: &SubscriptionName,
        how: &str,
        select: &Select,
        known: &Known,
    ) -> ScriptResult<u64> {
        let mut taken = 0;
        match select {
            Select::Ids(ids) => {
                for shard in 0..known.shards {
                    let own: Vec<&str> = ids
                        .iter()
                        .map(|id| split_id(id))
                        .filter(|(own, _)| *own == shard)
                        .map(|(_, id)| id)
                        .collect();
                    let mut own = own.as_slice();
                    while !own.is_empty() {
                        let page = &own[..own.len().min(MAX_PER_SCRIPT)];
                        let mut args = Args::new()
                            .arg(&known.stamp)
                            .arg(subscription.name())
                            .arg(how)
                            .arg("")
                            .arg(page.len());
                        for id in page {
                            args.push(id);
                        }
                        let mut reply = self.ask(subscription, shard, &scripts::dead_take, &args).await?;
                        taken += reply.count()?;
                        reply.next();
                        // Not all if they are large.
                        let seen = usize::try_from(reply.count()?).unwrap_or(1);
                        own = &own[seen.clamp(1, own.len())..];
                    }
                }
            }
            Select::Oldest(_) if known.shards > 1 => {
                // The oldest of all shards are only known together.
                let Select::Oldest(mut left) = *select else { return Ok(0) };
                while left > 0 {
                    let page = u32::try_from(left.min(MAX_PER_SCRIPT as u64)).unwrap_or(1);
                    let (letters, _) = self.list_dead(subscription, None, page, known).await?;
                    if letters.is_empty() {
                        break;
                    }
                    left -= letters.len() as u64;
                    let ids = Select::Ids(letters.into_iter().map(|letter| letter.message.id).collect());
                    taken += Box::pin(self.take_dead(subscription, how, &ids, known)).await?;
                }
            }
            Select::All | Select::Oldest(_) => {
                let most = if let Select::Oldest(most) = select { *most } else { u64::MAX };
                for shard in 0..known.shards {
                    // What fails again meanwhile is not taken again.
                    let mut latest = String::new();
                    while taken < most {
                        let page = (most - taken).min(MAX_PER_SCRIPT as u64);
                        let args = Args::new()
                            .arg(&known.stamp)
                            .arg(subscription.name())
                            .arg(how)
                            .arg(&latest)
                            .arg(page);
                        let mut reply = self.ask(subscription, shard, &scripts::dead_take, &args).await?;
                        taken += reply.count()?;
                        latest = reply.text()?;
                        let (seen, all) = (reply.count()?, reply.number()? == 1);
                        if all && seen < page {
                            break;
                        }
                    }
                }
            }
        }
        Ok(taken)
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

    pub(super) async fn put_back(
        &self,
        subscription: &SubscriptionName,
        messages: &[StoredMessage],
        known: &Known,
    ) -> ScriptResult<u64> {
        let shards = known.shards;
        let mut put = 0;
        for shard in 0..shards {
            let own: Vec<_> =
                messages.iter().filter(|message| split_id(&message.id).0 % shards == shard).collect();
            for own in own.chunks(MAX_PER_SCRIPT) {
                let mut args = Args::new().arg(&known.stamp).arg(subscription.name());
                for message in own {
                    args.push(split_id(&message.id).1);
                    write_message(&mut args, message)?;
                }
                put += self.ask(subscription, shard, &scripts::replay, &args).await?.count()?;
            }
        }
        Ok(put)
    }

    /// Says on all shards that somebody waits, for a while; when something is due at the earliest, if known.
    /// `armed` is what it put there.
    pub(super) async fn arm(
        &self,
        subscription: &SubscriptionName,
        number: u64,
        armed: &Armed<'_>,
        known: &Known,
    ) -> ScriptResult<Option<Duration>> {
        let channel = self.keys.wake(&self.process, self.connection.is_cluster());
        let channel = &channel;
        let arm = |shard| async move {
            let before = armed.take(shard);
            let args = Args::new()
                .arg(&known.stamp)
                .arg(subscription.name())
                .arg(millis(WAITS))
                .arg(channel)
                .arg(number)
                .arg(before);
            let asked = self.ask(subscription, shard, &scripts::arm, &args);
            let mut reply = match if known.shards > 1 { at_once(asked).await } else { asked.await } {
                // The others are waited for meanwhile.
                Err(ScriptError::Failed(error)) if known.shards > 1 && is_refusal(&error) => {
                    return Ok(i64::try_from(REFUSED.as_millis()).unwrap_or(0));
                }
                asked => asked?,
            };
            let (due, put) = (reply.number()?, reply.text()?);
            armed.keep(shard, put);
            Ok::<_, ScriptError>(due)
        };
        let dues = together((0..known.shards).map(|shard| arm(shard).boxed()).collect()).await?;
        Ok(dues.into_iter().filter_map(|due| u64::try_from(due).ok()).min().map(Duration::from_millis))
    }
}

/// What is said to the script about the messages that it showed: those that pass, up to the first for which
/// there is no room.
fn sifted(compiled: &Compiled, at: String, page: Vec<Value>, room: usize) -> Result<Args> {
    let (mut last, mut passing) = (at.clone(), Vec::new());
    for entry in page {
        let mut entry = list(entry)?.into_iter();
        let id = text(entry.next().unwrap_or_default())?;
        if compiled.lets_pass(&read_message(0, &id, entry.next().unwrap_or_default())?) {
            if passing.len() == room {
                break;
            }
            passing.push(id.clone());
        }
        last = id;
    }
    let args = Args::new().arg(at).arg(last);
    Ok(passing.into_iter().fold(args, Args::arg))
}

/// A message that a script handed out under the token it was given; and whether its time was over.
fn delivery(shard: u16, token: &str, until: i64, message: Value) -> Result<(Delivery, bool)> {
    let mut message = list(message)?;
    // What waited before it came; an entry as it lies in the stream has two parts.
    let deliveries = if message.len() > 2 { number(message.remove(1))? } else { 0 };
    let mut message = message.into_iter();
    let mut next = || message.next().unwrap_or(Value::Nil);
    let id = text(next())?;
    let message = read_message(shard, &id, next())?;
    let token = [token, ".", &id].concat();
    let delivery = Delivery {
        lock: Lock { id: message.id.clone(), token },
        message,
        deliveries: u32::try_from(deliveries.max(0)).unwrap_or(u32::MAX),
        locked_until: Timestamp::from_millis(until),
    };
    Ok((delivery, deliveries < 0))
}

/// A dead letter as a script shows it, and its place among all.
fn dead_letter(shard: u16, letter: Value) -> Result<((u64, u16), DeadLetter)> {
    let mut letter = Parts::of(letter)?;
    let id = letter.text()?;
    let score = letter.count()?;
    let letter = DeadLetter {
        message: read_message(shard, &id, letter.next())?,
        reason: letter.text()?,
        deliveries: small(letter.next())?,
        failed_at: Timestamp::from_millis((score / 1_000).cast_signed()),
    };
    Ok(((score, shard), letter))
}

fn small(value: Value) -> Result<u32> {
    Ok(u32::try_from(count(value)?).unwrap_or(u32::MAX))
}

fn cursor(text: &str) -> Result<(u64, u16)> {
    text.split_once('.')
        .and_then(|(score, shard)| Some((score.parse().ok()?, shard.parse().ok()?)))
        .ok_or_else(|| Error::validation(format!("`{text}` is no cursor of a page of dead letters")))
}
