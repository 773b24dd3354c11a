//! The version row: inserting it is the commit.

use bson::oid::ObjectId;
use bson::raw::{RawBinaryRef, cstr};
use bson::spec::BinarySubtype;
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use bytes::Bytes;

use super::bson::{binary, bytes, date, each, malformed, put_opt, put_texts, raw_int, text};
use super::meta::MetaReader;
use super::{ItemId, Op, VersionMeta};
use crate::documents::{raw_bson, whole_raw};
use crate::{Random, Result, Timestamp};

/// By what an imported change is recognised when its log is imported again.
pub(crate) type MarkId = [u8; 16];

/// What the row of an imported change says of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImportMark {
    pub(crate) id: MarkId,
    /// The time in the log, where the row's is a later one because several changes of an item had the same.
    pub(crate) at: Option<Timestamp>,
}

/// One version: inserting its row is the commit.
#[derive(Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) row_id: ObjectId,
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    pub(crate) op: Op,
    pub(crate) at: Timestamp,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
    /// By what a write is recognised that may have taken place unseen.
    pub(crate) operation: Option<ObjectId>,
    pub(crate) meta: VersionMeta,
    /// item.json, until it is stored.
    pub(crate) inline: Option<Bytes>,
    pub(crate) inline_objects: Vec<InlineObject>,
    /// There is work left for the flusher, since then.
    pub(crate) unflushed_since: Option<Timestamp>,
    /// Of a row without content, what it counts as: an erasure of a live item as its deletion, and what is
    /// left of a version as what that was.
    pub(crate) counts: Option<Op>,
    pub(crate) import: Option<ImportMark>,
    /// Of an ERASE row: the certificate that says what went. None for an erasure by a mere delete.
    pub(crate) certificate: Option<ObjectId>,
}

crate::debug_some!(Row { id, ov, cv, op, at, unflushed_since });

