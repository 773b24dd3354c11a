//! Delivery records that have become due: retries, locks that ended, messages that waited for their key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::Bson;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Batch, Filter, Newest, Outcome, Scan, Write};

use super::cache::SubscriptionContext;
use super::chunk::Body;
use super::delivery_record::{DeliveryRecord, State, class};
use super::fields::{delete_if, put_if};
use super::store::Engine;
use crate::Result;
use crate::hot::Delivery;
use crate::hot::millis::to_signed_millis;

/// How long a message that waits for its key is left alone before a pull looks whether it was forgotten;
/// then for as long as it is old already.
pub(super) const RECHECK_MS: i64 = 5_000;
const MAX_RECHECK_MS: i64 = 600_000;

/// So often some are looked at, and so many.
const RECHECKS_MS: i64 = 500;
const RECHECKS: usize = 64;

/// A key that is held by a later message (an earlier one was given back from the dead letters) is looked at
/// again after so long.
const IN_FLIGHT_RECHECK_MS: i64 = 500;

/// Why a message is dead whose handlers never said anything.
pub(super) const USED_UP: &str = "its deliveries are used up; the last one was never settled";

/// What a part of a pull brought.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) deliveries: Vec<Delivery>,
    /// There may be more at once.
    pub(super) more: bool,
}

impl SubscriptionContext {
    pub(super) fn locked_until(&self) -> i64 {
        self.now.as_millis().saturating_add(to_signed_millis(self.subscription.options.visibility))
    }
}

impl Engine {
    /// Locks what is due, at most `room` of it.
    pub(super) async fn pull_due(&self, context: &SubscriptionContext, room: usize) -> Result<Part> {
        let (id, now) = (&context.subscription.id, context.now);
        let due = |of: String| Filter::eq("w", of).and(Filter::lte("due", now.as_millis()));
        let mut records = self.records(due(id.clone()), &["due", "_id"], room as u64).await?;
        let mut part = Part { more: records.len() >= room, ..Part::default() };
        let rechecked = context.cache.rechecked_at.load(Ordering::Relaxed);
        if !part.more && now.as_millis() - rechecked >= RECHECKS_MS {
            // However many wait for their keys, what is due does not wait for them.
            context.cache.rechecked_at.store(now.as_millis(), Ordering::Relaxed);
            let most = (room - records.len()).min(RECHECKS) as u64;
            records.extend(self.records(due(format!("{id}{}", class::QUEUED)), &["due", "_id"], most).await?);
        }
        if records.is_empty() {
            return Ok(part);
        }
        let lasts: HashSet<i64> =
            records.iter().filter(|record| record.body.is_none()).map(|record| record.chunk).collect();
        let chunks = self.chunks(&context.topic.id, lasts).await?;
        let heads =
            self.group_heads(records.iter().filter_map(DeliveryRecord::ordering_group).collect()).await?;
        let (mut batch, mut taken, mut freed) = (Batch::new(), HashSet::new(), HashSet::new());
        let mut put: Vec<Option<(DeliveryRecord, Arc<Body>)>> = Vec::new();
        for mut record in records {
            let body = match &record.body {
                Some(body) => Some(Arc::new(body.clone())),
                None => chunks
                    .get(&record.chunk)
                    .and_then(|chunk| chunk.by_id(record.sequence, &record.id))
                    .cloned(),
            };
            let rev = std::mem::replace(&mut record.rev, self.new_revision());
            let Some(body) = body.filter(|_| !record.is_void(context.cursor.ack_floor)) else {
                batch.push(&self.collections.deliveries, delete_if(record.stored_id(), rev));
                put.push(None);
                continue;
            };
            freed.extend(self.decide(context, &mut record, &body, &heads, &mut taken));
            batch.push(&self.collections.deliveries, put_if(record.to_document(), rev));
            put.push(Some((record, body)));
        }
        let outcomes = self.documents.apply(batch).await?;
        let mut held_by_others = Vec::new();
        for ((record, body), outcome) in
            put.into_iter().zip(outcomes).filter_map(|(put, outcome)| Some((put?, outcome)))
        {
            match outcome {
                Outcome::Applied if record.state == State::Locked => {
                    part.deliveries.push(self.deliver(context, record, body))
                }
                Outcome::Conflict { .. } => held_by_others.push(record.stored_id()),
                _ => {}
            }
        }
        self.put_off(held_by_others, now.as_millis() + IN_FLIGHT_RECHECK_MS).await?;
        self.wake(freed).await?;
        Ok(part)
    }

