//! Two tenants in one database: every operation of one, tried on what is the other's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::{
    Collected, Collection, EntityMapping, EntityOperation, ErrorKind, ImportOp, ItemId, ItemLock, Json,
    Route, Timestamp, json,
};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, objects};

use super::pairing::{Pairing, Store, TIMEOUT, column, document, namespace, on_every_pairing, refused};

on_every_pairing!(
    no_operation_reaches_an_item_of_another_tenant,
    an_erased_item_of_another_tenant_is_not_found_either,
    what_waits_to_be_stored_is_counted_for_its_tenant_alone,
    without_versions_each_tenant_trims_its_own_rows,
    contexts_of_version_1_without_a_tenant_see_what_is_no_tenants,
);

/// Names the operations once: as a list, and as the cases of a match that has to treat them all.
macro_rules! operations {
    ($($operation:ident),+ $(,)?) => {
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Operation { $($operation),+ }
        const OPERATIONS: &[(&str, Operation)] = &[$((stringify!($operation), Operation::$operation)),+];
    };
}

operations!(
    name,
    database,
    exists,
    typed,
    create,
    update,
    replace,
    delete,
    enrich,
    smart_insert,
    insert_with_entities,
    get,
    get_with_entities,
    list,
    history,
    restore,
    restore_collection,
    lock,
    verify,
    import,
    stable_cv,
    flush,
    flush_local,
    ensure_index,
    collect_orphans,
    mark_item_as_processed,
    mark_items_as_processed_by_ttl,
    shrink_shadows,
    trim,
    erase,
    erase_where,
    hard_delete,
    certificates,
    roll_up,
    prune,
    manifests,
);

#[test]
fn every_operation_of_a_collection_is_tried() {
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/records");
    let mut sources = vec![records.join("collection.rs"), records.join("typed.rs")];
    let projections = records.with_file_name("projections");
    sources.extend(["trim.rs", "retain.rs"].map(|file| projections.join(file)));
    for actions in [records.join("actions"), records.with_file_name("erasure")] {
        sources.extend(std::fs::read_dir(actions).unwrap().map(|file| file.unwrap().path()));
    }
    let sources: Vec<String> = sources.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let of_collections = sources
        .iter()
        .filter_map(|source| source.split("\nimpl Collection {\n").nth(1)?.split("\n}\n").next());
    let public = of_collections.flat_map(str::lines).filter_map(|line| {
        let line = line.trim();
        let rest = line.strip_prefix("pub fn ").or_else(|| line.strip_prefix("pub async fn "))?;
        rest.split(['(', '<']).next()
    });
    let tried: BTreeSet<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        public.collect::<BTreeSet<&str>>(),
        tried,
        "add the new operation to `operations!` and try it in `attack`"
    );
}

