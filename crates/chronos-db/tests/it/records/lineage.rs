//! Where items come from, and what only the library writes.

use chronos_db::json;

use super::pairing::{Pairing, document, on_every_pairing, system};

on_every_pairing!(
    a_chain_of_items_knows_its_parents_and_its_origin,
    lineage_and_functions_survive_every_later_write,
    a_system_property_sent_in_is_ignored,
    system_tells_versions_and_times,
);

/// D-02, G-22.
async fn a_chain_of_items_knows_its_parents_and_its_origin(p: &Pairing) {
    let store = p.open();
    let (raw, processed, enriched) =
        (store.collection("raw"), store.collection("processed"), store.collection("enriched"));
    let first = raw.create(json!({"text": "x"})).await.unwrap().id;
    let second = processed.create(json!({"words": 1})).parent(&first, "raw").await.unwrap().id;
    let third = enriched
        .create(json!({"score": 2}))
        .parent(&second, "processed")
        .origin(first.to_string(), "raw", Some("crm"))
        .await
        .unwrap()
        .id;

    assert!(system(&raw, &first).await.get("parentId").is_none());
    let of_second = system(&processed, &second).await;
    assert_eq!(
        (&of_second["parentId"], &of_second["parentCollection"]),
        (&json!(first.to_string()), &json!("raw"))
    );
    assert_eq!(
        (&of_second["originId"], &of_second["originCollection"]),
        (&json!(first.to_string()), &json!("raw"))
    );
    let of_third = system(&enriched, &third).await;
    assert_eq!(
        (&of_third["parentId"], &of_third["parentCollection"]),
        (&json!(second.to_string()), &json!("processed"))
    );
    assert_eq!(
        (&of_third["originId"], &of_third["originCollection"]),
        (&json!(first.to_string()), &json!("crm:raw"))
    );
}

/// N-13, G-45, G-46.
async fn lineage_and_functions_survive_every_later_write(p: &Pairing) {
    let users = p.open().users();
    let parent = users.create(json!({})).await.unwrap().id;
    let id = users.create(json!({"n": 0})).parent(&parent, "users").await.unwrap().id;
    users.enrich(&id, json!({"m": 1})).function_id("f@v1").await.unwrap();
    let kept = |at: &'static str, system: chronos_db::Json| {
        assert_eq!(system["parentId"], json!(parent.to_string()), "{at}");
        assert_eq!(system["originCollection"], json!("users"), "{at}");
        assert_eq!(system["functionIds"], json!(["f@v1"]), "{at}");
    };
    kept("enrich", system(&users, &id).await);
    users.update(&id, json!({"n": 1})).await.unwrap();
    kept("update", system(&users, &id).await);
    users.replace(&id, json!({"n": 2})).await.unwrap();
    kept("replace", system(&users, &id).await);
    users.delete(&id).await.unwrap();
    kept("delete", system(&users, &id).await);
    users.restore(&id).to_version(1).await.unwrap();
    kept("restore", system(&users, &id).await);
    users.restore_collection().to_cv(1).await.unwrap();
    kept("restore of the collection", system(&users, &id).await);
    let first = users.get(&id).version(0).await.unwrap().unwrap();
    assert_eq!(first.item["_system"]["functionIds"], json!([]), "the past stays as it was");
}

/// N-13.
async fn a_system_property_sent_in_is_ignored(p: &Pairing) {
    let users = p.open().users();
    let forged = json!({"ov": 99, "parentId": "forged", "deleted": true, "functionIds": ["forged"], "state": "processed"});
    let id = users.create(json!({"a": 1, "_system": forged})).await.unwrap().id;
    users.update(&id, json!({"a": 2, "_system": forged})).await.unwrap();
    users.enrich(&id, json!({"b": 1, "_system": forged})).await.unwrap();
    let whole = users.get(&id).await.unwrap().unwrap();
    users.replace(&id, json!({"c": 1, "_system": whole.item["_system"]})).await.unwrap();
    let system = system(&users, &id).await;
    assert_eq!(
        (&system["ov"], system.get("parentId"), &system["deleted"], &system["functionIds"]),
        (&json!(3), None, &json!(false), &json!([]))
    );
    assert_eq!(document(&users, &id).await, json!({"c": 1}));
    let unchanged = users.update(&id, json!({"_system": forged})).await.unwrap();
    assert!(!unchanged.changed);
}

async fn system_tells_versions_and_times(p: &Pairing) {
    let users = p.open().users();
    let created = users.create(json!({"n": 0})).await.unwrap();
    let updated = users.update(&created.id, json!({"n": 1})).ack_stored().await.unwrap();
    let expected = json!({
        "ov": 1, "cv": 1, "insertedAt": created.at.to_string(), "updatedAt": updated.at.to_string(), "deletedAt": null, "deleted": false,
        "functionIds": [], "state": "new",
    });
    assert_eq!(system(&users, &created.id).await, expected);
    let deleted = users.delete(&created.id).await.unwrap();
    let system = system(&users, &created.id).await;
    assert_eq!(
        (&system["deletedAt"], &system["deleted"], &system["ov"]),
        (&json!(deleted.at.to_string()), &json!(true), &json!(2))
    );
    let listed = users.list().include_deleted().await.unwrap();
    assert_eq!(listed.items[0].item["_system"], system, "a list tells the same");
}
