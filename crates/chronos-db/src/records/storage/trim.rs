//! Where versions are not kept: removing superseded rows and their objects.

use crate::records::index::RecordIndex;
use crate::records::storage::payload_store::PayloadStore;
use crate::records::write::watermark::Watermark;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::Bson;
use futures::TryStreamExt as _;

use crate::documents::filter::Test;
use crate::documents::{Batch, Direction, Filter, Guard, Scan, Write};
use crate::records::index::scope::Scope;
use crate::records::model::{Op, Row, int};
use crate::{Result, Timestamp};

/// How far those are that derive something from rows, and would miss them.
#[async_trait]
pub(crate) trait FollowerPositions: Send + Sync {
    /// Up to which number all are past the rows of every tenant.
    fn common(&self) -> i64;

    /// Up to which number all are past the rows of this tenant.
    async fn of_tenant(&self, tenant: &str) -> Result<i64>;
}

/// Removes superseded versions.
pub(crate) struct Trimmer {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) watermark: Arc<Watermark>,
}

impl Trimmer {
    pub(crate) fn new(
        index: &Arc<RecordIndex>,
        payloads: &Arc<PayloadStore>,
        watermark: &Arc<Watermark>,
    ) -> Self {
        Self { index: Arc::clone(index), payloads: Arc::clone(payloads), watermark: Arc::clone(watermark) }
    }

    /// Removes the rows that head and objects are past, and superseded objects. A row stays for `grace` after
    /// it was written, so that it still decides the race against a writer that read the head before. Returns
    /// how many rows went, of those that `scope` sees. What `followed` is not past stays, and so does a row that
    /// names objects where no object storage is configured (any more): nothing else knows of these.
    ///
    /// What a head names stays. A later head cannot name what is superseded here: each follows the one before
    /// by compare-and-swap, takes over its references alone, and is restored to its own payload alone
    /// (`write/prepare.rs`).
    pub(crate) async fn trim(
        self: &Arc<Self>,
        grace: Duration,
        followed: &dyn FollowerPositions,
        scope: &Scope,
    ) -> Result<u64> {
        // Numbers below the mark need no row any more; above it a missing one would be taken for a gap.
        let stable = self.watermark.settled_cv().await?.min(followed.common());
        let now = self.index.documents.now().await?;
        let written_before = now.minus(grace);
        let mut after: Option<Vec<Bson>> = None;
        let mut removed = 0;
        // Up to where those are that follow each tenant's rows.
        let mut counted = HashMap::<String, i64>::new();
        // What is left of erased items stays.
        let goes = Filter::Field(
            "op".into(),
            Test::Nin([Op::Erase, Op::Erased].map(|op| op.as_str().into()).to_vec()),
        );
        loop {
            let scan = Scan {
                // VOIDs are nobody's, and go with whatever is trimmed.
                filter: Filter::lte("cv", int(stable))
                    .and(goes.clone())
                    .and(Filter::Or(vec![scope.narrow(Filter::All), Filter::eq("op", Op::Void.as_str())])),
                order: vec![("cv".into(), Direction::Ascending)],
                after: after.take(),
                limit: Some(self.index.settings.heads_at_once() as u64),
                without: vec!["inline".into(), "riders".into()],
                ..Scan::default()
            };
            let rows: Vec<Row> = self.index.scan_rows(scan).try_collect().await?;
            let Some(last) = rows.last() else { return Ok(removed) };
            after = Some(vec![int(last.cv)]);
            let heads = self.index.heads(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
            self.index.env.fail.hit("trim.after_heads")?;
            ask_followers(followed, &rows, &mut counted).await?;
            let mut batch = Batch::new();
            for row in rows {
                let written = Timestamp::from(row.row_id.timestamp());
                let counted = row.meta.tenant.as_deref().and_then(|tenant| counted.get(tenant));
                if row.unflushed_since.is_some()
                    || written > written_before
                    || counted.is_some_and(|counted| row.cv > *counted)
                    || self.payloads.buckets.is_none() && row.meta.objects().next().is_some()
                {
                    continue;
                }
                let head = heads.get(&row.id);
                // Its head is still to come.
                if row.op != Op::Void && head.is_none_or(|head| head.cv < row.cv) {
                    continue;
                }
                let needed = head.is_some_and(|head| head.meta.payload.ov == row.ov);
                // Without object storage the head's payload is in this row alone, unless it is in the head.
                let is_held = head.is_some_and(|head| head.inline.is_some());
                if needed && !is_held && row.op != Op::Void && self.payloads.buckets.is_none() {
                    continue;
                }
                if !needed && row.op != Op::Void && row.meta.payload.ov == row.ov {
                    self.payloads.remove_objects(&row, head).await?;
                }
                batch.push(&self.index.names.ver, Write::Delete { id: row.row_id.into(), guard: Guard::Any });
                removed += u64::from(row.op != Op::Void || !scope.is_one_of_several());
            }
            if !batch.operations.is_empty() {
                self.index.documents.apply(batch).await?;
            }
        }
    }
}

/// Adds how far those are that follow the tenants of these rows, where that is not known yet.
async fn ask_followers(
    followed: &dyn FollowerPositions,
    rows: &[Row],
    counted: &mut HashMap<String, i64>,
) -> Result<()> {
    for tenant in rows.iter().filter_map(|row| row.meta.tenant.as_deref()) {
        if !counted.contains_key(tenant) {
            counted.insert(tenant.to_owned(), followed.of_tenant(tenant).await?);
        }
    }
    Ok(())
}
