//! The life of one item: created, changed, deleted, brought back.

use chronos_db::{ErrorKind, Op, Route, json};

use super::pairing::{Pairing, TIMEOUT, document, minute, on_every_pairing, refused, system};

on_every_pairing!(
    an_item_is_created_updated_read_back_and_deleted,
    a_restored_item_is_readable_again,
    an_enrichment_merges_deeply_and_records_its_function_once,
    several_patches_make_one_version,
    an_update_merges_top_level_fields_and_a_replace_replaces,
    the_configuration_can_make_updates_replace,
    a_write_that_changes_nothing_makes_no_version_unless_forced,
    a_conflict_says_which_version_the_item_has,
    a_deleted_item_takes_no_changes,
    the_context_decides_the_database_and_nothing_else_does,
    an_enriched_item_is_not_marked_as_deleted,
    a_projection_keeps_the_named_properties,
    a_history_tells_who_did_what_and_why,
    what_is_not_there_is_not_found,
    required_properties_are_asked_for,
);

/// D-01, N-07: a configuration needs no collection maps and no routing; objects lie where docs/format.md says.
async fn an_item_is_created_updated_read_back_and_deleted(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let created = users
        .create(json!({"email": "a@example.org", "n": 1}))
        .actor("signup")
        .reason("first")
        .await
        .unwrap();
    assert_eq!((created.ov, created.cv, created.created, created.changed), (0, 0, true, true));
    let view = users.get(&created.id).await.unwrap().unwrap();
    assert_eq!((view.id, view.ov, view.cv, view.at), (created.id, 0, 0, created.at));
    assert_eq!(view.document(), json!({"email": "a@example.org", "n": 1}));

    let updated = users.update(&created.id, json!({"n": 2})).expect_ov(0).await.unwrap();
    assert_eq!((updated.ov, updated.cv, updated.created), (1, 1, false));
    assert!(updated.at > created.at);
    let first = users.get(&created.id).version(0).await.unwrap().unwrap();
    assert_eq!(first.document(), json!({"email": "a@example.org", "n": 1}));

    let deleted = users.delete(&created.id).await.unwrap();
    assert_eq!(deleted.ov, 2);
    assert_eq!(users.get(&created.id).await.unwrap(), None);
    let view = users.get(&created.id).include_deleted().await.unwrap().unwrap();
    assert_eq!(
        (view.document(), view.deleted_at),
        (json!({"email": "a@example.org", "n": 2}), Some(deleted.at))
    );
    assert_eq!(view.item["_system"]["deleted"], json!(true));

    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let key = |ov: i64| format!("users/{}/v{ov}/item.json", created.id);
    assert_eq!(store.keys(&users).await, [key(0), key(1)], "a deletion shares the payload before it");
    assert_eq!(store.stored(&users, "head").await.len(), 1);
    assert_eq!(store.stored(&users, "ver").await.len(), 3);
}

/// D-04, G-21.
async fn a_restored_item_is_readable_again(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.update(&id, json!({"n": 2})).await.unwrap();
    assert_eq!(users.delete(&id).await.unwrap().ov, 3);
    let restored = users.restore(&id).to_version(1).await.unwrap();
    assert_eq!(restored.ov, 4);
    let view = users.get(&id).await.unwrap().unwrap();
    assert_eq!((view.ov, view.document(), view.deleted_at), (4, json!({"n": 1}), None));
    assert_eq!(view.item["_system"]["deleted"], json!(false));
    assert_eq!(users.update(&id, json!({"more": true})).await.unwrap().ov, 5);
    assert_eq!(document(&users, &id).await, json!({"n": 1, "more": true}));
}

/// D-09; the merge rules themselves are tested beside their code.
async fn an_enrichment_merges_deeply_and_records_its_function_once(p: &Pairing) {
    let users = p.open().users();
    let id =
        users.create(json!({"tags": ["user"], "metadata": {"plan": "free"}, "old": 1})).await.unwrap().id;
    let patch = json!({"tags": ["premium"], "metadata": {"since": 2024}, "old": null});
    let enriched = users.enrich(&id, patch.clone()).function_id("enricher@v1").await.unwrap();
    assert_eq!(enriched.ov, 1);
    let expected =
        json!({"tags": ["user", "premium"], "metadata": {"plan": "free", "since": 2024}, "old": null});
    assert_eq!(document(&users, &id).await, expected);
    let again = users.enrich(&id, patch).function_id("enricher@v1").await.unwrap();
    assert_eq!((again.ov, again.changed), (1, false), "the same function brought the same again");
    users.enrich(&id, json!({})).function_id("scorer@v2").await.unwrap();
    assert_eq!(system(&users, &id).await["functionIds"], json!(["enricher@v1", "scorer@v2"]));
}

