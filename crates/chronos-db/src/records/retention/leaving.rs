//! The rows that leave the index.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bson::RawDocumentBuf;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::RecordIndex;
use crate::records::index::scope::Scope;
use crate::records::manifests::pack::PackedRow;
use crate::records::model::{Head, ItemId, Op, Row, int};
use crate::records::storage::trim::FollowerPositions;
use crate::{Result, Timestamp};

/// Rows that are looked at together.
const PAGE: usize = 256;

/// The window that rows stay in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Rows at or below this number may leave: all are settled.
    pub(crate) settled: i64,
    /// Those before this time do.
    pub(crate) before: Option<Timestamp>,
    /// And those beyond this many of an item.
    pub(crate) most: Option<i64>,
}

impl Window {
    fn is_left(&self, row: &Row, head: &Head) -> bool {
        let is_beyond = self.most.is_some_and(|most| row.ov <= head.ov - most);
        // The newest row says what the item is.
        row.ov < head.ov && (is_beyond || self.before.is_some_and(|before| row.at < before))
    }
}

/// Rows that leave, in the order of (itemId, ov).
pub(crate) struct Leaving<'f> {
    index: Arc<RecordIndex>,
    window: Window,
    followed: &'f dyn FollowerPositions,
    /// Up to where those are that follow each tenant's rows.
    counted: HashMap<String, i64>,
    rows: BoxStream<'static, Result<RawDocumentBuf>>,
    ready: VecDeque<PackedRow>,
    /// The item whose next row stays, and so all that come after it.
    stays: Option<ItemId>,
    pub(crate) damaged: u64,
    pub(crate) kept: Kept,
}

/// Why rows stay that are not the newest of their items.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// The time of the oldest of them that is within the window.
    pub(crate) oldest: Option<Timestamp>,
    /// Some have left the window, and wait to be stored or counted.
    pub(crate) is_some_waiting: bool,
}

impl<'f> Leaving<'f> {
    pub(crate) fn new(
        index: &Arc<RecordIndex>,
        window: Window,
        followed: &'f dyn FollowerPositions,
        scope: &Scope,
    ) -> Self {
        let settled = window.settled.min(followed.common());
        let bare = [Op::Void, Op::Erase, Op::Erased].map(|op| op.as_str().into()).to_vec();
        let scan = Scan {
            filter: scope
                .narrow(Filter::lte("cv", int(settled)).and(Filter::Field("op".into(), Test::Nin(bare)))),
            order: ["itemId", "ov"].map(|path| (path.to_owned(), Direction::Ascending)).to_vec(),
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        Self {
            index: Arc::clone(index),
            window: Window { settled, ..window },
            followed,
            counted: HashMap::new(),
            rows: index.documents.scan_stored(&index.names.ver, scan),
            ready: VecDeque::new(),
            stays: None,
            damaged: 0,
            kept: Kept::default(),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<PackedRow>> {
        while self.ready.is_empty() {
            let mut page = Vec::with_capacity(PAGE);
            while page.len() < PAGE
                && let Some(stored) = self.rows.try_next().await?
            {
                page.push(stored);
            }
            if page.is_empty() {
                return Ok(None);
            }
            self.look_at(page).await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn look_at(&mut self, page: Vec<RawDocumentBuf>) -> Result<()> {
        let mut rows = Vec::with_capacity(page.len());
        let mut unreadable = HashSet::new();
        for stored in page {
            match Row::read(&stored) {
                Ok(row) => rows.push(PackedRow { row, stored }),
                Err(error) => {
                    let item = stored.get_object_id("itemId").ok().map(ItemId::new);
                    tracing::warn!(
                        collection = %self.index.names.collection, item = ?item, %error,
                        "a damaged version row stays in the index, with others of its item"
                    );
                    self.damaged += 1;
                    unreadable.extend(item);
                }
            }
        }
        let mut ids: Vec<ItemId> = rows.iter().map(|packed| packed.row.id).collect();
        ids.dedup();
        let heads = self.index.bare_heads(&ids).await?;
        for packed in rows {
            let row = &packed.row;
            if self.stays == Some(row.id) {
                continue;
            }
            let head = heads.get(&row.id).filter(|head| !head.erased && !unreadable.contains(&row.id));
            let is_beyond = head.is_some_and(|head| self.window.is_left(row, head));
            if is_beyond && is_stored(row) && self.is_followed(row).await? {
                self.ready.push_back(packed);
                continue;
            }
            self.stays = Some(row.id);
            self.kept.is_some_waiting |= is_beyond;
            if head.is_some_and(|head| !is_beyond && row.ov < head.ov) {
                self.kept.oldest = Some(self.kept.oldest.map_or(row.at, |oldest| oldest.min(row.at)));
            }
        }
        Ok(())
    }

    async fn is_followed(&mut self, row: &Row) -> Result<bool> {
        let Some(tenant) = row.meta.tenant.as_deref() else { return Ok(true) };
        if !self.counted.contains_key(tenant) {
            self.counted.insert(tenant.to_owned(), self.followed.of_tenant(tenant).await?);
        }
        Ok(self.counted.get(tenant).is_some_and(|counted| row.cv <= *counted))
    }
}

/// Whether its payload is an object, and nothing of it waits to be one.
fn is_stored(row: &Row) -> bool {
    row.unflushed_since.is_none() && row.meta.payload.bucket.is_some() && row.meta.payload.key.is_some()
}
