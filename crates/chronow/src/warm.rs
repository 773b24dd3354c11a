//! The warm tier: chronos-db's messaging database, which keeps what the hot tier lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chronos_db::Chronos;
use chronos_db::messaging::{DeliveryStatus, Message, Messaging, NewMessage, SharedValue};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::headers::strip;
use crate::hot::{DeadLetter, OutboundMessage, StoredMessage};
use crate::payloads::{CLAIM, Claim};
use crate::{Error, ErrorKind, Json, Result, Scope, SubscriptionName, Timestamp, TopicName};

/// What is kept says for how many days.
const SECONDS_PER_DAY: u64 = 86_400;
const CONTENT_TYPE: &str = "cw-content-type";
const KEY: &str = "cw-key";
const ENCODING: &str = "cw-encoding";
const DUE: &str = "cw-due";
const TTL: &str = "cw-ttl";
/// The header of a message that gets a copy though its topic does not ask for copies.
pub(crate) const COPIED: &str = "cw-warm";

/// The messaging databases of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    chronos: Chronos,
    retention_days: u32,
}

/// A value of the warm tier.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) value: Json,
    pub(crate) expires_at: Option<Timestamp>,
    /// The version it had in the hot tier.
    pub(crate) hot_version: Option<u64>,
}

chronos_db::debug_some!(Kept { expires_at });

/// How a handler's work on a message ended, for the audit.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) status: DeliveryStatus,
    pub(crate) reason: Option<String>,
    pub(crate) at: Timestamp,
}

/// How a value is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep {
    pub(crate) append: bool,
    pub(crate) retention_days: Option<u32>,
    pub(crate) max_versions: Option<u32>,
}

fn failed(error: chronos_db::Error) -> Error {
    let kind = if error.kind() == chronos_db::ErrorKind::Validation {
        ErrorKind::Validation
    } else {
        ErrorKind::WarmTier
    };
    let own = Error::new(kind, format!("the warm tier: {}", error.message()));
    let own = if error.is_retryable() { own.retryable() } else { own };
    own.caused_by(error)
}

impl Warm {
    pub(crate) fn new(chronos: Chronos, retention: Duration) -> Self {
        let days = u32::try_from(retention.as_secs().div_ceil(SECONDS_PER_DAY)).unwrap_or(u32::MAX);
        Self { chronos, retention_days: days }
    }

    fn messaging(&self, scope: &Scope) -> Result<Messaging> {
        self.chronos.messaging(scope.tenant()).map_err(failed)
    }

    /// Keeps copies of messages, each once.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if one of them can never be kept: then none is.
    pub(crate) async fn keep(&self, topic: &TopicName, messages: Vec<StoredMessage>) -> Result<()> {
        let copies = messages.into_iter().map(|message| self.copy(topic, message)).collect::<Result<_>>()?;
        let messages = self.messaging(topic.scope())?.messages();
        messages.save_many(copies).await.map(drop).map_err(failed)
    }

    fn copy(&self, topic: &TopicName, mut message: StoredMessage) -> Result<NewMessage> {
        strip(&mut message.headers);
        let claimed = (message.content_type == CLAIM)
            .then(|| Claim::read(topic, &message.payload))
            .and_then(Result::ok);
        let size = claimed.map_or(message.payload.len() as u64, |claim| claim.size);
        let (id, published_at) = (message.id.clone(), message.published_at);
        let (payload, headers) = to_copy(message);
        check_document(&payload, &headers)?;
        let copy = NewMessage::new(topic.name(), id, payload)
            .namespace(topic.scope().namespace())
            .headers(to_json(headers));
        Ok(copy.first_seen_at(published_at).size(size).retention_days(self.retention_days))
    }

    /// Whether there is a copy of a message.
    pub(crate) async fn has(&self, topic: &TopicName, id: &str) -> Result<bool> {
        let messages = self.messaging(topic.scope())?.messages();
        let found =
            messages.get(topic.name(), id).namespace(topic.scope().namespace()).await.map_err(failed)?;
        Ok(found.is_some())
    }

    /// The copies of some messages, as far as they are there.
    pub(crate) async fn kept_by_id(&self, topic: &TopicName, ids: &[String]) -> Result<Vec<StoredMessage>> {
        let messages = self.messaging(topic.scope())?.messages();
        let gets = ids.iter().map(|id| async {
            messages.get(topic.name(), id.as_str()).namespace(topic.scope().namespace()).await
        });
        let found = futures::future::try_join_all(gets).await.map_err(failed)?;
        found.into_iter().flatten().map(from_copy).collect()
    }

