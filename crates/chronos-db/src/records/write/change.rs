//! Changes of one item, and what every write may say.

use std::fmt;

use crate::records::model::{ImportMark, Lineage, Row};
use crate::{Json, Timestamp};

/// What every write may say.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) expected_ov: Option<i64>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) at: Option<Timestamp>,
    pub(crate) import: Option<ImportMark>,
    /// Make a version even if nothing changes.
    pub(crate) force: bool,
    /// Return when the object is stored, not only the row.
    pub(crate) stored: bool,
    /// Properties that the index must hold of the new version.
    pub(crate) unique: Vec<String>,
}

/// A change of one item.
#[derive(Clone)]
pub(crate) enum Change {
    Create { document: Json, lineage: Lineage },
    Update { document: Json },
    Replace { document: Json },
    Enrich { patches: Vec<Json>, function_id: Option<String> },
    Delete,
    Restore { row: Box<Row> },
}

/// What it does, without any document.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Change").field(&self.name()).finish()
    }
}

impl Change {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Replace { .. } => "replace",
            Self::Enrich { .. } => "enrich",
            Self::Delete => "delete",
            Self::Restore { .. } => "restore",
        }
    }
}
