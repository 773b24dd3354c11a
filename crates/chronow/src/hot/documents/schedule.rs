//! Scheduled messages: kept aside until their time, then put into the topic's sequence at a new sequence
//! number, under their own id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Guard, Scan, Write};

use super::chunk::{Body, Chunk};
use super::entities::Topic;
use super::fields::{ascending, damaged, delete, delete_if, int, put_if, text};
use super::keys::{chunk_id, sequence_key};
use super::publish::Acceptance;
use super::store::Engine;
use super::topics::no_topic;
use crate::{Result, Timestamp, TopicName};

/// When to look again after something was due.
const SOON: Duration = Duration::from_millis(20);

/// Messages that are put into the sequence in one go.
const STEP: u64 = 64;

fn revision(document: &Document) -> Result<ObjectId> {
    document.get_object_id("rev").map_err(|_| damaged("scheduled message", "rev"))
}

/// Whether it was taken back: then it is not a message any more, and its dedup id, and it, are about to go.
fn is_cancelled(scheduled: &Document) -> bool {
    scheduled.get_bool("no").unwrap_or(false)
}

fn body_of(mut scheduled: Document) -> Result<Body> {
    let at = Timestamp::from_millis(int(&scheduled, "at")?);
    match scheduled.remove("b") {
        Some(Bson::Document(body)) => Body::read(body, String::new(), at),
        _ => Err(damaged("scheduled message", "b")),
    }
}

impl Engine {
    /// Puts what is due into the sequence; returns how long until the next one is due, if something is
    /// scheduled.
    pub(super) async fn promote(&self, topic: &Topic, now: Timestamp) -> Result<Option<Duration>> {
        let all = || Filter::eq("w", topic.id.as_str());
        // Mostly nothing is due: one look without the message then says when to look again.
        let first = Scan {
            filter: all(),
            order: ascending(&["due", "_id"]),
            limit: Some(1),
            without: vec!["b".to_owned()],
            ..Scan::default()
        };
        let Some(first) = self.scan(&self.collections.scheduled, first).await?.pop() else { return Ok(None) };
        let wait = int(&first, "due")? - now.as_millis();
        if wait > 0 {
            return Ok(Some(Duration::from_millis(wait.unsigned_abs())));
        }
        let filter = all().and(Filter::lte("due", now.as_millis()));
        let scan = Scan { filter, order: ascending(&["due", "_id"]), limit: Some(STEP), ..Scan::default() };
        let found = self.scan(&self.collections.scheduled, scan).await?;
        // What comes after these is found by the next look.
        let (mut due, mut next) = (Vec::new(), Some(SOON));
        for scheduled in found {
            if is_cancelled(&scheduled) {
                self.forget_cancelled(&scheduled).await?;
                continue;
            }
            match self.acceptance(topic, &self.collections.scheduled, &scheduled).await? {
                Acceptance::Confirmed => due.push(scheduled),
                Acceptance::Pending => next = Some(SOON),
                // Its batch was never accepted.
                Acceptance::Void => {
                    let delete = delete_if(text(&scheduled, "_id")?, revision(&scheduled)?);
                    self.write_one(&self.collections.scheduled, delete).await?;
                }
            }
        }
        if !due.is_empty() {
            self.assign_sequence(topic, due).await?;
        }
        Ok(next)
    }

