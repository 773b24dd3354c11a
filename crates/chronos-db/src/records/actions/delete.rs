//! Deleting an item.

use super::Action;
use crate::records::write::{Change, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Deletes the item: it disappears from reads, its versions stay. Where `logicalDelete` is off, it and
    /// all its versions are erased.
    pub fn delete(&self, id: &ItemId) -> Delete {
        Delete::new(self, *id)
    }
}

change_action! {
    /// Deletes the item; see [`Collection::delete`].
    Delete,  => |this| Change::Delete
}
