//! What head and row both say of a version.

use std::sync::Arc;

use bson::raw::cstr;
use bson::{RawArrayBuf, RawBsonRef, RawDocumentBuf};

use super::bson::{each, put_opt, put_texts, raw_int, text};
use super::{ItemId, Missing, State};
use crate::Json;
use crate::documents::whole_raw;

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

impl Lineage {
    pub(crate) fn set_parent(&mut self, id: &ItemId, collection: &str) {
        self.parent_id = Some(id.to_string());
        self.parent_collection = Some(collection.to_owned());
        if self.origin_id.is_none() {
            self.origin_id = Some(id.to_string());
            self.origin_collection = Some(collection.to_owned());
        }
    }

    pub(crate) fn set_origin(&mut self, id: String, collection: &str, system: Option<&str>) {
        self.origin_id = Some(id);
        self.origin_collection =
            Some(system.map_or_else(|| collection.to_owned(), |system| format!("{system}:{collection}")));
    }
}

/// What the legacy library kept in item.json alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct LegacyMeta {
    pub(crate) function_ids: Vec<String>,
    pub(crate) lineage: Lineage,
}

impl LegacyMeta {
    pub(crate) fn read(system: &Json) -> Self {
        let text = |key: &str| system.get(key).and_then(Json::as_str).map(str::to_owned);
        let ids = system.get("functionIds").and_then(Json::as_array).into_iter().flatten();
        Self {
            function_ids: ids.filter_map(|id| id.as_str().map(str::to_owned)).collect(),
            lineage: Lineage {
                parent_id: text("parentId"),
                parent_collection: text("parentCollection"),
                origin_id: text("originId"),
                origin_collection: text("originCollection"),
            },
        }
    }
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

/// Which bytes a version has. `bucket` and `key` name the object even before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The version that wrote these bytes: another one after a delete or restore.
    pub(crate) ov: i64,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) size: i64,
    /// Lower-case hex SHA-256, empty where the legacy library left it out.
    pub(crate) checksum: String,
    pub(crate) state: State,
}

impl Default for Payload {
    fn default() -> Self {
        Self { ov: 0, bucket: None, key: None, size: 0, checksum: String::new(), state: State::NewNotSynched }
    }
}

/// `<collection>/<id>/v<ov>/…`
fn ov_of_key(key: &str) -> Option<i64> {
    key.split('/').nth(2)?.strip_prefix('v')?.parse().ok()
}

/// What head and row both say of a version: its payload and its index entry.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct VersionMeta {
    /// As it is stored: encoded once for row and head, and seldom looked into.
    pub(crate) indexed: Arc<RawDocumentBuf>,
    /// What had no room in it.
    pub(crate) missing: Missing,
    pub(crate) payload: Payload,
    pub(crate) function_ids: Vec<String>,
    pub(crate) lineage: Lineage,
    pub(crate) refs: Vec<BlobRef>,
    pub(crate) tenant: Option<String>,
    /// The payload-scope counter rules that its document matches; of what is erased, those of either scope.
    pub(crate) rules: Vec<String>,
    /// Written by the legacy library: functions, lineage and references may be in its document alone. Not
    /// stored.
    pub(crate) legacy: bool,
}

crate::debug_some!(VersionMeta { payload });

impl VersionMeta {
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

    /// Takes over what only the document of a version of the legacy library says.
    pub(crate) fn inherit(&mut self, inherited: LegacyMeta) {
        if self.function_ids.is_empty() {
            self.function_ids = inherited.function_ids;
        }
        if self.lineage == Lineage::default() {
            self.lineage = inherited.lineage;
        }
        self.legacy = false;
    }

    pub(super) fn write(&self, own_ov: i64, doc: &mut RawDocumentBuf) {
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

/// A [`VersionMeta`] while the fields of its document pass by.
#[derive(Default)]
pub(super) struct MetaReader {
    meta: VersionMeta,
    payload_ov: Option<i64>,
    has_state: bool,
}

impl MetaReader {
    /// Takes the field if it belongs to one.
    pub(super) fn take(&mut self, key: &str, value: RawBsonRef<'_>) {
        let VersionMeta { indexed, missing, payload, function_ids, lineage, refs, tenant, rules, .. } =
            &mut self.meta;
        match key {
            "metaIndexed" => {
                *indexed = value.as_document().map(|entry| Arc::new(entry.to_owned())).unwrap_or_default()
            }
            "notIndexed" => *missing = Missing::read(value),
            "jsonBucket" => payload.bucket = text(value),
            "jsonKey" => payload.key = text(value),
            "payloadOv" => self.payload_ov = whole_raw(value),
            "size" => payload.size = whole_raw(value).unwrap_or(0),
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
            "rules" => *rules = each(value, text),
            _ => {}
        }
    }

    pub(super) fn end(mut self, own_ov: i64) -> VersionMeta {
        let payload = &mut self.meta.payload;
        // The legacy library says it in the key alone.
        payload.ov = self.payload_ov.or_else(|| payload.key.as_deref().and_then(ov_of_key)).unwrap_or(own_ov);
        if !self.has_state {
            payload.state = State::parse(None);
            self.meta.legacy = true;
        }
        self.meta
    }
}