/// D-09.
async fn several_patches_make_one_version(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"tags": []})).await.unwrap().id;
    let patches = json!([{"tags": ["a"]}, {"tags": ["b"], "x": {"y": 1}}, {"tags": ["a"], "x": {"z": 2}}]);
    assert_eq!(users.enrich(&id, patches).await.unwrap().ov, 1);
    assert_eq!(document(&users, &id).await, json!({"tags": ["a", "b"], "x": {"y": 1, "z": 2}}));
    for wrong in [json!("text"), json!([{"a": 1}, 2])] {
        assert_eq!(refused(users.enrich(&id, wrong).await), ErrorKind::Validation);
    }
}

async fn an_update_merges_top_level_fields_and_a_replace_replaces(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"a": {"x": 1, "y": 2}, "b": 1})).await.unwrap().id;
    users.update(&id, json!({"a": {"x": 3}, "c": 1})).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"a": {"x": 3}, "b": 1, "c": 1}));
    users.replace(&id, json!({"only": true})).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"only": true}));
}

async fn the_configuration_can_make_updates_replace(p: &Pairing) {
    let users = p.open_with(&json!({"updateMode": "replace"})).users();
    let id = users.create(json!({"a": 1, "b": 1})).await.unwrap().id;
    users.update(&id, json!({"c": 1})).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"c": 1}));
}

async fn a_write_that_changes_nothing_makes_no_version_unless_forced(p: &Pairing) {
    let users = p.open().users();
    let created = users.create(json!({"a": 1})).await.unwrap();
    let same = users.update(&created.id, json!({"a": 1})).await.unwrap();
    assert_eq!((same.ov, same.cv, same.at, same.changed), (0, 0, created.at, false));
    assert!(!users.replace(&created.id, json!({"a": 1})).await.unwrap().changed);
    assert!(!users.enrich(&created.id, json!({})).await.unwrap().changed);
    assert!(!users.restore(&created.id).to_version(0).await.unwrap().changed);
    let forced = users.update(&created.id, json!({"a": 1})).force().await.unwrap();
    assert_eq!((forced.ov, forced.cv, forced.changed), (1, 1, true));
    assert!(users.restore(&created.id).to_version(0).force().await.unwrap().changed);
    assert_eq!(users.history(&created.id).await.unwrap().len(), 3);
}

async fn a_conflict_says_which_version_the_item_has(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    for n in 1..=3 {
        users.update(&id, json!({ "n": n })).expect_ov(n - 1).await.unwrap();
    }
    let conflicts = [
        users.update(&id, json!({"n": 9})).expect_ov(1).await,
        users.replace(&id, json!({"n": 9})).expect_ov(4).await,
        users.enrich(&id, json!({"n": 9})).expect_ov(0).await,
        users.delete(&id).expect_ov(2).await,
        users.restore(&id).to_version(0).expect_ov(2).await,
    ];
    for conflict in conflicts {
        let error = conflict.unwrap_err();
        assert_eq!(
            (error.kind(), error.ov(), error.collection()),
            (ErrorKind::OptimisticLock, Some(3), Some("users")),
            "{error}"
        );
        assert_eq!(error.id(), Some(&*id.to_string()));
    }
    assert_eq!(document(&users, &id).await, json!({"n": 3}));
}

async fn a_deleted_item_takes_no_changes(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.delete(&id).await.unwrap();
    assert_eq!(refused(users.update(&id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.replace(&id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.enrich(&id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.delete(&id).await), ErrorKind::NotFound);
    assert_eq!(refused(users.lock(&id).await), ErrorKind::NotFound);
    assert_eq!(users.history(&id).await.unwrap().len(), 2);
    assert_eq!(
        users.restore(&id).to_version(0).await.unwrap().ov,
        2,
        "a lock that was refused holds nobody up"
    );
}

/// N-03, G-02.
async fn the_context_decides_the_database_and_nothing_else_does(p: &Pairing) {
    let store = p.open();
    let name = test_support::servers::unique_name("only-here");
    let items = store.with(Route::runtime().tenant("globex").collection(&*name));
    items.create(json!({"a": 1})).await.unwrap();
    assert!(items.database().ends_with("-globex"), "{}", items.database());
    assert_eq!(store.stored(&items, "head").await.len(), 1);
    if p.kind.is_mongo() {
        let uri = p.config(&json!({}))["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
        let client = mongodb::Client::with_uri_str(uri).await.unwrap();
        let elsewhere = client.database("test").list_collection_names().await.unwrap();
        assert!(!elsewhere.iter().any(|found| found.starts_with(&name)), "{elsewhere:?}");
    }
}

/// N-08, G-13.
async fn an_enriched_item_is_not_marked_as_deleted(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"a": 1})).await.unwrap().id;
    users.enrich(&id, json!({"b": 2})).await.unwrap();
    assert!(!store.head(&users, &id).await.contains_key("deletedAt"));
}

async fn a_projection_keeps_the_named_properties(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"a": 1, "b": {"c": 2}, "d": 3})).await.unwrap().id;
    let view = users.get(&id).project(["b", "absent"]).await.unwrap().unwrap();
    assert_eq!((view.item, view.ov), (json!({"b": {"c": 2}}), 0));
    let view = users.get(&id).version(0).project(["_system"]).await.unwrap().unwrap();
    assert_eq!(view.item["_system"]["ov"], json!(0));
    assert_eq!(view.document(), json!({}));
    let page = users.list().project(["a"]).await.unwrap();
    assert_eq!(page.items[0].item, json!({"a": 1}));
}

