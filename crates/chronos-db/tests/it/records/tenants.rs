//! Tenants apart, databases shared, settings of one `Chronos` only.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::Config;
use chronos_db::json;
use chronos_db::{Chronos, Collection, ErrorKind, Json, Route};
use test_support::{Failing, Fault, objects};

use super::pairing::{
    Kind, Pairing, Store, TIMEOUT, column, document, on_durable_pairings, on_every_pairing, refused, system,
};

on_every_pairing!(
    an_item_of_one_tenant_does_not_exist_for_another,
    in_a_shared_database_every_read_and_write_is_forced_to_its_tenant,
    a_collection_of_a_shared_database_is_restored_for_one_tenant,
    unique_keys_of_tenants_in_a_shared_database_do_not_meet,
    without_object_storage_payloads_stay_in_their_rows,
    two_chronos_in_one_process_have_their_own_collection_maps,
    names_that_could_escape_are_refused,
    verification_counts_what_is_the_tenants_alone,
    a_lock_of_another_tenant_is_neither_waited_for_nor_shown,
    one_tenants_locks_hold_up_no_other,
    what_has_no_tenant_gets_one_once,
    a_document_cannot_give_its_item_to_another_tenant,
    a_tenants_own_database_shows_what_was_written_before_there_were_tenants,
    a_collection_exists_for_whom_it_holds_something,
);

mod durable {
    super::on_durable_pairings!(
        what_one_tenant_left_to_store_goes_to_its_own_place,
        one_store_under_two_names_is_shared,
        a_database_named_by_contexts_is_not_a_tenants_own
    );
    use super::*;
}

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
    assert_eq!(
        refused(store.chronos.with(Route::runtime().tenant("initech").collection("users"))),
        ErrorKind::RouteNotFound
    );
    assert_eq!(refused(store.chronos.with(Route::runtime().collection("users"))), ErrorKind::RouteNotFound);
}

