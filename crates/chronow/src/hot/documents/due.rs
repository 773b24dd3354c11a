//! Cards that have become due: retries, locks that ended, messages that waited for their key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::Bson;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Batch, Filter, Newest, Outcome, Scan, Write};

use super::card::{Card, State, class};
use super::chunk::Body;
use super::entities::Opened;
use super::store::{Engine, delete_if, put_if};
use crate::Result;
use crate::hot::Delivery;

/// How long a message that waits for its key is left alone before somebody looks whether it was forgotten;
/// then for as long as it is old already.
pub(super) const RECHECK_MS: i64 = 5_000;
const MAX_RECHECK_MS: i64 = 600_000;

/// So often some are looked at, and so many.
const RECHECKS_MS: i64 = 500;
const RECHECKS: usize = 64;

/// A key that is held by a later message (an earlier one was given back from the dead letters) is looked at
/// again after so long.
const HELD_RECHECK_MS: i64 = 500;

/// Why a message is dead whose handlers never said anything.
pub(super) const USED_UP: &str = "its deliveries are used up; the last one was never settled";

/// What a part of a pull brought.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) deliveries: Vec<Delivery>,
    /// There may be more at once.
    pub(super) more: bool,
}

impl Opened {
    pub(super) fn locked_until(&self) -> i64 {
        self.now
            .as_millis()
            .saturating_add(i64::try_from(self.subscription.options.visibility_ms).unwrap_or(i64::MAX))
    }
}

impl Engine {
    /// Locks what is due, at most `room` of it.
    pub(super) async fn pull_due(&self, opened: &Opened, room: usize) -> Result<Part> {
        let (id, options, now) = (&opened.subscription.id, &opened.subscription.options, opened.now);
        let due = |of: String| Filter::eq("w", of).and(Filter::lte("due", now.as_millis()));
        let mut cards = self.cards(due(id.clone()), &["due", "_id"], room as u64).await?;
        let mut part = Part { more: cards.len() >= room, ..Part::default() };
        let rechecked = opened.local.rechecked_at.load(Ordering::Relaxed);
        if !part.more && now.as_millis() - rechecked >= RECHECKS_MS {
            // However many wait for their keys, what is due does not wait for them.
            opened.local.rechecked_at.store(now.as_millis(), Ordering::Relaxed);
            let most = (room - cards.len()).min(RECHECKS) as u64;
            cards.extend(self.cards(due(format!("{id}{}", class::QUEUED)), &["due", "_id"], most).await?);
        }
        if cards.is_empty() {
            return Ok(part);
        }
        let lasts: HashSet<i64> =
            cards.iter().filter(|card| card.body.is_none()).map(|card| card.chunk).collect();
        let chunks = self.chunks(&opened.topic.id, lasts).await?;
        let heads = self.chain_heads(cards.iter().filter_map(Card::chain).collect()).await?;
        let (mut batch, mut taken, mut freed) = (Batch::new(), HashSet::new(), HashSet::new());
        let mut put: Vec<Option<(Card, Arc<Body>)>> = Vec::new();
        for mut card in cards {
            let body = match &card.body {
                Some(body) => Some(Arc::new(body.clone())),
                None => chunks.get(&card.chunk).and_then(|chunk| chunk.by_id(card.place, &card.id)).cloned(),
            };
            let rev = std::mem::replace(&mut card.rev, self.fresh());
            let Some(body) = body.filter(|_| !card.is_void(opened.cursor.floor)) else {
                batch.push(&self.spaces.cards, delete_if(card.stored_id(), rev));
                put.push(None);
                continue;
            };
            let chain = card.chain();
            if card.starts >= options.max_deliveries || card.has_expired(now) {
                let reason = match (card.starts >= options.max_deliveries, card.why.is_empty()) {
                    (false, _) => "expired".to_owned(),
                    (true, true) => USED_UP.to_owned(),
                    (true, false) => card.why.clone(),
                };
                card.bury(options.dead_letters, (*body).clone(), &reason, now);
                freed.extend(chain);
            } else if chain.is_none_or(|chain| {
                heads.get(&chain).is_none_or(|head| head.id == card.id) && taken.insert(chain)
            }) {
                card.lock(opened.locked_until(), self.fresh());
            } else {
                queue(&mut card, now.as_millis());
            }
            batch.push(&self.spaces.cards, put_if(card.to_document(), rev));
            put.push(Some((card, body)));
        }
        let outcomes = self.documents.apply(batch).await?;
        let mut held_by_others = Vec::new();
        for ((card, body), outcome) in
            put.into_iter().zip(outcomes).filter_map(|(put, outcome)| Some((put?, outcome)))
        {
            match outcome {
                Outcome::Applied if card.state == State::Locked => {
                    part.deliveries.push(self.hand_out(opened, card, body))
                }
                Outcome::Conflict { .. } => held_by_others.push(card.stored_id()),
                _ => {}
            }
        }
        self.put_off(held_by_others, now.as_millis() + HELD_RECHECK_MS).await?;
        self.wake(freed).await?;
        Ok(part)
    }

