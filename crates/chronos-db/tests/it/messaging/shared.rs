//! Shared values.

use chronos_db::messaging::{Messaging, Strategy};
use chronos_db::{Json as Value, Timestamp, json};
use futures::TryStreamExt as _;
use futures::future::join_all;

use super::{Ground, everywhere};

everywhere!(
    the_latest_value_replaces_the_one_before,
    appended_values_are_versions_from_zero_on,
    parallel_appends_make_versions_without_holes_or_duplicates,
    an_append_that_is_repeated_with_its_request_id_changes_nothing,
    a_tombstone_hides_the_value_and_all_versions,
    numbers_go_on_behind_a_tombstone,
    a_tombstone_wins_over_older_values_that_come_late,
    a_purge_leaves_nothing,
    only_the_newest_versions_are_kept,
    parallel_appends_with_a_bound_give_no_number_twice,
    what_has_ended_is_missing_and_is_removed,
    numbers_go_on_when_all_versions_have_ended,
    versions_are_paged_newest_first,
    keys_are_listed_by_namespace_and_prefix,
    every_kind_of_value_comes_back_as_it_was_saved,
    parallel_saves_of_one_key_leave_one_document,
);

fn of(ground: &Ground) -> Messaging {
    ground.shared().messaging("tenant-a").unwrap()
}

async fn load(messaging: &Messaging, key: &str) -> Option<Value> {
    messaging.shared().load("n", key).await.unwrap().map(|found| found.value)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

async fn the_latest_value_replaces_the_one_before(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    let first = shared.save("n", "flags", json!({"beta": true})).await.unwrap();
    let created = shared.load("n", "flags").await.unwrap().unwrap();
    let second = shared.save("n", "flags", json!({"beta": false})).strategy(Strategy::Latest).await.unwrap();
    assert_eq!((first.version, first.applied, &first.id), (None, true, &second.id));
    let now = shared.load("n", "flags").await.unwrap().unwrap();
    assert_eq!((now.value, now.version), (json!({"beta": false}), None));
    assert_eq!(now.created_at, created.created_at);
    assert!(now.updated_at >= created.updated_at);
    assert_eq!(load(&messaging, "other").await, None);
    assert_eq!(shared.load("m", "flags").await.unwrap(), None);
}

async fn appended_values_are_versions_from_zero_on(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    for n in 0..2 {
        assert_eq!(shared.save("n", "session", json!({ "n": n })).append().await.unwrap().version, Some(n));
    }
    let version = |n: i64| shared.load("n", "session").version(n);
    assert_eq!(version(0).await.unwrap().unwrap().value, json!({"n": 0}));
    let newest = shared.load("n", "session").append().await.unwrap().unwrap();
    assert_eq!((newest.value, newest.version), (json!({"n": 1}), Some(1)));
    assert_eq!(version(2).await.unwrap(), None);
    assert_eq!(load(&messaging, "session").await, Some(json!({"n": 1})));
    assert_eq!(shared.load("n", "session").strategy(Strategy::Latest).await.unwrap(), None);
}

async fn parallel_appends_make_versions_without_holes_or_duplicates(ground: Ground) {
    let messaging = of(&ground);
    let saves = (0..16).map(|n| messaging.shared().save("n", "k", json!(n)).append());
    let saved = join_all(saves.map(|save| tokio::spawn(save.into_future()))).await;
    let mut versions: Vec<_> =
        saved.into_iter().map(|saved| saved.unwrap().unwrap().version.unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (0..16).collect::<Vec<_>>());
}

async fn an_append_that_is_repeated_with_its_request_id_changes_nothing(ground: Ground) {
    let messaging = of(&ground);
    let save = || messaging.shared().save("n", "k", json!(1)).append().request_id("r-1");
    let saved = join_all((0..4).map(|_| tokio::spawn(save().into_future()))).await;
    let saved: Vec<_> = saved.into_iter().map(|saved| saved.unwrap().unwrap()).collect();
    assert!(saved.iter().all(|saved| saved.version == Some(0)), "{saved:?}");
    assert_eq!(saved.iter().filter(|saved| saved.applied).count(), 1);
    assert_eq!(messaging.shared().versions("n", "k").await.unwrap().items.len(), 1);
}

async fn a_tombstone_hides_the_value_and_all_versions(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    shared.save("n", "k", json!(1)).await.unwrap();
    shared.save("n", "k", json!(2)).append().await.unwrap();
    assert!(shared.tombstone("n", "k").reason("tenant-deleted").await.unwrap());
    assert_eq!(load(&messaging, "k").await, None);
    assert_eq!(shared.load("n", "k").append().await.unwrap(), None);
    assert_eq!(shared.load("n", "k").version(0).await.unwrap(), None);
    assert_eq!(shared.versions("n", "k").await.unwrap().items, []);
    assert_eq!(shared.list("n").await.unwrap().items, []);
    let left = messaging.collection("shared_memory").unwrap().find(json!({"key": "k"})).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0]["val"], &left[0]["reason"]), (&Value::Null, &json!("tenant-deleted")));
    assert_eq!(left[0]["_system"]["tombstone"], json!(true));
    assert!(left[0]["_system"]["deletedAt"]["$date"].is_string());
    // A newer value lives.
    shared.save("n", "k", json!(3)).await.unwrap();
    assert_eq!(load(&messaging, "k").await, Some(json!(3)));
}

