//! Versioned, multi-tenant JSON records: every write is a new immutable version.

#[macro_use]
mod action;
mod chronos;
mod clock;
pub mod config;
mod connections;
#[cfg(any(feature = "mongodb", feature = "s3", feature = "azure"))]
mod crypto;
mod debug;
pub mod documents;
mod error;
pub mod fail;
mod hash;
pub mod json;
pub mod messaging;
mod name;
pub mod objects;
mod open;
mod records;
mod redact;
mod route;
#[cfg(feature = "testing")]
pub mod testing;

/// The crate `bson` that documents, filters and ids are made of.
pub use bson;
/// The crate `bytes` that objects are made of.
pub use bytes;
pub use chronos::{Builder, Chronos};
pub use clock::{Clock, Env, Random, SystemClock, SystemRandom, Timestamp};
#[cfg(any(feature = "mongodb", feature = "s3", feature = "azure"))]
pub use crypto::install_crypto_provider;
pub use error::{Error, ErrorKind, Result};
pub use json::{Json, bson_to_json, json_to_bson, json_to_nearest_bson};
pub use name::{MAX_NAME_BYTES, validate_name};
pub use open::LeftBehind;
pub use records::{
    Assigned, Collected, Collection, Create, Damage, Delete, Enrich, FailingVersion, FlushReport, Get,
    History, Import, ImportOp, ImportOutcome, Importer, ItemId, ItemLock, Lineage, List, Lock,
    MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_INDEXED_BYTES, MigrateTenants, OnDamage, Op, Page, Presigned,
    Problem, Replace, Restore, RestoreCollection, RestoreProblem, Restored, SmartInsert, State, Typed,
    TypedCollection, TypedGet, TypedList, TypedPage, TypedView, Update, Verification, Verify, Version, View,
    Written, merge,
};
pub use route::{Backend, Distribution, Resolved, Route, Router, Tier};
