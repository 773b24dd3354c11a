//! Tenants apart, databases shared, settings of one `Chronos` only.

use chronos_db::{ErrorKind, Route, json};

use super::pairing::{PATIENCE, Pairing, document, on_every_pairing, refused, system};

on_every_pairing!(
    an_item_of_one_tenant_does_not_exist_for_another,
    in_a_shared_database_every_read_and_write_is_forced_to_its_tenant,
    a_collection_of_a_shared_database_is_restored_for_one_tenant,
    unique_keys_of_tenants_in_a_shared_database_do_not_meet,
    without_object_storage_payloads_stay_in_their_rows,
    two_chronos_in_one_process_have_their_own_collection_maps,
    names_that_could_escape_are_refused,
);

/// D-10.
async fn an_item_of_one_tenant_does_not_exist_for_another(p: &Pairing) {
    let store = p.open();
    let (acme, globex) = (store.users(), store.with(Route::runtime().tenant("globex").collection("users")));
    let id = acme.create(json!({"secret": 1})).await.unwrap().id;
    globex.create(json!({"other": 1})).await.unwrap();
    assert_ne!(acme.database(), globex.database());
    assert_eq!(globex.get(&id).await.unwrap(), None);
    assert_eq!(globex.get(&id).version(0).include_deleted().await.unwrap(), None);
    assert_eq!(globex.list().await.unwrap().items.len(), 1);
    assert_eq!(refused(globex.update(&id, json!({})).await), ErrorKind::NotFound);
    assert_eq!(refused(store.chronos.with(Route::runtime().tenant("initech").collection("users"))), ErrorKind::RouteNotFound);
    assert_eq!(refused(store.chronos.with(Route::runtime().collection("users"))), ErrorKind::RouteNotFound);
}

