use chronos_db::config::DatabaseType;
use chronos_db::{ErrorKind, Json, Resolved, Result, Route, Router, Tier, json};

use crate::config::{example, parse, v2};

fn router(document: &Json) -> Router {
    Router::new(&parse(document).unwrap())
}

fn path(resolved: Result<Resolved>) -> String {
    resolved.unwrap().entry.path.clone()
}

#[test]
fn each_context_leads_to_its_database() {
    let router = router(&v2());
    let contexts = [
        (Route::metadata().tier(Tier::Generic), "databases.metadata.genericDatabase", "meta"),
        (Route::metadata().tier(Tier::Generic).tenant("a"), "databases.metadata.genericDatabase", "meta"),
        (Route::metadata().domain("health"), "databases.metadata.domainsDatabases[0]", "meta_h"),
        (
            Route::metadata().tier(Tier::Domain).domain("health").tenant("a"),
            "databases.metadata.domainsDatabases[0]",
            "meta_h",
        ),
        (Route::metadata().tenant("a"), "databases.metadata.tenantDatabases[0]", "meta_a"),
        (
            Route::metadata().tier(Tier::Tenant).ext_identifier("a"),
            "databases.metadata.tenantDatabases[0]",
            "meta_a",
        ),
        (Route::runtime().tenant("b"), "databases.runtime.tenantDatabases[1]", "run_b"),
        (
            Route::runtime().tenant("b").tier(Tier::Tenant).domain("health"),
            "databases.runtime.tenantDatabases[1]",
            "run_b",
        ),
        (Route::runtime().tenant("b").database("run_b"), "databases.runtime.tenantDatabases[1]", "run_b"),
        (Route::logs(), "databases.logs", "logs"),
        (Route::messaging().tenant("x"), "databases.messaging", "msg"),
        (Route::identities().database("ids"), "databases.identities", "ids"),
    ];
    for (route, path, database) in contexts {
        let resolved = router
            .resolve(&route.clone().collection("users"))
            .unwrap_or_else(|error| panic!("{route}: {error}"));
        assert_eq!((resolved.entry.path.as_str(), resolved.database.as_str()), (path, database), "{route}");
        assert_eq!(resolved.collection, "users");
    }
}

#[test]
fn databases_of_several_tenants_force_the_tenant_of_the_route() {
    let router = router(&v2());
    for route in [Route::logs(), Route::identities(), Route::messaging()] {
        let free = router.resolve(&route.clone().collection("c")).unwrap();
        let forced = router.resolve(&route.tenant("a").collection("c")).unwrap();
        assert_eq!((free.enforced_tenant, forced.enforced_tenant.as_deref()), (None, Some("a")));
    }
    assert_eq!(router.resolve(&Route::runtime().tenant("a").collection("c")).unwrap().enforced_tenant, None);
}

#[test]
fn a_context_without_a_database_learns_what_there_is() {
    let mut document = v2();
    document["databases"]["runtime"]["tenantDatabases"] = (0..7)
        .map(|n| json!({"tenantId": format!("t{n}"), "dbConnRef": "main", "dbName": format!("run{n}")}))
        .collect();
    document["databases"].as_object_mut().unwrap().remove("logs");
    let router = router(&document);
    let cases = [
        (
            Route::runtime().tenant("x"),
            "no database for runtime, tenant `x`: no entry answers it; configured: tenants t0, t1, t2, t3, t4 and 2 more",
        ),
        (Route::runtime(), "no database for runtime: the route names no tenant; configured: tenants t0"),
        (
            Route::metadata(),
            "no database for metadata: the route names no tier, tenant or domain; configured: generic, domains health, tenants a",
        ),
        (
            Route::metadata().domain("x"),
            "no database for metadata, domain `x`: no entry answers it; configured: generic",
        ),
        (
            Route::knowledge().tier(Tier::Generic),
            "no database for knowledge, tier generic: no entry answers it; configured: metadata, runtime, messaging",
        ),
        (Route::logs(), "no database for logs: no entry answers it"),
        (Route::key("k"), "no database for key `k`: no entry has this key; configured: keys none"),
        (
            Route::default().tenant("t0"),
            "no database for tenant `t0`: the route names no database type; configured: metadata, runtime, messaging, identities",
        ),
    ];
    for (route, expected) in cases {
        let error = router.resolve(&route.collection("users")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RouteNotFound);
        assert!(error.message().starts_with(expected), "expected `{expected}…`, got `{}`", error.message());
    }
}

