//! Lists as of a point of the past: heads tell which items there are, rows what they were.
//!
//! An item whose newest version is no younger than the point is now what it was then, so its head and the indexes of heads serve it as they serve any
//! list. Of every other item the version of then is looked up. In the order of their ids items are passed one after the other, and a page costs what it
//! passes. In any other order nobody knows beforehand where an item that has changed stood, so a page costs itself and a look at each item that was
//! written since.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bson::{Bson, RawDocument};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::list::{HEADS, Listed, Names, Query, ROWS, not_erased, shown};
use super::page::{Order, Place, parse_cursor};
use super::{Found, Which};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Newest, Scan, stored};
use crate::records::engine::Engine;
use crate::records::model::{Head, ItemId, Op, Row, int};
use crate::records::own::OnBuiltIn;
use crate::records::scope::Scope;
use crate::{Error, Result, Timestamp};

/// Items looked at together.
const CHUNK: usize = 256;
/// With so few items written since, a page of a filter is put together of those and of an index, also in the order of ids.
const FEW: u64 = 1_000;
/// Items of a whole list that are ordered at once, and the bytes of what they are ordered by.
const ORDERED: usize = 65_536;
const ORDERED_BYTES: usize = 16 * 1024 * 1024;

/// The point of a list.
#[derive(Clone, Copy, Debug)]
enum Point {
    At(Timestamp),
    Cv(i64),
}

impl Point {
    /// The fields of heads and of rows by which versions are older or younger, and the value of the point.
    fn fields(self) -> (&'static str, &'static str, Bson) {
        match self {
            Self::At(at) => ("updatedAt", "at", at.into()),
            Self::Cv(cv) => ("cv", "cv", int(cv)),
        }
    }

    /// Whether the item was then what it is now.
    fn is_now(self, head: &Head) -> bool {
        match self {
            Self::At(at) => head.updated_at <= at,
            Self::Cv(cv) => head.cv <= cv,
        }
    }

    /// Whether the item was there at all, as far as its head can tell.
    fn may_have(self, head: &Head) -> bool {
        !head.erased && !matches!(self, Self::At(at) if head.created_at > at)
    }
}

/// What a query means of heads, or of rows.
struct Side {
    filter: Filter,
    order: Order,
}

crate::debug_some!(Side { order });

/// A list as of a point.
pub(super) struct PastQuery {
    point: Point,
    heads: Side,
    rows: Side,
    after: Option<Vec<Bson>>,
    include_deleted: bool,
    scope: Scope,
    /// Whether heads may be believed: they are no older than the rows.
    heads_follow: bool,
}

crate::debug_some!(PastQuery { point, heads, include_deleted });

impl PastQuery {
    pub(super) fn order(&self) -> &Order {
        &self.rows.order
    }

    /// The direction of a list in the order of ids.
    fn by_id(&self) -> Option<Direction> {
        self.rows.order.first().filter(|(path, _)| path == ROWS.id).map(|(_, direction)| *direction)
    }

    fn is_now(&self, head: &Head) -> bool {
        self.heads_follow && self.point.is_now(head)
    }

    /// The heads of all items that may have been there.
    fn all_heads(&self) -> Filter {
        self.scope.narrow(not_erased())
    }
}

/// The first items of an order, of many that come in any.
struct First<'q> {
    query: &'q PastQuery,
    after: Option<Vec<Bson>>,
    most: usize,
    found: Vec<Listed>,
    /// Some were left out because there were too many.
    more: bool,
}

impl<'q> First<'q> {
    fn new(query: &'q PastQuery, after: Option<Vec<Bson>>, most: usize) -> Self {
        Self { query, after, most, found: Vec::new(), more: false }
    }

