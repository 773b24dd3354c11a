//! Objects that are stored before their commit: noted first, forgotten when a version names them, collected
//! when none ever will.
//!
//! A note is condemned by compare-and-swap before its object goes, and a commit puts the notes of its objects
//! again, if they are not condemned, in the batch that inserts its row (`write/commit/group.rs`). So a writer
//! that stood still, however long, commits nothing whose object was collected; and for one that stood still
//! behind that step, its number is closed before anything is removed, so that its row can come no more.

use crate::records::index::RecordIndex;
use crate::records::manifests::Manifests;
use crate::records::storage::eraser::Eraser;
use crate::records::storage::payload_store::PayloadStore;
use crate::records::versions::Versions;
use crate::records::write::watermark::Watermark;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document};
use futures::TryStreamExt as _;

use crate::documents::{Batch, Direction, Filter, Guard, Outcome, Scan, Write};
use crate::records::index::scope::Scope;
use crate::records::storage::notes::{CONDEMNED, DUE, MANIFEST, Noted, pairs};
use crate::{Error, ErrorKind, Json, Result, Timestamp};

/// Notes condemned together.
const ROUND: usize = 256;
/// Malformed notes that are named.
const NAMED: usize = 100;

/// What a collection of leftovers did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Objects of large payloads that no version names, and manifests that are not in use, removed.
    pub orphans: u64,
    /// Objects of erased items that had come back, removed.
    pub erased: u64,
    /// Notes that nobody can make sense of, passed over: they name no object or no time.
    pub malformed: u64,
    /// The identifiers of the first hundred of these, in the collection's `<name>_gc`.
    pub malformed_notes: Vec<String>,
}

impl Collected {
    /// Returns how many objects were removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.orphans + self.erased
    }

    /// Returns `{orphans, erased, malformed, malformedNotes?}`.
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

/// Removes what was left of commits that never came and of erasures.
pub(crate) struct Collector {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) eraser: Arc<Eraser>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) versions: Arc<Versions>,
}

impl Collector {
    /// Removes what was left of commits that never came and of erasures, as far as `scope` sees it: objects
    /// that were noted at least `age` ago and that no version names, and whatever lies again where the
    /// objects of an item lay that was erased a day ago.
    pub(crate) async fn collect_orphans(self: &Arc<Self>, age: Duration, scope: &Scope) -> Result<Collected> {
        let mut done = Collected::default();
        let now = self.index.documents.now().await?;
        let before = now.minus(age);
        let scan = Scan { filter: scope.narrow(Filter::All), ..Scan::default() };
        let mut notes = self.index.documents.scan(&self.index.names.gc, scan);
        let mut old = Vec::new();
        // One item whose objects cannot be removed holds up no other.
        let mut failed = None;
        while let Some(note) = notes.try_next().await? {
            if note.contains_key(DUE) {
                match self.eraser.erase_again(&note, now).await {
                    Ok(removed) => done.erased += removed,
                    Err(error) if error.kind() == ErrorKind::Validation => done.passes(&note),
                    Err(error) => failed = failed.or(Some(error)),
                }
                continue;
            }
            if note.contains_key(MANIFEST) {
                if note.get_datetime("notedAt").is_ok_and(|at| Timestamp::from(*at) > before) {
                    continue;
                }
                match self.manifests.collect_note(&note, true).await {
                    Ok(Some(is_removed)) => done.orphans += u64::from(is_removed),
                    Ok(None) => done.passes(&note),
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
        match self.manifests.remove_retired(age).await {
            Ok(removed) => done.orphans += removed,
            Err(error) => failed = failed.or(Some(error)),
        }
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
            batch.push(&self.index.names.gc, Write::put(noted.document(true), guard));
        }
        let outcomes = self.index.documents.apply(batch).await?;
        self.index.env.fail.hit("gc.after_condemn")?;
        // A writer that put its note again before this has its number already. Once every number has its row,
        // a commit that was under way has come, or comes no more.
        if !self.index.env.fail.skips("guard.settled_gc") {
            self.watermark.settled_cv().await?;
        }
        let mut removed = 0;
        for ((noted, _), outcome) in notes.into_iter().zip(outcomes) {
            if outcome == Outcome::Refused {
                // Forgotten, or condemned by another process, which does the rest.
                continue;
            }
            let unnamed = match self.unnamed(&noted).await {
                Ok(unnamed) => unnamed,
                Err(error) => {
                    *failed = failed.take().or(Some(error));
                    continue;
                }
            };
            if let Err(error) = self.payloads.discard(pairs(&unnamed)).await {
                *failed = failed.take().or(Some(error));
                continue;
            }
            removed += unnamed.len() as u64;
            self.index.env.fail.hit("gc.after_delete")?;
            self.payloads.forget(&noted).await?;
        }
        Ok(removed)
    }

    /// The objects of a note that no version of its item names. Any version: what a later one shares lies at
    /// the key of an earlier one.
    async fn unnamed(&self, noted: &Noted) -> Result<Vec<(String, String)>> {
        if noted.is_of_unnamed() && self.payloads.may_be_shared().await? {
            // A copy that was restored since may have the name.
            return Ok(Vec::new());
        }
        let mut unnamed = noted.objects.clone();
        let scope = Scope::of_owner(noted.tenant.as_deref());
        let mut rows = self.versions.of_item(noted.id, 0, Direction::Ascending, &scope);
        while let Some(row) = rows.try_next().await? {
            unnamed.retain(|object| !row.meta.names(object));
        }
        // Without versioning the head may outlive its rows.
        if let Some(head) = self.index.head(noted.id).await? {
            unnamed.retain(|object| !head.meta.names(object));
        }
        Ok(unnamed)
    }
}
