//! The MongoDB document store on real servers.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::documents::mongo::{CommandStats, MongoDocuments};
use chronos_db::documents::{
    Atomicity, Batch, Direction, DocumentStore, Filter, Guard, Index, Namespace, Newest, Outcome, Scan, Write,
};
use chronos_db::{Env, ErrorKind};
use futures::{StreamExt as _, TryStreamExt as _};
use secrecy::SecretString;
use test_support::servers::{mongo_rs_uri, mongo_standalone_uri};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    Standalone,
    ReplicaSet,
}

use Server::{ReplicaSet, Standalone};

impl Server {
    pub(crate) fn uri(self) -> String {
        match self {
            Standalone => mongo_standalone_uri(),
            ReplicaSet => mongo_rs_uri(),
        }
    }
}

pub(crate) fn open(uri: impl Into<SecretString>) -> (Arc<MongoDocuments>, Arc<CommandStats>) {
    let (documents, stats) = MongoDocuments::observed(uri.into(), Env::default()).unwrap();
    (Arc::new(documents), stats)
}

async fn store(server: Server) -> Arc<dyn DocumentStore> {
    open(server.uri()).0
}

chronos_db::documents_suite!(on_a_standalone_server, store(Standalone));
chronos_db::documents_suite!(on_a_replica_set, store(ReplicaSet));

/// A database nobody else uses; it stays behind on the server, which is made for the test run.
pub(crate) struct Scratch {
    pub(crate) documents: Arc<MongoDocuments>,
    pub(crate) stats: Arc<CommandStats>,
    pub(crate) namespace: Namespace,
}

impl Scratch {
    pub(crate) fn on(server: Server) -> Self {
        Self::at(server.uri())
    }

    pub(crate) fn at(uri: impl Into<SecretString>) -> Self {
        let (documents, stats) = open(uri);
        Self { documents, stats, namespace: Namespace::new(format!("t{}", ObjectId::new()), "c") }
    }

    fn other(&self, collection: &str) -> Namespace {
        Namespace::new(Arc::clone(&self.namespace.database), collection)
    }

    pub(crate) async fn apply(&self, writes: Vec<Write>) -> Vec<Outcome> {
        let mut batch = Batch::new();
        for write in writes {
            batch.push(&self.namespace, write);
        }
        self.documents.apply(batch).await.unwrap()
    }

    async fn read(&self, scan: Scan) -> Vec<Document> {
        self.documents.scan(&self.namespace, scan).try_collect().await.unwrap()
    }

    pub(crate) async fn all(&self) -> Vec<Document> {
        self.read(Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() }).await
    }
}

fn put(document: Document, guard: Guard) -> Write {
    Write::put(document, guard)
}

fn newer() -> Guard {
    Guard::Newer { field: "rev".into() }
}

fn equals(value: impl Into<Bson>) -> Guard {
    Guard::Equals { field: "rev".into(), value: value.into() }
}

fn conflict(index: &str) -> Outcome {
    Outcome::Conflict { index: Some(index.into()) }
}

#[tokio::test]
async fn a_group_of_creates_costs_one_command_per_collection_and_no_new_connection() {
    for server in [Standalone, ReplicaSet] {
        let s = Scratch::on(server);
        let (rows, heads) = (s.other("c_ver"), s.other("c_head"));
        s.documents
            .ensure(
                &rows,
                &[Index::on("itemId_ov", &["itemId", "ov"]).unique(), Index::on("cv", &["cv"]).unique()],
            )
            .await
            .unwrap();
        let group = |from: i32| {
            let mut batch = Batch::new();
            for i in from..from + 20 {
                let row = batch.push(&rows, Write::insert(doc! { "_id": i, "itemId": i, "ov": 0, "cv": i }));
                batch.push_after(row, &heads, put(doc! { "_id": i, "rev": 0 }, newer()));
            }
            batch
        };
        s.documents.sequence(&s.other("c_counter"), "cv", 20).await.unwrap();
        s.documents.apply(group(0)).await.unwrap();

        s.stats.reset();
        s.documents.sequence(&s.other("c_counter"), "cv", 20).await.unwrap();
        let outcomes = s.documents.apply(group(20)).await.unwrap();

        assert!(outcomes.iter().all(Outcome::is_applied), "{outcomes:?}");
        let sent: Vec<_> = s.stats.commands().into_iter().collect();
        assert_eq!(
            sent,
            [("findAndModify".to_owned(), 1), ("insert".to_owned(), 1), ("update".to_owned(), 1)]
        );
        assert_eq!(s.stats.connections(), 0);
    }
}

