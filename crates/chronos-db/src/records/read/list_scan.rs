//! The items of lists, in their order.
//!
//! Heads tell which items there are. A list of the present is in their indexes. As of a point, an item whose
//! newest version is no younger than the point is now what it was then, so its head and the indexes of heads
//! serve it as well; of every other item the version of then is looked up. In the order of their ids items
//! are passed one after the other, and a page costs what it passes. In any other order nobody knows
//! beforehand where an item that has changed stood, so a page costs itself and a look at each item that was
//! written since.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bson::{Bson, RawDocument, RawDocumentBuf};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::page::SortKey;
use super::plan::{First, Plan, Point, Side};
use super::query::{FETCHES, HEADS, Listed};
use super::reader::{Reader, ResolvedVersion, of_the_same_tenant};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Newest, Scan, raw_bson};
use crate::records::model::{Head, ItemId, Row, VersionMeta};
use crate::{Error, Result};

/// Items looked at together.
const CHUNK: usize = 256;
/// With so few items written since, a page of a filter is put together of those and of an index, also in the
/// order of ids.
const FEW: u64 = 1_000;
/// Items whose versions have left the index that are looked up together, where they come in no order.
const LOOKED_UP: usize = 8_192;
/// Items of a whole list that are ordered at once, and the bytes of what they are ordered by.
const ORDERED: usize = 65_536;
const ORDERED_BYTES: usize = 16 * 1024 * 1024;

impl Reader {
    /// The first items of a list, `most` at most.
    pub(crate) async fn first_items(&self, plan: &Plan, most: usize) -> Result<Vec<Listed>> {
        match (plan.by_id(), plan.point) {
            (Some(direction), Some(point))
                if plan.is_of_all() || !self.has_few_since(plan, point).await? =>
            {
                self.in_order_of_ids(plan, direction, most).await
            }
            _ => self.in_any_order(plan, most).await,
        }
    }

