//! The warm tier: chronos-db's messaging database, which keeps what the hot tier lets go.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chronos_db::Chronos;
use chronos_db::messaging::{Message, Messaging, NewMessage, SharedValue};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::hot::Outgoing;
use crate::{Error, ErrorKind, Json, Result, Scope, Timestamp, TopicName};

/// Headers that begin so are ours: they hold what a copy has beside its payload.
pub(crate) const OWN_HEADERS: &str = "cw-";
const CONTENT_TYPE: &str = "cw-content-type";
const KEY: &str = "cw-key";
const ENCODING: &str = "cw-encoding";

/// The messaging databases of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    chronos: Chronos,
    retention_days: u32,
}

/// A value of the warm tier.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) value: Json,
    pub(crate) expires_at: Option<Timestamp>,
}

/// How a value is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep {
    pub(crate) append: bool,
    pub(crate) retention_days: Option<u32>,
    pub(crate) max_versions: Option<u32>,
}

fn failed(error: chronos_db::Error) -> Error {
    let kind = if error.kind() == chronos_db::ErrorKind::Validation { ErrorKind::Validation } else { ErrorKind::WarmTier };
    let own = Error::new(kind, format!("the warm tier: {}", error.message()));
    let own = if error.is_retryable() { own.retryable() } else { own };
    own.caused_by(error)
}

impl Warm {
    pub(crate) fn new(chronos: Chronos, retention_days: u32) -> Self {
        Self { chronos, retention_days }
    }

    fn messaging(&self, scope: &Scope) -> Result<Messaging> {
        self.chronos.messaging(scope.tenant()).map_err(failed)
    }

    /// Keeps copies of messages, each once.
    pub(crate) async fn keep(&self, topic: &TopicName, messages: Vec<(String, Timestamp, Outgoing)>) -> Result<()> {
        let copies = messages.into_iter().map(|(id, at, message)| {
            let (size, (payload, headers)) = (message.payload.len() as u64, to_copy(message));
            let headers = headers.into_iter().map(|(name, value)| (name, Json::from(value))).collect::<serde_json::Map<_, _>>();
            let copy = NewMessage::new(topic.name(), id, payload).namespace(topic.scope().namespace()).headers(headers.into());
            copy.first_seen_at(at).size(size).retention_days(self.retention_days)
        });
        let messages = self.messaging(topic.scope())?.messages();
        messages.save_many(copies.collect()).await.map(drop).map_err(failed)
    }

    /// The copies of a topic's messages, oldest first.
    pub(crate) fn kept(
        &self,
        topic: &TopicName,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<BoxStream<'static, Result<(String, Timestamp, Outgoing)>>> {
        let mut list = self.messaging(topic.scope())?.messages().list(topic.name()).namespace(topic.scope().namespace()).oldest_first();
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
    pub(crate) async fn save(&self, scope: &Scope, key: &str, value: Json, at: Timestamp, keep: Keep) -> Result<()> {
        let shared = self.messaging(scope)?.shared();
        let mut save = shared.save(scope.namespace(), key, value).at(at).retention_days(keep.retention_days.unwrap_or(self.retention_days));
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
        Ok(found.map(|found| Kept { value: found.value, expires_at: found.expires_at }))
    }

    /// Leaves a tombstone as of a time, which wins over whatever is of that time or older.
    pub(crate) async fn tombstone(&self, scope: &Scope, key: &str, at: Timestamp) -> Result<()> {
        self.messaging(scope)?.shared().tombstone(scope.namespace(), key).at(at).await.map(drop).map_err(failed)
    }

    /// The versions of a key, newest first.
    pub(crate) fn versions(&self, scope: &Scope, key: &str) -> Result<BoxStream<'static, Result<SharedValue>>> {
        let versions = self.messaging(scope)?.shared().versions(scope.namespace(), key);
        Ok(versions.stream().map(|version| version.map_err(failed)).boxed())
    }
}

/// A payload that is JSON as we write it is kept as JSON; all others as their bytes.
fn to_copy(message: Outgoing) -> (Json, BTreeMap<String, String>) {
    let Outgoing { payload, content_type, mut headers, key, .. } = message;
    let json = serde_json::from_slice::<Json>(&payload).ok().filter(|json| json.to_string().as_bytes() == payload);
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

fn from_copy(copy: Message) -> Result<(String, Timestamp, Outgoing)> {
    let message = restore(&copy.msg_id, copy.payload, copy.headers.as_ref())?;
    Ok((copy.msg_id, copy.first_seen_at, message))
}

/// The opposite of [`to_copy`].
fn restore(id: &str, payload: Json, headers: Option<&Json>) -> Result<Outgoing> {
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
    Ok(Outgoing { payload, content_type, headers: texts, key, ..Outgoing::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_becomes_the_message_it_was_made_of() {
        let headers = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
        for payload in [&b"{\"n\":1.50,\"a\":\"\\u00fc\"}"[..], b"{\"n\":1.50}", b"\xff\0", b"", b"\"text\""] {
            let message = Outgoing {
                payload: Bytes::copy_from_slice(payload),
                content_type: "x/y".to_owned(),
                key: Some("k".to_owned()),
                headers: headers.clone(),
                ..Outgoing::default()
            };
            let (copy, headers) = to_copy(message.clone());
            let headers: serde_json::Map<_, _> = headers.into_iter().map(|(name, value)| (name, Json::from(value))).collect();
            assert_eq!(back(copy, headers.into()), message);
        }
    }

    fn back(payload: Json, headers: Json) -> Outgoing {
        restore("id", payload, Some(&headers)).unwrap()
    }
}