    /// Keeps messages that are about to be published, each under the id it is deduplicated by.
    pub(crate) async fn stage(
        &self,
        topic: &TopicName,
        at: Timestamp,
        messages: &[OutboundMessage],
    ) -> Result<()> {
        let name = pending(topic);
        let copies = messages.iter().map(|message| {
            let mut message = message.clone();
            let id = message.dedup_id.take().unwrap_or_default();
            let mut own = Vec::new();
            own.extend(message.not_before.map(|due| (DUE, due.as_millis().to_string())));
            own.extend(message.ttl.map(|ttl| (TTL, ttl.as_millis().to_string())));
            let (payload, mut headers) = to_copy(message.stored(id.clone(), at));
            headers.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
            // They are owed: no time ends them.
            NewMessage::new(name.as_str(), id, payload)
                .namespace(topic.scope().namespace())
                .headers(to_json(headers))
                .first_seen_at(at)
        });
        let messages = self.messaging(topic.scope())?.messages();
        messages.save_many(copies.collect()).await.map(drop).map_err(failed)
    }

    /// Messages that were about to be published, oldest first, as they would be published now.
    pub(crate) fn staged(
        &self,
        topic: &TopicName,
        now: Timestamp,
    ) -> Result<BoxStream<'static, Result<(Timestamp, OutboundMessage)>>> {
        let messages = self.messaging(topic.scope())?.messages();
        let list = messages.list(pending(topic)).namespace(topic.scope().namespace()).oldest_first();
        let stream = list.stream().map_err(failed)?;
        Ok(stream.map(move |copy| copy.map_err(failed).and_then(|copy| from_staged(copy, now))).boxed())
    }

    /// Forgets what is published.
    pub(crate) async fn confirm(&self, topic: &TopicName, ids: Vec<String>) -> Result<()> {
        self.forget(topic, Some(ids)).await
    }

    /// Forgets all that was about to be published.
    pub(crate) async fn discard(&self, topic: &TopicName) -> Result<()> {
        self.forget(topic, None).await
    }

    async fn forget(&self, topic: &TopicName, ids: Option<Vec<String>>) -> Result<()> {
        let mut filter =
            chronos_db::json!({ "namespace": topic.scope().namespace(), "topic": pending(topic) });
        if let Some(ids) = ids {
            filter["msgId"] = chronos_db::json!({ "$in": ids });
        }
        let messages = self.messaging(topic.scope())?.collection("messages").map_err(failed)?;
        messages.delete_many(filter).await.map(drop).map_err(failed)
    }

    /// Keeps a dead letter, once.
    pub(crate) async fn dead_letter(
        &self,
        subscription: &SubscriptionName,
        letter: DeadLetter,
    ) -> Result<()> {
        let (topic, scope) = (subscription.topic().name(), subscription.topic().scope());
        let DeadLetter { mut message, reason, deliveries, failed_at } = letter;
        strip(&mut message.headers);
        let id = message.id.clone();
        let (payload, headers) = to_copy(message);
        check_document(&payload, &headers)?;
        let letters = self.messaging(scope)?.dead_letters();
        let save = letters
            .save(topic, id, payload)
            .namespace(scope.namespace())
            .subscription(subscription.name())
            .headers(to_json(headers));
        let save = save
            .deliveries(deliveries)
            .reason(reason)
            .failed_at(failed_at)
            .retention_days(self.retention_days);
        save.await.map(drop).map_err(failed)
    }

    /// Which of these messages are kept as dead letters of a subscription.
    pub(crate) async fn dead_lettered(
        &self,
        subscription: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<BTreeSet<String>> {
        let (topic, scope) = (subscription.topic().name(), subscription.topic().scope());
        let kept = self
            .messaging(scope)?
            .dead_letters()
            .kept(topic, ids)
            .namespace(scope.namespace())
            .subscription(subscription.name());
        kept.await.map_err(failed)
    }

    /// When the newest dead letter of a subscription failed that is kept.
    pub(crate) async fn last_dead_lettered(
        &self,
        subscription: &SubscriptionName,
    ) -> Result<Option<Timestamp>> {
        let (topic, scope) = (subscription.topic().name(), subscription.topic().scope());
        let list = self
            .messaging(scope)?
            .dead_letters()
            .list(topic)
            .namespace(scope.namespace())
            .subscription(subscription.name());
        let page = list.limit(1).await.map_err(failed)?;
        Ok(page.items.first().map(|letter| letter.failed_at))
    }

    /// Whether any tenant's deliveries are to be kept.
    pub(crate) fn captures(&self) -> bool {
        self.chronos.config().entries.iter().any(|entry| entry.capture_deliveries)
    }

    /// Notes how an attempt ended, if the configuration says so.
    pub(crate) async fn note(&self, subscription: &SubscriptionName, attempt: &Attempt) -> Result<()> {
        let (topic, scope) = (subscription.topic().name(), subscription.topic().scope());
        let Some(deliveries) = self.messaging(scope)?.deliveries() else { return Ok(()) };
        let append = deliveries.append(
            topic,
            subscription.name(),
            attempt.id.as_str(),
            attempt.attempt,
            attempt.status,
        );
        let mut append =
            append.namespace(scope.namespace()).ts(attempt.at).retention_days(self.retention_days);
        if let Some(reason) = &attempt.reason {
            append = append.reason(reason.as_str());
        }
        append.await.map(drop).map_err(failed)
    }

    /// The copies of a topic's messages, oldest first.
    pub(crate) fn kept(
        &self,
        topic: &TopicName,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<BoxStream<'static, Result<StoredMessage>>> {
        let mut list = self
            .messaging(topic.scope())?
            .messages()
            .list(topic.name())
            .namespace(topic.scope().namespace())
            .oldest_first();
        if let Some(from) = from {
            list = list.from(from);
        }
        if let Some(until) = until {
            list = list.until(until);
        }
        let stream = list.stream().map_err(failed)?;
        Ok(stream.map(|message| message.map_err(failed).and_then(from_copy)).boxed())
    }

    /// Keeps a value as of a time; an older one does not replace a newer one, nor a tombstone.
    pub(crate) async fn save(
        &self,
        scope: &Scope,
        key: &str,
        value: Json,
        at: Timestamp,
        version: u64,
        keep: Keep,
    ) -> Result<()> {
        let shared = self.messaging(scope)?.shared();
        let mut save = shared
            .save(scope.namespace(), key, value)
            .at(at)
            .retention_days(keep.retention_days.unwrap_or(self.retention_days));
        if let Ok(version) = i64::try_from(version) {
            save = save.hot_version(version);
        }
        if keep.append {
            save = save.append();
        }
        if let Some(versions) = keep.max_versions {
            save = save.max_versions(versions);
        }
        save.await.map(drop).map_err(failed)
    }

    /// The value of a key: the latest, or a version of one that keeps them.
    pub(crate) async fn load(&self, scope: &Scope, key: &str, version: Option<i64>) -> Result<Option<Kept>> {
        let mut load = self.messaging(scope)?.shared().load(scope.namespace(), key);
        if let Some(version) = version {
            load = load.version(version);
        }
        let found: Option<SharedValue> = load.await.map_err(failed)?;
        Ok(found.map(|found| {
            let hot_version = found.hot_version.and_then(|version| u64::try_from(version).ok());
            Kept { value: found.value, expires_at: found.expires_at, hot_version }
        }))
    }

    /// Leaves a tombstone as of a time, which wins over whatever is of that time or older.
    pub(crate) async fn tombstone(&self, scope: &Scope, key: &str, at: Timestamp) -> Result<()> {
        self.messaging(scope)?
            .shared()
            .tombstone(scope.namespace(), key)
            .at(at)
            .await
            .map(drop)
            .map_err(failed)
    }

    /// The versions of a key, newest first.
    pub(crate) fn versions(
        &self,
        scope: &Scope,
        key: &str,
    ) -> Result<BoxStream<'static, Result<SharedValue>>> {
        let versions = self.messaging(scope)?.shared().versions(scope.namespace(), key);
        Ok(versions.stream().map(|version| version.map_err(failed)).boxed())
    }
}

