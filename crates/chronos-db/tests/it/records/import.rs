//! Importing a log of changes.

use chronos_db::{Collection, ErrorKind, ImportOp, ImportOutcome, Json, Op, Result, json};
use test_support::{Failing, Fault, documents};

use super::pairing::{Pairing, minute, on_every_pairing, refused};

on_every_pairing!(
    an_import_keeps_times_actors_and_the_order_of_each_key,
    importing_the_same_log_again_changes_nothing,
    a_key_that_comes_back_is_a_new_item,
    a_line_that_cannot_be_carried_out_is_told_and_the_rest_goes_on,
    an_import_that_stops_at_an_error_writes_nothing_behind_it,
    an_interrupted_import_is_finished_by_importing_again,
    keys_are_told_apart_by_type_and_have_to_be_indexed,
);

fn op(kind: &str, key: impl Into<Json>, data: Json, at: i64) -> ImportOp {
    let mut operation = json!({ "op": kind, "key": key.into(), "at": minute(at).to_string(), "actor": "importer" });
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
    assert_eq!(history.iter().map(|version| version.at).collect::<Vec<_>>(), [minute(1), minute(3), minute(5)]);
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
    assert_eq!(written(&import(&users, longer).await), [false, false, false, false, false, false, false, true]);
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

async fn a_line_that_cannot_be_carried_out_is_told_and_the_rest_goes_on(p: &Pairing) {
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
    let kinds: Vec<Option<ErrorKind>> = results.iter().map(|result| result.as_ref().err().map(chronos_db::Error::kind)).collect();
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

async fn keys_are_told_apart_by_type_and_have_to_be_indexed(p: &Pairing) {
    let store = p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["id"]}}}));
    let users = store.users();
    let operations =
        vec![op("create", 1, json!({"id": 1}), 1), op("create", "1", json!({"id": "1"}), 1), op("create", true, json!({"id": true}), 1)];
    assert_eq!(written(&import(&users, operations.clone()).await), [true; 3]);
    assert_eq!(written(&import(&users, operations).await), [false; 3]);
    assert_eq!(refused(users.import("name").await), ErrorKind::Validation);
    assert_eq!(refused(users.import("a.b").await), ErrorKind::Validation);
    assert_eq!(refused(users.import("").await), ErrorKind::Validation);
}
