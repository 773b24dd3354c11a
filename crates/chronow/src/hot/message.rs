//! Messages: to publish, and as a topic keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chronos_db::json_to_nearest_bson;

use crate::{Error, Json, Result, Timestamp};

/// The largest headers of a message: the bytes of their names and values together, and of the media type.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The longest ordering key, and the longest dedup id, in bytes.
pub const MAX_KEY_BYTES: usize = 1_024;

/// The longest delay: what is meant to be later is a mistake of units.
pub const MAX_DELAY: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// A message to publish.
#[derive(Clone, Default, PartialEq)]
pub struct OutboundMessage {
    /// The bytes, kept as they are.
    pub payload: Bytes,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// Text headers, for handlers, filters and trace context.
    pub headers: BTreeMap<String, String>,
    /// Messages of one ordering key are delivered to a subscription in order, one at a time.
    pub key: Option<String>,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// To the dead letters (reason `expired`) of every subscription that has not started it after this long.
    pub ttl: Option<Duration>,
    /// Messages with the same id within the topic's dedup window are accepted once.
    pub dedup_id: Option<String>,
}

chronos_db::debug_some!(OutboundMessage { content_type, not_before, ttl });

impl OutboundMessage {
    /// Returns what is kept of it once a topic has accepted it under an id.
    #[must_use]
    pub fn stored(self, id: String, published_at: Timestamp) -> StoredMessage {
        let Self { payload, content_type, headers, key, .. } = self;
        StoredMessage { id, published_at, payload, content_type, headers, key }
    }

    /// Checks the limits that hold on every hot tier: [`MAX_HEADER_BYTES`] and [`MAX_KEY_BYTES`].
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming what is too large, and the limit.
    pub fn check(&self) -> Result<()> {
        let headers = self.content_type.len()
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let lengths = [
            ("headers", headers, MAX_HEADER_BYTES),
            ("ordering key", self.key.as_ref().map_or(0, String::len), MAX_KEY_BYTES),
            ("dedup id", self.dedup_id.as_ref().map_or(0, String::len), MAX_KEY_BYTES),
        ];
        match lengths.into_iter().find(|(_, bytes, most)| bytes > most) {
            None => Ok(()),
            Some((what, bytes, most)) => Err(Error::validation(format!(
                "the {what} of a message may have {most} bytes; this one has {bytes}"
            ))),
        }
    }
}

/// A message that a topic has accepted, as it was published.
#[derive(Clone, Default, PartialEq)]
pub struct StoredMessage {
    /// The id it was given.
    pub id: String,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// The bytes as they were published.
    pub payload: Bytes,
    /// Their media type; JSON if empty.
    pub content_type: String,
    /// The headers as they were published.
    pub headers: BTreeMap<String, String>,
    /// The ordering key.
    pub key: Option<String>,
}

chronos_db::debug_some!(StoredMessage { id, published_at, content_type });

/// What became of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// Its id: ids of one shard grow in the order of acceptance.
    pub id: String,
    /// It had been accepted before under the same dedup id; the id is that of the first.
    pub duplicate: bool,
}

/// Returns the document that a subscription's filter sees: `{payload, headers}`. A payload that is not JSON
/// is null; a number that has no other form is the nearest double.
#[must_use]
pub fn filter_view(message: &StoredMessage) -> bson::Document {
    let StoredMessage { payload, content_type, headers, .. } = message;
    let is_json = content_type.is_empty() || content_type.contains("json");
    // What others publish may have a key twice; the last one counts.
    let lenient = || serde_json::from_slice::<serde_json::Value>(payload).map_or(Json::Null, Json::from);
    let payload = if is_json { Json::parse(payload).unwrap_or_else(|_| lenient()) } else { Json::Null };
    let headers: bson::Document =
        headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    bson::doc! { "payload": json_to_nearest_bson(&payload), "headers": headers }
}
