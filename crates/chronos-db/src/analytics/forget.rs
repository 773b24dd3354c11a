//! Removing results that are grouped by values of items that were erased.

use bson::Document;

use super::store::Coverage;
use super::time_based;
use super::values::{arguments_of, group_key, group_of};
use crate::Result;
use crate::records::{Collection, Scope};

impl Collection {
    /// After items of the collection were erased: removes the results of analytics rules that are grouped by values
    /// of theirs, and makes every time-based rule over the collection due, so that the next run of a worker, or of
    /// [`Analytics::run`](crate::analytics::Analytics::run), computes anew what other items have.
    /// `entries` are the indexed properties (`metaIndexed`) of every version of the items, read before they
    /// were erased. A run that is under way when this is called puts nothing back.
    ///
    /// May be called again at any time: what was interrupted goes on. Returns how many results went.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn forget_results(&self, entries: &[Document]) -> Result<u64> {
        let mut removed = self.forget_own_results(entries).await?;
        if self.workers.index.settings.says_tenant && *self.upkeep_scope().await? != Scope::All {
            removed += self.seeing(Scope::All).forget_own_results(entries).await?;
        }
        Ok(removed)
    }

    async fn forget_own_results(&self, entries: &[Document]) -> Result<u64> {
        let mut removed = 0;
        let rules = self.analytics.rules.time_based.iter();
        for timed in rules.filter(|timed| timed.rule.collection == self.name()) {
            let store = time_based::results(self, timed).await?;
            let mut groups = Vec::new();
            if !timed.arguments.is_empty() {
                groups.extend(
                    entries.iter().map(|entry| group_of(&group_key(&arguments_of(entry, &timed.arguments)))),
                );
                groups.sort_unstable();
                groups.dedup();
            }
            let stamp = store.begin().await?;
            removed += store.end(&stamp, &Coverage { timeframes: None, groups: Some(groups) }, None).await?;
            store.purge().await?;
        }
        Ok(removed)
    }
}
