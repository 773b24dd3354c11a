//! How much a topic may hold, and what goes if it is full.

use std::collections::BTreeSet;

use bson::oid::ObjectId;
use bson::{Document, doc};
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Filter, Scan, Write};

use super::delivery_record::{DeliveryRecord, class};
use super::entities::{Cursor, Topic, last_sequence};
use super::fields::{damaged, int, put_if, too_contended};
use super::keys::{counters_key, cursor_key, sequence_key, topic_key};
use super::known::Aside;
use super::store::Engine;
use super::topics::{ATTEMPTS, no_topic};
use crate::hot::DiscardPolicy;
use crate::{Error, ErrorKind, Result, TopicName};

/// For so long the count of what waits aside (retried, deferred, scheduled) is believed; and for so long if
/// there is room for all that can have come to it.
const ASIDE_BELIEVED_MS: i64 = 1_000;
const ASIDE_BELIEVED_WITH_ROOM_MS: i64 = 30_000;

/// Delivery records or messages in one step of something long.
const STEP: u64 = 500;

/// A topic's counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopicCounters {
    pub(super) dropped: i64,
    /// Up to here messages have been removed.
    pub(super) low: i64,
    rev: Option<ObjectId>,
}

impl TopicCounters {
    pub(super) fn read(counters: Option<&Document>) -> Result<Self> {
        let Some(counters) = counters else { return Ok(Self::default()) };
        let rev = counters.get_object_id("rev").map_err(|_| damaged("counters", "rev"))?;
        Ok(Self { dropped: int(counters, "dropped")?, low: int(counters, "low")?, rev: Some(rev) })
    }
}

/// Delivery records of a class of a subscription, up to a sequence number.
pub(super) fn of_class(subscription: &str, class: char, up_to: Option<i64>) -> Filter {
    let class = Filter::eq("c", format!("{subscription}{class}"));
    match up_to {
        Some(sequence) => class.and(Filter::Field("s".to_owned(), Test::Lte(sequence.into()))),
        None => class,
    }
}

impl Engine {
    /// Notes in which revision a topic was met.
    pub(super) fn note_topic(&self, name: &TopicName, rev: Option<ObjectId>) {
        let mut known = self.known.lock();
        if rev.is_none()
            && let Some((id, _)) = known.ids.remove(name)
        {
            known.aside.remove(&id);
            known.ack_floors.remove(&id);
            known.looked_for_idle.remove(&id);
        }
        match known.seen.get_mut(name) {
            Some((last, _)) if *last == rev => {}
            Some((last, changes)) => {
                *last = rev;
                *changes += 1;
            }
            None => drop(known.seen.insert(name.clone(), (rev, 0))),
        }
    }

    pub(super) fn changes(&self, name: &TopicName) -> u64 {
        self.known.lock().seen.get(name).map_or(0, |(_, changes)| *changes)
    }

    pub(super) async fn topic_counters(&self, topic: &Topic) -> Result<TopicCounters> {
        TopicCounters::read(self.get_one(&self.collections.topics, counters_key(&topic.id)).await?.as_ref())
    }

    pub(super) async fn low_watermark(&self, topic: &Topic) -> Result<i64> {
        Ok(self.topic_counters(topic).await?.low)
    }

