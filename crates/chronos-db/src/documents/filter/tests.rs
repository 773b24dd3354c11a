//! The order, its bytes and the SQL against the evaluator; the evaluator itself is held against a real server
//! by the tests from outside.

#[path = "../../../tests/it/filter_cases.rs"]
mod cases;

use std::cmp::Ordering;

use bson::{Bson, Document, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::key_encoding::{compare, compare_by, encode, is_after, rank, value_at};
use super::{Filter, Test, parse};
use crate::documents::{Direction, raw_bson};
use crate::{Error, ErrorKind, Json, json};

fn column_value(document: &Document, path: &str) -> Vec<u8> {
    super::key_encoding::column_value(&raw_bson::encode(document).unwrap(), path).unwrap()
}

fn read(filter: impl Into<Json>) -> Filter {
    parse(&filter.into(), &mut |path| Ok(path.to_owned())).unwrap()
}

fn refusal(filter: &Json) -> String {
    let error = parse(filter, &mut |path| Ok(path.to_owned())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
    error.message().to_owned()
}

fn is_array(value: &Bson) -> bool {
    matches!(value, Bson::Array(_))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_total(a in cases::value(), b in cases::value(), c in cases::value()) {
        prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
            prop_assert!(compare(&a, &c).is_le());
        }
    }

    #[test]
    fn bytes_compare_as_the_values_do(a in cases::value(), b in cases::value()) {
        if is_array(&a) == is_array(&b) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), compare(&a, &b), "{} and {}", a, b);
        } else {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), is_array(&a).cmp(&is_array(&b)));
        }
        prop_assert_eq!(is_array(&a), encode(&a) >= vec![rank::TOP_ARRAY]);
    }

    #[test]
    fn numbers_of_all_kinds_compare_exactly(i in any::<i64>(), d in any::<f64>(), near in -3_i64..3) {
        let beside = (i as f64) as i64;
        for (i, d) in [(i, d), (beside.saturating_add(near), i as f64), (d as i64, d), ((d as i64).saturating_add(near), d)] {
            // Within 64 bits the whole part of a double is exact, and beyond every integer is less or
            // greater.
            let expected = if d.is_nan() {
                Ordering::Greater
            } else {
                i128::from(i).cmp(&(d.floor() as i128)).then(if d.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
            };
            prop_assert_eq!(compare(&Bson::Int64(i), &Bson::Double(d)), expected, "{} and {}", i, d);
            prop_assert_eq!(encode(&Bson::Int64(i)).cmp(&encode(&Bson::Double(d))), expected, "{} and {}", i, d);
        }
    }

    #[test]
    fn negations_are_exact_opposites(
        document in cases::document(), path in select(cases::PATHS.to_vec()), values in vec(cases::value(), 0..3), json in cases::filter(),
    ) {
        let matches = |test| Filter::Field(path.to_owned(), test).matches(&document);
        for value in &values {
            prop_assert_ne!(matches(Test::Ne(value.clone())), matches(Test::Eq(value.clone())));
            prop_assert_ne!(matches(Test::Not(Box::new(Test::Gte(value.clone())))), matches(Test::Gte(value.clone())));
        }
        prop_assert_ne!(matches(Test::Nin(values.clone())), matches(Test::In(values)));
        let negated = json!({ "$nor": [json] });
        prop_assert_ne!(read(&negated).matches(&document), read(&json).matches(&document));
    }
}

#[test]
fn one_is_one_in_every_kind_of_number() {
    let ones = [Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0), Bson::Decimal128("1.0".parse().unwrap())];
    for one in &ones {
        assert_eq!((compare(one, &ones[0]), encode(one)), (Ordering::Equal, encode(&ones[0])));
    }
    assert_eq!(encode(&Bson::Double(-0.0)), encode(&Bson::Int32(0)));
    assert_eq!(encode(&Bson::Null), [rank::NULL]);
    assert_eq!(encode(&Bson::Undefined), [rank::NULL]);
}

#[test]
fn a_path_descends_plainly_and_a_column_tells_arrays_apart() {
    let document = doc! { "a": { "b": [ { "c": 7 }, 8 ] }, "n": Bson::Null, "s": "x" };
    assert_eq!(value_at(&document, "a.b.0.c"), Some(&Bson::Int32(7)));
    assert_eq!(value_at(&document, "a.b.1"), Some(&Bson::Int32(8)));
    assert_eq!(value_at(&document, "a.b.01"), None);
    assert_eq!(value_at(&document, "a.b.c"), None);
    assert_eq!(value_at(&document, "s.t"), None);
    for path in ["a.b", "a.b.0.c", "a.b.c"] {
        assert_eq!(column_value(&document, path)[0], rank::TOP_ARRAY, "{path}");
    }
    for path in ["n", "absent", "s.t", "a.x"] {
        assert_eq!(column_value(&document, path), [rank::NULL], "{path}");
    }
    assert_eq!(column_value(&document, "s"), encode(&"x".into()));
    assert_ne!(column_value(&document, "a.b"), column_value(&doc! { "a": { "b": [1] } }, "a.b"));
}

