//! Dead letters: looked at, given back, removed; and messages put back from elsewhere.

use std::collections::HashSet;

use bson::Bson;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Outcome, Scan, Write};

use super::cache::SubscriptionContext;
use super::chunk::Body;
use super::delivery_record::{DeliveryRecord, State, class, record_id};
use super::fields::{ascending, put_if};
use super::keys::sequence_of;
use super::store::Engine;
use crate::hot::{DeadLetter, DeadLetterId, MAX_LETTERS, Select, StoredMessage};
use crate::{Error, Page, Result, SubscriptionName, Timestamp};

/// Dead letters in one step.
const STEP: u64 = 200;

fn dead(context: &SubscriptionContext) -> Filter {
    Filter::eq("w", format!("{}{}", context.subscription.id, class::DEAD))
}

fn cursor(record: &DeliveryRecord) -> String {
    format!("{}-{}", record.due, record.id)
}

/// Where a listing goes on.
fn behind(context: &SubscriptionContext, cursor: &str) -> Result<Vec<Bson>> {
    let parts = cursor.split_once('-').and_then(|(due, id)| Some((due.parse::<i64>().ok()?, id)));
    let (due, id) =
        parts.ok_or_else(|| Error::validation(format!("`{cursor}` is not a cursor of this listing")))?;
    Ok(vec![due.into(), record_id(&context.subscription.id, id).into()])
}