    fn add(&mut self, item: Listed) {
        let order = self.query.order();
        if self.after.as_ref().is_none_or(|after| item.place.compare(after, order).is_gt()) {
            self.found.push(item);
            if self.found.len() >= self.most.saturating_mul(2) {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let order = self.query.order();
        self.found.sort_by(|a, b| a.place.compare(&b.place.values, order));
        self.more |= self.found.len() > self.most;
        self.found.truncate(self.most);
    }

    fn in_order(mut self) -> (Vec<Listed>, bool) {
        self.cut();
        (self.found, self.more)
    }
}

impl Engine {
    /// What a query of the past means, once nothing can be added to that past any more.
    pub(super) async fn past_query(&self, query: &Query, scope: &Scope) -> Result<PastQuery> {
        let own = self.own_names(self.mentioned(query), scope).await?;
        let side = |names: &Names<'_>| {
            let order = self.stored_order(&query.sort, names)?;
            Ok::<_, Error>(Side { filter: self.stored_filter(query.filter.as_ref(), names)?, order })
        };
        // First of rows, which know less.
        let rows = side(&Names { paths: &ROWS, own: own.clone(), on_built_in: &query.on_built_in })?;
        let heads = side(&Names { paths: &HEADS, own, on_built_in: &OnBuiltIn::default() })?;
        let after = query.after.as_deref().map(|token| parse_cursor(token, &rows.order)).transpose()?;
        let point = match self.settled(query.which).await? {
            Which::At(at) => Point::At(at),
            Which::Cv(cv) => Point::Cv(cv),
            Which::Latest | Which::Ov(_) => {
                return Err(Error::validation("a list is as of a time or a collection version, not of an item version"));
            }
        };
        let heads_follow = self.past.heads_follow();
        Ok(PastQuery { point, heads, rows, after, include_deleted: query.read.include_deleted, scope: scope.clone(), heads_follow })
    }

    /// The first items of a list, `most` at most.
    pub(super) async fn past_page(&self, query: &PastQuery, most: usize) -> Result<Vec<Listed>> {
        match query.by_id() {
            Some(direction) if query.heads.filter == Filter::All || !self.has_few_since(query).await? => {
                self.in_order_of_ids(query, direction, most).await
            }
            _ => self.in_any_order(query, most).await,
        }
    }

    async fn in_order_of_ids(&self, query: &PastQuery, direction: Direction, most: usize) -> Result<Vec<Listed>> {
        let mut found = Vec::with_capacity(most);
        let mut after = query.after.as_ref().and_then(|after| after.first().cloned());
        let mut limit = most.min(CHUNK);
        while found.len() < most {
            let (items, last) = self.pass_items(query, direction, after, limit).await?;
            found.extend(items);
            if last.is_none() {
                break;
            }
            after = last;
            // Of what is passed, much may not be shown.
            limit = (limit * 2).min(CHUNK);
        }
        found.truncate(most);
        Ok(found)
    }

    /// The items behind an id, of so many heads; and where they ended, if there may be more.
    async fn pass_items(
        &self,
        query: &PastQuery,
        direction: Direction,
        after: Option<Bson>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<Bson>)> {
        let scan = Scan {
            filter: query.all_heads(),
            order: vec![(HEADS.id.to_owned(), direction)],
            after: after.map(|id| vec![id]),
            limit: Some(limit as u64),
            ..Scan::default()
        };
        let heads: Vec<_> = self.documents.scan_stored(&self.names.head, scan).try_collect().await?;
        let last = heads.last().filter(|_| heads.len() == limit).map(|last| stored::id(last)).transpose()?;
        let (mut items, mut changed, mut order) = (HashMap::new(), Vec::new(), Vec::with_capacity(heads.len()));
        for stored in &heads {
            let head = Head::read(stored)?;
            order.push(head.id);
            if query.is_now(&head) {
                if (query.include_deleted || head.is_live()) && matches(&query.heads.filter, stored)? {
                    items.insert(head.id, Listed::of_head(&query.heads.order, stored)?);
                }
            } else {
                changed.push(head);
            }
        }
        items.extend(self.as_they_were(query, changed).await?);
        Ok((order.iter().filter_map(|id| items.remove(id)).collect(), last))
    }

    /// The versions of these items at the point; those that match.
    async fn as_they_were(&self, query: &PastQuery, heads: Vec<Head>) -> Result<HashMap<ItemId, Listed>> {
        let heads: HashMap<ItemId, Head> =
            heads.into_iter().filter(|head| query.point.may_have(head)).map(|head| (head.id, head)).collect();
        if heads.is_empty() {
            return Ok(HashMap::new());
        }
        let mut hidden = vec![Op::Void, Op::Erase];
        if !query.include_deleted {
            hidden.push(Op::Delete);
        }
        let is_shown = Filter::Field("op".into(), Test::Nin(hidden.into_iter().map(|op| op.as_str().into()).collect()));
        let ids = Filter::any_of("itemId", heads.keys().map(|id| id.bson()).collect());
        let (_, by, at_most) = query.point.fields();
        let scan = Scan {
            filter: query.scope.narrow(ids.and(is_shown).and(query.rows.filter.clone())),
            newest: Some(Newest { per: "itemId".into(), by: by.into(), at_most }),
            // The payloads of those that are shown are fetched together.
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        let rows: Vec<_> = self.documents.scan_stored(&self.names.ver, scan).try_collect().await?;
        let mut items = HashMap::with_capacity(rows.len());
        for stored in &rows {
            let row = Row::read(stored)?;
            if let Some(head) = heads.get(&row.id) {
                let place = Place::of(&query.rows.order, stored)?;
                items.insert(row.id, Listed { place, found: Found::from_row(row, head.created_at) });
            }
        }
        Ok(items)
    }

    /// Whether so few items were written since that a look at each is nothing.
    async fn has_few_since(&self, query: &PastQuery) -> Result<bool> {
        let (field, _, point) = query.point.fields();
        let since = query.scope.narrow(Filter::gt(field, point));
        Ok(query.heads_follow && self.documents.count(&self.names.head, since, FEW).await? < FEW)
    }

    /// Of what is now as it was then, an index gives the first; of what was written since, those that stood before these are looked for.
    async fn in_any_order(&self, query: &PastQuery, most: usize) -> Result<Vec<Listed>> {
        let mut first = First::new(query, query.after.clone(), most);
        // In this order: an item that is written in between is then seen twice, and not never.
        let unchanged = if query.heads_follow { self.unchanged(query, most).await? } else { Vec::new() };
        let mut seen: HashSet<ItemId> = unchanged.iter().map(|item| item.found.id).collect();
        unchanged.into_iter().for_each(|item| first.add(item));
        let mut since = self.heads_since(query);
        while let Some(heads) = since.try_next().await? {
            let items = self.as_they_were(query, heads).await?;
            items.into_values().filter(|item| seen.insert(item.found.id)).for_each(|item| first.add(item));
        }
        Ok(first.in_order().0)
    }

    /// The first items of those that were then what they are now.
    async fn unchanged(&self, query: &PastQuery, most: usize) -> Result<Vec<Listed>> {
        let mut found: Vec<Listed> = Vec::with_capacity(most);
        let mut after = query.after.clone();
        while found.len() < most {
            let filter = query.scope.narrow(query.heads.filter.clone()).and(shown(query.include_deleted));
            let scan = Scan { filter, order: query.heads.order.clone(), after, limit: Some(most as u64), ..Scan::default() };
            let heads: Vec<_> = self.documents.scan_stored(&self.names.head, scan).try_collect().await?;
            let mut last = None;
            for stored in &heads {
                let item = Listed::of_head(&query.heads.order, stored)?;
                last = Some((item.found.id, item.place.clone()));
                if query.point.is_now(&Head::read(stored)?) {
                    found.push(item);
                }
            }
            let Some((id, place)) = last.filter(|_| heads.len() == most && found.len() < most) else { break };
            // Nothing can go on behind what has no one place.
            place.check(id)?;
            after = Some(place.values);
        }
        found.truncate(most);
        Ok(found)
    }

    /// The heads of items that were written since the point, some together; of all items, if heads may not be believed.
    fn heads_since(&self, query: &PastQuery) -> BoxStream<'static, Result<Vec<Head>>> {
        let (field, _, point) = query.point.fields();
        let (order, after) = if query.heads_follow {
            // An index begins at the point.
            (vec![(field.to_owned(), Direction::Ascending), (HEADS.id.to_owned(), Direction::Ascending)], Some(vec![point, Bson::MaxKey]))
        } else {
            (vec![(HEADS.id.to_owned(), Direction::Ascending)], None)
        };
        let without = ["fullShadow", "metaIndexed", "refs"].map(str::to_owned).to_vec();
        let heads = self.scan_heads(Scan { filter: query.all_heads(), order, after, without, ..Scan::default() });
        heads.try_chunks(CHUNK).map_err(|e| e.1).boxed()
    }

    /// The whole list. In another order than that of ids, each some ten thousand items cost a look at all.
    pub(super) fn past_stream(self: &Arc<Self>, query: PastQuery) -> BoxStream<'static, Result<Listed>> {
        let walk = PastWalk { engine: Arc::clone(self), after: query.after.clone(), query, ordered: VecDeque::new(), ended: false };
        stream::try_unfold(walk, |mut walk| async move { Ok::<_, Error>(walk.next().await?.map(|items| (items, walk))) })
            .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}

/// A whole list under way.
struct PastWalk {
    engine: Arc<Engine>,
    query: PastQuery,
    after: Option<Vec<Bson>>,
    /// The next items, of which only the order is known yet.
    ordered: VecDeque<ItemId>,
    ended: bool,
}

impl PastWalk {
    /// The next items; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Listed>>> {
        loop {
            if !self.ordered.is_empty() {
                let ids: Vec<ItemId> = self.ordered.drain(..self.ordered.len().min(CHUNK)).collect();
                let heads = self.engine.heads(&ids).await?.into_values().collect();
                let mut items = self.engine.as_they_were(&self.query, heads).await?;
                return Ok(Some(ids.iter().filter_map(|id| items.remove(id)).collect()));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(direction) = self.query.by_id() else {
                self.look_ahead().await?;
                continue;
            };
            let after = self.after.as_ref().and_then(|after| after.first().cloned());
            let (items, last) = self.engine.pass_items(&self.query, direction, after, CHUNK).await?;
            self.ended = last.is_none();
            self.after = last.map(|id| vec![id]);
            return Ok(Some(items));
        }
    }

