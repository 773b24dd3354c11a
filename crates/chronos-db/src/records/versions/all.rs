//! The versions of all items, in the order of items and versions.

use std::pin::Pin;

use futures::stream::{BoxStream, Peekable};
use futures::{StreamExt as _, TryStreamExt as _};

use super::Versions;
use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::manifests::ManifestWalk;
use crate::records::model::{ItemId, Op, Row};

/// Where a version's row is.
#[derive(Clone, PartialEq)]
pub(crate) enum RowLocation {
    Index,
    Manifest,
    /// It is about to leave the index. The copy in the manifest.
    Both(Box<Row>),
}

/// A version and where its row is.
#[derive(Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) place: RowLocation,
}

type Key = (ItemId, i64);

/// A walk over all versions.
pub(crate) struct All {
    scope: Scope,
    kept: Peekable<BoxStream<'static, Result<Row>>>,
    left: Option<ManifestWalk>,
    last: Option<Key>,
}

impl Versions {
    /// Every version that `scope` sees, by item and version: those of the index whole, the others as manifests
    /// have them. What leaves the index meanwhile is taken from where it went. Without `beyond` only the index
    /// is read.
    pub(crate) async fn all(&self, scope: &Scope, beyond: bool) -> Result<All> {
        let is_version = Filter::Field("op".into(), Test::Ne(Op::Void.as_str().into()));
        let scan = Scan {
            filter: scope.narrow(is_version),
            order: vec![("itemId".into(), Direction::Ascending), ("ov".into(), Direction::Ascending)],
            ..Scan::default()
        };
        let left = match beyond {
            true => Some(self.manifests.walk(&scope.and_nobodys(), None).await?),
            false => None,
        };
        Ok(All { scope: scope.clone(), kept: self.index.scan_rows(scan).peekable(), left, last: None })
    }
}

impl All {
    /// The next version; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Stored>> {
        let kept = match Pin::new(&mut self.kept).peek().await {
            Some(Ok(row)) => Some((row.id, row.ov)),
            Some(Err(_)) => return self.take_kept().await,
            None => None,
        };
        let Some(left) = &mut self.left else { return self.take_kept().await };
        let expected = match (kept, self.last) {
            (Some((id, _)), Some((last, ov))) if last == id => Some((id, ov + 1)),
            (kept, _) => kept.map(|(id, _)| (id, 0)),
        };
        let mut next = Self::behind(left, self.last, &self.scope, kept).await?;
        if kept > expected && next.is_none_or(|next| Some(next) > expected) {
            // A row is on neither side: it may have left since the manifests were looked at.
            left.refresh().await?;
            next = Self::behind(left, self.last, &self.scope, kept).await?;
        }
        match (kept, next) {
            (kept, Some(key)) if kept.is_none_or(|kept| key < kept) => {
                self.last = Some(key);
                Ok(left.next().await?.map(|row| Stored { row, place: RowLocation::Manifest }))
            }
            (Some(kept), Some(key)) if kept == key => {
                let copy = left.next().await?;
                let stored = self.take_kept().await?;
                Ok(stored.map(|stored| match copy {
                    Some(copy) => Stored { place: RowLocation::Both(Box::new(copy)), ..stored },
                    None => stored,
                }))
            }
            _ => self.take_kept().await,
        }
    }

    /// The place of the next row in manifests that was not passed yet. What is nobody's is wanted if its item
    /// is seen: the newest row of each is in the index.
    async fn behind(
        left: &mut ManifestWalk,
        last: Option<Key>,
        scope: &Scope,
        kept: Option<Key>,
    ) -> Result<Option<Key>> {
        while let Some(row) = left.peek().await? {
            let key = (row.id, row.ov);
            let is_seen = scope.sees(row.meta.tenant.as_deref()) || kept.is_some_and(|(id, _)| id == row.id);
            // What lies beyond the next row of the index is looked at when that is passed.
            let is_later = kept.is_some_and(|kept| key > kept);
            if Some(key) > last && (is_seen || is_later) {
                return Ok(Some(key));
            }
            left.next().await?;
        }
        Ok(None)
    }

    async fn take_kept(&mut self) -> Result<Option<Stored>> {
        let Some(row) = self.kept.try_next().await? else { return Ok(None) };
        self.last = Some((row.id, row.ov));
        Ok(Some(Stored { row, place: RowLocation::Index }))
    }
}
