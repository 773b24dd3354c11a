//! The cursor's walk over the chunks: cards for messages nobody has looked at yet.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronos_db::documents::{Atomicity, Batch, Filter, Outcome, Scan, Write};

use super::card::{Card, State};
use super::chunk::{Body, Chunk};
use super::due::{Part, queue};
use super::entities::{Cursor, Opened};
use super::keys::chunks_between;
use super::publish::{Acceptance, GRACE_MS};
use super::store::{Engine, ascending, delete_if, int, locked, put_if};
use crate::hot::Delivery;
use crate::{ErrorKind, Result};

/// Messages looked at in one step, and chunks read at once.
const MAX_EXAMINED: usize = 2_000;
const CHUNKS_AT_ONCE: u64 = 2;

/// Places of a gap that are closed in one step, and closed ones that are passed in one.
const MAX_CLOSED: i64 = 500;
const CLOSED_AT_ONCE: u64 = 1_000;

/// A message that a publisher is writing just now comes after about so long.
const SOON: Duration = Duration::from_millis(15);

/// After so often others were faster, they may as well have died.
const MAX_LOST: u32 = 8;

/// Pulls that begin carefully after one that met others.
const CAREFUL: u32 = 32;

/// What became of new cards.
enum Claimed {
    /// These are there, and the cursor has moved.
    AsOne(Vec<(Card, Arc<Body>)>),
    /// Somebody else was faster; nothing was written.
    Lost,
    /// The former are there; the latter, and the cursor, are still to be written.
    Begun(Vec<(Card, Arc<Body>)>, Vec<(Card, Arc<Body>)>),
}

/// How far a walk came.
struct Walk {
    place: i64,
    /// New cards with their messages.
    found: Vec<(Card, Arc<Body>)>,
    /// There may be more at once.
    more: bool,
    /// There will be more then.
    soon: Option<Duration>,
}

impl Engine {
    /// Takes on new messages, at most `room` of them.
    pub(super) async fn pull_fresh(&self, opened: &Opened, room: usize) -> Result<(Part, Option<Duration>)> {
        let mut walk = self.walk(opened, room).await?;
        let part = Part { deliveries: Vec::new(), more: walk.more };
        if walk.place <= opened.cursor.at {
            return Ok((part, walk.soon));
        }
        self.line_up(opened, &mut walk.found).await?;
        let (mine, floor) = match self.claim(opened, walk.found, walk.place).await? {
            Claimed::AsOne(mine) => (mine, Ok(opened.cursor.floor)),
            Claimed::Lost => return Ok((Part { more: true, ..part }, walk.soon)),
            Claimed::Begun(mut mine, rest) => {
                let (more, floor) = self.insert_cards(opened, rest, walk.place).await?;
                mine.extend(more);
                match floor {
                    Some(floor) => (mine, Ok(floor)),
                    None => (mine, self.move_cursor(&opened.cursor, walk.place).await),
                }
            }
        };
        let deliveries = self.check(opened, mine, floor).await?;
        Ok((Part { deliveries, ..part }, walk.soon))
    }

    /// Takes the messages without getting in others' way: in one transaction with the cursor where the store
    /// works like that; elsewhere, if others were seen to pull at the same time, the first message alone to
    /// begin with.
    async fn claim(&self, opened: &Opened, mut found: Vec<(Card, Arc<Body>)>, place: i64) -> Result<Claimed> {
        if found.is_empty() {
            return Ok(Claimed::Begun(Vec::new(), found));
        }
        if self.ready().await? {
            let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
            let cursor = Cursor { at: place, ..opened.cursor.clone() };
            batch.push(&self.spaces.topics, put_if(cursor.to_document(self.fresh()), cursor.rev));
            for (card, _) in &found {
                batch.push(&self.spaces.cards, Write::insert(card.to_document()));
            }
            let outcomes = self.documents.apply(batch).await?;
            return Ok(match outcomes.first() {
                Some(Outcome::Refused) => Claimed::Lost,
                _ if outcomes.iter().all(|outcome| outcome.is_applied()) => Claimed::AsOne(found),
                // A card is there already, or its key is held after all.
                _ => Claimed::Begun(Vec::new(), found),
            });
        }
        let local = &opened.local;
        let is_plain = found.first().is_some_and(|(card, _)| card.chain().is_none());
        if local.contended.load(Ordering::Relaxed) == 0 || !is_plain {
            return Ok(Claimed::Begun(Vec::new(), found));
        }
        local.contended.fetch_sub(1, Ordering::Relaxed);
        let first = Write::insert(found[0].0.to_document());
        if self.write_one(&self.spaces.cards, first).await?.is_applied() {
            local.lost.store(0, Ordering::Relaxed);
            let rest = found.split_off(1);
            return Ok(Claimed::Begun(found, rest));
        }
        if local.lost.fetch_add(1, Ordering::Relaxed) < MAX_LOST {
            self.env.clock.sleep(Duration::from_millis(2 + self.env.random.next_u64() % 6)).await;
            return Ok(Claimed::Lost);
        }
        local.lost.store(0, Ordering::Relaxed);
        Ok(Claimed::Begun(Vec::new(), found))
    }

