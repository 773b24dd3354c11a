//! Shared memory in both tiers.

use std::time::Duration;

use chronos_db::config::Database;
use chronos_db::{Chronos, Json as Value, json};
use chronow::{Chronow, Config, ErrorKind};
use futures::TryStreamExt as _;

use crate::bus::embedded;
use crate::stores::{Stores, on_every_store};

/// Two connections to one store: what one knows, the other does.
async fn pair() -> (Chronos, Chronow, Chronow) {
    let config = chronos_db::config::Config::builder()
        .connection("here", "embedded::memory:")
        .database(Database::messaging("here", "messaging"));
    let chronos = Chronos::open(config.build().unwrap()).unwrap();
    let one = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    let two = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    (chronos, one, two)
}

/// Makes the hot tier forget a key, as the end of its time does.
async fn cool(chronow: &Chronow, key: &str) {
    let scope = chronow::Scope::new("default", "default").unwrap();
    chronow.hot().remove(&scope, key).await.unwrap();
}

#[tokio::test]
async fn values_of_all_kinds_are_read_back() {
    let chronow = embedded().await;
    let shared = chronow.shared();
    for value in [
        json!(null),
        json!({"a": [1, 2.5, "ü"]}),
        json!("text"),
        json!(12345678901234567890123_u128.to_string()),
    ] {
        shared.set("k", &value).await.unwrap();
        assert_eq!(shared.get::<Value>("k").await.unwrap(), Some(value));
    }
    assert_eq!(shared.get::<Value>("absent").await.unwrap(), None);
    assert!(shared.exists("k").await.unwrap() && !shared.exists("absent").await.unwrap());
    assert_eq!(shared.get::<u32>("k").await.unwrap_err().kind(), ErrorKind::Validation);
    let entry = shared.entry::<Value>("k").await.unwrap().unwrap();
    assert!(entry.version > 0);
    assert!(
        entry.ttl.unwrap() <= Duration::from_secs(3_600),
        "values end after an hour unless set otherwise"
    );
    shared.set("k", &1).forever().await.unwrap();
    assert_eq!(shared.entry::<u32>("k").await.unwrap().unwrap().ttl, None);
}

