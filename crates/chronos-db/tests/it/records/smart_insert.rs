//! Insert or enrich, by unique keys.

use std::future::IntoFuture as _;

use chronos_db::{Collection, ErrorKind, Written, json};

use super::pairing::{Pairing, document, on_durable_pairings, on_every_pairing, refused, system};

mod alone {
    super::on_every_pairing!(
        the_second_insert_enriches_what_the_first_created,
        eight_parallel_inserts_create_one_item,
        an_item_that_was_deleted_before_is_created_anew_once,
        an_item_whose_keys_have_changed_since_is_not_met,
        keys_have_to_be_there_and_indexed,
        items_that_were_created_otherwise_are_found_too,
        a_value_is_not_the_list_that_holds_it,
        what_the_index_cannot_hold_is_no_unique_key,
        an_item_that_outgrew_the_index_gets_no_twin,
        keys_that_nobody_declared_are_looked_up_by_an_index,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(parallel_inserts_from_two_sides_create_one_item);
    use super::*;
}

async fn eight(side: impl Fn(usize) -> Collection) -> Vec<Written> {
    let inserts = (0..8).map(|n| {
        let users = side(n);
        tokio::spawn(async move {
            users.smart_insert(json!({"email": "a@x", "seen": [n]}), &["email"]).await.unwrap()
        })
    });
    futures::future::try_join_all(inserts.collect::<Vec<_>>()).await.unwrap()
}

async fn assert_one_created(users: &Collection, written: &[Written]) {
    assert_eq!(written.iter().filter(|w| w.created).count(), 1, "{written:?}");
    assert!(written.iter().all(|w| w.id == written[0].id), "{written:?}");
    let live = users.list().filter(json!({"email": "a@x"})).await.unwrap().items;
    assert_eq!(live.len(), 1);
    let mut seen: Vec<usize> = live[0].item["seen"].to().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..8).collect::<Vec<_>>(), "nobody's part is lost");
}

/// N-06, G-06.
async fn the_second_insert_enriches_what_the_first_created(p: &Pairing) {
    let users = p.open().users();
    let first = users
        .smart_insert(json!({"email": "a@x", "tags": ["a"]}), &["email"])
        .function_id("f@1")
        .await
        .unwrap();
    let second = users
        .smart_insert(json!({"email": "a@x", "tags": ["b"]}), &["email"])
        .function_id("f@2")
        .await
        .unwrap();
    assert_eq!((first.created, second.created, second.ov), (true, false, 1));
    assert_eq!(first.id, second.id);
    assert_eq!(document(&users, &first.id).await, json!({"email": "a@x", "tags": ["a", "b"]}));
    assert_eq!(
        system(&users, &first.id).await["functionIds"],
        json!(["f@2"]),
        "the creation is not an enrichment"
    );
    let same = users.smart_insert(json!({"email": "a@x"}), &["email"]).await.unwrap();
    assert!(!same.changed && !same.created);
    let other = users.smart_insert(json!({"email": "b@x"}), &["email"]).await.unwrap();
    assert!(other.created && other.id != first.id);
    let typed = users.smart_insert(json!({"email": 1}), &["email"]).await.unwrap();
    let text = users.smart_insert(json!({"email": "1"}), &["email"]).await.unwrap();
    assert!(typed.created && text.created, "1 and \"1\" are two keys");
}

/// N-06.
async fn eight_parallel_inserts_create_one_item(p: &Pairing) {
    let users = p.open().users();
    assert_one_created(&users, &eight(|_| users.clone()).await).await;
}

async fn parallel_inserts_from_two_sides_create_one_item(p: &Pairing) {
    let (one, other) = (p.open().users(), p.open().users());
    let written = eight(|n| if n % 2 == 0 { one.clone() } else { other.clone() }).await;
    assert_one_created(&one, &written).await;
}

async fn an_item_that_was_deleted_before_is_created_anew_once(p: &Pairing) {
    let users = p.open().users();
    let first = users.smart_insert(json!({"email": "a@x"}), &["email"]).await.unwrap();
    for _ in 0..2 {
        let live = users.list().filter(json!({"email": "a@x"})).await.unwrap().items.pop().unwrap();
        users.delete(&live.id).await.unwrap();
        let written = eight(|_| users.clone()).await;
        assert_one_created(&users, &written).await;
        assert_ne!(written[0].id, first.id);
        assert_ne!(written[0].id, live.id);
    }
}

async fn an_item_whose_keys_have_changed_since_is_not_met(p: &Pairing) {
    let users = p.open().users();
    let moved = users.smart_insert(json!({"email": "a@x"}), &["email"]).await.unwrap();
    users.update(&moved.id, json!({"email": "elsewhere@x"})).await.unwrap();
    let written = eight(|_| users.clone()).await;
    assert_one_created(&users, &written).await;
    assert_ne!(written[0].id, moved.id);
    assert_eq!(document(&users, &moved.id).await, json!({"email": "elsewhere@x"}));
}

