//! The cursor's walk over the chunks: delivery records for messages nobody has looked at yet.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronos_db::documents::{Atomicity, Batch, Filter, Outcome, Scan, Write};

use super::cache::SubscriptionContext;
use super::chunk::{Body, Chunk};
use super::delivery_record::{DeliveryRecord, State};
use super::entities::{Cursor, Topic};
use super::fields::{ascending, delete_if, int, put_if};
use super::keys::chunks_between;
use super::publish::{Acceptance, GRACE_MS};
use super::pull_due::{Part, queue};
use super::store::Engine;
use crate::hot::Delivery;
use crate::{ErrorKind, Result};

/// Messages looked at in one step, and chunks read at once.
const MAX_EXAMINED: usize = 2_000;
const CHUNKS_AT_ONCE: u64 = 2;

/// Sequence numbers of a gap that are closed in one step, and closed ones that are passed in one.
const MAX_CLOSED: i64 = 500;
const CLOSED_AT_ONCE: u64 = 1_000;

/// A message that a publisher is writing just now comes after about so long.
const SOON: Duration = Duration::from_millis(15);

/// After so often others were faster, they may as well have died.
const MAX_LOST: u32 = 8;

/// Pulls that begin carefully after one that met others.
const CAREFUL: u32 = 32;

/// What became of new delivery records.
enum Claimed {
    /// These are there, and the cursor has moved.
    AsOne(Vec<(DeliveryRecord, Arc<Body>)>),
    /// Another consumer was faster; nothing was written.
    Lost,
    /// The former are there; the latter, and the cursor, are still to be written.
    Begun(Vec<(DeliveryRecord, Arc<Body>)>, Vec<(DeliveryRecord, Arc<Body>)>),
}

/// How far a walk came.
struct ScanProgress {
    sequence: i64,
    /// New delivery records with their messages.
    found: Vec<(DeliveryRecord, Arc<Body>)>,
    /// There may be more at once.
    more: bool,
    /// There will be more then.
    soon: Option<Duration>,
}

impl Engine {
    /// Takes on new messages, at most `room` of them.
    pub(super) async fn pull_new(
        &self,
        context: &SubscriptionContext,
        room: usize,
    ) -> Result<(Part, Option<Duration>)> {
        let mut progress = self.scan_new(context, room).await?;
        let part = Part { deliveries: Vec::new(), more: progress.more };
        if progress.sequence <= context.cursor.at {
            return Ok((part, progress.soon));
        }
        self.line_up(context, &mut progress.found).await?;
        let (mine, ack_floor) = match self.claim(context, progress.found, progress.sequence).await? {
            Claimed::AsOne(mine) => (mine, Ok(context.cursor.ack_floor)),
            Claimed::Lost => return Ok((Part { more: true, ..part }, progress.soon)),
            Claimed::Begun(mut mine, rest) => {
                let (more, ack_floor) = self.insert_records(context, rest, progress.sequence).await?;
                mine.extend(more);
                match ack_floor {
                    Some(ack_floor) => (mine, Ok(ack_floor)),
                    None => (mine, self.move_cursor(&context.cursor, progress.sequence).await),
                }
            }
        };
        let deliveries = self.check(context, mine, ack_floor).await?;
        Ok((Part { deliveries, ..part }, progress.soon))
    }

