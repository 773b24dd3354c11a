//! Replacing a document.

use serde::Serialize;

use super::{Action, Given};
use crate::records::write::{Change, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Result};

impl Collection {
    /// Replaces the whole document.
    pub fn replace(&self, id: &ItemId, document: impl Serialize) -> Replace {
        Replace::new(self, *id, Given::new(&document))
    }
}

change_action! {
    /// Replaces the whole document; see [`Collection::replace`].
    Replace, document: Given => |this| Change::Replace { document: this.document.json()? }
}
