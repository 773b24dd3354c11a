//! The objects of manifests: put under a note, read back, named by the switch, and removed when nobody reads
//! them any more.
//!
//! An object is noted in `<c>_gc` before it is put, and the switch that names it puts the note again first, if it is not
//! condemned. Who collects a note condemns it, then moves the switch on: an attempt that was past its note
//! finds that its switch has moved, and names nothing.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;

use super::entry::ManifestEntry;
use super::live::{Retired, Switch};
use super::pack::{Packed, first_row};
use super::root::Manifests;
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write};
use crate::objects::{Put, PutMode, PutOptions, keys};
use crate::records::document::payload::checksum;
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::VersionSelector;
use crate::records::storage::notes::{CONDEMNED, MANIFEST, REMOVED};
use crate::{Error, Result, Timestamp};

/// How many keys are tried, each of which is another one with all likelihood.
const KEYS: usize = 8;

/// What a manifest is made for.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) level: i32,
    pub(crate) period: String,
    pub(crate) tenant: Option<String>,
    /// The number up to which the collection was settled.
    pub(crate) settled: i64,
    pub(crate) now: Timestamp,
}

/// A manifest whose object is stored, and which no switch names yet.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) entry: ManifestEntry,
    note: Document,
}

crate::debug_some!(Prepared { entry });

/// The id of the entry of a manifest: another content is another manifest.
fn entry_id(key: &str, sha256: &str) -> String {
    format!("{key}#{}", sha256.get(..16).unwrap_or(sha256))
}

/// Whether the entry is of the object at this key.
fn is_at(entry: &str, key: &str) -> bool {
    entry.rsplit_once('#').is_some_and(|(at, _)| at == key)
}

/// Whether one attempt alone has put, or will put, anything at this key.
fn is_of_attempt(key: &str) -> bool {
    keys::parse_manifest(key).is_some_and(|key| key.attempt.is_some())
}

/// The note of an object that may be needed.
fn note_of(bucket: &str, key: &str, tenant: Option<&str>, now: Timestamp) -> Document {
    let id = format!("manifest/{bucket}/{key}");
    let mut note = doc! { "_id": id, MANIFEST: key, "bucket": bucket, "notedAt": now, CONDEMNED: false };
    note.extend(tenant.map(|tenant| (TENANT.to_owned(), tenant.into())));
    note
}

impl Manifests {
    /// The bucket of manifests.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` without object storage: rows stay where their payloads are.
    pub(crate) fn bucket(&self) -> Result<String> {
        match &self.payloads.buckets {
            Some(buckets) => Ok(buckets.json.clone()),
            None => Err(Error::validation(
                "this database has no object storage, so versions and their payloads stay in the index: nothing can be rolled up",
            )),
        }
    }

    /// Stores a manifest under a key of its own, reads it back whole, and writes its entry.
    pub(crate) async fn prepare(&self, packed: Packed, writing: &Writing) -> Result<Prepared> {
        let bucket = self.bucket()?;
        for _ in 0..KEYS {
            if let Some(prepared) = self.prepare_at(&bucket, self.key(writing)?, &packed, writing).await? {
                return Ok(prepared);
            }
        }
        Err(Error::storage(format!(
            "every key for a manifest of `{}` is taken in bucket `{bucket}`",
            self.index.names.collection
        )))
    }

    /// A key that nobody else has, nor ever will: not in another database, and in no other attempt.
    fn key(&self, writing: &Writing) -> Result<String> {
        let civil =
            writing.now.civil().ok_or_else(|| Error::storage("the store's time is beyond the year 9999"))?;
        let random = self.index.env.random.next_u64();
        let (collection, number) = (&self.index.names.collection, writing.settled.max(0));
        keys::manifest_of_attempt(collection, civil.year(), civil.month(), number, random)
    }

    /// None if something else lies there.
    async fn prepare_at(
        &self,
        bucket: &str,
        key: String,
        packed: &Packed,
        writing: &Writing,
    ) -> Result<Option<Prepared>> {
        let entry = entry_of(bucket, key, packed, writing);
        let note = note_of(bucket, &entry.key, writing.tenant.as_deref(), writing.now);
        if !self.record_gc_candidate(&note).await? {
            return Ok(None);
        }
        self.index.env.fail.hit("manifest.after_note")?;
        let options = PutOptions {
            mode: PutMode::Create,
            content_type: Some("application/gzip".to_owned()),
            ..PutOptions::default()
        };
        let storage = self.payloads.bucket(bucket)?;
        let put = storage.put(&entry.key, packed.bytes.clone(), options).await?;
        self.index.env.fail.hit("manifest.after_put")?;
        let stored = storage.get(&entry.key).await?;
        let is_right = stored.is_some_and(|stored| checksum(&stored) == entry.sha256);
        if !is_right && put == Put::Exists {
            // Another writer's, against all odds.
            self.forget(note.get("_id").cloned().into_iter()).await?;
            return Ok(None);
        }
        if !is_right {
            return Err(Error::storage(format!(
                "the manifest `{}` in bucket `{bucket}` reads back as something else than was stored",
                entry.key
            )));
        }
        self.index.env.fail.hit("manifest.after_check")?;
        let mut batch = Batch::new();
        batch.push(&self.index.names.manifests, Write::put(entry.stored(), Guard::Any));
        self.index.documents.apply(batch).await?;
        self.index.env.fail.hit("manifest.after_entry")?;
        Ok(Some(Prepared { entry, note }))
    }

