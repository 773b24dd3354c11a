//! How much a topic may hold, and what goes if it is full.

use std::collections::{BTreeSet, HashMap};

use bson::oid::ObjectId;
use bson::{Document, doc};
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Scan, Write};

use super::card::{Card, class};
use super::entities::{Cursor, Topic, last_place};
use super::keys::{cursor_key, sequence_key, tally_key, topic_key};
use super::store::{Engine, damaged, int, locked, put_if, too_contended};
use super::topics::{ATTEMPTS, no_topic};
use crate::hot::Overflow;
use crate::{Error, ErrorKind, Result, TopicName};

/// For so long the count of what waits aside (retried, deferred, scheduled) is believed.
const ASIDE_BELIEVED_MS: i64 = 1_000;

/// Cards or messages in one step of something long.
const STEP: u64 = 500;

/// What a process remembers of topics, to need one read a publish.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: HashMap<TopicName, (String, Vec<String>)>,
    aside: HashMap<String, (i64, i64)>,
}

/// A topic's counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopicTally {
    pub(super) dropped: i64,
    /// Up to here messages have been removed.
    pub(super) low: i64,
    rev: Option<ObjectId>,
}

impl TopicTally {
    fn read(tally: Option<&Document>) -> Result<Self> {
        let Some(tally) = tally else { return Ok(Self::default()) };
        let rev = tally.get_object_id("rev").map_err(|_| damaged("tally", "rev"))?;
        Ok(Self { dropped: int(tally, "dropped")?, low: int(tally, "low")?, rev: Some(rev) })
    }
}

/// Cards of a class of a subscription, up to a place.
pub(super) fn of_class(subscription: &str, class: char, up_to: Option<i64>) -> Filter {
    let class = Filter::eq("c", format!("{subscription}{class}"));
    match up_to {
        Some(place) => class.and(Filter::Field("s".to_owned(), Test::Lte(place.into()))),
        None => class,
    }
}

impl Engine {
    pub(super) async fn topic_tally(&self, topic: &Topic) -> Result<TopicTally> {
        TopicTally::read(self.get_one(&self.spaces.topics, tally_key(&topic.id)).await?.as_ref())
    }

    pub(super) async fn low_mark(&self, topic: &Topic) -> Result<i64> {
        Ok(self.topic_tally(topic).await?.low)
    }

