//! Looking whether the index and the objects are what they should be.

use super::item::{Damage, Item, follows};
use super::numbers::Numbers;
use super::report::Verification;
use crate::records::index::RecordIndex;
use crate::records::storage::eraser::Eraser;
use crate::records::storage::flush::Flusher;
use crate::records::storage::gc::Collector;
use crate::records::storage::payload_store::{PayloadStore, unpacked};
use crate::records::versions::{RowLocation, Stored, Versions};
use crate::records::write::schema::Schema;
use crate::records::write::watermark::Watermark;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::documents::{Filter, Scan};
use crate::records::document::payload;
use crate::records::index::scope::Scope;
use crate::records::model::{Op, Row};
use crate::records::storage::notes::Noted;
use crate::records::storage::notes::{DUE, MANIFEST};
use crate::{ErrorKind, Result};

/// Versions checked at once.
const PARALLEL: usize = 16;

/// After this many payloads in a row for which the storage does not answer, the others are not asked for.
const UNANSWERED: u32 = 64;
/// Noted objects younger than this may belong to a write under way.
const YOUNG: Duration = Duration::from_secs(3_600);

/// Checks one collection.
pub(crate) struct Verifier {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) eraser: Arc<Eraser>,
    pub(crate) collector: Arc<Collector>,
    pub(crate) versions: Arc<Versions>,
}

impl Verifier {
    /// Checks everything; with `repair` rolls lagging heads forward, stores what waits, removes old orphans
    /// and what is left of erased items.
    pub(crate) async fn verify(self: &Arc<Self>, repair: bool, scope: &Scope) -> Result<Verification> {
        let mut found =
            Verification { stable_cv: self.watermark.stable_cv().await?, ..Verification::default() };
        if repair && found.stable_cv >= 0 {
            self.schema.ensure(scope).await?;
            self.flusher.resume_unflushed();
            found.repaired += self.collector.collect_orphans(YOUNG, scope).await?.removed();
        }
        let mut numbers = self.verify_numbers(&mut found, scope).await?;
        let beyond = self.verify_manifests(&mut found, scope).await?;
        self.verify_items(repair, beyond, &mut numbers, &mut found, scope).await?;
        // What a manifest has that cannot be read nobody can tell.
        if beyond {
            self.verify_gaps(numbers, &mut found, scope).await?;
        }
        self.verify_heads_have_rows(repair, &mut found, scope).await?;
        let mut notes = self
            .index
            .documents
            .scan(&self.index.names.gc, Scan { filter: scope.narrow(Filter::All), ..Scan::default() });
        while let Some(note) = notes.try_next().await? {
            match Noted::read(&note) {
                Some(noted) => found.noted += noted.objects.len() as u64,
                None if note.contains_key(DUE) || note.contains_key(MANIFEST) => {}
                None => found.report(
                    "malformed-note",
                    None,
                    None,
                    format!("a note of an object names none: {:?}", note.get("_id")),
                ),
            }
        }
        Ok(found)
    }

    /// Every manifest is there and as it was written; whether that is so.
    async fn verify_manifests(&self, found: &mut Verification, scope: &Scope) -> Result<bool> {
        let damaged = self.versions.manifests.damaged(scope).await?;
        for manifest in &damaged {
            found.report("damaged-manifest", None, None, manifest.message.clone());
        }
        Ok(damaged.is_empty())
    }

