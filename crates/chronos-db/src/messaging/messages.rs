//! Canonical copies of messages.

use std::collections::HashSet;

use bson::{Bson, Document};

use super::listing::Listing;
use super::schema::{Key, Kind, check_text};
use super::table::Table;
use super::value::{self, date, new_system, required_text, system_date, take_headers, text, whole};
use super::{DEFAULT_NAMESPACE, runs};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Outcome, Scan, Write};
use crate::{Error, Json, Page, Result, Timestamp};

/// Writes that travel together.
const BATCH: usize = 256;

/// Messages of one tenant; see [`Messaging::messages`](super::Messaging::messages).
#[derive(Clone, Debug)]
pub struct Messages {
    table: Table,
}

/// A stored message.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// The topic's namespace.
    pub namespace: String,
    /// Its id in the topic.
    pub msg_id: String,
    /// Its headers, an object.
    pub headers: Option<Json>,
    /// What it says.
    pub payload: Json,
    /// When it was published.
    pub first_seen_at: Timestamp,
    /// The payload's size in bytes.
    pub size: u64,
    /// When it may be removed.
    pub expires_at: Option<Timestamp>,
}

crate::debug_some!(Message { topic, namespace, msg_id, first_seen_at, size, expires_at });

impl Message {
    fn read(document: &Document) -> Result<Self> {
        Ok(Self {
            topic: required_text(document, "topic")?,
            namespace: text(document, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            msg_id: required_text(document, "msgId")?,
            headers: take_headers(document)?,
            payload: value::take(document, "payload")?,
            first_seen_at: date(document, "firstSeenAt")
                .ok_or_else(|| value::damaged(document, "firstSeenAt"))?,
            size: whole(document, "size").and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            expires_at: system_date(document, "expiresAt"),
        })
    }
}

/// A message to save.
///
/// ```
/// use chronos_db::messaging::NewMessage;
/// use chronos_db::json;
/// let message = NewMessage::new("payments", "171223123-0", json!({"orderId": "123"})).headers(json!({"type": "payment.created"}));
/// assert_eq!(message, message.clone());
/// ```
#[derive(Clone, PartialEq)]
#[must_use = "a message is saved by `messages().save_many`"]
pub struct NewMessage {
    topic: String,
    namespace: String,
    msg_id: String,
    payload: Json,
    headers: Option<Json>,
    first_seen_at: Option<Timestamp>,
    size: Option<u64>,
    retention_days: Option<u32>,
}

crate::debug_some!(NewMessage { topic, namespace, msg_id, first_seen_at, size, retention_days });

macro_rules! message_options {
    ($($at:ident)?) => {
        /// Names the topic's namespace (default `default`).
        pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
            self.$($at.)?namespace = namespace.into();
            self
        }

        /// Adds the headers, a JSON object.
        pub fn headers(mut self, headers: impl Into<Json>) -> Self {
            self.$($at.)?headers = Some(headers.into());
            self
        }

        /// Says when it was published (default: now).
        pub fn first_seen_at(mut self, at: Timestamp) -> Self {
            self.$($at.)?first_seen_at = Some(at);
            self
        }

        /// Says the payload's size in bytes (default: that of its JSON).
        pub fn size(mut self, bytes: u64) -> Self {
            self.$($at.)?size = Some(bytes);
            self
        }

        /// Lets [`prune`](super::Messaging::prune) remove it after this many days.
        pub fn retention_days(mut self, days: u32) -> Self {
            self.$($at.)?retention_days = Some(days);
            self
        }
    };
}

impl NewMessage {
    /// Makes a message of a topic.
    pub fn new(topic: impl Into<String>, msg_id: impl Into<String>, payload: impl Into<Json>) -> Self {
        Self {
            topic: topic.into(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            msg_id: msg_id.into(),
            payload: payload.into(),
            headers: None,
            first_seen_at: None,
            size: None,
            retention_days: None,
        }
    }

    message_options!();

    fn key(&self) -> Result<Key> {
        key(&self.namespace, &self.topic, &self.msg_id)
    }

    fn document(&self, now: Timestamp) -> Result<Document> {
        let mut document = Document::new();
        value::put_headers(&mut document, self.headers.as_ref())?;
        let bytes = value::put(&mut document, "payload", &self.payload)?;
        document.insert("firstSeenAt", self.first_seen_at.unwrap_or(now));
        let size = self.size.map_or_else(|| i64::try_from(bytes), i64::try_from);
        document.insert(
            "size",
            size.map_err(|_| Error::validation("the size of a message does not fit 63 bits"))?,
        );
        document.insert("_system", new_system(now, now, self.retention_days));
        Ok(document)
    }
}

fn key(namespace: &str, topic: &str, msg_id: &str) -> Result<Key> {
    let (namespace, topic) = (check_text("namespace", namespace)?, check_text("topic", topic)?);
    Ok(Key::new(Kind::Messages, [namespace.into(), topic.into(), check_text("message id", msg_id)?.into()]))
}

impl Messages {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Saves a message once: saving it again changes nothing. Answers whether it is new.
    pub fn save(
        &self,
        topic: impl Into<String>,
        msg_id: impl Into<String>,
        payload: impl Into<Json>,
    ) -> SaveMessage {
        SaveMessage { messages: self.clone(), message: NewMessage::new(topic, msg_id, payload) }
    }