async fn numbers_go_on_behind_a_tombstone(ground: Ground) {
    let shared = of(&ground).shared();
    for n in 0..3 {
        shared.save("n", "k", json!(n)).append().await.unwrap();
    }
    shared.tombstone("n", "k").await.unwrap();
    assert_eq!(shared.save("n", "k", json!("next")).append().await.unwrap().version, Some(3));
    let all = shared.versions("n", "k").await.unwrap().items;
    assert_eq!(all.iter().map(|one| one.version).collect::<Vec<_>>(), [Some(3)]);
    assert_eq!(shared.list("n").await.unwrap().items[0].version, Some(3));
}

async fn a_tombstone_wins_over_older_values_that_come_late(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    assert!(shared.tombstone("n", "k").at(at(10)).await.unwrap());
    for save in
        [shared.save("n", "k", json!("late")).at(at(9)), shared.save("n", "k", json!("late")).at(at(10))]
    {
        assert!(!save.clone().await.unwrap().applied);
        assert!(!save.append().await.unwrap().applied);
    }
    assert_eq!(load(&messaging, "k").await, None);
    assert!(shared.save("n", "k", json!("new")).at(at(11)).await.unwrap().applied);
    assert!(!shared.save("n", "k", json!("older")).at(at(8)).await.unwrap().applied);
    assert!(!shared.tombstone("n", "k").at(at(10)).await.unwrap());
    assert_eq!(load(&messaging, "k").await, Some(json!("new")));
}

async fn a_purge_leaves_nothing(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    shared.save("n", "k", json!(1)).append().await.unwrap();
    shared.save("n", "k", json!(1)).await.unwrap();
    shared.save("n", "other", json!(1)).await.unwrap();
    assert!(shared.tombstone("n", "k").purge().await.unwrap());
    assert!(!shared.tombstone("n", "k").purge().await.unwrap());
    let left = messaging.collection("shared_memory").unwrap().find(json!({})).await.unwrap();
    assert_eq!(left.iter().map(|one| one["key"].clone()).collect::<Vec<_>>(), ["other"]);
}

async fn only_the_newest_versions_are_kept(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    for n in 0..7 {
        assert_eq!(shared.save("n", "k", json!(n)).append().max_versions(3).await.unwrap().version, Some(n));
    }
    let kept = shared.versions("n", "k").await.unwrap().items;
    assert_eq!(kept.iter().map(|one| one.version.unwrap()).collect::<Vec<_>>(), [6, 5, 4]);
    let stored =
        messaging.collection("shared_memory").unwrap().find(json!({"strategy": "append"})).await.unwrap();
    assert_eq!(stored.len(), 3);
    assert_eq!(shared.load("n", "k").version(3).await.unwrap(), None);
    assert_eq!(load(&messaging, "k").await, Some(json!(6)));
    assert!(shared.save("n", "k", json!(0)).append().max_versions(0).await.is_err());
    // The bookkeeping is not a value, and does not stand in the way of one.
    assert_eq!(shared.load("n", "k").strategy(Strategy::Latest).await.unwrap(), None);
    assert!(shared.save("n", "k", json!("latest")).at(at(0)).await.unwrap().applied);
    assert_eq!(shared.save("n", "k", json!(7)).append().await.unwrap().version, Some(7));
}

