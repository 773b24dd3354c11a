//! Removing what must go: erased items, superseded versions where none are kept, objects whose commit never came.

use std::sync::Arc;

use bson::{Bson, doc};
use futures::TryStreamExt as _;

use super::engine::Engine;
use super::model::{ItemId, Op, Row};
use super::scope::{Scope, TENANT};
use crate::documents::{Batch, Direction, Filter, Guard, Scan, Write};
use crate::objects::keys;
use crate::{Result, Timestamp};

/// Documents per round.
const ROUND: u64 = 256;

impl Engine {
    /// Writes down that an object will be stored under `key` before its commit.
    pub(crate) async fn note(&self, bucket: &str, key: &str, id: ItemId, ov: i64, tenant: Option<&str>) -> Result<()> {
        let now = self.documents.now().await?;
        let mut document =
            doc! { "_id": format!("{bucket}/{key}"), "bucket": bucket, "key": key, "itemId": id.bson(), "ov": ov, "notedAt": now };
        document.extend(tenant.map(|tenant| (TENANT.to_owned(), tenant.into())));
        let mut batch = Batch::new();
        batch.push(&self.names.gc, Write::put(document, Guard::Any));
        self.documents.apply(batch).await.map(|_| ())
    }

    /// Forgets notes of objects that their version names by now.
    pub(crate) async fn forget(&self, objects: &[(String, String)]) -> Result<()> {
        self.runtime.fail.hit("large.before_forget")?;
        let mut batch = Batch::new();
        for (bucket, key) in objects {
            batch.push(&self.names.gc, Write::Delete { id: format!("{bucket}/{key}").into(), guard: Guard::Any });
        }
        self.documents.apply(batch).await.map(|_| ())
    }

    /// Removes noted objects that no version names, if they were noted before `before` for items that `scope` sees; returns how many.
    pub(crate) async fn collect_orphans(&self, before: Timestamp, scope: &Scope) -> Result<u64> {
        let mut removed = 0;
        loop {
            let scan = Scan { filter: scope.narrow(Filter::lte("notedAt", before)), limit: Some(ROUND), ..Scan::default() };
            let notes: Vec<_> = self.documents.scan(&self.names.gc, scan).try_collect().await?;
            if notes.is_empty() {
                return Ok(removed);
            }
            for note in notes {
                let (Ok(id), Ok(bucket), Ok(key)) = (note.get_object_id("itemId"), note.get_str("bucket"), note.get_str("key")) else {
                    continue;
                };
                if !self.is_named(ItemId::new(id), bucket, key).await? {
                    self.bucket(bucket)?.delete(key).await?;
                    removed += 1;
                }
                self.runtime.fail.hit("gc.after_delete")?;
                self.forget(&[(bucket.to_owned(), key.to_owned())]).await?;
            }
        }
    }

    /// Whether a version of the item names this object. Any version: what a later one shares lies at the key of an earlier one.
    async fn is_named(&self, id: ItemId, bucket: &str, key: &str) -> Result<bool> {
        let mut rows = self.rows_of(id);
        while let Some(row) = rows.try_next().await? {
            let payload = &row.content.payload;
            let is_payload = payload.bucket.as_deref() == Some(bucket) && payload.key.as_deref() == Some(key);
            let is_blob = row.content.refs.iter().any(|r| r.bucket == bucket && (r.blob_key == key || r.text_key.as_deref() == Some(key)));
            if is_payload || is_blob {
                return Ok(true);
            }
        }
        // Without versioning the head may outlive its rows.
        Ok(self.head(id).await?.is_some_and(|head| {
            let payload = &head.content.payload;
            payload.key.as_deref() == Some(key)
                || head.content.refs.iter().any(|r| r.bucket == bucket && (r.blob_key == key || r.text_key.as_deref() == Some(key)))
        }))
    }

    fn rows_of(&self, id: ItemId) -> futures::stream::BoxStream<'static, Result<Row>> {
        let scan = Scan {
            filter: Filter::eq("itemId", id.bson()),
            order: vec![("ov".into(), Direction::Ascending)],
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        self.scan_rows(scan)
    }

