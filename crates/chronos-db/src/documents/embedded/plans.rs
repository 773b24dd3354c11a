//! How SQLite goes about the queries that must not grow with the data.

use std::sync::Arc;

use bson::{DateTime, doc};
use rusqlite::params_from_iter;

use super::catalog::Session;
use super::connection::{self, Role};
use super::query::Query;
use super::write::Prepared;
use crate::documents::filter::Test;
use crate::documents::paging::Ask;
use crate::documents::{Batch, Direction, Filter, Index, Namespace, Newest, Scan, Write};
use crate::records::{indexes_of_heads, tenant_indexes_of_heads, version_indexes};

use Direction::{Ascending, Descending};

/// An empty collection with the indexes that records really have.
fn with(indexes: &[Index]) -> (Session, Namespace) {
    let mut session = Session::new(connection::connect(None, Role::Writer).unwrap(), &Arc::default());
    let namespace = Namespace::new("database", "collection");
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.ensure(&namespace, indexes).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    (session, namespace)
}

fn versions() -> (Session, Namespace) {
    with(&version_indexes())
}

/// The heads of a collection whose items have a status.
fn heads() -> (Session, Namespace) {
    with(&indexes_of_heads(&["status"]))
}

fn live() -> Filter {
    Filter::eq("deletedAt", bson::Bson::Null).and(Filter::Field("erased".into(), Test::Ne(true.into())))
}

