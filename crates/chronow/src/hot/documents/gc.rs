//! Garbage collection, some at a time: ack floors, chunks that everybody has settled, tombstones, what the
//! dedup window no longer needs.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::documents::{Filter, Scan, Write};

use super::delivery_record::{State, class};
use super::entities::{Cursor, Topic};
use super::fields::{ascending, damaged, delete, delete_if, int, put_if, text};
use super::keys::{chunks_between, counters_key};
use super::limits::of_class;
use super::publish::CLOSED_MS;
use super::store::Engine;
use crate::{Result, SubscriptionName, Timestamp, TopicName};

/// Documents in one step, and steps in one go.
const STEP: u64 = 500;
const STEPS: usize = 8;

/// For so long the process that noted what is to be removed is left alone with it. Others would only compete,
/// one command a document.
const SWEEP_MS: i64 = 10_000;

/// Expired dedup entries in one step.
const ENTRIES: u64 = 64;

/// A message so many sequence numbers behind the cursor is held beside its chunk, and so many of them in one
/// go.
const FAR: i64 = 2_048;
const STRAGGLERS: u64 = 128;

/// Among few subscriptions those that nobody uses are looked for each time, among more after so long.
const FEW: usize = 16;
const IDLE_MS: i64 = 10_000;

/// What a subscription has counted whose delivery records are gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) acked: i64,
    pub(super) starts: i64,
    /// Tombstones that are counted above and may still be there.
    pub(super) pending_deletes: Vec<String>,
    /// Since when.
    noted_at: i64,
    pub(super) rev: Option<ObjectId>,
}

impl Counters {
    pub(super) fn read(counters: Option<&Document>) -> Result<Self> {
        let Some(counters) = counters else { return Ok(Self::default()) };
        let pending_deletes = counters.get_array("swept").map_err(|_| damaged("counters", "swept"))?.iter();
        let rev = counters.get_object_id("rev").map_err(|_| damaged("counters", "rev"))?;
        Ok(Self {
            acked: int(counters, "acked")?,
            starts: int(counters, "starts")?,
            pending_deletes: pending_deletes.filter_map(|id| id.as_str().map(str::to_owned)).collect(),
            noted_at: int(counters, "at").unwrap_or(0),
            rev: Some(rev),
        })
    }
}

impl Engine {
    /// Collects garbage after one subscription, and what nobody needs any more with it. What it costs does
    /// not depend on how many others there are, but for one read of their cursors.
    pub(super) async fn gc_after(&self, name: &SubscriptionName, now: Timestamp) -> Result<()> {
        let (topic, _, mut cursors) = self.open_topic(name.topic()).await?;
        let own = topic.find(name.name()).map(|listed| listed.id.clone());
        if let Some(own) = cursors.iter_mut().find(|cursor| Some(&cursor.subscription) == own.as_ref()) {
            self.lift_ack_floors(&topic, std::slice::from_mut(own)).await?;
            self.remove_tombstones(own, now).await?;
        }
        // The consumer of the one that is furthest behind may be gone.
        if let Some(last) = cursors.iter_mut().min_by_key(|cursor| cursor.ack_floor)
            && Some(&last.subscription) != own.as_ref()
        {
            self.lift_ack_floors(&topic, std::slice::from_mut(last)).await?;
            self.remove_tombstones(last, now).await?;
        }
        if let Some(lowest) = cursors.iter().map(|cursor| cursor.ack_floor).min() {
            self.remove_chunks(&topic, lowest).await?;
        }
        if self.is_time_to_look_for_idle(&topic, now) {
            self.expire_idle_of(name.topic(), &topic, now).await?;
        }
        self.expire_dedup(&topic, now).await
    }

    fn is_time_to_look_for_idle(&self, topic: &Topic, now: Timestamp) -> bool {
        let (now, mut known) = (now.as_millis(), self.known.lock());
        let looked = known.looked_for_idle.get(&topic.id).copied().unwrap_or(0);
        let due = topic.subscriptions.len() <= FEW || now - looked >= IDLE_MS;
        if due {
            known.looked_for_idle.insert(topic.id.clone(), now);
        }
        due
    }

