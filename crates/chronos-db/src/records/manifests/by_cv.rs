//! All rows in manifests, in the order of their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::live::Live;
use super::root::Manifests;
use crate::Result;
use crate::records::index::scope::Scope;
use crate::records::model::Row;

/// Rows that are held at once; each pass over the manifests finds this many.
const PASS: usize = 65_536;

impl Manifests {
    /// All rows with numbers beyond `after`, in the order of these. Manifests are sorted by item, so it takes
    /// a pass over those that reach so far for every 65,536 rows.
    pub(crate) fn by_cv(self: &Arc<Self>, scope: &Scope, after: i64) -> BoxStream<'static, Result<Row>> {
        let manifests = Arc::clone(self);
        let begin = (manifests, scope.clone(), Some(after));
        let passes = stream::try_unfold(begin, |(manifests, scope, after)| async move {
            let Some(after) = after else { return Ok(None) };
            let found = manifests.next_by_cv(&scope, after).await?;
            let next = found.last_key_value().map(|(cv, _)| *cv).filter(|_| found.len() == PASS);
            Ok(Some((stream::iter(found.into_values().map(Ok)), (manifests, scope, next))))
        });
        passes.try_flatten().boxed()
    }

    /// The rows with the lowest numbers beyond `after`.
    async fn next_by_cv(&self, scope: &Scope, after: i64) -> Result<BTreeMap<i64, Row>> {
        loop {
            let live = self.entries(scope).await?;
            match self.lowest(&live, scope, after).await {
                // One of them may be gone because another took its place meanwhile.
                Err(error) => {
                    if self.switch().await?.seq() == live.seq {
                        return Err(error);
                    }
                }
                found => return found,
            }
        }
    }

    async fn lowest(&self, live: &Live, scope: &Scope, after: i64) -> Result<BTreeMap<i64, Row>> {
        let mut found = BTreeMap::new();
        for entry in live.entries.iter().filter(|entry| entry.cv.to > after) {
            if found.len() == PASS && found.last_key_value().is_some_and(|(last, _)| *last < entry.cv.from) {
                continue;
            }
            for block in 0..entry.blocks.len() {
                let rows = self.read_block(entry, block).await?;
                let wanted = |row: &Row| row.cv > after && scope.sees(row.meta.tenant.as_deref());
                found.extend(
                    rows.into_iter().map(|packed| packed.row).filter(wanted).map(|row| (row.cv, row)),
                );
                while found.len() > PASS {
                    found.pop_last();
                }
            }
        }
        Ok(found)
    }
}
