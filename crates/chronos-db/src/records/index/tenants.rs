//! The tenants of a collection that all of them share.

use std::sync::Arc;

use bson::Document;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::scope::TENANT;
use crate::Result;
use crate::documents::{Direction, DocumentStore, Filter, Namespace, Scan};

/// No tenant, then every tenant that has a head: one look at the index each.
pub(crate) fn tenants_of(
    documents: Arc<dyn DocumentStore>,
    heads: Namespace,
) -> BoxStream<'static, Result<Option<String>>> {
    let next = move |last: String| {
        let (documents, heads) = (Arc::clone(&documents), heads.clone());
        async move {
            let scan = Scan {
                filter: Filter::gt(TENANT, last.as_str()),
                order: vec![(TENANT.to_owned(), Direction::Ascending)],
                limit: Some(1),
                ..Scan::default()
            };
            let found: Vec<Document> = documents.scan(&heads, scan).try_collect().await?;
            let tenant = found.first().and_then(|head| head.get_str(TENANT).ok()).map(str::to_owned);
            Ok(tenant.map(|tenant| (Some(tenant.clone()), tenant)))
        }
    };
    stream::once(async { Ok(None) }).chain(stream::try_unfold(String::new(), next)).boxed()
}