    pub(super) fn hand_out(&self, opened: &Opened, card: Card, body: Arc<Body>) -> Delivery {
        let delivery = card.delivery(&body);
        opened.local.hold(card, body, opened.now.as_millis());
        delivery
    }

    /// Has cards looked at again later.
    async fn put_off(&self, ids: Vec<String>, until: i64) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let puts = self
            .cards_by_id(ids)
            .await?
            .into_values()
            .filter(|card| card.chain().is_some() && card.due < until)
            .map(|mut card| {
                let rev = std::mem::replace(&mut card.rev, self.fresh());
                card.state = State::Queued;
                card.due = until;
                card.token = None;
                put_if(card.to_document(), rev)
            });
        // Whoever changed one meanwhile knows better.
        self.write(&self.spaces.cards, puts.collect::<Vec<Write>>()).await.map(drop)
    }

    /// The oldest open card of each chain.
    pub(super) async fn chain_heads(&self, chains: HashSet<String>) -> Result<HashMap<String, Card>> {
        if chains.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted = chains.into_iter().map(Bson::String).collect();
        // `ns` is the negative place, so the newest is the oldest.
        let newest = Newest { per: "k".to_owned(), by: "ns".to_owned(), at_most: i64::MAX.into() };
        let scan = Scan {
            filter: Filter::Field("k".to_owned(), Test::In(wanted)),
            newest: Some(newest),
            ..Scan::default()
        };
        let mut heads = HashMap::new();
        for card in self.scan(&self.spaces.cards, scan).await? {
            let card = Card::read(card)?;
            if let Some(chain) = card.chain() {
                heads.insert(chain, card);
            }
        }
        Ok(heads)
    }

    /// Makes the first of each chain due, after the one before it has left.
    pub(super) async fn wake(&self, chains: HashSet<String>) -> Result<()> {
        if chains.is_empty() {
            return Ok(());
        }
        let heads = self.chain_heads(chains).await?;
        let puts = heads.into_values().filter(|head| head.state == State::Queued).map(|mut head| {
            let rev = std::mem::replace(&mut head.rev, self.fresh());
            head.state = State::Waiting;
            head.due = 0;
            (head.subscription.clone(), put_if(head.to_document(), rev))
        });
        let (woken, puts): (HashSet<String>, Vec<Write>) = puts.unzip();
        if !puts.is_empty() {
            // A refused one was woken, or has been taken, by somebody else.
            self.write(&self.spaces.cards, puts).await?;
            for id in woken {
                self.tell_subscription(&id);
            }
        }
        Ok(())
    }
}

/// Behind the others of its key.
pub(super) fn queue(card: &mut Card, now: i64) {
    card.state = State::Queued;
    card.token = None;
    card.due = now + (now - card.at.as_millis()).clamp(RECHECK_MS, MAX_RECHECK_MS);
}
