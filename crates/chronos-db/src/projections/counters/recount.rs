//! A recount: a second set of counts, made from the log beside the first and put in its place.
//!
//! The second set has a generation of its own, so nobody sees it before the totals say so. Where both are at
//! the same number of the log they are compared; the exchange takes place only if the first has not moved
//! since.

use std::collections::HashMap;

use bson::Document;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::answer::Totals;
use super::change::matches;
use super::counts::{self, Counts, counted};
use super::projection::CounterProjection;
use super::record::Record;
use super::row::{self, CountRow, RowKey, Table};
use super::session::Session;
use super::store::{CounterStore, sweep_after};
use crate::config::RuleScope;
use crate::documents::{Batch, Guard, Write};
use crate::projections::follower::{Projection as _, follow};
use crate::projections::log::LogEntry;
use crate::records::Op;
use crate::{Error, Result};

/// Documents that are read at once, for rules over the payload.
const READS: usize = 8;
/// Counts of values that are compared at once.
const KEPT_AT_ONCE: usize = 500;
/// How often two sets are brought to the same number while a follower goes on.
const ATTEMPTS: u32 = 20;

/// Counts anew; whether anything was different, and how many rows or documents are damaged.
pub(super) async fn run(session: &Session) -> Result<(bool, u64)> {
    if !session.workers.index.settings.versioning {
        let message =
            "this collection keeps no versions (`versioning` is off), so there is nothing to count anew from";
        return Err(Error::validation(message));
    }
    let store = &session.store;
    store.ensure().await?;
    announce(session).await?;
    let mut second = Second::new(session.blank());
    let generation = second.record.generation;
    for _ in 0..ATTEMPTS {
        // In this order: totals never are ahead of the log, unless it was replaced by an older one.
        let is_intact = intact(session).await?;
        let stored = if is_intact { store.load().await? } else { None };
        let stable = session.log.settled().await?;
        if let Some(ahead) = stored.filter(|stored| stored.cv > stable) {
            tracing::warn!(
                counters = %store.owner.id, cv = ahead.cv, log = stable,
                "counters are ahead of their log, which was replaced by an older one; they are made anew from it"
            );
            second.count_up_to(session, stable).await?;
            store.env.fail.hit("counters.before_exchange")?;
            if exchange(session, &second.record, &ahead).await? {
                store.env.fail.hit("counters.before_sweep")?;
                store.sweep(Some(ahead.generation)).await?;
                return Ok((true, second.damaged));
            }
            continue;
        }
        // The first set may be damaged; then there is nothing to compare.
        let first = match is_intact {
            true => Some(bring_to(session, stable).await?),
            false => None,
        };
        let target = first.as_ref().map_or(stable, |first| first.cv).max(second.record.cv);
        second.count_up_to(session, target).await?;
        store.env.fail.hit("counters.before_exchange")?;
        let Some(first) = first else {
            let Some(broken) = store.load_to_replace().await? else { continue };
            if exchange(session, &second.record, &broken).await? {
                return Ok((true, second.damaged));
            }
            continue;
        };
        if first.cv != second.record.cv {
            continue;
        }
        keep_left(store, &first, &second).await?;
        let corrected = differs(session, &first, &second.record).await?;
        if exchange(session, &second.record, &first).await? {
            store.env.fail.hit("counters.before_sweep")?;
            store.sweep(Some(first.generation)).await?;
            return Ok((corrected, second.damaged));
        }
    }
    store.sweep(Some(generation)).await?;
    Err(Error::database("the counters moved on again and again while they were recounted").retryable())
}