    /// Decides about a record that is due: it becomes a dead letter, is locked for this pull, or waits behind
    /// another one of its key. Returns the ordering group that it leaves.
    fn decide(
        &self,
        context: &SubscriptionContext,
        record: &mut DeliveryRecord,
        body: &Body,
        heads: &HashMap<String, DeliveryRecord>,
        taken: &mut HashSet<String>,
    ) -> Option<String> {
        let (options, now) = (&context.subscription.options, context.now);
        let ordering_group = record.ordering_group();
        let is_used_up = self.is_used_up(record.starts, context);
        if is_used_up || record.has_expired(now) {
            let reason = match (is_used_up, record.why.is_empty()) {
                (false, _) => "expired".to_owned(),
                (true, true) => USED_UP.to_owned(),
                (true, false) => record.why.clone(),
            };
            record.dead_letter(options.dead_letters, body.clone(), &reason, now);
            return ordering_group;
        }
        let is_next = ordering_group.is_none_or(|ordering_group| {
            heads.get(&ordering_group).is_none_or(|head| head.id == record.id) && taken.insert(ordering_group)
        });
        if is_next {
            record.lock(context.locked_until(), self.new_revision());
        } else {
            queue(record, now.as_millis());
        }
        None
    }

    /// Whether a message was started as often as it may be.
    pub(super) fn is_used_up(&self, starts: u32, context: &SubscriptionContext) -> bool {
        starts >= context.subscription.options.max_deliveries && !self.env.fail.skips("guard.used_up")
    }

    pub(super) fn deliver(
        &self,
        context: &SubscriptionContext,
        record: DeliveryRecord,
        body: Arc<Body>,
    ) -> Delivery {
        let delivery = record.delivery(&body);
        context.cache.hold(record, body, context.now.as_millis());
        delivery
    }

    /// Has delivery records looked at again later.
    async fn put_off(&self, ids: Vec<String>, until: i64) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let puts = self
            .records_by_id(ids)
            .await?
            .into_values()
            .filter(|record| record.ordering_group().is_some() && record.due < until)
            .map(|mut record| {
                let rev = std::mem::replace(&mut record.rev, self.new_revision());
                record.state = State::Queued;
                record.due = until;
                record.token = None;
                put_if(record.to_document(), rev)
            });
        // A process that changed one meanwhile knows better.
        self.write(&self.collections.deliveries, puts.collect::<Vec<Write>>()).await.map(drop)
    }

    /// The oldest open delivery record of each ordering group.
    pub(super) async fn group_heads(
        &self,
        groups: HashSet<String>,
    ) -> Result<HashMap<String, DeliveryRecord>> {
        if groups.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted = groups.into_iter().map(Bson::String).collect();
        // `ns` is the negative sequence number, so the newest is the oldest.
        let newest = Newest { per: "k".to_owned(), by: "ns".to_owned(), at_most: i64::MAX.into() };
        let scan = Scan {
            filter: Filter::Field("k".to_owned(), Test::In(wanted)),
            newest: Some(newest),
            ..Scan::default()
        };
        let mut heads = HashMap::new();
        for record in self.scan(&self.collections.deliveries, scan).await? {
            let record = DeliveryRecord::read(record)?;
            if let Some(ordering_group) = record.ordering_group() {
                heads.insert(ordering_group, record);
            }
        }
        Ok(heads)
    }

    /// Makes the first of each ordering group due, after the one before it has left.
    pub(super) async fn wake(&self, groups: HashSet<String>) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let heads = self.group_heads(groups).await?;
        let puts = heads.into_values().filter(|head| head.state == State::Queued).map(|mut head| {
            let rev = std::mem::replace(&mut head.rev, self.new_revision());
            head.state = State::Waiting;
            head.due = 0;
            (head.subscription.clone(), put_if(head.to_document(), rev))
        });
        let (woken, puts): (HashSet<String>, Vec<Write>) = puts.unzip();
        if !puts.is_empty() {
            // A refused one was woken, or has been taken, by another consumer.
            self.write(&self.collections.deliveries, puts).await?;
            for id in woken {
                self.tell_subscription(&id);
            }
        }
        Ok(())
    }
}

/// Behind the others of its key.
pub(super) fn queue(record: &mut DeliveryRecord, now: i64) {
    record.state = State::Queued;
    record.token = None;
    record.due = now + (now - record.at.as_millis()).clamp(RECHECK_MS, MAX_RECHECK_MS);
}
