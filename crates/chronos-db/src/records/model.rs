//! Heads and version rows: typed inside, documents in the store.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::raw::{BindRawBsonRef, CStr, RawBinaryRef, cstr};
use bson::spec::BinarySubtype;
use bson::{Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use bytes::Bytes;

use super::indexing::Missing;
use super::payload::Inherited;
use crate::documents::{Guard, Namespace, raw_bson};
use crate::{Error, ErrorKind, Result, Timestamp};

/// The field of a head that names the row it was made from.
const ROW_ID: &str = "rowId";

/// The identifier of an item, given out at its creation: 24 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(ObjectId);

impl ItemId {
    pub(crate) const fn new(id: ObjectId) -> Self {
        Self(id)
    }

    pub(crate) const fn object_id(self) -> ObjectId {
        self.0
    }

    pub(crate) fn bson(self) -> Bson {
        Bson::ObjectId(self.0)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ItemId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        ObjectId::parse_str(text).map(Self).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Error::validation(format!("`{}` is no item id: 24 hex digits are", shown.escape_debug()))
        })
    }
}

/// What a version did to its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// The first version.
    Create,
    /// Another document: an update, replace or enrichment.
    Update,
    /// The item is deleted; the version shares the payload of the one before.
    Delete,
    /// An earlier version came back; the version shares its payload.
    Restore,
    /// The item and all its versions are erased.
    Erase,
    /// A number of the collection that no version took. Never shown.
    Void,
    /// A version of an item that was erased since: its numbers and its time, which stay taken for good. Never
    /// shown.
    Erased,
}

impl Op {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Restore => "RESTORE",
            Self::Erase => "ERASE",
            Self::Void => "VOID",
            Self::Erased => "ERASED",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all =
            [Self::Create, Self::Update, Self::Delete, Self::Restore, Self::Erase, Self::Void, Self::Erased];
        all.into_iter().find(|op| op.as_str() == text)
    }

    /// Whether such a row has no content: it is no version that anybody sees.
    pub(crate) const fn is_bare(self) -> bool {
        matches!(self, Self::Erase | Self::Void | Self::Erased)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the payload of a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In the version row alone, for now.
    NewNotSynched,
    /// In object storage.
    New,
    /// In object storage; its time in the head has passed.
    Processed,
}

impl State {
    /// The stored name, also shown as `_system.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewNotSynched => "new-not-synched",
            Self::New => "new",
            Self::Processed => "processed",
        }
    }

    /// Rows and heads of the originals have no state: their payload was stored first.
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("new-not-synched") => Self::NewNotSynched,
            Some("processed") => Self::Processed,
            _ => Self::New,
        }
    }
}

/// Where an item comes from; written once, kept by every later version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The item this one was made from.
    pub parent_id: Option<String>,
    /// The collection of the parent.
    pub parent_collection: Option<String>,
    /// The first item of the chain.
    pub origin_id: Option<String>,
    /// The collection of the origin, `system:collection` if it lies in another system.
    pub origin_collection: Option<String>,
}

/// An externalised property, recorded when the server wrote it. Only such references are ever signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobRef {
    pub(crate) path: String,
    pub(crate) bucket: String,
    pub(crate) blob_key: String,
    pub(crate) text_key: Option<String>,
}

impl BlobRef {
    /// Bucket and key of its objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = std::iter::once(&self.blob_key).chain(&self.text_key);
        keys.map(|key| (self.bucket.as_str(), key.as_str()))
    }

    fn stored(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("path"), self.path.as_str());
        doc.append(cstr!("contentBucket"), self.bucket.as_str());
        doc.append(cstr!("blobKey"), self.blob_key.as_str());
        put_opt(&mut doc, cstr!("textKey"), self.text_key.as_deref());
        doc
    }
}

/// What head and row both say of a version: its payload and its index entry.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Content {
    /// As it is stored: encoded once for row and head, and seldom looked into.
    pub(crate) indexed: Arc<RawDocumentBuf>,
    /// What had no room in it.
    pub(crate) missing: Missing,
    pub(crate) payload: Payload,
    pub(crate) function_ids: Vec<String>,
    pub(crate) lineage: Lineage,
    pub(crate) refs: Vec<BlobRef>,
    pub(crate) tenant: Option<String>,
    /// Written by the originals: functions, lineage and references may be in its document alone. Not stored.
    pub(crate) foreign: bool,
}