    pub(super) async fn change_topic_counters(
        &self,
        topic: &Topic,
        change: impl Fn(&mut TopicCounters),
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.topic_counters(topic).await?;
            let mut counters = stored;
            change(&mut counters);
            let document = doc! { "_id": counters_key(&topic.id), "dropped": counters.dropped, "low": counters.low, "rev": self.new_revision() };
            let write = match stored.rev {
                Some(rev) => put_if(document, rev),
                None => Write::insert(document),
            };
            if self.write_one(&self.collections.topics, write).await?.is_applied() {
                return Ok(());
            }
        }
        Err(too_contended("the topic's counts"))
    }

    /// The topic with its last sequence number and its cursors: one read if its subscriptions are known
    /// already.
    pub(super) async fn open_topic(&self, name: &TopicName) -> Result<(Topic, i64, Vec<Cursor>)> {
        let key = topic_key(name);
        for _ in 0..ATTEMPTS {
            let known = self.known.lock().ids.get(name).cloned();
            let mut wanted = vec![key.clone()];
            if let Some((topic, subscriptions)) = &known {
                wanted.push(sequence_key(topic));
                wanted.extend(subscriptions.iter().map(|id| cursor_key(id)));
            }
            let found = self.get_map(&self.collections.topics, wanted).await?;
            let topic = found.get(&key).map(Topic::read).transpose()?.filter(|topic| !topic.is_gone());
            self.note_topic(name, topic.as_ref().map(|topic| topic.rev));
            let topic = topic.ok_or_else(no_topic)?;
            let current =
                (topic.id.clone(), topic.listed().map(|listed| listed.id.clone()).collect::<Vec<_>>());
            if known.as_ref() != Some(&current) {
                self.known.lock().ids.insert(name.clone(), current);
                continue;
            }
            let last = last_sequence(found.get(&sequence_key(&topic.id)))?;
            let cursors = topic
                .listed()
                .filter_map(|l| found.get(&cursor_key(&l.id)).map(|cursor| Cursor::read(&l.id, cursor)));
            let cursors = cursors.collect::<Result<_>>()?;
            return Ok((topic, last, cursors));
        }
        Err(too_contended("the topic"))
    }

    /// Makes sure that there is room for `count` more messages, and returns the topic.
    pub(super) async fn make_room(&self, name: &TopicName, count: i64) -> Result<Topic> {
        match self.find_room(name, count).await {
            Err(error) if error.kind() == ErrorKind::Full => {
                // What subscriptions hold that nobody uses is owed to nobody.
                let (topic, _, _) = self.open_topic(name).await?;
                let now = self.documents.now().await?;
                if self.expire_idle_of(name, &topic, now).await? {
                    self.find_room(name, count).await
                } else {
                    Err(error)
                }
            }
            found => found,
        }
    }

    async fn find_room(&self, name: &TopicName, count: i64) -> Result<Topic> {
        if let Some(topic) = self.sure_of_room(name, count).await? {
            return Ok(topic);
        }
        let (topic, last, mut cursors) = self.open_topic(name).await?;
        let most = i64::try_from(topic.options.max_len).unwrap_or(i64::MAX);
        let Some(ack_floor) = cursors.iter().map(|cursor| cursor.ack_floor).min() else {
            self.trim_unowed(&topic, last + count - most).await?;
            return Ok(topic);
        };
        self.known.lock().ack_floors.insert(topic.id.clone(), (topic.rev, ack_floor));
        let aside = self.aside(&topic, &cursors, last, false).await?;
        if last - ack_floor + aside + count <= most {
            return Ok(topic);
        }
        // The window counts what was settled out of order, too, and may be old; now count exactly.
        self.lift_ack_floors(&topic, &mut cursors).await?;
        let aside = self.aside(&topic, &cursors, last, true).await?;
        let adopted = cursors.iter().map(|cursor| cursor.at).min().unwrap_or(last);
        let open = self.open_sequences(&cursors, adopted).await?;
        let owed = last - adopted + open.len() as i64 + aside;
        let over = owed + count - most;
        if over <= 0 {
            return Ok(topic);
        }
        if topic.options.overflow == DiscardPolicy::Reject || count > most {
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "it holds {owed} messages that a subscription still needs, of {most} it may hold; {count} more have no room"
                ),
            ));
        }
        let over_open = usize::try_from(over).unwrap_or(usize::MAX);
        let up_to = match open.iter().nth(over_open - 1) {
            Some(sequence) => *sequence,
            None => (adopted + over - open.len() as i64).min(last),
        };
        let dropped = open.range(..=up_to).count() as i64 + (up_to - adopted).max(0);
        self.drop_up_to(&cursors, up_to).await?;
        self.change_topic_counters(&topic, |counters| counters.dropped += dropped).await?;
        tracing::warn!(topic = %topic.key, dropped, "the topic is full: its oldest messages were dropped");
        Ok(topic)
    }

    /// The topic, if by what this process remembers there is room for `count` more messages: two reads,
    /// whatever subscriptions there are.
    async fn sure_of_room(&self, name: &TopicName, count: i64) -> Result<Option<Topic>> {
        let key = topic_key(name);
        let Some((known, _)) = self.known.lock().ids.get(name).cloned() else { return Ok(None) };
        let found = self.get_without_lists(vec![key.clone(), sequence_key(&known)]).await?;
        let topic =
            found.get(&key).map(Topic::read_without_list).transpose()?.filter(|topic| !topic.is_gone());
        self.note_topic(name, topic.as_ref().map(|topic| topic.rev));
        let topic = topic.ok_or_else(no_topic)?;
        let last = last_sequence(found.get(&sequence_key(&topic.id)))?;
        let (ack_floor, aside) = {
            let known = self.known.lock();
            (known.ack_floors.get(&topic.id).copied(), known.aside.get(&topic.id).copied())
        };
        let (Some((rev, ack_floor)), Some(aside)) = (ack_floor, aside) else { return Ok(None) };
        let most = i64::try_from(topic.options.max_len).unwrap_or(i64::MAX);
        let age = self.env.clock.now().as_millis() - aside.at;
        let sure = match age {
            0..=ASIDE_BELIEVED_MS => last - ack_floor + aside.count + count <= most,
            ..=ASIDE_BELIEVED_WITH_ROOM_MS => last - ack_floor + aside.most(last) + count <= most,
            _ => false,
        };
        Ok((sure && rev == topic.rev && age >= 0).then_some(topic))
    }

    /// Sequence numbers with a delivery record that is open and not detached, of whichever subscription.
    pub(super) async fn open_sequences(&self, cursors: &[Cursor], up_to: i64) -> Result<BTreeSet<i64>> {
        let mut sequences = BTreeSet::new();
        for cursor in cursors {
            let filter = of_class(&cursor.subscription, class::OPEN, Some(up_to));
            let found = self.scan(&self.collections.deliveries, Scan { filter, ..Scan::default() }).await?;
            for record in found {
                sequences.insert(int(&record, "s")?);
            }
        }
        Ok(sequences)
    }

    /// How many messages wait outside of the chunks.
    pub(super) async fn aside(
        &self,
        topic: &Topic,
        cursors: &[Cursor],
        last: i64,
        exactly: bool,
    ) -> Result<i64> {
        let now = self.env.clock.now().as_millis();
        let known = self.known.lock().aside.get(&topic.id).copied();
        if let Some(known) =
            known.filter(|known| !exactly && (known.at..=known.at + ASIDE_BELIEVED_MS).contains(&now))
        {
            return Ok(known.count);
        }
        let (mut sequences, most) = (
            BTreeSet::new(),
            topic.options.max_len.saturating_add(1).saturating_mul(cursors.len().max(1) as u64),
        );
        let classes = cursors
            .iter()
            .map(|cursor| format!("{}{}", cursor.subscription, class::DETACHED).into())
            .collect();
        let filter = Filter::Field("c".to_owned(), Test::In(classes));
        let scan = Scan { filter, limit: Some(most), without: vec!["b".to_owned()], ..Scan::default() };
        for record in self.scan(&self.collections.deliveries, scan).await? {
            sequences.insert(int(&record, "s")?);
        }
        let mut count = sequences.len() as i64;
        if topic.schedules {
            let filter = Filter::eq("w", topic.id.as_str());
            let scan = Scan { filter, limit: Some(most), without: vec!["b".to_owned()], ..Scan::default() };
            count += self.scan(&self.collections.scheduled, scan).await?.len() as i64;
        }
        let window = last - cursors.iter().map(|cursor| cursor.ack_floor).min().unwrap_or(last);
        self.known.lock().aside.insert(topic.id.clone(), Aside { at: now, count, last, window });
        Ok(count)
    }

    /// Settles for everybody what lies up to a sequence number in the chunks.
    pub(super) async fn drop_up_to(&self, cursors: &[Cursor], up_to: i64) -> Result<()> {
        for cursor in cursors {
            if cursor.at < up_to {
                self.move_cursor(cursor, up_to).await?;
            }
            self.finish_records(of_class(&cursor.subscription, class::OPEN, Some(up_to))).await?;
        }
        Ok(())
    }

    /// Ends all delivery records that match, without acknowledging them. Returns their sequence numbers.
    pub(super) async fn finish_records(&self, filter: Filter) -> Result<BTreeSet<i64>> {
        let mut sequences = BTreeSet::new();
        loop {
            let records = self.records(filter.clone(), &[], STEP).await?;
            if records.is_empty() {
                return Ok(sequences);
            }
            sequences.extend(records.iter().map(|record| record.sequence));
            let puts = records.into_iter().map(|mut record: DeliveryRecord| {
                let rev = std::mem::replace(&mut record.rev, self.new_revision());
                record.finish(false);
                put_if(record.to_document(), rev)
            });
            // A refused one is looked at again in the next step.
            self.write(&self.collections.deliveries, puts).await?;
        }
    }
}