#[test]
fn refusals_name_the_operator_and_the_place() {
    let cases = [
        (json!({ "$where": "1" }), "filter.$where: it is not supported"),
        (json!({ "$and": [{ "a": 1 }, { "$expr": {} }] }), "filter.$and[1].$expr: it is not supported"),
        (json!({ "$gt": 1 }), "filter.$gt: it stands under a property"),
        (json!({ "a": { "$foo": 1 } }), "filter.a.$foo: it is not supported under a property; there are $eq"),
        (json!({ "a": { "$gt": 1, "b": 1 } }), "filter.a.b: operators and plain keys"),
        (json!({ "a": { "b": 1, "$gt": 1 } }), "filter.a.$gt: no operator may stand inside a value"),
        (json!({ "a": { "$in": [{ "$regex": "x" }] } }), "filter.a.$in[0].$regex: no operator"),
        (json!({ "a": { "$in": 1 } }), "filter.a.$in: it takes an array of values, not a number"),
        (json!({ "a": { "$nin": "x" } }), "filter.a.$nin: it takes an array"),
        (json!({ "a": { "$all": null } }), "filter.a.$all: it takes an array of values, not null"),
        (json!({ "a": { "$exists": 1 } }), "filter.a.$exists: it takes true or false"),
        (json!({ "a": { "$size": -1 } }), "filter.a.$size: it takes a whole number"),
        (json!({ "a": { "$size": 1.5 } }), "filter.a.$size: it takes a whole number"),
        (json!({ "a": { "$options": "i" } }), "filter.a.$options: it stands beside $regex only"),
        (json!({ "a": { "$regex": "a", "$options": "x" } }), "filter.a.$regex: `x` is not an option"),
        (json!({ "a": { "$regex": "(?=a)" } }), "filter.a.$regex: it does not compile: look-around"),
        (json!({ "a": { "$regex": "(" } }), "filter.a.$regex: it does not compile: unclosed group"),
        (json!({ "a": { "$regex": "(((a{99}){99}){99}){99}" } }), "filter.a.$regex: it does not compile: "),
        (json!({ "a": { "$regex": r"\Ba" } }), "filter.a.$regex: of the word and line boundaries"),
        (json!({ "a": { "$regex": 1 } }), "filter.a.$regex: it takes a pattern as a string"),
        (json!({ "a": { "$not": 1 } }), "filter.a.$not: it takes an object of operators"),
        (json!({ "a": { "$elemMatch": 1 } }), "filter.a.$elemMatch: a filter is an object, not a number"),
        (
            json!({ "a": { "$elemMatch": { "$gt": 1, "$where": 1 } } }),
            "filter.a.$elemMatch.$where: it is not supported",
        ),
        (json!({ "$or": [] }), "filter.$or: it needs at least one filter"),
        (json!({ "$nor": {} }), "filter.$nor: it takes an array of filters, not an object"),
        (json!({ "a": { "$date": "nonsense" } }), "filter.a: a {\"$date\"} holds"),
        (json!({ "a..b": 1 }), "filter.a..b: a property's path"),
        (json!({ "a.$b": 1 }), "filter.a.$b: a property's path"),
        (json!([1]), "filter: a filter is an object, not an array"),
        (json!(null), "filter: a filter is an object, not null"),
        (json!({ "a": Json::parse("1e999").unwrap() }), "filter.a: the number"),
    ];
    for (filter, expected) in cases {
        let message = refusal(&filter);
        assert!(message.starts_with(expected), "{filter} gave: {message}");
    }
}

#[test]
fn a_filter_may_neither_nest_nor_grow_without_end() {
    let mut deep = json!({ "a": 1 });
    for _ in 0..40 {
        deep = json!({ "$and": [deep] });
    }
    assert!(refusal(&deep).contains("32 levels"));
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    assert!(refusal(&json!({ "a": deep })).contains("32 levels"));
    let wide: Vec<_> = (0..1_001).collect();
    assert!(refusal(&json!({ "a": { "$in": wide } })).contains("more than 1000"));
}

