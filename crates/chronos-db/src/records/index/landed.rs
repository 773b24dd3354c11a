//! Whether an operation whose answer was lost took place.

use bson::oid::ObjectId;
use futures::TryStreamExt as _;

use super::{RecordIndex, without_content};
use crate::Result;
use crate::documents::{Direction, Filter, Scan};
use crate::records::model::{ItemId, int};

/// What the rows of an item say of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// It made one of them.
    Yes,
    No,
    /// Rows that could tell are gone from the index.
    Unknown,
}

impl RecordIndex {
    /// Looks among the versions of an item behind `after` and up to `newest` for that of an operation.
    pub(crate) async fn landed(
        &self,
        id: ItemId,
        operation: ObjectId,
        after: i64,
        newest: i64,
    ) -> Result<Landed> {
        let versions = Filter::And(vec![
            Filter::eq("itemId", id.bson()),
            Filter::gt("ov", int(after)),
            Filter::lte("ov", int(newest)),
        ]);
        let mut rows = self.scan_rows(Scan {
            filter: versions,
            order: vec![("ov".into(), Direction::Ascending)],
            without: without_content(),
            ..Scan::default()
        });
        let mut missing = newest - after;
        while let Some(row) = rows.try_next().await? {
            if row.operation == Some(operation) {
                return Ok(Landed::Yes);
            }
            missing -= 1;
        }
        Ok(if missing > 0 { Landed::Unknown } else { Landed::No })
    }
}
