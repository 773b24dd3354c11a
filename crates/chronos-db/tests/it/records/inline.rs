//! Inline records: whole in the document store, in their latest state alone, each of one tenant.

use std::time::Duration;

use bson::Document;
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::{Collection, EntityMapping, Error, ErrorKind, Json, Result, Route, Timestamp, json};
use futures::TryStreamExt as _;
use test_support::{Counting, documents, objects};

use super::pairing::{
    Pairing, Store, TIMEOUT, document, namespace, on_durable_pairings, on_every_pairing, refused,
};

mod alone {
    super::on_every_pairing!(
        an_inline_record_is_whole_in_its_head_and_leaves_no_versions,
        the_past_of_inline_records_is_refused,
        documents_say_their_tenant_and_no_other,
        a_filter_by_the_tenant_finds_nothing_of_another,
        without_a_tenant_nothing_is_answered_unless_all_are_meant,
        identities_work_as_their_documentation_shows,
        a_head_that_a_crash_left_behind_gets_its_payload_back,
        a_payload_that_was_changed_is_an_error_and_verify_finds_it,
        reading_and_writing_cost_the_same_beside_one_record_and_a_hundred,
        an_erased_record_leaves_nothing_in_its_head,
        records_beside_others_with_versions_keep_theirs,
        logs_without_object_storage_are_inline_too,
        a_storage_that_comes_or_goes_takes_no_record_along,
        what_each_tenant_has_is_counted_before_it_is_trimmed,
        an_entity_may_be_an_inline_record,
        a_handle_for_all_tenants_finds_keys_within_the_tenant_of_the_document,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(writers_of_two_sides_lose_no_change_of_an_inline_record);
    use super::*;
}

fn users(store: &Store, tenant: &str) -> Collection {
    store.with(Route::identities().tenant(tenant).collection("users"))
}

fn everybody(store: &Store) -> Collection {
    store.with(Route::identities().cross_tenant().collection("users"))
}

/// That an error says that there are no versions to ask for.
fn no_past<T: std::fmt::Debug>(result: Result<T>) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
    assert!(error.message().contains("no versions are kept"), "{error}");
}

async fn an_inline_record_is_whole_in_its_head_and_leaves_no_versions(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = users(&store, "acme");
    let ada = Json::parse(r#"{"email": "ada@example.org", "tries": 0.50}"#).unwrap();
    let made = users.create(ada).await.unwrap();
    let updated = users.update(&made.id, json!({"status": "blocked"})).expect_ov(0).await.unwrap();
    assert_eq!((made.ov, updated.ov), (0, 1));
    let stale = users.update(&made.id, json!({"status": "x"})).expect_ov(0).await;
    assert_eq!(refused(stale), ErrorKind::OptimisticLock);
    let whole = r#"{"email": "ada@example.org", "tries": 0.50, "status": "blocked", "tenantId": "acme"}"#;
    let whole = Json::parse(whole).unwrap();
    let gone = users.create(json!({"email": "bob@example.org"})).await.unwrap().id;
    users.delete(&gone).await.unwrap();

    assert_eq!(users.trim(Duration::ZERO).await.unwrap(), 4);
    assert_eq!(store.stored(&users, "ver").await, Vec::<Document>::new(), "no row is needed any more");
    let head = store.head(&users, &made.id).await;
    let bytes = head.get_binary_generic("payload").unwrap();
    assert_eq!(Json::parse(std::str::from_utf8(bytes).unwrap()).unwrap()["status"], "blocked");
    assert!(std::str::from_utf8(bytes).unwrap().contains("0.50"), "numbers stay as they were written");
    assert_eq!(document(&users, &made.id).await, whole);
    let deleted = users.get(&gone).include_deleted().await.unwrap().unwrap();
    assert_eq!(deleted.document()["email"], "bob@example.org");
    let listed = users.list().filter(json!({"status": "blocked"})).await.unwrap().items;
    assert_eq!(listed.iter().map(|view| view.document()).collect::<Vec<_>>(), [whole]);

    // It is written on from its head alone.
    let enriched = users.enrich(&made.id, json!({"roles": ["admin"]})).expect_ov(1).await.unwrap();
    assert_eq!(enriched.ov, 2);
    assert!(!users.update(&made.id, json!({"status": "blocked"})).await.unwrap().changed);
    let found = users.smart_insert(json!({"email": "ada@example.org", "n": 1}), &["email"]).await.unwrap();
    assert_eq!((found.created, found.id), (false, made.id));
    assert_eq!(users.replace(&made.id, json!({"email": "eve@example.org"})).await.unwrap().ov, 4);
    assert_eq!(
        document(&users, &made.id).await,
        json!({"email": "eve@example.org", "tenantId": "acme"}),
        "a replaced document says its tenant, too"
    );
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0, "nothing waits for an object storage");
}