crate::debug_some!(Content { payload });

/// Which bytes a version has. `bucket` and `key` name the object even before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The version that wrote these bytes: another one after a delete or restore.
    pub(crate) ov: i64,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) size: i64,
    /// Lower-case hex SHA-256, empty where the originals left it out.
    pub(crate) checksum: String,
    pub(crate) state: State,
}

impl Default for Payload {
    fn default() -> Self {
        Self { ov: 0, bucket: None, key: None, size: 0, checksum: String::new(), state: State::NewNotSynched }
    }
}

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
    pub(crate) content: Content,
    /// The latest item.json, kept here while `devShadow` is on.
    pub(crate) shadow: Option<Shadow>,
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
        let (a, b) = (&self.content.payload, &row.content.payload);
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
            row_id: self.row.unwrap_or(self.id.0),
            id: self.id,
            ov: self.ov,
            cv: self.cv,
            op,
            at: self.updated_at,
            actor: None,
            reason: None,
            request_id: None,
            content: self.content.clone(),
            inline: None,
            riders: Vec::new(),
            unflushed_since: None,
            rules: Vec::new(),
            import: None,
        }
    }

    /// The same of the version whose payload it has.
    pub(crate) fn as_row_of_payload(&self) -> Row {
        Row { ov: self.content.payload.ov, op: Op::Update, ..self.as_row() }
    }

    /// That the stored head is still this one.
    pub(crate) fn unchanged(&self) -> Guard {
        match self.row {
            Some(row) => Guard::Equals { field: ROW_ID.into(), value: row.into() },
            None => Guard::Equals { field: "cv".into(), value: int(self.cv) },
        }
    }
}

/// A small object that rides in its version row until the flusher stores it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Rider {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

crate::debug_some!(Rider { bucket, key });

impl Rider {
    fn stored(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("bucket"), self.bucket.as_str());
        doc.append(cstr!("key"), self.key.as_str());
        doc.append(cstr!("contentType"), self.content_type.as_str());
        doc.append(cstr!("data"), binary(&self.bytes));
        doc
    }
}

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
    pub(crate) content: Content,
    /// item.json, until it is stored.
    pub(crate) inline: Option<Bytes>,
    pub(crate) riders: Vec<Rider>,
    /// There is work left for the flusher, since then.
    pub(crate) unflushed_since: Option<Timestamp>,
    /// The payload-scope counter rules this version matches.
    pub(crate) rules: Vec<String>,
    pub(crate) import: Option<ImportMark>,
}

crate::debug_some!(Row { id, ov, cv, op, at, unflushed_since });

/// The collections of the store that make up one collection of records.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) collection: String,
    pub(crate) head: Namespace,
    pub(crate) ver: Namespace,
    pub(crate) counter: Namespace,
    pub(crate) locks: Namespace,
    pub(crate) claims: Namespace,
    pub(crate) gc: Namespace,
}

impl Names {
    pub(crate) fn new(database: &str, collection: &str) -> Self {
        let name = |suffix: &str| Namespace::new(database, format!("{collection}_{suffix}"));
        Self {
            collection: collection.to_owned(),
            head: name("head"),
            ver: name("ver"),
            counter: name("counter"),
            locks: name("locks"),
            claims: name("claims"),
            gc: name("gc"),
        }
    }
}

/// Whole numbers are stored as small as they fit, as the originals did.
pub(crate) fn int(value: i64) -> Bson {
    i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
}

fn raw_int(value: i64) -> RawBsonRef<'static> {
    i32::try_from(value).map_or(RawBsonRef::Int64(value), RawBsonRef::Int32)
}

fn binary(bytes: &Bytes) -> RawBinaryRef<'_> {
    RawBinaryRef { subtype: BinarySubtype::Generic, bytes }
}

fn put_opt(doc: &mut RawDocumentBuf, key: &CStr, value: Option<impl BindRawBsonRef>) {
    if let Some(value) = value {
        doc.append(key, value);
    }
}

fn put_texts(doc: &mut RawDocumentBuf, key: &CStr, texts: &[String]) {
    if !texts.is_empty() {
        doc.append(key, texts.iter().map(String::as_str).collect::<RawArrayBuf>());
    }
}