/// Two tenants in one database, in each way there is to configure that.
fn ways(p: &Pairing, more: &Json) -> Vec<(&'static str, Store, Collection, Collection)> {
    let with = |extra: Json| {
        let mut config = more.clone();
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    let mut ways = Vec::new();
    let mut add = |name, store: Store, route: &dyn Fn(&str) -> Route| {
        let of = |tenant| store.with(route(tenant));
        let (acme, globex) = (of("acme"), of("globex"));
        assert_eq!(acme.database(), globex.database());
        ways.push((name, store, acme, globex));
    };
    let logs = p.open_with(more);
    add("logs", logs, &|tenant| Route::logs().tenant(tenant).collection("audit"));
    let entries = p.open_with(&with(json!({ "databases": p.one_database() })));
    add("two entries with one database", entries, &|tenant| {
        Route::runtime().tenant(tenant).collection("users")
    });
    let older = p.opening().configured(&p.version_1(more)).open();
    let database = p.common_database();
    add("version 1", older, &|tenant| {
        Route::default().database(&database).tenant(tenant).collection("people")
    });
    ways
}

/// What is stored of a tenant, but for what the flusher has yet to do.
async fn stored(store: &Store, collection: &Collection, tenant: &str) -> Vec<Document> {
    assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
    let mut all = Vec::new();
    for suffix in ["head", "ver", "locks", "claims", "gc"] {
        let documents = store.stored(collection, suffix).await;
        // A lock that is held is renewed.
        let timeless = documents.into_iter().map(|mut d| {
            d.remove("expiresAt");
            d.remove("lockedAt");
            d
        });
        all.extend(timeless.filter(|d| d.get_str("tenantId").ok() == Some(tenant)));
    }
    all
}

/// Records whose `boss` is another item of the collection, found by its mail.
fn boss(collection: &Collection) -> EntityMapping {
    EntityMapping::new("boss", collection.name(), "mail")
}

/// Carries out one operation as `globex` on an item of `acme`; everything it may find out or change is
/// asserted here or by the caller.
async fn attack(operation: Operation, globex: &Collection, id: &ItemId, lock: Option<&ItemLock>, own: usize) {
    let gone = ErrorKind::NotFound;
    match operation {
        Operation::name | Operation::database => {
            assert!(!globex.name().is_empty() && !globex.database().is_empty())
        }
        Operation::exists => assert_eq!(globex.exists().await.unwrap(), own > 0),
        Operation::typed => {
            let typed = globex.typed::<serde_json::Value>();
            assert!(typed.get(id).include_deleted().await.unwrap().is_none());
            assert!(typed.get(id).version(0).await.unwrap().is_none());
            assert_eq!(refused(typed.update(id, json!({"n": 9})).await), gone);
            assert_eq!(refused(typed.replace(id, &serde_json::json!({"n": 9})).await), gone);
            assert_eq!(refused(typed.delete(id).await), gone);
        }
        Operation::create => {
            let document = json!({"mail": "a@acme", "_id": id.to_string()});
            let made = globex.create(document.clone()).await.unwrap();
            assert!(made.id != *id && made.ov == 0);
            globex.delete(&made.id).await.unwrap();
            let mut claiming = document;
            claiming["tenantId"] = "acme".into();
            // Refused where documents say their tenant; elsewhere it is a property like others.
            match globex.create(claiming).await {
                Ok(made) => drop(globex.delete(&made.id).await.unwrap()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Validation),
            }
        }
        Operation::update => {
            assert_eq!(refused(globex.update(id, json!({"n": 9})).await), gone);
            assert_eq!(refused(globex.update(id, json!({"n": 9})).expect_ov(7).await), gone);
            assert_eq!(refused(globex.update(id, json!({"n": 9})).force().await), gone);
            if let Some(lock) = lock {
                assert_eq!(refused(globex.update(id, json!({"n": 9})).with_lock(lock).await), gone);
            }
        }
        Operation::replace => assert_eq!(refused(globex.replace(id, json!({"n": 9})).force().await), gone),
        Operation::delete => assert_eq!(refused(globex.delete(id).await), gone),
        Operation::enrich => assert_eq!(refused(globex.enrich(id, json!({"n": 9})).await), gone),
        Operation::smart_insert => {
            let made = globex.smart_insert(json!({"mail": "a@acme"}), &["mail"]).await.unwrap();
            assert!(made.id != *id && made.created);
            globex.delete(&made.id).await.unwrap();
        }
        Operation::insert_with_entities => {
            // The key of an entity that is the other's leads to one of its own.
            let record = json!({"mail": "i@globex", "boss": {"mail": "a@acme"}});
            let made = globex.insert_with_entities(record, [boss(globex)]).await.unwrap();
            let entity = &made.entities[0];
            assert!(entity.id != *id && entity.operation == EntityOperation::Created);
            globex.delete(&made.record.id).await.unwrap();
            globex.delete(&entity.id).await.unwrap();
        }
        Operation::get_with_entities => {
            let found = globex.get_with_entities(id, [boss(globex)]).await.unwrap();
            assert!(found.record.is_none() && found.entities[0].1.is_none());
            let made = globex.create(json!({"boss": {"mail": "a@acme"}})).await.unwrap().id;
            let found = globex.get_with_entities(&made, [boss(globex)]).await.unwrap();
            assert!(found.record.is_some() && found.entities[0].1.is_none());
            globex.delete(&made).await.unwrap();
        }
        Operation::get => {
            for get in [
                globex.get(id),
                globex.get(id).version(0),
                globex.get(id).version(1),
                globex.get(id).as_of(Timestamp::from_millis(4_000_000_000_000)),
                globex.get(id).as_of_cv(i64::MAX),
            ] {
                assert_eq!(get.clone().await.unwrap(), None);
                assert_eq!(get.include_deleted().await.unwrap(), None);
            }
        }
        Operation::list => {
            let stable = globex.stable_cv().await.unwrap();
            let lists = [
                globex.list(),
                globex.list().as_of_cv(stable),
                globex.list().as_of(Timestamp::from_millis(4_000_000_000_000)),
                globex.list().filter(json!({"mail": "a@acme"})),
                globex.list().filter(
                    json!({"$or": [{"mail": "a@acme"}, {"mail": "b@acme"}, {"_id": id.to_string()}]}),
                ),
                globex.list().filter(json!({"mail": {"$ne": "none"}})).as_of_cv(stable),
                globex.list().filter(json!({"_id": id.to_string()})).as_of_cv(stable),
            ];
            for list in lists {
                let shown = list.clone().include_deleted().await.unwrap().items;
                let streamed: Vec<_> =
                    list.include_deleted().stream().await.unwrap().try_collect().await.unwrap();
                assert!(
                    shown
                        .iter()
                        .chain(&streamed)
                        .all(|view| view.id != *id && view.item["owner"] != json!("acme"))
                );
            }
            assert_eq!(globex.list().await.unwrap().items.len(), own);
        }
        Operation::history => assert_eq!(refused(globex.history(id).await), gone),
        Operation::restore => {
            assert_eq!(refused(globex.restore(id).to_version(0).await), gone);
            assert_eq!(
                refused(globex.restore(id).to_time(Timestamp::from_millis(4_000_000_000_000)).force().await),
                gone
            );
        }
        Operation::restore_collection => {
            let stable = globex.stable_cv().await.unwrap();
            let looked_at = globex.list().include_deleted().limit(1000).await.unwrap().items.len() as u64;
            for restore in
                [globex.restore_collection().to_cv(stable), globex.restore_collection().to_cv(-1).dry_run()]
            {
                assert_eq!(restore.await.unwrap().items, looked_at);
            }
        }
        Operation::lock => assert_eq!(refused(globex.lock(id).wait(Duration::ZERO).await), gone),
        Operation::verify => {
            for verify in [globex.verify(), globex.verify().repair()] {
                let found = verify.await.unwrap();
                assert!(found.is_clean(), "{:#}", found.to_json());
                assert_eq!((found.live, found.noted, found.voids), (own as u64, 0, 0));
            }
        }
        Operation::import => {
            let importer = globex.import("mail").await.unwrap();
            let operation = |op: &str, data: Json| {
                ImportOp::parse(&json!({"op": op, "key": "a@acme", "data": data})).unwrap()
            };
            let update = importer.apply(vec![operation("update", json!({"n": 9}))], false).await.unwrap();
            assert_eq!(update[0].as_ref().unwrap_err().kind(), gone);
            let delete = importer.apply(vec![operation("delete", Json::Null)], false).await.unwrap();
            assert_eq!(delete[0].as_ref().unwrap_err().kind(), gone);
            let create = importer
                .apply(
                    vec![operation("create", json!({"mail": "a@acme"})), operation("delete", Json::Null)],
                    false,
                )
                .await;
            assert!(create.unwrap().iter().all(Result::is_ok), "the key is free for this tenant");
        }
        // One sequence numbers the collection: what is the other's shows as gaps, and as nothing else.
        Operation::stable_cv => assert!(globex.stable_cv().await.unwrap() >= 0),
        Operation::flush => assert_eq!(globex.flush(TIMEOUT).await.unwrap(), 0),
        Operation::flush_local => assert_eq!(globex.flush_local(TIMEOUT).await.unwrap(), 0),
        Operation::ensure_index => globex.ensure_index("n").await.unwrap(),
        Operation::collect_orphans => {
            assert_eq!(globex.collect_orphans(Duration::ZERO).await.unwrap(), Collected::default())
        }
        Operation::mark_item_as_processed => {
            assert_eq!(refused(globex.mark_item_as_processed(id).await), gone);
            assert_eq!(refused(globex.mark_item_as_processed(id).dry_run().await), gone);
        }
        Operation::mark_items_as_processed_by_ttl => {
            let own = globex.list().include_deleted().count().await.unwrap();
            let marked = globex.mark_items_as_processed_by_ttl(Duration::ZERO).await.unwrap();
            assert!(marked.items_processed <= own, "{marked:?} of {own}");
        }
        Operation::shrink_shadows => {
            assert_eq!(globex.shrink_shadows().all().await.unwrap().items_processed, 0);
        }
        Operation::trim => assert_eq!(globex.trim(Duration::ZERO).await.unwrap(), 0),
        Operation::erase => {
            assert_eq!(refused(globex.erase(id).dry_run().await), gone);
            assert_eq!(refused(globex.erase(id).await), gone);
        }
        Operation::erase_where => {
            let erase = globex.erase_where(json!({"_id": id.to_string()}));
            assert_eq!(erase.await.unwrap(), []);
        }
        // Nobody may here, whosever item it is.
        Operation::hard_delete => assert_eq!(refused(globex.hard_delete(id).await), ErrorKind::Validation),
        Operation::certificates => {
            assert_eq!(globex.certificates().of_every_collection().await.unwrap(), []);
        }
        Operation::roll_up => assert_eq!(globex.roll_up().await.unwrap().versions, 0),
        Operation::prune => assert_eq!(globex.prune().await.unwrap().versions, 0),
        Operation::manifests => assert!(globex.manifests().await.unwrap().is_empty()),
    }
}

async fn no_operation_reaches_an_item_of_another_tenant(p: &Pairing) {
    for (way, store, acme, globex) in ways(p, &json!({})) {
        let mine = |mail: &str| json!({"owner": "acme", "mail": mail, "n": 0});
        let live = acme.create(mine("a@acme")).await.unwrap().id;
        acme.update(&live, json!({"n": 1})).await.unwrap();
        let deleted = acme.create(mine("b@acme")).await.unwrap().id;
        acme.delete(&deleted).await.unwrap();
        let locked = acme.create(mine("c@acme")).await.unwrap().id;
        let lock = acme.lock(&locked).await.unwrap();
        acme.smart_insert(mine("d@acme"), &["mail"]).await.unwrap();
        globex.create(json!({"owner": "globex", "mail": "g@globex"})).await.unwrap();
        assert_eq!(acme.flush(TIMEOUT).await.unwrap(), 0);
        // The bucket an orphan would lie in is that of everything else.
        let bucket = store.stored(&acme, "ver").await[0].get_str("jsonBucket").unwrap().to_owned();
        let mut batch = Batch::new();
        let note = doc! { "_id": format!("{bucket}/x/y"), "bucket": bucket, "key": "x/y", "tenantId": "acme", "ov": 0,
        "itemId": live.to_string().parse::<bson::oid::ObjectId>().unwrap(), "notedAt": bson::DateTime::from_millis(0) };
        batch.push(&namespace(&acme, "gc"), Write::put(note, Guard::Any));
        store.documents().apply(batch).await.unwrap();

        let before = stored(&store, &acme, "acme").await;
        for id in [&live, &deleted, &locked] {
            for (_, operation) in OPERATIONS {
                attack(*operation, &globex, id, (*id == locked).then_some(&lock), 1).await;
            }
            assert_eq!(
                stored(&store, &acme, "acme").await,
                before,
                "{way}: something of another tenant has changed"
            );
        }
        assert_eq!(
            acme.collect_orphans(Duration::ZERO).await.unwrap().removed(),
            1,
            "{way}: its own orphan is its own"
        );
        lock.release().await.unwrap();
        for document in ["head", "ver", "claims", "locks"].map(|suffix| store.stored(&acme, suffix)) {
            for stored in document.await {
                let is_void = stored.get_str("op").ok() == Some("VOID");
                assert!(is_void || stored.contains_key("tenantId"), "{way}: {stored}");
            }
        }
        assert_eq!(
            column(
                &acme.list().sort("mail", chronos_db::documents::Direction::Ascending).await.unwrap().items,
                "n"
            )[0],
            json!(1)
        );
    }
}

async fn an_erased_item_of_another_tenant_is_not_found_either(p: &Pairing) {
    for (way, store, acme, globex) in ways(p, &json!({"logicalDelete": {"enabled": false}})) {
        let erased = acme.create(json!({"owner": "acme", "mail": "a@acme"})).await.unwrap().id;
        acme.update(&erased, json!({"n": 1})).await.unwrap();
        acme.delete(&erased).await.unwrap();
        let certified = acme.create(json!({"owner": "acme", "mail": "b@acme"})).await.unwrap().id;
        acme.erase(&certified).await.unwrap();
        globex.create(json!({"owner": "globex", "mail": "g@globex"})).await.unwrap();
        assert_eq!(acme.flush(TIMEOUT).await.unwrap(), 0);
        let before = stored(&store, &acme, "acme").await;
        for id in [&erased, &certified] {
            for (_, operation) in OPERATIONS {
                attack(*operation, &globex, id, None, 1).await;
            }
        }
        assert_eq!(
            stored(&store, &acme, "acme").await,
            before,
            "{way}: something of another tenant has changed"
        );
    }
}

async fn what_waits_to_be_stored_is_counted_for_its_tenant_alone(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&json!({ "databases": p.one_database() })).objects(&storage).open();
    let of = |tenant: &str| store.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    storage.switch_all_on(Fault::Before);
    for n in 0..3 {
        acme.create(json!({ "n": n })).await.unwrap();
    }
    globex.create(json!({"n": 0})).await.unwrap();
    assert_eq!(acme.flush(Duration::from_millis(50)).await.unwrap(), 3);
    assert_eq!(globex.flush_local(Duration::from_millis(50)).await.unwrap(), 1);
    assert_eq!(globex.verify().await.unwrap().unflushed, 1);
    storage.switch_off();
    assert_eq!(globex.flush(TIMEOUT).await.unwrap(), 0);
}

