//! Versioned, multi-tenant JSON records: every write is a new immutable version, and any past state can be
//! read, listed and restored.
//!
//! A document store (MongoDB, or SQLite inside the process) holds the current head of each item and an index of
//! its versions; an object storage (a local folder, S3, Azure) holds the JSON of every version. Without any
//! configuration both are in one folder, and several processes may use it at once.
//!
//! # Quick start
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> chronos_db::Result<()> {
//! use chronos_db::{Chronos, Route, config::Config, json};
//! # let dir = tempfile::tempdir().unwrap();
//! # let folder = dir.path();
//! let chronos = Chronos::open(Config::embedded(folder))?;
//! let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
//!
//! let user = users.create(json!({"email": "ada@example.org", "plan": "free"})).actor("signup").await?;
//! users.update(&user.id, json!({"plan": "team"})).expect_ov(0).reason("upgrade").await?;
//!
//! let before = users.get(&user.id).version(0).await?.expect("it was created");
//! assert_eq!(before.document()["plan"], "free");
//! let teams = users.list().filter(json!({"plan": "team"})).await?;
//! assert_eq!(teams.items.len(), 1);
//!
//! users.restore(&user.id).to_version(0).await?;
//! assert_eq!(users.history(&user.id).await?.len(), 3);
//! # chronos.shutdown().await
//! # }
//! ```
//!
//! # Concepts
//!
//! - A [`Config`](config::Config) names connections, databases and collections; [`Chronos`] opens it. Opening does
//!   no I/O.
//! - A [`Route`] (tenant, tier, type of database, collection) leads to a [`Collection`]: the handle of everything
//!   that is done with records. It sees the documents of its tenant alone.
//! - Every method of a collection begins an action, such as [`Create`] or [`List`]: a builder that runs when it is
//!   awaited.
//! - `ov` is the version of an item, `cv` that of its collection; both begin at 0 and have no holes. Reads, lists
//!   and restores go by either, or by time.
//! - A write returns when its version is committed: on the majority of a replica set, or on disk. Its JSON is stored
//!   as an object right after; an outage of the object storage delays that and fails no write.
//! - [`Json`] keeps every digit of a number and the order of keys. Anything `Serialize` goes in, and
//!   [`typed`](Collection::typed) collections give your own types back.
//! - An [`Error`] has a [`kind`](ErrorKind), a stable code, and says what was tried on what, and whether trying again
//!   helps.
//! - Everything is measured through the facade `metrics` and logged through `tracing`: [`telemetry`] lists what.
//! - [`messaging`] holds shared values, topics and messages; the crate `chronow` is a message bus on top of it.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `embedded` | yes | the document store in SQLite |
//! | `mongodb` | yes | MongoDB: standalone, replica set or sharded cluster |
//! | `s3`, `azure` | yes | object storage in the cloud |
//! | `testing` | no | the suites below |
//!
//! # A backend of your own
//!
//! [`DocumentStore`](documents::DocumentStore) and [`ObjectStorage`](objects::ObjectStorage) are object-safe traits
//! whose documentation says what they must do. The feature `testing` has a suite for each, of what they promise and
//! of what that may cost; the macros `documents_suite!` and `objects_suite!` stamp one onto your implementation.

#[macro_use]
mod action;
pub mod admin;
pub mod analytics;
mod backup;
mod chronos;
mod clock;
pub mod config;
mod connections;
#[cfg(any(feature = "mongodb", feature = "s3", feature = "azure"))]
mod crypto;
mod debug;
pub mod documents;
mod erasure;
pub mod error;
pub mod fail;
mod fallback;
mod hash;
pub mod json;
mod lease;
pub mod messaging;
mod name;
pub mod objects;
mod open;
mod page;
mod projections;
mod records;
mod redact;
mod route;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod tiers;
mod worker;

pub use backup::{
    BackUp, BackedUp, BackupInfo, BackupKind, BackupProblem, ListBackups, RestoreBackup, RestoredBackup,
    VerifyBackups,
};
/// The crate `bson` that documents, filters and ids are made of.
pub use bson;
/// The crate `bytes` that objects are made of.
pub use bytes;
pub use chronos::Chronos;
pub use chronos::builder::Builder;
pub use clock::{Clock, Env, Random, SystemClock, SystemRandom, Timestamp};
#[cfg(any(feature = "mongodb", feature = "s3", feature = "azure"))]
pub use crypto::install_crypto_provider;
pub use erasure::{Certificate, Erase, EraseWhere, HardDelete, HardDeleted, ListCertificates};
pub use error::{Error, ErrorKind, Result};
pub use fallback::{
    CancelOperation, FailedQueue, FallbackQueue, FallbackStats, GetFallbackStats, ListOperations,
    OperationList, QueuedOperation, Retried, RetryDue, RetryOperation,
};
pub use json::{Json, bson_to_json, json_to_bson, json_to_nearest_bson};
pub use name::{MAX_NAME_BYTES, validate_name};
pub use open::LeftBehind;
pub use page::Page;
pub use projections::{DamagedRow, Prune, RollUp, counters};
pub use records::{
    Assigned, Collected, Collection, Create, Damage, Delete, Enrich, EntityMapping, EntityOperation,
    ErasureCounts, FailingVersion, FlushReport, Get, GetWithEntities, History, Import, ImportOp,
    ImportOutcome, Importer, InsertWithEntities, InsertedWithEntities, ItemId, ItemLock, Lineage, List,
    ListManifests, Lock, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_INDEXED_BYTES, ManifestInfo,
    MarkItemAsProcessed, MarkItemsAsProcessed, MarkedItem, MarkedItems, MigrateTenants, OnDamage, Op,
    Presigned, Problem, Pruned, RecordWithEntities, Replace, Restore, RestoreCollection, RestoreProblem,
    Restored, RolledUp, ShrinkShadows, ShrunkShadows, SkippedEntity, SmartInsert, State, Typed,
    TypedCollection, TypedGet, TypedList, TypedView, Update, Verification, Verify, Version, View, Written,
    WrittenEntity, merge,
};
pub use route::{Backend, Distribution, Resolved, Route, Router, Tier};
pub use tiers::{GetTiered, TieredRecord};
pub use worker::{FailedJob, Worker, WorkerReport};
