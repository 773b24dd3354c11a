//! Imported changes that have left the index, by their marks. (The index finds its own by an index.)

use std::collections::{HashMap, HashSet};

use super::Versions;
use crate::Result;
use crate::records::index::scope::Scope;
use crate::records::model::{ItemId, MarkId, Row};

/// The versions of marks.
type MarkedVersions = HashMap<MarkId, (ItemId, i64)>;

impl Versions {
    /// Adds those of these items that have left the index.
    pub(crate) async fn marked_of(
        &self,
        items: &HashSet<ItemId>,
        scope: &Scope,
        is_wanted: impl Fn(&MarkId) -> bool,
        found: &mut MarkedVersions,
    ) -> Result<()> {
        let scope = &scope.and_nobodys();
        if items.is_empty() || self.manifests.entries(scope).await?.entries.is_empty() {
            return Ok(());
        }
        let mut items: Vec<ItemId> = items.iter().copied().collect();
        items.sort_unstable();
        let mut walk = self.manifests.walk(scope, None).await?;
        for id in items {
            walk.seek(id);
            while walk.peek().await?.is_some_and(|row| row.id == id) {
                if let Some(row) = walk.next().await? {
                    note(&row, &is_wanted, found);
                }
            }
        }
        Ok(())
    }

    /// Adds those of all items that have left the index: a look at every row there.
    pub(crate) async fn marked(
        &self,
        scope: &Scope,
        is_wanted: impl Fn(&MarkId) -> bool,
        found: &mut MarkedVersions,
    ) -> Result<()> {
        let scope = &scope.and_nobodys();
        if self.manifests.entries(scope).await?.entries.is_empty() {
            return Ok(());
        }
        let mut walk = self.manifests.walk(scope, None).await?;
        while let Some(row) = walk.next().await? {
            note(&row, &is_wanted, found);
        }
        Ok(())
    }
}

fn note(row: &Row, is_wanted: &impl Fn(&MarkId) -> bool, found: &mut MarkedVersions) {
    if let Some(mark) = row.import.filter(|mark| is_wanted(&mark.id)) {
        found.insert(mark.id, (row.id, row.ov));
    }
}
