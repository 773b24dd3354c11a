//! Topics, subscriptions and cursors as they are stored.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::documents::{Filter, filter};

use super::chunk::Body;
use super::fields::{damaged, int, text};
use super::keys::{cursor_key, sequence_of, subscription_key};
use crate::hot::millis::to_signed_millis;
use crate::hot::{SubscriptionOptions, TopicOptions, filter_view};
use crate::{Error, Result, Timestamp};

/// A topic as stored.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) key: String,
    /// Unique among all topics ever, of the same name too, so that nothing of a removed one can be mistaken.
    pub(super) id: String,
    pub(super) options: TopicOptions,
    pub(super) subscriptions: Vec<Listed>,
    /// Whether it was read with its list of subscriptions; without it, it cannot be put back.
    pub(super) has_list: bool,
    /// Whether a message was ever scheduled.
    pub(super) schedules: bool,
    pub(super) gone: bool,
    pub(super) rev: ObjectId,
}

/// A subscription in its topic's list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) id: String,
    /// It is being removed.
    pub(super) gone: bool,
}

/// A subscription as stored.
#[derive(Clone)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) options: SubscriptionOptions,
    pub(super) filter: Option<Filter>,
    /// It gets what was accepted behind this sequence number, which matters for what was scheduled before and
    /// comes later.
    pub(super) from: i64,
    pub(super) rev: ObjectId,
}

chronos_db::debug_some!(Subscription { id, from, rev });

/// How far a subscription is.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) subscription: String,
    /// Up to here every message has a delivery record or needs none.
    pub(super) at: i64,
    /// Up to here every delivery record is settled, or detached.
    pub(super) ack_floor: i64,
    /// When it was pulled from, roughly.
    pub(super) seen: i64,
    pub(super) rev: ObjectId,
}

fn options_text(options: &impl serde::Serialize) -> Result<String> {
    chronos_db::json::to_string(options)
        .map_err(|e| Error::validation("the options cannot be written as JSON").caused_by(e))
}

fn options_from<T: serde::de::DeserializeOwned>(document: &Document) -> Result<T> {
    chronos_db::json::from_slice(text(document, "options")?.as_bytes())
        .map_err(|e| damaged("topic or subscription", "options").caused_by(e))
}

/// The last sequence number a sequence has given out.
pub(super) fn last_sequence(counter: Option<&Document>) -> Result<i64> {
    counter.map_or(Ok(0), |counter| Ok(int(counter, "value")? + 1))
}

impl Topic {
    pub(super) fn to_document(&self, rev: ObjectId) -> Result<Document> {
        if !self.has_list {
            return Err(damaged("topic", "subs"));
        }
        let listed: Vec<Bson> = self
            .subscriptions
            .iter()
            .map(|s| doc! { "n": &s.name, "i": &s.id, "gone": s.gone }.into())
            .collect();
        Ok(doc! {
            "_id": &self.key, "id": &self.id, "options": options_text(&self.options)?, "subs": listed, "schedules": self.schedules,
            "gone": self.gone, "rev": rev,
        })
    }

    pub(super) fn read(topic: &Document) -> Result<Self> {
        Self { has_list: true, ..Self::read_without_list(topic)? }.with_list(topic)
    }

    fn with_list(mut self, topic: &Document) -> Result<Self> {
        let listed = topic.get_array("subs").map_err(|_| damaged("topic", "subs"))?.iter().map(|listed| {
            let listed = listed.as_document().ok_or_else(|| damaged("topic", "subs"))?;
            let gone = listed.get_bool("gone").unwrap_or(false);
            Ok(Listed { name: text(listed, "n")?.to_owned(), id: text(listed, "i")?.to_owned(), gone })
        });
        self.subscriptions = listed.collect::<Result<_>>()?;
        Ok(self)
    }

    /// What of a topic does not grow with its subscriptions.
    pub(super) fn read_without_list(topic: &Document) -> Result<Self> {
        Ok(Self {
            key: text(topic, "_id")?.to_owned(),
            id: text(topic, "id")?.to_owned(),
            options: options_from(topic)?,
            subscriptions: Vec::new(),
            has_list: false,
            schedules: topic.get_bool("schedules").unwrap_or(false),
            gone: topic.get_bool("gone").unwrap_or(false),
            rev: topic.get_object_id("rev").map_err(|_| damaged("topic", "rev"))?,
        })
    }

    /// Whether it is being removed.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The subscriptions that are there.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.subscriptions.iter().filter(|listed| !listed.gone)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Listed> {
        self.listed().find(|listed| listed.name == name)
    }
}

impl Subscription {
    pub(super) fn to_document(&self, rev: ObjectId) -> Result<Document> {
        Ok(
            doc! { "_id": subscription_key(&self.id), "options": options_text(&self.options)?, "from": self.from, "rev": rev },
        )
    }

    pub(super) fn read(id: &str, subscription: &Document) -> Result<Self> {
        let options: SubscriptionOptions = options_from(subscription)?;
        let filter = match &options.filter {
            Some(filter) => Some(filter::parse(filter, &mut |path| Ok(path.to_owned()))?),
            None => None,
        };
        let rev = subscription.get_object_id("rev").map_err(|_| damaged("subscription", "rev"))?;
        Ok(Self { id: id.to_owned(), options, filter, from: int(subscription, "from")?, rev })
    }

    pub(super) fn wants(&self, body: &Body) -> bool {
        if sequence_of(&body.message.id).is_some_and(|sequence| sequence <= self.from) {
            return false;
        }
        let Some(filter) = &self.filter else { return true };
        filter.matches(&filter_view(&body.message))
    }
}

impl Cursor {
    pub(super) fn to_document(&self, rev: ObjectId) -> Document {
        doc! { "_id": cursor_key(&self.subscription), "at": self.at, "floor": self.ack_floor, "seen": self.seen, "rev": rev }
    }

    pub(super) fn read(subscription: &str, cursor: &Document) -> Result<Self> {
        let rev = cursor.get_object_id("rev").map_err(|_| damaged("cursor", "rev"))?;
        let subscription = subscription.to_owned();
        Ok(Self {
            subscription,
            at: int(cursor, "at")?,
            ack_floor: int(cursor, "floor")?,
            seen: int(cursor, "seen")?,
            rev,
        })
    }
}

pub(super) fn is_idle(subscription: &Subscription, cursor: &Cursor, now: Timestamp) -> bool {
    let most = subscription.options.auto_delete.map(to_signed_millis);
    most.is_some_and(|most| now.as_millis().saturating_sub(cursor.seen) > most)
}
