//! Rows packed: JSON lines in consecutive gzip members, each of which can be read alone.

use std::io::{Read as _, Write as _};

use bson::{RawDocument, RawDocumentBuf};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::entry::{Block, PackStats};
use super::line;
use crate::records::document::heavy;
use crate::records::document::payload::checksum;
use crate::records::model::Row;
use crate::{Error, Result};

/// A member ends with so many bytes of lines.
const MEMBER_BYTES: usize = 1024 * 1024;
/// The most that a member may hold: one line over, and a line has no document in it but the index entry.
const MAX_MEMBER_BYTES: u64 = 32 * 1024 * 1024;
/// How much longer lines are than what they are packed into, about.
const RATIO: usize = 8;

fn damaged(error: &std::io::Error) -> Error {
    Error::storage(format!("its gzip data is damaged: {error}"))
}

/// Some rows, packed.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) bytes: Bytes,
    pub(crate) sha256: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) stats: PackStats,
}

crate::debug_some!(Packed { stats });

/// Packs rows that come in the order of (itemId, ov).
#[derive(Default)]
pub(crate) struct Packer {
    lines: Vec<u8>,
    /// The member that is not complete yet.
    open: Option<Block>,
    blocks: Vec<Block>,
    bytes: Vec<u8>,
    stats: Option<PackStats>,
}

crate::debug_some!(Packer { stats });

impl Packer {
    /// How many bytes there are, without the member that is not complete.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) async fn push(&mut self, stored: &RawDocument, row: &Row) -> Result<()> {
        match &mut self.stats {
            Some(stats) => stats.count(row),
            None => self.stats = Some(PackStats::of(row)),
        }
        let offset = self.bytes.len() as u64;
        let block = self.open.get_or_insert(Block {
            offset,
            id: row.id,
            ov: row.ov,
            cv: row.cv,
            at: row.at,
            rows: 0,
        });
        block.rows += 1;
        line::write(stored, &mut self.lines)?;
        if self.lines.len() >= MEMBER_BYTES { self.end_member().await } else { Ok(()) }
    }

    async fn end_member(&mut self) -> Result<()> {
        let Some(block) = self.open.take() else { return Ok(()) };
        let lines = std::mem::take(&mut self.lines);
        let member = heavy::work(lines.len() > heavy::BYTES, move || {
            let mut encoder = GzEncoder::new(Vec::with_capacity(lines.len() / 4), Compression::default());
            encoder.write_all(&lines)?;
            encoder.finish()
        })
        .await?
        .map_err(|error| damaged(&error))?;
        self.bytes.extend(member);
        self.blocks.push(block);
        Ok(())
    }

    /// The whole; none if nothing was packed.
    pub(crate) async fn finish(mut self) -> Result<Option<Packed>> {
        self.end_member().await?;
        let Some(stats) = self.stats else { return Ok(None) };
        let bytes = Bytes::from(self.bytes);
        Ok(Some(Packed { sha256: checksum(&bytes), bytes, blocks: self.blocks, stats }))
    }
}

/// A row, and as it was stored.
#[derive(Clone)]
pub(crate) struct PackedRow {
    pub(crate) row: Row,
    pub(crate) stored: RawDocumentBuf,
}

crate::debug_some!(PackedRow { row });

/// The first row of a whole manifest.
pub(super) async fn first_row(whole: Bytes) -> Result<PackedRow> {
    unpack(whole).await?.into_iter().next().ok_or_else(|| Error::storage("it holds no rows"))
}

/// The rows of one member: the first, if others follow.
pub(super) async fn unpack(member: Bytes) -> Result<Vec<PackedRow>> {
    let lines = heavy::work(member.len() > heavy::BYTES / RATIO, move || {
        let mut lines = Vec::new();
        GzDecoder::new(&member[..]).take(MAX_MEMBER_BYTES).read_to_end(&mut lines)?;
        Ok(lines)
    })
    .await?
    .map_err(|error: std::io::Error| damaged(&error))?;
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let stored = line::read(line)?;
            Ok(PackedRow { row: Row::read(&stored)?, stored })
        })
        .collect()
}