/// The identifier of a row says when the row was given its number, by the store's clock, however long ago the
/// change was made ready, and whatever the clock of its process says: rows that are superseded, and numbers that no
/// version took, stay for some time after that.
pub(crate) fn numbered_at(row_id: ObjectId, now: Timestamp) -> ObjectId {
    let mut bytes = row_id.bytes();
    let seconds = u32::try_from(now.as_millis().div_euclid(1000)).unwrap_or_default();
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

impl Row {
    /// The row of a number that no version takes from now on.
    pub(crate) fn void_now(random: &dyn Random, cv: i64, now: Timestamp) -> RawDocumentBuf {
        Self::void(numbered_at(random.object_id(), now), cv, now)
    }

    /// The row of a number that no version took. It has an item id of its own, so it meets no item's
    /// versions.
    pub(crate) fn void(row_id: ObjectId, cv: i64, at: Timestamp) -> RawDocumentBuf {
        Self::identity(row_id, row_id, -1, cv, Op::Void, at)
    }

    fn identity(
        row_id: ObjectId,
        item_id: ObjectId,
        ov: i64,
        cv: i64,
        op: Op,
        at: Timestamp,
    ) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("_id"), row_id);
        doc.append(cstr!("itemId"), item_id);
        doc.append(cstr!("ov"), raw_int(ov));
        doc.append(cstr!("cv"), raw_int(cv));
        doc.append(cstr!("op"), op.as_str());
        doc.append(cstr!("at"), at);
        doc
    }

    pub(crate) fn stored(&self) -> RawDocumentBuf {
        let mut doc = Self::identity(self.row_id, self.id.object_id(), self.ov, self.cv, self.op, self.at);
        put_opt(&mut doc, cstr!("actor"), self.actor.as_deref());
        put_opt(&mut doc, cstr!("reason"), self.reason.as_deref());
        put_opt(&mut doc, cstr!("requestId"), self.request_id.as_deref());
        put_opt(&mut doc, cstr!("operationId"), self.operation);
        if let Some(import) = &self.import {
            doc.append(
                cstr!("importId"),
                RawBinaryRef { subtype: BinarySubtype::Generic, bytes: &import.id },
            );
            put_opt(&mut doc, cstr!("importAt"), import.at);
        }
        put_opt(&mut doc, cstr!("certificateId"), self.certificate);
        if self.op.is_bare() {
            put_opt(&mut doc, cstr!("tenantId"), self.meta.tenant.as_deref());
            put_opt(&mut doc, cstr!("counts"), self.counts.map(Op::as_str));
        } else {
            self.meta.write(self.ov, &mut doc);
        }
        put_opt(&mut doc, cstr!("prevOv"), (self.ov > 0).then(|| raw_int(self.ov - 1)));
        put_texts(&mut doc, cstr!("rules"), &self.meta.rules);
        put_opt(&mut doc, cstr!("inline"), self.inline.as_ref().map(binary));
        if !self.inline_objects.is_empty() {
            doc.append(
                cstr!("riders"),
                self.inline_objects.iter().map(InlineObject::stored).collect::<RawArrayBuf>(),
            );
        }
        put_opt(&mut doc, cstr!("unflushedSince"), self.unflushed_since);
        doc
    }

    pub(crate) fn read(stored: &RawDocument) -> Result<Self> {
        let (mut row_id, mut id, mut ov, mut cv, mut op, mut at) = (None, None, None, None, None, None);
        let (mut actor, mut reason, mut request_id) = (None, None, None);
        let (mut inline, mut inline_objects, mut unflushed_since, mut counts) =
            (None, Vec::new(), None, None);
        let (mut operation, mut import_id, mut import_at, mut certificate) = (None, None, None, None);
        let mut meta = MetaReader::default();
        for element in stored.iter_elements() {
            let (key, value) = raw_bson::field(element)?;
            match key {
                "_id" => row_id = value.as_object_id(),
                "itemId" => id = value.as_object_id().map(ItemId::new),
                "ov" => ov = whole_raw(value),
                "cv" => cv = whole_raw(value),
                "op" => op = value.as_str().and_then(Op::parse),
                "at" => at = date(value),
                "actor" => actor = text(value),
                "reason" => reason = text(value),
                "requestId" => request_id = text(value),
                "operationId" => operation = value.as_object_id(),
                "importId" => import_id = value.as_binary().and_then(|id| MarkId::try_from(id.bytes).ok()),
                "importAt" => import_at = date(value),
                "certificateId" => certificate = value.as_object_id(),
                "inline" => inline = bytes(value),
                "riders" => inline_objects = each(value, read_inline_object),
                "unflushedSince" => unflushed_since = date(value),
                "counts" => counts = value.as_str().and_then(Op::parse),
                _ => meta.take(key, value),
            }
        }
        let need = |key: &'static str| move || malformed("version row", key, stored);
        let ov = ov.ok_or_else(need("ov"))?;
        Ok(Self {
            row_id: row_id.ok_or_else(need("_id"))?,
            id: id.ok_or_else(need("itemId"))?,
            ov,
            cv: cv.ok_or_else(need("cv"))?,
            op: op.ok_or_else(need("op"))?,
            at: at.ok_or_else(need("at"))?,
            actor,
            reason,
            request_id,
            operation,
            meta: meta.end(ov),
            inline,
            inline_objects,
            unflushed_since,
            counts,
            import: import_id.map(|id| ImportMark { id, at: import_at }),
            certificate,
        })
    }

    /// What stays of it once its item is erased: a version that was there keeps its place, so that nobody
    /// else can take it, and what counters count. `rules` are those it matched, of either scope.
    pub(crate) fn erased(&self, rules: Vec<String>) -> Self {
        Self {
            row_id: self.row_id,
            id: self.id,
            ov: self.ov,
            cv: self.cv,
            op: Op::Erased,
            at: self.at,
            actor: None,
            reason: None,
            request_id: None,
            operation: None,
            meta: VersionMeta { tenant: self.meta.tenant.clone(), rules, ..VersionMeta::default() },
            inline: None,
            inline_objects: Vec::new(),
            unflushed_since: None,
            counts: Some(self.op),
            import: None,
            certificate: None,
        }
    }
}

/// A small object that rides in its version row until the flusher stores it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct InlineObject {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

crate::debug_some!(InlineObject { bucket, key });

impl InlineObject {
    fn stored(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("bucket"), self.bucket.as_str());
        doc.append(cstr!("key"), self.key.as_str());
        doc.append(cstr!("contentType"), self.content_type.as_str());
        doc.append(cstr!("data"), binary(&self.bytes));
        doc
    }
}

fn read_inline_object(value: RawBsonRef<'_>) -> Option<InlineObject> {
    let doc = value.as_document()?;
    let get = |key: &str| doc.get(key).ok()?;
    Some(InlineObject {
        bucket: text(get("bucket")?)?,
        key: text(get("key")?)?,
        content_type: text(get("contentType")?)?,
        bytes: bytes(get("data")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[test]
    fn a_number_that_no_version_took_is_as_old_as_the_store_says() {
        let now = Timestamp::from_millis(1_600_000_000_000);
        let row = Row::read(&Row::void_now(&SystemRandom, 7, now)).unwrap();
        assert_eq!(row.row_id.timestamp().timestamp_millis(), now.as_millis());
        assert_eq!((row.cv, row.op, row.at), (7, Op::Void, now));
    }
}
