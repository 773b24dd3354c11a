//! The log of one collection as followers read it: its rows in the order of their numbers.

use std::sync::Arc;

use bson::{Document, RawDocument};
use tokio::sync::Mutex;

use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Filter, raw_bson};
use crate::records::{
    LeftRows, LogAsk, LogRow, Op, RecordIndex, Row, Scope, VersionSelector, Versions, Watermark, Workers,
};

/// Rows that are read, and worked off, at once.
pub(super) const PIECE: usize = 1_000;

/// A row that cannot be read. Followers skip it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedRow {
    /// Its number in the collection.
    pub cv: i64,
    /// Its `_id`.
    pub row: String,
    /// What is wrong with it.
    pub message: String,
}

/// A row with its index entry.
pub(crate) struct LogEntry {
    pub(crate) row: Row,
    pub(crate) indexed: Document,
}

/// Some rows that follow each other.
pub(crate) struct Piece {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) damaged: Vec<DamagedRow>,
    /// The number up to which this is everything.
    pub(crate) to: i64,
}

impl Piece {
    fn behind(after: i64) -> Self {
        Self { entries: Vec::new(), damaged: Vec::new(), to: after }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.damaged.is_empty()
    }
}

/// The rows of a collection that a handle sees.
pub(crate) struct Log {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) scope: Scope,
    versions: Arc<Versions>,
    /// Those that have left the index.
    left: Mutex<LeftRows>,
}

/// What is found of a row: an entry, or what can be said of a damaged one.
type DecodedRow = std::result::Result<LogEntry, DamagedRow>;

impl Log {
    pub(crate) fn new(workers: &Workers, scope: Scope) -> Self {
        Self {
            index: Arc::clone(&workers.index),
            watermark: Arc::clone(&workers.watermark),
            scope,
            versions: Arc::clone(&workers.versions),
            left: Mutex::default(),
        }
    }

    /// The end of what nothing can be added to any more, as far as it is known without waiting.
    pub(crate) async fn stable(&self) -> Result<i64> {
        self.watermark.stable_now().await
    }

    /// The last number given out, once every number up to it has its row.
    pub(crate) async fn settled(&self) -> Result<i64> {
        match self.watermark.settled(VersionSelector::Cv(i64::MAX)).await? {
            VersionSelector::Cv(cv) => Ok(cv),
            _ => self.watermark.stable_cv().await,
        }
    }

    /// The rows behind `after`, up to `up_to` or as many as are read at once. Both must be settled. An erasure
    /// is a piece by itself, so what is derived from one piece never goes beyond the next erasure.
    ///
    /// Rows behind `after` may leave the index at any time, whichever follower reads: a prune may know another position, or
    /// none. What has left is read from where it went.
    pub(crate) async fn read(&self, after: i64, up_to: i64) -> Result<Vec<Piece>> {
        let ask = LogAsk {
            filter: Filter::Field("op".into(), Test::Ne(Op::Void.as_str().into())),
            without: ["inline", "riders", "refs"].map(str::to_owned).to_vec(),
            rows: PIECE,
            bytes: usize::MAX,
        };
        // Which manifests there are is looked up after the rows, for each piece.
        let mut left = self.left.lock().await;
        let read = self.versions.log(&self.scope, (after, up_to), &ask, Some(&mut left)).await?;
        let found = read.rows.into_iter().map(|(cv, row)| Ok((cv, self.found(cv, row)?)));
        let found: Vec<(i64, DecodedRow)> = found.collect::<Result<_>>()?;
        Ok(in_pieces(found.into_iter(), after, read.to))
    }

    fn found(&self, cv: i64, row: LogRow) -> Result<DecodedRow> {
        let stored = match row {
            LogRow::Kept(stored) => stored,
            LogRow::Left(row) => {
                let indexed = raw_bson::decode(&row.meta.indexed)?;
                return Ok(Ok(LogEntry { row: *row, indexed }));
            }
        };
        Ok(entry(&stored).map_err(|error| {
            let named = damaged(&stored, cv, error.message());
            tracing::warn!(
                collection = %self.index.names.collection, cv, row = %named.row, error = %named.message,
                "a damaged version row is passed over"
            );
            named
        }))
    }
}

/// The rows up to `to` in pieces, each erasure in one of its own.
fn in_pieces(found: impl Iterator<Item = (i64, DecodedRow)>, after: i64, to: i64) -> Vec<Piece> {
    let (mut pieces, mut piece) = (Vec::new(), Piece::behind(after));
    for (cv, row) in found {
        match row {
            Ok(entry) if entry.row.op == Op::Erase => {
                if !piece.is_empty() {
                    piece.to = cv - 1;
                    pieces.push(piece);
                }
                pieces.push(Piece { entries: vec![entry], damaged: Vec::new(), to: cv });
                piece = Piece::behind(cv);
            }
            Ok(entry) => piece.entries.push(entry),
            Err(row) => piece.damaged.push(row),
        }
    }
    piece.to = to;
    if piece.to > pieces.last().map_or(after, |last| last.to) {
        pieces.push(piece);
    }
    pieces
}

fn entry(stored: &RawDocument) -> Result<LogEntry> {
    let row = Row::read(stored)?;
    let indexed = raw_bson::decode(&row.meta.indexed)?;
    Ok(LogEntry { row, indexed })
}

/// What can be said of a row that cannot be read.
fn damaged(stored: &RawDocument, cv: i64, message: &str) -> DamagedRow {
    let fields = raw_bson::decode_part(stored, |field| field == "_id").unwrap_or_default();
    let row = match fields.get("_id") {
        Some(bson::Bson::ObjectId(id)) => id.to_hex(),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    };
    DamagedRow { cv, row, message: message.to_owned() }
}