async fn a_history_tells_who_did_what_and_why(p: &Pairing) {
    let users = p.open().users();
    let id = users
        .create(json!({"n": 0}))
        .actor("ann")
        .reason("new")
        .request_id("r-1")
        .at(minute(1))
        .await
        .unwrap()
        .id;
    users.update(&id, json!({"n": 1})).actor("bob").at(minute(2)).await.unwrap();
    users.delete(&id).reason("gone").at(minute(3)).await.unwrap();
    users.restore(&id).to_version(0).at(minute(4)).await.unwrap();
    let history = users.history(&id).await.unwrap();
    let reported: Vec<_> = history.iter().map(|v| (v.ov, v.cv, v.op, v.at, v.payload_ov)).collect();
    let expected = [
        (0, 0, Op::Create, minute(1), 0),
        (1, 1, Op::Update, minute(2), 1),
        (2, 2, Op::Delete, minute(3), 1),
        (3, 3, Op::Restore, minute(4), 0),
    ];
    assert_eq!(reported, expected);
    let first = &history[0];
    assert_eq!(
        (first.actor.as_deref(), first.reason.as_deref(), first.request_id.as_deref()),
        (Some("ann"), Some("new"), Some("r-1"))
    );
    assert_eq!((history[1].actor.as_deref(), history[2].reason.as_deref()), (Some("bob"), Some("gone")));
    assert_eq!(history[3].checksum, first.checksum);
    assert_eq!(first.checksum.len(), 64);
    let mut newest_first = users.history(&id).newest_first().await.unwrap();
    newest_first.reverse();
    assert_eq!(newest_first, history);
}

async fn what_is_not_there_is_not_found(p: &Pairing) {
    let users = p.open().users();
    let id = "65f0a1b2c3d4e5f60718293a".parse().unwrap();
    assert_eq!(users.get(&id).await.unwrap(), None);
    assert_eq!(users.get(&id).version(0).await.unwrap(), None);
    assert_eq!(users.list().await.unwrap().items, []);
    assert_eq!(users.stable_cv().await.unwrap(), -1);
    assert_eq!(refused(users.history(&id).await), ErrorKind::NotFound);
    assert_eq!(refused(users.update(&id, json!({})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.delete(&id).await), ErrorKind::NotFound);
    assert_eq!(refused(users.restore(&id).to_version(0).await), ErrorKind::NotFound);
    let real = users.create(json!({})).await.unwrap().id;
    assert_eq!(users.get(&real).version(1).await.unwrap(), None);
    assert_eq!(users.get(&real).version(-1).await.unwrap(), None);
    assert_eq!(refused(users.create(json!(["no object"])).await), ErrorKind::Validation);
}

/// T-11.
async fn required_properties_are_asked_for(p: &Pairing) {
    let map = json!({"collectionMaps": {"users": {"indexedProps": ["id", "name"], "validation": {"requiredIndexed": ["id"]}}}});
    let store = p.open_with(&map);
    let users = store.users();
    for wrong in [json!({"name": "n"}), json!({"id": "", "name": "n"}), json!({"id": null})] {
        let error = users.create(wrong).await.unwrap_err();
        assert!(error.message().contains("Required indexed field 'id' is missing or empty"), "{error}");
    }
    let id = users.create(json!({"id": 1})).await.unwrap().id;
    users.update(&id, json!({"name": "n"})).await.expect("the merged document has what is required");
    assert_eq!(refused(users.update(&id, json!({"id": null})).await), ErrorKind::Validation);
    assert_eq!(refused(users.replace(&id, json!({"name": "n"})).await), ErrorKind::Validation);
    let others = store.collection("others");
    others.create(json!({})).await.expect("nothing is required of other collections");
}
