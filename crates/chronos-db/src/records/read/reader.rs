//! One version: which one is meant, and its bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::records::document::payload;
use crate::records::index::scope::Scope;
use crate::records::index::{RecordIndex, scan_of};
use crate::records::model::{Head, ItemId, Op, Row, State, VersionMeta, VersionSelector};
use crate::records::storage::payload_store::PayloadStore;
use crate::records::versions::{Versions, may_lie_beyond};
use crate::records::write::watermark::Watermark;
use crate::{Error, ErrorKind, Result, Timestamp};

/// What a reader wants to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOptions {
    pub(crate) include_deleted: bool,
    /// Top-level properties; all if none.
    pub(crate) projection: Option<Vec<String>>,
    pub(crate) presign: Option<std::time::Duration>,
}

/// A version to show: its index entry and its times.
#[derive(Clone)]
pub(crate) struct ResolvedVersion {
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    pub(crate) at: Timestamp,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) meta: VersionMeta,
    pub(crate) inline: Option<Bytes>,
}

crate::debug_some!(ResolvedVersion { id, ov, cv, at, created_at, deleted_at });

impl ResolvedVersion {
    pub(crate) fn from_head(head: Head) -> Self {
        let shadow = head.shadow.filter(|shadow| shadow.ov == head.meta.payload.ov);
        let inline = head.inline.or(shadow.map(|shadow| shadow.bytes));
        let Head { id, ov, cv, created_at, updated_at, deleted_at, meta, .. } = head;
        Self { id, ov, cv, at: updated_at, created_at, deleted_at, meta, inline }
    }

    /// Of an item whose head cannot be read.
    pub(crate) fn unreadable(id: ItemId) -> Self {
        let (at, meta) = (Timestamp::from_millis(0), VersionMeta::default());
        Self { id, ov: -1, cv: -1, at, created_at: at, deleted_at: None, meta, inline: None }
    }

    pub(crate) fn from_row(row: Row, created_at: Timestamp) -> Self {
        let deleted_at = (row.op == Op::Delete).then_some(row.at);
        let Row { id, ov, cv, at, meta, inline, .. } = row;
        Self { id, ov, cv, at, created_at, deleted_at, meta, inline }
    }
}

/// Reads the versions of one collection.
pub(crate) struct Reader {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) versions: Arc<Versions>,
}

impl Reader {
    pub(crate) fn new(
        index: &Arc<RecordIndex>,
        payloads: &Arc<PayloadStore>,
        watermark: &Arc<Watermark>,
        versions: &Arc<Versions>,
    ) -> Self {
        Self {
            index: Arc::clone(index),
            payloads: Arc::clone(payloads),
            watermark: Arc::clone(watermark),
            versions: Arc::clone(versions),
        }
    }

    /// The version of one item that `which` means; none if there is none, it is deleted (unless wanted), or
    /// `scope` does not see it.
    pub(crate) async fn find(
        &self,
        id: ItemId,
        which: VersionSelector,
        options: &ReadOptions,
        scope: &Scope,
    ) -> Result<Option<ResolvedVersion>> {
        self.check_kept(which)?;
        let found = match which {
            VersionSelector::Latest => {
                self.index.head_or_row(id).await?.filter(|head| !head.erased).map(ResolvedVersion::from_head)
            }
            _ if !self.index.settings.versioning => {
                let which = self.watermark.settled(which).await?;
                match self
                    .index
                    .head_or_row(id)
                    .await?
                    .filter(|head| !head.erased && scope.sees(head.meta.tenant.as_deref()))
                {
                    Some(head) if self.only_version(&head, which)? => Some(ResolvedVersion::from_head(head)),
                    _ => None,
                }
            }
            _ => {
                let which = match self.index.env.fail.skips("guard.settled") {
                    true => which,
                    false => self.watermark.settled(which).await?,
                };
                let (row, head) = futures::future::try_join(
                    self.index.first_row(scan_of(id, which)),
                    self.index.head_or_row(id),
                )
                .await?;
                // An erased item has no past either.
                let head = head.filter(|head| !head.erased);
                let row = match (row, &head) {
                    (None, Some(head)) if may_lie_beyond(head, which) => {
                        self.beyond(head, which, scope).await?
                    }
                    (row, _) => row,
                };
                row.filter(|row| !row.op.is_bare())
                    .zip(head)
                    .map(|(row, head)| ResolvedVersion::from_row(row, head.created_at))
            }
        };
        let is_guarded = !self.index.env.fail.skips("guard.tenant");
        Ok(found.filter(|f| {
            let is_seen = !is_guarded || scope.sees(f.meta.tenant.as_deref());
            is_seen && (options.include_deleted || f.deleted_at.is_none())
        }))
    }

    /// The version that `which` means, of which the index has no row.
    async fn beyond(&self, head: &Head, which: VersionSelector, scope: &Scope) -> Result<Option<Row>> {
        let row = self.versions.beyond(head.id, which, scope).await?;
        Ok(row.map(|row| of_the_same_tenant(row, head)))
    }

    /// The latest item.json of a head.
    pub(crate) async fn payload(&self, head: &Head) -> Result<Bytes> {
        self.bytes(&ResolvedVersion::from_head(head.clone())).await
    }

    /// item.json of a version, checked against the index.
    pub(crate) async fn bytes(&self, found: &ResolvedVersion) -> Result<Bytes> {
        let payload = &found.meta.payload;
        if let Some(bytes) = self.payloads.look_up(found.id, payload.ov) {
            return Ok(bytes);
        }
        let inline = match &found.inline {
            Some(bytes) => Some(bytes.clone()),
            // What a later version shares is inline in the row that wrote it, if anywhere.
            None if payload.state == State::NewNotSynched => {
                self.index.row(found.id, payload.ov).await?.and_then(|row| row.inline)
            }
            None => None,
        };
        let bytes = match inline {
            Some(bytes) => bytes,
            None => self.fetch(found).await?,
        };
        payload::check(&bytes, payload).map_err(|e| e.on_item(found.id))?;
        self.payloads.remember(found.id, payload.ov, &bytes);
        Ok(bytes)
    }

    async fn fetch(&self, found: &ResolvedVersion) -> Result<Bytes> {
        let payload = &found.meta.payload;
        let (Some(bucket), Some(key)) = (&payload.bucket, &payload.key) else {
            let message = format!(
                "the payload of version {} is neither in its row nor in an object storage",
                payload.ov
            );
            return Err(self.lost(found, message).await);
        };
        let stored = self.payloads.get_json(bucket, key, payload).await;
        match stored.map_err(|e| of_storage(e).on_item(found.id))? {
            Some(bytes) => Ok(bytes),
            None => {
                let message =
                    format!("the object `{key}` of version {} is missing in bucket `{bucket}`", payload.ov);
                Err(self.lost(found, message).await)
            }
        }
    }

    /// The error of a payload that is not where its version says: damage, unless the item was erased since
    /// the version was found.
    async fn lost(&self, found: &ResolvedVersion, message: String) -> Error {
        let error = match self.index.head(found.id).await {
            Ok(Some(head)) if !head.erased => Error::storage(message),
            Ok(_) => Error::not_found("the item was erased meanwhile"),
            Err(error) => error,
        };
        error.on_item(found.id)
    }
}

/// An item stays its tenant's: a version that left the index before its item got one has it as well.
pub(super) fn of_the_same_tenant(mut row: Row, head: &Head) -> Row {
    row.meta.tenant.clone_from(&head.meta.tenant);
    row
}

/// A bucket that is gone is not an item that is not found.
pub(super) fn of_storage(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::storage(error.message().to_owned()).caused_by(error)
}
