//! Whether another subscription needs a message.

use std::collections::HashMap;

use super::cache::SubscriptionContext;
use super::delivery_record::{State, record_id};
use super::entities::{Cursor, Topic};
use super::fields::int;
use super::store::Engine;
use super::topics::no_topic;
use crate::{Result, SubscriptionName};

impl Engine {
    pub(super) async fn needed_by_others(
        &self,
        name: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<bool>> {
        let context = self.open(name).await?;
        // What everybody has settled is out of its chunk then, so that no later subscription begins with it.
        self.gc(name.topic(), context.now).await?;
        let topic = self.find_topic(name.topic()).await?.ok_or_else(no_topic)?;
        // Looked up after the delivery records would be too late: a message is behind a cursor, or has a
        // delivery record, or is settled.
        let cursors: HashMap<String, Cursor> = self
            .cursors(&topic)
            .await?
            .into_iter()
            .map(|cursor| (cursor.subscription.clone(), cursor))
            .collect();
        let mut needed = Vec::with_capacity(ids.len());
        for id in ids {
            needed.push(self.is_needed(&context, &topic, &cursors, id).await?);
        }
        Ok(needed)
    }

    async fn is_needed(
        &self,
        context: &SubscriptionContext,
        topic: &Topic,
        cursors: &HashMap<String, Cursor>,
        id: &str,
    ) -> Result<bool> {
        let own = record_id(&context.subscription.id, id);
        // What was replayed under an id of its own is still the message that others have.
        let id = id.split('~').next().unwrap_or(id);
        let others: Vec<&String> = topic
            .listed()
            .map(|listed| &listed.id)
            .filter(|other| **other != context.subscription.id)
            .collect();
        let wanted = others.iter().map(|other| record_id(other, id)).chain([own.clone()]).collect();
        let records = self.records_by_id(wanted).await?;
        let Some(mine) = records.get(&own) else { return Ok(true) };
        for other in others {
            let Some(cursor) = cursors.get(other) else { return Ok(true) };
            match records.get(&record_id(other, id)) {
                Some(record) if record.state == State::Done || record.is_void(cursor.ack_floor) => {}
                None if cursor.at >= mine.sequence => {}
                _ => return Ok(true),
            }
        }
        // A replayed message lies in no chunk of its own, and its sequence number says nothing.
        let chunk = self.chunks_behind(&context.topic.id, mine.sequence - 1, 1, false).await?.pop();
        let Some(chunk) = chunk.filter(|chunk| !chunk.get_bool("void").unwrap_or(false)) else {
            return Ok(false);
        };
        Ok(mine.sequence > 0 && int(&chunk, "f")? <= mine.sequence)
    }
}
