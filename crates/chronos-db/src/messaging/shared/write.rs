//! Saving and deleting values.

use bson::{Bson, Document};
use futures::TryStreamExt as _;
use futures::future::try_join;

use super::{Slot, Strategy, created_at, is_tombstone, newest_first, runs, through, updated_at, version_in};
use crate::documents::filter::Test;
use crate::documents::{Filter, Guard, Scan, Write};
use crate::messaging::table::{ROUNDS, Table};
use crate::messaging::value::{after_days, id_text, new_system, put, system_date, system_whole, whole};
use crate::{Error, Json, Result, Timestamp};

/// How long a tombstone, or a mark over versions, stays if nothing else is said. It must outlive every write
/// of an older value that is still under way.
const TOMBSTONE_DAYS: u32 = 30;
/// Deletes that travel together.
const BATCH: usize = 256;

/// What a save did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The `_id` of the document: that of the value, or of what won over it.
    pub id: String,
    /// The version, if the value was appended.
    pub version: Option<i64>,
    /// Whether this call wrote it: not if the key has a newer value or tombstone, or the request was carried
    /// out before.
    pub applied: bool,
}

/// Saves a value; see [`Shared::save`](super::Shared::save).
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct Save {
    slot: Slot,
    value: Json,
    strategy: Strategy,
    retention_days: Option<u32>,
    max_versions: Option<u32>,
    request_id: Option<String>,
    at: Option<Timestamp>,
    hot_version: Option<i64>,
}

crate::debug_some!(Save { strategy, retention_days, max_versions, request_id, at });

impl Save {
    pub(super) fn new(slot: Slot, value: Json) -> Self {
        Self {
            slot,
            value,
            strategy: Strategy::Latest,
            retention_days: None,
            max_versions: None,
            request_id: None,
            at: None,
            hot_version: None,
        }
    }

    /// Says whether to keep earlier values (default: only the latest).
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Keeps earlier values: this becomes the next version. Numbers start at 0 and have no holes; a key all
    /// of whose versions ended more than 30 days ago starts again.
    pub fn append(self) -> Self {
        self.strategy(Strategy::Append)
    }

    /// Lets the value end after this many days; [`prune`](crate::messaging::Messaging::prune) removes it then.
    pub fn retention_days(mut self, days: u32) -> Self {
        self.retention_days = Some(days);
        self
    }

    /// Keeps only this many of the newest versions.
    pub fn max_versions(mut self, versions: u32) -> Self {
        self.max_versions = Some(versions);
        self
    }

    /// Makes an append safe to repeat: with the id of an earlier one it changes nothing and answers the
    /// version made then.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Sets when the value was created, if that was earlier: then it does not replace a newer value, and a
    /// tombstone of the same time or later wins over it.
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Keeps beside the value the number it has in a cache before this store, so that it has the same one
    /// when it is brought back there.
    pub fn hot_version(mut self, version: i64) -> Self {
        self.hot_version = Some(version);
        self
    }

    async fn run(self) -> Result<Saved> {
        let saved = match self.strategy {
            Strategy::Latest => self.save_latest().await,
            Strategy::Append => self.save_next().await,
        };
        saved.map_err(|error| error.during("shared.save"))
    }

    async fn save_latest(self) -> Result<Saved> {
        self.slot.check()?;
        if self.max_versions.is_some() {
            return Err(Error::validation(
                "`max_versions` is for the strategy `append`; `latest` keeps one value",
            ));
        }
        let mut base = Document::new();
        put(&mut base, "val", &self.value)?;
        if let Some(version) = self.hot_version {
            base.insert("hotVersion", version);
        }
        let changed = self.slot.table.change(self.slot.latest_key(), |found, now| {
            if let (Some(at), Some(found)) = (self.at, found)
                && wins_over_value(found, at)
            {
                return Ok(None);
            }
            let at = self.at.unwrap_or(now);
            let created = found.filter(|found| !is_tombstone(found)).and_then(created_at).unwrap_or(at);
            let mut document = base.clone();
            document.insert("createdAt", created);
            document.insert("updatedAt", at);
            let mut system = new_system(created, at, self.retention_days);
            keep_marks(&mut system, found);
            document.insert("_system", system);
            Ok(Some(document))
        });
        let changed = changed.await?;
        Ok(Saved {
            id: changed.document.as_ref().map(id_text).unwrap_or_default(),
            version: None,
            applied: changed.applied,
        })
    }

    async fn save_next(self) -> Result<Saved> {
        self.slot.check()?;
        if self.max_versions == Some(0) {
            return Err(Error::validation("at least one version must be kept"));
        }
        let mut document = Document::new();
        put(&mut document, "val", &self.value)?;
        if let Some(version) = self.hot_version {
            document.insert("hotVersion", version);
        }
        if let Some(id) = &self.request_id {
            document.insert("requestId", crate::messaging::schema::check_text("request id", id)?);
        }
        let saved = self.slot.append(document, self.at, self.retention_days).await?;
        if let (Some(keep), Some(version)) = (self.max_versions, saved.version) {
            self.slot.retire(version - i64::from(keep)).await?;
        }
        Ok(saved)
    }
}

