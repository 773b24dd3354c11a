//! Reading replies: what the scripts return, and messages in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use redis::Value;

use super::keys::join_id;
use super::script::Args;
use crate::hot::StoredMessage;
use crate::{Error, ErrorKind, Result, Timestamp};

pub(super) fn unexpected(value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "a text",
        Value::Array(_) => "a list of another shape",
        _ => "something else",
    };
    Error::new(
        ErrorKind::HotTier,
        format!("Redis answered with {kind} where it should not have; is something else using these keys?"),
    )
}

pub(super) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn bytes(value: Value) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        Value::Int(number) => Ok(number.to_string().into()),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|error| {
            Error::new(ErrorKind::HotTier, "Redis holds a text that is not UTF-8").caused_by(error)
        }),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        Value::Okay => Ok("OK".to_owned()),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn number(value: Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(number),
        Value::BulkString(ref digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| unexpected(&value)),
        other => Err(unexpected(&other)),
    }
}

/// A count is never below zero.
pub(super) fn count(value: Value) -> Result<u64> {
    number(value).map(i64::unsigned_abs)
}

/// The parts of a reply in their order.
pub(super) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(super) fn of(value: Value) -> Result<Self> {
        list(value).map(|items| Self(items.into_iter()))
    }

    /// The next one; nothing if the reply has ended.
    pub(super) fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Nil)
    }

    pub(super) fn text(&mut self) -> Result<String> {
        text(self.next())
    }

    pub(super) fn number(&mut self) -> Result<i64> {
        number(self.next())
    }

    pub(super) fn count(&mut self) -> Result<u64> {
        count(self.next())
    }

    pub(super) fn list(&mut self) -> Result<Vec<Value>> {
        list(self.next())
    }

    pub(super) fn rest(self) -> Vec<Value> {
        self.0.collect()
    }
}

/// Reads the names and values of the message with this id (inside its shard).
pub(super) fn read_message(shard: u16, id: &str, value: Value) -> Result<StoredMessage> {
    let mut message = StoredMessage {
        id: join_id(shard, id),
        published_at: Timestamp::from_millis(millis_of(id)),
        ..StoredMessage::default()
    };
    let mut items = list(value)?.into_iter();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        match &*bytes(name)? {
            b"payload" => message.payload = bytes(value)?,
            b"type" => message.content_type = text(value)?,
            b"headers" => message.headers = headers(id, &bytes(value)?),
            b"key" => message.key = Some(text(value)?),
            b"at" => message.published_at = Timestamp::from_millis(number(value)?),
            _ => {}
        }
    }
    Ok(message)
}

fn headers(id: &str, json: &[u8]) -> BTreeMap<String, String> {
    // Only another program can have written something else; the message must not block the others for it.
    serde_json::from_slice(json).unwrap_or_else(|error| {
        tracing::warn!(id, %error, "unreadable headers of a message");
        BTreeMap::new()
    })
}

fn millis_of(id: &str) -> i64 {
    id.split_once('-').and_then(|(millis, _)| millis.parse().ok()).unwrap_or_default()
}

/// The headers as they are stored.
pub(super) fn headers_json(headers: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    serde_json::to_vec(headers)
        .map_err(|error| Error::validation("the headers are not text").caused_by(error))
}

/// Appends the number of names and values, and these.
pub(super) fn write_message(args: &mut Args, message: &StoredMessage) -> Result<()> {
    let StoredMessage { published_at, payload, content_type, headers, key, .. } = message;
    let mut fields = Args::new().arg("payload").bytes(payload);
    let mut n = 2;
    if !content_type.is_empty() {
        fields = fields.arg("type").arg(content_type);
        n += 2;
    }
    if !headers.is_empty() {
        fields = fields.arg("headers").bytes(&headers_json(headers)?);
        n += 2;
    }
    // An empty key is none.
    if let Some(key) = key.as_deref().filter(|key| !key.is_empty()) {
        fields = fields.arg("key").arg(key);
        n += 2;
    }
    fields = fields.arg("at").arg(published_at.as_millis());
    n += 2;
    args.push(n);
    args.extend(&fields);
    Ok(())
}
