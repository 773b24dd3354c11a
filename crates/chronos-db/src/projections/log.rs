//! The log of one collection as followers read it: its rows in the order of their numbers.

use std::sync::Arc;

use bson::{Document, RawDocument};
use futures::TryStreamExt as _;

use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Scan, raw_bson};
use crate::records::{Op, RecordIndex, Row, Scope, VersionSelector, Watermark, int, number};

/// Rows that are read, and worked off, at once.
pub(super) const PIECE: usize = 1_000;

/// A row that cannot be read. Followers go on behind it.
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
}

impl Log {
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
    pub(crate) async fn read(&self, after: i64, up_to: i64) -> Result<Vec<Piece>> {
        let numbers = Filter::gt("cv", int(after)).and(Filter::lte("cv", int(up_to)));
        let scan = Scan {
            filter: self.scope.narrow(numbers.and(Filter::Field("op".into(), Test::Ne("VOID".into())))),
            order: vec![("cv".into(), Direction::Ascending)],
            limit: Some(PIECE as u64),
            without: ["inline", "riders", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let mut rows = self.index.documents.scan_stored(&self.index.names.ver, scan);
        let (mut pieces, mut piece) = (Vec::new(), Piece::behind(after));
        let mut read = 0;
        while let Some(stored) = rows.try_next().await? {
            read += 1;
            match entry(&stored) {
                Ok(entry) if entry.row.op == Op::Erase => {
                    let cv = entry.row.cv;
                    if !piece.is_empty() {
                        piece.to = cv - 1;
                        pieces.push(piece);
                    }
                    pieces.push(Piece { entries: vec![entry], damaged: Vec::new(), to: cv });
                    piece = Piece::behind(cv);
                }
                Ok(entry) => {
                    piece.to = entry.row.cv;
                    piece.entries.push(entry);
                }
                Err(error) => {
                    let named = damaged(&stored, error.message());
                    tracing::warn!(
                        collection = %self.index.names.collection, cv = named.cv, row = %named.row, error = %named.message,
                        "a damaged version row is passed over"
                    );
                    piece.to = piece.to.max(named.cv);
                    piece.damaged.push(named);
                }
            }
        }
        if read < PIECE {
            piece.to = up_to;
        }
        if piece.to > pieces.last().map_or(after, |last| last.to) {
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

fn entry(stored: &RawDocument) -> Result<LogEntry> {
    let row = Row::read(stored)?;
    let indexed = raw_bson::decode(&row.meta.indexed)?;
    Ok(LogEntry { row, indexed })
}

/// What can be said of a row that cannot be read. It was found by its number, so that is there.
fn damaged(stored: &RawDocument, message: &str) -> DamagedRow {
    let fields = raw_bson::decode_part(stored, |field| matches!(field, "_id" | "cv")).unwrap_or_default();
    let row = match fields.get("_id") {
        Some(bson::Bson::ObjectId(id)) => id.to_hex(),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    };
    DamagedRow { cv: number(&fields, "cv").unwrap_or(-1), row, message: message.to_owned() }
}
