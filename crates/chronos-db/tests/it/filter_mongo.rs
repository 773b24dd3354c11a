//! The filter language against a real MongoDB server, whose answers define it.

use bson::{Bson, Document, doc, oid::ObjectId};
use chronos_db::documents::filter::{Filter, key_encoding, parse, testing};
use chronos_db::documents::{Direction, filter::Pattern};
use chronos_db::{Json as Value, json};
use futures::TryStreamExt as _;
use mongodb::{Client, Collection};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::filter_cases;

struct Server {
    env: tokio::runtime::Runtime,
    collection: Collection<Document>,
}

impl Server {
    fn connect() -> Self {
        let uri = std::env::var("MONGO_STANDALONE_URI")
            .expect("MONGO_STANDALONE_URI names the MongoDB server to test against");
        let env = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = env.block_on(Client::with_uri_str(&uri)).unwrap();
        let collection =
            client.database(&format!("filters_{}", ObjectId::new().to_hex())).collection("documents");
        Self { env, collection }
    }

    fn fill(&self, documents: &[Document]) {
        self.env.block_on(async {
            self.collection.delete_many(doc! {}).await.unwrap();
            self.collection.insert_many(documents).await.unwrap();
        });
    }

    fn ids(&self, filter: Document, sort: Document) -> Result<Vec<i32>, TestCaseError> {
        let found: Result<Vec<Document>, _> = self.env.block_on(async {
            self.collection.find(filter).sort(sort).projection(doc! { "_id": 1 }).await?.try_collect().await
        });
        let found = found.map_err(|error| TestCaseError::fail(format!("the server refused: {error}")))?;
        Ok(found.iter().map(|document| document.get_i32("_id").unwrap()).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let client = self.collection.client().clone();
        let database = client.database(&self.collection.namespace().db);
        if let Err(error) = self.env.block_on(async { database.drop().await }) {
            eprintln!("the test database stays behind: {error}");
        }
    }
}

fn cases(default: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() }
}

fn ids_of<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Vec<i32> {
    documents.into_iter().map(|document| document.get_i32("_id").unwrap()).collect()
}