/// Rule 10.
async fn in_a_shared_database_every_read_and_write_is_forced_to_its_tenant(p: &Pairing) {
    let store = p.open();
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    let (acme, globex, all) =
        (of("acme"), of("globex"), store.with(Route::logs().cross_tenant().collection("audit")));
    assert_eq!(refused(acme.create(json!({"n": 1, "tenantId": "globex"})).await), ErrorKind::Validation);
    let mine = acme.create(json!({"n": 1})).await.unwrap();
    acme.update(&mine.id, json!({"n": 2})).await.unwrap();
    let theirs = globex.create(json!({"n": 1})).await.unwrap();

    assert_eq!(document(&acme, &mine.id).await["n"], json!(2));
    assert_eq!(globex.get(&mine.id).await.unwrap(), None, "it is another tenant's");
    assert_eq!(globex.get(&mine.id).version(0).await.unwrap(), None);
    assert_eq!(globex.get(&mine.id).as_of_cv(2).await.unwrap(), None);
    assert_eq!(refused(globex.history(&mine.id).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.update(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.replace(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.enrich(&mine.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.delete(&mine.id).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.restore(&mine.id).to_version(0).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.lock(&mine.id).await), ErrorKind::NotFound);
    for list in
        [globex.list(), globex.list().as_of_cv(2), globex.list().filter(json!({"$or": [{"n": 1}, {"n": 2}]}))]
    {
        let items = list.include_deleted().await.unwrap().items;
        assert_eq!(items.iter().map(|view| view.id).collect::<Vec<_>>(), [theirs.id]);
    }
    assert_eq!(all.list().await.unwrap().items.len(), 2, "if all are meant, all are seen");
    for row in store.stored(&acme, "ver").await.iter().chain(&store.stored(&acme, "head").await) {
        let owner = if row.get_object_id("itemId").unwrap().to_hex() == mine.id.to_string() {
            "acme"
        } else {
            "globex"
        };
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
    assert_eq!(
        (document(&acme, &mine).await, document(&globex, &theirs).await),
        (json!({"n": 0, "tenantId": "acme"}), json!({"n": 1, "tenantId": "globex"}))
    );
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
    let mut config = p.config(&json!({}));
    config["localStorage"] = Json::Null;
    config["databases"]["runtime"]["tenantDatabases"][0].as_object_mut().unwrap().remove("spaceConnRef");
    let store = p.opening().configured(&config).without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.delete(&id).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0, "nothing waits");
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

/// The logs of two tenants, in one database.
fn logs(store: &Store) -> (Collection, Collection) {
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    (of("acme"), of("globex"))
}

async fn verification_counts_what_is_the_tenants_alone(p: &Pairing) {
    let store = p.open();
    let (acme, globex) = logs(&store);
    for n in 0..5 {
        let id = acme.create(json!({ "n": n })).await.unwrap().id;
        acme.update(&id, json!({"m": 1})).await.unwrap();
    }
    let gone = globex.create(json!({"n": 0})).await.unwrap().id;
    globex.create(json!({"n": 1})).await.unwrap();
    globex.delete(&gone).await.unwrap();
    for (tenant, counts) in [
        (&acme, (10, 5, 5)),
        (&globex, (3, 2, 1)),
        (&store.with(Route::logs().tenant("new").collection("audit")), (0, 0, 0)),
    ] {
        for verify in [tenant.verify(), tenant.verify().repair()] {
            let found = verify.await.unwrap();
            assert_eq!((found.versions, found.items, found.live), counts);
            assert!(found.is_clean() && found.checked <= counts.0, "{:#}", found.to_json());
        }
    }
    let all = store.with(Route::logs().cross_tenant().collection("audit")).verify().await.unwrap();
    assert_eq!((all.versions, all.items, all.live), (13, 7, 6));
}

async fn a_lock_of_another_tenant_is_neither_waited_for_nor_shown(p: &Pairing) {
    let (acme, globex) = logs(&p.open());
    let id = acme.create(json!({"n": 0})).await.unwrap().id;
    let lock = acme.lock(&id).await.unwrap();
    assert_eq!(refused(acme.lock(&id).wait(Duration::ZERO).await), ErrorKind::Locked);
    assert_eq!(refused(globex.lock(&id).wait(Duration::ZERO).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.update(&id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(globex.delete(&id).with_lock(&lock).await), ErrorKind::NotFound);
    acme.update(&id, json!({"n": 2})).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(document(&acme, &id).await, json!({"n": 2, "tenantId": "acme"}));
}

/// A refused attempt leaves no lease behind.
async fn one_tenants_locks_hold_up_no_other(p: &Pairing) {
    let store = p.open();
    let (acme, globex) = logs(&store);
    let id = acme.create(json!({"n": 0})).await.unwrap().id;
    assert_eq!(refused(globex.lock(&id).await), ErrorKind::NotFound);
    assert_eq!(store.stored(&acme, "locks").await, []);
    let lock = acme.lock(&id).wait(Duration::ZERO).await.unwrap();
    assert_eq!(store.stored(&acme, "locks").await[0].get_str("tenantId").unwrap(), "acme");
    lock.release().await.unwrap();
}

async fn a_document_cannot_give_its_item_to_another_tenant(p: &Pairing) {
    let store = p.open();
    let audit = |route: Route| store.with(route.collection("audit"));
    let all = audit(Route::logs().cross_tenant());
    let nobodys = all.create(json!({"n": 1})).await.unwrap().id;
    let globex = all.create(json!({"n": 1, "tenantId": "globex"})).await.unwrap().id;
    for id in [&nobodys, &globex] {
        let theirs = json!({"n": 2, "tenantId": "acme"});
        for refusal in [
            refused(all.update(id, theirs.clone()).await),
            refused(all.replace(id, theirs.clone()).await),
            refused(all.replace(id, theirs.clone()).force().await),
            refused(all.enrich(id, json!({"tenantId": "acme"})).await),
        ] {
            assert_eq!(refusal, ErrorKind::Validation);
        }
    }
    all.update(&nobodys, json!({"n": 2, "tenantId": null})).await.unwrap();
    all.update(&globex, json!({"n": 2, "tenantId": "globex"})).await.unwrap();
    assert_eq!(audit(Route::logs().tenant("acme")).list().await.unwrap().items.len(), 0);
    assert_eq!(audit(Route::logs().tenant("globex")).get(&globex).await.unwrap().unwrap().ov, 1);
    assert!(audit(Route::logs().tenant("globex")).get(&nobodys).await.unwrap().is_none());
}

async fn what_has_no_tenant_gets_one_once(p: &Pairing) {
    let store = p.opening().configured(&p.version_1(&json!({}))).open();
    let route = || Route::default().database(p.common_database()).collection("people");
    let (nobody, acme, globex) =
        (store.with(route()), store.with(route().tenant("acme")), store.with(route().tenant("globex")));
    for n in 0..70 {
        let id = nobody.create(json!({ "n": n, "createdAt": "long ago" })).await.unwrap().id;
        if n % 7 == 0 {
            nobody.update(&id, json!({"updated": true})).await.unwrap();
        }
    }
    let locked = nobody.list().limit(1).await.unwrap().items[0].id;
    nobody.lock(&locked).await.unwrap().release().await.unwrap();
    let theirs = globex.create(json!({"of": "globex"})).await.unwrap().id;
    assert_eq!(nobody.flush(TIMEOUT).await.unwrap(), 0);
    let stable = nobody.stable_cv().await.unwrap();
    assert_eq!(acme.list().await.unwrap().items.len(), 0);

    let database = Route::default().database(p.common_database());
    let would = store.chronos.migrate_tenants(database.clone(), "acme").dry_run().await.unwrap();
    assert_eq!((would.collections, would.items, would.versions, would.left), (1, 70, 80, 0));
    assert_eq!(nobody.list().limit(100).await.unwrap().items.len(), 70, "a dry run changes nothing");
    assert_eq!(store.chronos.migrate_tenants(database.clone(), "acme").await.unwrap(), would);
    assert_eq!(nobody.list().await.unwrap().items.len(), 0);
    assert_eq!(acme.list().limit(100).await.unwrap().items.len(), 70);
    assert_eq!(
        acme.list().limit(100).as_of_cv(stable).await.unwrap().items.len(),
        70,
        "their past is the tenant's, too"
    );
    assert_eq!(
        acme.list().filter(json!({"createdAt": "long ago"})).limit(100).await.unwrap().items.len(),
        70
    );
    let updated = acme.list().filter(json!({"updated": true})).limit(1).await.unwrap().items[0].id;
    assert_eq!(acme.history(&updated).await.unwrap().len(), 2);
    acme.update(&updated, json!({"n": -1})).await.unwrap();
    assert_eq!(
        (document(&globex, &theirs).await, globex.verify().await.unwrap().items),
        (json!({"of": "globex"}), 1)
    );
    let again = store.chronos.migrate_tenants(database.clone(), "globex").await.unwrap();
    assert_eq!((again.items, again.versions), (0, 0), "what has a tenant keeps it");
    let other = store.chronos.migrate_tenants(database.tenant("globex"), "acme").await;
    assert_eq!(refused(other), ErrorKind::Validation);
}

async fn a_tenants_own_database_shows_what_was_written_before_there_were_tenants(p: &Pairing) {
    let alone = p.open();
    let before = alone.users();
    let legacy = before.create(json!({"n": 0})).await.unwrap().id;
    assert!(
        !alone.head(&before, &legacy).await.contains_key("tenantId"),
        "where nobody else comes, nothing need be said"
    );
    assert_eq!(before.flush(TIMEOUT).await.unwrap(), 0);
    if p.kind == Kind::EmbeddedMemory {
        return;
    }
    let shared = p.open_with(&json!({ "databases": p.one_database() }));
    let of = |tenant: &str| shared.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    let new = acme.create(json!({"n": 1})).await.unwrap().id;
    assert_eq!(
        (acme.get(&legacy).await.unwrap(), globex.get(&legacy).await.unwrap()),
        (None, None),
        "whose it is, nobody knows"
    );
    assert_eq!(
        column(
            &before.list().sort("n", chronos_db::documents::Direction::Ascending).await.unwrap().items,
            "n"
        ),
        [json!(0), json!(1)]
    );
    globex.create(json!({"n": 2})).await.unwrap();
    assert_eq!(before.list().await.unwrap().items.len(), 2, "what says that it is another's is never shown");
    shared.chronos.migrate_tenants(Route::runtime(), "acme").await.unwrap();
    assert_eq!(
        (document(&acme, &legacy).await, document(&acme, &new).await),
        (json!({"n": 0}), json!({"n": 1}))
    );
    assert_eq!(globex.get(&legacy).await.unwrap(), None);
}

async fn a_collection_exists_for_whom_it_holds_something(p: &Pairing) {
    let store = p.open();
    let (acme, globex) = logs(&store);
    assert!(!acme.exists().await.unwrap());
    let id = acme.create(json!({})).await.unwrap().id;
    acme.delete(&id).await.unwrap();
    assert!(acme.exists().await.unwrap(), "a deleted item is one that was written");
    assert!(!globex.exists().await.unwrap());
    let route = |tenant: &str, name: &str| Route::logs().tenant(tenant).collection(name);
    assert!(store.chronos.existing(route("acme", "audit")).await.is_ok());
    let error = store.chronos.existing(route("acme", "audits")).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.message().ends_with("did you mean `audit`?"),
        "{error}"
    );
    let error = store.chronos.existing(route("globex", "audits")).await.unwrap_err();
    assert!(!error.message().contains("`audit`"), "names are the business of those who use them: {error}");
    assert_eq!(store.chronos.collections(&Route::logs()).await.unwrap(), ["audit"]);
}

/// The connection string of the pairing's store, in other words.
fn alias(uri: &str) -> String {
    match uri.strip_prefix("embedded:") {
        Some(path) => format!("embedded:{path}/../documents/chronos.db"),
        None => uri.replace("127.0.0.1", "localhost"),
    }
}

/// M15.
async fn one_store_under_two_names_is_shared(p: &Pairing) {
    let mut config = p.config(&json!({ "databases": p.one_database() }));
    let uri = config["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
    assert_ne!(alias(&uri), uri);
    config["dbConnections"]["other"] = json!({ "mongoUri": alias(&uri) });
    config["databases"]["runtime"]["tenantDatabases"][1]["dbConnRef"] = "other".into();
    let store = p.opening().configured(&config).open();
    let of = |tenant: &str| store.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    let id = acme.create(json!({"of": "acme"})).await.unwrap().id;
    globex.create(json!({"of": "globex"})).await.unwrap();
    assert_eq!(globex.get(&id).await.unwrap(), None);
    assert_eq!(column(&globex.list().await.unwrap().items, "of"), [json!("globex")]);
    assert_eq!(column(&acme.list().await.unwrap().items, "of"), [json!("acme")]);
    let paths = [0, 1].map(|n| format!("databases.runtime.tenantDatabases[{n}]"));
    assert_eq!(store.chronos.shared_databases().await.unwrap(), [(paths[0].clone(), paths[1].clone())]);
}

async fn a_database_named_by_contexts_is_not_a_tenants_own(p: &Pairing) {
    let config = p.version_1(&json!({}));
    let uri = config["mongoUris"][0].as_str().unwrap();
    let typed = |uri: &str| {
        let entry =
            json!({"key": "rt", "extIdentifier": "acme", "mongoUri": uri, "dbName": p.common_database()});
        json!({"runtime": {"tenants": [entry]}})
    };
    for uri in [uri.to_owned(), alias(uri)] {
        let store = p.opening().configured(&p.version_1(&json!({ "databaseTypes": typed(&uri) }))).open();
        let route = || Route::default().database(p.common_database()).collection("people");
        let (own, named) =
            (store.with(Route::key("rt").collection("people")), store.with(route().tenant("acme")));
        let id = own.create(json!({"n": 1})).await.unwrap().id;
        assert_eq!(document(&named, &id).await, json!({"n": 1}), "two ways to one tenant");
        assert_eq!(store.with(route().tenant("globex")).get(&id).await.unwrap(), None);
        let nobody = store.chronos.with(route()).unwrap();
        let error = nobody.list().await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Validation && error.message().contains("tenant `acme`"),
            "{error}"
        );
    }
}

/// Tenants of one database may have their objects in different places.
async fn what_one_tenant_left_to_store_goes_to_its_own_place(p: &Pairing) {
    let mut config = p.config(&json!({ "databases": p.one_database() }));
    config["localStorage"] = Json::Null;
    config["spacesConnections"] = json!({
        "a": {"provider": "local", "endpoint": "./objects-a"}, "b": {"provider": "local", "endpoint": "./objects-b"},
    });
    for (entry, space) in [(0, "a"), (1, "b")] {
        config["databases"]["runtime"]["tenantDatabases"][entry]["spaceConnRef"] = space.into();
    }
    config["databases"]["logs"].as_object_mut().unwrap().remove("spaceConnRef");
    let route = |tenant: &str| Route::runtime().tenant(tenant).collection("users");
    let storage = Failing::<objects::Call>::new();
    storage.switch_all_on(Fault::Before);
    let crashed = Chronos::builder(Config::parse(&config.to_string(), p.folder()).unwrap());
    let crashed = crashed
        .wrap_objects(move |inner| test_support::objects::decorate(inner, Arc::clone(&storage)))
        .open()
        .unwrap();
    let theirs = crashed.with(route("globex")).unwrap();
    let id = theirs.create(json!({"of": "globex"})).await.unwrap().id;
    assert_eq!(theirs.flush(Duration::from_millis(20)).await.unwrap(), 1);
    drop((theirs, crashed));

    let store = p.opening().configured(&config).without_cache().open();
    let (acme, globex) = (store.with(route("acme")), store.with(route("globex")));
    acme.create(json!({"of": "acme"})).await.unwrap();
    assert_eq!(acme.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(globex.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(document(&globex, &id).await, json!({"of": "globex"}));
    let folder = |space: &str| std::fs::read_dir(p.folder().join(space)).unwrap().count();
    assert_eq!((folder("objects-a"), folder("objects-b")), (1, 1));
}
