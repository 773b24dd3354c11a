//! Chunks: the messages of a publish, some hundreds a document, immutable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use bytes::Bytes;

use super::fields::{damaged, int};
use super::keys::{chunk_id, message_id};
use crate::hot::millis::to_signed_millis;
use crate::hot::{OutboundMessage, StoredMessage};
use crate::{Result, Timestamp};

/// A message as it is stored.
#[derive(Clone, PartialEq)]
pub(super) struct Body {
    pub(super) message: StoredMessage,
    pub(super) expires: Option<Timestamp>,
}

chronos_db::debug_some!(Body { message });

/// Some consecutive sequence numbers of a topic's sequence.
#[derive(Clone)]
pub(super) struct Chunk {
    pub(super) first: i64,
    pub(super) last: i64,
    /// The batch's first chunk, by the number in its `_id`, if this is not it.
    pub(super) head: Option<i64>,
    pub(super) at: Timestamp,
    /// Nobody's messages: a gap that was closed.
    pub(super) void: bool,
    /// One per sequence number; none where there is nothing to deliver (scheduled, or a duplicate). Empty if
    /// void.
    pub(super) slots: Vec<Option<Arc<Body>>>,
    /// The documents that hang on this head: `_id`s of dedup entries and of scheduled messages.
    pub(super) dedup: Vec<String>,
    pub(super) scheduled: Vec<String>,
}

chronos_db::debug_some!(Chunk { first, last, head, at, void });

impl Body {
    pub(super) fn of(message: &OutboundMessage, id: String, at: Timestamp, ttl: Option<i64>) -> Self {
        let ttl = message.ttl.map(to_signed_millis).or(ttl);
        let message = StoredMessage {
            id,
            published_at: at,
            payload: message.payload.clone(),
            content_type: message.content_type.clone(),
            headers: message.headers.clone(),
            key: message.key.clone(),
        };
        Self { message, expires: ttl.map(|ttl| at.plus_millis(ttl)) }
    }

    /// About what it takes in a document.
    pub(super) fn size(&self) -> usize {
        let message = &self.message;
        let headers: usize = message.headers.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        64 + message.payload.len()
            + message.content_type.len()
            + headers
            + message.key.as_ref().map_or(0, |key| key.len() + 8)
    }

    pub(super) fn to_document(&self) -> Document {
        let message = &self.message;
        let mut body =
            doc! { "i": &message.id, "p": binary(&message.payload), "a": message.published_at.as_millis() };
        if !message.content_type.is_empty() {
            body.insert("t", &message.content_type);
        }
        if !message.headers.is_empty() {
            // In pairs: a name may hold dots and dollars, which servers take amiss in field names.
            body.insert(
                "h",
                message.headers.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]).collect::<Vec<_>>(),
            );
        }
        if let Some(key) = &message.key {
            body.insert("k", key);
        }
        if let Some(expires) = self.expires {
            body.insert("x", expires.as_millis());
        }
        body
    }

    pub(super) fn read(mut body: Document, id: String, at: Timestamp) -> Result<Self> {
        let id = body.get_str("i").map_or(id, str::to_owned);
        let payload = match body.remove("p") {
            Some(Bson::Binary(binary)) => Bytes::from(binary.bytes),
            _ => return Err(damaged("message", "p")),
        };
        let mut headers = BTreeMap::new();
        if let Ok(pairs) = body.get_array("h") {
            for pair in pairs.chunks(2) {
                if let [Bson::String(name), Bson::String(value)] = pair {
                    headers.insert(name.clone(), value.clone());
                }
            }
        }
        let message = StoredMessage {
            id,
            published_at: int(&body, "a").map_or(at, Timestamp::from_millis),
            payload,
            content_type: body.get_str("t").unwrap_or_default().to_owned(),
            headers,
            key: body.get_str("k").ok().map(str::to_owned),
        };
        Ok(Self { message, expires: int(&body, "x").ok().map(Timestamp::from_millis) })
    }
}

pub(super) fn binary(bytes: &Bytes) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

impl Chunk {
    pub(super) fn void(first: i64, last: i64, at: Timestamp) -> Self {
        Self {
            first,
            last,
            head: None,
            at,
            void: true,
            slots: Vec::new(),
            dedup: Vec::new(),
            scheduled: Vec::new(),
        }
    }

    /// How many messages it holds.
    pub(super) fn count(&self) -> i64 {
        self.slots.iter().flatten().count() as i64
    }

    pub(super) fn size(&self) -> usize {
        64 + self.slots.iter().flatten().map(|body| body.size()).sum::<usize>()
    }

    /// The message at a sequence number.
    pub(super) fn at_sequence(&self, sequence: i64) -> Option<&Arc<Body>> {
        let index = usize::try_from(sequence - self.first).ok()?;
        self.slots.get(index)?.as_ref()
    }

    /// The message with an id.
    pub(super) fn by_id(&self, sequence: i64, id: &str) -> Option<&Arc<Body>> {
        self.at_sequence(sequence).filter(|body| body.message.id == id)
    }

    pub(super) fn to_document(&self, topic: &str) -> Document {
        let mut chunk = doc! { "_id": chunk_id(topic, self.last), "f": self.first, "l": self.last, "at": self.at.as_millis() };
        if let Some(head) = self.head {
            chunk.insert("hd", head);
        }
        if self.void {
            chunk.insert("void", true);
            return chunk;
        }
        chunk.insert("n", self.count());
        let slots: Vec<Bson> = self
            .slots
            .iter()
            .map(|slot| slot.as_ref().map_or(Bson::Null, |body| body.to_document().into()))
            .collect();
        chunk.insert("m", slots);
        for (field, ids) in [("dd", &self.dedup), ("sch", &self.scheduled)] {
            if !ids.is_empty() {
                chunk.insert(field, ids.clone());
            }
        }
        chunk
    }

    pub(super) fn read(mut chunk: Document) -> Result<Self> {
        let (first, last) = (int(&chunk, "f")?, int(&chunk, "l")?);
        let at = Timestamp::from_millis(int(&chunk, "at")?);
        let mut slots = Vec::new();
        if let Some(Bson::Array(messages)) = chunk.remove("m") {
            for (sequence, message) in (first..).zip(messages) {
                slots.push(match message {
                    Bson::Document(body) => Some(Arc::new(Body::read(body, message_id(sequence), at)?)),
                    _ => None,
                });
            }
        }
        let ids = |field: &str| -> Vec<String> {
            let listed = chunk.get_array(field).ok().into_iter().flatten();
            listed.filter_map(|id| id.as_str().map(str::to_owned)).collect()
        };
        Ok(Self {
            first,
            last,
            head: int(&chunk, "hd").ok(),
            at,
            void: chunk.get_bool("void").unwrap_or(false),
            slots,
            dedup: ids("dd"),
            scheduled: ids("sch"),
        })
    }
}