#[test]
fn contradictions_and_bad_names_are_refused() {
    let router = router(&v2());
    let wrong = [
        Route::runtime().tenant("a"),
        Route::runtime().tenant("a").collection(""),
        Route::runtime().tenant("a").collection("../users"),
        Route::runtime().tenant("a").collection("$cmd"),
        Route::runtime().tenant("a\0").collection("users"),
        Route::runtime().tenant("a/b").collection("users"),
        Route::metadata().domain("..").collection("users"),
        Route::runtime().tenant("a").database("run_b").collection("users"),
        Route::runtime().tenant("a").database("ru/n").collection("users"),
        Route::runtime().tenant("a").ext_identifier("b").collection("users"),
        Route::logs().tenant("a").ext_identifier("b").collection("users"),
        Route::metadata().tenant("a").domain("health").collection("users"),
        Route::metadata().ext_identifier("a").collection("users"),
        Route::metadata().tier(Tier::Domain).tenant("a").collection("users"),
        Route::runtime().tenant("a").forced_index(0).collection("users"),
    ];
    for route in wrong {
        let error = router.resolve(&route).unwrap_err();
        assert_eq!(
            (error.kind(), error.operation()),
            (ErrorKind::Validation, Some("route")),
            "{route}: {error}"
        );
    }
}

#[test]
fn messaging_falls_back_to_the_entry_default_and_keeps_tenants_apart() {
    let router = Router::new(&example("v23-messaging-per-tenant"));
    let topics = |tenant: &str| {
        router.resolve(&Route::messaging().tier(Tier::Tenant).tenant(tenant).collection("topics")).unwrap()
    };
    assert_eq!(topics("tenant-a").database, "chronos_messaging_tenant_a");
    let other = topics("tenant-b");
    assert_eq!(
        (other.database.as_str(), other.enforced_tenant.as_deref()),
        ("chronos_messaging_default", Some("tenant-b"))
    );
    assert_eq!(topics("default").enforced_tenant.as_deref(), Some("default"));
    assert_eq!(
        router.resolve(&Route::messaging().collection("topics")).unwrap_err().kind(),
        ErrorKind::RouteNotFound
    );
}

