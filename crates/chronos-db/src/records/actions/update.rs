//! Merging top-level fields.

use serde::Serialize;

use super::{Action, Given};
use crate::records::write::{Change, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Merges top-level fields into the current document (or replaces it, where the configuration's
    /// `updateMode` says so).
    pub fn update(&self, id: &ItemId, fields: impl Serialize) -> Update {
        Update::new(self, *id, Given::new(&fields))
    }
}

change_action! {
    /// Merges top-level fields; see [`Collection::update`].
    Update, document: Given => |this| Change::Update { document: this.document.json()? }
}
