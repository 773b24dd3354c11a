//! Heads and version rows: typed inside, documents in the store.
//!
//! `id`, `op` and `meta` are what both have in common, `head` and `version_row` read and write the two
//! shapes, `missing` is what an index entry has no room for, `bson` how single fields are read. Nothing here
//! touches a store; the names of the stored fields are fixed by the golden files.

mod bson;
mod head;
mod id;
mod meta;
mod missing;
mod op;
mod selector;
mod version_row;

pub(crate) use self::bson::{int, number};
pub(crate) use self::head::{Head, Shadow};
pub use self::id::ItemId;
pub use self::meta::Lineage;
pub(crate) use self::meta::{BlobRef, LegacyMeta, Payload, VersionMeta};
pub(crate) use self::missing::Missing;
pub use self::op::{Op, State};
pub(crate) use self::selector::VersionSelector;
pub(crate) use self::version_row::{ImportMark, InlineObject, MarkId, Row, numbered_at};
use crate::documents::Namespace;

/// The collections of the store that make up one collection of records.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) collection: String,
    pub(crate) head: Namespace,
    pub(crate) ver: Namespace,
    pub(crate) counter: Namespace,
    pub(crate) locks: Namespace,
    pub(crate) claims: Namespace,
    pub(crate) gc: Namespace,
    pub(crate) manifests: Namespace,
}

impl Names {
    pub(crate) fn new(database: &str, collection: &str) -> Self {
        let name = |suffix: &str| Namespace::new(database, format!("{collection}_{suffix}"));
        Self {
            collection: collection.to_owned(),
            head: name("head"),
            ver: name("ver"),
            counter: name("counter"),
            locks: name("locks"),
            claims: name("claims"),
            gc: name("gc"),
            manifests: name("manifests"),
        }
    }
}
