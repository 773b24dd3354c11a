//! Shared memory: finding keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::until;
use super::values::Memory;
use crate::hot::HotTier;
use crate::{Page, Scope};

async fn all(memory: &Memory, prefix: &str, limit: u32) -> Vec<String> {
    let (mut keys, mut after, mut pages) = (BTreeSet::new(), None::<String>, 0);
    loop {
        let Page { items: page, next, .. } =
            memory.hot.keys(&memory.scope, prefix, after.as_deref(), limit).await.unwrap();
        keys.extend(page);
        pages += 1;
        assert!(pages < 10_000, "the pages never end");
        match next {
            Some(next) => after = Some(next),
            None => return keys.into_iter().collect(),
        }
    }
}

/// Keys are found by prefix.
pub async fn keys_are_found_by_prefix(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    for key in ["user/1", "user/2", "users", "order/1", "u"] {
        memory.set(key, "1").await;
    }
    assert_eq!(all(&memory, "user/", 100).await, ["user/1", "user/2"]);
    assert_eq!(all(&memory, "u", 100).await, ["u", "user/1", "user/2", "users"]);
    assert_eq!(all(&memory, "", 100).await.len(), 5);
    assert!(all(&memory, "x", 100).await.is_empty());
}

/// Keys are paged, and those that stay are all found while others come and go.
pub async fn keys_are_paged(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let mut expected = BTreeSet::new();
    for n in 0..120 {
        let key = format!("k{n:03}");
        memory.set(&key, "1").await;
        expected.insert(key);
    }
    let churn = {
        let memory = memory.clone();
        tokio::spawn(async move {
            for n in 0..40 {
                memory.set(&format!("kx{n}"), "1").await;
                memory.hot.remove(&memory.scope, &format!("kx{n}")).await.unwrap();
            }
        })
    };
    let found: BTreeSet<_> = all(&memory, "k", 7).await.into_iter().collect();
    assert!(expected.is_subset(&found), "missing: {:?}", expected.difference(&found).collect::<Vec<_>>());
    churn.await.unwrap();
    assert_eq!(all(&memory, "k", 7).await, expected.into_iter().collect::<Vec<_>>());
}

/// Signs in keys and prefixes mean themselves.
pub async fn signs_in_keys_and_prefixes_mean_themselves(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let keys = [
        "*",
        "**x",
        "?",
        "[a]",
        "a",
        "a*b",
        "a_b",
        "axb",
        "a%b",
        "a\\b",
        "a.b",
        "a:b",
        "{a}",
        "ключ 1",
        "'q'",
        "\"q\"",
        "A",
    ];
    for key in keys {
        memory.set(key, key).await;
    }
    for key in keys {
        assert_eq!(memory.bytes(key).await.unwrap(), key, "{key}");
        let mut expected: Vec<_> =
            keys.iter().filter(|other| other.starts_with(key)).map(|other| (*other).to_owned()).collect();
        expected.sort_unstable();
        assert_eq!(all(&memory, key, 3).await, expected, "prefix {key}");
    }
}

/// Keys without a value are not listed: tombstones, removed and expired ones.
pub async fn keys_without_value_are_not_listed(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    for key in ["kept", "dead", "removed"] {
        memory.set(key, "1").await;
    }
    memory.set_for("expired", "1", 100).await;
    memory.tombstone("dead").await;
    memory.hot.remove(&memory.scope, "removed").await.unwrap();
    until("the value expires", || async { memory.get("expired").await.is_none() }).await;
    assert_eq!(all(&memory, "", 10).await, ["kept"]);
    memory.set("dead", "2").await;
    assert_eq!(all(&memory, "", 10).await, ["dead", "kept"]);
}

/// Values of scopes do not mix.
pub async fn values_of_scopes_do_not_mix(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let namespace = memory.scope.namespace().to_owned();
    memory.set("k", "mine").await;
    for scope in
        [Scope::new("suite2", &namespace).unwrap(), Scope::new("suite", &format!("{namespace}-2")).unwrap()]
    {
        let other = Memory { hot: Arc::clone(&memory.hot), scope };
        assert_eq!(other.get("k").await, None);
        assert!(all(&other, "", 10).await.is_empty());
        other.set("k", "theirs").await;
        assert_eq!(other.add("n", 1).await.number, 1);
    }
    assert_eq!(memory.bytes("k").await.unwrap(), "mine");
    assert_eq!(all(&memory, "", 10).await, ["k"]);
}
