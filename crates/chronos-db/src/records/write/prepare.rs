//! Making a change ready: the document that comes of it, what is indexed and what is stored apart.

use std::sync::Arc;

use super::call::WriteCall;
use super::change::{Change, WriteOptions};
use super::commit::Prepared;
use super::own_tenant;
use super::ready::{Attempt, Ready, UploadPlace};
use super::unique::check_unique;
use super::writer::Writer;
use crate::clock::Moment;
use crate::config::UpdateMode;
use crate::json::Map;
use crate::objects::keys;
use crate::records::document::externalize::{
    BlobLocation, Externalized, adopted, externalize, still_referenced,
};
use crate::records::document::merge::merge;
use crate::records::document::payload::{self, Body};
use crate::records::document::{heavy, indexing};
use crate::records::index::scope::TENANT;
use crate::records::model::{BlobRef, Head, ItemId, Op, Payload, VersionMeta};
use crate::records::storage::payload_store::ObjectBuckets;
use crate::{Error, Json, Result};

/// The largest payload without object storage: it stays in its row for ever, and MongoDB's documents end at
/// 16 MiB.
const INLINE_LIMIT: usize = 15 * 1024 * 1024;

/// The version that a change follows.
struct Current {
    document: Map,
    refs: Vec<BlobRef>,
}

/// What of a new document is stored apart.
#[derive(Default)]
struct Apart {
    out: Externalized,
    /// The rest of the document, unless it has to be made once more.
    body: Option<Body>,
    /// None if everything rides in the row.
    place: Option<UploadPlace>,
}

/// What comes of a change.
enum Made {
    Document(Op, Map),
    /// A version that shares the payload of another one, or has none.
    Shared(Op),
    Nothing,
}

impl Writer {
    /// Makes the change ready; none if it changes nothing.
    pub(super) async fn prepare_change(
        self: &Arc<Self>,
        call: WriteCall<'_>,
        attempt: Attempt<'_>,
    ) -> Result<Option<Ready>> {
        let WriteCall { id, change, options, scope, .. } = call;
        let Attempt { head, read_at, place } = attempt;
        let new = || VersionMeta { tenant: scope.stamp().map(str::to_owned), ..VersionMeta::default() };
        // An item is for good whose it was at its creation.
        let mut meta = head.map_or_else(new, |head| head.meta.clone());
        let mut current = match (change, head) {
            (Change::Update { .. } | Change::Enrich { .. }, Some(head)) => {
                Some(self.current(head, &mut meta).await?)
            }
            // Who forces it can replace a document that is damaged; and the index may know without the
            // document that it changes.
            (Change::Replace { document }, Some(head))
                if !options.force && !self.replaces_for_sure(document, head) =>
            {
                Some(self.current(head, &mut meta).await?)
            }
            _ => None,
        };
        let function_ids = meta.function_ids.clone();
        let (op, document) = match self.made_of(call, head, current.as_ref(), &mut meta).await? {
            Made::Document(op, document) => (op, self.owned(document, head, current.as_mut(), &mut meta)?),
            Made::Shared(op) => {
                let blank = Prepared::blank(self.index.env.random.object_id(), id, meta, None, Vec::new());
                let prepared = Prepared { op, ..fill(blank, head, options, read_at) };
                return Ok(Some(Ready::at_once(prepared)));
            }
            Made::Nothing => return Ok(None),
        };
        if let Some(current) = &current
            && !options.force
            && meta.function_ids == function_ids
            && document == current.document
        {
            return Ok(None);
        }
        if !matches!(change, Change::Enrich { .. }) {
            indexing::check_required(&document, &self.index.settings.map)?;
        }
        let known = match (current, head) {
            (Some(current), _) => current.refs,
            (None, Some(head)) => head.meta.refs.clone(),
            (None, None) => Vec::new(),
        };
        let ov = head.map_or(0, |head| head.ov + 1);
        let (writer, place) = (Arc::clone(self), place.cloned());
        let mut ready = heavy::work(heavy::is_heavy_object(&document), move || {
            meta.rules = writer.index.settings.rules.of_payload(&document);
            writer.written(id, ov, document, meta, &known, place)
        })
        .await??;
        check_unique(&options.unique, &ready.prepared.meta.indexed)?;
        self.index.note_own(&ready.prepared.meta).await?;
        self.index.note_missing(&ready.prepared.meta).await?;
        ready.prepared = Prepared { op, ..fill(ready.prepared, head, options, read_at) };
        Ok(Some(ready))
    }

    /// Whether the index entry of the head tells that `document` is another one, and the head has all that a
    /// next version keeps.
    fn replaces_for_sure(&self, document: &Json, head: &Head) -> bool {
        // A document need not say its tenant to be the same.
        let complete =
            !head.meta.legacy && head.meta.payload.ov == head.ov && !self.index.settings.says_tenant;
        complete
            && document.as_object().is_some_and(|document| indexing::differs(document, &head.meta.indexed))
    }

