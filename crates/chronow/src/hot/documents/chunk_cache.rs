//! The chunks that this process read lately.

use std::collections::BTreeSet;
use std::sync::Arc;

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::chunk::Chunk;

/// Chunks that are remembered, and about how many bytes of them.
const CACHED_CHUNKS: usize = 64;
const CACHED_BYTES: usize = 16 * 1024 * 1024;

/// A topic, and the last sequence number of a chunk.
type Key = (String, i64);

/// The chunks that were read lately. They are immutable, so they need not be read again.
pub(super) struct ChunkCache {
    chunks: Cache<Key, Arc<Chunk>>,
    /// The keys of `chunks` in their order, to find the chunk that holds a sequence number.
    order: Arc<Mutex<BTreeSet<Key>>>,
}

chronos_db::debug_some!(ChunkCache {});

impl Default for ChunkCache {
    fn default() -> Self {
        let order = Arc::<Mutex<BTreeSet<Key>>>::default();
        let ordered = Arc::clone(&order);
        let chunks = Cache::builder()
            .max_capacity(CACHED_BYTES as u64)
            // None counts for less than its share, which bounds their number, too.
            .weigher(|_, chunk: &Arc<Chunk>| {
                u32::try_from(chunk.size().max(CACHED_BYTES / CACHED_CHUNKS)).unwrap_or(u32::MAX)
            })
            // Consumers move on: a chunk that was asked for often will not be asked for again.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |key, _, cause| {
                if cause != RemovalCause::Replaced {
                    ordered.lock().remove(&*key);
                }
            })
            .build();
        Self { chunks, order }
    }
}

impl ChunkCache {
    pub(super) fn insert(&self, topic: &str, chunk: Arc<Chunk>) {
        let key = (topic.to_owned(), chunk.last);
        // Before the chunk, so that none that is pushed out meanwhile leaves its key behind. One whose key is
        // removed because it was pushed out before is only not found by its numbers.
        self.order.lock().insert(key.clone());
        self.chunks.insert(key, chunk);
        // The bound holds now, not when the cache next finds the time.
        self.chunks.run_pending_tasks();
    }

    pub(super) fn get(&self, topic: &str, last: i64) -> Option<Arc<Chunk>> {
        self.chunks.get(&(topic.to_owned(), last))
    }

    /// The chunk that holds a sequence number.
    pub(super) fn holding(&self, topic: &str, sequence: i64) -> Option<Arc<Chunk>> {
        let (from, to) = ((topic.to_owned(), sequence), (topic.to_owned(), i64::MAX));
        let key = self.order.lock().range(from..=to).next().cloned()?;
        self.chunks.get(&key).filter(|chunk| chunk.first <= sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chronos_db::Timestamp;

    use super::super::chunk::{Body, Chunk};
    use super::{CACHED_BYTES, CACHED_CHUNKS, ChunkCache};
    use crate::hot::OutboundMessage;

    fn chunk(first: i64, last: i64, bytes: usize) -> Arc<Chunk> {
        let at = Timestamp::from_millis(0);
        let message = OutboundMessage { payload: vec![0; bytes].into(), ..OutboundMessage::default() };
        let body = Arc::new(Body::of(&message, String::new(), at, None));
        Arc::new(Chunk { void: false, slots: vec![Some(body)], ..Chunk::void(first, last, at) })
    }

    #[test]
    fn a_chunk_is_found_by_each_of_its_numbers_and_in_its_topic_alone() {
        let cache = ChunkCache::default();
        cache.insert("t", chunk(1, 10, 0));
        cache.insert("t", chunk(21, 30, 0));
        let holding = |topic: &str, sequence| cache.holding(topic, sequence).map(|chunk| chunk.last);
        assert_eq!([1, 10, 21, 30].map(|n| holding("t", n)), [10, 10, 30, 30].map(Some));
        assert_eq!([0, 11, 20, 31].map(|n| holding("t", n)), [None; 4]);
        assert_eq!((holding("s", 5), holding("u", 5)), (None, None));
        assert_eq!(cache.get("t", 30).map(|chunk| chunk.first), Some(21));
        assert!(cache.get("t", 29).is_none() && cache.get("s", 30).is_none());
    }

    #[test]
    fn the_chunks_used_last_stay_within_the_bounds() {
        let cache = ChunkCache::default();
        let count = CACHED_CHUNKS as i64;
        for n in 1..=count {
            cache.insert("t", chunk(n, n, 0));
        }
        assert!(cache.get("t", 1).is_some());
        cache.insert("t", chunk(count + 1, count + 1, 0));
        assert!(cache.get("t", 1).is_some() && cache.get("t", 2).is_none());
        assert_eq!(cache.order.lock().len(), CACHED_CHUNKS);
        cache.insert("large", chunk(1, 1, CACHED_BYTES / 2));
        assert!(cache.holding("large", 1).is_some());
        assert!(cache.order.lock().len() <= CACHED_CHUNKS / 2 + 1);
        cache.insert("too large", chunk(1, 1, CACHED_BYTES));
        assert!(cache.holding("too large", 1).is_none());
        assert_eq!(cache.order.lock().len() as u64, cache.chunks.entry_count());
    }

    #[test]
    fn a_chunk_that_is_read_again_is_one() {
        let cache = ChunkCache::default();
        cache.insert("t", chunk(1, 1, 0));
        cache.insert("t", chunk(1, 1, 0));
        assert!(cache.holding("t", 1).is_some());
        assert_eq!((cache.order.lock().len(), cache.chunks.entry_count()), (1, 1));
    }
}