#[test]
fn a_server_finds_what_the_filter_matches_in_memory() {
    let server = Server::connect();
    let input = (vec(filter_cases::document(), 1..60), vec(filter_cases::filter(), 1..12));
    let result = TestRunner::new(cases(120)).run(&input, |(documents, filters)| {
        let documents = filter_cases::numbered(documents);
        server.fill(&documents);
        for json in filters {
            let filter = parse(&(&json).into(), &mut |path| Ok(path.to_owned()))
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let expected = ids_of(documents.iter().filter(|document| filter.matches(document)));
            let translated = testing::to_mongo(&filter);
            let found = server.ids(translated.clone(), doc! { "_id": 1 })?;
            prop_assert_eq!(found, expected, "{} as {} on {:?}", json, translated, documents);
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_server_sorts_and_continues_as_the_order_in_memory_does() {
    let server = Server::connect();
    let direction = || select(vec![Direction::Ascending, Direction::Descending]);
    let paths = vec((select(vec!["a", "b", "a.b", "b.a.c"]), direction()), 0..3);
    let input = (
        vec(filter_cases::plain_document(), 2..40),
        paths,
        direction(),
        vec(any::<proptest::sample::Index>(), 3),
    );
    let result = TestRunner::new(cases(150)).run(&input, |(documents, paths, last, places)| {
        let mut documents = filter_cases::numbered(documents);
        server.fill(&documents);
        let mut by: Vec<(String, Direction)> = Vec::new();
        for (path, direction) in paths.into_iter().chain([("_id", last)]) {
            // A server refuses to sort by one path twice, or by a path and one below it.
            if !by.iter().any(|(other, _)| {
                other == path
                    || path.starts_with(&format!("{other}."))
                    || other.starts_with(&format!("{path}."))
            }) {
                by.push((path.to_owned(), direction));
            }
        }
        let sort: Document = by
            .iter()
            .map(|(path, d)| (path.clone(), Bson::Int32(if *d == Direction::Ascending { 1 } else { -1 })))
            .collect();
        documents.sort_by(|a, b| key_encoding::compare_by(&by, a, b));
        prop_assert_eq!(
            server.ids(doc! {}, sort.clone())?,
            ids_of(&documents),
            "by {:?} of {:?}",
            by,
            documents
        );
        for place in places {
            let at = place.index(documents.len());
            let after: Vec<Bson> = by
                .iter()
                .map(|(path, _)| key_encoding::value_at(&documents[at], path).cloned().unwrap_or(Bson::Null))
                .collect();
            let found = server.ids(testing::after_to_mongo(&by, &after), sort.clone())?;
            prop_assert_eq!(
                found,
                ids_of(&documents[at + 1..]),
                "by {:?} after {:?} in {:?}",
                by,
                after,
                documents
            );
            prop_assert!(
                documents
                    .iter()
                    .enumerate()
                    .all(|(i, document)| key_encoding::is_after(&by, &after, document) == (i > at))
            );
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_server_reads_a_pattern_as_it_is_read_here() {
    let server = Server::connect();
    let texts = [
        "",
        "a",
        "A",
        "ab",
        "a\n",
        "a\nb",
        "\n",
        "b a",
        "ä",
        "Ä",
        "ß",
        "ſ",
        "K",
        "k",
        "é1",
        "١",
        "_",
        "-",
        "a-b",
        "[x]",
        "\\",
        "日本",
        "😀",
        "a\u{a0}b",
        "\u{b}",
        "foo.bar@example.com",
        "2015-12-31",
        "\r\n",
        "^$",
        "x".repeat(300).as_str(),
    ]
    .map(str::to_owned);
    let documents: Vec<_> = (0..).zip(&texts).map(|(i, text)| doc! { "_id": i, "text": text }).collect();
    server.fill(&documents);
    let patterns = [
        r"\w",
        r"\W",
        r"\d",
        r"\D",
        r"\s",
        r"\S",
        r"[\d\s]",
        r"[^\W_]",
        r"\b",
        r"a\b",
        r"^a$",
        r"a$",
        r"\Aa\z",
        "k",
        "s",
        "ä",
        ".",
        "^.$",
        "^..$",
        "[[:punct:]]",
        r"\[x\]",
        r"\\",
        "[a-z&&[^b]]",
        r"\p{Han}",
        r"\p{L}+",
        "😀|日",
        r"x{299,}",
        r"^\w+(\.\w+)*@\w+\.\w{2,}$",
        r"^(\d{4})-(\d\d)-(\d\d)$",
        "a*?b",
        "(?i:A)b",
        r"(?m)^b",
        r"(?m)^$",
        r"(?m)a$",
        r"(?s)a.b",
        "[^a]",
        r"[\[\]^-]",
        r"\^\$",
        "#",
        " ",
        r"\x{e9}",
        r"\u00e9",
        r"(a|b|)+$",
        r"(?x) a # rest",
    ];
    for source in patterns {
        for options in ["", "i", "m", "s", "ims"] {
            let pattern = Pattern::new(source, options).unwrap_or_else(|error| panic!("{source}: {error}"));
            let filter =
                Filter::Field("text".to_owned(), chronos_db::documents::filter::Test::Regex(pattern));
            let translated = testing::to_mongo(&filter);
            let expected = ids_of(documents.iter().filter(|document| filter.matches(document)));
            assert_eq!(
                server.ids(translated.clone(), doc! { "_id": 1 }).unwrap(),
                expected,
                "/{source}/{options} as {translated}"
            );
        }
    }
}

#[test]
fn the_corners_of_paths_and_arrays_are_those_of_a_server() {
    let server = Server::connect();
    let mut values = vec![
        json!(1),
        json!([]),
        json!([1, 2]),
        json!([[1, 2]]),
        json!([[1], [2]]),
        json!([null]),
        json!([1, { "b": 1 }]),
        json!([{ "b": 1 }, { "b": 2 }]),
        json!([{ "b": [1, 2] }]),
        json!([{ "b": null }]),
        json!([{ "c": 1 }]),
        json!([[{ "b": 1 }]]),
        json!([[[1]]]),
        json!({ "b": 1 }),
        json!({ "b": [1] }),
        json!({ "b": [] }),
        json!({ "b": [[1]] }),
        json!({ "0": 1 }),
        json!([{ "0": 1 }]),
        json!([{ "0": [1] }]),
        json!({ "0": { "b": 1 } }),
        json!({ "b": { "c": 1 } }),
        json!({ "c": 1, "b": 1 }),
        json!({}),
        json!(""),
        Value::Null,
    ];
    values.push(json!([values.clone()]));
    let mut documents: Vec<_> =
        values.iter().map(|value| doc! { "a": chronos_db::json_to_bson(value).unwrap() }).collect();
    documents.push(doc! {});
    let documents = filter_cases::numbered(documents);
    server.fill(&documents);
    let mut conditions: Vec<Value> = values
        .iter()
        .flat_map(|v| ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"].map(|operator| json!({ operator: v })))
        .collect();
    conditions.extend(values.iter().map(|v| json!({ "$in": [v, 7] })));
    conditions.extend(values.iter().map(|v| json!({ "$all": [v] })));
    conditions.extend([
        json!({ "$exists": true }),
        json!({ "$exists": false }),
        json!({ "$size": 0 }),
        json!({ "$size": 1 }),
        json!({ "$all": [] }),
        json!({ "$in": [] }),
        json!({ "$nin": [] }),
        json!({ "$nin": [null, 1] }),
        json!({ "$all": [1, 2] }),
        json!({ "$regex": "^$" }),
        json!({ "$not": { "$gt": 0, "$lt": 2 } }),
        json!({ "$elemMatch": {} }),
        json!({ "$elemMatch": { "0": 1 } }),
        json!({ "$elemMatch": { "0.b": 1 } }),
        json!({ "$elemMatch": { "b": null } }),
        json!({ "$elemMatch": { "b": { "$exists": false } } }),
        json!({ "$elemMatch": { "$or": [{ "b": 1 }, { "c": 1 }] } }),
        json!({ "$elemMatch": { "$nor": [{ "b": 1 }] } }),
        json!({ "$elemMatch": { "$elemMatch": { "$gt": 0 } } }),
        json!({ "$elemMatch": { "$elemMatch": { "b": 1 } } }),
        json!({ "$elemMatch": { "$size": 2 } }),
        json!({ "$elemMatch": { "$all": [1] } }),
        json!({ "$elemMatch": { "$all": [[1, 2]] } }),
        json!({ "$elemMatch": { "$exists": false } }),
        json!({ "$elemMatch": { "$ne": 1, "$exists": true } }),
        json!({ "$elemMatch": { "$not": { "$gt": 1 }, "$nin": [null] } }),
        json!({ "$elemMatch": { "$regex": "a", "$not": { "$regex": "b" } } }),
    ]);
    let not_alone: Vec<_> = conditions.iter().map(|condition| json!({ "$not": condition })).collect();
    for path in ["a", "a.b", "a.0", "a.0.b", "a.b.0", "a.0.0", "a.b.c", "a.00", "a.0.0.b", "a.1.b", "a.0.0.0"]
    {
        for condition in conditions.iter().chain(&not_alone) {
            let json = json!({ path: condition });
            let filter = parse(&json, &mut |path| Ok(path.to_owned())).unwrap();
            let expected = ids_of(documents.iter().filter(|document| filter.matches(document)));
            let found = server.ids(testing::to_mongo(&filter), doc! { "_id": 1 });
            assert_eq!(found.unwrap(), expected, "{json} on {documents:#?}");
        }
    }
}

#[test]
fn an_anchored_pattern_is_a_range_of_the_servers_index() {
    let server = Server::connect();
    server.fill(&[doc! { "text": "ab.c" }, doc! { "text": "b" }]);
    let filter = testing::to_mongo(
        &parse(&json!({ "text": { "$regex": r"^ab\.c" } }), &mut |path| Ok(path.to_owned())).unwrap(),
    );
    let plan = server.env.block_on(async {
        server
            .collection
            .create_index(mongodb::IndexModel::builder().keys(doc! { "text": 1 }).build())
            .await
            .unwrap();
        let database = server.collection.client().database(&server.collection.namespace().db);
        database
            .run_command(doc! { "explain": { "find": server.collection.name(), "filter": filter } })
            .await
            .unwrap()
    });
    assert!(plan.to_string().contains(r#"["ab.c", "ab.d")"#), "{plan}");
}
