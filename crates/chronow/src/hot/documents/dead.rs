//! Dead letters: looked at, given back, removed; and messages put back from elsewhere.

use std::collections::HashSet;

use bson::Bson;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Outcome, Scan, Write};

use super::card::{Card, State, card_id, class};
use super::chunk::Body;
use super::entities::Opened;
use super::keys::place_of;
use super::store::{Engine, ascending, put_if};
use crate::hot::{Accepted, DeadLetter, DeadLetterId, MAX_LETTERS, Select};
use crate::{Error, Result, SubscriptionName, Timestamp};

/// Dead letters in one step.
const STEP: u64 = 200;

fn dead(opened: &Opened) -> Filter {
    Filter::eq("w", format!("{}{}", opened.subscription.id, class::DEAD))
}

fn cursor(card: &Card) -> String {
    format!("{}-{}", card.due, card.id)
}

/// Where a listing goes on.
fn behind(opened: &Opened, cursor: &str) -> Result<Vec<Bson>> {
    let parts = cursor.split_once('-').and_then(|(due, id)| Some((due.parse::<i64>().ok()?, id)));
    let (due, id) =
        parts.ok_or_else(|| Error::validation(format!("`{cursor}` is no cursor of this listing")))?;
    Ok(vec![due.into(), card_id(&opened.subscription.id, id).into()])
}

impl Engine {
    pub(super) async fn dead_letters(
        &self,
        name: &SubscriptionName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<DeadLetter>, Option<String>)> {
        let opened = self.open_to_look(name).await?;
        if limit == 0 {
            return Ok((Vec::new(), after.map(str::to_owned)));
        }
        let after = after.map(|cursor| behind(&opened, cursor)).transpose()?;
        let (order, limit) = (ascending(&["due", "_id"]), u64::from(limit.min(MAX_LETTERS)));
        let scan = Scan { filter: dead(&opened), order, after, limit: Some(limit), ..Scan::default() };
        let cards: Vec<Card> =
            self.scan(&self.spaces.cards, scan).await?.into_iter().map(Card::read).collect::<Result<_>>()?;
        let next = cards.last().filter(|_| cards.len() as u64 == limit).map(cursor);
        Ok((cards.into_iter().filter_map(Card::dead_letter).collect(), next))
    }

    pub(super) async fn dead_letter_ids(
        &self,
        name: &SubscriptionName,
        from: Timestamp,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<DeadLetterId>> {
        let opened = self.open_to_look(name).await?;
        let filter = dead(&opened).and(Filter::Field("due".to_owned(), Test::Gte(from.as_millis().into())));
        let after = after.map(|cursor| behind(&opened, cursor)).transpose()?;
        let without = ["b", "why"].map(str::to_owned).to_vec();
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            after,
            limit: Some(u64::from(limit)),
            without,
            ..Scan::default()
        };
        let cards = self.scan(&self.spaces.cards, scan).await?.into_iter().map(|card| {
            let card = Card::read(card)?;
            Ok(DeadLetterId {
                cursor: cursor(&card),
                failed_at: Timestamp::from_millis(card.due),
                id: card.id,
            })
        });
        cards.collect()
    }

    pub(super) async fn dead_letters_by_id(
        &self,
        name: &SubscriptionName,
        ids: &[String],
    ) -> Result<Vec<DeadLetter>> {
        let opened = self.open_to_look(name).await?;
        let cards =
            self.cards_by_id(ids.iter().map(|id| card_id(&opened.subscription.id, id)).collect()).await?;
        Ok(cards
            .into_values()
            .filter(|card| card.state == State::Dead)
            .filter_map(Card::dead_letter)
            .collect())
    }

    pub(super) async fn redrive(&self, name: &SubscriptionName, select: &Select) -> Result<u64> {
        let opened = self.open(name).await?;
        let due = opened.now.as_millis();
        let redriven = self
            .change_dead(&opened, select, &|card| {
                card.state = State::Waiting;
                card.due = due;
                card.starts = 0;
                // It was used up by deliveries that no longer count; and its time to live ended with them.
                card.expires = None;
                card.why.clear();
            })
            .await?;
        if redriven > 0 {
            self.signal(&opened.subscription.id).await?;
        }
        Ok(redriven)
    }

