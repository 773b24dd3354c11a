//! The head: the current state of an item.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};
use bytes::Bytes;

use super::bson::{binary, bytes, date, int, malformed, put_opt, put_texts, raw_int};
use super::meta::MetaReader;
use super::{ItemId, Op, Row, VersionMeta};
use crate::documents::{Guard, raw_bson, whole_raw};
use crate::{Result, Timestamp};

/// The field of a head that names the row it was made from.
const ROW_ID: &str = "rowId";

/// The current state of an item, derived from its newest row.
#[derive(Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    /// The `_id` of the row it was made from, which unlike `ov` and `cv` no failover gives out twice. Older
    /// heads do not say it.
    pub(crate) row: Option<ObjectId>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) erased: bool,
    pub(crate) meta: VersionMeta,
    /// The latest item.json, kept here while `devShadow` is on.
    pub(crate) shadow: Option<Shadow>,
    /// The item.json that `meta.payload` is about, of an inline record: it is here for good, and the rows go.
    pub(crate) inline: Option<Bytes>,
}

crate::debug_some!(Head { id, ov, cv, created_at, updated_at, deleted_at, erased });

/// A copy of the latest payload in the head.
#[derive(Clone, PartialEq)]
pub(crate) struct Shadow {
    pub(crate) ov: i64,
    pub(crate) at: Timestamp,
    pub(crate) bytes: Bytes,
}

crate::debug_some!(Shadow { ov, at });

impl Head {
    pub(crate) fn is_live(&self) -> bool {
        self.deleted_at.is_none() && !self.erased
    }

    /// Whether it was made from this very row. A head that does not say so is compared by what both say.
    pub(crate) fn is_of(&self, row: &Row) -> bool {
        let (a, b) = (&self.meta.payload, &row.meta.payload);
        let alike = || a.ov == b.ov && a.key == b.key && a.checksum == b.checksum;
        self.id == row.id
            && self.ov == row.ov
            && self.cv == row.cv
            && self.row.map_or_else(alike, |id| id == row.row_id)
    }

    /// The version it is of, as far as it says, where the row itself is gone.
    pub(crate) fn as_row(&self) -> Row {
        let op = match (self.deleted_at, self.ov) {
            (Some(_), _) => Op::Delete,
            (None, 0) => Op::Create,
            (None, _) => Op::Update,
        };
        Row {
            row_id: self.row.unwrap_or(self.id.object_id()),
            id: self.id,
            ov: self.ov,
            cv: self.cv,
            op,
            at: self.updated_at,
            actor: None,
            reason: None,
            request_id: None,
            operation: None,
            meta: self.meta.clone(),
            inline: None,
            inline_objects: Vec::new(),
            unflushed_since: None,
            counts: None,
            import: None,
            certificate: None,
        }
    }

    /// The same of the version whose payload it has.
    pub(crate) fn as_row_of_payload(&self) -> Row {
        Row { ov: self.meta.payload.ov, op: Op::Update, ..self.as_row() }
    }

    /// The same head of an inline record, with the payload that its row carries.
    pub(crate) fn keeping_inline(self, row: &Row) -> Self {
        let own = row.inline.clone().filter(|_| row.meta.payload.ov == self.meta.payload.ov && !self.erased);
        Self { inline: own.or(self.inline), ..self }
    }

    /// Whether the other one, read at another time, says the same version.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.cv == other.cv && self.row == other.row
    }

    /// That the stored head is still this one.
    pub(crate) fn unchanged(&self) -> Guard {
        match self.row {
            Some(row) => Guard::Equals { field: ROW_ID.into(), value: row.into() },
            None => Guard::Equals { field: "cv".into(), value: int(self.cv) },
        }
    }
}

