//! Reading documents in order, and the newest of each group.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::stream::BoxStream;
use mongodb::options::Hint;
use mongodb::{ClientSession, SessionCursor};

use super::call::Call;
use super::client::{Connector, Lease};
use super::ensure;
use super::failure::{Failure, has_code};
use crate::Result;
use crate::documents::filter::{Filter, Test, after_to_mongo, plain, to_mongo};
use crate::documents::paging::{self, Ask, PAGE_BYTES, POSITION_BYTES, Page, Pages, Position};
use crate::documents::{Direction, Index, Namespace, Newest, Scan};

/// The server's code for a hint that names no index, among others.
const BAD_VALUE: i32 = 2;

/// The scans of one collection.
#[derive(Clone)]
pub(super) struct Scans {
    connector: Arc<Connector>,
    namespace: Namespace,
}

/// What becomes of a document, with the bytes so far, and whether more are wanted.
type Take<T> = fn(&Ask, RawDocumentBuf, &mut usize) -> Result<(T, bool)>;

pub(super) fn stream(
    connector: Arc<Connector>,
    namespace: Namespace,
    scan: Scan,
) -> BoxStream<'static, Result<RawDocumentBuf>> {
    paging::stream(Scans { connector, namespace }, scan)
}

#[async_trait]
impl Pages for Scans {
    async fn page(&self, ask: Ask) -> Result<Page<RawDocumentBuf>> {
        self.look(ask, None, |_, document, bytes| {
            *bytes += document.as_bytes().len();
            Ok((document, *bytes < PAGE_BYTES))
        })
        .await
    }

    async fn positions(&self, ask: Ask) -> Result<Page<Position>> {
        let only = only(&ask.scan.order);
        self.look(ask, Some(only), |ask, document, bytes| {
            let position = Position::of(&document, &ask.scan.order)?;
            *bytes += position.len();
            Ok((position, *bytes < POSITION_BYTES))
        })
        .await
    }

    async fn follows_index(&self, scan: &Scan) -> Result<bool> {
        if scan.newest.is_some() {
            // Every grouping goes over all groups.
            return Ok(false);
        }
        let scans = self.clone();
        let indexes = self.connector.repeat(move |call: Call| {
            let scans = scans.clone();
            async move { scans.indexes(&call.lease).await }
        });
        let indexes = indexes.await.map_err(|f| self.connector.explain(f, "listing indexes"))?;
        Ok(indexes.iter().any(|index| index.yields(scan)))
    }
}