    /// Takes the messages without getting in others' way: in one transaction with the cursor where the store
    /// works like that; elsewhere, if others were seen to pull at the same time, the first message alone to
    /// begin with.
    async fn claim(
        &self,
        context: &SubscriptionContext,
        mut found: Vec<(DeliveryRecord, Arc<Body>)>,
        sequence: i64,
    ) -> Result<Claimed> {
        if found.is_empty() {
            return Ok(Claimed::Begun(Vec::new(), found));
        }
        if self.ready().await? {
            let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
            let cursor = Cursor { at: sequence, ..context.cursor.clone() };
            batch.push(&self.collections.topics, put_if(cursor.to_document(self.new_revision()), cursor.rev));
            for (record, _) in &found {
                batch.push(&self.collections.deliveries, Write::insert(record.to_document()));
            }
            let outcomes = self.documents.apply(batch).await?;
            return Ok(match outcomes.first() {
                Some(Outcome::Refused) => Claimed::Lost,
                _ if outcomes.iter().all(|outcome| outcome.is_applied()) => Claimed::AsOne(found),
                // A delivery record is there already, or its key is held after all.
                _ => Claimed::Begun(Vec::new(), found),
            });
        }
        let cache = &context.cache;
        let is_plain = found.first().is_some_and(|(record, _)| record.ordering_group().is_none());
        if cache.contended.load(Ordering::Relaxed) == 0 || !is_plain {
            return Ok(Claimed::Begun(Vec::new(), found));
        }
        cache.contended.fetch_sub(1, Ordering::Relaxed);
        let first = Write::insert(found[0].0.to_document());
        if self.write_one(&self.collections.deliveries, first).await?.is_applied() {
            cache.lost.store(0, Ordering::Relaxed);
            let rest = found.split_off(1);
            return Ok(Claimed::Begun(found, rest));
        }
        if cache.lost.fetch_add(1, Ordering::Relaxed) < MAX_LOST {
            self.env.clock.sleep(Duration::from_millis(2 + self.env.random.next_u64() % 6)).await;
            return Ok(Claimed::Lost);
        }
        cache.lost.store(0, Ordering::Relaxed);
        Ok(Claimed::Begun(Vec::new(), found))
    }

    async fn scan_new(&self, context: &SubscriptionContext, room: usize) -> Result<ScanProgress> {
        let (topic, now) = (&context.topic, context.now);
        let mut progress =
            ScanProgress { sequence: context.cursor.at, found: Vec::new(), more: true, soon: None };
        let (mut ahead, mut examined) = (VecDeque::new(), 0);
        while progress.found.len() < room && examined < MAX_EXAMINED {
            if progress.sequence >= context.seen.0 {
                progress.more = false;
                break;
            }
            let Some(chunk) = self.next_chunk(context, progress.sequence, &mut ahead).await? else {
                progress.more = false;
                progress.soon = still_written(context);
                break;
            };
            if chunk.first > progress.sequence + 1 {
                let removed = self.passable(topic).await?.min(chunk.first - 1);
                if removed > progress.sequence {
                    progress.sequence = removed;
                    continue;
                }
                if chunk.at.plus_millis(GRACE_MS) > now {
                    progress.more = false;
                    progress.soon = Some(SOON);
                    break;
                }
                let from = (progress.sequence + 1).max(chunk.first - MAX_CLOSED);
                self.close_gap(topic, from, chunk.first - 1, chunk.at, now).await?;
                break;
            }
            let chunk = match chunk.void {
                false => chunk,
                true => {
                    ahead.clear();
                    let (sequence, covering) =
                        self.pass_closed(context, progress.sequence, chunk.last).await?;
                    progress.sequence = sequence;
                    match covering {
                        Some(chunk) => chunk,
                        None => continue,
                    }
                }
            };
            match self.batch_of(context, &chunk).await? {
                Acceptance::Confirmed => {}
                Acceptance::Void => {
                    progress.sequence = chunk.last;
                    continue;
                }
                Acceptance::Pending => {
                    progress.more = false;
                    progress.soon = Some(SOON);
                    break;
                }
            }
            // Found by its numbers, not by its name alone: else every pull of this range would read it again.
            if self.chunks.holding(&topic.id, chunk.last).is_none_or(|known| known.last != chunk.last) {
                self.chunks.insert(&topic.id, chunk.clone());
            }
            while progress.sequence < chunk.last && progress.found.len() < room && examined < MAX_EXAMINED {
                progress.sequence += 1;
                examined += 1;
                if let Some(body) = chunk.at_sequence(progress.sequence) {
                    progress.found.extend(self.classify(context, &chunk, progress.sequence, body));
                }
            }
        }
        Ok(progress)
    }

