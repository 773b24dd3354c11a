//! Configurations that are built in Rust.

use std::path::Path;
use std::time::Duration;

use chronos_db::config::{
    AnalyticsOperation, Base64Property, CollectionMap, Config, ConfigBuilder, CountedOp, CounterRetention,
    CounterRule, CrossTenantMode, CrossTenantRule, Database, DatabaseType, DevShadow, HashAlgorithm,
    Retention, RuleScope, Selector, SpaceConnection, TimeBasedRule, Timeframe, Transactions, UpdateMode,
    WriteOptimization,
};
use chronos_db::{ErrorKind, json};
use secrecy::ExposeSecret;

use crate::config::{parse, v2};

const HOUR: Duration = Duration::from_secs(3_600);

fn s3() -> SpaceConnection {
    SpaceConnection::s3("https://s3.amazonaws.com", "ak", "sk").region("eu-1")
}

/// What `v2` says.
fn built() -> ConfigBuilder {
    let on = |database: Database, bucket: &str| database.space("s3").bucket(bucket);
    let metadata = |selector, name: &str| {
        Database::new(DatabaseType::Metadata, selector, "main", name.replace('-', "_"))
    };
    let (generic, domain, tenant) =
        (Selector::Generic, Selector::Domain("health".into()), Selector::Tenant("a".into()));
    Config::builder()
        .connection("main", "mongodb://user:pw@localhost:27017")
        .space("s3", s3())
        .database(on(metadata(generic, "meta"), "meta"))
        .database(on(metadata(domain, "meta-h"), "meta-h"))
        .database(on(metadata(tenant, "meta-a"), "meta-a"))
        .database(on(Database::runtime("a", "main", "run_a").analytics("ana_a"), "run-a"))
        .database(on(Database::runtime("b", "main", "run_b"), "run-b"))
        .database(on(Database::logs("main", "logs"), "logs"))
        .database(Database::messaging("main", "msg").capture_deliveries(true))
        .database(Database::identities("main", "ids"))
}

#[test]
fn what_is_built_is_what_the_file_would_say() {
    let (read, built) = (parse(&v2()).unwrap(), built().build().unwrap());
    assert_eq!(format!("{built:#?}"), format!("{read:#?}"));
    assert_eq!(built.connections["main"].uri.expose_secret(), read.connections["main"].uri.expose_secret());
    assert_eq!(built.spaces["s3"].secret_key.expose_secret(), read.spaces["s3"].secret_key.expose_secret());
}