impl Content {
    /// Bucket and key of every object that the version names: its payload's and its properties', its own and
    /// those it took over.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &str)> {
        let payload = self.payload.bucket.as_deref().zip(self.payload.key.as_deref());
        payload.into_iter().chain(self.refs.iter().flat_map(BlobRef::objects))
    }

    /// Whether the version names this object.
    pub(crate) fn names(&self, (bucket, key): &(String, String)) -> bool {
        self.objects().any(|object| object == (bucket.as_str(), key.as_str()))
    }

    /// Takes over what only the document of a version of the originals says.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        if self.function_ids.is_empty() {
            self.function_ids = inherited.function_ids;
        }
        if self.lineage == Lineage::default() {
            self.lineage = inherited.lineage;
        }
        self.foreign = false;
    }

    fn write(&self, own_ov: i64, doc: &mut RawDocumentBuf) {
        put_opt(doc, cstr!("jsonBucket"), self.payload.bucket.as_deref());
        put_opt(doc, cstr!("jsonKey"), self.payload.key.as_deref());
        if self.payload.ov != own_ov {
            doc.append(cstr!("payloadOv"), raw_int(self.payload.ov));
        }
        doc.append(cstr!("metaIndexed"), &*self.indexed);
        if let Some(missing) = self.missing.stored().and_then(|missing| bson::RawBson::try_from(missing).ok())
        {
            doc.append(cstr!("notIndexed"), missing);
        }
        doc.append(cstr!("size"), raw_int(self.payload.size));
        doc.append(cstr!("checksum"), self.payload.checksum.as_str());
        doc.append(cstr!("state"), self.payload.state.as_str());
        put_texts(doc, cstr!("functionIds"), &self.function_ids);
        put_opt(doc, cstr!("parentId"), self.lineage.parent_id.as_deref());
        put_opt(doc, cstr!("parentCollection"), self.lineage.parent_collection.as_deref());
        put_opt(doc, cstr!("originId"), self.lineage.origin_id.as_deref());
        put_opt(doc, cstr!("originCollection"), self.lineage.origin_collection.as_deref());
        if !self.refs.is_empty() {
            doc.append(cstr!("refs"), self.refs.iter().map(BlobRef::stored).collect::<RawArrayBuf>());
        }
        put_opt(doc, cstr!("tenantId"), self.tenant.as_deref());
    }
}

/// A content while the fields of its document pass by.
#[derive(Default)]
struct Reading {
    content: Content,
    payload_ov: Option<i64>,
    has_state: bool,
}

impl Reading {
    /// Takes the field if it belongs to a content.
    fn take(&mut self, key: &str, value: RawBsonRef<'_>) {
        let Content { indexed, missing, payload, function_ids, lineage, refs, tenant, .. } =
            &mut self.content;
        match key {
            "metaIndexed" => {
                *indexed = value.as_document().map(|entry| Arc::new(entry.to_owned())).unwrap_or_default()
            }
            "notIndexed" => *missing = Missing::read(value),
            "jsonBucket" => payload.bucket = text(value),
            "jsonKey" => payload.key = text(value),
            "payloadOv" => self.payload_ov = whole(value),
            "size" => payload.size = whole(value).unwrap_or(0),
            "checksum" => payload.checksum = text(value).unwrap_or_default(),
            "state" => {
                payload.state = State::parse(value.as_str());
                self.has_state = true;
            }
            "functionIds" => *function_ids = each(value, text),
            "parentId" => lineage.parent_id = text(value),
            "parentCollection" => lineage.parent_collection = text(value),
            "originId" => lineage.origin_id = text(value),
            "originCollection" => lineage.origin_collection = text(value),
            "refs" => *refs = each(value, read_ref),
            "tenantId" => *tenant = text(value),
            _ => {}
        }
    }

    fn end(mut self, own_ov: i64) -> Content {
        let payload = &mut self.content.payload;
        // The originals say it in the key alone.
        payload.ov = self.payload_ov.or_else(|| payload.key.as_deref().and_then(ov_of_key)).unwrap_or(own_ov);
        if !self.has_state {
            payload.state = State::parse(None);
            self.content.foreign = true;
        }
        self.content
    }
}