    pub(super) async fn gc(&self, name: &TopicName, now: Timestamp) -> Result<()> {
        let (topic, _, mut cursors) = self.open_topic(name).await?;
        self.expire_idle_of(name, &topic, now).await?;
        self.lift_ack_floors(&topic, &mut cursors).await?;
        if let Some(lowest) = cursors.iter().map(|cursor| cursor.ack_floor).min() {
            self.remove_chunks(&topic, lowest).await?;
        }
        for cursor in &cursors {
            self.remove_tombstones(cursor, now).await?;
        }
        self.expire_dedup(&topic, now).await
    }

    /// Gives open delivery records that are far behind their own copies of their messages: a long handler, or
    /// a long queue of one key, then holds back nothing but itself. That happens once to a delivery record.
    /// Its holder notices that its revision is another, and looks again.
    async fn detach_stragglers(&self, topic: &Topic, cursor: &Cursor) -> Result<()> {
        let far = of_class(&cursor.subscription, class::OPEN, Some(cursor.at - FAR));
        let records = self.records(far, &["s", "_id"], STRAGGLERS).await?;
        let chunks = self.chunks(&topic.id, records.iter().map(|record| record.chunk)).await?;
        let mut puts = Vec::new();
        for mut record in records.into_iter().filter(|record| !record.is_void(cursor.ack_floor)) {
            if let Some(body) =
                chunks.get(&record.chunk).and_then(|chunk| chunk.by_id(record.sequence, &record.id))
            {
                record.body = Some((**body).clone());
                let rev = std::mem::replace(&mut record.rev, self.new_revision());
                puts.push(put_if(record.to_document(), rev));
            }
        }
        // A refused one was changed by another process, and may need it no more.
        self.write(&self.collections.deliveries, puts).await.map(drop)
    }

    /// Moves ack floors up to the oldest delivery record that is open and not detached.
    pub(super) async fn lift_ack_floors(&self, topic: &Topic, cursors: &mut [Cursor]) -> Result<()> {
        for cursor in cursors {
            if cursor.ack_floor >= cursor.at {
                continue;
            }
            if cursor.at - cursor.ack_floor > FAR {
                self.detach_stragglers(topic, cursor).await?;
            }
            let open =
                self.records(of_class(&cursor.subscription, class::OPEN, None), &["s", "_id"], 1).await?;
            let oldest = open.first().filter(|_| !self.env.fail.skips("guard.open"));
            let ack_floor = oldest.map_or(cursor.at, |record| (record.sequence - 1).min(cursor.at));
            if ack_floor > cursor.ack_floor {
                let (rev, lifted) = (self.new_revision(), Cursor { ack_floor, ..cursor.clone() });
                // A process that moved the cursor meanwhile may have made delivery records this has not seen;
                // then another time.
                if self
                    .write_one(&self.collections.topics, put_if(lifted.to_document(rev), lifted.rev))
                    .await?
                    .is_applied()
                {
                    *cursor = Cursor { rev, ..lifted };
                }
            }
        }
        Ok(())
    }

