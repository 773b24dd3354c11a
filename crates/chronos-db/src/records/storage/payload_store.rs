//! Payloads and blobs of one collection: in object storage, and the latest of them in memory.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use parking_lot::Mutex;

use super::buckets::NotedBucket;
use super::notes::Noted;
use crate::documents::{Batch, Guard, Outcome, Write};
use crate::objects::{ObjectStorage, PutMode, PutOptions, keys};
use crate::records::document::compress::{GZIP, compressed, decompressed, is_compressed};
use crate::records::document::heavy;
use crate::records::document::payload::JSON_TYPE;
use crate::records::index::RecordIndex;
use crate::records::model::{Head, ItemId, Payload, Row};
use crate::{Error, Result};

/// Objects removed at once.
const PARALLEL: usize = 16;

/// Latest payloads by collection, item and version, bounded in bytes.
pub(crate) type PayloadCache = Cache<(u64, ItemId, i64), Bytes>;

/// Opens a bucket by name.
pub(crate) type OpenBucket = Arc<dyn Fn(&str) -> Result<Arc<dyn ObjectStorage>> + Send + Sync>;

/// Where the objects of a collection lie.
#[derive(Clone)]
pub(crate) struct ObjectBuckets {
    pub(crate) json: String,
    pub(crate) content: String,
    pub(crate) backups: String,
    /// The reference of the storage connection: buckets of one name in two storages are two buckets.
    pub(crate) storage: String,
    pub(crate) open: OpenBucket,
}

impl fmt::Debug for ObjectBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBuckets")
            .field("json", &self.json)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// Where objects of an item may lie.
struct ItemPrefix {
    /// The name of the bucket.
    name: String,
    bucket: Arc<dyn ObjectStorage>,
    prefix: String,
}

/// Where the payloads of one collection are.
pub(crate) struct PayloadStore {
    index: Arc<RecordIndex>,
    /// None where payloads stay in their rows.
    pub(crate) buckets: Option<ObjectBuckets>,
    cache: PayloadCache,
    /// Tells collections apart in the shared cache.
    number: u64,
    /// Which buckets are known to be noted.
    noted: Mutex<HashMap<String, Arc<AtomicBool>>>,
}

impl PayloadStore {
    pub(crate) fn new(
        index: Arc<RecordIndex>,
        buckets: Option<ObjectBuckets>,
        cache: PayloadCache,
        number: u64,
    ) -> Self {
        Self { index, buckets, cache, number, noted: Mutex::default() }
    }

    pub(crate) fn forget_cached(&self, id: ItemId, ov: i64) {
        self.cache.invalidate(&(self.number, id, ov));
    }

    pub(crate) fn cached(&self, id: ItemId, ov: i64) -> Option<Bytes> {
        self.cache.get(&(self.number, id, ov))
    }

    /// What is in memory, for a reader who has to fetch it otherwise.
    pub(crate) fn look_up(&self, id: ItemId, ov: i64) -> Option<Bytes> {
        let found = self.cached(id, ov);
        self.index.env.telemetry.cache(found.is_some());
        found
    }

    pub(crate) fn remember(&self, id: ItemId, ov: i64, bytes: &Bytes) {
        // One large payload must not push out hundreds of small ones.
        if bytes.len() <= 1024 * 1024 {
            self.cache.insert((self.number, id, ov), bytes.clone());
        }
    }

    pub(crate) fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStorage>> {
        match &self.buckets {
            Some(space) => {
                let noted = Arc::clone(self.noted.lock().entry(name.to_owned()).or_default());
                let (inner, documents) = ((space.open)(name)?, Arc::clone(&self.index.documents));
                let note = format!("{}/{name}", space.storage);
                Ok(Arc::new(NotedBucket::new(inner, documents, &self.index.names.head.database, note, noted)))
            }
            None => Err(Error::storage(format!(
                "the payload lies in bucket `{name}`, but this database has no object storage configured"
            ))),
        }
    }

    /// Puts the item.json of a version, compressed if the configuration says so and it helps.
    pub(crate) async fn put_json(&self, bucket: &str, key: &str, json: &Bytes, mode: PutMode) -> Result<()> {
        let mut options =
            PutOptions { mode, content_type: Some(JSON_TYPE.to_owned()), ..PutOptions::default() };
        let mut body = json.clone();
        if self.index.settings.writes.compression {
            let json = json.clone();
            if let Some(packed) = heavy::work(json.len() > heavy::BYTES, move || compressed(&json)).await?? {
                options.content_encoding = Some(GZIP.to_owned());
                body = packed;
            }
        }
        self.bucket(bucket)?.put(key, body, options).await.map(|_| ())
    }

