//! What a list is asked for, and what the names in it mean.

use std::collections::BTreeSet;

use super::page::{Order, SortKey};
use super::reader::{ReadOptions, ResolvedVersion};
use crate::documents::filter;
use crate::documents::{Direction, Filter};
use crate::records::document::indexing::plain;
use crate::records::index::own_names::{self, OnBuiltIn};
use crate::records::index::scope::TENANT;
use crate::records::model::{ItemId, VersionSelector};
use crate::records::view::OnDamage;
use crate::{Error, Json, Result, Timestamp};

/// Payloads fetched at once for one list.
pub(crate) const FETCHES: usize = 16;

/// A list to make.
#[derive(Clone, Default)]
pub(crate) struct Query {
    pub(crate) filter: Option<Json>,
    pub(crate) sort: Vec<(String, Direction)>,
    pub(crate) after: Option<String>,
    pub(crate) limit: u32,
    pub(crate) which: VersionSelector,
    pub(crate) read: ReadOptions,
    pub(crate) on_built_in: OnBuiltIn,
    pub(crate) on_damage: OnDamage,
}

crate::debug_some!(Query { sort, limit, which, read });

/// Where the built-in properties are stored: in heads, and in version rows.
pub(crate) struct Paths {
    pub(crate) id: &'static str,
    updated_at: &'static str,
    /// Rows don't say when their item was created.
    created_at: Option<&'static str>,
}

pub(crate) const HEADS: Paths = Paths { id: "_id", updated_at: "updatedAt", created_at: Some("createdAt") };

pub(crate) const ROWS: Paths = Paths { id: "itemId", updated_at: "at", created_at: None };

/// What the names in a query mean.
pub(crate) struct Names<'q> {
    pub(crate) paths: &'static Paths,
    /// Short names of built-in properties that documents have for themselves.
    pub(crate) own: BTreeSet<&'static str>,
    pub(crate) on_built_in: &'q OnBuiltIn,
    /// The properties that the collection declares as indexed; empty if all are.
    pub(crate) declared: &'q [String],
    /// `tenantId` is the item's tenant.
    pub(crate) says_tenant: bool,
}

/// An item of a list.
pub(crate) struct Listed {
    pub(crate) place: SortKey,
    pub(crate) found: ResolvedVersion,
}

crate::debug_some!(Listed { place });

impl Query {
    /// The short names of built-in properties in a query. Where the collection declares what it indexes, that
    /// tells what they mean.
    pub(crate) fn mentioned(&self, declared: &[String]) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        if !declared.is_empty() {
            return found;
        }
        let mut mention = |name: &str| {
            found.extend(own_names::SHORT.iter().map(|(short, _)| *short).find(|short| *short == plain(name)))
        };
        self.sort.iter().for_each(|(name, _)| mention(name));
        if let Some(filter) = &self.filter {
            // What is wrong with it is said when it is read for good.
            let _ = filter::parse(filter, &mut |name| {
                mention(name);
                Ok(name.to_owned())
            });
        }
        found
    }
}

impl Names<'_> {
    /// The stored path of a property a user names.
    fn stored_path(&self, name: &str) -> Result<String> {
        let paths = self.paths;
        let name = plain(name);
        // The prefix names the document's own property, also one that is called `id` or `ov`.
        let own = name.strip_prefix("metaIndexed.");
        let name = own.unwrap_or(&name);
        let declared = self.declared;
        let is_declared = |name: &str| declared.iter().any(|path| plain(path) == name);
        let created = || {
            paths.created_at.ok_or_else(|| {
                Error::validation("`createdAt` is not known as of a time in the past; use `updatedAt`")
            })
        };
        let built_in = match name {
            _ if own.is_some() => None,
            "_id" => Some(paths.id),
            TENANT if self.says_tenant => Some(TENANT),
            "_system.ov" => Some("ov"),
            "_system.cv" => Some("cv"),
            "_system.updatedAt" => Some(paths.updated_at),
            "_system.insertedAt" => Some(created()?),
            _ if is_declared(name) || self.own.contains(name) => None,
            "id" => Some(paths.id),
            "ov" => Some("ov"),
            "cv" => Some("cv"),
            "updatedAt" => Some(paths.updated_at),
            "createdAt" => Some(created()?),
            _ => None,
        };
        if let Some(path) = built_in {
            if let (Some(full), Some(hear)) = (own_names::full(name), &self.on_built_in.0) {
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
            return Err(Error::validation(format!("`{}` is not a property path", name.escape_debug())));
        }
        Ok(format!("metaIndexed.{name}"))
    }

    /// The user's filter over stored paths, with ids and times typed as they are stored.
    pub(crate) fn stored_filter(&self, filter: Option<&Json>) -> Result<Filter> {
        let Some(filter) = filter else { return Ok(Filter::All) };
        let parsed = filter::parse(filter, &mut |name| self.stored_path(name))?;
        typed(parsed)
    }

    pub(crate) fn stored_order(&self, sort: &[(String, Direction)]) -> Result<Order> {
        let paths = self.paths;
        let mut order = Order::new();
        for (name, direction) in sort {
            let path = self.stored_path(name)?;
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
}

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
