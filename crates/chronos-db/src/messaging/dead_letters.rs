//! Messages that failed for good.

use std::collections::BTreeSet;

use bson::{Bson, Document};

use super::messages::{TimeList, time_list_options};
use super::schema::{Key, Kind, check_text, is};
use super::table::Table;
use super::value::{self, date, new_system, required_text, system_date, take_headers, text, whole};
use super::{DEFAULT_NAMESPACE, runs};
use crate::documents::{Filter, Scan};
use crate::{Json, Page, Result, Timestamp};

/// Ids asked about at once.
const MAX_IDS: usize = 1_000;

/// Dead letters of one tenant; see [`Messaging::dead_letters`](super::Messaging::dead_letters).
#[derive(Clone, Debug)]
pub struct DeadLetters {
    table: Table,
}

/// A message that failed for good.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message's topic.
    pub topic: String,
    /// The topic's namespace.
    pub namespace: String,
    /// The subscription in which it failed.
    pub subscription: Option<String>,
    /// The message's id.
    pub msg_id: String,
    /// Its headers, an object.
    pub headers: Option<Json>,
    /// What it says.
    pub payload: Json,
    /// How often it was handed to a handler.
    pub deliveries: u64,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it failed.
    pub failed_at: Timestamp,
    /// When it may be removed.
    pub expires_at: Option<Timestamp>,
}

crate::debug_some!(DeadLetter { topic, namespace, subscription, msg_id, deliveries, failed_at, expires_at });

impl DeadLetter {
    fn read(document: &Document) -> Result<Self> {
        Ok(Self {
            topic: required_text(document, "topic")?,
            namespace: text(document, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            subscription: text(document, "subscription"),
            msg_id: required_text(document, "msgId")?,
            headers: take_headers(document)?,
            payload: value::take(document, "payload")?,
            deliveries: whole(document, "deliveries").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            reason: text(document, "reason"),
            failed_at: date(document, "failedAt").ok_or_else(|| value::damaged(document, "failedAt"))?,
            expires_at: system_date(document, "expiresAt"),
        })
    }
}

#[derive(Clone, Debug)]
struct Address {
    namespace: String,
    topic: String,
    subscription: Option<String>,
    msg_id: String,
}

impl Address {
    fn new(topic: String, msg_id: String) -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), topic, subscription: None, msg_id }
    }

    fn key(&self) -> Result<Key> {
        let subscription = match &self.subscription {
            Some(name) => check_text("subscription", name)?.into(),
            None => Bson::Null,
        };
        let (namespace, topic) =
            (check_text("namespace", &self.namespace)?, check_text("topic", &self.topic)?);
        Ok(Key::new(
            Kind::DeadLetters,
            [namespace.into(), topic.into(), check_text("message id", &self.msg_id)?.into(), subscription],
        ))
    }
}

macro_rules! address_options {
    () => {
        /// Names the topic's namespace (default `default`).
        pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
            self.address.namespace = namespace.into();
            self
        }

        /// Names the subscription in which it failed.
        pub fn subscription(mut self, subscription: impl Into<String>) -> Self {
            self.address.subscription = Some(subscription.into());
            self
        }
    };
}

impl DeadLetters {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Saves a dead letter once: saving it again changes nothing. Answers whether it is new.
    pub fn save(
        &self,
        topic: impl Into<String>,
        msg_id: impl Into<String>,
        payload: impl Into<Json>,
    ) -> SaveDeadLetter {
        SaveDeadLetter {
            table: self.table.clone(),
            address: Address::new(topic.into(), msg_id.into()),
            payload: payload.into(),
            headers: None,
            deliveries: 0,
            reason: None,
            failed_at: None,
            retention_days: None,
        }
    }

    /// Reads one dead letter, if it is there; that of a subscription with
    /// [`subscription`](GetDeadLetter::subscription).
    pub fn get(&self, topic: impl Into<String>, msg_id: impl Into<String>) -> GetDeadLetter {
        GetDeadLetter { table: self.table.clone(), address: Address::new(topic.into(), msg_id.into()) }
    }

    /// Returns which of these messages are there as dead letters; those of a subscription with
    /// [`subscription`](KeptDeadLetters::subscription). Their payloads are not read.
    pub fn kept(
        &self,
        topic: impl Into<String>,
        msg_ids: impl IntoIterator<Item = impl Into<String>>,
    ) -> KeptDeadLetters {
        let ids = msg_ids.into_iter().map(Into::into).collect();
        KeptDeadLetters { table: self.table.clone(), address: Address::new(topic.into(), String::new()), ids }
    }

    /// Removes a dead letter, such as one whose message was published again. Answers whether it was there.
    pub fn delete(&self, topic: impl Into<String>, msg_id: impl Into<String>) -> DeleteDeadLetter {
        DeleteDeadLetter { table: self.table.clone(), address: Address::new(topic.into(), msg_id.into()) }
    }