async fn without_versions_each_tenant_trims_its_own_rows(p: &Pairing) {
    let store = p.open_with(&json!({ "databases": p.one_database(), "versioning": {"enabled": false} }));
    let of = |tenant: &str| store.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    for (tenant, updates) in [(&acme, 3), (&globex, 1)] {
        let id = tenant.create(json!({"n": 0})).await.unwrap().id;
        for n in 1..=updates {
            tenant.update(&id, json!({ "n": n })).await.unwrap();
        }
    }
    assert_eq!(acme.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(globex.flush(TIMEOUT).await.unwrap(), 0);
    let rows = |tenant: &'static str| async {
        let rows = store.stored(&acme, "ver").await;
        rows.iter().filter(|row| row.get_str("tenantId").ok() == Some(tenant)).count() as u64
    };
    let (before, others) = (rows("acme").await, rows("globex").await);
    let went = acme.trim(Duration::ZERO).await.unwrap();
    assert_eq!((went, rows("acme").await), (before, 0));
    assert_eq!(rows("globex").await, others);
    assert_eq!(column(&globex.list().await.unwrap().items, "n"), [json!(1)]);
}

async fn contexts_of_version_1_without_a_tenant_see_what_is_no_tenants(p: &Pairing) {
    let store = p.opening().configured(&p.version_1(&json!({}))).open();
    let route = || Route::default().database(p.common_database()).collection("people");
    let (acme, nobody) = (store.with(route().tenant("acme")), store.with(route()));
    let owned = acme.create(json!({"of": "acme"})).await.unwrap().id;
    let free = nobody.create(json!({"of": null})).await.unwrap().id;
    assert_eq!(column(&acme.list().await.unwrap().items, "of"), [json!("acme")]);
    assert_eq!(column(&nobody.list().await.unwrap().items, "of"), [Json::Null]);
    assert_eq!((nobody.get(&owned).await.unwrap(), acme.get(&free).await.unwrap()), (None, None));
    assert_eq!(refused(nobody.update(&owned, json!({})).await), ErrorKind::NotFound);
    assert_eq!(refused(acme.update(&free, json!({})).await), ErrorKind::NotFound);
    assert_eq!(
        (document(&nobody, &free).await, nobody.verify().await.unwrap().items),
        (json!({"of": null}), 1)
    );
}