runs!(Save => Saved);

/// Whether what is stored is not to be replaced by a value of `at`.
fn wins_over_value(stored: &Document, at: Timestamp) -> bool {
    match is_tombstone(stored) {
        true => system_date(stored, "deletedAt").is_some_and(|deleted| deleted >= at),
        false => updated_at(stored).is_some_and(|updated| updated > at),
    }
}

/// Whether what is stored is not to be deleted by a deletion of `at`.
fn wins_over_tombstone(stored: &Document, at: Timestamp) -> bool {
    match is_tombstone(stored) {
        true => system_date(stored, "deletedAt").is_some_and(|deleted| deleted > at),
        false => updated_at(stored).is_some_and(|updated| updated > at),
    }
}

pub(in crate::messaging) fn keep_marks(system: &mut Document, found: Option<&Document>) {
    for mark in ["throughVersion", "lastVersion"] {
        if let Some(value) = found.and_then(|found| system_whole(found, mark)) {
            system.insert(mark, value);
        }
    }
}

impl Slot {
    /// Inserts `document` as the next version.
    pub(in crate::messaging) async fn append(
        &self,
        document: Document,
        at: Option<Timestamp>,
        days: Option<u32>,
    ) -> Result<Saved> {
        self.check()?;
        for _ in 0..ROUNDS {
            let (latest, newest) = try_join(self.latest(), self.newest(Filter::All)).await?;
            if let Some(done) = self.carried_out(&document).await? {
                return Ok(done);
            }
            if let (Some(at), Some(latest)) = (at, &latest)
                && is_tombstone(latest)
                && wins_over_value(latest, at)
            {
                return Ok(Saved { id: id_text(latest), version: None, applied: false });
            }
            let newest = newest.as_ref().and_then(|newest| whole(newest, "version")).unwrap_or(-1);
            let version = newest.max(version_in(latest.as_ref())) + 1;
            let at = match at {
                Some(at) => at,
                None => self.table.now().await?,
            };
            let (key, mut next) = (self.version_key(version), document.clone());
            next.insert("createdAt", at);
            next.insert("updatedAt", at);
            next.insert("_system", new_system(at, at, days));
            self.table.stamp(&mut next, &key);
            let inserted = match self.table.insert(next.clone(), &key).await {
                // The index of request ids isn't that of the key; the value that holds the id is found in the
                // next round.
                Err(_) if self.carried_out(&document).await?.is_some() => false,
                inserted => inserted?,
            };
            if !inserted {
                continue;
            }
            if version_in(self.latest().await?.as_ref()) < version {
                return Ok(Saved { id: id_text(&next), version: Some(version), applied: true });
            }
            // The number was given out before, and its document removed meanwhile.
            self.table.remove(&next).await?;
        }
        Err(self.table.contended())
    }

    /// What an earlier append with the same request id did.
    async fn carried_out(&self, document: &Document) -> Result<Option<Saved>> {
        let Some(request) = document.get("requestId") else { return Ok(None) };
        let found =
            self.table.first(self.filter().and(Filter::eq("requestId", request.clone())), Vec::new()).await?;
        Ok(found.map(|found| Saved {
            id: id_text(&found),
            version: whole(&found, "version"),
            applied: false,
        }))
    }

    /// Lets the versions up to `last` go.
    async fn retire(&self, last: i64) -> Result<()> {
        if last < 0 {
            return Ok(());
        }
        self.mark("throughVersion", last).await?;
        self.remove_versions(last).await
    }

    /// Raises a mark.
    pub(in crate::messaging) async fn mark(&self, mark: &'static str, version: i64) -> Result<()> {
        let marked = self.table.change(self.latest_key(), |found, now| {
            let Some(found) = found else {
                let mut system = new_system(now, now, None);
                system.extend(bson::doc! { "tombstone": true, "expiresAt": after_days(now, TOMBSTONE_DAYS), mark: version });
                return Ok(Some(bson::doc! { "val": Bson::Null, "createdAt": now, "updatedAt": now, "_system": system }));
            };
            if system_whole(found, mark).is_some_and(|have| have >= version) {
                return Ok(None);
            }
            let mut document = found.clone();
            let mut system = found.get_document("_system").cloned().unwrap_or_default();
            system.insert(mark, version);
            if is_tombstone(found) {
                let end = after_days(now, TOMBSTONE_DAYS).max(system_date(found, "expiresAt").unwrap_or_default());
                system.insert("expiresAt", end);
            }
            document.insert("_system", system);
            Ok(Some(document))
        });
        marked.await.map(drop)
    }

