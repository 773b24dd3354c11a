//! What is asked of single servers: publishing that replicas confirm, and what other subscriptions need.
//!
//! `WAIT` counts replicas for the writes of its own connection, and blocks it. So such a publish and its
//! `WAIT` have a connection to themselves, and one that does not come back by itself: on another one `WAIT`
//! would count for nothing.

use std::time::{Duration, Instant};

use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind, cmd};

use super::RedisHot;
use super::errors::{failed, is_moving, is_read_only};
use super::exclusive::Own;
use super::keys::split_id;
use super::reply::{Parts, count, text};
use super::script::{Args, Script, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use super::state::Confirm;
use crate::hot::millis::to_millis;
use crate::{Error, ErrorKind, Result, SubscriptionName, TopicName};

/// Redirections of a cluster that are followed.
const HOPS: usize = 5;

/// Ids asked about in one script.
const MAX_IDS: usize = 200;

/// The node that a cluster says to go to.
fn redirected(error: &RedisError) -> Option<(String, u16)> {
    if error.kind() != RedisKind::Server(ServerErrorKind::Moved) {
        return None;
    }
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
}

impl RedisHot {
    /// Runs a script that publishes, and waits for the replicas.
    pub(super) async fn ask_and_confirm(
        &self,
        topic: &TopicName,
        shard: u16,
        script: &Script,
        args: &Args,
        confirm: Confirm,
    ) -> ScriptResult<Parts> {
        let _call = self.connection.call()?;
        let (key, keys) = (self.keys.stream(topic, shard), self.keys.shard::<&str>(topic, shard, &[]));
        let mut own = self.connection.own(None).await?;
        let (mut attempt, mut hops, begun) = (0, 0, Instant::now());
        loop {
            let reply = match own.eval(script, &keys, args).await {
                Ok(reply) => reply,
                Err(error) => match redirected(&error).filter(|_| hops < HOPS) {
                    Some(node) => {
                        hops += 1;
                        own = self.connection.own(Some(node)).await?;
                        continue;
                    }
                    None if is_read_only(&error) && hops < HOPS => {
                        // It did nothing; the name may lead to the new master by now.
                        hops += 1;
                        self.connection.is_demoted();
                        own = self.connection.own(None).await?;
                        continue;
                    }
                    // Its slot is on the way; nothing was done. At the end of a move each of two nodes may
                    // name the other for a moment.
                    None if is_moving(&error) && begun.elapsed() < own.timeout => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        hops = 0;
                        continue;
                    }
                    None => return Err(failed(error).into()),
                },
            };
            if let Some(parts) = self.classify(topic, shard, &mut attempt, reply).await? {
                confirmed(&mut own, &key, confirm).await?;
                self.connection.give_back(own);
                return Ok(parts);
            }
            if attempt >= 4 {
                return Err(ScriptError::Stale);
            }
        }
    }

    pub(super) async fn ask_others(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<Vec<bool>> {
        let mut needed = vec![true; ids.len()];
        for shard in 0..known.shards {
            let own: Vec<(usize, &str)> = ids
                .iter()
                .enumerate()
                .map(|(index, id)| (index, split_id(id)))
                .filter(|(_, id)| id.0 == shard)
                .map(|(i, id)| (i, id.1))
                .collect();
            for own in own.chunks(MAX_IDS) {
                for index in self.ask_others_about(subscription, own, shard, known).await? {
                    needed[index] = false;
                }
            }
        }
        Ok(needed)
    }

    /// Those of these messages of a shard that nobody else needs. Every other subscription is asked, and then
    /// whether all of them, also those made meanwhile, have read what was asked about: so what nobody needs
    /// stays so.
    async fn ask_others_about(
        &self,
        subscription: &SubscriptionName,
        own: &[(usize, &str)],
        shard: u16,
        known: &Known,
    ) -> ScriptResult<Vec<usize>> {
        let topic = subscription.topic();
        let (numbers, _) = self.placed(subscription, own, shard, known).await?;
        let mut left: Vec<(usize, &str, u64)> = own
            .iter()
            .zip(numbers)
            .filter_map(|((index, id), number)| Some((*index, *id, number?)))
            .collect();
        for name in self.names(topic, shard).await? {
            if name == subscription.name() || left.is_empty() {
                continue;
            }
            let mut args = Args::new().arg(&known.stamp).arg(&name);
            for (_, id, number) in &left {
                args = args.arg(id).arg(number);
            }
            let answers =
                match self.ask(&SubscriptionName::stored(topic, &name), shard, &scripts::needed, &args).await
                {
                    Err(ScriptError::NoSubscription) => continue,
                    other => other?.text()?,
                };
            let mut answers = answers.bytes();
            left.retain(|_| answers.next() == Some(b'0'));
        }
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let (_, read) = self.placed(subscription, own, shard, known).await?;
        Ok(left.into_iter().filter(|(_, _, number)| *number <= read).map(|(index, ..)| index).collect())
    }

    /// The numbers of messages that the subscription has, and up to which number every subscription has read.
    async fn placed(
        &self,
        subscription: &SubscriptionName,
        own: &[(usize, &str)],
        shard: u16,
        known: &Known,
    ) -> ScriptResult<(Vec<Option<u64>>, u64)> {
        let args = own
            .iter()
            .fold(Args::new().arg(&known.stamp).arg(subscription.name()), |args, (_, id)| args.arg(id));
        let mut reply = self.ask(subscription, shard, &scripts::placed, &args).await?;
        let numbers = reply
            .list()?
            .into_iter()
            .map(|number| Ok(text(number)?.parse().ok().map(i64::unsigned_abs)))
            .collect::<Result<_>>()?;
        Ok((numbers, reply.count()?))
    }
}

/// Waits for replicas. The messages are accepted, whatever comes.
async fn confirmed(own: &mut Own, key: &str, confirm: Confirm) -> Result<()> {
    let Confirm { replicas, within } = confirm;
    let unknown = |error: RedisError| {
        let message =
            "the messages are accepted, but the connection failed before the replicas had confirmed them";
        Error::new(ErrorKind::NotReplicated, message).caused_by(failed(error))
    };
    // What had been accepted before, under the same dedup id, was written by another connection; behind a
    // write of this one `WAIT` means it, too.
    let mut mark = cmd("SET");
    mark.arg(format!("{key}:mark")).arg(1).arg("PX").arg(1_000);
    own.send(&mark, own.timeout).await.map_err(unknown)?;
    // Zero would wait for ever.
    let millis = to_millis(within).clamp(1, 3_600_000);
    let mut wait = cmd("WAIT");
    wait.arg(replicas).arg(millis);
    let reply = own.send(&wait, Duration::from_millis(millis) + own.timeout).await.map_err(unknown)?;
    let confirmed = count(reply)?;
    if confirmed >= u64::from(replicas) {
        return Ok(());
    }
    let message = format!(
        "the messages are accepted, but only {confirmed} of {replicas} replicas have confirmed them within {millis} ms"
    );
    Err(Error::new(ErrorKind::NotReplicated, message))
}
