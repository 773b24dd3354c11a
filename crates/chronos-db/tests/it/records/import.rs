//! Importing a log of changes.

use chronos_db::{Collection, ErrorKind, ImportOp, ImportOutcome, Json, Op, Result, json};
use test_support::{Failing, Fault, documents};

use super::pairing::{Pairing, minute, on_every_pairing, refused};

on_every_pairing!(
    an_import_keeps_times_actors_and_the_order_of_each_key,
    importing_the_same_log_again_changes_nothing,
    a_key_that_comes_back_is_a_new_item,
    a_line_that_cannot_be_carried_out_is_reported_and_the_rest_goes_on,
    an_import_that_stops_at_an_error_writes_nothing_behind_it,
    an_interrupted_import_is_finished_by_importing_again,
    keys_are_distinguished_by_type_and_have_to_be_indexed,
    changes_of_one_moment_are_all_kept_in_the_order_of_the_log,
    a_moment_that_was_imported_halfway_is_finished_without_a_change_too_many,
    a_change_that_changed_nothing_is_recognised_among_others_of_its_moment,
    a_change_older_than_the_newest_is_reported_if_it_was_never_imported,
    what_was_imported_without_marks_is_recognised,
    a_named_log_without_times_is_carried_out_once,
    a_named_log_goes_on_where_a_killed_import_stopped,
);

fn op(kind: &str, key: impl Into<Json>, data: Json, at: i64) -> ImportOp {
    let mut operation =
        json!({ "op": kind, "key": key.into(), "at": minute(at).to_string(), "actor": "importer" });
    if !data.is_null() {
        operation["data"] = data;
    }
    ImportOp::parse(&operation).unwrap()
}

async fn import(users: &Collection, operations: Vec<ImportOp>) -> Vec<Result<ImportOutcome>> {
    users.import("id").await.unwrap().apply(operations, false).await.unwrap()
}

fn log() -> Vec<ImportOp> {
    vec![
        op("create", "a", json!({"id": "a", "n": 0}), 1),
        op("create", "b", json!({"id": "b", "n": 0}), 2),
        op("update", "a", json!({"n": 1, "m": 1}), 3),
        op("replace", "b", json!({"id": "b", "n": 2}), 4),
        op("update", "a", json!({"n": 2}), 5),
        op("delete", "b", Json::Null, 6),
        op("create", "c", json!({"id": "c", "n": 0}), 6),
    ]
}

fn written(results: &[Result<ImportOutcome>]) -> Vec<bool> {
    results.iter().map(|result| matches!(result, Ok(ImportOutcome::Written(_)))).collect()
}

async fn by_key(users: &Collection, key: &str) -> Vec<chronos_db::View> {
    users
        .list()
        .filter(json!({ "metaIndexed.id": key }))
        .include_deleted()
        .sort("createdAt", chronos_db::documents::Direction::Ascending)
        .await
        .unwrap()
        .items
}

async fn an_import_keeps_times_actors_and_the_order_of_each_key(p: &Pairing) {
    let users = p.open().users();
    assert_eq!(written(&import(&users, log()).await), [true; 7]);
    let a = &by_key(&users, "a").await[0];
    assert_eq!((a.ov, a.at, a.document()), (2, minute(5), json!({"id": "a", "n": 2, "m": 1})));
    let history = users.history(&a.id).await.unwrap();
    assert_eq!(
        history.iter().map(|version| version.at).collect::<Vec<_>>(),
        [minute(1), minute(3), minute(5)]
    );
    assert!(history.iter().all(|version| version.actor.as_deref() == Some("importer")));
    let b = &by_key(&users, "b").await[0];
    assert_eq!((b.deleted_at, b.document()), (Some(minute(6)), json!({"id": "b", "n": 2})));
    let ops: Vec<Op> = users.history(&b.id).await.unwrap().iter().map(|version| version.op).collect();
    assert_eq!(ops, [Op::Create, Op::Update, Op::Delete]);
    let then = users.list().as_of(minute(4)).await.unwrap().items;
    assert_eq!(then.len(), 2, "the past can be read at once");
}

async fn importing_the_same_log_again_changes_nothing(p: &Pairing) {
    let users = p.open().users();
    import(&users, log()).await;
    let before = users.stable_cv().await.unwrap();
    for result in import(&users, log()).await {
        assert_eq!(result.unwrap(), ImportOutcome::Skipped);
    }
    let mut longer = log();
    longer.push(op("update", "a", json!({"n": 3}), 7));
    assert_eq!(
        written(&import(&users, longer).await),
        [false, false, false, false, false, false, false, true]
    );
    assert_eq!(users.stable_cv().await.unwrap(), before + 1);
    assert_eq!(by_key(&users, "a").await[0].ov, 3);
}

