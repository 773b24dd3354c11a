//! Reading documents in order, and the newest of each group.

use std::collections::HashSet;
use std::sync::Arc;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::Cursor;

use super::client::{Connector, Lease};
use super::failure::Failure;
use crate::documents::filter::{Filter, Test, after_to_mongo, to_mongo};
use crate::documents::{Direction, Namespace, Newest, Scan};
use crate::{Error, Result};

/// Documents per portion. The server also ends a portion at 16 MiB, so large documents come in fewer.
const PORTION: u32 = 200;

pub(super) fn stream(connector: Arc<Connector>, namespace: Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
    stream::once(open(connector, namespace, scan)).try_flatten().boxed()
}

async fn open(connector: Arc<Connector>, namespace: Namespace, scan: Scan) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    if let Some(after) = &scan.after
        && after.len() != scan.order.len()
    {
        return Err(Error::validation(format!(
            "a scan in the order of {} paths cannot start after {} values",
            scan.order.len(),
            after.len()
        )));
    }
    if scan.limit == Some(0) {
        return Ok(stream::empty().boxed());
    }
    let lease = connector.lease().await?;
    let cursor = match &scan.newest {
        None => find(&lease, &namespace, &scan).await,
        Some(newest) => aggregate(&lease, &namespace, pipeline(&scan, newest)).await,
    };
    let cursor = cursor.map_err(|f| connector.explain(f, "reading documents"))?;
    let documents = cursor.map(move |raw| {
        // The stream is a call in flight until it is dropped.
        let _in_flight = &lease;
        raw.map_err(|error| connector.explain(error.into(), "reading documents"))
    });
    Ok(documents.boxed())
}

async fn find(lease: &Lease, namespace: &Namespace, scan: &Scan) -> Result<Cursor<RawDocumentBuf>, Failure> {
    let collection = lease.collection(namespace).clone_with_type();
    let mut find = collection.find(matching(to_mongo(&scan.filter), scan)).batch_size(PORTION);
    if !scan.order.is_empty() {
        find = find.sort(sort(&scan.order)).allow_disk_use(true);
    }
    if let Some(limit) = scan.limit {
        find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
    }
    if !scan.without.is_empty() {
        find = find.projection(scan.without.iter().map(|field| (field.clone(), Bson::Int32(0))).collect::<Document>());
    }
    Ok(find.await?)
}

async fn aggregate(lease: &Lease, namespace: &Namespace, pipeline: Vec<Document>) -> Result<Cursor<RawDocumentBuf>, Failure> {
    Ok(lease.collection(namespace).aggregate(pipeline).allow_disk_use(true).batch_size(PORTION).with_type().await?)
}

/// The stages that reduce every group to its newest document, and then select and order those.
///
/// With an index over `(per, by)` the server jumps from group to group and fetches one document of each: it sees that the grouping takes the first
/// document of each group in the index's (here reverse) order. That only works if there is a condition on `per` (every value passes the one put
/// here) and nothing stands between match, sort and group; so large fields are dropped behind them. Measured with 40 documents a group: 20x.
fn pipeline(scan: &Scan, newest: &Newest) -> Vec<Document> {
    let (on_group, on_newest) = split(&scan.filter, &newest.per);
    let mut bound = doc! { &newest.by: { "$lte": &newest.at_most } };
    let one_group = one_group(&on_group, &newest.per);
    if !one_group {
        bound.insert(&newest.per, doc! { "$gte": Bson::MinKey });
    }
    let mut stages = vec![doc! { "$match": both(bound, to_mongo(&on_group)) }];
    if one_group {
        stages.push(doc! { "$sort": { &newest.by: -1 } });
        stages.push(doc! { "$limit": 1 });
    } else {
        stages.push(doc! { "$sort": { &newest.per: -1, &newest.by: -1 } });
        stages.push(doc! { "$group": { "_id": format!("${}", newest.per), "newest": { "$first": "$$ROOT" } } });
        stages.push(doc! { "$replaceRoot": { "newRoot": "$newest" } });
    }
    let matching = matching(to_mongo(&on_newest), scan);
    if !matching.is_empty() {
        stages.push(doc! { "$match": matching });
    }
    let needed: HashSet<&str> = scan.order.iter().filter_map(|(path, _)| path.split('.').next()).collect();
    let (late, early): (Vec<_>, Vec<_>) = scan.without.iter().partition(|field| needed.contains(field.as_str()));
    if !early.is_empty() {
        stages.push(doc! { "$unset": early });
    }
    if !scan.order.is_empty() {
        stages.push(doc! { "$sort": sort(&scan.order) });
    }
    if let Some(limit) = scan.limit {
        stages.push(doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) });
    }
    if !late.is_empty() {
        stages.push(doc! { "$unset": late });
    }
    stages
}

