//! Scheduled messages: kept aside until their time, then put into the topic's sequence at a new place, under their own id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Scan, Write};

use super::chunk::{Body, Chunk};
use super::entities::Topic;
use super::keys::{chunk_id, sequence_key};
use super::publish::Acceptance;
use super::store::{Engine, ascending, damaged, delete, delete_if, int, put_if, text};
use super::topics::no_topic;
use crate::{Result, Timestamp, TopicName};

/// Messages that are put into the sequence in one go.
const STEP: u64 = 64;

fn revision(document: &Document) -> Result<ObjectId> {
    document.get_object_id("rev").map_err(|_| damaged("scheduled message", "rev"))
}

fn body_of(mut scheduled: Document) -> Result<Body> {
    let at = Timestamp::from_millis(int(&scheduled, "at")?);
    match scheduled.remove("b") {
        Some(Bson::Document(body)) => Body::read(body, String::new(), at),
        _ => Err(damaged("scheduled message", "b")),
    }
}

impl Engine {
    /// Puts what is due into the sequence; returns how long until the next one is due, if something is scheduled.
    pub(super) async fn promote(&self, topic: &Topic, now: Timestamp) -> Result<Option<Duration>> {
        let scan =
            Scan { filter: Filter::eq("w", topic.id.as_str()), order: ascending(&["due", "_id"]), limit: Some(STEP), ..Scan::default() };
        let found = self.scan(&self.spaces.scheduled, scan).await?;
        let (mut due, mut next) = (Vec::new(), None);
        for scheduled in found {
            let wait = int(&scheduled, "due")? - now.as_millis();
            if wait > 0 {
                next = Some(Duration::from_millis(wait.unsigned_abs()));
                break;
            }
            match self.acceptance(topic, &self.spaces.scheduled, &scheduled).await? {
                Acceptance::Accepted => due.push(scheduled),
                Acceptance::Pending => next = Some(Duration::from_millis(20)),
                // Its batch was never accepted.
                Acceptance::Void => {
                    let delete = delete_if(text(&scheduled, "_id")?, revision(&scheduled)?);
                    self.write_one(&self.spaces.scheduled, delete).await?;
                }
            }
        }
        if !due.is_empty() {
            self.place(topic, due).await?;
        }
        Ok(next)
    }

    /// Gives each a place, which is noted before anything is put there, so that whoever comes later puts it at the same one.
    async fn place(&self, topic: &Topic, due: Vec<Document>) -> Result<()> {
        let (mut placed, mut unplaced) = (Vec::new(), Vec::new());
        for scheduled in due {
            match int(&scheduled, "pos") {
                Ok(place) => placed.push((place, scheduled)),
                Err(_) => unplaced.push(scheduled),
            }
        }
        // Another process may have died, or been overtaken, after it noted the place.
        let ids = placed.iter().map(|(place, _)| chunk_id(&topic.id, *place)).collect();
        let there = self.get_map(&self.spaces.messages, ids).await?;
        let mut pending = Vec::new();
        for (place, scheduled) in placed {
            match there.get(&chunk_id(&topic.id, place)) {
                Some(chunk) if chunk.get_bool("void").unwrap_or(false) => unplaced.push(scheduled),
                _ => pending.push((place, scheduled)),
            }
        }
        if !unplaced.is_empty() {
            let count = u32::try_from(unplaced.len()).unwrap_or(u32::MAX);
            let given = self.documents.sequence(&self.spaces.topics, &sequence_key(&topic.id), count).await?;
            let (mut puts, mut noted) = (Vec::new(), Vec::new());
            for (place, mut scheduled) in (given.first + 1..).zip(unplaced) {
                let rev = revision(&scheduled)?;
                scheduled.insert("pos", place);
                scheduled.insert("ok", true);
                scheduled.insert("rev", self.fresh());
                puts.push(put_if(scheduled.clone(), rev));
                noted.push((place, scheduled));
            }
            let outcomes = self.write(&self.spaces.scheduled, puts).await?;
            for ((place, scheduled), outcome) in noted.into_iter().zip(outcomes) {
                if outcome.is_applied() {
                    pending.push((place, scheduled));
                } else {
                    // Cancelled, or somebody else was faster: nobody shall wait for the place.
                    let void = Chunk::void(place, place, given.now).to_document(&topic.id);
                    self.write_one(&self.spaces.messages, Write::insert(void)).await?;
                }
            }
        }
        let now = self.documents.now().await?;
        let (mut inserts, mut ids) = (Vec::new(), Vec::new());
        for (place, scheduled) in pending {
            ids.push((place, text(&scheduled, "_id")?.to_owned()));
            let body = Arc::new(body_of(scheduled)?);
            let chunk = Chunk { slots: vec![Some(body)], void: false, ..Chunk::void(place, place, now) };
            inserts.push(Write::insert(chunk.to_document(&topic.id)));
        }
        let outcomes = self.write(&self.spaces.messages, inserts).await?;
        let (mut done, mut doubtful) = (Vec::new(), HashMap::new());
        for ((place, id), outcome) in ids.into_iter().zip(outcomes) {
            match outcome.is_applied() {
                true => done.push(id),
                false => drop(doubtful.insert(chunk_id(&topic.id, place), id)),
            }
        }
        // What was there already is the same message, or a closed gap; that one gets a new place the next time.
        if !doubtful.is_empty() {
            for (chunk, there) in self.get_map(&self.spaces.messages, doubtful.keys().cloned().collect()).await? {
                if !there.get_bool("void").unwrap_or(false) {
                    done.extend(doubtful.remove(&chunk));
                }
            }
        }
        self.write(&self.spaces.scheduled, done.into_iter().map(delete)).await?;
        self.tell();
        Ok(())
    }

    pub(super) async fn cancel(&self, name: &TopicName, id: &str) -> Result<bool> {
        self.ready().await?;
        let topic = self.find_topic(name).await?.ok_or_else(no_topic)?;
        let stored_id = format!("{}/{id}", topic.id);
        loop {
            let Some(scheduled) = self.get_one(&self.spaces.scheduled, stored_id.clone()).await? else { return Ok(false) };
            let now = self.documents.now().await?;
            if scheduled.contains_key("pos") || int(&scheduled, "due")? <= now.as_millis() {
                return Ok(false);
            }
            if self.acceptance(&topic, &self.spaces.scheduled, &scheduled).await? != Acceptance::Accepted {
                return Ok(false);
            }
            if self.write_one(&self.spaces.scheduled, delete_if(stored_id.clone(), revision(&scheduled)?)).await?.is_applied() {
                return Ok(true);
            }
        }
    }

    /// The accepted messages that wait for their time, the next ones first.
    pub(super) async fn scheduled(&self, topic: &Topic, limit: u64) -> Result<Vec<(Body, Timestamp)>> {
        if !topic.schedules {
            return Ok(Vec::new());
        }
        let filter = Filter::eq("w", topic.id.as_str()).and(Filter::Field("pos".to_owned(), Test::Exists(false)));
        let scan = Scan { filter, order: ascending(&["due", "_id"]), limit: Some(limit), ..Scan::default() };
        let found = self.scan(&self.spaces.scheduled, scan).await?;
        let mut heads = Vec::new();
        for scheduled in &found {
            heads.push(chunk_id(&topic.id, int(scheduled, "hd")?));
        }
        heads.sort();
        heads.dedup();
        let heads = self.get_map(&self.spaces.messages, heads).await?;
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
