//! Looking without touching: peek and stats; and purging, which needs to know the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Scan};

use super::chunk::{Body, Chunk};
use super::delivery_record::{DeliveryRecord, class};
use super::entities::{Cursor, Listed, Subscription, Topic};
use super::fields::{int, text, too_contended};
use super::gc::Counters;
use super::keys::{counters_key, subscription_key};
use super::limits::of_class;
use super::store::Engine;
use super::topics::ATTEMPTS;
use crate::hot::{MessageState, Peeked, SubscriptionStats, TopicStats};
use crate::{Result, SubscriptionName, Timestamp, TopicName};

/// Chunks read at once, and messages that are looked at for those a filter lets pass.
const CHUNKS: u64 = 8;
const MAX_EXAMINED: usize = 10_000;

/// Messages that no subscription looked at yet.
#[derive(Debug, Default)]
struct Unread {
    count: u64,
    oldest: Option<Timestamp>,
}

impl Engine {
    /// Calls `each` for every accepted message behind a sequence number, in order, until it says that it has
    /// enough.
    async fn each_behind(
        &self,
        topic: &Topic,
        mut sequence: i64,
        mut each: impl FnMut(i64, &Arc<Body>) -> bool + Send,
    ) -> Result<()> {
        let (mut from, mut chunks) = (sequence, 1);
        loop {
            // Often the first one has all that is wanted.
            let found = self.chunks_behind(&topic.id, from, chunks, true).await?;
            chunks = CHUNKS;
            if found.is_empty() {
                return Ok(());
            }
            for chunk in found {
                let chunk = Chunk::read(chunk)?;
                from = chunk.last;
                if self.counts_for(topic, chunk.void, chunk.head).await? {
                    for at in chunk.first.max(sequence + 1)..=chunk.last {
                        if let Some(body) = chunk.at_sequence(at)
                            && !each(at, body)
                        {
                            return Ok(());
                        }
                    }
                    // A closed sequence number says nothing; a chunk that came in time may cover it.
                    sequence = chunk.last;
                }
            }
        }
    }

    async fn counts_for(&self, topic: &Topic, void: bool, head: Option<i64>) -> Result<bool> {
        match head {
            _ if void => Ok(false),
            None => Ok(true),
            Some(head) => Ok(self.chunks(&topic.id, [head]).await?.get(&head).is_some_and(|head| !head.void)),
        }
    }

    /// Counts messages behind a sequence number, by what chunks say of themselves where that is enough.
    async fn unread(
        &self,
        topic: &Topic,
        subscription: Option<&Subscription>,
        sequence: i64,
    ) -> Result<Unread> {
        let mut unread = Unread::default();
        if let Some(subscription) = subscription.filter(|subscription| subscription.filter.is_some()) {
            self.each_behind(topic, sequence, |_, body| {
                if subscription.wants(body) {
                    unread.count += 1;
                    unread.oldest.get_or_insert(body.message.published_at);
                }
                true
            })
            .await?;
            return Ok(unread);
        }
        let mut at = sequence;
        loop {
            let found = self.chunks_behind(&topic.id, at, 200, false).await?;
            if found.is_empty() {
                return Ok(unread);
            }
            for chunk in found {
                let (first, last) = (int(&chunk, "f")?, int(&chunk, "l")?);
                at = last;
                if !self
                    .counts_for(topic, chunk.get_bool("void").unwrap_or(false), int(&chunk, "hd").ok())
                    .await?
                {
                    continue;
                }
                let mut count = u64::try_from(int(&chunk, "n")?).unwrap_or(0);
                if first <= sequence {
                    let whole = self.chunks(&topic.id, [last]).await?;
                    let within = |chunk: &Arc<Chunk>| {
                        (sequence + 1..=last).filter(|at| chunk.at_sequence(*at).is_some()).count() as u64
                    };
                    count = whole.get(&last).map_or(0, within);
                }
                if count > 0 {
                    unread.count += count;
                    let published = Timestamp::from_millis(int(&chunk, "at")?);
                    unread.oldest.get_or_insert(published);
                }
            }
        }
    }