/// `<collection>/<id>/v<ov>/…`
fn ov_of_key(key: &str) -> Option<i64> {
    key.split('/').nth(2)?.strip_prefix('v')?.parse().ok()
}

fn read_ref(value: RawBsonRef<'_>) -> Option<BlobRef> {
    let doc = value.as_document()?;
    let text = |key: &str| text(doc.get(key).ok()??);
    Some(BlobRef {
        path: text("path")?,
        bucket: text("contentBucket")?,
        blob_key: text("blobKey")?,
        text_key: text("textKey"),
    })
}

/// Reads a whole number of any stored kind.
pub(crate) fn number(doc: &Document, key: &str) -> Option<i64> {
    match doc.get(key)? {
        Bson::Int32(i) => Some(i64::from(*i)),
        Bson::Int64(i) => Some(*i),
        Bson::Double(d) => whole_double(*d),
        _ => None,
    }
}

fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(i) => Some(i64::from(i)),
        RawBsonRef::Int64(i) => Some(i),
        RawBsonRef::Double(d) => whole_double(d),
        _ => None,
    }
}

/// The originals' driver stored some counts as doubles; they are whole.
fn whole_double(value: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation)]
    (value.fract() == 0.0).then_some(value as i64)
}

fn text(value: RawBsonRef<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A date; null, as the originals left it, is absent.
fn date(value: RawBsonRef<'_>) -> Option<Timestamp> {
    value.as_datetime().map(Timestamp::from)
}

fn bytes(value: RawBsonRef<'_>) -> Option<Bytes> {
    value.as_binary().map(|binary| Bytes::copy_from_slice(binary.bytes))
}

/// What an array holds of one kind.
fn each<T>(value: RawBsonRef<'_>, read: impl Fn(RawBsonRef<'_>) -> Option<T>) -> Vec<T> {
    value.as_array().into_iter().flatten().filter_map(|item| read(item.ok()?)).collect()
}

fn malformed(what: &'static str, key: &str, stored: &RawDocument) -> Error {
    let id = stored
        .get("_id")
        .ok()
        .flatten()
        .and_then(|id| Bson::try_from(id).ok())
        .map(|id| id.to_string())
        .unwrap_or_default();
    Error::new(
        ErrorKind::RouteMismatch,
        format!("the {what} {id} has no usable `{key}`: it was not written by this library"),
    )
}

impl Head {
    pub(crate) fn stored(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("_id"), self.id.0);
        doc.append(cstr!("itemId"), self.id.0);
        doc.append(cstr!("ov"), raw_int(self.ov));
        doc.append(cstr!("cv"), raw_int(self.cv));
        put_opt(&mut doc, cstr!("rowId"), self.row);
        if self.erased {
            doc.append(cstr!("erased"), true);
            put_opt(&mut doc, cstr!("tenantId"), self.content.tenant.as_deref());
        } else {
            self.content.write(self.ov, &mut doc);
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
        doc
    }

    pub(crate) fn read(stored: &RawDocument) -> Result<Self> {
        let (mut id, mut ov, mut cv, mut row) = (None, None, None, None);
        let (mut created_at, mut updated_at, mut deleted_at, mut erased, mut shadow) =
            (None, None, None, false, None);
        let mut content = Reading::default();
        for element in stored.iter_elements() {
            let (key, value) = raw_bson::field(element)?;
            match key {
                "_id" => id = value.as_object_id().map(ItemId),
                "ov" => ov = whole(value),
                "cv" => cv = whole(value),
                ROW_ID => row = value.as_object_id(),
                "createdAt" => created_at = date(value),
                "updatedAt" => updated_at = date(value),
                "deletedAt" => deleted_at = date(value),
                "erased" => erased = value.as_bool().unwrap_or(false),
                "fullShadow" => shadow = value.as_document().and_then(read_shadow),
                _ => content.take(key, value),
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
            content: content.end(ov),
            shadow,
        })
    }
}

/// A shadow of the originals holds a document instead of the stored bytes; it is not used.
fn read_shadow(stored: &RawDocument) -> Option<Shadow> {
    let get = |key: &str| stored.get(key).ok()?;
    Some(Shadow { ov: whole(get("ov")?)?, at: date(get("at")?)?, bytes: bytes(get("data")?)? })
}

