//! Object storage, one bucket at a time: [`ObjectStorage`], over the crate `object_store`.
//!
//! [`crate::testing::objects`] is the suite every implementation passes.
//!
//! `store.rs` implements the trait over a backend, which `local.rs` and `cloud.rs` (with `sas.rs`) make;
//! `names.rs` says which keys and buckets may be; `failure.rs` and `timing.rs` say what a failed or late request means. `connect.rs` opens the buckets of a
//! configuration, `keys.rs` is the layout of keys. Nothing here knows of documents or records.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Result, Timestamp};

#[cfg(any(feature = "s3", feature = "azure"))]
mod cloud;
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "public for the tests alone"))]
mod connect;
mod failure;
#[cfg(feature = "testing")]
pub mod keys;
#[cfg(not(feature = "testing"))]
#[allow(dead_code, unreachable_pub, reason = "parsers and manifests are public for the tests alone")]
pub(crate) mod keys;
mod local;
mod names;
mod observed;
#[cfg(feature = "azure")]
mod sas;
mod store;
#[cfg(all(test, feature = "s3", feature = "azure"))]
mod tests;
mod timing;

#[cfg(not(feature = "testing"))]
pub(crate) use connect::ObjectsPool;
#[cfg(feature = "testing")]
pub use connect::{ObjectsPool, SpaceId};
pub(crate) use observed::{ObservedObjects, StorageMeters};
pub use store::StoreObjects;

/// Whether a put may replace what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PutMode {
    /// Replace it.
    #[default]
    Overwrite,
    /// Only create; [`Put::Exists`] if something is there. A storage without conditional puts (501) is looked
    /// at first instead: there, of two that create one key in one moment, both may succeed.
    Create,
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is stored and durable.
    Stored,
    /// [`PutMode::Create`] found an object; it was left alone. After a failure on the way, which is tried
    /// again by itself, that may be the object of the first try.
    Exists,
}

/// How an object is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Replace or create.
    pub mode: PutMode,
    /// The media type; `application/octet-stream` if none.
    pub content_type: Option<String>,
    /// The content encoding, such as `gzip`, for clients that read the object by a presigned URL; readers here get the
    /// bytes as they were put. A local folder has nowhere to keep it.
    pub content_encoding: Option<String>,
    /// A bucket that is not there is an error, and not created: for a caller that knows that objects were stored in it.
    pub bucket_must_exist: bool,
}

/// What a listing or a head says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key in the bucket.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, by the storage's clock.
    pub modified: Timestamp,
}

/// One bucket (container, folder) of an object storage. A missing bucket is created on the first put where
/// the server allows it, unless [`PutOptions::bucket_must_exist`] says that it was there.
///
/// An answer may take 10 s, and the time the bytes need at 256 KiB/s. Of a storage that stays silent the same
/// is asked up to three times before it is an error, except for a [`PutMode::Create`], whose first try may
/// have been carried out, and a listing.
#[async_trait]
pub trait ObjectStorage: Send + Sync + fmt::Debug {
    /// Stores an object; one request, no read-back.
    ///
    /// # Errors
    /// `STORAGE_ERROR`; retryable unless the storage refused the credentials or the bucket. `NOT_FOUND` if
    /// there is no bucket, and it must exist.
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put>;

    /// Returns the object's bytes, or nothing if there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Returns these bytes of the object, counted from 0, or nothing if there is no object.
    ///
    /// # Errors
    /// `STORAGE_ERROR` if the object has fewer bytes.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>>;

    /// Returns size and date, or nothing if there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>>;

    /// Removes the object; one that isn't there is no error.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Removes what puts of objects below `prefix` left that did not end, as their processes died: a listing does
    /// not show it. A put that is under way there may fail, or be carried out again. Storages on which a put
    /// leaves its object or nothing have nothing to do.
    ///
    /// # Errors
    /// `STORAGE_ERROR` if something cannot be removed.
    async fn remove_unfinished(&self, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// Streams all objects whose key starts with `prefix` (whole path segments).
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>>;

    /// Returns whether the bucket is there; one request. Reading from a missing bucket finds
    /// nothing and is not an error: this is for a caller that has to know which of the two it is, or whether the storage answers at all.
    ///
    /// # Errors
    /// `STORAGE_ERROR` if the storage does not answer, or refuses the credentials.
    async fn bucket_exists(&self) -> Result<bool>;

    /// Creates the bucket; one that is there already is left as it is.
    ///
    /// # Errors
    /// `STORAGE_ERROR` if the storage does not answer, or does not allow it.
    async fn create_bucket(&self) -> Result<()>;

    /// Returns a URL that lets its bearer GET the object for `ttl`, at least 1 s and at most 7 days.
    ///
    /// # Errors
    /// `PRESIGN_UNSUPPORTED` on storages that cannot (local folder, memory); `VALIDATION_ERROR` for a TTL out
    /// of bounds.
    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String>;
}
