//! A committed version on its way into the object storage.

use crate::Timestamp;
use crate::records::model::{BlobRef, Head, ItemId, Row};
use bson::oid::ObjectId;
use std::sync::Arc;

/// What a version takes beside its payload and index entry: names, keys, checksums, allocations.
const OVERHEAD_BYTES: usize = 1_024;

/// A committed version on its way into the object storage.
pub(crate) struct Version {
    pub(crate) version: (Row, Head),
    pub(crate) entry: Entry,
}

/// What is known of a version without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) row_id: ObjectId,
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) since: Timestamp,
    /// Whether this process committed it.
    pub(crate) own: bool,
    /// Bytes of what is put.
    pub(crate) bytes: usize,
    /// Bytes of the memory for waiting versions.
    pub(super) weight: usize,
}

impl Entry {
    /// Its payload no longer counts.
    pub(crate) fn forget_weight(&mut self) {
        self.weight = 0;
    }
}

impl Version {
    pub(crate) fn new(row: Row, head: Head, own: bool) -> Self {
        let since = row.unflushed_since.unwrap_or_default();
        let bytes = row.inline.as_ref().map_or(0, |bytes| bytes.len())
            + row.inline_objects.iter().map(|object| object.bytes.len()).sum::<usize>();
        let entry = Entry { row_id: row.row_id, id: row.id, ov: row.ov, since, own, bytes, weight: 0 };
        Self { version: (row, head), entry }
    }

    pub(crate) fn row(&self) -> &Row {
        &self.version.0
    }

    /// Lets go of the payload, which is stored by now.
    pub(crate) fn strip(&mut self) {
        self.version.0.inline = None;
        self.version.0.inline_objects = Vec::new();
    }

    pub(super) fn weigh(&self) -> usize {
        let (row, head) = &self.version;
        let refs = |refs: &[BlobRef]| -> usize {
            refs.iter()
                .map(|r| {
                    r.path.len()
                        + r.bucket.len()
                        + r.blob_key.len()
                        + r.text_key.as_ref().map_or(0, String::len)
                        + 96
                })
                .sum()
        };
        let inline_objects: usize =
            row.inline_objects.iter().map(|object| object.bytes.len() + object.key.len() + 128).sum();
        let shadow = head.shadow.as_ref().map(|shadow| &shadow.bytes);
        // The head of a fresh version shares the payload and the index entry with its row.
        let shadow =
            shadow.filter(|bytes| row.inline.as_ref().is_none_or(|inline| inline.as_ptr() != bytes.as_ptr()));
        let indexed = if Arc::ptr_eq(&row.meta.indexed, &head.meta.indexed) {
            0
        } else {
            head.meta.indexed.as_bytes().len()
        };
        OVERHEAD_BYTES
            + size_of::<Self>()
            + row.inline.as_ref().map_or(0, bytes::Bytes::len)
            + inline_objects
            + shadow.map_or(0, bytes::Bytes::len)
            + row.meta.indexed.as_bytes().len()
            + indexed
            + refs(&row.meta.refs)
            + refs(&head.meta.refs)
    }
}
