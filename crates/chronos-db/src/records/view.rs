//! What readers and writers get back.

use std::time::Duration;

use crate::json::Map;
use crate::records::model::{ItemId, Op, Row};
use crate::{Error, Json, Timestamp, json};

/// A version of an item as it was.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct View {
    /// The item.
    pub id: ItemId,
    /// The item's version, from 0 without holes.
    pub ov: i64,
    /// The collection's version at this write, from 0.
    pub cv: i64,
    /// When this version was written.
    pub at: Timestamp,
    /// When the item was deleted, if this version is a deletion.
    pub deleted_at: Option<Timestamp>,
    /// The document, with `_system` unless a projection left it out.
    pub item: Json,
    /// Signed URLs of externalised properties, if asked for.
    pub presigned: Vec<Presigned>,
    /// Why the item cannot be shown, or has no place in the list's order, where the list shows it
    /// nevertheless ([`OnDamage::Show`]). An item that cannot be read has null as [`item`](Self::item).
    pub damage: Option<Damage>,
}

/// What a list does about an item that cannot be shown, because its payload is missing or damaged or (in a
/// list of the present) its head is, or that has no place in the order, because a property the list is sorted
/// by is an array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// The list ends with the item's error.
    #[default]
    Fail,
    /// The item comes with its error. Those without a place come last, in the order of their ids: finding
    /// them looks at every item.
    Show,
}

/// Why an item cannot be shown or ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The code of its error.
    pub code: String,
    /// The words of its error.
    pub message: String,
}

impl From<&Error> for Damage {
    fn from(error: &Error) -> Self {
        Self { code: error.code().to_owned(), message: error.message().to_owned() }
    }
}

crate::debug_some!(View { id, ov, cv, at, deleted_at });

impl View {
    /// Returns the document without `_system`.
    #[must_use]
    pub fn document(&self) -> Json {
        let mut document = self.item.clone();
        if let Json::Object(map) = &mut document {
            map.remove(crate::records::document::payload::SYSTEM);
        }
        document
    }

    /// Returns `{id, ov, cv, at, deletedAt?, item, presigned?, error?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out =
            json!({ "id": self.id.to_string(), "ov": self.ov, "cv": self.cv, "at": self.at.to_string() });
        if let Some(at) = self.deleted_at {
            out["deletedAt"] = at.to_string().into();
        }
        out["item"] = self.item.clone();
        if !self.presigned.is_empty() {
            let signed = self.presigned.iter().map(|p| {
                let mut urls = json!({ "blobUrl": p.blob_url, "expiresIn": p.expires_in.as_secs() });
                if let Some(url) = &p.text_url {
                    urls["textUrl"] = url.clone().into();
                }
                (p.path.clone(), urls)
            });
            out["presigned"] = Json::Object(signed.collect::<Map>());
        }
        if let Some(damage) = &self.damage {
            out["error"] = json!({ "code": damage.code.clone(), "message": damage.message.clone() });
        }
        out
    }
}

/// URLs that let their bearer read an externalised property for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presigned {
    /// Where the property stands in the document.
    pub path: String,
    /// The bytes.
    pub blob_url: String,
    /// The text rendition, if there is one.
    pub text_url: Option<String>,
    /// For how long.
    pub expires_in: Duration,
}

/// One version in the history of an item.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Version {
    /// The item.
    pub id: ItemId,
    /// The item's version.
    pub ov: i64,
    /// The collection's version.
    pub cv: i64,
    /// What it did.
    pub op: Op,
    /// When.
    pub at: Timestamp,
    /// Who, if said.
    pub actor: Option<String>,
    /// Why, if said.
    pub reason: Option<String>,
    /// The caller's identifier of the request, if given.
    pub request_id: Option<String>,
    /// The version whose payload this one has: another one after a deletion or restore.
    pub payload_ov: i64,
    /// Bytes of item.json.
    pub size: i64,
    /// SHA-256 of item.json in lower-case hex.
    pub checksum: String,
    /// The functions that enriched the item so far.
    pub function_ids: Vec<String>,
}

impl Version {
    /// Returns `{id, ov, cv, op, at, actor?, reason?, requestId?, payloadOv, size, checksum, functionIds?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = json!({ "id": self.id.to_string(), "ov": self.ov, "cv": self.cv, "op": self.op.as_str(), "at": self.at.to_string() });
        for (key, value) in
            [("actor", &self.actor), ("reason", &self.reason), ("requestId", &self.request_id)]
        {
            if let Some(value) = value {
                out[key] = value.clone().into();
            }
        }
        out["payloadOv"] = self.payload_ov.into();
        out["size"] = self.size.into();
        out["checksum"] = self.checksum.clone().into();
        if !self.function_ids.is_empty() {
            out["functionIds"] = json!(self.function_ids);
        }
        out
    }
}

impl From<Row> for Version {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            ov: row.ov,
            cv: row.cv,
            op: row.op,
            at: row.at,
            actor: row.actor,
            reason: row.reason,
            request_id: row.request_id,
            payload_ov: row.meta.payload.ov,
            size: row.meta.payload.size,
            checksum: row.meta.payload.checksum,
            function_ids: row.meta.function_ids,
        }
    }
}

/// What a write answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The item.
    pub id: ItemId,
    /// The item's version now.
    pub ov: i64,
    /// The collection's version of that write.
    pub cv: i64,
    /// When that version was written.
    pub at: Timestamp,
    /// Whether this call made a version; false if nothing was to change.
    pub changed: bool,
    /// Whether this call created the item.
    pub created: bool,
    /// The write waits in the [fallback queue](crate::FallbackQueue) under this id: there is no version yet,
    /// and `ov` and `cv` are −1. Only where the configuration has a `fallback`.
    pub queued: Option<String>,
}

impl Written {
    /// Returns `{id, ov, cv, at, changed, created}`; of a write that waits, `{queued, id, requestId, at}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        if let Some(request) = &self.queued {
            let (id, at) = (self.id.to_string(), self.at.to_string());
            return json!({ "queued": true, "id": id, "requestId": request, "at": at });
        }
        json!({
            "id": self.id.to_string(), "ov": self.ov, "cv": self.cv, "at": self.at.to_string(), "changed": self.changed, "created": self.created,
        })
    }
}