async fn the_past_of_inline_records_is_refused(p: &Pairing) {
    let store = p.open();
    let users = users(&store, "acme");
    let made = users.create(json!({"n": 0})).await.unwrap();
    let now = users.update(&made.id, json!({"n": 1})).await.unwrap();
    let then = Timestamp::from_millis(1_700_000_000_000);
    for ov in [0, 1, 7] {
        no_past(users.get(&made.id).version(ov).await);
        no_past(users.restore(&made.id).to_version(ov).await);
    }
    for at in [then, now.at] {
        no_past(users.get(&made.id).as_of(at).await);
        no_past(users.list().as_of(at).await);
        no_past(users.list().as_of(at).stream().await.map(drop));
        no_past(users.restore(&made.id).to_time(at).await);
        no_past(users.restore_collection().to_time(at).await);
    }
    no_past(users.get(&made.id).as_of_cv(now.cv).await);
    no_past(users.list().as_of_cv(now.cv).await);
    no_past(users.history(&made.id).await);
    no_past(users.restore_collection().to_cv(0).dry_run().await);
    assert_eq!(document(&users, &made.id).await["n"], json!(1), "nothing has happened");
}

async fn documents_say_their_tenant_and_no_other(p: &Pairing) {
    let store = p.open();
    let logs = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    for (acme, globex) in [(users(&store, "acme"), users(&store, "globex")), (logs("acme"), logs("globex"))] {
        let id = acme.create(json!({"n": 0})).await.unwrap().id;
        assert_eq!(document(&acme, &id).await, json!({"n": 0, "tenantId": "acme"}));
        for wrong in [json!({"tenantId": "globex"}), json!({"tenantId": 5}), json!({"tenantId": ""})] {
            for error in [
                refused(acme.create(wrong.clone()).await),
                refused(acme.update(&id, wrong.clone()).await),
                refused(acme.replace(&id, wrong.clone()).await),
                refused(acme.replace(&id, wrong.clone()).force().await),
                refused(acme.enrich(&id, wrong.clone()).await),
            ] {
                assert_eq!(error, ErrorKind::Validation, "{wrong}");
            }
        }
        // To say what is so, or nothing, changes nothing.
        assert!(!acme.update(&id, json!({"tenantId": "acme"})).await.unwrap().changed);
        assert!(!acme.update(&id, json!({"tenantId": null})).await.unwrap().changed);
        assert!(!acme.replace(&id, json!({"n": 0})).await.unwrap().changed);
        assert_eq!(refused(globex.update(&id, json!({"n": 1})).await), ErrorKind::NotFound);
        assert!(globex.list().await.unwrap().items.is_empty());
        assert_eq!(document(&acme, &id).await, json!({"n": 0, "tenantId": "acme"}));
    }
}

async fn a_filter_by_the_tenant_finds_nothing_of_another(p: &Pairing) {
    let declared = json!({"collectionMaps": {"users": {"indexedProps": ["status"]}}});
    for more in [json!({}), declared] {
        let store = p.open_with(&more);
        let (acme, globex, all) = (users(&store, "acme"), users(&store, "globex"), everybody(&store));
        acme.create(json!({"status": "active"})).await.unwrap();
        globex.create(json!({"status": "active"})).await.unwrap();
        let found = async |of: &Collection, tenant: &str| {
            let filter = json!({"tenantId": tenant, "status": "active"});
            let items = of.list().filter(filter).await.unwrap().items;
            items.iter().map(|view| view.item["tenantId"].clone()).collect::<Vec<_>>()
        };
        let own = acme.list().filter(json!({"tenantId": "acme"})).await.unwrap().items.len();
        assert_eq!(found(&acme, "acme").await.len(), own);
        assert_eq!(found(&acme, "globex").await, Vec::<Json>::new());
        assert!(found(&all, "globex").await.iter().all(|tenant| tenant == "globex"));
        let sneaky =
            acme.list().filter(json!({"$or": [{"tenantId": "globex"}, {"tenantId": {"$ne": "acme"}}]}));
        assert!(sneaky.await.unwrap().items.is_empty());
        let sorted = all.list().sort("tenantId", chronos_db::documents::Direction::Descending).await.unwrap();
        assert_eq!(sorted.items[0].item["tenantId"], "globex");
    }
}