    /// Up to where nothing is left that a gap might still be waited for.
    async fn passable(&self, topic: &Topic) -> Result<i64> {
        if self.env.fail.skips("guard.gap") {
            return Ok(i64::MAX);
        }
        self.low_watermark(topic).await
    }

    /// The delivery record that a message needs, if it needs one.
    fn classify(
        &self,
        context: &SubscriptionContext,
        chunk: &Chunk,
        sequence: i64,
        body: &Arc<Body>,
    ) -> Option<(DeliveryRecord, Arc<Body>)> {
        let subscription = &context.subscription;
        if !subscription.wants(body) {
            return None;
        }
        let mut record = DeliveryRecord::new(
            &subscription.id,
            sequence,
            chunk.last,
            body,
            State::Locked,
            context.locked_until(),
            self.new_revision(),
        );
        if record.has_expired(context.now) {
            record.dead_letter(subscription.options.dead_letters, (**body).clone(), "expired", context.now);
        }
        Some((record, body.clone()))
    }

    async fn next_chunk(
        &self,
        context: &SubscriptionContext,
        sequence: i64,
        ahead: &mut VecDeque<Arc<Chunk>>,
    ) -> Result<Option<Arc<Chunk>>> {
        if ahead.is_empty() {
            if let Some(chunk) = self.chunks.holding(&context.topic.id, sequence + 1) {
                return Ok(Some(chunk));
            }
            for chunk in self.chunks_behind(&context.topic.id, sequence, CHUNKS_AT_ONCE, true).await? {
                ahead.push_back(Arc::new(Chunk::read(chunk)?));
            }
        }
        Ok(ahead.pop_front())
    }

    /// Passes the closed sequence numbers behind `sequence`, at least those up to `end`, as far as they reach
    /// without a break; or goes to the chunk that was written in time although sequence numbers it covers
    /// were closed: then it is one and they are not. A gap may be closed number by number, so they are looked
    /// at together.
    async fn pass_closed(
        &self,
        context: &SubscriptionContext,
        sequence: i64,
        mut end: i64,
    ) -> Result<(i64, Option<Arc<Chunk>>)> {
        for chunk in self.chunks_behind(&context.topic.id, end, CLOSED_AT_ONCE, false).await? {
            if !chunk.get_bool("void").unwrap_or(false) || int(&chunk, "f")? > end + 1 {
                break;
            }
            end = int(&chunk, "l")?;
        }
        let scan = Scan {
            filter: chunks_between(&context.topic.id, sequence, context.seen.0)
                .and(Filter::exists("void", false)),
            order: ascending(&["_id"]),
            limit: Some(1),
            ..Scan::default()
        };
        let next = self.scan(&self.collections.messages, scan).await?.pop().map(Chunk::read).transpose()?;
        Ok(match next.filter(|chunk| chunk.first <= end) {
            Some(chunk) => (sequence.max(chunk.first - 1), Some(Arc::new(chunk))),
            None => (end, None),
        })
    }

    /// Whether the batch of a chunk was accepted. Its head comes before it, so a reader that is here has
    /// passed the head's sequence number; if nothing is there, a publisher of long ago is closed out.
    async fn batch_of(&self, context: &SubscriptionContext, chunk: &Chunk) -> Result<Acceptance> {
        let Some(head) = chunk.head else { return Ok(Acceptance::Confirmed) };
        if let Some(head) = self.chunks(&context.topic.id, [head]).await?.get(&head) {
            return Ok(if head.void { Acceptance::Void } else { Acceptance::Confirmed });
        }
        if chunk.at.plus_millis(GRACE_MS) <= context.now {
            self.close_gap(&context.topic, head, head, chunk.at, context.now).await?;
        }
        Ok(Acceptance::Pending)
    }