async fn a_key_that_comes_back_is_a_new_item(p: &Pairing) {
    let users = p.open().users();
    let operations = vec![
        op("create", "a", json!({"id": "a", "life": 1}), 1),
        op("delete", "a", Json::Null, 2),
        op("create", "a", json!({"id": "a", "life": 2}), 3),
        op("update", "a", json!({"more": true}), 4),
    ];
    assert_eq!(written(&import(&users, operations.clone()).await), [true; 4]);
    let both = by_key(&users, "a").await;
    assert_eq!(both.len(), 2);
    assert_eq!((both[0].deleted_at, both[0].item["life"].clone()), (Some(minute(2)), json!(1)));
    assert_eq!((both[1].deleted_at, both[1].document()), (None, json!({"id": "a", "life": 2, "more": true})));
    assert_eq!(written(&import(&users, operations).await), [false; 4]);
}

async fn a_line_that_cannot_be_carried_out_is_reported_and_the_rest_goes_on(p: &Pairing) {
    let users = p.open().users();
    import(&users, log()).await;
    let results = import(
        &users,
        vec![
            op("create", "a", json!({"id": "a"}), 20),
            op("update", "b", json!({"n": 1}), 21),
            op("delete", "unknown", Json::Null, 22),
            op("create", "d", json!({"id": "other"}), 23),
            op("update", "a", json!({"id": "moved"}), 24),
            op("update", "a", json!({"n": 9}), 25),
        ],
    )
    .await;
    let kinds: Vec<Option<ErrorKind>> =
        results.iter().map(|result| result.as_ref().err().map(chronos_db::Error::kind)).collect();
    let (wrong, missing) = (Some(ErrorKind::Validation), Some(ErrorKind::NotFound));
    assert_eq!(kinds, [wrong, missing, missing, wrong, wrong, None]);
    assert_eq!(by_key(&users, "a").await[0].item["n"], json!(9));
    for wrong in [
        json!({"op": "upsert", "key": "a", "data": {}}),
        json!({"op": "create", "data": {}}),
        json!({"op": "create", "key": null, "data": {}}),
        json!({"op": "create", "key": {"a": 1}, "data": {}}),
        json!({"op": "create", "key": "a"}),
        json!({"op": "delete", "key": "a", "data": {}}),
        json!({"op": "delete", "key": "a", "at": "yesterday"}),
        json!({"op": "delete", "key": "a", "when": "now"}),
        json!([]),
    ] {
        assert_eq!(refused(ImportOp::parse(&wrong)), ErrorKind::Validation, "{wrong}");
    }
}

async fn an_import_that_stops_at_an_error_writes_nothing_behind_it(p: &Pairing) {
    let users = p.open().users();
    let operations = vec![
        op("create", "a", json!({"id": "a"}), 1),
        op("update", "nobody", json!({"n": 1}), 2),
        op("create", "b", json!({"id": "b"}), 3),
    ];
    let results = users.import("id").await.unwrap().apply(operations, true).await.unwrap();
    assert_eq!(written(&results), [true, false]);
    assert_eq!(refused(results.into_iter().next_back().unwrap()), ErrorKind::NotFound);
    assert_eq!(users.list().await.unwrap().items.len(), 1);
}

async fn an_interrupted_import_is_finished_by_importing_again(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let users = store.users();
    database.fail_nth(documents::Call::SequenceThen, 2, Fault::Before);
    let first = import(&users, log()).await;
    assert!(first.iter().any(Result::is_err), "{first:?}");
    assert!(import(&users, log()).await.iter().all(Result::is_ok));
    assert_eq!(by_key(&users, "a").await[0].document(), json!({"id": "a", "n": 2, "m": 1}));
    assert_eq!(by_key(&users, "b").await[0].deleted_at, Some(minute(6)));
    let found = users.verify().await.unwrap();
    assert_eq!((found.items, found.versions), (3, 7), "no operation took place twice: {:#}", found.to_json());
}

async fn keys_are_distinguished_by_type_and_have_to_be_indexed(p: &Pairing) {
    let store = p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["id"]}}}));
    let users = store.users();
    let operations = vec![
        op("create", 1, json!({"id": 1}), 1),
        op("create", "1", json!({"id": "1"}), 1),
        op("create", true, json!({"id": true}), 1),
    ];
    assert_eq!(written(&import(&users, operations.clone()).await), [true; 3]);
    assert_eq!(written(&import(&users, operations).await), [false; 3]);
    assert_eq!(refused(users.import("name").await), ErrorKind::Validation);
    assert_eq!(refused(users.import("a.b").await), ErrorKind::Validation);
    assert_eq!(refused(users.import("").await), ErrorKind::Validation);
}

