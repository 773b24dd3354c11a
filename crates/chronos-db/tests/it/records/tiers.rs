//! Records that are kept in tiers.

use chronos_db::{Chronos, ErrorKind, GetTiered, Json, Route, Tier, json};

use super::pairing::{Pairing, on_every_pairing, refused};

on_every_pairing!(
    the_tiers_are_laid_over_each_other,
    the_narrowest_tier_that_has_a_record_is_found_first,
    a_tier_that_is_not_configured_is_left_out,
    the_past_of_all_tiers_is_read,
);

/// Knowledge and metadata in the databases that the pairing removes at its end.
fn databases(p: &Pairing) -> Json {
    let entry = |tenant: usize| {
        let mut entry = p.config(&json!({}))["databases"]["runtime"]["tenantDatabases"][tenant].clone();
        entry.as_object_mut().unwrap().remove("tenantId");
        entry
    };
    let logs = p.config(&json!({}))["databases"]["logs"].clone();
    let (mut domain, mut tenant) = (entry(1), entry(0));
    domain["domain"] = "production".into();
    tenant["tenantId"] = "acme".into();
    let tiers = json!({"genericDatabase": logs, "domainsDatabases": [domain], "tenantDatabases": [tenant]});
    json!({ "databases": { "knowledge": tiers, "metadata": tiers } })
}

type Begin = fn(&Chronos, &str, Json) -> GetTiered;

/// Both kinds, with a collection of their own.
fn kinds() -> [(Route, &'static str, Begin); 2] {
    [
        (Route::knowledge(), "configs", |chronos, collection, filter| {
            chronos.get_knowledge(collection, filter)
        }),
        (Route::metadata(), "schemas", |chronos, collection, filter| {
            chronos.get_metadata(collection, filter)
        }),
    ]
}

/// D-08.
fn demo() -> [(Tier, Json); 3] {
    [
        (
            Tier::Generic,
            json!({"key": "ui", "maxUploadSize": 10485760, "features": ["a", "b"], "settings": {"timeout": 30, "retries": 3}}),
        ),
        (
            Tier::Domain,
            json!({"key": "ui", "features": ["b", "c", "d"], "settings": {"timeout": 45, "maxConnections": 100}}),
        ),
        (
            Tier::Tenant,
            json!({"key": "ui", "maxUploadSize": 52428800, "features": ["d", "e", "f"], "settings": {"timeout": 60}}),
        ),
    ]
}

fn at(kind: &Route, tier: Tier, collection: &str) -> Route {
    let route = kind.clone().tier(tier).collection(collection);
    match tier {
        Tier::Generic => route,
        Tier::Domain => route.domain("production"),
        Tier::Tenant => route.tenant("acme"),
    }
}

/// D-08, G-07.
async fn the_tiers_are_laid_over_each_other(p: &Pairing) {
    let store = p.open_with(&databases(p));
    for (kind, collection, begin) in kinds() {
        for (tier, document) in demo() {
            store.with(at(&kind, tier, collection)).create(document).await.unwrap();
        }
        let get = || begin(&store.chronos, collection, json!({"key": "ui"})).domain("production").merge();
        let merged = get().tenant("acme").await.unwrap();
        let expected = json!({
            "key": "ui", "maxUploadSize": 52428800, "features": ["a", "b", "c", "d", "e", "f"],
            "settings": {"timeout": 60, "retries": 3, "maxConnections": 100},
        });
        assert_eq!(merged.data, Some(expected));
        assert_eq!(merged.tiers_found(), [Tier::Generic, Tier::Domain, Tier::Tenant]);
        let shown = merged.to_json();
        assert_eq!(shown["tiersFound"], json!(["generic", "domain", "tenant"]));
        assert_eq!(shown["tierRecords"]["domain"], demo()[1].1);
        let wide = get().await.unwrap();
        assert_eq!(wide.tiers_found(), [Tier::Generic, Tier::Domain]);
        assert_eq!(wide.data.unwrap()["settings"]["timeout"], 45);
        let kept = get().tenant("acme").keep_duplicates().preserve_existing().await.unwrap().data.unwrap();
        assert_eq!(
            (&kept["maxUploadSize"], kept["features"].as_array().unwrap().len()),
            (&json!(10485760), 8)
        );
    }
}

async fn the_narrowest_tier_that_has_a_record_is_found_first(p: &Pairing) {
    let store = p.open_with(&databases(p));
    for (kind, collection, begin) in kinds() {
        for (tier, document) in demo() {
            store.with(at(&kind, tier, collection)).create(document).await.unwrap();
        }
        let generic = json!({"key": "only-generic"});
        store.with(at(&kind, Tier::Generic, collection)).create(generic.clone()).await.unwrap();
        let get = |key: &str| begin(&store.chronos, collection, json!({ "key": key }));
        for (get, narrowest) in [
            (get("ui").tenant("acme").domain("production"), 2),
            (get("ui").domain("production"), 1),
            (get("ui"), 0),
        ] {
            let (tier, document) = demo()[narrowest].clone();
            let found = get.await.unwrap();
            assert_eq!((found.data.clone(), found.tiers_found()), (Some(document), vec![tier]));
        }
        let found = get("only-generic").tenant("acme").domain("production").await.unwrap();
        assert_eq!((found.data.clone(), found.tiers_found()), (Some(generic), vec![Tier::Generic]));
        for nowhere in [get("nowhere").tenant("acme"), get("nowhere").tenant("acme").merge()] {
            let found = nowhere.await.unwrap();
            assert_eq!((found.data, found.tiers), (None, Vec::new()));
        }
    }
}

async fn a_tier_that_is_not_configured_is_left_out(p: &Pairing) {
    let mut more = databases(p);
    more["databases"]["metadata"] = Json::Null;
    let store = p.open_with(&more);
    let (kind, collection, _) = &kinds()[0];
    store.with(at(kind, Tier::Generic, collection)).create(demo()[0].1.clone()).await.unwrap();
    let found = store
        .chronos
        .get_knowledge(*collection, json!({"key": "ui"}))
        .tenant("initech")
        .merge()
        .await
        .unwrap();
    assert_eq!(found.tiers_found(), [Tier::Generic]);
    let nothing = store.chronos.get_metadata(*collection, json!({})).tenant("acme").await;
    assert_eq!(refused(nothing), ErrorKind::RouteNotFound);
    let wrong = store.chronos.get_knowledge(*collection, json!({"key": {"$where": "1"}})).await;
    assert_eq!(refused(wrong), ErrorKind::Validation);
}

async fn the_past_of_all_tiers_is_read(p: &Pairing) {
    let store = p.open_with(&databases(p));
    let (kind, collection, _) = &kinds()[0];
    let generic = store.with(at(kind, Tier::Generic, collection));
    let first = generic.create(json!({"key": "ui", "v": 1})).await.unwrap();
    let tenant = store.with(at(kind, Tier::Tenant, collection));
    let own = tenant.create(json!({"key": "ui", "own": 1})).await.unwrap();
    let then = first.at.max(own.at);
    generic.update(&first.id, json!({"v": 2})).await.unwrap();
    tenant.update(&own.id, json!({"own": 2})).await.unwrap();
    let get = || store.chronos.get_knowledge(*collection, json!({"key": "ui"})).tenant("acme").merge();
    assert_eq!(get().await.unwrap().data, Some(json!({"key": "ui", "v": 2, "own": 2})));
    let data = get().as_of(then).await.unwrap().data.unwrap();
    assert_eq!(data["own"], 1, "{data}");
}
