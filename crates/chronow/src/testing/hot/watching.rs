//! Shared memory: watching changes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::TIMEOUT;
use super::values::Memory;
use crate::hot::{Change, HotTier};
use crate::{Result, Scope};

async fn next(changes: &mut BoxStream<'static, Result<Change>>) -> Change {
    let next = tokio::time::timeout(TIMEOUT, changes.next()).await;
    next.unwrap_or_else(|_| panic!("a change was not reported")).unwrap().unwrap()
}

/// Reads until the change that is waited for; those of the same key before it may be reported together with it.
async fn until_reported(
    changes: &mut BoxStream<'static, Result<Change>>,
    key: &str,
    version: u64,
    deleted: bool,
) {
    loop {
        let change = next(changes).await;
        assert_eq!(change.key, key, "{change:?}");
        assert!(change.version <= version, "{change:?}");
        if change.version == version {
            assert_eq!(change.deleted, deleted, "{change:?}");
            return;
        }
    }
}

/// A watch tells changes and deletions, and tells the newest state of a key last.
pub async fn a_watch_tells_changes_and_deletions(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let mut changes = memory.hot.watch(&memory.scope, "").await.unwrap();
    let version = memory.set("k", "1").await;
    until_reported(&mut changes, "k", version, false).await;
    memory.set("k", "2").await;
    let version = memory.set("k", "3").await;
    until_reported(&mut changes, "k", version, false).await;
    let version = memory.tombstone("k").await;
    until_reported(&mut changes, "k", version, true).await;
    let version = memory.add("n", 4).await.version;
    until_reported(&mut changes, "n", version, false).await;
    assert!(memory.hot.remove(&memory.scope, "n").await.unwrap());
    loop {
        let change = next(&mut changes).await;
        assert_eq!(change.key, "n");
        if change.deleted {
            break;
        }
    }
}

/// A watch sees its prefix and scope only.
pub async fn a_watch_sees_its_prefix_and_scope_only(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let elsewhere = Memory {
        hot: Arc::clone(&memory.hot),
        scope: Scope::new("suite2", memory.scope.namespace()).unwrap(),
    };
    let mut users = memory.hot.watch(&memory.scope, "user*/").await.unwrap();
    let mut everything = memory.hot.watch(&memory.scope, "").await.unwrap();
    elsewhere.set("user*/1", "1").await;
    let other = memory.set("userx/1", "1").await;
    let version = memory.set("user*/1", "1").await;
    until_reported(&mut users, "user*/1", version, false).await;
    let mut seen = vec![next(&mut everything).await, next(&mut everything).await];
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [("user*/1", version), ("userx/1", other)].map(|(key, version)| Change {
        key: key.to_owned(),
        version,
        deleted: false,
        expired: false,
    });
    assert_eq!(seen, expected);
}

/// A watch begins now: what was before is not reported.
pub async fn a_watch_begins_now(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    for n in 0..5 {
        memory.set(&format!("old{n}"), "1").await;
    }
    let mut changes = memory.hot.watch(&memory.scope, "").await.unwrap();
    let version = memory.set("new", "1").await;
    until_reported(&mut changes, "new", version, false).await;
    drop(changes);
    memory.set("new", "2").await;
}

/// A watch tells that the time of a value is over, once: also of one that was there before, or whose time was
/// changed. What was set again, or deleted, does not end.
pub async fn a_watch_tells_the_end_of_a_value(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let old = memory.set_for("old", "1", 1_500).await;
    memory.set_for("other", "1", 1_500).await;
    let mut changes = memory.hot.watch(&memory.scope, "o").await.unwrap();
    memory.set_for("not-watched", "1", 100).await;
    let again = memory.set_for("once more", "1", 300).await;
    memory.set("once more", "2").await;
    memory.set_for("off", "1", 300).await;
    memory.tombstone("off").await;
    let own = memory.set_for("own", "1", 300).await;
    memory.set("ours", "1").await;
    assert!(memory.hot.expire(&memory.scope, "ours", Duration::from_millis(400)).await.unwrap());
    let mut ended = std::collections::BTreeMap::new();
    while ended.len() < 4 {
        let change = next(&mut changes).await;
        if change.expired {
            assert!(change.deleted, "{change:?}");
            assert_eq!(memory.get(&change.key).await, None);
            assert_eq!(
                ended.insert(change.key.clone(), change.version),
                None,
                "{change:?} was reported before"
            );
        }
    }
    assert_eq!(ended.keys().collect::<Vec<_>>(), ["old", "other", "ours", "own"]);
    assert!(ended["old"] > old && ended["own"] > own);
    assert!(memory.get("once more").await.unwrap().version > again);
    let version = memory.set("own", "2").await;
    assert!(version > ended["own"], "what comes next is newer");
    until_reported(&mut changes, "own", version, false).await;
}
