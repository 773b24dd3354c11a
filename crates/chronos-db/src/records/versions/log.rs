//! The rows of a collection in the order of their numbers, wherever they are: in the index, or in manifests.
//!
//! A piece is read at a time: first the index, then what has left it. A row that leaves the index in between is in a
//! manifest by the time these are read.

use std::collections::HashSet;

use bson::RawDocumentBuf;
use futures::TryStreamExt as _;

use super::Versions;
use super::left::LeftRows;
use crate::documents::{Direction, Filter, Scan, raw_bson, whole_raw};
use crate::records::index::scope::Scope;
use crate::records::model::{Row, int};
use crate::{Error, Result};

/// What is wanted of a log, and how much of it at once.
pub(crate) struct LogAsk {
    /// Of the rows of the index, those that match. What has left it matches all.
    pub(crate) filter: Filter,
    /// Properties of these rows that are not wanted.
    pub(crate) without: Vec<String>,
    pub(crate) rows: usize,
    /// At most one row beyond it.
    pub(crate) bytes: usize,
}

/// A row of a log.
pub(crate) enum LogRow {
    /// As the index has it.
    Kept(RawDocumentBuf),
    /// As a manifest has it.
    Left(Box<Row>),
}

/// Some rows that follow each other, by number.
pub(crate) struct LogPiece {
    pub(crate) rows: Vec<(i64, LogRow)>,
    /// The number up to which this is everything.
    pub(crate) to: i64,
}

impl Versions {
    /// The rows behind `after` that `scope` sees, up to `up_to` or as many as are asked for at once; both numbers
    /// must be settled. Without `left` only the index is read.
    pub(crate) async fn log(
        &self,
        scope: &Scope,
        (after, up_to): (i64, i64),
        ask: &LogAsk,
        left: Option<&mut LeftRows>,
    ) -> Result<LogPiece> {
        let mut piece = self.log_in_index(scope, (after, up_to), ask).await?;
        let Some(left) = left else { return Ok(piece) };
        let rows = left.read(self, scope, after, piece.to, ask.rows).await?;
        if rows.len() == ask.rows {
            piece.to = rows.last().map_or(piece.to, |row| row.cv);
        }
        if rows.is_empty() {
            return Ok(piece);
        }
        // For a while a row is in both.
        let kept: HashSet<i64> = piece.rows.iter().map(|(cv, _)| *cv).collect();
        let left = rows.into_iter().filter(|row| !kept.contains(&row.cv));
        piece.rows.extend(left.map(|row| (row.cv, LogRow::Left(Box::new(row)))));
        piece.rows.sort_by_key(|(cv, _)| *cv);
        let to = piece.to;
        piece.rows.retain(|(cv, _)| *cv <= to);
        Ok(piece)
    }

    async fn log_in_index(
        &self,
        scope: &Scope,
        (after, up_to): (i64, i64),
        ask: &LogAsk,
    ) -> Result<LogPiece> {
        let numbers = Filter::gt("cv", int(after)).and(Filter::lte("cv", int(up_to)));
        let scan = Scan {
            filter: scope.narrow(numbers.and(ask.filter.clone())),
            order: vec![("cv".into(), Direction::Ascending)],
            limit: Some(ask.rows as u64),
            without: ask.without.clone(),
            ..Scan::default()
        };
        let mut stored = self.index.documents.scan_stored(&self.index.names.ver, scan);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < ask.rows && bytes < ask.bytes {
            let Some(row) = stored.try_next().await? else { return Ok(LogPiece { rows, to: up_to }) };
            bytes += row.as_bytes().len();
            rows.push((number_of(&row)?, LogRow::Kept(row)));
        }
        let to = rows.last().map_or(up_to, |(cv, _)| *cv);
        Ok(LogPiece { rows, to })
    }
}

fn number_of(row: &RawDocumentBuf) -> Result<i64> {
    let cv = raw_bson::get(row, "cv")?.and_then(whole_raw);
    cv.ok_or_else(|| Error::database("a version row has no number"))
}
