//! The rows of one item.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use super::entry::{ManifestEntry, is_within};
use super::pack::{PackedRow, unpack};
use super::root::Manifests;
use crate::records::index::scope::Scope;
use crate::records::model::{ItemId, Row, VersionSelector};
use crate::{Error, ErrorKind, Result};

/// Blocks that are read side by side.
const PARALLEL: usize = 8;

impl Manifests {
    /// The rows of an item that `scope` sees and that lie at or below the bound, ascending.
    ///
    /// # Errors
    /// `STORAGE_ERROR` that names the manifest if one is missing or damaged.
    pub(crate) async fn rows_of(
        &self,
        scope: &Scope,
        id: ItemId,
        which: VersionSelector,
    ) -> Result<Vec<Row>> {
        self.search(scope, id, which, Part::All).await
    }

    /// The newest of [`rows_of`](Self::rows_of), with one ranged read a level.
    ///
    /// # Errors
    /// As [`rows_of`](Self::rows_of).
    pub(crate) async fn newest_of(
        &self,
        scope: &Scope,
        id: ItemId,
        which: VersionSelector,
    ) -> Result<Option<Row>> {
        Ok(self.search(scope, id, which, Part::Newest).await?.pop())
    }

    async fn search(
        &self,
        scope: &Scope,
        id: ItemId,
        which: VersionSelector,
        part: Part,
    ) -> Result<Vec<Row>> {
        let mut live = self.entries(scope).await?;
        loop {
            let mut wanted = Vec::new();
            for entry in live.entries.iter().filter(|entry| entry.may_hold(id)) {
                wanted.extend(part.blocks(entry, id, which).map(|at| (Arc::clone(entry), at)));
            }
            let reads: Vec<_> = wanted.into_iter().map(|(entry, at)| self.read_owned(entry, at)).collect();
            let found: Result<Vec<_>> = futures::stream::iter(reads).buffered(PARALLEL).try_collect().await;
            match found {
                Ok(blocks) => {
                    let mut rows: Vec<Row> = blocks
                        .into_iter()
                        .flatten()
                        .map(|packed| packed.row)
                        .filter(|row| row.id == id && is_within(which, row.ov, row.cv, row.at))
                        .filter(|row| scope.sees(row.meta.tenant.as_deref()))
                        .collect();
                    rows.sort_by_key(|row| row.ov);
                    rows.dedup_by_key(|row| row.ov);
                    return Ok(rows);
                }
                Err(error) => {
                    let again = self.entries(scope).await?;
                    if again.seq == live.seq {
                        return Err(error.on_item(id));
                    }
                    live = again;
                }
            }
        }
    }

    async fn read_owned(&self, entry: Arc<ManifestEntry>, at: usize) -> Result<Vec<PackedRow>> {
        self.read_block(&entry, at).await
    }

    /// The rows of one block.
    ///
    /// # Errors
    /// `STORAGE_ERROR` that names the manifest.
    pub(crate) async fn read_block(&self, entry: &ManifestEntry, at: usize) -> Result<Vec<PackedRow>> {
        let (Some(range), Some(block)) = (entry.range(at), entry.blocks.get(at)) else {
            return Err(damaged(entry, &format!("it has no block {at}")));
        };
        let storage = self.payloads.bucket(&entry.bucket)?;
        let member = match storage.get_range(&entry.key, range).await {
            Ok(Some(member)) => member,
            Ok(None) => return Err(missing(entry)),
            Err(error) if error.is_retryable() => return Err(named(entry, error)),
            Err(error) => return Err(damaged(entry, error.message())),
        };
        let rows = unpack(member).await.map_err(|error| damaged(entry, error.message()))?;
        let is_right = rows.len() as u64 == block.rows
            && rows.first().is_some_and(|first| (first.row.id, first.row.ov) == block.first());
        if is_right { Ok(rows) } else { Err(damaged(entry, "it holds other rows than its entry says")) }
    }
}

pub(super) fn missing(entry: &ManifestEntry) -> Error {
    Error::storage(format!("the manifest `{}` is missing in bucket `{}`", entry.key, entry.bucket))
}

pub(super) fn damaged(entry: &ManifestEntry, why: &str) -> Error {
    Error::storage(format!("the manifest `{}` in bucket `{}` is damaged: {why}", entry.key, entry.bucket))
}

fn named(entry: &ManifestEntry, error: Error) -> Error {
    let message = format!(
        "the manifest `{}` in bucket `{}` cannot be read: {}",
        entry.key,
        entry.bucket,
        error.message()
    );
    let error = Error::new(ErrorKind::Storage, message).caused_by(error);
    error.retryable()
}

/// Which rows of an item are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Newest,
}

impl Part {
    /// The blocks in which they are, if they are in the manifest.
    fn blocks(self, entry: &ManifestEntry, id: ItemId, which: VersionSelector) -> std::ops::Range<usize> {
        // Blocks before this begin at or below the bound.
        let end = entry.blocks.partition_point(|block| block.begins_within(id, which));
        let start = match self {
            Self::Newest => end.saturating_sub(1),
            // One that begins with an earlier item may end with this one.
            Self::All => entry.blocks.partition_point(|block| block.id < id).saturating_sub(1),
        };
        start..end
    }
}