#[test]
fn paths_are_resolved_but_within_elements() {
    let filter = json!({ "tags": { "$elemMatch": { "name": "x", "$or": [{ "n": 1 }] } }, "$or": [{ "b": { "$gt": 1, "$lt": 5 } }] });
    let mut seen = Vec::new();
    let parsed = parse(&filter, &mut |path| {
        seen.push(path.to_owned());
        Ok(format!("indexed.{path}"))
    });
    let parsed = parsed.unwrap();
    assert_eq!(seen, ["tags", "b"]);
    assert!(parsed.matches(&doc! { "indexed": { "tags": [{ "name": "x", "n": 1 }], "b": 3 } }));
    assert!(!parsed.matches(&doc! { "indexed": { "tags": [{ "name": "x" }, { "n": 1 }], "b": 3 } }));
    let refused = parse(&json!({ "secret": 1 }), &mut |_| Err(Error::validation("not indexed")));
    assert_eq!(refused.unwrap_err().message(), "not indexed");
}

#[test]
fn dates_and_ids_are_values_wherever_a_value_may_stand() {
    let at = |text| json!({ "$date": text });
    let document =
        doc! { "at": bson::DateTime::from_millis(0), "id": bson::oid::ObjectId::from_bytes([1; 12]) };
    for filter in [
        json!({ "at": at("1970-01-01") }),
        json!({ "at": { "$in": [at("1970-01-01")] } }),
        json!({ "at": { "$gte": at("1970-01-01"), "$lt": at("1970-01-02") } }),
        json!({ "id": { "$oid": "010101010101010101010101" } }),
    ] {
        assert!(read(&filter).matches(&document), "{filter}");
    }
}

#[cfg(feature = "embedded")]
mod sql {
    use rusqlite::Connection;

    use super::*;
    use crate::documents::filter::after_to_sql;
    use crate::documents::filter::to_sql::Sql;
    use crate::documents::filter::to_sql::to_sql;

    /// A table with an indexed column for each of the paths.
    struct Table {
        connection: Connection,
        paths: Vec<&'static str>,
    }

