//! Lists: filter, sort and page in the database, now or as of a point.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bson::Bson;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::page::{Order, Page, Place};
use super::plan::Plan;
use super::{Found, ReadOptions, Which};
use crate::documents::filter;
use crate::documents::{Direction, Filter, Scan};
use crate::records::engine::Engine;
use crate::records::indexing::plain;
use crate::records::model::{ItemId, Row, State, int};
use crate::records::own::{self, OnBuiltIn};
use crate::records::scope::Scope;
use crate::records::view::{OnDamage, View};
use crate::{Error, Json, Result, Timestamp};

/// Payloads fetched at once for one list.
pub(super) const FETCHES: usize = 16;

/// A list to make.
#[derive(Clone, Default)]
pub(crate) struct Query {
    pub(crate) filter: Option<Json>,
    pub(crate) sort: Vec<(String, Direction)>,
    pub(crate) after: Option<String>,
    pub(crate) limit: u32,
    pub(crate) which: Which,
    pub(crate) read: ReadOptions,
    pub(crate) on_built_in: OnBuiltIn,
    pub(crate) on_damage: OnDamage,
}

crate::debug_some!(Query { sort, limit, which, read });

/// Where the built-in properties are stored: in heads, and in version rows.
pub(super) struct Paths {
    pub(super) id: &'static str,
    updated_at: &'static str,
    /// Rows don't say when their item was created.
    created_at: Option<&'static str>,
}

pub(super) const HEADS: Paths = Paths { id: "_id", updated_at: "updatedAt", created_at: Some("createdAt") };
pub(super) const ROWS: Paths = Paths { id: "itemId", updated_at: "at", created_at: None };

/// What the names in a query mean.
pub(super) struct Names<'q> {
    pub(super) paths: &'static Paths,
    /// Short names of built-in properties that documents have for themselves.
    pub(super) own: BTreeSet<&'static str>,
    pub(super) on_built_in: &'q OnBuiltIn,
}