async fn parallel_appends_with_a_bound_give_no_number_twice(ground: Ground) {
    let messaging = of(&ground);
    let saves = (0..16).map(|n| messaging.shared().save("n", "k", json!(n)).append().max_versions(1));
    let saved = join_all(saves.map(|save| tokio::spawn(save.into_future()))).await;
    let mut versions: Vec<_> =
        saved.into_iter().map(|saved| saved.unwrap().unwrap().version.unwrap()).collect();
    versions.sort_unstable();
    let newest = *versions.last().unwrap();
    versions.dedup();
    assert_eq!(versions.len(), 16);
    let kept = messaging.shared().versions("n", "k").await.unwrap().items;
    assert_eq!(kept.iter().map(|one| one.version.unwrap()).collect::<Vec<_>>(), [newest]);
}

async fn what_has_ended_is_missing_and_is_removed(ground: Ground) {
    let messaging = of(&ground);
    let shared = messaging.shared();
    shared.save("n", "ended", json!(1)).retention_days(1).at(at(0)).await.unwrap();
    shared.save("n", "kept", json!(1)).retention_days(1).await.unwrap();
    shared.save("n", "endless", json!(1)).await.unwrap();
    shared.save("n", "versions", json!("old")).append().await.unwrap();
    shared.save("n", "versions", json!("ended")).append().at(at(0)).retention_days(1).await.unwrap();
    assert_eq!(load(&messaging, "ended").await, None);
    assert_eq!(load(&messaging, "versions").await, Some(json!("old")));
    assert_eq!(shared.versions("n", "versions").await.unwrap().items.len(), 1);
    assert_eq!(
        shared.list("n").prefix("e").await.unwrap().items.iter().map(|key| &*key.key).collect::<Vec<_>>(),
        ["endless"]
    );
    let pruned = messaging.prune().await.unwrap();
    assert_eq!((pruned.shared_memory, pruned.total()), (2, 2));
    assert_eq!(messaging.prune().await.unwrap().total(), 0);
    let left = messaging
        .collection("shared_memory")
        .unwrap()
        .find(json!({"key": {"$in": ["ended", "kept"]}}))
        .await
        .unwrap();
    assert_eq!(left.len(), 1);
    assert!(shared.load("n", "kept").await.unwrap().unwrap().expires_at.is_some());
    // An old tombstone goes, too, and with it the last trace of the key.
    shared.tombstone("n", "kept").retention_days(2).await.unwrap();
    let later = Timestamp::from_millis(shared_now() + 3 * 24 * 60 * 60 * 1000);
    assert_eq!(messaging.prune().at(later).await.unwrap().shared_memory, 1);
    assert_eq!(
        messaging.collection("shared_memory").unwrap().find_one(json!({"key": "kept"})).await.unwrap(),
        None
    );
}

fn shared_now() -> i64 {
    use chronos_db::Clock as _;
    chronos_db::SystemClock.now().as_millis()
}

async fn numbers_go_on_when_all_versions_have_ended(ground: Ground) {
    let messaging = of(&ground);
    for n in 0..3 {
        messaging.shared().save("n", "k", json!(n)).append().at(at(n)).retention_days(1).await.unwrap();
    }
    assert_eq!(messaging.prune().await.unwrap().shared_memory, 3);
    assert_eq!(load(&messaging, "k").await, None);
    assert_eq!(messaging.shared().save("n", "k", json!(3)).append().await.unwrap().version, Some(3));
    assert_eq!(load(&messaging, "k").await, Some(json!(3)));
}