impl Engine {
    pub(super) async fn dead_letters(
        &self,
        name: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeadLetter>> {
        let context = self.open_to_look(name).await?;
        if limit == 0 {
            return Ok(Page::new(Vec::new(), after.map(str::to_owned)));
        }
        let after = after.map(|cursor| behind(&context, cursor)).transpose()?;
        let (order, limit) = (ascending(&["due", "_id"]), u64::from(limit.min(MAX_LETTERS)));
        let scan = Scan { filter: dead(&context), order, after, limit: Some(limit), ..Scan::default() };
        let records: Vec<DeliveryRecord> = self
            .scan(&self.collections.deliveries, scan)
            .await?
            .into_iter()
            .map(DeliveryRecord::read)
            .collect::<Result<_>>()?;
        let next = records.last().filter(|_| records.len() as u64 == limit).map(cursor);
        Ok(Page::new(records.into_iter().filter_map(DeliveryRecord::into_dead_letter).collect(), next))
    }

    pub(super) async fn dead_letter_ids(
        &self,
        name: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>> {
        let context = self.open_to_look(name).await?;
        let filter = dead(&context).and(Filter::Field("due".to_owned(), Test::Gte(from.as_millis().into())));
        let after = after.map(|cursor| behind(&context, cursor)).transpose()?;
        let without = ["b", "why"].map(str::to_owned).to_vec();
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            after,
            limit: Some(u64::from(limit)),
            without,
            ..Scan::default()
        };
        let records = self.scan(&self.collections.deliveries, scan).await?.into_iter().map(|record| {
            let record = DeliveryRecord::read(record)?;
            Ok(DeadLetterId {
                cursor: cursor(&record),
                failed_at: Timestamp::from_millis(record.due),
                id: record.id,
            })
        });
        records.collect()
    }

    pub(super) async fn dead_letters_by_id(
        &self,
        name: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>> {
        let context = self.open_to_look(name).await?;
        let records = self
            .records_by_id(ids.iter().map(|id| record_id(&context.subscription.id, id)).collect())
            .await?;
        Ok(records
            .into_values()
            .filter(|record| record.state == State::Dead)
            .filter_map(DeliveryRecord::into_dead_letter)
            .collect())
    }

    pub(super) async fn redrive(&self, name: &SubscriptionName, select: &Select) -> Result<u64> {
        let context = self.open(name).await?;
        let due = context.now.as_millis();
        let redriven = self
            .change_dead(&context, select, &|record| {
                record.state = State::Waiting;
                record.due = due;
                record.starts = 0;
                // It was used up by deliveries that no longer count; and its time to live ended with them.
                record.expires = None;
                record.why.clear();
            })
            .await?;
        if redriven > 0 {
            self.signal(&context.subscription.id).await?;
        }
        Ok(redriven)
    }

    pub(super) async fn purge_dead_letters(&self, name: &SubscriptionName, select: &Select) -> Result<u64> {
        let context = self.open(name).await?;
        let removed = self.change_dead(&context, select, &|record| record.finish(false)).await?;
        self.note_settled(&context.cache, usize::try_from(removed).unwrap_or(usize::MAX));
        Ok(removed)
    }

    /// Changes the dead letters that are selected and were dead when it began.
    async fn change_dead(
        &self,
        context: &SubscriptionContext,
        select: &Select,
        change: &(dyn Fn(&mut DeliveryRecord) + Sync),
    ) -> Result<u64> {
        let mut changed = 0;
        if let Select::Ids(ids) = select {
            let ids: HashSet<String> = ids.iter().map(|id| record_id(&context.subscription.id, id)).collect();
            let records = self.records_by_id(ids.into_iter().collect()).await?;
            return self
                .put_dead(records.into_values().filter(|record| record.state == State::Dead), change)
                .await;
        }
        let mut left = if let Select::Oldest(count) = select { *count } else { u64::MAX };
        let filter =
            dead(context).and(Filter::Field("due".to_owned(), Test::Lte(context.now.as_millis().into())));
        while left > 0 {
            let records = self.records(filter.clone(), &["due", "_id"], left.min(STEP)).await?;
            if records.is_empty() {
                break;
            }
            let done = self.put_dead(records.into_iter(), change).await?;
            changed += done;
            left = left.saturating_sub(done);
        }
        Ok(changed)
    }

    async fn put_dead(
        &self,
        records: impl Iterator<Item = DeliveryRecord>,
        change: &(dyn Fn(&mut DeliveryRecord) + Sync),
    ) -> Result<u64> {
        let puts: Vec<Write> = records
            .map(|mut record| {
                let rev = std::mem::replace(&mut record.rev, self.new_revision());
                change(&mut record);
                put_if(record.to_document(), rev)
            })
            .collect();
        Ok(self
            .write(&self.collections.deliveries, puts)
            .await?
            .iter()
            .filter(|outcome| outcome.is_applied())
            .count() as u64)
    }

    pub(super) async fn replay(&self, name: &SubscriptionName, messages: Vec<StoredMessage>) -> Result<u64> {
        let context = self.open(name).await?;
        let mut records = Vec::with_capacity(messages.len());
        for message in messages {
            let id = &message.id;
            if id.is_empty() || id.contains(['/', '\0']) {
                return Err(Error::validation(format!("`{id}` is not a message id")));
            }
            let sequence = sequence_of(id).unwrap_or(0);
            // A caller that asks for it wants it whatever its age.
            let body = Body { message, expires: None };
            let mut record = DeliveryRecord::new(
                &context.subscription.id,
                sequence,
                0,
                &body,
                State::Waiting,
                context.now.as_millis(),
                self.new_revision(),
            );
            record.body = Some(body);
            records.push(record);
        }
        let mut put = 0;
        for records in records.chunks(STEP as usize) {
            let outcomes = self
                .write(
                    &self.collections.deliveries,
                    records.iter().map(|record| Write::insert(record.to_document())),
                )
                .await?;
            let mut taken = Vec::new();
            for (record, outcome) in records.iter().zip(outcomes) {
                match outcome {
                    Outcome::Applied => put += 1,
                    _ => taken.push(record),
                }
            }
            // Its end is remembered, or it lies in the dead letters: then it comes under an id of its own. An
            // open one comes anyway.
            let known = self.records_by_id(taken.iter().map(|record| record.stored_id()).collect()).await?;
            let again = taken
                .into_iter()
                .filter(|record| known.get(&record.stored_id()).is_none_or(|known| !known.is_open()))
                .map(|record| {
                    let mut record = record.clone();
                    record.id = format!("{}~{}", record.id, &self.new_revision().to_hex()[8..]);
                    if let Some(body) = &mut record.body {
                        body.message.id.clone_from(&record.id);
                    }
                    Write::insert(record.to_document())
                });
            let again: Vec<Write> = again.collect();
            put += self
                .write(&self.collections.deliveries, again)
                .await?
                .iter()
                .filter(|outcome| outcome.is_applied())
                .count() as u64;
        }
        if put > 0 {
            self.signal(&context.subscription.id).await?;
        }
        Ok(put)
    }
}