    async fn in_order_of_ids(&self, plan: &Plan, direction: Direction, most: usize) -> Result<Vec<Listed>> {
        let mut found = Vec::with_capacity(most);
        let mut after = plan.after.as_ref().and_then(|after| after.first().cloned());
        let mut limit = most.min(CHUNK);
        while found.len() < most {
            let (items, last) = self.pass_items(plan, direction, after, limit).await?;
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

    /// The items behind an id, of this many heads; and where they ended, if there may be more.
    async fn pass_items(
        &self,
        plan: &Plan,
        direction: Direction,
        after: Option<Bson>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<Bson>)> {
        let scan = Scan {
            filter: plan.all_heads(),
            order: vec![(HEADS.id.to_owned(), direction)],
            after: after.map(|id| vec![id]),
            limit: Some(limit as u64),
            ..Scan::default()
        };
        let heads: Vec<_> =
            self.index.documents.scan_stored(&self.index.names.head, scan).try_collect().await?;
        let last =
            heads.last().filter(|_| heads.len() == limit).map(|last| raw_bson::id(last)).transpose()?;
        Ok((self.items_of(plan, &heads).await?, last))
    }

    /// The items of these heads that the list shows, as they were at its point.
    async fn items_of(&self, plan: &Plan, heads: &[RawDocumentBuf]) -> Result<Vec<Listed>> {
        let (mut now, mut changed, mut order) = (Vec::new(), Vec::new(), Vec::with_capacity(heads.len()));
        for stored in heads {
            let head = Head::read(stored)?;
            if head.erased {
                continue;
            }
            order.push(head.id);
            if !plan.is_now(head.cv, head.updated_at) {
                changed.push(head);
            } else if plan.include_deleted || head.is_live() {
                now.push(self.matching(plan, &plan.heads, stored, ResolvedVersion::from_head(head)));
            }
        }
        let mut items = self.by_item(now).await?;
        if let Some(point) = plan.point {
            items.extend(self.as_they_were(plan, point, changed).await?);
        }
        Ok(order.iter().filter_map(|id| items.remove(id)).collect())
    }

    /// The item of a head or row, if it matches.
    async fn matching(
        &self,
        plan: &Plan,
        side: &Side,
        stored: &RawDocument,
        found: ResolvedVersion,
    ) -> Result<Option<Listed>> {
        let fields = || raw_bson::decode_part(stored, |field| !["fullShadow", "payload"].contains(&field));
        let place = if found.meta.missing.has_any_of(&plan.incomplete) {
            let fields = self.whole_fields(fields()?, &found).await?;
            if !side.filter.matches(&fields) {
                return Ok(None);
            }
            SortKey::by(&side.order, &plan.sorted, &fields)
        } else if side.filter != Filter::All && !side.filter.matches(&fields()?) {
            return Ok(None);
        } else {
            SortKey::of(&side.order, &plan.sorted, stored)?
        };
        Ok(plan.keeps(&place).then_some(Listed { place, found }))
    }

    /// The versions of these items at the point; those that match.
    async fn as_they_were(
        &self,
        plan: &Plan,
        point: Point,
        heads: Vec<Head>,
    ) -> Result<HashMap<ItemId, Listed>> {
        let (mut items, others) = self.kept_then(plan, point, heads).await?;
        items.extend(self.left_then(plan, point, others).await?);
        Ok(items)
    }

    /// The versions of these items at the point that match, of those that the index has; and the other items.
    async fn kept_then(
        &self,
        plan: &Plan,
        point: Point,
        heads: Vec<Head>,
    ) -> Result<(HashMap<ItemId, Listed>, Vec<Head>)> {
        let mut heads: HashMap<ItemId, Head> =
            heads.into_iter().filter(|head| point.may_have(head)).map(|head| (head.id, head)).collect();
        if heads.is_empty() {
            return Ok((HashMap::new(), Vec::new()));
        }
        let hidden = plan.hidden().iter().map(|op| op.as_str().into()).collect();
        let is_shown = Filter::Field("op".into(), Test::Nin(hidden));
        let ids = Filter::any_of("itemId", heads.keys().map(|id| id.bson()).collect());
        // What an entry lacks, the store cannot tell.
        let matching = plan.rows.filter.clone();
        let matching =
            if let Some(lacking) = plan.lacking() { Filter::Or(vec![matching, lacking]) } else { matching };
        let (_, by, at_most) = point.fields();
        let scan = Scan {
            filter: plan.scope.narrow(ids.and(is_shown).and(matching)),
            newest: Some(Newest { per: "itemId".into(), by: by.into(), at_most }),
            // The payloads of those that are shown are fetched together.
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        let rows: Vec<_> =
            self.index.documents.scan_stored(&self.index.names.ver, scan).try_collect().await?;
        let mut then = Vec::with_capacity(rows.len());
        for stored in &rows {
            let row = Row::read(stored)?;
            if let Some(head) = heads.remove(&row.id) {
                let found = ResolvedVersion::from_row(row, head.created_at);
                then.push(self.matching(plan, &plan.rows, stored, found));
            }
        }
        Ok((self.by_item(then).await?, heads.into_values().collect()))
    }

    /// The versions of these items at the point that match, of those that have left the index.
    async fn left_then(
        &self,
        plan: &Plan,
        point: Point,
        heads: Vec<Head>,
    ) -> Result<HashMap<ItemId, Listed>> {
        let heads: HashMap<ItemId, Head> = heads.into_iter().map(|head| (head.id, head)).collect();
        let ids = heads.keys().copied().collect();
        let rows = self.versions.beyond_of(ids, point.selector(), &plan.scope).await?;
        let shown = rows.into_values().filter(|row| !plan.hidden().contains(&row.op));
        let shown = shown.filter_map(|row| {
            let head = heads.get(&row.id)?;
            let row = of_the_same_tenant(row, head);
            Some((row.stored(), ResolvedVersion::from_row(row, head.created_at)))
        });
        let shown: Vec<_> = shown.collect();
        let looks = shown
            .iter()
            .map(|(stored, found)| self.matching(plan, &plan.rows, stored, found.clone()))
            .collect();
        self.by_item(looks).await
    }

    /// Those that match. Some have to read their documents.
    async fn by_item(
        &self,
        looks: Vec<impl Future<Output = Result<Option<Listed>>>>,
    ) -> Result<HashMap<ItemId, Listed>> {
        let matching = stream::iter(looks).buffer_unordered(FETCHES);
        matching.try_filter_map(async |item| Ok(item.map(|item| (item.found.id, item)))).try_collect().await
    }

    /// Whether so few items were written since that a look at each is nothing.
    async fn has_few_since(&self, plan: &Plan, point: Point) -> Result<bool> {
        let (field, _, point) = point.fields();
        let since = plan.scope.narrow(Filter::gt(field, point));
        Ok(plan.heads_follow && self.index.documents.count(&self.index.names.head, since, FEW).await? < FEW)
    }

    /// Of what is now as it was then, an index gives the first; of what was written since, those that stood
    /// before these are looked for.
    async fn in_any_order(&self, plan: &Plan, most: usize) -> Result<Vec<Listed>> {
        // In this order: an item that is written in between is then seen twice, and not never.
        let unchanged = if plan.heads_follow || plan.point.is_none() {
            self.unchanged(plan, most).await?
        } else {
            Vec::new()
        };
        if plan.point.is_none() && plan.incomplete.is_empty() {
            return Ok(unchanged);
        }
        let mut seen: HashSet<ItemId> = unchanged.iter().map(|item| item.found.id).collect();
        let mut first = First::new(plan, plan.after.clone(), most);
        unchanged.into_iter().for_each(|item| first.add(item));
        if let Some(lacking) = plan.lacking() {
            let heads = Scan { filter: plan.all_heads().and(lacking), ..Scan::default() };
            let mut heads = self.index.documents.scan_stored(&self.index.names.head, heads).try_chunks(CHUNK);
            while let Some(heads) = heads.try_next().await.map_err(|e| e.1)? {
                let items = self.items_of(plan, &heads).await?;
                items.into_iter().filter(|item| seen.insert(item.found.id)).for_each(|item| first.add(item));
            }
        }
        let Some(point) = plan.point else { return Ok(first.in_order().0) };
        let mut since = self.heads_since(plan, point);
        let mut others = Vec::new();
        loop {
            let next = since.try_next().await?;
            let is_last = next.is_none();
            let (items, beyond) = self.kept_then(plan, point, next.unwrap_or_default()).await?;
            items.into_values().filter(|item| seen.insert(item.found.id)).for_each(|item| first.add(item));
            others.extend(beyond);
            // In this order neighbours lie in different places of manifests: many are looked up together.
            if is_last || others.len() >= LOOKED_UP {
                let items = self.left_then(plan, point, std::mem::take(&mut others)).await?;
                items
                    .into_values()
                    .filter(|item| seen.insert(item.found.id))
                    .for_each(|item| first.add(item));
            }
            if is_last {
                return Ok(first.in_order().0);
            }
        }
    }

    /// The first items of those that were then what they are now.
    async fn unchanged(&self, plan: &Plan, most: usize) -> Result<Vec<Listed>> {
        let mut found: Vec<Listed> = Vec::with_capacity(most);
        let mut after = plan.after.clone();
        while found.len() < most {
            let scan = Scan {
                filter: plan.shown_heads(),
                order: plan.heads.order.clone(),
                after: after.take(),
                limit: Some(most as u64),
                ..Scan::default()
            };
            let heads: Vec<_> =
                self.index.documents.scan_stored(&self.index.names.head, scan).try_collect().await?;
            let mut last = None;
            for stored in &heads {
                let item = plan.listed(stored)?;
                last = Some((item.found.id, item.place.clone()));
                if plan.is_now(item.found.cv, item.found.at) {
                    found.push(item);
                }
            }
            let Some((id, place)) = last.filter(|_| heads.len() == most && found.len() < most) else { break };
            after = Some(plan.behind(&place, id)?);
        }
        found.truncate(most);
        Ok(found)
    }

    /// The heads of items that were written since the point, some together; of all items, if heads may not be
    /// believed.
    fn heads_since(&self, plan: &Plan, point: Point) -> BoxStream<'static, Result<Vec<Head>>> {
        let (field, _, point) = point.fields();
        let (order, after) = if plan.heads_follow {
            // An index begins at the point.
            (
                vec![(field.to_owned(), Direction::Ascending), (HEADS.id.to_owned(), Direction::Ascending)],
                Some(vec![point, Bson::MaxKey]),
            )
        } else {
            (vec![(HEADS.id.to_owned(), Direction::Ascending)], None)
        };
        let without = ["fullShadow", "metaIndexed", "refs"].map(str::to_owned).to_vec();
        let heads = self.index.scan_heads(Scan {
            filter: plan.all_heads(),
            order,
            after,
            without,
            ..Scan::default()
        });
        heads.try_chunks(CHUNK).map_err(|e| e.1).boxed()
    }

    /// The whole list. As of a point, and in another order than that of ids, each some ten thousand items
    /// cost a look at all.
    pub(crate) async fn all_items(
        self: &Arc<Self>,
        plan: Plan,
    ) -> Result<BoxStream<'static, Result<Listed>>> {
        let parts: Vec<_> = plan.parts().into_iter().map(|part| self.all_of(part)).collect();
        Ok(stream::iter(parts).flatten().boxed())
    }

    fn all_of(self: &Arc<Self>, plan: Plan) -> BoxStream<'static, Result<Listed>> {
        if plan.point.is_none() && plan.incomplete.is_empty() {
            let scan = Scan {
                filter: plan.shown_heads(),
                order: plan.heads.order.clone(),
                after: plan.after.clone(),
                ..Scan::default()
            };
            let heads = self.index.documents.scan_stored(&self.index.names.head, scan);
            return heads.map(move |stored| plan.listed(&stored?)).boxed();
        }
        let walk = ListScan {
            reader: Arc::clone(self),
            after: plan.after.clone(),
            plan,
            ordered: VecDeque::new(),
            ended: false,
        };
        stream::try_unfold(walk, |mut walk| async move {
            Ok::<_, Error>(walk.next().await?.map(|items| (items, walk)))
        })
        .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
    }
}