/// The filter with the place to go on from.
fn matching(filter: Document, scan: &Scan) -> Document {
    match &scan.after {
        Some(after) if !scan.order.is_empty() => both(filter, after_to_mongo(&scan.order, after)),
        _ => filter,
    }
}

fn both(a: Document, b: Document) -> Document {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => doc! { "$and": [a, b] },
    }
}

fn sort(order: &[(String, Direction)]) -> Document {
    order.iter().map(|(path, direction)| (path.clone(), Bson::Int32(if *direction == Direction::Ascending { 1 } else { -1 }))).collect()
}

/// Parts a filter into what concerns `per` alone, which is the same for all documents of a group, and the rest.
fn split(filter: &Filter, per: &str) -> (Filter, Filter) {
    match filter {
        Filter::And(parts) => parts.iter().fold((Filter::All, Filter::All), |(group, rest), part| {
            let (g, r) = split(part, per);
            (group.and(g), rest.and(r))
        }),
        whole if only_on(whole, per) => (whole.clone(), Filter::All),
        whole => (Filter::All, whole.clone()),
    }
}

fn only_on(filter: &Filter, per: &str) -> bool {
    match filter {
        Filter::All => true,
        Filter::And(parts) | Filter::Or(parts) | Filter::Nor(parts) => parts.iter().all(|part| only_on(part, per)),
        Filter::Field(path, _) => path == per,
    }
}

/// Whether at most one group can match: then its newest document is the first of a sorted find.
fn one_group(filter: &Filter, per: &str) -> bool {
    let scalar = |value: &Bson| !matches!(value, Bson::Null | Bson::Array(_) | Bson::Undefined | Bson::RegularExpression(_));
    match filter {
        Filter::And(parts) => parts.iter().any(|part| one_group(part, per)),
        Filter::Field(path, Test::Eq(value)) => path == per && scalar(value),
        Filter::Field(path, Test::In(values)) => path == per && matches!(values.as_slice(), [one] if scalar(one)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest() -> Newest {
        Newest { per: "itemId".into(), by: "at".into(), at_most: Bson::Int32(9) }
    }

    #[test]
    fn the_newest_document_of_one_item_needs_no_grouping() {
        let scan = Scan { filter: Filter::eq("itemId", "a").and(Filter::eq("meta.x", 1)), newest: Some(newest()), ..Scan::default() };
        let stages = pipeline(&scan, &newest());
        assert!(stages.iter().all(|stage| !stage.contains_key("$group")), "{stages:?}");
        assert!(stages.contains(&doc! { "$limit": 1 }), "{stages:?}");
    }

    #[test]
    fn conditions_on_other_fields_apply_to_the_newest_documents_only() {
        let (group, rest) = split(&Filter::eq("itemId", "a").and(Filter::eq("meta.x", 1)), "itemId");
        assert_eq!((group, rest), (Filter::eq("itemId", "a"), Filter::eq("meta.x", 1)));
    }

    #[test]
    fn a_large_field_is_dropped_before_the_sort_unless_the_order_needs_it() {
        let scan = Scan {
            without: vec!["payload".into(), "x".into()],
            order: vec![("x.y".into(), Direction::Ascending)],
            newest: Some(newest()),
            ..Scan::default()
        };
        let stages = pipeline(&scan, &newest());
        let at = |stage: &Document| stages.iter().position(|s| s == stage).unwrap();
        assert!(at(&doc! { "$unset": ["payload"] }) < at(&doc! { "$sort": { "x.y": 1 } }));
        assert_eq!(stages.last(), Some(&doc! { "$unset": ["x"] }));
    }
}
