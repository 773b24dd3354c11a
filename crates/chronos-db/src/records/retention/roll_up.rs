//! Rows that leave, put into manifests.
//!
//! Manifests are kept in levels, one sorted run in each, so that what is asked of an item's past is in one
//! block of each. A roll-up merges its rows with the levels that would overflow, and makes one run of all that.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::civil::DateTime;

use super::leaving::{Kept, Leaving, Window};
use super::looked::Looked;
use super::report::{ManifestInfo, RolledUp};
use super::retainer::Retainer;
use crate::clock::millis;
use crate::config::ManifestPeriod;
use crate::records::index::scope::Scope;
use crate::records::manifests::live::InUse;
use crate::records::manifests::pack::{PackedRow, Packer};
use crate::records::manifests::store::Prepared;
use crate::records::manifests::{Live, ManifestEntry, ManifestWalk, Switch, Writing};
use crate::records::model::ItemId;
use crate::records::storage::trim::FollowerPositions;
use crate::{Error, Result, Timestamp};

/// Rows of the first level, unless the caller says otherwise.
pub(crate) const LEVEL_ROWS: u64 = 4_096;
/// Each level holds this many times the rows of the one below.
const GROWTH: u64 = 8;
/// A manifest ends behind an item when it has this many bytes, and within one at twice as many.
const PART_BYTES: usize = 32 * 1024 * 1024;
/// Attempts against others that roll up meanwhile.
const ATTEMPTS: usize = 10;

/// What a roll-up begins with.
pub(super) struct Beginning {
    pub(super) window: Window,
    pub(super) now: Timestamp,
    switch: Switch,
    live: Live,
    /// Those that the new rows may be merged with: of the same tenants.
    own: Vec<Arc<ManifestEntry>>,
    tenant: Option<String>,
}

/// Where the new rows go.
struct Target {
    level: i32,
    merged: Vec<Arc<ManifestEntry>>,
}

impl Retainer {
    pub(super) async fn begin(&self, scope: &Scope) -> Result<Beginning> {
        // The switch first: whatever changes it from here on makes what follows void.
        let switch = self.manifests.switch().await?;
        let settled = self.watermark.settled_cv().await?;
        let now = self.index.documents.now().await?;
        let bounds = &self.index.settings.retention;
        let age = bounds.max_age.map(millis);
        let window = Window {
            settled,
            before: age.map(|age| now.plus_millis(age.saturating_neg())),
            most: bounds.max_per_item.map(i64::from),
        };
        let tenant = scope.owner().filter(|_| scope.is_one_of_several()).map(str::to_owned);
        let live = self.manifests.entries_of(&switch, scope).await?;
        let own = live.entries.iter().filter(|entry| entry.tenant == tenant).map(Arc::clone).collect();
        Ok(Beginning { window, now, switch, live, own, tenant })
    }

    /// Puts rows that leave, and are in no manifest yet, into one. Resumable at any point, by anyone, and with
    /// several at it.
    pub(crate) async fn roll_up(
        self: &Arc<Self>,
        scope: &Scope,
        followed: &dyn FollowerPositions,
        level_rows: u64,
        dry_run: bool,
    ) -> Result<RolledUp> {
        for _ in 0..ATTEMPTS {
            let mut begun = self.begin(scope).await?;
            begun.window.settled = begun.window.settled.min(followed.common());
            let looked = Looked { scope, window: begun.window, now: begun.now };
            if self.is_known(&looked).await? {
                return Ok(RolledUp::idle(dry_run));
            }
            let counted = self.count(&begun, scope, followed).await;
            let Some((versions, damaged, kept)) = self.unless_void(&begun, counted).await? else { continue };
            let done = RolledUp { versions, damaged, dry_run, ..RolledUp::default() };
            let is_all = damaged == 0 && !kept.is_some_waiting;
            if versions == 0 || dry_run {
                if is_all && !dry_run {
                    self.note_looked(&looked, kept).await?;
                }
                return Ok(done);
            }
            let target = begun.target(versions, level_rows, self.index.settings.rollup.period);
            let written = self.write(&begun, &target, scope, followed).await;
            let Some((prepared, versions)) = self.unless_void(&begun, written).await? else { continue };
            self.index.env.fail.hit("roll_up.before_switch")?;
            if self.commit_roll_up(&begun, &target, &prepared).await? {
                if is_all {
                    self.note_looked(&looked, kept).await?;
                }
                let manifests = prepared.iter().map(|one| ManifestInfo::new(&one.entry, true)).collect();
                return Ok(RolledUp { versions, manifests, merged: target.merged.len() as u64, ..done });
            }
            self.manifests.discard(&prepared).await?;
        }
        Err(Error::storage("other processes kept changing the manifests; call it again to continue")
            .retryable())
    }