async fn documents_of(users: &Collection, key: &str) -> Vec<Json> {
    let mut all = Vec::new();
    for item in by_key(users, key).await {
        for version in users.history(&item.id).await.unwrap() {
            let view = users.get(&item.id).version(version.ov).include_deleted().await.unwrap().unwrap();
            all.push(view.document());
        }
    }
    all
}

/// One day's precision: several changes of a key at each of two moments, one of them twice, and a key that
/// comes back within a moment.
fn moments() -> Vec<ImportOp> {
    vec![
        op("create", "a", json!({"id": "a", "n": 0}), 1),
        op("update", "a", json!({"n": 1}), 1),
        op("update", "a", json!({"n": 2}), 1),
        op("update", "a", json!({"n": 1}), 1),
        op("update", "a", json!({"n": 3}), 2),
        op("update", "a", json!({"n": 4}), 2),
        op("create", "b", json!({"id": "b", "life": 1}), 1),
        op("delete", "b", Json::Null, 2),
        op("create", "b", json!({"id": "b", "life": 2}), 2),
    ]
}

async fn changes_of_one_moment_are_all_kept_in_the_order_of_the_log(p: &Pairing) {
    let users = p.open().users();
    assert_eq!(written(&import(&users, moments()).await), [true; 9]);
    let n: Vec<Json> =
        documents_of(&users, "a").await.into_iter().map(|document| document["n"].clone()).collect();
    assert_eq!(n, [json!(0), json!(1), json!(2), json!(1), json!(3), json!(4)]);
    let times: Vec<i64> = users
        .history(&by_key(&users, "a").await[0].id)
        .await
        .unwrap()
        .iter()
        .map(|v| v.at.as_millis())
        .collect();
    assert_eq!(
        times,
        [1, 1, 1, 1, 2, 2]
            .map(|m| minute(m).as_millis())
            .iter()
            .zip([0, 1, 2, 3, 0, 1])
            .map(|(t, ms)| t + ms)
            .collect::<Vec<_>>()
    );
    let b = by_key(&users, "b").await;
    assert_eq!(b.len(), 2);
    assert_eq!((b[1].deleted_at, b[1].document()), (None, json!({"id": "b", "life": 2})));
    let before = users.stable_cv().await.unwrap();
    assert_eq!(written(&import(&users, moments()).await), [false; 9], "the same log again changes nothing");
    assert_eq!(users.stable_cv().await.unwrap(), before);
}

async fn a_moment_that_was_imported_halfway_is_finished_without_a_change_too_many(p: &Pairing) {
    let opened = p.open();
    for stop in 1..moments().len() {
        let users = opened.collection(&format!("stopped{stop}"));
        import(&users, moments().into_iter().take(stop).collect()).await;
        let again = written(&import(&users, moments()).await);
        assert_eq!(
            again,
            (0..moments().len()).map(|at| at >= stop).collect::<Vec<_>>(),
            "stopped after {stop}"
        );
        // In pieces, as a program reads a file.
        let importer = users.import("id").await.unwrap();
        for operation in moments() {
            assert_eq!(written(&importer.apply(vec![operation], true).await.unwrap()), [false]);
        }
        assert_eq!(documents_of(&users, "a").await.len(), 6);
    }
}

async fn a_change_that_changed_nothing_is_recognised_among_others_of_its_moment(p: &Pairing) {
    let users = p.open().users();
    let log = || {
        vec![
            op("create", "a", json!({"id": "a", "n": 1}), 1),
            op("update", "a", json!({"n": 1}), 1),
            op("update", "a", json!({"n": 2}), 1),
            op("update", "a", json!({"n": 2}), 2),
            op("replace", "a", json!({"id": "a", "n": 3}), 3),
        ]
    };
    for run in 0..3 {
        let importer = users.import("id").await.unwrap();
        // Whole, then line by line.
        let pieces: Vec<Vec<ImportOp>> =
            if run == 1 { log().into_iter().map(|op| vec![op]).collect() } else { vec![log()] };
        for piece in pieces {
            assert!(importer.apply(piece, false).await.unwrap().iter().all(Result::is_ok));
        }
        let n: Vec<Json> =
            documents_of(&users, "a").await.into_iter().map(|document| document["n"].clone()).collect();
        assert_eq!(n, [json!(1), json!(2), json!(3)], "run {run}");
    }
}