/// What a document holds on every store, less what it has beside payload and headers.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024 - 16 * 1024;
/// A payload below that fits in any case: written as a document, the worst of JSON becomes eight times as
/// long.
const SURELY_FITS: usize = 1024 * 1024;

/// Refuses what no document can hold, so that it is distinguishable from a store that is away.
fn check_document(payload: &Json, headers: &BTreeMap<String, String>) -> Result<()> {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let text = if let Json::String(text) = payload { text.len() } else { payload.to_string().len() };
    let payload = match payload {
        Json::String(_) => text,
        _ if text <= SURELY_FITS => text.saturating_mul(8),
        other => {
            let document = chronos_db::json_to_bson(other).map(|value| bson::doc! { "payload": value });
            let bytes = document.map(|document| bson::serialize_to_vec(&document));
            match bytes {
                Ok(Ok(bytes)) => bytes.len(),
                // Numbers of more digits than a document keeps are kept as their text.
                _ => text,
            }
        }
    };
    let bytes = payload + headers;
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(Error::validation(format!(
            "its copy has {bytes} bytes; the warm tier takes {MAX_DOCUMENT_BYTES}"
        )));
    }
    Ok(())
}

/// The name under which a topic's messages are kept that the hot tier may not have yet; no topic has such a
/// name.
fn pending(topic: &TopicName) -> String {
    format!("{}#pending", topic.name())
}