impl Engine {
    /// The short names of built-in properties in a query. Where the collection declares what it indexes, that
    /// tells what they mean.
    pub(super) fn mentioned(&self, query: &Query) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        if !self.settings.map.indexed.is_empty() {
            return found;
        }
        let mut mention = |name: &str| {
            found.extend(own::SHORT.iter().map(|(short, _)| *short).find(|short| *short == plain(name)))
        };
        query.sort.iter().for_each(|(name, _)| mention(name));
        if let Some(filter) = &query.filter {
            // What is wrong with it is said when it is read for good.
            let _ = filter::parse(filter, &mut |name| {
                mention(name);
                Ok(name.to_owned())
            });
        }
        found
    }

    /// The stored path of a property a user names.
    fn stored_path(&self, name: &str, names: &Names<'_>) -> Result<String> {
        let paths = names.paths;
        let name = plain(name);
        // The prefix names the document's own property, also one that is called `id` or `ov`.
        let own = name.strip_prefix("metaIndexed.");
        let name = own.unwrap_or(&name);
        let declared = &self.settings.map.indexed;
        let is_declared = |name: &str| declared.iter().any(|path| plain(path) == name);
        let created = || {
            paths.created_at.ok_or_else(|| {
                Error::validation("`createdAt` is not known as of a time in the past; use `updatedAt`")
            })
        };
        let built_in = match name {
            _ if own.is_some() => None,
            "_id" => Some(paths.id),
            "_system.ov" => Some("ov"),
            "_system.cv" => Some("cv"),
            "_system.updatedAt" => Some(paths.updated_at),
            "_system.insertedAt" => Some(created()?),
            _ if is_declared(name) || names.own.contains(name) => None,
            "id" => Some(paths.id),
            "ov" => Some("ov"),
            "cv" => Some("cv"),
            "updatedAt" => Some(paths.updated_at),
            "createdAt" => Some(created()?),
            _ => None,
        };
        if let Some(path) = built_in {
            if let (Some(full), Some(hear)) = (own::full(name), &names.on_built_in.0) {
                hear(name, full);
            }
            return Ok(path.to_owned());
        }
        let in_declared = declared.iter().any(|path| {
            let path = plain(path);
            name == path || name.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))
        });
        if !declared.is_empty() && !in_declared {
            let known = declared.join(", ");
            return Err(Error::validation(format!(
                "property `{name}` is not indexed in this collection; indexed are: {known}"
            )));
        }
        if name.is_empty()
            || name.split('.').any(|s| s.is_empty() || s.starts_with('$'))
            || name.contains('\0')
        {
            return Err(Error::validation(format!("`{}` is no property path", name.escape_debug())));
        }
        Ok(format!("metaIndexed.{name}"))
    }

    /// The user's filter over stored paths, with ids and times typed as they are stored.
    pub(super) fn stored_filter(&self, filter: Option<&Json>, names: &Names<'_>) -> Result<Filter> {
        let Some(filter) = filter else { return Ok(Filter::All) };
        let parsed = filter::parse(filter, &mut |name| self.stored_path(name, names))?;
        typed(parsed)
    }

    pub(super) fn stored_order(&self, sort: &[(String, Direction)], names: &Names<'_>) -> Result<Order> {
        let paths = names.paths;
        let mut order = Order::new();
        for (name, direction) in sort {
            let path = self.stored_path(name, names)?;
            if order.iter().any(|(other, _)| *other == path) {
                return Err(Error::validation(format!("the list is sorted by `{name}` twice")));
            }
            order.push((path, *direction));
        }
        if !order.iter().any(|(path, _)| path == paths.id) {
            // The direction of the last key, so that one index serves both.
            let direction = order.last().map_or(Direction::Ascending, |(_, direction)| *direction);
            order.push((paths.id.to_owned(), direction));
        }
        // What follows the id changes nothing.
        let end = order.iter().position(|(path, _)| path == paths.id).map_or(order.len(), |i| i + 1);
        order.truncate(end);
        Ok(order)
    }

    /// One page of a list.
    pub(crate) async fn page(&self, query: &Query, scope: &Scope) -> Result<Page> {
        let plan = self.plan(query, scope).await?;
        let wanted = query.limit as usize;
        let mut found: Vec<(Listed, &Plan)> = Vec::with_capacity(wanted + 1);
        let parts = plan.parts();
        for part in &parts {
            // One more tells whether there is a next page.
            let items = self.first_items(part, wanted + 1 - found.len()).await?;
            found.extend(items.into_iter().map(|item| (item, part)));
            if found.len() > wanted {
                break;
            }
        }
        let more = found.len() > wanted;
        found.truncate(wanted);
        if query.on_damage == OnDamage::Fail {
            for (item, _) in &found {
                item.place.check(item.found.id)?;
            }
        }
        let next = match found.last() {
            Some((last, part)) if more => Some(part.token(&last.place)?),
            _ => None,
        };
        let unknown = self.unknown_on(&plan, found.iter().map(|(item, _)| item)).await?;
        let mut items: Vec<Listed> = found.into_iter().map(|(item, _)| item).collect();
        self.bring_inline(&mut items).await?;
        let views = futures::stream::iter(
            items.into_iter().map(|item| self.listed_view(item, &query.read, query.on_damage)),
        );
        let items: Vec<Option<View>> = views.buffered(FETCHES).try_collect().await?;
        let items = items.into_iter().flatten().collect();
        Ok(Page { items, next, unknown })
    }

    /// Reads the payloads that lie in version rows, together for all versions of one number instead of one by
    /// one.
    async fn bring_inline(&self, items: &mut [Listed]) -> Result<()> {
        let mut wanted: HashMap<i64, Vec<Bson>> = HashMap::new();
        for Listed { found, .. } in items.iter() {
            let payload = &found.content.payload;
            if found.inline.is_none()
                && payload.state == State::NewNotSynched
                && self.cached(found.id, payload.ov).is_none()
            {
                wanted.entry(payload.ov).or_default().push(found.id.bson());
            }
        }
        let rows = wanted.into_iter().map(|(ov, ids)| {
            let filter = Filter::any_of("itemId", ids).and(Filter::eq("ov", int(ov)));
            let without = ["metaIndexed", "riders", "refs"].map(str::to_owned).to_vec();
            self.scan_rows(Scan { filter, without, ..Scan::default() }).try_collect::<Vec<Row>>()
        });
        let mut payloads = HashMap::new();
        let mut reads = futures::stream::iter(rows).buffer_unordered(FETCHES);
        while let Some(rows) = reads.try_next().await? {
            payloads.extend(rows.into_iter().filter_map(|row| Some(((row.id, row.ov), row.inline?))));
        }
        for Listed { found, .. } in items {
            if let Some(bytes) = payloads.remove(&(found.id, found.content.payload.ov)) {
                found.inline = Some(bytes);
            }
        }
        Ok(())
    }

    /// The whole list as a stream; [`Query::limit`] is not looked at.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        query: Query,
        scope: &Scope,
    ) -> Result<BoxStream<'static, Result<View>>> {
        let listed = self.all_items(self.plan(&query, scope).await?).await?;
        let engine = Arc::clone(self);
        let (read, on_damage) = (Arc::new(query.read), query.on_damage);
        let views = listed.map(move |item| {
            let (engine, read) = (Arc::clone(&engine), Arc::clone(&read));
            async move { engine.listed_view(item?, &read, on_damage).await }
        });
        Ok(views.buffered(FETCHES).try_filter_map(|view| async { Ok(view) }).boxed())
    }
}

/// An item of a list.
pub(super) struct Listed {
    pub(super) place: Place,
    pub(super) found: Found,
}

crate::debug_some!(Listed { place });

/// Ids are stored as object ids and times as dates; users write both as text.
fn typed(filter: Filter) -> Result<Filter> {
    filter.try_map(&mut |path, test| {
        let test = match path.as_str() {
            "_id" | "itemId" => test.try_map_texts(&|text| Ok(text.parse::<ItemId>()?.bson()))?,
            "updatedAt" | "createdAt" | "at" => {
                test.try_map_texts(&|text| Ok(Timestamp::parse(text)?.into()))?
            }
            _ => test,
        };
        Ok(Filter::Field(path, test))
    })
}