/// Rule 10.
async fn in_a_shared_database_every_read_and_write_is_forced_to_its_tenant(p: &Pairing) {
    let store = p.open();
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    let (acme, globex, all) = (of("acme"), of("globex"), store.with(Route::logs().collection("audit")));
    let mine = acme.create(json!({"n": 1, "tenantId": "globex"})).await.unwrap();
    acme.update(&mine.id, json!({"n": 2})).await.unwrap();
    let theirs = globex.create(json!({"n": 1})).await.unwrap();

    assert_eq!(document(&acme, &mine.id).await["n"], json!(2));
    assert_eq!(globex.get(&mine.id).await.unwrap(), None, "a property of that name changes nothing");
    assert_eq!(globex.get(&mine.id).version(0).await.unwrap(), None);
    assert_eq!(globex.get(&mine.id).as_of_cv(2).await.unwrap(), None);
    assert_eq!(refused(globex.history(&mine.id).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.update(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.replace(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.enrich(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.delete(&mine.id).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.restore(&mine.id).to_version(0).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.lock(&mine.id).await), ErrorKind::NotFound);
    for list in [globex.list(), globex.list().as_of_cv(2), globex.list().filter(json!({"$or": [{"n": 1}, {"n": 2}]}))] {
        let items = list.include_deleted().await.unwrap().items;
        assert_eq!(items.iter().map(|view| view.id).collect::<Vec<_>>(), [theirs.id]);
    }
    assert_eq!(all.list().await.unwrap().items.len(), 2, "without a tenant the logs are everybody's");
    for row in store.stored(&acme, "ver").await.iter().chain(&store.stored(&acme, "head").await) {
        let owner = if row.get_object_id("itemId").unwrap().to_hex() == mine.id.to_string() { "acme" } else { "globex" };
        assert_eq!(row.get_str("tenantId").unwrap(), owner, "{row}");
    }
}

async fn a_collection_of_a_shared_database_is_restored_for_one_tenant(p: &Pairing) {
    let store = p.open();
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    let (acme, globex) = (of("acme"), of("globex"));
    let mine = acme.create(json!({"n": 0})).await.unwrap().id;
    let theirs = globex.create(json!({"n": 0})).await.unwrap().id;
    acme.update(&mine, json!({"n": 1})).await.unwrap();
    globex.update(&theirs, json!({"n": 1})).await.unwrap();
    globex.create(json!({"n": 0})).await.unwrap();
    let done = acme.restore_collection().to_cv(1).await.unwrap();
    assert_eq!((done.items, done.restored, done.removed), (1, 1, 0));
    assert_eq!((document(&acme, &mine).await, document(&globex, &theirs).await), (json!({"n": 0}), json!({"n": 1})));
    assert_eq!(globex.list().await.unwrap().items.len(), 2);
}

async fn unique_keys_of_tenants_in_a_shared_database_do_not_meet(p: &Pairing) {
    let store = p.open();
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    let (acme, globex) = (of("acme"), of("globex"));
    let mine = acme.smart_insert(json!({"key": 1}), &["key"]).await.unwrap();
    let theirs = globex.smart_insert(json!({"key": 1}), &["key"]).await.unwrap();
    assert!(mine.created && theirs.created && mine.id != theirs.id);
    assert!(!acme.smart_insert(json!({"key": 1}), &["key"]).await.unwrap().created);
    assert_eq!(acme.list().await.unwrap().items.len(), 1);
}

async fn without_object_storage_payloads_stay_in_their_rows(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = store.with(Route::identities().collection("users"));
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.delete(&id).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    assert_eq!(users.drain(PATIENCE).await.unwrap(), 0, "nothing waits");
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    assert_eq!(users.get(&id).version(1).await.unwrap().unwrap().document(), json!({"n": 1}));
    assert_eq!(system(&users, &id).await["state"], json!("new-not-synched"));
    assert_eq!(users.history(&id).await.unwrap().len(), 4);
    let large = json!({"text": "x".repeat(2 * 1024 * 1024)});
    let big = users.create(large.clone()).await.unwrap().id;
    assert_eq!(document(&users, &big).await, large, "there is nowhere else for it to be");
    let refusal = users.create(json!({"text": "x".repeat(15 * 1024 * 1024)})).await;
    assert_eq!(refused(refusal), ErrorKind::Validation);
}

/// N-25, G-53.
async fn two_chronos_in_one_process_have_their_own_collection_maps(p: &Pairing) {
    let one = p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["a"]}}}));
    let other = p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["b"], "validation": {"requiredIndexed": ["b"]}}}}));
    let one_users = one.users();
    let other_users = other.with(Route::runtime().tenant("globex").collection("users"));
    one_users.create(json!({"a": 1})).await.unwrap();
    other_users.create(json!({"b": 1})).await.unwrap();
    assert_eq!(refused(other_users.create(json!({"a": 1})).await), ErrorKind::Validation);
    assert_eq!(one_users.list().filter(json!({"a": 1})).await.unwrap().items.len(), 1);
    assert_eq!(other_users.list().filter(json!({"b": 1})).await.unwrap().items.len(), 1);
    assert_eq!(refused(one_users.list().filter(json!({"b": 1})).await), ErrorKind::Validation);
    assert_eq!(refused(other_users.list().filter(json!({"a": 1})).await), ErrorKind::Validation);
}

async fn names_that_could_escape_are_refused(p: &Pairing) {
    let store = p.open();
    for name in ["", ".", "..", "a/b", "a\\b", "../users", "a\0b", "$cmd", "a$b", ".hidden", "a\nb"] {
        let route = Route::runtime().tenant("acme").collection(name);
        assert_eq!(refused(store.chronos.with(route)), ErrorKind::Validation, "{name:?}");
    }
    let odd = store.collection("Üsers of 2024 (old)");
    let id = odd.create(json!({"n": 1})).ack_stored().await.unwrap().id;
    assert_eq!(document(&odd, &id).await, json!({"n": 1}));
}