#[test]
fn every_setting_can_be_built() {
    let mut document = v2();
    for (key, value) in [
        ("logicalDelete", json!({"enabled": false})),
        ("versioning", json!({"enabled": false})),
        ("transactions", json!({"enabled": false, "autoDetect": false})),
        ("hardDeleteEnabled", json!(true)),
        ("updateMode", json!("replace")),
        ("inlineMaxBytes", json!(2048)),
        ("timeoutMs", json!(1500)),
        ("localStorage", json!({"basePath": "/var/objects"})),
        ("devShadow", json!({"ttlHours": 24, "maxBytesPerDoc": 100})),
        (
            "writeOptimization",
            json!({"batchSize": 100, "debounceMs": 50, "compressionEnabled": true, "debounceCountersMs": 1000, "allowShadowSkip": true}),
        ),
        (
            "retention",
            json!({"ver": {"days": 30, "maxPerItem": 5}, "counters": {"days": 7, "weeks": 4, "months": 2}}),
        ),
        (
            "counterRules",
            json!({"rules": [
                {"name": "all", "scope": "meta", "countUnique": []},
                {"name": "large", "scope": "payload", "countUnique": ["n"], "on": ["CREATE"], "when": {"n": {"$gt": 1}}, "mode": "gauge"},
            ]}),
        ),
        (
            "analytics",
            json!({
                "timeBasedRules": [
                    {"name": "plain", "collection": "users", "operation": "count", "saveMode": "global"},
                    {"name": "days", "collection": "users", "query": {"email": "a"}, "operation": "sum", "field": "photo", "saveMode": "timeframe",
                     "timeframe": "daily", "arguments": ["email"], "relativeTime": {"newerThan": "P2D", "olderThan": "PT1H"}},
                ],
                "crossTenantRules": [{"name": "both", "collection": "users", "mode": "boolean", "masterTenantId": "a", "slaveTenantIds": ["a", "b"]}],
            }),
        ),
        ("routing", json!({"hashAlgo": "jump", "chooseKey": "collection|colour"})),
        ("counters", json!({"dbConnRef": "main", "dbName": "all_counters"})),
        (
            "collectionMaps",
            json!({"users": {
                "indexedProps": ["email", "email", "photo"],
                "base64Props": {"photo": {"contentType": "image/png", "preferredText": true, "textCharset": "latin1"}},
                "validation": {"requiredIndexed": ["name"]},
            }}),
        ),
    ] {
        document[key] = value;
    }
    let photo = Base64Property::new("image/png").preferred_text(true).text_charset("latin1");
    let users = CollectionMap::default().indexed(["email", "email", "photo"]).required(["name"]);
    let built = built()
        .logical_delete(false)
        .versioning(false)
        .transactions(Transactions::default().enabled(false).auto_detect(false))
        .hard_delete(true)
        .update_mode(UpdateMode::Replace)
        .inline_max_bytes(2_048)
        .timeout(Duration::from_millis(1_500))
        .local_storage("/var/objects")
        .dev_shadow(DevShadow::new(24 * HOUR).max_bytes(100))
        .write_optimization(
            WriteOptimization::default()
                .batches(Duration::from_millis(50), 100)
                .compression(true)
                .counters_every(Duration::from_secs(1))
                .skip_large_shadows(true),
        )
        .retention(Retention::default().max_age(30 * 24 * HOUR).max_per_item(5))
        .hash_algorithm(HashAlgorithm::Jump)
        .choose_key("collection|colour")
        .counters("main", "all_counters")
        .counter_rule(CounterRule::new("all"))
        .counter_rule(
            CounterRule::new("large")
                .on([CountedOp::Create])
                .scope(RuleScope::Payload)
                .when(json!({"n": {"$gt": 1}}))
                .count_unique(["n"])
                .gauge(),
        )
        .counter_retention(CounterRetention::default().days(7).weeks(4).months(2))
        .time_based_rule(TimeBasedRule::new("plain", "users", AnalyticsOperation::Count))
        .time_based_rule(
            TimeBasedRule::new("days", "users", AnalyticsOperation::Sum)
                .query(json!({"email": "a"}))
                .field("photo")
                .timeframe(Timeframe::Daily)
                .arguments(["email"])
                .newer_than("P2D")
                .older_than("PT1H"),
        )
        .cross_tenant_rule(CrossTenantRule::new("both", "users", CrossTenantMode::Boolean, "a", ["a", "b"]))
        .collection("users", users.base64("photo", photo))
        .build()
        .unwrap();
    let read = parse(&document).unwrap();
    // Warnings may come in another order, and the text of a section is kept for a file only.
    let sorted = |config: &Config| {
        let mut described = config.describe();
        let reported = described["warnings"].as_array_mut().unwrap();
        reported.sort_by_key(|warning| warning["path"].to_string());
        described["sections"]
            .as_array_mut()
            .unwrap()
            .retain(|section| *section != "retention" && *section != "writeOptimization");
        described
    };
    assert_eq!(sorted(&built), sorted(&read));
    assert_eq!(built.collection_maps, read.collection_maps);
    assert_eq!(built.sections["counterRules"], read.sections["counterRules"]);
    assert_eq!(built.sections["analytics"], read.sections["analytics"]);
    assert_eq!(built.sections["retention"]["counters"], read.sections["retention"]["counters"]);
    assert_eq!(built.timeout, read.timeout);
}

#[test]
fn version_1_can_be_built_with_the_identities_that_its_hash_is_made_from() {
    let space = json!({"endpoint": "https://s3.amazonaws.com", "region": "eu-1", "accessKey": "ak", "secretKey": "sk", "jsonBucket": "j"});
    let read = parse(&json!({"mongoUris": ["mongodb://a", "mongodb://b"], "spacesConns": [space, space]}));
    let built = Config::builder()
        .connection("a", "mongodb://a")
        .connection("b", "mongodb://b")
        .space("s3", s3())
        .database(Database::hashed("a").space("s3").json_bucket("j"))
        .database(Database::hashed("b").space("s3").json_bucket("j"))
        .build();
    let shown = |config: Config| -> Vec<_> {
        let shown = config.entries.into_iter().map(|entry| {
            let buckets = entry.objects.unwrap().buckets;
            (entry.path, entry.selector, buckets, entry.backend_id.unwrap().expose_secret().to_owned())
        });
        shown.collect()
    };
    let built = shown(built.unwrap());
    assert_eq!(built, shown(read.unwrap()));
    assert_eq!(built[1].3, "mongodb://b|https://s3.amazonaws.com|j");
}

#[test]
fn the_embedded_builder_begins_with_the_embedded_configuration() {
    let folder = Path::new("/var/lib/app");
    let built = Config::embedded_builder(folder).build().unwrap();
    assert_eq!(format!("{built:#?}"), format!("{:#?}", Config::embedded(folder)));
    assert_eq!(built.connections["embedded"].uri.expose_secret(), "embedded:/var/lib/app");
    let other = Config::embedded_builder(folder).connection("embedded", "mongodb://h").build().unwrap();
    assert_eq!(other.connections["embedded"].uri.expose_secret(), "mongodb://h", "what is given last counts");
}