impl Scans {
    /// Reads on until the limit, or until `take` has had enough.
    async fn look<T: Send + 'static>(
        &self,
        ask: Ask,
        only: Option<Document>,
        take: Take<T>,
    ) -> Result<Page<T>> {
        let (scans, ask, only) = (self.clone(), Arc::new(ask), Arc::new(only));
        let looked = self.connector.repeat(move |call: Call| {
            let (scans, ask, only) = (scans.clone(), Arc::clone(&ask), Arc::clone(&only));
            async move { scans.look_once(&call, &ask, (*only).clone(), take).await }
        });
        looked.await.map_err(|f| self.connector.explain(f, "reading documents"))
    }

    /// The cursor lives no longer than this call.
    async fn look_once<T>(
        &self,
        call: &Call,
        ask: &Ask,
        only: Option<Document>,
        take: Take<T>,
    ) -> Result<Page<T>, Failure> {
        let limit = usize::try_from(ask.scan.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut session = call.session().await?;
        let mut cursor = self.cursor(&call.lease, &mut session, ask, only).await?;
        while found.len() < limit {
            if !cursor.advance(&mut session).await? {
                return Ok(Page { found, more: false });
            }
            let (taken, goes_on) = take(ask, cursor.current().to_owned(), &mut bytes)?;
            found.push(taken);
            if !goes_on && found.len() >= ask.at_least {
                break;
            }
        }
        Ok(Page { found, more: true })
    }

    async fn cursor(
        &self,
        lease: &Lease,
        session: &mut ClientSession,
        ask: &Ask,
        only: Option<Document>,
    ) -> Result<SessionCursor<RawDocumentBuf>, Failure> {
        if let Some(newest) = &ask.scan.newest {
            let pipeline = pipeline(ask, newest, only);
            let collection = lease.collection(&self.namespace);
            let aggregate = collection.aggregate(pipeline).allow_disk_use(true);
            return Ok(aggregate.session(session).await?.with_type());
        }
        let bounds = match &ask.scan.after {
            Some(after) => self
                .indexes(lease)
                .await?
                .iter()
                .filter_map(|index| bounds(index, ask, after))
                .max_by_key(|b| b.prefix),
            None => None,
        };
        match find(lease, session, &self.namespace, ask, bounds, only.clone()).await {
            // The index is gone.
            Err(Failure::Driver { error, .. }) if has_code(&error, BAD_VALUE) => {
                self.connector.known_indexes().forget(&self.namespace);
                find(lease, session, &self.namespace, ask, None, only).await
            }
            found => found,
        }
    }

    async fn indexes(&self, lease: &Lease) -> Result<Arc<Vec<Index>>, Failure> {
        let (known, now) = (self.connector.known_indexes(), self.connector.env().clock.now());
        if let Some(indexes) = known.get(&self.namespace, now) {
            return Ok(indexes);
        }
        let indexes = Arc::new(ensure::list(lease, &self.namespace).await?);
        known.put(&self.namespace, now, &indexes);
        Ok(indexes)
    }
}

/// Where a find enters an index, and where it leaves it.
///
/// A condition would not do: that what follows may be of another type makes it an `$or`, of which the server
/// enters the index at its beginning. Bounds of an index are keys, across all types.
struct Bounds {
    name: String,
    prefix: usize,
    min: Option<Document>,
    max: Option<Document>,
    sort: Document,
}

fn bounds(index: &Index, Ask { scan, inclusive, .. }: &Ask, after: &[Bson]) -> Option<Bounds> {
    let prefix = index.prefix_before(scan)?;
    let behind = prefix + scan.order.len();
    let (first, _) = index.keys.get(prefix)?;
    let forward = index.keys.get(prefix)?.1 == scan.order.iter().find(|(path, _)| path == first)?.1;
    if !forward
        && *inclusive
        && behind == index.keys.len()
        && !index.unique
        && !scan.order.iter().any(|(path, _)| path == "_id")
    {
        // The upper bound of an index lies below what equals it, and that may be several documents.
        return None;
    }
    let end = |key: &(String, Direction), last: bool| {
        if last == (key.1 == Direction::Ascending) { Bson::MaxKey } else { Bson::MinKey }
    };
    let fixed = || {
        index.keys[..prefix]
            .iter()
            .map(|(path, _)| (path.clone(), scan.filter.fixes(path).cloned().unwrap_or(Bson::Null)))
    };
    let keys =
        |from: usize, last: bool| index.keys[from..].iter().map(move |key| (key.0.clone(), end(key, last)));
    let at = || {
        fixed().chain(
            index.keys[prefix..behind]
                .iter()
                .zip(after)
                .map(|((path, _), value)| (path.clone(), plain(value))),
        )
    };
    let near: Document = at().chain(keys(behind, forward != *inclusive)).collect();
    let far: Option<Document> = (prefix > 0).then(|| fixed().chain(keys(prefix, forward)).collect());
    let (min, max) = if forward { (Some(near), far) } else { (far, Some(near)) };
    let sign = |way: Direction| if (way == Direction::Ascending) == forward { 1 } else { -1 };
    let sort =
        index.keys[..behind].iter().map(|(path, way)| (path.clone(), Bson::Int32(sign(*way)))).collect();
    Some(Bounds { name: index.name.clone(), prefix, min, max, sort })
}

