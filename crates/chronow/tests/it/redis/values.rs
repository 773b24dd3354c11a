use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chronow::hot::{Change, Incremented, KeyValueStore, Precondition};
use chronow::{ErrorKind, Page};
use futures::StreamExt;

use super::{World, everywhere};
use crate::tiers::{TIMEOUT, within};

everywhere! {
    async fn a_value_keeps_bytes_type_version_and_time(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        let keys = ["a:b{c}".to_owned(), "none".to_owned()];
        let minute = Some(Duration::from_secs(60));
        let put = hot.set(scope, &keys[0], Some(vec![0, 255].into()), "x/y", minute, Precondition::Always).await.unwrap();
        let found = hot.get(scope, &keys).await.unwrap();
        let value = found[0].clone().unwrap();
        assert_eq!((value.bytes.as_deref(), value.content_type.as_str(), value.version), (Some(&[0, 255][..]), "x/y", put.unwrap()));
        assert!(value.ttl.is_some_and(|ttl| ttl > Duration::from_secs(30)));
        assert_eq!(found[1], None);
        assert!(hot.set(scope, &keys[0], Some("2".into()), "", None, Precondition::Always).await.unwrap() > put);
        assert_eq!(hot.get(scope, &keys).await.unwrap()[0].clone().unwrap().ttl, None);
        assert!(hot.expire(scope, &keys[0], Duration::from_millis(100)).await.unwrap());
        let begin = Instant::now();
        while hot.get(scope, &keys).await.unwrap()[0].is_some() {
            assert!(begin.elapsed() < TIMEOUT);
        }
        assert!(!hot.expire(scope, &keys[0], Duration::from_secs(1)).await.unwrap());
    }

    async fn a_condition_decides_whether_a_value_changes(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        let set = async |value: Option<&str>, when| hot.set(scope, "k", value.map(|v| v.to_owned().into()), "", None, when).await.unwrap();
        assert_eq!(set(Some("a"), Precondition::Version(1)).await, None);
        let first = set(Some("a"), Precondition::Unknown).await.unwrap();
        assert_eq!(set(Some("b"), Precondition::Unknown).await, None);
        assert_eq!(set(Some("b"), Precondition::Absent).await, None);
        let second = set(Some("b"), Precondition::Version(first)).await.unwrap();
        assert_eq!(set(Some("c"), Precondition::Version(first)).await, None);
        let third = set(None, Precondition::Always).await.unwrap();
        assert!(first < second && second < third);
        let tombstone = hot.get(scope, &["k".to_owned()]).await.unwrap()[0].clone().unwrap();
        assert_eq!((tombstone.bytes, tombstone.version), (None, third));
        assert_eq!(set(Some("d"), Precondition::Unknown).await, None);
        assert_eq!(hot.keys(scope, "", None, 10).await.unwrap().items, Vec::<String>::new());
        assert!(!hot.remove(scope, "k").await.unwrap());
        assert!(set(None, Precondition::Always).await.unwrap() > third);
        let fourth = set(Some("d"), Precondition::Absent).await.unwrap();
        assert!(hot.remove(scope, "k").await.unwrap());
        assert!(set(Some("e"), Precondition::Unknown).await.unwrap() > fourth);
    }

    async fn of_many_that_compare_and_set_one_wins(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        let first = hot.set(scope, "k", Some("0".into()), "", None, Precondition::Always).await.unwrap().unwrap();
        let tries = futures::future::join_all((0..20).map(|i| hot.set(scope, "k", Some(format!("{i}").into()), "", None, Precondition::Version(first)))).await;
        assert_eq!(tries.into_iter().filter(|result| result.as_ref().unwrap().is_some()).count(), 1);
    }

    async fn counting_uses_all_64_bits(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        assert_eq!(hot.increment(scope, "n", i64::MAX - 1, None).await.unwrap().number, i64::MAX - 1);
        let Incremented { number, version } = hot.increment(scope, "n", 1, Some(Duration::from_secs(60))).await.unwrap();
        assert_eq!(number, i64::MAX);
        let full = hot.increment(scope, "n", 1, None).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Validation, "{full}");
        let value = hot.get(scope, &["n".to_owned()]).await.unwrap()[0].clone().unwrap();
        assert_eq!((value.bytes.as_deref(), value.version), (Some(i64::MAX.to_string().as_bytes()), version));
        assert!(value.ttl.is_some());
        hot.set(scope, "t", Some("{}".into()), "", None, Precondition::Always).await.unwrap();
        assert_eq!(hot.increment(scope, "t", 1, None).await.unwrap_err().kind(), ErrorKind::Validation);
    }

    async fn keys_are_listed_once_in_pages_and_by_a_literal_prefix(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        let puts = (0..300).map(|i| async move { hot.set(scope, &format!("a*{i}"), Some("x".into()), "", None, Precondition::Always).await });
        futures::future::try_join_all(puts).await.unwrap();
        hot.set(scope, "ab", Some("x".into()), "", None, Precondition::Always).await.unwrap();
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let Page { items: page, next, .. } = hot.keys(scope, "a*", after.as_deref(), 50).await.unwrap();
            found.extend(page);
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert!(pages > 1);
        assert!(found.iter().all(|key| key.starts_with("a*")));
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 300);
        assert_eq!(hot.keys(scope, "", Some("x"), 5).await.unwrap_err().kind(), ErrorKind::Validation);
    }

    async fn a_watcher_hears_of_each_change_from_then_on(world: World) {
        let (hot, scope) = (&world.hot, &world.scope);
        hot.set(scope, "a1", Some("x".into()), "", None, Precondition::Always).await.unwrap();
        let mut changes = hot.watch(scope, "a").await.unwrap();
        hot.set(scope, "b", Some("x".into()), "", None, Precondition::Always).await.unwrap();
        let a1 = hot.set(scope, "a1", Some("y".into()), "", None, Precondition::Always).await.unwrap().unwrap();
        let a2 = hot.set(scope, "a:2", None, "", None, Precondition::Always).await.unwrap().unwrap();
        let a3 = hot.increment(scope, "a3", 1, None).await.unwrap().version;
        hot.remove(scope, "a1").await.unwrap();
        let change = |key: &str, version, deleted| Change { key: key.to_owned(), version, deleted, expired: false };
        let mut heard: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for _ in 0..4 {
            let next = within(changes.next()).await.unwrap().unwrap();
            heard.entry(next.key.clone()).or_default().push(next);
        }
        // In order for each key; keys of a cluster live on several servers.
        let expected = [change("a1", a1, false), change("a1", a1 + 1, true), change("a3", a3, false), change("a:2", a2, true)];
        assert_eq!(heard.into_values().flatten().collect::<Vec<_>>(), expected);
    }
}