#[tokio::test]
async fn conditions_hold_or_conflict() {
    let chronow = embedded().await;
    let shared = chronow.shared();
    let version = shared.set_if_absent("k", &1).await.unwrap();
    assert_eq!(shared.set_if_absent("k", &2).await.unwrap_err().kind(), ErrorKind::Conflict);
    let next = shared.compare_and_set("k", version, &3).await.unwrap();
    assert_eq!(shared.compare_and_set("k", version, &4).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(next > version);
    assert_eq!(shared.get::<i32>("k").await.unwrap(), Some(3));
    shared.del("k").await.unwrap();
    assert_eq!(shared.get::<i32>("k").await.unwrap(), None);
    assert!(shared.set_if_absent("k", &5).await.unwrap() > next, "a version never comes twice");
}

#[tokio::test]
async fn many_values_counters_and_keys_work() {
    let chronow = embedded().await;
    let shared = chronow.shared();
    shared.set_many([("a/1", 1), ("a/2", 2), ("b", 3)]).await.unwrap();
    assert_eq!(shared.get_many::<i32>(&["b", "x", "a/1"]).await.unwrap(), [Some(3), None, Some(1)]);
    let mut keys: Vec<String> = shared.scan("a/").try_collect().await.unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["a/1", "a/2"]);
    assert_eq!(shared.increment("n", 5).await.unwrap(), 5);
    assert_eq!(shared.increment("n", -2).await.unwrap(), 3);
    assert!(shared.expire("n", Duration::from_secs(60)).await.unwrap());
    assert!(!shared.expire("absent", Duration::from_secs(60)).await.unwrap());
    let mut changes = shared.watch("w").await.unwrap();
    let version = shared.set("w1", &1).await.unwrap();
    let change =
        tokio::time::timeout(Duration::from_secs(30), changes.try_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((change.key.as_str(), change.version), ("w1", version));
}

#[tokio::test]
async fn tenants_and_namespaces_do_not_mix() {
    let chronow = embedded().await;
    let shared = chronow.shared();
    shared.set("k", &1).persist().await.unwrap();
    assert_eq!(shared.tenant("other").unwrap().get::<i32>("k").await.unwrap(), None);
    assert_eq!(shared.namespace("other").unwrap().get::<i32>("k").await.unwrap(), None);
    assert!(shared.tenant("a:b").is_err());
}

#[tokio::test]
async fn wrong_keys_and_large_values_are_refused() {
    let chronow = embedded().await;
    let shared = chronow.shared();
    assert_eq!(shared.set("", &1).await.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(shared.get::<i32>("").await.unwrap_err().kind(), ErrorKind::Validation);
    let large = "x".repeat(262_144);
    assert_eq!(shared.set("k", &large).await.unwrap_err().kind(), ErrorKind::Validation);
    assert!(!shared.exists("k").await.unwrap());
}

#[tokio::test]
async fn a_persisted_value_outlives_the_hot_tier_and_comes_back_into_it() {
    let (_chronos, one, two) = pair().await;
    one.shared().set("kept", &json!({"n": 1})).persist().await.unwrap();
    one.shared().set("fleeting", &1).await.unwrap();
    cool(&one, "kept").await;
    cool(&one, "fleeting").await;
    assert_eq!(two.shared().get::<Value>("kept").await.unwrap(), Some(json!({"n": 1})));
    assert_eq!(two.shared().get::<Value>("fleeting").await.unwrap(), None);
    let scope = chronow::Scope::new("default", "default").unwrap();
    let hot = one.hot().get(&scope, &["kept".to_owned()]).await.unwrap().remove(0).unwrap();
    assert_eq!(hot.bytes.unwrap(), r#"{"n":1}"#, "it was put back");
    assert!(one.shared().set_if_absent("kept", &2).await.is_err());
    cool(&one, "kept").await;
    assert!(one.shared().set_if_absent("kept", &2).await.is_err(), "what the warm tier has is there, too");
}

#[tokio::test]
async fn deleted_stays_deleted_in_both_tiers() {
    let (_chronos, one, two) = pair().await;
    one.shared().set("k", &1).persist().await.unwrap();
    two.shared().del("k").await.unwrap();
    assert_eq!(one.shared().get::<i32>("k").await.unwrap(), None);
    cool(&one, "k").await;
    assert_eq!(one.shared().get::<i32>("k").await.unwrap(), None);
    one.shared().set("k", &2).persist().await.unwrap();
    cool(&one, "k").await;
    assert_eq!(one.shared().get::<i32>("k").await.unwrap(), Some(2), "a later value is a value");
}

#[tokio::test]
async fn versions_are_kept_if_asked_for() {
    let (_chronos, one, _two) = pair().await;
    for n in 0..5 {
        one.shared().set("k", &n).append().max_versions(3).await.unwrap();
    }
    let versions: Vec<_> = one.shared().versions("k").unwrap().try_collect().await.unwrap();
    assert_eq!(
        versions.iter().map(|version| version.value.clone()).collect::<Vec<_>>(),
        [json!(4), json!(3), json!(2)]
    );
    let version = versions[1].version.unwrap();
    assert_eq!(one.shared().get_version::<i32>("k", version).await.unwrap(), Some(3));
    cool(&one, "k").await;
    assert_eq!(one.shared().get::<i32>("k").await.unwrap(), Some(4));
}

async fn bytes_stay_bytes_in_both_tiers(stores: Stores) {
    let chronow = stores.connect().await;
    let shared = chronow.shared();
    shared.set_bytes("b", &b"\xff\0\x01"[..], "image/x").persist().await.unwrap();
    shared.set_bytes("plain", "text", "").await.unwrap();
    shared.set("j", &json!({"a": 1})).persist().await.unwrap();
    let bytes =
        async |key: &str| shared.get_bytes(key).await.unwrap().map(|(bytes, kind)| (bytes.to_vec(), kind));
    let expected = Some((b"\xff\0\x01".to_vec(), "image/x".to_owned()));
    assert_eq!(bytes("b").await, expected);
    assert_eq!(bytes("plain").await, Some((b"text".to_vec(), "application/octet-stream".to_owned())));
    assert_eq!(bytes("j").await, Some((br#"{"a":1}"#.to_vec(), String::new())));
    assert_eq!(bytes("absent").await, None);
    assert_eq!(shared.get::<Value>("b").await.unwrap_err().kind(), ErrorKind::Validation);
    cool(&chronow, "b").await;
    cool(&chronow, "j").await;
    assert_eq!(bytes("b").await, expected, "from the warm tier");
    assert_eq!(shared.get::<Value>("j").await.unwrap(), Some(json!({"a": 1})));
    assert_eq!(
        shared.set_bytes("large", vec![0; 262_145], "").await.unwrap_err().kind(),
        ErrorKind::Validation
    );
}

async fn the_usual_operations_work(stores: Stores) {
    let chronow = stores.connect().await;
    let shared = chronow.shared();
    let version = shared.set_if_absent("k", &1).await.unwrap();
    assert_eq!(shared.set_if_absent("k", &2).await.unwrap_err().kind(), ErrorKind::Conflict);
    shared.compare_and_set("k", version, &2).await.unwrap();
    assert_eq!(shared.compare_and_set("k", version, &3).await.unwrap_err().kind(), ErrorKind::Conflict);
    shared.set_many([("a/1", 1), ("a/2", 2)]).await.unwrap();
    assert_eq!(shared.get_many::<i32>(&["a/2", "none", "k"]).await.unwrap(), [Some(2), None, Some(2)]);
    let mut keys: Vec<String> = shared.scan("a/").try_collect().await.unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["a/1", "a/2"]);
    assert_eq!((shared.increment("n", 5).await.unwrap(), shared.increment("n", -7).await.unwrap()), (5, -2));
    assert!(shared.expire("k", Duration::from_secs(600)).await.unwrap());
    assert!(shared.entry::<i32>("k").await.unwrap().unwrap().ttl.unwrap() <= Duration::from_secs(600));
    for n in 0..4 {
        shared.set("v", &n).append().max_versions(2).await.unwrap();
    }
    let versions: Vec<_> = shared.versions("v").unwrap().try_collect().await.unwrap();
    assert_eq!(
        versions.iter().map(|version| version.value.clone()).collect::<Vec<_>>(),
        [json!(3), json!(2)]
    );
    shared.set("d", &json!(null)).persist().await.unwrap();
    assert_eq!(shared.get::<Value>("d").await.unwrap(), Some(Value::Null), "null is a value");
    shared.del("d").await.unwrap();
    cool(&chronow, "d").await;
    assert_eq!(shared.get::<Value>("d").await.unwrap(), None, "deleted stays deleted");
    assert_eq!(shared.namespace("other").unwrap().get::<i32>("k").await.unwrap(), None);
}

on_every_store! {
    bytes_stay_bytes_in_both_tiers,
    the_usual_operations_work,
}