fn plan(session: &mut Session, namespace: &Namespace, scan: &Scan) -> String {
    let table = session.table(namespace).unwrap().unwrap();
    let query = Query::new(&table, &Ask { scan: scan.clone(), inclusive: false, at_least: 1 });
    let mut statement = session.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql)).unwrap();
    let lines =
        statement.query_map(params_from_iter(&query.parameters), |row| row.get::<_, String>(3)).unwrap();
    lines.map(|line| line.unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_version_as_of_a_moment_is_one_step_into_the_index() {
    let (mut session, namespace) = versions();
    for path in ["at", "cv", "ov"] {
        let filter = Filter::eq("itemId", "a").and(Filter::lte(path, DateTime::from_millis(5)));
        let scan =
            Scan { filter, order: vec![(path.to_owned(), Descending)], limit: Some(1), ..Scan::default() };
        let plan = plan(&mut session, &namespace, &scan);
        assert!(
            plan.contains("(c0=? AND c") && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"),
            "{path}: {plan}"
        );
    }
}

#[test]
fn a_page_by_an_indexed_path_begins_where_the_last_one_ended() {
    let (mut session, namespace) = heads();
    for (path, column) in
        [("updatedAt", "c0"), ("createdAt", "c1"), ("cv", "c2"), ("ov", "c3"), ("metaIndexed.status", "c4")]
    {
        for (direction, sign) in [(Ascending, '>'), (Descending, '<')] {
            let order = vec![(path.to_owned(), direction), ("_id".to_owned(), direction)];
            let scan =
                Scan { filter: live(), order, after: Some(vec![6.into(), 7.into()]), ..Scan::default() };
            let found = plan(&mut session, &namespace, &scan);
            assert!(
                found.contains(&format!("(({column},id){sign}(?,?))")) && !found.contains("TEMP B-TREE"),
                "{path}: {found}"
            );
        }
    }
}

/// A bound of the filter at the end where the scan begins would be another way into the index.
#[test]
fn a_later_page_within_a_range_begins_where_the_last_one_ended() {
    let (mut session, namespace) = heads();
    let path = "metaIndexed.status";
    for (direction, expected) in
        [(Ascending, "((c4,id)>(?,?) AND c4<?)"), (Descending, "(c4>? AND (c4,id)<(?,?))")]
    {
        let range = Filter::gt(path, 5).and(Filter::Field(path.to_owned(), Test::Lt(15.into())));
        let order = vec![(path.to_owned(), direction), ("_id".to_owned(), direction)];
        let after = Some(vec![10.into(), 7.into()]);
        let found = plan(
            &mut session,
            &namespace,
            &Scan { filter: live().and(range), order, after, ..Scan::default() },
        );
        assert!(found.contains(expected) && !found.contains("TEMP B-TREE"), "{found}");
    }
}

/// SQL's own order of terms must not decide whether the range is read, or everything of its type.
#[test]
fn a_range_is_one_range_of_its_index() {
    let (session, namespace) = heads();
    let mut session = session;
    let table = session.table(&namespace).unwrap().unwrap();
    let path = "metaIndexed.status";
    for bounds in [[Test::Gte(5.into()), Test::Lt(15.into())], [Test::Lt(15.into()), Test::Gte(5.into())]] {
        let fields = bounds.iter().cloned().map(|test| Filter::Field(path.to_owned(), test)).collect();
        for filter in [Filter::And(fields), Filter::Field(path.to_owned(), Test::Every(bounds.to_vec()))] {
            let order = vec![("_id".to_owned(), Ascending)];
            let query = Query::new(
                &table,
                &Ask { scan: Scan { filter, order, ..Scan::default() }, inclusive: false, at_least: 1 },
            );
            assert_eq!(query.sql.matches("r.c4").count(), 2, "{}", query.sql);
        }
    }
}

#[test]
fn a_page_of_equal_values_by_id_follows_the_index() {
    let (mut session, namespace) = heads();
    let order = vec![("_id".to_owned(), Ascending)];
    let filter = live().and(Filter::eq("metaIndexed.status", "open"));
    let plan = plan(
        &mut session,
        &namespace,
        &Scan { filter, order, after: Some(vec![7.into()]), ..Scan::default() },
    );
    assert!(plan.contains("(c4=? AND id>?") && !plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn the_newest_by_item_hop_along_the_index() {
    let (mut session, namespace) = versions();
    for (by, at_most) in [("at", DateTime::from_millis(5).into()), ("cv", bson::Bson::Int32(5))] {
        let newest = Newest { per: "itemId".to_owned(), by: by.to_owned(), at_most };
        let order = vec![("itemId".to_owned(), Ascending)];
        for filter in [Filter::All, Filter::any_of("itemId", vec![1.into(), 2.into()])] {
            let scan = Scan {
                newest: Some(newest.clone()),
                filter,
                order: order.clone(),
                after: Some(vec![1.into()]),
                ..Scan::default()
            };
            let plan = plan(&mut session, &namespace, &scan);
            assert!(
                !plan.contains("TEMP B-TREE") && !plan.contains("SCAN n") && !plan.contains("SCAN r"),
                "{by}: {plan}"
            );
        }
    }
}

/// The heads of a collection that tenants share.
fn shared_heads() -> (Session, Namespace) {
    with(&tenant_indexes_of_heads(&["email"]))
}

fn of_tenant(more: Filter) -> Filter {
    crate::records::Scope::tenant("acme").narrow(more.and(live()))
}

#[test]
fn a_list_of_one_tenant_costs_what_the_tenant_has() {
    let (mut session, namespace) = shared_heads();
    for path in ["_id", "updatedAt", "metaIndexed.email"] {
        let mut order = vec![(path.to_owned(), Descending)];
        let mut after = vec![7.into()];
        if path != "_id" {
            order.push(("_id".to_owned(), Descending));
            after.push(8.into());
        }
        let scan = Scan {
            filter: of_tenant(Filter::All),
            order,
            after: Some(after),
            limit: Some(50),
            ..Scan::default()
        };
        let plan = plan(&mut session, &namespace, &scan);
        assert!(
            plan.contains("SEARCH") && plan.contains("(c0=?") && !plan.contains("TEMP B-TREE"),
            "{path}: {plan}"
        );
    }
}

#[test]
fn an_item_is_found_by_a_unique_key_within_its_tenant() {
    let (mut session, namespace) = shared_heads();
    let scan = Scan { filter: of_tenant(Filter::eq("metaIndexed.email", "a@x")), ..Scan::default() };
    let plan = plan(&mut session, &namespace, &scan);
    assert!(plan.contains("SEARCH") && plan.contains("(c0=? AND c"), "{plan}");
}

#[test]
fn arrays_are_looked_for_only_after_one_came() {
    let (mut session, namespace) = heads();
    let by_status = || Scan { filter: Filter::eq("metaIndexed.status", "open"), ..Scan::default() };
    let sql = |session: &mut Session, namespace: &Namespace| {
        let table = session.table(namespace).unwrap().unwrap();
        Query::new(&table, &Ask { scan: by_status(), inclusive: false, at_least: 1 }).sql
    };
    assert!(!sql(&mut session, &namespace).contains("F0"));
    let mut batch = Batch::new();
    batch.push(&namespace, Write::insert(doc! { "_id": 1, "metaIndexed": { "status": ["open"] } }));
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.apply(&Prepared::new(batch).unwrap()).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    assert!(sql(&mut session, &namespace).contains("F0"));
}

/// Versions under the indexes they really have, of which every hundredth waits to be stored.
fn records(rows: i64) -> (Session, Namespace) {
    let (mut session, namespace) = versions();
    session.begin("BEGIN IMMEDIATE").unwrap();
    let mut batch = Batch::new();
    for n in 0..rows {
        let mut row = doc! { "_id": n, "itemId": n, "ov": 0, "cv": n, "at": DateTime::from_millis(n) };
        // Four rows, however many there are.
        if n % (rows / 4) == 1 {
            row.insert("unflushedSince", DateTime::from_millis(n));
        }
        batch.push(&namespace, Write::insert(row));
    }
    session.apply(&Prepared::new(batch).unwrap()).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    (session, namespace)
}

#[test]
fn what_waits_to_be_stored_is_found_by_a_partial_index() {
    let (mut session, namespace) = records(100);
    for scan in [waiting(None), waiting(Some(vec![DateTime::from_millis(1).into(), 1.into()]))] {
        let plan = plan(&mut session, &namespace, &scan);
        assert!(plan.contains("USING INDEX i") || plan.contains("USING COVERING INDEX i"), "{plan}");
        assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{plan}");
    }
    let indexed: i64 = session
        .connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%WHERE c_ <> x%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(indexed, 1, "rows that are stored are in no index of those that wait");
}

fn waiting(after: Option<Vec<bson::Bson>>) -> Scan {
    Scan {
        filter: crate::records::waiting(),
        order: vec![("unflushedSince".to_owned(), Ascending), ("_id".to_owned(), Ascending)],
        after,
        limit: Some(128),
        ..Scan::default()
    }
}

/// SQLite's own count of the steps it took.
#[test]
fn looking_for_what_waits_costs_the_same_among_a_hundred_times_as_many_rows() {
    let steps = |rows: i64| {
        let (mut session, namespace) = records(rows);
        let table = session.table(&namespace).unwrap().unwrap();
        let of = |query: Query| {
            let mut statement = session.connection.prepare(&query.sql).unwrap();
            let found = statement.query_map(params_from_iter(&query.parameters), |_| Ok(())).unwrap().count();
            (found, statement.get_status(rusqlite::StatementStatus::VmStep))
        };
        let (found, scanned) =
            of(Query::new(&table, &Ask { scan: waiting(None), inclusive: false, at_least: 1 }));
        assert_eq!(found, 4);
        let (_, counted) = of(Query::count(&table, &crate::records::waiting(), 1000).unwrap());
        (scanned, counted)
    };
    let (few, many) = (steps(100), steps(10_000));
    assert_eq!(few, many, "steps of a scan and of a count");
}

/// SQLite's steps for a page of heads, sorted by their time, of which `matching` of all have a status within
/// a range.
fn page_by_time(all: i64, matching: i64) -> u64 {
    let steps = Arc::<super::Steps>::default();
    let mut session = Session::new(connection::connect(None, Role::Writer).unwrap(), &steps);
    let namespace = Namespace::new("database", "heads");
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.ensure(&namespace, &indexes_of_heads(&["status"])).unwrap();
    let mut batch = Batch::new();
    for n in 0..all {
        // Those that match are spread over all times.
        let status = if n % (all / matching) == 0 { 1 } else { 9 };
        let head = doc! { "_id": n, "updatedAt": n, "createdAt": n, "cv": n, "ov": 0, "metaIndexed": { "status": status } };
        batch.push(&namespace, Write::insert(head));
    }
    session.apply(&Prepared::new(batch).unwrap()).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    let filter = live().and(Filter::lte("metaIndexed.status", 5).and(Filter::gt("metaIndexed.status", 0)));
    let order = vec![("updatedAt".to_owned(), Ascending), ("_id".to_owned(), Ascending)];
    let scan =
        Scan { filter, order, after: Some(vec![3.into(), 3.into()]), limit: Some(20), ..Scan::default() };
    let before = steps.total();
    let page = session.page(&namespace, &Ask { scan, inclusive: false, at_least: 1 }, &|| true).unwrap();
    assert_eq!(page.found.len(), 20);
    steps.total() - before
}

#[test]
fn a_page_of_a_filter_that_lets_much_through_follows_its_order() {
    let (few, many) = (page_by_time(5_000, 5_000), page_by_time(20_000, 20_000));
    assert!(many <= few + 100, "{few} steps among 5,000, {many} among 20,000");
}

#[test]
fn a_page_of_a_filter_that_lets_little_through_follows_the_filter() {
    let (few, many) = (page_by_time(1_000, 25), page_by_time(20_000, 25));
    assert!(many <= few + 100, "{few} steps among 1,000, {many} among 20,000");
}
