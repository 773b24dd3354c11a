//! Pulling: what a subscription gets, shard by shard, and what its filter leaves out.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::RedisHot;
use super::batches::pull_of;
use super::connection::at_once;
use super::errors::is_refusal;
use super::filters::Compiled;
use super::keys::{ids_of_shard, split_id};
use super::publish::MAX_PER_SCRIPT;
use super::reply::{list, number, read_message, text};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::hot::{Delivery, Lock, Pulled};
use crate::{Result, SubscriptionName, Timestamp};

/// More are not handed out at once, whatever is asked for: a script blocks the server while it runs.
pub(super) const MAX_PER_PULL: u32 = 1_000;

/// How long a pull looks for what a filter lets pass.
const MAX_SIFTING: Duration = Duration::from_millis(100);

/// After how long a shard that refused is asked again.
pub(super) const REFUSED: Duration = Duration::from_millis(200);

impl RedisHot {
    pub(super) async fn deliver(
        &self,
        subscription: &SubscriptionName,
        max: u32,
        start: u32,
        known: &Known,
    ) -> ScriptResult<Pulled> {
        let max = max.min(MAX_PER_PULL);
        let (mut pulled, mut start) = (Pulled::default(), start as usize);
        let (wanted, begun) = (start, Instant::now());
        let begin = self.turn();
        let (mut answered, mut refused) = (false, None);
        for i in 0..u64::from(known.shards) {
            let shard = u16::try_from((begin + i) % u64::from(known.shards)).unwrap_or(0);
            let shares = self.deliver_shard(subscription, (max, start), shard, known, begun, &mut pulled);
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
                    .deliver_shard(subscription, (max, start), shard, known, begun, &mut pulled)
                    .await?
                    .min(start)
            }
            None => {}
        }
        pulled.started = wanted - start;
        Ok(pulled)
    }

    /// Answers how many were started. With a filter it goes on until something passes or its time is over:
    /// then there is more at once.
    async fn deliver_shard(
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
            let left_out = keep_passing(&compiled, found, (shard, &token, until), pulled)?;
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

    pub(super) async fn deliver_deferred(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        for shard in 0..known.shards {
            let own = ids_of_shard(ids, shard);
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
}

/// Keeps what the filter lets pass in time. Returns the locks of the others, with how they end and why.
fn keep_passing(
    compiled: &Compiled,
    found: Vec<Value>,
    (shard, token, until): (u16, &str, i64),
    pulled: &mut Pulled,
) -> Result<Vec<(Lock, &'static str, &'static str)>> {
    let mut left_out = Vec::new();
    pulled.deliveries.reserve(found.len());
    for message in found {
        let (delivery, late) = delivery(shard, token, until, message)?;
        if compiled.filter.is_some() && !compiled.lets_pass(&delivery.message) {
            left_out.push((delivery.lock, "skip", ""));
        } else if late {
            left_out.push((delivery.lock, "dead", "expired"));
        } else {
            pulled.deliveries.push(delivery);
        }
    }
    Ok(left_out)
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
