//! The versions of a collection with everything that belongs to them, in the order of their numbers.

use std::sync::Arc;

use bson::RawDocumentBuf;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::member::{Blob, Entry, check_length};
use crate::documents::{Direction, Filter, Scan, raw_bson};
use crate::records::{
    BlobRef, Head, LeftRows, LogAsk, LogRow, PayloadStore, Reader, RecordIndex, Row, Scope, Versions,
    check_payload, unpacked,
};
use crate::{Error, ErrorKind, Result};

/// So much of the log is read at once: rows may have their payloads in them.
const PIECE_ROWS: usize = 256;
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Payloads that are read at once.
const PARALLEL: usize = 16;
/// The media type of a text rendition.
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// The versions that a handle sees.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) index: Arc<RecordIndex>,
    pub(super) payloads: Arc<PayloadStore>,
    pub(super) versions: Arc<Versions>,
    pub(super) scope: Scope,
}

impl Source {
    /// The rows behind `after`, up to `up_to`, which must be settled, with what belongs to them.
    pub(super) fn entries(&self, after: i64, up_to: i64) -> BoxStream<'static, Result<Entry>> {
        let source = self.clone();
        let entries = self.rows(after, up_to).map_ok(move |stored| {
            let source = source.clone();
            async move { source.entry(stored).await }
        });
        entries.try_buffered(PARALLEL).boxed()
    }

    /// The rows alone, as they are stored.
    fn rows(&self, after: i64, up_to: i64) -> BoxStream<'static, Result<RawDocumentBuf>> {
        let begin = (self.clone(), LeftRows::default(), after);
        let pieces = stream::try_unfold(begin, move |(source, mut left, after)| async move {
            if after >= up_to {
                return Ok::<_, Error>(None);
            }
            let ask =
                LogAsk { filter: Filter::All, without: Vec::new(), rows: PIECE_ROWS, bytes: PIECE_BYTES };
            let piece = source.versions.log(&source.scope, (after, up_to), &ask, Some(&mut left)).await?;
            let rows = piece.rows.into_iter().map(|(_, row)| match row {
                LogRow::Kept(stored) => stored,
                LogRow::Left(row) => row.stored(),
            });
            let rows: Vec<_> = rows.map(Ok).collect();
            Ok(Some((stream::iter(rows), (source, left, piece.to))))
        });
        pieces.try_flatten().boxed()
    }

    /// The latest state of every item, in the order of its number: of a collection that keeps no versions. An item
    /// that is written meanwhile is there as it was at some moment, once or twice.
    pub(super) fn state(&self, reader: &Arc<Reader>) -> BoxStream<'static, Result<Entry>> {
        let scan = Scan {
            filter: self.scope.narrow(Filter::All),
            order: vec![("cv".into(), Direction::Ascending)],
            without: vec!["fullShadow".into()],
            ..Scan::default()
        };
        let (source, reader) = (self.clone(), Arc::clone(reader));
        let entries = self.index.scan_heads(scan).map_ok(move |head| {
            let (source, reader) = (source.clone(), Arc::clone(&reader));
            async move { source.entry_of_head(head, &reader).await }
        });
        entries.try_buffered(PARALLEL).try_filter_map(|entry| async move { Ok(entry) }).boxed()
    }

    /// None if the item is erased, or comes again with a higher number.
    async fn entry_of_head(&self, head: Head, reader: &Reader) -> Result<Option<Entry>> {
        if head.erased {
            return Ok(None);
        }
        let row = head.as_row();
        let read = async {
            let item = reader.payload(&head).await?;
            let mut blobs = Vec::new();
            for blob in &row.meta.refs {
                for (bucket, key) in blob.objects() {
                    blobs.push(self.blob_of_state(&row, blob, bucket, key).await?);
                }
            }
            check_length(item.len(), blobs.iter().map(|blob: &Blob| blob.bytes.len()))?;
            Ok((item, blobs))
        };
        let mut entry = bare(&row.stored())?;
        entry.created_at = Some(head.created_at);
        match read.await {
            Ok((item, blobs)) => (entry.item, entry.blobs) = (Some(item), blobs),
            Err(error) if is_damage(&error) => {
                let now = self.index.head(head.id).await?;
                if now.is_none_or(|now| now.erased || now.cv != head.cv) {
                    return Ok(None);
                }
                entry.damage = Some(error.message().to_owned());
            }
            Err(error) => return Err(error),
        }
        Ok(Some(entry))
    }

    /// An object that may still wait in the row that brought it.
    async fn blob_of_state(&self, row: &Row, blob: &BlobRef, bucket: &str, key: &str) -> Result<Blob> {
        match self.blob(row, blob, bucket, key).await {
            Err(error) if is_damage(&error) => {
                let scan = Scan { filter: Filter::eq("itemId", row.id.bson()), ..Scan::default() };
                let mut rows = self.index.scan_rows(scan);
                while let Some(row) = rows.try_next().await? {
                    if row.inline_objects.iter().any(|rides| rides.bucket == bucket && rides.key == key) {
                        return self.blob(&row, blob, bucket, key).await;
                    }
                }
                Err(error)
            }
            found => found,
        }
    }

    async fn entry(&self, stored: RawDocumentBuf) -> Result<Entry> {
        let row = match Row::read(&stored) {
            Ok(row) => row,
            Err(error) => return damaged(&stored, error.message().to_owned()),
        };
        match self.of_row(&stored, &row).await {
            Err(error) if is_damage(&error) => {
                // Erased since it was read, it is not damaged.
                let now =
                    self.index.documents.get_stored(&self.index.names.ver, vec![row.row_id.into()]).await?;
                match now.first().map(|now| (now, Row::read(now))) {
                    Some((now, Ok(read))) if read.op.is_bare() => bare(now),
                    _ => damaged(&stored, error.message().to_owned()),
                }
            }
            entry => entry,
        }
    }

    async fn of_row(&self, stored: &RawDocumentBuf, row: &Row) -> Result<Entry> {
        let mut entry = bare(stored)?;
        let payload = &row.meta.payload;
        if row.op.is_bare() || payload.ov != row.ov {
            return Ok(entry);
        }
        let item = match &row.inline {
            Some(bytes) => bytes.clone(),
            None => {
                let stored = self.object(payload.bucket.as_deref(), payload.key.as_deref()).await?;
                unpacked(stored, payload).await?
            }
        };
        check_payload(&item, payload)?;
        let length = item.len();
        entry.item = Some(item);
        // What an earlier version stored came with that one.
        let own = format!("/v{}/", row.ov);
        for blob in row.meta.refs.iter().filter(|blob| blob.blob_key.contains(&own)) {
            for (bucket, key) in blob.objects() {
                entry.blobs.push(self.blob(row, blob, bucket, key).await?);
            }
        }
        check_length(length, entry.blobs.iter().map(|blob| blob.bytes.len()))?;
        Ok(entry)
    }

    async fn blob(&self, row: &Row, blob: &BlobRef, bucket: &str, key: &str) -> Result<Blob> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        if let Some(rides) =
            row.inline_objects.iter().find(|rides| rides.bucket == bucket && rides.key == key)
        {
            let (content_type, bytes) = (rides.content_type.clone(), rides.bytes.clone());
            return Ok(Blob { bucket, key, content_type, bytes });
        }
        let bytes = self.object(Some(&bucket), Some(&key)).await?;
        let content_type = if blob.text_key.as_ref() == Some(&key) {
            TEXT_TYPE.to_owned()
        } else {
            self.content_type(&blob.path)
        };
        Ok(Blob { bucket, key, content_type, bytes })
    }

    /// The media type of the property at a path, as the configuration has it: the storage does not tell.
    fn content_type(&self, path: &str) -> String {
        let is_number = |segment: &&str| segment.bytes().all(|byte| byte.is_ascii_digit());
        let segments: Vec<&str> = path.split('.').filter(|segment| !is_number(segment)).collect();
        let declared = &self.index.settings.map.base64;
        let found = declared.iter().find(|(declared, _)| {
            declared.split('.').map(|segment| segment.trim_end_matches("[]")).eq(segments.iter().copied())
        });
        found.map_or_else(
            || "application/octet-stream".to_owned(),
            |(_, property)| property.content_type.clone(),
        )
    }

    async fn object(&self, bucket: Option<&str>, key: Option<&str>) -> Result<Bytes> {
        let (Some(bucket), Some(key)) = (bucket, key) else {
            return Err(Error::not_found("the payload is neither in its row nor in an object storage"));
        };
        let missing = || Error::not_found(format!("the object `{key}` is missing in bucket `{bucket}`"));
        self.payloads.bucket(bucket)?.get(key).await?.ok_or_else(missing)
    }
}

/// Whether it says what is wrong with one version, rather than that a store does not answer.
fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::Storage && !error.is_retryable()
}

/// A row alone, without what is only there until it is stored elsewhere.
pub(super) fn bare(stored: &RawDocumentBuf) -> Result<Entry> {
    let row = raw_bson::leave_out(stored, |field| matches!(field, "inline" | "riders" | "unflushedSince"))?;
    Ok(Entry { row, item: None, blobs: Vec::new(), damage: None, created_at: None })
}

fn damaged(stored: &RawDocumentBuf, message: String) -> Result<Entry> {
    Ok(Entry { damage: Some(message), ..bare(stored)? })
}