    /// Notes a new sequence number at each; those that still are there, with theirs.
    async fn note_sequences(&self, topic: &Topic, unplaced: Vec<Document>) -> Result<Vec<(i64, Document)>> {
        let mut pending = Vec::new();
        if unplaced.is_empty() {
            return Ok(pending);
        }
        let count = u32::try_from(unplaced.len()).unwrap_or(u32::MAX);
        let given =
            self.documents.sequence(&self.collections.topics, &sequence_key(&topic.id), count).await?;
        let (mut puts, mut noted) = (Vec::new(), Vec::new());
        for (sequence, mut scheduled) in (given.first + 1..).zip(unplaced) {
            let rev = revision(&scheduled)?;
            scheduled.insert("pos", sequence);
            scheduled.insert("ok", true);
            scheduled.insert("rev", self.new_revision());
            puts.push(put_if(scheduled.clone(), rev));
            noted.push((sequence, scheduled));
        }
        let outcomes = self.write(&self.collections.scheduled, puts).await?;
        for ((sequence, scheduled), outcome) in noted.into_iter().zip(outcomes) {
            if outcome.is_applied() {
                pending.push((sequence, scheduled));
            } else {
                // Cancelled, or another process was faster: none shall wait for the sequence number.
                let void = Chunk::void(sequence, sequence, given.now).to_document(&topic.id);
                self.write_one(&self.collections.messages, Write::insert(void)).await?;
            }
        }
        Ok(pending)
    }

    /// Gives each a sequence number, which is noted before anything is put there, so that a process that
    /// comes later puts it at the same one.
    async fn assign_sequence(&self, topic: &Topic, due: Vec<Document>) -> Result<()> {
        let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
        for scheduled in due {
            match int(&scheduled, "pos") {
                Ok(sequence) => placed.push((sequence, scheduled)),
                Err(_) => unplaced.push(scheduled),
            }
        }
        // Another process may have died, or been overtaken, after it noted the sequence number.
        let ids = placed.iter().map(|(sequence, _)| chunk_id(&topic.id, *sequence)).collect();
        let there = self.get_map(&self.collections.messages, ids).await?;
        let mut pending = Vec::new();
        for (sequence, scheduled) in placed {
            match there.get(&chunk_id(&topic.id, sequence)) {
                Some(chunk) if chunk.get_bool("void").unwrap_or(false) => unplaced.push(scheduled),
                _ => pending.push((sequence, scheduled)),
            }
        }
        pending.extend(self.note_sequences(topic, unplaced).await?);
        let now = self.documents.now().await?;
        let (mut inserts, mut ids) = (Vec::new(), Vec::new());
        for (sequence, scheduled) in pending {
            ids.push((sequence, text(&scheduled, "_id")?.to_owned()));
            let body = Arc::new(body_of(scheduled)?);
            let chunk =
                Chunk { slots: vec![Some(body)], void: false, ..Chunk::void(sequence, sequence, now) };
            inserts.push(Write::insert(chunk.to_document(&topic.id)));
        }
        let outcomes = self.write(&self.collections.messages, inserts).await?;
        let (mut done, mut doubtful) = (Vec::new(), HashMap::new());
        for ((sequence, id), outcome) in ids.into_iter().zip(outcomes) {
            match outcome.is_applied() {
                true => done.push(id),
                false => drop(doubtful.insert(chunk_id(&topic.id, sequence), id)),
            }
        }
        // What was there already is the same message, or a closed gap; that one gets a new sequence number
        // the next time.
        if !doubtful.is_empty() {
            for (chunk, there) in
                self.get_map(&self.collections.messages, doubtful.keys().cloned().collect()).await?
            {
                if !there.get_bool("void").unwrap_or(false) {
                    done.extend(doubtful.remove(&chunk));
                }
            }
        }
        self.write(&self.collections.scheduled, done.into_iter().map(delete)).await?;
        self.tell_topic(&topic.id);
        Ok(())
    }

