//! A cache of objects that never change, bounded in bytes.

use std::fmt;

use bytes::Bytes;
use moka::sync::Cache;

use super::SpaceId;

/// Keeps the most used objects of any number of buckets in memory.
///
/// Only what never changes belongs in it: nothing looks at the storage again. A space is told apart by its credentials too, so no tenant is
/// served from what another one may read.
#[derive(Clone)]
pub struct ObjectCache {
    objects: Cache<String, Bytes>,
    max_bytes: u64,
}

impl ObjectCache {
    /// The bound of [`ObjectCache::default`].
    pub const DEFAULT_MAX_BYTES: u64 = 64 * 1024 * 1024;

    /// What an entry takes beside its key and value, roughly.
    const OVERHEAD: usize = 160;

    /// A cache that holds about `max_bytes` of keys and objects. An object that would take more than an eighth of it is not kept.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let objects = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|name: &String, body: &Bytes| u32::try_from(Self::weight(name, body)).unwrap_or(u32::MAX))
            .build();
        Self { objects, max_bytes }
    }

    /// The object, if it is still here.
    #[must_use]
    pub fn get(&self, space: &SpaceId, bucket: &str, key: &str) -> Option<Bytes> {
        self.objects.get(&name(space, bucket, key))
    }

    /// Keeps an object, unless it is too large. `body` should not be a small slice of something large: it would keep all of it in memory.
    pub fn insert(&self, space: &SpaceId, bucket: &str, key: &str, body: Bytes) {
        let name = name(space, bucket, key);
        if Self::weight(&name, &body) as u64 <= self.max_bytes / 8 {
            self.objects.insert(name, body);
        }
    }

    /// Forgets an object; for what was erased.
    pub fn remove(&self, space: &SpaceId, bucket: &str, key: &str) {
        self.objects.invalidate(&name(space, bucket, key));
    }

    /// About how many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.run_pending_tasks();
        self.objects.weighted_size()
    }

    fn weight(name: &str, body: &Bytes) -> usize {
        name.len().saturating_add(body.len()).saturating_add(Self::OVERHEAD)
    }
}

impl Default for ObjectCache {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MAX_BYTES)
    }
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").field("max_bytes", &self.max_bytes).field("entries", &self.objects.entry_count()).finish()
    }
}

/// Neither an identity nor a bucket's name holds a NUL, so no two objects share a name.
fn name(space: &SpaceId, bucket: &str, key: &str) -> String {
    [space.as_str(), bucket, key].join("\0")
}
