//! Looking whether the index and the objects are what they should be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bson::RawDocument;
use futures::{StreamExt as _, TryStreamExt as _};

use super::engine::Engine;
use super::model::{Head, ItemId, Op, Row, number};
use super::payload;
use super::scope::{Scope, TENANT};
use crate::documents::{Batch, Direction, Filter, Outcome, Scan, Write, stored};
use crate::{ErrorKind, Json, Result};

/// Versions checked at once.
const PARALLEL: usize = 16;
/// Problems reported in full; beyond it they are only counted.
const REPORTED: usize = 1_000;
/// So many payloads in a row that the storage does not answer for, and the others are not asked for.
const UNANSWERED: u32 = 64;
/// Noted objects younger than this may belong to a write under way.
const YOUNG_MILLIS: i64 = 3_600_000;

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
    /// Numbers of the collection that no version took. Not counted for one of several tenants: they are nobody's.
    pub voids: u64,
    /// The end of the gapless prefix of the collection's versions, which tenants that share a database have in common.
    pub stable_cv: i64,
    /// Versions whose payload was read back and compared with its SHA-256.
    pub checked: u64,
    /// Versions that still wait to be stored as objects: no damage.
    pub unflushed: u64,
    /// Noted objects whose commit has not come: no damage.
    pub noted: u64,
    /// Heads that lagged and were rolled forward, orphans that were removed.
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

    fn report_all(&mut self, damages: &mut Vec<(ItemId, i64, Damage)>) {
        for (id, ov, (kind, message)) in damages.drain(..) {
            self.report(kind, Some(id), Some(ov), message);
        }
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

impl Engine {
    /// Checks everything; with `repair` rolls lagging heads forward, stores what waits and removes old orphans first.
    pub(crate) async fn verify(self: &Arc<Self>, repair: bool, scope: &Scope) -> Result<Verification> {
        let mut found = Verification { stable_cv: self.stable_cv().await?, ..Verification::default() };
        if repair && found.stable_cv >= 0 {
            self.ensure(scope).await?;
            self.flush_leftovers();
            let now = self.documents.now().await?;
            found.repaired += self.collect_orphans(now.plus_millis(-YOUNG_MILLIS), scope).await?;
        }
        self.verify_numbers(&mut found, scope).await?;
        self.verify_items(repair, &mut found, scope).await?;
        self.verify_heads_have_rows(repair, &mut found, scope).await?;
        let notes = Scan { filter: scope.narrow(Filter::All), ..Scan::default() };
        found.noted = self.documents.scan(&self.names.gc, notes).try_fold(0, |n, _| async move { Ok(n + 1) }).await?;
        Ok(found)
    }

    /// Every number up to the last one given out has exactly one row, but those that retention or a missing history explain.
    async fn verify_numbers(&self, found: &mut Verification, scope: &Scope) -> Result<()> {
        let scan = Scan { order: vec![("cv".into(), Direction::Ascending)], without: bare(), ..Scan::default() };
        let mut rows = self.documents.scan(&self.names.ver, scan);
        let mut previous = -1;
        // Of a collection whose rows go, or that others began, only what lies above the mark is gapless.
        let gapless = self.settings.versioning && self.began_here().await?;
        // An erasure takes all rows below it, and with them their numbers.
        let (mut missing, mut erased, mut gaps) = (0, 0, Vec::new());
        while let Some(doc) = rows.try_next().await? {
            let Some(cv) = number(&doc, "cv") else {
                found.report("malformed-row", None, None, format!("a version row has no cv: {:?}", doc.get("_id")));
                continue;
            };
            if cv == previous {
                found.report("duplicate-cv", None, None, format!("two rows have the collection version {cv}"));
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
                Ok("ERASE") => erased += number(&doc, "ov").unwrap_or(0),
                _ => found.versions += u64::from(scope.sees(doc.get_str(TENANT).ok())),
            }
        }
        if missing > erased {
            for (first, last) in gaps {
                let message =
                    format!("no row has the collection versions {first} to {last}; erasures explain {erased} of {missing} such numbers");
                found.report("gap-in-cv", None, None, message);
            }
        }
        Ok(())
    }

    /// Whether the collection's first number was given out by this library: then number 0 has a row.
    async fn began_here(&self) -> Result<bool> {
        let scan = Scan { filter: Filter::eq("cv", 0), limit: Some(1), without: vec!["inline".into(), "riders".into()], ..Scan::default() };
        Ok(self.documents.scan(&self.names.ver, scan).try_next().await?.is_some())
    }

    /// Every item's rows: no hole, no duplicate, growing, each payload readable; and its head follows from the newest.
    async fn verify_items(self: &Arc<Self>, repair: bool, found: &mut Verification, scope: &Scope) -> Result<()> {
        let scan = Scan {
            filter: scope.narrow(Filter::Field("op".into(), crate::documents::filter::Test::Ne(Op::Void.as_str().into()))),
            order: vec![("itemId".into(), Direction::Ascending), ("ov".into(), Direction::Ascending)],
            ..Scan::default()
        };
        let engine = Arc::clone(self);
        let unanswered = Arc::new(AtomicU32::new(0));
        let rows = self.scan_rows(scan).map(move |row| {
            let (engine, unanswered) = (Arc::clone(&engine), Arc::clone(&unanswered));
            async move {
                let row = row?;
                // Many in a row without an answer: the storage is away, and asking for each of a million would take for ever.
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
        let mut item: Vec<Row> = Vec::new();
        let mut damages: Vec<(ItemId, i64, Damage)> = Vec::new();
        while let Some((mut row, damage)) = rows.try_next().await? {
            found.checked += u64::from(row.content.payload.ov == row.ov && row.op != Op::Erase);
            found.unflushed += u64::from(row.unflushed_since.is_some());
            row.inline = None;
            row.riders.clear();
            if item.first().is_some_and(|first| first.id != row.id) {
                found.report_all(&mut damages);
                self.verify_item(std::mem::take(&mut item), repair, found).await?;
            }
            self.verify_step(item.last(), &row, found);
            if row.op == Op::Erase {
                // What lies below an erasure is going, its objects first.
                damages.clear();
            }
            damages.extend(damage.map(|damage| (row.id, row.ov, damage)));
            item.push(row);
            // Of a long history only the newest row matters for what follows.
            if item.len() > 2 {
                item.drain(..1);
            }
        }
        found.report_all(&mut damages);
        if !item.is_empty() {
            self.verify_item(item, repair, found).await?;
        }
        Ok(())
    }

    fn verify_step(&self, previous: Option<&Row>, row: &Row, found: &mut Verification) {
        let report = |found: &mut Verification, kind, message| found.report(kind, Some(row.id), Some(row.ov), message);
        match previous {
            None if row.ov != 0 && self.settings.versioning && row.op != Op::Erase => {
                report(found, "hole-in-ov", format!("the oldest version is {} instead of 0", row.ov));
            }
            None => {}
            Some(previous) => {
                if row.ov == previous.ov {
                    report(found, "duplicate-ov", format!("two rows have version {}", row.ov));
                } else if row.ov != previous.ov + 1 && self.settings.versioning && row.op != Op::Erase {
                    report(found, "hole-in-ov", format!("version {} follows version {}", row.ov, previous.ov));
                }
                if row.cv <= previous.cv {
                    report(found, "cv-not-growing", format!("collection version {} follows {}", row.cv, previous.cv));
                }
                if row.at <= previous.at {
                    report(found, "at-not-growing", format!("{} follows {}", row.at, previous.at));
                }
            }
        }
    }

    /// The payload a row wrote itself; what it shares is checked at its own row.
    async fn verify_payload(&self, row: &Row) -> Result<Option<Damage>> {
        let content = &row.content;
        if row.op == Op::Erase || content.payload.ov != row.ov {
            return Ok(None);
        }
        let bytes = match &row.inline {
            Some(bytes) => bytes.clone(),
            None => {
                let (Some(bucket), Some(key)) = (&content.payload.bucket, &content.payload.key) else {
                    return Ok(Some(("missing-payload", "the row has neither an inline payload nor a key".to_owned())));
                };
                match self.bucket(bucket)?.get(key).await? {
                    Some(bytes) => bytes,
                    // Where superseded objects go, the row may follow a moment later.
                    None => return Ok(Some(("missing-object", format!("the object `{key}` is missing in bucket `{bucket}`")))),
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
                for key in std::iter::once(&blob.blob_key).chain(&blob.text_key) {
                    if self.bucket(&blob.bucket)?.head(key).await?.is_none() {
                        return Ok(Some(("missing-object", format!("the object `{key}` of property `{}` is missing", blob.path))));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn verify_item(self: &Arc<Self>, rows: Vec<Row>, repair: bool, found: &mut Verification) -> Result<()> {
        let Some(newest) = rows.last() else { return Ok(()) };
        found.items += u64::from(newest.op != Op::Erase);
        found.live += u64::from(!matches!(newest.op, Op::Delete | Op::Erase));
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
            None => Some(("missing-head", "the item has versions but no head; `--repair` rolls it forward".to_owned())),
            Some(head) if head.cv < newest.cv => Some((
                "lagging-head",
                format!("the head is at version {}, the newest row at {}; `--repair` rolls it forward", head.ov, newest.ov),
            )),
            Some(head) if head.cv == newest.cv && !follows(head, newest) => {
                Some(("wrong-head", "the head differs from its newest version; `--repair` makes it anew".to_owned()))
            }
            // A head ahead of the rows this scan saw was written since, unless its row is not there.
            Some(head) if without_row => Some((
                "head-without-row",
                format!("the head is at version {}, which no row has; `--repair` puts back version {}", head.ov, newest.ov),
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

    /// Whether the row that a head was made from does not exist, as a failover could leave it behind when rows were read before a majority had
    /// them. Without versioning rows go, so nothing can be said.
    async fn is_without_row(&self, head: &Head) -> Result<bool> {
        if !self.settings.versioning || self.row(head.id, head.ov).await?.is_some_and(|row| head.is_of(&row)) {
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

    /// Removes a head of which no version exists, if its number shows that its row never was committed: another row has it, or it was never given
    /// out. Whether it did.
    async fn remove_unfounded(&self, head: &Head) -> Result<bool> {
        let same = Scan { filter: Filter::eq("cv", super::model::int(head.cv)), limit: Some(1), without: bare(), ..Scan::default() };
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
    async fn verify_heads_have_rows(&self, repair: bool, found: &mut Verification, scope: &Scope) -> Result<()> {
        let order = vec![("_id".into(), Direction::Ascending)];
        let heads =
            Scan { filter: scope.narrow(Filter::All), order, without: vec!["fullShadow".into(), "metaIndexed".into()], ..Scan::default() };
        let mut pages = self.scan_heads(heads).try_chunks(256);
        while let Some(page) = pages.next().await {
            let heads = page.map_err(|e| e.1)?;
            let scan = Scan {
                filter: Filter::any_of("itemId", heads.iter().map(|head| head.id.bson()).collect()),
                newest: Some(crate::documents::Newest { per: "itemId".into(), by: "ov".into(), at_most: i64::MAX.into() }),
                without: bare(),
                ..Scan::default()
            };
            let rows: HashMap<ItemId, i64> = self.scan_rows(scan).map_ok(|row| (row.id, row.ov)).try_collect().await?;
            for head in heads {
                if !rows.contains_key(&head.id) {
                    if self.settings.versioning {
                        if repair && self.remove_unfounded(&head).await? {
                            found.repaired += 1;
                        } else {
                            found.report("missing-rows", Some(head.id), Some(head.ov), "the item has a head but no versions".to_owned());
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
            || (a.ov == b.ov && a.key == b.key && a.checksum == b.checksum && same_entry(&head.content.indexed, &row.content.indexed)))
        && head.deleted_at.is_some() == matches!(row.op, Op::Delete | Op::Erase)
}

/// Whether two index entries say the same; the originals may have written them in different orders.
fn same_entry(a: &RawDocument, b: &RawDocument) -> bool {
    a == b || matches!((stored::decode(a), stored::decode(b)), (Ok(a), Ok(b)) if a == b)
}
