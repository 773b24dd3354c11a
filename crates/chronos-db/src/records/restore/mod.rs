//! Bringing an earlier state back as a new version.

mod collection;

use crate::records::index::RecordIndex;
use crate::records::read::Reader;
use crate::records::versions::Versions;
use crate::records::write::Writer;
use crate::records::write::commit::Committer;
use crate::records::write::lock::Locks;
use crate::records::write::schema::Schema;
use crate::records::write::watermark::Watermark;
use std::sync::Arc;

pub(crate) use collection::RestoreOptions;
pub use collection::{RestoreProblem, Restored};

use crate::records::index::scope::Scope;
use crate::records::model::VersionSelector;
use crate::records::model::{ItemId, Op};
use crate::records::write::{Change, WriteCall, WriteOptions, WriteOutcome, no_past};
use crate::{Error, Result};

/// Restores items and whole collections.
pub(crate) struct Restorer {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) versions: Arc<Versions>,
}

impl Restorer {
    /// Restores one item to the version that `which` means. The new version shares that version's payload.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        id: ItemId,
        which: VersionSelector,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<WriteOutcome> {
        let named = |e: Error| e.during("restore").in_collection(&self.index.names.collection).on_item(id);
        if self.index.settings.inline {
            return Err(named(no_past()));
        }
        let which = self.watermark.settled(which).await.map_err(named)?;
        let row = if self.index.settings.versioning {
            self.versions.row_at(id, which, scope).await.map_err(named)?
        } else {
            let head = self.index.head_or_row(id).await.map_err(named)?;
            let head = head.filter(|head| !head.erased && scope.sees(head.meta.tenant.as_deref()));
            match head {
                // A deletion shares the payload of the version before it, which is there as long.
                Some(head) if which == VersionSelector::Ov(head.meta.payload.ov) => {
                    Some(head.as_row_of_payload())
                }
                Some(head) if self.reader.only_version(&head, which).map_err(named)? => Some(head.as_row()),
                _ => None,
            }
        };
        let row = match row.filter(|row| !row.op.is_bare()) {
            // It left the index before its item got a tenant: the head says whose that is.
            Some(row) if row.meta.tenant.is_none() && !scope.sees(None) => {
                let head = self.index.head_or_row(id).await.map_err(named)?;
                head.filter(|head| scope.sees(head.meta.tenant.as_deref())).map(|_| row)
            }
            row => row.filter(|row| scope.sees(row.meta.tenant.as_deref())),
        };
        let row = row.ok_or_else(|| named(Error::not_found("the item has no such version")))?;
        if row.op == Op::Delete {
            let message = format!(
                "version {} is the item's deletion; restore the one before it, or delete the item",
                row.ov
            );
            return Err(named(Error::validation(message)).at_version(row.ov));
        }
        let change = Change::Restore { row: Box::new(row) };
        self.writer.write(WriteCall { id, change: &change, options, scope, lock: None }).await
    }
}