    /// Every item's rows: no hole, no duplicate, growing, each payload readable; and its head follows from
    /// the newest. With `beyond` those that have left the index, too.
    async fn verify_items(
        self: &Arc<Self>,
        repair: bool,
        beyond: bool,
        numbers: &mut Numbers,
        found: &mut Verification,
        scope: &Scope,
    ) -> Result<()> {
        let verifier = Arc::clone(self);
        let unanswered = Arc::new(AtomicU32::new(0));
        let all = self.versions.all(scope, beyond).await?;
        let versions = futures::stream::try_unfold(all, |mut all| async move {
            Ok::<_, crate::Error>(all.next().await?.map(|stored| (stored, all)))
        });
        let versions = versions.boxed().map(move |stored| {
            let (verifier, unanswered) = (Arc::clone(&verifier), Arc::clone(&unanswered));
            async move { verifier.look_at(stored?, &unanswered).await }
        });
        let mut versions = versions.buffered(PARALLEL);
        let mut item = Item::default();
        while let Some((Stored { mut row, place }, damage)) = versions.try_next().await? {
            found.checked += u64::from(row.meta.payload.ov == row.ov && !row.op.is_bare());
            found.unflushed += u64::from(row.unflushed_since.is_some());
            row.inline = None;
            row.inline_objects.clear();
            if place == RowLocation::Manifest {
                // One that has left since the numbers were looked at is counted already.
                found.versions += u64::from(numbers.add(row.cv));
            }
            if item.newest.as_ref().is_some_and(|newest| newest.id != row.id) {
                self.verify_item(std::mem::take(&mut item), repair, found).await?;
            }
            let has_all = self.index.settings.versioning;
            if let RowLocation::Both(copy) = place {
                item.compare(&row, &copy);
            }
            item.step(row, damage, has_all, has_all && beyond);
        }
        self.verify_item(item, repair, found).await
    }

    /// A version with what is wrong with its payload.
    async fn look_at(&self, stored: Stored, unanswered: &AtomicU32) -> Result<(Stored, Option<Damage>)> {
        // Many in a row without an answer: the storage is away, and asking for each of a million would take
        // for ever.
        if unanswered.load(Ordering::Relaxed) >= UNANSWERED {
            let message = "not looked at, as the storage has not answered for those before";
            return Ok((stored, Some(("unreadable-payload", message.to_owned()))));
        }
        let damage = match self.verify_payload(&stored.row).await {
            Err(error) if error.kind() == ErrorKind::Storage => {
                unanswered.fetch_add(1, Ordering::Relaxed);
                Some(("unreadable-payload", error.message().to_owned()))
            }
            looked => {
                unanswered.store(0, Ordering::Relaxed);
                looked?
            }
        };
        Ok((stored, damage))
    }

    /// What an erasure that is done has left, or let in again: versions with content, a head, objects.
    /// Whether there was any.
    async fn verify_erasure(
        self: &Arc<Self>,
        item: &Item,
        repair: bool,
        found: &mut Verification,
    ) -> Result<bool> {
        let Some(erasure) = item.erasure.as_ref().filter(|row| row.unflushed_since.is_none()) else {
            return Ok(false);
        };
        let lives = self.index.head(erasure.id).await?.is_some_and(|head| !head.erased);
        if !lives && item.contents.is_none() && item.objects.is_none() {
            return Ok(false);
        }
        if repair {
            self.eraser.erase(erasure).await?;
            found.repaired += 1;
            return Ok(true);
        }
        let (id, ov) = (Some(erasure.id), item.contents.or(Some(erasure.ov)));
        if lives {
            let message = "the item was erased, and written again by a writer that had not seen it; `--repair` erases it";
            found.report("resurrected", id, ov, message.to_owned());
        } else if item.contents.is_some() {
            let message =
                "the version has content, and the erasure of its item is done; `--repair` removes it";
            found.report("erased-content", id, ov, message.to_owned());
        }
        if let Some(message) = &item.objects {
            found.report("erased-object", id, Some(erasure.ov), message.clone());
        }
        Ok(true)
    }