    /// Saves messages once each, many in a round trip. Answers for each whether it is new.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if one of them is wrong: then none is saved. `TXN_ERROR` if the store failed: some
    /// may be saved, and saving all again is safe.
    pub async fn save_many(&self, messages: Vec<NewMessage>) -> Result<Vec<bool>> {
        self.save_all(messages).await.map_err(|error| error.during("messages.save"))
    }

    async fn save_all(&self, messages: Vec<NewMessage>) -> Result<Vec<bool>> {
        let now = self.table.now().await?;
        let mut documents = Vec::with_capacity(messages.len());
        for message in &messages {
            let key = message.key()?;
            let mut document = message.document(now)?;
            self.table.stamp(&mut document, &key);
            documents.push((key, document));
        }
        let mut new = Vec::with_capacity(messages.len());
        let mut rest = documents.into_iter();
        loop {
            let chunk: Vec<(Key, Document)> = rest.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return Ok(new);
            }
            new.extend(self.save_chunk(chunk).await?);
        }
    }

    async fn save_chunk(&self, chunk: Vec<(Key, Document)>) -> Result<Vec<bool>> {
        let adopted = self.of_the_legacy_library(&chunk).await?;
        // A batch should not write one document twice.
        let mut seen = HashSet::new();
        let fresh: Vec<bool> = chunk
            .iter()
            .map(|(_, document)| {
                let here = (
                    value::text(document, "namespace"),
                    value::text(document, "topic"),
                    value::text(document, "msgId"),
                );
                let old = here.0.as_deref() == Some(DEFAULT_NAMESPACE)
                    && adopted.contains(&(here.1.clone(), here.2.clone()));
                seen.insert(here) && !old
            })
            .collect();
        let writes = chunk
            .iter()
            .zip(&fresh)
            .filter(|(_, fresh)| **fresh)
            .map(|((_, document), _)| Write::insert(document.clone()))
            .collect();
        let mut outcomes = self.table.apply(writes).await?.into_iter();
        let mut new = Vec::with_capacity(chunk.len());
        for ((key, document), fresh) in chunk.into_iter().zip(fresh) {
            new.push(match fresh.then(|| outcomes.next()).flatten() {
                None => false,
                Some(Outcome::Applied) => true,
                Some(Outcome::Conflict { index }) if index.as_deref() == Some("_id_") => false,
                // Sorts out whose index it is.
                Some(_) => self.table.insert(document, &key).await?,
            });
        }
        Ok(new)
    }

    /// Which of these messages are there without a namespace, as topic and message id.
    async fn of_the_legacy_library(
        &self,
        chunk: &[(Key, Document)],
    ) -> Result<HashSet<(Option<String>, Option<String>)>> {
        let here = chunk
            .iter()
            .map(|(_, document)| document)
            .filter(|d| d.get_str("namespace").is_ok_and(|n| n == DEFAULT_NAMESPACE));
        let (topics, ids): (Vec<Bson>, Vec<Bson>) =
            here.filter_map(|d| Some((d.get("topic")?.clone(), d.get("msgId")?.clone()))).unzip();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let filter = Filter::eq("namespace", Bson::Null)
            .and(Filter::any_of("topic", topics))
            .and(Filter::any_of("msgId", ids));
        let without = vec!["payload".to_owned(), "headers".to_owned()];
        let found = self.table.all(Scan { filter, without, ..Scan::default() }).await?;
        Ok(found.iter().map(|document| (text(document, "topic"), text(document, "msgId"))).collect())
    }

    /// Reads one message, if it is there.
    pub fn get(&self, topic: impl Into<String>, msg_id: impl Into<String>) -> GetMessage {
        let namespace = DEFAULT_NAMESPACE.to_owned();
        GetMessage { table: self.table.clone(), namespace, topic: topic.into(), msg_id: msg_id.into() }
    }

