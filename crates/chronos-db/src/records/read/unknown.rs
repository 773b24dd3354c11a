//! Properties that no document has: a misspelt name in a filter or sort finds nothing, without an error.

use bson::Bson;
use futures::TryStreamExt as _;

use super::plan::Plan;
use super::query::{Listed, Query};
use super::reader::Reader;
use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Filter, Namespace, raw_bson};
use crate::records::index::own_names::OnBuiltIn;
use crate::records::index::scope::Scope;

impl Reader {
    /// The properties in a query that no document has, of those that `scope` sees.
    pub(crate) async fn unknown_properties(&self, query: &Query, scope: &Scope) -> Result<Vec<String>> {
        // The list itself tells of short names.
        let query = Query { on_built_in: OnBuiltIn::default(), ..query.clone() };
        let plan = self.plan(&query, scope).await?;
        let mut paths = plan.filtered.clone();
        paths.extend(plan.sorted.iter().filter(|path| !plan.filtered.contains(path)).cloned());
        self.unknown_of(&plan, paths).await
    }

    /// The same of the first page of a list. What it shows tells most: only what may be unknown is looked
    /// for.
    pub(crate) async fn unknown_on<'i>(
        &self,
        plan: &Plan,
        items: impl Iterator<Item = &'i Listed> + Clone,
    ) -> Result<Vec<String>> {
        if plan.after.is_some() {
            return Ok(Vec::new());
        }
        let is_empty = items.clone().next().is_none();
        let mut paths = if is_empty { plan.filtered.clone() } else { Vec::new() };
        for (at, (path, _)) in plan.order().iter().enumerate() {
            let is_absent = |item: &Listed| {
                item.place.array.is_none() && item.place.values.get(at).is_none_or(|v| *v == Bson::Null)
            };
            if plan.sorted.contains(path) && !paths.contains(path) && items.clone().all(is_absent) {
                paths.push(path.clone());
            }
        }
        self.unknown_of(plan, paths).await
    }

    async fn unknown_of(&self, plan: &Plan, paths: Vec<String>) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for path in paths {
            // What no item has now, one may have had then.
            let has = self.any_with(&self.index.names.head, plan, &path).await?
                || (plan.point.is_some() && self.any_with(&self.index.names.ver, plan, &path).await?)
                || (plan.point.is_some() && self.any_beyond_with(plan, &path).await?);
            // What no entry has may have had no room in one.
            if !has && !self.any_lacking(plan).await? {
                unknown.push(path.trim_start_matches("metaIndexed.").to_owned());
            }
        }
        // Of an empty collection nothing is reported.
        if !unknown.is_empty() && !self.index.holds_any(&plan.scope).await? {
            unknown.clear();
        }
        Ok(unknown)
    }

    /// Whether an entry, of then or now, lacks what the list looks at.
    async fn any_lacking(&self, plan: &Plan) -> Result<bool> {
        let names = &self.index.names;
        let rows = plan.point.map(|_| &names.ver);
        for namespace in std::iter::once(&names.head).chain(rows) {
            let Some(lacking) = plan.lacking() else { return Ok(false) };
            if self.index.documents.count(namespace, plan.scope.narrow(lacking), 1).await? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a version that has left the index has the property, or may have: a look at every one until it
    /// is found.
    async fn any_beyond_with(&self, plan: &Plan, path: &str) -> Result<bool> {
        let has = Filter::Field(path.to_owned(), Test::Exists(true));
        let mut rows = self.versions.beyond_all(&plan.scope).await?;
        while let Some(row) = rows.try_next().await? {
            if row.meta.missing.has_any_of(&plan.incomplete) {
                return Ok(true);
            }
            let entry = raw_bson::decode(&row.meta.indexed)?;
            if has.matches(&bson::doc! { "metaIndexed": entry }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn any_with(&self, namespace: &Namespace, plan: &Plan, path: &str) -> Result<bool> {
        // The first is what an index of the property tells.
        for test in [Test::Ne(Bson::Null), Test::Exists(true)] {
            let filter = plan.scope.narrow(Filter::Field(path.to_owned(), test));
            if self.index.documents.count(namespace, filter, 1).await? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
