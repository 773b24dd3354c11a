//! Looking whether the index and the objects are what they should be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bson::RawDocument;
use futures::{StreamExt as _, TryStreamExt as _};

use super::engine::Engine;
use super::erase::DUE;
use super::gc::Noted;
use super::model::{Head, ItemId, Op, Row, number};
use super::payload;
use super::scope::{Scope, TENANT};
use crate::documents::{Batch, Direction, Filter, Outcome, Scan, Write, raw_bson};
use crate::{ErrorKind, Json, Result};

/// Versions checked at once.
const PARALLEL: usize = 16;
/// Problems reported in full; beyond it they are only counted.
const REPORTED: usize = 1_000;
/// So many payloads in a row that the storage does not answer for, and the others are not asked for.
const UNANSWERED: u32 = 64;
/// Noted objects younger than this may belong to a write under way.
const YOUNG: Duration = Duration::from_secs(3_600);

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// Versions.
    pub versions: u64,
    /// Items, deleted ones too.
    pub items: u64,
    /// Items that are not deleted.
    pub live: u64,
    /// Numbers of the collection that no version took. Not counted for one of several tenants: they are
    /// nobody's.
    pub voids: u64,
    /// The end of the gapless prefix of the collection's versions, which tenants that share a database have
    /// in common.
    pub stable_cv: i64,
    /// Versions whose payload was read back and compared with its SHA-256.
    pub checked: u64,
    /// Versions that still wait to be stored as objects: no damage.
    pub unflushed: u64,
    /// Noted objects whose commit has not come: no damage.
    pub noted: u64,
    /// Heads that lagged and were rolled forward, orphans that were removed, what was left of erased items.
    pub repaired: u64,
    /// What is wrong, the first thousand of them.
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub problem_count: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// A stable word for the kind, such as `missing-object`.
    pub kind: &'static str,
    /// The item, if it concerns one.
    pub id: Option<String>,
    /// The version, if it concerns one.
    pub ov: Option<i64>,
    /// What is wrong.
    pub message: String,
}

impl Verification {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    /// `{versions, items, …, problems: [{kind, id?, ov?, message}]}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let problems: Vec<Json> = self
            .problems
            .iter()
            .map(|p| {
                let mut out = crate::json!({ "kind": p.kind });
                if let Some(id) = &p.id {
                    out["id"] = id.clone().into();
                }
                if let Some(ov) = p.ov {
                    out["ov"] = ov.into();
                }
                out["message"] = p.message.clone().into();
                out
            })
            .collect();
        crate::json!({
            "versions": self.versions, "items": self.items, "live": self.live, "voids": self.voids, "stableCv": self.stable_cv,
            "checked": self.checked, "unflushed": self.unflushed, "noted": self.noted, "repaired": self.repaired,
            "problemCount": self.problem_count, "problems": problems,
        })
    }

    fn report(&mut self, kind: &'static str, id: Option<ItemId>, ov: Option<i64>, message: String) {
        self.problem_count += 1;
        if self.problems.len() < REPORTED {
            self.problems.push(Problem { kind, id: id.map(|id| id.to_string()), ov, message });
        }
    }
}

/// What rows are read without where their numbers alone matter.
fn bare() -> Vec<String> {
    ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec()
}