impl Row {
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
        let mut doc = Self::identity(self.row_id, self.id.0, self.ov, self.cv, self.op, self.at);
        put_opt(&mut doc, cstr!("actor"), self.actor.as_deref());
        put_opt(&mut doc, cstr!("reason"), self.reason.as_deref());
        put_opt(&mut doc, cstr!("requestId"), self.request_id.as_deref());
        if let Some(import) = &self.import {
            doc.append(
                cstr!("importId"),
                RawBinaryRef { subtype: BinarySubtype::Generic, bytes: &import.id },
            );
            put_opt(&mut doc, cstr!("importAt"), import.at);
        }
        if self.op.is_bare() {
            put_opt(&mut doc, cstr!("tenantId"), self.content.tenant.as_deref());
        } else {
            self.content.write(self.ov, &mut doc);
        }
        put_opt(&mut doc, cstr!("prevOv"), (self.ov > 0).then(|| raw_int(self.ov - 1)));
        put_texts(&mut doc, cstr!("rules"), &self.rules);
        put_opt(&mut doc, cstr!("inline"), self.inline.as_ref().map(binary));
        if !self.riders.is_empty() {
            doc.append(cstr!("riders"), self.riders.iter().map(Rider::stored).collect::<RawArrayBuf>());
        }
        put_opt(&mut doc, cstr!("unflushedSince"), self.unflushed_since);
        doc
    }

    pub(crate) fn read(stored: &RawDocument) -> Result<Self> {
        let (mut row_id, mut id, mut ov, mut cv, mut op, mut at) = (None, None, None, None, None, None);
        let (mut actor, mut reason, mut request_id) = (None, None, None);
        let (mut inline, mut riders, mut unflushed_since, mut rules) = (None, Vec::new(), None, Vec::new());
        let (mut import_id, mut import_at) = (None, None);
        let mut content = Reading::default();
        for element in stored.iter_elements() {
            let (key, value) = raw_bson::field(element)?;
            match key {
                "_id" => row_id = value.as_object_id(),
                "itemId" => id = value.as_object_id().map(ItemId),
                "ov" => ov = whole(value),
                "cv" => cv = whole(value),
                "op" => op = value.as_str().and_then(Op::parse),
                "at" => at = date(value),
                "actor" => actor = text(value),
                "reason" => reason = text(value),
                "requestId" => request_id = text(value),
                "importId" => import_id = value.as_binary().and_then(|id| MarkId::try_from(id.bytes).ok()),
                "importAt" => import_at = date(value),
                "inline" => inline = bytes(value),
                "riders" => riders = each(value, read_rider),
                "unflushedSince" => unflushed_since = date(value),
                "rules" => rules = each(value, text),
                _ => content.take(key, value),
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
            content: content.end(ov),
            inline,
            riders,
            unflushed_since,
            rules,
            import: import_id.map(|id| ImportMark { id, at: import_at }),
        })
    }

    /// What stays of it once its item is erased: a version that was there keeps its place, so that nobody
    /// else can take it.
    pub(crate) fn erased(&self) -> Self {
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
            content: Content { tenant: self.content.tenant.clone(), ..Content::default() },
            inline: None,
            riders: Vec::new(),
            unflushed_since: None,
            rules: Vec::new(),
            import: None,
        }
    }

    /// The head that follows from this row and what came before it.
    pub(crate) fn head_after(&self, previous: Option<&Head>) -> Head {
        Head {
            id: self.id,
            ov: self.ov,
            cv: self.cv,
            row: Some(self.row_id),
            created_at: previous.map_or(self.at, |head| head.created_at),
            updated_at: self.at,
            deleted_at: (self.op == Op::Delete || self.op.is_bare()).then_some(self.at),
            erased: self.op.is_bare(),
            content: self.content.clone(),
            shadow: None,
        }
    }
}

fn read_rider(value: RawBsonRef<'_>) -> Option<Rider> {
    let doc = value.as_document()?;
    let get = |key: &str| doc.get(key).ok()?;
    Some(Rider {
        bucket: text(get("bucket")?)?,
        key: text(get("key")?)?,
        content_type: text(get("contentType")?)?,
        bytes: bytes(get("data")?)?,
    })
}