    /// The item.json that lies there, as JSON; none if there is no object.
    pub(crate) async fn get_json(&self, bucket: &str, key: &str, payload: &Payload) -> Result<Option<Bytes>> {
        match self.bucket(bucket)?.get(key).await? {
            Some(stored) => unpacked(stored, payload).await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes down that objects will be stored before their commit; what the same write noted before stays
    /// noted. Whether that could be done: it can not if what was noted has been condemned since.
    pub(crate) async fn record_gc_candidate(&self, noted: &Noted, is_first: bool) -> Result<bool> {
        let write = if is_first { Write::insert(noted.document(false)) } else { noted.kept() };
        let mut batch = Batch::new();
        batch.push(&self.index.names.gc, write);
        Ok(self.index.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied))
    }

    /// Forgets the note of objects that their version names by now, or that are gone.
    pub(crate) async fn forget(&self, noted: &Noted) -> Result<()> {
        self.index.env.fail.hit("large.before_forget")?;
        let mut batch = Batch::new();
        batch.push(&self.index.names.gc, Write::Delete { id: noted.note.clone().into(), guard: Guard::Any });
        self.index.documents.apply(batch).await.map(|_| ())
    }

    /// Removes objects, named by bucket and key, that no row can name any more: their commit is done, or was
    /// refused for good, or they are erased.
    pub(crate) async fn discard<'a>(&self, objects: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
        for (bucket, key) in objects {
            self.bucket(bucket)?.delete(key).await?;
        }
        Ok(())
    }

    /// The names of the buckets in which objects of versions lie.
    pub(crate) fn bucket_names(&self) -> impl Iterator<Item = &str> {
        self.buckets.iter().flat_map(places_of)
    }

    /// Whether a copy of the collection was restored to one of its buckets, of this or of another database.
    pub(crate) async fn may_be_shared(&self) -> Result<bool> {
        let prefix = keys::copies_prefix(&self.index.names.collection)?;
        for name in self.bucket_names() {
            if self.bucket(name)?.list(&prefix).try_next().await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whatever lies where the item's objects lie. Returns how many there were.
    pub(crate) async fn remove_prefix(&self, id: ItemId) -> Result<u64> {
        let mut removed = 0;
        for ItemPrefix { bucket, prefix, .. } in self.prefixes(id)? {
            bucket.remove_unfinished(&prefix).await?;
            let mut found = bucket.list(&prefix);
            while let Some(object) = found.try_next().await? {
                bucket.delete(&object.key).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Bucket and key of whatever lies where the item's objects lie.
    pub(crate) async fn found_of(&self, id: ItemId) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for ItemPrefix { name, bucket, prefix } in self.prefixes(id)? {
            let mut objects = bucket.list(&prefix);
            while let Some(object) = objects.try_next().await? {
                found.push((name.clone(), object.key));
            }
        }
        Ok(found)
    }

    /// An object that lies where those of the item lay.
    pub(crate) async fn left_of(&self, id: ItemId) -> Result<Option<String>> {
        for ItemPrefix { bucket, prefix, .. } in self.prefixes(id)? {
            if let Some(object) = bucket.list(&prefix).try_next().await? {
                return Ok(Some(object.key));
            }
        }
        Ok(None)
    }

    /// Where objects of an item may lie. The legacy library put those of its properties elsewhere, and
    /// recorded them in the documents alone.
    fn prefixes(&self, id: ItemId) -> Result<Vec<ItemPrefix>> {
        let Some(space) = &self.buckets else { return Ok(Vec::new()) };
        let mut prefixes = vec![keys::item_prefix(&self.index.names.collection, &id.to_string())?];
        let collection = self.index.names.collection.trim().to_lowercase();
        for path in self.index.settings.map.base64.keys() {
            let property = path.replace("[]", "");
            prefixes.extend(
                [property.to_lowercase(), property].map(|property| format!("{collection}/{property}/{id}/")),
            );
        }
        prefixes.sort();
        prefixes.dedup();
        let mut places = Vec::new();
        for name in places_of(space) {
            let bucket = self.bucket(name)?;
            places.extend(prefixes.iter().map(|prefix| ItemPrefix {
                name: name.to_owned(),
                bucket: Arc::clone(&bucket),
                prefix: prefix.clone(),
            }));
        }
        Ok(places)
    }

    pub(crate) async fn remove_objects_of(&self, rows: &[Row]) -> Result<()> {
        let removals: Vec<_> = rows.iter().map(|row| self.remove_objects(row, None)).collect();
        futures::stream::iter(removals).buffer_unordered(PARALLEL).try_collect().await
    }

    /// Removes the objects that a version names, but those that `head` needs.
    pub(crate) async fn remove_objects(&self, row: &Row, head: Option<&Head>) -> Result<()> {
        self.forget_cached(row.id, row.ov);
        if self.buckets.is_none() {
            return Ok(());
        }
        let needed: HashSet<_> = head.into_iter().flat_map(|head| head.meta.objects()).collect();
        self.discard(row.meta.objects().filter(|object| !needed.contains(object))).await
    }
}

/// The JSON of an item.json as it is stored.
///
/// # Errors
/// `STORAGE_ERROR` if it is damaged.
pub(crate) async fn unpacked(stored: Bytes, payload: &Payload) -> Result<Bytes> {
    if !is_compressed(&stored) {
        return Ok(stored);
    }
    let (is_heavy, payload) = (stored.len() > heavy::BYTES, payload.clone());
    heavy::work(is_heavy, move || decompressed(&stored, &payload)).await?
}

/// The buckets in which objects lie, each once.
fn places_of(buckets: &ObjectBuckets) -> impl Iterator<Item = &str> {
    let content = (buckets.content != buckets.json).then_some(buckets.content.as_str());
    std::iter::once(buckets.json.as_str()).chain(content)
}