    /// The payload a row wrote itself; what it shares is checked at its own row.
    async fn verify_payload(&self, row: &Row) -> Result<Option<Damage>> {
        let meta = &row.meta;
        if row.op == Op::Erase && row.unflushed_since.is_none() {
            let left = self.payloads.left_of(row.id).await?;
            return Ok(left.map(|key| {
                (
                    "erased-object",
                    format!("the object `{key}` of an erased item is there; `--repair` removes it"),
                )
            }));
        }
        if row.op.is_bare() || meta.payload.ov != row.ov {
            return Ok(None);
        }
        let bytes = match &row.inline {
            Some(bytes) => bytes.clone(),
            None => {
                let (Some(bucket), Some(key)) = (&meta.payload.bucket, &meta.payload.key) else {
                    return Ok(Some((
                        "missing-payload",
                        "the row has neither an inline payload nor a key".to_owned(),
                    )));
                };
                match self.payloads.bucket(bucket)?.get(key).await? {
                    Some(stored) => match unpacked(stored, &meta.payload).await {
                        Ok(bytes) => bytes,
                        Err(damage) => return Ok(Some(("damaged-payload", damage.message().to_owned()))),
                    },
                    // Erased since the row was read. (Where superseded objects go, the row may follow a
                    // moment later.)
                    None if self.is_erased(row).await? => return Ok(None),
                    None => {
                        return Ok(Some((
                            "missing-object",
                            format!("the object `{key}` is missing in bucket `{bucket}`"),
                        )));
                    }
                }
            }
        };
        if let Err(error) = payload::check(&bytes, &meta.payload) {
            return Ok(Some(("damaged-payload", error.message().to_owned())));
        }
        if let Err(error) = payload::parse(&bytes) {
            return Ok(Some(("damaged-payload", error.message().to_owned())));
        }
        if row.unflushed_since.is_none() {
            for blob in meta.refs.iter().filter(|blob| blob.blob_key.contains(&format!("/v{}/", row.ov))) {
                for (bucket, key) in blob.objects() {
                    if self.payloads.bucket(bucket)?.head(key).await?.is_none() {
                        return Ok(Some((
                            "missing-object",
                            format!("the object `{key}` of property `{}` is missing", blob.path),
                        )));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether nothing is left of a version, or soon will be.
    async fn is_erased(&self, row: &Row) -> Result<bool> {
        Ok(match self.index.row(row.id, row.ov).await? {
            Some(now) => now.op.is_bare(),
            // It has left the index.
            None => self.index.head(row.id).await?.is_some_and(|head| head.erased),
        })
    }

    async fn verify_item(self: &Arc<Self>, item: Item, repair: bool, found: &mut Verification) -> Result<()> {
        let Some(newest) = &item.newest else { return Ok(()) };
        if item.erasure.is_some() {
            if self.verify_erasure(&item, repair, found).await? {
                return Ok(());
            }
        } else {
            for (ov, (kind, message)) in item.damages {
                found.report(kind, Some(newest.id), Some(ov), message);
            }
        }
        found.items += u64::from(!newest.op.is_bare());
        found.live += u64::from(newest.op != Op::Delete && !newest.op.is_bare());
        let mut head = self.index.head(newest.id).await?;
        if head.as_ref().is_none_or(|head| head.cv < newest.cv) && repair {
            head = self.made_anew(head, newest).await?;
            found.repaired += 1;
        }
        let without_row = match &head {
            Some(head) if head.cv > newest.cv => self.is_without_row(head).await?,
            _ => false,
        };
        let problem = match &head {
            None => Some((
                "missing-head",
                "the item has versions but no head; `--repair` rolls it forward".to_owned(),
            )),
            Some(head) if head.cv < newest.cv => Some((
                "lagging-head",
                format!(
                    "the head is at version {}, the newest row at {}; `--repair` rolls it forward",
                    head.ov, newest.ov
                ),
            )),
            Some(head) if head.cv == newest.cv && !follows(head, newest) => Some((
                "wrong-head",
                "the head differs from its newest version; `--repair` makes it anew".to_owned(),
            )),
            // A head ahead of the rows this scan saw was written since, unless its row is not there.
            Some(head) if without_row => Some((
                "head-without-row",
                format!(
                    "the head is at version {}, which no row has; `--repair` puts back version {}",
                    head.ov, newest.ov
                ),
            )),
            Some(_) => None,
        };
        let Some((kind, message)) = problem else { return Ok(()) };
        if let (true, "wrong-head" | "head-without-row", Some(head)) = (repair, kind, &head)
            && self.put_back(head).await?
        {
            found.repaired += 1;
        } else {
            found.report(kind, Some(newest.id), Some(newest.ov), message);
        }
        Ok(())
    }
}
