//! The heart: versioned records of one collection.

mod actions;
mod assign;
mod batcher;
mod buckets;
mod collection;
mod commit;
mod engine;
mod erase;
mod externalize;
mod flush;
mod gc;
mod heavy;
mod import;
mod indexing;
mod lock;
mod merge;
mod missing;
mod model;
mod own;
mod payload;
mod read;
mod restore;
mod rules;
mod scope;
mod smart_insert;
mod trim;
mod typed;
mod upload;
mod verify;
mod view;
mod write;

pub use actions::{
    Create, Delete, Enrich, Get, History, Import, List, Lock, Replace, Restore, RestoreCollection,
    SmartInsert, Update, Verify,
};
pub use assign::{Assigned, MigrateTenants};
pub use collection::Collection;
pub(crate) use engine::{Engine, OpenBucket, PayloadCache, Settings, Space};
#[cfg(all(test, feature = "embedded"))]
pub(crate) use engine::{indexes_of_heads, tenant_indexes_of_heads};
pub use flush::{FailingVersion, FlushReport};
pub use gc::Collected;
pub use import::{ImportOp, ImportOutcome, Importer};
pub use indexing::MAX_INDEXED_BYTES;
pub use lock::ItemLock;
pub use merge::merge;
pub(crate) use model::Names;
pub use model::{ItemId, Lineage, Op, State};
pub use payload::{MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH};
pub use read::Page;
pub(crate) use read::{Order, cursor, parse_cursor};
pub use restore::{RestoreProblem, Restored};
pub(crate) use rules::PayloadRules;
pub(crate) use scope::Scope;
pub use typed::{Typed, TypedCollection, TypedGet, TypedList, TypedPage, TypedView};
pub use verify::{Problem, Verification};
pub use view::{Damage, OnDamage, Presigned, Version, View, Written};
#[cfg(all(test, feature = "embedded"))]
pub(crate) use {engine::version_indexes, flush::waiting};