async fn find(
    lease: &Lease,
    session: &mut ClientSession,
    namespace: &Namespace,
    ask: &Ask,
    bounds: Option<Bounds>,
    only: Option<Document>,
) -> Result<SessionCursor<RawDocumentBuf>, Failure> {
    let scan = &ask.scan;
    let collection = lease.collection(namespace).clone_with_type();
    let limit = i64::try_from(scan.limit.unwrap_or(0)).unwrap_or(i64::MAX);
    let filter = match (&bounds, &scan.after) {
        // A lower bound takes in what equals it.
        (Some(_), Some(after)) if !ask.inclusive => {
            both(to_mongo(&scan.filter), doc! { "$nor": [at(&scan.order, after)] })
        }
        (Some(_), _) => to_mongo(&scan.filter),
        (None, _) => matching(to_mongo(&scan.filter), ask),
    };
    let mut find = collection.find(filter).limit(limit);
    if only.is_none()
        && let Ok(size) = u32::try_from(limit)
    {
        find = find.batch_size(size);
    }
    match bounds {
        Some(Bounds { name, min, max, sort, .. }) => {
            find = find.hint(Hint::Name(name)).sort(sort);
            find = match (min, max) {
                (Some(min), Some(max)) => find.min(min).max(max),
                (Some(min), None) => find.min(min),
                (None, Some(max)) => find.max(max),
                (None, None) => find,
            };
        }
        None if !scan.order.is_empty() => find = find.sort(sort(&scan.order)).allow_disk_use(true),
        None => {}
    }
    if let Some(only) = only {
        find = find.projection(only);
    } else if !scan.without.is_empty() {
        find = find.projection(
            scan.without.iter().map(|field| (field.clone(), Bson::Int32(0))).collect::<Document>(),
        );
    }
    Ok(find.session(session).await?)
}

/// The projection to what an order looks at.
fn only(order: &[(String, Direction)]) -> Document {
    let within = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
    let outer = order.iter().filter(|(path, _)| !order.iter().any(|(other, _)| within(path, other)));
    outer
        .map(|(path, _)| (path.clone(), Bson::Int32(1)))
        .chain([("_id".to_owned(), Bson::Int32(1))])
        .collect()
}

/// How many documents match, `at_most` at most: nothing but the number travels, and where an index serves the
/// filter nothing else is read.
pub(super) async fn count(
    call: &Call,
    namespace: &Namespace,
    filter: &Filter,
    at_most: u64,
) -> Result<u64, Failure> {
    if at_most == 0 {
        return Ok(0);
    }
    let stages = vec![
        doc! { "$match": to_mongo(filter) },
        doc! { "$limit": i64::try_from(at_most).unwrap_or(i64::MAX) },
        doc! { "$group": { "_id": Bson::Null, "n": { "$sum": 1_i64 } } },
    ];
    let mut session = call.session().await?;
    let mut cursor = call.lease.collection(namespace).aggregate(stages).session(&mut session).await?;
    let counted = cursor.next(&mut session).await.transpose()?;
    Ok(counted.and_then(|found| found.get_i64("n").ok()).unwrap_or(0).unsigned_abs())
}

/// The stages that reduce every group to its newest document, and then select and order those.
///
/// With an index over `(per, by)` the server jumps from group to group and fetches one document of each: it
/// sees that the grouping takes the first document of each group in the index's (here reverse) order. That
/// only works if there is a condition on `per` (every value passes the one put here) and nothing stands
/// between match, sort and group; so large fields are dropped behind them. Measured with 40 documents a
/// group: 20x.
fn pipeline(ask: &Ask, newest: &Newest, only: Option<Document>) -> Vec<Document> {
    let scan = &ask.scan;
    let (on_group, on_newest) = split(&scan.filter, &newest.per);
    let mut bound = doc! { &newest.by: { "$lte": &newest.at_most } };
    let one_group = one_group(&on_group, &newest.per);
    if !one_group {
        bound.insert(&newest.per, from_group(scan, newest));
    }
    let mut stages = vec![doc! { "$match": both(bound, to_mongo(&on_group)) }];
    if one_group {
        stages.push(doc! { "$sort": { &newest.by: -1 } });
        stages.push(doc! { "$limit": 1 });
    } else {
        stages.push(doc! { "$sort": { &newest.per: -1, &newest.by: -1 } });
        stages
            .push(doc! { "$group": { "_id": format!("${}", newest.per), "newest": { "$first": "$$ROOT" } } });
        stages.push(doc! { "$replaceRoot": { "newRoot": "$newest" } });
    }
    let matching = matching(to_mongo(&on_newest), ask);
    if !matching.is_empty() {
        stages.push(doc! { "$match": matching });
    }
    let needed: HashSet<&str> = scan.order.iter().filter_map(|(path, _)| path.split('.').next()).collect();
    let (late, early): (Vec<_>, Vec<_>) =
        scan.without.iter().partition(|field| needed.contains(field.as_str()));
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
    stages.extend(only.map(|only| doc! { "$project": only }));
    stages
}