/// A whole list under way.
struct ListScan {
    reader: Arc<Reader>,
    plan: Plan,
    after: Option<Vec<Bson>>,
    /// The next items, of which only the order is known yet.
    ordered: VecDeque<ItemId>,
    ended: bool,
}

impl ListScan {
    /// The next items; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Listed>>> {
        loop {
            if !self.ordered.is_empty() {
                let ids: Vec<ItemId> = self.ordered.drain(..self.ordered.len().min(CHUNK)).collect();
                let heads = self
                    .reader
                    .index
                    .documents
                    .get_stored(&self.reader.index.names.head, ids.iter().map(|id| id.bson()).collect())
                    .await?;
                let items = self.reader.items_of(&self.plan, &heads).await?;
                let mut items: HashMap<ItemId, Listed> =
                    items.into_iter().map(|item| (item.found.id, item)).collect();
                return Ok(Some(ids.iter().filter_map(|id| items.remove(id)).collect()));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(direction) = self.plan.by_id() else {
                self.look_ahead().await?;
                continue;
            };
            let after = self.after.as_ref().and_then(|after| after.first().cloned());
            let (items, last) = self.reader.pass_items(&self.plan, direction, after, CHUNK).await?;
            self.ended = last.is_none();
            self.after = last.map(|id| vec![id]);
            return Ok(Some(items));
        }
    }

    /// Passes all items, and remembers which come next.
    async fn look_ahead(&mut self) -> Result<()> {
        let mut first = First::new(&self.plan, self.after.clone(), ORDERED);
        let mut last = None;
        loop {
            let (items, ended) =
                self.reader.pass_items(&self.plan, Direction::Ascending, last, CHUNK).await?;
            for mut item in items {
                // Only its place is kept.
                item.found.meta = VersionMeta::default();
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
            bytes +=
                item.place.values.iter().map(|value| 32 + value.as_str().map_or(0, str::len)).sum::<usize>();
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