    /// The document, saying its tenant where documents do.
    fn owned(
        &self,
        mut document: Map,
        head: Option<&Head>,
        current: Option<&mut Current>,
        meta: &mut VersionMeta,
    ) -> Result<Map> {
        if !self.index.settings.says_tenant {
            return Ok(document);
        }
        let said = own_tenant::say(&mut document, meta.tenant.as_deref())?;
        match (head, current) {
            // A handle of all tenants: the document says whose it is.
            (None, _) => meta.tenant = said,
            // Of a document that was written before they did, the tenant alone is not a change.
            (Some(_), Some(current)) if meta.tenant.is_some() => {
                if !current.document.contains_key(TENANT) {
                    own_tenant::say(&mut current.document, meta.tenant.as_deref())?;
                }
            }
            // An item of nobody.
            (Some(_), current) => {
                own_tenant::keep_nobodys(said.as_deref(), current.map(|current| &current.document))?;
            }
        }
        Ok(document)
    }

    /// The document that comes of a change, and what else it changes of the version.
    async fn made_of(
        &self,
        WriteCall { change, options, .. }: WriteCall<'_>,
        head: Option<&Head>,
        current: Option<&Current>,
        meta: &mut VersionMeta,
    ) -> Result<Made> {
        Ok(match (change, head) {
            (Change::Create { document, lineage }, _) => {
                meta.lineage = lineage.clone();
                Made::Document(Op::Create, payload::checked(document.clone())?)
            }
            (Change::Delete, Some(_)) => {
                if self.index.settings.logical_delete && options.certificate.is_none() {
                    Made::Shared(Op::Delete)
                } else {
                    // Its row says no more than this of what it takes away.
                    meta.rules = self.index.settings.rules.of_version(meta)?;
                    Made::Shared(Op::Erase)
                }
            }
            (Change::Restore { row }, Some(head)) => {
                let is_there = head.meta.payload.ov == row.meta.payload.ov;
                if head.is_live() && is_there && !options.force {
                    return Ok(Made::Nothing);
                }
                if !self.index.settings.versioning && !is_there {
                    return Err(not_kept().at_version(row.ov));
                }
                meta.indexed = row.meta.indexed.clone();
                meta.missing = row.meta.missing.clone();
                meta.payload = row.meta.payload.clone();
                meta.refs = row.meta.refs.clone();
                meta.rules = row.meta.rules.clone();
                Made::Shared(Op::Restore)
            }
            (Change::Replace { document }, Some(_)) => {
                Made::Document(Op::Update, payload::checked(document.clone())?)
            }
            (Change::Update { document }, Some(_)) => {
                let new = payload::checked(document.clone())?;
                refuse_operators(&new, "update")?;
                Made::Document(
                    Op::Update,
                    match (self.index.settings.update_mode, current) {
                        (UpdateMode::Merge, Some(current)) => {
                            let mut merged = current.document.clone();
                            merged.extend(new);
                            merged
                        }
                        _ => new,
                    },
                )
            }
            (Change::Enrich { patches, function_id }, Some(_)) => {
                let document = current.map(|current| current.document.clone()).unwrap_or_default();
                let enriched = enriched(document, patches).await?;
                if let Some(function) = function_id
                    && !meta.function_ids.contains(function)
                {
                    meta.function_ids.push(function.clone());
                }
                Made::Document(Op::Update, enriched)
            }
            (_, None) => return Err(Error::not_found("there is no such item")),
        })
    }

    /// The document of the current version, and the references in it. What the legacy library recorded in the
    /// document alone goes into `meta`.
    async fn current(&self, head: &Head, meta: &mut VersionMeta) -> Result<Current> {
        let bytes = self.reader.payload(head).await?;
        let (document, inherited) =
            heavy::work(bytes.len() > heavy::BYTES, move || payload::parse_both(&bytes)).await??;
        let mut refs = head.meta.refs.clone();
        if let Some(inherited) = inherited {
            meta.inherit(inherited);
            if let (true, Some(space)) = (refs.is_empty(), &self.payloads.buckets) {
                refs = adopted(
                    &document,
                    &self.index.settings.map,
                    &self.index.names.collection,
                    head.id,
                    &space.content,
                );
            }
        }
        Ok(Current { document, refs })
    }

    /// Takes blobs out of a new document, indexes it, and decides what rides in the row.
    pub(super) fn written(
        &self,
        id: ItemId,
        ov: i64,
        mut document: Map,
        mut meta: VersionMeta,
        known: &[BlobRef],
        earlier: Option<UploadPlace>,
    ) -> Result<Ready> {
        let mut apart = Apart::default();
        if let Some(buckets) = &self.payloads.buckets {
            apart = self.set_apart(id, ov, &mut document, known, buckets, earlier)?;
            let suffix = apart.place.as_ref().map(|place| place.suffix.as_str());
            meta.payload.bucket = Some(buckets.json.clone());
            meta.payload.key = Some(keys::item(&self.index.names.collection, &id.to_string(), ov, suffix)?);
        } else {
            meta.payload = Payload::default();
        }
        meta.payload.ov = ov;
        meta.refs = apart.out.refs;
        let (indexed, missing) = indexing::extract(&document, &self.index.settings.map, &meta.refs)?;
        (meta.indexed, meta.missing) = (Arc::new(indexed), missing);
        let body = apart.body.map_or_else(|| Body::new(&document), Ok)?;
        if self.payloads.buckets.is_none() && body.len() > INLINE_LIMIT {
            let message = format!(
                "the document has {} bytes; without object storage {INLINE_LIMIT} are allowed",
                body.len()
            );
            return Err(Error::validation(message));
        }
        let row_id = self.index.env.random.object_id();
        let prepared = Prepared::blank(row_id, id, meta, Some(body), apart.out.inline_objects);
        Ok(Ready { prepared, place: apart.place })
    }

