//! From a change to its committed version: read the head, make the change ready, commit, and start over where
//! another was faster.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::{Committed, Prepared, Refused};
use super::engine::Engine;
use super::externalize::{Externalized, Place, adopted, externalize, still_referenced};
use super::heavy;
use super::indexing;
use super::lock::ItemLock;
use super::merge::merge;
use super::model::{BlobRef, Content, Head, ImportMark, ItemId, Lineage, Op, Payload, Row};
use super::payload::{self, Body};
use super::scope::Scope;
use super::smart_insert::check_unique;
use super::upload::{UploadPlace, Uploading, Uploads};
use crate::config::UpdateMode;
use crate::json::Map;
use crate::objects::keys;
use crate::{Error, ErrorKind, Json, Result, Timestamp};

/// Attempts of a write without an expected version. Writers of one process take turns, so this many losses in
/// a row mean that others never stop.
const ATTEMPTS: u32 = 100;
/// The largest payload without object storage: it stays in its row for ever, and MongoDB's documents end at
/// 16 MiB.
const INLINE_LIMIT: usize = 15 * 1024 * 1024;

/// The media type of item.json.
pub(crate) const JSON_TYPE: &str = "application/json; charset=utf-8";

/// What every write may say.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) expected_ov: Option<i64>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) at: Option<Timestamp>,
    pub(crate) import: Option<ImportMark>,
    /// Make a version even if nothing changes.
    pub(crate) force: bool,
    /// Return when the object is stored, not only the row.
    pub(crate) stored: bool,
    /// Properties that the index must hold of the new version.
    pub(crate) unique: Vec<String>,
}

/// A change of one item.
#[derive(Clone)]
pub(crate) enum Change {
    Create { document: Json, lineage: Lineage },
    Update { document: Json },
    Replace { document: Json },
    Enrich { patches: Vec<Json>, function_id: Option<String> },
    Delete,
    Restore { row: Box<Row> },
}

/// What it does, without any document.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Change").field(&self.name()).finish()
    }
}

impl Change {
    fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Replace { .. } => "replace",
            Self::Enrich { .. } => "enrich",
            Self::Delete => "delete",
            Self::Restore { .. } => "restore",
        }
    }
}

/// A change that is ready but for what must be stored before its commit.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    /// Where that is stored; none if everything rides in the row.
    pub(super) place: Option<UploadPlace>,
}

impl Ready {
    fn at_once(prepared: Prepared) -> Self {
        Self { prepared, place: None }
    }
}

/// What an attempt of a write begins with.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    head: Option<&'a Head>,
    /// When the head was read, by this process's clock.
    read_at: Timestamp,
    /// Where an earlier attempt has stored what is too big to ride.
    place: Option<&'a UploadPlace>,
}

/// The version that a change follows.
struct Current {
    document: Map,
    refs: Vec<BlobRef>,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Committed(Box<Committed>),
    /// The item already is as the change wants it.
    Unchanged(Box<Head>),
}

impl Engine {
    /// Carries out one change on the item `id`, if `scope` sees it.
    pub(crate) async fn write(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
        lock: Option<&ItemLock>,
    ) -> Result<Done> {
        let done = self.write_unnamed(id, change, options, scope, lock).await;
        let done =
            done.map_err(|e| e.during(change.name()).in_collection(&self.names.collection).on_item(id))?;
        if let (true, Done::Committed(committed)) = (options.stored, &done) {
            self.stored(&committed.row).await?;
        }
        Ok(done)
    }

    async fn write_unnamed(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
        lock: Option<&ItemLock>,
    ) -> Result<Done> {
        self.ensure(scope).await?;
        let mut uploads = Uploads::default();
        let done = self.attempts(id, change, options, scope, lock, &mut uploads).await;
        let content = match &done {
            Ok(Done::Committed(committed)) => Some(&committed.row.content),
            _ => None,
        };
        self.end_uploads(uploads, content).await;
        done
    }

