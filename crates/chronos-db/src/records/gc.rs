//! Objects that are stored before their commit: noted first, forgotten when a version names them, collected
//! when none ever will.
//!
//! A note is condemned by compare-and-swap before its object goes, and a commit puts the notes of its objects
//! again, if they are not condemned, in the batch that inserts its row (`commit/group.rs`). So a writer that
//! stood still, however long, commits nothing whose object was collected; and for one that stood still behind
//! that step, its number is closed before anything is removed, so that its row can come no more.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;

use super::engine::Engine;
use super::erase::DUE;
use super::model::ItemId;
use super::scope::{Scope, TENANT};
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write};
use crate::{Error, ErrorKind, Json, Result, Timestamp};

/// Whether the object of a note is about to go.
pub(super) const CONDEMNED: &str = "condemned";
/// Notes condemned together.
const ROUND: usize = 256;
/// Malformed notes that are named.
const NAMED: usize = 100;

/// What a collection of leftovers did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Objects of large payloads that no version names, removed.
    pub orphans: u64,
    /// Objects of erased items that had come back, removed.
    pub erased: u64,
    /// Notes that nobody can make sense of, passed over: they name no object or no time.
    pub malformed: u64,
    /// The identifiers of the first hundred of these, in the collection's `<name>_gc`.
    pub malformed_notes: Vec<String>,
}

impl Collected {
    /// The objects that were removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.orphans + self.erased
    }

    /// `{orphans, erased, malformed, malformedNotes?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out =
            crate::json!({ "orphans": self.orphans, "erased": self.erased, "malformed": self.malformed });
        if !self.malformed_notes.is_empty() {
            out["malformedNotes"] =
                Json::Array(self.malformed_notes.iter().map(|note| note.clone().into()).collect());
        }
        out
    }

    fn passes(&mut self, note: &Document) {
        self.malformed += 1;
        if self.malformed_notes.len() < NAMED {
            self.malformed_notes.push(
                note.get("_id")
                    .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
                    .unwrap_or_default(),
            );
        }
    }
}

/// The objects that one write stores before its commit, as they are noted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The `_id` of the note.
    pub(crate) note: String,
    pub(crate) id: ItemId,
    pub(crate) tenant: Option<String>,
    pub(crate) at: Timestamp,
    /// Bucket and key of each.
    pub(crate) objects: Vec<(String, String)>,
}

crate::debug_some!(Noted { id, at });

impl Noted {
    fn document(&self, condemned: bool) -> Document {
        let objects: Vec<Bson> =
            self.objects.iter().map(|(bucket, key)| doc! { "bucket": bucket, "key": key }.into()).collect();
        let mut document = doc! { "_id": &self.note, "itemId": self.id.bson(), "notedAt": self.at, CONDEMNED: condemned, "objects": objects };
        document.extend(self.tenant.clone().map(|tenant| (TENANT.to_owned(), tenant.into())));
        document
    }

    /// The write by which a commit makes sure that its objects are there, and stay.
    pub(crate) fn kept(&self) -> Write {
        Write::put(self.document(false), Guard::Equals { field: CONDEMNED.into(), value: false.into() })
    }

    pub(crate) fn read(note: &Document) -> Option<Self> {
        let object = |doc: &Document| {
            Some((doc.get_str("bucket").ok()?.to_owned(), doc.get_str("key").ok()?.to_owned()))
        };
        let objects = match note.get_array("objects") {
            Ok(objects) => objects.iter().map(|found| object(found.as_document()?)).collect::<Option<_>>()?,
            // Older versions of this library wrote a note for each object.
            Err(_) => vec![object(note)?],
        };
        Some(Self {
            note: note.get_str("_id").ok()?.to_owned(),
            id: ItemId::new(note.get_object_id("itemId").ok()?),
            tenant: note.get_str(TENANT).ok().map(str::to_owned),
            at: (*note.get_datetime("notedAt").ok()?).into(),
            objects,
        })
    }
}