    /// Queues messages behind those of their key that are open already.
    async fn line_up(
        &self,
        context: &SubscriptionContext,
        found: &mut [(DeliveryRecord, Arc<Body>)],
    ) -> Result<()> {
        let groups: HashSet<String> =
            found.iter().filter_map(|(record, _)| record.ordering_group()).collect();
        if groups.is_empty() || self.env.fail.skips("guard.line_up") {
            return Ok(());
        }
        let mut busy: HashSet<String> = self.group_heads(groups).await?.into_keys().collect();
        for (record, _) in found {
            if let Some(ordering_group) = record.ordering_group()
                && !busy.insert(ordering_group)
            {
                queue(record, context.now.as_millis());
            }
        }
        Ok(())
    }

    /// Inserts delivery records; returns those that are this call's, and the ack floor if the cursor was
    /// moved along.
    async fn insert_records(
        &self,
        context: &SubscriptionContext,
        found: Vec<(DeliveryRecord, Arc<Body>)>,
        sequence: i64,
    ) -> Result<(Vec<(DeliveryRecord, Arc<Body>)>, Option<i64>)> {
        let mut batch = Batch::new();
        for (record, _) in &found {
            batch.push(&self.collections.deliveries, Write::insert(record.to_document()));
        }
        // The cursor may travel along: it moves after all inserts of the batch. With keys, an insert may
        // still have to be repeated in another shape.
        let along = !found.is_empty() && found.iter().all(|(record, _)| record.ordering_group().is_none());
        if along {
            let cursor = Cursor { at: sequence, ..context.cursor.clone() };
            batch.push_after(
                0,
                &self.collections.topics,
                put_if(cursor.to_document(self.new_revision()), cursor.rev),
            );
        }
        if batch.operations.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut outcomes = self.documents.apply(batch).await?;
        let moved = along && outcomes.pop().is_some_and(|outcome| outcome.is_applied());
        let (mut mine, mut again) = (Vec::new(), Vec::new());
        for ((mut record, body), outcome) in found.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Applied => mine.push((record, body)),
                Outcome::Conflict { index }
                    if record.ordering_group().is_some() && index.as_deref() != Some("_id_") =>
                {
                    // Another message of the key is in flight after all.
                    queue(&mut record, context.now.as_millis());
                    again.push(Write::insert(record.to_document()));
                }
                _ => context.cache.contended.store(CAREFUL, Ordering::Relaxed),
            }
        }
        self.write(&self.collections.deliveries, again).await?;
        Ok((mine, moved.then_some(context.cursor.ack_floor)))
    }

    /// Hands out what was inserted above the ack floor; anything else had been settled before.
    async fn check(
        &self,
        context: &SubscriptionContext,
        mine: Vec<(DeliveryRecord, Arc<Body>)>,
        ack_floor: Result<i64>,
    ) -> Result<Vec<Delivery>> {
        let (ack_floor, gone) = match ack_floor {
            Ok(ack_floor) => (ack_floor, None),
            Err(error) if error.kind() == ErrorKind::NotFound => (i64::MAX, Some(error)),
            Err(error) => return Err(error),
        };
        let is_guarded = !self.env.fail.skips("guard.ack_floor");
        let (void, valid): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|(record, _)| record.sequence <= ack_floor && is_guarded);
        self.write(
            &self.collections.deliveries,
            void.into_iter().map(|(record, _)| delete_if(record.stored_id(), record.rev)),
        )
        .await?;
        match gone {
            Some(error) => Err(error),
            None => {
                let locked = valid.into_iter().filter(|(record, _)| record.state == State::Locked);
                Ok(locked.map(|(record, body)| self.deliver(context, record, body)).collect())
            }
        }
    }
}

/// When to look again for numbers that were given out and under which nothing is yet: soon, unless their
/// publisher seems dead.
fn still_written(context: &SubscriptionContext) -> Option<Duration> {
    let now = context.now.as_millis();
    let mut pending = context.cache.pending.lock();
    let since = match *pending {
        Some((last, since)) if last == context.seen.0 => since,
        _ => now,
    };
    *pending = Some((context.seen.0, since));
    (now - since < GRACE_MS).then_some(SOON)
}
