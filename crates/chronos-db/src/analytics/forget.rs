//! Removing results that are grouped by values of items that were erased.

use bson::Document;

use super::store::{Coverage, remove_grouped_of_others};
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
        Ok(removed)
    }

    async fn forget_own_results(&self, entries: Option<&[Document]>) -> Result<u64> {
        let mut removed = 0;
        let rules = || self.analytics.rules.time_based.iter();
        // What an earlier configuration, or another one, has grouped is personal data all the same.
        let configured: Vec<&str> = rules().map(|timed| timed.rule.name.as_str()).collect();
        removed += remove_grouped_of_others(self, &configured).await?;
        for timed in rules().filter(|timed| timed.rule.collection == self.name()) {
            let store = time_based::results(self, timed).await?;
            let group = |entry| group_of(&group_key(&arguments_of(entry, &timed.arguments)));
            let groups = if timed.arguments.is_empty() {
                Some(Vec::new())
            } else {
                entries.map(|entries| {
                    let mut groups: Vec<_> = entries.iter().map(group).collect();
                    groups.sort_unstable();
                    groups.dedup();
                    groups
                })
            };
            let stamp = store.begin().await?;
            removed += store.end(&stamp, &Coverage { timeframes: None, groups }, None).await?;
            store.purge().await?;
        }
        Ok(removed)
    }
}