async fn versions_are_paged_newest_first(ground: Ground) {
    let shared = of(&ground).shared();
    for n in 0..5 {
        shared.save("n", "k", json!(n)).append().await.unwrap();
    }
    let first = shared.versions("n", "k").limit(2).await.unwrap();
    shared.save("n", "k", json!("new")).append().await.unwrap();
    let second = shared.versions("n", "k").limit(2).after(first.next.unwrap()).await.unwrap();
    let numbers = |page: &[chronos_db::messaging::SharedValue]| {
        page.iter().map(|one| one.version.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((numbers(&first.items), numbers(&second.items)), (vec![4, 3], vec![2, 1]));
    let all: Vec<_> = shared.versions("n", "k").limit(2).stream().try_collect().await.unwrap();
    assert_eq!(numbers(&all), [5, 4, 3, 2, 1, 0]);
}

async fn keys_are_listed_by_namespace_and_prefix(ground: Ground) {
    let shared = of(&ground).shared();
    for key in ["user.a", "user.b", "user(c", "userx", "gone"] {
        shared.save("n", key, json!(1)).await.unwrap();
    }
    // More versions of one key than are read at once; of few writers, so that none of them meets the others
    // too often in a row.
    let many = join_all((0..5).map(|worker| {
        let shared = shared.clone();
        async move {
            for n in 0..60 {
                shared.save("n", "user.log", json!([worker, n])).append().await.unwrap();
            }
        }
    }));
    many.await;
    shared.save("other", "user.z", json!(1)).await.unwrap();
    shared.tombstone("n", "gone").await.unwrap();
    let keys = |page: &[chronos_db::messaging::SharedKey]| {
        page.iter().map(|one| one.key.clone()).collect::<Vec<_>>()
    };
    let all = shared.list("n").await.unwrap();
    assert_eq!(keys(&all.items), ["user(c", "user.a", "user.b", "user.log", "userx"]);
    assert_eq!((all.items[3].version, all.items[3].strategy), (Some(299), Strategy::Append));
    assert_eq!(all.next, None);
    assert_eq!(
        keys(&shared.list("n").prefix("user.").await.unwrap().items),
        ["user.a", "user.b", "user.log"]
    );
    assert_eq!(keys(&shared.list("n").prefix("user(").await.unwrap().items), ["user(c"]);
    let streamed: Vec<_> = shared.list("n").limit(2).stream().try_collect().await.unwrap();
    assert_eq!(keys(&streamed), keys(&all.items));
}

async fn every_kind_of_value_comes_back_as_it_was_saved(ground: Ground) {
    let messaging = of(&ground);
    let texts = [
        "null",
        "0.10",
        "98765432109876543210",
        r#"{"a.b":{"$gt":1},"z":1,"a":2}"#,
        r#"[1,[2,{"x":"y"}]]"#,
        r#""""#,
    ];
    for text in texts {
        let value: Value = Value::parse(text).unwrap();
        messaging.shared().save("n", "k", value.clone()).await.unwrap();
        assert_eq!(load(&messaging, "k").await.unwrap().to_string(), text);
        messaging.messages().save("t", text, value).await.unwrap();
        assert_eq!(messaging.messages().get("t", text).await.unwrap().unwrap().payload.to_string(), text);
    }
    for (namespace, key) in [("", "k"), ("n", ""), ("n", "a\0b"), ("n", &*"k".repeat(2_000))] {
        let refused = messaging.shared().save(namespace, key, json!(1)).await.unwrap_err();
        assert_eq!(refused.code(), "VALIDATION_ERROR");
    }
}

async fn parallel_saves_of_one_key_leave_one_document(ground: Ground) {
    let messaging = of(&ground);
    let saves = (0..12).map(|n| messaging.shared().save("n", "k", json!(n)));
    for saved in join_all(saves.map(|save| tokio::spawn(save.into_future()))).await {
        assert!(saved.unwrap().unwrap().applied);
    }
    assert_eq!(messaging.collection("shared_memory").unwrap().find(json!({})).await.unwrap().len(), 1);
}