    pub(super) async fn peek(&self, name: &SubscriptionName, limit: u32) -> Result<Vec<Peeked>> {
        let context = self.open_to_look(name).await?;
        let (id, limit) = (&context.subscription.id, limit as usize);
        let mut records: Vec<DeliveryRecord> = Vec::new();
        for class in [class::OPEN, class::DETACHED] {
            records.extend(self.records(of_class(id, class, None), &["s", "_id"], limit as u64).await?);
        }
        records.retain(|record| !record.is_void(context.cursor.ack_floor));
        records.sort_by(|a, b| (a.sequence, &a.id).cmp(&(b.sequence, &b.id)));
        records.truncate(limit);
        let lasts: BTreeSet<i64> =
            records.iter().filter(|record| record.body.is_none()).map(|record| record.chunk).collect();
        let chunks = self.chunks(&context.topic.id, lasts).await?;
        let mut found = Vec::new();
        for record in records {
            let (state, until) = record.whereabouts(context.now);
            let from_chunk =
                chunks.get(&record.chunk).and_then(|chunk| chunk.by_id(record.sequence, &record.id));
            if let Some(body) = record.body.as_ref().or(from_chunk.map(|body| &**body)) {
                let (message, deliveries) = (body.message.clone(), record.starts);
                found.push(Peeked { message, state, deliveries, until });
            }
        }
        if found.len() < limit {
            let mut examined = 0;
            self.each_behind(&context.topic, context.cursor.at, |_, body| {
                examined += 1;
                if context.subscription.wants(body) {
                    let message = body.message.clone();
                    found.push(Peeked { message, state: MessageState::Unread, deliveries: 0, until: None });
                }
                found.len() < limit && examined < MAX_EXAMINED.max(limit)
            })
            .await?;
        }
        if found.len() < limit {
            for (body, due) in self.scheduled(&context.topic, limit as u64).await? {
                if found.len() < limit && context.subscription.wants(&body) {
                    let (message, state) = (body.message, MessageState::Scheduled);
                    found.push(Peeked { message, state, deliveries: 0, until: Some(due) });
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn stats(&self, name: &TopicName) -> Result<TopicStats> {
        self.looking().await?;
        let now = self.documents.now().await?;
        let (topic, _, cursors) = self.open_topic(name).await?;
        let scheduled = self.scheduled(&topic, u64::MAX).await?;
        let mut stats = TopicStats {
            dropped: unsigned(self.topic_counters(&topic).await?.dropped),
            ..TopicStats::default()
        };
        stats.length = self.length(&topic, &cursors, scheduled.len() as u64).await?;
        for (listed, cursor) in
            topic.listed().filter_map(|l| cursors.iter().find(|c| c.subscription == l.id).map(|c| (l, c)))
        {
            let counted = self.subscription_stats(&topic, listed, cursor, &scheduled, now).await?;
            if listed.name.starts_with("__") {
                stats.internal.extend(counted);
            } else {
                stats.subscriptions.extend(counted);
            }
        }
        for counted in [&mut stats.subscriptions, &mut stats.internal] {
            counted.sort_by(|a, b| a.subscription.cmp(&b.subscription));
        }
        Ok(stats)
    }

    /// How many messages are held for any subscription.
    async fn length(&self, topic: &Topic, cursors: &[Cursor], scheduled: u64) -> Result<u64> {
        let Some(adopted) = cursors.iter().map(|cursor| cursor.at).min() else {
            let low = self.low_watermark(topic).await?;
            return Ok(scheduled + self.unread(topic, None, low).await?.count);
        };
        // First, for what has been pulled since has its delivery record by then.
        let unread = self.unread(topic, None, adopted).await?.count;
        let mut ids = BTreeSet::new();
        for cursor in cursors {
            for (class, up_to) in [(class::OPEN, Some(adopted)), (class::DETACHED, None)] {
                for record in self.summaries(of_class(&cursor.subscription, class, up_to)).await? {
                    // A detached delivery record may belong to a message that lies behind another
                    // subscription's cursor, too.
                    if int(&record, "s")? <= adopted {
                        let id = text(&record, "_id")?;
                        ids.insert(id.split_once('/').map_or(id, |(_, id)| id).to_owned());
                    }
                }
            }
        }
        Ok(scheduled + ids.len() as u64 + unread)
    }

    /// Delivery records without their messages, as stored.
    async fn summaries(&self, filter: Filter) -> Result<Vec<Document>> {
        self.scan(
            &self.collections.deliveries,
            Scan { filter, without: vec!["b".to_owned()], ..Scan::default() },
        )
        .await
    }

    /// What a subscription has counted, and the delivery records that are not in it (or noted there): read at
    /// different moments, but none is missed.
    async fn counted(&self, id: &str) -> Result<(Counters, Vec<DeliveryRecord>)> {
        let counters = || async {
            Counters::read(self.get_one(&self.collections.topics, counters_key(id)).await?.as_ref())
        };
        let mut before = counters().await?;
        for _ in 0..ATTEMPTS {
            // Its first failure moves a delivery record from the class that is read first to one that is read
            // after; it may then be seen in both.
            let mut records = HashMap::new();
            for classes in [&[class::OPEN][..], &[class::DETACHED, class::DEAD, class::DONE]] {
                let classes = classes.iter().map(|class| format!("{id}{class}").into()).collect();
                for record in self.summaries(Filter::Field("c".to_owned(), Test::In(classes))).await? {
                    let record = DeliveryRecord::read(record)?;
                    records.insert(record.stored_id(), record);
                }
            }
            let after = counters().await?;
            if after.rev == before.rev {
                return Ok((after, records.into_values().collect()));
            }
            before = after;
        }
        Err(too_contended("the subscription's counts"))
    }

    async fn subscription_stats(
        &self,
        topic: &Topic,
        listed: &Listed,
        cursor: &Cursor,
        scheduled: &[(Body, Timestamp)],
        now: Timestamp,
    ) -> Result<Option<SubscriptionStats>> {
        let id = &listed.id;
        let Some(subscription) = self.get_one(&self.collections.topics, subscription_key(id)).await? else {
            return Ok(None);
        };
        let subscription = Subscription::read(id, &subscription)?;
        if self.is_unused(&subscription, cursor, now).await? {
            return Ok(None);
        }
        // A chunk goes when all its messages have been pulled: what is in none any more has its delivery
        // record by then.
        let unread = self.unread(topic, Some(&subscription), cursor.at).await?;
        let (counters, records) = self.counted(id).await?;
        let mut stats = SubscriptionStats {
            subscription: listed.name.clone(),
            backlog: unread.count,
            deliveries: unsigned(counters.starts),
            acked: unsigned(counters.acked),
            paused: subscription.options.paused,
            ..SubscriptionStats::default()
        };
        let mut oldest = unread.oldest;
        stats.scheduled +=
            scheduled.iter().filter(|(body, due)| *due > now && subscription.wants(body)).count() as u64;
        stats.backlog +=
            scheduled.iter().filter(|(body, due)| *due <= now && subscription.wants(body)).count() as u64;
        let pending_deletes: BTreeSet<&String> = counters.pending_deletes.iter().collect();
        for record in records {
            match record.state {
                super::delivery_record::State::Done if pending_deletes.contains(&record.stored_id()) => {
                    continue;
                }
                super::delivery_record::State::Done => stats.acked += u64::from(record.acked),
                super::delivery_record::State::Dead => stats.dead_letters += 1,
                _ => {
                    match record.whereabouts(now).0 {
                        MessageState::Unread => stats.backlog += 1,
                        MessageState::InFlight => stats.pending += 1,
                        MessageState::Scheduled => stats.scheduled += 1,
                        MessageState::Deferred => stats.deferred += 1,
                    }
                    oldest = Some(oldest.map_or(record.at, |oldest| oldest.min(record.at)));
                }
            }
            stats.deliveries += u64::from(record.total);
        }
        stats.oldest_age = oldest.map(|at| Duration::from_millis(unsigned(now.as_millis() - at.as_millis())));
        Ok(Some(stats))
    }

    pub(super) async fn purge(&self, name: &TopicName) -> Result<u64> {
        self.ready().await?;
        let now = self.documents.now().await?;
        let (topic, last, cursors) = self.open_topic(name).await?;
        let scheduled =
            self.sweep(&self.collections.scheduled, Filter::eq("w", topic.id.as_str()), &["b"]).await?;
        let purged = self.length(&topic, &cursors, scheduled).await?;
        self.drop_up_to(&cursors, last).await?;
        for cursor in &cursors {
            self.finish_records(of_class(&cursor.subscription, class::DETACHED, None)).await?;
        }
        if cursors.is_empty() {
            self.trim_unowed(&topic, last).await?;
        }
        self.gc(name, now).await?;
        Ok(purged)
    }
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