    pub(super) async fn purge_dead_letters(&self, name: &SubscriptionName, select: &Select) -> Result<u64> {
        let opened = self.open(name).await?;
        let removed = self.change_dead(&opened, select, &|card| card.finish(false)).await?;
        self.note_settled(&opened.local, usize::try_from(removed).unwrap_or(usize::MAX));
        Ok(removed)
    }

    /// Changes the dead letters that are selected and were dead when it began.
    async fn change_dead(
        &self,
        opened: &Opened,
        select: &Select,
        change: &(dyn Fn(&mut Card) + Sync),
    ) -> Result<u64> {
        let mut changed = 0;
        if let Select::Ids(ids) = select {
            let ids: HashSet<String> = ids.iter().map(|id| card_id(&opened.subscription.id, id)).collect();
            let cards = self.cards_by_id(ids.into_iter().collect()).await?;
            return self.put_dead(cards.into_values().filter(|card| card.state == State::Dead), change).await;
        }
        let mut left = if let Select::Oldest(count) = select { *count } else { u64::MAX };
        let filter =
            dead(opened).and(Filter::Field("due".to_owned(), Test::Lte(opened.now.as_millis().into())));
        while left > 0 {
            let cards = self.cards(filter.clone(), &["due", "_id"], left.min(STEP)).await?;
            if cards.is_empty() {
                break;
            }
            let done = self.put_dead(cards.into_iter(), change).await?;
            changed += done;
            left = left.saturating_sub(done);
        }
        Ok(changed)
    }

    async fn put_dead(
        &self,
        cards: impl Iterator<Item = Card>,
        change: &(dyn Fn(&mut Card) + Sync),
    ) -> Result<u64> {
        let puts: Vec<Write> = cards
            .map(|mut card| {
                let rev = std::mem::replace(&mut card.rev, self.fresh());
                change(&mut card);
                put_if(card.to_document(), rev)
            })
            .collect();
        Ok(self.write(&self.spaces.cards, puts).await?.iter().filter(|outcome| outcome.is_applied()).count()
            as u64)
    }

    pub(super) async fn replay(&self, name: &SubscriptionName, messages: Vec<Accepted>) -> Result<u64> {
        let opened = self.open(name).await?;
        let mut cards = Vec::with_capacity(messages.len());
        for Accepted { id, published_at, message } in messages {
            if id.is_empty() || id.contains(['/', '\0']) {
                return Err(Error::validation(format!("`{id}` is no message id")));
            }
            let place = place_of(&id).unwrap_or(0);
            // Whoever asks for it wants it whatever its age.
            let body = Body { expires: None, ..Body::of(&message, id, published_at, None) };
            let due = message.not_before.map_or(0, Timestamp::as_millis).max(opened.now.as_millis());
            let mut card =
                Card::new(&opened.subscription.id, place, 0, &body, State::Waiting, due, self.fresh());
            card.body = Some(body);
            cards.push(card);
        }
        let mut put = 0;
        for cards in cards.chunks(STEP as usize) {
            let outcomes = self
                .write(&self.spaces.cards, cards.iter().map(|card| Write::insert(card.to_document())))
                .await?;
            let mut taken = Vec::new();
            for (card, outcome) in cards.iter().zip(outcomes) {
                match outcome {
                    Outcome::Applied => put += 1,
                    _ => taken.push(card),
                }
            }
            // Its end is remembered, or it lies in the dead letters: then it comes under an id of its own. An
            // open one comes anyway.
            let known = self.cards_by_id(taken.iter().map(|card| card.stored_id()).collect()).await?;
            let again = taken
                .into_iter()
                .filter(|card| known.get(&card.stored_id()).is_none_or(|known| !known.is_open()))
                .map(|card| {
                    let mut card = card.clone();
                    card.id = format!("{}~{}", card.id, &self.fresh().to_hex()[8..]);
                    if let Some(body) = &mut card.body {
                        body.id.clone_from(&card.id);
                    }
                    Write::insert(card.to_document())
                });
            let again: Vec<Write> = again.collect();
            put += self
                .write(&self.spaces.cards, again)
                .await?
                .iter()
                .filter(|outcome| outcome.is_applied())
                .count() as u64;
        }
        if put > 0 {
            self.signal(&opened.subscription.id).await?;
        }
        Ok(put)
    }
}
