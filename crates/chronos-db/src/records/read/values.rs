//! The indexed properties of live items, for what is computed over all of them.

use std::sync::Arc;

use bson::{Document, RawDocument};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::plan::Plan;
use super::query::{FETCHES, Query};
use super::reader::{Reader, ResolvedVersion};
use crate::documents::filter::Test;
use crate::documents::{Filter, Scan, raw_bson};
use crate::records::document::indexing::plain;
use crate::records::index::scope::Scope;
use crate::records::model::{Head, ItemId};
use crate::{Error, Json, Result, Timestamp};

/// What an entry and its times are read without.
const UNREAD: [&str; 3] = ["fullShadow", "payload", "refs"];
/// Where an entry stands in a head.
const ENTRY: &str = "metaIndexed";

/// Which items, and which of their properties.
#[derive(Clone)]
pub(crate) struct ValuesQuery {
    pub(crate) filter: Json,
    /// The properties that are looked at, beside those of the filter.
    pub(crate) properties: Vec<String>,
    /// When they were created; both moments are within.
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Timestamp,
}

crate::debug_some!(ValuesQuery { properties, from, to });

/// The indexed properties of a live item.
pub(crate) struct ItemValues {
    pub(crate) id: ItemId,
    /// When it was last changed.
    pub(crate) changed_at: Timestamp,
    pub(crate) entry: Document,
}

crate::debug_some!(ItemValues { id, changed_at });

impl Reader {
    /// Reads the items, in any order and bounded memory.
    pub(crate) async fn values(
        self: &Arc<Self>,
        wanted: &ValuesQuery,
        scope: &Scope,
    ) -> Result<BoxStream<'static, Result<ItemValues>>> {
        let plan = self.plan_of_values(wanted, scope).await?;
        let without = UNREAD.map(str::to_owned).to_vec();
        let scan = Scan { filter: plan.shown_heads(), without, ..Scan::default() };
        let complete = self.index.documents.scan_stored(&self.index.names.head, scan);
        let complete = complete.map(|stored| of_entry(&stored?));
        let Some(lacking) = plan.lacking() else { return Ok(complete.boxed()) };
        // Of these the documents tell.
        let others = plan.all_heads().and(lacking).and(created_within(wanted));
        let others = self
            .index
            .documents
            .scan_stored(&self.index.names.head, Scan { filter: others, ..Scan::default() });
        let (reader, plan) = (Arc::clone(self), Arc::new(plan));
        let others = others.map(move |stored| {
            let (reader, plan) = (Arc::clone(&reader), Arc::clone(&plan));
            async move { reader.of_document(&stored?, &plan).await }
        });
        let others = others.buffered(FETCHES).try_filter_map(|item| async { Ok(item) });
        Ok(complete.chain(others).boxed())
    }

    /// How many items there are, `at_most` at most, if the store can tell without reading them.
    pub(crate) async fn count_values(
        &self,
        wanted: &ValuesQuery,
        scope: &Scope,
        at_most: u64,
    ) -> Result<Option<u64>> {
        let plan = self.plan_of_values(wanted, scope).await?;
        if !plan.incomplete.is_empty() {
            return Ok(None);
        }
        self.index.documents.count(&self.index.names.head, plan.shown_heads(), at_most).await.map(Some)
    }

    async fn plan_of_values(&self, wanted: &ValuesQuery, scope: &Scope) -> Result<Plan> {
        let query = Query { filter: Some(wanted.filter.clone()), ..Query::default() };
        let mut plan = self.plan(&query, scope).await?;
        if !wanted.properties.is_empty() && self.index.may_miss().await? {
            let tops = wanted.properties.iter().filter_map(|path| path.split('.').next());
            plan.incomplete.extend(tops.map(plain));
        }
        plan.heads.filter = plan.heads.filter.and(created_within(wanted));
        Ok(plan)
    }

    /// An item whose entry lacks something, if it matches.
    async fn of_document(&self, stored: &RawDocument, plan: &Plan) -> Result<Option<ItemValues>> {
        let head = Head::read(stored)?;
        if !head.is_live() {
            return Ok(None);
        }
        let found = ResolvedVersion::from_head(head);
        let fields = raw_bson::decode_part(stored, |field| !UNREAD.contains(&field))?;
        let mut fields = self.whole_fields(fields, &found).await?;
        if !plan.heads.filter.matches(&fields) {
            return Ok(None);
        }
        let entry = match fields.remove(ENTRY) {
            Some(bson::Bson::Document(entry)) => entry,
            _ => Document::new(),
        };
        Ok(Some(ItemValues { id: found.id, changed_at: found.at, entry }))
    }
}

fn created_within(wanted: &ValuesQuery) -> Filter {
    let until = Filter::lte("createdAt", wanted.to);
    match wanted.from {
        None => until,
        Some(from) => Filter::Field("createdAt".to_owned(), Test::Gte(from.into())).and(until),
    }
}

fn of_entry(stored: &RawDocument) -> Result<ItemValues> {
    let mut fields = raw_bson::decode_part(stored, |field| ["_id", "updatedAt", ENTRY].contains(&field))?;
    let id = fields.get_object_id("_id").map(ItemId::new);
    let id = id.map_err(|error| Error::database("a head has no item id as its `_id`").caused_by(error))?;
    let changed_at = fields.get_datetime("updatedAt").map(|at| Timestamp::from(*at)).unwrap_or_default();
    let entry = match fields.remove(ENTRY) {
        Some(bson::Bson::Document(entry)) => entry,
        _ => Document::new(),
    };
    Ok(ItemValues { id, changed_at, entry })
}
