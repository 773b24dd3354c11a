//! What is counted about topics. Nothing is written, and it costs as much as it shows.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::cmd;

use super::RedisHot;
use super::reply::{Parts, number};
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptResult};
use crate::hot::{SubscriptionStats, TopicStats};
use crate::{Result, TopicName};

/// How many subscriptions one script looks at.
const TOGETHER: usize = 16;

/// What a shard says of itself.
#[derive(Default)]
struct Shard {
    /// Entries it ever had, and has.
    added: u64,
    length: u64,
    held: u64,
    scheduled: u64,
    dropped: u64,
    /// The first numbers of held ones.
    held_at: Vec<u64>,
    subscriptions: Vec<Sub>,
}

/// What lies in the stream for a subscription.
struct Sub {
    /// The number of the last entry that it has read.
    read: u64,
    /// How many of those it has not settled, and the first of their numbers.
    flying: u64,
    flying_at: Vec<u64>,
}

fn numbers(parts: &mut Parts) -> Result<Vec<u64>> {
    parts
        .list()?
        .into_iter()
        .map(|value| number(value).map(|number| u64::try_from(number).unwrap_or(0)))
        .collect()
}

impl Shard {
    /// Up to here every subscription has read.
    fn read(&self) -> u64 {
        self.subscriptions.iter().map(|sub| sub.read).min().unwrap_or(0)
    }

    /// Messages that a subscription needs: what it has still to read, and what lies before that, or beside
    /// the stream. Exact as long as not too many of those lie in the way of several subscriptions; then each
    /// subscription's are counted as if the others had the same.
    fn owed(&self, held_ahead: u64) -> u64 {
        if self.subscriptions.is_empty() {
            return self.length + self.held + self.scheduled;
        }
        let (first, read) = (self.added + 1 - self.length.min(self.added), self.read());
        let behind = |at: &&u64| (first..=read).contains(*at);
        let mut flying: BTreeSet<u64> =
            self.subscriptions.iter().flat_map(|sub| sub.flying_at.iter().filter(behind)).copied().collect();
        let unseen = |sub: &Sub| {
            sub.flying > sub.flying_at.len() as u64 && sub.flying_at.last().is_some_and(|last| *last <= read)
        };
        let most =
            self.subscriptions.iter().filter(|sub| unseen(sub)).map(|sub| sub.flying).max().unwrap_or(0);
        let both = self.held_at.iter().filter(behind).filter(|at| flying.remove(*at)).count() as u64;
        let flying = (flying.len() as u64 + both).max(most);
        (self.added - read).min(self.length)
            + flying
            + (self.held - held_ahead.min(self.held)).saturating_sub(both)
            + self.scheduled
    }
}

impl RedisHot {
    pub(super) async fn count(&self, topic: &TopicName, known: &Known) -> ScriptResult<TopicStats> {
        let mut all = TopicStats::default();
        for shard in 0..known.shards {
            let mut names = self.names(topic, shard).await?;
            if shard > 0 {
                // The first shard has the say.
                names.retain(|name| all.subscriptions.iter().any(|sub| sub.subscription == *name));
            }
            let counted = self.count_shard(topic, shard, known, &names, &mut all.subscriptions).await?;
            // What is held and yet to be read by a subscription lies in the stream, too.
            let ahead = if counted.held > counted.held_at.len() as u64 {
                let mut ahead = cmd("ZCOUNT");
                ahead.arg(self.keys.held(topic, shard)).arg(format!("({}", counted.read())).arg("+inf");
                u64::try_from(number(self.connection.run(&ahead).await?)?).unwrap_or(0)
            } else {
                counted.held_at.iter().filter(|at| **at > counted.read()).count() as u64
            };
            all.length += counted.owed(ahead);
            all.dropped += counted.dropped;
        }
        all.subscriptions.sort_unstable_by(|a, b| a.subscription.cmp(&b.subscription));
        (all.internal, all.subscriptions) =
            all.subscriptions.into_iter().partition(|sub| sub.subscription.starts_with("__"));
        Ok(all)
    }

    async fn count_shard(
        &self,
        topic: &TopicName,
        shard: u16,
        known: &Known,
        names: &[String],
        counts: &mut Vec<SubscriptionStats>,
    ) -> ScriptResult<Shard> {
        let mut all = Shard::default();
        let pages = names.chunks(TOGETHER).chain(names.is_empty().then_some([].as_slice()));
        for page in pages {
            let args = page.iter().fold(Args::new().arg(&known.stamp), |args, name| args.arg(name));
            let mut parts = self
                .ask_with(topic, shard, &scripts::stats, &self.keys.shard(topic, shard, page), &args)
                .await?;
            (all.added, all.length, all.held) = (parts.count()?, parts.count()?, parts.count()?);
            (all.scheduled, all.dropped, all.held_at) =
                (parts.count()?, parts.count()?, numbers(&mut parts)?);
            for row in parts.list()? {
                let mut row = Parts::of(row)?;
                let name = row.text()?;
                let index = counts.iter().position(|sub| sub.subscription == name).unwrap_or_else(|| {
                    counts.push(SubscriptionStats { subscription: name, ..SubscriptionStats::default() });
                    counts.len() - 1
                });
                let sub = &mut counts[index];
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
                let (read, flying) = (row.count()?, row.count()?);
                all.subscriptions.push(Sub { read, flying, flying_at: numbers(&mut row)? });
            }
        }
        Ok(all)
    }
}