    pub(super) async fn change_topic_tally(&self, topic: &Topic, change: impl Fn(&mut TopicTally)) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.topic_tally(topic).await?;
            let mut tally = stored;
            change(&mut tally);
            let document = doc! { "_id": tally_key(&topic.id), "dropped": tally.dropped, "low": tally.low, "rev": self.fresh() };
            let write = match stored.rev {
                Some(rev) => put_if(document, rev),
                None => Write::insert(document),
            };
            if self.write_one(&self.spaces.topics, write).await?.is_applied() {
                return Ok(());
            }
        }
        Err(too_contended("the topic's counts"))
    }

    /// The topic with its last place and its cursors: one read if its subscriptions are known already.
    pub(super) async fn open_topic(&self, name: &TopicName) -> Result<(Topic, i64, Vec<Cursor>)> {
        let key = topic_key(name);
        for _ in 0..ATTEMPTS {
            let known = locked(&self.known).ids.get(name).cloned();
            let mut wanted = vec![key.clone()];
            if let Some((topic, subscriptions)) = &known {
                wanted.push(sequence_key(topic));
                wanted.extend(subscriptions.iter().map(|id| cursor_key(id)));
            }
            let found = self.get_map(&self.spaces.topics, wanted).await?;
            let topic = found.get(&key).map(Topic::read).transpose()?.filter(|topic| !topic.is_gone()).ok_or_else(no_topic)?;
            let current = (topic.id.clone(), topic.listed().map(|listed| listed.id.clone()).collect::<Vec<_>>());
            if known.as_ref() != Some(&current) {
                locked(&self.known).ids.insert(name.clone(), current);
                continue;
            }
            let last = last_place(found.get(&sequence_key(&topic.id)))?;
            let cursors = topic.listed().filter_map(|l| found.get(&cursor_key(&l.id)).map(|cursor| Cursor::read(&l.id, cursor)));
            let cursors = cursors.collect::<Result<_>>()?;
            return Ok((topic, last, cursors));
        }
        Err(too_contended("the topic"))
    }

    /// Makes sure that there is room for `count` more messages, and returns the topic.
    pub(super) async fn make_room(&self, name: &TopicName, count: i64) -> Result<Topic> {
        let (topic, last, mut cursors) = self.open_topic(name).await?;
        let most = i64::try_from(topic.options.max_len).unwrap_or(i64::MAX);
        if cursors.is_empty() {
            self.trim_unowed(&topic, last + count - most).await?;
            return Ok(topic);
        }
        let window = |cursors: &[Cursor]| last - cursors.iter().map(|cursor| cursor.floor).min().unwrap_or(last);
        let aside = self.aside(&topic, &cursors, false).await?;
        if window(&cursors) + aside + count <= most {
            return Ok(topic);
        }
        // The window counts what was settled out of order, too, and may be old; now count exactly.
        self.lift_floors(&mut cursors).await?;
        let aside = self.aside(&topic, &cursors, true).await?;
        let adopted = cursors.iter().map(|cursor| cursor.at).min().unwrap_or(last);
        let open = self.open_places(&cursors, adopted).await?;
        let owed = last - adopted + open.len() as i64 + aside;
        let over = owed + count - most;
        if over <= 0 {
            return Ok(topic);
        }
        if topic.options.overflow == Overflow::Reject || count > most {
            return Err(Error::new(
                ErrorKind::Full,
                format!("it holds {owed} messages that somebody still needs, of {most} it may hold; {count} more have no room"),
            ));
        }
        let over_open = usize::try_from(over).unwrap_or(usize::MAX);
        let up_to = match open.iter().nth(over_open - 1) {
            Some(place) => *place,
            None => (adopted + over - open.len() as i64).min(last),
        };
        let dropped = open.range(..=up_to).count() as i64 + (up_to - adopted).max(0);
        self.drop_up_to(&cursors, up_to).await?;
        self.change_topic_tally(&topic, |tally| tally.dropped += dropped).await?;
        tracing::warn!(topic = %topic.key, dropped, "the topic is full: its oldest messages were dropped");
        Ok(topic)
    }

    /// Places with a card that is open and not detached, of whichever subscription.
    pub(super) async fn open_places(&self, cursors: &[Cursor], up_to: i64) -> Result<BTreeSet<i64>> {
        let mut places = BTreeSet::new();
        for cursor in cursors {
            let filter = of_class(&cursor.subscription, class::OPEN, Some(up_to));
            let found = self.scan(&self.spaces.cards, Scan { filter, ..Scan::default() }).await?;
            for card in found {
                places.insert(int(&card, "s")?);
            }
        }
        Ok(places)
    }

    /// How many messages wait outside of the chunks.
    async fn aside(&self, topic: &Topic, cursors: &[Cursor], exactly: bool) -> Result<i64> {
        let now = self.runtime.clock.now().as_millis();
        let known = locked(&self.known).aside.get(&topic.id).copied();
        if let Some((_, count)) = known.filter(|(at, _)| !exactly && (at..=&(at + ASIDE_BELIEVED_MS)).contains(&&now)) {
            return Ok(count);
        }
        let (mut places, most) = (BTreeSet::new(), topic.options.max_len.saturating_add(1));
        for cursor in cursors {
            let filter = of_class(&cursor.subscription, class::DETACHED, None);
            let scan = Scan { filter, limit: Some(most), without: vec!["b".to_owned()], ..Scan::default() };
            for card in self.scan(&self.spaces.cards, scan).await? {
                places.insert(int(&card, "s")?);
            }
        }
        let mut count = places.len() as i64;
        if topic.schedules {
            let filter = Filter::eq("w", topic.id.as_str());
            let scan = Scan { filter, limit: Some(most), without: vec!["b".to_owned()], ..Scan::default() };
            count += self.scan(&self.spaces.scheduled, scan).await?.len() as i64;
        }
        locked(&self.known).aside.insert(topic.id.clone(), (now, count));
        Ok(count)
    }

    /// Settles for everybody what lies up to a place in the chunks.
    pub(super) async fn drop_up_to(&self, cursors: &[Cursor], up_to: i64) -> Result<()> {
        for cursor in cursors {
            if cursor.at < up_to {
                self.move_cursor(cursor, up_to).await?;
            }
            self.finish_cards(of_class(&cursor.subscription, class::OPEN, Some(up_to))).await?;
        }
        Ok(())
    }

    /// Ends all cards that match, without acknowledging them. Returns their places.
    pub(super) async fn finish_cards(&self, filter: Filter) -> Result<BTreeSet<i64>> {
        let mut places = BTreeSet::new();
        loop {
            let cards = self.cards(filter.clone(), &[], STEP).await?;
            if cards.is_empty() {
                return Ok(places);
            }
            places.extend(cards.iter().map(|card| card.place));
            let puts = cards.into_iter().map(|mut card: Card| {
                let rev = std::mem::replace(&mut card.rev, self.fresh());
                card.finish(false);
                put_if(card.to_document(), rev)
            });
            // A refused one is looked at again in the next step.
            self.write(&self.spaces.cards, puts).await?;
        }
    }
}
