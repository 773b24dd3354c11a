//! The versions of one item in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::Versions;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::model::{ItemId, Row, VersionSelector, int};
use crate::{Error, Result};

/// A history under way.
struct HistoryScan {
    versions: Arc<Versions>,
    scope: Scope,
    id: ItemId,
    direction: Direction,
    /// The oldest that is wanted.
    from: i64,
    rows: BoxStream<'static, Result<Row>>,
    /// What comes before the next row of the index is asked for.
    waiting: VecDeque<Row>,
    /// The version that has to come next; none before the first of a descending walk.
    expected: Option<i64>,
    ended: bool,
}

impl Versions {
    /// The versions of an item from the number `from` on, without payloads. What leaves the index meanwhile is
    /// taken from where it went.
    pub(crate) fn of_item(
        self: &Arc<Self>,
        id: ItemId,
        from: i64,
        direction: Direction,
        scope: &Scope,
    ) -> BoxStream<'static, Result<Row>> {
        let item = Filter::eq("itemId", id.bson());
        let scan = Scan {
            filter: if from > 0 { item.and(Filter::gt("ov", int(from - 1))) } else { item },
            order: vec![("ov".into(), direction)],
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        let walk = HistoryScan {
            versions: Arc::clone(self),
            scope: scope.and_nobodys(),
            id,
            direction,
            rows: self.index.scan_rows(scan),
            waiting: VecDeque::new(),
            from,
            expected: (direction == Direction::Ascending).then_some(from),
            ended: false,
        };
        stream::try_unfold(walk, |mut walk| async move {
            Ok::<_, Error>(walk.next().await?.map(|row| (row, walk)))
        })
        .boxed()
    }

    /// Versions `from` up to and without `to` of an item, of which the index has no rows; ascending.
    async fn older(&self, scope: &Scope, id: ItemId, from: i64, to: i64) -> Result<Vec<Row>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut older = self.manifests.rows_of(scope, id, VersionSelector::Ov(to - 1)).await?;
        older.retain(|row| row.ov >= from);
        Ok(older)
    }
}

impl HistoryScan {
    async fn next(&mut self) -> Result<Option<Row>> {
        if let Some(row) = self.waiting.pop_front() {
            return Ok(Some(row));
        }
        if self.ended {
            return Ok(None);
        }
        let next = self.rows.try_next().await?;
        let ov = next.as_ref().map(|row| row.ov);
        let missing = match (self.direction, ov, self.expected) {
            (Direction::Ascending, Some(ov), Some(expected)) => expected..ov,
            // The newest row of an item is in the index.
            (Direction::Ascending, None, _) | (_, _, None) => 0..0,
            (Direction::Descending, ov, Some(expected)) => ov.map_or(self.from, |ov| ov + 1)..expected + 1,
        };
        self.ended = next.is_none();
        self.expected = match (self.direction, ov) {
            (_, None) => None,
            (Direction::Ascending, Some(ov)) => Some(ov + 1),
            (Direction::Descending, Some(ov)) => Some(ov - 1),
        };
        let mut older = self.versions.older(&self.scope, self.id, missing.start, missing.end).await?;
        if self.direction == Direction::Descending {
            older.reverse();
        }
        self.waiting.extend(older);
        self.waiting.extend(next);
        Ok(self.waiting.pop_front())
    }
}
