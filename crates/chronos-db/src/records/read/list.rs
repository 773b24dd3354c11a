//! Lists: filter, sort and page in the database, now or as of a point.

use std::collections::HashMap;
use std::sync::Arc;

use bson::Bson;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::plan::Plan;
use super::query::{FETCHES, Listed, Query};
use super::reader::Reader;
use crate::documents::{Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::model::{Row, State, int};
use crate::records::view::{OnDamage, View};
use crate::{Page, Result};

/// How much of its payloads a stream has in memory at once, in KiB; a larger one is fetched alone.
const STREAMED_KIB: u32 = 16 * 1024;

/// Stores count in signed numbers.
const ALL: u64 = i64::MAX.unsigned_abs();

impl Reader {
    /// One page of a list.
    pub(crate) async fn page(&self, query: &Query, scope: &Scope) -> Result<Page<View>> {
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
        for Listed { place, found } in items.iter() {
            let payload = &found.meta.payload;
            if place.damage.is_none()
                && found.inline.is_none()
                && payload.state == State::NewNotSynched
                && self.payloads.cached(found.id, payload.ov).is_none()
            {
                wanted.entry(payload.ov).or_default().push(found.id.bson());
            }
        }
        let rows = wanted.into_iter().map(|(ov, ids)| {
            let filter = Filter::any_of("itemId", ids).and(Filter::eq("ov", int(ov)));
            let without = ["metaIndexed", "riders", "refs"].map(str::to_owned).to_vec();
            self.index.scan_rows(Scan { filter, without, ..Scan::default() }).try_collect::<Vec<Row>>()
        });
        let mut payloads = HashMap::new();
        let mut reads = futures::stream::iter(rows).buffer_unordered(FETCHES);
        while let Some(rows) = reads.try_next().await? {
            payloads.extend(rows.into_iter().filter_map(|row| Some(((row.id, row.ov), row.inline?))));
        }
        for Listed { found, .. } in items {
            if let Some(bytes) = payloads.remove(&(found.id, found.meta.payload.ov)) {
                found.inline = Some(bytes);
            }
        }
        Ok(())
    }

    /// How many items the list has, without their payloads.
    pub(crate) async fn count(self: &Arc<Self>, query: &Query, scope: &Scope) -> Result<u64> {
        let plan = self.plan(query, scope).await?;
        if plan.point.is_none() && plan.incomplete.is_empty() {
            return self.index.documents.count(&self.index.names.head, plan.shown_heads(), ALL).await;
        }
        self.all_items(plan).await?.try_fold(0, |count, _| async move { Ok(count + 1) }).await
    }

    /// The whole list as a stream; [`Query::limit`] is not looked at.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        query: Query,
        scope: &Scope,
    ) -> Result<BoxStream<'static, Result<View>>> {
        let listed = self.all_items(self.plan(&query, scope).await?).await?;
        let room = Arc::new(Semaphore::new(STREAMED_KIB as usize));
        // One after the other, so that the item that is due next never waits for room that later ones have.
        let listed = listed.then(move |item| {
            let room = Arc::clone(&room);
            async move {
                let item = item?;
                let kib = u32::try_from(item.found.meta.payload.size / 1024).unwrap_or(STREAMED_KIB);
                // It is never closed.
                let taken = room.acquire_many_owned(kib.clamp(1, STREAMED_KIB)).await.ok();
                Ok((item, taken))
            }
        });
        let reader = Arc::clone(self);
        let (read, on_damage) = (Arc::new(query.read), query.on_damage);
        let views = listed.map(move |item| {
            let (reader, read) = (Arc::clone(&reader), Arc::clone(&read));
            async move {
                let (item, taken) = item?;
                let view = reader.listed_view(item, &read, on_damage).await?;
                Ok(view.map(|view| (view, taken)))
            }
        });
        // The room is given back when the view is.
        let views = views.buffered(FETCHES).try_filter_map(|view| async { Ok(view.map(|(view, _)| view)) });
        Ok(views.boxed())
    }
}
