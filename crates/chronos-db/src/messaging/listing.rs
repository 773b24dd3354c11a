//! Pages of documents, in an order an index gives.

use std::sync::Arc;

use bson::{Bson, Document};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::DEFAULT_NAMESPACE;
use super::schema::Kind;
use super::table::Table;
use crate::documents::filter::key_encoding::compare_by;
use crate::documents::{Filter, Scan};
use crate::records::{Order, cursor, parse_cursor};
use crate::{Error, Page, Result};

/// Documents per page if no limit is given, and the most a page can have.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

/// What to list.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) filter: Filter,
    /// Lists the documents of this namespace.
    pub(super) namespace: String,
    pub(super) order: Order,
    pub(super) after: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) without: Vec<String>,
}

crate::debug_some!(Listing { namespace, order, limit, without });

impl Listing {
    pub(super) fn limit(&self) -> Result<usize> {
        let limit = self.limit.unwrap_or(PAGE);
        if limit == 0 || limit > MAX_PAGE {
            return Err(Error::validation(format!("a page has 1 to {MAX_PAGE} entries, not {limit}")));
        }
        usize::try_from(limit).map_err(|_| Error::validation("the limit is too large for this machine"))
    }

    pub(super) fn position(&self) -> Result<Option<Vec<Bson>>> {
        self.after.as_deref().map(|token| parse_cursor(token, &self.order)).transpose()
    }

    /// One page of documents.
    pub(super) async fn page(&self, table: &Table) -> Result<Page<Document>> {
        let limit = self.limit()?;
        let after = self.position()?;
        let part = |namespace: Bson| {
            table.all(Scan {
                filter: Filter::eq("namespace", namespace).and(self.filter.clone()),
                order: self.order.clone(),
                after: after.clone(),
                limit: Some(limit as u64 + 1),
                without: self.without.clone(),
                newest: None,
            })
        };
        let mut items = if table.kind != Kind::SharedMemory && self.namespace == DEFAULT_NAMESPACE {
            // The legacy library's documents have no namespace. As two scans, both come in the index's order
            // on every store.
            let (ours, theirs) =
                futures::future::try_join(part(DEFAULT_NAMESPACE.into()), part(Bson::Null)).await?;
            let mut all = ours;
            all.extend(theirs);
            all.sort_by(|a, b| compare_by(&self.order, a, b));
            all
        } else {
            part(self.namespace.as_str().into()).await?
        };
        let next = if items.len() > limit {
            items.get(limit - 1).map(|last| cursor(&self.order, last)).transpose()?
        } else {
            None
        };
        items.truncate(limit);
        Ok(Page::new(items, next))
    }

    /// The page as what `read` makes of its documents.
    pub(super) async fn page_of<T>(
        &self,
        table: &Table,
        read: fn(&Document) -> Result<T>,
    ) -> Result<Page<T>> {
        self.page(table).await?.try_map(|document| read(&document))
    }

    /// All pages, one after the other.
    pub(super) fn stream<T: Send + 'static>(
        self,
        table: Table,
        read: fn(&Document) -> Result<T>,
    ) -> BoxStream<'static, Result<T>> {
        let table = Arc::new(table);
        pages(self.after.clone(), move |after| {
            let (listing, table) = (Self { after, ..self.clone() }, Arc::clone(&table));
            async move { listing.page_of(&table, read).await }
        })
    }
}

/// The entries of all pages that `page` gives, beginning after a cursor.
pub(super) fn pages<T: Send + 'static, F: Future<Output = Result<Page<T>>> + Send + 'static>(
    after: Option<String>,
    page: impl Fn(Option<String>) -> F + Send + Sync + 'static,
) -> BoxStream<'static, Result<T>> {
    let page = Arc::new(page);
    let turned = futures::stream::try_unfold(Some(after), move |state| {
        let page = Arc::clone(&page);
        async move {
            let Some(after) = state else { return Ok(None) };
            let Page { items, next, .. } = page(after).await?;
            Ok(Some((futures::stream::iter(items.into_iter().map(Ok)), next.map(Some))))
        }
    });
    futures::TryStreamExt::try_flatten(turned).boxed()
}