    /// Takes what is stored apart out of the document. What is too big to ride gets keys that no other
    /// attempt can meet, since it is stored before its commit.
    fn set_apart(
        &self,
        id: ItemId,
        ov: i64,
        document: &mut Map,
        known: &[BlobRef],
        buckets: &ObjectBuckets,
        earlier: Option<UploadPlace>,
    ) -> Result<Apart> {
        let (map, collection) = (&self.index.settings.map, &self.index.names.collection);
        let location = BlobLocation { collection, id, ov, bucket: &buckets.content, suffix: None };
        let whole = (!map.base64.is_empty()).then(|| document.clone());
        let mut out = externalize(document, map, known, location)?;
        let written = Body::new(document)?;
        let rides = out.inline_objects.iter().map(|object| object.bytes.len()).sum::<usize>() + written.len();
        let (mut body, mut place) = (Some(written), None);
        if rides > self.index.settings.inline_max_bytes {
            let random = &self.index.env.random;
            let unique = earlier.unwrap_or_else(|| UploadPlace { suffix: random.object_id().to_hex(), ov });
            if let Some(whole) = whole {
                *document = whole;
                let location = BlobLocation { suffix: Some(&unique.suffix), ov: unique.ov, ..location };
                out = externalize(document, map, known, location)?;
                body = None;
            }
            place = Some(unique);
        }
        let kept = still_referenced(document, known).into_iter();
        let kept: Vec<_> = kept.filter(|r| !out.refs.iter().any(|o| o.path == r.path)).collect();
        out.refs.extend(kept);
        Ok(Apart { out, body, place })
    }
}

/// What the caller says of a version, and what it follows.
fn fill(prepared: Prepared, head: Option<&Head>, options: &WriteOptions, read_at: Moment) -> Prepared {
    Prepared {
        previous: head.cloned(),
        read_at,
        actor: options.actor.clone(),
        reason: options.reason.clone(),
        request_id: options.request_id.clone(),
        operation: options.identity.as_ref().map(|identity| identity.id),
        at: options.at,
        import: options.import,
        certificate: options.certificate,
        ..prepared
    }
}

/// The document with these patches merged into it.
async fn enriched(document: Map, patches: &[Json]) -> Result<Map> {
    let mut enriched = Json::Object(document);
    let mut checked = Vec::with_capacity(patches.len());
    for patch in patches {
        let patch = payload::checked(patch.clone())?;
        refuse_operators(&patch, "enrich")?;
        checked.push(Json::Object(patch));
    }
    let is_heavy = heavy::is_heavy(&enriched) || checked.iter().any(heavy::is_heavy);
    let enriched = heavy::work(is_heavy, move || {
        checked.iter().for_each(|patch| merge(&mut enriched, patch));
        enriched
    })
    .await?;
    payload::checked(enriched)
}

/// Where versions are not kept there is no past to go back to.
pub(crate) fn not_kept() -> Error {
    Error::validation(
        "this collection keeps no versions (`versioning` is off): of each item there is the latest one alone",
    )
}

/// Inline records have no past at all.
pub(crate) fn no_past() -> Error {
    Error::validation(
        "no versions are kept of inline records, as of identities and of logs without object storage: of each item there is its latest state alone",
    )
}

/// The update operators of MongoDB, which a caller may take `update` for; any other name with a `$` is a
/// property like others.
const UPDATE_OPERATORS: [&str; 14] = [
    "$set",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$rename",
    "$setOnInsert",
    "$currentDate",
    "$push",
    "$pull",
    "$pullAll",
    "$pop",
    "$addToSet",
];

/// An operator would be stored as a property of its name, which nobody means.
pub(super) fn refuse_operators(fields: &Map, operation: &str) -> Result<()> {
    let Some(operator) = fields.keys().find(|name| UPDATE_OPERATORS.contains(&name.as_str())) else {
        return Ok(());
    };
    let instead = match operator.as_str() {
        "$unset" | "$rename" => "`replace` writes a document without the property",
        "$push" | "$addToSet" => "`enrich` adds the members of an array to what is there",
        "$set" => "give the properties themselves",
        _ => "read the item, and give the new value with the version it was read at as the expected one",
    };
    Err(Error::validation(format!(
        "`{operator}` is an update operator, and {operation} takes none: {instead}"
    )))
}
