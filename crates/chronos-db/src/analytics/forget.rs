//! Removing results that are grouped by values of items that were erased.

use bson::Document;

use super::store::remove_grouped_of_others;
use super::values::{group_key, group_of, groups_of};
use super::{cross_tenant, presence, time_based};
use crate::config::TimeBased;
use crate::records::{Collection, Scope};
use crate::{Chronos, Result};

impl Collection {
    /// After items of the collection were erased: removes the results of analytics rules that are grouped by values
    /// of theirs, of all timeframes, and makes every rule over the collection due, those across tenants too. The next
    /// run of a worker, or of [`Analytics::run`](crate::analytics::Analytics::run), computes anew what other items
    /// have: once also in timeframes that are out of the rule's window, there of all live items of these groups,
    /// whenever they were created.
    /// `entries` are the indexed properties (`metaIndexed`) of every version of the items, read before they
    /// were erased. A run that is under way when this is called puts nothing back.
    ///
    /// May be called again at any time: what was interrupted goes on. Returns how many results went.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn forget_results(&self, entries: &[Document]) -> Result<u64> {
        self.forget_in_every_scope(Some(entries)).await
    }

    /// The same where it is not known any more what the versions had: every result that is grouped by values goes.
    pub(crate) async fn forget_all_results(&self) -> Result<u64> {
        self.forget_in_every_scope(None).await
    }

    async fn forget_in_every_scope(&self, entries: Option<&[Document]>) -> Result<u64> {
        let mut removed = self.forget_own_results(entries).await?;
        if self.workers.index.settings.says_tenant && *self.upkeep_scope().await? != Scope::All {
            removed += self.seeing(Scope::All).forget_own_results(entries).await?;
        }
        let across = &self.analytics.rules.cross_tenant;
        if across.iter().any(|cross| cross.rule.collection == self.name()) {
            let chronos = Chronos::behind(self)?;
            for cross in across {
                cross_tenant::make_due_after(&chronos, cross, self).await?;
            }
        }
        Ok(removed)
    }

    async fn forget_own_results(&self, entries: Option<&[Document]>) -> Result<u64> {
        let mut removed = 0;
        let rules = || self.analytics.rules.time_based.iter();
        // What an earlier configuration, or another one, has grouped is personal data all the same.
        let configured: Vec<&str> = rules().map(|timed| timed.rule.name.as_str()).collect();
        let has_rules = rules().any(|timed| timed.rule.collection == self.name());
        if !has_rules && !presence::may_have_results(self).await? {
            return Ok(0);
        }
        removed += remove_grouped_of_others(self, &configured).await?;
        for timed in rules().filter(|timed| timed.rule.collection == self.name()) {
            let store = time_based::results(self, timed).await?;
            let stamp = store.begin().await?;
            if timed.arguments.is_empty() {
                removed += store.make_due(&stamp).await?;
                continue;
            }
            store.mark(&stamp, groups(timed, entries)).await?;
            removed += store.make_due(&stamp).await?;
            removed += store.sweep().await?;
            store.purge().await?;
        }
        Ok(removed)
    }
}

/// The digests of the groups that versions were in; none if that is not known, or if no run could know.
fn groups(timed: &TimeBased, entries: Option<&[Document]>) -> Option<Vec<String>> {
    let mut digests = Vec::new();
    for entry in entries? {
        let groups = groups_of(entry, &timed.arguments).ok()?;
        digests.extend(groups.iter().map(|group| group_of(&group_key(group))));
    }
    digests.sort_unstable();
    digests.dedup();
    Some(digests)
}