/// The kind and the words.
type Damage = (&'static str, String);

/// One item, while its rows pass by.
#[derive(Default)]
struct Item {
    newest: Option<Row>,
    erasure: Option<Row>,
    /// The first version that has content.
    contents: Option<i64>,
    /// What is told of an object that is there although the item was erased.
    objects: Option<String>,
    /// By version.
    damages: Vec<(i64, Damage)>,
}

impl Item {
    fn step(&mut self, row: Row, damage: Option<Damage>, versioning: bool) {
        let mut report = |kind, message| self.damages.push((row.ov, (kind, message)));
        match &self.newest {
            None if row.ov != 0 && versioning => {
                report("hole-in-ov", format!("the oldest version is {} instead of 0", row.ov));
            }
            None => {}
            Some(previous) => {
                if row.ov == previous.ov {
                    report("duplicate-ov", format!("two rows have version {}", row.ov));
                } else if row.ov != previous.ov + 1 && versioning {
                    report("hole-in-ov", format!("version {} follows version {}", row.ov, previous.ov));
                }
                if row.cv <= previous.cv {
                    report(
                        "cv-not-growing",
                        format!("collection version {} follows {}", row.cv, previous.cv),
                    );
                }
                if row.at <= previous.at {
                    report("at-not-growing", format!("{} follows {}", row.at, previous.at));
                }
            }
        }
        if row.op == Op::Erase {
            self.objects = damage.map(|(_, message)| message);
            self.erasure = Some(row.clone());
        } else if !row.op.is_bare() {
            self.contents = self.contents.or(Some(row.ov));
            self.damages.extend(damage.map(|damage| (row.ov, damage)));
        }
        self.newest = Some(row);
    }
}

impl Engine {
    /// Checks everything; with `repair` rolls lagging heads forward, stores what waits, removes old orphans
    /// and what is left of erased items.
    pub(crate) async fn verify(self: &Arc<Self>, repair: bool, scope: &Scope) -> Result<Verification> {
        let mut found = Verification { stable_cv: self.stable_cv().await?, ..Verification::default() };
        if repair && found.stable_cv >= 0 {
            self.ensure(scope).await?;
            self.flush_leftovers();
            found.repaired += self.collect_orphans(YOUNG, scope).await?.removed();
        }
        self.verify_numbers(&mut found, scope).await?;
        self.verify_items(repair, &mut found, scope).await?;
        self.verify_heads_have_rows(repair, &mut found, scope).await?;
        let mut notes = self
            .documents
            .scan(&self.names.gc, Scan { filter: scope.narrow(Filter::All), ..Scan::default() });
        while let Some(note) = notes.try_next().await? {
            match Noted::read(&note) {
                Some(noted) => found.noted += noted.objects.len() as u64,
                None if note.contains_key(DUE) => {}
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

    /// Every number up to the last one given out has exactly one row, but those that retention or a missing
    /// history explain.
    async fn verify_numbers(&self, found: &mut Verification, scope: &Scope) -> Result<()> {
        let scan =
            Scan { order: vec![("cv".into(), Direction::Ascending)], without: bare(), ..Scan::default() };
        let mut rows = self.documents.scan(&self.names.ver, scan);
        let mut previous = -1;
        // Of a collection whose rows go, or that others began, only what lies above the mark is gapless.
        let gapless = self.settings.versioning && self.began_here().await?;
        let (mut missing, mut gaps) = (0, Vec::new());
        while let Some(doc) = rows.try_next().await? {
            let Some(cv) = number(&doc, "cv") else {
                found.report(
                    "malformed-row",
                    None,
                    None,
                    format!("a version row has no cv: {:?}", doc.get("_id")),
                );
                continue;
            };
            if cv == previous {
                found.report(
                    "duplicate-cv",
                    None,
                    None,
                    format!("two rows have the collection version {cv}"),
                );
            } else if cv > previous + 1 && gapless && previous < found.stable_cv {
                let end = (cv - 1).min(found.stable_cv);
                missing += end - previous;
                if gaps.len() < REPORTED {
                    gaps.push((previous + 1, end));
                }
            }
            previous = cv;
            match doc.get_str("op") {
                // A VOID is nobody's.
                Ok("VOID") => found.voids += u64::from(!scope.is_one_of_several()),
                Ok("ERASE" | "ERASED") => {}
                _ => found.versions += u64::from(scope.sees(doc.get_str(TENANT).ok())),
            }
        }
        if missing == 0 {
            return Ok(());
        }
        let erased = self.numbers_of_erased().await?;
        if missing > erased {
            for (first, last) in gaps {
                let message = format!(
                    "no row has the collection versions {first} to {last}; erasures explain {erased} of {missing} such numbers"
                );
                found.report("gap-in-cv", None, None, message);
            }
        }
        Ok(())
    }

    /// How many numbers erasures took along: those of older versions of this library, which left no rows of
    /// what they removed.
    async fn numbers_of_erased(&self) -> Result<i64> {
        let scan = Scan { filter: Filter::eq("op", Op::Erase.as_str()), without: bare(), ..Scan::default() };
        let mut erasures = self.scan_rows(scan);
        let mut numbers = 0;
        while let Some(erasure) = erasures.try_next().await? {
            let rows = self
                .documents
                .count(&self.names.ver, Filter::eq("itemId", erasure.id.bson()), u64::MAX)
                .await?;
            let below = i64::try_from(rows).unwrap_or(i64::MAX) - 1;
            numbers += (erasure.ov - below).max(0);
        }
        Ok(numbers)
    }

    /// Whether the collection's first number was given out by this library: then number 0 has a row.
    async fn began_here(&self) -> Result<bool> {
        let scan = Scan {
            filter: Filter::eq("cv", 0),
            limit: Some(1),
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        Ok(self.documents.scan(&self.names.ver, scan).try_next().await?.is_some())
    }

    /// Every item's rows: no hole, no duplicate, growing, each payload readable; and its head follows from
    /// the newest.
    async fn verify_items(
        self: &Arc<Self>,
        repair: bool,
        found: &mut Verification,
        scope: &Scope,
    ) -> Result<()> {
        let scan = Scan {
            filter: scope.narrow(Filter::Field(
                "op".into(),
                crate::documents::filter::Test::Ne(Op::Void.as_str().into()),
            )),
            order: vec![("itemId".into(), Direction::Ascending), ("ov".into(), Direction::Ascending)],
            ..Scan::default()
        };
        let engine = Arc::clone(self);
        let unanswered = Arc::new(AtomicU32::new(0));
        let rows = self.scan_rows(scan).map(move |row| {
            let (engine, unanswered) = (Arc::clone(&engine), Arc::clone(&unanswered));
            async move {
                let row = row?;
                // Many in a row without an answer: the storage is away, and asking for each of a million
                // would take for ever.
                if unanswered.load(Ordering::Relaxed) >= UNANSWERED {
                    let message = "not looked at, as the storage has not answered for those before";
                    return Ok((row, Some(("unreadable-payload", message.to_owned()))));
                }
                let damage = match engine.verify_payload(&row).await {
                    Err(error) if error.kind() == ErrorKind::Storage => {
                        unanswered.fetch_add(1, Ordering::Relaxed);
                        Some(("unreadable-payload", error.message().to_owned()))
                    }
                    looked => {
                        unanswered.store(0, Ordering::Relaxed);
                        looked?
                    }
                };
                Ok::<_, crate::Error>((row, damage))
            }
        });
        let mut rows = rows.buffered(PARALLEL);
        let mut item = Item::default();
        while let Some((mut row, damage)) = rows.try_next().await? {
            found.checked += u64::from(row.content.payload.ov == row.ov && !row.op.is_bare());
            found.unflushed += u64::from(row.unflushed_since.is_some());
            row.inline = None;
            row.riders.clear();
            if item.newest.as_ref().is_some_and(|newest| newest.id != row.id) {
                self.verify_item(std::mem::take(&mut item), repair, found).await?;
            }
            item.step(row, damage, self.settings.versioning);
        }
        self.verify_item(item, repair, found).await
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
        let lives = self.head(erasure.id).await?.is_some_and(|head| !head.erased);
        if !lives && item.contents.is_none() && item.objects.is_none() {
            return Ok(false);
        }
        if repair {
            self.erase(erasure).await?;
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
        let content = &row.content;
        if row.op == Op::Erase && row.unflushed_since.is_none() {
            let left = self.left_of(row.id).await?;
            return Ok(left.map(|key| {
                (
                    "erased-object",
                    format!("the object `{key}` of an erased item is there; `--repair` removes it"),
                )
            }));
        }
        if row.op.is_bare() || content.payload.ov != row.ov {
            return Ok(None);
        }
        let bytes = match &row.inline {
            Some(bytes) => bytes.clone(),
            None => {
                let (Some(bucket), Some(key)) = (&content.payload.bucket, &content.payload.key) else {
                    return Ok(Some((
                        "missing-payload",
                        "the row has neither an inline payload nor a key".to_owned(),
                    )));
                };
                match self.bucket(bucket)?.get(key).await? {
                    Some(bytes) => bytes,
                    // Erased since the row was read. (Where superseded objects go, the row may follow a
                    // moment later.)
                    None if self.row(row.id, row.ov).await?.is_some_and(|now| now.op.is_bare()) => {
                        return Ok(None);
                    }
                    None => {
                        return Ok(Some((
                            "missing-object",
                            format!("the object `{key}` is missing in bucket `{bucket}`"),
                        )));
                    }
                }
            }
        };
        if let Err(error) = payload::check(&bytes, &content.payload) {
            return Ok(Some(("damaged-payload", error.message().to_owned())));
        }
        if let Err(error) = payload::parse(&bytes) {
            return Ok(Some(("damaged-payload", error.message().to_owned())));
        }
        if row.unflushed_since.is_none() {
            for blob in content.refs.iter().filter(|blob| blob.blob_key.contains(&format!("/v{}/", row.ov))) {
                for (bucket, key) in blob.objects() {
                    if self.bucket(bucket)?.head(key).await?.is_none() {
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
        let mut head = self.head(newest.id).await?;
        if head.as_ref().is_none_or(|head| head.cv < newest.cv) && repair {
            head = self.roll_forward(newest.id).await?;
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

    /// Whether the row that a head was made from does not exist, as a failover could leave it behind when
    /// rows were read before a majority had them. Without versioning rows go, so nothing can be said.
    async fn is_without_row(&self, head: &Head) -> Result<bool> {
        if !self.settings.versioning || self.row(head.id, head.ov).await?.is_some_and(|row| head.is_of(&row))
        {
            return Ok(false);
        }
        // Unless the head has moved on.
        Ok(self.head(head.id).await?.is_some_and(|now| now.cv == head.cv && now.row == head.row))
    }

    /// Puts the head that follows from the item's newest row in the place of `wrong`; whether it did.
    async fn put_back(&self, wrong: &Head) -> Result<bool> {
        let Some(newest) = self.newest_row(wrong.id).await? else { return Ok(false) };
        let mut head = newest.head_after(Some(wrong));
        if let Some(first) = self.row(wrong.id, 0).await? {
            head.created_at = first.at;
        }
        self.cache.invalidate(&(self.number, wrong.id, wrong.ov));
        self.replace(Write::put(head.stored(), wrong.unchanged())).await
    }

    /// Removes a head of which no version exists, if its number shows that its row never was committed:
    /// another row has it, or it was never given out. Whether it did.
    async fn remove_unfounded(&self, head: &Head) -> Result<bool> {
        let same = Scan {
            filter: Filter::eq("cv", super::model::int(head.cv)),
            limit: Some(1),
            without: bare(),
            ..Scan::default()
        };
        let taken = self.documents.scan(&self.names.ver, same).try_next().await?.is_some();
        let is_beyond = self.highest_cv().await?.is_some_and(|highest| highest < head.cv);
        if !(taken || is_beyond) || self.newest_row(head.id).await?.is_some() {
            return Ok(false);
        }
        self.cache.invalidate(&(self.number, head.id, head.ov));
        self.replace(Write::Delete { id: head.id.bson(), guard: head.unchanged() }).await
    }

    async fn replace(&self, write: Write) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.names.head, write);
        Ok(self.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied))
    }

    /// Without versioning a head may have outlived its rows; otherwise it must have them.
    async fn verify_heads_have_rows(
        &self,
        repair: bool,
        found: &mut Verification,
        scope: &Scope,
    ) -> Result<()> {
        let order = vec![("_id".into(), Direction::Ascending)];
        let heads = Scan {
            filter: scope.narrow(Filter::All),
            order,
            without: vec!["fullShadow".into(), "metaIndexed".into()],
            ..Scan::default()
        };
        let mut pages = self.scan_heads(heads).try_chunks(256);
        while let Some(page) = pages.next().await {
            let heads = page.map_err(|e| e.1)?;
            let scan = Scan {
                filter: Filter::any_of("itemId", heads.iter().map(|head| head.id.bson()).collect()),
                newest: Some(crate::documents::Newest {
                    per: "itemId".into(),
                    by: "ov".into(),
                    at_most: i64::MAX.into(),
                }),
                without: bare(),
                ..Scan::default()
            };
            let rows: HashMap<ItemId, i64> =
                self.scan_rows(scan).map_ok(|row| (row.id, row.ov)).try_collect().await?;
            for head in heads {
                if !rows.contains_key(&head.id) {
                    if self.settings.versioning {
                        if repair && self.remove_unfounded(&head).await? {
                            found.repaired += 1;
                        } else {
                            found.report(
                                "missing-rows",
                                Some(head.id),
                                Some(head.ov),
                                "the item has a head but no versions".to_owned(),
                            );
                        }
                    } else {
                        found.items += 1;
                        found.live += u64::from(head.is_live());
                    }
                }
            }
        }
        Ok(())
    }
}

fn follows(head: &Head, row: &Row) -> bool {
    let (a, b) = (&head.content.payload, &row.content.payload);
    head.ov == row.ov
        && head.row.is_none_or(|id| id == row.row_id)
        && (row.op == Op::Erase
            || (a.ov == b.ov
                && a.key == b.key
                && a.checksum == b.checksum
                && same_entry(&head.content.indexed, &row.content.indexed)))
        && head.deleted_at.is_some() == matches!(row.op, Op::Delete | Op::Erase)
}

/// Whether two index entries say the same; the originals may have written them in different orders.
fn same_entry(a: &RawDocument, b: &RawDocument) -> bool {
    a == b || matches!((raw_bson::decode(a), raw_bson::decode(b)), (Ok(a), Ok(b)) if a == b)
}
