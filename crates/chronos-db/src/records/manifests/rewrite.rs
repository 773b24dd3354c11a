//! Taking an item out of manifests for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;

use super::entry::ManifestEntry;
use super::live::{Live, Switch};
use super::pack::{Packed, PackedRow, Packer};
use super::root::Manifests;
use super::store::{Prepared, Writing};
use crate::documents::filter::Test;
use crate::documents::{Filter, Scan};
use crate::objects::keys;
use crate::records::index::scope::Scope;
use crate::records::model::ItemId;
use crate::records::storage::notes::{MANIFEST, REMOVED};
use crate::{Error, Result};

/// Attempts against others that change manifests meanwhile.
const ATTEMPTS: usize = 50;

/// A manifest without what it has of the item.
enum Without {
    /// It had nothing but stubs.
    Same,
    /// Nothing else was in it.
    Empty,
    Packed(Box<Packed>),
}

impl Manifests {
    /// Rewrites every manifest that holds rows of the item, and removes the old objects at once, also those of
    /// attempts that came to nothing. What is left of versions that are not in the index is a stub, as it would be
    /// there: counters that begin anew count it. The item's rows in the index must be stubs before it is called: a
    /// roll-up that has read them before is made void. May be called again at any point, by any process. Returns how
    /// many manifests held the item.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails, or a manifest that may hold the item is missing or
    /// damaged; calling it again goes on.
    pub(crate) async fn rewrite_without(self: &Arc<Self>, id: ItemId) -> Result<u64> {
        if self.payloads.buckets.is_none() {
            return Ok(0);
        }
        self.remove_attempts().await?;
        for attempt in 0..ATTEMPTS {
            // One fence is enough, and more of them would keep two erasures from ever coming to their end: each change
            // by another erasure is one for roll-ups as well.
            let switch = if attempt == 0 { self.fence().await? } else { self.switch().await? };
            let mut next = switch.clone();
            // Who rolls up since the fence may have read what this takes out.
            next.fences += 1;
            let (prepared, held) = match self.take_out(&switch, id, &mut next).await {
                Ok(made) => made,
                // One whose place another took meanwhile may be gone.
                Err(error) if error.is_retryable() || self.switch().await?.seq() == switch.seq() => {
                    return Err(error);
                }
                Err(_) => continue,
            };
            self.index.env.fail.hit("manifest.before_rewritten")?;
            if held == 0 || self.commit(&prepared, &next).await? {
                // What was left of an earlier attempt, or of a merge, may hold the item, too.
                self.condemn_retired().await?;
                self.remove_retired(Duration::ZERO).await?;
                self.remove_attempts().await?;
                return Ok(held);
            }
            self.discard(&prepared).await?;
        }
        Err(Error::storage("other processes kept changing the manifests; call it again to continue")
            .retryable())
    }

    /// Puts manifests without the item into `next`, which is to follow `switch`, in the places of those that hold it; how many these are.
    async fn take_out(&self, switch: &Switch, id: ItemId, next: &mut Switch) -> Result<(Vec<Prepared>, u64)> {
        let live = self.entries_of(switch, &Scope::All).await?;
        let (mut prepared, mut held) = (Vec::new(), 0);
        for entry in live.entries.iter().filter(|entry| entry.may_hold(id)) {
            let packed = match self.without(entry, id).await? {
                Without::Same => continue,
                Without::Empty => None,
                Without::Packed(packed) => Some(*packed),
            };
            held += 1;
            let made = match packed {
                Some(packed) => Some(self.prepare(packed, &again(entry, self).await?).await?),
                None => None,
            };
            next.replace(entry, made.as_ref().map(|made| &made.entry));
            prepared.extend(made);
        }
        Ok((prepared, held))
    }

    /// Removes the objects of attempts that no switch names, whatever their age.
    async fn remove_attempts(&self) -> Result<()> {
        let is_of_manifest = Filter::Field(MANIFEST.to_owned(), Test::Exists(true));
        let filter = is_of_manifest.and(Filter::Field(REMOVED.to_owned(), Test::Exists(false)));
        let notes = self.index.documents.scan(&self.index.names.gc, Scan { filter, ..Scan::default() });
        let notes: Vec<_> = notes.try_collect().await?;
        for note in notes {
            // Its attempt may be under way, and put the object after this.
            self.collect_note(&note, false).await?;
        }
        Ok(())
    }

    /// How many manifests hold rows of the item that are more than stubs.
    ///
    /// # Errors
    /// As [`rows_of`](Self::rows_of).
    pub(crate) async fn count_holding(&self, id: ItemId) -> Result<u64> {
        if self.payloads.buckets.is_none() {
            return Ok(0);
        }
        loop {
            let live = self.entries(&Scope::All).await?;
            match self.count_in(&live, id).await {
                Err(error) if error.is_retryable() || self.is_current(&live).await? => return Err(error),
                Err(_) => {}
                counted => return counted,
            }
        }
    }

    async fn count_in(&self, live: &Live, id: ItemId) -> Result<u64> {
        let mut count = 0;
        for entry in &live.entries {
            count += u64::from(entry.may_hold(id) && self.holds(entry, id).await?);
        }
        Ok(count)
    }

    async fn holds(&self, entry: &ManifestEntry, id: ItemId) -> Result<bool> {
        let first = entry.blocks.partition_point(|block| block.id < id).saturating_sub(1);
        let end = entry.blocks.partition_point(|block| block.id <= id);
        for block in first..end {
            let is_held = |packed: &PackedRow| packed.row.id == id && !packed.row.op.is_bare();
            if self.read_block(entry, block).await?.iter().any(is_held) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn without(&self, entry: &ManifestEntry, id: ItemId) -> Result<Without> {
        if !self.holds(entry, id).await? {
            return Ok(Without::Same);
        }
        let mut packer = Packer::default();
        for block in 0..entry.blocks.len() {
            let rows = self.read_block(entry, block).await?;
            let own = rows.iter().filter(|packed| packed.row.id == id).map(|packed| packed.row.row_id);
            let own: Vec<_> = own.collect();
            // Those that were rolled up, and not pruned yet, have their stubs there.
            let in_index =
                if own.is_empty() { HashMap::new() } else { self.index.ops_of(own.into_iter()).await? };
            for PackedRow { row, stored } in rows {
                if row.id != id {
                    packer.push(&stored, &row).await?;
                } else if !in_index.contains_key(&row.row_id) {
                    let stub = match row.op.is_bare() {
                        true => row,
                        false => row.erased(self.index.settings.rules.of_version(&row.meta)?),
                    };
                    packer.push(&stub.stored(), &stub).await?;
                }
            }
        }
        Ok(packer.finish().await?.map_or(Without::Empty, |packed| Without::Packed(Box::new(packed))))
    }
}

/// What a manifest is made for that takes the place of this one.
async fn again(entry: &ManifestEntry, manifests: &Manifests) -> Result<Writing> {
    Ok(Writing {
        level: entry.level,
        period: entry.period.clone(),
        tenant: entry.tenant.clone(),
        settled: keys::parse_manifest(&entry.key).map_or(entry.cv.to, |key| key.cv),
        now: manifests.index.documents.now().await?,
    })
}
