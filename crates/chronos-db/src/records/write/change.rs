//! Changes of one item, and what every write may say.

use std::fmt;
use std::sync::Arc;

use bson::oid::ObjectId;

use super::identity::Identity;
use crate::records::model::{ImportMark, Lineage, Row, VersionSelector};
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
    /// By what the write is recognised, where it may be queued.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The delete erases the item with all its versions, whatever `logicalDelete` says, and this certificate
    /// will say what went.
    pub(crate) certificate: Option<ObjectId>,
}

impl WriteOptions {
    /// What the caller asked for, in a word.
    pub(crate) fn name_of(&self, change: &Change) -> &'static str {
        if self.certificate.is_some() { "erase" } else { change.name() }
    }
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

/// What a caller asks for: a change, or the earlier version to bring back, which has to be looked up first.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Change(Change),
    Restore(VersionSelector),
}

impl Request {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Change(change) => change.name(),
            Self::Restore(_) => "restore",
        }
    }

    pub(crate) fn is_creation(&self) -> bool {
        matches!(self, Self::Change(Change::Create { .. }))
    }
}