    /// Passes all items, and remembers which come next.
    async fn look_ahead(&mut self) -> Result<()> {
        let mut first = First::new(&self.query, self.after.clone(), ORDERED);
        let mut last = None;
        loop {
            let (items, ended) = self.engine.pass_items(&self.query, Direction::Ascending, last, CHUNK).await?;
            for mut item in items {
                // Only its place is kept.
                item.found.content = Default::default();
                item.found.inline = None;
                first.add(item);
            }
            last = ended;
            if last.is_none() {
                break;
            }
        }
        let (mut found, more) = first.in_order();
        let mut bytes = 0;
        let fits = found.iter().take_while(|item| {
            bytes += item.place.values.iter().map(|value| 32 + value.as_str().map_or(0, str::len)).sum::<usize>();
            bytes <= ORDERED_BYTES
        });
        let fits = fits.count().max(1);
        self.ended = !more && found.len() <= fits;
        found.truncate(fits);
        self.after = found.last().map(|item| item.place.values.clone());
        self.ordered.extend(found.iter().map(|item| item.found.id));
        Ok(())
    }
}

fn matches(filter: &Filter, stored: &RawDocument) -> Result<bool> {
    Ok(*filter == Filter::All || filter.matches(&stored::decode_part(stored, |field| field != "fullShadow")?))
}