/// In the order of the groups, those before the one to go on from need no look. Comparisons stay within a
/// type, so this is known of ids alone.
fn from_group(scan: &Scan, newest: &Newest) -> Document {
    match (scan.order.first(), scan.after.as_ref().and_then(|after| after.first())) {
        (Some((path, direction)), Some(at @ Bson::ObjectId(_))) if *path == newest.per => {
            let sign = if *direction == Direction::Ascending { "$gte" } else { "$lte" };
            doc! { sign: at }
        }
        _ => doc! { "$gte": Bson::MinKey },
    }
}

/// The filter with the place to go on from.
fn matching(filter: Document, Ask { scan, inclusive, .. }: &Ask) -> Document {
    match &scan.after {
        Some(after) if *inclusive => {
            both(filter, doc! { "$or": [at(&scan.order, after), after_to_mongo(&scan.order, after)] })
        }
        Some(after) => both(filter, after_to_mongo(&scan.order, after)),
        None => filter,
    }
}

fn at(order: &[(String, Direction)], after: &[Bson]) -> Document {
    doc! { "$and": order.iter().zip(after).map(|((path, _), value)| doc! { path: { "$eq": plain(value) } }).collect::<Vec<_>>() }
}

fn both(a: Document, b: Document) -> Document {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => doc! { "$and": [a, b] },
    }
}

fn sort(order: &[(String, Direction)]) -> Document {
    order
        .iter()
        .map(|(path, direction)| {
            (path.clone(), Bson::Int32(if *direction == Direction::Ascending { 1 } else { -1 }))
        })
        .collect()
}

/// Parts a filter into what concerns `per` alone, which is the same for all documents of a group, and the
/// rest.
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
    filter.fields().all(|(path, _)| path == per)
}

/// Whether at most one group can match: then its newest document is the first of a sorted find.
fn one_group(filter: &Filter, per: &str) -> bool {
    let scalar = |value: &Bson| {
        !matches!(value, Bson::Null | Bson::Array(_) | Bson::Undefined | Bson::RegularExpression(_))
    };
    match filter {
        Filter::And(parts) => parts.iter().any(|part| one_group(part, per)),
        Filter::Field(path, Test::Eq(value)) => path == per && scalar(value),
        Filter::Field(path, Test::In(values)) => {
            path == per && matches!(values.as_slice(), [one] if scalar(one))
        }
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
        let scan = Scan {
            filter: Filter::eq("itemId", "a").and(Filter::eq("meta.x", 1)),
            newest: Some(newest()),
            ..Scan::default()
        };
        let stages = pipeline(&Ask { scan, inclusive: false, at_least: 1 }, &newest(), None);
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
        let stages = pipeline(&Ask { scan, inclusive: false, at_least: 1 }, &newest(), None);
        let at = |stage: &Document| stages.iter().position(|s| s == stage).unwrap();
        assert!(at(&doc! { "$unset": ["payload"] }) < at(&doc! { "$sort": { "x.y": 1 } }));
        assert_eq!(stages.last(), Some(&doc! { "$unset": ["x"] }));
    }
}