    async fn attempts(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
        lock: Option<&ItemLock>,
        uploads: &mut Uploads,
    ) -> Result<Done> {
        let token = lock.map(|lock| lock.token.as_str());
        let mut turn = self.turns.take(id).await;
        for _ in 0..ATTEMPTS {
            let expected = lock.map(ItemLock::ov).or(options.expected_ov);
            let read_at = self.env.clock.now();
            let head = match change {
                // Nobody can know the id of an item that is being created.
                Change::Create { .. } => None,
                _ => {
                    let (head, locked) =
                        futures::future::try_join(self.head_or_row(id), self.is_locked(id, token)).await?;
                    // What others have or hold is nobody else's to know.
                    let head = head.filter(|head| scope.sees(head.content.tenant.as_deref()));
                    if locked && head.is_some() {
                        // Not while holding the turn: the lock's holder may be waiting for it.
                        drop(turn);
                        self.pass_lock(id, token).await?;
                        turn = self.turns.take(id).await;
                        continue;
                    }
                    Some(self.changeable(change, head, expected)?)
                }
            };
            let attempt = Attempt { head: head.as_ref(), read_at, place: uploads.place() };
            let Some(mut ready) = self.prepare_change(id, change, options, scope, attempt).await? else {
                return Ok(Done::Unchanged(Box::new(
                    head.ok_or_else(|| Error::database("a creation always changes something"))?,
                )));
            };
            match self.upload(&mut ready, uploads).await? {
                Uploading::Nothing => {}
                Uploading::Anew => {
                    self.end_uploads(std::mem::take(uploads), None).await;
                    continue;
                }
                // That took its time: another version would be noticed only by the commit, after a number was
                // spent.
                Uploading::Done | Uploading::There => {
                    let read_at = self.env.clock.now();
                    match (&head, self.head_or_row(id).await?) {
                        (None, None) => {}
                        (Some(head), Some(now)) if now.cv == head.cv && now.row == head.row => {}
                        (None, Some(_)) => return Err(exists()),
                        (Some(_), _) => continue,
                    }
                    ready.prepared.read_at = read_at;
                }
            }
            uploads.open = true;
            match self.commit(ready.prepared).await {
                Ok(committed) => {
                    uploads.open = false;
                    if let Some(lock) = lock {
                        lock.seen.store(committed.row.ov, Ordering::Release);
                    }
                    return Ok(Done::Committed(Box::new(committed)));
                }
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Condemned) => {
                    uploads.open = false;
                    self.end_uploads(std::mem::take(uploads), None).await;
                }
                Err(Refused::Conflict) => {
                    uploads.open = false;
                    self.roll_forward(id).await?;
                    if matches!(change, Change::Create { .. }) {
                        // Ids are given out once; only a claimed one (see `smart_insert`) can be taken.
                        return Err(exists());
                    }
                }
            }
        }
        drop(turn);
        Err(Error::new(
            ErrorKind::OptimisticLock,
            format!("{ATTEMPTS} attempts met other writers each time; try again later"),
        )
        .retryable())
    }

    /// The head, if the change may follow it.
    fn changeable(&self, change: &Change, head: Option<Head>, expected: Option<i64>) -> Result<Head> {
        let head =
            head.filter(|head| !head.erased).ok_or_else(|| Error::not_found("there is no such item"))?;
        if let Some(expected) = expected.filter(|expected| *expected != head.ov) {
            let message = format!(
                "version {expected} was expected, but the item is at version {}: read it and decide again",
                head.ov
            );
            return Err(Error::new(ErrorKind::OptimisticLock, message).at_version(head.ov));
        }
        if head.deleted_at.is_some() && !matches!(change, Change::Restore { .. }) {
            return Err(Error::not_found("the item is deleted; restore brings it back").at_version(head.ov));
        }
        Ok(head)
    }

    /// Makes the change ready; none if it changes nothing.
    async fn prepare_change(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
        Attempt { head, read_at, place }: Attempt<'_>,
    ) -> Result<Option<Ready>> {
        let ov = head.map_or(0, |head| head.ov + 1);
        let new = || Content { tenant: scope.stamp().map(str::to_owned), ..Content::default() };
        // An item is for good whose it was at its creation.
        let mut content = head.map_or_else(new, |head| head.content.clone());
        let mut op = Op::Update;
        let current = match (change, head) {
            (Change::Update { .. } | Change::Enrich { .. }, Some(head)) => {
                Some(self.current(head, &mut content).await?)
            }
            // Who forces it can replace a document that is damaged; and the index may know without the
            // document that it changes.
            (Change::Replace { document }, Some(head))
                if !options.force && !replaces_for_sure(document, head) =>
            {
                Some(self.current(head, &mut content).await?)
            }
            _ => None,
        };
        let function_ids = content.function_ids.clone();
        let document = match (change, head) {
            (Change::Create { document, lineage }, _) => {
                op = Op::Create;
                content.lineage = lineage.clone();
                payload::checked(document.clone())?
            }
            (Change::Delete, Some(_)) => {
                op = if self.settings.logical_delete { Op::Delete } else { Op::Erase };
                return Ok(Some(Ready::at_once(self.prepared(id, op, head, content, options, read_at))));
            }
            (Change::Restore { row }, Some(head)) => {
                if head.is_live() && head.content.payload.ov == row.content.payload.ov && !options.force {
                    return Ok(None);
                }
                if !self.settings.versioning && head.content.payload.ov != row.content.payload.ov {
                    return Err(not_kept().at_version(row.ov));
                }
                content.indexed = row.content.indexed.clone();
                content.payload = row.content.payload.clone();
                content.refs = row.content.refs.clone();
                return Ok(Some(Ready::at_once(self.prepared(
                    id,
                    Op::Restore,
                    Some(head),
                    content,
                    options,
                    read_at,
                ))));
            }
            (Change::Replace { document }, Some(_)) => payload::checked(document.clone())?,
            (Change::Update { document }, Some(_)) => {
                let new = payload::checked(document.clone())?;
                refuse_operators(&new, "update")?;
                match (self.settings.update_mode, &current) {
                    (UpdateMode::Merge, Some(current)) => {
                        let mut merged = current.document.clone();
                        merged.extend(new);
                        merged
                    }
                    _ => new,
                }
            }
            (Change::Enrich { patches, function_id }, Some(_)) => {
                let mut enriched = Json::Object(
                    current.as_ref().map(|current| current.document.clone()).unwrap_or_default(),
                );
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
                if let Some(function) = function_id
                    && !content.function_ids.contains(function)
                {
                    content.function_ids.push(function.clone());
                }
                payload::checked(enriched)?
            }
            (_, None) => return Err(Error::not_found("there is no such item")),
        };
        if let Some(current) = &current
            && !options.force
            && content.function_ids == function_ids
            && document == current.document
        {
            return Ok(None);
        }
        if !matches!(change, Change::Enrich { .. }) {
            indexing::check_required(&document, &self.settings.map)?;
        }
        let known = match (current, head) {
            (Some(current), _) => current.refs,
            (None, Some(head)) => head.content.refs.clone(),
            (None, None) => Vec::new(),
        };
        let (engine, place) = (Arc::clone(self), place.cloned());
        let (mut ready, rules) = heavy::work(heavy::is_heavy_object(&document), move || {
            let rules = engine.settings.rules.matching(&document);
            Ok::<_, Error>((engine.written(id, ov, document, content, &known, place)?, rules))
        })
        .await??;
        check_unique(&options.unique, &ready.prepared.content.indexed)?;
        self.note_own(&ready.prepared.content).await?;
        self.note_missing(&ready.prepared.content).await?;
        ready.prepared = Prepared { op, rules, ..self.fill(ready.prepared, head, options, read_at) };
        Ok(Some(ready))
    }

    /// The document of the current version, and the references in it. What the originals recorded in the
    /// document alone goes into `content`.
    async fn current(&self, head: &Head, content: &mut Content) -> Result<Current> {
        let bytes = self.payload(head).await?;
        let (document, inherited) =
            heavy::work(bytes.len() > heavy::BYTES, move || payload::parse_both(&bytes)).await??;
        let mut refs = head.content.refs.clone();
        if let Some(inherited) = inherited {
            content.inherit(inherited);
            if let (true, Some(space)) = (refs.is_empty(), &self.space) {
                refs =
                    adopted(&document, &self.settings.map, &self.names.collection, head.id, &space.content);
            }
        }
        Ok(Current { document, refs })
    }

    /// Takes blobs out of a new document, indexes it, and decides what rides in the row.
    fn written(
        &self,
        id: ItemId,
        ov: i64,
        mut document: Map,
        mut content: Content,
        known: &[BlobRef],
        earlier: Option<UploadPlace>,
    ) -> Result<Ready> {
        let collection = &self.names.collection;
        let mut out = Externalized::default();
        let mut upload = None;
        let mut body = None;
        if let Some(space) = &self.space {
            let place = Place { collection, id, ov, bucket: &space.content, suffix: None };
            let whole = (!self.settings.map.base64.is_empty()).then(|| document.clone());
            out = externalize(&mut document, &self.settings.map, known, place)?;
            let written = Body::new(&document)?;
            let rides: usize = out.riders.iter().map(|r| r.bytes.len()).sum::<usize>() + written.len();
            body = Some(written);
            if rides > self.settings.inline_max_bytes {
                // Stored before its commit, under a key that no other attempt can meet.
                let unique = earlier
                    .unwrap_or_else(|| UploadPlace { suffix: self.env.random.object_id().to_hex(), ov });
                if let Some(whole) = whole {
                    document = whole;
                    let place = Place { suffix: Some(&unique.suffix), ov: unique.ov, ..place };
                    out = externalize(&mut document, &self.settings.map, known, place)?;
                    body = None;
                }
                upload = Some(unique);
            }
            out.refs.extend(
                still_referenced(&document, known)
                    .into_iter()
                    .filter(|r| !out.refs.iter().any(|o| o.path == r.path))
                    .collect::<Vec<_>>(),
            );
            content.payload.bucket = Some(space.json.clone());
            content.payload.key = Some(keys::item(
                collection,
                &id.to_string(),
                ov,
                upload.as_ref().map(|place| place.suffix.as_str()),
            )?);
        } else {
            content.payload = Payload::default();
        }
        content.payload.ov = ov;
        content.refs = out.refs;
        let (indexed, missing) = indexing::extract(&document, &self.settings.map, &content.refs)?;
        (content.indexed, content.missing) = (Arc::new(indexed), missing);
        let body = body.map_or_else(|| Body::new(&document), Ok)?;
        if self.space.is_none() && body.len() > INLINE_LIMIT {
            let message = format!(
                "the document has {} bytes; without object storage {INLINE_LIMIT} are allowed",
                body.len()
            );
            return Err(Error::validation(message));
        }
        Ok(Ready {
            prepared: Prepared::blank(self.env.random.object_id(), id, content, Some(body), out.riders),
            place: upload,
        })
    }

    fn prepared(
        &self,
        id: ItemId,
        op: Op,
        head: Option<&Head>,
        content: Content,
        options: &WriteOptions,
        read_at: Timestamp,
    ) -> Prepared {
        let blank = Prepared::blank(self.env.random.object_id(), id, content, None, Vec::new());
        Prepared { op, ..self.fill(blank, head, options, read_at) }
    }

    fn fill(
        &self,
        prepared: Prepared,
        head: Option<&Head>,
        options: &WriteOptions,
        read_at: Timestamp,
    ) -> Prepared {
        Prepared {
            previous: head.cloned(),
            read_at,
            actor: options.actor.clone(),
            reason: options.reason.clone(),
            request_id: options.request_id.clone(),
            at: options.at,
            import: options.import,
            ..prepared
        }
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::OptimisticLock, "the item exists already")
}

/// Where versions are not kept there is no past to go back to.
pub(super) fn not_kept() -> Error {
    Error::validation(
        "this collection keeps no versions (`versioning` is off): of each item there is the latest one alone",
    )
}

/// The update operators of MongoDB, which somebody may take `update` for; any other name with a `$` is a
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
fn refuse_operators(fields: &Map, operation: &str) -> Result<()> {
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

/// Whether the index entry of the head tells that `document` is another one, and the head has all that a next
/// version keeps.
fn replaces_for_sure(document: &Json, head: &Head) -> bool {
    let complete = !head.content.foreign && head.content.payload.ov == head.ov;
    complete
        && document.as_object().is_some_and(|document| indexing::differs(document, &head.content.indexed))
}