async fn keys_have_to_be_there_and_indexed(p: &Pairing) {
    let store =
        p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["email", "address.zip"]}}}));
    let users = store.users();
    let both = || {
        users
            .smart_insert(json!({"email": "a@x", "address": {"zip": "1"}, "n": 1}), &["address.zip", "email"])
    };
    let first = both().await.unwrap();
    assert!(first.created);
    assert_eq!(both().await.unwrap().id, first.id);
    assert_eq!(
        refused(users.smart_insert(json!({"email": "a@x", "n": 1}), &["n"]).await),
        ErrorKind::Validation
    );
    assert_eq!(refused(users.smart_insert(json!({"n": 1}), &["email"]).await), ErrorKind::Validation);
    assert_eq!(refused(users.smart_insert(json!({"email": null}), &["email"]).await), ErrorKind::Validation);
    assert_eq!(refused(users.smart_insert(json!({"email": "a@x"}), &[]).await), ErrorKind::Validation);
}

async fn items_that_were_created_otherwise_are_found_too(p: &Pairing) {
    let users = p.open().users();
    let created = users.create(json!({"email": "a@x"})).await.unwrap();
    let inserted = users.smart_insert(json!({"email": "a@x", "n": 1}), &["email"]).await.unwrap();
    assert_eq!((inserted.id, inserted.created, inserted.ov), (created.id, false, 1));
}

async fn a_value_is_not_the_list_that_holds_it(p: &Pairing) {
    let users = p.open().users();
    let list = users.create(json!({"email": ["a@x", "b@x"]})).await.unwrap().id;
    let nested = users.create(json!({"email": [["a@x", "b@x"], "c@x"]})).await.unwrap().id;
    let insert = |email: chronos_db::Json| {
        users.smart_insert(json!({"email": email, "n": 1}), &["email"]).into_future()
    };
    let one = insert(json!("a@x")).await.unwrap();
    assert!(one.created);
    assert_eq!(insert(json!("a@x")).await.unwrap().id, one.id);
    assert_eq!(insert(json!(["a@x", "b@x"])).await.unwrap().id, list, "the whole list is one value, too");
    assert!(insert(json!(["b@x", "a@x"])).await.unwrap().created);
    assert_eq!(document(&users, &nested).await, json!({"email": [["a@x", "b@x"], "c@x"]}));
    let owner =
        |owner: chronos_db::Json| users.smart_insert(json!({"owner": owner}), &["owner.name"]).into_future();
    users.create(json!({"owner": [{"name": "ann"}]})).await.unwrap();
    assert!(owner(json!({"name": "ann"})).await.unwrap().created, "nor is an object the list that holds it");
    assert!(!owner(json!({"name": "ann"})).await.unwrap().created);
}

async fn what_the_index_cannot_hold_is_no_unique_key(p: &Pairing) {
    let users = p.open().users();
    for document in
        [json!({"sku": "x".repeat(70_000)}), json!({"sku": "y".repeat(40_000), "other": "z".repeat(30_000)})]
    {
        let error = users.smart_insert(document, &["sku"]).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Validation && error.message().contains("`sku`"), "{error}");
    }
    assert!(users.list().await.unwrap().items.is_empty());
    let small = users.smart_insert(json!({"sku": "a"}), &["sku"]).await.unwrap().id;
    let grown = users
        .smart_insert(
            json!({"sku": "a", "list": (0..9000).map(|n| n.to_string()).collect::<Vec<_>>()}),
            &["sku"],
        )
        .await;
    assert_eq!(grown.unwrap().id, small, "only what does not fit stays out of the index");
    let weird = users.smart_insert(json!({"$sku": 1}), &["$sku"]).await;
    assert_eq!(refused(weird), ErrorKind::Validation);
}

async fn an_item_that_outgrew_the_index_gets_no_twin(p: &Pairing) {
    let users = p.open().users();
    let key = json!("k".repeat(40_000));
    let item = users.smart_insert(json!({ "sku": key }), &["sku"]).await.unwrap().id;
    users.update(&item, json!({"other": "o".repeat(39_000)})).await.unwrap();
    // The larger property has left the index, and with it the item's key; who knows the item by its claim
    // looks at the document.
    let again = users.smart_insert(json!({ "sku": key }), &["sku"]).await.unwrap();
    assert_eq!((again.id, again.created), (item, false));
    assert_eq!(users.list().await.unwrap().items.len(), 1);
}

/// Every index of the heads, by its first paths.
async fn keys_that_nobody_declared_are_looked_up_by_an_index(p: &Pairing) {
    if !p.kind.is_mongo() {
        // How the embedded store goes about it, its own tests of plans show.
        return;
    }
    let users = p.open().users();
    for n in 0..50 {
        users.create(json!({"email": n.to_string()})).await.unwrap();
    }
    users.smart_insert(json!({"email": "7"}), &["email"]).await.unwrap();
    let uri = p.config(&json!({}))["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let find = bson::doc! { "find": "users_head", "filter": { "metaIndexed.email": "7", "deletedAt": null } };
    let explained = client
        .database(users.database())
        .run_command(bson::doc! { "explain": find, "verbosity": "executionStats" })
        .await
        .unwrap();
    let looked_at = explained.get_document("executionStats").unwrap().get_i32("totalDocsExamined").unwrap();
    assert_eq!(looked_at, 1, "{explained}");
}
