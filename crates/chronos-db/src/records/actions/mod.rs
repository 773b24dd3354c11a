//! The actions of a collection: one file each, with the method that begins it, its options and how it runs.
//!
//! An action is a builder that runs when it is awaited. It checks what it was given, asks for the scope of
//! its handle, and leaves the rest to a worker of `records/`; it has no state and touches no store itself.

#[macro_use]
mod options;

mod create;
mod delete;
mod enrich;
mod get;
mod get_with_entities;
mod history;
mod import;
mod insert_with_entities;
mod list;
mod lock;
mod manifests;
mod mark_item_as_processed;
mod mark_items_as_processed;
mod replace;
mod restore;
mod restore_collection;
mod shrink_shadows;
mod smart_insert;
mod update;
mod verify;

use std::fmt;

use serde::Serialize;

pub use self::create::Create;
pub use self::delete::Delete;
pub use self::enrich::Enrich;
pub use self::get::Get;
pub use self::get_with_entities::GetWithEntities;
pub use self::history::History;
pub use self::import::Import;
pub use self::insert_with_entities::InsertWithEntities;
pub use self::list::List;
pub use self::lock::Lock;
pub use self::manifests::ListManifests;
pub use self::mark_item_as_processed::{MarkItemAsProcessed, MarkedItem};
pub use self::mark_items_as_processed::{MarkItemsAsProcessed, MarkedItems};
pub use self::replace::Replace;
pub use self::restore::Restore;
pub use self::restore_collection::RestoreCollection;
pub use self::shrink_shadows::{ShrinkShadows, ShrunkShadows};
pub use self::smart_insert::SmartInsert;
pub use self::update::Update;
pub use self::verify::Verify;
use crate::action::Action;
use crate::json::to_json;
use crate::{Error, Json, Result};

/// What a caller gave as a document. That it cannot be JSON is said when the action runs.
#[derive(Clone)]
pub(crate) struct Given(std::result::Result<Json, String>);

impl Given {
    pub(crate) fn new(document: &impl Serialize) -> Self {
        Self(to_json(document).map_err(|error| error.to_string()))
    }

    fn json(&self) -> Result<Json> {
        self.0.clone().map_err(|error| Error::validation(format!("the document cannot be JSON: {error}")))
    }
}

/// Without the document.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}
