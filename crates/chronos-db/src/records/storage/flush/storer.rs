//! Storing single versions, and noting that they are stored.

use std::collections::HashMap;
use std::sync::Arc;

use super::queue::FlushQueue;
use super::version::Version;
use crate::Result;
use crate::documents::{Batch, Guard, Outcome, Write};
use crate::objects::{PutMode, PutOptions};
use crate::records::index::RecordIndex;
use crate::records::model::{Head, ItemId, Op, Row, State};
use crate::records::storage::eraser::Eraser;
use crate::records::storage::payload_store::PayloadStore;

/// What the flusher and its worker share.
pub(crate) struct Storer {
    pub(super) index: Arc<RecordIndex>,
    payloads: Arc<PayloadStore>,
    eraser: Arc<Eraser>,
    pub(super) queue: FlushQueue,
}

impl Storer {
    pub(super) fn new(index: Arc<RecordIndex>, payloads: Arc<PayloadStore>, eraser: Arc<Eraser>) -> Self {
        let queue = FlushQueue::new(&index.settings.writes);
        Self { index, payloads, eraser, queue }
    }

    /// Versions written down as stored together, unless there is nothing to wait for.
    pub(super) fn batch_size(&self) -> usize {
        self.index.settings.writes.batch_size as usize
    }

    /// Notes that these versions are stored.
    pub(super) async fn record_group<'a>(&self, group: impl Iterator<Item = &'a Version>) -> Result<()> {
        self.index.env.fail.hit("flush.after_put")?;
        self.record_stored(group.map(|version| &version.version)).await?;
        self.index.env.fail.hit("flush.after_record")
    }

    pub(super) async fn put_objects(&self, row: &Row) -> Result<()> {
        self.index.env.fail.hit("flush.before_put")?;
        if row.op == Op::Erase {
            return self.eraser.erase(row).await;
        }
        for object in &row.inline_objects {
            let options =
                PutOptions { content_type: Some(object.content_type.clone()), ..PutOptions::default() };
            self.payloads.bucket(&object.bucket)?.put(&object.key, object.bytes.clone(), options).await?;
        }
        if !row.inline_objects.is_empty() {
            self.index.env.fail.hit("flush.after_blobs")?;
        }
        if let (Some(bytes), Some(bucket), Some(key)) =
            (&row.inline, &row.meta.payload.bucket, &row.meta.payload.key)
        {
            let put = self.payloads.put_json(bucket, key, bytes, PutMode::Overwrite).await;
            if !self.index.env.fail.skips("guard.put") {
                put?;
            }
        }
        Ok(())
    }

    async fn record_stored<'a>(&self, stored: impl Iterator<Item = &'a (Row, Head)>) -> Result<()> {
        let mut batch = Batch::new();
        let mut newest: HashMap<ItemId, (&Row, &Head)> = HashMap::new();
        let mut rows = Vec::new();
        for (row, head) in stored {
            rows.push(row);
            let since = row.unflushed_since;
            let mut done =
                Row { inline: None, inline_objects: Vec::new(), unflushed_since: None, ..row.clone() };
            done.meta.payload.state = State::New;
            let guard = Guard::Equals {
                field: "unflushedSince".into(),
                value: since.map_or(bson::Bson::Null, Into::into),
            };
            batch.push(&self.index.names.ver, Write::put(done.stored(), guard));
            if row.op != Op::Erase
                && head.is_of(row)
                && newest.get(&head.id).is_none_or(|(other, _)| other.cv < row.cv)
            {
                newest.insert(head.id, (row, head));
            } else if newest.get(&row.id).is_some_and(|(other, _)| other.cv < row.cv) {
                newest.remove(&row.id);
            }
        }
        for (row, head) in newest.into_values() {
            let mut head = head.clone();
            head.meta.payload.state = State::New;
            let guard = head.unchanged();
            head.row = Some(row.row_id);
            batch.push(&self.index.names.head, Write::put(head.stored(), guard));
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        let outcomes = self.index.documents.apply(batch).await?;
        // Another process has stored it, or the item was erased while its object was put.
        let refused: Vec<&Row> = rows
            .into_iter()
            .zip(outcomes)
            .filter(|(_, outcome)| *outcome == Outcome::Refused)
            .map(|(row, _)| row)
            .collect();
        if refused.is_empty() { Ok(()) } else { self.eraser.take_back(&refused).await }
    }
}