    /// Lists the messages of a topic, newest first.
    pub fn list(&self, topic: impl Into<String>) -> ListMessages {
        ListMessages { table: self.table.clone(), list: TimeList::new("firstSeenAt", topic.into()) }
    }
}

/// Saves a message; see [`Messages::save`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct SaveMessage {
    messages: Messages,
    message: NewMessage,
}

impl SaveMessage {
    message_options!(message);

    async fn run(self) -> Result<bool> {
        let new = self.messages.save_many(vec![self.message]).await?;
        Ok(new == [true])
    }
}

runs!(SaveMessage => bool);

/// Looks a message up; see [`Messages::get`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetMessage {
    table: Table,
    namespace: String,
    topic: String,
    msg_id: String,
}

impl GetMessage {
    /// Names the topic's namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    async fn run(self) -> Result<Option<Message>> {
        let key = key(&self.namespace, &self.topic, &self.msg_id)?;
        self.table.find(&key).await?.as_ref().map(Message::read).transpose()
    }
}

runs!(GetMessage => Option<Message>);

/// A list by time and then by `_id`.
#[derive(Clone)]
pub(super) struct TimeList {
    field: &'static str,
    topic: String,
    pub(super) namespace: String,
    pub(super) from: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) direction: Direction,
    pub(super) after: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) filter: Filter,
}

crate::debug_some!(TimeList { field, topic, namespace, from, until, direction, limit });

impl TimeList {
    pub(super) fn new(field: &'static str, topic: String) -> Self {
        Self {
            field,
            topic,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            from: None,
            until: None,
            direction: Direction::Descending,
            after: None,
            limit: None,
            filter: Filter::All,
        }
    }

    pub(super) fn listing(self) -> Result<Listing> {
        check_text("namespace", &self.namespace)?;
        let mut filter = Filter::eq("topic", check_text("topic", &self.topic)?);
        let bound =
            |test: fn(Bson) -> Test, at: Timestamp| Filter::Field(self.field.to_owned(), test(at.into()));
        if let Some(from) = self.from {
            filter = filter.and(bound(Test::Gte, from));
        }
        if let Some(until) = self.until {
            filter = filter.and(bound(Test::Lt, until));
        }
        let order = vec![(self.field.to_owned(), self.direction), ("_id".to_owned(), self.direction)];
        let filter = filter.and(self.filter);
        Ok(Listing {
            filter,
            namespace: self.namespace,
            order,
            after: self.after,
            limit: self.limit,
            without: Vec::new(),
        })
    }
}

/// The options of lists by time.
macro_rules! time_list_options {
    ($read:path => $item:ty) => {
        /// Names the topic's namespace (default `default`).
        pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
            self.list.namespace = namespace.into();
            self
        }

        /// Lists only what is not older than this.
        pub fn from(mut self, at: crate::Timestamp) -> Self {
            self.list.from = Some(at);
            self
        }

        /// Lists only what is older than this.
        pub fn until(mut self, at: crate::Timestamp) -> Self {
            self.list.until = Some(at);
            self
        }

        /// Lists the oldest first. The default is newest first.
        pub fn oldest_first(mut self) -> Self {
            self.list.direction = crate::documents::Direction::Ascending;
            self
        }

        /// Goes on behind a page: its [`next`](crate::Page::next), with the same order. What is there all the
        /// time is met exactly once.
        pub fn after(mut self, cursor: impl Into<String>) -> Self {
            self.list.after = Some(cursor.into());
            self
        }

        /// Limits a page to this many (default 100, at most 1,000).
        pub fn limit(mut self, limit: u32) -> Self {
            self.list.limit = Some(limit);
            self
        }

        /// Streams all of them, page by page.
        ///
        /// # Errors
        /// `VALIDATION_ERROR` for a bad name.
        pub fn stream(self) -> crate::Result<futures::stream::BoxStream<'static, crate::Result<$item>>> {
            Ok(self.list.listing()?.stream(self.table, $read))
        }

        async fn run(self) -> crate::Result<crate::Page<$item>> {
            self.list.listing()?.page_of(&self.table, $read).await
        }
    };
}
pub(super) use time_list_options;

/// Lists messages; see [`Messages::list`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListMessages {
    table: Table,
    list: TimeList,
}

impl ListMessages {
    time_list_options!(Message::read => Message);
}

runs!(ListMessages => Page<Message>);