fn to_json(headers: BTreeMap<String, String>) -> Json {
    headers
        .into_iter()
        .map(|(name, value)| (name, Json::from(value)))
        .collect::<chronos_db::json::Map>()
        .into()
}

fn from_staged(copy: Message, now: Timestamp) -> Result<(Timestamp, OutboundMessage)> {
    let StoredMessage { id, published_at: at, payload, content_type, headers, key } = from_copy(copy)?;
    let mut message = OutboundMessage { payload, content_type, headers, key, ..OutboundMessage::default() };
    let number = |text: String| text.parse::<i64>().ok();
    message.not_before = message.headers.remove(DUE).and_then(number).map(Timestamp::from_millis);
    message.ttl = message.headers.remove(TTL).and_then(number).map(|ttl| {
        let begun = message.not_before.map_or(at, |due| due.max(at));
        // What has ended ends as a dead letter, at once.
        let gone = (now.as_millis() - begun.as_millis()).max(0);
        std::time::Duration::from_millis(u64::try_from(ttl - gone).unwrap_or(0).max(1))
    });
    message.dedup_id = Some(id);
    Ok((at, message))
}

/// A payload that is JSON as we write it is kept as JSON; all others as their bytes.
fn to_copy(message: StoredMessage) -> (Json, BTreeMap<String, String>) {
    let StoredMessage { payload, content_type, mut headers, key, .. } = message;
    let json = Json::parse(&payload).ok().filter(|json| json.to_string().as_bytes() == payload);
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE.to_owned(), content_type);
    }
    if let Some(key) = key {
        headers.insert(KEY.to_owned(), key);
    }
    let payload = json.unwrap_or_else(|| {
        headers.insert(ENCODING.to_owned(), "base64".to_owned());
        BASE64_STANDARD.encode(&payload).into()
    });
    (payload, headers)
}

fn from_copy(copy: Message) -> Result<StoredMessage> {
    restore(copy.msg_id, copy.first_seen_at, copy.payload, copy.headers.as_ref())
}

/// The opposite of [`to_copy`].
fn restore(
    id: String,
    published_at: Timestamp,
    payload: Json,
    headers: Option<&Json>,
) -> Result<StoredMessage> {
    let damaged = || Error::new(ErrorKind::WarmTier, format!("the copy of the message {id} is damaged"));
    let mut texts = BTreeMap::new();
    for (name, value) in headers.and_then(Json::as_object).into_iter().flatten() {
        texts.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let payload = match texts.remove(ENCODING).as_deref() {
        None => Bytes::from(payload.to_string()),
        Some("base64") => {
            let text = payload.as_str().ok_or_else(damaged)?;
            BASE64_STANDARD.decode(text).map_err(|error| damaged().caused_by(error))?.into()
        }
        Some(_) => return Err(damaged()),
    };
    let (content_type, key) = (texts.remove(CONTENT_TYPE).unwrap_or_default(), texts.remove(KEY));
    Ok(StoredMessage { id, published_at, payload, content_type, headers: texts, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_becomes_the_message_it_was_made_of() {
        let headers = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
        for payload in [&b"{\"n\":1.50,\"a\":\"\\u00fc\"}"[..], b"{\"n\":1.50}", b"\xff\0", b"", b"\"text\""]
        {
            let message = StoredMessage {
                id: "id".to_owned(),
                payload: Bytes::copy_from_slice(payload),
                content_type: "x/y".to_owned(),
                key: Some("k".to_owned()),
                headers: headers.clone(),
                ..StoredMessage::default()
            };
            let (copy, headers) = to_copy(message.clone());
            assert_eq!(back(copy, to_json(headers)), message);
        }
    }

    fn back(payload: Json, headers: Json) -> StoredMessage {
        restore("id".to_owned(), Timestamp::default(), payload, Some(&headers)).unwrap()
    }
}
