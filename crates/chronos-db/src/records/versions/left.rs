//! Rows that have left the index, in the order of their numbers.

use std::pin::Pin;

use futures::stream::{BoxStream, Peekable};
use futures::{StreamExt as _, TryStreamExt as _};

use super::Versions;
use crate::Result;
use crate::records::index::scope::Scope;
use crate::records::model::{Op, Row};

/// Reads them piece by piece. Each piece must be asked for after the index was read up to the same number:
/// what it no longer had is in a manifest by then.
#[derive(Default)]
pub(crate) struct LeftRows {
    under_way: Option<UnderWay>,
}

struct UnderWay {
    /// Which manifests were in use.
    seq: i64,
    position: i64,
    rows: Peekable<BoxStream<'static, Result<Row>>>,
}

impl LeftRows {
    /// The rows behind `after` up to `up_to` that `scope` sees, `most` at most.
    pub(crate) async fn read(
        &mut self,
        versions: &Versions,
        scope: &Scope,
        after: i64,
        up_to: i64,
        most: usize,
    ) -> Result<Vec<Row>> {
        let live = versions.manifests.entries(scope).await?;
        if live.entries.is_empty() {
            self.under_way = None;
            return Ok(Vec::new());
        }
        let goes_on = |under_way: &UnderWay| under_way.position == after && under_way.seq == live.seq;
        let mut under_way = match self.under_way.take().filter(goes_on) {
            Some(under_way) => under_way,
            None => {
                let rows = versions.manifests.by_cv(scope, after).peekable();
                UnderWay { seq: live.seq, position: after, rows }
            }
        };
        let mut found = Vec::new();
        under_way.position = up_to;
        loop {
            match Pin::new(&mut under_way.rows).peek().await {
                None => break,
                Some(Ok(row)) if row.cv > up_to => break,
                Some(_) => {}
            }
            let Some(row) = under_way.rows.try_next().await? else { break };
            debug_assert!(row.op != Op::Void, "a number that no version took is of no manifest");
            under_way.position = row.cv;
            found.push(row);
            if found.len() == most {
                break;
            }
            under_way.position = up_to;
        }
        self.under_way = Some(under_way);
        Ok(found)
    }
}
