//! Bringing an earlier state back as a new version.

mod collection;

use std::sync::Arc;

pub(crate) use collection::RestoreOptions;
pub use collection::{RestoreProblem, Restored};

use super::engine::Engine;
use super::model::{ItemId, Op};
use super::read::Which;
use super::scope::Scope;
use super::write::{Change, Done, WriteOptions};
use crate::{Error, Result};

impl Engine {
    /// Restores one item to the version that `which` means. The new version shares that version's payload.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        id: ItemId,
        which: Which,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<Done> {
        let named = |e: Error| e.during("restore").in_collection(&self.names.collection).on_item(id);
        let which = self.settled(which).await.map_err(named)?;
        let row = if self.settings.versioning {
            self.row_at(id, which).await.map_err(named)?
        } else {
            let head = self.head_or_row(id).await.map_err(named)?;
            let head = head.filter(|head| !head.erased && scope.sees(head.content.tenant.as_deref()));
            match head {
                // A deletion shares the payload of the version before it, which is there as long.
                Some(head) if which == Which::Ov(head.content.payload.ov) => Some(head.as_row_of_payload()),
                Some(head) if self.only_version(&head, which).map_err(named)? => Some(head.as_row()),
                _ => None,
            }
        };
        let row = row.filter(|row| !row.op.is_bare() && scope.sees(row.content.tenant.as_deref()));
        let row = row.ok_or_else(|| named(Error::not_found("the item has no such version")))?;
        if row.op == Op::Delete {
            let message = format!(
                "version {} is the item's deletion; restore the one before it, or delete the item",
                row.ov
            );
            return Err(named(Error::validation(message)).at_version(row.ov));
        }
        self.write(id, &Change::Restore { row: Box::new(row) }, options, scope, None).await
    }
}
