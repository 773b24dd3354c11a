//! Configuration from JSON and from the environment.

use std::collections::BTreeMap;
use std::time::Duration;

use chronos_db::json;
use chronow::{Chronow, Config, ConfigBuilder, ErrorKind, Redis, Space};
use secrecy::ExposeSecret as _;

fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let map: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| map.get(name).cloned()
}

#[test]
fn every_variable_is_read() {
    let config = Config::from_env(env(&[
        ("CHRONOW_MONGO_ONLY", "false"),
        ("REDIS_URL", "redis://user:pass@host:6379/0"),
        ("REDIS_TLS", "true"),
        ("REDIS_USERNAME", "me"),
        ("REDIS_PASSWORD", "secret"),
        ("REDIS_DB", "3"),
        ("REDIS_KEY_PREFIX", "app:"),
        ("REDIS_RETRY_MS", "1000"),
        ("REDIS_CLUSTER_NODES", r#"["host1:6379","host2:6379"]"#),
        ("REDIS_CA_CERT", "/etc/ssl/ca.pem"),
        ("MONGO_URI", "mongodb://localhost:27017"),
        ("REDIS_VISIBILITY_TIMEOUT_MS", "5000"),
        ("REDIS_MAX_STREAM_LEN", "7"),
        ("REDIS_MAX_PAYLOAD_BYTES", "1024"),
        ("SPACE_ENDPOINT", "https://s3.amazonaws.com"),
        ("SPACE_ACCESS_KEY", "key"),
        ("SPACE_SECRET_KEY", "hidden"),
    ]))
    .unwrap();
    let space = config.space.unwrap();
    assert_eq!(
        (space.endpoint.as_str(), space.access_key.expose_secret(), space.secret_key.expose_secret()),
        ("https://s3.amazonaws.com", "key", "hidden")
    );
    assert_eq!(config.warnings.len(), 1, "retries have a backoff of their own: {:?}", config.warnings);
    let redis = config.redis.unwrap();
    assert_eq!(redis.url.unwrap().expose_secret(), "redis://user:pass@host:6379/0");
    assert_eq!(
        redis.cluster_nodes.iter().map(|node| node.expose_secret()).collect::<Vec<_>>(),
        ["host1:6379", "host2:6379"]
    );
    assert_eq!(
        (redis.tls, redis.db, redis.username.as_deref(), redis.key_prefix.as_deref()),
        (Some(true), Some(3), Some("me"), Some("app:"))
    );
    assert_eq!(redis.password.unwrap().expose_secret(), "secret");
    assert_eq!(redis.ca_cert.unwrap().to_str(), Some("/etc/ssl/ca.pem"));
    assert_eq!(config.mongo_uri.unwrap().expose_secret(), "mongodb://localhost:27017");
    assert_eq!(
        (config.defaults.visibility, config.defaults.max_len, config.defaults.max_payload_bytes),
        (Duration::from_secs(5), 7, 1_024)
    );
    assert!(!config.mongo_only);
}

#[test]
fn empty_variables_count_as_not_set() {
    let config = Config::from_env(env(&[
        ("REDIS_URL", ""),
        ("REDIS_USERNAME", ""),
        ("REDIS_DB", "0"),
        ("REDIS_KEY_PREFIX", "cw:"),
    ]))
    .unwrap();
    assert!(config.redis.is_none(), "settings without a server do not configure one");
}

#[test]
fn wrong_variables_are_named() {
    for (name, value) in [
        ("REDIS_DB", "x"),
        ("REDIS_TLS", "perhaps"),
        ("REDIS_CLUSTER_NODES", "[1]"),
        ("REDIS_MAX_STREAM_LEN", "-1"),
        ("REDIS_VISIBILITY_TIMEOUT_MS", "1.5"),
        ("CHRONOW_MONGO_ONLY", "2"),
        ("REDIS_RETRY_MS", "soon"),
        ("REDIS_MAX_PAYLOAD_BYTES", "99999999999999999999999"),
    ] {
        let error = Config::from_env(env(&[(name, value)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().starts_with(name), "{error}");
    }
}

#[test]
fn a_storage_needs_its_credentials() {
    let whole =
        [("SPACE_ENDPOINT", "https://s3"), ("SPACE_ACCESS_KEY", "key"), ("SPACE_SECRET_KEY", "hidden")];
    for missing in 1..3 {
        let pairs: Vec<_> =
            whole.iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, pair)| *pair).collect();
        let error = Config::from_env(env(&pairs)).unwrap_err();
        assert!(
            error.message().starts_with(whole[missing].0) && !error.message().contains("hidden"),
            "{error}"
        );
    }
    assert!(
        Config::from_env(env(&whole[1..])).unwrap().space.is_none(),
        "credentials without a storage do not configure one"
    );
    let wrong = Config::from_json(&json!({"space": {"endpoint": "s3", "accessKey": "a", "secretKey": "b"}}))
        .unwrap_err();
    assert!(wrong.message().starts_with("space.endpoint"), "{wrong}");
    let config =
        Config::from_json(&json!({"defaults": {"maxPayloadBytes": 10, "maxMessageBytes": 20}})).unwrap();
    assert_eq!((config.defaults.max_payload_bytes, config.defaults.max_message_bytes), (10, 20));
}

#[test]
fn cluster_nodes_have_two_spellings_in_both_places() {
    for spelling in [json!(["a:1", "b:2"]), json!("a:1, b:2")] {
        let config = Config::from_json(&json!({"redis": {"clusterNodes": spelling}})).unwrap();
        assert_eq!(config.redis.unwrap().cluster_nodes.len(), 2);
    }
    for spelling in [r#"["a:1","b:2"]"#, "a:1,b:2"] {
        let config = Config::from_env(env(&[("REDIS_CLUSTER_NODES", spelling)])).unwrap();
        assert_eq!(config.redis.unwrap().cluster_nodes.len(), 2);
    }
    for wrong in [json!(["a"]), json!([""]), json!("a:x"), json!(7), json!([1])] {
        assert!(Config::from_json(&json!({"redis": {"clusterNodes": wrong}})).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_said_explicitly_wins_over_the_environment() {
    let variables = env(&[
        ("REDIS_CLUSTER_NODES", "x:1"),
        ("REDIS_URL", "redis://x"),
        ("REDIS_DB", "5"),
        ("REDIS_MAX_STREAM_LEN", "9"),
        ("CHRONOW_MONGO_ONLY", "true"),
    ]);
    let explicit =
        json!({"redis": {"url": "redis://mine", "keyPrefix": "p:"}, "defaults": {"maxStreamLen": 4}});
    let config = Config::from_json_and_env(&explicit, variables).unwrap();
    let redis = config.redis.unwrap();
    assert_eq!(redis.url.unwrap().expose_secret(), "redis://mine");
    assert!(redis.cluster_nodes.is_empty(), "who names servers means those alone");
    assert_eq!(
        (redis.db, redis.key_prefix.as_deref()),
        (Some(5), Some("p:")),
        "what is not said comes from the environment"
    );
    assert_eq!(config.defaults.max_len, 4);
    assert!(!config.mongo_only);
    let config =
        Config::from_json_and_env(&json!({"mongoOnly": true}), env(&[("REDIS_URL", "redis://x")])).unwrap();
    assert!(config.mongo_only);
}

#[test]
fn wrong_values_are_named_by_their_path_and_unknown_ones_are_reported() {
    for (path, wrong) in [
        ("redis.url", json!({"redis": {}})),
        ("redis.url", json!({"redis": {"url": "http://secret"}})),
        ("redis.sentinel.master", json!({"redis": {"sentinel": {"nodes": ["a:1"]}}})),
        ("defaults.maxDeliveries", json!({"defaults": {"maxDeliveries": 0}})),
        ("defaults.retryBackoffMs", json!({"defaults": {"retryBackoffMs": []}})),
        ("defaults.tenantId", json!({"defaults": {"tenantId": "a:b"}})),
        ("mongoOnly", json!({"mongoOnly": "yes"})),
        ("redis.tls", json!({"redis": {"url": "redis://x", "tls": "secret"}})),
        ("redis.clusterNodes[1]", json!({"redis": {"clusterNodes": ["a:1", 2]}})),
        ("defaults.visibilityTimeoutMs", json!({"defaults": {"visibilityTimeoutMs": 5}})),
        ("defaults.retryBackoffMs[0]", json!({"defaults": {"retryBackoffMs": ["secret"]}})),
        ("defaults.warmRetentionDays", json!({"defaults": {"warmRetentionDays": 0}})),
        ("chronow", json!("secret")),
    ] {
        let error = Config::from_json(&wrong).unwrap_err();
        assert!(error.message().starts_with(path) && !error.message().contains("secret"), "{error}");
    }
    let config =
        Config::from_json(&json!({"redis": {"url": "redis://x", "keyprefix": "a"}, "default": {}})).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "redis.keyprefix: is not known here and has no effect; did you mean `keyPrefix`?",
            "default: is not known here and has no effect; did you mean `defaults`?",
        ]
    );
}

#[test]
fn what_is_built_is_what_json_would_say() {
    let redis = Redis::cluster(["a:1", "b:2"]).url("rediss://u:pw@x").key_prefix("p:").username("me");
    let redis = redis.password(" spaces ").tls(true).ca_cert("/ca.pem").db(0);
    let space = Space::new("https://s3", "key", "hidden").bucket("large");
    let built = Config::builder()
        .redis(redis)
        .mongo_only(true)
        .mongo_uri("mongodb://localhost")
        .embedded("./data")
        .space(space)
        .tenant("acme")
        .namespace("orders")
        .hot_ttl(None)
        .warm_retention(Duration::from_secs(7 * 86_400))
        .max_value_bytes(1)
        .max_payload_bytes(2)
        .max_message_bytes(3)
        .visibility(Duration::from_millis(1_500))
        .max_deliveries(9)
        .backoff([Duration::ZERO, Duration::from_secs(5)])
        .max_len(10)
        .build()
        .unwrap();
    let read = Config::from_json(&json!({
        "redis": {
            "clusterNodes": ["a:1", "b:2"], "url": "rediss://u:pw@x", "keyPrefix": "p:", "username": "me",
            "password": " spaces ", "tls": true, "caCert": "/ca.pem", "db": 0,
        },
        "mongoOnly": true,
        "mongoUri": "mongodb://localhost",
        "embedded": "./data",
        "space": {"endpoint": "https://s3", "accessKey": "key", "secretKey": "hidden", "bucket": "large"},
        "defaults": {
            "tenantId": "acme", "namespace": "orders", "hotTtlSeconds": 0, "warmRetentionDays": 7,
            "maxValueBytes": 1, "maxPayloadBytes": 2, "maxMessageBytes": 3, "visibilityTimeoutMs": 1500,
            "maxDeliveries": 9, "retryBackoffMs": [0, 5000], "maxStreamLen": 10,
        },
    }))
    .unwrap();
    assert_eq!(format!("{built:#?}"), format!("{read:#?}"));
    let password = |config: Config| config.redis.unwrap().password.unwrap().expose_secret().to_owned();
    assert_eq!((password(built).as_str(), password(read).as_str()), (" spaces ", " spaces "));
}

#[test]
fn what_is_built_wrong_is_named_by_its_path_in_json() {
    let builder = Config::builder;
    let mistakes: [(&str, ConfigBuilder); 13] = [
        ("redis.url: expected", builder().redis(Redis::single("http://hidden"))),
        ("redis.url: is missing", builder().redis(Redis::cluster(Vec::<String>::new()))),
        ("redis.clusterNodes: expected `host:port`", builder().redis(Redis::cluster(["hidden"]))),
        ("redis.sentinel.nodes", builder().redis(Redis::sentinel(Vec::<String>::new(), "main"))),
        ("redis.sentinel.master: is missing", builder().redis(Redis::sentinel(["a:1"], ""))),
        ("space.endpoint: expected", builder().space(Space::new("hidden", "a", "b"))),
        ("space.secretKey: is missing", builder().space(Space::new("https://s3", "a", ""))),
        ("defaults.tenantId", builder().tenant("a:b")),
        ("defaults.warmRetentionDays: must be", builder().warm_retention(Duration::from_secs(5))),
        ("defaults.visibilityTimeoutMs", builder().visibility(Duration::from_millis(5))),
        ("defaults.retryBackoffMs", builder().backoff([])),
        ("defaults.maxStreamLen", builder().max_len(0)),
        ("defaults.hotTtlSeconds: must be", builder().hot_ttl(Some(Duration::ZERO))),
    ];
    for (path, builder) in mistakes {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().starts_with(path) && !error.message().contains("hidden"), "{error}");
    }
}

#[test]
fn a_list_of_nodes_that_is_empty_is_not_taken_for_no_redis() {
    let error = Config::from_env(env(&[("REDIS_CLUSTER_NODES", "[]")])).unwrap_err();
    assert!(error.message().starts_with("redis.url: is missing"), "{error}");
}

#[test]
fn a_key_prefix_keeps_its_blanks() {
    let config = json!({"redis": {"url": "redis://h", "keyPrefix": "app ", "username": " me"}});
    let redis = Config::from_json(&config).unwrap().redis.unwrap();
    assert_eq!(redis.key_prefix.as_deref(), Some("app "));
    assert_eq!(redis.username.as_deref(), Some(" me"));
}

#[tokio::test]
async fn a_field_that_was_set_past_the_builder_is_checked_when_it_connects() {
    let built = || Config::builder().embedded(":memory:").build().unwrap();
    let mut wrong = [built(), built(), built()];
    wrong[0].defaults.tenant = "a:b".to_owned();
    wrong[1].defaults.max_deliveries = 0;
    wrong[2].redis = Some(Redis::cluster(["somewhere"]));
    let paths = ["defaults.tenantId", "defaults.maxDeliveries", "redis.clusterNodes"];
    for (config, path) in wrong.into_iter().zip(paths) {
        let error = Chronow::connect(config, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().starts_with(path), "{error}");
    }
}