    /// Removes everything below an erasure: objects under the item's prefix and under recorded keys, then rows. Resumable at any point.
    pub(crate) async fn remove_erased(&self, erasure: &Row) -> Result<()> {
        let mut rows = self.rows_of(erasure.id);
        let mut batch = Batch::new();
        while let Some(row) = rows.try_next().await? {
            if row.ov >= erasure.ov {
                continue;
            }
            self.remove_objects(&row).await?;
            batch.push(&self.names.ver, Write::Delete { id: row.row_id.into(), guard: Guard::Any });
        }
        if let Some(space) = &self.space {
            let prefix = keys::item_prefix(&self.names.collection, &erasure.id.to_string())?;
            for name in [&space.json, &space.content] {
                let bucket = self.bucket(name)?;
                let mut found = bucket.list(&prefix);
                while let Some(object) = found.try_next().await? {
                    bucket.delete(&object.key).await?;
                }
            }
        }
        self.runtime.fail.hit("erase.after_objects")?;
        if !batch.operations.is_empty() {
            self.documents.apply(batch).await?;
        }
        Ok(())
    }

    async fn remove_objects(&self, row: &Row) -> Result<()> {
        if self.space.is_none() {
            return Ok(());
        }
        let payload = &row.content.payload;
        if let (Some(bucket), Some(key)) = (&payload.bucket, &payload.key) {
            self.bucket(bucket)?.delete(key).await?;
        }
        for blob in &row.content.refs {
            let bucket = self.bucket(&blob.bucket)?;
            bucket.delete(&blob.blob_key).await?;
            if let Some(key) = &blob.text_key {
                bucket.delete(key).await?;
            }
        }
        self.cache.invalidate(&(self.number, row.id, row.ov));
        Ok(())
    }

    /// Where versions are not kept: removes the rows that head and objects are past, and superseded objects. A row stays for `grace` after it was
    /// written, so that it still decides the race against a writer that read the head before. Returns how many rows went, of those that `scope` sees.
    pub(crate) async fn trim(self: &Arc<Self>, grace: std::time::Duration, scope: &Scope) -> Result<u64> {
        // Numbers below the mark need no row any more; above it a missing one would be taken for a gap.
        let stable = self.settled_cv().await?;
        let now = self.documents.now().await?;
        let written_before = now.plus_millis(-i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let mut after: Option<Vec<Bson>> = None;
        let mut removed = 0;
        loop {
            let scan = Scan {
                // VOIDs are nobody's, and go with whatever is trimmed.
                filter: Filter::lte("cv", super::model::int(stable))
                    .and(Filter::Or(vec![scope.narrow(Filter::All), Filter::eq("op", Op::Void.as_str())])),
                order: vec![("cv".into(), Direction::Ascending)],
                after: after.take(),
                limit: Some(ROUND),
                without: vec!["inline".into(), "riders".into()],
                ..Scan::default()
            };
            let rows: Vec<Row> = self.scan_rows(scan).try_collect().await?;
            let Some(last) = rows.last() else { return Ok(removed) };
            after = Some(vec![super::model::int(last.cv)]);
            let heads = self.heads(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
            let mut batch = Batch::new();
            for row in rows {
                let written = Timestamp::from(row.row_id.timestamp());
                if row.unflushed_since.is_some() || written > written_before || row.op == Op::Erase {
                    continue;
                }
                let head = heads.get(&row.id);
                let needed = head.is_some_and(|head| head.content.payload.ov == row.ov);
                // Without object storage the payload of the head is in this row alone.
                if needed && row.op != Op::Void && (self.space.is_none() || head.is_some_and(|head| head.cv < row.cv)) {
                    continue;
                }
                if !needed && row.op != Op::Void && row.content.payload.ov == row.ov {
                    self.remove_superseded(&row, head).await?;
                }
                batch.push(&self.names.ver, Write::Delete { id: row.row_id.into(), guard: Guard::Any });
                removed += u64::from(row.op != Op::Void || !scope.is_one_of_several());
            }
            if !batch.operations.is_empty() {
                self.documents.apply(batch).await?;
            }
        }
    }

    /// The objects of a superseded version, but those the head still refers to.
    async fn remove_superseded(&self, row: &Row, head: Option<&super::model::Head>) -> Result<()> {
        let kept = head.map(|head| head.content.refs.as_slice()).unwrap_or_default();
        let mut row = row.clone();
        row.content.refs.retain(|r| !kept.iter().any(|k| k.blob_key == r.blob_key));
        self.remove_objects(&row).await
    }
}