    impl Table {
        fn of(paths: &[&'static str], documents: &[Document]) -> Self {
            let connection = Connection::open_in_memory().unwrap();
            let names: Vec<_> = (0..paths.len()).map(|i| format!("c{i}")).collect();
            connection
                .execute_batch(&format!(
                    "CREATE TABLE t (id BLOB{})",
                    names.iter().map(|n| format!(", {n} BLOB")).collect::<String>()
                ))
                .unwrap();
            for name in &names {
                connection.execute_batch(&format!("CREATE INDEX i{name} ON t ({name}, id)")).unwrap();
            }
            let marks = vec!["?"; paths.len() + 1].join(",");
            for document in documents {
                let values = ["_id"].iter().chain(paths).map(|path| column_value(document, path));
                connection
                    .execute(&format!("INSERT INTO t VALUES ({marks})"), rusqlite::params_from_iter(values))
                    .unwrap();
            }
            Self { connection, paths: paths.to_vec() }
        }

        fn column(&self, path: &str) -> Option<String> {
            if path == "_id" {
                return Some("id".to_owned());
            }
            self.paths.iter().position(|known| *known == path).map(|i| format!("c{i}"))
        }

        fn select(&self, sql: &Sql, order: &str) -> Vec<Vec<u8>> {
            let query = format!("SELECT id FROM t WHERE {} {order}", sql.text);
            let mut statement =
                self.connection.prepare(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(statement.parameter_count(), sql.parameters.len(), "{query}");
            let rows =
                statement.query_map(rusqlite::params_from_iter(&sql.parameters), |row| row.get(0)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        }
    }

    fn ids<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Vec<Vec<u8>> {
        documents.into_iter().map(|document| column_value(document, "_id")).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_condition_misses_no_match(
            documents in vec(cases::document(), 1..30),
            filters in vec(cases::filter(), 1..12),
            paths in subsequence(cases::PATHS.to_vec(), 1..=cases::PATHS.len()),
        ) {
            let documents = cases::numbered(documents);
            let table = Table::of(&paths, &documents);
            for json in filters {
                let filter = read(&json);
                let sql = to_sql(&filter, &|path| table.column(path), &|_| true);
                let found = table.select(&sql, "");
                for document in documents.iter().filter(|document| filter.matches(document)) {
                    prop_assert!(found.contains(&column_value(document, "_id")), "{} as {} misses {}", json, sql.text, document);
                }
            }
        }

        #[test]
        fn without_arrays_a_comparison_is_exact(documents in vec(cases::plain_document(), 1..30), json in cases::filter()) {
            let documents = cases::numbered(documents);
            let filter = read(&json);
            let table = Table::of(&cases::PATHS, &documents);
            let sql = to_sql(&filter, &|path| table.column(path), &|_| false);
            let found = table.select(&sql, "ORDER BY id");
            let expected = ids(documents.iter().filter(|document| filter.matches(document)));
            let inexact = json.to_string();
            if inexact.contains("$exists") || inexact.contains("$regex") {
                prop_assert!(expected.iter().all(|id| found.contains(id)), "{} as {}", json, sql.text);
            } else {
                prop_assert_eq!(found, expected, "{} as {}", json, sql.text);
            }
        }

        #[test]
        fn pages_continue_exactly_after_their_last_document(
            documents in vec(cases::plain_document(), 2..30),
            by in vec((select(vec!["a", "b", "a.b", "b.a.c"]), any::<bool>()), 0..3),
            last in any::<bool>(),
            place in any::<Index>(),
        ) {
            let direction = |ascending| if ascending { Direction::Ascending } else { Direction::Descending };
            let by: Vec<_> = by.into_iter().chain([("_id", last)]).map(|(path, asc)| (path.to_owned(), direction(asc))).collect();
            let mut documents = cases::numbered(documents);
            let table = Table::of(&["a", "b", "a.b", "b.a.c"], &documents);
            documents.sort_by(|a, b| compare_by(&by, a, b));
            let at = place.index(documents.len());
            let after: Vec<_> = by.iter().map(|(path, _)| value_at(&documents[at], path).cloned().unwrap_or(Bson::Null)).collect();
            let columns = |path: &str| table.column(path);
            let order: Vec<_> = by
                .iter()
                .map(|(path, d)| format!("{} {}", columns(path).unwrap(), if *d == Direction::Ascending { "ASC" } else { "DESC" }))
                .collect();
            let sql = after_to_sql(&by, &after, false, &columns);
            prop_assert_eq!(table.select(&sql, &format!("ORDER BY {}", order.join(", "))), ids(&documents[at + 1..]), "{}", sql.text);
            prop_assert!(documents.iter().enumerate().all(|(i, document)| is_after(&by, &after, document) == (i > at)));
        }
    }

    fn text(json: &Json) -> String {
        to_sql(&read(json), &|path| (path != "none").then(|| path.to_owned()), &|path| path == "tags").text
    }

    #[test]
    fn conditions_are_what_an_index_can_be_entered_by() {
        assert_eq!(text(&json!({ "a": 1 })), "a = ?");
        assert_eq!(text(&json!({ "tags": 1 })), "(tags = ? OR tags >= x'F0')");
        assert_eq!(text(&json!({ "a": { "$in": [1, 1.0, 2, [3]] } })), "a IN (?,?)");
        assert_eq!(text(&json!({ "a": { "$gt": 1, "$lte": 5 } })), "(a > ? AND a <= ?)");
        assert_eq!(text(&json!({ "a": { "$regex": "^x" } })), "(a >= ? AND a < ?)");
        assert_eq!(text(&json!({ "none": 1, "a": 2 })), "a = ?");
        assert_eq!(text(&json!({ "$or": [{ "none": 1 }, { "a": 2 }] })), "1");
        assert_eq!(text(&json!({ "a": { "$in": [] } })), "0");
        assert_eq!(text(&json!({ "a": { "$size": 1 } })), "0");
        assert_eq!(text(&json!({})), "1");
    }

    #[test]
    fn an_order_of_one_direction_is_a_row_comparison() {
        let by = |keys: &[(&str, Direction)]| {
            keys.iter().map(|(path, d)| ((*path).to_owned(), *d)).collect::<Vec<_>>()
        };
        let after = [Bson::Int32(1), Bson::Int32(2)];
        let columns = |path: &str| Some(path.to_owned());
        let up = by(&[("a", Direction::Ascending), ("b", Direction::Ascending)]);
        assert_eq!(after_to_sql(&up, &after, false, &columns).text, "(a, b) > (?, ?)");
        let mixed = by(&[("a", Direction::Ascending), ("b", Direction::Descending)]);
        assert_eq!(
            after_to_sql(&mixed, &after, false, &columns).text,
            "(a >= ? AND (a > ? OR (b <= ? AND (b < ? OR 0))))"
        );
        assert_eq!(after_to_sql(&[], &[], false, &columns).text, "1");
    }

    #[test]
    fn long_lists_and_long_chains_stay_within_the_limits_of_sqlite() {
        let documents = cases::numbered(vec![doc! { "a": 5 }, doc! { "a": 20_000 }]);
        let table = Table::of(&["a"], &documents);
        let columns = |path: &str| table.column(path);
        let many = Filter::any_of("a", (0..10_000).map(Bson::Int32).collect());
        assert_eq!(table.select(&to_sql(&many, &columns, &|_| true), ""), ids(&documents[..1]));
        let none = Filter::Field("a".to_owned(), Test::Nin((0..10_000).map(Bson::Int32).collect()));
        assert_eq!(table.select(&to_sql(&none, &columns, &|_| true), "").len(), 2);
        let chain = Filter::And(
            (10..3_000).map(|i| Filter::Field("a".to_owned(), Test::Ne(Bson::Int32(i)))).collect(),
        );
        assert_eq!(table.select(&to_sql(&chain, &columns, &|_| true), "").len(), 2);
    }
}
