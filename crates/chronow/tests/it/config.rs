//! Configuration from JSON and from the environment.

use std::collections::BTreeMap;

use chronos_db::json;
use chronow::{Config, ErrorKind};
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
        (std::time::Duration::from_secs(5), 7, 1_024)
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
    assert!(config.redis.is_none(), "settings without a server are no server");
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
        "credentials without a storage are no storage"
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
fn wrong_values_are_named_by_their_path_and_unknown_ones_are_told() {
    for (path, wrong) in [
        ("redis.url", json!({"redis": {}})),
        ("redis.url", json!({"redis": {"url": "http://secret"}})),
        ("redis.sentinel.master", json!({"redis": {"sentinel": {"nodes": ["a:1"]}}})),
        ("defaults.maxDeliveries", json!({"defaults": {"maxDeliveries": 0}})),
        ("defaults.retryBackoffMs", json!({"defaults": {"retryBackoffMs": []}})),
        ("defaults.tenantId", json!({"defaults": {"tenantId": "a:b"}})),
        ("mongoOnly", json!({"mongoOnly": "yes"})),
    ] {
        let error = Config::from_json(&wrong).unwrap_err();
        assert!(error.message().starts_with(path) && !error.message().contains("secret"), "{error}");
    }
    let config =
        Config::from_json(&json!({"redis": {"url": "redis://x", "keyprefix": "a"}, "default": {}})).unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}
