//! The chunks that this process read lately.

use std::collections::HashMap;
use std::sync::Arc;

use bson::{Bson, Document};
use chronos_db::documents::Scan;

use super::chunk::Chunk;
use super::fields::ascending;
use super::keys::{chunk_id, chunks_between};
use super::store::Engine;
use crate::Result;

/// Chunks that are remembered, and about how many bytes of them.
const CACHED_CHUNKS: usize = 64;
const CACHED_BYTES: usize = 16 * 1024 * 1024;

/// The largest number that fits the padding of names.
const MAX_SEQUENCE: i64 = 9_999_999_999_999_999;

impl Engine {
    // Chunks are immutable, so those that were read lately need not be read again.
    pub(super) fn remember_chunk(&self, topic: &str, chunk: Arc<Chunk>) {
        let mut chunks = self.chunks.lock();
        chunks.used += 1;
        let used = chunks.used;
        chunks.bytes += chunk.size();
        if let Some((old, _)) = chunks.known.insert((topic.to_owned(), chunk.last), (chunk, used)) {
            chunks.bytes -= old.size();
        }
        while chunks.known.len() > CACHED_CHUNKS || chunks.bytes > CACHED_BYTES {
            let Some(oldest) =
                chunks.known.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| at.clone())
            else {
                break;
            };
            if let Some((old, _)) = chunks.known.remove(&oldest) {
                chunks.bytes -= old.size();
            }
        }
    }

    /// The remembered chunk that holds a sequence number, if it was read before.
    pub(super) fn remembered_chunk(&self, topic: &str, sequence: i64) -> Option<Arc<Chunk>> {
        let mut chunks = self.chunks.lock();
        chunks.used += 1;
        let now = chunks.used;
        let (_, (chunk, used)) =
            chunks.known.range_mut((topic.to_owned(), sequence)..=(topic.to_owned(), i64::MAX)).next()?;
        if chunk.first > sequence {
            return None;
        }
        *used = now;
        Some(chunk.clone())
    }

    /// The chunks with these last sequence numbers, remembered or read.
    pub(super) async fn chunks(
        &self,
        topic: &str,
        lasts: impl IntoIterator<Item = i64>,
    ) -> Result<HashMap<i64, Arc<Chunk>>> {
        let (mut found, mut missing) = (HashMap::new(), Vec::new());
        for last in lasts {
            match self.remembered_chunk(topic, last).filter(|chunk| chunk.last == last) {
                Some(chunk) => drop(found.insert(last, chunk)),
                None => missing.push(Bson::String(chunk_id(topic, last))),
            }
        }
        if !missing.is_empty() {
            for chunk in self.documents.get(&self.collections.messages, missing).await? {
                let chunk = Arc::new(Chunk::read(chunk)?);
                if !chunk.void {
                    self.remember_chunk(topic, chunk.clone());
                }
                found.insert(chunk.last, chunk);
            }
        }
        Ok(found)
    }

    /// Chunks behind a sequence number in order, as stored; without their messages if only counts are wanted.
    pub(super) async fn chunks_behind(
        &self,
        topic: &str,
        sequence: i64,
        limit: u64,
        whole: bool,
    ) -> Result<Vec<Document>> {
        let scan = Scan {
            filter: chunks_between(topic, sequence, MAX_SEQUENCE),
            order: ascending(&["_id"]),
            limit: Some(limit),
            without: if whole { Vec::new() } else { vec!["m".to_owned()] },
            ..Scan::default()
        };
        self.scan(&self.collections.messages, scan).await
    }
}
