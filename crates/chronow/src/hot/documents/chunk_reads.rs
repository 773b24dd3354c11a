//! Chunks, from memory or read.

use std::collections::HashMap;
use std::sync::Arc;

use bson::{Bson, Document};
use chronos_db::documents::Scan;

use super::chunk::Chunk;
use super::fields::ascending;
use super::keys::{chunk_id, chunks_between};
use super::store::Engine;
use crate::Result;

/// The largest number that fits the padding of names.
const MAX_SEQUENCE: i64 = 9_999_999_999_999_999;

impl Engine {
    /// The chunks with these last sequence numbers, remembered or read.
    pub(super) async fn chunks(
        &self,
        topic: &str,
        lasts: impl IntoIterator<Item = i64>,
    ) -> Result<HashMap<i64, Arc<Chunk>>> {
        let (mut found, mut missing) = (HashMap::new(), Vec::new());
        for last in lasts {
            match self.chunks.get(topic, last) {
                Some(chunk) => drop(found.insert(last, chunk)),
                None => missing.push(Bson::String(chunk_id(topic, last))),
            }
        }
        if !missing.is_empty() {
            for chunk in self.documents.get(&self.collections.messages, missing).await? {
                let chunk = Arc::new(Chunk::read(chunk)?);
                if !chunk.void {
                    self.chunks.insert(topic, chunk.clone());
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
