//! The versions of a collection, wherever their rows are: in the index, or beyond its window in manifests.
//!
//! Rows of one item leave the index in the order of their versions, the newest never. So a row of the index
//! that is the newest at or below a bound answers for itself; manifests are asked only for what lies below
//! everything that the index has of an item. The index is always asked first: what leaves it is in a manifest
//! by then. A manifest that is missing or damaged is an error that names it, never a shorter history.
//!
//! `of_item` streams one item's versions, `at_point` finds those of many items at one point, `all` streams
//! every item's, `log` reads those of all items in the order of their numbers, and `left` of these what has left the index.

mod all;
mod at_point;
mod left;
mod log;
mod marked;
mod of_item;

use std::sync::Arc;

use bson::oid::ObjectId;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

pub(crate) use self::all::{RowLocation, Stored};
pub(crate) use self::left::LeftRows;
pub(crate) use self::log::{LogAsk, LogRow};
use super::index::landed::Landed;
use super::index::scope::Scope;
use super::index::{RecordIndex, scan_of};
use super::manifests::Manifests;
use super::model::{Head, ItemId, Row, VersionSelector};
use crate::Result;
use crate::documents::Direction;

/// Finds the versions of one collection. Whether a handle sees an item is for its head to say; a scope here
/// tells which manifests to look in, as tenants that share a database may have theirs in different places.
pub(crate) struct Versions {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) manifests: Arc<Manifests>,
}

impl Versions {
    /// The version of an item that `which` means, with its payload if that is in the row.
    pub(crate) async fn find(
        &self,
        id: ItemId,
        which: VersionSelector,
        scope: &Scope,
    ) -> Result<Option<Row>> {
        match self.index.first_row(scan_of(id, which)).await? {
            Some(row) => Ok(Some(row)),
            None => self.beyond(id, which, scope).await,
        }
    }

    /// [`find`](Self::find) without the payload.
    pub(crate) async fn row_at(
        &self,
        id: ItemId,
        which: VersionSelector,
        scope: &Scope,
    ) -> Result<Option<Row>> {
        match self.index.row_at(id, which).await? {
            Some(row) => Ok(Some(row)),
            None => self.beyond(id, which, scope).await,
        }
    }

    /// The version that `which` means, of which the index has no row.
    pub(crate) async fn beyond(
        &self,
        id: ItemId,
        which: VersionSelector,
        scope: &Scope,
    ) -> Result<Option<Row>> {
        match which {
            VersionSelector::Latest => return Ok(None),
            VersionSelector::Ov(ov) if ov < 0 => return Ok(None),
            // Where the first version is in the index, the bound lies before it.
            VersionSelector::Cv(_) if self.index.row_at(id, VersionSelector::Ov(0)).await?.is_some() => {
                return Ok(None);
            }
            VersionSelector::Ov(_) | VersionSelector::At(_) | VersionSelector::Cv(_) => {}
        }
        let found = self.manifests.newest_of(&scope.and_nobodys(), id, which).await?;
        Ok(found.filter(|row| !matches!(which, VersionSelector::Ov(ov) if ov != row.ov)))
    }

    /// Every version that has left the index, of those that `scope` sees.
    pub(crate) async fn beyond_all(&self, scope: &Scope) -> Result<BoxStream<'static, Result<Row>>> {
        if self.manifests.entries(scope).await?.entries.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        Ok(self.manifests.by_item(scope, None))
    }

    /// [`RecordIndex::landed`], which also looks at versions that have left the index.
    pub(crate) async fn landed(
        self: &Arc<Self>,
        id: ItemId,
        operation: ObjectId,
        after: i64,
        newest: i64,
        scope: &Scope,
    ) -> Result<Landed> {
        let landed = self.index.landed(id, operation, after, newest).await?;
        if landed != Landed::Unknown {
            return Ok(landed);
        }
        let mut missing = newest - after;
        let mut rows = self.of_item(id, after + 1, Direction::Ascending, scope);
        while let Some(row) = rows.try_next().await? {
            if row.ov > newest {
                break;
            }
            if row.operation == Some(operation) {
                return Ok(Landed::Yes);
            }
            missing -= 1;
        }
        Ok(if missing > 0 { Landed::Unknown } else { Landed::No })
    }
}

/// Whether an item with this head may have a version there of which the index has no row.
pub(crate) fn may_lie_beyond(head: &Head, which: VersionSelector) -> bool {
    match which {
        VersionSelector::Latest => false,
        VersionSelector::Ov(ov) => (0..=head.ov).contains(&ov),
        VersionSelector::At(at) => head.created_at <= at,
        VersionSelector::Cv(cv) => cv >= 0,
    }
}
