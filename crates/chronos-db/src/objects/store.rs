//! [`ObjectStorage`] over the crate `object_store`.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{Attribute, Attributes, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload};
use secrecy::{ExposeSecret as _, SecretString};

#[cfg(any(feature = "s3", feature = "azure"))]
use super::cloud::{self, Cloud};
use super::failure::Failure;
use super::local::Folder;
use super::names::{check_bucket, object_path};
use super::timing::{TIMEOUT, repeatable, time_for, within};
use super::{ObjectInfo, ObjectStorage, Put, PutMode, PutOptions};
#[cfg(any(feature = "s3", feature = "azure"))]
use crate::config::SpaceConnection;
use crate::redact::redact;
use crate::{Error, ErrorKind, Result, Timestamp};

/// The waits before a race that is still open is looked at again.
const RACES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(40)).with_max_times(5);

/// The shortest and the longest life of a presigned URL.
const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

/// One bucket of a storage: a local folder, memory, S3 or Azure Blob. Cloning it is cheap, and no constructor
/// does I/O.
#[derive(Clone)]
pub struct StoreObjects {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    bucket: String,
    /// Where the bucket is, for error messages.
    place: String,
    /// What no message may show.
    secrets: Vec<SecretString>,
    /// The storage has no conditional puts.
    unconditional: AtomicBool,
    #[cfg(any(feature = "s3", feature = "azure"))]
    signer: Option<cloud::CloudSigner>,
    #[cfg(any(feature = "s3", feature = "azure"))]
    whole: Option<cloud::Bucket>,
}

enum Source {
    Store(Arc<dyn ObjectStore>),
    Folder(Folder),
}

impl StoreObjects {
    /// Opens the folder `bucket` in `root`; it is created with the first object. Objects are files, synced
    /// before a put returns.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bucket name that is not a plain folder name, or if `root` is empty.
    pub fn local(root: &Path, bucket: &str) -> Result<Self> {
        check_bucket(bucket)?;
        if root.as_os_str().is_empty() {
            return Err(Error::validation("the folder of the local storage is empty"));
        }
        let path = std::path::absolute(root).map_err(|error| {
            Error::validation(format!("{} is not a usable folder: {error}", root.display()))
        })?;
        let place = path.display().to_string();
        Ok(Self::new(Source::Folder(Folder::new(path.join(bucket))), bucket, place))
    }

    /// Opens a folder that is a bucket by itself, whatever its name; it is created with the first object.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if `path` is empty.
    pub fn folder(path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::validation("the name of the folder is empty"));
        }
        let path = std::path::absolute(path).map_err(|error| {
            Error::validation(format!("{} is not a usable folder: {error}", path.display()))
        })?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = path.display().to_string();
        Ok(Self::new(Source::Folder(Folder::new(path)), &name, place))
    }

    /// Makes a bucket in the memory of this process, empty and unrelated to every other one.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bucket name that no storage would take.
    pub fn memory(bucket: &str) -> Result<Self> {
        check_bucket(bucket)?;
        Ok(Self::new(Source::Store(Arc::new(InMemory::new())), bucket, "memory".to_owned()))
    }

    /// Opens a bucket of an S3 compatible storage.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for an endpoint, region, credentials or bucket name that cannot work.
    #[cfg(feature = "s3")]
    pub fn s3(connection: &SpaceConnection, bucket: &str) -> Result<Self> {
        Self::s3_over(connection, bucket, cloud::http_client()?)
    }

    /// Opens a container of an Azure Blob account; `connection` has the account's name as access key and its
    /// key as secret key.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for an endpoint, credentials or container name that cannot work.
    #[cfg(feature = "azure")]
    pub fn azure(connection: &SpaceConnection, bucket: &str) -> Result<Self> {
        Self::azure_over(connection, bucket, cloud::http_client()?)
    }

    #[cfg(feature = "s3")]
    pub(super) fn s3_over(
        connection: &SpaceConnection,
        bucket: &str,
        http: object_store::client::HttpClient,
    ) -> Result<Self> {
        check_bucket(bucket)?;
        cloud::s3(connection, bucket, http).map(|cloud| Self::in_cloud(cloud, bucket))
    }

    #[cfg(feature = "azure")]
    pub(super) fn azure_over(
        connection: &SpaceConnection,
        bucket: &str,
        http: object_store::client::HttpClient,
    ) -> Result<Self> {
        check_bucket(bucket)?;
        cloud::azure(connection, bucket, http).map(|cloud| Self::in_cloud(cloud, bucket))
    }

    #[cfg(any(feature = "s3", feature = "azure"))]
    fn in_cloud(cloud: Cloud, bucket: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                source: Source::Store(cloud.store),
                bucket: bucket.to_owned(),
                place: cloud.endpoint,
                secrets: cloud.secrets,
                unconditional: AtomicBool::new(false),
                signer: Some(cloud.signer),
                whole: Some(cloud.bucket),
            }),
        }
    }

    fn new(source: Source, bucket: &str, place: String) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                bucket: bucket.to_owned(),
                place,
                secrets: Vec::new(),
                unconditional: AtomicBool::new(false),
                #[cfg(any(feature = "s3", feature = "azure"))]
                signer: None,
                #[cfg(any(feature = "s3", feature = "azure"))]
                whole: None,
            }),
        }
    }
}