    pub(super) async fn cancel(&self, name: &TopicName, id: &str) -> Result<bool> {
        self.ready().await?;
        let topic = self.find_topic(name).await?.ok_or_else(no_topic)?;
        let stored_id = format!("{}/{id}", topic.id);
        loop {
            let Some(scheduled) = self.get_one(&self.collections.scheduled, stored_id.clone()).await? else {
                return Ok(false);
            };
            if is_cancelled(&scheduled) {
                // The process that took it back never heard of it.
                self.forget_cancelled(&scheduled).await?;
                return Ok(true);
            }
            let now = self.documents.now().await?;
            if scheduled.contains_key("pos") || int(&scheduled, "due")? <= now.as_millis() {
                return Ok(false);
            }
            if self.acceptance(&topic, &self.collections.scheduled, &scheduled).await?
                != Acceptance::Confirmed
            {
                return Ok(false);
            }
            let mut cancelled = scheduled.clone();
            // Due at once, so that the next pull finishes what is broken off here.
            cancelled.insert("no", true);
            cancelled.insert("due", 0_i64);
            cancelled.insert("rev", self.new_revision());
            if self
                .write_one(&self.collections.scheduled, put_if(cancelled.clone(), revision(&scheduled)?))
                .await?
                .is_applied()
            {
                self.env.fail.hit("bus.after_cancel")?;
                self.forget_cancelled(&cancelled).await?;
                return Ok(true);
            }
        }
    }

    /// Frees the dedup id of a message that was taken back, then removes it.
    async fn forget_cancelled(&self, cancelled: &Document) -> Result<()> {
        let stored = text(cancelled, "_id")?;
        let (topic, id) = stored.split_once('/').ok_or_else(|| damaged("scheduled message", "_id"))?;
        let freed = match cancelled.get_str("dd") {
            Ok(dedup) => vec![dedup.to_owned()],
            // An older version has scheduled it: the head of its batch knows all ids of the batch.
            Err(_) => {
                let head =
                    self.get_one(&self.collections.messages, chunk_id(topic, int(cancelled, "hd")?)).await?;
                let listed = head.iter().filter_map(|head| head.get_array("dd").ok()).flatten();
                listed.filter_map(|dedup| dedup.as_str().map(str::to_owned)).collect()
            }
        };
        let guard = || Guard::Equals { field: "id".to_owned(), value: id.into() };
        self.write(
            &self.collections.dedup,
            freed.into_iter().map(|dedup| Write::Delete { id: dedup.into(), guard: guard() }),
        )
        .await?;
        self.write_one(&self.collections.scheduled, delete_if(stored, revision(cancelled)?)).await.map(drop)
    }

    /// The accepted messages that wait for their time, the next ones first.
    pub(super) async fn scheduled(&self, topic: &Topic, limit: u64) -> Result<Vec<(Body, Timestamp)>> {
        if !topic.schedules {
            return Ok(Vec::new());
        }
        let there = |field: &str| Filter::Field(field.to_owned(), Test::Exists(false));
        let filter = Filter::eq("w", topic.id.as_str()).and(there("pos")).and(there("no"));
        let scan = Scan { filter, order: ascending(&["due", "_id"]), limit: Some(limit), ..Scan::default() };
        let found = self.scan(&self.collections.scheduled, scan).await?;
        let mut heads = Vec::new();
        for scheduled in &found {
            heads.push(chunk_id(&topic.id, int(scheduled, "hd")?));
        }
        heads.sort();
        heads.dedup();
        // Whether they were accepted, and not the messages in them.
        let heads = Scan {
            filter: Filter::any_of("_id", heads.into_iter().map(Bson::String).collect()),
            without: vec!["m".to_owned()],
            ..Scan::default()
        };
        let heads = self.scan(&self.collections.messages, heads).await?;
        let heads: HashMap<String, Document> = heads
            .into_iter()
            .map(|head| Ok((text(&head, "_id")?.to_owned(), head)))
            .collect::<Result<_>>()?;
        let mut accepted = Vec::new();
        for scheduled in found {
            let head = heads.get(&chunk_id(&topic.id, int(&scheduled, "hd")?));
            let is_accepted = head.is_some_and(|head| !head.get_bool("void").unwrap_or(false));
            if is_accepted || scheduled.get_bool("ok").unwrap_or(false) {
                let due = Timestamp::from_millis(int(&scheduled, "due")?);
                accepted.push((body_of(scheduled)?, due));
            }
        }
        Ok(accepted)
    }
}
