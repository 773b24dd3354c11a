//! The versions that many items had at one point.

use std::collections::{HashMap, HashSet};

use bson::Bson;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Versions;
use crate::Result;
use crate::documents::{Filter, Newest, Scan};
use crate::records::index::scope::Scope;
use crate::records::index::without_content;
use crate::records::model::{ItemId, Row, VersionSelector, int};

/// So few items are looked up side by side; more in one walk.
const FEW: usize = 4;
/// Items that the index is asked for at once.
const ASKED: usize = 256;

impl Versions {
    /// The versions of these items at a point, without payloads.
    pub(crate) async fn rows_at(
        &self,
        ids: &[ItemId],
        point: VersionSelector,
        scope: &Scope,
    ) -> Result<HashMap<ItemId, Row>> {
        let Some(newest) = newest(point) else { return Ok(HashMap::new()) };
        let scan = Scan {
            filter: of(ids.iter().copied()),
            newest: Some(newest),
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        let mut found: HashMap<ItemId, Row> =
            self.index.scan_rows(scan).map_ok(|row| (row.id, row)).try_collect().await?;
        let missing = ids.iter().copied().filter(|id| !found.contains_key(id)).collect();
        found.extend(self.beyond_of(missing, point, scope).await?);
        Ok(found)
    }

    /// The versions of these items at a point, of those for which they lie beyond what the index has.
    pub(crate) async fn beyond_of(
        &self,
        mut ids: HashSet<ItemId>,
        point: VersionSelector,
        scope: &Scope,
    ) -> Result<HashMap<ItemId, Row>> {
        let Some(newest) = newest(point).filter(|_| !ids.is_empty()) else { return Ok(HashMap::new()) };
        let scope = &scope.and_nobodys();
        if self.manifests.entries(scope).await?.entries.is_empty() {
            return Ok(HashMap::new());
        }
        // The index answers for those of which it has a version then, or the first one.
        let asked: Vec<ItemId> = ids.iter().copied().collect();
        for some in asked.chunks(ASKED) {
            let of_some = of(some.iter().copied());
            let first = of_some.clone().and(Filter::eq("ov", int(0)));
            let then = Scan { filter: of_some, newest: Some(newest.clone()), ..Scan::default() };
            for scan in [then, Scan { filter: first, ..Scan::default() }] {
                let mut rows = self.index.scan_rows(Scan { without: without_content(), ..scan });
                while let Some(row) = rows.try_next().await? {
                    ids.remove(&row.id);
                }
            }
        }
        let mut ids: Vec<ItemId> = ids.into_iter().collect();
        if ids.len() <= FEW {
            let rows = stream::iter(ids).map(|id| self.manifests.newest_of(scope, id, point));
            let rows = rows.buffered(FEW).try_filter_map(|row| async { Ok(row) });
            return rows.map_ok(|row| (row.id, row)).try_collect().await;
        }
        // Neighbours are in one block: each is read once.
        ids.sort_unstable();
        let mut walk = self.manifests.walk(scope, None).await?;
        let mut found = HashMap::new();
        for id in ids {
            walk.seek(id);
            while walk.peek().await?.is_some_and(|row| row.id == id) {
                let Some(row) = walk.next().await? else { break };
                if is_by(&row, point) {
                    found.insert(id, row);
                }
            }
        }
        Ok(found)
    }
}

/// Whether the version was there at the point.
fn is_by(row: &Row, point: VersionSelector) -> bool {
    match point {
        VersionSelector::Latest => true,
        VersionSelector::Ov(ov) => row.ov <= ov,
        VersionSelector::At(at) => row.at <= at,
        VersionSelector::Cv(cv) => row.cv <= cv,
    }
}

fn of(ids: impl Iterator<Item = ItemId>) -> Filter {
    Filter::any_of("itemId", ids.map(|id| id.bson()).collect())
}

fn newest(point: VersionSelector) -> Option<Newest> {
    let (by, at_most): (_, Bson) = match point {
        VersionSelector::At(at) => ("at", at.into()),
        VersionSelector::Cv(cv) => ("cv", int(cv)),
        VersionSelector::Latest | VersionSelector::Ov(_) => return None,
    };
    Some(Newest { per: "itemId".into(), by: by.into(), at_most })
}