impl Inner {
    async fn for_reading(&self) -> Result<Option<Arc<dyn ObjectStore>>, Failure> {
        match &self.source {
            Source::Store(store) => Ok(Some(Arc::clone(store))),
            Source::Folder(folder) => folder.for_reading().await,
        }
    }

    async fn put_once(&self, path: &StorePath, body: &Bytes, options: &PutOptions) -> Result<(), Failure> {
        let mut how = object_store::PutOptions {
            mode: match options.mode {
                PutMode::Overwrite => object_store::PutMode::Overwrite,
                PutMode::Create => object_store::PutMode::Create,
            },
            ..Default::default()
        };
        let store = match &self.source {
            Source::Store(store) => {
                let content_type =
                    options.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned());
                let encoding = options.content_encoding.clone();
                how.attributes = Attributes::from_iter(
                    std::iter::once((Attribute::ContentType, content_type))
                        .chain(encoding.map(|encoding| (Attribute::ContentEncoding, encoding))),
                );
                Arc::clone(store)
            }
            // A file has nowhere to keep a media type.
            Source::Folder(folder) => folder.for_writing(options.bucket_must_exist).await?,
        };
        within(time_for(body.len() as u64), async {
            Ok(store.put_opts(path, PutPayload::from(body.clone()), how).await.map(drop)?)
        })
        .await
    }

    /// Puts, and puts again while others are in the way: who writes the same object, or removes a folder that
    /// was empty.
    async fn put_past_others(
        &self,
        path: &StorePath,
        body: &Bytes,
        options: &PutOptions,
    ) -> Result<(), Failure> {
        let once = || self.put_once(path, body, options);
        let attempt = || async {
            match options.mode {
                PutMode::Overwrite => repeatable(once).await,
                // Its own first try would count as another writer's object.
                PutMode::Create => once().await,
            }
        };
        let lost_folder =
            |failure: &Failure| failure.is_lost_folder() && matches!(self.source, Source::Folder(_));
        let no_bucket = |failure: &Failure| options.bucket_must_exist && failure.is_missing();
        attempt
            .retry(RACES)
            .when(|failure| !no_bucket(failure) && (lost_folder(failure) || failure.is_open_race()))
            // The folder is made anew by the next try.
            .adjust(|failure, wait| wait.map(|wait| if lost_folder(failure) { Duration::ZERO } else { wait }))
            .await
    }

    /// Creates the bucket. Folders and memory never miss theirs.
    async fn create_bucket(&self, missing: Failure) -> Result<()> {
        #[cfg(any(feature = "s3", feature = "azure"))]
        if let Some(bucket) = &self.whole {
            return bucket.create().await.map_err(|failure| {
                let reason = format!(
                    "there is no bucket `{}` at {}, and creating it failed: {}",
                    self.bucket, self.place, failure.reason
                );
                self.shown(&reason, failure.is_passing())
            });
        }
        Err(self.error("store an object", missing))
    }

    fn error(&self, what: impl fmt::Display, failure: Failure) -> Error {
        let reason =
            format!("cannot {what} in bucket `{}` at {}: {}", self.bucket, self.place, failure.reason);
        self.shown(&reason, failure.is_passing())
    }

    fn of_bucket(&self, what: &str, failure: Failure) -> Error {
        let reason = format!("cannot {what} bucket `{}` at {}: {}", self.bucket, self.place, failure.reason);
        self.shown(&reason, failure.is_passing())
    }

    fn shown(&self, reason: &str, passing: bool) -> Error {
        let error = Error::storage(redact(reason, self.secrets.iter().map(|secret| secret.expose_secret())));
        if passing { error.retryable() } else { error }
    }

    fn info(meta: ObjectMeta) -> ObjectInfo {
        ObjectInfo {
            key: meta.location.into(),
            size: meta.size,
            modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
        }
    }
}

