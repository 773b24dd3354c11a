//! Shared memory (M1 to M5).

use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::ErrorKind;
use futures::TryStreamExt as _;

use crate::tiers::{World, on_every_hot_tier, until, within};

on_every_hot_tier! {
    a_persisted_value_survives_the_hot_tier,
    versions_are_kept_in_order_and_trimmed,
    what_was_deleted_stays_deleted,
    null_is_a_value_and_no_time_is_no_error,
    everything_a_shared_memory_needs_is_there,
}

/// M1: a value kept in the warm tier is read when the hot one has forgotten it, by any reader, and is put back.
async fn a_persisted_value_survives_the_hot_tier(world: World) {
    let value = json!({ "a.b": [1, null, "ü"], "n": 1.5 });
    world.chronow.shared().set("kept", &value).persist().await.unwrap();
    world.chronow.shared().set("fleeting", &1).await.unwrap();
    world.cool("kept").await;
    world.cool("fleeting").await;
    let other = world.another().await;
    assert_eq!(other.shared().get::<Value>("kept").await.unwrap(), Some(value));
    assert_eq!(other.shared().get::<Value>("fleeting").await.unwrap(), None);
    let hot = world.chronow.hot().get(&world.scope(), &["kept".to_owned()]).await.unwrap();
    assert!(hot[0].as_ref().is_some_and(|value| value.bytes.is_some()), "it was put back");
}

/// M2: versions are appended under numbers of their own, the newest is the value, and only as many as asked
/// for are kept.
async fn versions_are_kept_in_order_and_trimmed(world: World) {
    let shared = world.chronow.shared();
    for n in 0..6 {
        shared.set("k", &n).append().max_versions(3).retention_days(9).await.unwrap();
    }
    let versions: Vec<_> = shared.versions("k").unwrap().try_collect().await.unwrap();
    assert_eq!(
        versions.iter().map(|version| version.value.clone()).collect::<Vec<_>>(),
        [json!(5), json!(4), json!(3)]
    );
    assert!(versions.windows(2).all(|pair| pair[0].version > pair[1].version));
    world.cool("k").await;
    assert_eq!(shared.get::<i32>("k").await.unwrap(), Some(5));
    shared.del("k").await.unwrap();
    world.cool("k").await;
    assert_eq!(shared.get::<i32>("k").await.unwrap(), None, "a tombstone wins over all versions");
}

/// M3: a deletion is one in both tiers, and who still carries the old value does not bring it back.
async fn what_was_deleted_stays_deleted(world: World) {
    let (one, other) = (world.chronow.shared(), world.another().await.shared());
    one.set("k", &1).persist().await.unwrap();
    other.del("k").await.unwrap();
    for _ in 0..2 {
        assert_eq!(one.get::<i32>("k").await.unwrap(), None);
        assert!(!one.exists("k").await.unwrap());
        world.cool("k").await;
    }
    one.set("short", &1).ttl(Duration::from_millis(100)).await.unwrap();
    until("its time is over", || async { other.get::<i32>("short").await.unwrap().is_none() }).await;
    assert!(!one.exists("short").await.unwrap(), "what was not kept does not come back");
}

/// M4: null is not nothing; a value may stay for ever; a change that fails leaves both tiers as they were.
async fn null_is_a_value_and_no_time_is_no_error(world: World) {
    let shared = world.chronow.shared();
    shared.set("null", &Value::Null).persist().await.unwrap();
    assert_eq!(shared.get::<Value>("null").await.unwrap(), Some(Value::Null));
    assert!(shared.exists("null").await.unwrap());
    assert_eq!(shared.get::<Value>("absent").await.unwrap(), None);
    world.cool("null").await;
    assert_eq!(shared.get::<Value>("null").await.unwrap(), Some(Value::Null), "from the warm tier, too");
    shared.set("for-ever", &1).forever().await.unwrap();
    assert_eq!(shared.entry::<i32>("for-ever").await.unwrap().unwrap().ttl, None);
    let mut config = world.config.clone();
    config["defaults"]["hotTtlSeconds"] = 0.into();
    let endless = crate::tiers::connect(&config).await;
    endless.shared().set("k", &1).await.unwrap();
    assert_eq!(endless.shared().entry::<i32>("k").await.unwrap().unwrap().ttl, None);
    let large = "x".repeat(262_144);
    assert_eq!(shared.set("k", &large).persist().await.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(shared.get::<i32>("k").await.unwrap(), Some(1));
    world.cool("k").await;
    assert_eq!(shared.get::<i32>("k").await.unwrap(), None, "nothing of it went to the warm tier");
}

/// M5, G8: conditions, versions, numbers, many keys, scanning, watching, and times that end when they say.
async fn everything_a_shared_memory_needs_is_there(world: World) {
    let shared = world.chronow.shared();
    let version = shared.set_if_absent("k", &1).await.unwrap();
    assert_eq!(shared.set_if_absent("k", &2).await.unwrap_err().kind(), ErrorKind::Conflict);
    shared.compare_and_set("k", version, &2).await.unwrap();
    assert_eq!(shared.compare_and_set("k", version, &3).await.unwrap_err().kind(), ErrorKind::Conflict);
    let other = world.another().await.shared();
    let counting =
        (0..20).map(|n| if n % 2 == 0 { shared.increment("n", 2) } else { other.increment("n", 2) });
    futures::future::try_join_all(counting).await.unwrap();
    assert_eq!(shared.increment("n", -40).await.unwrap(), 0);
    shared.set_many([("a/1", 1), ("a/2", 2)]).await.unwrap();
    assert_eq!(shared.get_many::<i32>(&["a/2", "x", "k"]).await.unwrap(), [Some(2), None, Some(2)]);
    let mut keys: Vec<String> = shared.scan("a/").try_collect().await.unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["a/1", "a/2"]);
    let mut changes = shared.watch("w").await.unwrap();
    let version = other.set("w1", &1).await.unwrap();
    let change = within(changes.try_next()).await.unwrap().unwrap();
    assert_eq!((change.key.as_str(), change.version, change.deleted), ("w1", version, false));
    shared.set("short", &1).ttl(Duration::from_secs(1)).await.unwrap();
    let hot = world.chronow.hot();
    let set = hot.now().await.unwrap();
    until("its time is over", || async { hot.now().await.unwrap().as_millis() - set.as_millis() > 1_000 })
        .await;
    assert_eq!(shared.get::<i32>("short").await.unwrap(), None, "nobody waits for a sweeper");
    assert!(!shared.exists("short").await.unwrap());
}