    /// Removes chunks that end at or below a sequence number.
    pub(super) async fn remove_chunks(&self, topic: &Topic, up_to: i64) -> Result<()> {
        // The rest of a batch is accepted by its head, which therefore goes last.
        let next = self.chunks_behind(&topic.id, up_to, 1, false).await?.pop();
        let needed = next.and_then(|chunk| int(&chunk, "hd").ok());
        let closed_before = self.documents.now().await?.plus_millis(-CLOSED_MS).as_millis();
        let mut from = 0;
        for _ in 0..STEPS {
            let scan = Scan {
                filter: chunks_between(&topic.id, from, up_to),
                order: ascending(&["_id"]),
                limit: Some(STEP),
                without: vec!["m".to_owned()],
                ..Scan::default()
            };
            let mut found = self.scan(&self.collections.messages, scan).await?;
            let full = found.len() as u64 == STEP;
            let Some(last) = found.last() else { return Ok(()) };
            from = int(last, "l")?;
            found.retain(|chunk| {
                // A closed gap keeps late publishers out.
                let closed_at = int(chunk, "cl").or_else(|_| int(chunk, "at"));
                let closed =
                    chunk.get_bool("void").unwrap_or(false) && closed_at.is_ok_and(|at| at > closed_before);
                !closed && int(chunk, "l").ok() != needed
            });
            if let Some(last) = found.last() {
                let low = int(last, "l")?;
                for (field, collection) in
                    [("dd", &self.collections.dedup), ("sch", &self.collections.scheduled)]
                {
                    let linked = found.iter().filter_map(|chunk| chunk.get_array(field).ok()).flatten();
                    let linked: Vec<String> =
                        linked.filter_map(|id| id.as_str().map(str::to_owned)).collect();
                    if !linked.is_empty() {
                        self.confirm(collection, &linked).await?;
                    }
                }
                self.change_topic_counters(topic, |counters| counters.low = counters.low.max(low)).await?;
                self.write(
                    &self.collections.messages,
                    found.into_iter().filter_map(|mut chunk| chunk.remove("_id")).map(delete),
                )
                .await?;
            }
            if !full {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps a topic without subscriptions short: its oldest messages are owed to nobody.
    pub(super) async fn trim_unowed(&self, topic: &Topic, up_to: i64) -> Result<()> {
        if up_to > 0 && up_to > self.low_watermark(topic).await? {
            self.change_topic_counters(topic, |counters| counters.low = counters.low.max(up_to)).await?;
            self.remove_chunks(topic, up_to).await?;
        }
        Ok(())
    }

    /// Counts tombstones at or below the ack floor, and removes them.
    async fn remove_tombstones(&self, cursor: &Cursor, now: Timestamp) -> Result<()> {
        let (id, now) = (&cursor.subscription, now.as_millis());
        let begun = self.env.clock.now();
        for _ in 0..STEPS {
            let counters =
                Counters::read(self.get_one(&self.collections.topics, counters_key(id)).await?.as_ref())?;
            if !counters.pending_deletes.is_empty() {
                if (0..SWEEP_MS).contains(&(now - counters.noted_at)) {
                    return Ok(());
                }
                self.remove_pending_deletes(&counters).await?;
            }
            let found = self.records(of_class(id, class::DONE, Some(cursor.ack_floor)), &[], STEP).await?;
            if found.is_empty() && counters.pending_deletes.is_empty() {
                return Ok(());
            }
            let acked = counters.acked + found.iter().filter(|record| record.acked).count() as i64;
            let starts = counters.starts + found.iter().map(|record| i64::from(record.total)).sum::<i64>();
            let pending_deletes: Vec<Bson> = found.iter().map(|record| record.stored_id().into()).collect();
            let counted = |pending_deletes: &[Bson], rev| doc! { "_id": counters_key(id), "acked": acked, "starts": starts, "swept": pending_deletes, "at": now, "rev": rev };
            let rev = self.new_revision();
            let write = match counters.rev {
                Some(old) => put_if(counted(&pending_deletes, rev), old),
                None => Write::insert(counted(&pending_deletes, rev)),
            };
            if !self.write_one(&self.collections.topics, write).await?.is_applied() {
                // Another process is at it.
                return Ok(());
            }
            let full = found.len() as u64 == STEP;
            if self.env.clock.now() > begun.plus_millis(SWEEP_MS / 2) {
                // Others may have removed them meanwhile, and something new may be there under such an id.
                return Ok(());
            }
            self.write(&self.collections.deliveries, pending_deletes.iter().cloned().map(delete)).await?;
            self.write_one(&self.collections.topics, put_if(counted(&[], self.new_revision()), rev)).await?;
            if !full {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Removes what a process that died, or is slow, has counted and not removed.
    async fn remove_pending_deletes(&self, counters: &Counters) -> Result<()> {
        let records = self.records_by_id(counters.pending_deletes.clone()).await?;
        let done = records
            .into_values()
            .filter(|record| record.state == State::Done)
            .map(|record| delete_if(record.stored_id(), record.rev));
        self.write(&self.collections.deliveries, done.collect::<Vec<_>>()).await.map(drop)
    }

    async fn expire_dedup(&self, topic: &Topic, now: Timestamp) -> Result<()> {
        for _ in 0..STEPS {
            let filter = Filter::eq("w", topic.id.as_str()).and(Filter::lte("until", now.as_millis()));
            let found = self
                .scan(&self.collections.dedup, Scan { filter, limit: Some(ENTRIES), ..Scan::default() })
                .await?;
            let full = found.len() as u64 == ENTRIES;
            let mut deletes = Vec::with_capacity(found.len());
            for entry in found {
                let rev = entry.get_object_id("rev").map_err(|_| damaged("dedup entry", "rev"))?;
                deletes.push(delete_if(text(&entry, "_id")?, rev));
            }
            self.write(&self.collections.dedup, deletes).await?;
            if !full {
                return Ok(());
            }
        }
        Ok(())
    }
}