async fn without_a_tenant_nothing_is_answered_unless_all_are_meant(p: &Pairing) {
    let store = p.open();
    for route in [Route::identities(), Route::logs()] {
        let own = store.with(route.clone().tenant("acme").collection("users"));
        let id = own.create(json!({"n": 0})).await.unwrap().id;
        let nobody = store.with(route.clone().collection("users"));
        let wrong = ErrorKind::Validation;
        assert_eq!(refused(nobody.list().await), wrong);
        assert_eq!(refused(nobody.list().filter(json!({"tenantId": "acme"})).await), wrong);
        assert_eq!(refused(nobody.list().stream().await.map(drop)), wrong);
        assert_eq!(refused(nobody.get(&id).await), wrong);
        assert_eq!(refused(nobody.create(json!({"tenantId": "acme"})).await), wrong);
        assert_eq!(refused(nobody.update(&id, json!({"n": 1})).await), wrong);
        assert_eq!(refused(nobody.delete(&id).await), wrong);
        assert_eq!(refused(nobody.history(&id).await), wrong);
        assert_eq!(refused(nobody.lock(&id).await.map(drop)), wrong);
        let error = nobody.list().await.unwrap_err();
        assert!(error.message().contains("crossTenant"), "{error}");
        // What keeps the store in order is for all.
        assert_eq!(nobody.flush(TIMEOUT).await.unwrap(), 0);
        assert!(nobody.verify().await.unwrap().is_clean());
        nobody.trim(Duration::ZERO).await.unwrap();

        let all = store.with(route.clone().cross_tenant().collection("users"));
        assert_eq!(all.list().await.unwrap().items.len(), 1);
        assert_eq!(all.get(&id).await.unwrap().unwrap().item["tenantId"], "acme");
        let both = route.tenant("acme").cross_tenant().collection("users");
        assert_eq!(refused(store.chronos.with(both)), wrong);
    }
    let elsewhere = Route::runtime().tenant("acme").cross_tenant().collection("users");
    assert_eq!(refused(store.chronos.with(elsewhere)), ErrorKind::Validation);
}

/// D-16: the sample of the documentation, with documents that say their tenant.
async fn identities_work_as_their_documentation_shows(p: &Pairing) {
    let store = p.open();
    let (all, acme) = (everybody(&store), users(&store, "acme-corp"));
    let john = json!({
        "tenantId": "acme-corp", "email": "john@acme.com", "passwordHash": "...", "name": "John Doe",
        "roles": ["admin"], "status": "active",
    });
    let user = all.create(john).actor("system").reason("user-registration").await.unwrap();
    all.create(json!({"tenantId": "other", "email": "john@other.com", "status": "active"})).await.unwrap();
    let found = all.list().filter(json!({"tenantId": "acme-corp", "status": "active"})).await.unwrap();
    assert_eq!(found.items.iter().map(|view| view.id).collect::<Vec<_>>(), [user.id]);
    let updated = all.update(&user.id, json!({"name": "John Smith"})).expect_ov(user.ov).actor("admin");
    assert_eq!(updated.await.unwrap().ov, 1);
    // Its tenant sees it, and no other does.
    assert_eq!(document(&acme, &user.id).await["name"], "John Smith");
    assert_eq!(users(&store, "other").get(&user.id).await.unwrap(), None);
    assert_eq!(refused(all.update(&user.id, json!({"tenantId": "other"})).await), ErrorKind::Validation);
}