    /// Removes the documents of versions that are gone.
    pub(in crate::messaging) async fn remove_versions(&self, through: i64) -> Result<()> {
        let filter = self.versions().and(Filter::lte("version", through));
        remove_all(
            &self.table,
            Scan { filter, order: newest_first(), without: vec!["val".to_owned()], ..Scan::default() },
        )
        .await
        .map(drop)
    }
}

/// Removes what a scan finds; says how much.
pub(in crate::messaging) async fn remove_all(table: &Table, scan: Scan) -> Result<u64> {
    let mut found = table.scan(scan).await?.try_chunks(BATCH);
    let mut removed = 0;
    while let Some(chunk) = found.try_next().await.map_err(|error| error.1)? {
        removed += chunk.len() as u64;
        let delete =
            |document: Document| Some(Write::Delete { id: document.get("_id")?.clone(), guard: Guard::Any });
        table.apply(chunk.into_iter().filter_map(delete).collect()).await?;
    }
    Ok(removed)
}

/// Deletes a key; see [`Shared::tombstone`](super::Shared::tombstone).
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Tombstone {
    slot: Slot,
    reason: Option<String>,
    purge: bool,
    retention_days: u32,
    at: Option<Timestamp>,
}

impl Tombstone {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, reason: None, purge: false, retention_days: TOMBSTONE_DAYS, at: None }
    }

    /// Records why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Leaves nothing behind: no tombstone, no memory of version numbers.
    pub fn purge(mut self) -> Self {
        self.purge = true;
        self
    }

    /// Lets [`prune`](crate::messaging::Messaging::prune) remove the tombstone after this many days (default
    /// 30).
    pub fn retention_days(mut self, days: u32) -> Self {
        self.retention_days = days;
        self
    }

    /// Says when the key was deleted, if that was earlier: newer values stay.
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Answers whether the deletion took place: not if the key has a newer value or tombstone.
    async fn run(self) -> Result<bool> {
        self.delete().await.map_err(|error| error.during("shared.tombstone"))
    }

    async fn delete(self) -> Result<bool> {
        let slot = &self.slot;
        slot.check()?;
        if self.purge {
            let scan = Scan { filter: slot.filter(), without: vec!["val".to_owned()], ..Scan::default() };
            return Ok(remove_all(&slot.table, scan).await? > 0);
        }
        let older =
            self.at.map_or(Filter::All, |at| Filter::Field("createdAt".to_owned(), Test::Lte(at.into())));
        let newest = slot.newest(older).await?.and_then(|newest| whole(&newest, "version")).unwrap_or(-1);
        let changed = slot.table.change(slot.latest_key(), |found, now| {
            if let (Some(at), Some(found)) = (self.at, found)
                && wins_over_tombstone(found, at)
            {
                return Ok(None);
            }
            let at = self.at.unwrap_or(now);
            let created = found.and_then(created_at).unwrap_or(at);
            let mut document = bson::doc! { "val": Bson::Null, "createdAt": created, "updatedAt": at };
            if let Some(reason) = &self.reason {
                document.insert("reason", reason);
            }
            let mut system = new_system(created, at, None);
            system.extend(bson::doc! { "tombstone": true, "deletedAt": at, "retentionDays": i64::from(self.retention_days) });
            // By the store's time, however long the deletion was under way.
            system.insert("expiresAt", after_days(now, self.retention_days));
            keep_marks(&mut system, found);
            let through = newest.max(through(found));
            if through >= 0 {
                system.insert("throughVersion", through);
            }
            document.insert("_system", system);
            Ok(Some(document))
        });
        let changed = changed.await?;
        slot.remove_versions(through(changed.document.as_ref())).await?;
        Ok(changed.applied)
    }
}

runs!(Tombstone => bool);

/// Removes a document whose time has passed, with what it hides. Says whether it did.
pub(in crate::messaging) async fn remove_ended(slot: &Slot, document: &Document) -> Result<bool> {
    let through = through(Some(document));
    if through >= 0 {
        slot.remove_versions(through).await?;
    }
    slot.table.remove(document).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_wins_over_a_value_of_the_same_moment_and_a_value_over_none() {
        let at = Timestamp::from_millis(1_000);
        let tombstone = bson::doc! { "_system": { "tombstone": true, "deletedAt": at } };
        let value = bson::doc! { "_system": { "updatedAt": at } };
        assert!(wins_over_value(&tombstone, at) && !wins_over_value(&value, at));
        assert!(!wins_over_tombstone(&tombstone, at) && !wins_over_tombstone(&value, at));
        assert!(!wins_over_value(&tombstone, at.plus_millis(1)));
        assert!(
            wins_over_value(&value, at.plus_millis(-1)) && wins_over_tombstone(&value, at.plus_millis(-1))
        );
    }
}