    async fn walk(&self, opened: &Opened, room: usize) -> Result<Walk> {
        let (topic, now) = (&opened.topic, opened.now);
        let mut walk = Walk { place: opened.cursor.at, found: Vec::new(), more: true, soon: None };
        let (mut ahead, mut examined) = (VecDeque::new(), 0);
        while walk.found.len() < room && examined < MAX_EXAMINED {
            if walk.place >= opened.seen.0 {
                walk.more = false;
                break;
            }
            let Some(chunk) = self.next_chunk(opened, walk.place, &mut ahead).await? else {
                walk.more = false;
                walk.soon = still_written(opened);
                break;
            };
            if chunk.first > walk.place + 1 {
                let removed = self.low_mark(topic).await?.min(chunk.first - 1);
                if removed > walk.place {
                    walk.place = removed;
                    continue;
                }
                if chunk.at.plus_millis(GRACE_MS) > now {
                    walk.more = false;
                    walk.soon = Some(SOON);
                    break;
                }
                let from = (walk.place + 1).max(chunk.first - MAX_CLOSED);
                self.close_gap(topic, from, chunk.first - 1, chunk.at, now).await?;
                break;
            }
            let chunk = match chunk.void {
                false => chunk,
                true => {
                    ahead.clear();
                    let (place, covering) = self.pass_closed(opened, walk.place, chunk.last).await?;
                    walk.place = place;
                    match covering {
                        Some(chunk) => chunk,
                        None => continue,
                    }
                }
            };
            match self.batch_of(opened, &chunk).await? {
                Acceptance::Accepted => {}
                Acceptance::Void => {
                    walk.place = chunk.last;
                    continue;
                }
                Acceptance::Pending => {
                    walk.more = false;
                    walk.soon = Some(SOON);
                    break;
                }
            }
            self.remember_chunk_once(&topic.id, &chunk);
            while walk.place < chunk.last && walk.found.len() < room && examined < MAX_EXAMINED {
                walk.place += 1;
                examined += 1;
                if let Some(body) = chunk.at_place(walk.place) {
                    walk.found.extend(self.judge(opened, &chunk, walk.place, body));
                }
            }
        }
        Ok(walk)
    }

    /// The card that a message needs, if it needs one.
    fn judge(
        &self,
        opened: &Opened,
        chunk: &Chunk,
        place: i64,
        body: &Arc<Body>,
    ) -> Option<(Card, Arc<Body>)> {
        let subscription = &opened.subscription;
        if !subscription.wants(body) {
            return None;
        }
        let mut card = Card::new(
            &subscription.id,
            place,
            chunk.last,
            body,
            State::Locked,
            opened.locked_until(),
            self.fresh(),
        );
        if card.has_expired(opened.now) {
            card.bury(subscription.options.dead_letters, (**body).clone(), "expired", opened.now);
        }
        Some((card, body.clone()))
    }

    async fn next_chunk(
        &self,
        opened: &Opened,
        place: i64,
        ahead: &mut VecDeque<Arc<Chunk>>,
    ) -> Result<Option<Arc<Chunk>>> {
        if ahead.is_empty() {
            if let Some(chunk) = self.remembered_chunk(&opened.topic.id, place + 1) {
                return Ok(Some(chunk));
            }
            for chunk in self.chunks_behind(&opened.topic.id, place, CHUNKS_AT_ONCE, true).await? {
                ahead.push_back(Arc::new(Chunk::read(chunk)?));
            }
        }
        Ok(ahead.pop_front())
    }

    /// Passes the closed places behind `place`, at least those up to `end`, as far as they reach without a
    /// break; or goes to the chunk that was written in time although places it covers were closed: then it is
    /// one and they are not. A gap may be closed place by place, so they are looked at together.
    async fn pass_closed(
        &self,
        opened: &Opened,
        place: i64,
        mut end: i64,
    ) -> Result<(i64, Option<Arc<Chunk>>)> {
        for chunk in self.chunks_behind(&opened.topic.id, end, CLOSED_AT_ONCE, false).await? {
            if !chunk.get_bool("void").unwrap_or(false) || int(&chunk, "f")? > end + 1 {
                break;
            }
            end = int(&chunk, "l")?;
        }
        let scan = Scan {
            filter: chunks_between(&opened.topic.id, place, opened.seen.0).and(Filter::exists("void", false)),
            order: ascending(&["_id"]),
            limit: Some(1),
            ..Scan::default()
        };
        let next = self.scan(&self.spaces.messages, scan).await?.pop().map(Chunk::read).transpose()?;
        Ok(match next.filter(|chunk| chunk.first <= end) {
            Some(chunk) => (place.max(chunk.first - 1), Some(Arc::new(chunk))),
            None => (end, None),
        })
    }