    /// Lists the dead letters of a topic, newest first.
    pub fn list(&self, topic: impl Into<String>) -> ListDeadLetters {
        ListDeadLetters { table: self.table.clone(), list: TimeList::new("failedAt", topic.into()) }
    }
}

/// Saves a dead letter; see [`DeadLetters::save`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct SaveDeadLetter {
    table: Table,
    address: Address,
    payload: Json,
    headers: Option<Json>,
    deliveries: u32,
    reason: Option<String>,
    failed_at: Option<Timestamp>,
    retention_days: Option<u32>,
}

crate::debug_some!(SaveDeadLetter { deliveries, failed_at, retention_days });

impl SaveDeadLetter {
    address_options!();

    /// Adds the headers, a JSON object.
    pub fn headers(mut self, headers: impl Into<Json>) -> Self {
        self.headers = Some(headers.into());
        self
    }

    /// Says how often it was handed to a handler.
    pub fn deliveries(mut self, count: u32) -> Self {
        self.deliveries = count;
        self
    }

    /// Says why it failed.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says when it failed (default: now).
    pub fn failed_at(mut self, at: Timestamp) -> Self {
        self.failed_at = Some(at);
        self
    }

    /// Lets [`prune`](super::Messaging::prune) remove it after this many days.
    pub fn retention_days(mut self, days: u32) -> Self {
        self.retention_days = Some(days);
        self
    }

    async fn run(self) -> Result<bool> {
        self.save().await.map_err(|error| error.during("dead_letters.save"))
    }

    async fn save(self) -> Result<bool> {
        let key = self.address.key()?;
        let mut document = Document::new();
        value::put_headers(&mut document, self.headers.as_ref())?;
        value::put(&mut document, "payload", &self.payload)?;
        document.insert("deliveries", i64::from(self.deliveries));
        if let Some(reason) = &self.reason {
            document.insert("reason", reason);
        }
        let saved = self.table.change(key, |found, now| {
            if found.is_some() {
                return Ok(None);
            }
            let mut document = document.clone();
            document.insert("failedAt", self.failed_at.unwrap_or(now));
            document.insert("_system", new_system(now, now, self.retention_days));
            Ok(Some(document))
        });
        Ok(saved.await?.applied)
    }
}

runs!(SaveDeadLetter => bool);

/// Looks a dead letter up; see [`DeadLetters::get`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetDeadLetter {
    table: Table,
    address: Address,
}

impl GetDeadLetter {
    address_options!();

    async fn run(self) -> Result<Option<DeadLetter>> {
        let key = self.address.key()?;
        self.table.find(&key).await?.as_ref().map(DeadLetter::read).transpose()
    }
}

runs!(GetDeadLetter => Option<DeadLetter>);

/// Says which messages are there as dead letters; see [`DeadLetters::kept`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct KeptDeadLetters {
    table: Table,
    address: Address,
    ids: Vec<String>,
}

impl KeptDeadLetters {
    address_options!();

    async fn run(self) -> Result<BTreeSet<String>> {
        let Address { namespace, topic, subscription, .. } = self.address;
        let of = |field: &str, value: Option<String>| {
            is(Kind::DeadLetters, field, &value.map_or(Bson::Null, Bson::from))
        };
        let address = of("namespace", Some(namespace))
            .and(of("topic", Some(topic)))
            .and(of("subscription", subscription));
        let mut kept = BTreeSet::new();
        for ids in self.ids.chunks(MAX_IDS) {
            let filter = address
                .clone()
                .and(Filter::any_of("msgId", ids.iter().map(|id| id.as_str().into()).collect()));
            let without = ["payload", "headers"].map(str::to_owned).to_vec();
            let found = self.table.all(Scan { filter, without, ..Scan::default() }).await?;
            for document in found {
                kept.insert(required_text(&document, "msgId")?);
            }
        }
        Ok(kept)
    }
}

runs!(KeptDeadLetters => BTreeSet<String>);

/// Removes a dead letter; see [`DeadLetters::delete`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct DeleteDeadLetter {
    table: Table,
    address: Address,
}

impl DeleteDeadLetter {
    address_options!();

    async fn run(self) -> Result<bool> {
        self.table.remove_key(&self.address.key()?).await.map_err(|error| error.during("dead_letters.delete"))
    }
}

runs!(DeleteDeadLetter => bool);

/// Lists dead letters; see [`DeadLetters::list`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListDeadLetters {
    table: Table,
    list: TimeList,
}

impl ListDeadLetters {
    time_list_options!(DeadLetter::read => DeadLetter);

    /// Lists only those of this subscription.
    pub fn subscription(mut self, subscription: impl Into<String>) -> Self {
        self.list.filter = Filter::eq("subscription", subscription.into());
        self
    }
}

runs!(ListDeadLetters => Page<DeadLetter>);