#[test]
fn every_mistake_is_an_error_that_starts_with_the_path_in_a_file() {
    let main = || Config::builder().connection("main", "mongodb://localhost");
    let one = || main().database(Database::logs("main", "logs"));
    let map = |map: CollectionMap| one().collection("users", map);
    let rule = |rule: CounterRule| one().counter_rule(rule);
    let tenant = |tenant: &str| main().database(Database::runtime(tenant, "main", "app"));
    let space = |space| one().space("s3", space);
    let mistakes = [
        (Config::builder().database(Database::logs("main", "logs")), "dbConnections: needs at least one"),
        (main(), "databases: needs at least one"),
        (
            Config::builder().connection("my.db", "mysql://hidden"),
            "dbConnections[\"my.db\"].mongoUri: Invalid MongoDB URI format",
        ),
        (tenant("../b"), "databases.runtime.tenantDatabases[0].tenantId: the tenant `../b`"),
        (
            tenant("a").database(Database::runtime("a", "main", "other")),
            "databases.runtime.tenantDatabases[1]: answers the same contexts as databases.runtime.tenantDatabases[0]",
        ),
        (
            main().database(Database::messaging("mian", "msg")),
            "databases.messaging.dbConnRef: there is no connection `mian` (configured: main); did you mean",
        ),
        (main().database(Database::identities("main", "a/b")), "databases.identities.dbName: the database"),
        (
            main().database(Database::messaging("main", "all")).database(Database::new(
                DatabaseType::Messaging,
                Selector::Tenant("a".into()),
                "main",
                "of_a",
            )),
            "databases.messaging.tenantDatabases[0]: is never used, or hides databases.messaging",
        ),
        (
            main().database(Database::logs("main", "a").space("s3")),
            "databases.logs.spaceConnRef: there is no",
        ),
        (main().database(Database::logs("main", "a").bucket("a/../b")), "databases.logs.bucket: the bucket"),
        (main().database(Database::hashed("gone")), "mongoUris[0].dbConnRef: there is no connection `gone`"),
        (
            main().database(Database::new(DatabaseType::Logs, Selector::Tenant("a".into()), "main", "a")),
            "databases.logs.tenantDatabases[0]: logs has no database for `tenant a`",
        ),
        (
            space(SpaceConnection::s3("https://u:hidden@x", "a", "b")),
            "spacesConnections.s3.endpoint: Invalid",
        ),
        (space(SpaceConnection::s3("https://x", "a", "")), "spacesConnections.s3.secretKey: is missing"),
        (one().inline_max_bytes(13 << 20), "inlineMaxBytes: must be a whole number from 0 to 12582912"),
        (one().timeout(Duration::from_micros(1)), "timeoutMs: must be a whole number from 1 to 86400000"),
        (one().dev_shadow(DevShadow::new(HOUR / 2)), "devShadow.ttlHours: must be a whole number from 1"),
        (
            one().write_optimization(WriteOptimization::default().batches(HOUR, 1)),
            "writeOptimization.batchWindowMs: must be a whole number from 0",
        ),
        (
            one().write_optimization(WriteOptimization::default().batches(Duration::ZERO, 0)),
            "writeOptimization.batchSize: must be a whole number from 1",
        ),
        (one().retention(Retention::default().max_age(HOUR)), "retention.ver.days: must be a whole number"),
        (one().retention(Retention::default().max_per_item(0)), "retention.ver.maxPerItem: must be"),
        (map(CollectionMap::default().indexed(["a..b"])), "collectionMaps.users.indexedProps[0]: the path"),
        (
            map(CollectionMap::default().base64("file", Base64Property::new(""))),
            "collectionMaps.users.base64Props.file.contentType: is missing or empty",
        ),
        (one().collection("a/b", CollectionMap::default()), "collectionMaps[\"a/b\"]: the collection `a/b`"),
        (one().counters("gone", "c"), "counters.dbConnRef: there is no connection `gone`"),
        (rule(CounterRule::new("all").when(json!({"$where": "1"}))), "counterRules.rules[0].when: "),
        (rule(CounterRule::new(" ")), "counterRules.rules[0].name: is missing or empty"),
        (
            rule(CounterRule::new("all")).counter_rule(CounterRule::new("all").gauge()),
            "counterRules.rules[1]: there is another rule of the name `all`",
        ),
    ];
    for (builder, expected) in mistakes {
        let error = builder.build().expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Validation);
        let message = error.message();
        assert!(message.starts_with(expected) && !message.contains("hidden"), "`{expected}…`: `{message}`");
    }
}

#[test]
fn a_builder_shows_no_secret() {
    let builder = Config::builder()
        .connection("main", "mongodb://user:h1dden@localhost")
        .space("s3", SpaceConnection::azure("https://x", "h1dden", "h1dden"));
    assert!(!format!("{builder:?}").contains("h1dden"));
}