async fn a_head_that_a_crash_left_behind_gets_its_payload_back(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = users(&store, "acme");
    let put_back = async |head: &Document| {
        let mut batch = Batch::new();
        batch.push(&namespace(&users, "head"), Write::put(head.clone(), Guard::Any));
        store.documents().apply(batch).await.unwrap();
    };
    // The row of a creation alone.
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let first = store.head(&users, &id).await;
    let mut batch = Batch::new();
    batch.push(
        &namespace(&users, "head"),
        Write::Delete { id: first.get("_id").unwrap().clone(), guard: Guard::Any },
    );
    store.documents().apply(batch).await.unwrap();
    assert_eq!(document(&users, &id).await["n"], json!(0));
    assert_eq!(store.head(&users, &id).await, first, "the head that was put is the one that was lost");
    // The row of an update.
    users.update(&id, json!({"n": 1})).await.unwrap();
    let second = store.head(&users, &id).await;
    put_back(&first).await;
    assert_eq!(users.update(&id, json!({"n": 2})).await.unwrap().ov, 2);
    assert_eq!(document(&users, &id).await["n"], json!(2));
    assert!(second.get("payload").is_some());
    // The row of a deletion, whose payload is in the head alone by then.
    users.trim(Duration::ZERO).await.unwrap();
    let live = store.head(&users, &id).await;
    users.delete(&id).await.unwrap();
    put_back(&live).await;
    users.trim(Duration::ZERO).await.unwrap();
    assert_eq!(refused(users.delete(&id).await), ErrorKind::NotFound, "it is deleted");
    assert!(users.verify().repair().await.unwrap().is_clean());
    users.trim(Duration::ZERO).await.unwrap();
    let deleted = users.get(&id).include_deleted().await.unwrap().unwrap();
    assert_eq!((deleted.document()["n"].clone(), deleted.ov), (json!(2), 3));
}

async fn a_payload_that_was_changed_is_an_error_and_verify_finds_it(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = users(&store, "acme");
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.trim(Duration::ZERO).await.unwrap();
    let whole = store.head(&users, &id).await;
    for (payload, problem) in [(Some(b"{\"n\": 7}".to_vec()), "damaged-payload"), (None, "missing-payload")] {
        let mut head = whole.clone();
        head.remove("payload");
        if let Some(bytes) = payload {
            let subtype = bson::spec::BinarySubtype::Generic;
            head.insert("payload", bson::Binary { subtype, bytes });
        }
        store.put(&users, "head", head).await;
        assert_eq!(refused(users.get(&id).await), ErrorKind::Storage);
        let found = users.verify().await.unwrap();
        assert_eq!(found.problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [problem]);
    }
    store.put(&users, "head", whole).await;
    assert!(users.verify().await.unwrap().is_clean());
}