#[tokio::test]
async fn a_conflict_names_its_index_and_skips_only_what_required_it() {
    let s = Scratch::on(Standalone);
    s.documents.ensure(&s.namespace, &[Index::on("by name", &["name"]).unique()]).await.unwrap();
    s.apply(vec![Write::insert(doc! { "_id": 1, "name": "a" })]).await;

    let mut batch = Batch::new();
    let same_id = batch.push(&s.namespace, Write::insert(doc! { "_id": 1, "name": "b" }));
    let same_name = batch.push(&s.namespace, Write::insert(doc! { "_id": 2, "name": "a" }));
    let good = batch.push(&s.namespace, Write::insert(doc! { "_id": 3, "name": "c" }));
    let other = s.other("other");
    let after_bad = batch.push_after(same_id, &other, Write::insert(doc! { "_id": 1 }));
    let after_good = batch.push_after(good, &other, Write::insert(doc! { "_id": 3 }));
    let after_after = batch.push_after(after_bad, &other, Write::insert(doc! { "_id": 5 }));
    let put_conflict = batch.push(&s.namespace, put(doc! { "_id": 9, "name": "a" }, Guard::Any));
    let outcomes = s.documents.apply(batch).await.unwrap();

    assert_eq!(outcomes[same_id], conflict("_id_"));
    assert_eq!(outcomes[same_name], conflict("by name"));
    assert_eq!(outcomes[put_conflict], conflict("by name"));
    assert_eq!((&outcomes[good], &outcomes[after_good]), (&Outcome::Applied, &Outcome::Applied));
    assert_eq!((&outcomes[after_bad], &outcomes[after_after]), (&Outcome::Skipped, &Outcome::Skipped));
}

#[tokio::test]
async fn puts_of_newer_documents_are_decided_one_by_one_in_one_command() {
    let s = Scratch::on(ReplicaSet);
    s.apply(vec![
        Write::insert(doc! { "_id": 1, "rev": 5 }),
        Write::insert(doc! { "_id": 2, "rev": 5 }),
        Write::insert(doc! { "_id": 3 }),
    ])
    .await;
    s.stats.reset();
    let reported = s
        .apply(vec![
            put(doc! { "_id": 1, "rev": 6_i64 }, newer()),
            put(doc! { "_id": 2, "rev": 5 }, newer()),
            put(doc! { "_id": 3, "rev": 0 }, newer()),
            put(doc! { "_id": 4, "rev": 0 }, newer()),
        ])
        .await;
    assert_eq!(reported, [Outcome::Applied, Outcome::Refused, Outcome::Applied, Outcome::Applied]);
    assert_eq!(s.stats.commands()["update"], 1);
    assert_eq!(
        s.all().await,
        [
            doc! { "_id": 1, "rev": 6_i64 },
            doc! { "_id": 2, "rev": 5 },
            doc! { "_id": 3, "rev": 0 },
            doc! { "_id": 4, "rev": 0 }
        ]
    );
}

#[tokio::test]
async fn the_newest_put_stays_when_many_first_puts_of_a_document_race() {
    let s = Scratch::on(ReplicaSet);
    for round in 0..10_i32 {
        let id = format!("item {round}");
        let racing =
            (0..16_i32).map(|rev| s.apply(vec![put(doc! { "_id": &id, "rev": (rev * 7) % 16 }, newer())]));
        let reported = futures::future::join_all(racing).await;
        assert!(reported.iter().any(|t| t[0].is_applied()));
        let stored = s.documents.get(&s.namespace, vec![Bson::from(&id)]).await.unwrap();
        assert_eq!(stored, [doc! { "_id": &id, "rev": 15 }]);
    }
}