    /// None if it failed and the manifests that it began with are no longer those in use: one of them may be gone.
    async fn unless_void<T>(&self, begun: &Beginning, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_retryable() || self.manifests.is_current(&begun.live).await? => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// How many rows would be rolled up, how many are damaged, and what stays.
    async fn count(
        self: &Arc<Self>,
        begun: &Beginning,
        scope: &Scope,
        followed: &dyn FollowerPositions,
    ) -> Result<(u64, u64, Kept)> {
        let mut new = self.new_rows(begun, scope, followed);
        let mut count = 0;
        while new.next().await?.is_some() {
            count += 1;
        }
        Ok((count, new.leaving.damaged, new.leaving.kept))
    }

    pub(super) fn new_rows<'f>(
        self: &Arc<Self>,
        begun: &Beginning,
        scope: &Scope,
        followed: &'f dyn FollowerPositions,
    ) -> NewRows<'f> {
        NewRows {
            leaving: Leaving::new(&self.index, begun.window, followed, scope),
            pending: self.manifests.walk_over(begun.live.pending_entries()),
        }
    }

    /// Writes the new rows with those of the levels that they are merged into.
    async fn write(
        self: &Arc<Self>,
        begun: &Beginning,
        target: &Target,
        scope: &Scope,
        followed: &dyn FollowerPositions,
    ) -> Result<(Vec<Prepared>, u64)> {
        let mut new = self.new_rows(begun, scope, followed);
        let mut old = self.manifests.walk_over(target.merged.clone());
        let (mut next_new, mut next_old) = (new.next().await?, old.next_packed().await?);
        let writing = Writing {
            level: target.level,
            period: begun.period(self.index.settings.rollup.period),
            tenant: begun.tenant.clone(),
            settled: begun.window.settled,
            now: begun.now,
        };
        let mut parts =
            Parts { retainer: self, writing, packer: Packer::default(), last: None, done: Vec::new() };
        let mut versions = 0;
        loop {
            let first = match (&next_new, &next_old) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(new), Some(old)) => place(new).cmp(&place(old)),
            };
            let row = match first {
                Ordering::Less => {
                    versions += 1;
                    std::mem::replace(&mut next_new, new.next().await?)
                }
                Ordering::Greater => std::mem::replace(&mut next_old, old.next_packed().await?),
                Ordering::Equal => {
                    next_new = new.next().await?;
                    None
                }
            };
            if let Some(row) = row {
                parts.push(row).await?;
            }
        }
        Ok((parts.finish().await?, versions))
    }

    /// Names the new manifests and no longer those that were merged. Whether that is how it is now.
    async fn commit_roll_up(
        &self,
        begun: &Beginning,
        target: &Target,
        prepared: &[Prepared],
    ) -> Result<bool> {
        let mut switch = begun.switch.clone();
        for _ in 0..ATTEMPTS {
            let mut next = switch.clone();
            next.rolls += 1;
            for old in &target.merged {
                next.retire(old, begun.now);
            }
            next.in_use.extend(prepared.iter().map(|one| InUse::of(&one.entry, true)));
            if self.manifests.commit(prepared, &next).await? {
                return Ok(true);
            }
            switch = self.manifests.switch().await?;
            // Only that rows were taken out of the index, or old objects away, leaves this as right as it was.
            if switch.rolls != begun.switch.rolls || switch.fences != begun.switch.fences {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

fn place(packed: &PackedRow) -> (ItemId, i64) {
    (packed.row.id, packed.row.ov)
}

/// Rows that leave and are in no manifest.
pub(super) struct NewRows<'f> {
    leaving: Leaving<'f>,
    /// What was rolled up, and is perhaps still in the index.
    pending: ManifestWalk,
}

impl NewRows<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<PackedRow>> {
        while let Some(row) = self.leaving.next().await? {
            let wanted = place(&row);
            self.pending.seek(wanted.0);
            while self.pending.peek().await?.is_some_and(|known| (known.id, known.ov) < wanted) {
                self.pending.next().await?;
            }
            if self.pending.peek().await?.is_none_or(|known| (known.id, known.ov) != wanted) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

impl Beginning {
    fn period(&self, period: ManifestPeriod) -> String {
        self.now.civil().map_or_else(|| "later".to_owned(), |at| name_of(period, at))
    }

    /// The lowest level that holds the new rows with all that lies in it and below. A level 0 of an earlier
    /// period is closed.
    fn target(&self, versions: u64, level_rows: u64, period: ManifestPeriod) -> Target {
        let current = self.period(period);
        let is_closed = self.own.iter().any(|entry| entry.level == 0 && entry.period != current);
        let mut level = i32::from(is_closed);
        loop {
            let merged: Vec<_> =
                self.own.iter().filter(|entry| entry.level <= level).map(Arc::clone).collect();
            let rows = versions + merged.iter().map(|entry| entry.rows).sum::<u64>();
            let room = level_rows.saturating_mul(GROWTH.saturating_pow(level.unsigned_abs()));
            if rows <= room {
                return Target { level, merged };
            }
            level += 1;
        }
    }
}

/// The name of the period that a moment is in.
fn name_of(period: ManifestPeriod, at: DateTime) -> String {
    match period {
        ManifestPeriod::Daily => at.date().to_string(),
        ManifestPeriod::Weekly => {
            let week = at.date().iso_week_date();
            format!("{:04}-W{:02}", week.year(), week.week())
        }
        ManifestPeriod::Monthly => format!("{:04}-{:02}", at.year(), at.month()),
    }
}

/// Manifests of one run, written one after the other.
struct Parts<'a> {
    retainer: &'a Retainer,
    writing: Writing,
    packer: Packer,
    last: Option<ItemId>,
    done: Vec<Prepared>,
}

impl Parts<'_> {
    async fn push(&mut self, packed: PackedRow) -> Result<()> {
        let is_full = self.packer.len() >= PART_BYTES && self.last.is_some_and(|last| last != packed.row.id);
        if is_full || self.packer.len() >= 2 * PART_BYTES {
            self.end().await?;
        }
        self.last = Some(packed.row.id);
        self.packer.push(&packed.stored, &packed.row).await
    }

    async fn end(&mut self) -> Result<()> {
        if let Some(packed) = std::mem::take(&mut self.packer).finish().await? {
            self.done.push(self.retainer.manifests.prepare(packed, &self.writing).await?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Prepared>> {
        self.end().await?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_the_name_of_its_day_week_or_month() {
        let at = Timestamp::parse("2027-01-01T23:59:59Z").unwrap().civil().unwrap();
        let names = [ManifestPeriod::Daily, ManifestPeriod::Weekly, ManifestPeriod::Monthly]
            .map(|period| name_of(period, at));
        assert_eq!(names, ["2027-01-01", "2026-W53", "2027-01"]);
    }
}