impl Head {
    pub(crate) fn stored(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("_id"), self.id.object_id());
        doc.append(cstr!("itemId"), self.id.object_id());
        doc.append(cstr!("ov"), raw_int(self.ov));
        doc.append(cstr!("cv"), raw_int(self.cv));
        put_opt(&mut doc, cstr!("rowId"), self.row);
        if self.erased {
            doc.append(cstr!("erased"), true);
            put_opt(&mut doc, cstr!("tenantId"), self.meta.tenant.as_deref());
        } else {
            self.meta.write(self.ov, &mut doc);
            put_texts(&mut doc, cstr!("rules"), &self.meta.rules);
        }
        doc.append(cstr!("createdAt"), self.created_at);
        doc.append(cstr!("updatedAt"), self.updated_at);
        put_opt(&mut doc, cstr!("deletedAt"), self.deleted_at);
        if let Some(shadow) = &self.shadow {
            let mut data = RawDocumentBuf::new();
            data.append(cstr!("ov"), raw_int(shadow.ov));
            data.append(cstr!("at"), shadow.at);
            data.append(cstr!("data"), binary(&shadow.bytes));
            data.append(cstr!("bytes"), raw_int(shadow.bytes.len() as i64));
            doc.append(cstr!("fullShadow"), data);
        }
        put_opt(&mut doc, cstr!("payload"), self.inline.as_ref().map(binary));
        doc
    }

    pub(crate) fn read(stored: &RawDocument) -> Result<Self> {
        let (mut id, mut ov, mut cv, mut row) = (None, None, None, None);
        let (mut created_at, mut updated_at, mut deleted_at, mut erased) = (None, None, None, false);
        let (mut shadow, mut inline) = (None, None);
        let mut meta = MetaReader::default();
        for element in stored.iter_elements() {
            let (key, value) = raw_bson::field(element)?;
            match key {
                "_id" => id = value.as_object_id().map(ItemId::new),
                "ov" => ov = whole_raw(value),
                "cv" => cv = whole_raw(value),
                ROW_ID => row = value.as_object_id(),
                "createdAt" => created_at = date(value),
                "updatedAt" => updated_at = date(value),
                "deletedAt" => deleted_at = date(value),
                "erased" => erased = value.as_bool().unwrap_or(false),
                "fullShadow" => shadow = value.as_document().and_then(read_shadow),
                "payload" => inline = bytes(value),
                _ => meta.take(key, value),
            }
        }
        let need = |key: &'static str| move || malformed("head", key, stored);
        let ov = ov.ok_or_else(need("ov"))?;
        Ok(Self {
            id: id.ok_or_else(need("_id"))?,
            ov,
            cv: cv.ok_or_else(need("cv"))?,
            row,
            created_at: created_at.unwrap_or_default(),
            updated_at: updated_at.unwrap_or_default(),
            deleted_at,
            erased,
            meta: meta.end(ov),
            shadow,
            inline,
        })
    }
}

impl Row {
    /// The head that follows from this row and what came before it. A payload that both have stays in the head
    /// if it is there; one of its own comes with [`keeping_inline`](Head::keeping_inline).
    pub(crate) fn head_after(&self, previous: Option<&Head>) -> Head {
        let shared =
            previous.filter(|head| !self.op.is_bare() && head.meta.payload.ov == self.meta.payload.ov);
        Head {
            id: self.id,
            ov: self.ov,
            cv: self.cv,
            row: Some(self.row_id),
            created_at: previous.map_or(self.at, |head| head.created_at),
            updated_at: self.at,
            deleted_at: (self.op == Op::Delete || self.op.is_bare()).then_some(self.at),
            erased: self.op.is_bare(),
            meta: self.meta.clone(),
            shadow: None,
            inline: shared.and_then(|head| head.inline.clone()),
        }
    }
}

/// A shadow of the legacy library holds a document instead of the stored bytes; it is not used.
fn read_shadow(stored: &RawDocument) -> Option<Shadow> {
    let get = |key: &str| stored.get(key).ok()?;
    Some(Shadow { ov: whole_raw(get("ov")?)?, at: date(get("at")?)?, bytes: bytes(get("data")?)? })
}
