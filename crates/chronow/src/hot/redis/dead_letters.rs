//! Dead letters: listing, redriving and purging them.

use redis::Value;

use super::RedisHot;
use super::keys::{ids_of_shard, join_id};
use super::peek::small;
use super::publish::MAX_PER_SCRIPT;
use super::reply::{Parts, read_message, text};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptResult};
use crate::hot::{DeadLetter, DeadLetterId, MAX_LETTERS, Select};
use crate::{Error, ErrorKind, Page, Result, SubscriptionName, Timestamp};

const LETTERS_PER_SCRIPT: usize = 16;

impl RedisHot {
    pub(super) async fn list_dead(
        &self,
        subscription: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
        known: &Known,
    ) -> ScriptResult<Page<DeadLetter>> {
        let (after, limit) = (after.map(cursor).transpose()?, limit.min(MAX_LETTERS));
        let mut found = Vec::new();
        // Where a shard had room for no more, nothing behind its last one may be returned of another shard.
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
        Ok(Page::new(found.into_iter().map(|(_, letter)| letter).collect(), next))
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
        let ids = found.into_iter().map(|((score, shard), id)| DeadLetterId {
            id,
            cursor: format!("{score}.{shard}"),
            failed_at: Timestamp::from_millis((score / 1_000).cast_signed()),
        });
        Ok(ids.collect())
    }

    pub(super) async fn get_dead(
        &self,
        subscription: &SubscriptionName,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<Vec<DeadLetter>> {
        let mut found = Vec::new();
        for shard in 0..known.shards {
            let own = ids_of_shard(ids, shard);
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
        match select {
            Select::Ids(ids) => self.take_dead_by_id(subscription, how, ids, known).await,
            Select::Oldest(most) if known.shards > 1 => {
                self.take_oldest_dead(subscription, how, *most, known).await
            }
            Select::Oldest(most) => self.take_dead_in_order(subscription, how, *most, known).await,
            Select::All => self.take_dead_in_order(subscription, how, u64::MAX, known).await,
        }
    }

    async fn take_dead_by_id(
        &self,
        subscription: &SubscriptionName,
        how: &str,
        ids: &[String],
        known: &Known,
    ) -> ScriptResult<u64> {
        let mut taken = 0;
        for shard in 0..known.shards {
            let own = ids_of_shard(ids, shard);
            let mut own = own.as_slice();
            while !own.is_empty() {
                let page = &own[..own.len().min(MAX_PER_SCRIPT)];
                let mut args =
                    Args::new().arg(&known.stamp).arg(subscription.name()).arg(how).arg("").arg(page.len());
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
        Ok(taken)
    }

    /// The oldest of all shards are only known together.
    async fn take_oldest_dead(
        &self,
        subscription: &SubscriptionName,
        how: &str,
        mut left: u64,
        known: &Known,
    ) -> ScriptResult<u64> {
        let mut taken = 0;
        while left > 0 {
            let page = u32::try_from(left.min(MAX_PER_SCRIPT as u64)).unwrap_or(1);
            let letters = self.list_dead(subscription, None, page, known).await?.items;
            if letters.is_empty() {
                break;
            }
            left -= letters.len() as u64;
            let ids: Vec<String> = letters.into_iter().map(|letter| letter.message.id).collect();
            taken += self.take_dead_by_id(subscription, how, &ids, known).await?;
        }
        Ok(taken)
    }

    /// Shard by shard, each from its oldest on.
    async fn take_dead_in_order(
        &self,
        subscription: &SubscriptionName,
        how: &str,
        most: u64,
        known: &Known,
    ) -> ScriptResult<u64> {
        let mut taken = 0;
        for shard in 0..known.shards {
            // What fails again meanwhile is not taken again.
            let mut latest = String::new();
            while taken < most {
                let page = (most - taken).min(MAX_PER_SCRIPT as u64);
                let args =
                    Args::new().arg(&known.stamp).arg(subscription.name()).arg(how).arg(&latest).arg(page);
                let mut reply = self.ask(subscription, shard, &scripts::dead_take, &args).await?;
                taken += reply.count()?;
                latest = reply.text()?;
                let (seen, all) = (reply.count()?, reply.number()? == 1);
                if all && seen < page {
                    break;
                }
            }
        }
        Ok(taken)
    }
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

fn cursor(text: &str) -> Result<(u64, u16)> {
    text.split_once('.')
        .and_then(|(score, shard)| Some((score.parse().ok()?, shard.parse().ok()?)))
        .ok_or_else(|| Error::validation(format!("`{text}` is not a cursor of a page of dead letters")))
}