    /// Whether the batch of a chunk was accepted. Its head comes before it, so a reader that is here has
    /// passed the head's place; if nothing is there, a publisher of long ago is closed out.
    async fn batch_of(&self, opened: &Opened, chunk: &Chunk) -> Result<Acceptance> {
        let Some(head) = chunk.head else { return Ok(Acceptance::Accepted) };
        if let Some(head) = self.chunks(&opened.topic.id, [head]).await?.get(&head) {
            return Ok(if head.void { Acceptance::Void } else { Acceptance::Accepted });
        }
        if chunk.at.plus_millis(GRACE_MS) <= opened.now {
            self.close_gap(&opened.topic, head, head, chunk.at, opened.now).await?;
        }
        Ok(Acceptance::Pending)
    }

    fn remember_chunk_once(&self, topic: &str, chunk: &Arc<Chunk>) {
        if self.remembered_chunk(topic, chunk.last).is_none_or(|known| known.last != chunk.last) {
            self.remember_chunk(topic, chunk.clone());
        }
    }

    /// Queues messages behind those of their key that are open already.
    async fn line_up(&self, opened: &Opened, found: &mut [(Card, Arc<Body>)]) -> Result<()> {
        let chains: HashSet<String> = found.iter().filter_map(|(card, _)| card.chain()).collect();
        if chains.is_empty() {
            return Ok(());
        }
        let mut busy: HashSet<String> = self.chain_heads(chains).await?.into_keys().collect();
        for (card, _) in found {
            if let Some(chain) = card.chain()
                && !busy.insert(chain)
            {
                queue(card, opened.now.as_millis());
            }
        }
        Ok(())
    }

    /// Inserts cards; returns those that are this call's, and the floor if the cursor was moved along.
    async fn insert_cards(
        &self,
        opened: &Opened,
        found: Vec<(Card, Arc<Body>)>,
        place: i64,
    ) -> Result<(Vec<(Card, Arc<Body>)>, Option<i64>)> {
        let mut batch = Batch::new();
        for (card, _) in &found {
            batch.push(&self.spaces.cards, Write::insert(card.to_document()));
        }
        // The cursor may travel along: it moves after all inserts of the batch. With keys, an insert may
        // still have to be repeated in another shape.
        let along = !found.is_empty() && found.iter().all(|(card, _)| card.chain().is_none());
        if along {
            let cursor = Cursor { at: place, ..opened.cursor.clone() };
            batch.push_after(0, &self.spaces.topics, put_if(cursor.to_document(self.fresh()), cursor.rev));
        }
        if batch.operations.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut outcomes = self.documents.apply(batch).await?;
        let moved = along && outcomes.pop().is_some_and(|outcome| outcome.is_applied());
        let (mut mine, mut again) = (Vec::new(), Vec::new());
        for ((mut card, body), outcome) in found.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Applied => mine.push((card, body)),
                Outcome::Conflict { index } if card.chain().is_some() && index.as_deref() != Some("_id_") => {
                    // Another message of the key is in flight after all.
                    queue(&mut card, opened.now.as_millis());
                    again.push(Write::insert(card.to_document()));
                }
                _ => opened.local.contended.store(CAREFUL, Ordering::Relaxed),
            }
        }
        self.write(&self.spaces.cards, again).await?;
        Ok((mine, moved.then_some(opened.cursor.floor)))
    }

    /// Hands out what was inserted above the floor; anything else had been settled before.
    async fn check(
        &self,
        opened: &Opened,
        mine: Vec<(Card, Arc<Body>)>,
        floor: Result<i64>,
    ) -> Result<Vec<Delivery>> {
        let (floor, gone) = match floor {
            Ok(floor) => (floor, None),
            Err(error) if error.kind() == ErrorKind::NotFound => (i64::MAX, Some(error)),
            Err(error) => return Err(error),
        };
        let (void, valid): (Vec<_>, Vec<_>) = mine.into_iter().partition(|(card, _)| card.place <= floor);
        self.write(
            &self.spaces.cards,
            void.into_iter().map(|(card, _)| delete_if(card.stored_id(), card.rev)),
        )
        .await?;
        match gone {
            Some(error) => Err(error),
            None => {
                let locked = valid.into_iter().filter(|(card, _)| card.state == State::Locked);
                Ok(locked.map(|(card, body)| self.hand_out(opened, card, body)).collect())
            }
        }
    }
}

/// When to look again for numbers that were given out and under which nothing is yet: soon, unless their
/// publisher seems dead.
fn still_written(opened: &Opened) -> Option<Duration> {
    let now = opened.now.as_millis();
    let mut pending = locked(&opened.local.pending);
    let since = match *pending {
        Some((last, since)) if last == opened.seen.0 => since,
        _ => now,
    };
    *pending = Some((opened.seen.0, since));
    (now - since < GRACE_MS).then_some(SOON)
}