#[test]
fn version_1_routes_by_key_by_type_and_by_hash() {
    let router = Router::new(&example("v1-multi-tenant"));
    let by_key = Route::key("runtime-tenant-a").collection("users");
    let by_type = Route::runtime().tier(Tier::Tenant).ext_identifier("tenant-a").collection("users");
    for route in [by_key.clone(), by_type, Route::runtime().tenant("tenant-a").collection("users")] {
        let resolved = router.resolve(&route).unwrap();
        assert_eq!(
            (resolved.entry.path.as_str(), resolved.database.as_str()),
            ("databaseTypes.runtime.tenants[0]", "runtime_tenant_a")
        );
    }
    assert_eq!(
        path(router.resolve(&Route::runtime().tier(Tier::Generic).collection("c"))),
        "databaseTypes.runtime.generic"
    );
    assert_eq!(
        path(
            router.resolve(&Route::knowledge().tier(Tier::Domain).ext_identifier("domain-1").collection("c"))
        ),
        "databaseTypes.knowledge.domains[0]"
    );
    assert_eq!(
        router.resolve(&Route::runtime().tenant("nobody").collection("c")).unwrap_err().kind(),
        ErrorKind::RouteNotFound
    );
    assert_eq!(
        router.resolve(&Route::key("nothing").collection("c")).unwrap_err().kind(),
        ErrorKind::RouteNotFound
    );
    assert_eq!(router.resolve(&by_key.clone().tenant("b")).unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(router.resolve(&by_key.database("other")).unwrap_err().kind(), ErrorKind::Validation);
    let plain = router.resolve(&Route::default().database("shop").collection("orders")).unwrap();
    assert_eq!((plain.entry.database_type, plain.database.as_str()), (None, "shop"));
    assert_eq!(
        router.resolve(&Route::default().collection("orders")).unwrap_err().kind(),
        ErrorKind::Validation
    );
}

fn hashed(algorithm: &str) -> Json {
    let space = |region: &str, bucket: &str| json!({"endpoint": format!("https://{region}.digitaloceanspaces.com"), "accessKey": "a", "secretKey": "s", "jsonBucket": bucket});
    json!({"mongoUris": ["mongodb://a:27017", "mongodb://b:27017"], "spacesConns": [space("nyc3", "json-a"), space("ams3", "json-b")],
        "routing": {"hashAlgo": algorithm}})
}

#[test]
fn plain_contexts_go_where_the_original_sent_them() {
    let router = router(&hashed("rendezvous"));
    let plain = || Route::default().database("myapp").collection("users");
    for (route, index) in [(plain().tenant("tenant-1"), 1), (plain().tenant("tenant-2"), 0), (plain(), 0)] {
        assert_eq!(path(router.resolve(&route)), format!("mongoUris[{index}]"), "{route}");
    }
    // Without `databaseTypes` a type has nothing to lead to.
    assert_eq!(
        path(router.resolve(&plain().tenant("tenant-1"))),
        path(
            router
                .resolve(&Route { database_type: Some(DatabaseType::Runtime), ..plain().tenant("tenant-1") })
        )
    );
}

#[test]
fn a_forced_index_picks_its_backend_or_says_the_range() {
    for algorithm in ["rendezvous", "jump"] {
        let router = router(&hashed(algorithm));
        let at = |index| {
            router.resolve(&Route::default().database("myapp").collection("users").forced_index(index))
        };
        assert_eq!(path(at(1)), "mongoUris[1]");
        assert_eq!(path(at(0)), "mongoUris[0]");
        assert_eq!(at(2).unwrap_err().message(), "Forced index 2 is out of range (0-1)");
    }
}

#[test]
fn a_function_may_choose_the_routing_key() {
    let router = router(&hashed("rendezvous")).with_key_fn(|route| route.domain.clone().unwrap_or_default());
    let to = |domain: &str| {
        path(router.resolve(&Route::default().domain(domain).tenant("x").database("d").collection("c")))
    };
    assert_eq!((to("tenant-1"), to("tenant-2")), ("mongoUris[1]".to_owned(), "mongoUris[0]".to_owned()));
}

#[test]
fn every_backend_is_listed() {
    let backends = Router::new(&example("v1-multi-tenant")).list_backends();
    assert_eq!(backends.len(), 18);
    assert_eq!(
        (backends[3].index, backends[3].path.as_str(), backends[3].database.as_deref()),
        (Some(3), "mongoUris[3]", None)
    );
    assert!(
        backends
            .iter()
            .any(|backend| backend.key.as_deref() == Some("know-generic") && backend.index.is_none())
    );
    assert_eq!(router(&v2()).list_backends().len(), 8);
}

#[test]
fn keys_spread_evenly_and_the_totals_add_up() {
    for algorithm in ["rendezvous", "jump"] {
        let uris: Vec<String> = (0..5).map(|n| format!("mongodb://host{n}")).collect();
        let router = router(&json!({"mongoUris": uris, "routing": {"hashAlgo": algorithm}}));
        let spread = router.distribution((0..5000).map(|n| format!("key-{n}"))).unwrap();
        assert_eq!((spread.total, spread.counts.iter().sum::<usize>(), spread.mean), (5000, 5000, 1000.0));
        assert!(spread.balanced && spread.stddev < 200.0, "{algorithm}: {spread:?}");
        assert!(!router.distribution(["one", "one", "one"]).unwrap().balanced);
    }
    let error = router(&v2()).distribution(["k"]).unwrap_err();
    assert_eq!(error.message(), "No backends available for routing");
}

#[test]
fn names_of_types_and_tiers_are_read_back() {
    for database_type in DatabaseType::ALL {
        assert_eq!(database_type.to_string().parse::<DatabaseType>().unwrap(), database_type);
    }
    assert_eq!("domain".parse::<Tier>().unwrap(), Tier::Domain);
    let error = "runtme".parse::<DatabaseType>().unwrap_err();
    assert!(error.message().ends_with("did you mean `runtime`?"), "{error}");
}