/// Whether the stored totals, if there are any, can be read.
async fn intact(session: &Session) -> Result<bool> {
    match session.store.load().await {
        Ok(_) => Ok(true),
        Err(error) if error.is_retryable() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Sees to it that what a recount leaves that dies is removed some day.
async fn announce(session: &Session) -> Result<()> {
    // Damaged totals stay as they are until there is something to put in their place.
    while intact(session).await?
        && let Some(mut record) = session.store.load().await?
    {
        record.sweep_after = Some(sweep_after(session.store.documents.now().await?));
        if session.store.put(&record).await?.is_some() {
            break;
        }
    }
    Ok(())
}

/// The first set, followed up to `cv` at least.
async fn bring_to(session: &Session, cv: i64) -> Result<Record> {
    let projection = CounterProjection { session, periods: session.periods().await? };
    follow(&projection, &session.log, cv, None).await?;
    projection.load().await
}

/// The set that is made.
struct Second {
    record: Record,
    /// Rows or documents that cannot be read.
    damaged: u64,
    /// By rule, the versions of erased items of which only the numbers are left: nobody knows their values any more.
    left: Vec<Counts>,
}

impl Second {
    fn new(record: Record) -> Self {
        let left = vec![Counts::default(); record.rules.len()];
        Self { record, damaged: 0, left }
    }

    /// Goes on to `target`.
    async fn count_up_to(&mut self, session: &Session, target: i64) -> Result<()> {
        let projection = CounterProjection { session, periods: session.periods().await? };
        while self.record.cv < target {
            for piece in session.log.read(self.record.cv, target).await? {
                let (entries, unread) = by_their_documents(session, piece.entries).await?;
                self.damaged += piece.damaged.len() as u64 + unread;
                self.take_left(&entries);
                self.record = projection.take_in(&self.record, &entries, piece.to).await?;
                session.store.env.fail.hit("counters.between_pieces")?;
            }
        }
        Ok(())
    }

    fn take_left(&mut self, entries: &[LogEntry]) {
        for entry in entries.iter().filter(|entry| entry.row.op == Op::Erased) {
            let Some(op) = counted(entry.row.op, entry.row.ov, entry.row.counts) else { continue };
            for (rule, left) in self.record.rules.iter().zip(&mut self.left) {
                if matches(rule, entry, op) {
                    left.add(op);
                }
            }
        }
    }
}

/// Takes over what the first set has counted of values in versions that no longer say them, where others have the value
/// too: as many as there can be. A value that none of the others has goes.
async fn keep_left(store: &CounterStore, first: &Record, second: &Second) -> Result<()> {
    if second.left.iter().all(|left| left.sum() == 0) {
        return Ok(());
    }
    let mut counts = store.of_table(first.generation, Table::Unique).try_chunks(KEPT_AT_ONCE);
    while let Some(chunk) = counts.try_next().await.map_err(|error| error.1)? {
        let known: HashMap<String, (RowKey, CountRow)> = chunk
            .iter()
            .filter_map(|stored| {
                let key = RowKey::of_value(stored, &second.record.rules)?;
                let id = key.id(&store.owner, second.record.generation, &second.record.rules);
                Some((id, (key, CountRow::read(stored)?)))
            })
            .collect();
        let ids = known.keys().map(|id| id.as_str().into()).collect();
        let (mut batch, namespace) = (Batch::new(), store.namespace(Table::Unique));
        for found in store.documents.get(&namespace, ids).await? {
            let Some((id, (key, was))) = found.get_str("_id").ok().and_then(|id| known.get_key_value(id))
            else {
                continue;
            };
            let left = key.rule().and_then(|rule| second.left.get(rule)).copied().unwrap_or_default();
            let kept = CountRow::read(&found).and_then(|row| row.keeping(was, left));
            if let Some(row) = kept {
                let Record { generation, rules, .. } = &second.record;
                let document = row.stored(id, key, &store.owner, *generation, rules);
                batch.push(&namespace, Write::put(document, Guard::Any));
            }
        }
        if !batch.operations.is_empty() {
            store.documents.apply(batch).await?;
        }
    }
    Ok(())
}

/// The rows with the rules that their documents match now, where there are rules over the payload. One whose
/// document cannot be read keeps what it recorded; how many there were.
async fn by_their_documents(session: &Session, entries: Vec<LogEntry>) -> Result<(Vec<LogEntry>, u64)> {
    if !session.rules.rules.iter().any(|rule| rule.scope == RuleScope::Payload) {
        return Ok((entries, 0));
    }
    let read = stream::iter(entries).map(|mut entry| async move {
        if entry.row.op.is_bare() {
            return Ok((entry, 0));
        }
        match session.workers.reader.rules_of(&entry.row).await {
            Ok(rules) => {
                entry.row.meta.rules = rules;
                Ok((entry, 0))
            }
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                tracing::warn!(item = %entry.row.id, ov = entry.row.ov, %error, "a document cannot be read; its version counts as it was recorded");
                Ok((entry, 1))
            }
        }
    });
    let read: Vec<(LogEntry, u64)> = read.buffered(READS).try_collect().await?;
    let unread = read.iter().map(|(_, unread)| unread).sum();
    Ok((read.into_iter().map(|(entry, _)| entry).collect(), unread))
}

async fn exchange(session: &Session, second: &Record, first: &Record) -> Result<bool> {
    let mut second = second.clone();
    second.sweep_after = first.sweep_after;
    Ok(session.store.put(&second.in_place_of(first)).await?.is_some())
}

/// Whether two sets at one number of the log say different things.
async fn differs(session: &Session, first: &Record, second: &Record) -> Result<bool> {
    let shown = |record: &Record| Totals::of(record, &session.store.owner, session.rules.rules.iter());
    if shown(first) != shown(second) {
        return Ok(true);
    }
    for table in Table::ALL {
        if digest(session, first, table, second.cv).await?
            != digest(session, second, table, second.cv).await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Everything that a set says in one collection, in a few numbers: a sum over its counts that does not depend
/// on their order.
async fn digest(session: &Session, record: &Record, table: Table, up_to: i64) -> Result<(u64, u128)> {
    let known: Vec<&str> =
        session.rules.rules.iter().filter_map(|rule| Some(record.find(rule)?.1.id.as_str())).collect();
    let mut found = session.store.of_table(record.generation, table);
    let (mut number, mut sum) = (0, 0_u128);
    while let Some(count) = found.try_next().await? {
        // Rules of other configurations are counted only once.
        if count.get_str("rule").is_ok_and(|rule| !known.contains(&rule)) {
            continue;
        }
        // A value that was erased is no longer one.
        if row::is_void(&count) {
            continue;
        }
        // A follower that is at it may be ahead of its totals.
        if crate::records::number(&count, "firstCv").is_none_or(|first| first > up_to) {
            continue;
        }
        number += 1;
        sum = sum.wrapping_add(one(&count));
    }
    Ok((number, sum))
}

/// A number that tells what one count says.
fn one(count: &Document) -> u128 {
    use sha2::{Digest as _, Sha256};
    let counts = Counts::read(count).unwrap_or_default();
    let mut digest = Sha256::new();
    for name in ["rule", "propertyName", "propertyValue", "from"] {
        let value = count.get(name).unwrap_or(&bson::Bson::Null);
        digest.update(crate::documents::filter::key_encoding::encode(value));
        digest.update([0xff]);
    }
    for count in [counts.created, counts.updated, counts.deleted] {
        digest.update(counts::stored(count).to_string());
        digest.update([0xff]);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&digest.finalize()[..16]);
    u128::from_be_bytes(first)
}