impl Engine {
    /// Writes down that objects will be stored before their commit; what the same write noted before stays
    /// noted. Whether that could be done: it can not if what was noted has been condemned since.
    pub(crate) async fn note(&self, noted: &Noted, is_first: bool) -> Result<bool> {
        let write = if is_first { Write::insert(noted.document(false)) } else { noted.kept() };
        let mut batch = Batch::new();
        batch.push(&self.names.gc, write);
        Ok(self.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied))
    }

    /// Forgets the note of objects that their version names by now, or that are gone.
    pub(crate) async fn forget(&self, noted: &Noted) -> Result<()> {
        self.env.fail.hit("large.before_forget")?;
        let mut batch = Batch::new();
        batch.push(&self.names.gc, Write::Delete { id: noted.note.clone().into(), guard: Guard::Any });
        self.documents.apply(batch).await.map(|_| ())
    }

    /// Removes objects, named by bucket and key, that no row can name any more: their commit is done, or was
    /// refused for good, or they are erased.
    pub(crate) async fn discard<'a>(&self, objects: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
        for (bucket, key) in objects {
            self.bucket(bucket)?.delete(key).await?;
        }
        Ok(())
    }

    /// Removes what was left of commits that never came and of erasures, as far as `scope` sees it: objects
    /// that were noted at least `age` ago and that no version names, and whatever lies again where the
    /// objects of an item lay that was erased a day ago.
    pub(crate) async fn collect_orphans(self: &Arc<Self>, age: Duration, scope: &Scope) -> Result<Collected> {
        let mut done = Collected::default();
        let now = self.documents.now().await?;
        let before = now.plus_millis(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let scan = Scan { filter: scope.narrow(Filter::All), ..Scan::default() };
        let mut notes = self.documents.scan(&self.names.gc, scan);
        let mut old = Vec::new();
        // One item whose objects cannot be removed holds up no other.
        let mut failed = None;
        while let Some(note) = notes.try_next().await? {
            if note.contains_key(DUE) {
                match self.erase_again(&note, now).await {
                    Ok(removed) => done.erased += removed,
                    Err(error) if error.kind() == ErrorKind::Validation => done.passes(&note),
                    Err(error) => failed = failed.or(Some(error)),
                }
                continue;
            }
            match Noted::read(&note) {
                Some(noted) if noted.at <= before => old.push((noted, note)),
                Some(_) => {}
                None => done.passes(&note),
            }
            if old.len() == ROUND {
                done.orphans += self.collect(std::mem::take(&mut old), &mut failed).await?;
            }
        }
        done.orphans += self.collect(old, &mut failed).await?;
        failed.map_or(Ok(done), Err)
    }

    /// Removes the objects of these notes that no version names, and the notes. Returns how many objects.
    async fn collect(
        self: &Arc<Self>,
        notes: Vec<(Noted, Document)>,
        failed: &mut Option<Error>,
    ) -> Result<u64> {
        if notes.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        for (noted, note) in &notes {
            // A note without the field is of an older version of this library, whose commits don't look at
            // it.
            let unchanged = if note.contains_key(CONDEMNED) { CONDEMNED } else { "notedAt" };
            let guard = Guard::Equals {
                field: unchanged.into(),
                value: note.get(unchanged).cloned().unwrap_or(Bson::Null),
            };
            batch.push(&self.names.gc, Write::put(noted.document(true), guard));
        }
        let outcomes = self.documents.apply(batch).await?;
        self.env.fail.hit("gc.after_condemn")?;
        // Whoever put its note again before this has its number already. Once every number has its row, a
        // commit that was under way has come, or comes no more.
        self.settled_cv().await?;
        let mut removed = 0;
        for ((noted, _), outcome) in notes.into_iter().zip(outcomes) {
            if outcome == Outcome::Refused {
                // Forgotten, or condemned by another process, which does the rest.
                continue;
            }
            let unnamed = self.unnamed(&noted).await?;
            if let Err(error) = self.discard(pairs(&unnamed)).await {
                *failed = failed.take().or(Some(error));
                continue;
            }
            removed += unnamed.len() as u64;
            self.env.fail.hit("gc.after_delete")?;
            self.forget(&noted).await?;
        }
        Ok(removed)
    }

    /// The objects of a note that no version of its item names. Any version: what a later one shares lies at
    /// the key of an earlier one.
    async fn unnamed(&self, noted: &Noted) -> Result<Vec<(String, String)>> {
        let mut unnamed = noted.objects.clone();
        let mut rows = self.rows_of(noted.id);
        while let Some(row) = rows.try_next().await? {
            unnamed.retain(|object| !row.content.names(object));
        }
        // Without versioning the head may outlive its rows.
        if let Some(head) = self.head(noted.id).await? {
            unnamed.retain(|object| !head.content.names(object));
        }
        Ok(unnamed)
    }
}

/// Objects as they are named to whoever removes them.
pub(super) fn pairs(objects: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    objects.iter().map(|(bucket, key)| (bucket.as_str(), key.as_str()))
}
