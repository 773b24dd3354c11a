//! Where backups are: the backups bucket of an entry, or a folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::objects::{ObjectInfo, ObjectStorage, Put, PutMode, PutOptions, StoreObjects};
use crate::records::{ObjectBuckets, PayloadStore};
use crate::{Error, Result};

/// Where backups are.
#[derive(Clone, Debug)]
pub(super) struct BackupLocation {
    objects: Arc<dyn ObjectStorage>,
    pub(super) at: At,
}

/// The name of a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    /// A folder: no configuration leads there.
    Folder(PathBuf),
    /// A bucket of a storage connection.
    Bucket { storage: String, bucket: String },
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Bucket { storage, bucket } => write!(f, "{storage}/{bucket}"),
        }
    }
}

impl BackupLocation {
    /// The folder, if one is named, else the backups bucket of the entry whose payloads these are.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there is neither.
    pub(super) fn of(folder: Option<&Path>, payloads: &PayloadStore) -> Result<Self> {
        if let Some(folder) = folder {
            return Self::folder(folder);
        }
        let Some(space) = &payloads.buckets else {
            let message =
                "the database has no object storage, and with it no bucket for backups: name a folder";
            return Err(Error::validation(message));
        };
        Self::bucket(&space.backups, payloads, space)
    }

    /// A bucket of the storage of the entry.
    pub(super) fn bucket(bucket: &str, payloads: &PayloadStore, space: &ObjectBuckets) -> Result<Self> {
        let at = At::Bucket { storage: space.storage.clone(), bucket: bucket.to_owned() };
        Ok(Self { objects: payloads.bucket(bucket)?, at })
    }

    pub(super) fn folder(folder: &Path) -> Result<Self> {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Ok(Self { objects: Arc::new(StoreObjects::folder(folder)?), at: At::Folder(absolute) })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.objects.get(key).await
    }

    /// Stores a file unless there is one of this name; whether it did.
    pub(super) async fn create(&self, key: &str, body: Bytes, content_type: &str) -> Result<bool> {
        let options = PutOptions {
            mode: PutMode::Create,
            content_type: Some(content_type.to_owned()),
            ..PutOptions::default()
        };
        Ok(self.objects.put(key, body, options).await? == Put::Stored)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        self.objects.delete(key).await
    }

    pub(super) fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        self.objects.list(prefix)
    }
}
