//! How SQLite goes about the queries that must not grow with the data.

use bson::{DateTime, doc};
use rusqlite::params_from_iter;

use super::catalog::Session;
use super::place::{self, Role};
use super::read::Query;
use super::write::Prepared;
use crate::documents::filter::Test;
use crate::documents::paging::Ask;
use crate::documents::{Batch, Direction, Filter, Index, Namespace, Newest, Scan, Write};
use crate::records::version_indexes;

use Direction::{Ascending, Descending};

fn versions() -> (Session, Namespace) {
    let mut session = Session::new(place::connect(None, Role::Writer).unwrap());
    let namespace = Namespace::new("database", "versions");
    let mut by_item = Index::on("item_at", &["itemId", "at"]).unique();
    by_item.keys[1].1 = Descending;
    let indexes = [by_item, Index::on("by_status", &["meta.status", "_id"])];
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.ensure(&namespace, &indexes).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    (session, namespace)
}

fn plan(session: &mut Session, namespace: &Namespace, scan: &Scan) -> String {
    let table = session.table(namespace).unwrap().unwrap();
    let query = Query::new(&table, &Ask { scan: scan.clone(), inclusive: false, at_least: 1 });
    let mut statement = session.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql)).unwrap();
    let lines = statement.query_map(params_from_iter(&query.parameters), |row| row.get::<_, String>(3)).unwrap();
    lines.map(|line| line.unwrap()).collect::<Vec<_>>().join("\n")
}

fn as_of() -> Scan {
    let filter = Filter::eq("itemId", "a").and(Filter::lte("at", DateTime::from_millis(5)));
    Scan { filter, order: vec![("at".to_owned(), Descending)], limit: Some(1), ..Scan::default() }
}

#[test]
fn the_version_as_of_a_moment_is_one_step_into_the_index() {
    let (mut session, namespace) = versions();
    let plan = plan(&mut session, &namespace, &as_of());
    assert!(plan.contains("(c0=? AND c1") && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{plan}");
}

#[test]
fn a_page_by_an_indexed_path_begins_where_the_last_one_ended() {
    let (mut session, namespace) = versions();
    let order = vec![("meta.status".to_owned(), Ascending), ("_id".to_owned(), Ascending)];
    let scan = Scan { order, after: Some(vec!["open".into(), 7.into()]), ..Scan::default() };
    let plan = plan(&mut session, &namespace, &scan);
    assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn a_page_of_equal_values_by_id_follows_the_index() {
    let (mut session, namespace) = versions();
    let order = vec![("_id".to_owned(), Ascending)];
    let scan = Scan { filter: Filter::eq("meta.status", "open"), order, after: Some(vec![7.into()]), ..Scan::default() };
    let plan = plan(&mut session, &namespace, &scan);
    assert!(plan.contains("(c2=? AND id>?") && !plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn the_newest_by_item_hop_along_the_index() {
    let (mut session, namespace) = versions();
    let newest = Newest { per: "itemId".to_owned(), by: "at".to_owned(), at_most: DateTime::from_millis(5).into() };
    let order = vec![("itemId".to_owned(), Ascending)];
    let scan = Scan { newest: Some(newest), order, after: Some(vec!["a".into()]), ..Scan::default() };
    let plan = plan(&mut session, &namespace, &scan);
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN n") && !plan.contains("SCAN r"), "{plan}");
}

/// The heads of a collection that tenants share, with the indexes that [`crate::records`] makes there.
fn heads() -> (Session, Namespace) {
    let mut session = Session::new(place::connect(None, Role::Writer).unwrap());
    let namespace = Namespace::new("database", "heads");
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.ensure(&namespace, &crate::records::tenant_indexes_of_heads(&["email"])).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    (session, namespace)
}

fn of_tenant(more: Filter) -> Filter {
    let live = Filter::eq("deletedAt", bson::Bson::Null).and(Filter::Field("erased".into(), Test::Ne(true.into())));
    crate::records::Scope::tenant("acme").narrow(more.and(live))
}

#[test]
fn a_list_of_one_tenant_costs_what_the_tenant_has() {
    let (mut session, namespace) = heads();
    for path in ["_id", "updatedAt", "metaIndexed.email"] {
        let mut order = vec![(path.to_owned(), Descending)];
        let mut after = vec![7.into()];
        if path != "_id" {
            order.push(("_id".to_owned(), Descending));
            after.push(8.into());
        }
        let scan = Scan { filter: of_tenant(Filter::All), order, after: Some(after), limit: Some(50), ..Scan::default() };
        let plan = plan(&mut session, &namespace, &scan);
        assert!(plan.contains("SEARCH") && plan.contains("(c0=?") && !plan.contains("TEMP B-TREE"), "{path}: {plan}");
    }
}

#[test]
fn an_item_is_found_by_a_unique_key_within_its_tenant() {
    let (mut session, namespace) = heads();
    let scan = Scan { filter: of_tenant(Filter::eq("metaIndexed.email", "a@x")), ..Scan::default() };
    let plan = plan(&mut session, &namespace, &scan);
    assert!(plan.contains("SEARCH") && plan.contains("(c0=? AND c"), "{plan}");
}

#[test]
fn arrays_are_looked_for_only_after_one_came() {
    let (mut session, namespace) = versions();
    let table = session.table(&namespace).unwrap().unwrap();
    assert!(!Query::new(&table, &Ask { scan: as_of(), inclusive: false, at_least: 1 }).sql.contains("F0"));
    let mut batch = Batch::new();
    batch.push(&namespace, Write::insert(doc! { "_id": 1, "itemId": ["a"], "at": DateTime::from_millis(1) }));
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.apply(&Prepared::new(batch).unwrap()).unwrap();
    session.connection.execute_batch("COMMIT").unwrap();
    let table = session.table(&namespace).unwrap().unwrap();
    assert!(Query::new(&table, &Ask { scan: as_of(), inclusive: false, at_least: 1 }).sql.contains("F0"));
}

/// Versions under the indexes they really have, of which every hundredth waits to be stored.
fn records(rows: i64) -> (Session, Namespace) {
    let mut session = Session::new(place::connect(None, Role::Writer).unwrap());
    let namespace = Namespace::new("database", "users_ver");
    session.begin("BEGIN IMMEDIATE").unwrap();
    session.ensure(&namespace, &version_indexes()).unwrap();
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
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%WHERE c_ <> x%'", [], |row| row.get(0))
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
        let (found, scanned) = of(Query::new(&table, &Ask { scan: waiting(None), inclusive: false, at_least: 1 }));
        assert_eq!(found, 4);
        let (_, counted) = of(Query::count(&table, &crate::records::waiting(), 1000).unwrap());
        (scanned, counted)
    };
    let (few, many) = (steps(100), steps(10_000));
    assert_eq!(few, many, "steps of a scan and of a count");
}
