//! Buckets that are not recreated silently: a folder that is not mounted, or a bucket that was deleted,
//! would otherwise take new objects as if there had never been others.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bson::doc;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::documents::{Batch, DocumentStore, Namespace, Write};
use crate::objects::{ObjectInfo, ObjectStorage, Put, PutOptions};
use crate::{Error, ErrorKind, Result};

/// The collection of a database in which its buckets are noted once an object was stored in them.
pub(crate) const BUCKETS: &str = "chronos_buckets";

/// A bucket whose first put is noted, and which must be there from then on.
pub(crate) struct NotedBucket {
    inner: Arc<dyn ObjectStorage>,
    documents: Arc<dyn DocumentStore>,
    namespace: Namespace,
    /// The id of the note: the storage and the bucket.
    note: String,
    /// Whether this process has noted it; shared by all who have the bucket open.
    noted: Arc<AtomicBool>,
}

impl NotedBucket {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStorage>,
        documents: Arc<dyn DocumentStore>,
        database: &Arc<str>,
        note: String,
        noted: Arc<AtomicBool>,
    ) -> Self {
        Self { inner, documents, namespace: Namespace::new(Arc::clone(database), BUCKETS), note, noted }
    }

    async fn is_noted(&self) -> Result<bool> {
        Ok(!self.documents.get_stored(&self.namespace, vec![self.note.as_str().into()]).await?.is_empty())
    }

    async fn note(&self) -> Result<()> {
        let mut batch = Batch::new();
        batch.push(&self.namespace, Write::insert(doc! { "_id": &self.note }));
        // Another process may have noted it first.
        self.documents.apply(batch).await?;
        self.noted.store(true, Ordering::Release);
        Ok(())
    }
}

impl fmt::Debug for NotedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotedBucket")
            .field("inner", &self.inner)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStorage for NotedBucket {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        let known = PutOptions { bucket_must_exist: true, ..options.clone() };
        let put = match self.inner.put(key, body.clone(), known.clone()).await {
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                if self.noted.load(Ordering::Acquire) || self.is_noted().await? {
                    // Two first puts may meet: this one looked before the other had made the bucket. What is
                    // noted was there before its note, so now it has to be there.
                    match self.inner.put(key, body, known).await {
                        Err(missing) if missing.kind() == ErrorKind::NotFound => {
                            return Err(Error::storage(format!(
                                "{}, though objects were stored in it: bring it back (a disk may not be mounted), or create it anew if it is meant to be empty",
                                missing.message()
                            ))
                            .retryable());
                        }
                        put => put?,
                    }
                } else {
                    self.inner.put(key, body, options).await?
                }
            }
            put => put?,
        };
        if !self.noted.load(Ordering::Acquire) {
            self.note().await?;
        }
        Ok(put)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.inner.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        self.inner.remove_unfinished(prefix).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        self.inner.list(prefix)
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.inner.bucket_exists().await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.inner.create_bucket().await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.inner.presign_get(key, ttl).await
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use crate::Env;
    use crate::documents::embedded::EmbeddedDocuments;
    use crate::objects::StoreObjects;
    use tokio::sync::Mutex;

    /// A folder whose first put has its answer only after another process has made the folder.
    struct Raced {
        folder: StoreObjects,
        other: Mutex<Option<NotedBucket>>,
    }

    impl fmt::Debug for Raced {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Raced")
        }
    }

    #[async_trait]
    impl ObjectStorage for Raced {
        async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
            let put = self.folder.put(key, body, options).await;
            if let Some(other) = self.other.lock().await.take() {
                other.put("other", Bytes::from_static(b"2"), PutOptions::default()).await?;
            }
            put
        }

        async fn get(&self, key: &str) -> Result<Option<Bytes>> {
            self.folder.get(key).await
        }

        async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
            self.folder.get_range(key, range).await
        }

        async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
            self.folder.head(key).await
        }

        async fn delete(&self, key: &str) -> Result<()> {
            self.folder.delete(key).await
        }

        fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
            self.folder.list(prefix)
        }

        async fn bucket_exists(&self) -> Result<bool> {
            self.folder.bucket_exists().await
        }

        async fn create_bucket(&self) -> Result<()> {
            self.folder.create_bucket().await
        }

        async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
            self.folder.presign_get(key, ttl).await
        }
    }

    #[tokio::test]
    async fn of_two_first_puts_of_a_bucket_both_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        let documents: Arc<dyn DocumentStore> =
            Arc::new(EmbeddedDocuments::open(":memory:", Env::default()).unwrap());
        let folder = || StoreObjects::local(dir.path(), "bucket").unwrap();
        let noted = |inner| {
            NotedBucket::new(
                inner,
                Arc::clone(&documents),
                &"app".into(),
                "objects/bucket".into(),
                Arc::default(),
            )
        };
        let raced = Raced { folder: folder(), other: Mutex::new(Some(noted(Arc::new(folder())))) };
        let one = noted(Arc::new(raced));
        assert_eq!(
            one.put("one", Bytes::from_static(b"1"), PutOptions::default()).await.unwrap(),
            Put::Stored
        );
        for (key, bytes) in [("one", "1"), ("other", "2")] {
            assert_eq!(folder().get(key).await.unwrap().unwrap(), bytes);
        }
        // Noted, and away since: that is still reported.
        std::fs::remove_dir_all(dir.path().join("bucket")).unwrap();
        let error = one.put("one", Bytes::from_static(b"1"), PutOptions::default()).await.unwrap_err();
        assert!(error.is_retryable() && error.message().contains("bring it back"), "{error}");
    }
}