#[tokio::test]
async fn a_group_of_guarded_puts_tells_each_writer_what_became_of_its_own() {
    let s = Scratch::on(Standalone);
    s.documents
        .ensure(&s.namespace, &[Index::on("name", &["name"]).unique().only_if_exists("name")])
        .await
        .unwrap();
    s.apply(
        (0..5)
            .map(|i| Write::insert(doc! { "_id": i, "rev": 0 }))
            .chain([Write::insert(doc! { "_id": 9, "name": "n" })])
            .collect(),
    )
    .await;
    let swap = |id: i32, from: i32| put(doc! { "rev": from + 1, "_id": id, "x": f64::NAN }, equals(from));

    s.documents.capabilities().await.unwrap();
    s.stats.reset();
    assert_eq!(s.apply((0..5).map(|i| swap(i, 0)).collect()).await, vec![Outcome::Applied; 5]);
    assert_eq!(s.stats.total(), 1);
    assert_eq!(s.apply(vec![swap(0, 0)]).await, [Outcome::Refused]);
    let mut taken = doc! { "_id": 3, "rev": 2, "name": "n" };
    let mixed = vec![swap(0, 1), swap(1, 0), swap(77, 0), put(taken.clone(), equals(1)), swap(4, 1)];
    let reported = s.apply(mixed).await;
    assert_eq!(
        reported,
        [Outcome::Applied, Outcome::Refused, Outcome::Refused, conflict("name"), Outcome::Applied]
    );
    taken.remove("name");
    assert_eq!(s.apply(vec![put(taken, equals(1))]).await, [Outcome::Applied]);
    let odd = doc! { "_id": 4, "rev": 3, "says": "$rev", "$odd": { "a.b": { "$add": [1, 2] } } };
    assert_eq!(
        s.apply(vec![put(odd.clone(), equals(2)), swap(0, 0)]).await,
        [Outcome::Applied, Outcome::Refused]
    );
    assert_eq!(s.documents.get(&s.namespace, vec![Bson::Int32(4)]).await.unwrap(), [odd]);
    assert!(s.documents.get(&s.namespace, vec![Bson::Int32(77)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_on_null_matches_an_absent_field_and_one_on_a_value_no_array_of_it() {
    let s = Scratch::on(Standalone);
    s.apply(vec![Write::insert(doc! { "_id": 1 }), Write::insert(doc! { "_id": 2, "rev": [1, 2] })]).await;
    assert_eq!(s.apply(vec![put(doc! { "_id": 1, "rev": 1 }, equals(Bson::Null))]).await, [Outcome::Applied]);
    assert_eq!(s.apply(vec![put(doc! { "_id": 1, "rev": 2 }, equals(Bson::Null))]).await, [Outcome::Refused]);
    assert_eq!(s.apply(vec![put(doc! { "_id": 2, "rev": 2 }, equals(1))]).await, [Outcome::Refused]);
}

#[tokio::test]
async fn of_guarded_deletes_of_one_document_exactly_one_is_applied() {
    let s = Scratch::on(Standalone);
    s.apply((0..3).map(|i| Write::insert(doc! { "_id": i, "rev": i })).collect()).await;
    let delete = |id: i32, rev: i32| Write::Delete { id: id.into(), guard: equals(rev) };
    assert_eq!(
        s.apply(vec![delete(0, 0), delete(1, 0), delete(5, 0)]).await,
        [Outcome::Applied, Outcome::Refused, Outcome::Refused]
    );
    let racing = (0..8).map(|_| s.apply(vec![delete(2, 2)]));
    let reported = futures::future::join_all(racing).await;
    assert_eq!(reported.iter().filter(|t| t[0].is_applied()).count(), 1);
    assert_eq!(s.apply(vec![Write::Delete { id: 5.into(), guard: Guard::Any }]).await, [Outcome::Applied]);
    assert_eq!(s.all().await, [doc! { "_id": 1, "rev": 1 }]);
}

#[tokio::test]
async fn a_batch_larger_than_a_command_is_applied_in_portions() {
    let s = Scratch::on(Standalone);
    let large = "x".repeat(3 << 20);
    let reported =
        s.apply((0..9).map(|i| put(doc! { "_id": i, "rev": 0, "large": &large }, newer())).collect()).await;
    assert_eq!(reported, vec![Outcome::Applied; 9]);
    assert!(s.stats.commands()["update"] >= 2);
    let reported = s.apply((0..2_500).map(|i| put(doc! { "_id": i, "rev": 1 }, newer())).collect()).await;
    assert_eq!(reported, vec![Outcome::Applied; 2_500]);
    let reported = s.apply((2_000..3_000).map(|i| Write::insert(doc! { "_id": i })).collect()).await;
    assert_eq!(reported.iter().filter(|t| t.is_applied()).count(), 500);
    assert_eq!(reported[0], conflict("_id_"));
}

#[tokio::test]
async fn a_batch_for_all_or_none_writes_nothing_if_one_operation_fails() {
    let s = Scratch::on(ReplicaSet);
    let other = s.other("other");
    s.apply(vec![Write::insert(doc! { "_id": 1, "rev": 1 })]).await;
    let batch = |rev: i32, guard: Guard| {
        let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
        let first = batch.push(&other, Write::insert(doc! { "_id": rev }));
        batch.push_after(first, &s.namespace, put(doc! { "_id": 1, "rev": rev }, guard));
        batch
    };
    for guard in [equals(0), Guard::Newer { field: "rev".into() }] {
        let reported = s.documents.apply(batch(1, guard)).await.unwrap();
        assert_eq!(reported, [Outcome::Skipped, Outcome::Refused]);
    }
    assert!(s.documents.get(&other, vec![1.into()]).await.unwrap().is_empty());
    assert_eq!(s.documents.apply(batch(2, equals(1))).await.unwrap(), [Outcome::Applied, Outcome::Applied]);
    assert_eq!(s.documents.get(&other, vec![2.into()]).await.unwrap().len(), 1);

    let mut twice = Batch { atomicity: Atomicity::All, ..Batch::new() };
    twice.push(&s.namespace, Write::insert(doc! { "_id": 1 }));
    twice.push(&s.namespace, put(doc! { "_id": 50 }, Guard::Any));
    let reported = s.documents.apply(twice).await.unwrap();
    assert_eq!(reported, [conflict("_id_"), Outcome::Skipped]);
    assert!(s.documents.get(&s.namespace, vec![50.into()]).await.unwrap().is_empty());
}

#[tokio::test]
async fn guarded_puts_and_deletes_of_a_transaction_are_all_or_none() {
    let s = Scratch::on(ReplicaSet);
    s.apply((0..4).map(|i| Write::insert(doc! { "_id": i, "rev": 0 })).collect()).await;
    let before = s.all().await;
    let batch = |rev: i32| {
        let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
        batch.push(&s.namespace, put(doc! { "_id": 0, "rev": 1 }, equals(0)));
        batch.push(&s.namespace, put(doc! { "_id": 1, "rev": 1 }, equals(rev)));
        batch.push(&s.namespace, Write::Delete { id: 2.into(), guard: equals(0) });
        batch.push(&s.namespace, Write::Delete { id: 3.into(), guard: Guard::Any });
        batch
    };
    let reported = s.documents.apply(batch(5)).await.unwrap();
    assert_eq!(reported[1], Outcome::Refused);
    assert!(reported.iter().all(|t| !t.is_applied()), "{reported:?}");
    assert_eq!(s.all().await, before);
    assert_eq!(s.documents.apply(batch(0)).await.unwrap(), vec![Outcome::Applied; 4]);
    assert_eq!(s.all().await, [doc! { "_id": 0, "rev": 1 }, doc! { "_id": 1, "rev": 1 }]);
}

#[tokio::test]
async fn transactions_that_meet_are_run_again_until_each_is_decided() {
    let s = Scratch::on(ReplicaSet);
    s.apply(vec![Write::insert(doc! { "_id": 1, "rev": 0 })]).await;
    let racing = (0..8_i32).map(|i| {
        let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
        batch.push(&s.namespace, put(doc! { "_id": 1, "rev": 1, "by": i }, equals(0)));
        batch.push(&s.namespace, Write::insert(doc! { "_id": 100 + i }));
        s.documents.apply(batch)
    });
    let reported = futures::future::try_join_all(racing).await.unwrap();
    assert_eq!(reported.iter().filter(|t| t[0].is_applied()).count(), 1);
    assert_eq!(s.all().await.len(), 2);
}

#[tokio::test]
async fn a_standalone_server_refuses_a_batch_for_all_or_none() {
    let s = Scratch::on(Standalone);
    assert!(!s.documents.capabilities().await.unwrap().transactions);
    let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
    batch.push(&s.namespace, Write::insert(doc! { "_id": 1 }));
    assert_eq!(s.documents.apply(batch).await.unwrap_err().kind(), ErrorKind::Validation);
    assert!(s.all().await.is_empty());
}

#[tokio::test]
async fn what_a_server_can_do_is_asked_once() {
    let s = Scratch::on(ReplicaSet);
    assert!(s.documents.capabilities().await.unwrap().transactions);
    assert!(s.documents.capabilities().await.unwrap().transactions);
    assert_eq!(s.stats.total(), 1);
}

#[tokio::test]
async fn a_sequence_starts_at_zero_and_gives_no_number_twice() {
    for server in [Standalone, ReplicaSet] {
        let s = Scratch::on(server);
        let mut given: Vec<i64> =
            futures::future::join_all((0..40).map(|_| s.documents.sequence(&s.namespace, "cv", 3)))
                .await
                .into_iter()
                .flat_map(|sequence| {
                    let sequence = sequence.unwrap();
                    sequence.first..sequence.first + 3
                })
                .collect();
        given.sort_unstable();
        assert_eq!(given, (0..120).collect::<Vec<_>>());
        let now = s.documents.now().await.unwrap();
        let next = s.documents.sequence(&s.namespace, "cv", 1).await.unwrap();
        assert_eq!(next.first, 120);
        assert!((next.now.as_millis() - now.as_millis()).abs() < 10_000);
    }
}

#[tokio::test]
async fn a_sequence_that_others_wrote_as_a_double_goes_on_correctly() {
    let s = Scratch::on(Standalone);
    s.apply(vec![Write::insert(doc! { "_id": "cv", "value": 41.0 })]).await;
    assert_eq!(s.documents.sequence(&s.namespace, "cv", 1).await.unwrap().first, 42);
}

#[tokio::test]
async fn a_scan_gives_the_newest_document_of_each_group_as_of_a_bound() {
    let s = Scratch::on(Standalone);
    s.documents.ensure(&s.namespace, &[Index::on("itemId_at", &["itemId", "at"]).unique()]).await.unwrap();
    let rows = (0..90)
        .map(|i| {
            Write::insert(doc! { "_id": i, "itemId": i % 3, "at": i, "even": i % 2 == 0, "payload": "x" })
        })
        .collect();
    s.apply(rows).await;
    let scan = |filter| Scan {
        filter,
        newest: Some(Newest { per: "itemId".into(), by: "at".into(), at_most: 50.into() }),
        order: vec![("at".into(), Direction::Descending)],
        without: vec!["payload".into()],
        ..Scan::default()
    };
    let row = |i: i32| doc! { "_id": i, "itemId": i % 3, "at": i, "even": i % 2 == 0 };
    assert_eq!(s.read(scan(Filter::All)).await, [row(50), row(49), row(48)]);
    assert_eq!(s.read(scan(Filter::eq("itemId", 1))).await, [row(49)]);
    assert_eq!(s.read(scan(Filter::any_of("itemId", vec![1.into(), 2.into()]))).await, [row(50), row(49)]);
    // The older documents of an item that match don't stand in for its newest.
    assert_eq!(s.read(scan(Filter::eq("even", true))).await, [row(50), row(48)]);
    assert_eq!(
        s.read(scan(Filter::eq("even", true).and(Filter::eq("itemId", 1)))).await,
        Vec::<Document>::new()
    );
    assert_eq!(s.read(scan(Filter::eq("payload", "x").and(Filter::eq("itemId", 1)))).await, [row(49)]);
    assert_eq!(
        s.read(Scan { after: Some(vec![50.into()]), limit: Some(1), ..scan(Filter::All) }).await,
        [row(49)]
    );
}

#[tokio::test]
async fn pages_of_a_scan_neither_skip_nor_repeat_and_need_no_large_fields() {
    let s = Scratch::on(ReplicaSet);
    s.apply(
        (0..450)
            .map(|i| Write::insert(doc! { "_id": i, "age": i % 7, "payload": "x".repeat(2_000) }))
            .collect(),
    )
    .await;
    let order = vec![("age".to_owned(), Direction::Descending), ("_id".to_owned(), Direction::Ascending)];
    let scan = |after| Scan {
        filter: Filter::gt("age", 0),
        order: order.clone(),
        after,
        limit: Some(60),
        without: vec!["payload".into()],
        ..Scan::default()
    };
    let mut read = Vec::new();
    let mut after = None;
    loop {
        let page = s.read(scan(after)).await;
        let Some(last) = page.last() else { break };
        after = Some(vec![last["age"].clone(), last["_id"].clone()]);
        read.extend(page);
    }
    let mut expected: Vec<Document> =
        (0..450).filter(|i| i % 7 > 0).map(|i| doc! { "_id": i, "age": i % 7 }).collect();
    expected.sort_by_key(|d| (-d.get_i32("age").unwrap(), d.get_i32("_id").unwrap()));
    assert_eq!(read, expected);
    assert_eq!(s.read(Scan { limit: Some(0), ..scan(None) }).await, Vec::<Document>::new());
    let contradictory =
        s.documents.scan(&s.namespace, scan(Some(vec![1.into()]))).try_collect::<Vec<_>>().await;
    assert_eq!(contradictory.unwrap_err().kind(), ErrorKind::Validation);
}

#[tokio::test]
async fn a_scan_asks_for_a_page_at_a_time_and_only_as_far_as_it_is_read() {
    let s = Scratch::on(Standalone);
    s.apply((0..1_000).map(|i| Write::insert(doc! { "_id": i })).collect()).await;
    s.stats.reset();
    let mut stream = s.documents.scan(&s.namespace, Scan::default());
    for _ in 0..150 {
        stream.try_next().await.unwrap().unwrap();
    }
    assert_eq!(s.stats.commands().into_iter().collect::<Vec<_>>(), [("find".to_owned(), 1)]);
    let rest: Vec<Document> = stream.try_collect().await.unwrap();
    assert_eq!(rest.len(), 850);
    let commands = s.stats.commands();
    assert_eq!((commands["find"], commands.get("getMore")), (4, None), "{commands:?}");
}

/// A condition "greater, or of a later type" would be an `$or`, of which a server reads the index from its
/// beginning.
#[tokio::test]
async fn a_page_far_within_an_order_examines_the_page() {
    let s = Scratch::on(Standalone);
    let indexes = [Index::on("a", &["a", "_id"]), Index::on("t_b", &["t", "b", "_id"])];
    s.documents.ensure(&s.namespace, &indexes).await.unwrap();
    s.apply(
        (0..5_000)
            .map(|i| Write::insert(doc! { "_id": i, "a": i / 3, "t": i % 2, "b": -i, "x": 1 }))
            .collect(),
    )
    .await;
    let by = |paths: [&str; 2], direction| paths.map(|path| (path.to_owned(), direction)).to_vec();
    let database =
        mongodb::Client::with_uri_str(Standalone.uri()).await.unwrap().database(&s.namespace.database);
    let profiled = database.collection::<Document>("system.profile");
    for direction in [Direction::Ascending, Direction::Descending] {
        for (filter, order, after) in [
            (Filter::eq("x", 1), by(["a", "_id"], direction), [1200, 3600]),
            (Filter::eq("t", 0), by(["b", "_id"], direction), [-2400, 2400]),
        ] {
            let scan = Scan {
                filter,
                order,
                after: Some(after.map(Bson::Int32).to_vec()),
                limit: Some(50),
                ..Scan::default()
            };
            let expected = s.read(scan.clone()).await;
            database.run_command(doc! { "profile": 2 }).await.unwrap();
            assert_eq!(s.read(scan.clone()).await, expected);
            database.run_command(doc! { "profile": 0 }).await.unwrap();
            let done = profiled
                .find_one(doc! { "command.find": &*s.namespace.collection })
                .sort(doc! { "ts": -1 })
                .await
                .unwrap()
                .unwrap();
            assert!(done.get_i32("keysExamined").unwrap() <= 52, "{scan:?}: {done:?}");
            assert!(!done.contains_key("hasSortStage"), "{scan:?}: {done:?}");
            profiled.drop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_documents_are_read_by_id_in_any_number_and_absent_ones_left_out() {
    let s = Scratch::on(Standalone);
    s.apply((0..1_200).map(|i| Write::insert(doc! { "_id": i })).collect()).await;
    let found = s.documents.get(&s.namespace, (0..2_400).map(Bson::Int32).collect()).await.unwrap();
    assert_eq!(found.len(), 1_200);
    s.stats.reset();
    assert!(s.documents.get(&s.namespace, Vec::new()).await.unwrap().is_empty());
    assert_eq!(s.stats.total(), 0);
}

#[tokio::test]
async fn an_index_that_is_there_is_left_alone_and_a_violated_one_is_named() {
    let s = Scratch::on(Standalone);
    let indexes = [Index::on("a", &["a"]), Index::on("b", &["b.c"]).unique()];
    s.documents.ensure(&s.namespace, &indexes).await.unwrap();
    s.documents.ensure(&s.namespace, &indexes).await.unwrap();
    s.documents.ensure(&s.namespace, &[Index::on("a", &["a"]), Index::on("new", &["new"])]).await.unwrap();
    let other_keys = s.documents.ensure(&s.namespace, &[Index::on("a", &["z"])]).await.unwrap_err();
    assert!(other_keys.message().contains("`a`"), "{other_keys}");

    s.apply(vec![
        Write::insert(doc! { "_id": 1, "n": 1, "b": { "c": 1 } }),
        Write::insert(doc! { "_id": 2, "n": 1, "b": { "c": 2 } }),
    ])
    .await;
    let violated = s.documents.ensure(&s.namespace, &[Index::on("by_n", &["n"]).unique()]).await.unwrap_err();
    assert_eq!(violated.kind(), ErrorKind::Database);
    assert!(violated.message().contains("`by_n`"), "{violated}");
    s.documents.ensure(&s.other("empty"), &[]).await.unwrap();
    s.documents.ensure(&s.other("empty"), &[]).await.unwrap();
}

/// Makes an index as another client would.
async fn make_index(s: &Scratch, server: Server, spec: Document) {
    let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
    let command = doc! { "createIndexes": &*s.namespace.collection, "indexes": [spec] };
    client.database(&s.namespace.database).run_command(command).await.unwrap();
}

#[tokio::test]
async fn an_index_that_does_not_do_what_ours_must_is_refused_with_what_mends_it() {
    let wanted = Index::on("ver_cv", &["cv"]).unique();
    let unfit = [
        doc! { "name": "ver_cv", "key": { "cv": 1 } },
        doc! { "name": "ver_cv", "key": { "cv": 1 }, "unique": true, "partialFilterExpression": { "op": "CREATE" } },
        doc! { "name": "ver_cv", "key": { "cv": 1 }, "unique": true, "sparse": true },
        doc! { "name": "ver_cv", "key": { "cv": -1 }, "unique": true },
        doc! { "name": "ver_cv", "key": { "cv": 1 }, "unique": true, "expireAfterSeconds": 5 },
    ];
    for spec in unfit {
        for server in [Standalone, ReplicaSet] {
            let s = Scratch::on(server);
            make_index(&s, server, spec.clone()).await;
            let refused = s.documents.ensure(&s.namespace, std::slice::from_ref(&wanted)).await.unwrap_err();
            assert_eq!(
                (refused.kind(), refused.is_retryable()),
                (ErrorKind::RouteMismatch, false),
                "{spec}: {refused}"
            );
            assert!(refused.message().contains("dropIndex(\"ver_cv\")"), "{spec}: {refused}");
        }
    }
}

#[tokio::test]
async fn an_index_that_does_what_ours_must_serves_under_any_name() {
    for server in [Standalone, ReplicaSet] {
        let s = Scratch::on(server);
        make_index(&s, server, doc! { "name": "cv_1", "key": { "cv": 1 }, "unique": true }).await;
        make_index(
            &s,
            server,
            doc! { "name": "cv_of_some", "key": { "cv": 1 }, "partialFilterExpression": { "op": "CREATE" } },
        )
        .await;
        s.documents
            .ensure(&s.namespace, &[Index::on("ver_cv", &["cv"]).unique(), Index::on("other", &["other"])])
            .await
            .unwrap();
        let reported = s
            .apply(vec![Write::insert(doc! { "_id": 1, "cv": 1 }), Write::insert(doc! { "_id": 2, "cv": 1 })])
            .await;
        assert!(
            reported.contains(&conflict("ver_cv")),
            "a conflict names the index as we know it: {reported:?}"
        );
    }
}

#[tokio::test]
async fn where_every_index_exists_nothing_is_created() {
    for server in [Standalone, ReplicaSet] {
        let s = Scratch::on(server);
        let indexes = [Index::on("a", &["a"]).unique(), Index::on("b", &["b"]).only_if_exists("b")];
        s.documents.ensure(&s.namespace, &indexes).await.unwrap();
        s.stats.reset();
        s.documents.ensure(&s.namespace, &indexes).await.unwrap();
        assert_eq!(s.stats.commands().into_iter().collect::<Vec<_>>(), [("listIndexes".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn with_one_connection_a_scan_that_is_not_polled_holds_up_nobody() {
    for server in [Standalone, ReplicaSet] {
        let uri = server.uri();
        let s = Scratch::at(format!("{uri}{}maxPoolSize=1", if uri.contains('?') { "&" } else { "?" }));
        s.apply((0..1_000).map(|i| Write::insert(doc! { "_id": i })).collect()).await;
        let read = async {
            let (documents, namespace) = (Arc::clone(&s.documents), s.namespace.clone());
            let again = s.documents.scan(&s.namespace, Scan::default()).map(move |found| {
                let (documents, namespace) = (Arc::clone(&documents), namespace.clone());
                async move { documents.get(&namespace, vec![found?.get("_id").cloned().unwrap()]).await }
            });
            // While one document is at hand, others are asked for and not waited for.
            let mut again = again.buffered(16);
            let mut count = 0;
            while let Some(found) = again.try_next().await.unwrap() {
                count += found.len();
                s.documents.get(&s.namespace, vec![0.into()]).await.unwrap();
            }
            count
        };
        assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(60), read).await, Ok(1_000));
    }
}

#[tokio::test]
async fn connection_strings_of_the_legacy_packages_are_taken() {
    let options = "useNewUrlParser=true&useUnifiedTopology=true&keepAlive=true&family=4&poolSize=5&autoReconnect=true&compressors=zlib&\
                   wtimeout=100&w=0&readConcernLevel=local&readPreference=secondaryPreferred&maxStalenessSeconds=120&socketTimeoutMS=30000&\
                   maxIdleTimeMS=0&serverSelectionTimeoutMS=0";
    for server in [Standalone, ReplicaSet] {
        let uri = server.uri();
        let s = Scratch::at(format!("{uri}{}{options}", if uri.contains('?') { "&" } else { "?" }));
        assert_eq!(s.apply(vec![Write::insert(doc! { "_id": 1 })]).await, [Outcome::Applied]);
        assert_eq!(s.all().await, [doc! { "_id": 1 }]);
    }
    let unknown = MongoDocuments::new("mongodb://localhost/?tpyo=1".into(), Env::default()).unwrap_err();
    assert!(unknown.message().contains("tpyo"), "{unknown}");
}

/// A refusal closes the connections of all callers meanwhile, too, and the driver looks for the server again
/// only after ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_reported_at_once_also_to_those_who_ask_meanwhile() {
    let uri = mongo_standalone_uri().replacen("mongodb://", "mongodb://nobody:a-word@", 1);
    let documents = MongoDocuments::new(uri.into(), Env::default()).unwrap();
    let database = format!("refused-{}", ObjectId::new());
    let asked = (0..8).map(|n| {
        let (documents, namespace) = (&documents, Namespace::new(&*database, format!("c{n}")));
        async move { documents.ensure(&namespace, &[Index::on("a", &["a"])]).await }
    });
    let reported = tokio::time::timeout(std::time::Duration::from_secs(8), futures::future::join_all(asked))
        .await
        .expect("it fails at once");
    for reported in reported {
        let error = reported.unwrap_err();
        assert!(error.to_string().contains("Authentication failed") && !error.is_retryable(), "{error}");
    }
}
