use std::path::{Path, PathBuf};
use std::time::Duration;

use chronos_db::config::{
    Base64Property, Config, Counters, DatabaseType, Fallback, HashAlgorithm, Provider, Selector, UpdateMode,
    expand_env,
};
use chronos_db::{ErrorKind, Json, json};
use secrecy::ExposeSecret;

pub(crate) fn examples() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/configs");
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    assert!(files.len() >= 15);
    files
}

pub(crate) fn example(name: &str) -> Config {
    let (_, path) = examples().into_iter().find(|(found, _)| found == name).unwrap();
    Config::from_file(path).unwrap()
}

pub(crate) fn parse(document: &Json) -> chronos_db::Result<Config> {
    Config::parse(&document.to_string(), Path::new("/etc/app"))
}

/// A whole v2 configuration to spoil one thing in.
pub(crate) fn v2() -> Json {
    json!({
        "dbConnections": {"main": {"mongoUri": "mongodb://user:pw@localhost:27017"}},
        "spacesConnections": {"s3": {"endpoint": "https://s3.amazonaws.com", "region": "eu-1", "accessKey": "ak", "secretKey": "sk"}},
        "databases": {
            "metadata": {
                "genericDatabase": {"dbConnRef": "main", "spaceConnRef": "s3", "bucket": "meta", "dbName": "meta"},
                "domainsDatabases": [{"domain": "health", "dbConnRef": "main", "spaceConnRef": "s3", "bucket": "meta-h", "dbName": "meta_h"}],
                "tenantDatabases": [{"tenantId": "a", "dbConnRef": "main", "spaceConnRef": "s3", "bucket": "meta-a", "dbName": "meta_a"}]
            },
            "runtime": {"tenantDatabases": [
                {"tenantId": "a", "dbConnRef": "main", "spaceConnRef": "s3", "bucket": "run-a", "dbName": "run_a", "analyticsDbName": "ana_a"},
                {"tenantId": "b", "dbConnRef": "main", "spaceConnRef": "s3", "bucket": "run-b", "dbName": "run_b"}
            ]},
            "logs": {"dbConnRef": "main", "spaceConnRef": "s3", "bucket": "logs", "dbName": "logs"},
            "messaging": {"dbConnRef": "main", "dbName": "msg", "captureDeliveries": true},
            "identities": {"dbConnRef": "main", "dbName": "ids"}
        }
    })
}

fn with(mut document: Json, pointer: &str, value: Json) -> Json {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    document
}

fn v1() -> Json {
    let space = json!({"endpoint": "https://nyc3.digitaloceanspaces.com", "region": "nyc3", "accessKey": "ak", "secretKey": "sk",
        "jsonBucket": "j", "contentBucket": "c", "backupsBucket": "b"});
    json!({"mongoUris": ["mongodb://a:27017", "mongodb://b:27017"], "spacesConns": [space, space],
        "counters": {"mongoUri": "mongodb://b:27017", "dbName": "counters"}})
}