    /// Notes that the object will be stored. Whether nobody else has noted that key.
    async fn record_gc_candidate(&self, note: &Document) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.index.names.gc, Write::insert(note.clone()));
        Ok(self.index.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied))
    }

    /// Makes `next` what counts, with these manifests in it. Whether it does; if not, they are named by
    /// nothing, and collected.
    pub(crate) async fn commit(&self, prepared: &[Prepared], next: &Switch) -> Result<bool> {
        let mut batch = Batch::new();
        let mut last = None;
        for one in prepared {
            let write = kept(&one.note);
            last = Some(match last {
                None => batch.push(&self.index.names.gc, write),
                Some(last) => batch.push_after(last, &self.index.names.gc, write),
            });
        }
        match last {
            None => batch.push(&self.index.names.manifests, next.write()),
            Some(last) => batch.push_after(last, &self.index.names.manifests, next.write()),
        };
        let outcomes = self.index.documents.apply(batch).await?;
        if !outcomes.last().is_some_and(Outcome::is_applied) {
            return Ok(false);
        }
        self.index.env.fail.hit("manifest.after_switch")?;
        self.forget(prepared.iter().filter_map(|one| one.note.get("_id").cloned())).await?;
        Ok(true)
    }

    /// Removes what an attempt of this process put that came to nothing: it may hold what is erased meanwhile. Its
    /// notes may be gone, as who erases collects them; what it put after that only it knows. They stay, or are there
    /// anew, condemned, until they are old: of a put that was repeated the first may arrive last.
    ///
    /// The switch must have refused it: then none ever names it.
    pub(crate) async fn discard(&self, prepared: &[Prepared]) -> Result<()> {
        for one in prepared {
            let mut condemned = one.note.clone();
            condemned.extend([(CONDEMNED.to_owned(), true.into()), (REMOVED.to_owned(), true.into())]);
            let mut batch = Batch::new();
            batch.push(&self.index.names.gc, Write::put(condemned, Guard::Any));
            self.index.documents.apply(batch).await?;
            self.payloads.bucket(&one.entry.bucket)?.delete(&one.entry.key).await?;
            let mut batch = Batch::new();
            let id = one.entry.id.as_str().into();
            batch.push(&self.index.names.manifests, Write::Delete { id, guard: Guard::Any });
            self.index.documents.apply(batch).await?;
        }
        Ok(())
    }

    /// Notes the objects of all manifests that are retired as condemned: they are looked for once more when the notes
    /// are old, as a put that was repeated may arrive after its object was removed.
    pub(super) async fn condemn_retired(&self) -> Result<()> {
        let retired = self.switch().await?.retired;
        if retired.is_empty() {
            return Ok(());
        }
        let now = self.index.documents.now().await?;
        let ids = retired.iter().map(|one| one.id.as_str().into()).collect();
        let entries = self.index.documents.get(&self.index.names.manifests, ids).await?;
        let mut batch = Batch::new();
        for one in &retired {
            let entry = entries.iter().find(|entry| entry.get_str("_id").is_ok_and(|id| id == one.id));
            let tenant = entry.and_then(|entry| entry.get_str(TENANT).ok());
            let mut note = note_of(&one.bucket, &one.key, tenant, now);
            note.extend([(CONDEMNED.to_owned(), true.into()), (REMOVED.to_owned(), true.into())]);
            batch.push(&self.index.names.gc, Write::put(note, Guard::Any));
        }
        self.index.documents.apply(batch).await.map(drop)
    }

    async fn forget(&self, notes: impl Iterator<Item = Bson>) -> Result<()> {
        let mut batch = Batch::new();
        for id in notes {
            batch.push(&self.index.names.gc, Write::Delete { id, guard: Guard::Any });
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        self.index.documents.apply(batch).await.map(drop)
    }

    /// Removes what a note is about, if no switch names it. Returns whether there may have been an object to remove, or
    /// none if the note makes no sense.
    ///
    /// The note goes as well if `is_over`, which says that nobody puts that object any more. Else it stays, condemned,
    /// and is collected once more when it is old.
    pub(crate) async fn collect_note(&self, note: &Document, is_over: bool) -> Result<Option<bool>> {
        let text = |name: &str| note.get_str(name).ok().map(str::to_owned);
        let (Some(id), Some(bucket), Some(key)) = (note.get("_id").cloned(), text("bucket"), text(MANIFEST))
        else {
            return Ok(None);
        };
        let mut condemned = note.clone();
        condemned.insert(CONDEMNED, true);
        let mut batch = Batch::new();
        let was = note.get(CONDEMNED).cloned().unwrap_or(Bson::Null);
        batch.push(
            &self.index.names.gc,
            Write::put(condemned, Guard::Equals { field: CONDEMNED.to_owned(), value: was }),
        );
        if !self.index.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied) {
            return Ok(Some(false));
        }
        let switch = self.fence().await?;
        let is_named = switch.in_use.iter().any(|one| is_at(&one.id, &key))
            || switch.retired.iter().any(|one| is_at(&one.id, &key));
        let goes = !is_named && (is_of_attempt(&key) || self.is_own(&bucket, &key).await?);
        if goes {
            self.payloads.bucket(&bucket)?.delete(&key).await?;
        }
        if !is_named {
            let scan = Scan { filter: Filter::eq("key", key), ..Scan::default() };
            let entries: Vec<Document> =
                self.index.documents.scan(&self.index.names.manifests, scan).try_collect().await?;
            let mut batch = Batch::new();
            for id in entries.iter().filter_map(|entry| entry.get("_id").cloned()) {
                batch.push(&self.index.names.manifests, Write::Delete { id, guard: Guard::Any });
            }
            if !batch.operations.is_empty() {
                self.index.documents.apply(batch).await?;
            }
        }
        if is_over || is_named {
            self.forget(std::iter::once(id)).await?;
        }
        Ok(Some(goes))
    }

    /// Whether an object holds rows of this collection, where its key does not say whose it is, as earlier versions of
    /// this library wrote them: in a bucket that databases share it may be another's.
    async fn is_own(&self, bucket: &str, key: &str) -> Result<bool> {
        let Some(bytes) = self.payloads.bucket(bucket)?.get(key).await? else { return Ok(false) };
        let Ok(first) = first_row(bytes).await else { return Ok(false) };
        let row = first.row.row_id.into();
        if !self.index.documents.get_stored(&self.index.names.ver, vec![row]).await?.is_empty() {
            return Ok(true);
        }
        let known = self.rows_of(&Scope::All, first.row.id, VersionSelector::Ov(first.row.ov)).await?;
        Ok(known.iter().any(|known| known.row_id == first.row.row_id))
    }

    /// Moves the switch on, so that no attempt that began before comes to anything.
    pub(crate) async fn fence(&self) -> Result<Switch> {
        loop {
            let mut switch = self.switch().await?;
            switch.fences += 1;
            if self.switch_to(&switch).await? {
                return self.switch().await;
            }
        }
    }

    /// Removes the object and the entry of a manifest that is not in use.
    async fn remove(&self, retired: &Retired) -> Result<()> {
        let bucket = self.payloads.bucket(&retired.bucket)?;
        // In a bucket that databases share, another one may have taken a key that is of no attempt.
        let is_it = async || match bucket.get(&retired.key).await? {
            Some(bytes) if entry_id(&retired.key, &checksum(&bytes)) == retired.id => Ok(true),
            Some(_) => self.is_own(&retired.bucket, &retired.key).await,
            None => Ok(false),
        };
        if is_of_attempt(&retired.key) || is_it().await? {
            bucket.delete(&retired.key).await?;
        }
        let mut batch = Batch::new();
        let id = retired.id.as_str().into();
        batch.push(&self.index.names.manifests, Write::Delete { id, guard: Guard::Any });
        self.index.documents.apply(batch).await.map(drop)
    }

    /// Removes what was retired at least `age` ago. Returns how many objects.
    pub(crate) async fn remove_retired(&self, age: Duration) -> Result<u64> {
        let switch = self.switch().await?;
        if switch.retired.is_empty() || self.payloads.buckets.is_none() {
            return Ok(0);
        }
        let now = self.index.documents.now().await?;
        let before = now.minus(age);
        let gone: Vec<Retired> = switch.retired.into_iter().filter(|one| one.since <= before).collect();
        for one in &gone {
            self.remove(one).await?;
        }
        self.index.env.fail.hit("manifest.after_retired")?;
        while !gone.is_empty() {
            let mut switch = self.switch().await?;
            switch.retired.retain(|one| !gone.contains(one));
            if self.switch_to(&switch).await? {
                break;
            }
        }
        Ok(gone.len() as u64)
    }
}

fn kept(note: &Document) -> Write {
    Write::put(note.clone(), Guard::Equals { field: CONDEMNED.to_owned(), value: false.into() })
}

fn entry_of(bucket: &str, key: String, packed: &Packed, writing: &Writing) -> ManifestEntry {
    let stats = &packed.stats;
    ManifestEntry {
        id: entry_id(&key, &packed.sha256),
        bucket: bucket.to_owned(),
        key,
        level: writing.level,
        period: writing.period.clone(),
        tenant: writing.tenant.clone(),
        made_at: writing.now,
        cv: stats.cv,
        at: stats.at,
        ov: stats.ov,
        items: stats.items,
        rows: stats.rows,
        item_count: stats.item_count,
        bytes: packed.bytes.len() as u64,
        sha256: packed.sha256.clone(),
        blocks: packed.blocks.clone(),
    }
}