/// Counted at the seams.
async fn reading_and_writing_cost_the_same_beside_one_record_and_a_hundred(p: &Pairing) {
    let (calls, puts) = (Counting::<documents::Call>::new(), Counting::<objects::Call>::new());
    let store = p.opening().without_cache().documents(&calls).objects(&puts).open();
    let users = users(&store, "acme");
    let mut seen = Vec::new();
    for size in [1, 100] {
        let mut id = None;
        while users.list().limit(1000).await.unwrap().items.len() < size {
            id = Some(users.create(json!({"n": size})).await.unwrap().id);
        }
        let id = id.unwrap();
        calls.take();
        users.get(&id).await.unwrap().unwrap();
        let read = calls.take();
        users.list().filter(json!({"_id": id.to_string()})).await.unwrap();
        let listed = calls.take();
        users.update(&id, json!({"m": size})).await.unwrap();
        let written = calls.count(documents::Call::SequenceThen);
        seen.push((read, listed, written));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!((&seen[0].0, seen[0].2), (&vec![(documents::Call::Get, 1)], 1), "one head, one batch");
    assert!(puts.take().is_empty(), "no object storage is ever asked");
}

async fn an_erased_record_leaves_nothing_in_its_head(p: &Pairing) {
    let store = p.open_with(&json!({"logicalDelete": {"enabled": false}}));
    let users = users(&store, "acme");
    let id = users.create(json!({"secret": "hunter2"})).await.unwrap().id;
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let head = store.head(&users, &id).await;
    assert!(head.get("payload").is_none() && !format!("{head}").contains("hunter2"), "{head}");
    assert!(store.stored(&users, "ver").await.iter().all(|row| row.get("inline").is_none()));
}

/// Else what is superseded of the others would go with what is superseded of the identities.
async fn records_beside_others_with_versions_keep_theirs(p: &Pairing) {
    let mut databases = p.config(&json!({}))["databases"].clone();
    databases["identities"]["dbName"] = p.common_database().into();
    let store = p.open_with(&json!({ "databases": databases }));
    let (identities, runtime) = (users(&store, "acme"), store.collection("orders"));
    let id = identities.create(json!({"n": 0})).await.unwrap().id;
    identities.update(&id, json!({"n": 1})).await.unwrap();
    let other = runtime.create(json!({"n": 0})).await.unwrap().id;
    runtime.update(&other, json!({"n": 1})).await.unwrap();
    assert_eq!(everybody(&store).trim(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(identities.get(&id).version(0).await.unwrap().unwrap().document()["n"], json!(0));
    assert_eq!(runtime.get(&other).version(0).await.unwrap().unwrap().document()["n"], json!(0));
}

/// The same configuration without any object storage.
fn without_storage(mut config: Json) -> Json {
    config["localStorage"] = Json::Null;
    config["spacesConnections"] = json!({});
    for entry in ["/logs", "/identities"] {
        config["databases"][&entry[1..]].as_object_mut().unwrap().remove("spaceConnRef");
    }
    for tenant in config["databases"]["runtime"]["tenantDatabases"].as_array_mut().unwrap() {
        tenant.as_object_mut().unwrap().remove("spaceConnRef");
    }
    config
}

async fn logs_without_object_storage_are_inline_too(p: &Pairing) {
    let config = p.config(&json!({}));
    let with = p.open().with(Route::logs().tenant("acme").collection("audit"));
    let id = with.create(json!({"n": 0})).await.unwrap().id;
    with.update(&id, json!({"n": 1})).await.unwrap();
    assert_eq!(with.get(&id).version(0).await.unwrap().unwrap().document()["n"], json!(0));

    let store = p.opening().configured(&without_storage(config)).open();
    let events = store.with(Route::logs().tenant("acme").collection("events"));
    let id = events.create(json!({"n": 0})).await.unwrap().id;
    no_past(events.get(&id).version(0).await);
    events.trim(Duration::ZERO).await.unwrap();
    assert_eq!(document(&events, &id).await, json!({"n": 0, "tenantId": "acme"}));
}

async fn an_entity_may_be_an_inline_record(p: &Pairing) {
    let store = p.open();
    let mapping = || {
        let user = EntityMapping::new("user", "users", "email");
        [user.database_type(chronos_db::config::DatabaseType::Identities)]
    };
    let orders = store.collection("orders");
    let order = json!({"n": 1, "user": {"email": "ada@example.org"}});
    let inserted = orders.insert_with_entities(order, mapping()).await.unwrap();
    let id = inserted.entities[0].id;
    assert_eq!(document(&users(&store, "acme"), &id).await["tenantId"], "acme");
    let again = json!({"n": 2, "user": {"email": "ada@example.org", "name": "Ada"}});
    let again = orders.insert_with_entities(again, mapping()).await.unwrap();
    assert_eq!((again.entities[0].id, again.entities[0].operation.name()), (id, "updated"));
    let found = orders.get_with_entities(&again.record.id, mapping()).await.unwrap();
    assert_eq!(found.entities[0].1.as_ref().unwrap().item["name"], "Ada");
}

async fn a_handle_for_all_tenants_finds_keys_within_the_tenant_of_the_document(p: &Pairing) {
    let store = p.open();
    let all = everybody(&store);
    let mapping = || [EntityMapping::new("account", "accounts", "name")];
    let user = |tenant: &str, n: u32| json!({"tenantId": tenant, "email": "x@y", "n": n, "account": {"name": "main", "of": tenant}});
    let mut seen = Vec::new();
    for tenant in ["acme", "globex"] {
        let made = all.smart_insert(user(tenant, 1), &["email"]).await.unwrap();
        assert!(made.created, "{tenant} has no such user yet");
        // It is the one that the tenant's own handle finds, and the other way round.
        let own =
            users(&store, tenant).smart_insert(json!({"email": "x@y", "n": 2}), &["email"]).await.unwrap();
        assert_eq!((own.id, own.created), (made.id, false));
        let again = all.smart_insert(user(tenant, 3), &["email"]).await.unwrap();
        assert_eq!((again.id, again.created), (made.id, false));

        let inserted = all.insert_with_entities(user(tenant, 4), mapping()).await.unwrap();
        assert_eq!(inserted.entities[0].operation.name(), "created");
        let again = all.insert_with_entities(user(tenant, 5), mapping()).await.unwrap();
        assert_eq!(
            (again.entities[0].id, again.entities[0].operation.name()),
            (inserted.entities[0].id, "unchanged")
        );
        let accounts = store.with(Route::identities().tenant(tenant).collection("accounts"));
        assert_eq!(document(&accounts, &inserted.entities[0].id).await["of"], tenant);
        let found = all.get_with_entities(&again.record.id, mapping()).await.unwrap();
        assert_eq!(found.entities[0].1.as_ref().unwrap().item["of"], tenant);
        seen.push((made.id, inserted.entities[0].id));
    }
    assert!(seen[0].0 != seen[1].0 && seen[0].1 != seen[1].1, "{seen:?}");

    // Without a tenant, nobody's keys are meant.
    let nobodys = json!({"email": "x@y", "account": {"name": "main"}});
    let before = all.list().limit(1000).await.unwrap().items.len();
    for error in [
        all.smart_insert(nobodys.clone(), &["email"]).await.unwrap_err(),
        all.insert_with_entities(nobodys, mapping()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().contains("tenantId"), "{error}");
    }
    assert_eq!(all.list().limit(1000).await.unwrap().items.len(), before);
}

async fn writers_of_two_sides_lose_no_change_of_an_inline_record(p: &Pairing) {
    let sides = [p.open(), p.open()];
    let sides = [users(&sides[0], "acme"), users(&sides[1], "acme")];
    let id = sides[0].create(json!({})).await.unwrap().id;
    let writes = (0..24).map(|n| {
        let mut change = json!({});
        change[format!("w{n}").as_str()] = n.into();
        sides[n % 2].update(&id, change).into_future()
    });
    let written = futures::future::try_join_all(writes).await.unwrap();
    let mut ovs: Vec<i64> = written.iter().map(|written| written.ov).collect();
    ovs.sort_unstable();
    assert_eq!(ovs, (1..=24).collect::<Vec<_>>());
    let all = document(&sides[1], &id).await;
    assert!((0..24).all(|n| all[format!("w{n}").as_str()] == n), "{all}");
    let listed: Vec<_> = sides[0].list().stream().await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
}

async fn a_storage_that_comes_or_goes_takes_no_record_along(p: &Pairing) {
    let more = json!({"logicalDelete": {"enabled": false}});
    let config = p.config(&more);
    let audit = |store: &Store| store.with(Route::logs().tenant("acme").collection("audit"));
    let events = |store: &Store| store.with(Route::logs().tenant("acme").collection("events"));

    // With versions in a storage, which is not configured any more: nothing of them goes.
    let kept = p.opening().configured(&config).open();
    let id = audit(&kept).create(json!({"n": 0})).await.unwrap().id;
    audit(&kept).update(&id, json!({"n": 1})).await.unwrap();
    assert_eq!(audit(&kept).flush(TIMEOUT).await.unwrap(), 0);
    let without = p.opening().configured(&without_storage(config.clone())).open();
    assert_eq!(audit(&without).trim(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(audit(&kept).get(&id).version(0).await.unwrap().unwrap().document()["n"], json!(0));

    // Without versions, and then a storage is configured: no head is taken for one that never was.
    let gone = events(&without).create(json!({"n": 5})).await.unwrap().id;
    events(&without).delete(&gone).await.unwrap();
    let id = events(&without).create(json!({"n": 6})).await.unwrap().id;
    events(&without).trim(Duration::ZERO).await.unwrap();
    let head = without.head(&events(&without), &id).await;
    let found = events(&kept).verify().repair().await.unwrap();
    assert_eq!(found.repaired, 0, "{:?}", found.problems);
    assert_eq!(without.head(&events(&without), &id).await, head);
    assert_eq!(document(&events(&without), &id).await["n"], json!(6));
    assert!(events(&without).verify().await.unwrap().is_clean());
    // Without the storage the payloads of the first are out of reach, and with it those of the second.
    [kept, without].iter().for_each(Store::is_damaged);
}

async fn what_each_tenant_has_is_counted_before_it_is_trimmed(p: &Pairing) {
    let store = p.open();
    let (acme, globex, all) = (users(&store, "acme"), users(&store, "globex"), everybody(&store));
    let id = acme.create(json!({"n": 0})).await.unwrap().id;
    acme.update(&id, json!({"n": 1})).await.unwrap();
    globex.create(json!({"n": 2})).await.unwrap();
    let counts = async |users: &Collection| {
        let totals = users.counters().totals().await.unwrap().to_json();
        (totals["created"].clone(), totals["updated"].clone())
    };

    assert_eq!(all.trim(Duration::ZERO).await.unwrap(), 3);
    assert_eq!(counts(&acme).await, (json!(1), json!(1)));
    assert_eq!(counts(&globex).await, (json!(1), json!(0)));

    acme.create(json!({"n": 3})).await.unwrap();
    assert_eq!(acme.trim(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(counts(&all).await, (json!(3), json!(1)));
    assert_eq!(store.stored(&all, "ver").await, Vec::<Document>::new());
}