#[test]
fn every_example_is_read() {
    for (name, path) in examples() {
        let config = Config::from_file(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!config.entries.is_empty(), "{name}");
        let unknown: Vec<_> =
            config.warnings.iter().filter(|warning| warning.message.contains("not known")).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}

#[test]
fn the_two_shapes_are_read_into_one_model() {
    let new = parse(&v2()).unwrap();
    assert_eq!(new.warnings, []);
    assert_eq!(new.entries.len(), 8);
    let runtime =
        new.entries.iter().find(|entry| entry.path == "databases.runtime.tenantDatabases[0]").unwrap();
    assert_eq!(
        (runtime.database_type, &runtime.selector),
        (Some(DatabaseType::Runtime), &Selector::Tenant("a".into()))
    );
    assert_eq!(
        (runtime.database.as_deref(), runtime.analytics_database.as_deref()),
        (Some("run_a"), Some("ana_a"))
    );
    let objects = runtime.objects.as_ref().unwrap();
    assert_eq!((objects.connection.as_deref(), objects.buckets.content.as_str()), (Some("s3"), "run-a"));
    assert!(
        new.entries
            .iter()
            .any(|entry| entry.database_type == Some(DatabaseType::Messaging) && entry.capture_deliveries)
    );

    let old = parse(&v1()).unwrap();
    assert_eq!(old.entries[1].selector, Selector::Hashed(1));
    assert_eq!(old.entries[1].analytics_database.as_deref(), Some("counters"));
    assert_eq!(old.entries[0].analytics_database, None);
    assert_eq!(old.counters(), Some(Counters { connection: "mongoUris[1]", database: "counters" }));
    let identity = old.entries[0].backend_id.as_ref().unwrap();
    assert_eq!(identity.expose_secret(), "mongodb://a:27017|https://nyc3.digitaloceanspaces.com|j");
}

#[test]
fn database_types_share_the_connections_and_storages_of_their_uris() {
    let config = example("v1-multi-tenant");
    assert_eq!(config.connections.len(), 10);
    let tenant =
        config.entries.iter().find(|entry| entry.key.as_deref() == Some("runtime-tenant-a")).unwrap();
    assert_eq!(tenant.connection, "mongoUris[8]");
    assert_eq!(tenant.objects.as_ref().unwrap().buckets.json, "json");
    assert!(tenant.objects.as_ref().unwrap().connection.is_none());
    assert_eq!(
        config.entries[0].backend_id.as_ref().unwrap().expose_secret(),
        "mongodb://meta-generic:27017|localhost|local"
    );
}

#[test]
fn one_storage_may_serve_all_databases_of_version_1_with_a_warning() {
    let config = example("v1-production-as-written");
    assert!(config.warnings.iter().any(|warning| warning.path == "spacesConns"));
    assert_eq!(config.entries[0].objects, config.entries[1].objects);
}

#[test]
fn version_1_mistakes_get_the_messages_its_users_know() {
    let space = v1()["spacesConns"][0].clone();
    let eleven: Vec<String> = (0..11).map(|n| format!("mongodb://h{n}")).collect();
    let three = json!([space, space, space]);
    let mut bad_endpoint = v1();
    bad_endpoint["spacesConns"][1]["endpoint"] = json!("not-a-url");
    let mistakes = [
        (
            with(v1(), "/spacesConns", three),
            "spacesConns: Number of MongoDB URIs must match number of S3 connections",
        ),
        (with(v1(), "/mongoUris", json!([])), "mongoUris: At least one MongoDB URI is required"),
        (with(v1(), "/mongoUris", json!(eleven)), "mongoUris: Maximum 10 MongoDB URIs allowed"),
        (
            with(v1(), "/mongoUris", json!(["mongodb://a", "invalid-uri"])),
            "mongoUris[1]: Invalid MongoDB URI format",
        ),
        (bad_endpoint, "spacesConns[1].endpoint: Invalid S3 endpoint URL"),
        (json!({"spacesConns": [space]}), "mongoUris: At least one MongoDB URI is required"),
    ];
    for (document, expected) in mistakes {
        let error = parse(&document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().starts_with(expected), "expected `{expected}…`, got `{}`", error.message());
    }
}

#[test]
fn every_mistake_is_an_error_that_starts_with_its_path() {
    let entry = "/databases/runtime/tenantDatabases/0";
    let at = |key: &str| format!("{entry}/{key}");
    let shadow = |hours: Json| json!({"enabled": true, "ttlHours": hours});
    let map = |value: Json| json!({"users": value});
    let mistakes = [
        (
            at("dbConnRef"),
            json!("mian"),
            "databases.runtime.tenantDatabases[0].dbConnRef: there is no connection `mian` (configured: main); did you mean `main`?",
        ),
        (
            at("spaceConnRef"),
            json!("s4"),
            "databases.runtime.tenantDatabases[0].spaceConnRef: there is no connection `s4`",
        ),
        (at("dbName"), json!(""), "databases.runtime.tenantDatabases[0].dbName: is missing or empty"),
        (at("dbName"), json!("a/b"), "databases.runtime.tenantDatabases[0].dbName: the database `a/b`"),
        (at("dbName"), json!("a.b"), "databases.runtime.tenantDatabases[0].dbName: the database `a.b`"),
        (
            at("dbName"),
            json!("x".repeat(64)),
            "databases.runtime.tenantDatabases[0].dbName: the name of a database has at most 63",
        ),
        (at("tenantId"), json!("../b"), "databases.runtime.tenantDatabases[0].tenantId: the tenant `../b`"),
        (
            at("tenantId"),
            json!("b"),
            "databases.runtime.tenantDatabases[1]: answers the same contexts as databases.runtime.tenantDatabases[0]",
        ),
        (at("bucket"), json!("a/../b"), "databases.runtime.tenantDatabases[0].bucket: the bucket"),
        (
            at("analyticsDbName"),
            json!(7),
            "databases.runtime.tenantDatabases[0].analyticsDbName: expected a string, found a number",
        ),
        (
            "/databases/runtime/tenantDatabases".into(),
            json!({}),
            "databases.runtime.tenantDatabases: expected a list, found an object",
        ),
        (
            "/databases/messaging/captureDeliveries".into(),
            json!("no"),
            "databases.messaging.captureDeliveries: expected true or false",
        ),
        (
            "/databases/messaging/tenantDatabases".into(),
            json!([]),
            "databases.messaging.dbConnRef: stands beside `tenantDatabases`",
        ),
        ("/databases".into(), json!({}), "databases: needs at least one of"),
        ("/databases".into(), json!(null), "databases: is missing"),
        ("/dbConnections".into(), json!({}), "dbConnections: needs at least one connection"),
        (
            "/dbConnections/main".into(),
            json!({"mongoUri": "mysql://x"}),
            "dbConnections.main.mongoUri: Invalid MongoDB URI format",
        ),
        ("/dbConnections/my.db".into(), json!({}), "dbConnections[\"my.db\"].mongoUri: is missing or empty"),
        (
            "/spacesConnections/s3/endpoint".into(),
            json!("https://u:p@x"),
            "spacesConnections.s3.endpoint: Invalid S3 endpoint URL",
        ),
        (
            "/spacesConnections/s3/secretKey".into(),
            json!(""),
            "spacesConnections.s3.secretKey: is missing or empty",
        ),
        (
            "/spacesConnections/s3/provider".into(),
            json!("gcs"),
            "spacesConnections.s3.provider: `gcs` is none of",
        ),
        ("/mongoUris".into(), json!(["mongodb://x"]), "mongoUris: stands beside `dbConnections`"),
        ("/localStorage".into(), json!({"enabled": true}), "localStorage.basePath: is missing or empty"),
        ("/routing".into(), json!({"hashAlgo": "md5"}), "routing.hashAlgo: `md5` is neither"),
        (
            "/retention".into(),
            json!({"ver": {"days": 0}}),
            "retention.ver.days: must be a whole number from 1",
        ),
        (
            "/retention".into(),
            json!({"ver": {"maxPerItem": 1, "maxVersions": 2}}),
            "retention.ver.maxVersions: is another name of `maxPerItem`",
        ),
        ("/devShadow".into(), shadow(json!(0)), "devShadow.ttlHours: must be a whole number from 1"),
        ("/devShadow".into(), shadow(json!(1.5)), "devShadow.ttlHours: must be a whole number"),
        ("/devShadow".into(), json!({"enabled": true}), "devShadow.ttlHours: is missing"),
        ("/updateMode".into(), json!("patch"), "updateMode: `patch` is neither"),
        ("/inlineMaxBytes".into(), json!(-1), "inlineMaxBytes: must be a whole number from 0"),
        ("/transactions".into(), json!({"enabled": "yes"}), "transactions.enabled: expected true or false"),
        ("/logicalDelete".into(), json!(false), "logicalDelete: expected an object, found a boolean"),
        ("/hardDeleteEnabled".into(), json!({}), "hardDeleteEnabled: expected true or false"),
        (
            "/fallback".into(),
            json!({"maxAttempts": 3, "maxRetries": 4}),
            "fallback.maxRetries: is another name of `maxAttempts`",
        ),
        (
            "/fallback".into(),
            json!({"baseDelayMs": 3, "retryDelayMs": 4}),
            "fallback.retryDelayMs: is another name of `baseDelayMs`",
        ),
        (
            "/fallback".into(),
            json!({"maxAttempts": 0}),
            "fallback.maxAttempts: must be a whole number from 1",
        ),
        (
            "/fallback".into(),
            json!({"deadLetterCollection": "a/b"}),
            "fallback.deadLetterCollection: the collection `a/b`",
        ),
        (
            "/fallback".into(),
            json!({"deadLetterCollection": "chronos_fallback_ops"}),
            "fallback.deadLetterCollection: `chronos_fallback_ops` holds",
        ),
        ("/analytics".into(), json!({"counterRules": {}}), "analytics.counterRules: expected a list"),
        ("/counterRules".into(), json!([]), "counterRules: expected an object, found a list"),
        ("/collectionMaps".into(), json!({"a/b": {}}), "collectionMaps[\"a/b\"]: the collection `a/b`"),
        (
            "/collectionMaps".into(),
            map(json!({"indexedProps": ["a..b"]})),
            "collectionMaps.users.indexedProps[0]: the path `a..b` has an empty segment",
        ),
        (
            "/collectionMaps".into(),
            map(json!({"indexedProps": ["$where"]})),
            "collectionMaps.users.indexedProps[0]: the path `$where`",
        ),
        (
            "/collectionMaps".into(),
            map(json!({"indexedProps": ["a[0]"]})),
            "collectionMaps.users.indexedProps[0]: the path `a[0]`",
        ),
        (
            "/collectionMaps".into(),
            map(json!({"indexedProps": ["_system.ov"]})),
            "collectionMaps.users.indexedProps[0]: the path `_system.ov`",
        ),
        (
            "/collectionMaps".into(),
            map(json!({"validation": {"requiredIndexed": [""]}})),
            "collectionMaps.users.validation.requiredIndexed[0]: is empty",
        ),
        (
            "/collectionMaps".into(),
            map(json!({"base64Props": {"file": {}}})),
            "collectionMaps.users.base64Props.file.contentType: is missing or empty",
        ),
        ("/counters".into(), json!({"dbName": "c"}), "counters.dbConnRef: is missing or empty"),
    ];
    for (pointer, value, expected) in mistakes {
        let document = with(v2(), &pointer, value);
        let error = parse(&document).expect_err(expected);
        assert_eq!(error.code(), "VALIDATION_ERROR");
        assert!(error.message().starts_with(expected), "expected `{expected}…`, got `{}`", error.message());
    }
}

#[test]
fn what_is_no_configuration_is_refused_with_what_is_expected() {
    for (text, expected) in [
        ("", "the configuration is not JSON"),
        ("[]", "$: expected an object, found a list"),
        ("{}", "dbConnections: is missing; a configuration has"),
        (r#"{"mongoConns": []}"#, "mongoConns: the shape of 1.5 is not supported"),
    ] {
        let error = Config::parse(text, Path::new("/")).unwrap_err();
        assert!(error.message().starts_with(expected), "{}", error.message());
    }
    let error = Config::from_file("/nowhere/chronos.json").unwrap_err();
    assert!(error.message().starts_with("the configuration file /nowhere/chronos.json cannot be read"));
}

#[test]
fn unknown_keys_are_reported_with_the_known_one_they_resemble() {
    let mut document = with(v2(), "/databases/runtime/tenantDatabases/0/bucktet", json!("x"));
    document["colectionMaps"] = json!({});
    document["databases"]["runtim"] = json!({});
    document["transactions"] = json!({"autodetect": false});
    document["zzz"] = json!(1);
    let warnings = parse(&document).unwrap().warnings;
    let shown: Vec<String> =
        warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect();
    for (path, hint) in [
        ("databases.runtime.tenantDatabases[0].bucktet", "did you mean `bucket`?"),
        ("colectionMaps", "did you mean `collectionMaps`?"),
        ("databases.runtim", "did you mean `runtime`?"),
        ("transactions.autodetect", "did you mean `autoDetect`?"),
        ("zzz", "has no effect"),
    ] {
        assert!(
            shown.iter().any(|line| line.starts_with(&format!("{path}: ")) && line.ends_with(hint)),
            "{path} in {shown:#?}"
        );
    }
    assert_eq!(shown.len(), 5);
}

#[test]
fn settings_are_read_and_have_the_documented_defaults() {
    let plain = parse(&v2()).unwrap();
    assert!(
        plain.logical_delete
            && plain.versioning
            && plain.transactions.enabled
            && plain.transactions.auto_detect
    );
    assert!(
        !plain.hard_delete_enabled() && plain.dev_shadow.is_none() && plain.update_mode == UpdateMode::Merge
    );
    assert_eq!(plain.inline_max_bytes, 1024 * 1024);
    assert_eq!(plain.routing.choose_key, "tenantId|dbName|collection:objectId");

    let mut document = v2();
    for (key, value) in [
        ("logicalDelete", json!({"enabled": false})),
        ("versioning", json!({"enabled": false})),
        ("transactions", json!({"enabled": false})),
        ("hardDeleteEnabled", json!(true)),
        ("updateMode", json!("replace")),
        ("inlineMaxBytes", json!(2048)),
        ("devShadow", json!({"enabled": true, "ttlHours": 24, "maxBytesPerDoc": 100})),
        ("retention", json!({"ver": {"days": 30, "maxVersions": 5}, "objects": {"graceDays": 1}})),
        ("routing", json!({"hashAlgo": "jump", "chooseKey": "collection"})),
        ("chronow", json!({"redis": {"url": "redis://x"}, "anything": [1]})),
        ("fallback", json!({"enabled": true, "maxRetries": 3})),
        ("counters", json!({"dbConnRef": "main", "dbName": "all_counters"})),
        (
            "collectionMaps",
            json!({"users": {
            "indexedProps": ["email", "tags[]", "address.city"],
            "base64Props": {"photo": {"contentType": "image/png"}, "cv": {"contentType": "text/plain", "preferredText": true, "textCharset": "latin1"}},
            "validation": {"requiredIndexed": ["email"]}}}),
        ),
    ] {
        document[key] = value;
    }
    let config = parse(&document).unwrap();
    assert_eq!(config.warnings, []);
    assert!(
        !config.logical_delete
            && !config.versioning
            && !config.transactions.enabled
            && config.hard_delete_enabled()
    );
    assert_eq!((config.update_mode, config.inline_max_bytes), (UpdateMode::Replace, 2048));
    let shadow = config.dev_shadow.unwrap();
    assert_eq!((shadow.ttl, shadow.max_bytes), (Duration::from_secs(24 * 3_600), Some(100)));
    assert_eq!(
        (config.retention.max_age, config.retention.max_per_item),
        (Some(Duration::from_secs(30 * 86_400)), Some(5))
    );
    assert_eq!(
        (config.routing.hash, config.routing.choose_key.as_str()),
        (HashAlgorithm::Jump, "collection")
    );
    assert_eq!(config.sections["chronow"]["anything"], json!([1]));
    assert_eq!(config.sections["fallback"]["maxRetries"], json!(3));
    assert_eq!(config.fallback, Some(Fallback::default().max_attempts(3)));
    assert_eq!(config.counters(), Some(Counters { connection: "main", database: "all_counters" }));
    let users = &config.collection_maps["users"];
    assert_eq!(users.indexed, ["email", "tags[]", "address.city"]);
    assert_eq!(users.required, ["email"]);
    assert_eq!(users.base64["photo"], Base64Property::new("image/png"));
    assert!(users.base64["cv"].preferred_text && users.base64["cv"].text_charset == "latin1");
}

#[test]
fn both_spellings_of_the_fallback_queue_say_the_same() {
    let read = |section: Json| parse(&with(v2(), "/fallback", section)).unwrap().fallback;
    let wanted = Fallback::default()
        .max_attempts(5)
        .delays(Duration::from_millis(100), Duration::from_secs(1))
        .dead_letter_collection("given_up")
        .spool(std::path::absolute(Path::new("/etc/app").join("./spool")).unwrap());
    let common = json!({"maxDelayMs": 1000, "deadLetterCollection": "given_up", "spoolPath": "./spool"});
    for (attempts, delay) in
        [("maxAttempts", "baseDelayMs"), ("maxRetries", "retryDelayMs"), ("maxAttempts", "retryDelayMs")]
    {
        let mut section = common.clone();
        section[attempts] = json!(5);
        section[delay] = json!(100);
        assert_eq!(read(section).as_ref(), Some(&wanted), "{attempts}, {delay}");
    }
    assert_eq!(read(json!({})), Some(Fallback::default()));
    assert_eq!(read(json!({"enabled": false, "maxAttempts": 5})), None);
    assert_eq!(parse(&v2()).unwrap().fallback, None);
}

#[test]
fn databases_that_two_contexts_share_are_warned_of() {
    let config = parse(&with(v2(), "/databases/runtime/tenantDatabases/1/dbName", json!("run_a"))).unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert_eq!(config.warnings[0].path, "databases.runtime.tenantDatabases[1].dbName");
    let described = config.describe();
    let shares = |entry: &str| {
        let found = described["entries"].as_array().unwrap().iter().find(|e| e["path"] == entry).unwrap();
        found.get("sharesDatabaseWith").cloned().unwrap_or_default()
    };
    assert_eq!(
        shares("databases.runtime.tenantDatabases[0]"),
        json!(["databases.runtime.tenantDatabases[1]"])
    );
    assert_eq!(
        shares("databases.runtime.tenantDatabases[1]"),
        json!(["databases.runtime.tenantDatabases[0]"])
    );
    assert_eq!(shares("databases.logs"), Json::Null);
}

#[test]
fn databases_that_only_the_stores_can_tell_apart_are_shown_as_such() {
    let config = |one: &str, other: &str| {
        let entry = |tenant: &str| json!({"tenantId": tenant, "dbConnRef": tenant, "dbName": "app"});
        let document = json!({
            "dbConnections": {"a": {"mongoUri": one}, "b": {"mongoUri": other}},
            "databases": {"runtime": {"tenantDatabases": [entry("a"), entry("b")]}},
        });
        parse(&document).unwrap().describe()["entries"][0]["mayShareDatabaseWith"].clone()
    };
    let open = json!(["databases.runtime.tenantDatabases[1]"]);
    assert_eq!(config("mongodb://127.0.0.1", "mongodb://localhost/?appName=b"), open);
    assert_eq!(config("embedded:./data", "embedded:./data/chronos.db"), open);
    assert_eq!(config("mongodb://a/?replicaSet=one", "mongodb://b/?replicaset=two"), Json::Null);
    assert_eq!(config("mongodb://a", "embedded:./data"), Json::Null);
    assert_eq!(config("embedded::memory:", "embedded::memory:"), Json::Null);
}

#[test]
fn no_option_that_is_accepted_is_without_effect() {
    let mut document = v2();
    for (key, value) in [
        ("retention", json!({"ver": {"days": 3}, "objects": {}})),
        ("counters", json!({"mongoUri": "mongodb://c", "dbName": "counts"})),
        ("rollup", json!({"enabled": false})),
    ] {
        document[key] = value;
    }
    let config = parse(&document).unwrap();
    assert_eq!(config.retention.objects, Some(Duration::from_secs(7 * 86_400)), "the default");
    document["retention"]["objects"] = json!({"graceDays": 0});
    assert!(parse(&document).unwrap_err().message().contains("retention.objects.graceDays"));
    document["retention"]["objects"] = json!({"enabled": false, "graceDays": 3});
    assert_eq!(parse(&document).unwrap().retention.objects, None);
    let idle = |warning: &chronos_db::config::Warning| {
        warning.path == "rollup.enabled" && warning.message.contains("stays in the index")
    };
    assert!(config.warnings.iter().any(idle), "{:?}", config.warnings);
}

#[test]
fn databases_of_the_server_itself_are_refused() {
    for name in ["local", "config", "admin", "Admin"] {
        let error =
            parse(&with(v2(), "/databases/runtime/tenantDatabases/0/dbName", json!(name))).unwrap_err();
        assert!(
            error.message().starts_with("databases.runtime.tenantDatabases[0].dbName: ")
                && error.message().contains("MongoDB's own")
        );
    }
}

#[test]
fn providers_are_recognised_by_name_or_by_endpoint() {
    let mut document = v2();
    document["spacesConnections"] = json!({
        "s3": {"endpoint": "http://127.0.0.1:9000", "accessKey": "a", "secretKey": "s"},
        "azure": {"endpoint": "https://acc.blob.core.windows.net", "accessKey": "acc", "secretKey": "c2VjcmV0"},
        "azurite": {"endpoint": "http://127.0.0.1:10000/devstoreaccount1", "accessKey": "acc", "secretKey": "c2VjcmV0", "region": "-"},
        "named": {"provider": "azure", "endpoint": "https://storage.example.org", "accessKey": "acc", "secretKey": "no base64!"},
        "folder": {"endpoint": "./objects"},
        "memory": {"provider": "memory"},
    });
    let config = parse(&document).unwrap();
    let provider = |name: &str| config.spaces[name].provider;
    assert_eq!(
        ["s3", "azure", "azurite", "named", "folder", "memory"].map(provider),
        [Provider::S3, Provider::Azure, Provider::Azure, Provider::Azure, Provider::Local, Provider::Memory]
    );
    assert!(config.spaces["s3"].force_path_style, "a bucket cannot be a part of an address");
    assert_eq!(config.spaces["folder"].endpoint, "/etc/app/objects");
    assert_eq!(
        config.warnings.iter().map(|warning| warning.path.as_str()).collect::<Vec<_>>(),
        ["spacesConnections.named.secretKey"]
    );
}

#[test]
fn environment_values_are_taken_from_the_given_lookup_only() {
    let mut document = json!({"a": ["ENV.ONE", "ENV.lower", "xENV.ONE"], "b": {"c": "ENV.TWO_2"}});
    expand_env(&mut document, |name| Some(format!("<{name}>"))).unwrap();
    assert_eq!(document, json!({"a": ["<ONE>", "ENV.lower", "xENV.ONE"], "b": {"c": "<TWO_2>"}}));
    for empty in [None, Some(String::new())] {
        let error = expand_env(&mut json!({"b": [{"c": "ENV.GONE"}]}), |_| empty.clone()).unwrap_err();
        assert_eq!(error.message(), "b[0].c: the environment variable GONE is not set or empty");
    }
}