async fn a_change_older_than_the_newest_is_reported_if_it_was_never_imported(p: &Pairing) {
    let users = p.open().users();
    import(&users, vec![op("create", "a", json!({"id": "a", "n": 3}), 10)]).await;
    let results =
        import(&users, vec![op("update", "a", json!({"n": 2}), 9), op("update", "a", json!({"n": 4}), 11)])
            .await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(error.message().contains("never imported"), "{error}");
    assert_eq!(document_of_key(&users, "a").await, json!({"id": "a", "n": 4}));
}

async fn document_of_key(users: &Collection, key: &str) -> Json {
    by_key(users, key).await.last().unwrap().document()
}

async fn what_was_imported_without_marks_is_recognised(p: &Pairing) {
    let opened = p.open();
    let users = opened.users();
    let log = || {
        vec![
            op("create", "a", json!({"id": "a", "n": 0}), 1),
            op("update", "a", json!({"n": 1}), 2),
            op("create", "b", json!({"id": "b"}), 2),
            op("delete", "b", Json::Null, 3),
        ]
    };
    import(&users, log()).await;
    users.flush(std::time::Duration::from_secs(30)).await.unwrap();
    // As an earlier version of the library left the rows.
    for mut row in opened.stored(&users, "ver").await {
        row.remove("importId");
        row.remove("importAt");
        opened.put(&users, "ver", row).await;
    }
    assert_eq!(written(&import(&users, log()).await), [false; 4]);
}

fn timeless(kind: &str, key: &str, data: Json) -> ImportOp {
    let mut operation = json!({ "op": kind, "key": key });
    if !data.is_null() {
        operation["data"] = data;
    }
    ImportOp::parse(&operation).unwrap()
}

fn timeless_log() -> Vec<ImportOp> {
    vec![
        timeless("create", "a", json!({"id": "a", "n": 1})),
        timeless("update", "a", json!({"n": 1})),
        timeless("update", "a", json!({"n": 2})),
        timeless("update", "a", json!({"n": 1})),
        timeless("create", "b", json!({"id": "b"})),
        timeless("delete", "b", Json::Null),
        timeless("create", "b", json!({"id": "b", "life": 2})),
    ]
}

async fn a_named_log_without_times_is_carried_out_once(p: &Pairing) {
    let users = p.open().users();
    for run in 0..2 {
        let importer = users.import("id").log("first").await.unwrap();
        let results = importer.apply(timeless_log(), true).await.unwrap();
        assert_eq!(written(&results), [run == 0; 7], "run {run}");
    }
    assert_eq!((documents_of(&users, "a").await.len(), by_key(&users, "b").await.len()), (3, 2));
    let importer = users.import("id").log("first").await.unwrap();
    let mut longer = timeless_log();
    longer.push(timeless("update", "a", json!({"n": 5})));
    assert_eq!(
        written(&importer.apply(longer, true).await.unwrap()).iter().filter(|written| **written).count(),
        1
    );
    // Another log, of the same changes.
    let other = users.import("id").log("second").await.unwrap();
    assert!(other.apply(vec![timeless("update", "a", json!({"n": 1}))], true).await.unwrap()[0].is_ok());
    assert_eq!(document_of_key(&users, "a").await["n"], json!(1));
}

async fn a_named_log_goes_on_where_a_killed_import_stopped(p: &Pairing) {
    let opened = p.open();
    for stop in 1..timeless_log().len() {
        let users = opened.collection(&format!("killed{stop}"));
        let importer = users.import("id").log("log").await.unwrap();
        importer.apply(timeless_log().into_iter().take(stop).collect(), true).await.unwrap();
        // Killed after its writes, before it could keep how far it came: everything up to there had been
        // begun.
        for mut kept in opened.stored(&users, "counter").await {
            if kept.contains_key("done") {
                kept.insert("done", 0);
                opened.put(&users, "counter", kept).await;
            }
        }
        let importer = users.import("id").log("log").await.unwrap();
        assert!(importer.apply(timeless_log(), true).await.unwrap().iter().all(Result::is_ok));
        let n: Vec<Json> =
            documents_of(&users, "a").await.into_iter().map(|document| document["n"].clone()).collect();
        assert_eq!(n, [json!(1), json!(2), json!(1)], "killed after {stop}");
        assert_eq!(by_key(&users, "b").await.len(), 2, "killed after {stop}");
    }
}
