//! What is said of one manifest.

use bson::{Bson, Document, doc};

use crate::records::model::{ItemId, Row, VersionSelector, int, number};
use crate::{Error, Result, Timestamp};

/// The first and the last of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<T> {
    pub(crate) from: T,
    pub(crate) to: T,
}

impl<T: Copy + Ord> Span<T> {
    pub(crate) fn of(one: T) -> Self {
        Self { from: one, to: one }
    }

    pub(crate) fn reach(&mut self, one: T) {
        self.from = self.from.min(one);
        self.to = self.to.max(one);
    }
}

/// One gzip member, by its first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    pub(crate) at: Timestamp,
    pub(crate) rows: u64,
}

impl Block {
    pub(crate) fn first(&self) -> (ItemId, i64) {
        (self.id, self.ov)
    }

    /// Whether its first row is of an earlier item, or of this one and not beyond the bound.
    pub(crate) fn begins_within(&self, id: ItemId, which: VersionSelector) -> bool {
        self.id < id || self.id == id && is_within(which, self.ov, self.cv, self.at)
    }
}

/// Whether a version lies at or below the bound.
pub(crate) fn is_within(which: VersionSelector, ov: i64, cv: i64, at: Timestamp) -> bool {
    match which {
        VersionSelector::Latest => true,
        VersionSelector::Ov(bound) => ov <= bound,
        VersionSelector::At(bound) => at <= bound,
        VersionSelector::Cv(bound) => cv <= bound,
    }
}

/// A manifest: where it is, what is in it. Entries never change; what takes the place of a manifest has
/// another one.
#[derive(Clone, PartialEq)]
pub(crate) struct ManifestEntry {
    pub(crate) id: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) level: i32,
    /// The period of its roll-up, such as `2026-W48`; a level 0 of an earlier one is merged into level 1.
    pub(crate) period: String,
    /// Whose rows alone are in it; rows of anybody if none.
    pub(crate) tenant: Option<String>,
    pub(crate) made_at: Timestamp,
    pub(crate) cv: Span<i64>,
    pub(crate) at: Span<Timestamp>,
    pub(crate) ov: Span<i64>,
    pub(crate) items: Span<ItemId>,
    pub(crate) rows: u64,
    pub(crate) item_count: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) blocks: Vec<Block>,
}

crate::debug_some!(ManifestEntry { id, bucket, key, level, rows, bytes });

impl ManifestEntry {
    /// The bytes of the block at `at`: from where on, and up to where.
    pub(crate) fn range(&self, at: usize) -> Option<std::ops::Range<u64>> {
        let block = self.blocks.get(at)?;
        Some(block.offset..self.blocks.get(at + 1).map_or(self.bytes, |next| next.offset))
    }

    /// Whether rows of the item may be in it.
    pub(crate) fn may_hold(&self, id: ItemId) -> bool {
        self.items.from <= id && id <= self.items.to
    }

    pub(crate) fn stored(&self) -> Document {
        let blocks: Vec<Bson> = self
            .blocks
            .iter()
            .map(|block| {
                doc! {
                    "offset": wide(block.offset), "itemId": block.id.bson(), "ov": int(block.ov), "cv": int(block.cv), "at": block.at,
                    "rows": wide(block.rows),
                }
                .into()
            })
            .collect();
        let mut stored = doc! {
            "_id": &self.id, "bucket": &self.bucket, "key": &self.key, "level": self.level, "period": &self.period, "madeAt": self.made_at,
            "cv": { "from": int(self.cv.from), "to": int(self.cv.to) },
            "at": { "from": self.at.from, "to": self.at.to },
            "ov": { "from": int(self.ov.from), "to": int(self.ov.to) },
            "itemId": { "from": self.items.from.bson(), "to": self.items.to.bson() },
            "rows": wide(self.rows), "items": wide(self.item_count), "bytes": wide(self.bytes), "sha256": &self.sha256, "blocks": blocks,
        };
        if let Some(tenant) = &self.tenant {
            stored.insert("tenantId", tenant);
        }
        stored
    }

    pub(crate) fn read(stored: &Document) -> Result<Self> {
        Self::parse(stored).ok_or_else(|| {
            let id = stored.get("_id").map(ToString::to_string).unwrap_or_default();
            Error::storage(format!("the entry {id} of a manifest lacks something: it was not written by this library, or is damaged"))
        })
    }

    fn parse(stored: &Document) -> Option<Self> {
        let text = |name: &str| stored.get_str(name).ok().map(str::to_owned);
        let count = |doc: &Document, name: &str| number(doc, name).and_then(|n| u64::try_from(n).ok());
        let time = |doc: &Document, name: &str| doc.get_datetime(name).ok().map(|at| Timestamp::from(*at));
        let item = |doc: &Document, name: &str| doc.get_object_id(name).ok().map(ItemId::new);
        let span = |name: &str| {
            let span = stored.get_document(name).ok()?;
            Some(Span { from: number(span, "from")?, to: number(span, "to")? })
        };
        let (at, items) = (stored.get_document("at").ok()?, stored.get_document("itemId").ok()?);
        let blocks = stored.get_array("blocks").ok()?.iter().map(|block| {
            let block = block.as_document()?;
            Some(Block {
                offset: count(block, "offset")?,
                id: item(block, "itemId")?,
                ov: number(block, "ov")?,
                cv: number(block, "cv")?,
                at: time(block, "at")?,
                rows: count(block, "rows")?,
            })
        });
        Some(Self {
            id: text("_id")?,
            bucket: text("bucket")?,
            key: text("key")?,
            level: i32::try_from(number(stored, "level")?).ok()?,
            period: text("period")?,
            tenant: text("tenantId"),
            made_at: time(stored, "madeAt")?,
            cv: span("cv")?,
            at: Span { from: time(at, "from")?, to: time(at, "to")? },
            ov: span("ov")?,
            items: Span { from: item(items, "from")?, to: item(items, "to")? },
            rows: count(stored, "rows")?,
            item_count: count(stored, "items")?,
            bytes: count(stored, "bytes")?,
            sha256: text("sha256")?,
            blocks: blocks.collect::<Option<_>>()?,
        })
    }
}

/// Counts and offsets, which no store has unsigned.
fn wide(count: u64) -> Bson {
    int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// What is counted of rows as they are packed.
#[derive(Clone, Debug)]
pub(crate) struct PackStats {
    pub(crate) cv: Span<i64>,
    pub(crate) at: Span<Timestamp>,
    pub(crate) ov: Span<i64>,
    pub(crate) items: Span<ItemId>,
    pub(crate) rows: u64,
    pub(crate) item_count: u64,
}

impl PackStats {
    pub(crate) fn of(row: &Row) -> Self {
        Self {
            cv: Span::of(row.cv),
            at: Span::of(row.at),
            ov: Span::of(row.ov),
            items: Span::of(row.id),
            rows: 1,
            item_count: 1,
        }
    }

    /// Rows come in the order of their items.
    pub(crate) fn count(&mut self, row: &Row) {
        self.item_count += u64::from(self.items.to != row.id);
        self.cv.reach(row.cv);
        self.at.reach(row.at);
        self.ov.reach(row.ov);
        self.items.reach(row.id);
        self.rows += 1;
    }
}
