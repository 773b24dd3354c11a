//! The rows of a collection in the order of their numbers, wherever they are: in the index, or in manifests.
//!
//! Some numbers are read at a time: first the index, then what has left it. A row that leaves the index in between is in
//! a manifest by the time these are read, and manifests that came into use since are looked at anew.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use bson::RawDocumentBuf;
use futures::stream::{BoxStream, Peekable};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::documents::{Direction, Filter, Scan, raw_bson, whole_raw};
use crate::records::{Manifests, RecordIndex, Row, Scope, int};
use crate::{Error, Result};

/// Numbers that are read at a time.
const RANGE: i64 = 256;

/// The log of a collection, as a handle sees it.
pub(super) struct Log {
    pub(super) index: Arc<RecordIndex>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) scope: Scope,
}

struct Reading {
    log: Log,
    after: i64,
    up_to: i64,
    ready: VecDeque<RawDocumentBuf>,
    /// What has left the index, as of a number of changes of the manifests.
    left: Option<(i64, Left)>,
}

type Left = Pin<Box<Peekable<BoxStream<'static, Result<Row>>>>>;

/// The rows behind `after`, up to `up_to`, which must be settled.
pub(super) fn rows(log: Log, after: i64, up_to: i64) -> BoxStream<'static, Result<RawDocumentBuf>> {
    let reading = Reading { log, after, up_to, ready: VecDeque::new(), left: None };
    futures::stream::try_unfold(reading, |mut reading| async move {
        while reading.ready.is_empty() && reading.after < reading.up_to {
            reading.read_on().await?;
        }
        Ok(reading.ready.pop_front().map(|row| (row, reading)))
    })
    .boxed()
}

impl Reading {
    async fn read_on(&mut self) -> Result<()> {
        let Log { index, scope, .. } = &self.log;
        let end = self.up_to.min(self.after.saturating_add(RANGE));
        let numbers = Filter::gt("cv", int(self.after)).and(Filter::lte("cv", int(end)));
        let scan = Scan {
            filter: scope.narrow(numbers),
            order: vec![("cv".into(), Direction::Ascending)],
            ..Scan::default()
        };
        let mut found = BTreeMap::new();
        let mut stored = index.documents.scan_stored(&index.names.ver, scan);
        while let Some(row) = stored.try_next().await? {
            found.insert(number_of(&row)?, row);
        }
        drop(stored);
        self.add_left(end, &mut found).await?;
        self.ready.extend(found.into_values());
        self.after = end;
        Ok(())
    }

    /// Adds the rows up to `end` that have left the index.
    async fn add_left(&mut self, end: i64, found: &mut BTreeMap<i64, RawDocumentBuf>) -> Result<()> {
        let Log { manifests, scope, .. } = &self.log;
        let live = manifests.entries(scope).await?;
        if live.entries.is_empty() {
            return Ok(());
        }
        if self.left.as_ref().is_none_or(|(seq, _)| *seq != live.seq) {
            let rows = manifests.by_cv(scope, self.after).peekable();
            self.left = Some((live.seq, Box::pin(rows)));
        }
        let Some((_, rows)) = &mut self.left else { return Ok(()) };
        while let Some(next) = rows.as_mut().peek().await {
            if next.as_ref().is_ok_and(|row| row.cv > end) {
                break;
            }
            let Some(row) = rows.try_next().await? else { break };
            if row.cv > self.after {
                found.entry(row.cv).or_insert_with(|| row.stored());
            }
        }
        Ok(())
    }
}

fn number_of(row: &RawDocumentBuf) -> Result<i64> {
    let cv = raw_bson::get(row, "cv")?.and_then(whole_raw);
    cv.ok_or_else(|| Error::database("a version row has no number"))
}