#[async_trait]
impl ObjectStorage for StoreObjects {
    async fn put(&self, key: &str, body: Bytes, mut options: PutOptions) -> Result<Put> {
        let path = object_path(key)?;
        if let Some(content_type) = &options.content_type
            && !content_type.bytes().all(|b| matches!(b, b' '..=b'~'))
        {
            return Err(Error::validation(format!("`{}` is not a media type", content_type.escape_debug())));
        }
        let inner = &self.inner;
        let mut created = false;
        if options.mode == PutMode::Create && inner.unconditional.load(Ordering::Relaxed) {
            if self.head(key).await?.is_some() {
                return Ok(Put::Exists);
            }
            options.mode = PutMode::Overwrite;
        }
        loop {
            let Err(failure) = inner.put_past_others(&path, &body, &options).await else {
                return Ok(Put::Stored);
            };
            if options.mode == PutMode::Create && failure.is_existing() {
                return Ok(Put::Exists);
            }
            if options.mode == PutMode::Create && failure.is_unsupported() {
                inner.unconditional.store(true, Ordering::Relaxed);
                return self.put(key, body, options).await;
            }
            if options.bucket_must_exist && failure.is_missing() {
                return Err(Error::not_found(format!(
                    "there is no bucket `{}` at {}",
                    inner.bucket, inner.place
                )));
            }
            if failure.is_missing() && !created {
                inner.create_bucket(failure).await?;
                created = true;
            } else {
                return Err(inner.error(format_args!("store `{key}`"), failure));
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let path = object_path(key)?;
        let read = repeatable(|| async {
            let Some(store) = self.inner.for_reading().await? else { return Ok(None) };
            let found = within(TIMEOUT, async { Ok(store.get(&path).await?) }).await?;
            within(time_for(found.meta.size), async { Ok(found.bytes().await?) }).await.map(Some)
        });
        absent_is_none(read.await).map_err(|failure| self.inner.error(format_args!("read `{key}`"), failure))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let path = object_path(key)?;
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        }
        let read = repeatable(|| async {
            let Some(store) = self.inner.for_reading().await? else { return Ok(None) };
            within(time_for(wanted), async { Ok(store.get_range(&path, range.clone()).await?) })
                .await
                .map(Some)
        });
        let found = absent_is_none(read.await)
            .map_err(|failure| self.inner.error(format_args!("read a part of `{key}`"), failure))?;
        match found {
            Some(bytes) if bytes.len() as u64 != wanted => Err(Error::storage(format!(
                "`{key}` in bucket `{}` at {} ends before byte {}",
                self.inner.bucket, self.inner.place, range.end
            ))),
            found => Ok(found),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let path = object_path(key)?;
        let look = repeatable(|| async {
            let Some(store) = self.inner.for_reading().await? else { return Ok(None) };
            within(TIMEOUT, async { Ok(store.head(&path).await?) }).await.map(|meta| Some(Inner::info(meta)))
        });
        absent_is_none(look.await)
            .map_err(|failure| self.inner.error(format_args!("look at `{key}`"), failure))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let path = object_path(key)?;
        let remove = repeatable(|| async {
            let Some(store) = self.inner.for_reading().await? else { return Ok(None) };
            within(TIMEOUT, async { Ok(store.delete(&path).await?) }).await.map(Some)
        });
        absent_is_none(remove.await)
            .map(drop)
            .map_err(|failure| self.inner.error(format_args!("remove `{key}`"), failure))
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        let Source::Folder(folder) = &self.inner.source else { return Ok(()) };
        let path = object_path(prefix.trim_end_matches('/'))?;
        let removed = folder.remove_unfinished(path.as_ref()).await;
        removed
            .map_err(|failure| self.inner.error(format_args!("remove what is left in `{prefix}`"), failure))
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        let inner = Arc::clone(&self.inner);
        let prefix = prefix.trim_end_matches('/').to_owned();
        let listing = async move {
            let path = if prefix.is_empty() { None } else { Some(object_path(&prefix)?) };
            let store = inner.for_reading().await.map_err(|failure| inner.error("list objects", failure))?;
            let entries =
                store.map_or_else(|| futures::stream::empty().boxed(), |store| store.list(path.as_ref()));
            Ok(futures::stream::try_unfold(entries, move |mut entries| {
                let inner = Arc::clone(&inner);
                async move {
                    match absent_is_none(
                        within(TIMEOUT, async { Ok(entries.try_next().await?) }).await.map(Some),
                    ) {
                        Ok(found) => Ok(found.flatten().map(|meta| (Inner::info(meta), entries))),
                        Err(failure) => Err(inner.error("list objects", failure)),
                    }
                }
            }))
        };
        futures::stream::once(listing).try_flatten().boxed()
    }

    async fn bucket_exists(&self) -> Result<bool> {
        #[cfg(any(feature = "s3", feature = "azure"))]
        if let Some(bucket) = &self.inner.whole {
            let look = repeatable(|| bucket.exists()).await;
            return look.map_err(|failure| self.inner.of_bucket("look at", failure));
        }
        let opened = self.inner.for_reading().await;
        opened.map(|opened| opened.is_some()).map_err(|failure| self.inner.of_bucket("look at", failure))
    }

    async fn create_bucket(&self) -> Result<()> {
        #[cfg(any(feature = "s3", feature = "azure"))]
        if let Some(bucket) = &self.inner.whole {
            return bucket.create().await.map_err(|failure| self.inner.of_bucket("create", failure));
        }
        match &self.inner.source {
            Source::Store(_) => Ok(()),
            Source::Folder(folder) => match folder.for_writing(false).await {
                Ok(_) => Ok(()),
                Err(failure) => Err(self.inner.of_bucket("create", failure)),
            },
        }
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        let path = object_path(key)?;
        if !TTL.contains(&ttl) {
            return Err(Error::validation(format!(
                "a presigned URL can live from 1 second to 7 days, not {} s",
                ttl.as_secs_f64()
            )));
        }
        #[cfg(any(feature = "s3", feature = "azure"))]
        if let Some(signer) = &self.inner.signer {
            let signed = signer.sign(&path, ttl).await;
            return signed
                .map(String::from)
                .map_err(|failure| self.inner.error(format_args!("sign a URL for `{key}`"), failure));
        }
        drop(path);
        Err(Error::new(
            ErrorKind::PresignUnsupported,
            format!("objects in {} have no URLs; read them through the API", self.inner.place),
        ))
    }
}

impl fmt::Debug for StoreObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreObjects")
            .field("bucket", &self.inner.bucket)
            .field("place", &self.inner.place)
            .finish_non_exhaustive()
    }
}

/// A bucket that isn't there holds nothing.
fn absent_is_none<T>(result: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Err(failure) if failure.is_missing() => Ok(None),
        other => other,
    }
}
