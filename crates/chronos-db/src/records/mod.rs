//! The heart: versioned records of one collection.

mod actions;
mod assign;
mod collection;
mod document;
mod entities;
mod import;
mod index;
mod manifests;
mod model;
mod read;
mod restore;
mod retention;
mod storage;
mod submit;
mod typed;
mod verify;
mod versions;
mod view;
mod workers;
mod write;

pub use actions::{
    Create, Delete, Enrich, Get, GetWithEntities, History, Import, InsertWithEntities, List, ListManifests,
    Lock, MarkItemAsProcessed, MarkItemsAsProcessed, MarkedItem, MarkedItems, Replace, Restore,
    RestoreCollection, ShrinkShadows, ShrunkShadows, SmartInsert, Update, Verify,
};
pub use assign::{Assigned, MigrateTenants};
pub use collection::Collection;
pub(crate) use collection::{Opens, Origin};
pub(crate) use document::externalize::reference;
pub(crate) use document::heavy::{BYTES as HEAVY_BYTES, work as off_thread};
pub use document::indexing::MAX_INDEXED_BYTES;
pub use document::merge::merge;
pub(crate) use document::payload::{
    JSON_TYPE, SYSTEM, check as check_payload, checksum, parse_both as parse_payload,
};
pub use document::payload::{MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH};
pub(crate) use document::rules::VersionRules;
pub use entities::{
    EntityMapping, EntityOperation, InsertedWithEntities, RecordWithEntities, SkippedEntity, WrittenEntity,
};
pub use import::{ImportOp, ImportOutcome, Importer};
pub(crate) use index::landed::Landed;
pub(crate) use index::own_names::KEPT;
pub(crate) use index::scope::Scope;
pub(crate) use index::tenants::tenants_of;
pub(crate) use index::{CV, RESTORING, RecordIndex, STABLE, Settings, without_content};
pub(crate) use model::{BlobRef, Head, InlineObject, Missing, Names, Row, VersionSelector, int, number};
pub use model::{ItemId, Lineage, Op, State};
pub(crate) use read::{ItemValues, Order, Reader, ValuesQuery, cursor, parse_cursor};
pub use restore::{RestoreProblem, Restored};
pub(crate) use retention::LEVEL_ROWS;
pub use retention::{ManifestInfo, Pruned, RolledUp};
pub(crate) use storage::eraser::AGAIN_MILLIS;
pub use storage::erasures::ErasureCounts;
pub(crate) use storage::erasures::{Certified, ErasureRecord, erasures_of};
pub(crate) use storage::flush::waiting;
pub use storage::flush::{FailingVersion, FlushReport};
pub use storage::gc::Collected;
pub(crate) use storage::payload_store::{ObjectBuckets, OpenBucket, PayloadCache, PayloadStore, unpacked};
pub(crate) use storage::trim::FollowerPositions;
pub(crate) use submit::may_pass;
pub use typed::{Typed, TypedCollection, TypedGet, TypedList, TypedView};
pub use verify::{Problem, Verification};
pub(crate) use versions::{LeftRows, LogAsk, LogRow, Versions};
pub use view::{Damage, OnDamage, Presigned, Version, View, Written};
pub(crate) use workers::Workers;
pub use write::lock::ItemLock;
#[cfg(all(test, feature = "embedded"))]
pub(crate) use write::schema::{indexes_of_heads, tenant_indexes_of_heads, version_indexes};
pub(crate) use write::watermark::Watermark;
pub(crate) use write::{Change, Identity, Request, WriteCall, WriteOptions, WriteOutcome};
